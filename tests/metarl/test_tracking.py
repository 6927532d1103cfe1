"""metrics.jsonl and Weights & Biases: what is recorded, and that W&B is never in the way."""

import dataclasses
import json
import os
import resource
import subprocess
import sys

import pytest

from metarl.config import preset
from metarl.errors import RunError, UsageError
from metarl.runs import tracking
from metarl.runs.tracking import Tracker, read_metrics, truncate_metrics, wandb_mode


def config(mode: str):
    base = preset("maml", "point_goal")
    return dataclasses.replace(base, tracking=dataclasses.replace(base.tracking, wandb=mode))


def metrics(iteration: int) -> dict[str, float]:
    return {"iteration": iteration, "env_steps": 100 * iteration, "return/after": -1.0 / iteration}


def test_each_iteration_is_on_disk_when_it_is_over(tmp_path):
    with Tracker(config("disabled"), tmp_path) as tracker:
        for iteration in (1, 2):
            tracker.log(metrics(iteration))
            assert read_metrics(tmp_path)[-1] == metrics(iteration)
        tracker.log({**metrics(3), "gain": float("nan")})
    assert read_metrics(tmp_path)[-1]["gain"] is None
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_resumed_record_is_cut_at_the_checkpoint(tmp_path):
    with Tracker(config("disabled"), tmp_path) as tracker:
        for iteration in range(1, 6):
            tracker.log(metrics(iteration))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 6, "env')
    with Tracker(config("disabled"), tmp_path, {"wandb_id": None}, iteration=3) as tracker:
        tracker.log(metrics(4))
    assert read_metrics(tmp_path) == [metrics(i) for i in range(1, 5)]
    truncate_metrics(tmp_path / "absent.jsonl", 3)
    assert not (tmp_path / "absent.jsonl").exists()


def test_a_full_disk_is_named(tmp_path):
    class Full:
        """/dev/full, of which every write says that the disk is full."""

        def write(self, text):
            with open("/dev/full", "w") as file:
                file.write(text)

        def close(self):
            pass

    with Tracker(config("disabled"), tmp_path) as tracker:
        tracker._file = Full()
        with pytest.raises(RunError, match=r"cannot write .*metrics\.jsonl: No space left on device; make room, then"):
            tracker.log(metrics(1))


@pytest.mark.thorough
def test_the_message_of_a_full_disk_survives_the_end_of_the_record(metarl, tmp_path):
    """What is still in the buffer is refused again when the file is closed."""
    done = metarl(
        "train",
        "--family",
        "point_goal",
        "--name=r",
        "training.tasks=2",
        "training.envs_per_task=2",
        "tracking.wandb=disabled",
        "family.horizon=5",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500)),
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: cannot write runs/r/metrics.jsonl: File too large; make room, then resume with"
    )
    assert done.stderr.count("\n") == 1


def test_auto_is_online_with_credentials_only(monkeypatch, tmp_path):
    assert wandb_mode("auto") == "offline"
    assert wandb_mode("disabled") == "disabled"
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert wandb_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("auto") == "disabled"
    assert wandb_mode("offline") == "offline"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY")
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine api.wandb.ai login user password {'a' * 40}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("WANDB_BASE_URL", "https://api.wandb.ai")
    assert wandb_mode("auto") == "online"


def test_wandb_that_cannot_start_or_log_stops_nothing(tmp_path, monkeypatch, capsys):
    import wandb

    def refuse(**keywords):
        raise wandb.errors.CommError("no such host")

    monkeypatch.setattr(wandb, "init", refuse)
    with Tracker(config("online"), tmp_path) as tracker:
        tracker.log(metrics(1))
    said = capsys.readouterr().err
    assert "warning: W&B could not go online (no such host); recording offline" in said
    assert "warning: W&B could not start (no such host); metrics.jsonl has all metrics" in said
    assert read_metrics(tmp_path) == [metrics(1)]

    class Broken:
        id = "x"

        class settings:  # noqa: N801
            sync_dir = "."

        def define_metric(self, *arguments, **keywords):
            pass

        def log(self, *arguments, **keywords):
            raise RuntimeError("the service died")

    monkeypatch.setattr(wandb, "init", lambda **keywords: Broken())
    with Tracker(config("offline"), tmp_path, iteration=1) as tracker:
        tracker.log(metrics(2))
        tracker.log(metrics(3))
    assert capsys.readouterr().err.count("W&B could not log (the service died)") == 1
    assert read_metrics(tmp_path) == [metrics(i) for i in (1, 2, 3)]


def records(folder):
    (path,) = folder.glob("*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.thorough
def test_an_offline_run_holds_the_metrics_and_goes_on_as_the_same_run(metarl, tmp_path, tiny):
    """A real run, resumed once, read back by W&B's own `wandb leet inspect --json`."""
    done = metarl("train", "--family", "point_goal", "--name", "r", *tiny, "training.iterations=2")
    assert done.returncode == 0, done.stderr
    run_dir = tmp_path / "runs/r"
    (first,) = (run_dir / "wandb").glob("offline-run-*")
    assert f"W&B records offline; upload with: wandb sync runs/r/wandb/{first.name}" in done.stdout
    done = metarl("train", "--resume", "runs/r", "training.iterations=3")
    assert done.returncode == 0, done.stderr
    (second,) = set((run_dir / "wandb").glob("offline-run-*")) - {first}
    assert first.name.split("-")[-1] == second.name.split("-")[-1]

    read = [records(first), records(second)]
    history = [r["history"] for r in read[0] + read[1] if r["type"] == "history"]
    by_step = {row["step"]["num"]: {k: v for k, v in row["item"].items() if not k.startswith("_")} for row in history}
    assert sorted(by_step) == [10, 20, 21, 30, 31]
    logged = [by_step[10 * iteration] for iteration in (1, 2, 3)]
    assert logged == [pytest.approx(line, nan_ok=True) for line in read_metrics(run_dir)]
    for iteration, folder in ((2, first), (3, second)):
        concluded = by_step[10 * iteration + 1]
        assert concluded["env_steps"] == read_metrics(run_dir)[iteration - 1]["env_steps"]
        assert {"evaluation/return_0", "evaluation/gain"} <= set(concluded)
        for name in ("evaluation/adaptation", "evaluation/learning"):
            assert (folder / "files" / concluded[f"{name}.path"]).stat().st_size > 1000

    by_type = {r["type"]: r[r["type"]] for r in read[0] if r["type"] == "run"}
    assert by_type["run"]["project"] == "metarl" and by_type["run"]["display_name"] == "r"
    assert by_type["run"]["config"]["update"]["family"]["name"] == "point_goal"
    axes = [r["metric"] for r in read[0] if r["type"] == "metric"]
    assert {"env_steps"} == {axis["step_metric"] for axis in axes if axis.get("glob_name") == "*"}
    assert not (tmp_path / "wandb").exists()


def test_a_run_that_is_stopped_before_its_first_checkpoint_goes_on_as_the_same_run(tmp_path, capsys):
    first = Tracker(config("offline"), tmp_path)
    known = first.state()["wandb_id"]
    first.close(failed=True)
    assert (tmp_path / tracking.WANDB_ID).read_text() == f"{known}\n"
    with Tracker(config("offline"), tmp_path) as second:
        assert second.state()["wandb_id"] == known
    names = [path.name for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert {name.split("-")[3] for name in names} == {known}  # offline-run-TIME-ID, and a number in the same second


def test_the_id_of_a_checkpoint_comes_before_that_of_the_folder_and_a_damaged_one_is_none(tmp_path):
    (tmp_path / tracking.WANDB_ID).write_text("folder1\n")
    for state, known in (({"wandb_id": "of-old"}, "of-old"), ({"wandb_id": None}, "folder1"), (None, "folder1")):
        with Tracker(config("disabled"), tmp_path, state) as tracker:
            assert tracker.state()["wandb_id"] == known
    for damaged in (b"../x", b"", b"a b", b"\xff", b"a" * 5000):
        (tmp_path / tracking.WANDB_ID).write_bytes(damaged)
        with Tracker(config("disabled"), tmp_path) as tracker:
            assert tracker.state()["wandb_id"] is None


def test_the_folder_of_wandb_is_in_the_run_folder(tmp_path, monkeypatch):
    import os

    import wandb

    monkeypatch.setattr(wandb, "init", lambda **keywords: (_ for _ in ()).throw(RuntimeError(keywords["dir"])))
    monkeypatch.setenv("WANDB_DATA_DIR", "")
    tracking.WandbRun(config("offline"), tmp_path)
    assert os.environ["WANDB_DATA_DIR"] == str(tmp_path / "wandb")


LINES = [json.dumps(metrics(i)).encode() + b"\n" for i in range(1, 7)]
DAMAGED = {
    "whole": (LINES, [1, 2, 3, 4, 5, 6], ""),
    "a gap": (LINES[:2] + LINES[4:], [1, 2, 5, 6], "has no iteration 3 to 4"),
    "gaps": (LINES[1:2] + LINES[3:4] + LINES[5:], [2, 4, 6], "has no iteration 1, 3, 5"),
    "cut": ([*LINES[:3], LINES[3][:-9]], [1, 2, 3], "has a last line that is cut short"),
    "a byte": ([*LINES[:2], b'{"iteration": 3, "\xff": 1}\n', *LINES[3:]], [1, 2, 4, 5, 6], "line at 3"),
    "no number": ([b'{"iteration": 1, "gain": "x"}\n', *LINES[1:]], [2, 3, 4, 5, 6], "line at 1"),
    "infinite": ([b'{"iteration": 1, "gain": 1e999}\n', *LINES[1:]], [2, 3, 4, 5, 6], "line at 1"),
    "deep": ([LINES[0], b"[" * 100_000 + b"\n", *LINES[2:]], [1, 3, 4, 5, 6], "no iteration 2, and a damaged line"),
    "long": ([LINES[0], b'{"iteration": ' + b"9" * 5000 + b"}\n", LINES[1]], [1, 2], "line at 2"),
    "far": ([LINES[0], b'{"iteration": 99999999999}\n', LINES[1]], [1, 2], "line at 2"),
    "no steps": ([b'{"iteration": 1, "env_stepz": 5}\n', *LINES[1:]], [2, 3, 4, 5, 6], "line at 1"),
    "a list": ([b"[1]\n", *LINES[1:]], [2, 3, 4, 5, 6], "line at 1"),
    "twice": ([*LINES[:2], LINES[1]], [1, 2], ""),
    "nothing": ([], [], ""),
}


@pytest.mark.parametrize("what", list(DAMAGED))
def test_what_is_missing_of_the_metrics_is_said_and_the_rest_is_read(what, tmp_path, capsys):
    lines, iterations, said = DAMAGED[what]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(lines))
    assert [line["iteration"] for line in read_metrics(tmp_path)] == iterations
    error = capsys.readouterr().err
    assert error.count("\n") == bool(said) and said in error and len(error) < 600
    truncate_metrics(path, 3)  # a resumed run keeps what is good, and says what is missing up to its checkpoint
    assert [line["iteration"] for line in read_metrics(tmp_path)] == [i for i in iterations if i <= 3]
    missing = [i for i in (1, 2, 3) if i not in iterations]
    assert ("warning: " in capsys.readouterr().err) == bool(missing)


def test_metrics_that_are_gone_or_no_file_are_said(tmp_path, capsys):
    truncate_metrics(tmp_path / "metrics.jsonl", 3)
    assert "metrics.jsonl is missing, with the metrics of 3 iterations" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"cannot read .*metrics.jsonl: No such file"):
        read_metrics(tmp_path)
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(UsageError, match="metrics.jsonl is a pipe"):
        Tracker(config("disabled"), tmp_path)
