"""The prototype of a task as a memory: sums over steps, whose order does not matter.

    p_n = sum_{t <= n} e(x_{t-1}, x_t) / (n + k)

with slots x, an embedding e of a transition, and k steps of weight for the prototype 0 of before. It is the mean of the
embeddings of all episodes so far, by their lengths, and of the steps of the present one; no step depends on another, so
that a whole trial is embedded at once. Axes: L slots, B envs.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from metarl.agents.cores.core import Core, Memory
from metarl.agents.prototype.settings import PrototypeSettings
from metarl.agents.tanh import tanh

SUM, STEPS, PREVIOUS = "prototype_sum", "prototype_steps", "previous_slot"
"""Names of the states: sum of the embeddings [B, E], their number [B, 1], and the slot before [B, input]."""


class PrototypeCore(Core):
    """Features [..., E + 1]: the prototype, and n / (n + k), which says how much it is worth."""

    name = "prototype"

    def __init__(self, input_size: int, settings: PrototypeSettings) -> None:
        super().__init__()
        sizes = (2 * input_size, *settings.step_sizes)
        self.prior_steps = settings.prior_steps
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.last = nn.Linear(sizes[-1], settings.prototype_size)
        self.input_size, self.output_size = input_size, settings.prototype_size + 1

    def initialise(self, generator: torch.Generator) -> None:
        """Draw orthogonal weights; biases are zero."""
        for parameter in self.parameters():
            if parameter.dim() == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.orthogonal_(parameter, generator=generator)

    def initial(self, size: int) -> Memory:
        weight = self.last.weight
        sizes = {SUM: self.output_size - 1, STEPS: 1, PREVIOUS: self.input_size}
        return {name: weight.new_zeros(size, own) for name, own in sizes.items()}

    def embeddings(self, inputs: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings [..., E] of the steps that led from slots to the next, and their weights [..., 1].

        inputs: [..., input], whose last two elements are the flags of a start and an end. A slot that starts an episode
        or a life has no step that led to it: its weight is 0, and so is its embedding.
        """
        x = torch.cat([previous, inputs], dim=-1)
        for layer in self.layers:
            x = tanh(layer(x))
        weights = 1.0 - inputs[..., -2:-1]
        return self.last(x) * weights, weights

    def step(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        embedded, weights = self.embeddings(inputs, memory[PREVIOUS])
        total, steps = memory[SUM] + embedded, memory[STEPS] + weights
        return self._features(total, steps), {SUM: total, STEPS: steps, PREVIOUS: inputs}

    def sequence(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        previous = torch.cat([memory[PREVIOUS].unsqueeze(0), inputs[:-1]])
        embedded, weights = self.embeddings(inputs, previous)
        total, steps = memory[SUM] + embedded.cumsum(dim=0), memory[STEPS] + weights.cumsum(dim=0)
        after = {SUM: total[-1], STEPS: steps[-1], PREVIOUS: inputs[-1]}
        return self._features(total, steps), after

    def _features(self, total: Tensor, steps: Tensor) -> Tensor:
        weight = steps + self.prior_steps
        return torch.cat([total / weight, steps / weight], dim=-1)
