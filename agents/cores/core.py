"""Memories of agents that adapt by remembering: networks that read inputs one by one, or a whole sequence at once.

An agent that holds a `Core` does not know which one it is: a GRU, an LSTM and a transformer differ in this alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Memory = Mapping[str, Tensor]
"""States of a core by name, each [B, ...], of fixed shapes: B sequences that are read side by side."""


class Core(nn.Module):
    """A network with a memory. Reading a sequence gives the features and the memory that its steps give in turn."""

    name: str
    """Name of the module in a network that holds the core, and so the prefix of its parameters in a checkpoint."""
    output_size: int
    """Size of the features."""

    @property
    def reach(self) -> int | None:
        """Number of slots before the present one that its features depend on; None: all of them."""
        return None

    def initial(self, size: int) -> Memory:
        """Return the memory of `size` sequences of which nothing has been read, on the core's device."""
        raise NotImplementedError

    def step(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Read one input [B, input] of each sequence; returns features [B, output] and the memory after it."""
        features, after = self.sequence(inputs.unsqueeze(0), memory)
        return features[0], after

    def sequence(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Read inputs [L, B, input] in order; returns features [L, B, output] and the memory after the last."""
        raise NotImplementedError

    def truncated(self, inputs: Tensor, memory: Memory, chunk: int) -> tuple[Tensor, Memory]:
        """Return what `sequence` does; gradients do not cross from one chunk of `chunk` inputs to the next.

        The memory is carried from chunk to chunk (truncated back-propagation through time; for a transformer the
        segments of Transformer-XL, Dai 2019). chunk 0: the whole sequence is one.
        """
        if chunk == 0:
            return self.sequence(inputs, memory)
        features = []
        for part in inputs.split(chunk):
            feature, after = self.sequence(part, memory)
            features.append(feature)
            memory = {name: state.detach() for name, state in after.items()}
        return torch.cat(features), memory

    def initialise(self, generator: torch.Generator) -> None:
        """Draw initial parameters; the core may have been made without any."""
        raise NotImplementedError
