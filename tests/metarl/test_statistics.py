"""Statistics against closed forms, hand-computed cases and a simulation."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from metarl.evaluation.statistics import (
    Array,
    Interval,
    bootstrap_interval,
    crossed_counts,
    crossed_interval,
    interquartile_mean,
    mean,
    pool_tasks,
    stratified_resamples,
    summarise,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], 3.0),
        ([1.0, 5.0, 9.0], 5.0),  # floor(3 / 4) = 0: nothing is cut
        ([100.0, 1.0, 2.0, -50.0], 1.5),
        ([9.0, 1.0, 2.0, 3.0, 1000.0], 14.0 / 3.0),  # one cut at either end
        ([8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 400.0], (3 + 5 + 6 + 7) / 4.0),
    ],
)
def test_interquartile_mean_of_hand_computed_cases(values: list[float], expected: float) -> None:
    assert interquartile_mean(np.array(values)) == pytest.approx(expected, rel=1e-15)


def test_interquartile_mean_is_along_the_last_axis_and_moves_with_its_values() -> None:
    values = np.random.default_rng(0).normal(size=(3, 5, 23))
    result = interquartile_mean(values)
    assert result.shape == (3, 5)
    assert result[2, 4] == interquartile_mean(values[2, 4])
    np.testing.assert_allclose(interquartile_mean(7.0 - 2.0 * values), 7.0 - 2.0 * result, atol=1e-12)


def test_interquartile_mean_of_an_exponential_meets_its_integral() -> None:
    # Quantile function -ln(1 - p): 2 * integral from 1/4 to 3/4 = 2 * [(1 - p) ln(1 - p) - (1 - p)].
    def antiderivative(p: float) -> float:
        return (1.0 - p) * math.log(1.0 - p) - (1.0 - p)

    expected = 2.0 * (antiderivative(0.75) - antiderivative(0.25))
    probabilities = (np.arange(400_000) + 0.5) / 400_000
    assert interquartile_mean(-np.log1p(-probabilities)) == pytest.approx(expected, abs=1e-5)


def test_a_task_with_nan_in_one_shot_is_left_out_of_all() -> None:
    returns = np.arange(12.0).reshape(2, 2, 3)  # [seed, shot, task]
    returns[1, 0, 2] = np.nan
    values, sizes = pool_tasks(returns)
    assert sizes == [3, 2]
    np.testing.assert_array_equal(values, [[[0, 1, 2, 6, 7]], [[3, 4, 5, 9, 10]]])


def test_returns_of_nan_alone_and_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"all 6 tasks have a return of NaN.*parameter ranges"):
        pool_tasks(np.full((2, 4, 3), np.nan))
    with pytest.raises(ValueError, match=r"\[seed, shot, task\]"):
        pool_tasks(np.zeros((2, 4)))


def test_one_task_a_seed_gives_no_interval() -> None:
    with pytest.raises(ValueError, match=r"at least 2; raise evaluation\.tasks"):
        summarise(np.zeros((3, 2, 1)), 100, np.random.default_rng(0))
    with pytest.raises(ValueError, match="bootstrap_samples is 0"):
        summarise(np.zeros((3, 2, 4)), 0, np.random.default_rng(0))


def test_resamples_stay_within_their_stratum() -> None:
    resamples = stratified_resamples([3, 0, 5, 2], 200, np.random.default_rng(0))
    assert resamples.shape == (200, 10)
    for columns, members in [(slice(0, 3), {0, 1, 2}), (slice(3, 8), {3, 4, 5, 6, 7}), (slice(8, 10), {8, 9})]:
        assert set(resamples[:, columns].ravel().tolist()) == members


def test_interval_of_the_mean_meets_the_closed_form_within_strata() -> None:
    # Var(mean*) = sum_s (n_s / n)^2 var_s / n_s: what differs between strata does not widen it.
    generator = np.random.default_rng(1)
    strata = [generator.normal(offset, 2.0, size) for offset, size in [(-1000.0, 40), (0.0, 60), (1000.0, 20)]]
    sizes = [len(s) for s in strata]
    error = math.sqrt(sum((len(s) / 120) ** 2 * np.var(s) / len(s) for s in strata))
    values = np.concatenate(strata)
    interval = bootstrap_interval(values, stratified_resamples(sizes, 20_000, generator), mean)
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.high - interval.estimate == pytest.approx(1.96 * error, rel=0.04)
    assert interval.estimate - interval.low == pytest.approx(1.96 * error, rel=0.04)


def test_the_interval_of_one_agent_and_that_of_its_copies_are_the_bootstrap_s_over_tasks() -> None:
    values = np.random.default_rng(0).normal(size=40)
    expected = bootstrap_interval(values, stratified_resamples([40], 2000, np.random.default_rng(1)), mean)
    for copies in (1, 9):
        found = crossed_interval(
            np.tile(values, (copies, 1)), *crossed_counts(copies, 40, 2000, np.random.default_rng(1))
        )
        assert (found.estimate, found.low, found.high) == pytest.approx(
            (expected.estimate, expected.low, expected.high)
        )


def test_an_interval_over_agents_and_tasks_meets_the_closed_form() -> None:
    """Var(mean*) = var(a) / R + var(b) / n where x_rn = a_r + b_n; what is missing is left out."""
    generator = np.random.default_rng(4)
    agents, tasks = generator.normal(size=(12, 1)), generator.normal(size=(1, 50))
    drawn = crossed_counts(12, 50, 20_000, generator)
    found = crossed_interval(agents + tasks, *drawn)
    error = 1.96 * math.sqrt(np.var(agents) / 12 + np.var(tasks) / 50)
    assert found.high - found.low == pytest.approx(2 * error, rel=0.04)
    holed = agents + tasks
    holed[0, 3] = holed[5, 7] = np.nan
    assert crossed_interval(holed, *drawn).estimate == pytest.approx(np.nanmean(holed))


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_intervals_cover_the_truth_95_times_in_100(statistic: Callable[[Array], Array]) -> None:
    generator = np.random.default_rng(2)
    repetitions, covered = 600, 0
    for _ in range(repetitions):
        values = generator.standard_t(4.0, 120)
        resamples = stratified_resamples([40, 40, 40], 400, generator)
        covered += bootstrap_interval(values, resamples, statistic).includes(0.0)
    # The standard error of the share is 0.9 points.
    assert 0.925 <= covered / repetitions <= 0.975


def test_summary_pairs_gains_by_task_and_leaves_out_flagged_ones() -> None:
    generator = np.random.default_rng(3)
    before = generator.normal(0.0, 100.0, (3, 40))
    after = before + 5.0
    returns = np.stack([before, after], axis=1)  # [S, K, M]
    returns[0, 1, 7] = np.nan
    summary = summarise(returns, 500, generator)
    assert (summary.tasks_counted, summary.tasks_left_out) == (119, 1)
    # The same 5 for every task: no spread, although returns differ by hundreds between tasks.
    np.testing.assert_allclose([summary.gain[1].low, summary.gain[1].high, summary.gain_mean[1].estimate], 5.0)
    assert summary.gain[0] == Interval(0.0, 0.0, 0.0)
    assert summary.iqm[1].high - summary.iqm[1].low > 10.0
    assert summary.std[0] == pytest.approx(np.std(np.delete(before.ravel(), 7), ddof=1))
    assert summary.trial_mean.estimate == pytest.approx(np.delete(before.ravel(), 7).mean() + 2.5)


def test_summary_repeats_with_its_seed() -> None:
    returns = np.random.default_rng(4).normal(size=(2, 3, 10))
    assert summarise(returns, 300, np.random.default_rng(5)) == summarise(returns, 300, np.random.default_rng(5))
