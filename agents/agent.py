"""The protocol of an agent, and the data that it learns from.

Axes are named once for the whole project: T time, M tasks, N envs of a task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from metarl.agents.moments import Moments
from metarl.agents.storage import Field

Belief = Any
"""Knowledge of an agent about the tasks at hand: a frozen dataclass of tensors with a task axis, as
`metarl.agents.beliefs` joins, saves and loads it. Only the agent that made it looks inside."""

REFUSED = "refused"
"""The metric, 1 or 0, of agents that do not take an update which would make the adapted policies worse."""


TEACHER = "teacher_played"
"""The metric, 1 or 0, of agents that are taught: whether a teacher played, whose return is not that of the policy."""


@dataclass(frozen=True)
class Facts:
    """Properties of an agent, which is all that code outside `agents/` asks about it."""

    adapts: bool = True
    """Whether a shot changes its belief."""
    belief_per_env: bool = False
    """Whether each env has a belief of its own; otherwise a task's belief holds for any number of its envs."""
    needs_own_noise: bool = False
    """Whether it adapts from data of its own policy with its noise alone, as a policy gradient does."""
    samples_belief: bool = False
    """Whether it acts by a draw from its belief."""
    informed: bool = False
    """Whether it is trained with privileged values, which only a simulator knows: see `Agent.inform`."""
    infers_one_task: bool = False
    """Whether it infers what holds for a whole trial, so that what it met before a change of the task counts after it
    too, as it does for a posterior of one task and for a mean."""


@dataclass
class Rollout:
    """The data of one shot: every env of every task plays one episode, of one life or of several.

    An episode that ends before the horizon leaves steps that were not taken: rewards are zero and `valid` is False
    there, observations and actions mean nothing. An env whose simulation broke down has `valid` False everywhere.
    """

    observations: Tensor
    """[T, M, N, obs] float32, seen before the action."""
    actions: Tensor
    """[T, M, N, act] float32, as the policy gave them, before the env scales and clips them."""
    rewards: Tensor
    """[T, M, N] float32."""
    terminated: Tensor
    """[T, M, N] bool, True at the step that ended the episode for good, or one of its lives."""
    truncated: Tensor
    """[T, M, N] bool, True at the step at which the time limit cut the episode."""
    valid: Tensor
    """[T, M, N] bool, True where a step was taken that may be learned from."""
    final_observations: Tensor
    """[M, N, obs] float32, seen after each env's last step."""
    privileged: Tensor | None = None
    """[T, M, N, P] float32, what only the simulator knew before the action; None unless the agent was told it."""
    next_observations: Tensor | None = None
    """[T, M, N, obs] float32, seen after the step, before a robot that fell was placed anew; None unless an episode
    has several lives."""

    @staticmethod
    def fields(
        observation_size: int, action_size: int, privileged_size: int = 0, lives: bool = False
    ) -> dict[str, Field]:
        """Return what a step of an env consists of, as `Storage` takes it: every field but `final_observations`.

        privileged_size: 0 if the agent is told nothing privileged. lives: whether an episode has several.
        """
        vectors = {"observations": observation_size, "actions": action_size}
        vectors |= {"privileged": privileged_size} if privileged_size else {}
        vectors |= {"next_observations": observation_size} if lives else {}
        flags = dict.fromkeys(("terminated", "truncated", "valid"), ((), torch.bool))
        return {name: ((size,), torch.float32) for name, size in vectors.items()} | {
            "rewards": ((), torch.float32),
            **flags,
        }

    def to(self, device: torch.device) -> Rollout:
        """Return this rollout on another torch device."""
        return self.map(lambda name, value: value.to(device))

    @staticmethod
    def join(rollouts: Sequence[Rollout], order: Tensor) -> Rollout:
        """Return one rollout of all tasks; order [M]: the place of each task in the sequence of the rollouts' tasks."""

        def joined(name: str) -> Tensor:
            dim = int(name != "final_observations")
            whole = torch.cat([getattr(rollout, name) for rollout in rollouts], dim)
            return whole.index_select(dim, order.to(whole.device))

        return rollouts[0].map(lambda name, _: joined(name))

    def slice_tasks(self, tasks: slice) -> Rollout:
        """Return the rollout of a range of tasks, as views."""
        return self.map(lambda name, value: value[tasks] if name == "final_observations" else value[:, tasks])

    def map(self, function: Callable[[str, Tensor], Tensor]) -> Rollout:
        """Return the rollout of a function of each field's name and value."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Rollout(**{name: function(name, value) for name, value in values.items() if value is not None})

    def new_lives(self) -> Tensor:
        """Return [T, M, N] bool, True at a step whose fall is followed by another life in the same episode."""
        return self.terminated & torch.cat([self.valid[1:], torch.zeros_like(self.valid[:1])])

    def episode_returns(self) -> Tensor:
        """Return the undiscounted return of each episode, [M, N]; NaN where the simulation was flagged."""
        returns = (self.rewards * self.valid).sum(dim=0)
        return torch.where(self.valid.any(dim=0), returns, torch.nan)


class TaskValues(Protocol):
    """A task as an agent may see it in training: see `metarl.envs.family.Task`."""

    @property
    def family(self) -> str:
        """Name of the task's family."""
        ...

    @property
    def values(self) -> Mapping[str, float]:
        """Value of each parameter by name, in SI units, as the task begins."""
        ...

    @property
    def id(self) -> str:
        """Name that is the same whenever family, values and changes are."""
        ...


@dataclass
class Trial:
    """All shots on one set of tasks, in order."""

    rollouts: list[Rollout]
    """Rollout of each shot."""
    beliefs: list[Belief]
    """Belief that each shot started from."""
    tasks: Sequence[TaskValues] = ()
    """Tasks of the trial, M of them; empty if the trial was played on a robot or made by hand."""
    parameters: Tensor | None = None
    """[M, P] float32, the values of the tasks' parameters as an oracle is told them when the trial begins: the target
    of a learner that is supervised by the task. None where `tasks` is empty."""


class Reading(NamedTuple):
    """Result of reading a shot that was played elsewhere."""

    belief: Belief
    """Belief after the last action, before adaptation."""
    log_probabilities: Tensor
    """[T, M, N], of the shot's actions under this agent."""
    entropies: Tensor
    """[T, M, N], of the distributions from which this agent would have drawn its actions."""
    means: Tensor
    """[T, M, N, act], what `act` would have returned without noise."""


@dataclass(frozen=True)
class Deployable:
    """A policy's mean action for one robot, as a function of tensors alone.

    Its arguments are `observation` and those of the following that the policy reads: `previous_action`,
    `previous_reward` (0 at the start of an episode), `episode_start` (1 at an episode's first step, else 0) and
    `episode_end` (1 in the one call after an episode, with the last observation, action and reward; else 0). All other
    arguments are states: the output `next_NAME` is the argument NAME of the next call.
    """

    module: nn.Module
    """The function, on the CPU."""
    inputs: dict[str, Tensor]
    """[1, size] arguments by name, in order, as at the first step of an episode; the observation is arbitrary."""
    outputs: tuple[str, ...]
    """Names of the outputs: `action` first, then the states."""


class Agent(Protocol):
    """A policy that acts and adapts. Nothing outside `agents/` asks which agent it is.

    Beliefs are joined, saved and loaded by `metarl.agents.beliefs`; an agent has no code for it.
    """

    device: torch.device
    """Device of its tensors."""

    @property
    def facts(self) -> Facts:
        """Properties of the agent."""
        ...

    def begin(self, num_tasks: int, envs_per_task: int, generators: Sequence[torch.Generator]) -> Belief:
        """Return the belief about tasks of which nothing is known yet.

        generators: one a task, on the CPU, for an agent that draws. Tasks are adapted to in shards and in several
        processes, and results must not depend on which tasks are together: draw what concerns task m from generator m
        alone, and nothing that tasks share. A generator follows from the run's seed, the task and the number of shots
        so far, not from other draws, so an agent may take as many numbers as it likes.
        """
        ...

    def inform(self, belief: Belief, privileged: Tensor) -> Belief:
        """Return the belief of an env whose privileged values [M, N, P] are told, before each action.

        Only an agent whose facts say `informed` is told them, and only in training: it acts and adapts without them.
        """
        ...

    def act(self, belief: Belief, observations: Tensor, noise: Tensor | None) -> tuple[Tensor, Belief]:
        """Return actions [M, N, act] for observations [M, N, obs], and the belief after them.

        `noise` is standard normal, [M, N, act]; None takes the policy's mean.
        """
        ...

    def observe(self, belief: Belief, rewards: Tensor, ended: Tensor) -> Belief:
        """Return the belief after the last action.

        rewards: [M, N] of the action. ended: [M, N] bool, True once an episode is over.
        An env that had ended before the action took no step: its reward is 0 and the action is to be forgotten.
        """
        ...

    def revive(self, belief: Belief, fallen: Tensor) -> Belief:
        """Return the belief of envs of which some, [M, N] bool, begin another life within their episode.

        It is asked after `observe` of the step of the fall, for which these envs have not ended.
        """
        ...

    def adapt(self, belief: Belief, rollout: Rollout, generators: Sequence[torch.Generator]) -> Belief:
        """Return the belief after a shot; generators: as for `begin`, others after every shot."""
        ...

    def forget(self, belief: Belief, begun: Belief) -> Belief:
        """Return the belief without its knowledge of the tasks, within an episode; begun: as `begin` returned it.

        What the policy observes of the last step beside the observation, such as its action and reward, is kept.
        """
        ...

    def read(self, belief: Belief, rollout: Rollout) -> Reading:
        """Read a shot that was played elsewhere, as `act` and `observe` would have."""
        ...

    def observation_moments(self, belief: Belief) -> Moments | None:
        """Return the moments of the observations from which the policy at a belief about one task has learned.

        These are the observations of training, unless the policy was trained from scratch. None if the agent does not
        keep them.
        """
        ...

    def deployable(self, belief: Belief) -> Deployable:
        """Return the policy at a belief about one task and one env, at the start of an episode."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training continues from, as plain types and tensors."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; raises ValueError if the shapes differ."""
        ...
