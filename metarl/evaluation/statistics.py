"""Statistics of returns: interquartile mean, stratified bootstrap intervals (Agarwal 2021), worst tasks, and the number
of rounds that adaptation takes.

Pure functions of arrays. Axes: R agents trained alike with different training seeds, S evaluation seeds, K shots, M
tasks of a seed, n tasks of all seeds that are counted, B bootstrap samples. The axis R comes first and may be left out
for a single agent.

With several agents, every number is the mean over the agents, and its interval covers tasks and training seeds: see
`seed_deviations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.evaluation.records import listed, mapping, number, optional, whole
from metarl.files import plain

Array = NDArray[np.float64]

CONFIDENCE = 0.95
"""Coverage of every interval."""
WORST = 0.05
"""Share of the tasks that are averaged as the worst ones."""
REACHED = 0.9
"""Share of the way to a level at which the level counts as reached."""
UNBOUNDED, SHARE = (-math.inf, math.inf), (0.0, 1.0)
"""Lowest and highest value of a statistic: of any number, and of a share."""
SEED_DRAWS = 50
"""Draws of Student's t for each bootstrap sample: with two or three agents its quantiles lie far out."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % confidence interval."""

    estimate: float
    low: float
    high: float

    def includes(self, value: float) -> bool:
        """Return whether the value lies in the interval, ends included."""
        return self.low <= value <= self.high

    @classmethod
    def from_dict(cls, data: Any) -> Interval:
        """Return the interval that JSON holds, where an infinite end is None."""
        own = mapping(data, "an interval")
        ends = (optional(own[end], lambda value: number(value, "the end of an interval")) for end in ("low", "high"))
        low, high = ends
        estimate = number(own["estimate"], "the estimate of an interval")
        return cls(estimate, -math.inf if low is None else low, math.inf if high is None else high)


@dataclass(frozen=True)
class Summary:
    """Statistics of returns [R, S, K, M]; every list has one entry for each shot."""

    tasks_counted: int
    """Number of tasks, of all seeds, that the statistics are computed from."""
    tasks_left_out: int
    """Number of tasks left out: in some shot of some agent every one of their simulations broke down."""
    iqm: list[Interval]
    """Interquartile mean of the return, over tasks."""
    mean: list[Interval]
    """Mean of the return, over tasks."""
    std: list[float]
    """Standard deviation of the return between tasks, as in published tables of `mean ± std`."""
    gain: list[Interval]
    """Interquartile mean of (return of this shot - return of shot 0) of the same task; 0 for shot 0."""
    gain_mean: list[Interval]
    """Mean of (return of this shot - return of shot 0) of the same task."""
    trial_mean: Interval
    """Mean over tasks of the return averaged over all shots, as results of recurrent agents are published."""
    worst: list[Interval]
    """Mean return of the worst 5 % of the tasks (`worst_mean`); empty in files that were saved without it."""
    rounds_to_reach: Interval | None
    """Rounds of adaptation until the IQM of the return has risen by 90 % of its whole rise (`shots_to_reach`). None if
    the interval of the last gain does not lie above 0: then no rise is shown. An end is infinite if some resampled
    curve does not rise."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON, with None for a number that is not finite."""
        return plain(asdict(self))

    @classmethod
    def from_dict(cls, data: Any) -> Summary:
        """Return the summary that JSON holds.

        `rounds_to_reach` is None if no gain is shown, whatever an older file says.
        """
        own = mapping(data, "summary")

        def intervals(name: str) -> list[Interval]:
            return listed(own[name], f"summary.{name}", Interval.from_dict)

        gain = intervals("gain")
        reach = own.get("rounds_to_reach") if gain and gain[-1].low > 0 else None
        return cls(
            tasks_counted=whole(own["tasks_counted"], "summary.tasks_counted"),
            tasks_left_out=whole(own["tasks_left_out"], "summary.tasks_left_out"),
            iqm=intervals("iqm"),
            mean=intervals("mean"),
            std=listed(own["std"], "summary.std", lambda value: number(value, "summary.std")),
            gain=gain,
            gain_mean=intervals("gain_mean"),
            trial_mean=Interval.from_dict(own["trial_mean"]),
            worst=intervals("worst") if "worst" in own else [],
            rounds_to_reach=optional(reach, Interval.from_dict),
        )


def mean(values: Array) -> Array:
    """Return the mean along the last axis: 1/n sum_i x_i."""
    return np.mean(values, axis=-1)


def interquartile_mean(values: Array) -> Array:
    """Return the interquartile mean (IQM) along the last axis: the mean after a quarter is cut off at either end.

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
    """Return the returns [R, S, K, M] as [K, R, n], seed after seed, and the number of tasks of each seed among n.

    A task with a NaN in any shot of any agent is left out of all shots and agents, so that differences stay paired.
    Raises ValueError if no task is left.
    """
    if returns.ndim not in (3, 4):
        raise ValueError(f"returns have the shape {returns.shape}: expected [seed, shot, task]")
    stacked = by_run(returns, 3)
    counts = ~np.isnan(stacked).any(axis=(0, 2))  # [S, M]
    if not counts.any():
        raise ValueError(
            f"all {counts.size} tasks have a return of NaN: every simulation broke down; look at the family's "
            "parameter ranges, at the size of the actions and, if the environment is your own, at what it raised"
        )
    return np.moveaxis(stacked, 2, 0)[:, :, counts], counts.sum(axis=1).tolist()


def by_run(values: Array, axes: int) -> Array:
    """Return the values with the axis R before their other `axes`; it may be missing for a single agent."""
    return values if values.ndim > axes else values[None]


def seed_deviations(runs: int, num_samples: int, generator: np.random.Generator) -> Array:
    """Return weights [D, R] of agents trained with different seeds, for bootstrap samples of their mean; they sum to 0.

    d = (z - mean z) / sqrt(R (R - 1)) / sqrt(c / (R - 1)),  z_r ~ N(0, 1),  c ~ chi^2_{R - 1}

    With these weights, mean x + sum_r d_r x_r is distributed as mean x + s / sqrt(R) t_{R - 1}, with s the standard
    deviation of x over the agents: Student's interval, which has the right coverage for as few as three training seeds.
    Drawing agents with replacement would make it less than half as wide. A single agent has weight 0: its intervals
    cover tasks alone.

    D = B for a single agent, and `SEED_DRAWS` B otherwise. A number that is equal for all agents, such as wins on all
    tasks, does not vary: intervals of shares and probabilities of few agents are narrower than they should be.
    """
    if runs == 1:
        return np.zeros((num_samples, 1))
    draws = SEED_DRAWS * num_samples
    normal = generator.standard_normal((draws, runs))
    spread = np.sqrt(generator.chisquare(runs - 1, (draws, 1)) / (runs - 1))
    return (normal - normal.mean(axis=1, keepdims=True)) / spread / math.sqrt(runs * (runs - 1))


def stratified_resamples(sizes: list[int], num_samples: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return indices [B, n] that draw tasks with replacement within each stratum; strata follow one another.

    Raises ValueError if no stratum has two tasks: all resamples would be equal, and intervals would have width 0.
    """
    if max(sizes) < 2:
        raise ValueError(
            f"{max(sizes)} task a seed with a return in every round: an interval needs at least 2; raise "
            "evaluation.tasks, or mend what broke the simulations of the others"
        )
    if num_samples < 1:
        raise ValueError(f"evaluation.bootstrap_samples is {num_samples}: it must be at least 1")
    starts = np.cumsum([0, *sizes[:-1]])
    return np.concatenate(
        [start + generator.integers(0, max(n, 1), (num_samples, n)) for start, n in zip(starts, sizes, strict=True)],
        axis=1,
    )


def bootstrap_interval(
    values: Array,
    resamples: NDArray[np.int64],
    statistic: Callable[[Array], Array],
    deviations: Array | None = None,
    bounds: tuple[float, float] = UNBOUNDED,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the percentile bootstrap (Efron 1979) of a statistic of values [R, n], given resampled tasks [B, n].

    theta_i = mean_r statistic(x_r[resamples_b]) + sum_r d_ir statistic(x_r),  b = i mod B
    interval = [q_{0.025}(theta_1..D), q_{0.975}(theta_1..D)]

    deviations: d [D, R] of `seed_deviations`; None for a single agent. statistic: reduces the last axis. bounds: lowest
    and highest value that the statistic can have.
    """
    levels = np.atleast_1d(statistic(values))  # [R]
    draws = statistic(values[..., resamples]).reshape(len(levels), -1).mean(axis=0)
    if deviations is not None:
        draws = np.clip(over_seeds(draws, deviations, levels), *bounds)
    return percentiles(float(levels.mean()), draws, confidence)


def crossed_counts(runs: int, tasks: int, num_samples: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """Return how often each agent [B, R] and each task [B, n] is drawn with replacement; a single agent always once."""
    of_tasks = _times_drawn(stratified_resamples([tasks], num_samples, generator))
    if runs == 1:
        return np.ones((num_samples, 1)), of_tasks
    return _times_drawn(stratified_resamples([runs], num_samples, generator)), of_tasks


def _times_drawn(resamples: NDArray[np.int64]) -> Array:
    """Return how often each index is among the resamples [B, n], as [B, n]."""
    num_samples, n = resamples.shape
    places = resamples + n * np.arange(num_samples)[:, None]
    return np.bincount(places.ravel(), minlength=resamples.size).reshape(num_samples, n).astype(float)


def crossed_interval(values: Array, of_runs: Array, of_tasks: Array) -> Interval:
    """Return the mean of values [R, n] of agents on the same tasks, NaN where one has none, with its interval.

    Agents and tasks are resampled apart, each with all of its values (the pigeonhole bootstrap, Owen 2007): a task says
    nothing new where another agent meets it, nor an agent on another task. It is conservative; with one agent it is the
    bootstrap over tasks.

        theta_b = sum_rn u_br w_bn x_rn / sum_rn u_br w_bn,  over the values that there are

    of_runs, of_tasks: u [B, R] and w [B, n] of `crossed_counts`.
    """
    there = np.isfinite(values)
    totals, counts = (
        np.einsum("br,rn,bn->b", of_runs, own, of_tasks, optimize=True)
        for own in (np.where(there, values, 0.0), there.astype(float))
    )
    drawn = counts > 0
    return percentiles(float(values[there].mean()), totals[drawn] / counts[drawn])


def over_seeds(draws: Array, deviations: Array, levels: Array) -> Array:
    """Return draws [B] of a mean of agents, which vary with the tasks, as draws [D] that vary with training seeds too.

    deviations: [D, R] of `seed_deviations`. levels: [R], each agent's own value.
    """
    return np.resize(draws, len(deviations)) + deviations @ levels


def percentiles(estimate: float, draws: Array, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval between the quantiles of draws that leave out equal tails."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(estimate, float(low), float(high))


def summarise(returns: Array, num_samples: int, generator: np.random.Generator) -> Summary:
    """Return the summary of returns [R, S, K, M]; strata are the seeds S.

    Every number uses the same resampled tasks. Raises ValueError if no task is counted, or if there is one task a seed.
    """
    values, sizes = pool_tasks(np.asarray(returns, dtype=np.float64))  # [K, R, n]
    gains = values - values[0]
    resamples = stratified_resamples(sizes, num_samples, generator)
    deviations = seed_deviations(values.shape[1], num_samples, generator)

    def interval(values: Array, statistic: Callable[[Array], Array]) -> Interval:
        return bootstrap_interval(values, resamples, statistic, deviations)

    gain = [interval(g, interquartile_mean) for g in gains]
    n = values.shape[-1]
    return Summary(
        tasks_counted=n,
        tasks_left_out=returns.shape[-3] * returns.shape[-1] - n,
        iqm=[interval(v, interquartile_mean) for v in values],
        mean=[interval(v, mean) for v in values],
        std=[float(np.std(v, axis=-1, ddof=1).mean()) for v in values],
        gain=gain,
        gain_mean=[interval(g, mean) for g in gains],
        trial_mean=interval(values.mean(axis=0), mean),
        worst=[interval(v, worst_mean) for v in values],
        rounds_to_reach=curve_interval(
            values, resamples, shots_to_reach, interquartile_mean, [deviations] * len(values)
        )
        if gain[-1].low > 0
        else None,
    )


def worst_mean(values: Array, share: float = WORST) -> Array:
    """Return the conditional value at risk along the last axis: the mean of the worst values (Rockafellar 2000).

    CVaR_a = 1 / a  integral_0^a q(u) du, with the quantile function q of the sample: where a n is no whole number, the
    next worst value is weighted by the fraction that is left. With a n <= 1 it is the minimum.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of the worst values must lie in (0, 1], got {share:g}")
    n = values.shape[-1]
    weights = np.clip(share * n - np.arange(n), 0.0, 1.0)
    return np.sort(values, axis=-1) @ (weights / weights.sum())


def shots_to_reach(curves: Array, share: float = REACHED) -> Array:
    """Return the rounds of adaptation [...] until curves [..., K] have risen by `share` of their whole rise.

    min {k: R_k >= R_0 + share (R_K - R_0)}. A share of the rise, unlike a share of the last return, means the same for
    returns below 0. The first round at that level counts, even if the curve falls below it later. A curve that does not
    rise, R_K <= R_0, gives NaN.
    """
    first, last = curves[..., :1], curves[..., -1:]
    there = curves >= first + share * (last - first)
    return np.where((last > first)[..., 0], there.argmax(axis=-1), np.nan)


def task_interval(
    values: Array,
    statistic: Callable[[Array], Array],
    num_samples: int,
    generator: np.random.Generator,
    bounds: tuple[float, float] = UNBOUNDED,
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Return a statistic of values [R, S, M] over the tasks that have a value of every agent, with its interval.

    Strata are the seeds S. confidence: that the interval has the value. None if no seed has two tasks with a value.
    """
    found = counted_tasks(by_run(values, 2))
    if found is None:
        return None
    chosen, sizes = found
    resamples = stratified_resamples(sizes, num_samples, generator)
    deviations = seed_deviations(len(chosen), num_samples, generator)
    return bootstrap_interval(chosen, resamples, statistic, deviations, bounds, confidence)


def counted_tasks(values: Array) -> tuple[Array, list[int]] | None:
    """Return the values [R, n] of the tasks that have one of every agent, and the number of these tasks for each seed.

    None if no seed has two.
    """
    counts = ~np.isnan(values).any(axis=0)
    sizes = counts.sum(axis=1).tolist()
    return (values[:, counts], sizes) if max(sizes) >= 2 else None


def curve_interval(
    curves: Sequence[Array] | Array,
    resamples: NDArray[np.int64],
    statistic: Callable[[Array], Array],
    average: Callable[[Array], Array],
    deviations: Sequence[Array] | None = None,
) -> Interval | None:
    """Return the bootstrap interval of a statistic of average curves: C curves [R, n], resampled tasks [B, n].

    statistic: of average curves [..., C], such as `shots_to_reach`. A resample for which it is undefined (NaN) counts
    as infinite; the ends are values of resamples, not interpolated. deviations: one for each curve, as in
    `bootstrap_interval`. None if the statistic of the curves themselves is undefined.
    """
    tail = (1.0 - CONFIDENCE) / 2.0
    of_runs = [by_run(np.asarray(curve), 1) for curve in curves]
    levels = [average(curve) for curve in of_runs]  # C times [R]
    draws = [average(curve[:, resamples]).mean(axis=0) for curve in of_runs]  # C times [B]
    if deviations is not None:
        most = max(len(d) for d in deviations)
        joined = zip(draws, deviations, levels, strict=True)
        draws = [np.resize(over_seeds(draw, d, level), most) for draw, d, level in joined]
    averages = np.stack(draws, axis=-1)  # [B or D, C]
    drawn = np.nan_to_num(statistic(averages), nan=math.inf)
    low, high = np.quantile(drawn, tail, method="lower"), np.quantile(drawn, 1.0 - tail, method="higher")
    estimate = float(statistic(np.stack([level.mean() for level in levels], axis=-1)))
    return None if math.isnan(estimate) else Interval(estimate, float(low), float(high))
