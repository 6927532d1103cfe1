"""A Gaussian policy for M tasks at once: stacked multilayer perceptrons with a log-std free of state.

The parameters of one policy are one flat vector [P]; those of M policies are [M, P]. So an inner step, a
Hessian-vector product and a checkpoint each handle one tensor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
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
    context_size: int = 0
    """Number of inputs besides the observation that are parameters themselves (CAVIA, Zintgraf 2019)."""

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Return (in, out) of each linear layer."""
        sizes = (self.observation_size, *self.hidden_sizes, self.action_size)
        return tuple(itertools.pairwise(sizes))

    @property
    def pieces(self) -> dict[str, int]:
        """Return the length of each piece of a flat vector by name, in order.

        Weights and bias of each layer in turn, log_std; where there is a context, its weights in the first layer and
        the context itself.
        """
        lengths: dict[str, int] = {}
        for k, (i, o) in enumerate(self.shapes):
            lengths |= {f"layer{k + 1}.weight": i * o, f"layer{k + 1}.bias": o}
        lengths["log_std"] = self.action_size
        if self.context_size:
            lengths |= {"context.weight": self.context_size * self.shapes[0][1], "context": self.context_size}
        return lengths

    def initial(self, std: float, output_gain: float, generator: torch.Generator) -> Tensor:
        """Draw flat parameters [P].

        Xavier-uniform weights (Glorot 2010), the last layer's scaled; zero biases; std; a context of zeros.
        """

        def weights(inputs: int, outputs: int) -> Tensor:
            drawn = 2 * torch.rand(inputs * outputs, generator=generator) - 1
            return drawn * math.sqrt(6 / (inputs + outputs))

        pieces = []
        for i, o in self.shapes:
            pieces += [weights(i, o), torch.zeros(o)]
        pieces[-2] *= output_gain
        pieces.append(torch.full((self.action_size,), math.log(std)))
        if self.context_size:
            pieces += [weights(self.context_size, self.shapes[0][1]), torch.zeros(self.context_size)]
        return torch.cat(pieces)

    def layers(self, parameters: Tensor) -> Layers:
        """Return flat parameters [M, P] as stacked layers."""
        return self.joined(self.split(parameters))

    def split(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """Return the pieces [..., length] of flat parameters [..., P], in order."""
        return parameters.split(list(self.pieces.values()), dim=-1)

    def joined(self, pieces: Sequence[Tensor]) -> Layers:
        """Return pieces of a flat vector, [M, length] each or [1, length] where all tasks share one, as layers."""
        end = 2 * len(self.shapes)
        weights = tuple(w.view(-1, i, o) for w, (i, o) in zip(pieces[:end:2], self.shapes, strict=True))
        biases = [b.unsqueeze(1) for b in pieces[1:end:2]]
        if self.context_size:
            weight = pieces[end + 1].view(-1, self.context_size, self.shapes[0][1])
            biases[0] = biases[0] + pieces[end + 2].unsqueeze(1) @ weight
        return Layers(weights, tuple(biases), pieces[end].unsqueeze(1).clamp(min=math.log(self.min_std)))

    def __call__(self, layers: Layers, observations: Tensor) -> Gaussian:
        """Return the distribution of actions for observations [M, B, obs]."""
        activate = ACTIVATIONS[self.activation]
        x = observations
        for weight, bias in zip(layers.weights[:-1], layers.biases[:-1], strict=True):
            x = activate(_linear(x, weight, bias))
        return Gaussian(_linear(x, layers.weights[-1], layers.biases[-1]), layers.log_std)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [M, B, in], weight [M or 1, in, out], bias [M or 1, 1, out] -> [M, B, out]; shared weights in one product."""
    if len(weight) == len(x):
        return torch.baddbmm(bias, x, weight)
    if len(bias) == 1:
        return torch.addmm(bias[0], x.reshape(-1, x.shape[-1]), weight[0]).view(*x.shape[:-1], -1)
    return x @ weight[0] + bias
