"""Kinds of terms: what a term is called, is made by, takes and gives."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metarl.envs.state import StateFunction
from metarl.envs.terms import Element

if TYPE_CHECKING:
    pass


class WrongSetting(ValueError):
    """A setting of a term is wrong, whatever the robot."""


@dataclass(frozen=True)
class TakesSettings:
    """A term that is made from a robot and settings of its own, which are keyword-only."""

    make: Callable[..., Any]

    @property
    def text(self) -> str:
        """What the term is, in a sentence."""
        return " ".join((inspect.getdoc(self.make) or "").split("\n\n")[0].split())

    @property
    def types(self) -> dict[str, Any]:
        """Type of each setting by name."""
        hints = typing.get_type_hints(self.make)
        keywords = [p for p in inspect.signature(self.make).parameters.values() if p.kind is p.KEYWORD_ONLY]
        return {p.name: hints[p.name] for p in keywords}

    @property
    def defaults(self) -> dict[str, Any]:
        """Value of each setting that need not be given."""
        parameters = inspect.signature(self.make).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise WrongSetting for a setting that the term does not take, or for one that is missing."""
        types = self.types
        for name in settings:
            if name not in types:
                takes = f"it takes {', '.join(types)}" if types else "it takes none"
                raise WrongSetting(f"takes no setting {name!r}; {takes}")
        missing = [name for name in types if name not in settings and name not in self.defaults]
        if missing:
            raise WrongSetting(f"lacks {', '.join(missing)}")


@dataclass(frozen=True)
class RewardKind(TakesSettings):
    """A reward term: make(rig, **settings) -> function(state) -> [S]."""

    make: Callable[..., StateFunction]
    unit: str
    cost: bool = False
    """Whether it is subtracted."""


@dataclass(frozen=True)
class ObservationKind(TakesSettings):
    """An observation term: make(rig, **settings) -> function(state) -> [S, n], and the n elements."""

    make: Callable[..., tuple[StateFunction, tuple[Element, ...]]]
    unit: str
    """Unit of its elements, or its units, as `X or Y`; any: the robot or a setting says it."""
    measured: bool = True
    """Whether a robot's own sensors tell it."""
