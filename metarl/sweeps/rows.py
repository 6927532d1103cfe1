"""What is said of a sweep's trials: rows of its table, levels and effects of factors, curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from metarl.evaluation.statistics import Interval


@dataclass(frozen=True)
class Row:
    """One trial of the table."""

    number: int
    state: str
    params: dict[str, Any]
    objective: float | None
    attributes: dict[str, Any]
    """`return`, `before`, `gain`, their intervals, `iteration`, `env_steps`, `seconds`, `ranges`, `error`."""

    @property
    def complete(self) -> bool:
        return self.state == "complete"


@dataclass(frozen=True)
class Level:
    """The trials of one level of a factor, or of one bin of it."""

    name: str
    trials: int
    iqm: Interval | None
    """Of the objective, over trials; None where there are fewer than two, which have no interval."""
    value: float
    """The interquartile mean alone."""


@dataclass(frozen=True)
class Effect:
    """What a factor does to the objective, whatever the others are."""

    name: str
    levels: list[Level]
    spearman: Interval | None
    """Rank correlation of the factor with the objective, over trials; None where it has no order, or is too short."""
    importance: float | None
    """Share of the variation of the objective among the better trials (PED-ANOVA); None where it cannot be told."""
    others_out: bool | None
    """Whether what the other factors do is taken out of the levels, as in a whole grid; None where there are none."""

    @property
    def others(self) -> str:
        """What is to be known of the other factors."""
        return {True: "other factors taken out", False: "other factors vary too", None: ""}[self.others_out]


@dataclass(frozen=True)
class Curve:
    """Return against distance from the training range, of the trials of one group."""

    name: str
    distance: list[float]
    """Mean of each bin; 0 is inside the range, below 0 under it."""
    after: list[Interval]
    """Mean return over tasks after the last adaptation."""
    gain: list[Interval]
