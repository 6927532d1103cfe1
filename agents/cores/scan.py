"""Linear recurrences x_t = a x_{t-1} + u_t with complex numbers a, of which the two halves of an axis are the parts.

N complex numbers are 2N real ones [..., 2N], first all real parts, then all imaginary parts.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def step_by_step(factors: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
    """Return the states [L, B, 2N] for factors [2N], inputs [L, B, 2N] and the state before them [B, 2N].

    It has real arithmetic alone, which ONNX can express.
    """
    (real, imaginary), states = factors.chunk(2), []
    for u in inputs:
        x, y = start.chunk(2, dim=-1)
        start = torch.cat([real * x - imaginary * y, imaginary * x + real * y], dim=-1) + u
        states.append(start)
    return torch.stack(states)


def in_parallel(factors: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
    """Return what `step_by_step` does, by a scan that takes about 2 sqrt(L) steps."""
    states = _Scan.apply(*(torch.complex(*x.chunk(2, dim=-1)) for x in (factors, inputs, start)))
    assert isinstance(states, Tensor)
    return torch.cat([states.real, states.imag], dim=-1)


class _Scan(torch.autograd.Function):
    """The states x [L, B, N] of complex factors a [N], inputs u [L, B, N] and start [B, N].

    With g_t the gradient of x_t alone, G_t = g_t + conj(a) G_{t+1} is that of u_t, and sum_t G_t conj(x_{t-1}) that of
    a: the backward pass is a scan too, from the end.
    """

    @staticmethod
    def forward(ctx: Any, factors: Tensor, inputs: Tensor, start: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        states = _scan(factors, inputs, start)
        ctx.save_for_backward(factors, states, start)
        return states

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        factors, states, start = ctx.saved_tensors
        backwards = _scan(factors.conj(), gradients.flip(0), torch.zeros_like(start)).flip(0)
        earlier = torch.cat([start.unsqueeze(0), states[:-1]])
        return (backwards * earlier.conj()).sum(dim=(0, 1)), backwards, factors.conj() * backwards[0]


def _scan(factors: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
    """Scan blocks of about sqrt(L) inputs side by side, each from 0, and then add to each what the last one left."""
    length = len(inputs)
    size = math.isqrt(length - 1) + 1
    count = -(-length // size)
    states = inputs.new_zeros(count * size, *inputs.shape[1:])
    states[:length] = inputs
    states = states.unflatten(0, (count, size))
    for i in range(1, size):
        states[:, i].addcmul_(factors, states[:, i - 1])
    powers = factors.expand(size, -1).cumprod(dim=0).unsqueeze(1)  # [size, 1, N]: a, a^2, ...
    for block in states:
        block.addcmul_(powers, start)
        start = block[-1]
    return states.flatten(0, 1)[:length]
