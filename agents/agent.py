"""What an agent is, and the data it learns from.

Axes are named once for the whole project: T time, M tasks, N envs of a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from metarl.agents.moments import Moments
from metarl.agents.storage import Field

Belief = Any
"""What an agent knows about the tasks at hand; only the agent that made it looks inside."""

REFUSED = "refused"
"""The metric, 1 or 0, of agents that do not take an update which would make the adapted policies worse."""


@dataclass(frozen=True)
class Facts:
    """What is true of an agent: all that anything outside `agents/` asks about which one it is."""

    adapts: bool = True
    """Whether it makes anything of a shot."""
    belief_per_env: bool = False
    """Whether each env has a belief of its own; otherwise a task's belief holds for any number of its envs."""
    needs_own_noise: bool = False
    """Whether it adapts from data of its own policy with its noise alone, as a policy gradient does."""
    samples_belief: bool = False
    """Whether it acts by a draw from its belief."""


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

    @staticmethod
    def fields(observation_size: int, action_size: int) -> dict[str, Field]:
        """Return what a step of an env consists of, as `Storage` takes it: every field but `final_observations`."""
        vectors = {"observations": observation_size, "actions": action_size}
        flags = dict.fromkeys(("terminated", "truncated", "valid"), ((), torch.bool))
        return {name: ((size,), torch.float32) for name, size in vectors.items()} | {
            "rewards": ((), torch.float32),
            **flags,
        }

    def to(self, device: torch.device) -> Rollout:
        """This rollout on another torch device."""
        return Rollout(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @staticmethod
    def join(rollouts: Sequence[Rollout], order: Tensor) -> Rollout:
        """One rollout of all their tasks; order [M]: the place of each task in the sequence of theirs."""

        def joined(name: str) -> Tensor:
            dim = int(name != "final_observations")
            whole = torch.cat([getattr(rollout, name) for rollout in rollouts], dim)
            return whole.index_select(dim, order.to(whole.device))

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


class Reading(NamedTuple):
    """What an agent makes of a shot that was played elsewhere."""

    belief: Belief
    """After the last action, before adaptation."""
    log_probabilities: Tensor
    """[T, M, N] of the shot's actions under this agent."""
    entropies: Tensor
    """[T, M, N] of the distributions that this agent would have drawn its actions from."""


@dataclass(frozen=True)
class Deployable:
    """A policy's mean for one robot as a function of tensors alone.

    Arguments are `observation` and whichever of these the policy reads: `previous_action`, `previous_reward` (0 at the
    start of an episode), `episode_start` (1 at an episode's first step, else 0), `episode_end` (1 where it is called
    once more after an episode, with the last observation, action and reward; else 0). All others are states: what it
    returns as `next_NAME` is what it is given as NAME the next time.
    """

    module: nn.Module
    """On the CPU."""
    inputs: dict[str, Tensor]
    """[1, size] arguments by name, in their order, as at the first step of an episode; the observation is any."""
    outputs: tuple[str, ...]
    """Names of what it returns: `action` first, then the states."""


class Agent(Protocol):
    """What acts and adapts. Nothing outside `agents/` asks which one it is."""

    device: torch.device
    """Where its tensors are."""

    @property
    def facts(self) -> Facts:
        """What is true of it."""
        ...

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

    def read(self, belief: Belief, rollout: Rollout) -> Reading:
        """Take in a shot that was played elsewhere, as `act` and `observe` would have."""
        ...

    def observation_moments(self, belief: Belief) -> Moments | None:
        """Of the observations that the policy at a belief about one task has learned from, which are those of training
        unless it was trained from scratch; None if the agent does not keep them."""
        ...

    def deployable(self, belief: Belief) -> Deployable:
        """The policy at a belief about one task and one env, at the start of an episode."""
        ...

    def belief_state(self, belief: Belief) -> dict[str, Any]:
        """A belief as plain types and tensors, without what only `meta_update` needs."""
        ...

    def load_belief(self, state: dict[str, Any]) -> Belief:
        """The belief that `belief_state` gave; raises ValueError if the shapes differ."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that training goes on from: plain types and tensors."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; raises ValueError if the shapes differ."""
        ...
