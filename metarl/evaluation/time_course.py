"""Time courses over tasks, with intervals, and the seconds that adaptation takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarl.evaluation.binning import REWARD_RATE, RUNNING, SUCCESS, Binned
from metarl.evaluation.records import Record, array, listed, mapping, number, optional, whole
from metarl.evaluation.statistics import (
    CONFIDENCE,
    REACHED,
    SHARE,
    UNBOUNDED,
    Array,
    Interval,
    over_seeds,
    percentiles,
    seed_deviations,
    stratified_resamples,
)
from metarl.files import plain

EARLY, LATE = 0.1, 0.25
"""Share of the first episode whose mean is the start, and of the last episode whose mean is the adapted level."""
ENDS = ("estimate", "low", "high")
ROUNDING = 1e-9
"""Share of the level below which a rise is one of rounding."""
DIGITS = 5
"""Significant digits of a saved curve."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TimeCourse(Record):
    """Means over tasks against time, over a trial or after a change of the tasks, and how fast the reward rises."""

    change: int = 0
    """Number of the change that time is counted from, from 1 on; 0: the start of the trial."""
    episodes: int
    """Episodes, one after another; 1 after a change."""
    ends_s: Array
    """[bins] end of each bin, s from the start of an episode or from the change."""
    changes_s: Sequence[tuple[float, float]] = ()
    """First and last second of the trial at which a task has its first change, its second, and so on."""
    memory: bool = True
    """Whether the agent remembers anything of the task from one action or episode to the next."""
    tasks: int
    """Number of tasks that are counted."""
    curves: Mapping[str, Array]
    """[3, episodes x bins] estimate, low and high end of the mean over tasks, by name: reward_rate is the reward per
    second, success the share of episodes that are successful so far. NaN where fewer than two tasks have a value."""
    total: Interval | None = None
    """Reward over all bins: the return of the trial, or what comes after the change. None in records of before."""
    level: Interval
    """Reward per second in the last quarter of the last episode, or of the time after the change."""
    rise: Interval
    """That level - the reward per second in the first tenth of the first episode, or of the time after the change."""
    seconds: Interval | None
    """Seconds until 90 % of the rise, see `seconds_to_reach`. None if the interval of the rise does not lie above 0, if
    the agent has no memory: then its rise is that of a robot that starts from rest, or if it is one of falling."""

    @property
    def seconds_of_trial(self) -> Array:
        """[episodes x bins] middle of each bin, s from the start of the trial or from the change."""
        widths = np.diff(self.ends_s, prepend=0.0)
        return np.cumsum(np.tile(widths, self.episodes)) - np.tile(widths, self.episodes) / 2

    @property
    def episode_ends_s(self) -> Array:
        """[episodes] end of each episode, s from the start of the trial."""
        return self.ends_s[-1] * np.arange(1, self.episodes + 1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON, with None for a number that is not finite."""
        return {
            "change": self.change,
            "episodes": self.episodes,
            "memory": self.memory,
            "tasks": self.tasks,
            "total": plain(self.total and asdict(self.total)),
            "level": plain(asdict(self.level)),
            "rise": plain(asdict(self.rise)),
            "seconds": plain(self.seconds and asdict(self.seconds)),
            "changes_s": _rounded(np.array(self.changes_s)),
            "ends_s": _rounded(self.ends_s),
            "curves": {name: dict(zip(ENDS, map(_rounded, curve), strict=True)) for name, curve in self.curves.items()},
        }

    @classmethod
    def from_dict(cls, data: Any) -> TimeCourse:
        """Return the time course that JSON holds."""
        own = mapping(data, "a time course")
        curves = {
            name: np.stack([array(mapping(curve, name)[end], f"curves.{name}.{end}", 1) for end in ENDS])
            for name, curve in mapping(own["curves"], "curves").items()
        }
        episodes, ends = whole(own["episodes"], "episodes"), array(own["ends_s"], "ends_s", 1)
        for name, curve in curves.items():
            if curve.shape[1] != episodes * len(ends):
                raise ValueError(f"curves.{name} has {curve.shape[1]} bins: {episodes * len(ends)} are needed")

        def ends_of(pair: Any) -> tuple[float, float]:
            low, high = listed(pair, "changes_s", lambda value: number(value, "changes_s"))
            return low, high

        return cls(
            change=whole(own["change"], "change"),
            episodes=episodes,
            ends_s=ends,
            changes_s=listed(own["changes_s"], "changes_s", ends_of),
            memory=bool(own["memory"]),
            tasks=whole(own["tasks"], "tasks"),
            curves=curves,
            total=optional(own.get("total"), Interval.from_dict),
            level=Interval.from_dict(own["level"]),
            rise=Interval.from_dict(own["rise"]),
            seconds=optional(own["seconds"], Interval.from_dict),
        )


def _rounded(values: Array) -> list[Any]:
    """Return an array as nested lists for JSON, with `DIGITS` significant digits and None for NaN."""
    return plain(np.vectorize(lambda value: float(f"{value:.{DIGITS}g}"), otypes=[float])(values))


@dataclass(frozen=True)
class MemoryGap:
    """Reward per second that an agent's memory adds: that of the agent - that of the same agent with its memory reset
    before every action, on the same tasks and starts."""

    level: Interval
    """The gap in the last quarter of the last episode."""
    seconds: Interval | None
    """Seconds until 90 % of that gap, see `seconds_to_reach`; None if its interval does not lie above 0, or if the gap
    is one of falling."""

    @classmethod
    def from_dict(cls, data: Any) -> MemoryGap:
        """Return the gap that JSON holds."""
        own = mapping(data, "memory_gap")
        return cls(Interval.from_dict(own["level"]), optional(own["seconds"], Interval.from_dict))


class Resampled(NamedTuple):
    """Mean curves over n tasks: of each agent, and of resampled tasks."""

    levels: Array
    """[R, bins] mean over the tasks that have a value, of each agent."""
    draws: Array
    """[B, bins] the same over resampled tasks, mean over the agents."""
    deviations: Array
    """[D, R] of `seed_deviations`."""

    def interval(self, weights: Array, bounds: tuple[float, float] = UNBOUNDED) -> Interval:
        """Return a weighted sum over the bins, [bins] weights, with its interval."""
        levels = self.levels @ weights
        drawn = np.clip(over_seeds(self.draws @ weights, self.deviations, levels), *bounds)
        return percentiles(float(levels.mean()), drawn)

    def curve(self, bounds: tuple[float, float]) -> Array:
        """Return estimate, low and high end of each bin, [3, bins]; NaN where some resample has no task."""
        result = np.full((3, self.levels.shape[1]), np.nan)
        for i in np.flatnonzero(np.isfinite(self.draws).all(axis=0) & np.isfinite(self.levels).all(axis=0)):
            drawn = over_seeds(self.draws[:, i], self.deviations, self.levels[:, i])
            found = percentiles(float(self.levels[:, i].mean()), np.clip(drawn, *bounds))
            result[:, i] = found.estimate, found.low, found.high
        return result

    def statistic(self, function: Callable[[Array], Array]) -> Interval | None:
        """Return a statistic [...] of mean curves [..., bins] with its interval, whose ends are values of resamples.

        A resample for which it is undefined (NaN) counts as infinite. None if it is undefined for the curve itself.
        """
        estimate = float(function(self.levels.mean(axis=0)))
        if math.isnan(estimate):
            return None
        turns = len(self.deviations) // len(self.draws)
        chunks = self.deviations.reshape(turns, len(self.draws), -1)  # each with all resamples of the tasks
        drawn = np.concatenate([function(self.draws + own @ self.levels) for own in chunks])
        tail = (1.0 - CONFIDENCE) / 2.0
        drawn = np.nan_to_num(drawn, nan=math.inf, posinf=math.inf)
        low, high = np.quantile(drawn, tail, method="lower"), np.quantile(drawn, 1.0 - tail, method="higher")
        return Interval(estimate, float(low), float(high))


class Resampler:
    """Resamples of the tasks that have a reward in every bin, the same for all curves."""

    def __init__(self, counted: NDArray[np.bool_], runs: int, samples: int, rng: np.random.Generator):
        """counted: [S, M] bool. runs: R. ValueError if no seed has two such tasks."""
        self.counted = counted
        resamples = stratified_resamples(counted.sum(axis=1).tolist(), samples, rng)
        self._counts = np.zeros((samples, int(counted.sum())))
        np.add.at(self._counts, (np.arange(samples)[:, None], resamples), 1.0)
        self._deviations = seed_deviations(runs, samples, rng)

    def mean(self, values: Array) -> Resampled:
        """Return the mean curves of values [R, S, bins, M] over the tasks that have one, bin by bin."""
        chosen = np.moveaxis(values, 2, 1)[:, :, self.counted]  # [R, bins, n]
        there = ~np.isnan(chosen)
        filled = np.where(there, chosen, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            levels = filled.sum(axis=2) / there.sum(axis=2)
            draws = [self._counts @ own.T / (self._counts @ has.T) for own, has in zip(filled, there, strict=True)]
        return Resampled(levels, np.mean(draws, axis=0), self._deviations)

    def rates(self, values: Binned) -> dict[str, Resampled]:
        """Return the mean curves of the reward per second and, where it is known, of the share of running episodes."""
        return {name: self.mean(values.values[name]) for name in (REWARD_RATE, RUNNING) if name in values.values}


def resampler_of(rates: Array, samples: int, rng: np.random.Generator) -> Resampler | None:
    """Return resamples of the tasks whose rates [R, S, bins, M] are all there; None if no seed has two."""
    counted = np.asarray(~np.isnan(rates).any(axis=(0, 2)))
    return Resampler(counted, len(rates), samples, rng) if counted.sum(axis=1).max() >= 2 else None


def time_course(values: Binned, samples: int, rng: np.random.Generator) -> TimeCourse | None:
    """Return the time course of the values of tasks; None if no seed has two tasks with a reward in every bin.

    samples: of the bootstrap.
    """
    rates = values.values[REWARD_RATE]
    tasks = resampler_of(rates, samples, rng)
    if tasks is None:
        return None
    curves = {name: tasks.mean(own) for name, own in values.values.items()}
    rate, early, late = curves[REWARD_RATE], early_weights(values), late_weights(values)
    level, rise = rate.interval(late), rate.interval(late - early)
    start, end = running_rate(curves, early), running_rate(curves, late)
    risen = rise.low > ROUNDING * abs(level.estimate) and grown(start, end, rate.deviations)
    shown = values.memory and risen
    return TimeCourse(
        change=values.change,
        episodes=values.episodes,
        ends_s=values.ends_s,
        changes_s=values.changes_s,
        memory=values.memory,
        tasks=int(tasks.counted.sum()),
        curves={
            name: own.curve(SHARE if name == SUCCESS else UNBOUNDED) for name, own in curves.items() if name != RUNNING
        },
        total=rate.interval(values.widths_s),
        level=level,
        rise=rise,
        seconds=rate.statistic(lambda curve: seconds_to_rise(curve, early, values)) if shown else None,
    )


def memory_gap(own: Binned, reset: Binned, samples: int, rng: np.random.Generator) -> MemoryGap | None:
    """Return what an agent's memory adds. reset: the same R agents, with the memory reset before every action.

    None if no seed has two tasks with a reward in every bin of both.
    """
    apart = own.values[REWARD_RATE] - reset.values[REWARD_RATE]
    tasks = resampler_of(apart, samples, rng)
    if tasks is None:
        return None
    gap = tasks.mean(apart)
    late = late_weights(own)
    level = gap.interval(late)
    without, remembering = (running_rate(tasks.rates(each), late) for each in (reset, own))
    shown = level.low > 0 and grown(without, remembering, gap.deviations)
    nothing = np.zeros(apart.shape[2])
    return MemoryGap(level, gap.statistic(lambda curve: seconds_to_rise(curve, nothing, own)) if shown else None)


def running_rate(curves: Mapping[str, Resampled], weights: Array) -> tuple[Array, Array]:
    """Return the mean reward per second of the episodes that are running, of each agent [R] and of resamples [B].

    curves: by name, of `Resampler.rates`. weights: of the bins, [bins]. NaN where no episode runs. In records of
    before, and where no early end is a fall, all count as running.
    """
    rate, share = curves[REWARD_RATE], curves.get(RUNNING)
    if share is None:
        return rate.levels @ weights, rate.draws @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        return rate.levels @ weights / (share.levels @ weights), rate.draws @ weights / (share.draws @ weights)


def grown(before: tuple[Array, Array], after: tuple[Array, Array], deviations: Array) -> bool:
    """Return whether a higher rate is one of robots that run, and not one of falling; before, after: `running_rate`.

    A robot that has fallen has 0 per second, which is more than a reward below 0: then the interval of what the rate of
    those that run has gained must lie above 0. deviations: of `seed_deviations`.
    """
    if not before[0].mean() < 0:  # nor where none runs any more
        return True
    levels, draws = after[0] - before[0], after[1] - before[1]
    if not (np.isfinite(levels).all() and np.isfinite(draws).all()):
        return False
    return percentiles(float(levels.mean()), over_seeds(draws, deviations, levels)).low > 0


def early_weights(clock: Binned) -> Array:
    """Return the weights [bins] of the mean over the first tenth of the first episode, a bin at the least."""
    first = clock.starts_s < max(EARLY * clock.ends_s[-1], clock.ends_s[0]) - 1e-9
    return clock.widths_s * first / (clock.widths_s * first).sum()


def late_weights(clock: Binned) -> Array:
    """Return the weights [bins] of the mean over the last quarter of the last episode, a bin at the least."""
    ends = clock.starts_s + clock.widths_s
    last = ends > min(ends[-1] - LATE * clock.ends_s[-1], clock.starts_s[-1]) + 1e-9
    return clock.widths_s * last / (clock.widths_s * last).sum()


def seconds_to_rise(curves: Array, early: Array, clock: Binned, share: float = REACHED) -> Array:
    """Return the seconds until curves [..., bins] have risen by a share of their rise from the start to the late level.

    level = start + share (late - start), which unlike a share of the late level means the same for rewards below 0.
    early: weights of the start; all 0 for a gap, which starts at 0. NaN where the curve does not rise.
    """
    start, late = curves @ early, curves @ late_weights(clock)
    return np.where(late > start, seconds_to_reach(curves, start + share * (late - start), clock), np.nan)


def seconds_to_reach(curves: Array, level: Array, clock: Binned, since: Array | None = None) -> Array:
    """Return the seconds until curves [..., bins] reach a level [...]: the start of the first bin that counts, on a
    robot that plays the episodes of a round one after another.

    A bin counts if its value is not below the level, and the mean from there to the end of its episode is not either: a
    moment above the level is not enough. since: [...] first bin that may count. Infinite where no bin counts.
    """
    by_episode = (*curves.shape[:-1], clock.episodes, clock.bins)
    widths = clock.widths_s.reshape(clock.episodes, clock.bins)
    total = np.cumsum((curves.reshape(by_episode) * widths)[..., ::-1], axis=-1)[..., ::-1]
    rest = (total / np.cumsum(widths[..., ::-1], axis=-1)[..., ::-1]).reshape(curves.shape)
    there = (curves >= level[..., None]) & (rest >= level[..., None])
    if since is not None:
        there &= np.arange(curves.shape[-1]) >= since[..., None]
    return np.where(there.any(axis=-1), clock.robot_s[there.argmax(axis=-1)], math.inf)
