"""Linear recurrent unit (Orvieto 2023): a memory that is linear in time, which training reads by a parallel scan."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarl.agents.cores import scan
from metarl.agents.cores.core import Core, Memory
from metarl.agents.cores.layers import draw_layers
from metarl.agents.cores.settings import MemorySettings

MODULI = (0.9, 0.999)
"""Range of the moduli of the first factors: they forget within 10 to 1,000 slots."""
MAX_PHASE = math.pi / 10
"""Largest phase of the first factors, rad a slot."""

Recurrence = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(factors, inputs, start) -> states: see `metarl.agents.cores.scan`."""


class LinearBlock(nn.Module):
    """Norm, a linear recurrence on its own axes, GELU, and a gate; their result is added to the inputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        states = (width + 1) // 2
        self.norm = nn.LayerNorm(width)
        self.log_decay = nn.Parameter(torch.empty(states))
        self.log_phase = nn.Parameter(torch.empty(states))
        self.log_scale = nn.Parameter(torch.empty(states))
        self.drive = nn.Linear(width, 2 * states, bias=False)
        self.out = nn.Linear(2 * states, width, bias=False)
        self.skip = nn.Parameter(torch.empty(width))
        self.gate = nn.Linear(width, 2 * width)

    def factors(self) -> Tensor:
        """Return the factors exp(-exp(log_decay) + i exp(log_phase)), [2N], whose moduli are below 1."""
        modulus, phase = (-self.log_decay.exp()).exp(), self.log_phase.exp()
        return torch.cat([modulus * phase.cos(), modulus * phase.sin()])

    def read(self, inputs: Tensor, start: Tensor, recur: Recurrence) -> tuple[Tensor, Tensor]:
        """Return features [L, B, width] of inputs [L, B, width], and the state [B, 2N] after them; start: before."""
        normed = self.norm(inputs)
        states = recur(self.factors(), self.drive(normed) * self.log_scale.exp().repeat(2), start)
        remembered = functional.gelu(self.out(states) + self.skip * normed)
        return inputs + functional.glu(self.gate(remembered), dim=-1), states[-1]

    def initialise(self, generator: torch.Generator) -> None:
        """Draw factors uniform on a ring, and input and output normal, as published."""
        draw_layers(self.gate, generator)
        nn.init.ones_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)
        low, high = MODULI
        with torch.no_grad():
            squares = low**2 + (high**2 - low**2) * torch.rand(len(self.log_decay), generator=generator)
            self.log_decay.copy_((-0.5 * squares.log()).log())
            self.log_phase.copy_((MAX_PHASE * torch.rand(len(self.log_phase), generator=generator)).log())
            self.log_scale.copy_(0.5 * (1.0 - squares).log())  # states of about the inputs' size
        for layer, rate in ((self.drive.weight, 0.5), (self.out.weight, 1.0)):
            nn.init.normal_(layer, std=math.sqrt(rate / layer.shape[1]), generator=generator)
        nn.init.normal_(self.skip, generator=generator)


class LinearCore(Core):
    """Blocks of linear recurrences, one after the other."""

    name = "linear"

    def __init__(self, input_size: int, settings: MemorySettings) -> None:
        super().__init__()
        self.output_size = settings.hidden_size
        self.embed = nn.Linear(input_size, settings.hidden_size)
        self.blocks = nn.ModuleList(LinearBlock(settings.hidden_size) for _ in range(settings.memory_layers))

    def initial(self, size: int) -> Memory:
        width = 2 * ((self.output_size + 1) // 2)
        return {"state": self.embed.weight.new_zeros(size, len(self.blocks), width)}

    def step(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        features, after = self._read(inputs.unsqueeze(0), memory, scan.step_by_step)
        return features[0], after

    def sequence(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        return self._read(inputs, memory, scan.in_parallel)

    def _read(self, inputs: Tensor, memory: Memory, recur: Recurrence) -> tuple[Tensor, Memory]:
        features, after = self.embed(inputs), []
        for block, start in zip(self.all_blocks(), memory["state"].unbind(1), strict=True):
            features, last = block.read(features, start, recur)
            after.append(last)
        return features, {"state": torch.stack(after, dim=1)}

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the embedding orthogonal, and each block as published."""
        draw_layers(self.embed, generator)
        for block in self.all_blocks():
            block.initialise(generator)

    def all_blocks(self) -> list[LinearBlock]:
        """Return the blocks in their order."""
        return [block for block in self.blocks if isinstance(block, LinearBlock)]
