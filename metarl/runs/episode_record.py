"""The steps of an episode as a robot meets them, kept in buffers of fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from metarl.envs.arrays import Array

Answer = TypeVar("Answer", covariant=True)


class Identifies(Protocol[Answer]):
    """What tells of a task by an episode: see `metarl.identification.identifier.Identifier`."""

    def doubts(self, digest: str, explored: bool, adapted: bool) -> Sequence[str]:
        """Return why its answers may mislead about episodes of a policy; digest: as `beliefs.digest_of` has it.

        explored: whether the policy acted with exploration noise. adapted: whether it had met the task before.
        """
        ...

    def identify(self, observations: Array, actions: Array, rewards: Array) -> Answer:
        """Return an answer. observations: [T + 1, obs]. actions: [T, act]. rewards: [T]."""
        ...


class EpisodeRecord:
    """The current episode up to its first fall or the horizon of training, or the last one until another begins."""

    def __init__(self, horizon: int, observation_size: int, action_size: int) -> None:
        self._seen = np.zeros((horizon + 1, observation_size), dtype=np.float32)
        self._actions = np.zeros((horizon, action_size), dtype=np.float32)
        self._rewards = np.zeros(horizon, dtype=np.float32)
        self._steps = 0
        self._known = 0  # observations so far
        self._over = self._fallen = False
        self.explored = False
        """Whether the episode's actions have exploration noise."""
        self.adapted = False
        """Whether the policy had adapted to the task before the episode."""

    def act(self, observation: Array, action: Array, explored: bool, adapted: bool) -> None:
        """Keep what was seen before an action, the action, whether it has exploration noise, and whether the policy had
        adapted before."""
        if self._over:
            self.forget()
        self.explored, self.adapted = explored, adapted
        if self._fallen:
            return
        if self._steps < len(self._rewards):
            self._seen[self._steps], self._actions[self._steps] = observation, action
            self._known = self._steps + 1
        elif self._known == self._steps:
            self._see(observation)

    def observe(self, reward: float) -> None:
        """Keep the result of an action."""
        if self._steps < len(self._rewards) and not self._fallen:
            self._rewards[self._steps] = reward
            self._steps += 1

    def fall(self, observation: Array) -> None:
        """Keep nothing of what follows: the robot is put back on its feet. observation: [obs] after the fall."""
        if not self._fallen and self._known == self._steps:
            self._see(observation)
        self._fallen = True

    def end(self, observation: Array) -> None:
        """End the episode. observation: [obs] after its last step."""
        self.fall(observation)
        self._over = True

    def forget(self) -> None:
        """Forget the current episode."""
        self._steps, self._known = 0, 0
        self._over = self._fallen = False

    def _see(self, observation: Array) -> None:
        self._seen[self._steps] = observation
        self._known = self._steps + 1

    def identify(self, identifier: Identifies[Answer]) -> Answer:
        """Return what the identifier says of the steps whose outcome was seen; RuntimeError if there is none."""
        steps = min(self._steps, self._known - 1)
        if steps < 1:
            raise RuntimeError("identify() needs an episode of at least one step, and the observation after it")
        return identifier.identify(
            self._seen[: steps + 1].copy(), self._actions[:steps].copy(), self._rewards[:steps].copy()
        )
