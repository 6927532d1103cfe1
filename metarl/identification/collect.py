"""Episodes of a run's policy on tasks of each class, as an encoder reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from metarl.agents.agent import Agent, Rollout
from metarl.agents.metric.encoder import steps_of
from metarl.agents.metric.few_shot import Episodes
from metarl.envs.family import TaskFamily
from metarl.envs.sharded import ShardedEnv
from metarl.envs.task import Task
from metarl.errors import RunError, UsageError
from metarl.identification.settings import SECONDS
from metarl.runs.trial import run_trial, streams

AT_ONCE = 64
"""Tasks that are simulated at the same time."""


def play(
    agent: Agent,
    family: TaskFamily,
    tasks: Sequence[Sequence[Task]],
    episodes: int,
    steps: int,
    rewarded: bool,
    seed: int,
    threads: int = 0,
    explore: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> Episodes:
    """Play `episodes` episodes on each of the tasks [class][task], before any adaptation; their first steps are kept.

    steps: number of them. rewarded: whether rewards are read. RunError if every episode of a class broke down.
    """
    flat = [(number, task) for number, own in enumerate(tasks) for task in own]
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(flat), AT_ONCE):
        chunk = flat[start : start + AT_ONCE]
        progress(f"playing {start + len(chunk)} of {len(flat)} tasks, {episodes} episodes each")
        env = ShardedEnv(family, len(chunk), episodes, threads)
        env.set_tasks([task for _, task in chunk])
        places = range(start, start + len(chunk))
        rngs = streams(seed, "identification/episodes", 0, places)
        rollout = run_trial(env, agent, rngs, 0, explore).trial.rollouts[0]
        read, lengths = steps_in(rollout, steps, rewarded)
        parts.append((read, lengths, torch.tensor(places).repeat_interleave(episodes)))
    read, lengths, numbers = (torch.cat(own, dim=int(k == 0)) for k, own in enumerate(zip(*parts, strict=True)))
    classes = torch.tensor([number for number, _ in flat])[numbers]
    sound = lengths > 0
    for number in range(len(tasks)):
        if len(numbers[sound & (classes == number)].unique()) < 2:
            raise RunError(
                f"the simulation broke down in nearly every episode of class {number}; look at the family's ranges"
            )
    return Episodes(read[:, sound], lengths[sound], classes[sound], numbers[sound])


def steps_in(rollout: Rollout, steps: int, rewarded: bool) -> tuple[Tensor, Tensor]:
    """Return the first steps [T, M N, input] of a rollout's episodes, and their numbers [M N]."""
    lengths = rollout.valid.sum(dim=0)  # [M, N]
    seen = torch.cat([rollout.observations, rollout.final_observations.unsqueeze(0)])
    ends = lengths[None, ..., None].expand(1, *lengths.shape, seen.shape[-1])
    seen = seen.scatter(0, ends, rollout.final_observations.unsqueeze(0))
    read = steps_of(seen, rollout.actions, rollout.rewards if rewarded else None)[:steps]
    read = torch.where(rollout.valid[:steps, ..., None], read, 0.0)
    return read.flatten(1, 2).cpu(), lengths.clamp(max=steps).flatten().cpu()


def marks_of(family: TaskFamily, seconds: Sequence[float]) -> list[int]:
    """Return durations in control steps, in ascending order, the last of them a whole episode; at least 1 step.

    seconds: empty: those of `SECONDS`, as far as an episode lasts. UsageError for one that is longer than an episode.
    """
    dt, horizon = family.dt, family.horizon
    for own in seconds:
        if round(own / dt) > horizon:
            raise UsageError(f"--seconds has {own:g}, but an episode lasts {horizon * dt:g} s; give less")
    steps = {max(1, round(s / dt)) for s in seconds or SECONDS}
    return sorted({n for n in steps if n <= horizon} | {horizon})


def class_streams(seed: int, count: int) -> list[np.random.Generator]:
    """Return the generator of each class's tasks."""
    return streams(seed, "identification/tasks", 0, count)
