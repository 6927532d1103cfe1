"""Statistics of returns: interquartile mean and stratified bootstrap intervals (Agarwal 2021).

Pure functions of arrays. Axes: S evaluation seeds, K shots, M tasks of a seed; n the tasks of all seeds that count;
B bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CONFIDENCE = 0.95
"""Coverage of every interval that this project states."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % confidence interval."""

    estimate: float
    low: float
    high: float

    def includes(self, value: float) -> bool:
        """Whether the value lies in the interval, ends included."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Summary:
    """What is said about returns [S, K, M]; every list has one entry a shot."""

    tasks_counted: int
    """Tasks of all seeds that the numbers stand on."""
    tasks_left_out: int
    """Tasks left out because MuJoCo flagged every one of their simulations in some shot."""
    iqm: list[Interval]
    """Interquartile mean of the return, over tasks."""
    mean: list[Interval]
    """Mean of the return, over tasks."""
    std: list[float]
    """Standard deviation of the return between tasks: what published tables give as `mean ± std`."""
    gain: list[Interval]
    """Interquartile mean of (return of this shot - return of shot 0) of the same task; 0 for shot 0."""
    gain_mean: list[Interval]
    """Mean of that difference."""
    trial_mean: Interval
    """Mean over tasks of the return averaged over all shots: how recurrent agents are published."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


def mean(values: Array) -> Array:
    """Mean along the last axis: 1/n sum_i x_i."""
    return np.mean(values, axis=-1)


def interquartile_mean(values: Array) -> Array:
    """Interquartile mean (IQM) along the last axis: the mean after a quarter is cut off at either end.

    x_(1) <= ... <= x_(n) sorted, g = floor(n / 4):  IQM = 1 / (n - 2 g) * sum_{i = g + 1}^{n - g} x_(i)

    This is the 25 % trimmed mean, `scipy.stats.trim_mean(x, 0.25)`, which Agarwal 2021 (rliable) uses. Where n is no
    multiple of 4 it keeps whole values, unlike the variant that weights the two values at the quartiles.
    """
    n = values.shape[-1]
    cut = n // 4
    if cut == 0:
        return mean(values)
    return mean(np.partition(values, [cut, n - cut - 1], axis=-1)[..., cut : n - cut])


def pool_tasks(returns: Array) -> tuple[Array, list[int]]:
    """Returns [S, K, M] as [K, n], seed after seed, and how many tasks each seed has in it.

    A task with a NaN in any shot is left out of all shots, so that differences between shots stay paired by task.
    Raises ValueError if no task is left.
    """
    if returns.ndim != 3:
        raise ValueError(f"returns have the shape {returns.shape}: expected [seed, shot, task]")
    counts = ~np.isnan(returns).any(axis=1)  # [S, M]
    if not counts.any():
        raise ValueError(
            f"all {counts.size} tasks have a return of NaN: MuJoCo flagged every simulation; "
            "look at the family's parameter ranges and at the size of the actions"
        )
    return np.moveaxis(returns, 1, 0)[:, counts], counts.sum(axis=1).tolist()


def stratified_resamples(sizes: list[int], num_samples: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Indices [B, n] that draw tasks with replacement within each stratum, strata laid one after another.

    Raises ValueError if no stratum has two tasks: its resamples would all be alike, its intervals of width 0.
    """
    if max(sizes) < 2:
        raise ValueError(f"{max(sizes)} task a seed: an interval needs at least 2; raise evaluation.tasks")
    if num_samples < 1:
        raise ValueError(f"evaluation.bootstrap_samples is {num_samples}: it must be at least 1")
    starts = np.cumsum([0, *sizes[:-1]])
    return np.concatenate(
        [start + generator.integers(0, max(n, 1), (num_samples, n)) for start, n in zip(starts, sizes, strict=True)],
        axis=1,
    )


def bootstrap_interval(values: Array, resamples: NDArray[np.int64], statistic: Callable[[Array], Array]) -> Interval:
    """Percentile bootstrap (Efron 1979) of a statistic of values [n], given resampled indices [B, n].

    theta_b = statistic(x[resamples_b]);  interval = [q_{0.025}(theta_1..B), q_{0.975}(theta_1..B)]
    """
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(statistic(values[resamples]), [tail, 1.0 - tail])
    return Interval(estimate=float(statistic(values)), low=float(low), high=float(high))


def summarise(returns: Array, num_samples: int, generator: np.random.Generator) -> Summary:
    """The summary of returns [S, K, M]; strata are the seeds.

    Every number uses the same resampled tasks. Raises ValueError if no task counts, or if there is one task a seed.
    """
    values, sizes = pool_tasks(np.asarray(returns, dtype=np.float64))  # [K, n]
    gains = values - values[0]
    resamples = stratified_resamples(sizes, num_samples, generator)
    n = values.shape[1]
    return Summary(
        tasks_counted=n,
        tasks_left_out=returns.shape[0] * returns.shape[2] - n,
        iqm=[bootstrap_interval(v, resamples, interquartile_mean) for v in values],
        mean=[bootstrap_interval(v, resamples, mean) for v in values],
        std=[float(np.std(v, ddof=1)) for v in values],
        gain=[bootstrap_interval(g, resamples, interquartile_mean) for g in gains],
        gain_mean=[bootstrap_interval(g, resamples, mean) for g in gains],
        trial_mean=bootstrap_interval(values.mean(axis=0), resamples, mean),
    )
