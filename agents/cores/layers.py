"""Layers that several memories are made of, and their initial parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CausalConvolution(nn.Linear):
    """A convolution over time whose output at a slot reads that slot and earlier ones: `kernel` taps, `dilation` apart.

    It carries the inputs that later outputs will read, so that a sequence may be read in pieces.
    """

    def __init__(self, input_size: int, output_size: int, kernel: int, dilation: int = 1) -> None:
        super().__init__(kernel * input_size, output_size)
        self.kernel, self.dilation = kernel, dilation
        self.reach = (kernel - 1) * dilation
        """Number of earlier slots that an output reads back to."""

    def read(self, inputs: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs [B, L, output] of inputs [B, L, input], and the last `reach` inputs; before: the same."""
        length, whole = inputs.shape[1], torch.cat([before, inputs], dim=1)  # [B, reach + L, input]
        taps = [whole[:, k * self.dilation : k * self.dilation + length] for k in range(self.kernel)]
        return self(torch.cat(taps, dim=-1)), whole[:, length:]


def draw_layers(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of a network's linear layers orthogonal (Saxe 2014); biases are zero, norms have no effect."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.orthogonal_(module.weight, generator=generator)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
            nn.init.zeros_(module.bias)
