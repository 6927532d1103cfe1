"""External memory (MANN, Santoro 2016): an LSTM that reads rows by what they hold and writes over the least used."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarl.agents.cores.core import Core, Memory
from metarl.agents.cores.external_sequence import STATES, USAGE_DECAY, ExternalSequence
from metarl.agents.cores.layers import draw_layers
from metarl.agents.cores.settings import MemorySettings

FIRST_USAGE = 1e-3
"""Usage of the last row when nothing has been read: rows are first written in their order."""


def address(keys: Tensor, strengths: Tensor, rows: Tensor) -> Tensor:
    """Return the softmax over rows of strength * cosine(key, row), [B, reads, N].

    keys: [B, reads, width]. strengths: [B, reads]. rows: [B, N, width]; the cosine with an empty row is 0.
    """
    of_keys, of_rows = ((x.square().sum(dim=-1) + 1e-8).rsqrt() for x in (keys, rows))
    scores = (strengths * of_keys).unsqueeze(-1) * of_rows.unsqueeze(1) * (keys @ rows.transpose(1, 2))
    return scores.softmax(dim=-1)


def least_used(usage: Tensor, count: int) -> Tensor:
    """Return the `count` least used rows as weights [B, count, N] that are 1 at one row each; usage: [B, N]."""
    places = usage.topk(count, dim=-1, largest=False).indices
    return (places.unsqueeze(-1) == torch.arange(usage.shape[-1], device=usage.device)).to(usage)


def in_numpy(inputs: Tensor) -> bool:
    """Return whether to read by NumPy: on a CPU, but in an export, which follows operations of torch.

    Acting does as learning does. A choice of rows is a jump: where two rows are used alike, numbers that are rounded
    otherwise choose others.
    """
    return inputs.device.type == "cpu" and not torch.onnx.is_in_onnx_export()


class ExternalCore(Core):
    """An LSTM and rows of memory, which each of several heads reads and writes with one key a slot.

    Each head writes to the row that it read last or to one of the least used, which is cleared first:
    w_write = gate * w_read + (1 - gate) * w_least_used.
    """

    name = "external"

    def __init__(self, input_size: int, settings: MemorySettings) -> None:
        super().__init__()
        self.reads, self.rows, self.hidden = settings.attention_heads, settings.external_rows, settings.hidden_size
        if self.rows < self.reads:
            raise ValueError(
                f"agent.external_rows is {self.rows}; it must be at least agent.attention_heads, {self.reads}: "
                "each head writes to a row of its own"
            )
        self.width = max(1, settings.hidden_size // 2)
        self.output_size = self.hidden + self.reads * self.width
        self.of_input = nn.Linear(input_size, 4 * self.hidden)
        self.of_state = nn.Linear(self.output_size, 4 * self.hidden, bias=False)
        self.keys = nn.Linear(self.hidden, self.reads * self.width)
        self.strengths = nn.Linear(self.hidden, self.reads)
        self.gates = nn.Linear(self.hidden, self.reads)

    def initial(self, size: int) -> Memory:
        zeros, order = self.of_input.weight.new_zeros, torch.arange(self.rows, device=self.of_input.weight.device)
        return {
            "features": zeros(size, self.output_size),  # the LSTM's output, and what was read
            "cell": zeros(size, self.hidden),
            "rows": zeros(size, self.rows, self.width),
            "weights": zeros(size, self.reads, self.rows),  # of the last reading
            "usage": (FIRST_USAGE * (order + 1) / self.rows).expand(size, -1),
        }

    def step(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        return super().step(inputs, memory) if in_numpy(inputs) else self._read(self.of_input(inputs), memory)

    def sequence(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        if in_numpy(inputs):
            parts = (self.keys, self.strengths, self.gates)
            heads, biases = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
            states = [memory[name] for name in STATES]
            features, *last = ExternalSequence.apply(  # pyright: ignore[reportGeneralTypeIssues]
                torch.is_grad_enabled(), self.of_input(inputs), *states, self.of_state.weight, heads, biases
            )
            return features, dict(zip(STATES, (features[-1], *last), strict=True))
        features = []
        for driven in self.of_input(inputs):
            feature, memory = self._read(driven, memory)
            features.append(feature)
        return torch.stack(features), memory

    def _read(self, driven: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Return features [B, output], and the memory after a slot that drives the LSTM's gates by [B, 4 hidden]."""
        rows, weights, usage = memory["rows"], memory["weights"], memory["usage"]
        keep, write, new, show = (driven + self.of_state(memory["features"])).chunk(4, dim=-1)
        cell = keep.sigmoid() * memory["cell"] + write.sigmoid() * new.tanh()
        hidden = show.sigmoid() * cell.tanh()
        keys = self.keys(hidden).tanh().unflatten(-1, (self.reads, self.width))
        unused, gates = least_used(usage, self.reads), self.gates(hidden).sigmoid().unsqueeze(-1)
        writing = gates * weights + (1.0 - gates) * unused
        rows = torch.baddbmm(rows * (1.0 - unused.sum(dim=1)).unsqueeze(-1), writing.transpose(1, 2), keys)
        weights = address(keys, 1.0 + functional.softplus(self.strengths(hidden)), rows)
        usage = USAGE_DECAY * usage + (weights + writing).detach().sum(dim=1)
        features = torch.cat([hidden, (weights @ rows).flatten(1)], dim=-1)
        return features, {"features": features, "cell": cell, "rows": rows, "weights": weights, "usage": usage}

    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights orthogonal; biases are zero."""
        draw_layers(self, generator)
