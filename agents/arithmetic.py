"""How torch rounds: the precision of products of matrices, and numbers near zero."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SUBNORMAL = 1e-40
"""A number below the least normal one of float32."""


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Let torch multiply matrices of float32 with this precision: highest, high or medium, as torch calls them."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def subnormals(kept: bool) -> Iterator[None]:
    """Keep numbers below 1.2e-38 of float32 in this thread, or take them for 0, which a CPU computes with far faster.

    Adam's moments of a unit that no longer learns decay to such numbers. Without effect where the CPU cannot do so.
    """
    before = subnormals_kept()
    torch.set_flush_denormal(not kept)
    try:
        yield
    finally:
        torch.set_flush_denormal(not before)


def subnormals_kept() -> bool:
    """Return whether this thread computes with numbers below 1.2e-38 of float32, rather than taking them for 0."""
    return bool(torch.tensor(SUBNORMAL) * 1.0 != 0.0)
