"""Gated recurrent networks of one layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarl.agents.cores.core import Core, Memory
from metarl.agents.cores.gru import GruSequence
from metarl.agents.cores.settings import MemorySettings


class GruCore(nn.GRU, Core):
    """A gated recurrent unit (Cho 2014)."""

    name = "gru"

    def __init__(self, input_size: int, settings: MemorySettings) -> None:
        super().__init__(input_size, settings.hidden_size)
        self.output_size = settings.hidden_size

    def initial(self, size: int) -> Memory:
        return {"hidden": next(self.parameters()).new_zeros(size, self.hidden_size)}

    def step(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        hidden = torch.gru_cell(inputs, memory["hidden"], *self.all_weights[0])  # the same numbers with less overhead
        return hidden, {"hidden": hidden}

    def sequence(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        if len(inputs) > 1 and inputs.device.type == "cpu":  # acting, and an export, read one input
            features = GruSequence.apply(inputs, memory["hidden"], *self.parameters())
            return features, {"hidden": features[-1]}
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

    def step(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        # The same numbers with less overhead.
        hidden, cell = torch.lstm_cell(inputs, (memory["hidden"], memory["cell"]), *self.lstm.all_weights[0])
        return hidden, {"hidden": hidden, "cell": cell}

    def sequence(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        states = memory["hidden"].unsqueeze(0), memory["cell"].unsqueeze(0)
        features, (hidden, cell) = self.lstm(inputs, states)
        return features, {"hidden": hidden[0], "cell": cell[0]}

    def initialise(self, generator: torch.Generator) -> None:
        """Draw each gate's weights orthogonal; biases are zero."""
        initialise_gates(self.lstm, 4, generator)


def make_lstm(input_size: int, settings: MemorySettings) -> LstmCore:
    """Return an LSTM of the settings' width."""
    return LstmCore(nn.LSTM(input_size, settings.hidden_size))


def initialise_gates(network: nn.RNNBase, gates: int, generator: torch.Generator) -> None:
    """Draw the weights of each of a recurrent network's gates orthogonal (Saxe 2014), and set biases to zero."""
    for parameter in network.parameters():
        if parameter.dim() == 1:
            nn.init.zeros_(parameter)
            continue
        for gate in parameter.data.chunk(gates):
            nn.init.orthogonal_(gate, generator=generator)
