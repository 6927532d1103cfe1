"""Networks that read slots: embeddings of a slot's parts, a memory, and the normalisers of what they read."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from operator import is_not
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarl.agents.cores.core import Core, Memory
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.tanh import Tanh, tanh
from metarl.agents.trial_ppo.settings import TrialPpoBlock

CoreMaker = Callable[[int, Any], Core]
"""(input size, settings) -> core."""
HIDDEN_GAIN, MEAN_GAIN = math.sqrt(2.0), 0.01
"""Gains of initial weights: of hidden layers, and of the layer of the means, which makes the first means nearly 0."""


class HiddenLayers(nn.ModuleList):
    """Linear layers, each with a tanh after it."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            if isinstance(layer, nn.Linear):  # two functions have less overhead than two modules
                x = tanh(functional.linear(x, layer.weight, layer.bias))
        return x


def hidden_layers(widths: tuple[int, ...]) -> HiddenLayers:
    """Return hidden layers with tanh."""
    return HiddenLayers(layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), Tanh()))


class Scales(NamedTuple):
    """Mean and standard deviation of slots, and what they were computed from."""

    mean: Tensor
    """[input]."""
    std: Tensor
    """[input]."""
    sources: tuple[Tensor, ...]
    """Means and variances of the slots' parts."""
    versions: list[int]
    """torch's counts of the changes of each of them."""


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

    def __init__(self, settings: TrialPpoBlock, observation_size: int, action_size: int, make_core: CoreMaker) -> None:
        super().__init__()
        self.sizes = (observation_size, action_size, 1, 2)
        self.reward_input = settings.reward_input
        self.observation_moments = Moments(observation_size)
        self.reward_moments = Moments(1)
        self.return_moments = Moments(1)
        self._scaled: Scales | None = None
        self.standardises = settings.normalise_input
        """Whether observations and rewards are read standardised and clipped, or as they are."""
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
        """Return slots [..., input] as the network reads them, see `standardises`; actions are clipped anyway."""
        if self.standardises:
            mean, std = self._scales()
            return ((inputs - mean) / std).clamp(-INPUT_CLIP, INPUT_CLIP)
        observation, action, reward, flags = inputs.split_with_sizes(self.sizes, dim=-1)
        return torch.cat([observation, action.clamp(-INPUT_CLIP, INPUT_CLIP), reward, flags], dim=-1)

    def _scales(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of slots [input]; 0 and 1 of actions and flags.

        They are computed again after the moments have changed, not at each of the steps of a trial.
        """
        observation, reward = self.observation_moments, self.reward_moments
        sources = observation.mean, observation.variance, reward.mean, reward.variance
        versions = [source._version for source in sources]
        if self._scaled is None or versions != self._scaled.versions or any(map(is_not, sources, self._scaled.sources)):
            action, flags = sources[0].new_zeros(self.sizes[1]), sources[0].new_zeros(self.sizes[3])
            mean = torch.cat([observation.mean, action, reward.mean, flags])
            std = torch.cat([observation.std, action + 1, reward.std, flags + 1])
            self._scaled = Scales(mean, std, sources, versions)
        return self._scaled.mean, self._scaled.std

    def embed(self, normalised: Tensor) -> Tensor:
        """Return the core's inputs [..., embedding] of normalised slots."""
        observation, action, reward, flags = normalised.split_with_sizes(self.sizes, dim=-1)
        if not self.reward_input:
            reward = torch.zeros_like(reward)
        layers = self.embed_observation, self.embed_action, self.embed_reward
        parts = zip((observation, action, reward), layers, strict=True)
        embedded = [functional.linear(part, layer.weight, layer.bias) for part, layer in parts]
        return torch.cat([functional.relu(torch.cat(embedded, dim=-1)), flags], dim=-1)

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
        return self.features(features, normalised), after

    @torch.no_grad()
    def memories(self, inputs: Tensor, memory: Memory, length: int) -> Memory:
        """Return the memory before each of K pieces of `length` slots [L, B, input], by name, each [B K, ...]."""
        before = [memory]
        for piece in self.embed(self.normalise(inputs)).split(length)[:-1]:
            before.append(self.core.sequence(piece, before[-1])[1])
        return {name: torch.stack([own[name] for own in before], dim=1).flatten(0, 1) for name in memory}

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
