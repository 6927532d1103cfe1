"""Your own Gymnasium environment by command line and Python: trained on, resumed, judged, filmed, trusted."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import metarl
from metarl.cli import app as cli
from metarl.config import preset, read_run_config, with_settings
from metarl.envs import code
from metarl.envs.foreign.settings import EnvSettings
from metarl.errors import UsageError
from metarl.runs.run import load_run
from metarl.runs.tracking import read_metrics
from tests.metarl.control_loop import loop

OWN = """
import gymnasium
import numpy as np
from gymnasium.spaces import Box
import metarl

class Line(gymnasium.Env):
    '''A point on a line that is rewarded for being near the task's place.'''
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    observation_space, action_space = Box(-np.inf, np.inf, (1,)), Box(-1.0, 1.0, (1,))
    def __init__(self, render_mode=None):
        self.render_mode = render_mode
    def set_task(self, task):
        self.goal = task["place"]
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-0.1, 0.1)
        return np.array([self.x], dtype=np.float32), {}
    def step(self, action):
        self.x += 0.2 * float(action[0])
        distance = abs(self.x - self.goal)
        return np.array([self.x], dtype=np.float32), -distance, False, False, {"near": distance < 0.3}
    def render(self):
        picture = np.full((40, 60, 3), 255, dtype=np.uint8)
        picture[:, int(np.clip(30 + 10 * self.x, 0, 59))] = 0
        return picture

def tasks():
    return metarl.GymTasks(
        make=Line, parameters=(metarl.quantity("place", -1, 1, "m"),), horizon=12, success=metarl.Info("near")
    )
"""
TINY = [
    "training.tasks=3",
    "training.envs_per_task=1",
    "training.checkpoint_every=1",
    "evaluation.tasks=3",
    "evaluation.envs_per_task=2",
    "evaluation.seeds=1",
    "evaluation.bootstrap_samples=20",
    "tracking.wandb=disabled",
    "training.threads=1",
    "family.processes=1",
]


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "line.py").write_text(OWN)
    return tmp_path


def train(*arguments: str) -> int:
    return cli.main(["train", *arguments])


@pytest.mark.thorough
@pytest.mark.parametrize("agent", ["rl2", "ppo", "pearl"])
def test_agents_train_on_it_and_are_judged(own, agent, capsys):
    assert train("--agent", agent, "--env", "line.py:tasks", "--name", "a", "training.iterations=1", *TINY) == 0
    out = capsys.readouterr().out
    assert "running the Python function line.py:tasks" in out and "success" in out
    assert cli.main(["evaluate", "runs/a", "--split", "ood", "evaluation.train_gap=false"]) == 0
    assert "env, out-of-distribution tasks" in capsys.readouterr().out


@pytest.mark.thorough
def test_a_resumed_run_is_the_run_and_stands_beside_another(own, capsys, monkeypatch):
    for name, iterations in (("whole", 3), ("parts", 1)):
        assert (
            train(
                "--agent", "rl2", "--env", "line.py:tasks", "--name", name, f"training.iterations={iterations}", *TINY
            )
            == 0
        )
    assert train("--resume", "runs/parts", "training.iterations=3") == 0
    timed = ("env_steps_per_s", "time/collect", "time/update")
    whole, parts = (
        [{k: v for k, v in line.items() if k not in timed} for line in read_metrics(own / "runs" / name)]
        for name in ("whole", "parts")
    )
    assert whole == parts
    capsys.readouterr()
    monkeypatch.chdir(own.parent)  # the file is found from anywhere
    assert cli.main(["evaluate", str(own / "runs/whole"), str(own / "runs/parts"), "--output", "compared"]) == 0
    compared = json.loads(Path("compared/comparison.json").read_text())
    assert compared["family"] == "env" and len(compared["agents"]) == 2
    assert compared["agents"][0]["returns"] == compared["agents"][1]["returns"]
    monkeypatch.chdir(own)
    assert cli.main(["render", "runs/whole", "--output", "film.mp4"]) == 0
    assert (own / "film.mp4").stat().st_size > 500
    assert cli.main(["families", "show", "--env", "line.py:tasks", "--output", "sheet.png"]) == 0
    assert cli.main(["watch", "runs/whole"]) == 2
    assert cli.main(["train", "--agent", "rl2", "--env", "line.py:tasks", "training.simulator=gpu", *TINY]) in (2,)


@pytest.mark.thorough
def test_only_what_the_user_has_named_is_run(own, capsys):
    assert train("--agent", "rl2", "--env", "line.py:tasks", "--name", "a", "training.iterations=1", *TINY) == 0
    assert read_run_config(own / "runs" / "a").family.source == str(own / "line.py") + ":tasks"
    (own / "state" / "metarl" / "trusted").unlink()  # as on another's machine
    from metarl import trust

    trust._named.clear()
    (own / "ran").unlink(missing_ok=True)
    (own / "line.py").write_text(OWN + "\nopen('ran', 'w')\n")
    capsys.readouterr()
    for command in (
        ["evaluate", "runs/a"],
        ["train", "--resume", "runs/a", "training.iterations=2"],
        ["render", "runs/a"],
    ):
        assert cli.main(command) == 2
        error = capsys.readouterr().err
        assert "no code that a run names is run before you have named it yourself" in error
    assert not (own / "ran").exists()
    assert cli.main(["env", "check", "line.py:tasks"]) == 0
    assert cli.main(["evaluate", "runs/a"]) == 2  # the edited file is trusted, and is another
    (own / "line.py").write_text(OWN)
    assert cli.main(["env", "check", "line.py:tasks"]) == 0
    (own / "line.py").write_text(OWN + "\n# edited\n")
    capsys.readouterr()
    assert cli.main(["evaluate", "runs/a"]) == 2
    assert "line.py has changed since the run was trained" in capsys.readouterr().err
    (own / "line.py").write_text(OWN)
    assert cli.main(["evaluate", "runs/a"]) == 0


@pytest.mark.thorough
def test_an_environment_that_cannot_begin_ends_the_run_which_goes_on_later(own, capsys):
    broken = OWN.replace(
        "        super().reset(seed=seed)\n", "        super().reset(seed=seed)\n        open('works').close()\n"
    )
    (own / "line.py").write_text(broken)
    (own / "works").touch()
    assert train("--agent", "rl2", "--env", "line.py:tasks", "--name", "a", "training.iterations=1", *TINY) == 0
    (own / "works").unlink()
    capsys.readouterr()
    assert train("--resume", "runs/a", "training.iterations=2") == 1
    error = capsys.readouterr().err
    assert "FileNotFoundError" in error and "resume it with: metarl train --resume" in error and error.count("\n") == 1
    (own / "works").touch()
    assert train("--resume", "runs/a", "training.iterations=2") == 0


def test_check_reports(own, capsys):
    assert cli.main(["env", "check", "line.py:tasks"]) == 0
    out = capsys.readouterr().out
    for said in (
        "1 observations: observation",
        "12 steps an episode, 0.05 s each",
        "U(-1, 1)",
        "its length",
        "held-out task",
    ):
        assert said in out
    assert cli.main(["env", "check", "line.py:nothing"]) == 2
    assert "has no function 'nothing'" in capsys.readouterr().err
    for wrong in (
        ["env"],
        ["env", "chek", "x"],
        ["env", "check"],
        ["train", "--env", "line.py:tasks", "--family", "quadruped"],
    ):
        assert cli.main(wrong) == 2
        assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.thorough
def test_python_takes_a_function_and_a_family(own):
    import importlib.util

    spec = importlib.util.spec_from_file_location("line", own / "line.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = with_settings(preset("rl2", "env"), SMALL)
    shorter = dataclasses.replace(config, family=EnvSettings(horizon=7, processes=1))
    seven = metarl.train(shorter, "seven", env=module.tasks)
    assert (seven.family.horizon, seven.config.family.processes) == (7, 1)
    run = metarl.train(config, "function", env=module.tasks)
    assert run.evaluation is not None and metarl.load("runs/function").family.name == "env"
    from metarl.envs.registry import make_family
    from metarl.envs.robots.point_goal_settings import PointGoalSettings

    run = metarl.train(config, "family", env=make_family(PointGoalSettings(horizon=5)))
    assert run.family.horizon == 5 and load_run("runs/family").family.observation_size == run.family.observation_size
    with pytest.raises(UsageError, match="define it by its name in a file"):
        metarl.train(config, "closure", env=lambda: module.tasks())
    saved = json.loads(json.dumps(str(read_run_config(own / "runs" / "family").family.source)))
    assert saved.startswith("object:")


SMALL = {
    "training.iterations": 1,
    "training.tasks": 2,
    "evaluation.tasks": 2,
    "evaluation.envs_per_task": 1,
    "evaluation.bootstrap_samples": 20,
    "evaluation.seeds": (1,),
    "evaluation.train_gap": False,
    "tracking.wandb": "disabled",
}


def own_env():
    """An environment of the user's file, on a task."""
    env = code.load("line.py:tasks")().make()
    env.set_task({"place": 0.5})
    return env


def test_its_policy_runs_in_a_control_loop(own):
    """The controller plays an environment itself, and adapts between its episodes, as evaluation would."""
    assert train("--agent", "rl2", "--env", "line.py:tasks", "--name", "a", "training.iterations=1", *TINY) == 0
    run, env = metarl.load("runs/a"), own_env()
    controller = run.start(adaptations=1, episodes_per_shot=1)
    for episode in range(3):
        observation, _ = env.reset(seed=episode)
        for _ in range(run.family.horizon):
            assert not controller.episode_over
            command = controller.command(controller.act(observation))
            assert command.shape == (1,) and -1 <= command[0] <= 1
            observation, reward, terminated, truncated, _ = env.step(command)
            controller.observe(reward, terminated, truncated)
        assert controller.end_episode(observation) == (episode == 0)
    assert controller.command(np.array([7.0]))[0] == 1


def test_its_policy_is_exported_and_does_in_the_loop_of_docs_what_the_controller_does(own, monkeypatch):
    pytest.importorskip("onnxruntime")
    assert train("--agent", "rl2", "--env", "line.py:tasks", "--name", "a", "training.iterations=1", *TINY) == 0
    assert cli.main(["export", "runs/a", "--output", "p.onnx"]) == 0
    control_loop = loop()
    monkeypatch.setattr(control_loop.time, "sleep", lambda seconds: None)
    policy = control_loop.Policy("p.onnx")
    assert (policy.about["dt"], policy.about["horizon"]) == (0.05, 12)
    env, commands = own_env(), []

    class Robot:
        def reset(self):
            return env.reset(seed=3)[0]

        def send(self, command):
            commands.append(command.copy())

        def read(self):
            observation, reward, terminated, truncated, _ = env.step(commands[-1])
            return observation, reward, terminated or truncated

    control_loop.episode(policy, Robot())
    controller = metarl.load("runs/a").start(adaptations=0, explore="never")
    observation, _ = env.reset(seed=3)
    for command in commands:
        action = controller.act(observation)
        np.testing.assert_allclose(controller.command(action), command, atol=1e-5)
        observation, reward, terminated, truncated, _ = env.step(command)
        controller.observe(reward, terminated, truncated)
    assert len(commands) == 12 and np.ptp(commands) > 0


SWEEP = """
base:
  agent: rl2
  family: env
  family.source: line.py:tasks
  family.processes: 1
  training.iterations: 1
  training.tasks: 2
  training.envs_per_task: 1
  training.checkpoint_every: 1
  training.threads: 1
  evaluation.tasks: 4
  evaluation.envs_per_task: 1
  evaluation.seeds: [1]
  evaluation.bootstrap_samples: 20
  tracking.wandb: disabled
factors: {family.horizon: [6, 9]}
report: {grid: 3}
"""


@pytest.mark.thorough
def test_a_sweep_of_it_ends_with_a_configuration_that_trains(own):
    (own / "s.yaml").write_text(SWEEP)
    assert cli.main(["sweep", "s.yaml"]) == 0
    report = json.loads((own / "runs/s/report.json").read_text())
    assert [trial["state"] for trial in report["trials"]] == ["complete"] * 2
    assert train("--config", "runs/s/best.yaml", "--name", "best", "training.iterations=1") == 0
    assert read_run_config(own / "runs/best").family.source == f"{own / 'line.py'}:tasks"
