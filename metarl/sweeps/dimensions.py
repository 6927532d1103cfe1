"""The search space of a sweep: factors, and the levels or the number range that each of them takes values from."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOW, HIGH = "_low", "_high"
"""Suffixes of two settings that are the ends of one range: `velocity_low` and `velocity_high` are `velocity`."""


@dataclass(frozen=True)
class Levels:
    """A dimension with finitely many values."""

    values: tuple[Any, ...]

    @property
    def labels(self) -> tuple[Any, ...]:
        """The entry of Optuna's journal for each value: the value itself, or a list as JSON."""
        return tuple(label(value) for value in self.values)

    def level(self, given: Any) -> Any:
        """Return the level of a label, or of a list; None if there is none. True is not 1."""
        wanted = label(given)
        own = zip(self.labels, self.values, strict=True)
        alike = (v for name, v in own if name == wanted and isinstance(name, bool) == isinstance(wanted, bool))
        return next(alike, None)

    def extremes(self) -> tuple[Any, ...]:
        """Return values that bound the others where the values have an order: here all of them."""
        return self.values

    def plain(self) -> Any:
        """Return the levels as plain types."""
        return [list(v) if isinstance(v, tuple) else v for v in self.values]


@dataclass(frozen=True)
class NumberRange:
    """A dimension with all numbers from `low` to `high`."""

    low: float
    high: float
    log: bool
    """Whether the search is uniform in the logarithm."""
    whole: bool
    """Whether only whole numbers count."""

    def extremes(self) -> tuple[Any, ...]:
        """Return both ends."""
        return (self.low, self.high)

    def plain(self) -> Any:
        """Return the range as plain types."""
        return dict(vars(self))


Dimension = Levels | NumberRange


def label(value: Any) -> Any:
    """Return a number or text as it is, and a list as JSON."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Factor:
    """One or more settings that vary together: they share one value, or are the ends of one range."""

    name: str
    settings: tuple[str, ...]
    """Dotted names; two for a range whose ends are two settings."""
    dimensions: Mapping[str, Dimension]
    """Dimensions by name: the factor's own name, or that name with `.center` or `.width` appended."""
    center: float = math.nan
    """Centre of a range whose centre does not vary; NaN unless the factor has `.center` or `.width`."""
    width: float = math.nan
    """Width of a range whose width does not vary; NaN unless the factor has `.center` or `.width`."""

    def values(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value of each setting at a point of the search."""
        if math.isnan(self.center):
            value = point[self.name]
            ends = isinstance(value, tuple) and len(self.settings) == 2 and self.settings[0].endswith(LOW)
            return dict(zip(self.settings, value if ends else itertools.repeat(value), strict=False))
        center = point.get(f"{self.name}.center", self.center)
        width = point.get(f"{self.name}.width", self.width)
        low, high = center - width / 2, center + width / 2
        if len(self.settings) == 2:
            return dict(zip(self.settings, (low, high), strict=True))
        return {self.settings[0]: (low, high)}
