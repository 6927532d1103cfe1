"""Memories of agents that adapt by remembering: networks that read inputs one by one, or a whole sequence at once.

An agent that holds a `Core` does not know which one it is: a GRU, an LSTM and a transformer differ in this alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Memory = Mapping[str, Tensor]
"""States of a core by name, each [B, ...]: B sequences that are read side by side."""


class Core(nn.Module):
    """A network with a memory. Reading a sequence gives the features and the memory that its steps give in turn."""

    name: str
    """Name of the module in a network that holds the core, and so the prefix of its parameters in a checkpoint."""
    output_size: int
    """Size of the features."""

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

    def initialise(self, generator: torch.Generator) -> None:
        """Draw initial parameters; the core may have been made without any."""
        raise NotImplementedError


class GruCore(nn.GRU, Core):
    """A gated recurrent unit (Cho 2014) of one layer."""

    name = "gru"

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.output_size = hidden_size

    def initial(self, size: int) -> Memory:
        return {"hidden": next(self.parameters()).new_zeros(size, self.hidden_size)}

    def sequence(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        features, last = self(inputs, memory["hidden"].unsqueeze(0))
        return features, {"hidden": last[0]}

    def initialise(self, generator: torch.Generator) -> None:
        """Draw each gate's weights orthogonal; biases are zero."""
        initialise_gates(self, 3, generator)


class LstmCore(Core):
    """A long short-term memory (Hochreiter 1997) of one layer, which may be part of another network."""

    name = "lstm"

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm
        self.output_size = lstm.hidden_size

    def initial(self, size: int) -> Memory:
        zeros = next(self.parameters()).new_zeros(size, self.lstm.hidden_size)
        return {"hidden": zeros, "cell": zeros}

    def sequence(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        states = memory["hidden"].unsqueeze(0), memory["cell"].unsqueeze(0)
        features, (hidden, cell) = self.lstm(inputs, states)
        return features, {"hidden": hidden[0], "cell": cell[0]}

    def initialise(self, generator: torch.Generator) -> None:
        """Draw each gate's weights orthogonal; biases are zero."""
        initialise_gates(self.lstm, 4, generator)


def initialise_gates(network: nn.RNNBase, gates: int, generator: torch.Generator) -> None:
    """Draw the weights of each of a recurrent network's gates orthogonal (Saxe 2014), and set biases to zero."""
    for parameter in network.parameters():
        if parameter.dim() == 1:
            nn.init.zeros_(parameter)
            continue
        for gate in parameter.data.chunk(gates):
            nn.init.orthogonal_(gate, generator=generator)
