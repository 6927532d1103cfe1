"""Parameters: named physical quantities that a family varies, their distributions, and their laws."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import mujoco
import numpy as np

from metarl.envs.text import near

Split = Literal["train", "held_out", "ood"]
SPLITS: tuple[Split, ...] = ("train", "held_out", "ood")
"""Training tasks; tasks of the same distribution that training never draws; tasks outside of its range."""

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
        """Return the value below which a share u in [0, 1) of the distribution lies."""
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


MANY = 12
"""Length from which a choice of consecutive numbers is described by its ends."""


@dataclass(frozen=True)
class Choice:
    """One of several values, equally likely unless weights are given."""

    values: tuple[float, ...]
    weights: tuple[float, ...] = ()
    """Relative probability of each value; empty: equal."""

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
        first, count = self.values[0], len(self.values)
        if count > MANY and not self.weights and self.values == tuple(first + i for i in range(count)):
            return f"{{{first:g}, {first + 1:g}, ..., {self.values[-1]:g}}}"
        shares = [f" x {w:g}" for w in self.weights] or [""] * len(self.values)
        return "{" + ", ".join(f"{v:g}{share}" for v, share in zip(self.values, shares, strict=True)) + "}"


@dataclass(frozen=True)
class DiscRadius:
    """radius sqrt(U(0, 1)): distance from the centre of a point that is uniform in a disc."""

    radius: float

    def __post_init__(self) -> None:
        _check_range(Uniform(0.0, self.radius))

    @property
    def low(self) -> float:
        return 0.0

    @property
    def high(self) -> float:
        return self.radius

    def quantile(self, u: float) -> float:
        return self.radius * math.sqrt(u)

    def describe(self) -> str:
        return f"{self.radius:g} sqrt U(0, 1)"


@dataclass(frozen=True)
class Either:
    """One of two distributions, each as likely: what lies below a range, or above it."""

    below: Distribution
    above: Distribution

    @property
    def low(self) -> float:
        return self.below.low

    @property
    def high(self) -> float:
        return self.above.high

    def quantile(self, u: float) -> float:
        return self.below.quantile(2 * u) if u < 0.5 else self.above.quantile(2 * u - 1)

    def describe(self) -> str:
        return f"{self.below.describe()} or {self.above.describe()}"


OOD_MARGIN = 0.5
"""Out-of-distribution ranges reach beyond a training range by this share of its width (`beyond`), or of its half width
around the neutral value (`outside`, and `outside_scale` in the logarithm)."""


def beyond(low: float, high: float) -> Uniform:
    """Return a distribution above a uniform training range, half as wide."""
    return Uniform(high, high + OOD_MARGIN * (high - low))


def outside(half_width: float) -> Either:
    """Return a distribution on both sides of U(-half_width, half_width)."""
    reach = (1 + OOD_MARGIN) * half_width
    return Either(Uniform(-reach, -half_width), Uniform(half_width, reach))


def outside_scale(factor: float) -> Either:
    """Return a distribution on both sides of logU(1 / factor, factor)."""
    with np.errstate(over="ignore"):  # an infinite range is refused by name
        reach = float(np.float64(factor) ** (1 + OOD_MARGIN))
    return Either(LogUniform(1 / reach, 1 / factor), LogUniform(factor, reach))


def overlap(a: Distribution, b: Distribution) -> bool:
    """Return whether some value could be drawn from both; ranges include their lower bound only."""
    for mixture, other in ((a, b), (b, a)):
        if isinstance(mixture, Either):
            return overlap(mixture.below, other) or overlap(mixture.above, other)
    if isinstance(b, Choice):
        a, b = b, a
    if isinstance(a, Choice):
        return any(v in b.values if isinstance(b, Choice) else b.low <= v < b.high for v in a.values)
    return a.low < b.high and b.low < a.high


def _check_range(distribution: Uniform | LogUniform) -> None:
    low, high = distribution.low, distribution.high
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"a range must be finite, got ({low:g}, {high:g})")
    if low >= high:
        raise ValueError(f"the range ({low:g}, {high:g}) is reversed or empty; give low < high")


@dataclass(frozen=True)
class Law:
    """Effect of a parameter's value: an edit of robot or ground, or a quantity that the reward depends on."""

    description: str
    edit: Callable[[mujoco.MjSpec, float], None] | None = None
    """Edit a fresh copy of the family's base specification; None if only the reward depends on the value."""
    joint: bool = False
    """Whether `TaskFamily.edit` uses the value, together with others."""


@dataclass(frozen=True)
class Parameter:
    """A named physical quantity that a family varies."""

    name: str
    unit: str
    distribution: Distribution
    law: Law
    neutral: float
    """Value at which the model is the family's base model."""
    above: float = -math.inf
    """Bound that values must be greater than to be physical (0 for a mass)."""
    held_out: Distribution | None = None
    """Distribution of held-out tasks, apart from training values; None: the training distribution's odd cells."""
    ood: Distribution | None = None
    """Distribution of out-of-distribution tasks, outside of the training range; None: the held-out one."""
    names: tuple[str, ...] = ()
    """Categories that the values 0, 1, 2, ... stand for; empty: the values are quantities."""
    nuisance: bool = False
    """Whether a value says nothing about what to do, as a generator's seed; it is encoded for no learner."""
    mirrored: tuple[float, ...] = ()
    """Categories besides those of its distribution that training meets in a mirror (`metarl.envs.mirror.mirrored`)."""
    overlaps: bool = False
    """Whether values of other splits may be training values too, where another parameter keeps the tasks apart."""

    def __post_init__(self) -> None:
        self.check(self.neutral)
        for split, distribution in (("train", self.distribution), ("held_out", self.held_out), ("ood", self.ood)):
            if distribution is None:
                continue
            self.check(distribution.low)
            self.check(distribution.high)
            if split != "train" and not self.overlaps and overlap(self.distribution, distribution):
                raise ValueError(
                    f"parameter {self.name!r}: {split} values {distribution.describe()} overlap the training values "
                    f"{self.distribution.describe()}; move them apart"
                )

    def check(self, value: float | str) -> float:
        """Return the value as a float; ValueError if it is not a finite number above `above`, or cannot be simulated.

        A category may be given by its name.
        """
        if isinstance(value, str) and self.names:
            if value not in self.names:
                raise ValueError(f"parameter {self.name!r} is {value!r}{near(value, self.names)}")
            value = self.names.index(value)
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise ValueError(f"parameter {self.name!r} must be a number ({self.unit}), got {value!r}")
        if not math.isfinite(value) or value <= self.above:
            bound = f"greater than {self.above:g}" if math.isfinite(self.above) else "finite"
            raise ValueError(f"parameter {self.name!r} must be {bound} ({self.unit}), got {value:g}")
        if abs(value) > mujoco.mjMAXVAL and abs(value) > self.most and not self.nuisance:
            raise ValueError(
                f"parameter {self.name!r} must be from {-self.most:g} to {self.most:g} ({self.unit}), got {value:g}"
            )
        return float(value)

    @property
    def most(self) -> float:
        """Largest magnitude of a value: that of its tasks, or the largest that MuJoCo simulates."""
        own = [drawn for drawn in (self.distribution, self.held_out, self.ood) if drawn is not None]
        return max(mujoco.mjMAXVAL, *(abs(end) for drawn in own for end in (drawn.low, drawn.high)))

    def words(self, value: float, digits: int = 3) -> str:
        """Return a value as text with its unit."""
        if self.names:
            return self.names[round(value)].replace("_", " ")
        return f"{value:z.{digits}g}".replace("-", "\N{MINUS SIGN}") + ("" if self.unit == "1" else f" {self.unit}")

    @property
    def categories(self) -> tuple[float, ...]:
        """Training values in order if they are a choice of some, each once; empty for a quantity of a range."""
        drawn = self.distribution
        return tuple(sorted(set(drawn.values))) if isinstance(drawn, Choice) else ()

    def categories_of(self, splits: Iterable[Split] = SPLITS) -> tuple[float, ...]:
        """Return the categories of some splits in order, each once; empty for a quantity of a range."""
        if not self.categories:
            return ()
        splits = tuple(splits)
        drawn = (self.of_split(split) for split in splits)
        mirrored = self.mirrored if "train" in splits else ()
        return tuple(sorted({*mirrored, *(value for own in drawn if isinstance(own, Choice) for value in own.values)}))

    @property
    def continuous(self) -> bool:
        return not isinstance(self.distribution, Choice)

    @property
    def disjoint(self) -> bool:
        """Whether no value is both a training value and a held-out one."""
        return self.continuous or (self.held_out is not None and not overlap(self.distribution, self.held_out))

    def of_split(self, split: Split) -> Distribution:
        """Return the distribution that the split's values are drawn from."""
        held_out = self.held_out or self.distribution
        return {"train": self.distribution, "held_out": held_out, "ood": self.ood or held_out}[split]

    def sample(self, rng: np.random.Generator, split: Split, within: tuple[float, float] = (0.0, 1.0)) -> float:
        """Draw a value of the split, by the inverse of the cumulative distribution on the split's grid.

        within: two quantiles between which it is drawn.
        """
        low, high = (int(u * (GRID // 2)) for u in within)
        cell = 2 * int(rng.integers(low, high)) + (split != "train")
        return self.of_split(split).quantile(cell / GRID)
