"""Comparison: several agents on the same tasks with the same seeds, baselines and oracles among them."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from metarl import comparison_tables
from metarl.comparison_remarks import notes_of, warnings_of
from metarl.config import EvaluationSettings, RunConfig, config_from_dict, config_to_dict, read_run_config
from metarl.entries import Entry, family_settings, labels, read_entry, trained_with
from metarl.envs.family import Task, TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.reveal import reveal
from metarl.envs.settings import FamilySettings
from metarl.errors import RunError, UsageError, usage_errors
from metarl.evaluation import EvaluationResult, draw_tasks, evaluate_agent, say, source_of, train_gap
from metarl.provenance import provenance
from metarl.run import Run, load_run
from metarl.statistics import Interval, plain, probability_of_improvement, share_interval
from metarl.trial import stream


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
    oracle_share: Interval | None = None
    """Share of the gap between itself before adaptation and the oracle that adaptation recovers; None: no oracle, or
    one whose lead is not shown, see `share_interval`."""
    folder: Path | None = None
    """Of its run, resolved."""
    trained: Mapping[str, Any] = field(default_factory=dict)
    """Configuration that the run was trained with, without evaluation and tracking: tells the run apart if it moves."""

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

    runs: what `metarl.load` returned, folders, or texts as `metarl evaluate` takes them: `PATH:agent.SETTING=VALUE`.
    family: whose tasks all meet, by its settings or its name; None: the runs' own, in the settings of the first.
    settings, threads: None takes the first run's own. checkpoint, device: as `metarl.load` takes them. output: folder;
    None: a new one in `comparisons/`. overrides: single fields of the settings. UsageError if the runs do not belong
    together, or for a value that is none.
    """
    loaded = {i: run for i, run in enumerate(runs) if isinstance(run, Run)}
    entries = [Entry(r.directory, r.config) if isinstance(r, Run) else read_entry(str(r)) for r in runs]
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
    names = labels(entries)
    threads = entries[0].config.training.threads if threads is None else threads
    family = checked_family(config)
    tasks = draw_tasks(family, config.evaluation)
    ready = loaded or {}
    runs = [
        ready[i] if i in ready else load_run(entry.path, checkpoint, device, entry.agent_overrides)
        for i, entry in enumerate(entries)
    ]
    for name, run in zip(names, runs, strict=True):
        require_fit(name, run, family_for(run.config, family))
    agents = []
    for name, entry, run in zip(names, entries, runs, strict=True):
        settings = replace(config.evaluation, **entry.own_evaluation)
        agents.append(_compared(name, entry, run, family, settings, tasks, threads))
    agents = with_oracle_shares(agents, config.evaluation)
    comparison = Comparison(
        family,
        config,
        tasks,
        agents,
        improvements_of(agents, config.evaluation),
        notes_of(agents, runs, config, taken),
        warnings_of(agents, runs),
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
    entry: Entry,
    run: Run,
    family: TaskFamily,
    settings: EvaluationSettings,
    tasks: list[list[Task]],
    threads: int,
) -> Compared:
    def progress(line: str) -> None:
        say(f"{label}: {line}")

    met = family_for(run.config, family)
    result = evaluate_agent(run.agent, met, settings, threads, progress, tasks)
    result = replace(result, source=source_of(run))
    if settings.train_gap:
        result = replace(result, train_gap=train_gap(run, result, threads, progress))
    directory = entry.path.resolve()
    return Compared(
        *(label, run.config.agent_name, run.config.training.reveal_task, entry.overrides, result),
        folder=directory,
        trained=trained_with(read_run_config(directory)),
    )


def with_oracle_shares(agents: Sequence[Compared], settings: EvaluationSettings) -> list[Compared]:
    """The agents with what they recover of the gap to the best oracle among them."""
    oracles = [agent for agent in agents if agent.oracle]
    if not oracles:
        return list(agents)
    best = max(oracles, key=lambda agent: agent.result.summary.iqm[-1].estimate).result.returns[:, -1]

    def share(agent: Compared) -> Interval | None:
        returns = agent.result.returns
        if agent.oracle or returns.shape[1] < 2:
            return None
        rng = stream(settings.seeds[0], "comparison/oracle")
        return _of_common_tasks(
            lambda: share_interval(returns[:, -1], returns[:, 0], best, settings.bootstrap_samples, rng)
        )

    return [replace(agent, oracle_share=share(agent)) for agent in agents]


def improvements_of(agents: Sequence[Compared], settings: EvaluationSettings) -> list[Improvement]:
    """Of each pair of agents, by their returns after their last rounds."""

    def improvement(a: Compared, b: Compared) -> Improvement:
        first, second = a.result.returns[:, -1], b.result.returns[:, -1]
        rng = stream(settings.seeds[0], "comparison/improvement")
        return Improvement(
            a.label,
            b.label,
            *_of_common_tasks(lambda: probability_of_improvement(first, second, settings.bootstrap_samples, rng)),
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
