"""Settings of an identification."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.bounds import bounded

SECONDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Durations at which identification is judged where none are given, s."""


@dataclass(frozen=True, kw_only=True)
class IdentifySettings:
    """What is told apart, and how that is judged."""

    by: tuple[str, ...] = ()
    """Parameters of the family whose values are told apart; of several, every combination is a class."""
    bins: int = bounded(6, at_least=2, at_most=100)
    """Classes that the range of a quantity is cut into, of equal probability."""
    hold_out: tuple[str, ...] = ()
    """Classes that neither training nor calibration meets, by label or by regular expression such as .*calf; they
    are what is judged. Empty: a third of the classes, drawn by the seed."""
    seconds: tuple[float, ...] = bounded((), above=0)
    """Durations of a query at which it is judged, s, beside whole episodes. Empty: 0.25, 0.5, 1, 2, 4, 8, as far as an
    episode lasts."""
    ways: int = bounded(5, at_least=2)
    """Classes that a query is told apart from."""
    shots: int = bounded(5, at_least=1)
    """Supporting episodes of each of these classes."""
    tasks: int = bounded(12, at_least=4, at_most=10**5)
    """Tasks of each class."""
    episodes: int = bounded(3, at_least=1, at_most=10**5)
    """Episodes on each task."""
    draws: int = bounded(300, at_least=1, at_most=10**6)
    """Few-shot problems of `ways` that accuracies are means over; of more ways there are fewer."""
    false_alarms: float = bounded(0.05, above=0, below=1)
    """Share of episodes of the support's classes that may be called none of these."""
    explore: bool = False
    """Act with the policy's exploration noise. Not given: as a robot does until the agent has adapted."""
    seed: int = bounded(1, at_least=0)
    """Seed of tasks, episodes, training and judgement."""
    bootstrap_samples: int = bounded(1000, at_least=1)
    """Resamples of the bootstrap over tasks that computes the intervals."""
