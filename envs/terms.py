"""Named terms of a family: what is observed, rewarded and measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from metarl.envs import noise
from metarl.envs.arrays import Array, like
from metarl.envs.state import State, StateFunction


@dataclass(frozen=True)
class Element:
    """Name and unit of one number of an observation."""

    name: str
    unit: str
    """SI unit; "1" for a pure number, and empty for one that is shown without a unit."""

    def __str__(self) -> str:
        return f"{self.name} [{self.unit}]" if self.unit else self.name


def elements(unit: str, names: Iterable[str]) -> tuple[Element, ...]:
    """Return elements of one unit."""
    return tuple(Element(name, unit) for name in names)


@dataclass(frozen=True)
class ObservationTerm:
    """One part of an observation: function(state), plus noise."""

    function: StateFunction
    """Return the term's values, [S, len(elements)]."""
    elements: tuple[Element, ...]
    """Name and unit of each element."""
    noise: float = 0.0
    """Standard deviation of normal noise on each element, in its unit, before `TaskFamily.noise_factor`."""
    scale: float = 1.0
    """Factor on each element, with its noise."""
    clip: float = math.inf
    """Largest absolute value of each element, after its scale."""
    history: int = 1
    """Control steps whose values it has."""


def observe(terms: Mapping[str, ObservationTerm], state: State) -> Array:
    """Return the terms one after another, without noise, [S, obs]."""
    return state.xp.concat([term.function(state) for term in terms.values()], axis=1)


def deviations(terms: Mapping[str, ObservationTerm]) -> np.ndarray:
    """Return the standard deviation of each element's noise, up to the last term that has any, [n]."""
    each = [np.full(len(term.elements), term.noise) for term in terms.values()]
    last = max((i for i, term in enumerate(terms.values(), 1) if term.noise), default=0)
    return np.concatenate([np.zeros(0), *each[:last]])


def add_noise(observation: Array, deviations: np.ndarray, factor: Array | float, state: State) -> None:
    """Add normal noise of factor [S] x deviations [n] to the first n elements of an observation [S, obs]."""
    scale = like(deviations, observation) * (factor if isinstance(factor, int | float) else factor[:, None])
    size = len(deviations)
    observation[:, :size] += scale * noise.normal(state.keys, state.steps, noise.SENSORS, size)


def scales_and_bounds(terms: Mapping[str, ObservationTerm]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the factor on each element and its largest absolute value, [obs] each; None if nothing changes by them."""
    if all(term.scale == 1.0 and term.clip == math.inf for term in terms.values()):
        return None
    counts = [len(term.elements) for term in terms.values()]
    scales, bounds = ([getattr(term, name) for term in terms.values()] for name in ("scale", "clip"))
    return np.repeat(scales, counts), np.repeat(bounds, counts)


@dataclass(frozen=True)
class RewardTerm:
    """One part of a reward: weight x function(state)."""

    function: StateFunction
    """Return the term's values, [S]."""
    weight: float = 1.0


FALLS = "falls"
"""Name of the measure of families whose episodes end by a fall."""


@dataclass(frozen=True)
class Measure:
    """A quantity that an episode is judged by besides its return; evaluations compute it after each control step."""

    function: StateFunction
    """Return the step's values, [S]."""
    unit: str
    """Unit of the episode's value."""
    reduce: Literal["mean", "sum", "last", "max"]
    """How the steps' values become the episode's."""
    per: StateFunction | None = None
    """Return [S] values by whose sum over the episode a sum is divided, such as a distance; None: it is not divided."""

    def __post_init__(self) -> None:
        if self.per is not None and self.reduce != "sum":
            raise ValueError(f"a measure that is divided must be a sum, got {self.reduce!r}")


@dataclass(frozen=True)
class Criterion:
    """Bounds of a measure, ends included, that a successful episode keeps to."""

    measure: str
    """Name of the measure."""
    low: float = -math.inf
    """Least value."""
    high: float = math.inf
    """Largest value."""
