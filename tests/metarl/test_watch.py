"""Watching a policy: the loop without its window, the sliders' tasks, and the message where there is no display."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from metarl.agents.registry import AGENT_SETTINGS
from metarl.deployment.watch import ENTER, HOME, SPACE, Scene, chosen, picture, slider_range, watch
from metarl.envs.foreign.settings import EnvSettings
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.robots.ant_settings import AntLegsSettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.runs.trial import stream
from tests.metarl.test_controller import HOPPER, POINT, make_run


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self):
        self.seconds = 100.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class FakeWindow:
    """A window in which things happen at steps of the loop."""

    def __init__(self, values, steps: int, happens=None):
        self.sliders, self.left, self.happens, self.step = dict(values), steps, happens or {}, 0
        self.loaded, self.shown = [], []

    def is_running(self):
        self.step += 1
        return self.step <= self.left

    def values(self):
        if isinstance(moved := self.happens.get(self.step), dict):
            self.sliders |= moved
        return dict(self.sliders)

    def pressed(self):
        return [key] if isinstance(key := self.happens.get(self.step), int) else []

    def load(self, task):
        self.loaded.append(task)
        self.sliders = dict(task.values)

    def show(self, qpos, lines):
        self.shown.append((qpos.copy(), lines))


def watched(run, steps, happens=None, task=None):
    task = task or run.family.sample(1, np.random.default_rng(0))[0]
    scene, window, clock = Scene(run, task), FakeWindow(task.values, steps, happens), Clock()
    watch(scene, window, clock.now, clock.sleep)
    return scene, window, clock


@pytest.mark.parametrize("name", list(AGENT_SETTINGS))
def test_it_plays_in_real_time_and_adapts_as_the_episodes_come_in(name):
    scene, window, clock = watched(make_run(name, POINT, adaptations=2), 30)
    assert clock.seconds - 100 == pytest.approx(30 * scene.dt)
    assert (scene.episodes, scene.controller.adapted) == (2, 2)
    poses = np.array([qpos for qpos, _ in window.shown])
    assert len(poses) == 30 and np.abs(np.diff(poses, axis=0)).max() > 0
    assert window.shown[-1][1]["adaptations"] == "2 of 2"
    assert window.shown[0][1]["adaptations"] == "0 of 2, episode 1 of 1"
    assert float(window.shown[-1][1]["last return"]) == pytest.approx(scene.last_return, abs=0.1)


def test_pictures_are_no_more_than_60_a_second():
    scene, window, _ = watched(make_run("maml", HOPPER), 61)
    assert scene.dt == pytest.approx(0.016)
    assert 30 <= len(window.shown) <= 61


def test_enter_adapts_at_once_home_begins_anew_and_space_pauses():
    run = make_run("maml", POINT, envs=3, adaptations=2)
    scene, window, _ = watched(run, 4, {2: ENTER})
    assert (scene.controller.adapted, scene.episodes) == (1, 3)
    assert scene.controller.shot_belief.steps == 1
    scene, _, _ = watched(run, 5, {2: ENTER, 3: HOME})
    assert (scene.controller.adapted, scene.episodes) == (0, 0)
    scene, window, _ = watched(run, 9, {3: SPACE, 7: SPACE})
    paused = ["paused" in lines for _, lines in window.shown]
    assert paused == [False] * 2 + [True] * 4 + [False] * 3
    assert all((qpos == window.shown[1][0]).all() for qpos, _ in window.shown[2:6])


def test_a_slider_that_has_come_to_rest_chooses_the_task():
    run = make_run("maml", HalfCheetahMassSettings(horizon=20))
    task = run.family.task({"mass_scale": 1.0})
    happens = {5: {"mass_scale": 1.4}, 8: {"mass_scale": 1.5}, 9: {"mass_scale": 1.3}}
    scene, window, _ = watched(run, 14, happens, task)
    assert window.loaded == []  # 0.25 s
    scene, window, _ = watched(run, 18, happens, task)
    assert window.loaded == [run.family.task({"mass_scale": 1.3})] and scene.task == window.loaded[0]
    masses = [
        scene.env.shards[0].simulation.batch.get_model(0).body_mass.sum(),
        run.family.compile(task).body_mass.sum(),
    ]
    assert masses[0] == pytest.approx(1.3 * masses[1])
    _, window, _ = watched(run, 30, {}, run.family.task({"mass_scale": 9.0}))  # given by --task, beyond the slider
    assert window.loaded == [] and window.shown[-1][1]["beyond training"] == "mass_scale"


def test_sliders_choose_tasks_that_the_family_has():
    legs = make_family(AntLegsSettings())
    neutral = dict(legs.neutral().values)
    [name] = [p.name for p in legs.parameters if p.name in legs.layout][:1]
    low, high = slider_range(legs, next(p for p in legs.parameters if p.name == name))
    assert [chosen(legs, neutral | {name: v}).values[name] for v in (low - 9, low + 0.4, high + 9)] == [low, low, high]


def test_a_parameter_with_one_value_has_a_slider_too():
    family = make_family(QuadrupedSettings(friction=(0.5, 0.5), faults=("dead",), fault_severity=(1.0, 1.0)))
    task = family.sample(1, stream(1, "test"))[0]
    model, _ = picture(family, task)
    assert model.nu == len(family.parameters)
    assert chosen(family, {**task.values, "friction": 0.9, "fault_kind": 0.6}) == task


@pytest.mark.parametrize("name", [n for n, cls in FAMILY_SETTINGS.items() if cls not in (RobotSettings, EnvSettings)])
def test_every_family_has_a_slider_for_every_parameter(name):
    family = make_family(FAMILY_SETTINGS[name]())
    task = family.sample(1, stream(1, "test"))[0]
    model, data = picture(family, task)
    assert [model.actuator(i).name.split(" [")[0] for i in range(model.nu)] == [p.name for p in family.parameters]
    values = dict(zip(task.values, data.ctrl, strict=True))
    assert chosen(family, values) == family.task(task.values)
    mujoco.mj_forward(model, data)
    assert model.nq == family.compile(task).nq and not data.qfrc_actuator.any()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, tiny):
    from metarl.cli import app as cli

    folder = tmp_path_factory.mktemp("watch")
    arguments = ["train", "--runs-dir", str(folder), "--name", "r", "--family", "point_goal", *tiny]
    assert cli.main([*arguments, "training.iterations=1", "tracking.wandb=disabled"]) == 0
    return folder / "r"


def test_without_a_display_it_is_one_line(run_dir, monkeypatch, capsys):
    from metarl.cli import app as cli

    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if not sys.platform.startswith("linux"):
        pytest.skip("displays elsewhere have no name")
    for arguments, message in {
        (str(run_dir),): "there is no display here (DISPLAY is not set); metarl render films the policy without one",
        ("absent",): "no run folder absent",
        (str(run_dir), "--seed", "-1"): "--seed is -1",
        (str(run_dir), "--belif", "x"): "unknown option --belif; did you mean '--belief'?",
        (): "metarl watch takes the folder of one run",
    }.items():
        capsys.readouterr()
        assert cli.main(["watch", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


@pytest.mark.thorough
def test_a_display_that_cannot_be_reached_is_one_line_too(run_dir, metarl, environment):
    if not sys.platform.startswith("linux"):
        pytest.skip("displays elsewhere have no name")
    environment = {k: v for k, v in environment.items() if k != "WAYLAND_DISPLAY"} | {"DISPLAY": ":4321"}
    command = [sys.executable, "-m", "metarl", "watch", str(run_dir)]
    done = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "error: metarl watch opens a window, and no window can be opened here (" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="no virtual display")
def test_on_a_display_mujocos_window_shows_it_and_closes(tmp_path):
    """In a process of its own: a window, another model in it, and an orderly end."""
    script = """
from metarl.deployment.watch import MujocoWindow, Scene, watch
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from tests.metarl.test_controller import make_run

run = make_run("maml", HalfCheetahMassSettings(horizon=20))
tasks = [run.family.task({"mass_scale": x}) for x in (1.0, 1.5)]
window, steps = MujocoWindow(run.family, tasks[0]), []

class Brief:
    def __getattr__(self, name):
        return getattr(window, name)
    def is_running(self):
        steps.append(window.values())
        if len(steps) == 10:
            window._data.ctrl[0] = 1.5
        return window.is_running() and len(steps) < 40

watch(Scene(run, tasks[0]), Brief())
assert steps[0] == {"mass_scale": 1.0} and steps[-1] == {"mass_scale": 1.5} == window.values(), steps[-1]
window.close()
assert not window.is_running()
print("closed")
"""
    display = f":{os.getpid() % 900 + 100}"
    server = subprocess.Popen(["Xvfb", display, "-screen", "0", "800x600x24"], stderr=subprocess.DEVNULL)
    try:
        environment = {**os.environ, "DISPLAY": display, "OMP_NUM_THREADS": "1"}
        for _ in range(50):
            if Path(f"/tmp/.X11-unix/X{display[1:]}").exists():
                break
            import time

            time.sleep(0.1)
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=600,
        )
    finally:
        server.terminate()
        server.wait()
    assert done.returncode == 0 and done.stdout == "closed\n", done.stderr
