"""A run that somebody else made is data: no code of it is run, no link in it is followed; one's own run is its own."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import platform
import shutil
import sys
from pathlib import Path

import mujoco
import pytest
import torch
import yaml

from metarl.cli import app as cli
from metarl.cli.invocation import Invocation
from metarl.config import preset, read_run_config
from metarl.envs.own_robot.settings import RobotSettings
from metarl.errors import RunError
from metarl.files import append, write
from metarl.reporting import agent_figures
from metarl.reporting.report.material import family_of
from metarl.runs.checkpoint import CheckpointError, load, save
from metarl.runs.run import load_run
from metarl.runs.tracking import METRICS, Tracker

MODEL = """<mujoco model="arm"><worldbody><body name="arm" pos="0 0 1"><joint name="j" axis="0 1 0" range="-90 90"/>
  <geom name="g" type="capsule" size=".03" fromto="0 0 0 0 0 -.3"/></body></worldbody>
  <actuator><motor joint="j" ctrlrange="-1 1"/></actuator></mujoco>"""
FAMILY = """
reward: {home_cost: 1}
distribution:
  - {name: load, target: arm, quantity: mass, operation: scale, distribution: uniform, range: [0.5, 1.5]}
"""
EVIL = """
import os, pathlib
pathlib.Path({mark!r}).write_text("owned")
def robot():
    import mujoco
    return mujoco.MjSpec.from_string({model!r})
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A run of one's own robot, trained for an iteration."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "arm.xml").write_text(MODEL)
    (folder / "arm.yaml").write_text(FAMILY)
    few = ["training.tasks=2", "training.envs_per_task=2", "training.threads=1", "evaluation.tasks=2"]
    few += ["evaluation.envs_per_task=2", "evaluation.adaptations=1", "evaluation.seeds=1", "family.horizon=10"]
    few += ["evaluation.bootstrap_samples=20", "training.iterations=1", "tracking.wandb=disabled"]
    robot = ["--robot", str(folder / "arm.xml"), "--family", str(folder / "arm.yaml")]
    assert cli.main(["train", *robot, "--runs-dir", str(folder), "--name", "run", *few]) == 0
    return folder / "run"


@pytest.fixture
def run(sound, tmp_path, monkeypatch) -> Path:
    """A copy of it, somebody's."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sound, tmp_path / "runs" / "theirs")
    return tmp_path / "runs" / "theirs"


def change(run: Path, **settings: str) -> None:
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["family"] |= settings
    path.write_text(yaml.safe_dump(config, sort_keys=False))


COMMANDS = (
    "evaluate {run}",
    "evaluate {run} {run}:label=other",
    "report {run}",
    "render {run}",
    "export {run}",
    "adapt {run} --rollouts rollouts",
    "watch {run}",
    "train --resume {run} training.iterations=2",
)


@pytest.mark.parametrize("form", ["robot/evil.py:robot", "{run}/robot/evil.py:robot", "evil:robot", "runs.evil:robot"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_what_a_run_names(command, form, run, tmp_path, capsys):
    mark = tmp_path / "owned"
    for place in (run / "robot", tmp_path, tmp_path / "runs"):
        (place / "evil.py").write_text(EVIL.format(mark=str(mark), model=MODEL))
    change(run, model=form.format(run=run))
    assert cli.main(command.format(run=run).split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "family.model is the function" in error
    assert "evil" in error and "metarl train --config" in error
    assert not mark.exists() and not {"evil", "runs.evil"} & set(sys.modules)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("setting", ["model", "file"])
def test_a_run_s_robot_is_its_own(command, setting, run, tmp_path, capsys):
    name = {"model": "arm.xml", "file": "arm.yaml"}[setting]
    shutil.copy(run / "robot" / name, tmp_path / name)
    for outside in (str(tmp_path / name), f"../../{name}", f"robot/../../../{name}"):
        change(run, **{setting: outside})
        assert cli.main(command.format(run=run).split()) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"family.{setting} is " in error and "outside of the run" in error


def test_records_of_results_run_no_code(run, tmp_path):
    """A comparison or report that somebody kept names the family of its tasks."""
    mark = tmp_path / "owned"
    (tmp_path / "evil.py").write_text(EVIL.format(mark=str(mark), model=MODEL))
    family = {"name": "robot", "model": "evil:robot", "file": str(run / "robot/arm.yaml"), "horizon": 10}
    kept = type("Kept", (), {"family_settings": family})()
    assert family_of(kept, []) is None  # type: ignore[arg-type]
    other = {"name": "point_goal"}
    assert agent_figures.ranges_to_mark([{"family": family}], other, None, "ood") == {}
    assert not mark.exists()


@pytest.mark.thorough
def test_what_runs_code_says_so(run, tmp_path, capsys):
    mark = tmp_path / "ran"
    (tmp_path / "mine.py").write_text(EVIL.format(mark=str(mark), model=MODEL))
    change(run, model=f"{tmp_path}/mine.py:robot")
    config = (run / "config.yaml").read_text().replace("robot/arm.yaml", f"{run}/robot/arm.yaml")
    (tmp_path / "mine.yaml").write_text(config)
    for help_of in (["train", "--help"], ["robot", "check", "--help"], ["sweep", "--help"]):
        assert cli.main(help_of) == 0
        assert "code is run" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert cli.main(["robot", "check", f"{tmp_path}/mine.py:robot"]) == 0
    assert "what the code of robot returned when it was run" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["train", "--config", "mine.yaml", "--name", "own"]) == 0
    assert f"running the Python function {tmp_path}/mine.py:robot, which" in capsys.readouterr().out
    assert read_run_config(Path("runs/own")).family == RobotSettings(
        "runs/own/robot/robot.xml", "runs/own/robot/arm.yaml", horizon=10
    )
    assert cli.main(["evaluate", "runs/own"]) == 0


@pytest.mark.parametrize("name", ["config.yaml", "error.log", "report.md", "best.pt", "evaluation.json"])
def test_a_file_is_written_in_its_own_place(name, tmp_path):
    """Whatever link lies where it, or what is renamed to it, is to be."""
    victim, missing, theirs = tmp_path / "victim", tmp_path / "missing", tmp_path / "theirs"
    theirs.mkdir()
    victim.write_text("mine")
    for target in (victim, missing):
        for link in (name, f".{name}.{platform.node()}.{os.getpid()}.tmp"):
            (theirs / link).unlink(missing_ok=True)
            (theirs / link).symlink_to(target)
        write(theirs / name, b"new")
        assert (theirs / name).read_bytes() == b"new" and not (theirs / name).is_symlink()
        assert victim.read_text() == "mine" and not missing.exists()
        assert os.listdir(theirs) == [name]


def test_nothing_is_appended_through_a_link(run, tmp_path):
    config = preset("maml", "point_goal")
    for target in (tmp_path / "victim", tmp_path / "missing"):
        (tmp_path / "victim").write_text("mine\n")
        (run / "log").unlink(missing_ok=True)
        (run / "log").symlink_to(target)
        with pytest.raises(RunError, match=r"cannot write .*log: it is a link, and is not followed; remove it"):
            append(run / "log")
        (run / METRICS).unlink()
        (run / METRICS).symlink_to(target)
        with contextlib.suppress(RunError):  # it may replace the link, or refuse it
            Tracker(config, run).close()
        assert (tmp_path / "victim").read_text() == "mine\n" and not (tmp_path / "missing").exists()
    os.mkfifo(run / "pipe")
    with pytest.raises(RunError, match="cannot write .*pipe"):
        append(run / "pipe")
    with append(tmp_path / "plain") as file:
        file.write("a")
    with append(tmp_path / "plain") as file:
        file.write("b")
    assert (tmp_path / "plain").read_text() == "ab"


def test_a_traceback_is_written_through_no_link(run, tmp_path, capsys, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (run / "error.log").symlink_to(victim)
    change(run, horizon=10**18)  # more than any memory holds
    assert cli.main(["evaluate", str(run)]) != 0
    assert "Traceback" not in capsys.readouterr().err
    said = Invocation(run).describe_fault(KeyError("nothing"))
    assert f"the traceback is in {run / 'error.log'}" in said
    assert victim.read_text() == "mine"
    assert "KeyError" in (run / "error.log").read_text() and not (run / "error.log").is_symlink()


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["object", "pickle", "script", "cut"])
def test_no_message_advises_to_load_what_could_run_code(kind, tmp_path):
    path = tmp_path / "a.pt"
    if kind == "object":
        torch.save({"format": 2, "state": Attack(tmp_path / "owned")}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Attack(tmp_path / "owned")))
    elif kind == "script":
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(path))
    else:
        save(path, {"a": torch.zeros(3)})
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CheckpointError) as caught:
        load(path)
    for advice in ("weights_only", "torch", "http", "\n"):
        assert advice not in str(caught.value)
    assert not (tmp_path / "owned").exists()


class TestOwnCopy:
    CODE = """
import pathlib, mujoco
def robot():
    count = pathlib.Path({count!r})
    times = int(count.read_text()) + 1 if count.exists() else 1
    count.write_text(str(times))
    if times > {last}:
        raise RuntimeError("asked once too often")
    return mujoco.MjSpec.from_file({model!r})
"""

    @pytest.fixture
    def own(self, tmp_path, monkeypatch) -> Path:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "arm.xml").write_text(MODEL)
        (tmp_path / "arm.yaml").write_text(FAMILY)
        return tmp_path

    def code(self, own: Path, last: int) -> str:
        names = {"count": str(own / "count"), "model": str(own / "arm.xml"), "last": last}
        (own / "make.py").write_text(self.CODE.format(**names))
        return "make.py:robot"

    @pytest.mark.parametrize("runs", ["runs", "there/already"])
    def test_a_start_that_fails_leaves_nothing_behind(self, runs, own, tiny, capsys):
        if "already" in runs:
            (own / runs).mkdir(parents=True)
        before = sorted(own.rglob("*"))
        arguments = ["train", "--robot", self.code(own, 1), "--family", "arm.yaml", "--runs-dir", runs, "--name", "a"]
        arguments += ["training.iterations=1", "tracking.wandb=disabled", *tiny]
        assert cli.main(arguments) == 2
        assert "asked once too often" in capsys.readouterr().err
        left = {path for path in own.rglob("*") if path not in before and "__pycache__" not in path.parts}
        assert left == {own / "count", own / "make.py"}
        (own / "count").unlink()
        self.code(own, 2)  # once to see whether it can be trained on, once to be copied: training reads the copy
        assert cli.main(arguments) == 0

    def test_a_run_too_large_for_the_memory_leaves_its_name_free(self, own, capsys):
        arguments = ["train", "--robot", "arm.xml", "--family", "arm.yaml", "--name", "a", "tracking.wandb=disabled"]
        large = ["training.tasks=1", "training.envs_per_task=1000", f"family.horizon={10**9}"]
        assert cli.main([*arguments, *large]) == 1
        assert "error: not enough memory" in capsys.readouterr().err
        assert not (own / "runs/a").exists()

    @pytest.mark.thorough
    def test_a_run_is_trained_on_its_own_copy(self, own, tiny):
        arguments = ["train", "--robot", self.code(own, 2), "--family", "arm.yaml", "--name", "a"]
        assert cli.main([*arguments, "training.iterations=1", "tracking.wandb=disabled", *tiny]) == 0
        run = load_run(own / "runs/a")
        assert isinstance(run.config.family, RobotSettings)
        for name in ("arm.xml", "arm.yaml", "make.py"):
            (own / name).unlink()
        masses = run.family.compile(run.family.neutral()).body_mass
        assert masses.tolist() == mujoco.MjModel.from_xml_string(MODEL).body_mass.tolist()
        kept = torch.load(own / "runs/a/checkpoints/iteration_000001.pt", weights_only=True)["state"]["config"][
            "family"
        ]
        assert Path(kept["model"]).parent.name == "robot" and Path(kept["model"]).name == "robot.xml"
        assert cli.main(["train", "--resume", "runs/a", "training.iterations=2"]) == 0
        assert cli.main(["evaluate", "runs/a", "evaluation.split=held_out"]) == 0
        history = (own / "runs/a" / METRICS).read_text().splitlines()
        assert [json.loads(line)["iteration"] for line in history] == [1, 2]
