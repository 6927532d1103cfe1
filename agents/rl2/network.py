"""Trials as sequences, and the network by which RL2 reads them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarl.agents.cores import Core, GruCore, Memory
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.numerics import discounted_returns, gae
from metarl.agents.rl2.settings import Rl2Settings


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
    """[L, B], discount^(steps left in the trial if no episode ends early): 1 at its end."""
    memory: Memory
    """States of the core before the first slot by name, each [B, ...]."""


def front(chosen: Tensor) -> Tensor:
    """Return the order [L, B] that moves the chosen rows [L, B] of each column to the front and keeps their order."""
    return (~chosen).byte().argsort(dim=0, stable=True)


def trial_gae(rewards: Tensor, values: Tensor, steps: Tensor, discount: float, lambda_: float) -> Tensor:
    """Return advantages [L, B] of whole trials: GAE over the slots that are steps, as one sequence; 0 at the others.

    The value after the last step is 0, and only there: credit crosses from one episode to the next.
    """
    order = front(steps)
    rewards, values = ((x * steps).take_along_dim(order, dim=0) for x in (rewards, values))
    next_values = torch.cat([values[1:], torch.zeros_like(values[:1])])
    ended = torch.zeros_like(steps)
    return torch.zeros_like(values).scatter(0, order, gae(rewards, values, next_values, ended, discount, lambda_))


def discounted_sums(rewards: Tensor, steps: Tensor, discount: float) -> Tensor:
    """Return the discounted reward so far of every step, S_t = r_t + discount S_{t-1}, in one row."""
    order = front(steps)
    rewards, steps = (x.take_along_dim(order, dim=0) for x in (rewards * steps, steps))
    backwards = discounted_returns(rewards.flip(0), torch.zeros_like(steps), discount)
    return backwards.flip(0)[steps]


def head(widths: tuple[int, ...]) -> nn.Sequential:
    """Return hidden layers with tanh."""
    return nn.Sequential(*(layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.Tanh())))


class Rl2Network(nn.Module):
    """Embeddings, a core, and a head each for actor and critic."""

    def __init__(
        self,
        settings: Rl2Settings,
        observation_size: int,
        action_size: int,
        make_core: Callable[[int, int], Core] = GruCore,
    ) -> None:
        """make_core: (input size, hidden size) -> core."""
        super().__init__()
        self.sizes = (observation_size, action_size, 1, 2)
        self.observation_moments = Moments(observation_size)
        self.reward_moments = Moments(1)
        self.return_moments = Moments(1)
        self.skip = settings.observation_skip
        self.embed_observation = nn.Linear(observation_size, settings.observation_embedding)
        self.embed_action = nn.Linear(action_size, settings.action_embedding)
        self.embed_reward = nn.Linear(1, settings.reward_embedding)
        embedding = settings.observation_embedding + settings.action_embedding + settings.reward_embedding + 2
        core = make_core(embedding, settings.hidden_size)
        self._core = core.name
        self.add_module(core.name, core)  # under its own name: a checkpoint says which core it holds
        widths = (core.output_size + self.skip * observation_size, *settings.head_sizes)
        self.actor = head(widths)
        self.mean = nn.Linear(widths[-1], action_size)
        critic_widths = (widths[0] + 1, *widths[1:])
        self.critic = head(critic_widths)
        self.value = nn.Linear(critic_widths[-1], 1)
        self.log_std = nn.Parameter(torch.empty(action_size))

    def initialise(self, initial_std: float, generator: torch.Generator) -> None:
        """Orthogonal weights, zero biases; the layer of the means so small that the first policy is nearly zero."""
        for name, module in self.named_children():
            if isinstance(module, Core):
                module.initialise(generator)
                continue
            gain = {"mean": 0.01, "value": 1.0}.get(name, math.sqrt(2.0))
            for parameter in module.parameters():
                if parameter.dim() == 1:
                    nn.init.zeros_(parameter)
                else:
                    nn.init.orthogonal_(parameter, gain, generator=generator)
        nn.init.constant_(self.log_std, math.log(initial_std))
        for moments in (self.observation_moments, self.reward_moments, self.return_moments):
            moments.reset()

    def normalise(self, inputs: Tensor) -> Tensor:
        """Return slots [..., input] with standardised observations and rewards, all clipped."""
        observation, action, reward, flags = inputs.split(self.sizes, dim=-1)
        parts = [
            self.observation_moments.standardise(observation),
            action,
            self.reward_moments.standardise(reward),
            flags,
        ]
        return torch.cat(parts, dim=-1).clamp(-INPUT_CLIP, INPUT_CLIP)

    def embed(self, normalised: Tensor) -> Tensor:
        """Return the core's inputs [..., embedding] of normalised slots."""
        observation, action, reward, flags = normalised.split(self.sizes, dim=-1)
        parts = [self.embed_observation(observation), self.embed_action(action), self.embed_reward(reward)]
        return torch.cat([functional.relu(torch.cat(parts, dim=-1)), flags], dim=-1)

    @property
    def core(self) -> Core:
        """The memory."""
        core = self.get_submodule(self._core)
        assert isinstance(core, Core)
        return core

    def forward(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Return the heads' inputs [L, B, features] of slots [L, B, input], and the memory after the last."""
        normalised = self.normalise(inputs)
        features, after = self.core.sequence(self.embed(normalised), memory)
        return self._with_observation(features, normalised), after

    def step(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Return the heads' inputs [B, features] of one slot [B, input], and the memory after it."""
        normalised = self.normalise(inputs)
        features, after = self.core.step(self.embed(normalised), memory)
        return self._with_observation(features, normalised), after

    def _with_observation(self, features: Tensor, normalised: Tensor) -> Tensor:
        """Return features with the observation of the normalised slots beside them, if the settings ask for it."""
        return torch.cat([features, normalised[..., : self.sizes[0]]], dim=-1) if self.skip else features

    def means(self, features: Tensor) -> Tensor:
        """Return the means of the actions, [..., act]."""
        return self.mean(self.actor(features))

    def values(self, features: Tensor, ending: Tensor) -> Tensor:
        """Return values [L, B]. The critic, which only training uses, is told how near the trial's end is, [L, B]."""
        return self.value(self.critic(torch.cat([features, ending.unsqueeze(-1)], dim=-1))).squeeze(-1)
