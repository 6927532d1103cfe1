"""Networks that read slots: embeddings of a slot's parts, a memory, and the normalisers of what they read."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarl.agents.cores.core import Core, Memory
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.tanh import Tanh
from metarl.agents.trial_ppo.settings import TrialPpoSettings

CoreMaker = Callable[[int, TrialPpoSettings], Core]
"""(input size, settings) -> core."""
HIDDEN_GAIN, MEAN_GAIN = math.sqrt(2.0), 0.01
"""Gains of initial weights: of hidden layers, and of the layer of the means, which makes the first means nearly 0."""


def hidden_layers(widths: tuple[int, ...]) -> nn.Sequential:
    """Return hidden layers with tanh."""
    return nn.Sequential(*(layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), Tanh())))


class Head(nn.Module):
    """A part of a network that draws initial parameters in its own way."""

    def initialise(self, generator: torch.Generator) -> None:
        """Draw initial parameters; the head may have been made without any."""
        raise NotImplementedError


class SlotNetwork(nn.Module):
    """Embeddings of the parts of a slot, and a core that reads them; the heads are a subclass's own.

    A subclass has `log_std` [act], `means` and `values`, and calls `initialise` of this class for its layers.
    """

    log_std: nn.Parameter
    """Logarithm of the standard deviation of the actions, [act], before it is held above the settings' least."""

    def __init__(
        self, settings: TrialPpoSettings, observation_size: int, action_size: int, make_core: CoreMaker
    ) -> None:
        super().__init__()
        self.sizes = (observation_size, action_size, 1, 2)
        self.chunk = settings.chunk
        self.observation_moments = Moments(observation_size)
        self.reward_moments = Moments(1)
        self.return_moments = Moments(1)
        self.embed_observation = nn.Linear(observation_size, settings.observation_embedding)
        self.embed_action = nn.Linear(action_size, settings.action_embedding)
        self.embed_reward = nn.Linear(1, settings.reward_embedding)
        embedding = settings.observation_embedding + settings.action_embedding + settings.reward_embedding + 2
        core = make_core(embedding, settings)
        self._core = core.name
        self.add_module(core.name, core)  # under its own name: a checkpoint says which core it holds

    def initialise(self, initial_std: float, generator: torch.Generator) -> None:
        """Orthogonal weights, zero biases; the layer of the means so small that the first policy is nearly zero."""
        for name, module in self.named_children():
            if isinstance(module, Core | Head):
                module.initialise(generator)
                continue
            gain = {"mean": MEAN_GAIN, "value": 1.0}.get(name, HIDDEN_GAIN)
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
        features, after = self.core.truncated(self.embed(normalised), memory, self.chunk)
        return self.features(features, normalised), after

    def step(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Return the heads' inputs [B, features] of one slot [B, input], and the memory after it."""
        normalised = self.normalise(inputs)
        features, after = self.core.step(self.embed(normalised), memory)
        return self.features(features, normalised), after

    def features(self, remembered: Tensor, normalised: Tensor) -> Tensor:
        """Return the heads' inputs [..., features] of what the core returned for normalised slots [..., input]."""
        return remembered

    def means(self, features: Tensor) -> Tensor:
        """Return the means of the actions, [..., act]."""
        raise NotImplementedError

    def values(self, features: Tensor, ending: Tensor) -> Tensor:
        """Return values [L, B]; ending: as in `TrialSequence`. Only training asks for them."""
        raise NotImplementedError
