"""SNAIL (Mishra 2018): dilated causal convolutions, which gather, and causal attention, which picks out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarl.agents.cores.attention import WindowAttention, WindowCore
from metarl.agents.cores.core import Memory
from metarl.agents.cores.layers import draw_layers
from metarl.agents.cores.settings import MemorySettings
from metarl.agents.tanh import tanh


def dilations(window: int) -> list[int]:
    """Return doubling dilations whose sum is window - 1, so that they read a window; the last is what is left."""
    found, left = [], window - 1
    while left > 0:
        found.append(min(2 ** len(found), left))
        left -= found[-1]
    return found


class DenseBlock(nn.Module):
    """A gated convolution of two taps, whose result is put beside its inputs.

    It keeps what its earlier tap made of the last slots, which is narrower than the slots themselves.
    """

    def __init__(self, input_size: int, filters: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.earlier = nn.Linear(input_size, 2 * filters, bias=False)
        self.present = nn.Linear(input_size, 2 * filters)

    def initial(self, size: int) -> Tensor:
        """Return what is kept of `size` sequences of which nothing has been read, [B, dilation, 2 filters]."""
        return self.earlier.weight.new_zeros(size, self.dilation, len(self.earlier.weight))

    def read(self, inputs: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [B, S, input + filters] of inputs [B, S, input], and what is kept; before: what was kept."""
        length, kept = inputs.shape[1], torch.cat([before, self.earlier(inputs)], dim=1)
        new, gate = (kept[:, :length] + self.present(inputs)).chunk(2, dim=-1)
        return torch.cat([inputs, tanh(new) * gate.sigmoid()], dim=-1), kept[:, length:]


class SnailStage(nn.Module):
    """Dense blocks that read a window, and one head of attention over a window, whose reading is put beside it."""

    def __init__(self, input_size: int, filters: int, window: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for dilation in dilations(window):
            self.blocks.append(DenseBlock(input_size, filters, dilation))
            input_size += filters
        self.attention = WindowAttention(input_size, 1, filters, filters, window)
        self.output_size = input_size + filters

    @property
    def reach(self) -> int:
        """Number of slots before the present one that it reads."""
        return sum(block.dilation for block in self.all_blocks()) + self.attention.reach

    def initial(self, size: int) -> tuple[Tensor, ...]:
        """Return the states of `size` sequences of which nothing has been read: what each block keeps, keys, values."""
        return *(block.initial(size) for block in self.all_blocks()), *self.attention.initial(size)

    def read(self, inputs: Tensor, states: tuple[Tensor, ...], count: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return features [B, S, output] of inputs [B, S, input], and the states after them; states, count: before."""
        *taps, keys, values = states
        after = []
        for block, before in zip(self.all_blocks(), taps, strict=True):
            inputs, kept = block.read(inputs, before)
            after.append(kept)
        found, keys, values = self.attention.read(inputs, keys, values, count)
        return torch.cat([inputs, found], dim=-1), (*after, keys, values)

    def all_blocks(self) -> list[DenseBlock]:
        """Return the dense blocks in their order."""
        return [block for block in self.blocks if isinstance(block, DenseBlock)]


class SnailCore(WindowCore):
    """Stages of convolutions and attention, and a layer that reads what they have put side by side."""

    name = "snail"

    def __init__(self, input_size: int, settings: MemorySettings) -> None:
        super().__init__()
        self.output_size, self.window = settings.hidden_size, settings.attention_window
        self.embed = nn.Linear(input_size, settings.hidden_size)
        self.stages = nn.ModuleList()
        width = settings.hidden_size
        for _ in range(settings.memory_layers):
            self.stages.append(stage := SnailStage(width, max(1, settings.hidden_size // 4), self.window))
            width = stage.output_size
        self.out = nn.Linear(width, settings.hidden_size)

    @property
    def reach(self) -> int:
        return sum(stage.reach for stage in self.all_stages())

    def initial(self, size: int) -> Memory:
        memory: dict[str, Tensor] = {"count": self.out.weight.new_zeros(size, 1)}
        for i, stage in enumerate(self.all_stages()):
            memory |= dict(zip(self._names(i), stage.initial(size), strict=True))
        return memory

    def piece(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        features, count = self.embed(inputs), memory["count"]
        after = {"count": self.counted(count, inputs.shape[1])}
        for i, stage in enumerate(self.all_stages()):
            names = self._names(i)
            features, states = stage.read(features, tuple(memory[name] for name in names), count)
            after |= dict(zip(names, states, strict=True))
        return self.out(features), after

    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights orthogonal, and positions small; biases are zero."""
        draw_layers(self, generator)
        for stage in self.all_stages():
            stage.attention.initialise(generator)

    def all_stages(self) -> list[SnailStage]:
        """Return the stages in their order."""
        return [stage for stage in self.stages if isinstance(stage, SnailStage)]

    def _names(self, stage: int) -> list[str]:
        """Return the names of a stage's states, in their order."""
        taps = [f"taps{stage}_{block}" for block in range(len(dilations(self.window)))]
        return [*taps, f"keys{stage}", f"values{stage}"]
