"""Columns of the state's fields."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metarl.envs.arrays import Array, like


class Columns:
    """Columns of arrays [S, n, ...]; a view of them where they are side by side."""

    def __init__(self, places: Sequence[int] | np.ndarray):
        self.places = np.asarray(places, dtype=np.int64)
        first = int(self.places[0]) if len(self.places) else 0
        together = np.array_equal(self.places, np.arange(first, first + len(self.places)))
        self._slice = slice(first, first + len(self.places)) if together else None

    def __len__(self) -> int:
        return len(self.places)

    def of(self, values: Array) -> Array:
        """Return the columns, [S, len(self), ...]."""
        return values[:, like(self.places, values) if self._slice is None else self._slice]
