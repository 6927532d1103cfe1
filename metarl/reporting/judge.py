"""Evaluate and compare runs as the commands do: compute, print and save."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarl.config import EvaluationSettings, RunConfig, config_from_dict, config_to_dict
from metarl.deployment.logs import save_trial
from metarl.envs.family import TaskFamily
from metarl.envs.family_settings import FamilySettings
from metarl.errors import UsageError
from metarl.evaluation.compare import checked_family, compare_entries
from metarl.evaluation.comparison import Comparison
from metarl.evaluation.evaluate import draw_tasks, evaluate_agent, with_source
from metarl.evaluation.notes import remarked
from metarl.evaluation.results import EvaluationResult
from metarl.evaluation.simulator_shift import simulator_shift
from metarl.evaluation.train_gap import train_gap
from metarl.files import fresh_folder
from metarl.reporting import comparison_files, comparison_tables, evaluation_files, evaluation_tables
from metarl.runs.entries import Entry, family_settings, read_entries, require_apart
from metarl.runs.run import Run, load_run


def evaluate(
    run: Run | Path | str,
    settings: EvaluationSettings | None = None,
    checkpoint: str | Path = "last",
    device: str | None = None,
    threads: int | None = None,
    log_rollouts: Path | None = None,
    **overrides: Any,
) -> EvaluationResult:
    """Evaluate a run's agent, print the tables, save JSON and figures in the run's folder, and return the result.

    run: a run that `metarl.load` returned, or a run's folder, which is loaded with checkpoint and device as by
    `metarl.load`. settings, threads: None takes the run's own. log_rollouts: folder to write the episodes to.
    overrides: single fields of the settings. UsageError for an unknown field or a wrong value.
    """
    loaded = run if isinstance(run, Run) else load_run(Path(run), checkpoint, device)
    data = config_to_dict(loaded.config if settings is None else replace(loaded.config, evaluation=settings))
    data["evaluation"] |= overrides
    config = config_from_dict(data)
    threads = config.training.threads if threads is None else threads
    on_trial = functools.partial(save_trial, log_rollouts) if log_rollouts else None
    result = evaluate_agent(loaded.agent, loaded.family, config.evaluation, threads, say, on_trial=on_trial)
    return conclude(loaded, config, result, threads)


def conclude(loaded: Run, config: RunConfig, result: EvaluationResult, threads: int = 0) -> EvaluationResult:
    """Complete the result of an evaluation of a run, print and save it, and return it.

    config: has the settings of the evaluation. Source, gap to training tasks and shift between simulators are added.
    """
    family, settings = loaded.family, config.evaluation
    result = with_source(result, loaded, config)
    if settings.train_gap:
        gap = train_gap(loaded, family, result.settings, result.returns, threads, say)
        result = replace(result, train_gap=gap)
    trained, tasks = loaded.config.training.simulator, draw_tasks(family, settings)
    shift = simulator_shift(loaded.agent, family, trained, settings, tasks, result.returns, threads, say)
    result = remarked(replace(result, shift=shift), family, loaded.agent.facts.adapts)
    evaluation_tables.show(result)
    return replace(result, figures=evaluation_files.save_all(result, family, loaded.directory.resolve()))


def compare(
    runs: Sequence[Run | Path | str],
    family: FamilySettings | str | None = None,
    settings: EvaluationSettings | None = None,
    checkpoint: str = "last",
    device: str | None = None,
    threads: int | None = None,
    output: Path | str | None = None,
    **overrides: Any,
) -> Comparison:
    """Evaluate several agents on the same tasks, print tables, save JSON, CSV and figures, and return the comparison.

    runs: runs that `metarl.load` returned, folders, or texts as `metarl evaluate` takes them, such as
    `PATH:agent.SETTING=VALUE` or `runs/ppo_*`. Runs that differ in `training.seed` alone are one agent: its numbers are
    means over the runs, and its intervals cover training seeds too; give the runs different labels to keep them apart.
    family: settings or name of the family whose tasks all agents meet; None for the runs' own, with the settings of the
    first run. settings, threads: None takes the first run's own. checkpoint, device: as `metarl.load` takes them.
    output: folder; None for a new one in `comparisons/`. overrides: single fields of the settings. UsageError if the
    runs cannot be compared, or for a wrong value.
    """
    entries: list[Entry] = []
    loaded: dict[int, Run] = {}
    for run in runs:
        if isinstance(run, Run):
            loaded[len(entries)] = run
            entries.append(Entry(run.directory, run.config))
        else:
            entries += read_entries(str(run))
    require_apart([entry for i, entry in enumerate(entries) if i not in loaded])
    if not entries:
        raise UsageError("nothing to compare; give at least one run")
    taken: dict[str, Any] = {}
    if family is None or isinstance(family, str):
        family, taken = family_settings(entries, family)
    first = entries[0].trained  # what is overridden for one of them is not for the others
    config = replace(first, family=family, evaluation=settings or first.evaluation)
    data = config_to_dict(config)
    data["evaluation"] |= overrides
    if settings is None and "explore" not in overrides:
        entries = [entry.exploring_as_trained() for entry in entries]
    config = config_from_dict(data)
    tasks_of = checked_family(config)
    if output:
        comparison_files.make_folder_for(output, entries, config)
    comparison = compare_entries(entries, config, tasks_of, taken, checkpoint, device, threads, loaded, say)
    return conclude_comparison(comparison, tasks_of, output)


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def conclude_comparison(comparison: Comparison, family: TaskFamily, output: Path | str | None = None) -> Comparison:
    """Print the tables of a comparison, and save JSON, CSV and figures.

    family: whose tasks they are. output: folder; None for a new one in `comparisons/`.
    """
    comparison_tables.show(comparison)
    folder = Path(output) if output else _new_folder(comparison)
    return replace(comparison, folder=folder, figures=comparison_files.save(comparison, family, folder))


def _new_folder(comparison: Comparison) -> Path:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return fresh_folder(Path("comparisons") / f"{comparison.family}_{comparison.settings.split}_{stamp}", "--output")
