"""Statistics of returns and of adaptation: interquartile mean, stratified bootstrap intervals (Agarwal 2021), worst
tasks, speed of adaptation, recovery after changes, one agent against another.

Pure functions of arrays. Axes: S evaluation seeds, K shots, M tasks of a seed; n the tasks of all seeds that count;
B bootstrap samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CONFIDENCE = 0.95
"""Coverage of every interval that this project states."""
WORST = 0.05
"""Share of the tasks that counts as the worst ones."""
REACHED = 0.9
"""Share of the way at which a level counts as reached."""
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

    worst: list[Interval]
    """Mean return of the worst 5 % of the tasks (`worst_mean`)."""
    rounds_to_reach: Interval | None
    """Rounds of adaptation after which the IQM of the return has gone 90 % of its way (`shots_to_reach`); None if the
    interval of the last gain does not lie above 0, so that there is no way to speak of. An end is infinite where a
    resampled curve does not rise."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; what is not finite is None."""
        return plain(asdict(self))


def plain(value: Any) -> Any:
    """Nested lists, mappings and arrays as plain types for JSON, with None for what is no finite number."""
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
    gain = [bootstrap_interval(g, resamples, interquartile_mean) for g in gains]
    n = values.shape[1]
    return Summary(
        tasks_counted=n,
        tasks_left_out=returns.shape[0] * returns.shape[2] - n,
        iqm=[bootstrap_interval(v, resamples, interquartile_mean) for v in values],
        mean=[bootstrap_interval(v, resamples, mean) for v in values],
        std=[float(np.std(v, ddof=1)) for v in values],
        gain=gain,
        gain_mean=[bootstrap_interval(g, resamples, mean) for g in gains],
        trial_mean=bootstrap_interval(values.mean(axis=0), resamples, mean),
        worst=[bootstrap_interval(v, resamples, worst_mean) for v in values],
        rounds_to_reach=curve_interval(values, resamples, shots_to_reach, interquartile_mean)
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
    """`recovered_share` of the IQM over the tasks [S, M] that all three have a value of.

    None where the oracle's lead is not shown: where it is none, or where so many resamples have none that the upper end
    of the share is infinite, which is where the lower end of the lead's own interval is not above 0.
    Raises ValueError if no seed has two such tasks.
    """
    counts = ~(np.isnan(after) | np.isnan(before) | np.isnan(oracle))
    resamples = stratified_resamples(counts.sum(axis=1).tolist(), num_samples, generator)
    curves = np.stack([values[counts] for values in (after, before, oracle)])

    def share(averages: Array) -> Array:
        return recovered_share(averages[..., 0], averages[..., 1], averages[..., 2])

    found = curve_interval(curves, resamples, share, interquartile_mean)
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
    values: Array, statistic: Callable[[Array], Array], num_samples: int, generator: np.random.Generator
) -> Interval | None:
    """A statistic of values [S, M] over the tasks that have one, with its interval, stratified by seed.

    None if fewer than two tasks of a seed have a value.
    """
    counts = ~np.isnan(values)
    sizes = counts.sum(axis=1).tolist()
    if max(sizes) < 2:
        return None
    return bootstrap_interval(values[counts], stratified_resamples(sizes, num_samples, generator), statistic)


def curve_interval(
    curves: Array, resamples: NDArray[np.int64], statistic: Callable[[Array], Array], average: Callable[[Array], Array]
) -> Interval | None:
    """Bootstrap interval of a statistic of average curves; curves [C, n], resampled tasks [B, n].

    statistic: of average curves [..., C], such as `shots_to_reach`. Where it is NaN, not defined, it counts as
    infinite, and the ends are values that came up. None if it is not defined of the curves themselves.
    """
    tail = (1.0 - CONFIDENCE) / 2.0
    averages = np.stack([average(curve[resamples]) for curve in curves], axis=-1)  # [B, C]
    drawn = np.nan_to_num(statistic(averages), nan=math.inf)
    low, high = np.quantile(drawn, tail, method="lower"), np.quantile(drawn, 1.0 - tail, method="higher")
    estimate = float(statistic(np.stack([average(curve) for curve in curves], axis=-1)))
    return None if math.isnan(estimate) else Interval(estimate, float(low), float(high))


def probability_of_improvement(
    first: Array, second: Array, num_samples: int, generator: np.random.Generator
) -> tuple[Interval, int]:
    """P(X > Y) + P(X = Y) / 2 over the tasks [S, M] that both agents have a value of, and how many these are.

    Paired by task: both met the same ones. Agarwal 2021 compares every run of one agent with every run of the other.
    Raises ValueError if no seed has two such tasks.
    """
    both = ~(np.isnan(first) | np.isnan(second))
    x, y = first[both], second[both]
    wins = (x > y) + 0.5 * (x == y)
    resamples = stratified_resamples(both.sum(axis=1).tolist(), num_samples, generator)
    return bootstrap_interval(wins, resamples, mean), int(both.sum())


def difference_interval(
    first: Array,
    second: Array,
    statistic: Callable[[Array], Array],
    num_samples: int,
    generator: np.random.Generator,
) -> Interval:
    """statistic(first) - statistic(second) of two independent sets of tasks, [S, M] each, resampled apart.

    Raises ValueError if a set has no seed with two tasks that have a value.
    """
    draws, estimates = [], []
    for values in (first, second):
        counts = ~np.isnan(values)
        chosen = values[counts]
        resamples = stratified_resamples(counts.sum(axis=1).tolist(), num_samples, generator)
        draws.append(statistic(chosen[resamples]))
        estimates.append(statistic(chosen))
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(draws[0] - draws[1], [tail, 1.0 - tail])
    return Interval(float(estimates[0] - estimates[1]), float(low), float(high))
