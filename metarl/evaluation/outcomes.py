"""What trials on given tasks give: returns, measures, recovery after changes; disturbed where settings ask for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from metarl.agents.agent import Agent, Trial
from metarl.config import EvaluationSettings
from metarl.envs.family import TaskFamily
from metarl.envs.sharded import ShardedEnv
from metarl.envs.task import Task
from metarl.evaluation.statistics import RECOVERY_WINDOW, Array, steps_to_recover
from metarl.runs.simulators import simulator_for, unsupported
from metarl.runs.trial import UNDISTURBED, Disturbance, TrialResult, run_trial, stream, streams

OnTrial = Callable[[Agent, TaskFamily, Trial, list[Task], int], None]
"""(agent, family, trial, its tasks, the evaluation seed)."""
SPREAD_TASKS, SPREAD_ENVS = 8, 2
"""Training tasks, and episodes of each, from which the scale of an observation's elements is taken."""


@dataclass(frozen=True)
class TrialOutcome:
    """What trials on some tasks gave: [seed, shot, task], means over a task's sound episodes, NaN where it has none."""

    returns: Array
    measures: dict[str, Array]
    """By name: what the family measures, and `success` where it defines it."""
    recovery: Array | None
    """[seed, task] mean over the task's changes of the control steps until the reward was back (`steps_to_recover`);
    infinite if after one it was not, NaN if it cannot be told. None if the tasks do not change."""
    faults: int
    """Episodes left out because MuJoCo flagged the simulation."""
    overflows: int
    """Simulation steps of single robots in which contacts were left out for want of room."""


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
    """Trials on tasks [seed][task], as many of each of `settings.seeds`. name: of the streams of randomness.

    on_trial: is given each seed's trial, to write its episodes down for one.
    """
    simulator = simulator_for(settings.simulator, agent, "evaluation.simulator")
    with unsupported("evaluation.simulator"):
        env = ShardedEnv(family, settings.tasks, settings.envs_per_task, threads, measuring=True, simulator=simulator)
    disturbance = disturbance_of(family, settings, threads)
    returns, measures, recovery, faults = [], [], [], 0
    for done, (seed, drawn) in enumerate(zip(settings.seeds, tasks, strict=True)):
        if progress:
            progress(f"evaluating seed {seed} ({done + 1} of {len(settings.seeds)})")
        with unsupported("evaluation.simulator"):
            env.set_tasks(drawn)
        rngs = streams(seed, f"{name}/episodes", 0, settings.tasks)
        result = run_trial(env, agent, rngs, settings.adaptations, settings.explore, disturbance)
        if on_trial is not None:
            on_trial(agent, family, result.trial, drawn, seed)
        episodes = np.stack(result.returns)  # [K, M, N]
        returns.append(mean_of_sound(episodes))
        measures.append({k: mean_of_sound(np.stack([m[k] for m in result.measures])) for k in result.measures[0]})
        if family.changes is not None:
            recovery.append([recovery_of(result, drawn[m], m) for m in range(len(drawn))])
        faults += int(np.isnan(episodes).sum())
    return TrialOutcome(
        np.stack(returns),
        {k: np.stack([of_seed[k] for of_seed in measures]) for k in family.measure_units},
        np.array(recovery) if recovery else None,
        faults,
        sum(env.overflows.values()),
    )


def exploring(agent: Agent, settings: EvaluationSettings) -> EvaluationSettings:
    """The settings, with the policy's noise where the agent adapts by it: the policy gradient of its mean is 0."""
    if settings.adaptations and agent.facts.needs_own_noise:
        return replace(settings, explore=True)
    return settings


def disturbance_of(family: TaskFamily, settings: EvaluationSettings, threads: int) -> Disturbance:
    """What the settings put between the world and the agent."""
    if not settings.observation_noise:
        return replace(UNDISTURBED, reward_scale=settings.reward_scale)
    return Disturbance(settings.observation_noise * observation_spread(family, threads), settings.reward_scale)


def observation_spread(family: TaskFamily, threads: int = 1) -> Array:
    """Standard deviation of each element of the observation over training tasks under random actions, [obs].

    The scale of observation noise: it is the same for every agent, and no agent need know any. Elements that are a
    parameter by name, such as what an oracle is told, have 0: no sensor reads them.
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
    told = {parameter.name for parameter in family.parameters}
    names = [element.name.removeprefix("task_") for element in family.elements]
    return np.where([name in told for name in names], 0.0, spread)


def recovery_of(result: TrialResult, task: Task, index: int) -> float:
    """Mean control steps until the reward of the task's trial was back after its changes; see `TrialOutcome`.

    The reward of a step is the mean over the task's episodes that run; episodes follow each other at full length. Their
    first steps, as many as are averaged over, are left out: the robot starts from rest, change or no change.
    """
    rollouts = result.trial.rollouts
    rewards = np.concatenate([rollout.rewards[:, index].cpu().numpy() for rollout in rollouts])  # [K T, N]
    valid = np.concatenate([rollout.valid[:, index].cpu().numpy() for rollout in rollouts])
    horizon = len(rollouts[0].valid)
    running = np.asarray(valid.any(axis=1)) & (np.arange(len(valid)) % horizon >= RECOVERY_WINDOW)
    means = (rewards * valid).sum(axis=1)[running] / valid.sum(axis=1)[running]
    places = np.cumsum(running) - running  # of each step among those that are left
    starts = [int(places[change.step]) for change in task.changes if change.step < running.size]
    steps = []
    for start, end in itertools.pairwise([*starts, len(means)]):
        if (taken := steps_to_recover(means[:end].astype(np.float64), start)) is not None:
            steps.append(taken)
    return float(np.mean(steps)) if steps else np.nan


def total_of_sound(episodes: Array) -> tuple[Array, Array]:
    """Sum along the last axis of what is not NaN, and how many there are."""
    sound = ~np.isnan(episodes)
    return np.where(sound, episodes, 0.0).sum(axis=-1, dtype=np.float64), sound.sum(axis=-1)


def mean_of_sound(episodes: Array) -> Array:
    """Mean along the last axis over what is not NaN; NaN where nothing is left."""
    total, count = total_of_sound(episodes)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
