"""The hyperbolic tangent, by NumPy on the CPU: seven times as fast as torch's where MKL is slow, as on AMD."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def of_array(x: Tensor) -> Tensor:
    """Return tanh x by NumPy, in torch's memory: sums over memory of another alignment may be rounded otherwise."""
    y = torch.empty_like(x)
    np.tanh(x.numpy(), out=y.numpy())
    return y


class Elementwise(torch.autograd.Function):
    """tanh x of a tensor on the CPU; its derivative is 1 - tanh^2 x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = of_array(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (y,) = ctx.saved_tensors
        return torch.addcmul(gradient, gradient * y, y, value=-1.0)


def tanh(x: Tensor) -> Tensor:
    """Return tanh x, by torch where NumPy cannot: on a GPU, in half precision, and while an export is traced."""
    traced = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    if traced or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return torch.tanh(x)
    return Elementwise.apply(x) if x.requires_grad else of_array(x)  # less overhead


class Tanh(nn.Tanh):
    """A layer of `tanh`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, torch's name
        return tanh(input)
