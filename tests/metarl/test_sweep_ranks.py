"""Sweeps whose trials are trained by several processes, which torchrun starts."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from metarl.runs.run import load_run
from metarl.runs.tracking import read_metrics
from metarl.sweeps.file import load_sweep
from metarl.sweeps.results import variants_of
from metarl.sweeps.study import Study
from metarl.sweeps.worker import Worker
from metarl.sweeps.yardstick import yardstick

ROOT = Path(__file__).parents[2]
SWEEP = """
base:
  agent: maml
  family: point_goal
  training.iterations: {iterations}
  training.tasks: 2
  training.envs_per_task: 2
  training.checkpoint_every: 1
  training.threads: 1
  family.horizon: {horizon}
  evaluation.tasks: 4
  evaluation.envs_per_task: 2
  evaluation.adaptations: 1
  evaluation.seeds: [1]
  evaluation.bootstrap_samples: 20
  tracking.wandb: disabled
factors: {{agent.inner_lr: {levels}}}
"""


@pytest.fixture
def begin(tmp_path, environment, monkeypatch):
    """Begin the sweep of a file, in a folder of its own; returns it, and the work of one worker with so many ranks."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    for name, value in {**environment, "PYTHONPATH": os.pathsep.join(path)}.items():
        monkeypatch.setenv(name, value)

    def begin(levels: str, iterations: int = 3, horizon: int = 6, name: str = "s", more: str = ""):
        file = tmp_path / "s.yaml"
        file.write_text(SWEEP.format(levels=levels, iterations=iterations, horizon=horizon) + more)
        sweep = load_sweep(file)
        study = Study(sweep, tmp_path / "runs" / name)
        said = []

        def work(ranks: int) -> bool:
            return Worker(sweep, study, yardstick(sweep), 1, say=said.append, ranks=ranks).run()

        return study, work, said

    return begin


def commands() -> dict[int, str]:
    """The command line of every process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found[int(path.parent.name)] = path.read_text().replace("\0", " ")
        except OSError:  # it has ended
            continue
    return found


def ranks_of(folder: Path) -> list[int]:
    """The processes that train in a folder, without torchrun's own."""
    return [pid for pid, command in commands().items() if str(folder) in command and "torch.distributed" not in command]


def wait_for(what, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.thorough
def test_two_processes_bring_a_trial_to_what_one_brings_it_to(begin):
    """Judged for the pruner, too, and in the end; sums of other shares round otherwise."""
    pruner = "pruner: {name: median, every: 1}\n"
    study, work, _ = begin("[0.1]", name="two", more=pruner)
    assert work(2)
    other, alone, _ = begin("[0.1]", name="one", more=pruner)
    assert alone(1)
    [ours], [theirs] = variants_of(study), variants_of(other)
    assert ours.state == theirs.state == "complete"
    assert ours.objective == pytest.approx(theirs.objective, rel=1e-3)
    assert ours.attributes.keys() == theirs.attributes.keys()
    assert study.trials()[0].intermediate_values == pytest.approx(other.trials()[0].intermediate_values, rel=1e-3)
    metrics, expected = (read_metrics(one.directory(0)) for one in (study, other))
    objectives, theirs = ([line["sweep/objective"] for line in lines] for lines in (metrics, expected))
    assert objectives[0] == pytest.approx(theirs[0], rel=1e-5) and objectives == pytest.approx(theirs, rel=1e-3)
    assert "rank" not in (study.directory(0) / "config.yaml").read_text()
    files = [sorted(path.name for path in one.directory(0).iterdir()) for one in (study, other)]
    assert files[0] == files[1]
    assert load_run(study.directory(0)).iteration == 3


@pytest.mark.slow
def test_a_process_that_is_killed_is_started_again_and_one_that_fails_is_the_trials(begin):
    study, work, said = begin("[0.1, -1]", iterations=60, horizon=200)
    killed = []

    def kill_one():
        folder = study.directory(0)
        wait_for(lambda: len(list(folder.glob("checkpoints/iteration_*.pt"))) >= 2)
        killed.extend(ranks_of(folder)[1:])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    assert work(2)
    killer.join()
    done, failed = variants_of(study)
    assert done.state == "complete" and len(killed) == 1
    assert [line["iteration"] for line in read_metrics(study.directory(0))] == list(range(1, 61))
    assert failed.state == "failed"
    assert failed.attributes["error"] == "agent.inner_lr is -1; it must be greater than 0"
    assert said[-1] == "trial_0001: failed: agent.inner_lr is -1; it must be greater than 0"


@pytest.mark.slow
def test_what_so_many_processes_cannot_train_is_the_trials_failure(begin):
    """The refusal may take the variant's folder with it, and the reason stays."""
    study, work, said = begin("[0.1]")
    assert work(3)
    [failed] = variants_of(study)
    assert failed.state == "failed"
    assert said[-1] == "trial_0000: failed: training.tasks is 2, and 3 processes share them; each needs at least one"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_ended_takes_its_processes_with_it_and_goes_on(begin, number, tmp_path):
    study, work, _ = begin("[0.1]", iterations=60, horizon=200)
    command = [sys.executable, "-m", "metarl", "sweep", str(tmp_path / "s.yaml"), "--ranks", "2", "--threads", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    folder = study.directory(0)
    wait_for(lambda: list(folder.glob("checkpoints/iteration_*.pt")))
    assert len(ranks_of(folder)) == 2
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert process.returncode == 143 and "to be resumed\nstopped; start the same command again" in output
        assert not ranks_of(folder)
    assert work(2)  # of those that are left it waits for the end
    assert not ranks_of(folder)
    assert [row.state for row in variants_of(study)] == ["complete"]
    assert [line["iteration"] for line in read_metrics(folder)] == list(range(1, 61))
