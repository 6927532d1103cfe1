"""Adaptation in time: trials made by hand whose second of adaptation is known, intervals by hand, files and figures."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metarl.agents.agent import Rollout, Trial
from metarl.cli import app as cli
from metarl.config import EvaluationSettings, ResetMemory
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings, HalfCheetahVelocitySettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.walkers_settings import HopperParametersSettings
from metarl.envs.task import Change, Task
from metarl.evaluation.binning import BINS, REWARD_RATE, Binned, bin_ends, binned, recorded
from metarl.evaluation.compare import with_memory_gaps
from metarl.evaluation.comparison import Compared
from metarl.evaluation.evaluate import evaluate_agent, pooled
from metarl.evaluation.outcomes import run_trials
from metarl.evaluation.results import AgentResult, Source
from metarl.evaluation.saved import read_comparison, read_evaluation
from metarl.evaluation.statistics import Interval, stratified_resamples, summarise
from metarl.evaluation.time_course import TimeCourse, memory_gap, seconds_to_reach, time_course
from metarl.reporting import time_table
from metarl.reporting.columns import Agents, csv_numbers
from metarl.reporting.time_columns import RETURN_AFTER_CHANGES
from metarl.runs.trial import TrialResult
from tests.metarl.test_evaluation import Scripted
from tests.small_agents import small_options

POINT = make_family(PointGoalSettings(horizon=100))
HOPPER = make_family(HopperParametersSettings(horizon=100))
"""A robot that can fall."""
DT = 0.1
ENDS = bin_ends(100, DT)  # 0.3 s each, and a last one of 0.1 s
SETTINGS = EvaluationSettings(
    tasks=4, envs_per_task=2, adaptations=2, seeds=(1, 2), explore=False, bootstrap_samples=200
)
PUSH = [[0.3] * 6] * 3


def trial(rewards: np.ndarray, valid: np.ndarray | None = None, faulted: Sequence[tuple[int, int]] = ()) -> TrialResult:
    """Return a trial of rewards [K, T, M, N]."""
    valid = np.ones(rewards.shape, dtype=bool) if valid is None else valid.copy()
    for m, n in faulted:
        valid[:, :, m, n] = False
    empty = torch.zeros(0)
    rollouts = [
        Rollout(empty, empty, torch.tensor(r, dtype=torch.float32), empty, empty, torch.tensor(v), empty)
        for r, v in zip(rewards, valid, strict=True)
    ]
    returns = [rollout.episode_returns().numpy() for rollout in rollouts]
    nothing: list = [{}] * len(rollouts)
    return TrialResult(Trial(rollouts, []), None, nothing, nothing, returns, nothing)


def course_of(
    rewards: np.ndarray, tasks: Sequence[Task] | None = None, memory: bool = True, family: TaskFamily = POINT, **options
) -> list[TimeCourse | None]:
    """Return the time courses of a trial of rewards [K, T, M, N]."""
    tasks = [Task("any", {})] * rewards.shape[2] if tasks is None else tasks
    kept = recorded(trial(rewards, **options), family, ENDS, DT)
    values = binned([kept], [tasks], rewards.shape[1], ENDS, DT, memory)
    return [time_course(own, 300, np.random.default_rng(0)) for own in values]


def stepped(second: float, low: float = 0.0, high: float = 0.1, episodes: int = 2, noise: float = 0.0) -> np.ndarray:
    """Return rewards [K, 100, 5, 2] that step up at a second of the trial, and stay."""
    rewards = np.full((episodes * 100, 5, 2), low)
    rewards[round(second / DT) :] = high
    rewards += noise * np.random.default_rng(3).standard_normal(rewards.shape)
    return rewards.reshape(episodes, 100, 5, 2)


class TestSecondsUntilAdapted:
    @pytest.mark.parametrize("second", [3.0, 6.3, 12.4])
    @pytest.mark.parametrize("offset", [0.0, -1.0, 5.0])
    def test_it_is_the_second_at_which_the_reward_steps_up(self, second: float, offset: float):
        """The ends of bins are multiples of 0.3 s in each episode of 10 s: 12.4 s is one of the second episode."""
        [course] = course_of(stepped(second, offset, offset + 0.1, noise=1e-3))
        assert course and course.seconds
        assert vars(course.seconds) == pytest.approx({"estimate": second, "low": second, "high": second})
        assert course.rise.estimate == pytest.approx(1.0, abs=0.05)  # 0.1 a step of 0.1 s
        assert course.level.estimate == pytest.approx(10 * offset + 1.0, abs=0.05)

    def test_a_step_within_a_bin_is_not_told_too_early(self):
        [course] = course_of(stepped(3.2))
        assert course and course.seconds and course.seconds.estimate == pytest.approx(3.3)

    def test_a_moment_above_the_level_is_not_adaptation(self):
        rewards = stepped(6.0)
        rewards[0, 30:33] = 0.3
        [course] = course_of(rewards)
        assert course and course.seconds and course.seconds.estimate == pytest.approx(6.0)

    @pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (0.1, 0.1), (-0.1, -0.1), (0.2, 0.1)])
    def test_an_agent_that_never_rises_has_no_seconds(self, low: float, high: float):
        [course] = course_of(stepped(5.0, low, high, noise=0.01))
        assert course and course.seconds is None

    def test_without_memory_a_rise_is_none_of_adaptation(self):
        [course] = course_of(stepped(3.0), memory=False)
        assert course and course.rise.low > 0 and course.seconds is None

    def test_half_of_the_tasks_that_adapt_late_make_the_interval_wide(self):
        rewards = stepped(3.0)
        rewards[:, :, 3:] = stepped(6.0)[:, :, 3:]
        [course] = course_of(rewards)
        assert course and course.seconds
        assert (course.seconds.low, course.seconds.estimate, course.seconds.high) == pytest.approx((3.0, 6.0, 6.0))

    def test_reached_is_the_first_bin_from_which_the_episode_stays_there(self):
        clock = Binned(np.array([1.0, 2.0, 3.0]), 2, {})
        curves = np.array([[0, 1, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 3.0]])
        assert seconds_to_reach(curves, np.full(3, 1.0), clock).tolist() == [3.0, math.inf, 5.0]
        later = seconds_to_reach(curves, np.full(3, 1.0), clock, since=np.array([4, 0, 0]))
        assert later.tolist() == [4.0, math.inf, 5.0]

    def test_a_robot_plays_the_episodes_of_a_round_one_after_another(self):
        """What is reached within the first episode of the second round, after 20 of 3 s, or of the first."""
        clock = Binned(np.array([1.0, 2.0, 3.0]), 2, {}, per_round=20)
        curves = np.array([[0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1.0]])
        assert seconds_to_reach(curves, np.full(2, 1.0), clock).tolist() == [61.0, 2.0]


class TestCurves:
    def test_the_integral_of_the_reward_rate_is_the_return(self):
        """Also where an episode ends early, and where an env is left out because it was flagged."""
        rng = np.random.default_rng(0)
        rewards = rng.normal(size=(2, 100, 5, 2))
        valid = np.ones(rewards.shape, dtype=bool)
        valid[1, 40:, 2] = False
        result = trial(rewards, valid, faulted=[(1, 0)])
        [whole] = binned([recorded(result, POINT, ENDS, DT)], [[Task("any", {})] * 5], 100, ENDS, DT)
        integral = (whole.values[REWARD_RATE][0, 0] * whole.widths_s[:, None]).reshape(2, -1, 5).sum(axis=1)
        by_hand = np.where(valid, rewards, 0.0).sum(axis=1)  # [K, M, N]
        np.testing.assert_allclose(integral[:, 1], by_hand[:, 1, 1], rtol=1e-5)
        np.testing.assert_allclose(np.delete(integral, 1, 1), np.delete(by_hand.mean(axis=2), 1, 1), rtol=1e-5)

    def test_a_task_without_a_sound_episode_is_left_out(self):
        rewards = stepped(3.0)
        rewards[:, :, 4] = 100.0
        [course] = course_of(rewards, faulted=[(4, 0), (4, 1)])
        assert course and course.tasks == 4 and course.level.estimate == pytest.approx(1.0)

    def test_intervals_are_those_of_a_bootstrap_by_hand(self):
        rng = np.random.default_rng(1)
        values = rng.normal(size=(1, 2, 6, 7))  # [R, S, bins, M]
        clock = Binned(np.array([0.5, 1.0, 1.5]), 2, {REWARD_RATE: values})
        course = time_course(clock, 400, np.random.default_rng(9))
        assert course is not None
        resamples = stratified_resamples([7, 7], 400, np.random.default_rng(9))
        flat = np.concatenate([values[0, 0], values[0, 1]], axis=1)  # [bins, n]
        means = flat[:, resamples].mean(axis=-1)
        expected = [flat.mean(axis=1), *np.quantile(means, [0.025, 0.975], axis=1)]
        np.testing.assert_allclose(course.curves[REWARD_RATE], expected)
        rise = means[5] - means[0]  # of 3 bins an episode, a tenth and a quarter are one each
        by_hand = (flat[5].mean() - flat[0].mean(), *np.quantile(rise, [0.025, 0.975]))
        assert (course.rise.estimate, course.rise.low, course.rise.high) == pytest.approx(by_hand)

    def test_training_seeds_vary_by_students_t(self):
        """Tasks are alike, so that the interval is that of three numbers: mean ± t_2 s / sqrt(3)."""
        levels = np.array([1.0, 2.0, 4.0])
        values = np.broadcast_to(levels[:, None, None, None], (3, 2, 6, 7))
        course = time_course(Binned(np.array([0.5, 1.0, 1.5]), 2, {REWARD_RATE: values}), 400, np.random.default_rng(0))
        assert course is not None
        half = 4.302653 * levels.std(ddof=1) / math.sqrt(3)
        expected = np.array([levels.mean(), levels.mean() - half, levels.mean() + half])
        np.testing.assert_allclose(course.curves[REWARD_RATE], np.tile(expected[:, None], 6), atol=0.2)

    def test_several_training_seeds_have_the_seconds_of_their_mean(self):
        early, late = (
            evaluate_agent(Scripted(actions), make_family(HalfCheetahMassSettings(horizon=30)), SETTINGS, 1)
            for actions in ([[0.3] * 6] * 3, [[-0.3] * 6] * 3)
        )
        family = make_family(HalfCheetahMassSettings(horizon=30))
        both = pooled([early, late], family, adapts=True)
        mean = (early.courses[0].curves[REWARD_RATE][0] + late.courses[0].curves[REWARD_RATE][0]) / 2
        np.testing.assert_allclose(both.courses[0].curves[REWARD_RATE][0], mean)
        assert both.binned[0].values[REWARD_RATE].shape[:2] == (2, 2)

    @pytest.mark.parametrize(("horizon", "dt", "width"), [(200, 0.05, 5), (500, 0.02, 13), (30, 0.05, 2), (10, 0.3, 1)])
    def test_bins_are_short_and_few(self, horizon: int, dt: float, width: int):
        ends = bin_ends(horizon, dt)
        assert ends[0] == width and ends[-1] == horizon and len(ends) <= BINS and (np.diff(ends) <= width).all()


class TestMeasures:
    FAMILY = make_family(HalfCheetahVelocitySettings(horizon=40))

    def test_an_error_within_the_bins_makes_up_that_of_the_episode(self):
        result = evaluate_agent(Scripted(PUSH), self.FAMILY, SETTINGS, 1)
        [whole] = result.binned
        inside = whole.values["velocity_error"][0].reshape(2, 3, whole.bins, 4)
        weights = np.diff(whole.ends_s, prepend=0.0) / whole.ends_s[-1]
        np.testing.assert_allclose(np.einsum("skbm,b->skm", inside, weights), result.measures["velocity_error"])
        last = whole.values["success"][0].reshape(2, 3, whole.bins, 4)[:, :, -1]
        np.testing.assert_array_equal(last, result.measures["success"])

    def test_the_first_bins_are_those_of_an_episode_that_is_as_short(self):
        whole = evaluate_agent(Scripted(PUSH), self.FAMILY, SETTINGS, 1).binned[0]
        steps = round(whole.ends_s[1] / self.FAMILY.dt)
        short = evaluate_agent(Scripted(PUSH), make_family(HalfCheetahVelocitySettings(horizon=steps)), SETTINGS, 1)
        first = whole.values["velocity_error"][0, :, :2].mean(axis=1)
        np.testing.assert_allclose(first, short.measures["velocity_error"][:, 0])
        np.testing.assert_array_equal(whole.values["success"][0, :, 1], short.measures["success"][:, 0])

    def test_shards_have_the_same_values_and_looking_changes_nothing(self):
        tasks = [self.FAMILY.sample(4, np.random.default_rng(0)) for _ in SETTINGS.seeds]
        outcomes = [run_trials(Scripted(PUSH), self.FAMILY, tasks, SETTINGS, threads) for threads in (1, 2)]
        for name, values in outcomes[0].binned[0].values.items():
            np.testing.assert_array_equal(outcomes[1].binned[0].values[name], values)

    def test_a_disturbed_reward_is_told_undisturbed(self):
        plain, scaled = (
            evaluate_agent(Scripted(PUSH), self.FAMILY, replace(SETTINGS, reward_scale=scale), 1) for scale in (1, 4)
        )
        np.testing.assert_allclose(*(r.binned[0].values[REWARD_RATE] for r in (plain, scaled)), rtol=1e-5)


class TestAfterChanges:
    def test_the_seconds_count_from_each_tasks_change(self):
        """The reward falls at the change, which comes at another step of each task, and is back 3 s later."""
        steps = (20, 23, 31, 36, 40)
        tasks = [Task("any", {}, (Change(step, {}), Change(step + 100, {}))) for step in steps]
        rewards = np.full((2, 100, 5, 2), 0.1)
        for m, step in enumerate(steps):
            rewards[0, step : step + 30, m] = -0.5
            rewards[1, step : step + 12, m] = -0.5
        _, first, second = course_of(rewards, tasks)
        assert first and second and first.seconds and second.seconds and (first.change, second.change) == (1, 2)
        assert first.seconds.estimate == pytest.approx(3.0) and second.seconds.estimate == pytest.approx(1.2)
        assert first.rise.estimate == pytest.approx(6.0)
        assert first.episode_ends_s == pytest.approx([6.3])  # 64 steps: three quarters of the tasks have them, in bins
        assert first.tasks == 4  # the last task has less time
        assert first.total and first.total.estimate == pytest.approx(30 * -0.5 + 33 * 0.1)

    def test_what_does_not_come_back_has_not_adapted(self):
        tasks = [Task("any", {}, (Change(30, {}),))] * 5
        rewards = np.full((1, 100, 5, 2), 0.1)
        rewards[0, 30:] = -0.5
        _, course = course_of(rewards, tasks)
        assert course and course.seconds is None

    def test_a_change_at_the_end_of_an_episode_or_after_the_trial_says_nothing(self):
        for step in (95, 250):
            assert len(course_of(stepped(3.0), [Task("any", {}, (Change(step, {}),))] * 5)) == 1

    def test_measures_after_a_change_are_those_of_the_trial_at_that_time(self):
        """All tasks change at the end of a bin, so that bins after the change are bins of the trial."""
        family = make_family(HalfCheetahMassSettings(horizon=100))
        step = 10 * bin_ends(100, family.dt)[0]
        drawn_ = family.sample(4, np.random.default_rng(0))
        tasks = [[replace(task, changes=(Change(int(step), {}),)) for task in drawn_]] * 2
        whole, after = evaluate_agent(Scripted(PUSH), family, SETTINGS, 1, tasks=tasks).binned
        assert set(after.values) == {REWARD_RATE, "speed", "success"}
        for name, values in after.values.items():
            there = whole.values[name][:, :, 10 : 10 + after.bins]
            np.testing.assert_allclose(values, there, rtol=1e-6)

    def test_changes_of_a_family_are_seen(self):
        family = make_family(HalfCheetahMassSettings(horizon=100, changes=1, change_gap=(20, 30)))
        result = evaluate_agent(Scripted(PUSH), family, SETTINGS, 1)
        trial_, after = result.courses
        [(first, last)] = trial_.changes_s
        steps = [c.step for c in family.sample(1, np.random.default_rng(0))[0].changes]
        assert 20 * family.dt <= first <= last <= 30 * family.dt and 20 <= steps[0] <= 30
        assert after.change == 1 and any("after change 1" in note for note in result.notes)


class TestFallingIsNoAdaptation:
    """Rewards below 0 all along; robots that fall have no more of them, and their rate per second is 0."""

    @staticmethod
    def fallen() -> np.ndarray:
        """Which steps [2, 100, 5, 2] are taken: one env of two falls in the first episode, all but at once later."""
        valid = np.ones((2, 100, 5, 2), dtype=bool)
        valid[0, 40:, :, 0] = valid[1, 4:, :, 0] = False
        return valid

    @pytest.mark.parametrize("gain", [0.0, 0.05])
    def test_the_rate_rises_for_nobody(self, gain: float):
        rewards = -0.1 - 0.001 * np.random.default_rng(0).random((2, 100, 5, 2))
        rewards[1] += gain
        [course] = course_of(rewards, valid=self.fallen(), family=HOPPER)
        assert course is not None and course.rise.low > 0
        assert (course.seconds is None) == (gain == 0)
        assert list(course.curves) == [REWARD_RATE]
        [goal] = course_of(rewards, valid=self.fallen())  # of a point that is at its goal, and no longer far from it
        assert goal is not None and goal.seconds is not None

    def test_a_memory_that_falls_adds_nothing(self):
        rewards = -0.1 - 0.001 * np.random.default_rng(0).random((2, 100, 5, 2))
        kept = recorded(trial(rewards, self.fallen()), HOPPER, ENDS, DT)
        better = recorded(trial(rewards + 0.05), HOPPER, ENDS, DT)
        reset = recorded(trial(rewards), HOPPER, ENDS, DT)
        own, good, none = (binned([each], [[Task("any", {})] * 5], 100, ENDS, DT)[0] for each in (kept, better, reset))
        falls, learns = (memory_gap(each, none, 200, np.random.default_rng(0)) for each in (own, good))
        assert falls is not None and falls.level.low > 0 and falls.seconds is None
        assert learns is not None and learns.level.low > 0 and learns.seconds is not None


class TestMemoryGap:
    def test_it_is_open_when_the_agent_parts_from_its_forgetful_self(self):
        """Both start from rest for 2 s; the one with a memory gains 1 a second from 4 s on."""
        rng = np.random.default_rng(0)
        clock = np.array([0.5 * i for i in range(1, 21)])
        start = np.minimum(np.arange(20) / 4, 1.0)[:, None] + rng.normal(size=(1, 1, 20, 8))
        own = start + np.where(np.arange(20) >= 8, 1.0, 0.0)[:, None]
        kept, reset = (Binned(clock, 1, {REWARD_RATE: values}) for values in (own, start))
        gap = memory_gap(kept, reset, 200, rng)
        assert gap is not None and gap.seconds is not None
        assert gap.level == Interval(*[pytest.approx(1.0)] * 3)
        assert gap.seconds == Interval(*[pytest.approx(4.0)] * 3)

    def test_where_tasks_change_it_is_that_after_the_change(self):
        """Memory is there half a second after a fault that begins at second 5; before it there is nothing to know."""
        rng, clock = np.random.default_rng(0), np.arange(1.0, 41.0) / 4
        start = rng.normal(size=(1, 1, 40, 8))
        own = start + np.where(clock > 5.5, 1.0, 0.0)[:, None]

        def agent(values: np.ndarray, reset: ResetMemory) -> Compared:
            after = Binned(clock[:20], 1, {REWARD_RATE: values[:, :, 20:]}, change=1)
            binned = (Binned(clock, 1, {REWARD_RATE: values}), after)
            returns = values.sum(axis=2)[:, :, None, :][0]
            result = AgentResult(
                summary=summarise(returns, 50, rng),
                returns=returns,
                measures={},
                recovery=None,
                faults=0,
                source=Source("run", 1, 1),
                binned=binned,
            )
            return Compared(label=reset, result=result, explore=False, envs_per_task=1, reset_memory=reset)

        [kept, _] = with_memory_gaps([agent(own, "never"), agent(start, "step")], SETTINGS)
        assert kept.memory_gap is not None and kept.memory_gap.seconds == Interval(*[pytest.approx(0.5)] * 3)

    @pytest.mark.parametrize("left", [(0, 2), (0,)])
    def test_nothing_is_said_of_memory_where_too_little_comes_after_the_first_change(self, left):
        """A later change, or the time before it, is not what the number is said to be of."""
        rng = np.random.default_rng(0)
        values = rng.normal(size=(1, 1, 20, 6))

        def agent(reset: ResetMemory) -> Compared:
            binned = tuple(
                Binned(np.arange(1.0, 21.0), 1, {REWARD_RATE: values}, change=k, changes_s=((19.0, 19.0),) * (k == 0))
                for k in left
            )
            returns = values.sum(axis=2)[:, :, None, :][0]
            own = {"summary": summarise(returns, 50, rng), "returns": returns, "faults": 0, "binned": binned}
            result = AgentResult(**own, source=Source("run", 1, 1))
            return Compared(label=reset, result=result, explore=False, envs_per_task=1, reset_memory=reset)

        assert [own.memory_gap for own in with_memory_gaps([agent("never"), agent("step")], SETTINGS)] == [None, None]

    def test_of_an_agent_that_does_not_adapt_it_is_0_and_has_no_seconds(self):
        start = np.random.default_rng(0).normal(size=(1, 1, 20, 8)) + np.arange(20)[:, None]
        same = Binned(np.arange(1.0, 21.0), 1, {REWARD_RATE: start})
        gap = memory_gap(same, same, 200, np.random.default_rng(0))
        assert gap is not None and gap.level == Interval(0.0, 0.0, 0.0) and gap.seconds is None


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, tiny) -> Path:
    folder = tmp_path_factory.mktemp("time")
    arguments = ["--agent", "rl2", "--family", "half_cheetah_velocity", *tiny, *small_options("rl2")]
    arguments += ["training.iterations=1", "--runs-dir", str(folder), "--name", "r", "tracking.wandb=disabled"]
    assert cli.main(["train", *arguments]) == 0
    return folder / "r"


def drawn(path: Path) -> bool:
    """Whether a picture is there and is not empty."""
    with Image.open(path) as image:
        return min(image.size) > 400 and len(image.convert("L").getcolors(256) or ()) > 20


def course(*names: str, change: int = 0) -> TimeCourse:
    """Return a time course of two bins of a second with values 1 and 2."""
    level = Interval(1.0, 1.0, 1.0)
    return TimeCourse(
        change=change,
        episodes=1,
        ends_s=np.array([1.0, 2.0]),
        tasks=2,
        curves={name: np.array([[1.0, 2.0]] * 3) for name in names},
        level=level,
        rise=level,
        seconds=None,
    )


def timed(label: str, *courses: TimeCourse) -> Compared:
    """Return an agent with these time courses."""
    returns = np.ones((1, 1, 1, 4))
    summary = summarise(returns, 50, np.random.default_rng(0))
    result = AgentResult(summary=summary, returns=returns, faults=0, source=Source("run", 1, 1), courses=courses)
    return Compared(label=label, result=result, explore=False, envs_per_task=1)


class TestFilesAndFigures:
    def test_an_evaluation_saves_and_draws_it_and_an_older_file_is_read(self, run_dir: Path, tmp_path: Path, capsys):
        file = run_dir / "evaluation/held_out_seeds1_iteration000001.json"
        result = read_evaluation(file)
        [course] = result.courses
        assert set(course.curves) == {"reward_rate", "velocity_error", "success"} and course.episodes == 2
        assert course.curves["reward_rate"].shape == (3, 2 * len(course.ends_s))
        assert TimeCourse.from_dict(json.loads(json.dumps(course.to_dict()))) == course
        assert drawn(file.with_name(f"{file.stem}_time.png"))
        data = json.loads(file.read_text())
        del data["time_courses"], data["forgetting"], data["evaluation"]["revisit"]
        old = tmp_path / "old.json"
        old.write_text(json.dumps(data))
        read = read_evaluation(old)
        assert list(read.courses) == [] and read.forgetting is None and not read.settings.revisit
        data["time_courses"] = [course.to_dict() | {"episodes": 3}]
        old.write_text(json.dumps(data))
        with pytest.raises(ValueError, match=r"curves\.\w+ has \d+ bins"):
            read_evaluation(old)

    def test_the_table_of_an_evaluation_has_the_curves_against_seconds(self, run_dir: Path):
        """The rate of each bin times its width sums to the return of the episode."""
        file = run_dir / "evaluation/held_out_seeds1_iteration000001.json"
        result = read_evaluation(file)
        rows = list(csv.DictReader(file.with_name(f"{file.stem}_time.csv").read_text().splitlines()))
        widths = np.diff(result.courses[0].ends_s, prepend=0.0)
        episodes = [[row for row in rows if row["episode"] == str(k)] for k in (1, 2)]
        assert [len(own) for own in episodes] == [len(widths)] * 2 and len(rows) == 2 * len(widths)
        returns = [float(np.dot([float(row["reward_rate"]) for row in own], widths)) for own in episodes]
        assert returns == pytest.approx(np.mean(result.returns, axis=(0, 2)).tolist(), rel=1e-3)
        seconds = np.array([float(row["seconds"]) for row in rows])
        np.testing.assert_allclose(seconds[: len(widths)], np.cumsum(widths) - widths / 2, rtol=1e-4)
        np.testing.assert_allclose(seconds[len(widths) :] - seconds[: len(widths)], widths.sum(), rtol=1e-3)
        for row in rows:
            assert float(row["velocity_error_low"]) <= float(row["velocity_error"]) <= float(row["velocity_error_high"])

    def test_a_table_has_a_gap_for_what_an_agent_lacks(self):
        """Agents with other curves and changes stand in one table."""
        whole, after = (course(REWARD_RATE, "error", change=k) for k in (0, 2))
        [poor] = [replace(course(REWARD_RATE), curves={REWARD_RATE: np.array([[1.0, np.nan]] * 3)})]
        text = time_table.csv_text([timed("a", whole, after), timed("b", poor)])
        rows = list(csv.DictReader(text.splitlines()))
        where = [(row["label"], row["change"], row["episode"], row["seconds"]) for row in rows]
        assert where[:4] == [
            ("a", "0", "1", "0.5"),
            ("a", "0", "1", "1.5"),
            ("a", "2", "", "0.5"),
            ("a", "2", "", "1.5"),
        ]
        assert [row["reward_rate_high"] for row in rows] == ["1", "2", "1", "2", "1", ""]
        assert [row["error"] for row in rows] == ["1", "2", "1", "2", "", ""]

    def test_the_return_after_each_change_is_in_the_tables(self):
        whole, first, second = (replace(course(REWARD_RATE, change=k), total=Interval(k, 0.0, 9.0)) for k in range(3))
        both, one = timed("both", whole, first, second), timed("one", whole, first)
        agents, column = Agents.of([both, one]), RETURN_AFTER_CHANGES
        assert [column.cell(own, agents) for own in (both, one)] == [
            "1: 1.00 [0.00, 9.00]; 2: 2.00 [0.00, 9.00]",
            "1.00 [0.00, 9.00]",
        ]
        assert [column.brief_cell(own, agents) for own in (both, one)] == ["1: 1.00; 2: 2.00", "1.00"]
        assert csv_numbers([column], both)["return_after_change"] == 1
        for old in (timed("old", whole, course(REWARD_RATE, change=1)), timed("no change", whole)):
            assert column.cell(old, agents) == "" and csv_numbers([column], old)["return_after_change"] == ""

    @pytest.mark.thorough
    def test_a_comparison_gives_what_memory_adds_and_a_report_shows_it(self, run_dir, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        rows = [str(run_dir), f"{run_dir}:evaluation.reset-memory=step"]
        assert cli.main(["evaluate", *rows, "--no-train-gap", "--output", "c"]) == 0
        said = capsys.readouterr().out
        assert "memory adds" in said and "does not adapt" in said
        assert "r:reset_memory=step: without memory" in said
        comparison = read_comparison(tmp_path / "c/comparison.json")
        own, reset = comparison.agents
        assert own.memory_gap is not None and reset.memory_gap is None
        assert reset.result.courses[0].seconds is None
        assert own.memory_gap.level.estimate == pytest.approx(
            own.result.courses[0].level.estimate - reset.result.courses[0].level.estimate, abs=1e-3
        )
        table = (tmp_path / "c/time.csv").read_text()
        assert {row["label"] for row in csv.DictReader(table.splitlines())} == {"r", "r:reset_memory=step"}
        assert drawn(tmp_path / "c/time.png") and "memory_per_second" in (tmp_path / "c/comparison.csv").read_text()
        assert cli.main(["report", str(run_dir), "--comparison", "c", "--output", "p", "--no-videos"]) == 0
        text = (tmp_path / "p/report.md").read_text()
        assert "Adaptation in time" in text and "trial_1_reward_rate.png" in text
        assert drawn(tmp_path / "p/figures/first_episode_1_velocity_error.png")
