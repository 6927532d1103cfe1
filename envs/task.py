"""Tasks as data, and the rules by which a family lets them change and grow harder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """New parameter values at a step of a task: a payload is dropped, a leg fails, the ground is another."""

    step: int
    """Control steps of the env's trial before the change; episodes count at their full length."""
    values: Mapping[str, float]
    """New values by parameter name; the other parameters stay as they are."""


@dataclass(frozen=True)
class Task:
    """One draw from a family: named parameter values and how they change, and nothing else."""

    family: str
    """Name of the family."""
    values: Mapping[str, float]
    """Value of each parameter by name."""
    changes: tuple[Change, ...] = ()
    """Changes in the order of their steps; none unless the family has them."""
    mirrored: bool = False
    """Whether the agent meets it in a mirror, left for right, where the family has a `TaskFamily.mirror`."""

    @property
    def id(self) -> str:
        """Name that is the same whenever family, values and changes are."""
        digest = hashlib.sha256(self.to_json().encode()).hexdigest()[:12]
        return f"{self.family}-{digest}"

    def to_json(self) -> str:
        """Return canonical JSON; floats are written so that they are read back bit for bit."""
        data: dict[str, Any] = {"family": self.family, "values": _floats(self.values)}
        if self.mirrored:
            data["mirrored"] = True
        if self.changes:
            data["changes"] = [{"step": change.step, "values": _floats(change.values)} for change in self.changes]
        return json.dumps(data, sort_keys=True, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Task:
        """Return the task that `to_json` wrote; ValueError if the text is no task."""
        try:
            data = json.loads(text)
            changes = tuple(Change(int(c["step"]), _floats(c["values"])) for c in data.get("changes", ()))
            return Task(str(data["family"]), _floats(data["values"]), changes, bool(data.get("mirrored", False)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'not a task: {text[:80]!r}; expected {{"family": NAME, "values": {{PARAMETER: NUMBER}}}}'
            ) from error


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in values.items()}


@dataclass(frozen=True)
class Changes:
    """How often the parameters of a task change, and which of them."""

    parameters: tuple[str, ...]
    """Names of the parameters that are drawn anew at each change, from the task's split."""
    count: int
    """Changes per task."""
    gap: tuple[int, int]
    """Fewest and most control steps before each change, and between two."""

    @staticmethod
    def of(settings: Any, *parameters: str) -> Changes | None:
        """Return the changes that the settings `changes` and `change_gap` ask for; None if they ask for none."""
        return Changes(parameters, settings.changes, settings.change_gap) if settings.changes else None

    def __post_init__(self) -> None:
        if self.count < 1 or len(self.gap) != 2 or not 1 <= self.gap[0] <= self.gap[1]:
            raise ValueError(
                f"changes: need at least 1 change and a gap of 1 <= low <= high steps, got {self.count} and {self.gap}"
            )


@dataclass(frozen=True)
class CurriculumRule:
    """How the difficulty of training tasks follows the returns (`metarl.envs.curriculum`)."""

    group: str
    """Parameter whose values have a level each, such as the kind of ground."""
    difficulty: str
    """Parameter whose range is divided into levels."""
    promote_at: float
    """Mean return of an episode at or above which a group goes up a level."""
    demote_at: float
    """Mean return of an episode below which a group goes down a level."""
    levels: int = 10
    """Number of levels."""
    name: Callable[[float], str] = "{:g}".format
    """Return a group's name in the metrics."""

    def __post_init__(self) -> None:
        if self.levels < 1 or not self.demote_at <= self.promote_at:
            raise ValueError(
                f"a curriculum needs at least 1 level and demote_at <= promote_at, got {self.levels} levels, "
                f"demote_at {self.demote_at:g}, promote_at {self.promote_at:g}"
            )
