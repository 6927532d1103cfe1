"""Whole sequences of the external memory on the CPU, with a backward pass of its own.

torch differentiates a slot through some forty operations on small tensors. Here a slot is as many by NumPy, which start
faster, and the gradients of all weights are one product each over the whole sequence.

Axes: L slots, B sequences, H width of the LSTM, R heads, N rows, W width of a row; O = H + R W.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metarl.agents.threads import single_torch_thread

Array = np.ndarray[Any, np.dtype[Any]]
STATES = ("features", "cell", "rows", "weights", "usage")
"""Names of the memory's states."""
USAGE_DECAY = 0.95
"""Share of a row's usage that is left after a slot."""
SMALLEST = 1e-8
"""Added to squared lengths."""
COMPUTED = ("lstm", "shown", "hidden", "keys", "strengths", "gates", "unused", "writing", "of_keys", "of_rows")
"""Names of what a slot computes, besides the states: sigmoids and tanh of the LSTM, tanh of its cell, its output; keys,
strengths before softplus, gates; the least used rows, the weights of the writing; inverse lengths."""


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x))."""
    return 0.5 * np.tanh(0.5 * x) + 0.5


def product(x: Array, y: Tensor) -> Array:
    """Return the matrix product of x [B, A] and y [A, C], on as many threads as torch has: NumPy's takes all cores."""
    return torch.mm(torch.from_numpy(x), y).numpy()


def softplus(x: Array) -> Array:
    """Return log(1 + exp x)."""
    return np.logaddexp(x, 0.0)


def read(
    driven: Array, states: tuple[Array, ...], of_state: Array, heads: Array, biases: Array, keep: bool
) -> tuple[Array, tuple[Array, ...], dict[str, Array]]:
    """Read what drives the gates of the LSTM, [L, B, 4 H], from states (`STATES`) before the first slot.

    of_state: weights [4 H, O] from the features of the slot before. heads, biases: [R W + 2 R, H] and [R W + 2 R], from
    the LSTM's output to keys, strengths and gates. keep: whether there will be a backward pass. Returns the features
    after every slot [L, B, O], the states after the last one, and what `gradients_of` needs, by name: the states before
    each slot and after the last, [L + 1, B, ...], and what each slot computed, [L, B, ...].
    """
    length, size = driven.shape[:2]
    width, (reads, count), wide = states[1].shape[1], states[3].shape[1:], states[2].shape[2]
    kept: dict[str, Array] = {}
    if keep:
        kept = {
            name: np.empty((length + 1, *first.shape), driven.dtype) for name, first in zip(STATES, states, strict=True)
        }
        for name, first in zip(STATES, states, strict=True):
            kept[name][0] = first
    found = np.empty((length, *states[0].shape), driven.dtype)
    onto, spread = (torch.from_numpy(x).t() for x in (of_state, heads))
    places, ends = np.arange(count), (reads * wide, reads * (wide + 1))
    features, cell, rows, weights, usage = states
    for t in range(length):
        entering = driven[t] + product(features, onto)
        lstm = sigmoid(entering)
        lstm[:, 2 * width : 3 * width] = np.tanh(entering[:, 2 * width : 3 * width])
        remain, write, new, show = (lstm[:, k * width : (k + 1) * width] for k in range(4))
        cell = remain * cell + write * new
        shown = np.tanh(cell)
        hidden = show * shown
        out = product(hidden, spread) + biases
        keys = np.tanh(out[:, : ends[0]]).reshape(size, reads, wide)
        strengths = out[:, ends[0] : ends[1]]
        gates = sigmoid(out[:, ends[1] :])
        least = usage.argsort(axis=-1, kind="stable")[:, :reads]
        unused = (least[..., None] == places).astype(driven.dtype)
        writing = unused + gates[..., None] * (weights - unused)
        rows = rows * (1.0 - unused.sum(axis=1))[..., None] + writing.transpose(0, 2, 1) @ keys
        of_keys = 1.0 / np.sqrt((keys * keys).sum(axis=-1) + SMALLEST)
        of_rows = 1.0 / np.sqrt((rows * rows).sum(axis=-1) + SMALLEST)
        scale = (1.0 + softplus(strengths)) * of_keys
        scores = scale[..., None] * of_rows[:, None] * (keys @ rows.transpose(0, 2, 1))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        usage = USAGE_DECAY * usage + (weights + writing).sum(axis=1)
        found[t] = features = np.concatenate([hidden, (weights @ rows).reshape(size, -1)], axis=1)
        if keep:
            for name, state in zip(STATES, (features, cell, rows, weights, usage), strict=True):
                kept[name][t + 1] = state
            computed = (lstm, shown, hidden, keys, strengths, gates, unused, writing, of_keys, of_rows)
            for name, value in zip(COMPUTED, computed, strict=True):
                if t == 0:
                    kept[name] = np.empty((length, *value.shape), driven.dtype)
                kept[name][t] = value
    return found, (features, cell, rows, weights, usage), kept


def gradients_of(
    of_features: Array, kept: dict[str, Array], last: dict[str, Array], of_state: Array, heads: Array
) -> tuple[Array, Array, dict[str, Array]]:
    """Return gradients of what drives the gates [L, B, 4 H], of the heads' outputs [L, B, R W + 2 R], and of the states
    before the first slot.

    of_features: gradients [L, B, O] of the features. kept: what `read` kept. last: gradients of the other states
    after the last slot. Usage has none.
    """
    length, size, width = kept["hidden"].shape
    reads, wide = kept["keys"].shape[2:]
    of_driven = np.empty_like(kept["lstm"])
    of_heads = np.empty((length, size, reads * (wide + 2)), of_driven.dtype)
    d_features = np.zeros_like(kept["features"][0])
    d_cell, d_rows, d_weights = last["cell"].copy(), last["rows"].copy(), last["weights"].copy()
    of_gates, of_outputs = torch.from_numpy(of_state), torch.from_numpy(heads)
    strong = 1.0 + softplus(kept["strengths"])
    steepness = sigmoid(kept["strengths"])
    clears = 1.0 - kept["unused"].sum(axis=2)
    for t in reversed(range(length)):
        d_features += of_features[t]
        keys, rows, weights, writing = kept["keys"][t], kept["rows"][t + 1], kept["weights"][t + 1], kept["writing"][t]
        of_keys, of_rows, unused = kept["of_keys"][t], kept["of_rows"][t], kept["unused"][t]
        d_read = d_features[:, width:].reshape(size, reads, wide)
        d_weights += d_read @ rows.transpose(0, 2, 1)
        d_rows += weights.transpose(0, 2, 1) @ d_read
        d_scores = weights * (d_weights - (weights * d_weights).sum(axis=-1, keepdims=True))
        dots = keys @ rows.transpose(0, 2, 1)
        scale = strong[t] * of_keys
        with_rows, plain = d_scores * of_rows[:, None], d_scores * dots
        d_scale = (with_rows * dots).sum(axis=-1)
        d_of_rows = (plain * scale[..., None]).sum(axis=1)
        d_dots = with_rows * scale[..., None]
        d_keys = d_dots @ rows
        d_rows += d_dots.transpose(0, 2, 1) @ keys
        d_keys -= (d_scale * strong[t] * of_keys**3)[..., None] * keys
        d_rows -= (d_of_rows * of_rows**3)[..., None] * rows
        d_writing = keys @ d_rows.transpose(0, 2, 1)
        d_keys += writing @ d_rows
        d_rows *= clears[t][..., None]
        d_gates = (d_writing * (kept["weights"][t] - unused)).sum(axis=-1)
        gates = kept["gates"][t]
        d_weights = gates[..., None] * d_writing
        out = of_heads[t]
        out[:, : reads * wide] = (d_keys * (1.0 - keys * keys)).reshape(size, -1)
        out[:, reads * wide : -reads] = d_scale * of_keys * steepness[t]
        out[:, -reads:] = d_gates * gates * (1.0 - gates)
        d_hidden = d_features[:, :width] + product(out, of_outputs)
        lstm, shown = kept["lstm"][t], kept["shown"][t]
        keep, write, new, show = (lstm[:, k * width : (k + 1) * width] for k in range(4))
        d_cell += d_hidden * show * (1.0 - shown * shown)
        into = of_driven[t]
        into[:, :width] = d_cell * kept["cell"][t] * keep * (1.0 - keep)
        into[:, width : 2 * width] = d_cell * new * write * (1.0 - write)
        into[:, 2 * width : 3 * width] = d_cell * write * (1.0 - new * new)
        into[:, 3 * width :] = d_hidden * shown * show * (1.0 - show)
        d_cell *= keep
        d_features = product(into, of_gates)
    first = {"features": d_features, "cell": d_cell, "rows": d_rows, "weights": d_weights}
    return of_driven, of_heads, first


class ExternalSequence(torch.autograd.Function):
    """(keep, driven, states, of_state, heads, biases, as of `read`) -> features [L, B, O], and the other states at the
    end."""

    @staticmethod
    def forward(ctx: Any, keep: bool, *given: Tensor) -> tuple[Tensor, ...]:
        driven, *rest = (x.detach().numpy() for x in given)
        with single_torch_thread():
            found, last, ctx.kept = read(driven, tuple(rest[:5]), rest[5], rest[6], rest[7], keep)
        ctx.of_state, ctx.heads = rest[5], rest[6]
        features, *others = (torch.from_numpy(x) for x in (found, *last[1:]))
        ctx.mark_non_differentiable(others[-1])
        return features, *others

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        kept: dict[str, Array] = ctx.kept
        of_features, *others = (x.numpy() for x in gradients)
        last: dict[str, Array] = dict(zip(STATES[1:], others, strict=True))
        with single_torch_thread():
            found = gradients_of(of_features, kept, last, ctx.of_state, ctx.heads)
        of_driven, of_heads, first = found
        states = [torch.from_numpy(np.ascontiguousarray(first[name])) for name in STATES[:4]]
        driven, heads = (torch.from_numpy(x).flatten(0, 1) for x in (of_driven, of_heads))
        seen, hidden = (torch.from_numpy(x).flatten(0, 1) for x in (kept["features"][:-1], kept["hidden"]))
        of_weights = driven.t() @ seen, heads.t() @ hidden, heads.sum(0)
        return None, torch.from_numpy(of_driven), *states, None, *of_weights
