"""The hyperbolic tangent, by NumPy on the CPU: seven times as fast as torch's where MKL is slow, as on AMD."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

of_backward = torch.ops.aten.tanh_backward
"""(g, y) -> g (1 - y^2), in one pass."""


def of_array(x: Tensor) -> Tensor:
    """Return tanh x by NumPy, in torch's memory: sums over memory of another alignment may be rounded otherwise."""
    y = torch.empty_like(x)
    np.tanh(x.numpy(), out=y.numpy())
    return y


class Slope(torch.autograd.Function):
    """g (1 - y^2); its derivatives for a gradient c are c (1 - y^2) and -2 c g y."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(gradient, y)
        return of_backward(gradient, y)

    @staticmethod
    def backward(ctx: Any, again: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradient, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            return Slope.apply(again, y), -2.0 * again * gradient * y  # pyright: ignore[reportReturnType]
        return of_backward(again, y), torch.mul(again, gradient).mul_(y).mul_(-2.0)


def slope(gradient: Tensor, y: Tensor) -> Tensor:
    """Return g (1 - y^2)."""
    return Slope.apply(gradient, y) if torch.is_grad_enabled() else of_backward(gradient, y)  # less overhead


class Elementwise(torch.autograd.Function):
    """tanh x of a tensor on the CPU; its derivative is 1 - tanh^2 x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = of_array(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return slope(gradient, *ctx.saved_tensors)


class InPlace(torch.autograd.Function):
    """The same, written over its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        np.tanh(x.numpy(), out=x.numpy())
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return slope(gradient, *ctx.saved_tensors)


def at_once_on_cpu(x: Tensor) -> bool:
    """Whether operations on x are computed at once on the CPU: not on a GPU, or while an export is traced."""
    return x.device.type == "cpu" and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def by_numpy(x: Tensor) -> bool:
    """Whether NumPy computes it, which has no half precision."""
    return x.dtype in (torch.float32, torch.float64) and at_once_on_cpu(x)


def tanh(x: Tensor) -> Tensor:
    """Return tanh x, by torch where NumPy cannot."""
    if not by_numpy(x):
        return torch.tanh(x)
    return Elementwise.apply(x) if x.requires_grad else of_array(x)  # less overhead


def tanh_(x: Tensor) -> Tensor:
    """Return tanh x in the memory of x, which nothing else may need any more: no other operation's derivative."""
    if not by_numpy(x):
        return torch.tanh(x)
    if x.requires_grad:
        return InPlace.apply(x)
    np.tanh(x.numpy(), out=x.numpy())
    return x


class Tanh(nn.Tanh):
    """A layer of `tanh`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch's name
        return tanh(input)
