"""What makes agents start fast: torch imports its compiler, and sympy, in places where nothing is compiled."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

Network = TypeVar("Network", bound=nn.Module)

MARK = "__dynamo_disable"
"""Attribute in which torch (2.13) keeps, of a method, what it calls instead of it: one that is never compiled."""


def blank(make: Callable[[], Network]) -> Network:
    """Return a network on the CPU whose parameters and buffers are yet to be set.

    Default initialisation would draw from the global generator. `to_empty` does the same, and imports sympy for it.
    """
    with torch.device("meta"):
        network = make()
    network.load_state_dict(
        {k: torch.empty(x.shape, dtype=x.dtype) for k, x in network.state_dict().items()}, assign=True
    )
    return network


def spare_compiler() -> None:
    """Let optimisers be made, saved and loaded without torch's compiler, which takes seconds to import.

    Each of these methods imports it when it is first called, to keep itself from being compiled, and metarl compiles no
    optimiser. The first step of one imports it all the same. Where another torch keeps no such mark, this does nothing.
    """
    if "torch._dynamo" in sys.modules:
        return
    for method in (Optimizer.add_param_group, Optimizer.state_dict, Optimizer.load_state_dict, Optimizer.zero_grad):
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            setattr(plain, MARK, plain)
