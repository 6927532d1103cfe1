"""Runs that are killed at any of their writes, and runs that two processes want."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from metarl.cli import app as cli
from metarl.runs import run_lock
from metarl.runs.checkpoint import CheckpointStore
from metarl.runs.run_lock import LOCK, RunBusy, hold
from metarl.runs.tracking import read_metrics

TIMING = ("env_steps_per_s", "time/collect", "time/update")
BEST = ("training.iterations=3", "training.checkpoint_every=1", "training.keep_checkpoints=1", "training.seed=3")
"""A run whose second of three checkpoints is the best."""


def numbers(run_dir: Path):
    return [{k: v for k, v in line.items() if k not in TIMING} for line in read_metrics(run_dir)]


def files(run_dir: Path) -> set[str]:
    """All files but those that a kill may leave, which nothing reads."""
    return {str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if not path.name.startswith(".")}


def check(numbers_of_writes: str, tmp_path: Path, tiny, environment) -> list[int]:
    """Kill at these writes, go on, and compare with the run that nothing interrupted; returns these numbers."""
    overrides = ["--family", "point_goal", *tiny, *BEST, "tracking.wandb=disabled"]
    command = [
        sys.executable,
        str(Path(__file__).parent / "kills.py"),
        str(tmp_path / "killed"),
        numbers_of_writes,
        *overrides,
    ]
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**environment, **path}, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    assert cli.main(["train", "--runs-dir", str(tmp_path), "--name", "whole", *overrides]) == 0
    whole, tried = tmp_path / "whole", []
    theirs = CheckpointStore(whole / "checkpoints")
    best = theirs.load("best")[1]
    assert best["iteration"] == 2 and best["best_return"] == theirs.load("last")[1]["best_return"]
    for line in map(json.loads, done.stdout.splitlines()):
        run, (said, has, at) = Path(line["run"]), line["before"]
        assert line["status"] == 0, (line, done.stderr)
        assert said is None or has >= said, f"the best checkpoint is stale: {line}"
        assert at is None or numbers(whole)[at - 1]["return/after"] == has
        assert line["after"] == [best["best_return"], best["best_return"], 2]
        assert numbers(run) == numbers(whole) and files(run) == files(whole)
        for which in ("last", "best"):
            ours, expected = (CheckpointStore(r / "checkpoints").load(which)[1] for r in (run, whole))
            torch.testing.assert_close(ours["agent"], expected["agent"], rtol=0, atol=0)
            assert {k: ours[k] for k in ours if k != "agent"} == {k: expected[k] for k in ours if k != "agent"}
        tried.append(int(run.name.removeprefix("at_")))
    return tried


@pytest.mark.thorough
def test_killed_at_a_write_and_gone_on_with_a_run_is_what_it_would_have_been(tmp_path, tiny, environment):
    """Between the two files of the first checkpoint and of a later one, and before the pictures."""
    assert check("10,15,25", tmp_path, tiny, environment) == [10, 15, 25]


@pytest.mark.slow
def test_killed_at_every_write_and_gone_on_with_a_run_is_what_it_would_have_been(tmp_path, tiny, environment):
    assert check("0", tmp_path, tiny, environment) == list(range(1, 44))


@pytest.fixture
def run_dir(tmp_path, tiny):
    arguments = ["--family", "point_goal", *tiny, "training.iterations=3", "training.checkpoint_every=2"]
    assert cli.main(["train", "--runs-dir", str(tmp_path), "--name", "r", *arguments, "tracking.wandb=disabled"]) == 0
    return tmp_path / "r"


def holder(run_dir: Path) -> subprocess.Popen[str]:
    """A process that holds the run, until its input ends or it is killed."""
    script = "import sys; from pathlib import Path; from metarl.runs.run_lock import hold\n"
    script += "with hold(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(run_dir)]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, cwd=root, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.thorough
def test_a_run_that_another_process_trains_is_left_alone(run_dir, capsys):
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with holder(run_dir) as process:
        capsys.readouterr()
        assert cli.main(["train", "--resume", str(run_dir), "training.iterations=5"]) == 2
        message = capsys.readouterr().err
        assert message == (
            f"error: {run_dir} is being trained by process {process.pid}; wait until it ends, or end it, then "
            f"resume the run with: metarl train --resume {run_dir}\n"
        )
        assert {path: path.read_bytes() for path in before} == before
        process.stdin.close()
    assert not (run_dir / LOCK).exists()
    assert cli.main(["train", "--resume", str(run_dir), "training.iterations=5"]) == 0
    assert [line["iteration"] for line in read_metrics(run_dir)] == [1, 2, 3, 4, 5]
    assert not (run_dir / LOCK).exists()


def test_what_a_killed_process_leaves_keeps_nobody_out(run_dir):
    with holder(run_dir) as process:
        process.kill()
    assert (run_dir / LOCK).exists()
    with hold(run_dir):
        assert json.loads((run_dir / LOCK).read_text())["pid"] == os.getpid()
        with pytest.raises(RunBusy, match=f"process {os.getpid()};"), hold(run_dir):
            pass
    assert not (run_dir / LOCK).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 5000, b"\xff\x00", b'{"pid": "x"}'])
def test_a_lock_whose_file_says_nothing_is_a_lock(content, tmp_path):
    with hold(tmp_path):
        (tmp_path / LOCK).write_bytes(content)
        with pytest.raises(RunBusy, match="is being trained by another process; wait"), hold(tmp_path):
            pass


def test_a_lock_that_is_a_link_or_a_pipe_is_not_followed(tmp_path):
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(run_lock.RunError, match=f"cannot lock {tmp_path}"), hold(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_without_locks_a_run_goes_on_and_says_so(tmp_path, monkeypatch, capsys):
    """What network file systems answer, which no test can mount."""

    def refuse(descriptor, operation):
        raise OSError(run_lock.UNKNOWN[0], "No locks available")

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    with hold(tmp_path):
        said = capsys.readouterr().err
    assert f"warning: the file system of {tmp_path} does not support locks (No locks available): nothing" in said
    assert not any(tmp_path.iterdir())


@pytest.mark.thorough
def test_a_run_without_a_checkpoint_begins_anew(run_dir, capsys):
    whole = numbers(run_dir)
    (run_dir / "evaluation/learning.png").unlink()
    for path in [*run_dir.glob("evaluation/*"), *run_dir.glob("checkpoints/*")]:
        path.unlink()
    lines = (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "metrics.jsonl").write_text(lines[0])
    capsys.readouterr()
    assert cli.main(["evaluate", str(run_dir)]) == 2
    said = capsys.readouterr().err
    assert f"no checkpoint in {run_dir}/checkpoints; the run ended before its first one, start it anew by: " in said
    command = said.split("by: metarl ")[1].split()
    assert cli.main(command) == 0
    assert f"{run_dir} has no checkpoint yet: it begins with its first iteration" in capsys.readouterr().out
    assert numbers(run_dir) == whole


@pytest.mark.thorough
def test_a_run_whose_checkpoints_are_gone_is_trained_anew_by_the_command_that_is_named(run_dir, monkeypatch, capsys):
    monkeypatch.chdir(run_dir.parent)
    for path in run_dir.glob("checkpoints/*"):
        path.unlink()
    before = (run_dir / "metrics.jsonl").read_bytes()
    assert cli.main(["train", "--resume", "r"]) == 2
    said = capsys.readouterr().err
    assert "no checkpoint in r/checkpoints, though the run got to iteration 3; train it anew" in said
    assert cli.main(said.split("by: metarl ")[1].split()) == 0
    (again,) = Path("runs").iterdir()
    assert numbers(again) == numbers(run_dir) and (run_dir / "metrics.jsonl").read_bytes() == before


@pytest.mark.thorough
@pytest.mark.parametrize("picture", ["learning.png", "held_out_seeds1_iteration000003.png"])
def test_missing_pictures_of_a_finished_run_are_made(picture, run_dir, capsys):
    (run_dir / "evaluation" / picture).unlink()
    saved = json.loads((run_dir / "evaluation/held_out_seeds1_iteration000003.json").read_text())
    assert cli.main(["train", "--resume", str(run_dir)]) == 0
    assert (run_dir / "evaluation" / picture).stat().st_size > 1000
    again = json.loads((run_dir / "evaluation/held_out_seeds1_iteration000003.json").read_text())
    assert again["returns"] == saved["returns"]
    assert len(list((run_dir / "evaluation").iterdir())) == 5
    assert cli.main(["train", "--resume", str(run_dir)]) == 0
    assert "is finished" in capsys.readouterr().out


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["gone", "cut", "stale"])
def test_a_best_checkpoint_that_is_not_the_best_is_said_and_replaced(how, run_dir, capsys):
    store = CheckpointStore(run_dir / "checkpoints")
    path, state = store.load("best")
    if how == "stale":
        from metarl.runs.checkpoint import save

        save(path, {**state, "best_return": state["best_return"] - 1, "iteration": 1})
    elif how == "gone":
        path.unlink()
    else:
        os.truncate(path, 100)
    assert cli.main(["train", "--resume", str(run_dir), "training.iterations=4"]) == 0
    assert "; the next checkpoint becomes the best" in capsys.readouterr().err
    last, best = (store.load(which)[1] for which in ("last", "best"))
    assert best["iteration"] == 4 and best["best_return"] == last["best_return"]
