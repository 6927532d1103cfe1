"""What is said of adaptation and of agents against each other: closed forms, hand-computed cases, simulations."""

import math

import numpy as np
import pytest

from metarl.evaluation.contrasts import difference_interval, probability_of_improvement, recovered_share, share_interval
from metarl.evaluation.recovery import steps_to_recover
from metarl.evaluation.statistics import (
    Interval,
    curve_interval,
    interquartile_mean,
    mean,
    seed_deviations,
    shots_to_reach,
    stratified_resamples,
    summarise,
    task_interval,
    worst_mean,
)
from metarl.files import plain

NAN = math.nan


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([4.0, 1.0, 3.0, 2.0], 0.5, 1.5),
        ([4.0, 1.0, 3.0, 2.0], 0.25, 1.0),
        ([4.0, 1.0, 3.0, 2.0], 0.05, 1.0),  # less than one task: the worst
        ([4.0, 1.0, 3.0, 2.0], 0.375, (1.0 + 0.5 * 2.0) / 1.5),  # one and a half
        ([4.0, -1.0, 3.0, 2.0], 1.0, 2.0),  # all: the mean
    ],
)
def test_worst_mean_of_hand_computed_cases(values: list[float], share: float, expected: float) -> None:
    assert worst_mean(np.array(values), share) == pytest.approx(expected)


def test_worst_mean_of_a_normal_meets_the_closed_form() -> None:
    """CVaR of N(0, 1) is -phi(q_a) / a: for a = 5 %, q = -1.6449 and phi(q) = .10314."""
    sample = np.random.default_rng(0).standard_normal((4, 100_000))
    np.testing.assert_allclose(worst_mean(sample), -0.10314 / 0.05, rtol=0.01)
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\], got 0"):
        worst_mean(sample, 0.0)


@pytest.mark.parametrize(
    ("curve", "rounds"),
    [
        ([0.0, 5.0, 9.0, 10.0], 2.0),
        ([-100.0, -20.0, -11.0, -10.0], 2.0),  # below 0: 90 % of the way is -19
        ([-100.0, -19.0, -50.0, -10.0], 1.0),  # it was there, and went back
        ([0.0, 30.0, 5.0, 10.0], 1.0),
        ([10.0, 20.0, 9.0], NAN),  # in the end no better
        ([1.0, 1.0], NAN),
        ([7.0], NAN),
    ],
)
def test_rounds_to_90_percent_of_the_way(curve: list[float], rounds: float) -> None:
    np.testing.assert_equal(shots_to_reach(np.array(curve)), rounds)
    np.testing.assert_equal(shots_to_reach(np.array([curve, curve])), [rounds, rounds])


def test_interval_of_rounds_is_infinite_where_a_resample_does_not_rise() -> None:
    curves = np.array([[0.0, 10.0, 0.0, 10.0], [1.0, 9.0, 1.0, 9.0]])  # half of the tasks rise by 1, half fall by 1
    resamples = stratified_resamples([4], 200, np.random.default_rng(0))
    assert curve_interval(curves, resamples, shots_to_reach, mean) is None
    curves[1] += 0.5
    found = curve_interval(curves, resamples, shots_to_reach, mean)
    assert found == Interval(1.0, 1.0, math.inf)
    assert plain({"high": found.high, "of": np.array([1.0, NAN])}) == {"high": None, "of": [1.0, None]}


def test_share_of_the_gap_to_the_oracle() -> None:
    np.testing.assert_allclose(recovered_share(np.array([75.0, 20.0]), np.array([50.0, 50.0]), np.array([100.0] * 2)),
                               [0.5, -0.6])  # fmt: skip
    assert np.isnan(recovered_share(np.array(3.0), np.array(2.0), np.array(2.0)))
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 30, (3, 40))  # between tasks; the same for all three
    before, after, oracle = (level + hard + rng.normal(0, 0.1, hard.shape) for level in (0.0, 7.0, 10.0))
    after[0, 0] = NAN
    found = share_interval(after, before, oracle, 500, rng)
    assert found.estimate == pytest.approx(0.7, abs=0.02) and 0.6 < found.low < found.high < 0.8
    assert share_interval(after, oracle, before, 50, rng) is None  # no better than before: of nothing there is no share
    slight = before + rng.normal(0.3, 3.0, before.shape)  # better on average, by less than can be told from nothing
    lead = task_interval(slight - before, mean, 500, rng)
    assert lead is not None and lead.low < 0 < lead.estimate
    assert share_interval(after, before, slight, 500, rng) is None


def test_no_speed_is_given_of_a_gain_that_may_be_nothing() -> None:
    """100 tasks rise by .3 in two rounds, give or take 2 each: the curve goes up, but the gain is not shown."""
    rng = np.random.default_rng(3)
    hard = rng.normal(0, 30, (1, 1, 100))
    rise = np.array([0.0, 0.2, 0.3])[None, :, None]
    flat = summarise(hard + rise + rng.normal(0, 2, (1, 3, 100)), 300, np.random.default_rng(0))
    assert flat.gain[-1].includes(0.0) and flat.rounds_to_reach is None
    steep = summarise(hard + 30 * rise + rng.normal(0, 2, (1, 3, 100)), 300, np.random.default_rng(0))
    assert steep.gain[-1].low > 0 and steep.rounds_to_reach is not None and steep.rounds_to_reach.estimate == 2.0


def test_steps_to_recover_of_a_dip() -> None:
    """Reward 1 drops to 0 for 30 steps. Means over 10 steps fall below .9 two steps after the change, and are there
    again when 9 of the 10 are 1: 9 steps after the dip's end."""
    rewards = np.ones(200)
    rewards[50:80] = 0.0
    assert steps_to_recover(rewards, 50, window=10) == 30 + 9
    assert steps_to_recover(rewards - 11.0, 50, window=10) == 0.0  # from -10 to -11: within a tenth of the level
    assert steps_to_recover(10 * rewards - 11.0, 50, window=10) == 39.0 + 1  # level -1, to be back at -1.1
    assert steps_to_recover(np.ones(200), 50, window=10) == 0.0
    assert steps_to_recover(rewards[:85], 50, window=10) == math.inf
    assert steps_to_recover(rewards, 5, window=10) is None
    assert steps_to_recover(rewards, 195, window=10) is None


def test_probability_of_improvement_counts_wins_and_half_the_ties() -> None:
    first = np.array([[1.0, 2.0, 3.0, NAN], [4.0, 5.0, 6.0, 9.0]])
    second = np.array([[0.0, 2.0, 4.0, 5.0], [3.0, 4.0, 7.0, NAN]])
    rng = np.random.default_rng(0)
    found, tasks = probability_of_improvement(first, second, 100, rng)
    assert tasks == 6 and found.estimate == pytest.approx((1 + 0.5 + 0 + 1 + 1 + 0) / 6)
    assert found.low <= found.estimate <= found.high
    other, _ = probability_of_improvement(second, first, 100, rng)
    assert other.estimate == pytest.approx(1 - found.estimate)
    with pytest.raises(ValueError, match="an interval needs at least 2"):
        probability_of_improvement(first[:, :1], second[:, :1], 100, rng)


def test_pairing_sees_what_the_difference_between_tasks_hides() -> None:
    """One agent is better by 1 on every task, while tasks differ by 100: unpaired, it would win little over half."""
    hard = np.random.default_rng(0).normal(0, 100, (2, 30))
    found, _ = probability_of_improvement(hard + 1, hard, 100, np.random.default_rng(1))
    assert (found.estimate, found.low) == (1.0, 1.0)


def test_statistic_over_the_tasks_that_have_a_value() -> None:
    values = np.array([[1.0, NAN, 3.0], [5.0, 7.0, NAN]])
    assert task_interval(values, mean, 50, np.random.default_rng(0)).estimate == 4.0
    assert task_interval(np.full((2, 3), NAN), mean, 50, np.random.default_rng(0)) is None


def coverage(truth: float, draw, intervals: int = 300) -> float:
    rng = np.random.default_rng(0)
    return float(np.mean([draw(rng).includes(truth) for _ in range(intervals)]))


SPREAD = 3.5 * math.sqrt(0.95 * 0.05 / 300)
"""Binomial: 3.5 standard deviations of the share that covers, of 300 intervals. Few tasks make percentile intervals of
a bootstrap a little narrow (Efron 1987): 2 % are allowed below the stated rate."""


def test_paired_probability_covers_at_the_stated_rate() -> None:
    """X - Y is N(.5, 1): P(X > Y) = Phi(.5) = .69146."""

    def draw(rng: np.random.Generator) -> Interval:
        hard = rng.normal(0, 10, (2, 30))
        return probability_of_improvement(hard + rng.normal(0.5, 1, hard.shape), hard, 200, rng)[0]

    assert 0.93 - SPREAD < coverage(0.69146, draw) < 0.95 + SPREAD


def test_gap_of_two_sets_of_tasks_covers_at_the_stated_rate() -> None:
    """The sets are independent, of 60 tasks and 40, and of other spreads; the IQMs of the normals differ by 2."""

    def draw(rng: np.random.Generator) -> Interval:
        first, second = rng.normal(2, 3, (3, 20)), rng.normal(0, 1, (2, 20))
        interval = difference_interval(first, second, interquartile_mean, 200, rng)
        assert interval is not None
        return interval

    assert 0.93 - SPREAD < coverage(2.0, draw) < 0.95 + SPREAD


def test_worst_mean_does_not_cover_less_than_it_must_of_many_tasks() -> None:
    """The worst half of 100 tasks of N(0, 1): CVaR is -phi(0) / .5 = -.79788."""

    def draw(rng: np.random.Generator) -> Interval:
        interval = task_interval(rng.standard_normal((1, 100)), lambda v: worst_mean(v, 0.5), 200, rng)
        assert interval is not None
        return interval

    assert 0.92 - SPREAD < coverage(-0.79788, draw) < 0.95 + SPREAD


@pytest.mark.parametrize(("runs", "quantile"), [(2, 12.706), (3, 4.3027), (5, 2.7764), (30, 2.0452)])
def test_training_seeds_vary_by_students_t(runs: int, quantile: float) -> None:
    """97.5 % quantile of t with R - 1 degrees of freedom, times s / sqrt(R), whatever the agents' levels are."""
    levels = np.random.default_rng(1).normal(5, 3, runs)
    deviations = seed_deviations(runs, 8_000, np.random.default_rng(0))
    np.testing.assert_allclose(deviations.sum(axis=1), 0.0, atol=1e-9)
    found = np.quantile(deviations @ levels, 0.975)
    assert found == pytest.approx(quantile * levels.std(ddof=1) / math.sqrt(runs), rel=0.03)


def agents_of(rng: np.random.Generator, runs: int, between: float) -> np.ndarray:
    """[R, S, M] of mean 0: tasks that differ by 1, agents that differ by `between`, and by .3 on each task."""
    tasks, agents = rng.normal(0, 1, (1, 2, 20)), rng.normal(0, between, (runs, 1, 1))
    return tasks + agents + rng.normal(0, 0.3, (runs, 2, 20))


@pytest.mark.thorough
@pytest.mark.parametrize(("runs", "between"), [(2, 1.0), (3, 0.2), (3, 1.0), (5, 0.5)])
def test_intervals_over_training_seeds_cover_at_the_stated_rate(runs: int, between: float) -> None:
    """What an agent does on one task only counts with the tasks and with the agents, so a little more are right."""

    def draw(rng: np.random.Generator) -> Interval:
        interval = task_interval(agents_of(rng, runs, between), interquartile_mean, 300, rng)
        assert interval is not None
        return interval

    assert 0.93 - SPREAD < coverage(0.0, draw) < 0.975 + SPREAD


@pytest.mark.thorough
def test_gap_and_improvement_of_several_training_seeds_cover_at_least_at_the_stated_rate() -> None:
    """X - Y is N(.5, 2 (.2^2 + .3^2)) on a task: P(X > Y) = Phi(.9806) = .83659. The gap of 1 is by tasks."""

    def better(rng: np.random.Generator) -> Interval:
        hard = 10 * rng.normal(0, 1, (1, 2, 20))
        x, y = (rng.normal(0, 0.2, (4, 1, 1)) + rng.normal(0, 0.3, (4, 2, 20)) + hard for _ in range(2))
        return probability_of_improvement(x + 0.5, y, 200, rng)[0]

    def gap(rng: np.random.Generator) -> Interval:
        agents = rng.normal(0, 1, (3, 1, 1)) + rng.normal(0, 0.3, (3, 1, 1))
        first, second = (agents + rng.normal(level, 1, (1, 2, 20)) for level in (1.0, 0.0))
        interval = difference_interval(first, second, mean, 200, rng)
        assert interval is not None
        return interval

    assert coverage(0.83659, better) > 0.93 - SPREAD
    assert 0.93 - SPREAD < coverage(1.0, gap) < 0.95 + SPREAD


def test_two_ways_to_use_the_same_agents_are_paired_by_agent() -> None:
    """One is better by .1 with every agent on every task, while the agents differ by 5."""
    rng = np.random.default_rng(0)
    plain_ones = rng.normal(0, 1, (1, 2, 20)) + 5 * np.arange(3.0)[:, None, None]
    paired, _ = probability_of_improvement(plain_ones + 0.1, plain_ones, 200, rng, same_runs=True)
    assert (paired.estimate, paired.low, paired.high) == (1.0, pytest.approx(1.0), 1.0)
    unpaired, _ = probability_of_improvement(plain_ones + 0.1, plain_ones, 200, rng)
    assert unpaired.estimate == pytest.approx(2 / 3) and unpaired.low < 0.5


def test_several_agents_have_the_mean_of_their_numbers_and_the_curve_of_their_mean() -> None:
    rng = np.random.default_rng(0)
    rise = np.array([0.0, 5.0, 9.0, 10.0])[:, None]
    of_runs = rng.normal(0, 2, (3, 2, 1, 30)) + rise + rng.normal(0, 0.5, (3, 1, 1, 1))
    together = summarise(of_runs, 500, rng)
    alone = [summarise(returns, 500, rng) for returns in of_runs]
    for name in ("iqm", "mean", "gain", "worst"):
        for shot in range(4):
            levels = [getattr(summary, name)[shot].estimate for summary in alone]
            assert getattr(together, name)[shot].estimate == pytest.approx(np.mean(levels))
    assert together.tasks_counted == 60 and together.rounds_to_reach.estimate == 2.0
    widths = [interval.high - interval.low for interval in (together.iqm[-1], alone[0].iqm[-1])]
    assert widths[0] > 0.5  # three agents that differ by .5 are not known better than one is on 60 tasks
    before, after, oracle = of_runs[:, :, 0], of_runs[:, :, 2], of_runs[:1, :, 3]
    share = share_interval(after, before, oracle, 500, rng)
    curve = [np.mean([interquartile_mean(v.ravel()) for v in level]) for level in (after, before, oracle)]
    assert share.estimate == pytest.approx((curve[0] - curve[1]) / (curve[2] - curve[1]))
    of_runs[1, 0, 2, 7] = NAN
    assert summarise(of_runs, 50, rng).tasks_counted == 59
