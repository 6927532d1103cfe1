"""A Gaussian policy for M tasks at once: stacked multilayer perceptrons with a log-std free of state.

The parameters of one policy are one flat vector [P]; those of M policies are [M, P]. So an inner step, a
Hessian-vector product and a checkpoint each handle one tensor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from metarl.agents.tanh import at_once_on_cpu, tanh_

ACTIVATIONS = {"tanh": tanh_, "relu": torch.relu}
NARROW = 16
"""Width below which a layer's product is computed as its transpose, four times as fast on the CPU for six outputs."""


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
    context_as: Literal["inputs", "film"] = "inputs"
    """inputs: of the first layer, beside the observation; film: of scales and shifts of the last hidden layer's
    outputs, 1 and 0 at a context of zeros (FiLM, Perez 2018, eq. 2)."""

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Return (in, out) of each linear layer."""
        sizes = (self.observation_size, *self.hidden_sizes, self.action_size)
        return tuple(itertools.pairwise(sizes))

    @property
    def pieces(self) -> dict[str, int]:
        """Return the length of each piece of a flat vector by name, in order.

        Weights and bias of each layer in turn, log_std; where there is a context, its weights in the first layer, or
        those of scales and shifts, and the context itself.
        """
        lengths: dict[str, int] = {}
        for k, (i, o) in enumerate(self.shapes):
            lengths |= {f"layer{k + 1}.weight": i * o, f"layer{k + 1}.bias": o}
        lengths["log_std"] = self.action_size
        if self.context_size:
            lengths |= {"context.weight": self.context_size * self.context_outputs, "context": self.context_size}
        return lengths

    @property
    def context_outputs(self) -> int:
        """Return the number of numbers that a context's weights make of it."""
        return self.shapes[0][1] if self.context_as == "inputs" else 2 * self.hidden_sizes[-1]

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
            pieces += [weights(self.context_size, self.context_outputs), torch.zeros(self.context_size)]
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
        weights = [w.view(-1, i, o) for w, (i, o) in zip(pieces[:end:2], self.shapes, strict=True)]
        biases = [b.unsqueeze(1) for b in pieces[1:end:2]]
        if self.context_size:
            weight = pieces[end + 1].view(-1, self.context_size, self.context_outputs)
            made = pieces[end + 2].unsqueeze(1) @ weight
            if self.context_as == "inputs":
                biases[0] = biases[0] + made
            else:  # as another last layer, so that those before it are the same for all contexts
                scale, shift = made.chunk(2, dim=-1)
                biases[-1] = biases[-1] + shift @ weights[-1]
                weights[-1] = (1 + scale).mT * weights[-1]
        return Layers(tuple(weights), tuple(biases), pieces[end].unsqueeze(1).clamp(min=math.log(self.min_std)))

    def __call__(self, layers: Layers, x: Tensor, begin: int = 0) -> Gaussian:
        """Return the distribution of actions for observations [M, B, obs], or for outputs of the first begin layers."""
        x = self.hidden(layers, x, begin, len(self.hidden_sizes))
        return Gaussian(_linear(x, layers.weights[-1], layers.biases[-1]), layers.log_std)

    def hidden(self, layers: Layers, x: Tensor, begin: int, end: int) -> Tensor:
        """Return the outputs [M, B, out] of the first end layers, given those of the first begin ones."""
        activate = ACTIVATIONS[self.activation]
        for weight, bias in zip(layers.weights[begin:end], layers.biases[begin:end], strict=True):
            x = activate(_linear(x, weight, bias))
        return x


class Product(torch.autograd.Function):
    """Products of stacked matrices, where one of them may be narrow: a b, a' b or a b', whose derivatives are such too.

    A product with few columns is computed as its transpose, which is several times as fast on the CPU.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, kind: str) -> Tensor:
        """a, b: [M, ., .]. kind: of each, N for the matrix itself or T for its transpose; not both T."""
        ctx.save_for_backward(a, b)
        ctx.kind = kind
        left, right = (x.mT if turned == "T" else x for x, turned in zip((a, b), kind, strict=True))
        if right.shape[-1] < min(NARROW, left.shape[-2]):
            return torch.bmm(right.mT, left.mT).mT.contiguous()
        return torch.bmm(left, right)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (a, b), g = ctx.saved_tensors, gradient
        of_a = {"NN": (g, b, "NT"), "TN": (b, g, "NT"), "NT": (g, b, "NN")}[ctx.kind]
        of_b = {"NN": (a, g, "TN"), "TN": (a, g, "NN"), "NT": (g, a, "TN")}[ctx.kind]
        needed = zip(ctx.needs_input_grad, (of_a, of_b), strict=False)
        return *(Product.apply(*operands) if own else None for own, operands in needed), None


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [M, B, in], weight [M or 1, in, out], bias [M or 1, 1, out] -> [M, B, out]; shared weights in one product."""
    shared = len(weight) < len(x)
    if weight.shape[-1] < NARROW and at_once_on_cpu(x):
        product = Product.apply(x.reshape(1, -1, x.shape[-1]) if shared else x, weight, "NN")
        return product.view(*x.shape[:-1], -1) + bias  # pyright: ignore[reportOptionalMemberAccess]
    if not shared:
        return torch.baddbmm(bias, x, weight)
    return (x @ weight[0]).add_(bias)
