"""What makes agents start fast: torch imports its compiler, and sympy, in places where nothing is compiled."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim import Adam, Optimizer

Network = TypeVar("Network", bound=nn.Module)

MARK = "__dynamo_disable"
"""Attribute in which torch (2.13) keeps, of a method, what it calls instead of it: one that is never compiled."""

SPARED = "_metarl_spared"
"""Attribute of the step that `spare_compiler` has put in the place of torch's."""


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
    """Let optimisers be made, saved, loaded and stepped without torch's compiler, which takes seconds to import.

    Each of these methods imports it when it is first called, to keep itself from being compiled, and metarl compiles no
    optimiser. Once something else has imported the compiler, `step` is torch's own again. Where another torch writes
    these methods otherwise, this does nothing.
    """
    if "torch._dynamo" in sys.modules:
        return
    for method in (Optimizer.add_param_group, Optimizer.state_dict, Optimizer.load_state_dict, Optimizer.zero_grad):
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            setattr(plain, MARK, plain)
    step = Adam.step
    plain_step = getattr(step, "__wrapped__", None)
    if plain_step is None or hasattr(step, SPARED):
        return

    @functools.wraps(plain_step)
    def spared(self: Adam, *args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" in sys.modules:
            return step(self, *args, **kwargs)
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return plain_step(self, *args, **kwargs)

    setattr(spared, SPARED, True)
    Adam.step = spared
