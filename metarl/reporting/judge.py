"""Judging runs: evaluations and comparisons with what is printed and saved of them."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarl.config import EvaluationSettings, RunConfig, config_from_dict, config_to_dict
from metarl.deployment.rollouts import save_trial
from metarl.envs.family_settings import FamilySettings
from metarl.errors import UsageError
from metarl.evaluation.compare import compare_entries
from metarl.evaluation.comparison import Comparison
from metarl.evaluation.evaluate import EvaluationResult, evaluate_agent, source_of, train_gap
from metarl.evaluation.simulator_shift import simulator_shift
from metarl.files import fresh_folder
from metarl.reporting import comparison_tables, tables
from metarl.runs.entries import Entry, family_settings, read_entries
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
    """Evaluate a run's agent, print the table, and save JSON and figures in the run's folder.

    run: what `metarl.load` returned, or a run's folder, of which checkpoint and device are as `metarl.load` takes them.
    settings, threads: None takes the run's own. log_rollouts: folder to write the episodes to. overrides: single
    fields of the settings. UsageError for a field or value that is none.
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
    """Say and save what an evaluation of a run, with the settings of a configuration, came to, as `evaluate` does."""
    result = replace(result, source=source_of(loaded, config))
    if config.evaluation.train_gap:
        result = replace(result, train_gap=train_gap(loaded, result, threads, say))
    trained = loaded.config.training.simulator
    parts = (config.evaluation, result.tasks, result.returns, threads, say)
    result = replace(result, shift=simulator_shift(loaded.agent, loaded.family, trained, *parts))
    tables.show(result)
    return replace(result, figures=tables.save_all(result, loaded.directory.resolve()))


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
    """Evaluate several agents on the same tasks, print tables, and save JSON, CSV and figures.

    runs: what `metarl.load` returned, folders, or texts as `metarl evaluate` takes them: `PATH:agent.SETTING=VALUE`,
    `runs/ppo_*`.
    Runs that differ in `training.seed` alone are one agent: its numbers are means over them, its intervals are over
    training seeds too; labels of their own keep them apart.
    family: whose tasks all meet, by its settings or its name; None: the runs' own, in the settings of the first.
    settings, threads: None takes the first run's own. checkpoint, device: as `metarl.load` takes them. output: folder;
    None: a new one in `comparisons/`. overrides: single fields of the settings. UsageError if the runs do not belong
    together, or for a value that is none.
    """
    entries: list[Entry] = []
    loaded: dict[int, Run] = {}
    for run in runs:
        if isinstance(run, Run):
            loaded[len(entries)] = run
            entries.append(Entry(run.directory, run.config))
        else:
            entries += read_entries(str(run))
    if not entries:
        raise UsageError("nothing to compare; give at least one run")
    taken: dict[str, Any] = {}
    if family is None or isinstance(family, str):
        family, taken = family_settings(entries, family)
    first = entries[0].config
    config = replace(first, family=family, evaluation=settings or first.evaluation)
    data = config_to_dict(config)
    data["evaluation"] |= overrides
    if settings is None and "explore" not in overrides:
        entries = [entry.exploring_as_trained() for entry in entries]
    comparison = compare_entries(entries, config_from_dict(data), taken, checkpoint, device, threads, loaded, say)
    return conclude_comparison(comparison, output)


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def conclude_comparison(comparison: Comparison, output: Path | str | None = None) -> Comparison:
    """Print a comparison's tables, and save JSON, CSV and figures; output: folder, None for a new one."""
    comparison_tables.show(comparison)
    folder = Path(output) if output else _new_folder(comparison.config)
    return replace(comparison, folder=folder, figures=comparison_tables.save(comparison, folder))


def _new_folder(config: RunConfig) -> Path:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return fresh_folder(Path("comparisons") / f"{config.family_name}_{config.evaluation.split}_{stamp}", "--output")
