"""Run trials on given tasks, and collect returns, measures and recovery after changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from metarl.agents.agent import Agent, Trial
from metarl.config import EvaluationSettings
from metarl.envs.family import TaskFamily
from metarl.envs.reveal import told_as
from metarl.envs.sharded import ShardedEnv
from metarl.envs.task import Task
from metarl.evaluation.binning import Binned, bin_ends, binned, recorded
from metarl.evaluation.forgetting import Revisit, other_tasks
from metarl.evaluation.recovery import recovery_of
from metarl.evaluation.statistics import Array
from metarl.runs.simulators import simulator_for, unsupported
from metarl.runs.trial import UNDISTURBED, Disturbance, TrialResult, run_trial, stream, streams

OnTrial = Callable[[Agent, TaskFamily, Trial, list[Task], int], None]
"""Callback that is given (agent, family, trial, tasks of the trial, evaluation seed)."""
SPREAD_TASKS, SPREAD_ENVS = 8, 2
"""Training tasks, and episodes of each, that the scale of observation noise is measured on."""


@dataclass(frozen=True)
class TrialOutcome:
    """Outcome of trials: arrays [seed, shot, task], means over the episodes of a task that MuJoCo did not flag.

    NaN where a task has no such episode.
    """

    returns: Array
    measures: dict[str, Array]
    """Measures of the family by name, and `success` if the family defines it."""
    recovery: Array | None
    """[seed, task] mean over the task's changes of the control steps until the reward was back (`steps_to_recover`).
    Infinite if it did not come back after some change, NaN if it cannot be measured. None without changes."""
    faults: int
    """Episodes left out because the simulation broke down."""
    overflows: int
    """Simulation steps of single robots in which contacts were left out for want of room."""
    binned: Sequence[Binned] = ()
    """Values in bins of time: over the trial, then after each change of the tasks."""
    revisit: Revisit | None = None
    """Other tasks and the same ones again; None unless `evaluation.revisit` asks for it."""
    episodes_per_round: int = 0
    """Episodes that a round of adaptation reads: those of all envs of a task, or one if each env has a belief of its
    own; 0 if an older record does not say."""


def run_trials(
    agent: Agent,
    family: TaskFamily,
    tasks: list[list[Task]],
    settings: EvaluationSettings,
    threads: int,
    name: str = "evaluation",
    progress: Callable[[str], None] | None = None,
    on_trial: OnTrial | None = None,
) -> TrialOutcome:
    """Run trials on tasks [seed][task], as many tasks for each of `settings.seeds`, and return their outcome.

    threads: of the simulation; 0 takes all cores. name: prefix of the streams of randomness. progress: called with a
    line for each seed. on_trial: called with each seed's trial, for example to write its episodes to a file.
    """
    simulator = simulator_for(settings.simulator, agent, "evaluation.simulator")
    with unsupported("evaluation.simulator"):
        env = ShardedEnv(family, settings.tasks, settings.envs_per_task, threads, measuring=True, simulator=simulator)
    disturbance = disturbance_of(family, settings, threads)
    dt, shots = env.shards[0].dt, settings.adaptations + 1
    ends = bin_ends(family.horizon, dt)
    returns, measures, recovery, faults = [], [], [], 0
    first, back, later = [], [], []
    for done, (seed, drawn) in enumerate(zip(settings.seeds, tasks, strict=True)):
        if progress:
            progress(f"evaluating seed {seed} ({done + 1} of {len(settings.seeds)})")
        with unsupported("evaluation.simulator"):
            env.set_tasks(drawn)
        rngs = streams(seed, f"{name}/episodes", 0, settings.tasks)
        visits = [other_tasks(drawn, family), drawn] if settings.revisit else []
        result = run_trial(
            *(
                env,
                agent,
                rngs,
                settings.adaptations,
                settings.explore,
                disturbance,
                settings.reset_memory,
                settings.lives,
                visits,
                ends.tolist(),
            ),
            explore_to_adapt=settings.explore_to_adapt,
        )
        if visits:
            later.append(np.stack([mean_of_sound(own) for own in result.returns[shots:]]))
            back.append(recorded(shots_of(result, 2 * shots), family, ends, dt * settings.reward_scale))
            result = shots_of(result, 0, shots)
        if on_trial is not None:
            on_trial(agent, family, result.trial, drawn, seed)
        first.append(recorded(result, family, ends, dt * settings.reward_scale))
        episodes = np.stack(result.returns)  # [K, M, N]
        returns.append(mean_of_sound(episodes))
        measures.append({k: mean_of_sound(np.stack([m[k] for m in result.measures])) for k in result.measures[0]})
        if family.changing:
            recovery.append([recovery_of(result, drawn[m], m, family.can_fall) for m in range(len(drawn))])
        faults += int(np.isnan(episodes).sum())
    per_round = 1 if agent.facts.belief_per_env else settings.envs_per_task
    clock = (tasks, family.horizon, ends, dt, remembers(agent, settings), per_round)
    return TrialOutcome(
        np.stack(returns),
        {k: np.stack([of_seed[k] for of_seed in measures]) for k in family.measure_units},
        np.array(recovery) if recovery else None,
        faults,
        sum(env.overflows.values()),
        binned(first, *clock),
        Revisit(np.stack(later)[None], binned(back, *clock)[0]) if back else None,
        per_round,
    )


def shots_of(result: TrialResult, first: int, end: int | None = None) -> TrialResult:
    """Return the part of a trial from a shot on, up to another that is not part of it."""
    trial, part = result.trial, slice(first, end)
    return result._replace(
        trial=replace(trial, rollouts=trial.rollouts[part], beliefs=trial.beliefs[part]),
        reward_terms=result.reward_terms[part],
        measures=result.measures[part],
        returns=result.returns[part],
        so_far=result.so_far[part],
    )


def remembers(agent: Agent, settings: EvaluationSettings) -> bool:
    """Return whether the agent remembers anything of the task from one action or episode to the next."""
    within = agent.facts.belief_per_env
    between = agent.facts.adapts or within
    return {"never": between, "episode": within, "step": False}[settings.reset_memory]


def exploring(agent: Agent, settings: EvaluationSettings) -> EvaluationSettings:
    """Return the settings with the policy's noise on if the agent adapts by it: without noise its gradient is 0.

    It stays off in episodes that the agent is judged by alone, see `EvaluationSettings.explore_to_adapt`.
    """
    if settings.adaptations and agent.facts.needs_own_noise and not settings.explore_to_adapt:
        return replace(settings, explore=True)
    return settings


def disturbance_of(family: TaskFamily, settings: EvaluationSettings, threads: int) -> Disturbance:
    """Return the noise on observations and the scale of rewards that the settings ask for."""
    if not settings.observation_noise:
        return replace(UNDISTURBED, reward_scale=settings.reward_scale)
    return Disturbance(settings.observation_noise * observation_spread(family, threads), settings.reward_scale)


def observation_spread(family: TaskFamily, threads: int = 1) -> Array:
    """Return the standard deviation of each element of the observation over training tasks under random actions, [obs].

    It is the unit of observation noise, the same for every agent. Elements that are a parameter of the task, which an
    oracle is told, have 0: no sensor measures them.
    """
    env = ShardedEnv(family, SPREAD_TASKS, SPREAD_ENVS, threads)
    rng = stream(0, "evaluation/spread")
    env.set_tasks(family.sample(SPREAD_TASKS, rng, "train"))
    seen = [env.reset(rng.spawn(SPREAD_TASKS)).reshape(-1, family.observation_size)]
    for _ in range(family.horizon):
        if not env.active.any():
            break
        actions = rng.uniform(family.action_low, family.action_high, (*env.active.shape, family.action_size))
        active = env.active
        seen.append(env.step(actions / family.action_scale).observations[active])
    spread = np.concatenate(seen).std(axis=0, dtype=np.float64)
    told = {parameter.name for parameter in family.parameters} | set(told_as(family))
    names = [element.name for element in family.elements]
    return np.where([name in told for name in names], 0.0, spread)


def total_of_sound(episodes: Array) -> tuple[Array, Array]:
    """Return the sum along the last axis of the values that are not NaN, and their number."""
    sound = ~np.isnan(episodes)
    return np.where(sound, episodes, 0.0).sum(axis=-1, dtype=np.float64), sound.sum(axis=-1)


def mean_of_sound(episodes: Array) -> Array:
    """Return the mean along the last axis of the values that are not NaN; NaN if there are none."""
    total, count = total_of_sound(episodes)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
