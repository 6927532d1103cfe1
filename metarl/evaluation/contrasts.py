"""Contrasts with intervals: probability that one agent does better than another, share of an oracle's lead, difference
of returns between two sets of tasks. Axes are named in `metarl.evaluation.statistics`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from metarl.evaluation.statistics import (
    SHARE,
    Array,
    Interval,
    by_run,
    counted_tasks,
    curve_interval,
    interquartile_mean,
    mean,
    over_seeds,
    percentiles,
    seed_deviations,
    stratified_resamples,
)


def recovered_share(after: Array, before: Array, oracle: Array) -> Array:
    """Return (after - before) / (oracle - before), the share of the oracle's lead that adaptation recovers.

    The oracle's lead is what an agent that knows the task has over one that has not adapted. NaN where it is not above
    0.
    """
    gap = oracle - before
    return np.divide(after - before, gap, out=np.full(np.shape(gap), np.nan), where=gap > 0)


def share_interval(
    after: Array,
    before: Array,
    oracle: Array,
    num_samples: int,
    generator: np.random.Generator,
    same_agents: bool = True,
) -> Interval | None:
    """Return `recovered_share` of the IQM over the tasks [R, S, M] that have all three values, with its interval.

    The oracle has its own R; before has that of after if they are returns of the same agents, and its own otherwise.
    None if the oracle's lead is not shown: if it is not above 0, or not above 0 in so many resamples that the upper end
    of the share is infinite, which is when the interval of the lead includes 0.
    Raises ValueError if no seed has two such tasks.
    """

    def share(averages: Array) -> Array:
        return recovered_share(averages[..., 0], averages[..., 1], averages[..., 2])

    seeds = (0, 0, 1) if same_agents else (0, 1, 2)
    found = interval_of_levels([after, before, oracle], seeds, share, num_samples, generator)
    return found if found and math.isfinite(found.high) else None


def interval_of_levels(
    returns: Sequence[Array],
    seeds: Sequence[int],
    statistic: Callable[[Array], Array],
    num_samples: int,
    generator: np.random.Generator,
) -> Interval | None:
    """Return a statistic of the IQMs [..., C] of returns [R, S, M], C times, over the tasks that have all of them.

    seeds: for each of the returns the number of its set of agents; equal numbers are the same agents. None if the
    statistic of the IQMs themselves is undefined (NaN). Raises ValueError if no seed has two such tasks.
    """
    levels = [by_run(values, 2) for values in returns]
    counts = ~np.any([np.isnan(values).any(axis=0) for values in levels], axis=0)
    resamples = stratified_resamples(counts.sum(axis=1).tolist(), num_samples, generator)
    deviations = {k: seed_deviations(len(levels[seeds.index(k)]), num_samples, generator) for k in dict.fromkeys(seeds)}
    curves = [values[:, counts] for values in levels]
    return curve_interval(curves, resamples, statistic, interquartile_mean, [deviations[k] for k in seeds])


def probability_of_improvement(
    first: Array, second: Array, num_samples: int, generator: np.random.Generator, same_runs: bool = False
) -> tuple[Interval, int]:
    """Return P(X > Y) + P(X = Y) / 2 over the tasks [R, S, M] that have both values, and the number of these tasks.

    Each side has its own R: every agent of one side is set against every agent of the other (Agarwal 2021), here paired
    by task, as all met the same tasks. same_runs: both sides are the same R trained agents, used in two ways; then they
    are paired by agent too.
    Raises ValueError if no seed has two such tasks.
    """
    x, y = by_run(first, 2), by_run(second, 2)
    both = ~(np.isnan(x).any(axis=0) | np.isnan(y).any(axis=0))
    resamples = stratified_resamples(both.sum(axis=1).tolist(), num_samples, generator)
    own = seed_deviations(len(x), num_samples, generator)
    if same_runs:
        x, y, deviations = x[:, both], y[:, both], own
    else:
        theirs = seed_deviations(len(y), num_samples, generator)
        draws = max(len(own), len(theirs))
        own, theirs = (1.0 / d.shape[1] + np.resize(d, (draws, d.shape[1])) for d in (own, theirs))
        deviations = (own[:, :, None] * theirs[:, None, :]).reshape(draws, -1) - 1.0 / (len(x) * len(y))
        x, y = x[:, None, both], y[None, :, both]
    wins = (x > y) + 0.5 * (x == y)
    wins = wins.reshape(-1, wins.shape[-1])  # [R or R R, n]
    over_tasks = mean(wins.mean(axis=0)[resamples])
    draws = np.clip(over_seeds(over_tasks, deviations, mean(wins)), *SHARE)
    return percentiles(float(wins.mean()), draws), int(both.sum())


def difference_interval(
    first: Array,
    second: Array,
    statistic: Callable[[Array], Array],
    num_samples: int,
    generator: np.random.Generator,
) -> Interval | None:
    """Return statistic(first) - statistic(second) of the same agents on two independent sets of tasks, [R, S, M] each.

    The sets are resampled independently. None if one of them has no seed with two tasks that have a value.
    """
    draws, levels = [], []
    for values in (first, second):
        found = counted_tasks(by_run(values, 2))
        if found is None:
            return None
        chosen, sizes = found
        draws.append(statistic(chosen[:, stratified_resamples(sizes, num_samples, generator)]).mean(axis=0))
        levels.append(statistic(chosen))  # [R]
    apart = levels[0] - levels[1]
    deviations = seed_deviations(len(apart), num_samples, generator)
    return percentiles(float(apart.mean()), over_seeds(draws[0] - draws[1], deviations, apart))
