"""Kinds with many members: `make test` meets some members of a kind, `make test-all` every one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def sampled(values: Iterable[Any], every: int) -> list[Any]:
    """Return a test's parameters, of which `make test` meets the first and each `every`-th from there.

    A tuple holds a value of each of the test's arguments.
    """
    rows = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*row, marks=[pytest.mark.thorough] if i % every else []) for i, row in enumerate(rows)]
