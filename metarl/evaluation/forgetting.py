"""Forgetting: an agent adapts to task A, then to another task B, and comes back to A with its belief kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from metarl.envs.family import TaskFamily
from metarl.envs.task import Task
from metarl.errors import UsageError
from metarl.evaluation.binning import REWARD_RATE, Binned
from metarl.evaluation.records import Record, array, listed, mapping, optional
from metarl.evaluation.statistics import (
    REACHED,
    Array,
    Interval,
    bootstrap_interval,
    curve_interval,
    interquartile_mean,
    pool_tasks,
    seed_deviations,
    stratified_resamples,
)
from metarl.evaluation.time_course import (
    early_weights,
    grown,
    late_weights,
    resampler_of,
    running_rate,
    seconds_to_reach,
)
from metarl.files import plain


@dataclass(frozen=True)
class Revisit:
    """Outcome of the shots on B and of those back on A."""

    returns: Array
    """[R, S, shots on B and back on A, M], as `TrialOutcome.returns`."""
    back: Binned
    """Values in bins of time back on A."""

    @staticmethod
    def pool(parts: Sequence[Revisit]) -> Revisit:
        """Return the outcome of several agents on the same tasks as that of R agents."""
        returns = np.concatenate([part.returns for part in parts])
        return Revisit(returns, Binned.pool([part.back for part in parts]))


@dataclass(frozen=True, eq=False, kw_only=True)
class Forgetting(Record):
    """Returns of an agent on A, on B and on A again, and what it lost on A."""

    returns: Array
    """[seed, shot, task] on B, then as many shots back on A; means over the agents if several were trained alike."""
    before: Interval
    """IQM of the return of the last episode on A before B."""
    other: Sequence[Interval]
    """IQM of the return on B, one for each shot."""
    back: Sequence[Interval]
    """IQM of the return back on A, one for each shot."""
    difference: Interval
    """IQM of (return of the first episode back on A - return of the last episode before) of the same task: below 0 is
    lost."""
    rounds: Interval | None
    """Rounds of adaptation back on A until 90 % of what was lost is regained. None if no loss is shown, which is if the
    interval of the difference does not lie below 0, or if it is not regained."""
    seconds: Interval | None
    """Seconds back on A until 90 % of the lost reward per second is regained, see `seconds_to_close`. None as for
    `rounds`."""

    @property
    def lost(self) -> bool:
        """Whether a loss is shown."""
        return self.difference.high < 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON, with None for a number that is not finite."""
        return {
            "before": plain(asdict(self.before)),
            "other": [plain(asdict(interval)) for interval in self.other],
            "back": [plain(asdict(interval)) for interval in self.back],
            "difference": plain(asdict(self.difference)),
            "rounds": plain(self.rounds and asdict(self.rounds)),
            "seconds": plain(self.seconds and asdict(self.seconds)),
            "returns": plain(self.returns),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Forgetting:
        """Return the record that JSON holds."""
        own = mapping(data, "forgetting")
        return cls(
            returns=array(own["returns"], "forgetting.returns", 3),
            before=Interval.from_dict(own["before"]),
            other=listed(own["other"], "forgetting.other", Interval.from_dict),
            back=listed(own["back"], "forgetting.back", Interval.from_dict),
            difference=Interval.from_dict(own["difference"]),
            rounds=optional(own["rounds"], Interval.from_dict),
            seconds=optional(own["seconds"], Interval.from_dict),
        )


def other_tasks(tasks: Sequence[Task], family: TaskFamily) -> list[Task]:
    """Return another task for each one: the next of them with other values, on a model of the same layout.

    After the last task comes the first. UsageError if there is none.
    """
    others = []
    for place, task in enumerate(tasks):
        layout = family.layout_of(task)
        following = (*tasks[place + 1 :], *tasks[:place])
        other = next((other for other in following if other != task and family.layout_of(other) == layout), None)
        if other is None:
            raise UsageError(
                f"evaluation.revisit needs a second task for {dict(task.values)}, with other values on a robot of the "
                f"same layout, and the {len(tasks)} tasks of a seed have none; raise evaluation.tasks"
            )
        others.append(other)
    return others


def forgetting(
    returns: Array, first: Binned, revisit: Revisit, samples: int, rng: np.random.Generator
) -> Forgetting | None:
    """Return what was lost and regained; None if fewer than two tasks of a seed have all their returns.

    returns: [R, S, K, M] on A before B. first: values in bins of time there. samples: of the bootstrap.
    """
    shots = returns.shape[2]
    try:
        values, sizes = pool_tasks(np.concatenate([returns, revisit.returns], axis=2))  # [3 K, R, n]
        resamples = stratified_resamples(sizes, samples, rng)
    except ValueError:
        return None
    deviations = seed_deviations(values.shape[1], samples, rng)

    def interval(own: Array) -> Interval:
        return bootstrap_interval(own, resamples, interquartile_mean, deviations)

    difference = interval(values[2 * shots] - values[shots - 1])
    curves = [values[shots - 1], *values[2 * shots :]]
    lost = difference.high < 0
    rounds = curve_interval(curves, resamples, rounds_to_regain, interquartile_mean, [deviations] * len(curves))
    return Forgetting(
        returns=revisit.returns.mean(axis=0),
        before=interval(values[shots - 1]),
        other=[interval(own) for own in values[shots : 2 * shots]],
        back=[interval(own) for own in values[2 * shots :]],
        difference=difference,
        rounds=_finite(rounds) if lost else None,
        seconds=_finite(_seconds(first, revisit.back, samples, rng)) if lost else None,
    )


def _finite(interval: Interval | None) -> Interval | None:
    return interval if interval is not None and math.isfinite(interval.estimate) else None


def _seconds(first: Binned, back: Binned, samples: int, rng: np.random.Generator) -> Interval | None:
    """Return the seconds until the gap to the last episode before, at the same time of the episode, has closed.

    None if it closes because robots fall, see `grown`.
    """
    before = first.values[REWARD_RATE][:, :, -first.bins :]
    gap = np.tile(before, (1, 1, back.episodes, 1)) - back.values[REWARD_RATE]
    tasks = resampler_of(gap, samples, rng)
    if tasks is None:
        return None
    found, rates = tasks.mean(gap), tasks.rates(back)
    start, end = (running_rate(rates, weights) for weights in (early_weights(back), late_weights(back)))
    shown = grown(start, end, found.deviations)
    return found.statistic(lambda curve: seconds_to_close(curve, back)) if shown else None


def rounds_to_regain(curves: Array, share: float = REACHED) -> Array:
    """Return the rounds back on A until a share of what was lost is regained; curves: [..., before and each shot back].

    min {k: B_k >= B_0 + share (L - B_0)} with the return before, L, and those back, B_k. Infinite if it is not
    regained, NaN where nothing was lost.
    """
    before, back = curves[..., :1], curves[..., 1:]
    there = back >= back[..., :1] + share * (before - back[..., :1])
    rounds = np.where(there.any(axis=-1), there.argmax(axis=-1), math.inf)
    return np.where((before > back[..., :1])[..., 0], rounds, np.nan)


def seconds_to_close(gaps: Array, clock: Binned, share: float = REACHED) -> Array:
    """Return the seconds until gaps [..., bins] have closed by a share of the largest gap of the first episode.

    They count as closed as in `seconds_to_reach`. Infinite if a gap does not close, NaN where there is none.
    """
    first = gaps[..., : clock.bins]
    widest = first.max(axis=-1)
    closed = seconds_to_reach(-gaps, -(1.0 - share) * widest, clock, first.argmax(axis=-1))
    return np.where(widest > 0, closed, np.nan)
