"""Statistics of returns and of adaptation: interquartile mean, stratified bootstrap intervals (Agarwal 2021), worst
tasks, speed of adaptation, recovery after changes, one agent against another.

Pure functions of arrays. Axes: R agents that were trained alike with different training seeds, S evaluation seeds, K
shots, M tasks of a seed; n the tasks of all seeds that count; B bootstrap samples. Where R comes first it may be left
out for a single agent.

Of several agents every number is the mean over them, and its interval is over tasks and training seeds: see
`seed_deviations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.files import plain

Array = NDArray[np.float64]

CONFIDENCE = 0.95
"""Coverage of every interval that this project states."""
WORST = 0.05
"""Share of the tasks that counts as the worst ones."""
REACHED = 0.9
"""Share of the way at which a level counts as reached."""
UNBOUNDED, SHARE = (-math.inf, math.inf), (0.0, 1.0)
"""Bounds of a statistic."""
SEED_DRAWS = 50
"""Draws of Student's t for each bootstrap sample: its quantiles for two or three agents are far out."""
RECOVERY_WINDOW = 20
"""Control steps over which the reward around a change is averaged."""


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
    """What is said about returns [R, S, K, M]; every list has one entry a shot."""

    tasks_counted: int
    """Tasks of all seeds that the numbers stand on."""
    tasks_left_out: int
    """Tasks left out because MuJoCo flagged every one of their simulations in some shot, of some agent."""
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

    worst: list[Interval]
    """Mean return of the worst 5 % of the tasks (`worst_mean`)."""
    rounds_to_reach: Interval | None
    """Rounds of adaptation after which the IQM of the return has gone 90 % of its way (`shots_to_reach`); None if the
    interval of the last gain does not lie above 0, so that there is no way to speak of. An end is infinite where a
    resampled curve does not rise."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; what is not finite is None."""
        return plain(asdict(self))


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
    """Returns [R, S, K, M] as [K, R, n], seed after seed, and how many tasks each seed has in it.

    A task with a NaN in any shot of any agent is left out of all, so that differences stay paired by task.
    Raises ValueError if no task is left.
    """
    if returns.ndim not in (3, 4):
        raise ValueError(f"returns have the shape {returns.shape}: expected [seed, shot, task]")
    stacked = by_run(returns, 3)
    counts = ~np.isnan(stacked).any(axis=(0, 2))  # [S, M]
    if not counts.any():
        raise ValueError(
            f"all {counts.size} tasks have a return of NaN: MuJoCo flagged every simulation; "
            "look at the family's parameter ranges and at the size of the actions"
        )
    return np.moveaxis(stacked, 2, 0)[:, :, counts], counts.sum(axis=1).tolist()


def by_run(values: Array, axes: int) -> Array:
    """Values with the axis R before their other `axes`, as it is left out for a single agent."""
    return values if values.ndim > axes else values[None]


def seed_deviations(runs: int, num_samples: int, generator: np.random.Generator) -> Array:
    """Weights [D, R], which sum to 0, of agents trained with different seeds, in bootstrap samples of their mean.

    d = (z - mean z) / sqrt(R (R - 1)) / sqrt(c / (R - 1)),  z_r ~ N(0, 1),  c ~ chi^2_{R - 1}

    With these, mean x + sum_r d_r x_r is distributed as mean x + s / sqrt(R) t_{R - 1}, s the standard deviation of x
    over the agents: Student's interval, which is as wide as three training seeds deserve. Drawing agents with
    replacement makes it less than half as wide. A single agent has 0: its intervals are over tasks alone.

    D = B for a single agent, and `SEED_DRAWS` B otherwise. What does not differ between the agents at hand, such as
    wins on all tasks, does not vary: shares and probabilities of few agents are narrower than they should be.
    """
    if runs == 1:
        return np.zeros((num_samples, 1))
    draws = SEED_DRAWS * num_samples
    normal = generator.standard_normal((draws, runs))
    spread = np.sqrt(generator.chisquare(runs - 1, (draws, 1)) / (runs - 1))
    return (normal - normal.mean(axis=1, keepdims=True)) / spread / math.sqrt(runs * (runs - 1))


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


def bootstrap_interval(
    values: Array,
    resamples: NDArray[np.int64],
    statistic: Callable[[Array], Array],
    deviations: Array | None = None,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Interval:
    """Percentile bootstrap (Efron 1979) of a statistic of values [R, n], given resampled tasks [B, n].

    theta_i = mean_r statistic(x_r[resamples_b]) + sum_r d_ir statistic(x_r),  b = i mod B
    interval = [q_{0.025}(theta_1..D), q_{0.975}(theta_1..D)]

    deviations: d [D, R] of `seed_deviations`; None for a single agent. statistic: of the last axis. bounds: of what the
    statistic can be.
    """
    levels = np.atleast_1d(statistic(values))  # [R]
    draws = statistic(values[..., resamples]).reshape(len(levels), -1).mean(axis=0)
    if deviations is not None:
        draws = np.clip(_over_seeds(draws, deviations, levels), *bounds)
    return _percentiles(float(levels.mean()), draws)


def _over_seeds(draws: Array, deviations: Array, levels: Array) -> Array:
    """Draws [B] over tasks of the mean of agents at levels [R], as draws [D] over training seeds too."""
    return np.resize(draws, len(deviations)) + deviations @ levels


def _percentiles(estimate: float, draws: Array) -> Interval:
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(estimate, float(low), float(high))


def summarise(returns: Array, num_samples: int, generator: np.random.Generator) -> Summary:
    """The summary of returns [R, S, K, M]; strata are the seeds S.

    Every number uses the same resampled tasks. Raises ValueError if no task counts, or if there is one task a seed.
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
    """Conditional value at risk along the last axis: the mean of the worst share of the values (Rockafellar 2000).

    CVaR_a = 1 / a  integral_0^a q(u) du, with the quantile function q of the sample: where a n is no whole number, the
    next worst value counts by the fraction that is left. Of a n <= 1 values it is the minimum.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of the worst values must lie in (0, 1], got {share:g}")
    n = values.shape[-1]
    weights = np.clip(share * n - np.arange(n), 0.0, 1.0)
    return np.sort(values, axis=-1) @ (weights / weights.sum())


def shots_to_reach(curves: Array, share: float = REACHED) -> Array:
    """Rounds of adaptation [...] until curves [..., K] have gone `share` of their way from shot 0 to the last shot.

    min {k: R_k >= R_0 + share (R_K - R_0)}. A share of the way, and not of the last return, means the same for returns
    below 0. A curve that goes up and down counts from where it is first there; one that goes back and forth for
    nothing, R_K <= R_0, has no way to go and gives NaN.
    """
    first, last = curves[..., :1], curves[..., -1:]
    there = curves >= first + share * (last - first)
    return np.where((last > first)[..., 0], there.argmax(axis=-1), np.nan)


def recovered_share(after: Array, before: Array, oracle: Array) -> Array:
    """(after - before) / (oracle - before): share of what an agent that knows the task has over one that has not
    adapted, which adaptation recovers. NaN where the oracle is not better."""
    gap = oracle - before
    return np.divide(after - before, gap, out=np.full(np.shape(gap), np.nan), where=gap > 0)


def share_interval(
    after: Array, before: Array, oracle: Array, num_samples: int, generator: np.random.Generator
) -> Interval | None:
    """`recovered_share` of the IQM over the tasks [R, S, M] that all three have a value of; the oracle has its own R.

    None where the oracle's lead is not shown: where it is none, or where so many resamples have none that the upper end
    of the share is infinite, which is where the lower end of the lead's own interval is not above 0.
    Raises ValueError if no seed has two such tasks.
    """
    levels = [by_run(values, 2) for values in (after, before, oracle)]
    counts = ~np.any([np.isnan(values).any(axis=0) for values in levels], axis=0)
    resamples = stratified_resamples(counts.sum(axis=1).tolist(), num_samples, generator)
    own, theirs = (seed_deviations(len(levels[i]), num_samples, generator) for i in (0, 2))
    curves = [values[:, counts] for values in levels]

    def share(averages: Array) -> Array:
        return recovered_share(averages[..., 0], averages[..., 1], averages[..., 2])

    found = curve_interval(curves, resamples, share, interquartile_mean, [own, own, theirs])
    return found if found and math.isfinite(found.high) else None


def steps_to_recover(
    rewards: Array, change: int, window: int = RECOVERY_WINDOW, share: float = REACHED
) -> float | None:
    """Steps from a change until the reward of a trial [T] is back; infinite if it is not, None if that cannot be told.

    s_t = mean of r over the `window` steps that end with t;  L = s at the last step before the change.
    Back means s_t >= L - (1 - share) |L|, after s had fallen below that: `share` of the level before, wherever 0 lies.
    0 if it never falls below. It cannot be told with less than a window of steps before the change or after it.
    """
    if change < window or len(rewards) - change < window:
        return None
    sums = np.cumsum([0.0, *rewards])
    smoothed = (sums[window:] - sums[:-window]) / window  # smoothed[i] ends with step i + window - 1
    level = smoothed[change - window]
    short = smoothed[change - window + 1 :] < level - (1.0 - share) * abs(level)  # of the steps from the change on
    if not short.any():
        return 0.0
    fell = int(short.argmax())
    back = np.flatnonzero(~short[fell:])
    return float(fell + back[0] + 1) if back.size else math.inf


def task_interval(
    values: Array,
    statistic: Callable[[Array], Array],
    num_samples: int,
    generator: np.random.Generator,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Interval | None:
    """A statistic of values [R, S, M] over the tasks that have one of every agent, with its interval, by strata S.

    None if fewer than two tasks of a seed have a value.
    """
    found = _counted(by_run(values, 2))
    if found is None:
        return None
    chosen, sizes = found
    resamples = stratified_resamples(sizes, num_samples, generator)
    deviations = seed_deviations(len(chosen), num_samples, generator)
    return bootstrap_interval(chosen, resamples, statistic, deviations, bounds)


def _counted(values: Array) -> tuple[Array, list[int]] | None:
    """The tasks [R, n] that have a value of every agent, and how many each seed has; None if no seed has two."""
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
    """Bootstrap interval of a statistic of average curves; C curves [R, n], resampled tasks [B, n].

    statistic: of average curves [..., C], such as `shots_to_reach`. Where it is NaN, not defined, it counts as
    infinite, and the ends are values that came up. deviations: of each curve, as in `bootstrap_interval`. None if it is
    not defined of the curves themselves.
    """
    tail = (1.0 - CONFIDENCE) / 2.0
    of_runs = [by_run(np.asarray(curve), 1) for curve in curves]
    levels = [average(curve) for curve in of_runs]  # C times [R]
    draws = [average(curve[:, resamples]).mean(axis=0) for curve in of_runs]  # C times [B]
    if deviations is not None:
        most = max(len(d) for d in deviations)
        joined = zip(draws, deviations, levels, strict=True)
        draws = [np.resize(_over_seeds(draw, d, level), most) for draw, d, level in joined]
    averages = np.stack(draws, axis=-1)  # [B or D, C]
    drawn = np.nan_to_num(statistic(averages), nan=math.inf)
    low, high = np.quantile(drawn, tail, method="lower"), np.quantile(drawn, 1.0 - tail, method="higher")
    estimate = float(statistic(np.stack([level.mean() for level in levels], axis=-1)))
    return None if math.isnan(estimate) else Interval(estimate, float(low), float(high))


def probability_of_improvement(
    first: Array, second: Array, num_samples: int, generator: np.random.Generator, same_runs: bool = False
) -> tuple[Interval, int]:
    """P(X > Y) + P(X = Y) / 2 over the tasks [R, S, M] that both have a value of, and how many these are.

    Each has its own R: every agent of the one against every agent of the other (Agarwal 2021), here paired by task, as
    all met the same ones. same_runs: the agents are two ways to use the same R trained ones, and paired by these too.
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
    draws = np.clip(_over_seeds(over_tasks, deviations, mean(wins)), *SHARE)
    return _percentiles(float(wins.mean()), draws), int(both.sum())


def difference_interval(
    first: Array,
    second: Array,
    statistic: Callable[[Array], Array],
    num_samples: int,
    generator: np.random.Generator,
) -> Interval | None:
    """statistic(first) - statistic(second) of the same agents on two independent sets of tasks, [R, S, M] each.

    The sets are resampled apart. None if one has no seed with two tasks that have a value.
    """
    draws, levels = [], []
    for values in (first, second):
        found = _counted(by_run(values, 2))
        if found is None:
            return None
        chosen, sizes = found
        draws.append(statistic(chosen[:, stratified_resamples(sizes, num_samples, generator)]).mean(axis=0))
        levels.append(statistic(chosen))  # [R]
    apart = levels[0] - levels[1]
    deviations = seed_deviations(len(apart), num_samples, generator)
    return _percentiles(float(apart.mean()), _over_seeds(draws[0] - draws[1], deviations, apart))
