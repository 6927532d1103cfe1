"""The prototype of a task as a memory: sums over steps, whose order does not matter.

    p_n = sum_{t <= n} e(x_t, x_t - x_{t-1}) / (n + k)

with slots x, an embedding e of a transition, and k steps of weight for the prototype 0 of before. It is the mean of the
embeddings of all episodes so far, by their lengths, and of the steps of the present one; no step depends on another, so
that a whole trial is embedded at once. Axes: L slots, B envs.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from metarl.agents.cores.core import Core, Memory
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.prototype.settings import PrototypeSettings
from metarl.agents.tanh import tanh

SUM, STEPS, PREVIOUS, KNOWN = "prototype_sum", "prototype_steps", "previous_slot", "previous_known"
"""Names of the states: sum of the embeddings [B, E], their number [B, 1], the slot before [B, slot], and whether there
was one [B, 1], 1 or 0: a memory that was emptied within an episode has none."""
FLAGS = 2
"""Last elements of an input: flags of the start and the end of an episode."""


class PrototypeCore(Core):
    """Features [..., E + 1]: the prototype, and n / (n + k), which says how much it is worth."""

    name = "prototype"

    def __init__(self, input_size: int, settings: PrototypeSettings, slot_size: int) -> None:
        """input_size: of embedded slots, after which an input has the slot itself, of slot_size, and the flags."""
        super().__init__()
        self.slot_size = slot_size
        sizes = (input_size + 2 * slot_size, *settings.step_sizes)
        self.prior_steps = settings.prior_steps
        self.step_moments = Moments(2 * slot_size)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.last = nn.Linear(sizes[-1], settings.prototype_size)
        self.output_size = settings.prototype_size + 1

    def initialise(self, generator: torch.Generator) -> None:
        """Draw orthogonal weights; biases are zero."""
        self.step_moments.reset()
        for parameter in self.parameters():
            if parameter.dim() == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.orthogonal_(parameter, generator=generator)

    def initial(self, size: int) -> Memory:
        weight = self.last.weight
        sizes = {SUM: self.output_size - 1, STEPS: 1, PREVIOUS: self.slot_size, KNOWN: 1}
        return {name: weight.new_zeros(size, own) for name, own in sizes.items()}

    def slots(self, inputs: Tensor) -> Tensor:
        """Return the slots [..., slot] in inputs [..., input]."""
        return inputs[..., -FLAGS - self.slot_size : -FLAGS]

    def embeddings(self, inputs: Tensor, previous: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings [..., E] of the steps that led to slots, and their weights [..., 1].

        inputs: [..., input]. previous: [..., slot], the slots before. known: [..., 1], 1 where there is one before, or
        0. A slot that starts an episode or a life has no step that led to it, and where the slot before is not known
        nor is the step: its weight is 0, and so is its embedding.
        """
        slots = self.slots(inputs)
        steps = self.step_moments.standardise(torch.cat([slots, slots - previous], dim=-1))
        x = torch.cat([inputs[..., : -FLAGS - self.slot_size], steps.clamp(-INPUT_CLIP, INPUT_CLIP)], dim=-1)
        for layer in self.layers:
            x = tanh(layer(x))
        weights = (1.0 - inputs[..., -FLAGS : -FLAGS + 1]) * known
        return self.last(x) * weights, weights

    def before(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Return the slot before each of the inputs [L, B, input], and whether it is known [L, B, 1], 1 or 0."""
        known = memory[KNOWN].unsqueeze(0)
        read = torch.ones_like(known).expand(len(inputs) - 1, -1, -1)
        return torch.cat([memory[PREVIOUS].unsqueeze(0), self.slots(inputs)[:-1]]), torch.cat([known, read])

    def step(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        embedded, weights = self.embeddings(inputs, memory[PREVIOUS], memory[KNOWN])
        total, steps = memory[SUM] + embedded, memory[STEPS] + weights
        return self._features(total, steps), self._memory(total, steps, self.slots(inputs))

    def sequence(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        embedded, weights = self.embeddings(inputs, *self.before(inputs, memory))
        total, steps = memory[SUM] + embedded.cumsum(dim=0), memory[STEPS] + weights.cumsum(dim=0)
        return self._features(total, steps), self._memory(total[-1], steps[-1], self.slots(inputs)[-1])

    def _features(self, total: Tensor, steps: Tensor) -> Tensor:
        weight = steps + self.prior_steps
        return torch.cat([total / weight, steps / weight], dim=-1)

    def _memory(self, total: Tensor, steps: Tensor, slots: Tensor) -> Memory:
        """Return the memory after slots [B, slot], of which the sums are [B, E] and [B, 1]."""
        return {SUM: total, STEPS: steps, PREVIOUS: slots, KNOWN: torch.ones_like(steps)}
