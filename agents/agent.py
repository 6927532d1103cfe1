"""What an agent is, and the data it learns from.

Axes are named once for the whole project: T time, M tasks, N envs of a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

Belief = Any
"""What an agent knows about the tasks at hand; only the agent that made it looks inside."""


@dataclass
class Rollout:
    """The data of one shot: every env of every task plays one episode.

    An episode that ends before the horizon leaves steps that were not taken: rewards are zero and `valid` is False
    there, observations and actions mean nothing. An env whose simulation MuJoCo flagged has `valid` False everywhere.
    """

    observations: Tensor
    """[T, M, N, obs] float32, seen before the action."""
    actions: Tensor
    """[T, M, N, act] float32, as the policy gave them, before the env scales and clips them."""
    rewards: Tensor
    """[T, M, N] float32."""
    terminated: Tensor
    """[T, M, N] bool, True at the step that ended the episode for good."""
    truncated: Tensor
    """[T, M, N] bool, True at the step at which the time limit cut the episode."""
    valid: Tensor
    """[T, M, N] bool, True where a step was taken that may be learned from."""
    final_observations: Tensor
    """[M, N, obs] float32, seen after each env's last step."""

    def to(self, device: torch.device) -> Rollout:
        """This rollout on another torch device."""
        return Rollout(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @staticmethod
    def join(rollouts: Sequence[Rollout], order: Tensor) -> Rollout:
        """One rollout of all their tasks; order [M]: the place of each task in the sequence of theirs."""

        def joined(name: str) -> Tensor:
            dim = int(name != "final_observations")
            return torch.cat([getattr(rollout, name) for rollout in rollouts], dim).index_select(dim, order)

        return Rollout(**{f.name: joined(f.name) for f in fields(Rollout)})

    def slice_tasks(self, tasks: slice) -> Rollout:
        """The rollout of a range of tasks, as views."""
        return Rollout(
            **{
                f.name: getattr(self, f.name)[tasks]
                if f.name == "final_observations"
                else getattr(self, f.name)[:, tasks]
                for f in fields(self)
            }
        )

    def episode_returns(self) -> Tensor:
        """Undiscounted return of each episode, [M, N]; NaN where the simulation was flagged."""
        returns = (self.rewards * self.valid).sum(dim=0)
        return torch.where(self.valid.any(dim=0), returns, torch.nan)


@dataclass
class Trial:
    """All shots on one set of tasks, in order."""

    rollouts: list[Rollout]
    """One a shot."""
    beliefs: list[Belief]
    """The belief that each shot started from."""


class Agent(Protocol):
    """What acts and adapts. Nothing outside `agents/` asks which one it is."""

    def begin(self, num_tasks: int, envs_per_task: int) -> Belief:
        """The belief about tasks of which nothing is known yet."""
        ...

    def act(self, belief: Belief, observations: Tensor, noise: Tensor | None) -> tuple[Tensor, Belief]:
        """Actions [M, N, act] for observations [M, N, obs].

        `noise` is standard normal, [M, N, act]; None takes the policy's mean.
        """
        ...

    def observe(self, belief: Belief, rewards: Tensor, ended: Tensor) -> Belief:
        """Take in what the last action led to: rewards [M, N], and `ended` [M, N] bool, True once an episode is over.

        An env that had ended before the action took no step: its reward is 0 and the action is to be forgotten.
        """
        ...

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """The belief after a shot."""
        ...

    def join(self, beliefs: Sequence[Belief], order: Tensor) -> Belief:
        """One belief about all their tasks; order [M]: the place of each task in the sequence of theirs."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that training goes on from: plain types and tensors."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; raises ValueError if the shapes differ."""
        ...


class MetaLearner(Agent, Protocol):
    """An agent that learns from trials which are played for it."""

    def meta_update(self, trial: Trial, generator: torch.Generator) -> dict[str, float]:
        """One outer step; returns scalar metrics by name."""
        ...


@runtime_checkable
class Sb3Learner(Agent, Protocol):
    """An agent that steps the envs itself, as Stable-Baselines3 does."""

    reads_trials: bool
    """Whether an episode of its env is a whole trial, of which it reads RL2's slots (`TaskVecEnv`)."""

    def learn(self, env: VecEnv, steps: int, generator: torch.Generator) -> dict[str, float]:
        """Step every env at least so often, from a reset on, and update; returns scalar metrics by name.

        `time/collect` and `time/update` among them are the seconds that went into stepping and into updating.
        """
        ...
