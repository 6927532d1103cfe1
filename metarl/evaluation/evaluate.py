"""Evaluation of an agent: returns, measures and gain after 0..K rounds of adaptation, the same tasks for every one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from metarl.agents.agent import Agent
from metarl.config import EvaluationSettings, RunConfig
from metarl.envs.family import TaskFamily
from metarl.envs.task import Task
from metarl.errors import RunError
from metarl.evaluation.binning import Binned
from metarl.evaluation.forgetting import Revisit, forgetting
from metarl.evaluation.notes import remarked
from metarl.evaluation.outcomes import OnTrial, TrialOutcome, exploring, run_trials
from metarl.evaluation.results import SHARES, EvaluationResult, Recovered, Source
from metarl.evaluation.statistics import (
    SHARE,
    UNBOUNDED,
    Array,
    interquartile_mean,
    mean,
    summarise,
    task_interval,
)
from metarl.evaluation.time_course import time_course
from metarl.evaluation.train_gap import pooled_gap
from metarl.provenance import provenance
from metarl.runs.run import Run, require_evaluable
from metarl.runs.trial import stream


def evaluate_agent(
    agent: Agent,
    family: TaskFamily,
    settings: EvaluationSettings,
    threads: int = 0,
    progress: Callable[[str], None] | None = None,
    tasks: list[list[Task]] | None = None,
    on_trial: OnTrial | None = None,
) -> EvaluationResult:
    """Run the agent on `settings.tasks` tasks of the split for each evaluation seed, and return the result.

    The tasks, the starts and the noise follow from the evaluation seeds alone: every agent and every checkpoint meets
    the same ones, whether it acts with noise or without. An agent that adapts by a policy gradient acts with its noise
    whatever the settings say. threads: of the simulation; 0 takes all cores. progress: called with a line for each
    seed. tasks: replace those drawn from the split, as many. on_trial: see `run_trials`.
    """
    RunConfig(evaluation=settings).validate()
    settings = exploring(agent, settings)
    drawn = draw_tasks(family, settings) if tasks is None else tasks
    outcome = run_trials(agent, family, drawn, settings, threads, progress=progress, on_trial=on_trial)
    statistics = statistics_of(settings, [outcome])
    result = EvaluationResult(
        **statistics,
        family=family.name,
        settings=settings,
        tasks=[[family.shown(task) for task in of_seed] for of_seed in drawn],
        units=dict(family.measure_units),
        success=family.success_text(),
    )
    return remarked(result, family, agent.facts.adapts)


def draw_tasks(family: TaskFamily, settings: EvaluationSettings) -> list[list[Task]]:
    """Return the tasks of the split, [seed][task]; UsageError if the family lacks the split."""
    require_evaluable(settings, family)
    return [family.sample(settings.tasks, stream(seed, "evaluation/tasks"), settings.split) for seed in settings.seeds]


def pooled(results: Sequence[EvaluationResult], family: TaskFamily, adapts: bool) -> EvaluationResult:
    """Return the result of agents trained alike with different seeds, given each one's result on the same tasks.

    Each number is the mean over the agents, and its interval covers tasks and training seeds (`seed_deviations`). The
    rounds to reach a level are those of the mean curve; the steps to recover are over the tasks on which all agents
    recover. Faults are added up; the source is the first agent's. family, adapts: as in `remarked`.
    """
    first = results[0]
    statistics = statistics_of(first.settings, results)
    whole = replace(first, **statistics, train_gap=pooled_gap(results, first.settings), shift=None)
    return remarked(whole, family, adapts, len(results))


def statistics_of(settings: EvaluationSettings, outcomes: Sequence[TrialOutcome | EvaluationResult]) -> dict[str, Any]:
    """Return the fields of a result that are computed from outcomes of agents trained alike, one or several.

    RunError if too few tasks have an episode that MuJoCo did not flag.
    """
    samples, first = settings.bootstrap_samples, settings.seeds[0]
    returns = np.stack([outcome.returns for outcome in outcomes])  # [R, S, K, M]
    measures = {name: np.stack([outcome.measures[name] for outcome in outcomes]) for name in outcomes[0].measures}
    found = [outcome.recovery for outcome in outcomes if outcome.recovery is not None]
    recovery = np.stack(found) if found else None  # [R, S, M]
    try:
        summary = summarise(returns, samples, stream(first, "evaluation/bootstrap"))
    except ValueError as error:  # too few tasks without a fault: the settings were checked before
        raise RunError(f"no evaluation: {error}") from error
    measured = {
        name: [
            task_interval(
                *(shot, mean, samples, stream(first, f"evaluation/{name}")),
                SHARE if name in SHARES else UNBOUNDED,
            )
            for shot in np.moveaxis(v, 2, 0)
        ]
        for name, v in measures.items()
    }
    return {
        "returns": returns.mean(axis=0),
        "faults": sum(outcome.faults for outcome in outcomes),
        "summary": summary,
        "measures": {name: v.mean(axis=0) for name, v in measures.items()},
        "measured": measured,
        "recovery": None if recovery is None else recovery.mean(axis=0),
        "recovered": recovered_of(recovery, samples, stream(first, "evaluation/recovery")),
        "overflows": sum(outcome.overflows for outcome in outcomes),
        "episodes_per_round": outcomes[0].episodes_per_round,
        **_in_time(outcomes, returns, samples, first),
    }


def _in_time(
    outcomes: Sequence[TrialOutcome | EvaluationResult], returns: Array, samples: int, seed: int
) -> dict[str, Any]:
    """Return the fields of a result that are about time and about coming back to a task. returns: [R, S, K, M]."""
    binned = [Binned.pool(parts) for parts in zip(*(outcome.binned for outcome in outcomes), strict=True)]
    courses = (time_course(values, samples, stream(seed, "evaluation/time")) for values in binned)
    revisits = [outcome.revisit for outcome in outcomes if outcome.revisit is not None]
    revisit = Revisit.pool(revisits) if revisits else None
    rng = stream(seed, "evaluation/revisit")
    return {
        "binned": binned,
        "courses": [course for course in courses if course is not None],
        "revisit": revisit,
        "forgetting": revisit and forgetting(returns, binned[0], revisit, samples, rng),
    }


def recovered_of(recovery: Array | None, samples: int, rng: np.random.Generator) -> Recovered | None:
    """Return the statistics of steps to recover [R, S, M]; None if tasks do not change or too few can be measured."""
    if recovery is None:
        return None
    share = task_interval(np.where(np.isnan(recovery), np.nan, np.isfinite(recovery)), mean, samples, rng, SHARE)
    steps = task_interval(
        np.where(np.isfinite(recovery), recovery, np.nan), interquartile_mean, samples, rng, (0.0, np.inf)
    )
    return None if share is None else Recovered(share, steps)


def with_source(result: EvaluationResult, run: Run, config: RunConfig | None = None) -> EvaluationResult:
    """Return the result with the checkpoint and the provenance of a run; `remarked` is to follow.

    config: has the settings of the evaluation, if they are not the run's.
    """
    source = Source(run.directory.resolve().name, run.iteration, run.env_steps)
    t, record = run.config.training, provenance(config or run.config)
    return replace(result, source=source, trained_rounds=t.adaptations, also_split=t.also_split, provenance=record)
