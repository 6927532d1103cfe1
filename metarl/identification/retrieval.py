"""Retrieval, a baseline that trains nothing: act by the policy of the known task that an episode is nearest to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.agents import beliefs
from metarl.agents.agent import Agent, Rollout
from metarl.agents.metric.few_shot import Metric
from metarl.agents.threads import single_torch_thread
from metarl.envs.family import TaskFamily
from metarl.envs.sharded import ShardedEnv
from metarl.envs.task import Task
from metarl.evaluation.statistics import Interval, bootstrap_interval, mean, stratified_resamples
from metarl.identification.collect import steps_in
from metarl.runs.trial import collect, run_trial, streams

EPISODES = ("first episode", "second, adapted", "second, retrieved")
"""Names of the returns that are compared."""


def retrieval(
    agent: Agent,
    family: TaskFamily,
    metric: Metric,
    support: Tensor,
    known: Sequence[Task],
    judged: Sequence[Sequence[Task]],
    steps: int,
    explore: bool,
    seed: int,
    threads: int,
    resamples: int,
    rng: np.random.Generator,
) -> dict[str, Interval]:
    """Return the mean return of an episode on tasks, by `EPISODES`, with intervals over tasks within each class.

    The agent plays an episode on each of the known tasks and adapts: these beliefs are the known policies. On each of
    the judged tasks [class][task] it plays an episode, and then another: adapted to it, or by the known policy whose
    task is the nearest, which needs no adaptation.

    support: [W, S, D], embeddings of episodes of the classes of the known tasks, W of them. steps: of an episode that
    are read. explore: act with exploration noise, as in the episodes of the support.
    """
    flat = [task for own in judged for task in own]
    library = _second(agent, family, known, explore, seed, "known", threads)[2]
    first, returns, _ = _second(agent, family, flat, explore, seed, "judged", threads)
    read, lengths = steps_in(first, steps, metric.settings.reward_input)
    with torch.no_grad():
        nearest = metric.head(metric.encoder(read, lengths.clamp(min=1), [steps])[0], support).argmax(dim=1)
    found = {
        EPISODES[0]: returns[0],
        EPISODES[1]: returns[1],
        EPISODES[2]: _played(agent, family, flat, beliefs.join([library], nearest), explore, seed, threads),
    }
    sizes = [len(own) for own in judged]
    drawn = stratified_resamples(sizes, resamples, rng)
    sound = ~np.isnan(np.stack(list(found.values()))).any(axis=0)
    level = {name: np.where(sound, values, np.nanmean(values)) for name, values in found.items()}
    return {name: bootstrap_interval(values[None], drawn, mean) for name, values in level.items()}


def _second(
    agent: Agent, family: TaskFamily, tasks: Sequence[Task], explore: bool, seed: int, name: str, threads: int
) -> tuple[Rollout, list[np.ndarray], Any]:
    """Return the first episode on each task, the returns of two episodes, and the belief between them."""
    env = ShardedEnv(family, len(tasks), 1, threads)
    env.set_tasks(tasks)
    rngs = streams(seed, f"retrieval/{name}", 0, len(tasks))
    result = run_trial(env, agent, rngs, 1, explore)
    return result.trial.rollouts[0], [own[:, 0] for own in result.returns], result.trial.beliefs[1]


def _played(
    agent: Agent, family: TaskFamily, tasks: Sequence[Task], belief: Any, explore: bool, seed: int, threads: int
) -> np.ndarray:
    """Return the return of an episode on each task, from a belief about each of them."""
    env = ShardedEnv(family, len(tasks), 1, threads)
    env.set_tasks(tasks)
    rngs = env.deal(streams(seed, "retrieval/second", 0, len(tasks)))
    returns = np.empty(len(tasks))
    with single_torch_thread():
        for shard, own, index in zip(env.shards, rngs, env.indices, strict=True):
            start = beliefs.join([belief], torch.from_numpy(np.asarray(index)))
            returns[index] = collect(shard, agent, start, own, explore, shots=1).returns[:, 0]
    return returns
