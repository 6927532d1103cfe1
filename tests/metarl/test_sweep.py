"""Sweeps that are run: what survives a kill, what ends a variant, what is written in the end."""

import csv
import dataclasses
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from metarl.cli import app as cli
from metarl.config import CONFIG, load_config, preset
from metarl.envs.registry import make_family
from metarl.errors import UsageError
from metarl.evaluation.sweep_result import SweepResult
from metarl.runs import claims as sweep_claims
from metarl.runs.interrupt import Stop
from metarl.runs.run import Run, build, load_run, start_run
from metarl.runs.tracking import read_metrics
from metarl.runs.trial import stream
from metarl.sweeps.attempt import RESULT, Watch, attempt
from metarl.sweeps.conclude import conclude
from metarl.sweeps.file import load_sweep
from metarl.sweeps.generalisation import generalisation_of
from metarl.sweeps.maps import evaluate_map
from metarl.sweeps.results import variants_of
from metarl.sweeps.study import Study
from metarl.sweeps.task_axes import task_axis
from metarl.sweeps.worker import Worker, run_point
from metarl.sweeps.yardstick import Yardstick, yardstick
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


def work(path: Path, folder: Path, trials: int | None = None) -> tuple[Study, Yardstick]:
    sweep = load_sweep(path, trials)
    study, stick = Study(sweep, folder), yardstick(sweep)
    assert Worker(sweep, study, stick, 1, Stop(), lambda line: None).run()
    return study, stick


def test_a_map_of_faults_has_them_and_leaves_out_those_that_cannot_be(sweep_file, tmp_path):
    text = BASE.replace("point_goal", "half_cheetah_direction").replace("iterations: 3", "iterations: 1")
    text += "  family.faults: [weak, sensor_lost]\n  family.fault_places: [bshin, velocities]\n"
    study, _ = work(sweep_file(text + "factors: {agent.inner_lr: [0.1]}\n"), tmp_path / "runs/s")
    run = load_run(study.directory(0))
    by_name = {p.name: p for p in run.family.parameters}
    axes = [task_axis(by_name[name], by_name[name].distribution, 2) for name in ("fault_kind", "fault_place")]
    found = evaluate_map(study, variants_of(study)[0], axes, 1)
    there = {(t["fault_kind"], t["fault_place"]): after for t, after in zip(found.tasks, found.after, strict=True)}
    assert [key for key, value in there.items() if value is None] == [(1, 2)] and len(set(there.values())) == 4
    severity = task_axis(by_name["fault_severity"], by_name["fault_severity"].distribution, 2)
    assert len(set(evaluate_map(study, variants_of(study)[0], [severity], 1).after)) == 2


COMMANDS = {
    "": "metarl sweep takes one file (metarl sweep sweep.yaml)",
    "absent.yaml": "no sweep file absent.yaml; give a YAML file with `base:` and `factors:`",
    "s.yaml --wrokers 2": "unknown option --wrokers; did you mean '--workers'?",
    "s.yaml --report=yes": "--report takes no value",
    "s.yaml --worker 2": "unknown option --worker; did you mean '--workers'?",
    "s.yaml --workers 0": "--workers is 0; it must be at least 1",
    "s.yaml --report": "no sweep in runs/s; start it with metarl sweep s.yaml",
    "s.yaml --point 3": "--point is '3'; give the factors' values as JSON, such as '{\"family.goal_range\": 0}'",
    's.yaml --point {"family.goal_range":0.2}': "agent.inner_lr has no value",
    's.yaml --point {"family.goal_range":true,"agent.inner_lr":0.1}': "family.goal_range is True; its levels are 0.2",
    'one.yaml --point {"agent.inner_lr":true}': "agent.inner_lr is True; its levels are 0.5, 1.0",
    's.yaml --point {"family.goal_range":3,"agent.inner_lr":0.1}': "family.goal_range is 3; its levels are 0.2, 0.4",
    "s.yaml --point {} --ranks 2": "--point trains one variant, in one process; leave out --ranks",
    "s.yaml --point {} --workers 2": "--point trains one variant, in one process; leave out --workers",
    "s.yaml --report --ranks 2": "--report trains nothing; leave out --ranks",
    "s.yaml --workers 1 --report": "--report trains nothing; leave out --workers",
    "s.yaml --report --point {}": "--report trains nothing; leave out --point",
    "s.yaml --wandb-file w.yaml --workers 2": "--wandb-file trains nothing; leave out --workers",
    "s.yaml --wandb-file w.yaml --ranks 2": "--wandb-file trains nothing; leave out --ranks",
    "s.yaml --wandb-file w.txt": "--wandb-file is 'w.txt'; name a file that ends with .yaml",
    "r.yaml": "objective.ranges: family 'point_goal' has no parameter 'goal_xx'; did you mean 'goal_x'?",
    "w.yaml": "objective.tasks is wide, but no factor varies a training range; add the ranges to",
}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_mistake_on_the_command_line_is_one_line(line, sweep_file, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    sweep_file(GRID)
    sweep_file(GRID + "objective: {ranges: {goal_xx: [0, 1]}}", "r.yaml")
    sweep_file(BASE + "factors: {agent.inner_lr: [1]}\nobjective: {tasks: wide}", "w.yaml")
    sweep_file(BASE + "factors: {agent.inner_lr: [0.5, 1]}", "one.yaml")
    assert cli.main(["sweep", *line.split()]) == 2
    message = capsys.readouterr().err
    assert COMMANDS[line] in message
    assert message.startswith("error: ") and message.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.thorough
def test_a_sweep_trains_every_point_once_and_saves_its_result(sweep_file, tmp_path, capsys):
    path, folder = sweep_file(GRID.replace("evaluation.tasks: 6", "evaluation.tasks: 12")), tmp_path / "runs/s"
    study, stick = work(path, folder)
    table = variants_of(study)
    assert [row.state for row in table] == ["complete"] * 4
    assert [row.params for row in table] == list(study.sweep.grid())
    journal = (folder / "journal.log").read_bytes()
    again, _ = work(path, folder)  # nothing is left to do
    assert [t.number for t in again.trials()] == [0, 1, 2, 3]
    assert journal in (folder / "journal.log").read_bytes()

    said = []
    found = conclude(study, stick, said.append)
    assert [line.partition(":")[2] for line in said] == [" evaluating on a grid of 9 tasks"]
    report = json.loads((folder / "report.json").read_text())
    assert SweepResult.from_dict(report) == found.result
    conclude(study, stick, said.append)
    assert len(said) == 1  # the grid is evaluated once
    point = run_point(study.sweep, folder, {"family.goal_range": 0.2, "agent.inner_lr": 0.1}, 1)  # as W&B's agents do
    assert {load_config(own / CONFIG).tracking.group for own in (study.directory(0), point)} == {"s"}
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
    lost = next(row for row in table if row.number != best.number)
    shutil.rmtree(folder / lost.name)
    capsys.readouterr()
    assert cli.main(["sweep", str(path), "--report", "--runs-dir", str(tmp_path / "runs")]) == 0
    output = capsys.readouterr().out
    assert f"warning: the folders of {lost.name} are gone; returns of single tasks are drawn without them\n" in output


@pytest.mark.slow
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
    assert "1 ended, 1 to be resumed" in done.stdout
    assert re.search(r"trial_0001: .* resumed at iteration \d+\n", done.stdout)

    study = Study(load_sweep(path), folder)
    assert [row.state for row in variants_of(study)] == ["complete"] * 3
    assert [row.params for row in variants_of(study)] == list(study.sweep.grid())
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


def test_a_line_that_another_process_left_unfinished_is_cut_off_before_the_next(sweep_file, tmp_path):
    sweep, folder = load_sweep(sweep_file(PAIR)), tmp_path / "runs/s"
    study, other = Study(sweep, folder), Study(sweep, folder)
    with open(folder / "journal.log", "ab") as file:
        file.write(b'{"op_code":4,"worker')
    found = [study.next(), other.next()]
    assert [trial.number for trial, _ in filter(None, found)] == [0, 1]
    assert len(Study(sweep, folder).trials()) == 2


@pytest.mark.thorough
def test_a_stop_leaves_a_checkpoint_and_the_next_goes_on(sweep_file, tmp_path):
    path, folder = sweep_file(PAIR), tmp_path / "runs/s"
    sweep = load_sweep(path)
    study, stick, stop, said = Study(sweep, folder), yardstick(sweep), Stop(), []

    def say(line: str) -> None:
        said.append(line)
        stop.requested = True  # as soon as the first trial starts

    assert not Worker(sweep, study, stick, 1, stop, say).run()
    assert said[-1] == "trial_0000: stopped at iteration 1; to be resumed"
    assert study.iteration(0) == 1 and study.holder(0) is None
    other = Study(sweep, folder)
    found = [study.next(), other.next()]  # the one that was left, and a new one: never the same
    assert [trial.number for trial, _ in filter(None, found)] == [0, 1]
    assert study.next() is None
    for _, claim in filter(None, found):
        claim.release()
    work(path, folder)
    assert [row.state for row in variants_of(study)] == ["complete"] * 2


@pytest.mark.thorough
def test_an_invalid_variant_is_recorded_and_the_sweep_goes_on(sweep_file, tmp_path, monkeypatch):
    from metarl.sweeps import attempt as module

    def break_once(config, *arguments):
        if config.agent.inner_lr == 0.1:
            raise KeyError("theta")
        return train(config, *arguments)

    monkeypatch.setattr(module, "train", break_once)
    path = sweep_file(GRID.replace("[0.2, 0.4]", "[-1, 0.4]"))
    study, stick = work(path, tmp_path / "runs/s")
    table = variants_of(study)
    assert [row.state for row in table] == ["failed", "failed", "complete", "failed"]
    assert "family.goal_range is -1; it must be greater than 0" in table[0].attributes["error"]
    assert table[3].attributes["error"] == "'theta'"
    assert "in break_once" in (study.directory(3) / "error.log").read_text()
    conclude(study, stick, lambda line: None)
    assert '"failed"' in (tmp_path / "runs/s/report.json").read_text()


@pytest.mark.thorough
def test_a_variant_without_a_finite_objective_is_failed_with_a_message(sweep_file, tmp_path, monkeypatch):
    scores = iter([float("nan")] * 2 + [1.0] * 2)  # two of each variant: for its record and for the sweep
    monkeypatch.setattr(Yardstick, "value", lambda self, result: next(scores))
    study, stick = work(sweep_file(PAIR), tmp_path / "runs/s")
    failed, done = variants_of(study)
    assert (failed.state, done.state) == ("failed", "complete")
    assert failed.attributes["error"] == "its objective, the mean return over its tasks, is nan and no finite number"
    conclude(study, stick, lambda line: None)
    assert "is nan and no finite number" in (tmp_path / "runs/s/trials.csv").read_text()


@pytest.mark.thorough
def test_tasks_that_several_variants_are_judged_on_count_once(sweep_file, tmp_path):
    """Variants that differ in nothing say no more of the distance than one of them does."""
    widths = []
    for count in (1, 4):
        text = BASE.replace("evaluation.tasks: 6", "evaluation.tasks: 30")
        text += f"factors: {{training.keep_checkpoints: {list(range(1, count + 1))}}}\n"
        path = sweep_file(text + "objective: {ranges: {goal_x: [-1, 1]}}\n", f"s{count}.yaml")
        study, stick = work(path, tmp_path / f"runs/s{count}")
        ended = variants_of(study)
        [curve] = generalisation_of(study, stick, ended, ended[0], ())
        widths.append([interval.high - interval.low for interval in curve.after])
    assert widths[0] == pytest.approx(widths[1], rel=0.15) and all(widths[0])


@pytest.mark.thorough
def test_a_variant_that_is_judged_on_its_own_evaluations_tasks_is_evaluated_once(sweep_file, tmp_path, monkeypatch):
    from metarl.evaluation import evaluate as evaluation

    calls = []
    run_trials = evaluation.run_trials

    def counted(*arguments, **keywords):
        calls.append(arguments)
        return run_trials(*arguments, **keywords)

    monkeypatch.setattr(evaluation, "run_trials", counted)
    study, _ = work(sweep_file(PAIR), tmp_path / "runs/s")
    assert len(calls) == 2  # of two trials
    for row in variants_of(study):
        [saved] = (study.directory(row.number) / "evaluation").glob("*.json")
        returns = np.array(json.loads(saved.read_text())["returns"])
        assert returns[:, -1].mean() == pytest.approx(row.objective)
        assert read_metrics(study.directory(row.number))[-1]["sweep/objective"] == row.objective


@pytest.mark.thorough
@pytest.mark.parametrize("severity", [", family.fault_severity: [[0, 0.2], [0.5, 1]]", ""])
def test_a_sweep_with_and_without_faults_ends_with_its_result(severity, sweep_file, tmp_path):
    text = BASE.replace("point_goal", "half_cheetah_direction").replace("iterations: 3", "iterations: 1")
    text += "  family.faults: [weak]\n"
    factors = f"factors: {{family.faults: [[], [weak]]{severity}}}\nreport: {{grid: 2, parameters: [fault_severity]}}\n"
    study, stick = work(sweep_file(text + factors), tmp_path / "runs/s")
    found = conclude(study, stick, lambda line: None).result
    assert {variant.state for variant in found.variants} == {"complete"}
    assert found.unshared == ("family.faults",)


@pytest.mark.thorough
def test_a_fault_of_the_machine_is_no_fault_of_the_variant(sweep_file, tmp_path, monkeypatch):
    from metarl.sweeps import attempt as module

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "train", full)
        with pytest.raises(OSError, match="No space left"):
            work(sweep_file(PAIR), tmp_path / "runs/s")
    study, _ = work(sweep_file(PAIR), tmp_path / "runs/s")
    assert [row.state for row in variants_of(study)] == ["complete"] * 2


DIE = "import os, sys; from metarl.runs import claims; from pathlib import Path;"
DIE += "held = claims.claim(Path(sys.argv[1]), 0, 0, sys.argv[2]); os.kill(os.getpid(), 9)"


def killed_thrice(study: Study, commands: Sequence[str]) -> None:
    """Begin a sweep's first variant, and kill the process that trains it, of each of these commands."""
    for _, claim in filter(None, [study.next()]):
        claim.release()
    for command in commands:
        subprocess.run([sys.executable, "-c", DIE, str(study.claims), command], check=False, capture_output=True)


@pytest.mark.thorough
def test_a_sweep_that_is_killed_thrice_at_one_iteration_loses_nothing(sweep_file, tmp_path):
    path, folder = sweep_file(PAIR), tmp_path / "runs/s"
    study = Study(load_sweep(path), folder)
    killed_thrice(study, ["first", "second", "third"])
    assert study.deaths(0) == 3
    work(path, folder)
    assert [row.state for row in variants_of(study)] == ["complete"] * 2
    first, second = (trial.datetime_complete for trial in study.trials())
    assert first and second and second < first  # what may take its process with it is tried last


@pytest.mark.thorough
def test_a_variant_whose_process_always_dies_is_given_up(sweep_file, tmp_path):
    path, folder = sweep_file(PAIR), tmp_path / "runs/s"
    study = Study(load_sweep(path), folder)
    killed_thrice(study, [study.command] * 3)
    assert Worker(study.sweep, study, yardstick(study.sweep), 1, say=lambda line: None).run()
    table = variants_of(study)
    assert table[0].attributes["error"] == "its process died 3 times at iteration 0, or right after it"
    assert [row.state for row in table] == ["failed", "complete"]


@pytest.mark.thorough
def test_the_pruner_ends_what_is_worse_than_the_others(sweep_file, tmp_path, monkeypatch):
    text = BASE + "factors: {agent.inner_lr: [0.1, 0.2, 0.3]}\npruner: {name: median, startup_trials: 1, every: 1}\n"
    scores = iter([1.0] * 4 + [0.0] * 10)
    monkeypatch.setattr(Yardstick, "value", lambda self, result: next(scores))
    study, _ = work(sweep_file(text), tmp_path / "runs/s")
    table = variants_of(study)
    assert [row.state for row in table] == ["complete", "pruned", "pruned"]
    assert [row.attributes["iteration"] for row in table] == [3, 1, 1]
    assert load_run(study.directory(1)).iteration == 1  # a run folder with a checkpoint, too


@pytest.mark.parametrize("after", [-1.0, 1.0])
def test_what_the_median_pruner_says_of_a_variant_is_plain_json(after, sweep_file, tmp_path, monkeypatch):
    """Processes that train a variant together write it for their worker, where it was pruned or stopped."""
    from metarl.sweeps import attempt as module

    pruner = "pruner: {name: median, startup_trials: 1, every: 1, by: training}\n"
    sweep = load_sweep(sweep_file(BASE + "factors: {agent.inner_lr: [0.1, 0.2]}\n" + pruner))
    study = Study(sweep, tmp_path / "runs/s")
    (first, held), (trial, claim) = filter(None, [study.next(), study.next()])
    first.report(0.0, 1)
    study.finish(first, 0.0, {})

    def one_iteration(config, directory, resume, watch, ranks):
        run = Run(directory, config, *build(config), 1, 24)
        assert watch(run, {"return/after": after})
        return run

    monkeypatch.setattr(module, "train", one_iteration)
    found = attempt(sweep.base, tmp_path / "r", False, Watch(sweep, yardstick(sweep), trial, lambda: True))
    assert json.loads(json.dumps(found.to_dict()))["pruned"] is (after < 0)
    for own in (held, claim):
        own.release()


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


def test_the_points_of_a_grid_too_large_for_the_memory_are_drawn_one_by_one(sweep_file, tmp_path):
    levels = "{low: 0.001, high: 0.9, levels: 10000}"
    settings = ("inner_lr", "gae_lambda", "discount")
    text = BASE + "trials: 2\nfactors:\n" + "".join(f"  agent.{name}: {levels}\n" for name in settings)
    sweep = load_sweep(sweep_file(text))
    study = Study(sweep, tmp_path / "runs/s")
    points = []
    for trial, claim in filter(None, [study.next(), study.next()]):
        points.append(study.suggest(trial))
        claim.release()
    assert points == [*itertools.islice(sweep.grid(), 2)]
    assert len({point["agent.discount"] for point in points}) == 2


def test_a_changed_file_is_refused_by_what_changed(sweep_file, tmp_path):
    folder = tmp_path / "runs/s"
    Study(load_sweep(sweep_file(GRID)), folder)
    changed = GRID.replace("iterations: 3", "iterations: 4").replace("[0.05, 0.1]", "[0.05]")
    with pytest.raises(UsageError) as caught:
        Study(load_sweep(sweep_file(changed)), folder)
    assert f"{folder} holds the results of another sweep: base.training.iterations was 3" in str(caught.value)
    assert "base.training.iterations was 3, is 4; factors.agent.inner_lr was [0.05, 0.1], is [0.05]" in str(
        caught.value
    )
    with pytest.raises(
        UsageError, match="its factors were family.goal_range, agent.inner_lr, now they are agent.discount"
    ):
        Study(load_sweep(sweep_file(BASE + "factors: {agent.discount: [0.9]}")), folder)
    # What changes no number may change: more trials, another report, other threads.
    same = GRID.replace("grid: 3", "grid: 4").replace("threads: 1", "threads: 2")
    Study(load_sweep(sweep_file(same), trials=3), folder)


@pytest.mark.parametrize("more", [(), ("--workers", "2"), ("--point", '{"agent.inner_lr": 0.05}')])
@pytest.mark.parametrize(("name", "what"), [("config.yaml", "a run"), ("study.json", "a headroom study")])
def test_the_folder_of_something_else_is_left_alone(name, what, more, sweep_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("metarl.sweeps.yardstick.yardstick", lambda sweep: pytest.fail("built a family before"))
    sweep_file(PAIR)
    (tmp_path / "runs/s").mkdir(parents=True)
    (tmp_path / "runs/s" / name).write_text("own")
    assert cli.main(["sweep", "s.yaml", *more]) == 2
    said = capsys.readouterr().err
    assert f"runs/s is the folder of {what}; give the sweep's file another name, or choose another --runs-dir" in said
    assert os.listdir(tmp_path / "runs/s") == [name] and (tmp_path / "runs/s" / name).read_text() == "own"


@pytest.mark.parametrize("more", [(), ("--workers", "2"), ("--point", '{"agent.inner_lr": 0.05}')])
def test_another_sweep_is_refused_before_its_family_is_built(more, sweep_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Study(load_sweep(sweep_file(PAIR)), tmp_path / "runs/s")
    monkeypatch.setattr("metarl.sweeps.yardstick.yardstick", lambda sweep: pytest.fail("built a family before"))
    sweep_file(PAIR.replace("iterations: 3", "iterations: 4"))
    assert cli.main(["sweep", "s.yaml", *more]) == 2
    assert "runs/s holds the results of another sweep: base.training.iterations was 3" in capsys.readouterr().err


def test_a_sweep_that_began_in_the_folder_of_a_run_goes_on(sweep_file, tmp_path):
    folder = tmp_path / "runs/s"
    Study(load_sweep(sweep_file(PAIR)), folder)
    (folder / CONFIG).write_text("{}")  # older versions began there
    Study(load_sweep(sweep_file(PAIR)), folder)


def test_the_folder_of_the_file_for_wandb_is_made_and_must_be_one(sweep_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sweep_file(PAIR)
    assert cli.main(["sweep", "s.yaml", "--wandb-file", "new/w.yaml"]) == 0 and (tmp_path / "new/w.yaml").is_file()
    capsys.readouterr()
    for place, said in (
        ("s.yaml/w.yaml", "cannot make s.yaml: s.yaml: File exists; choose another --wandb-file"),
        ("/proc/w.yaml", "cannot write /proc/w.yaml: No such file or directory; choose another --wandb-file"),
    ):
        assert cli.main(["sweep", "s.yaml", "--wandb-file", place]) == 2
        assert said in capsys.readouterr().err


def test_the_file_for_wandb_is_understood_by_wandb_and_by_us(sweep_file, tmp_path, monkeypatch):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args, load_sweep_config

    monkeypatch.chdir(tmp_path)
    text = BASE + "method: tpe\nfactors:\n  agent.inner_lr: {low: 0.01, high: 1, log: true}\n"
    text += "  training.tasks: {low: 2, high: 4}\n  agent.hidden_sizes: [[4], [8, 8]]\n"
    text += "pruner: {name: successive_halving}\n"
    path = sweep_file(text)
    options = ["--trials", "5", "--threads", "2", "--runs-dir", "elsewhere"]
    assert cli.main(["sweep", str(path), *options, "--wandb-file", str(path)]) == 2 and path.read_text() == text
    assert cli.main(["sweep", str(path), *options, "--wandb-file", "w.yaml"]) == 0
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
    assert cli.main(command[command.index("sweep") :]) == 0
    [directory] = (tmp_path / "elsewhere/s").iterdir()
    config = load_config(directory / CONFIG)
    assert config.training.threads == 2
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
