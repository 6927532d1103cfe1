"""Which simulations, actuators and sensors the current faults are in, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from metarl.envs.arrays import Array, like
from metarl.envs.faults.parts import Part
from metarl.envs.faults.settings import FaultKind
from metarl.envs.state import State

KIND, PLACE, SEVERITY = "fault_kind", "fault_place", "fault_severity"
"""Names of the parameters of a fault."""
NONE, NOWHERE = "none", "nowhere"
"""Names of kind 0 and place 0."""


@dataclass(frozen=True, eq=False)
class Struck:
    """Columns, such as actuators or elements of the observation, that a kind of fault acts on in each place."""

    number: int
    """Value of the parameter `fault_kind`."""
    table: np.ndarray
    """Whether a fault in a place acts on a column, [places + 1, columns] bool."""

    def anywhere(self, state: State) -> Array:
        """Return which simulations have the fault now, [S] bool."""
        return state.task[KIND] == self.number

    def mask(self, state: State) -> Array:
        """Return the columns that have the fault now, [S, columns] bool."""
        place = state.xp.astype(state.task[PLACE], state.xp.int64)
        return like(self.table, state.qpos)[place] & self.anywhere(state)[:, None]


def struck(
    kinds: tuple[FaultKind, ...],
    places: Mapping[str, tuple[Part, ...]],
    columns: int,
    of: Mapping[FaultKind, Callable[[Part], Iterable[int]]],
) -> dict[FaultKind, Struck]:
    """Return the columns of those kinds that `of` lists; of: indices of a part's columns, negative ones are none."""
    tables = {}
    for number, kind in enumerate(kinds, start=1):
        if kind in of:
            table = np.zeros((len(places) + 1, columns), dtype=bool)
            for row, parts in enumerate(places.values(), start=1):
                table[row, [i for part in parts for i in of[kind](part) if i >= 0]] = True
            tables[kind] = Struck(number, table)
    return tables
