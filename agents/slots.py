"""Agents that remember: they read a trial slot by slot, and their knowledge of the task is in their memory.

A slot is the input of a network at one step: observation, previous action, previous reward, and flags for the start
and the end of an episode (the inputs of VariBAD, Zintgraf 2020). An episode of T steps gives T slots and one more,
which `adapt` reads, with the final observation and the last reward, so that the policy sees how the episode ended.
Another life within an episode starts in a slot with the action and the reward of the fall.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from metarl.agents.agent import Deployable, Facts, Reading, Rollout
from metarl.agents.cores.core import Core, Memory
from metarl.agents.numerics import gaussian_entropy, gaussian_log_prob

PARTS = 5
"""Number of the parts of a slot: observation, previous action, previous reward, start, end."""


@dataclass(frozen=True)
class SlotBelief:
    """Memory of a network of the tasks at hand, and the parts of its next slot besides the observation."""

    memory: Memory
    """States of the network's core by name, each [M, N, ...]."""
    previous_action: Tensor
    """[M, N, act], zero at the start of an episode."""
    previous_reward: Tensor
    """[M, N], zero at the start of an episode."""
    start: Tensor
    """[M, N] bool, True until the first action of the episode or of a life."""
    ended: Tensor
    """[M, N] bool, True once the episode is over."""


def slots(observations: Tensor, actions: Tensor, rewards: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Return slots [..., input]: observation, previous action and reward, flags of start and end."""
    scalars = torch.stack([rewards, start.float(), end.float()], dim=-1)
    return torch.cat([observations, actions, scalars], dim=-1)


class SlotReader:
    """The half of the Agent protocol that acts and remembers, for any network that reads slots by a core."""

    facts = Facts(belief_per_env=True)
    observation_size: int
    action_size: int
    device: torch.device

    @property
    def core(self) -> Core:
        """Memory of the network."""
        raise NotImplementedError

    @property
    def reads_reward(self) -> bool:
        """Whether what it does depends on the rewards that it is told."""
        return True

    def read_slot(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Return action means [B, act], and the memory after one slot [B, input]."""
        raise NotImplementedError

    def log_std(self) -> Tensor:
        """Return the log-std of the actions, [act]."""
        raise NotImplementedError

    def slot_network(self) -> nn.Module:
        """Return `read_slot` as a network of its own, on the CPU."""
        raise NotImplementedError

    def begin(self, num_tasks: int, envs_per_task: int, generators: Sequence[torch.Generator]) -> SlotBelief:
        """Return the belief of a network that has read nothing."""
        shape = (num_tasks, envs_per_task)
        memory = self.core.initial(num_tasks * envs_per_task)
        return SlotBelief(
            memory={name: state.unflatten(0, shape) for name, state in memory.items()},
            previous_action=torch.zeros(*shape, self.action_size, device=self.device),
            previous_reward=torch.zeros(*shape, device=self.device),
            start=torch.ones(shape, dtype=torch.bool, device=self.device),
            ended=torch.zeros(shape, dtype=torch.bool, device=self.device),
        )

    @torch.no_grad()
    def act(self, belief: SlotBelief, observations: Tensor, noise: Tensor | None) -> tuple[Tensor, SlotBelief]:
        """Read a slot and act; an env whose episode is over reads nothing and keeps its previous action."""
        neither = torch.zeros_like(belief.ended)
        means, memory = self._read(belief, observations, belief.start, neither)
        actions = means if noise is None else means + self.log_std().exp() * noise.to(self.device)
        if _none(belief.ended):
            return actions, replace(belief, memory=memory, previous_action=actions, start=neither)
        held = belief.ended.unsqueeze(-1)
        return actions, replace(
            belief,
            memory=_unless(belief.ended, belief.memory, memory),
            previous_action=torch.where(held, belief.previous_action, actions),
            start=neither,
        )

    def observe(self, belief: SlotBelief, rewards: Tensor, ended: Tensor) -> SlotBelief:
        """Keep the rewards [M, N] of the last action for the next slot, and which episodes are over."""
        if _none(belief.ended):
            return replace(belief, previous_reward=rewards.to(self.device), ended=ended.to(self.device))
        return replace(
            belief,
            previous_reward=torch.where(belief.ended, belief.previous_reward, rewards.to(self.device)),
            ended=belief.ended | ended.to(self.device),
        )

    def revive(self, belief: SlotBelief, fallen: Tensor) -> SlotBelief:
        """Flag the start of a life in the next slot, which has the action and the reward of the fall, too."""
        return replace(belief, start=belief.start | fallen.to(self.device))

    @torch.no_grad()
    def adapt(self, belief: SlotBelief, rollout: Rollout, generators: Sequence[torch.Generator]) -> SlotBelief:
        """Read the slot after the episode, with its last reward; the next episode starts from that memory."""
        end = torch.ones_like(belief.ended)
        _, memory = self._read(belief, rollout.final_observations, torch.zeros_like(end), end)
        num_tasks, envs_per_task = end.shape
        return replace(self.begin(num_tasks, envs_per_task, generators), memory=memory)

    def forget(self, belief: SlotBelief, begun: SlotBelief) -> SlotBelief:
        """Return the belief with an empty memory; the other parts of the next slot are kept."""
        return replace(belief, memory=begun.memory)

    @torch.no_grad()
    def read(self, belief: SlotBelief, rollout: Rollout) -> Reading:
        """Read the slots of a shot that was played elsewhere, with the actions that were taken."""
        rollout = rollout.to(self.device)
        means, lives = torch.empty_like(rollout.actions), rollout.new_lives()
        for t, (observations, actions) in enumerate(zip(rollout.observations, rollout.actions, strict=True)):
            held = belief.ended.unsqueeze(-1)
            means[t], after = self.act(belief, observations, None)
            after = replace(after, previous_action=torch.where(held, belief.previous_action, actions))
            ended = (rollout.terminated[t] | rollout.truncated[t] | ~rollout.valid[t]) & ~lives[t]
            belief = self.revive(self.observe(after, rollout.rewards[t], ended), lives[t])
        log_std = self.log_std().detach()
        entropies = gaussian_entropy(log_std).expand(rollout.rewards.shape)
        return Reading(belief, gaussian_log_prob(means, log_std, rollout.actions), entropies, means)

    def deployable(self, belief: SlotBelief) -> Deployable:
        """Return the network with a slot's parts and its states as arguments."""
        one = torch.zeros(1, 1)
        inputs = {
            "observation": torch.zeros(1, self.observation_size),
            "previous_action": torch.zeros(1, self.action_size),
            "previous_reward": one,
            "episode_start": torch.ones(1, 1),
            "episode_end": one,
            **{name: state[0].reshape(1, -1).cpu() for name, state in belief.memory.items()},
        }
        if not self.reads_reward:
            del inputs["previous_reward"]
        shapes = {name: state.shape[2:] for name, state in belief.memory.items()}
        policy = SlotPolicy(self.slot_network(), shapes, self.reads_reward)
        return Deployable(policy, inputs, ("action", *(f"next_{x}" for x in shapes)))

    def _read(self, belief: SlotBelief, observations: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Memory]:
        """Return action means [M, N, act], and the memory [M, N, ...] after a slot of every env."""
        inputs = slots(observations.to(self.device), belief.previous_action, belief.previous_reward, start, end)
        memory = {name: state.flatten(0, 1) for name, state in belief.memory.items()}
        means, after = self.read_slot(inputs.flatten(0, 1), memory)
        shape = start.shape
        return means.reshape(*shape, -1), {
            name: state.reshape(*shape, *state.shape[1:]) for name, state in after.items()
        }


class SlotPolicy(nn.Module):
    """A network on one slot of one env, every argument [1, size]: (mean action, next states)."""

    def __init__(self, network: nn.Module, shapes: Mapping[str, torch.Size], rewarded: bool) -> None:
        """shapes: of the states of one env by name, in their order among the arguments. rewarded: whether the previous
        reward is an argument; the network reads 0 otherwise."""
        super().__init__()
        self.network, self.shapes, self.rewarded = network, shapes, rewarded

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        if not self.rewarded:
            observation, action, *rest = arguments
            arguments = observation, action, torch.zeros_like(rest[0]), *rest
        slot, states = torch.cat(arguments[:PARTS], dim=-1), arguments[PARTS:]
        parts = zip(self.shapes.items(), states, strict=True)
        means, after = self.network(slot, {name: state.reshape(1, *shape) for (name, shape), state in parts})
        return means, *(after[name].reshape(1, -1) for name in self.shapes)


def _none(ended: Tensor) -> bool:
    """Return whether no episode is over; False on a device, which would have to be waited for."""
    return ended.device.type == "cpu" and not np.count_nonzero(ended.numpy())  # much less overhead than ended.any()


def _unless(ended: Tensor, before: Memory, after: Memory) -> Memory:
    """Return the memory [M, N, ...] after a slot, of the envs that have ended [M, N] that of before."""

    def chosen(name: str) -> Tensor:
        places = ended.view(*ended.shape, *[1] * (after[name].dim() - ended.dim()))
        return torch.where(places, before[name], after[name])

    return {name: chosen(name) for name in after}
