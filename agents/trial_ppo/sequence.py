"""Trials as sequences of slots, and the returns and advantages of whole trials.

Axes: L slots of a trial, B envs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from metarl.agents.agent import Rollout, Trial
from metarl.agents.cores.core import Memory
from metarl.agents.slots import slots

PRIVILEGED = "privileged"
"""Name of the privileged values among the extras of a sequence, [L, B, P]."""


@dataclass(frozen=True)
class TrialSequence:
    """Trials laid out for the core: slots that were not taken are moved behind those that were. L slots, B envs."""

    inputs: Tensor
    """[L, B, input], as the env gave them: not normalised."""
    actions: Tensor
    """[L, B, act]."""
    rewards: Tensor
    """[L, B], as the env gave them."""
    steps: Tensor
    """[L, B] bool, True where an action was taken: neither the slot after an episode nor padding."""
    ending: Tensor
    """[L, B], discount^(steps left in the trial if no episode ends early), at discount 1 the share of its steps that is
    over: 1 at its end."""
    memory: Memory
    """States of the core before the first slot by name, each [B, ...]."""

    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """What an agent adds for its own use by name, each [L, B, ...]."""

    @property
    def transitions(self) -> Tensor:
        """[L, B] bool, True at steps whose next slot shows what they led to, not the start of another life."""
        starts = self.inputs[..., -2] > 0.5
        return self.steps & ~torch.cat([starts[1:], torch.zeros_like(starts[:1])])

    def of_envs(self, envs: Tensor) -> TrialSequence:
        """Return the trials of some envs [K]."""
        return self._each(lambda x: x[:, envs], {name: state[envs] for name, state in self.memory.items()})

    def cut(self, length: int, memory: Memory) -> TrialSequence:
        """Return the trials as pieces of `length` slots, as of B K envs: see `cut`.

        memory: states of the core before each piece by name, each [B K, ...].
        """
        return self._each(lambda x: cut(x, length), memory)

    def without_padding(self) -> TrialSequence:
        """Return the trials without the last slots where no env took one, up to the slot after the last step."""
        rows = self.steps.any(dim=1).nonzero()
        length = int(rows.max()) + 2 if len(rows) else len(self.steps)
        return self._each(lambda x: x[:length], self.memory)

    def _each(self, function: Callable[[Tensor], Tensor], memory: Memory) -> TrialSequence:
        """Return the function's results on all that is [L, B, ...], with another memory."""
        extra = {name: function(value) for name, value in self.extra.items()}
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("memory", "extra")}
        return TrialSequence(**{name: function(x) for name, x in columns.items()}, memory=memory, extra=extra)


def lay_out(trial: Trial, discount: float, device: torch.device) -> TrialSequence:
    """Return the slots of whole trials, without the envs that were flagged in any shot."""
    rollouts = [rollout.to(device) for rollout in trial.rollouts]
    episodes = [episode_slots(rollout) for rollout in rollouts]
    inputs, actions, rewards, taken, steps = (torch.cat(parts) for parts in zip(*episodes, strict=True))
    keep = torch.stack([rollout.valid.any(dim=0).flatten() for rollout in rollouts]).all(dim=0)
    order = front(taken)
    horizon, shots = len(rollouts[0].valid), len(rollouts)
    left = torch.cat([torch.arange(horizon, -1, -1) + horizon * k for k in reversed(range(shots))])
    ending = discount ** left.to(inputs) if discount < 1.0 else 1.0 - left.to(inputs) / left[0]
    ending = ending.unsqueeze(-1).expand(taken.shape)
    wide = order.unsqueeze(-1)
    return TrialSequence(
        inputs=inputs.take_along_dim(wide, dim=0)[:, keep],
        actions=actions.take_along_dim(wide, dim=0)[:, keep],
        rewards=rewards.take_along_dim(order, dim=0)[:, keep],
        steps=steps.take_along_dim(order, dim=0)[:, keep],
        ending=ending.take_along_dim(order, dim=0)[:, keep],
        memory={name: state.flatten(0, 1)[keep] for name, state in trial.beliefs[0].memory.items()},
    )


def lay_beside(trial: Trial, values: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return values [T, M, N, ...] of the steps of each rollout in the slots of `lay_out`, [L, B, ...]; 0 elsewhere."""
    valid = [rollout.valid.to(device).flatten(1, 2) for rollout in trial.rollouts]
    taken = torch.cat([torch.cat([steps, steps.any(dim=0, keepdim=True)]) for steps in valid])
    keep = torch.stack([steps.any(dim=0) for steps in valid]).all(dim=0)
    flat = [value.to(device).flatten(1, 2) for value in values]
    slotted = torch.cat([torch.cat([value, torch.zeros_like(value[:1])]) for value in flat])
    order = front(taken).view(*taken.shape, *[1] * (slotted.dim() - taken.dim()))
    return slotted.take_along_dim(order, dim=0)[:, keep]


def with_privileged(sequence: TrialSequence, trial: Trial, learner: str, device: torch.device) -> TrialSequence:
    """Return the sequence with the privileged values of its trial; ValueError names the learner if there are none."""
    told = [rollout.privileged for rollout in trial.rollouts if rollout.privileged is not None]
    if len(told) < len(trial.rollouts):
        raise ValueError(f"{learner} learns from privileged values, and the trial has none")
    return replace(sequence, extra={**sequence.extra, PRIVILEGED: lay_beside(trial, told, device)})


def episode_slots(rollout: Rollout) -> tuple[Tensor, ...]:
    """Return inputs, actions, rewards, taken and steps of one shot's T + 1 slots, [T + 1, B, ...], in env time."""
    actions, rewards = rollout.actions.flatten(1, 2), rollout.rewards.flatten(1, 2)
    valid = rollout.valid.flatten(1, 2)
    last = (valid.sum(dim=0, keepdim=True) - 1).clamp(min=0)  # [1, B], the step that ended the episode
    blank_action, blank_reward = torch.zeros_like(actions[:1]), torch.zeros_like(rewards[:1])
    previous_actions = torch.cat([blank_action, actions[:-1], actions.take_along_dim(last.unsqueeze(-1), dim=0)])
    previous_rewards = torch.cat([blank_reward, rewards[:-1], rewards.take_along_dim(last, dim=0)])
    observations = torch.cat([rollout.observations, rollout.final_observations.unsqueeze(0)]).flatten(1, 2)
    start, end = torch.zeros_like(previous_rewards), torch.zeros_like(previous_rewards)
    start[0], end[-1] = 1.0, 1.0
    start[1:] += rollout.new_lives().flatten(1, 2)
    inputs = slots(observations, previous_actions, previous_rewards, start, end)
    taken = torch.cat([valid, valid.any(dim=0, keepdim=True)])
    steps = torch.cat([valid, torch.zeros_like(valid[:1])])
    return inputs, torch.cat([actions, blank_action]), torch.cat([rewards, blank_reward]), taken, steps


def cut(values: Tensor, length: int) -> Tensor:
    """Return values [L, B, ...] of trials as K pieces of each, [length, B K, ...]; the last is filled up by zeros."""
    missing = -len(values) % length
    filled = torch.cat([values, values.new_zeros(missing, *values.shape[1:])]) if missing else values
    return filled.unflatten(0, (-1, length)).movedim(0, 2).flatten(1, 2)


def joined(pieces: Tensor, slots: int) -> Tensor:
    """Return the values [slots, B, ...] of trials whose pieces `cut` returned, [length, B K, ...]."""
    count = -(-slots // len(pieces))
    return pieces.unflatten(1, (-1, count)).movedim(2, 0).flatten(0, 1)[:slots]


def front(chosen: Tensor) -> Tensor:
    """Return the order [L, B] that moves the chosen rows [L, B] of each column to the front and keeps their order."""
    return (~chosen).byte().argsort(dim=0, stable=True)


def sums_of_later(values: Tensor, factor: float) -> Tensor:
    """Return the discounted sums x_t + factor x_{t+1} + factor^2 x_{t+2} + ... of rows, [L, ...].

    After k rounds a row holds the sum of 2^k rows, itself and those after it: log2 L rounds instead of L steps.
    """
    sums, reach = values.clone(), 1
    while reach < len(sums):
        sums = torch.cat([sums[:-reach] + factor**reach * sums[reach:], sums[-reach:]])
        reach *= 2
    return sums


def trial_gae(rewards: Tensor, values: Tensor, steps: Tensor, discount: float, lambda_: float) -> Tensor:
    """Return advantages [L, B] of whole trials: GAE over the slots that are steps, as one sequence; 0 at the others.

        delta_t = r_t + discount V_{t+1} - V_t,   A_t = sum_k (discount lambda)^k delta_{t+k}

    The value after the last step is 0, and only there: credit crosses from one episode to the next (Schulman 2016,
    eq. 16).
    """
    order = front(steps)
    rewards, values = ((x * steps).take_along_dim(order, dim=0) for x in (rewards, values))
    next_values = torch.cat([values[1:], torch.zeros_like(values[:1])])
    advantages = sums_of_later(rewards + discount * next_values - values, discount * lambda_)
    return torch.zeros_like(values).scatter(0, order, advantages)


def discounted_sums(rewards: Tensor, steps: Tensor, discount: float) -> Tensor:
    """Return the discounted reward so far of every step, S_t = r_t + discount S_{t-1}, in one row."""
    order = front(steps)
    rewards, steps = (x.take_along_dim(order, dim=0) for x in (rewards * steps, steps))
    return sums_of_later(rewards.flip(0), discount).flip(0)[steps]
