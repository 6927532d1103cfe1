"""Result of an identification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from metarl.evaluation.statistics import Array, Interval
from metarl.files import plain

REACHED = 0.9
"""Accuracy whose first duration is reported."""


@dataclass(frozen=True)
class AtDuration:
    """What a query of some seconds tells."""

    seconds: float
    accuracy: Interval
    """Share of queries whose class, one of `ways`, is told; of classes never met in training."""
    trained: Interval
    """The same of the classes of training, on the episodes that it learned from."""
    calibration_error: float
    """Expected calibration error of the probabilities among the `ways`."""
    uncalibrated_error: float
    """The same before temperature scaling."""
    temperature: float
    auroc: float
    """Probability that a query of none of the support's classes is farther from all than one of them."""
    false_alarms: Interval
    """Share of queries of the support's classes that are called none of these."""
    detected: Interval
    """Share of queries of other classes that are called none of these."""
    open_error: float
    """Expected calibration error of the probabilities that a robot reads, that of none of these among them, where
    queries of the support's classes and of others are equally frequent."""


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
    """Classes that a query is told apart from."""
    unknown_ways: int
    """The same where some queries are of none of them."""
    shots: int
    tasks: int
    """Judged tasks."""
    curve: Sequence[AtDuration]
    confusion: Confusion
    reliability: Mapping[str, Sequence[float]]
    """Of the same duration: confidence, accuracy and share of each bin."""
    several: Mapping[int, Interval]
    """Accuracy from so many whole episodes on a task, by their number."""
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
