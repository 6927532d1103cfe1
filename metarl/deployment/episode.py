"""Logged episodes, and the rollout that several of them make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from metarl.agents.agent import Rollout
from metarl.envs.arrays import Array
from metarl.envs.family import TaskFamily


@dataclass(frozen=True)
class LoggedEpisode:
    """A logged episode of T steps whose fields fit the policy."""

    source: str
    """Name of the file, for messages."""
    observations: Array
    """[T + 1, obs] float32."""
    actions: Array
    """[T, act] float32, as the policy returned them, before scaling and clipping; not motor commands."""
    rewards: Array
    """[T] float32."""
    terminated: Array
    """[T] bool, steps that ended in a terminal state: the last one, unless the episode was truncated there, and earlier
    ones after which the robot was placed anew and the episode went on. A last step that is logged as both, as
    Gymnasium's time limit does, counts as terminated."""
    log_probabilities: Array | None = None
    """[T] float32, log-probability of each action under the policy that acted; None: not logged."""
    shot: int | None = None
    """Number of the shot that it belongs to, from 0; None: not logged."""
    fallen_observations: Array | None = None
    """[K, obs] float32, observations after the K falls before the last step, each before the robot was placed anew;
    None if the episode has one life."""


def assemble(shot: Sequence[LoggedEpisode], family: TaskFamily) -> Rollout:
    """Return the episodes of a shot as a rollout of one task, [horizon, 1, N, ...]."""
    steps, n = family.horizon, len(shot)
    observations = np.zeros((steps, 1, n, family.observation_size), dtype=np.float32)
    actions = np.zeros((steps, 1, n, family.action_size), dtype=np.float32)
    rewards = np.zeros((steps, 1, n), dtype=np.float32)
    terminated, truncated, valid = (np.zeros((steps, 1, n), dtype=bool) for _ in range(3))
    final = np.zeros((1, n, family.observation_size), dtype=np.float32)
    for i, episode in enumerate(shot):
        length = len(episode.rewards)
        observations[:length, 0, i], final[0, i] = episode.observations[:-1], episode.observations[-1]
        actions[:length, 0, i], rewards[:length, 0, i], valid[:length, 0, i] = episode.actions, episode.rewards, True
        terminated[:length, 0, i] = episode.terminated
        truncated[length - 1, 0, i] = not episode.terminated[-1]
    taken = {
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        "terminated": terminated,
        "truncated": truncated,
        "valid": valid,
        "final_observations": final,
    }
    if any(episode.fallen_observations is not None for episode in shot):
        taken["next_observations"] = reached = np.zeros_like(observations)
        for i, episode in enumerate(shot):
            reached[: len(episode.rewards), 0, i] = episode.observations[1:]
            if episode.fallen_observations is not None:
                reached[np.flatnonzero(episode.terminated[:-1]), 0, i] = episode.fallen_observations
    return Rollout(**{name: torch.from_numpy(values) for name, values in taken.items()})
