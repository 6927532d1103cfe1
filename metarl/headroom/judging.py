"""Judge the runs of a study, each once: what is judged leaves a record, and the report is made from the records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from metarl.config import is_preset, read_run_config, with_settings
from metarl.envs.family import TaskFamily
from metarl.envs.task import Task
from metarl.errors import RunError, UsageError, describe
from metarl.evaluation.compare import comparison_of, family_for, judge, require_fit
from metarl.evaluation.comparison import Comparison
from metarl.evaluation.evaluate import draw_tasks
from metarl.evaluation.headroom import Headroom, headroom_of
from metarl.evaluation.judged import Judged
from metarl.files import plain
from metarl.headroom.arms import MEMORY, ORACLE, RANDOMISED
from metarl.headroom.probe import most_moving, probe, words
from metarl.headroom.records import (
    REMEDY,
    Cost,
    JudgedRecord,
    Key,
    checkpoint_of,
    differences,
    path_of,
    read_record,
    save_record,
)
from metarl.headroom.study import RESET, RESET_EPISODE, Study, Way
from metarl.reporting.headroom_report import save_report, show
from metarl.runs.entries import Entry
from metarl.runs.run import load_run
from metarl.runs.tracking import read_metrics
from metarl.wording import number_of

Records = Mapping[str, Sequence[JudgedRecord]]
"""Records of each agent by its label, one for each training seed."""
Tasks = list[list[Task]]
UNEVEN = 0.2
"""Share of the budget by which env steps may be off without a note."""


def judge_and_save(study: Study, say: Callable[[str], None]) -> tuple[Comparison, Headroom | None]:
    """Judge the runs that are done; print the table and what follows, and save both with a figure in the folder.

    A run that was judged with the same settings before is not again. UsageError if no run is done, if a record is
    damaged, another study's or made with other settings where its run is not here, or if the seeds of an arm differ in
    more than the seed. RunError if no run is done because they failed.
    """
    done, left = study.standing()
    tasks = draw_tasks(study.family, study.base.evaluation)
    records, lacking = judged(study, tasks, say)
    comparison, forgetful = compared(study, records, tasks)
    moved = records[ORACLE][0].probe if ORACLE in records else []
    found, spent = headroom(comparison, forgetful, most_moving(moved)), cost(study, records)
    notes = [f"note: {len(left)} of {len(done) + len(left)} runs are not done"] if left else []
    notes += [f"note: {name} failed and is missing: {text}" for name, text in study.failures().items()]
    if lacking:
        notes.append(f"note: left out, because neither the run nor this record of it is here: {', '.join(lacking)}")
    if untuned := [arm.name for arm in study.arms if not is_preset(arm.agent, study.base.family_name)]:
        notes.append(
            f"note: agents without a preset for {study.base.family_name} have settings that nobody chose for it: "
            f"{', '.join(untuned)}"
        )
    if taught := [arm.name for arm in study.arms if study.teacher_of(arm)]:
        notes.append(f"note: env steps and minutes of {', '.join(taught)} include those of the teacher")
    if study.also_split != "none" and any(arm.name == ORACLE for arm in study.arms):
        notes.append(
            f"note: the oracle alone met {study.also_split.replace('_', '-')} tasks in training: every other task of "
            "its training was one"
        )
    if uneven := unequal(study, spent):
        notes.append(
            f"note: env steps are not those of the budget: {', '.join(uneven)}. A run has whole iterations; with a "
            "budget of many, arms have the same"
        )
    if moved:
        first, *rest = moved
        notes += [f"note: {first}", *rest]
    show(comparison, found, spent, notes)
    save_report(comparison, found, spent, notes, study.folder)
    return comparison, found


def judged(study: Study, tasks: Tasks, say: Callable[[str], None]) -> tuple[Records, list[str]]:
    """Return the records of all runs that are here or have one, and what is left out: a run that has another alone.

    Runs without a record, or with one that was made with other settings, are judged on the tasks, and leave one.
    """
    found: dict[tuple[str, int], JudgedRecord] = {}
    missing: list[tuple[Way, int]] = []
    lacking = []
    trained = {
        (name, seed)
        for name in {way.runs for way in study.ways()}
        for seed in study.seeds
        if study.has_run(name, seed) and study.is_done(name, seed)
    }
    for way in study.ways():
        for seed in study.seeds:
            record, here = study.record_of(way, seed), (way.runs, seed) in trained
            if record is not None and _agrees(study, way, seed, record, here, tasks, say):
                found[way.label, seed] = record
            elif here:
                missing.append((way, seed))
            elif study.by_record(way.runs, seed):
                lacking.append(path_of(study.folder, way.label, seed).name)
    if found:
        say(f"judged before: {number_of(len(found), 'run')}")
    if missing:
        say(f"judging {number_of(len(missing), 'run')} ...")
    for way, seed in missing:
        found[way.label, seed] = judge_run(study, way, seed, tasks)
    order = {way.label: [found[way.label, s] for s in study.seeds if (way.label, s) in found] for way in study.ways()}
    records = {label: own for label, own in order.items() if own}
    if not records and (failures := study.failures()):
        failed = "; ".join(f"{name} failed: {message}" for name, message in failures.items())
        raise RunError(f"no run of the study in {study.folder} is finished, so there is nothing to judge: {failed}")
    if not records:
        raise UsageError(f"no run of the study in {study.folder} is finished; train first, without --report")
    return records, lacking


def _agrees(
    study: Study, way: Way, seed: int, record: JudgedRecord, here: bool, tasks: Tasks, say: Callable[[str], None]
) -> bool:
    """Return whether a record is of what is to be judged now; UsageError if it is not, and its run is not here."""
    path = path_of(study.folder, way.label, seed)
    ours = _judged_with(study, way, entry_of(study, way, seed) if here else None, tasks)
    differ = differences(record.key.judged_with, ours)
    if here:
        differ += record.differences_of_run(study.run_of(way.runs, seed))
        if differ:
            say(f"{path.name} was made with another {', another '.join(differ)}: judged anew")
    elif differ:
        raise UsageError(
            f"{path} was judged with another {', another '.join(differ)}, and its trained run is not here; "
            "give the settings that it was made with, or judge it anew where its run is and copy it again"
        )
    return not differ


def entry_of(study: Study, way: Way, seed: int) -> Entry:
    """Return the run of a way of judging, with its overrides."""
    path = study.run_of(way.runs, seed)
    config = with_settings(read_run_config(path), way.overrides)
    return Entry(path, config, way.overrides, name=way.label).exploring_as_trained()


def _judged_with(study: Study, way: Way, entry: Entry | None, tasks: Tasks) -> dict[str, Any]:
    """Return what a run is judged with; entry: None where its folder, which says how it explores, is not here.

    The number of resamples is no part of it: intervals are computed from records.
    """
    own = {
        name.removeprefix("evaluation."): value
        for name, value in way.overrides.items()
        if name.startswith("evaluation.")
    }
    settings = replace(study.base.evaluation, **(own if entry is None else entry.own_evaluation))
    left_out = ("bootstrap_samples", *(("explore", "explore_to_adapt") if entry is None else ()))
    kept = {name: value for name, value in plain(asdict(settings)).items() if name not in left_out}
    return {"evaluation": kept, "overrides": plain(way.overrides), "tasks": _digest(study.family, tasks)}


def _digest(family: TaskFamily, tasks: Tasks) -> str:
    """Return a digest of tasks, to nine digits: the last ones may be another machine's."""
    shown = [[{name: f"{value:.9g}" for name, value in family.shown(task).items()} for task in own] for own in tasks]
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def judge_run(study: Study, way: Way, seed: int, tasks: Tasks) -> JudgedRecord:
    """Judge a run on tasks, and return the record that it leaves in the study's folder."""
    entry = entry_of(study, way, seed)
    run = load_run(entry.path, agent_settings=entry.agent_overrides)
    require_fit(way.label, run, family_for(run.config, study.family))
    own = judge(entry, run, study.base, study.family, tasks, study.threads)
    checkpoint = {**checkpoint_of(entry.path), "trained": own.trained}
    key = Key(study.key_of(way.arm), _judged_with(study, way, entry, tasks), checkpoint)
    met = run.config.training.splits
    moved = words(probe(run.agent, run.family, seed, study.threads, met)) if way.label == ORACLE else ()
    teacher = "" if way.arm.judged_from else study.teacher_of(way.arm)
    costs = [_cost_of(study, name, seed) for name in (way.runs, teacher) if name]
    save_record(path_of(study.folder, way.label, seed), JudgedRecord.of(own, way.label, key, costs, moved))
    record = study.record_of(way, seed)  # numbers are those that are read back
    assert record is not None
    return record


def _cost_of(study: Study, name: str, seed: int) -> Cost:
    """Return what the training of a run took, by its folder or by its record; UsageError if neither is here."""
    directory = study.run_of(name, seed)
    if study.has_run(name, seed):
        lines = read_metrics(directory)
        seconds = sum(line["time/collect"] + line["time/update"] for line in lines)
        return Cost(directory.name, lines[-1]["env_steps"], seconds)
    record = read_record(path_of(study.folder, name, seed))
    if record is None:
        raise UsageError(f"the run of teacher {directory} is not here, and no record of it; copy one of them here")
    return record.cost[0]


def compared(study: Study, records: Records, tasks: Tasks) -> tuple[Comparison, dict[str, str]]:
    """Return the comparison, and the label of each agent with its memory reset by that of the agent."""
    for label, own in records.items():
        for other in own[1:]:
            if differ := differences(own[0].kind, other.kind):
                raise UsageError(
                    f"the runs of {label} with seeds {own[0].seed} and {other.seed} differ in more than the seed, in "
                    f"{', '.join(differ)}; train one of them anew"
                )
    runs = {way.label: way.runs for way in study.ways()}
    read = {label: [_read(study, record, runs[label], tasks) for record in own] for label, own in records.items()}
    comparison = comparison_of(read, study.base, study.family, tasks, {})
    resets = {arm.name: arm.name + RESET for arm in study.arms if arm.remembers}
    return comparison, {label: reset for label, reset in resets.items() if reset in records}


def _read(study: Study, record: JudgedRecord, runs: str, tasks: Tasks) -> Judged:
    """Return a record as a comparison takes it. runs: arm whose run it is of."""
    folder: Path = study.run_of(runs, record.seed)
    try:
        return record.judged(study.family, tasks, folder, study.base.evaluation.bootstrap_samples)
    except (ValueError, TypeError, KeyError) as error:
        path = path_of(study.folder, record.label, record.seed)
        raise UsageError(f"{path} is damaged, or no judged record: {describe(error)[:200]}; {REMEDY}") from error


def labels(comparison: Comparison) -> list[str]:
    """Return the labels of the agents."""
    return [agent.label for agent in comparison.agents]


def headroom(comparison: Comparison, forgetful: Mapping[str, str], moving: str) -> Headroom | None:
    """Return the headroom; None if the oracle or the randomised policy is missing. moving: see `headroom_of`."""
    if not {ORACLE, RANDOMISED} <= set(labels(comparison)):
        return None
    reset = {*forgetful.values(), MEMORY + RESET_EPISODE}
    return headroom_of(comparison, ORACLE, RANDOMISED, forgetful, reset, moving)


def unequal(study: Study, spent: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the arms whose mean env steps are more than a fifth off their budget, in words; pupils are not asked."""
    asked = {arm.name: arm.budget or study.budget for arm in study.arms if not study.teacher_of(arm)}
    had = {name: own["env_steps"] for name, own in spent.items() if name in asked}
    return [
        f"{name} had {steps:,.0f} for {asked[name]:,.0f}"
        for name, steps in had.items()
        if abs(steps / asked[name] - 1) > UNEVEN
    ]


def cost(study: Study, records: Records) -> dict[str, dict[str, float]]:
    """Return env steps and seconds of training by arm, with its teacher's, as means over the seeds that are done."""
    found = {}
    for arm in study.arms:
        own = [] if arm.judged_from else [record.cost for record in records.get(arm.name, ())]
        if own:
            seconds = [sum(part.seconds for part in parts) for parts in own]
            steps = [sum(part.env_steps for part in parts) for parts in own]
            found[arm.name] = {"env_steps": float(np.mean(steps)), "training_s": round(float(np.mean(seconds)), 1)}
    return found
