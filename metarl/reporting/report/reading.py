"""Read runs, their evaluations and comparisons for a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarl.config import RunConfig, files_of, read_run_config
from metarl.errors import UsageError
from metarl.evaluation.comparison import Comparison
from metarl.evaluation.remarks import joined_notes
from metarl.evaluation.saved import COMPARISON, read_comparison, read_evaluation
from metarl.reporting.report.matching import matched
from metarl.reporting.report.material import Material, ReportedAgent, ReportedComparison, ReportedRun
from metarl.reporting.report.problems import problems_of
from metarl.runs.checkpoint import CheckpointStore
from metarl.runs.entries import files_by_content
from metarl.runs.run import CHECKPOINTS
from metarl.runs.tracking import METRICS, read_record
from metarl.wording import grouped

SPLIT_ORDER = ("held_out", "ood", "train")


def gather(
    directories: Sequence[Path], comparison: Path | None = None, found_in: Path = Path("comparisons")
) -> Material:
    """Read runs and the results of their agents, and return them.

    comparison: folder or file of a comparison, or a folder of several; None takes the newest comparison of each family,
    split and way to reset the memory in `found_in` that has all runs of a family. The evaluations in a run's folder
    count if no comparison has the run. UsageError for what is no run, lacks a checkpoint, or cannot be read.
    """
    resolved = [directory.resolve() for directory in directories]
    for directory, path in zip(directories, resolved, strict=True):
        if resolved.count(path) > 1:
            raise UsageError(f"run {directory} is given twice")
    configs = [read_run_config(directory) for directory in directories]
    labels = [path.name for path in resolved]
    if len(set(labels)) < len(labels):
        labels = [f"{path.parent.name}/{path.name}" for path in resolved]
    if len(set(labels)) < len(labels):
        labels = [str(directory) for directory in directories]
    runs = [read_run(*job) for job in zip(labels, directories, configs, strict=True)]
    problems: list[str] = []
    given = _given_comparisons(comparison, runs) if comparison else _found_comparisons(found_in, runs, problems)
    compared = [*given, *_own_evaluations(runs, given)]
    compared.sort(key=lambda own: SPLIT_ORDER.index(own.split))
    material = Material(runs, compared, problems)
    material.problems += problems_of(material)
    return material


def read_run(label: str, directory: Path, config: RunConfig) -> ReportedRun:
    """Read the folder of a run; UsageError if it has no checkpoint."""
    _, state = CheckpointStore(directory / CHECKPOINTS).load("last")
    record = read_record(directory / METRICS, int(state["iteration"])) if (directory / METRICS).exists() else None
    metrics = [line for _, line in sorted(record.lines.items())] if record else []
    problems: list[str] = [record.amiss] if record and record.amiss else []
    history: list[Mapping[str, Any]] = []
    alike: dict[tuple[str, int, bool, bool], list[ReportedComparison]] = {}
    files = files_of(files_by_content(config))
    for path in sorted((directory / "evaluation").glob("*.json")):
        try:
            own = reported_evaluation(path, label, files)
        except UsageError as error:
            problems.append(f"{error}; it is left out")
            continue
        history.append({"time": own.time, **own.comparison.provenance})
        settings = own.comparison.settings
        key = own.circumstances, settings.adaptations, settings.explore, settings.explore_to_adapt
        alike.setdefault(key, []).append(own)
    history.sort(key=lambda record: str(record["time"]))
    return ReportedRun(
        label,
        directory,
        config,
        int(state["iteration"]),
        int(state["env_steps"]),
        state.get("tracking") or {},
        metrics,
        [_chosen(own) for own in alike.values()],
        history,
        tuple(problems),
    )


def _chosen(alike: Sequence[ReportedComparison]) -> ReportedComparison:
    """Return the evaluation to report: of the checkpoint that was evaluated last, that on most tasks, the newest."""
    last = max(alike, key=lambda own: own.time).agents[0].runs
    return max(
        (own for own in alike if own.agents[0].runs == last),
        key=lambda own: (own.agents[0].agent.returns.size, own.time),
    )


def reported_evaluation(path: Path, label: str, files: Mapping[str, str]) -> ReportedComparison:
    """Read the evaluation of a run as a comparison of one agent; UsageError if the file holds something else.

    files: of the run's family, by setting, as `files_by_content` names them, and not by where they were at that time.
    """
    result = read_evaluation(path)
    if result.source is None:
        raise UsageError(f"{path} is not an evaluation of a run: it has no 'run'; make one with metarl evaluate RUN")
    comparison = Comparison.of(result, label)
    comparison = replace(comparison, family_settings={**comparison.family_settings, **files})
    agent = ReportedAgent(comparison.agents[0], {label: result.source.iteration}, result)
    return ReportedComparison(comparison, (agent,), (path,))


def reported_comparison(path: Path, runs: Sequence[ReportedRun]) -> ReportedComparison:
    """Read a comparison, and match its agents with runs; UsageError if the file holds something else."""
    comparison = read_comparison(path)
    agents = tuple(ReportedAgent(agent) for agent in comparison.agents)
    return matched(ReportedComparison(comparison, agents, (path,)), runs)


def _comparison_files(folder: Path) -> list[Path]:
    """Return the comparison in a folder, or those in its folders."""
    own = folder / COMPARISON
    return [own] if own.exists() else sorted(folder.glob(f"*/{COMPARISON}"))


def _given_comparisons(given: Path, runs: Sequence[ReportedRun]) -> list[ReportedComparison]:
    """Read the comparisons that the user names; UsageError for one without any of the runs."""
    files = [given] if given.is_file() else _comparison_files(given)
    if not files:
        what = f"no {COMPARISON} in {given}" if given.is_dir() else f"no comparison {given}"
        raise UsageError(f"{what}; give the folder that metarl evaluate RUN RUN... wrote")
    names = {run.name for run in runs}
    found = [reported_comparison(path, runs) for path in files]
    for own, path in zip(found, files, strict=True):
        if not any(agent.runs for agent in own.agents):
            sources = [(agent.place, agent.agent.result.source) for agent in own.agents]
            theirs = {place if source.run in names else source.run for place, source in sources if source}
            raise UsageError(f"comparison {path} has none of the runs given; it is of {', '.join(sorted(theirs))}")
    return found


def _found_comparisons(folder: Path, runs: Sequence[ReportedRun], problems: list[str]) -> list[ReportedComparison]:
    """Return the newest comparison in each of the circumstances that has all runs of a family.

    problems: is given a sentence for each file that cannot be read.
    """
    newest: dict[str, ReportedComparison] = {}
    for path in _comparison_files(folder) if len(runs) > 1 else []:
        try:
            found = reported_comparison(path, runs)
        except UsageError as error:
            problems.append(f"{error}; it is left out")
            continue
        key = found.circumstances
        newer = key not in newest or newest[key].time <= found.time
        ours = [agent for agent in found.agents if agent.runs]
        own = [run for run in runs if any(run.label in agent.runs for agent in ours)]
        if any(len(agent.runs) < len(agent.agent.members) for agent in ours):
            continue  # its numbers are of further runs
        families = {run.family for run in own}
        if newer and len(own) > 1 and own == [run for run in runs if run.family in families]:
            newest[key] = found
    return list(newest.values())


def _own_evaluations(runs: Sequence[ReportedRun], given: Sequence[ReportedComparison]) -> list[ReportedComparison]:
    """Return the runs' own evaluations that no comparison covers; those on the same tasks are put side by side."""
    covered = {
        (_as_played(own, agent).circumstances, label) for own in given for agent in own.agents for label in agent.runs
    }
    alike: dict[tuple[str, int], list[ReportedComparison]] = {}
    for run in runs:
        left = [own for own in run.evaluations if (own.circumstances, run.label) not in covered]
        met: list[str] = []
        for own in sorted(left, key=lambda own: not _by_its_settings(own, run)):
            key = json.dumps([own.circumstances, own.comparison.tasks, own.comparison.settings.seeds], sort_keys=True)
            alike.setdefault((key, met.count(key)), []).append(own)  # a run is once in a table
            met.append(key)
    return [_side_by_side(group) for group in alike.values()]


def _by_its_settings(own: ReportedComparison, run: ReportedRun) -> bool:
    """Return whether an evaluation of a run has as many rounds, and as much noise, as its settings say."""
    ours, theirs = own.comparison.settings, run.config.evaluation
    shared = ("adaptations", "explore", "explore_to_adapt")
    return all(getattr(ours, name) == getattr(theirs, name) for name in shared)


def _as_played(own: ReportedComparison, agent: ReportedAgent) -> ReportedComparison:
    """Return a comparison as if all its agents forgot when this one did."""
    settings = replace(own.comparison.settings, reset_memory=agent.agent.reset_memory)
    return replace(own, comparison=replace(own.comparison, settings=settings))


def _side_by_side(group: Sequence[ReportedComparison]) -> ReportedComparison:
    """Return the evaluations of several runs on the same tasks as one comparison."""
    each = [(own.agents[0].label, own.comparison) for own in group]
    notes = joined_notes([(label, own.settings.explore, own.notes) for label, own in each])
    warnings = grouped([(label, text) for label, own in each for text in own.warnings], len(group))
    agents = tuple(agent for own in group for agent in own.agents)
    comparison = replace(
        group[0].comparison,
        agents=tuple(agent.agent for agent in agents),
        units={name: unit for _, own in each for name, unit in own.units.items()},
        notes=tuple(notes),
        warnings=tuple(warnings),
    )
    return ReportedComparison(comparison, agents, tuple(path for own in group for path in own.sources))
