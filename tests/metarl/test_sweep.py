"""Sweeps: the file, who runs which trial, what survives a kill, what is said in the end."""

import csv
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from metarl.cli import app as cli
from metarl.config import CONFIG, config_to_dict, load_config, preset
from metarl.envs.parameters import Choice, LogUniform, Uniform
from metarl.envs.registry import make_family
from metarl.errors import UsageError
from metarl.runs.interrupt import Stop
from metarl.runs.run import load_run, start_run
from metarl.runs.tracking import read_metrics
from metarl.runs.trial import stream
from metarl.sweeps import claims as sweep_claims
from metarl.sweeps.file import load_sweep
from metarl.sweeps.results import best_of, conclude, rank_correlation, rows, without_others
from metarl.sweeps.rows import Row
from metarl.sweeps.sweep import Study, Worker, run_point
from metarl.sweeps.tasks import Yardstick, cells, distances, edges, hull, vary, yardstick
from metarl.sweeps.trial import RESULT
from metarl.training.loop import train

BASE = """
base:
  agent: maml
  family: point_goal
  training.iterations: 3
  training.tasks: 2
  training.envs_per_task: 2
  training.checkpoint_every: 1
  training.threads: 1
  family.horizon: 6
  evaluation.tasks: 6
  evaluation.envs_per_task: 2
  evaluation.adaptations: 1
  evaluation.seeds: [1]
  evaluation.bootstrap_samples: 20
  tracking.wandb: disabled
"""
GRID = BASE + "factors: {family.goal_range: [0.2, 0.4], agent.inner_lr: [0.05, 0.1]}\nreport: {grid: 3}\n"
PAIR = BASE + "factors: {agent.inner_lr: [0.05, 0.1]}\nreport: {grid: 3}\n"


@pytest.fixture
def sweep_file(tmp_path):
    """Write a sweep file; returns its path."""

    def write(text: str, name: str = "s.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def work(path: Path, folder: Path, trials: int | None = None) -> tuple[Study, Yardstick]:
    sweep = load_sweep(path, trials)
    study, stick = Study(sweep, folder), yardstick(sweep)
    assert Worker(sweep, study, stick, 1, Stop(), lambda line: None).run()
    return study, stick


MISTAKES = {
    "facters: {}": "unknown key 'facters'; did you mean 'factors'?",
    "{}": "nothing varies; add `factors:`",
    "factors: {}": "nothing varies; `factors:` is empty",
    "factors: {agent.iner_lr: [1, 2]}": "unknown factor 'agent.iner_lr'; did you mean 'agent.inner_lr'?",
    "factors: {family.velocty: {width: [1]}}": "unknown factor 'family.velocty'; did you mean 'family.velocity'?",
    "factors: {evaluation.tasks: [1, 2]}": "evaluation.tasks cannot be swept; agent, family, training, evaluation.adap",
    "factors: {agent.inner_lr: []}": "agent.inner_lr has no levels; list at least one",
    "factors: {agent.inner_lr: 0.1}": "agent.inner_lr is 0.1; list its levels, or give low and high",
    "factors: {agent.inner_lr: [fast]}": "agent.inner_lr[0] is 'fast', text; it must be a finite number",
    "factors: {agent.inner_lr: [1, 1.0]}": "agent.inner_lr has the level 1.0 twice",
    "factors: {agent.inner_lr: {low: 2, high: 1}}": "agent.inner_lr has the empty range [2, 1]; give low < high",
    "factors: {agent.inner_lr: {low: 2, hihg: 1}}": "'factors: agent.inner_lr.hihg'; did you mean 'high'?",
    "factors: {agent.inner_lr: {low: 2}}": "agent.inner_lr has no high; give low and high",
    "factors: {agent.inner_lr: {low: 0, high: 1, log: true}}": "low is 0; a range in the logarithm must be greater",
    "factors: {agent.inner_lr: {low: 1, high: 2}}": "agent.inner_lr is a range, and a grid needs levels: add `levels:",
    "factors: {agent.outer: {low: 1, high: 2}}": "agent.outer is no number, so it has no low and high; list its levels",
    "factors: {family.velocity: {width: [0]}}": "family.velocity has the empty width 0; it must be greater than 0",
    "factors: {family.velocity: {wdith: [1]}}": "unknown key 'factors: family.velocity.wdith'; did you mean 'width'?",
    "factors: {family.velocity: [[2, 1]]}": "family.velocity has the empty range [2, 1]; give low < high",
    "factors: {family.velocity: {width: [1]}, family.velocity_low: [1]}": "both set family.velocity_low; leave one",
    "{factors: {agent.inner_lr: [1]}, method: gird}": "unknown method 'gird'; did you mean 'grid'?",
    "{factors: {agent.inner_lr: [1]}, method: tpe}": "method tpe never ends by itself; say how many `trials:`",
    "{factors: {agent.inner_lr: [1]}, trials: 0}": "trials is 0; it must be at least 1",
    "{factors: {agent.inner_lr: [1]}, pruner: {name: medain}}": "pruner.name is 'medain'; did you mean 'median'?",
    "{factors: {agent.inner_lr: [1]}, pruner: {every: -1}}": "pruner.every is -1; it must be at least 0",
    "{factors: {family.velocity: {width: [1]}}, pruner: {name: median, by: training}}": "family.velocity_low varies",
    "{factors: {agent.inner_lr: [1]}, objective: {measure: retrun}}": "objective.measure is 'retrun'; did you mean",
    "{factors: {agent.inner_lr: [1]}, objective: {ranges: {x: [2, 1]}}}": "ranges.x is the empty range [2, 1]",
    "{factors: {agent.inner_lr: [1]}, objective: {tasks: ood, ranges: {x: [1, 2]}}}": "but objective.tasks is ood",
    "{factors: {agent.inner_lr: [1]}, base: {familly: x}}": "unknown key 'base.familly'; did you mean 'family'?",
    "{factors: {agent.inner_lr: [1]}, base: {training.iters: 3}}": "unknown setting 'base: training.iters'; did you",
    "{factors: {agent.inner_lr: [1]}, base: {training.tasks: 0}}": "training.tasks is 0; it must be at least 1",
    "{factors: {agent.inner_lr: [1]}, base: {config: x.yaml}}": "x.yaml; give a YAML file",
    "{factors: {agent.inner_lr: [1]}, report: {grid: 1}}": "report.grid is 1; it must be at least 2",
    "[": "is not valid YAML",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_the_file_is_one_line(text, sweep_file, capsys):
    assert cli.main(["sweep", str(sweep_file(text))]) == 2
    output, message = capsys.readouterr()
    assert MISTAKES[text] in message
    assert message.startswith("error: ") and message.count("\n") == 1
    assert output == ""


COMMANDS = {
    "": "metarl sweep takes one file (metarl sweep sweep.yaml)",
    "absent.yaml": "no sweep file absent.yaml; give a YAML file with `base:` and `factors:`",
    "s.yaml --wrokers 2": "unknown option --wrokers; did you mean '--workers'?",
    "s.yaml --report=yes": "--report takes no value",
    "s.yaml --worker 2": "unknown option --worker; did you mean '--workers'?",
    "s.yaml --workers 0": "--workers is 0; it must be at least 1",
    "s.yaml --report": "no sweep in runs/s; start it by metarl sweep s.yaml",
    "s.yaml --point 3": "--point is '3'; give the factors' values as JSON, such as '{\"family.goal_range\": 0}'",
    's.yaml --point {"family.goal_range":0.2}': "agent.inner_lr has no value",
    's.yaml --point {"family.goal_range":3,"agent.inner_lr":0.1}': "family.goal_range is 3; its levels are 0.2, 0.4",
    "s.yaml --wandb-file w.txt": "--wandb-file is 'w.txt'; name a file that ends with .yaml",
    "r.yaml": "objective.ranges: family 'point_goal' has no parameter 'goal_xx'; did you mean 'goal_x'?",
    "w.yaml": "objective.tasks is wide, but no factor varies a training range; say by objective.ranges what",
}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_mistake_on_the_command_line_is_one_line(line, sweep_file, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    sweep_file(GRID)
    sweep_file(GRID + "objective: {ranges: {goal_xx: [0, 1]}}", "r.yaml")
    sweep_file(BASE + "factors: {agent.inner_lr: [1]}\nobjective: {tasks: wide}", "w.yaml")
    assert cli.main(["sweep", *line.split()]) == 2
    message = capsys.readouterr().err
    assert COMMANDS[line] in message
    assert message.startswith("error: ") and message.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_help(capsys):
    assert cli.main(["sweep", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: metarl sweep FILE.yaml")


def test_a_factor_sets_what_it_says(sweep_file):
    text = """
    base: {agent: rl2, family: quadruped_terrain}
    factors:
      family.payload_mass: {center: [1, 2.5], width: 1}
      family.difficulty: {width: [0.5]}
      family.kinds: [[flat], [flat, rough]]
      training.adaptations, evaluation.adaptations: [2]
      training.tasks: {low: 4, high: 64, log: true, levels: 3}
    """
    sweep = load_sweep(sweep_file(text))
    points = list(sweep.grid())
    assert len(points) == sweep.trials == 2 * 2 * 3
    first, last = sweep.config(points[0]), sweep.config(points[-1])
    assert first.family.payload_mass == (0.5, 1.5) and last.family.payload_mass == (2.0, 3.0)
    assert (first.family.difficulty_low, first.family.difficulty_high) == (0.25, 0.75)  # the centre stays
    assert (first.family.kinds, last.family.kinds) == (("flat",), ("flat", "rough"))
    assert first.training.adaptations == first.evaluation.adaptations == 2
    assert sorted({sweep.config(p).training.tasks for p in points}) == [4, 16, 64]
    assert all(sweep.point(json.loads(json.dumps(p))) == p for p in points)  # by way of JSON, as W&B gives them


def test_the_tasks_to_judge_on_span_all_training_ranges_and_what_lies_outside(sweep_file):
    text = "base: {family: half_cheetah_velocity}\nfactors: {family.velocity: {center: [1, 2], width: [1, 2]}}\n"
    stick = yardstick(load_sweep(sweep_file(text)))
    # 0 to 2 ... 1 to 3, and half a width beyond the last
    assert dict(stick.wide) == {"target_velocity": Uniform(0.0, 4.0)}
    assert (stick.split, stick.varied) == ("wide", ("target_velocity",))
    stick = yardstick(load_sweep(sweep_file(text + "objective: {ranges: {target_velocity: [0, 9]}}")))
    assert dict(stick.wide) == {"target_velocity": Uniform(0.0, 9.0)}
    stick = yardstick(load_sweep(sweep_file("factors: {agent.inner_lr: [0.1]}")))
    assert (stick.split, dict(stick.wide)) == ("held_out", {})


def test_a_mix_of_terrains_is_judged_on_all_kinds(sweep_file):
    text = """
    base: {family: half_cheetah_terrain}
    factors: {family.kinds: [[flat], [flat, rough]], family.proportions: [[], [1, 3]]}
    """
    sweep = load_sweep(sweep_file(text))
    assert vary(sweep) == {"terrain_kind": Choice((0.0, 4.0, 7.0, 8.0))}  # flat, rough; stepping stones, gaps


def test_hull_of_distributions_of_one_kind():
    assert hull([LogUniform(0.5, 2), LogUniform(0.25, 1)]) == LogUniform(0.25, 2)
    assert hull([Choice((1.0, 2.0)), Choice((5.0,))]) == Choice((1.0, 2.0, 5.0))


def test_distance_from_the_training_range_by_hand():
    axes = {"x": Uniform(0, 10), "m": LogUniform(0.25, 4)}  # log 4 / 0.25 = 4 log 2
    values = {"x": np.array([5, 0, 8, 8.0]), "m": np.array([1, 1, 2, 0.25])}
    ranges = {"x": [3, 5], "m": [0.5, 1]}
    assert distances(values, ranges, axes) == pytest.approx([0, 0.3, np.hypot(0.3, 0.25), np.hypot(0.3, 0.25)])
    assert distances(values, ranges, {"x": axes["x"]}) == pytest.approx([0, -0.3, 0.3, 0.3])
    assert distances({"k": np.array([1, 2.0])}, {"k": [1]}, {"k": Choice((1.0, 2.0))}) == pytest.approx([0, 1])


def test_cells_tile_the_axis():
    assert edges(Uniform(0, 4), 2) == [0, 2, 4] and cells(Uniform(0, 4), 2) == [1, 3]
    assert cells(LogUniform(1, 16), 2) == pytest.approx([2, 8])
    assert edges(Choice((3.0, 1.0)), 9) == [-0.5, 0.5, 1.5] and cells(Choice((3.0, 1.0)), 9) == [1, 3]


def test_rank_correlation_against_the_closed_form():
    rng = np.random.default_rng(0)
    x, y = rng.permutation(9).astype(float), rng.permutation(9).astype(float)
    assert rank_correlation(x**3, y) == pytest.approx(1 - 6 * np.sum((x - y) ** 2) / (9 * 80))  # without ties
    tied = np.array([1, 1, 2, 3.0])  # ranks .5 .5 2 3, against 0 1 2 3: 4.5 / sqrt(4.5 * 5)
    assert rank_correlation(tied, np.arange(4.0)) == pytest.approx(4.5 / np.sqrt(22.5))
    assert rank_correlation(np.ones(4), np.arange(4.0)) == 0


HOLD = "import sys, time; from metarl.sweeps import claims as c; from pathlib import Path;"
HOLD += "held = c.claim(Path(sys.argv[1]), 7, 3); print('held' if held else 'no', flush=True); time.sleep(600)"


def test_a_claim_holds_as_long_as_its_process_lives(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    assert sweep_claims.claim(tmp_path, 7, 3) is None
    assert sweep_claims.running(tmp_path, 7)["pid"] == process.pid
    assert sweep_claims.deaths(tmp_path, 7, 3) == 0
    process.kill()
    process.wait()
    assert sweep_claims.running(tmp_path, 7) is None
    assert (sweep_claims.deaths(tmp_path, 7, 3), sweep_claims.deaths(tmp_path, 7, 4)) == (1, 0)
    mine = sweep_claims.claim(tmp_path, 7, 3)
    assert mine is not None and mine.path.name == "0007.2" and not mine.lost()
    assert sweep_claims.claim(tmp_path, 7, 3) is None  # not even in the same process
    mine.release()
    assert sweep_claims.deaths(tmp_path, 7, 3) == 1  # to stop is not to die
    assert sweep_claims.claim(tmp_path, 7, 3).path.name == "0007.3"


def test_another_machine_is_believed_until_it_is_silent(tmp_path, monkeypatch):
    held = sweep_claims.claim(tmp_path, 0, 0)
    monkeypatch.setattr(sweep_claims, "machine", lambda: "another kernel")
    assert sweep_claims.claim(tmp_path, 0, 0) is None
    past = time.time() - sweep_claims.STALE_S - 1
    os.utime(held.path, (past, past))
    taken = sweep_claims.claim(tmp_path, 0, 0)
    assert taken is not None and held.lost() and not taken.lost()


def test_of_many_that_claim_at_once_one_gets_it(tmp_path):
    script = HOLD.replace("time.sleep(600)", "sys.stdin.read()")
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", script, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    said = [process.stdout.readline().strip() for process in crowd]
    for process in crowd:
        process.communicate()
    assert sorted(said) == ["held", "no", "no", "no"]


def test_a_sweep_trains_every_point_once_and_says_what_it_came_to(sweep_file, tmp_path, capsys):
    path, folder = sweep_file(GRID), tmp_path / "runs/s"
    study, stick = work(path, folder)
    table = rows(study)
    assert [row.state for row in table] == ["complete"] * 4
    assert [row.params for row in table] == list(study.sweep.grid())
    journal = (folder / "journal.log").read_bytes()
    again, _ = work(path, folder)  # nothing is left to do
    assert [t.number for t in again.trials()] == [0, 1, 2, 3]
    assert journal in (folder / "journal.log").read_bytes()

    said = []
    conclude(study, stick, said.append)
    assert sum(line.endswith("  (other factors taken out)") for line in said) == 2
    report = json.loads((folder / "report.json").read_text())
    for name in report["figures"].values():
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert set(report["figures"]) == {"effects", "generalisation", "heat_map"}
    with open(folder / "trials.csv") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["objective"]) for line in lines] == [row.objective for row in table]
    means = {
        level: np.mean([float(line["objective"]) for line in lines if line["agent.inner_lr"] == level])
        for level in ("0.05", "0.1")
    }
    effect = next(e for e in report["effects"] if e["name"] == "agent.inner_lr")
    assert {level["name"]: level["value"] for level in effect["levels"]} == pytest.approx(means)  # IQM of two
    assert [e["others_out"] for e in report["effects"]] == [True, True]
    best = max(table, key=lambda row: row.objective or -np.inf)
    config = load_config(folder / "best.yaml")
    assert config == study.sweep.config(best.params)

    run = load_run(folder / f"trial_{best.number:04d}")  # a run folder like any other
    assert (run.config.agent, run.config.family) == (config.agent, config.family)
    assert cli.main(["evaluate", str(run.directory), "evaluation.tasks=2"]) == 0
    found = json.loads((run.directory / RESULT).read_text())
    assert np.mean(found["after"]) == pytest.approx(best.objective)
    assert read_metrics(run.directory)[-1]["sweep/objective"] == best.objective
    assert max(abs(task["goal_x"]) for task in found["tasks"]) > 0.2  # judged outside of the narrow range too
    other = json.loads((folder / "trial_0000" / RESULT).read_text())
    assert other["tasks"] == found["tasks"]  # all trials on the same tasks
    capsys.readouterr()


def test_a_kill_repeats_nothing_and_loses_nothing(sweep_file, tmp_path, environment):
    """kill -9 in the middle of a trial; then two processes on the one journal end the sweep."""
    path = sweep_file(PAIR.replace("[0.05, 0.1]", "[0.05, 0.1, 0.2]").replace("iterations: 3", "iterations: 20"))
    folder = tmp_path / "runs/s"
    command = [sys.executable, "-m", "metarl", "sweep", str(path)]
    env = {**environment, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    while not list(folder.glob("trial_0001/checkpoints/iteration_*.pt")):  # most of 20 iterations are left
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with open(folder / "journal.log", "ab") as file:  # and a line that was cut short
        file.write(b'{"op_code":')
    done = subprocess.run(
        [*command, "--workers", "2"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "1 ended, 1 to be gone on with" in done.stdout
    assert re.search(r"trial 1: .* gone on with from iteration \d+\n", done.stdout)

    study = Study(load_sweep(path), folder)
    assert [row.state for row in rows(study)] == ["complete"] * 3
    assert [row.params for row in rows(study)] == list(study.sweep.grid())
    claims = [len(sweep_claims.claims(study.claims, number)) for number in range(3)]
    assert claims == [1, 2, 1]  # each trial had one process, the killed one another after it
    pids = {sweep_claims.read(p)["pid"] for number in (1, 2) for p in sweep_claims.claims(study.claims, number)[-1:]}
    assert process.pid not in pids
    for number in range(3):
        log = (study.directory(number) / "output.log").read_text()
        iterations = [int(i) for i in re.findall(r"^iteration (\d+)/20", log, re.MULTILINE)]
        repeated = len(iterations) - len(set(iterations))
        assert sorted(set(iterations)) == list(range(1, 21))
        assert repeated <= (number == 1)  # killed between an iteration's line and its checkpoint
    # What it went on to is what it would have come to.
    config = study.sweep.config(list(study.sweep.grid())[1])
    whole = train(config, start_run(config, tmp_path, "whole"))
    for name in ("return/after", "env_steps"):
        ours = [line[name] for line in read_metrics(study.directory(1))]
        assert ours == [line[name] for line in read_metrics(whole.directory)]


def test_a_stop_leaves_a_checkpoint_and_the_next_goes_on(sweep_file, tmp_path):
    path, folder = sweep_file(PAIR), tmp_path / "runs/s"
    sweep = load_sweep(path)
    study, stick, stop, said = Study(sweep, folder), yardstick(sweep), Stop(), []

    def say(line: str) -> None:
        said.append(line)
        stop.requested = True  # as soon as the first trial starts

    assert not Worker(sweep, study, stick, 1, stop, say).run()
    assert said[-1] == "trial 0: stopped at iteration 1, to be gone on with"
    assert study.iteration(0) == 1 and study.holder(0) is None
    other = Study(sweep, folder)
    found = [study.next(), other.next()]  # the one that was left, and a new one: never the same
    assert [trial.number for trial, _ in filter(None, found)] == [0, 1]
    assert study.next() is None
    for _, claim in filter(None, found):
        claim.release()
    work(path, folder)
    assert [row.state for row in rows(study)] == ["complete"] * 2


def test_a_trial_that_cannot_be_is_recorded_and_the_sweep_goes_on(sweep_file, tmp_path, monkeypatch):
    from metarl.sweeps import trial as module

    def break_once(config, *arguments):
        if config.agent.inner_lr == 0.1:
            raise KeyError("theta")
        return train(config, *arguments)

    monkeypatch.setattr(module, "train", break_once)
    path = sweep_file(GRID.replace("[0.2, 0.4]", "[-1, 0.4]"))
    study, stick = work(path, tmp_path / "runs/s")
    table = rows(study)
    assert [row.state for row in table] == ["failed", "failed", "complete", "failed"]
    assert "the range (1, -1) is reversed or empty" in table[0].attributes["error"]
    assert table[3].attributes["error"] == "'theta'"
    assert "in break_once" in (study.directory(3) / "error.log").read_text()
    conclude(study, stick, lambda line: None)
    assert '"failed"' in (tmp_path / "runs/s/report.json").read_text()


def test_a_trial_that_is_judged_on_its_own_evaluations_tasks_is_evaluated_once(sweep_file, tmp_path, monkeypatch):
    from metarl.evaluation import evaluate as evaluation

    calls = []
    run_trials = evaluation.run_trials

    def counted(*arguments, **keywords):
        calls.append(arguments)
        return run_trials(*arguments, **keywords)

    monkeypatch.setattr(evaluation, "run_trials", counted)
    study, _ = work(sweep_file(PAIR), tmp_path / "runs/s")
    assert len(calls) == 2  # of two trials
    for row in rows(study):
        [saved] = (study.directory(row.number) / "evaluation").glob("*.json")
        returns = np.array(json.loads(saved.read_text())["returns"])
        assert returns[:, -1].mean() == pytest.approx(row.objective)
        assert read_metrics(study.directory(row.number))[-1]["sweep/objective"] == row.objective


def test_a_fault_of_the_machine_is_no_fault_of_the_trial(sweep_file, tmp_path, monkeypatch):
    from metarl.sweeps import trial as module

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "train", full)
        with pytest.raises(OSError, match="No space left"):
            work(sweep_file(PAIR), tmp_path / "runs/s")
    study, _ = work(sweep_file(PAIR), tmp_path / "runs/s")
    assert [row.state for row in rows(study)] == ["complete"] * 2


def test_a_trial_whose_process_always_dies_is_given_up(sweep_file, tmp_path):
    path, folder = sweep_file(PAIR), tmp_path / "runs/s"
    study = Study(load_sweep(path), folder)
    for _, claim in filter(None, [study.next()]):
        claim.release()
    for _ in range(3):
        script = HOLD.replace(", 7, 3)", ", 0, 0)").replace("time.sleep(600)", "import os; os.kill(os.getpid(), 9)")
        subprocess.run([sys.executable, "-c", script, str(study.claims)], check=False, capture_output=True)
    work(path, folder)
    table = rows(study)
    assert table[0].attributes["error"] == "its process died 3 times at iteration 0, or right after it"
    assert [row.state for row in table] == ["failed", "complete"]


def test_the_pruner_ends_what_is_worse_than_the_others(sweep_file, tmp_path, monkeypatch):
    text = BASE + "factors: {agent.inner_lr: [0.1, 0.2, 0.3]}\npruner: {name: median, startup_trials: 1, every: 1}\n"
    scores = iter([1.0] * 4 + [0.0] * 10)
    monkeypatch.setattr(Yardstick, "value", lambda self, result: next(scores))
    study, _ = work(sweep_file(text), tmp_path / "runs/s")
    table = rows(study)
    assert [row.state for row in table] == ["complete", "pruned", "pruned"]
    assert [row.attributes["iteration"] for row in table] == [3, 1, 1]
    assert load_run(study.directory(1)).iteration == 1  # a run folder with a checkpoint, too


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_points_of_a_range_do_not_depend_on_who_draws_them(method, sweep_file, tmp_path):
    text = BASE + f"method: {method}\ntrials: 6\nfactors:\n  agent.inner_lr: {{low: 0.01, high: 1, log: true}}\n"
    text += "  training.tasks: {low: 1, high: 9}\n  family.goal_range: [0.2, 0.4]\n"
    sweep = load_sweep(sweep_file(text))

    def draw(folder: Path, studies: int) -> list[dict]:
        several = [Study(sweep, folder) for _ in range(studies)]
        points = []
        for i in range(6):
            study = several[i % studies]
            for trial, claim in filter(None, [study.next()]):
                points.append(study.suggest(trial))
                study.finish(trial, points[-1]["agent.inner_lr"], {})
                claim.release()
        assert all(study.next() is None for study in several)
        return points

    alone, shared = draw(tmp_path / "alone", 1), draw(tmp_path / "shared", 3)
    assert alone == shared
    assert len({p["agent.inner_lr"] for p in alone}) == 6
    assert all(0.01 <= p["agent.inner_lr"] <= 1 and p["training.tasks"] in range(1, 10) for p in alone)


def test_a_changed_file_is_refused_by_what_changed(sweep_file, tmp_path):
    folder = tmp_path / "runs/s"
    Study(load_sweep(sweep_file(GRID)), folder)
    changed = GRID.replace("iterations: 3", "iterations: 4").replace("[0.05, 0.1]", "[0.05]")
    with pytest.raises(UsageError) as caught:
        Study(load_sweep(sweep_file(changed)), folder)
    assert f"{folder} holds trials of another sweep: base.training.iterations was 3" in str(caught.value)
    assert "base.training.iterations was 3, is 4; factors.agent.inner_lr was [0.05, 0.1], is [0.05]" in str(
        caught.value
    )
    with pytest.raises(UsageError, match="its factors were family.goal_range, agent.inner_lr, now agent.discount"):
        Study(load_sweep(sweep_file(BASE + "factors: {agent.discount: [0.9]}")), folder)
    # What changes no number may change: more trials, another report, other threads.
    same = GRID.replace("grid: 3", "grid: 4").replace("threads: 1", "threads: 2")
    Study(load_sweep(sweep_file(same), trials=3), folder)


def test_the_best_of_several_seeds_is_the_best_on_average():
    scores = {(0.1, 1): 9.0, (0.1, 2): 0.0, (0.2, 1): 5.0, (0.2, 2): 6.0, (0.3, 1): 99.0}  # the last: one seed only
    table = [
        Row(i, "complete", {"agent.inner_lr": lr, "training.seed": seed}, score, {})
        for i, ((lr, seed), score) in enumerate(scores.items())
    ]
    assert best_of(table).number == 3


def test_a_whole_grid_takes_the_other_factors_out():
    """y = a_i + b_j: a block's own level is gone, what is left is a_i + mean(b), exactly."""
    a, b = {0.1: 1.0, 0.2: 4.0}, {1: 0.0, 2: 30.0, 3: 60.0}
    table = [Row(0, "complete", {"lr": i, "seed": j}, a[i] + b[j], {}) for i in a for j in b]
    y = np.array([row.objective for row in table])
    assert without_others("lr", table, y) == pytest.approx([31.0] * 3 + [34.0] * 3)
    assert without_others("seed", table, y) == pytest.approx([2.5, 32.5, 62.5] * 2)
    assert without_others("lr", table[1:], y[1:]) is None  # not whole


def test_the_file_for_wandb_is_understood_by_wandb_and_by_us(sweep_file, tmp_path, monkeypatch):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args, load_sweep_config

    monkeypatch.chdir(tmp_path)
    text = BASE + "method: tpe\ntrials: 5\nfactors:\n  agent.inner_lr: {low: 0.01, high: 1, log: true}\n"
    text += "  training.tasks: {low: 2, high: 4}\n  agent.hidden_sizes: [[4], [8, 8]]\n"
    text += "pruner: {name: successive_halving}\n"
    path = sweep_file(text)
    assert cli.main(["sweep", str(path), "--wandb-file", "w.yaml"]) == 0
    config = load_sweep_config("w.yaml")
    assert config["metric"] == {"name": "sweep/objective", "goal": "maximize"}
    assert (config["method"], config["run_cap"], config["program"]) == ("bayes", 5, "metarl")
    assert config["parameters"] == {
        "agent.inner_lr": {"distribution": "log_uniform_values", "min": 0.01, "max": 1.0},
        "training.tasks": {"distribution": "int_uniform", "min": 2, "max": 4},
        "agent.hidden_sizes": {"values": [[4], [8, 8]]},
    }
    assert config["early_terminate"] == {"type": "hyperband", "min_iter": 1, "eta": 3}
    # The command that W&B's agent makes of it, with its own macros.
    values = {"agent.inner_lr": 0.5, "training.tasks": 3, "agent.hidden_sizes": [4]}
    macros = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    command = [macros["args_json"][0] if a == "${args_json}" else a for a in create_sweep_command(config["command"])]
    assert command[-4:-2] == ["sweep", str(path)] and command[-2] == "--point"
    directory = run_point(load_sweep(path), tmp_path / "runs/s", json.loads(command[-1]))
    config = load_config(directory / CONFIG)
    assert (config.agent.inner_lr, config.training.tasks, config.agent.hidden_sizes) == (0.5, 3, (4,))
    assert "sweep/objective" in read_metrics(directory)[-1]


def test_a_run_on_distinct_tasks_meets_no_other(tmp_path):
    from metarl.runs.run import Run
    from metarl.training.loop import distinct_tasks, draw_tasks

    config = preset("maml", "point_goal")
    training = dataclasses.replace(config.training, distinct_tasks=3, tasks=7, seed=5)
    config = dataclasses.replace(config, training=training)
    family = make_family(config.family)
    run = Run(tmp_path, config, family, None, 0, 0)
    fixed = {task.id for task in distinct_tasks(run)}
    assert len(fixed) == 3
    for iteration in range(3):
        drawn = [task.id for task in draw_tasks(run, stream(5, "tasks", iteration))]
        counts = sorted(drawn.count(task) for task in fixed)
        assert counts == [2, 2, 3]
    with pytest.raises(UsageError, match="but training.curriculum draws tasks of its own"):
        dataclasses.replace(config, training=dataclasses.replace(training, curriculum=True)).validate()


def test_the_example_of_the_documentation_is_a_sweep():
    sweep = load_sweep(Path(__file__).parents[2] / "docs/sweep_example.yaml")
    assert yardstick(sweep).split == "wide"
    assert yaml.safe_dump(config_to_dict(sweep.base))


@pytest.mark.parametrize("changed", ["arm.xml", "arm.yaml"])
def test_a_robot_that_has_changed_makes_another_sweep(changed, tmp_path):
    from metarl.sweeps.sweep import Study

    for name in ("arm.xml", "arm.yaml"):
        (tmp_path / name).write_text("one")
    (tmp_path / "base.yaml").write_text("family: {name: robot, model: arm.xml, file: arm.yaml}")
    (tmp_path / "s.yaml").write_text("base: {config: base.yaml}\nfactors: {training.seed: [1, 2]}")
    for _ in range(2):
        Study(load_sweep(tmp_path / "s.yaml"), tmp_path / "s")
    (tmp_path / changed).write_text("another")
    with pytest.raises(UsageError, match="holds trials of another sweep: files.(model|file) was .*Put that back"):
        Study(load_sweep(tmp_path / "s.yaml"), tmp_path / "s")
