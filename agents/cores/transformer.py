"""Transformer over the last slots: causal, with relative positions, and with its keys and values kept while acting."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarl.agents.cores.attention import WindowAttention, WindowCore
from metarl.agents.cores.core import Memory
from metarl.agents.cores.layers import draw_layers
from metarl.agents.cores.settings import MemorySettings
from metarl.agents.tanh import tanh

GATE_BIAS = 2.0
"""A gate's first bias, by which it nearly passes its input on (Parisotto 2020)."""


class Sum(nn.Module):
    """A residual connection."""

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        return stream + update


class Gate(nn.Module):
    """The gate of GTrXL (Parisotto 2020) in place of a residual connection: a GRU whose state is the stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_update = nn.Linear(width, 3 * width, bias=False)
        self.of_stream = nn.Linear(width, 2 * width, bias=False)
        self.of_reset = nn.Linear(width, width, bias=False)
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, stream: Tensor, update: Tensor) -> Tensor:
        reset, mix, new = self.of_update(update).chunk(3, dim=-1)
        stream_reset, stream_mix = self.of_stream(stream).chunk(2, dim=-1)
        share = (mix + stream_mix - self.bias).sigmoid()
        held = (reset + stream_reset).sigmoid() * stream
        return (1.0 - share) * stream + share * tanh(new + self.of_reset(held))


class TransformerLayer(nn.Module):
    """Attention and two dense layers, each after a norm."""

    def __init__(self, settings: MemorySettings) -> None:
        super().__init__()
        width, heads = settings.hidden_size, settings.attention_heads
        size = -(-width // heads)
        self.attention_norm, self.dense_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, size, size, settings.attention_window)
        self.out = nn.Linear(heads * size, width)
        self.dense = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.after_attention, self.after_dense = (Gate(width) if settings.attention_gate else Sum() for _ in range(2))

    def read(self, inputs: Tensor, keys: Tensor, values: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features [B, S, width], and the keys and values after them: see `WindowAttention.read`."""
        attended, keys, values = self.attention.read(self.attention_norm(inputs), keys, values, count)
        features = self.after_attention(inputs, self.out(attended))
        return self.after_dense(features, self.dense(self.dense_norm(features))), keys, values


class TransformerCore(WindowCore):
    """Layers of attention and dense layers, each of which reads a window of the layer before it.

    Several layers together read back to layers * (window - 1) slots before the present one. Where gradients stop
    between chunks of a trial, this is Transformer-XL (Dai 2019).
    """

    name = "transformer"

    def __init__(self, input_size: int, settings: MemorySettings) -> None:
        super().__init__()
        self.output_size, self.window = settings.hidden_size, settings.attention_window
        self.embed = nn.Linear(input_size, settings.hidden_size)
        self.layers = nn.ModuleList(TransformerLayer(settings) for _ in range(settings.memory_layers))
        self.norm = nn.LayerNorm(settings.hidden_size)

    @property
    def reach(self) -> int:
        return sum(layer.attention.reach for layer in self.all_layers())

    def initial(self, size: int) -> Memory:
        memory: dict[str, Tensor] = {"count": self.norm.weight.new_zeros(size, 1)}
        for i, layer in enumerate(self.all_layers()):
            memory[f"keys{i}"], memory[f"values{i}"] = layer.attention.initial(size)
        return memory

    def piece(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        features, count = self.embed(inputs), memory["count"]
        after = {"count": self.counted(count, inputs.shape[1])}
        for i, layer in enumerate(self.all_layers()):
            kept = memory[f"keys{i}"], memory[f"values{i}"]
            features, after[f"keys{i}"], after[f"values{i}"] = layer.read(features, *kept, count)
        return self.norm(features), after

    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights orthogonal, and positions small; biases are zero, but for the gates'."""
        draw_layers(self, generator)
        for layer in self.all_layers():
            layer.attention.initialise(generator)
            for gate in (layer.after_attention, layer.after_dense):
                if isinstance(gate, Gate):
                    nn.init.constant_(gate.bias, GATE_BIAS)

    def all_layers(self) -> list[TransformerLayer]:
        """Return the layers in their order."""
        return [layer for layer in self.layers if isinstance(layer, TransformerLayer)]
