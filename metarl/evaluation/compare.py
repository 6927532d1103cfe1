"""Evaluate the agents of several runs on the same tasks, and compare them."""

from __future__ import annotations

import functools
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
from metarl.evaluation.contrasts import probability_of_improvement, share_interval
from metarl.evaluation.evaluate import draw_tasks, evaluate_agent, pooled, with_source
from metarl.evaluation.judged import Judged
from metarl.evaluation.notes import remarked
from metarl.evaluation.remarks import notes_of, trained_elsewhere, unfair_to, warnings_of
from metarl.evaluation.results import AgentResult, EvaluationResult
from metarl.evaluation.statistics import Interval
from metarl.evaluation.time_course import MemoryGap, memory_gap
from metarl.evaluation.train_gap import train_gap
from metarl.provenance import provenance
from metarl.runs.entries import Entry, by_agent, files_by_content, labels, trained_with
from metarl.runs.run import Run, as_mirrored, load_run, require_evaluable
from metarl.runs.trial import stream


def compare_entries(
    entries: Sequence[Entry],
    config: RunConfig,
    family: TaskFamily,
    taken: Mapping[str, Any],
    checkpoint: str = "last",
    device: str | None = None,
    threads: int | None = None,
    loaded: Mapping[int, Run] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Evaluate the agents of entries on the same tasks, and return the comparison.

    config: has the settings of the evaluation, and those of the family whose tasks they are. taken: settings of the
    family that come from the first run. loaded: runs that need not be read, by their place among the entries. say:
    called with lines about the progress.
    """
    together = by_agent(entries)
    names = labels(together)
    threads = entries[0].config.training.threads if threads is None else threads
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
    judged: dict[str, list[Judged]] = {}
    for name, own, their_runs in zip(names, together, trained, strict=True):
        judged[name] = []
        for entry, run in zip(own, their_runs, strict=True):
            whose = name if len(own) == 1 else f"{name} ({entry.path.resolve().name})"
            tell = functools.partial(_told, say, whose)
            judged[name].append(judge(entry, run, config, family, tasks, threads, tell))
    return comparison_of(judged, config, family, tasks, taken, checkpoint)


def _told(say: Callable[[str], None], whose: str, line: str) -> None:
    say(f"{whose}: {line}")


def judge(
    entry: Entry,
    run: Run,
    config: RunConfig,
    family: TaskFamily,
    tasks: list[list[Task]],
    threads: int,
    say: Callable[[str], None] = lambda line: None,
) -> Judged:
    """Return the run of an entry, judged on tasks [seed][task] of the family. config, say: as in `compare_entries`."""
    met = family_for(run.config, family)
    settings = replace(config.evaluation, **entry.own_evaluation)
    result = with_source(evaluate_agent(run.agent, met, settings, threads, say, tasks), run)
    if settings.train_gap:
        gap = train_gap(run, met, result.settings, result.returns, threads, say)
        result = replace(result, train_gap=gap)
    adapts, folder = run.agent.facts.adapts, entry.path.resolve()
    return Judged(
        result=remarked(result, met, adapts),
        agent=run.config.agent_name,
        adapts=adapts,
        overrides=entry.overrides,
        folder=folder,
        trained=trained_with(read_run_config(folder)),
        elsewhere=trained_elsewhere(run.config, config),
        unfair=unfair_to(run.family, family),
    )


def comparison_of(
    judged: Mapping[str, Sequence[Judged]],
    config: RunConfig,
    family: TaskFamily,
    tasks: Sequence[Sequence[Task]],
    taken: Mapping[str, Any],
    checkpoint: str = "last",
) -> Comparison:
    """Return the comparison of agents by label, each of runs that were judged on the same tasks [seed][task].

    config, taken, checkpoint: as in `compare_entries`.
    """
    wholes = {label: _whole(own, family) for label, own in judged.items()}
    agents = [_compared(label, own, wholes[label]) for label, own in judged.items()]
    if not family.changing:  # what an agent had before adaptation would be a return on another task
        agents = with_oracle_shares(agents, config.evaluation)
    agents = with_memory_gaps(agents, config.evaluation)
    firsts = [own[0] for own in judged.values()]
    return Comparison(
        family=family.name,
        family_settings=trained_with(files_by_content(config))["family"],
        settings=config.evaluation,
        units=dict(family.measure_units),
        success=family.success_text(),
        tasks=[[family.shown(task) for task in of_seed] for of_seed in tasks],
        agents=agents,
        improvements=improvements_of(agents, config.evaluation),
        notes=notes_of(agents, [whole.notes for whole in wholes.values()], [own.elsewhere for own in firsts], taken),
        warnings=warnings_of(agents, firsts, config.evaluation, family.changing, checkpoint),
        provenance=provenance(),
    )


def checked_family(config: RunConfig) -> TaskFamily:
    """Return the family of a configuration; UsageError if the evaluation cannot be on it."""
    with usage_errors("family"):
        family = make_family(config.family)
    require_evaluable(config.evaluation, family)
    return family


def family_for(config: RunConfig, family: TaskFamily) -> TaskFamily:
    """Return the family as the run's agent observes it: an oracle observes the parameters of the task too."""
    t = config.training
    if not t.reveal_task:
        return family
    trained_on = make_family(config.family)
    return reveal(family, as_mirrored(config, trained_on), t.splits)


def require_fit(label: str, run: Run, family: TaskFamily) -> None:
    """Raise UsageError with the differences unless the run's agent fits the observations and actions of the family."""
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


def _whole(judged: Sequence[Judged], family: TaskFamily) -> EvaluationResult:
    """Return the evaluation of an agent of one run or several."""
    results = [own.result for own in judged]
    return results[0] if len(results) == 1 else pooled(results, family, judged[0].adapts)


def _compared(label: str, judged: Sequence[Judged], whole: EvaluationResult) -> Compared:
    """Return an agent of one run or several. whole: its evaluation."""
    first = judged[0]
    several = judged if len(judged) > 1 else ()
    return Compared(
        label=label,
        agent=first.agent,
        oracle=first.oracle,
        overrides=first.overrides,
        result=AgentResult.part_of(whole),
        explore=whole.settings.explore,
        envs_per_task=whole.settings.envs_per_task,
        reset_memory=whole.settings.reset_memory,
        folder=first.folder,
        trained=first.trained,
        runs=tuple(Trained.of(own.seed, own.folder, own.result) for own in several),
    )


def with_oracle_shares(agents: Sequence[Compared], settings: EvaluationSettings) -> list[Compared]:
    """Return the agents with the share of the best oracle's lead that each recovers."""
    oracles = [agent for agent in agents if agent.oracle]
    if not oracles:
        return list(agents)
    best = max(oracles, key=lambda agent: agent.result.summary.iqm[-1].estimate).returns[:, :, -1]

    def share(agent: Compared) -> Interval | None:
        returns = agent.returns
        if agent.oracle or not agent.adaptations:
            return None
        rng = stream(settings.seeds[0], "comparison/oracle")
        return _of_common_tasks(
            lambda: share_interval(returns[:, :, -1], returns[:, :, 0], best, settings.bootstrap_samples, rng)
        )

    return [replace(agent, oracle_share=share(agent)) for agent in agents]


def with_memory_gaps(agents: Sequence[Compared], settings: EvaluationSettings) -> list[Compared]:
    """Return the agents with what their memory adds, where the same runs are there with it reset at every action.

    Where tasks change, that is after their first change, and seconds are since then; nothing if too little of an
    episode comes after it.
    """

    def gap(agent: Compared) -> MemoryGap | None:
        reset = next((other for other in agents if _is_without_memory(other, agent)), None)
        if reset is None:
            return None
        rng = stream(settings.seeds[0], "comparison/memory")
        which = 1 if agent.result.binned[0].changes_s or len(agent.result.binned) > 1 else 0
        kept, lost = (next((b for b in a.result.binned if b.change == which), None) for a in (agent, reset))
        if kept is None or lost is None:
            return None
        return memory_gap(kept, lost, settings.bootstrap_samples, rng)

    return [replace(agent, memory_gap=gap(agent)) for agent in agents]


def _is_without_memory(reset: Compared, agent: Compared) -> bool:
    """Return whether an agent is another one whose memory is reset before every action, and differs in nothing else."""
    kept, own = (
        (
            [member.folder for member in one.members],
            {name: value for name, value in one.overrides.items() if name != "evaluation.reset_memory"},
            (one.explore, one.envs_per_task, one.adaptations),
        )
        for one in (reset, agent)
    )
    return (reset.reset_memory, agent.reset_memory) == ("step", "never") and kept == own


def improvements_of(agents: Sequence[Compared], settings: EvaluationSettings) -> list[Improvement]:
    """Return the probability of improvement of each pair of agents, by their returns after their last rounds."""

    def improvement(a: Compared, b: Compared) -> Improvement:
        first, second = a.returns[:, :, -1], b.returns[:, :, -1]
        rng = stream(settings.seeds[0], "comparison/improvement")
        same = bool(a.runs) and a.has_runs_of(b)
        samples = settings.bootstrap_samples
        return Improvement(
            a.label,
            b.label,
            *_of_common_tasks(lambda: probability_of_improvement(first, second, samples, rng, same)),
        )

    return [improvement(a, b) for a, b in itertools.combinations(agents, 2)]


def _of_common_tasks(compute: Callable[[], Any]) -> Any:
    """Return what a function computes; its ValueError about too few tasks becomes RunError."""
    try:
        return compute()
    except ValueError as error:
        raise RunError(f"no comparison: two agents have too few tasks without a fault in common ({error})") from error
