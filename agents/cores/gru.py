"""A gated recurrent unit over whole sequences on the CPU, with a backward pass of its own.

torch differentiates its GRU step by step through some twenty operations. Here a step is one small product of matrices
and a few operations in place, by NumPy, which start faster than torch's; products with the inputs, and the gradients
of all weights, are one product each over the whole sequence.

Axes: L steps, B sequences, I inputs, H width. Blocks of gates are in the order candidate, reset, update.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metarl.agents.threads import single_torch_thread


def candidate_first(weights: Tensor) -> Tensor:
    """Return a copy of torch's blocks [3 H, ...] (reset, update, candidate) with the candidate's in front."""
    reset_and_update, candidate = weights.split([2 * (len(weights) // 3), len(weights) // 3])
    return torch.cat([candidate, reset_and_update])


def candidate_last(weights: Tensor) -> Tensor:
    """Return a copy of blocks [3 H, ...] in torch's order, of blocks with the candidate's in front."""
    candidate, reset_and_update = weights.split([len(weights) // 3, 2 * (len(weights) // 3)])
    return torch.cat([reset_and_update, candidate])


def read(
    inputs: Tensor, hidden: Tensor, input_weights: Tensor, weights: Tensor, input_biases: Tensor, biases: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Read inputs [L, B, I] from the state hidden [B, H]; the parameters are those of `nn.GRU`, in its order.

        r, z = sigmoid(W_i x + b_i + W_h h + b_h)   q = W_hn h + b_hn   n = tanh(W_in x + b_in + r q)
        h' = n + z (h - n)

    Returns states [L + 1, B, H], the first and that after every step; gates [L, B, 3 H] = q, r, z; candidates n
    [L, B, H].
    """
    length, size, width = *inputs.shape[:2], hidden.shape[1]
    flat = inputs.reshape(length * size, -1)
    gates = inputs.new_empty(length, size, 3 * width)
    candidates, states = inputs.new_empty(length, size, width), inputs.new_empty(length + 1, size, width)
    states[0] = hidden
    gates[..., :width] = biases[2 * width :]
    both = input_biases[: 2 * width] + biases[: 2 * width]
    torch.addmm(both, flat, input_weights[: 2 * width].t(), out=gates.view(len(flat), -1)[:, width:])
    torch.addmm(input_biases[2 * width :], flat, input_weights[2 * width :].t(), out=candidates.view(len(flat), width))
    recurrent = candidate_first(weights).t().contiguous()  # [H, 3 H]
    hidden_recurrent, reset, update = gates.view(length, size, 3, width).numpy().transpose(2, 0, 1, 3)
    held, change = states.numpy(), np.empty_like(hidden.numpy())
    rows = zip(
        *(states[:-1].unbind(), gates.unbind(), gates[..., width:].unbind()),
        *(hidden_recurrent, reset, update, candidates.numpy(), held, held[1:]),
        strict=False,
    )
    with single_torch_thread():
        for state, row, reset_and_update, q, r, z, n, before, after in rows:
            row.addmm_(state, recurrent)
            reset_and_update.sigmoid_()
            np.multiply(r, q, change)
            np.add(n, change, n)
            np.tanh(n, n)
            np.subtract(before, n, change)
            np.multiply(z, change, change)
            np.add(n, change, after)
    return states, gates, candidates


def gate_gradients(
    gradients: Tensor, states: Tensor, gates: Tensor, candidates: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Return gradients [L, B, 4 H] of what enters q, r, z and n, and the gradient [B, H] of the first state.

    gradients [L, B, H]: those of the states after each step, by what comes after the GRU; the rest: see `read`. With
    the whole gradient g of h', they are

        n: g (1 - z) (1 - n^2)   z: g (h - n) z (1 - z)   r: n q r (1 - r)   q: n r

    and the gradient of h is g z + W_h' (q, r, z). All factors of g are computed at once, before the loop.
    """
    length, size, width = candidates.shape
    q, r, z = gates.view(length, size, 3, width).unbind(2)
    factors = gates.new_empty(length, size, 4, width)
    of_q, of_r, of_z, of_n = factors.unbind(2)
    rest = 1.0 - z
    torch.addcmul(rest, rest, candidates.square(), value=-1.0, out=of_n)
    torch.mul(of_n, r, out=of_q)
    torch.mul(of_q, q, out=of_r).mul_(1.0 - r)
    torch.mul(states[:-1] - candidates, rest.mul_(z), out=of_z)
    recurrent = candidate_first(weights)  # [3 H, H]
    carried = torch.zeros_like(states[0])
    passed, whole = carried.numpy(), np.empty_like(states[0].numpy())
    spread = whole[:, None]  # [B, 1, H]
    rows = zip(
        factors.flatten(2)[..., : 3 * width].unbind(), *(x.numpy() for x in (factors, gradients, z)), strict=True
    )
    with single_torch_thread():
        for row, factor, gradient, kept in reversed(list(rows)):
            np.add(gradient, passed, whole)
            np.multiply(factor, spread, factor)
            np.multiply(whole, kept, passed)
            carried.addmm_(row, recurrent)
    return factors.flatten(2), carried


class GruSequence(torch.autograd.Function):
    """(inputs, hidden, and the parameters, as of `read`) -> states after each step [L, B, H]."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        hidden: Tensor,
        input_weights: Tensor,
        weights: Tensor,
        input_biases: Tensor,
        biases: Tensor,
    ) -> Tensor:
        states, gates, candidates = read(inputs, hidden, input_weights, weights, input_biases, biases)
        ctx.save_for_backward(inputs, states, gates, candidates, input_weights, weights)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs, states, gates, candidates, input_weights, weights = ctx.saved_tensors
        width = states.shape[2]
        found, of_hidden = gate_gradients(gradients.contiguous(), states, gates, candidates, weights)
        rows = found.flatten(0, 1)
        recurrent, entering = rows[:, : 3 * width], rows[:, width:]
        sums = rows.sum(0)
        of_inputs = (entering @ input_weights).view_as(inputs) if ctx.needs_input_grad[0] else None
        return (
            of_inputs,
            of_hidden,
            entering.t() @ inputs.flatten(0, 1),
            candidate_last(recurrent.t() @ states[:-1].flatten(0, 1)),
            sums[width:],
            candidate_last(sums[: 3 * width]),
        )
