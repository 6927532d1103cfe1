"""Comparison: several agents on the same tasks with the same seeds, baselines and oracles among them."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from metarl.reporting import comparison_tables
from metarl.evaluation.remarks import notes_of, warnings_of
from metarl.config import EvaluationSettings, RunConfig, config_from_dict, config_to_dict, read_run_config
from metarl.runs.entries import Entry, by_agent, family_settings, labels, read_entries, trained_with
from metarl.envs.family import Task, TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.reveal import reveal
from metarl.envs.settings import FamilySettings
from metarl.errors import RunError, UsageError, usage_errors
from metarl.evaluation.evaluate import EvaluationResult, draw_tasks, evaluate_agent, pooled, say, source_of, train_gap
from metarl.provenance import provenance
from metarl.runs.run import Run, load_run
from metarl.evaluation.statistics import Array, Interval, plain, probability_of_improvement, share_interval
from metarl.runs.trial import stream


@dataclass(frozen=True)
class Trained:
    """One of the runs of an agent that was trained with several seeds."""

    seed: int
    """Of the training."""
    folder: Path
    """Of the run, resolved."""
    result: EvaluationResult

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; what is not finite is None."""
        result = self.result.to_dict()
        kept = ("run", "iteration", "env_steps", "faults", "summary", "returns", "measures", "recovery")
        return {"seed": self.seed, "folder": str(self.folder), **{name: result[name] for name in kept}}


@dataclass(frozen=True)
class Compared:
    """An agent of a comparison."""

    label: str
    agent: str
    """Its name in the registry."""
    oracle: bool
    """Whether its observations tell it the task."""
    overrides: Mapping[str, Any]
    """Settings of its own, by dotted name."""
    result: EvaluationResult
    """Of several training seeds: `pooled`."""
    oracle_share: Interval | None = None
    """Share of the gap between itself before adaptation and the oracle that adaptation recovers; None: no oracle, or
    one whose lead is not shown, see `share_interval`."""
    folder: Path | None = None
    """Of its run, resolved; of several the first's."""
    trained: Mapping[str, Any] = field(default_factory=dict)
    """Configuration that the run was trained with, without evaluation and tracking: tells the run apart if it moves."""
    runs: tuple[Trained, ...] = ()
    """Its runs, if they are several that differ in the seed of their training alone."""

    @property
    def returns(self) -> Array:
        """[run, seed, shot, task]"""
        return np.stack([run.result.returns for run in self.runs] or [self.result.returns])

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; what is not finite is None."""
        result = self.result.to_dict()
        kept = ("summary", "measured", "recovered", "train_gap", "faults", "returns", "measures", "recovery")
        kept += ("run", "iteration", "env_steps", "trained_rounds")
        settings = self.result.settings
        return {
            "label": self.label,
            "agent": self.agent,
            "oracle": self.oracle,
            "overrides": plain(dict(self.overrides)),
            "folder": self.folder and str(self.folder),
            "trained": dict(self.trained),
            "explore": settings.explore,
            "adaptations": settings.adaptations,
            "envs_per_task": settings.envs_per_task,
            "oracle_share": plain(self.oracle_share and asdict(self.oracle_share)),
            "runs": [run.to_dict() for run in self.runs],
            **{name: result[name] for name in kept},
        }


@dataclass(frozen=True)
class Improvement:
    """Probability that agent `a` does better than agent `b` on a task, each after its last round."""

    a: str
    b: str
    interval: Interval
    tasks: int

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {"a": self.a, "b": self.b, **asdict(self.interval), "tasks": self.tasks}


@dataclass(frozen=True)
class Comparison:
    """What agents did on the same tasks."""

    family: TaskFamily
    """Whose tasks they are, as an agent that is told nothing observes them."""
    config: RunConfig
    """With the settings of that family and of the evaluation; agent and training are the first run's."""
    tasks: list[list[Task]]
    """[seed][task]"""
    agents: list[Compared]
    improvements: list[Improvement]
    """Of each pair of agents, once."""
    notes: list[str]
    warnings: list[str]
    provenance: Mapping[str, Any]
    folder: Path | None = None
    """Where it is saved."""
    figures: Mapping[str, Path] = field(default_factory=dict)
    """PNG files that were drawn, by name."""

    @property
    def settings(self) -> EvaluationSettings:
        """Of the evaluation; an agent's own are in its result."""
        return self.config.evaluation

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; what is not finite is None."""
        return {
            "family": self.family.name,
            "family_settings": config_to_dict(self.config)["family"],
            "split": self.settings.split,
            "evaluation": plain(asdict(self.settings)),
            "units": self.family.measure_units,
            "success": self.family.success_text(),
            "notes": self.notes,
            "warnings": self.warnings,
            "probability_of_improvement": [improvement.to_dict() for improvement in self.improvements],
            "tasks": [[dict(task.values) for task in tasks] for tasks in self.tasks],
            "agents": [agent.to_dict() for agent in self.agents],
            "provenance": dict(self.provenance),
        }


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
    return compare_entries(entries, config_from_dict(data), taken, checkpoint, device, threads, output, loaded)


def compare_entries(
    entries: Sequence[Entry],
    config: RunConfig,
    taken: Mapping[str, Any],
    checkpoint: str = "last",
    device: str | None = None,
    threads: int | None = None,
    output: Path | str | None = None,
    loaded: Mapping[int, Run] | None = None,
) -> Comparison:
    """`compare`, of entries. config: family and evaluation count. taken: settings that the family has from the first
    run. loaded: runs that need not be read, by their place among the entries."""
    together = by_agent(entries)
    names = labels(together)
    threads = entries[0].config.training.threads if threads is None else threads
    family = checked_family(config)
    tasks = draw_tasks(family, config.evaluation)
    ready = loaded or {}
    runs = [
        ready[i] if i in ready else load_run(entry.path, checkpoint, device, entry.agent_overrides)
        for i, entry in enumerate(entries)
    ]
    run_of = {id(entry): run for entry, run in zip(entries, runs, strict=True)}
    trained = [[run_of[id(entry)] for entry in own] for own in together]
    for name, own in zip(names, trained, strict=True):
        require_fit(name, own[0], family_for(own[0].config, family))
    agents = []
    for name, own, their_runs in zip(names, together, trained, strict=True):
        settings = replace(config.evaluation, **own[0].own_evaluation)
        agents.append(_compared(name, own, their_runs, family, settings, tasks, threads))
    agents = with_oracle_shares(agents, config.evaluation)
    comparison = Comparison(
        family,
        config,
        tasks,
        agents,
        improvements_of(agents, config.evaluation),
        notes_of(agents, [own[0] for own in trained], config, taken),
        warnings_of(agents, [own[0] for own in trained], checkpoint),
        provenance(),
    )
    comparison_tables.show(comparison)
    folder = Path(output) if output else _new_folder(config)
    return replace(comparison, folder=folder, figures=comparison_tables.save(comparison, folder))


def checked_family(config: RunConfig) -> TaskFamily:
    """The family of a configuration, with the split that is asked for."""
    with usage_errors("family"):
        family = make_family(config.family)
    with usage_errors("evaluation.split"):
        family.require_split(config.evaluation.split)
    return family


def family_for(config: RunConfig, family: TaskFamily) -> TaskFamily:
    """The family as the run's agent meets it: an oracle's observations tell the task's parameters too."""
    return reveal(family) if config.training.reveal_task else family


def require_fit(label: str, run: Run, family: TaskFamily) -> None:
    """UsageError, which says what differs, unless the run's agent can read and drive the family's robot."""
    where = f"{label} was trained on {run.family.name} and cannot act in {family.name}"
    ours, theirs = family.observation_names, run.family.observation_names
    if ours != theirs:
        lacking = [name for name in theirs if name not in ours]
        more = [name for name in ours if name not in theirs]
        parts = [f"{what} {_some(names)}" for what, names in (("no", lacking), ("besides", more)) if names]
        found = ", ".join(parts) or "the same elements in another order"
        raise UsageError(
            f"{where}: it observes {len(theirs)} elements, there are {len(ours)} there ({found}); choose a family of "
            "the same robot, and settings (family.SETTING=VALUE) with which it observes the same"
        )
    if family.action_size != run.family.action_size:
        raise UsageError(
            f"{where}: it gives {run.family.action_size} actions, {family.action_size} are taken there; choose a "
            "family of the same robot"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _compared(
    label: str,
    entries: Sequence[Entry],
    runs: Sequence[Run],
    family: TaskFamily,
    settings: EvaluationSettings,
    tasks: list[list[Task]],
    threads: int,
) -> Compared:
    """An agent, of one run or of several."""
    trained = []
    for entry, run in zip(entries, runs, strict=True):
        name = label if len(runs) == 1 else f"{label} ({entry.path.resolve().name})"

        def progress(line: str, name: str = name) -> None:
            say(f"{name}: {line}")

        result = evaluate_agent(run.agent, family_for(run.config, family), settings, threads, progress, tasks)
        result = replace(result, source=source_of(run))
        if settings.train_gap:
            result = replace(result, train_gap=train_gap(run, result, threads, progress))
        trained.append(Trained(run.config.training.seed, entry.path.resolve(), result))
    first = runs[0].config
    return Compared(
        *(label, first.agent_name, first.training.reveal_task, entries[0].overrides),
        trained[0].result if len(trained) == 1 else pooled([run.result for run in trained]),
        folder=trained[0].folder,
        trained=trained_with(read_run_config(trained[0].folder)),
        runs=tuple(trained) if len(trained) > 1 else (),
    )


def with_oracle_shares(agents: Sequence[Compared], settings: EvaluationSettings) -> list[Compared]:
    """The agents with what they recover of the gap to the best oracle among them."""
    oracles = [agent for agent in agents if agent.oracle]
    if not oracles:
        return list(agents)
    best = max(oracles, key=lambda agent: agent.result.summary.iqm[-1].estimate).returns[:, :, -1]

    def share(agent: Compared) -> Interval | None:
        returns = agent.returns
        if agent.oracle or not agent.result.settings.adaptations:
            return None
        rng = stream(settings.seeds[0], "comparison/oracle")
        return _of_common_tasks(
            lambda: share_interval(returns[:, :, -1], returns[:, :, 0], best, settings.bootstrap_samples, rng)
        )

    return [replace(agent, oracle_share=share(agent)) for agent in agents]


def improvements_of(agents: Sequence[Compared], settings: EvaluationSettings) -> list[Improvement]:
    """Of each pair of agents, by their returns after their last rounds."""

    def improvement(a: Compared, b: Compared) -> Improvement:
        first, second = a.returns[:, :, -1], b.returns[:, :, -1]
        rng = stream(settings.seeds[0], "comparison/improvement")
        same = bool(a.runs) and [run.folder for run in a.runs] == [run.folder for run in b.runs]
        samples = settings.bootstrap_samples
        return Improvement(
            a.label,
            b.label,
            *_of_common_tasks(lambda: probability_of_improvement(first, second, samples, rng, same)),
        )

    return [improvement(a, b) for a, b in itertools.combinations(agents, 2)]


def _of_common_tasks(compute: Callable[[], Any]) -> Any:
    try:
        return compute()
    except ValueError as error:
        raise RunError(f"no comparison: two agents have too few tasks without a fault in common ({error})") from error


def _new_folder(config: RunConfig) -> Path:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    base = Path("comparisons") / f"{config.family_name}_{config.evaluation.split}_{stamp}"
    candidates = (base.with_name(f"{base.name}_{i}") for i in itertools.count(2))
    return base if not base.exists() else next(folder for folder in candidates if not folder.exists())
