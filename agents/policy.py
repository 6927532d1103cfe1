"""A Gaussian policy for M tasks at once: stacked multilayer perceptrons with a log-std free of state.

The parameters of one policy are one flat vector [P]; those of M policies are [M, P]. So an inner step, a
Hessian-vector product and a checkpoint each handle one tensor.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}


class Gaussian(NamedTuple):
    """Distribution of actions: mean [M, B, act] and log_std [M, 1, act]."""

    mean: Tensor
    log_std: Tensor


class Layers(NamedTuple):
    """Stacked weights [M, in, out] and biases [M, 1, out] of each layer, and log_std [M, 1, act]."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    log_std: Tensor


@dataclass(frozen=True)
class GaussianPolicy:
    """Architecture of a policy; parameters are arguments."""

    observation_size: int
    action_size: int
    hidden_sizes: tuple[int, ...]
    activation: Literal["tanh", "relu"]
    min_std: float

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Return (in, out) of each linear layer."""
        sizes = (self.observation_size, *self.hidden_sizes, self.action_size)
        return tuple(itertools.pairwise(sizes))

    @property
    def lengths(self) -> list[int]:
        """Return the lengths of the pieces of a flat vector: weights and bias of each layer in turn, log_std."""
        return [n for i, o in self.shapes for n in (i * o, o)] + [self.action_size]

    def initial(self, std: float, output_gain: float, generator: torch.Generator) -> Tensor:
        """Draw flat parameters [P]: Xavier-uniform weights (Glorot 2010), the last layer's scaled; zero biases; std."""
        pieces = []
        for i, o in self.shapes:
            limit = math.sqrt(6 / (i + o))
            pieces += [(2 * torch.rand(i * o, generator=generator) - 1) * limit, torch.zeros(o)]
        pieces[-2] *= output_gain
        return torch.cat([*pieces, torch.full((self.action_size,), math.log(std))])

    def layers(self, parameters: Tensor) -> Layers:
        """Return flat parameters [M, P] as stacked layers."""
        pieces = parameters.split(self.lengths, dim=1)
        weights = tuple(w.view(-1, i, o) for w, (i, o) in zip(pieces[:-1:2], self.shapes, strict=True))
        biases = tuple(b.unsqueeze(1) for b in pieces[1:-1:2])
        return Layers(weights, biases, pieces[-1].unsqueeze(1).clamp(min=math.log(self.min_std)))

    def __call__(self, layers: Layers, observations: Tensor) -> Gaussian:
        """Return the distribution of actions for observations [M, B, obs]."""
        activate = ACTIVATIONS[self.activation]
        x = observations
        for weight, bias in zip(layers.weights[:-1], layers.biases[:-1], strict=True):
            x = activate(torch.baddbmm(bias, x, weight))
        return Gaussian(torch.baddbmm(layers.biases[-1], x, layers.weights[-1]), layers.log_std)
