"""Result of an identification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from metarl.evaluation.statistics import Array, Interval
from metarl.files import plain

REACHED = 0.9
"""Accuracy whose first duration is reported."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What queries tell, told apart from some classes. Of classes never met in training."""

    accuracy: Interval
    """Share of queries of the support's classes whose class is told."""
    auroc: float
    """Probability that a query of none of the support's classes is farther from all than one of them."""
    false_alarms: Interval
    """Share of queries of the support's classes that are called none of these."""
    detected: Interval
    """Share of queries of other classes that are called none of these."""
    open_error: float
    """Expected calibration error of the probabilities that a robot reads, that of none of these among them, where
    queries of the support's classes and of others are equally frequent."""


@dataclass(frozen=True, kw_only=True)
class Judged(Told):
    """What queries of some seconds tell, or several episodes."""

    seconds: float
    trained: Interval
    """The accuracy on the classes of training, on the episodes that it learned from."""
    calibration_error: float
    """Expected calibration error of the probabilities among the `ways`."""
    uncalibrated_error: float
    """The same before temperature scaling."""
    temperature: float
    among_all: Told
    """The same, told apart from `all_ways` classes: as a robot's queries are at first."""


@dataclass(frozen=True)
class Confusion:
    """Answers to queries of every judged class, with all of these in the support."""

    seconds: float
    """Duration of the queries."""
    labels: Sequence[str]
    """The C classes."""
    shares: Array
    """[C, C + 1], share of a class's queries by answer; the last column is none of these."""


@dataclass(frozen=True)
class Identification:
    """How well classes are told apart that no training met."""

    family: str
    run: str
    by: Sequence[str]
    classes: Mapping[str, Sequence[str]]
    """Labels of the classes by use: training, calibration, judged."""
    ways: int
    """Classes that a query is told apart from: judged ones as far as they go."""
    all_ways: int
    """All classes but one, which is left out for its queries to be of none of them."""
    shots: int
    tasks: int
    """Judged tasks."""
    curve: Sequence[Judged]
    """By duration, of single episodes."""
    confusion: Confusion
    reliability: Mapping[str, Sequence[float]]
    """Of the same duration: confidence, accuracy and share of each bin."""
    several: Mapping[int, Judged]
    """From so many whole episodes on a task, whose embeddings are averaged, by their number."""
    retrieved: Mapping[str, Interval]
    """Mean return of an episode by the policy of the nearest known task, and what it is compared with; empty for an
    agent that does not adapt."""
    notes: Sequence[str]
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def seconds_to_reach(self) -> float | None:
        """Return the first judged duration with an accuracy of 90 %; None if there is none."""
        return next((at.seconds for at in self.curve if at.accuracy.estimate >= REACHED), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON, with None for a number that is not finite."""
        return {"seconds_to_90_percent": self.seconds_to_reach, **plain(asdict(self))}
