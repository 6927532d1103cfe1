"""Comparing: the agents of several runs evaluated on the same tasks, what is said of their differences."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from metarl.config import EvaluationSettings, RunConfig, read_run_config
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.reveal import reveal
from metarl.envs.task import Task
from metarl.errors import RunError, UsageError, usage_errors
from metarl.evaluation.comparison import Compared, Comparison, Improvement, Trained
from metarl.evaluation.evaluate import draw_tasks, evaluate_agent, pooled, source_of, train_gap
from metarl.evaluation.remarks import notes_of, warnings_of
from metarl.evaluation.statistics import Interval, probability_of_improvement, share_interval
from metarl.provenance import provenance
from metarl.runs.entries import Entry, by_agent, labels, trained_with
from metarl.runs.run import Run, load_run
from metarl.runs.trial import stream


def compare_entries(
    entries: Sequence[Entry],
    config: RunConfig,
    taken: Mapping[str, Any],
    checkpoint: str = "last",
    device: str | None = None,
    threads: int | None = None,
    loaded: Mapping[int, Run] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Evaluate the agents of entries on the same tasks.

    config: family and evaluation count. taken: settings that the family has from the first run. loaded: runs that need
    not be read, by their place among the entries. say: is given lines about how far it is.
    """
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
        agents.append(_compared(name, own, their_runs, family, settings, tasks, threads, say))
    agents = with_oracle_shares(agents, config.evaluation)
    return Comparison(
        family,
        config,
        tasks,
        agents,
        improvements_of(agents, config.evaluation),
        notes_of(agents, [own[0] for own in trained], config, taken),
        warnings_of(agents, [own[0] for own in trained], checkpoint),
        provenance(),
    )


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
    say: Callable[[str], None],
) -> Compared:
    """An agent, of one run or of several; say: is given lines about how far it is."""
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
