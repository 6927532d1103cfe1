"""Bounds of settings, declared where a setting is defined, and the one function that checks them.

    class MySettings:
        horizon: int = bounded(200, at_least=1)
        hidden_sizes: tuple[int, ...] = bounded((64, 64), at_least=1)

A subclass that gives a setting another default keeps its bounds and its docstring.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

T = TypeVar("T")

MOST = 10**9
"""Largest whole number of a setting with no upper bound of its own: no memory would hold more."""


@dataclass(frozen=True)
class Bounds:
    """Range of a number, or of each number in a tuple. Infinite ends are no bounds."""

    at_least: float = -math.inf
    """Smallest value."""
    above: float = -math.inf
    """Value that is itself too small."""
    at_most: float | None = None
    """Largest value. None: `MOST` for whole numbers, no bound for others."""
    below: float = math.inf
    """Value that is itself too large."""
    also: float | None = None
    """One value outside the range that is allowed too."""
    nonempty: bool = False
    """Whether a tuple must have a number in it."""
    pair: bool = False
    """Whether the value is a range: two numbers, the first at most the second."""

    def broken(self, value: float) -> str:
        """Return what a number must be, or an empty string if it is within the bounds."""
        if value == self.also:
            return ""
        also = "" if self.also is None else f", or {_shown(self.also)}"
        most = self.at_most if self.at_most is not None else MOST if isinstance(value, int) else math.inf
        if not math.isfinite(value):
            return "it must be a finite number"
        if value < self.at_least:
            return f"it must be at least {_shown(self.at_least)}{also}"
        if value <= self.above:
            return f"it must be greater than {_shown(self.above)}{also}"
        if value > most:
            return f"it must be at most {_shown(most)}{also}"
        return f"it must be less than {_shown(self.below)}{also}" if value >= self.below else ""


def bounded(default: T, *, changes_no_number: bool = False, **bounds: Any) -> T:
    """Return the dataclass field of a numeric setting: its default and its `Bounds`, given by their names.

    changes_no_number: see `without_effect`.
    """
    metadata = {"bounds": Bounds(**bounds), "changes_no_number": changes_no_number}
    return cast(T, field(default=default, metadata=metadata))


def unbounded(default: T) -> T:
    """Return the dataclass field of a numeric setting that may be any finite number."""
    return bounded(default)


def other_run(default: str = "") -> Any:
    """Return a field that names the folder of another run, which an agent is trained with."""
    return field(default=default, metadata={"other_run": True})


def without_effect(default: T) -> T:
    """Return the dataclass field of a setting that changes no result.

    It decides where or how a run is computed, saved or watched; results may differ by rounding.
    """
    return cast(T, field(default=default, metadata={"changes_no_number": True}))


def newer(default: T, *, before: T, **bounds: Any) -> T:
    """Return the dataclass field of a setting that older saved configurations lack; before: what they were run with.

    bounds: its `Bounds` by their names, if it is a number.
    """
    metadata = {"before": before, **({"bounds": Bounds(**bounds)} if bounds else {})}
    return cast(T, field(default=default, metadata=metadata))


def lacking(settings: type, given: Collection[str], saved: bool) -> dict[str, Any]:
    """Return the values of `newer` settings in a saved configuration that gives only these settings.

    saved: whether the configuration is known to be saved. One that gives all other settings was: people give a few.
    """
    fields = dataclasses.fields(settings)
    added = {f.name: f.metadata["before"] for f in fields if "before" in f.metadata}
    others = [f.name for f in fields if f.name not in added and not f.metadata.get("changes_no_number")]
    whole = all(name in given for name in others)
    return {name: value for name, value in added.items() if name not in given} if saved or whole else {}


def names_without_effect(settings: type) -> tuple[str, ...]:
    """Return the names of the settings that change no result."""
    return tuple(f.name for f in dataclasses.fields(settings) if f.metadata.get("changes_no_number"))


def bounds_of(settings: type, name: str) -> Bounds | None:
    """Return the bounds of a setting, inherited ones too; None for one that is declared without."""
    for cls in settings.__mro__:
        if name in inspect.get_annotations(cls) and "bounds" in (declared := cls.__dataclass_fields__[name]).metadata:
            return declared.metadata["bounds"]
    return None


def check(settings: Any, section: str) -> None:
    """Raise ValueError that names the first setting which is out of its bounds as section.name."""
    for f in dataclasses.fields(settings):
        bounds, value = bounds_of(type(settings), f.name), getattr(settings, f.name)
        if bounds is None:
            continue
        entries = enumerate(value) if isinstance(value, tuple) else [(None, value)]
        for place, entry in entries:
            if broken := bounds.broken(entry):
                index = "" if place is None else f"[{place}]"
                raise ValueError(f"{section}.{f.name}{index} is {_shown(entry)}; {broken}")
        if bounds.nonempty and not value:
            raise ValueError(f"{section}.{f.name} is []; it must have at least one number")
        if bounds.pair and (len(value) != 2 or value[0] > value[1]):
            shown = ", ".join(map(_shown, value))
            raise ValueError(f"{section}.{f.name} is [{shown}]; it must be two numbers, the first at most the second")


def _shown(number: float) -> str:
    return repr(number).removesuffix(".0")
