"""Rules of the inner step: what becomes of a task's adapted parameters, given their gradient and loss.

A rule has parameters of its own, a flat vector [R], which the outer step learns, and may keep a state for each task
over the inner steps of a trial: a tuple of tensors [M, ...].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from metarl.agents.maml.adapted import Adapted
from metarl.agents.maml.settings import MamlSettings

State = tuple[Tensor, ...]
"""State of a rule, [M, ...] each; empty for a rule without."""
PREPROCESSING = 10.0
"""p of Andrychowicz (2016), appendix A: values below exp(-p) count as 0."""
KEPT = 6.0
"""First bias of the LSTM rule's forget gate: sigmoid(6) = 0.998 (Ravi 2017 takes 4 to 6)."""


class Rule(Protocol):
    """An inner step."""

    @property
    def size(self) -> int:
        """R, the number of parameters of the rule."""
        ...

    def initial(self, generator: torch.Generator) -> Tensor:
        """Return its first parameters [R]."""
        ...

    def start(self, num_tasks: int, like: Tensor) -> State:
        """Return the state before a trial's first inner step; like: of its type, on its device."""
        ...

    def __call__(
        self, rule: Tensor, phi: Tensor, gradient: Tensor, loss: Tensor, k: int, state: State
    ) -> tuple[Tensor, State]:
        """Return the parameters after the step, and the state.

        rule: [R]. phi, gradient: [M, A]. loss: [M]. k: number of shots that were adapted from before.
        """
        ...


@dataclass(frozen=True)
class StepSizes:
    """phi - alpha_k grad L(phi), with one step size, one a piece, or one a parameter (Meta-SGD, Li 2017, eq. 3)."""

    settings: MamlSettings
    adapted: Adapted

    @property
    def size(self) -> int:
        by_rule = {"layer": len(self.adapted.lengths), "parameter": self.adapted.size}
        return by_rule.get(self.settings.inner_rule, 0)

    def initial(self, generator: torch.Generator) -> Tensor:
        return torch.full((self.size,), self.settings.inner_lr)

    def start(self, num_tasks: int, like: Tensor) -> State:
        return ()

    def __call__(
        self, rule: Tensor, phi: Tensor, gradient: Tensor, loss: Tensor, k: int, state: State
    ) -> tuple[Tensor, State]:
        decay = self.settings.inner_lr_decay**k
        if not self.size:
            return phi - self.settings.inner_lr * decay * gradient, state
        sizes = rule
        if self.settings.inner_rule == "layer":
            sizes = rule.repeat_interleave(torch.tensor(self.adapted.lengths, device=rule.device))
        return phi - decay * sizes * gradient, state


@dataclass(frozen=True)
class LstmRule:
    """The meta-learner LSTM of Ravi and Larochelle (2017), the same for every parameter.

    An LSTM reads the preprocessed gradient and loss; from its output h, the parameter and its own last value follow
    the gates of a second one, whose cell is the parameter (their eq. 2 to 4):

        i = sigmoid(W_i [h, phi, i'] + b_i),   f = sigmoid(W_f [h, phi, f'] + b_f),   phi <- f phi - i gradient

    As there, no derivative is taken through what the LSTM reads.
    """

    settings: MamlSettings
    adapted: Adapted

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of weight and bias of the LSTM, and of the two gates' weights and biases."""
        h = self.settings.inner_rule_size
        return [(4 + h, 4 * h), (4 * h,), (h + 2, 2), (2,)]

    @property
    def size(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes)

    def initial(self, generator: torch.Generator) -> Tensor:
        """Draw small weights; the gates begin as gradient descent by `inner_lr`, at most 0.99, with almost nothing
        forgotten."""
        weight, bias, gates, gate_bias = (torch.zeros(shape) for shape in self.shapes)
        for drawn in (weight, gates):
            drawn.copy_(0.01 * torch.randn(drawn.shape, generator=generator))
        lr = min(self.settings.inner_lr, 0.99)
        gate_bias.copy_(torch.tensor([math.log(lr / (1 - lr)), KEPT]))
        return torch.cat([x.flatten() for x in (weight, bias, gates, gate_bias)])

    def start(self, num_tasks: int, like: Tensor) -> State:
        """Return hidden and cell state, [M, A, H], and the last values of both gates, [M, A, 2]."""
        hidden = like.new_zeros(num_tasks, self.adapted.size, self.settings.inner_rule_size)
        return hidden, hidden, like.new_zeros(num_tasks, self.adapted.size, 2)

    def __call__(
        self, rule: Tensor, phi: Tensor, gradient: Tensor, loss: Tensor, k: int, state: State
    ) -> tuple[Tensor, State]:
        pieces = rule.split([math.prod(shape) for shape in self.shapes])
        weight, bias, gates, gate_bias = (x.view(shape) for x, shape in zip(pieces, self.shapes, strict=True))
        hidden, cell, last = state
        of_loss = preprocessed(loss.detach())[:, None].expand(*phi.shape, 2)
        seen = torch.cat([preprocessed(gradient.detach()), of_loss], -1)
        i, f, g, o = (torch.cat([seen, hidden], -1) @ weight + bias).chunk(4, -1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        h = self.settings.inner_rule_size
        gate = torch.sigmoid(hidden @ gates[:h] + phi[..., None] * gates[h] + last * gates[h + 1] + gate_bias)
        decay = self.settings.inner_lr_decay**k
        return gate[..., 1] * phi - decay * gate[..., 0] * gradient, (hidden, cell, gate)


def preprocessed(x: Tensor) -> Tensor:
    """(log|x| / p, sign x) where |x| >= exp(-p), else (-1, exp(p) x); [...] -> [..., 2] (Andrychowicz 2016, app. A)."""
    p = PREPROCESSING
    large = x.abs() >= math.exp(-p)
    size = torch.where(large, x.abs().clamp(min=1e-30).log() / p, -1.0)
    return torch.stack([size, torch.where(large, x.sign(), math.exp(p) * x)], -1)


def make_rule(settings: MamlSettings, adapted: Adapted) -> Rule:
    """Return the rule that the settings name."""
    return (LstmRule if settings.inner_rule == "lstm" else StepSizes)(settings, adapted)
