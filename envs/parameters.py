"""What a family varies: named physical quantities, their distributions, and what they do to the model or the reward."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import mujoco
import numpy as np

Split = Literal["train", "held_out", "ood"]
SPLITS: tuple[Split, ...] = ("train", "held_out", "ood")
"""Tasks of training; tasks of the same distribution that training never draws; tasks outside its range."""

GRID = 2**32
"""Quantiles are drawn on a grid of this many cells: the even cells are training tasks, the odd ones are held out.

So both splits follow the family's distribution, as the literature's training and test tasks do, and no value of a
continuous parameter is ever in both.
"""


class Distribution(Protocol):
    """A distribution of one number, given by its quantile function."""

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...

    def quantile(self, u: float) -> float:
        """The value below which a share u in [0, 1) of the distribution lies."""
        ...

    def describe(self) -> str: ...


@dataclass(frozen=True)
class Uniform:
    """U(low, high)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_range(self)

    def quantile(self, u: float) -> float:
        return self.low + u * (self.high - self.low)

    def describe(self) -> str:
        return f"U({self.low:g}, {self.high:g})"


@dataclass(frozen=True)
class LogUniform:
    """exp U(log low, log high): as often halved as doubled."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_range(self)
        if self.low <= 0:
            raise ValueError(f"a log-uniform range must be positive, got low = {self.low:g}; raise low above 0")

    def quantile(self, u: float) -> float:
        return self.low * (self.high / self.low) ** u

    def describe(self) -> str:
        return f"logU({self.low:g}, {self.high:g})"


@dataclass(frozen=True)
class Choice:
    """One of finitely many values, each as likely unless weights are given."""

    values: tuple[float, ...]
    weights: tuple[float, ...] = ()
    """How likely each value is, relative to the others; empty: equally."""

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a choice needs at least one value, got none")
        if self.weights and (len(self.weights) != len(self.values) or not min(self.weights) > 0):
            raise ValueError(
                f"a choice needs one weight greater than 0 for each of its {len(self.values)} values, "
                f"got {list(self.weights)}"
            )

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    def quantile(self, u: float) -> float:
        if not self.weights:
            return self.values[int(u * len(self.values))]
        upto = list(itertools.accumulate(self.weights))
        return self.values[bisect.bisect(upto, u * upto[-1], hi=len(upto) - 1)]

    def describe(self) -> str:
        shares = [f" x {w:g}" for w in self.weights] or [""] * len(self.values)
        return "{" + ", ".join(f"{v:g}{share}" for v, share in zip(self.values, shares, strict=True)) + "}"


def _check_range(distribution: Uniform | LogUniform) -> None:
    low, high = distribution.low, distribution.high
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"a range must be finite, got ({low:g}, {high:g})")
    if low >= high:
        raise ValueError(f"the range ({low:g}, {high:g}) is upside down or empty; give low < high")


@dataclass(frozen=True)
class Law:
    """What a parameter's value does: an edit of robot or ground, or a quantity that the reward reads by name."""

    description: str
    edit: Callable[[mujoco.MjSpec, float], None] | None = None
    """Edits a fresh copy of the family's base specification; None if only the reward reads the value."""
    joint: bool = False
    """Whether `TaskFamily.edit` reads the value, together with others."""


@dataclass(frozen=True)
class Parameter:
    """A named physical quantity that a family varies."""

    name: str
    unit: str
    distribution: Distribution
    law: Law
    neutral: float
    """The value at which the family is its base model."""
    above: float = -math.inf
    """Values must be greater than this to be physical (0 for a mass)."""
    ood: Distribution | None = None
    """Of out-of-distribution tasks, outside the training range; None: there this parameter is drawn as held out."""

    def __post_init__(self) -> None:
        self.check(self.neutral)
        for distribution in (self.distribution, self.ood):
            if distribution is not None:
                self.check(distribution.low)
                self.check(distribution.high)

    def check(self, value: float) -> float:
        """The value as a float; ValueError if it is not a finite number above `above`."""
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise ValueError(f"parameter {self.name!r} must be a number ({self.unit}), got {value!r}")
        if not math.isfinite(value) or value <= self.above:
            bound = f"greater than {self.above:g}" if math.isfinite(self.above) else "finite"
            raise ValueError(f"parameter {self.name!r} must be {bound} ({self.unit}), got {value:g}")
        return float(value)

    @property
    def continuous(self) -> bool:
        return not isinstance(self.distribution, Choice)

    def of_split(self, split: Split) -> Distribution:
        """What the split's values are drawn from."""
        return self.ood if split == "ood" and self.ood is not None else self.distribution

    def sample(self, rng: np.random.Generator, split: Split, within: tuple[float, float] = (0.0, 1.0)) -> float:
        """A value of the split, by the inverse of the cumulative distribution on the split's grid.

        within: between which two quantiles.
        """
        low, high = (int(u * (GRID // 2)) for u in within)
        cell = 2 * int(rng.integers(low, high)) + (split != "train")
        return self.of_split(split).quantile(cell / GRID)
