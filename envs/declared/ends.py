"""When an episode ends for good."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from metarl.envs.arrays import Array
from metarl.envs.declared.own_functions import own_function
from metarl.envs.declared.rig import Rig
from metarl.envs.state import State, StateFunction


@dataclass(frozen=True)
class Termination:
    """Bounds outside of which an episode ends for good; without any: it never does."""

    height: tuple[float, float] | None = None
    """Lowest and highest height of the base over the ground, m."""
    tilt: float | None = None
    """Largest angle between the base's up and the world's, rad."""
    contact: tuple[str, ...] = ()
    """Bodies or geoms, by name or regular expression, or groups of `contacts`, that must touch nothing."""
    function: str | None = None
    """Your own function(state), file.py:function, which returns where the episode ends, [S] bool. Its code is run."""


@dataclass(frozen=True)
class Ends:
    """A function for where an episode ends for good, [S] bool: where any of its bounds is left."""

    bounds: Mapping[str, StateFunction]
    """Where each bound is left, [S] bool, by its key of `Termination`; there is at least one."""
    bodies: tuple[str, ...] = ()
    """Bodies or geoms that must touch nothing."""

    def __call__(self, state: State) -> Array:
        first, *others = (bound(state) for bound in self.bounds.values())
        for other in others:
            first = first | other
        return first


def termination(rig: Rig, wanted: Termination) -> Ends | None:
    """Return a function for where an episode ends for good, [S] bool; None without bounds."""
    height, tilt = wanted.height, wanted.tilt
    if height is None and tilt is None and not wanted.contact and wanted.function is None:
        return None
    if rig.base is None and not (height is None and tilt is None):
        raise ValueError("termination: the base is fixed, it neither falls nor tilts; leave it out")
    if height is not None and height[0] >= height[1]:
        low, high = height
        raise ValueError(f"termination.height [{low:g}, {high:g}] is reversed or empty; give low < high")
    if tilt is not None and not 0 < tilt <= math.pi:
        raise ValueError(f"termination.tilt is {tilt:g} rad; it must be above 0 and at most pi")
    try:
        bodies = rig.bodies_of(wanted.contact)
    except ValueError as error:
        raise ValueError(f"termination.contact: {error}") from None
    bounds: dict[str, StateFunction] = {}
    if bodies:
        bounds["contact"] = _touches(rig, bodies)
    if height is not None:
        bounds["height"] = _leaves(rig, *height)
    if tilt is not None:
        bounds["tilt"] = _tilts(rig, tilt)
    if wanted.function is not None:
        bounds["function"] = own_function(wanted.function)
    return Ends(bounds, bodies)


def _touches(rig: Rig, bodies: tuple[str, ...]) -> StateFunction:
    touching = rig.touching(bodies)
    return lambda state: state.xp.any(touching(state), axis=1)


def _leaves(rig: Rig, low: float, high: float) -> StateFunction:
    base = rig.needed_base

    def leaves(state: State) -> Array:
        height = base.height(state)
        return (height < low) | (height > high)

    return leaves


def _tilts(rig: Rig, most: float) -> StateFunction:
    base, least = rig.needed_base, math.cos(most)
    return lambda state: base.gravity(state)[:, 2] > -least
