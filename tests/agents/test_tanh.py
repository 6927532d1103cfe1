"""tanh by NumPy: torch's values, and derivatives of every order by central differences."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metarl.agents.tanh import Tanh, tanh


def values(dtype: torch.dtype) -> torch.Tensor:
    return torch.linspace(-12.0, 12.0, 1001, dtype=torch.float64).reshape(7, 143).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_it_is_torchs(dtype: torch.dtype) -> None:
    x = values(dtype)
    before = x.clone()
    torch.testing.assert_close(tanh(x), torch.tanh(x))
    torch.testing.assert_close(tanh(x.t()), torch.tanh(x.t()))
    assert torch.equal(x, before)


def test_its_derivatives_are_those_of_central_differences() -> None:
    x = torch.linspace(-3.0, 3.0, 11, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(tanh, x)
    assert torch.autograd.gradgradcheck(tanh, x)


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_a_layer_is_traced_as_torchs() -> None:
    traced = torch.jit.trace(nn.Sequential(Tanh()), values(torch.float32))
    assert "aten::tanh" in str(traced.inlined_graph)  # pyright: ignore[reportAttributeAccessIssue]
    x = values(torch.float32) / 3.0
    torch.testing.assert_close(traced(x), torch.tanh(x))  # pyright: ignore[reportCallIssue]
