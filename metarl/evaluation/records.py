"""JSON of results: the base class of what is saved, and functions that read its parts back and name what is wrong."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from metarl.envs.text import shown
from metarl.files import plain

T = TypeVar("T")


class Record(abc.ABC):
    """A result that is saved as JSON. Two records are equal if they are saved alike: NaN and infinity are null there.

    `from_dict` of a subclass reads what `to_dict` gave, after JSON or before. It raises ValueError, TypeError or
    KeyError for anything else.
    """

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON, with None for a number that is not finite."""

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Record) and type(self) is type(other) and plain(self.to_dict()) == plain(other.to_dict())
        )


def mapping(value: Any, name: str) -> Mapping[str, Any]:
    """Return the value, which must be a mapping; TypeError names it otherwise."""
    if not isinstance(value, dict):
        raise TypeError(f"{name} is {shown(value)}: a mapping is needed")
    return value


def listed(value: Any, name: str, read: Callable[[Any], T]) -> list[T]:
    """Return a list with each entry read by a function; TypeError if the value is no list."""
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name} is {shown(value)}: a list is needed")
    return [read(entry) for entry in value]


def texts(value: Any, name: str) -> list[str]:
    """Return a list with each entry as a text; TypeError if the value is no list."""
    return listed(value, name, str)


def optional(value: Any, read: Callable[[Any], T]) -> T | None:
    """Return None for None, and any other value as the function reads it."""
    return None if value is None else read(value)


def number(value: Any, name: str) -> float:
    """Return a finite or infinite number as a float; TypeError for anything else, True and False included."""
    if type(value) not in (int, float):
        raise TypeError(f"{name} is {shown(value)}: a number is needed")
    return float(value)


def whole(value: Any, name: str) -> int:
    """Return a whole number; TypeError for anything else."""
    if type(value) is not int:
        raise TypeError(f"{name} is {shown(value)}: a whole number is needed")
    return value


def array(value: Any, name: str, axes: int) -> NDArray[np.float64]:
    """Return nested lists as an array with that many axes; None becomes NaN."""
    if not isinstance(value, list | np.ndarray):
        raise TypeError(f"{name} is {shown(value)}: nested lists are needed")
    found = np.array(value, dtype=np.float64)
    if found.ndim != axes:
        raise ValueError(f"{name} of shape {found.shape}: {axes} axes are needed")
    return found
