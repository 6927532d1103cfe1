"""Causal attention over a window of slots, whose keys and values are kept between calls."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarl.agents.cores.core import Core, Memory


class WindowAttention(nn.Module):
    """Attention from each slot to itself and the window - 1 slots before it.

    A score is q . (k + r) / sqrt(key size), with r learnt for each head and distance (Shaw 2018): positions are
    relative, so that kept keys stay right as the window moves.
    """

    def __init__(self, input_size: int, heads: int, key_size: int, value_size: int, window: int) -> None:
        super().__init__()
        self.heads, self.key_size, self.value_size, self.window = heads, key_size, value_size, window
        self.query = nn.Linear(input_size, heads * key_size, bias=False)
        self.key = nn.Linear(input_size, heads * key_size, bias=False)
        self.value = nn.Linear(input_size, heads * value_size, bias=False)
        self.positions = nn.Parameter(torch.empty(heads, window, key_size))
        """By head and place in the window: the last is that of the slot itself."""

    @property
    def reach(self) -> int:
        """Number of slots before the present one that it attends to."""
        return self.window - 1

    def initial(self, size: int) -> tuple[Tensor, Tensor]:
        """Return no keys [B, heads, window - 1, key] and values [B, heads, window - 1, value] of `size` sequences."""
        shape = (size, self.heads, self.window - 1)
        return self.positions.new_zeros(*shape, self.key_size), self.positions.new_zeros(*shape, self.value_size)

    def read(self, inputs: Tensor, keys: Tensor, values: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features [B, S, heads * value] of inputs [B, S, input], and the keys and values after them.

        count: [B, 1], how many of the keys and values of before are of slots.
        """
        length = inputs.shape[1]
        query, new_keys, new_values = (
            layer(inputs).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        keys, values = torch.cat([keys, new_keys], dim=2), torch.cat([values, new_values], dim=2)
        scores = query @ keys.transpose(2, 3) + skewed(query @ self.positions.transpose(1, 2))
        scores = scores / math.sqrt(self.key_size) + self._empty(count, length)
        features = scores.softmax(dim=-1) @ values  # [B, heads, S, value]
        return features.transpose(1, 2).flatten(2), keys[:, :, length:], values[:, :, length:]

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the positions' vectors; the layers are drawn as others are."""
        nn.init.normal_(self.positions, std=0.02, generator=generator)

    def _empty(self, count: Tensor, length: int) -> Tensor:
        """Return [B, 1, 1, window - 1 + length]: -infinity where there is no slot yet, else 0."""
        before = torch.arange(self.window - 1, 0, -1, device=count.device) > count  # [B, window - 1]
        scores = torch.zeros_like(before, dtype=torch.float32).masked_fill(before, -math.inf)
        return functional.pad(scores, (0, length))[:, None, None]


def skewed(scores: Tensor) -> Tensor:
    """Return scores by place in the whole sequence [..., S, W - 1 + S] of those by place in the window [..., S, W].

    The window of slot i begins at place i; outside it is -infinity (the relative shift of Transformer-XL, Dai 2019).
    """
    length, window = scores.shape[-2:]
    padded = functional.pad(scores, (0, length), value=-math.inf).flatten(-2)  # [..., S * (W + S)]
    return padded[..., : length * (window + length - 1)].unflatten(-1, (length, window + length - 1))


class WindowCore(Core):
    """A core of causal attention: it reads a sequence in pieces of at most a window, which cost the least."""

    window: int
    """Slots that a layer attends to, the present one among them."""

    def sequence(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        features = []
        for piece in inputs.split(self.window):
            feature, memory = self.piece(piece.transpose(0, 1), memory)
            features.append(feature.transpose(0, 1))
        return torch.cat(features), memory

    def piece(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Return features [B, S, output] of inputs [B, S, input], and the memory after them."""
        raise NotImplementedError

    def counted(self, count: Tensor, length: int) -> Tensor:
        """Return how many slots [B, 1] are kept after `length` more."""
        return (count + length).clamp(max=self.window - 1)
