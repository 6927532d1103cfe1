"""Memories that hold the last slots as they are: what most learned walking controllers remember."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarl.agents.cores.core import Core, Memory
from metarl.agents.cores.layers import CausalConvolution, draw_layers
from metarl.agents.cores.settings import MemorySettings
from metarl.agents.tanh import tanh

STAGES: dict[int, tuple[tuple[int, int], ...]] = {
    50: ((8, 4), (5, 1), (5, 1)),
    20: ((6, 2), (4, 2)),
    10: ((4, 2), (2, 1)),
    0: (),
}
"""(kernel, stride) of each convolution by the shortest history that it is for, as in RMA (Kumar 2021) and its users."""


def taps(length: int) -> list[tuple[int, int]]:
    """Return (kernel, dilation) of the convolutions that together read exactly the last `length` slots.

    Strides over a window that moves by one slot are dilations over the sequence. The last convolution reads all that
    the others leave of the window; the first is widened if the strides would leave out its oldest slots.
    """
    stages = next(stages for least, stages in STAGES.items() if length >= least)
    found, dilation, left = [], 1, length
    for kernel, stride in stages:
        found.append((kernel, dilation))
        left, dilation = (left - kernel) // stride + 1, dilation * stride
    found.append((left, dilation))
    unread = length - 1 - sum((kernel - 1) * apart for kernel, apart in found)
    return [(found[0][0] + unread, 1), *found[1:]]


class HistoryCore(Core):
    """The last slots, embedded one by one and read by a convolution over time (RMA, Kumar 2021)."""

    name = "history"

    def __init__(self, input_size: int, settings: MemorySettings) -> None:
        super().__init__()
        self.output_size = settings.hidden_size
        width = max(1, settings.hidden_size // 2)
        self.embed = nn.Linear(input_size, width)
        *stages, last = taps(settings.history_length)
        self.stages = nn.ModuleList(CausalConvolution(width, width, *stage) for stage in stages)
        self.last = CausalConvolution(width, self.output_size, *last)

    @property
    def reach(self) -> int:
        return sum(stage.reach for stage in self.convolutions())

    def initial(self, size: int) -> Memory:
        return {"history": self.embed.weight.new_zeros(size, self.reach, self.embed.out_features)}

    def sequence(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        convolutions = self.convolutions()
        before = memory["history"].split([stage.reach for stage in convolutions], dim=1)
        features, after = self.embed(inputs).transpose(0, 1), []
        for convolution, earlier in zip(convolutions, before, strict=True):
            features, kept = convolution.read(functional.elu(features), earlier)
            after.append(kept)
        return features.transpose(0, 1), {"history": torch.cat(after, dim=1)}

    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights orthogonal; biases are zero."""
        draw_layers(self, generator)

    def convolutions(self) -> list[CausalConvolution]:
        """Return the convolutions in their order."""
        return [stage for stage in (*self.stages, self.last) if isinstance(stage, CausalConvolution)]


class StackCore(Core):
    """The last slots side by side, read by one layer: a stack of frames."""

    name = "stack"

    def __init__(self, input_size: int, settings: MemorySettings) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, settings.hidden_size
        self.layer = CausalConvolution(input_size, settings.hidden_size, settings.history_length)

    @property
    def reach(self) -> int:
        return self.layer.reach

    def initial(self, size: int) -> Memory:
        return {"history": self.layer.weight.new_zeros(size, self.reach, self.input_size)}

    def sequence(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        features, after = self.layer.read(inputs.transpose(0, 1), memory["history"])
        return tanh(features).transpose(0, 1), {"history": after}

    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights orthogonal; biases are zero."""
        draw_layers(self, generator)
