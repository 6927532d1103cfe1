"""Forgetting: agents whose belief is known, one that forgets by construction and one that does not, and every agent."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from metarl.agents.agent import Facts, Rollout
from metarl.agents.registry import AGENTS, make_agent
from metarl.cli import app as cli
from metarl.config import EvaluationSettings
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.robots.ant_settings import AntLegsSettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahDirectionSettings, HalfCheetahMassSettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.walkers_settings import HopperParametersSettings
from metarl.envs.sharded import ShardedEnv
from metarl.errors import UsageError
from metarl.evaluation.binning import REWARD_RATE, RUNNING, Binned
from metarl.evaluation.comparison import Compared
from metarl.evaluation.evaluate import evaluate_agent
from metarl.evaluation.forgetting import (
    Forgetting,
    Revisit,
    forgetting,
    other_tasks,
    rounds_to_regain,
    seconds_to_close,
)
from metarl.evaluation.results import AgentResult, EvaluationResult
from metarl.evaluation.saved import read_comparison, read_evaluation
from metarl.reporting.time_columns import LOST, REGAINED
from metarl.reporting.time_figures import Timed, draw_revisit
from metarl.runs.trial import run_trial, streams
from tests.metarl.test_time_course import drawn
from tests.small_agents import PRIVILEGED, small_agent, small_options

HORIZON = 40
POINT = make_family(PointGoalSettings(horizon=HORIZON))
SETTINGS = EvaluationSettings(
    tasks=6, envs_per_task=2, adaptations=2, seeds=(1, 2), explore=False, bootstrap_samples=200, revisit=True
)
CORNER = 3
"""Steps along each axis at the start of every episode, so that the positions do not lie on a line."""


@dataclass(frozen=True)
class Goal:
    """The goal of each task as it is known, [M, 2]; NaN before the first shot."""

    place: torch.Tensor
    step: torch.Tensor
    """Steps of the episode so far, [M]."""

    @staticmethod
    def at(place: torch.Tensor) -> Goal:
        return Goal(place, torch.zeros(len(place), dtype=torch.int64))


def test_tasks_that_change_are_not_come_back_to():
    """Back at its start, a task is another than at the end of the visit before: what differs is no forgetting."""
    family = make_family(HalfCheetahMassSettings(horizon=30, changes=1, change_gap=(10, 20)))
    with pytest.raises(UsageError, match=r"evaluation\.revisit .* these tasks change on the way"):
        evaluate_agent(Surveyor(True), family, SETTINGS, 1)


class Surveyor:
    """Finds the goal from a shot's positions and distances, and goes there in the next ones.

    One that forgets takes the goal of the last shot; the other one keeps the first that it found, so that it never
    forgets the first task and never learns another.
    """

    facts = Facts()

    def __init__(self, forgets: bool):
        self.forgets = forgets

    def begin(self, num_tasks: int, envs_per_task: int, generators: Sequence[torch.Generator]) -> Goal:
        return Goal.at(torch.full((num_tasks, 2), torch.nan))

    def act(self, belief: Goal, observations: torch.Tensor, noise: torch.Tensor | None) -> tuple[torch.Tensor, Goal]:
        step = int(belief.step[0])
        if step < 2 * CORNER:
            action = torch.tensor([0.1, 0.0] if step < CORNER else [0.0, 0.1]).expand(observations.shape)
        else:
            action = torch.nan_to_num(belief.place[:, None] - observations)
        return action.clone(), replace(belief, step=belief.step + 1)

    def observe(self, belief: Goal, rewards: torch.Tensor, ended: torch.Tensor) -> Goal:
        return belief

    def adapt(self, belief: Goal, rollout: Rollout, generators: Sequence[torch.Generator]) -> Goal:
        """|p - g|^2 = d^2 is linear in g and |g|^2: least squares over the shot's first env."""
        found = []
        for m in range(rollout.valid.shape[1]):
            taken = rollout.valid[1:, m, 0]
            p, d = rollout.observations[1:, m, 0][taken].double(), -rollout.rewards[:-1, m, 0][taken].double()
            system = torch.cat([2 * p, -torch.ones(len(p), 1, dtype=torch.float64)], dim=1)
            found.append(torch.linalg.lstsq(system, (p**2).sum(1) - d**2, driver="gelsd").solution[:2].float())
        known = torch.stack(found) if self.forgets or belief.place.isnan().any() else belief.place
        return Goal.at(known)


def evaluated(agent: Any, family: TaskFamily = POINT, settings: EvaluationSettings = SETTINGS) -> EvaluationResult:
    return evaluate_agent(agent, family, settings, threads=1)


@pytest.fixture(scope="module")
def forgets() -> EvaluationResult:
    return evaluated(Surveyor(forgets=True))


@pytest.fixture(scope="module")
def keeps() -> EvaluationResult:
    return evaluated(Surveyor(forgets=False))


class TestKnownBeliefs:
    def test_one_that_forgets_goes_to_the_other_goal_when_it_is_back(self, forgets: EvaluationResult):
        found = forgets.forgetting
        assert found is not None and found.lost
        returns, there = forgets.returns, found.returns  # [S, 3, M], [S, 6, M]
        np.testing.assert_allclose(there[:, 4:], returns[:, 1:], rtol=1e-3)  # then it has found the first goal again
        by_hand = there[:, 3] - returns[:, 2]
        middle = np.sort(by_hand.ravel())[3:-3].mean()  # a quarter of the 12 tasks cut off at either end
        assert found.difference.estimate == pytest.approx(middle) and found.difference.high < 0
        assert found.rounds is not None and vars(found.rounds) == {"estimate": 1.0, "low": 1.0, "high": 1.0}
        assert found.seconds is not None  # the second round back begins after two episodes of 4 s, which it reads both
        assert forgets.episodes_per_round == 2
        assert vars(found.seconds) == pytest.approx({"estimate": 8.0, "low": 8.0, "high": 8.0})

    def test_it_meets_the_other_task_with_the_belief_of_the_first(self, forgets: EvaluationResult):
        found = forgets.forgetting
        assert found is not None
        tasks = np.array([[[task["goal_x"], task["goal_y"]] for task in drawn] for drawn in forgets.tasks])
        others = np.roll(tasks, -1, axis=1)
        away = np.linalg.norm(others - tasks, axis=-1)  # it ends at the first goal, that far from the other one
        assert (found.returns[:, 0] < -0.5 * away * HORIZON * 0.8).all()
        np.testing.assert_allclose(found.returns[:, 1], found.returns[:, 2], rtol=1e-3)
        assert (found.returns[:, 1] > found.returns[:, 0]).all()

    def test_one_that_keeps_what_it_knows_loses_nothing_and_learns_nothing_else(self, keeps: EvaluationResult):
        found = keeps.forgetting
        assert found is not None and not found.lost and found.rounds is None and found.seconds is None
        assert found.difference.estimate == pytest.approx(0.0, abs=1e-3)
        np.testing.assert_allclose(found.returns[:, 0], found.returns[:, 2], rtol=1e-3)  # on the other task

    def test_the_first_visit_is_the_evaluation_without_a_revisit(self, forgets: EvaluationResult):
        plain = evaluated(Surveyor(forgets=True), settings=replace(SETTINGS, revisit=False))
        assert plain.forgetting is None
        assert (plain.returns == forgets.returns).all() and plain.summary == forgets.summary
        assert plain.courses == forgets.courses

    def test_with_its_memory_reset_there_is_nothing_to_forget(self):
        found = evaluated(Surveyor(forgets=True), settings=replace(SETTINGS, reset_memory="episode")).forgetting
        assert found is not None and vars(found.difference) == {"estimate": 0.0, "low": 0.0, "high": 0.0}

    def test_files_and_words(self, forgets: EvaluationResult):
        result = forgets
        again = EvaluationResult.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
        assert again == result and again.forgetting == result.forgetting
        assert isinstance(again.forgetting, Forgetting) and again.forgetting.lost
        assert any(note.startswith("A is each of the tasks: 3 rounds on A, 3 rounds on B") for note in result.notes)


class TestStatistics:
    def test_rounds_to_regain(self):
        curves = np.array([[10, 0, 8, 9, 10], [10, 0, 1, 2, 3], [10, 11, 0, 0, 0], [-10, -20, -11, -10, -30.0]])
        np.testing.assert_equal(rounds_to_regain(curves), [2, math.inf, math.nan, 1])

    def test_seconds_to_close(self):
        """The gap opens, and counts as closed from the bin on from which it stays within a tenth of its largest."""
        clock = Binned(np.array([1.0, 2.0, 3.0, 4.0]), 2, {})
        gaps = np.array([[0, 5, 0, 5, 0, 0, 0, 0], [0, 9, 8, 0.5, 0, 0, 0, 0], [1.0] * 8, [-1.0] * 8])
        np.testing.assert_equal(seconds_to_close(gaps, clock), [4.0, 3.0, math.inf, math.nan])

    @pytest.mark.parametrize("falls", [False, True])
    def test_a_gap_that_falling_closes_is_not_regained(self, falls: bool):
        """Back on the task, 2 a second are lost instead of 1; then 1 again, or nothing, as nobody runs any more."""
        rng, late = np.random.default_rng(0), np.arange(8) >= 4
        noise = 0.01 * rng.random((1, 1, 8, 6))
        share = np.broadcast_to(np.where(late & falls, 0.0, 1.0)[:, None], noise.shape)

        def visit(rates: np.ndarray, running: np.ndarray) -> Binned:
            return Binned(np.arange(1.0, 9.0), 1, {REWARD_RATE: rates * running, RUNNING: running})

        first = visit(noise - 1.0, np.ones(noise.shape))
        back = visit(noise - np.where(late, 1.0, 2.0)[:, None], share)
        returns = np.array([-8.0, -9.0, -12.0])[:, None] + rng.random((1, 1, 3, 6))
        found = forgetting(returns[:, :, :1], first, Revisit(returns[:, :, 1:], back), 200, rng)
        assert found is not None and found.difference.high < 0
        assert (found.seconds is None) == falls


class TestOtherTasks:
    def test_each_is_the_next_task_with_other_values(self):
        tasks = POINT.sample(4, np.random.default_rng(0))
        assert other_tasks(tasks, POINT) == [*tasks[1:], tasks[0]]
        directions = make_family(HalfCheetahDirectionSettings())
        drawn_ = [directions.task({"direction": d}) for d in (1.0, 1.0, -1.0)]
        assert [task.values["direction"] for task in other_tasks(drawn_, directions)] == [-1.0, -1.0, 1.0]

    def test_it_has_as_many_legs(self):
        family = make_family(AntLegsSettings())
        tasks = family.sample(12, np.random.default_rng(0))
        layouts = [(family.layout_of(a), family.layout_of(b)) for a, b in itertools.pairwise(tasks)]
        assert any(a != b for a, b in layouts)
        alike = [
            task for task in tasks if sum(family.layout_of(other) == family.layout_of(task) for other in tasks) > 1
        ]
        for task, other in zip(alike, other_tasks(alike, family), strict=True):
            assert family.layout_of(task) == family.layout_of(other) and task != other

    def test_a_task_without_another_is_an_error_that_says_what_to_do(self):
        same = [POINT.task({"goal_x": 0.1})] * 3
        with pytest.raises(UsageError, match=r"evaluation\.revisit needs a second task .* raise evaluation\.tasks"):
            other_tasks(same, POINT)


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_plays_other_tasks_with_what_it_knows(name: str):
    """The first visit is played as it is without another, to the bit, and so by several shards."""
    family = make_family(PointGoalSettings(horizon=8))
    sizes = family.observation_size, family.action_size
    agent = make_agent(
        small_agent(name), *sizes, torch.Generator().manual_seed(0), torch.device("cpu"), privileged=PRIVILEGED
    )
    tasks = family.sample(3, np.random.default_rng(0))
    others = other_tasks(tasks, family)

    def play(threads: int = 1, **options: Any):
        env = ShardedEnv(family, 3, 2, threads)
        env.set_tasks(tasks)
        return run_trial(env, agent, streams(1, "test", 0, 3), 1, **options).trial

    plain, long, shards = play(), play(visits=[others, tasks]), play(threads=2, visits=[others, tasks])
    assert len(plain.rollouts) == 2 and len(long.rollouts) == len(long.beliefs) == 6
    for own, other in zip(plain.rollouts, long.rollouts, strict=False):
        assert torch.equal(own.actions, other.actions) and torch.equal(own.rewards, other.rewards)
    for own, other in zip(long.rollouts, shards.rollouts, strict=True):
        torch.testing.assert_close(own.rewards, other.rewards)
    first = [rollout.observations[1] for rollout in long.rollouts]
    goals = [torch.tensor([[t.values["goal_x"], t.values["goal_y"]] for t in own]) for own in (tasks, others, tasks)]
    for k, seen in enumerate(first):
        distance = torch.linalg.vector_norm(seen - goals[k // 2][:, None].float(), dim=-1)
        torch.testing.assert_close(long.rollouts[k].rewards[0], -distance, rtol=1e-5, atol=1e-6)
    assert tuple(long.tasks) == tuple(plain.tasks)


def test_lives_go_on_in_every_visit():
    family = make_family(HopperParametersSettings(horizon=30))
    agent = make_agent(
        small_agent("rl2"),
        family.observation_size,
        family.action_size,
        torch.Generator().manual_seed(0),
        torch.device("cpu"),
    )
    settings = replace(SETTINGS, lives=True, explore=True, tasks=4, adaptations=0)
    for lives in (True, False):
        result = evaluate_agent(agent, family, replace(settings, lives=lives), threads=1)
        assert result.forgetting is not None and result.revisit is not None
        assert result.courses[0].episode_ends_s == pytest.approx([30 * family.dt])
        for visit in (result.binned[0], result.revisit.back):  # the reward of surviving, in the last bin of an episode
            assert (visit.values["reward_rate"][0, :, -1] > 0).all() == lives


def test_agents_of_other_numbers_of_rounds_are_drawn_where_their_tasks_are(forgets: EvaluationResult):
    """One plays three rounds on a task, one two: no point may stand under another task's name."""
    fewer = evaluated(Surveyor(forgets=True), settings=replace(SETTINGS, adaptations=1))
    agents = [
        Timed(
            Compared(label=str(i), result=AgentResult.part_of(own), explore=False, envs_per_task=2),
            {"color": f"C{i}", "marker": "", "linestyle": "-"},
        )
        for i, own in enumerate((forgets, fewer))
    ]
    axes = Figure().subplots()
    draw_revisit(axes, agents)
    places = {
        f"C{i}": [np.asarray(line.get_xdata()) for line in axes.lines if line.get_color() == f"C{i}"] for i in range(2)
    }
    drawn_at = {colour: [np.round(x).astype(int).tolist() for x in own if len(x) > 1] for colour, own in places.items()}
    for own, expected in zip(
        drawn_at.values(), ([[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[0, 1], [3, 4], [6, 7]]), strict=True
    ):
        assert [x for i, x in enumerate(own) if x not in own[:i]] == expected
    assert [text.get_text() for text in axes.texts] == ["task A", "task B", "task A again"]
    np.testing.assert_allclose([text.get_position()[0] for text in axes.texts], [1, 4, 7])


@pytest.mark.thorough
def test_it_is_asked_for_on_the_command_line(tmp_path_factory, tiny, tmp_path: Path, monkeypatch, capsys):
    folder = tmp_path_factory.mktemp("forgetting")
    arguments = ["--agent", "pearl", "--family", "point_goal", *tiny, *small_options("pearl"), "training.iterations=1"]
    arguments += ["--runs-dir", str(folder), "--name", "r", "tracking.wandb=disabled"]
    assert cli.main(["train", *arguments]) == 0
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    run = str(folder / "r")
    assert cli.main(["evaluate", run, "--revisit", "--no-train-gap"]) == 0
    said = capsys.readouterr().out
    assert LOST.heading in said and REGAINED.heading in said
    [file] = [f for f in (folder / "r/evaluation").glob("*.json") if read_evaluation(f).forgetting is not None]
    assert read_evaluation(file).settings.revisit and drawn(file.with_name(f"{file.stem}_revisit.png"))
    assert cli.main(["evaluate", run, f"{run}:label=again", "--revisit", "--no-train-gap", "--output", "c"]) == 0
    assert "back on A" in capsys.readouterr().out and drawn(tmp_path / "c/revisit.png")
    assert all(agent.result.forgetting for agent in read_comparison(tmp_path / "c/comparison.json").agents)
    assert cli.main(["report", run, "--output", "p", "--no-videos"]) == 0
    assert drawn(tmp_path / "p/figures/revisit_1.png")
    assert cli.main(["evaluate", run, "--revisit=maybe"]) == 2
    assert "--revisit is 'maybe'" in capsys.readouterr().err
