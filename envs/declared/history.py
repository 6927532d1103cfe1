"""Observations of the last control steps."""

from __future__ import annotations

import dataclasses

from metarl.envs import noise
from metarl.envs.arrays import Array, write
from metarl.envs.declared.rig import Rig, Tracker
from metarl.envs.state import State
from metarl.envs.terms import Element, ObservationTerm

FIRST_STREAM = 16
"""Stream of the noise of the first term with a history; the next ones follow."""


def remember(rig: Rig, name: str, term: ObservationTerm, steps: int, factor: str | float) -> ObservationTerm:
    """Return the term with its values of the last `steps` control steps, the present ones first.

    Values keep the noise that they had when they were new. Before an episode's start they are those of its start.
    factor: number or parameter that noise is multiplied by.
    """
    size, key = len(term.elements), f"{name} history"
    stream = FIRST_STREAM + sum(tracker.endswith(" history") for tracker in rig.trackers)

    def read(state: State) -> Array:
        """Return the present values with their noise, [S, n]."""
        values = term.function(state)
        if not term.noise:
            return values
        size_of = state.task[factor][:, None] if isinstance(factor, str) else factor
        return values + size_of * term.noise * noise.normal(state.keys, state.steps, stream, size)

    def begin(state: State, chosen: Array) -> None:
        write(state.memory[key], read(state)[:, None], where=chosen)

    def update(state: State) -> None:
        kept = state.memory[key]
        kept[:, 1:] = state.xp.asarray(kept[:, :-1], copy=True)
        kept[:, 0] = read(state)

    rig.use(key, Tracker({key: (steps, size)}, begin, update=update))
    past = tuple(Element(f"{e.name} {k} steps ago", e.unit) for k in range(1, steps) for e in term.elements)
    return dataclasses.replace(
        term,
        function=lambda state: state.memory[key].reshape(-1, steps * size),
        elements=(*term.elements, *past),
        noise=0.0,
        history=steps,
    )
