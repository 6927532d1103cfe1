"""tanh by NumPy: torch's values, and derivatives of every order by central differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from metarl.agents.tanh import Tanh, tanh, tanh_


def values(dtype: torch.dtype) -> torch.Tensor:
    return torch.linspace(-12.0, 12.0, 1001, dtype=torch.float64).reshape(7, 143).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_it_is_torchs(dtype: torch.dtype) -> None:
    x = values(dtype)
    before = x.clone()
    torch.testing.assert_close(tanh(x), torch.tanh(x))
    torch.testing.assert_close(tanh(x.t()), torch.tanh(x.t()))
    assert torch.equal(x, before)


def in_place(x: torch.Tensor) -> torch.Tensor:
    return tanh_(1.0 * x)


@pytest.mark.parametrize("function", [tanh, in_place])
def test_its_derivatives_are_those_of_central_differences(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x = torch.linspace(-3.0, 3.0, 11, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)

    def slope_of_slope(x: torch.Tensor) -> torch.Tensor:
        (first,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
        return second

    y = torch.tanh(x.detach())
    torch.testing.assert_close(slope_of_slope(x).detach(), -2 * y * (1 - y**2))
    assert torch.autograd.gradcheck(slope_of_slope, x)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_in_place_it_takes_no_memory_of_its_own(requires_grad: bool) -> None:
    x = values(torch.float32).requires_grad_(requires_grad)
    z = 1.0 * x
    y = tanh_(z)
    assert y.data_ptr() == z.data_ptr()
    torch.testing.assert_close(y, torch.tanh(x))


def test_in_place_it_says_where_another_derivative_needs_its_input() -> None:
    x = torch.ones(3, requires_grad=True)
    z = torch.exp(x)
    tanh_(z)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_a_layer_is_traced_as_torchs() -> None:
    traced = torch.jit.trace(nn.Sequential(Tanh()), values(torch.float32))
    assert "aten::tanh" in str(traced.inlined_graph)  # pyright: ignore[reportAttributeAccessIssue]
    x = values(torch.float32) / 3.0
    torch.testing.assert_close(traced(x), torch.tanh(x))  # pyright: ignore[reportCallIssue]
