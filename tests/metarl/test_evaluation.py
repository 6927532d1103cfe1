"""Evaluation on real families: scripted agents whose returns are known, and every agent that is registered."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from metarl.agents.agent import Facts, Rollout, Trial
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.registry import AGENT_SETTINGS, make_agent
from metarl.agents.sb3.settings import PpoSettings
from metarl.config import EvaluationSettings, RunConfig, TrackingSettings, TrainingSettings
from metarl.envs.family import TaskFamily
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.reveal import reveal
from metarl.envs.robots.half_cheetah_settings import HalfCheetahDirectionSettings, HalfCheetahMassSettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.task import Change, Changes, Task
from metarl.errors import RunError, UsageError
from metarl.evaluation.compare import comparison_of
from metarl.evaluation.comparison import Comparison
from metarl.evaluation.evaluate import draw_tasks, evaluate_agent, recovered_of
from metarl.evaluation.judged import Judged
from metarl.evaluation.notes import gain_warnings, later_warnings
from metarl.evaluation.outcomes import observation_spread
from metarl.evaluation.recovery import recovery_of
from metarl.evaluation.results import EvaluationResult, Source, TrainGap
from metarl.evaluation.saved import read_evaluation
from metarl.evaluation.statistics import Interval, interquartile_mean, summarise
from metarl.evaluation.train_gap import train_gap, training_tasks
from metarl.reporting import comparison_tables, headroom_report
from metarl.reporting.judge import evaluate
from metarl.runs.run import distinct_tasks, load_run, save_config
from metarl.runs.trial import TrialResult
from metarl.training.loop import train
from tests.sampling import sampled

SMALL = EvaluationSettings(tasks=4, envs_per_task=2, adaptations=2, seeds=(1, 2), explore=False, bootstrap_samples=200)
POINT = make_family(PointGoalSettings(horizon=6))


@dataclass(frozen=True)
class Round:
    """The round of a trial, and the places of its tasks among all, [M]."""

    number: int
    places: torch.Tensor


class Scripted:
    """Takes one action a round, for all envs; knows nothing. With spoilt_task, that task's is NaN in round 1."""

    facts = Facts()

    def __init__(self, actions: list[list[float]], spoilt_task: int | None = None):
        self.actions, self.spoilt_task = torch.tensor(actions), spoilt_task
        self.tasks_begun = 0

    def begin(self, num_tasks: int, envs_per_task: int, generators: Sequence[torch.Generator]) -> Round:
        first = self.tasks_begun % SMALL.tasks  # one thread: the shards begin in order
        self.tasks_begun += num_tasks
        return Round(0, first + torch.arange(num_tasks))

    def act(self, belief: Round, observations: torch.Tensor, noise: torch.Tensor | None) -> tuple[torch.Tensor, Round]:
        actions = self.actions[belief.number].expand(*observations.shape[:2], -1).clone()
        if self.spoilt_task is not None and belief.number == 1:
            actions[belief.places == self.spoilt_task] = torch.nan
        return actions, belief

    def observe(self, belief: Round, rewards: torch.Tensor, ended: torch.Tensor) -> Round:
        return belief

    def adapt(self, belief: Round, rollout: Rollout, generators: Sequence[torch.Generator]) -> Round:
        return replace(belief, number=belief.number + 1)


class Watching(Scripted):
    """Stays where it is, and keeps what it was shown."""

    def __init__(self):
        super().__init__([STAY] * 3)
        self.observed: list[torch.Tensor] = []
        self.adapted: list[Rollout] = []
        self.rewarded: list[torch.Tensor] = []

    def act(self, belief: Any, observations: torch.Tensor, noise: torch.Tensor | None) -> Any:
        self.observed.append(observations.clone())
        return super().act(belief, observations, noise)

    def observe(self, belief: Any, rewards: torch.Tensor, ended: torch.Tensor) -> Any:
        self.rewarded.append(rewards.clone())
        return belief

    def adapt(self, belief: Any, rollout: Rollout, generators: Sequence[torch.Generator]) -> Any:
        self.adapted.append(rollout)
        return super().adapt(belief, rollout, generators)


STAY = [0.0, 0.0]


def evaluated(agent: Any, family: TaskFamily = POINT, settings: EvaluationSettings = SMALL) -> EvaluationResult:
    return evaluate_agent(agent, family, settings, threads=1)


def test_ood_goals_are_farther_on_both_axes_and_so_are_the_returns() -> None:
    result = evaluated(Scripted([STAY] * 3), settings=replace(SMALL, split="ood"))
    goals = np.array([[list(values.values()) for values in drawn] for drawn in result.tasks])  # [S, M, 2]
    assert (np.abs(goals) >= 0.5).all() and (np.abs(goals) <= 0.75).all()
    np.testing.assert_allclose(result.returns[:, 0], -6 * np.linalg.norm(goals, axis=-1), rtol=1e-5)
    assert "these are tasks outside the range of training" in result.notes


def test_a_family_without_ood_tasks_is_not_evaluated_on_them() -> None:
    family = make_family(HalfCheetahDirectionSettings())
    with pytest.raises(UsageError, match="evaluation.split: family 'half_cheetah_direction' has no split 'ood'"):
        evaluated(Scripted([[0.0] * 6] * 3), family, replace(SMALL, split="ood"))


def test_returns_of_a_point_that_stays_are_its_distance_from_the_goal() -> None:
    result = evaluated(Scripted([STAY] * 3))
    assert result.returns.shape == (2, 3, 4)  # [seed, shot, task]
    for s, tasks in enumerate(result.tasks):
        distances = [math.hypot(values["goal_x"], values["goal_y"]) for values in tasks]
        np.testing.assert_allclose(result.returns[s], np.tile(-6.0 * np.array(distances), (3, 1)), rtol=1e-5)
    assert result.faults == 0
    assert "includes 0" in result.warnings[0]


def test_gain_of_an_agent_that_runs_away_until_it_adapts() -> None:
    result = evaluated(Scripted([[1.0, 1.0], STAY, STAY]))
    assert result.summary.gain[1].low > 0
    assert result.warnings == []
    worse = evaluated(Scripted([STAY, STAY, [1.0, 1.0]]))
    assert "makes this agent worse" in worse.warnings[0]


def test_every_agent_meets_the_same_tasks_which_are_those_of_the_split() -> None:
    def ids(settings: EvaluationSettings) -> list[list[str]]:
        result = evaluated(Scripted([STAY] * 3), settings=settings)
        return [[POINT.task(values).id for values in drawn] for drawn in result.tasks]

    held_out = ids(SMALL)
    assert held_out == ids(replace(SMALL, explore=True, envs_per_task=1))
    assert held_out[1] == ids(replace(SMALL, seeds=(2,)))[0]
    assert (
        len({i for seed in held_out for i in seed} | {i for seed in ids(replace(SMALL, split="train")) for i in seed})
        == 16
    )


def test_a_task_whose_simulations_are_flagged_is_counted_and_left_out() -> None:
    agent = Scripted([STAY] * 3, spoilt_task=3)
    result = evaluated(agent)
    assert np.argwhere(np.isnan(result.returns)).tolist() == [[0, 1, 3], [1, 1, 3]]
    assert result.faults == 4  # 2 seeds x 2 envs
    assert (result.summary.tasks_counted, result.summary.tasks_left_out) == (6, 2)
    assert "the environment raised an error: 4 episodes" in " ".join(result.notes)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["returns"][0][1][3] is None


def test_an_evaluation_without_a_sound_task_is_a_fault_of_the_run() -> None:
    with pytest.raises(RunError, match="no evaluation: all 8 tasks have a return of NaN: every simulation broke down"):
        evaluated(Scripted([[math.nan] * 2] * 3))


@pytest.mark.parametrize(
    ("agent_name", "family_name"),
    sampled(itertools.product(AGENT_SETTINGS, FAMILY_SETTINGS), 9),  # it meets each agent and each family
)
def test_every_agent_is_evaluated_on_every_family(agent_name: str, family_name: str) -> None:
    family = make_family(FAMILY_SETTINGS[family_name](horizon=5))
    agent = make_agent(
        AGENT_SETTINGS[agent_name](),
        family.observation_size,
        family.action_size,
        torch.Generator().manual_seed(0),
        torch.device("cpu"),
    )
    settings = replace(SMALL, explore=True, adaptations=1)
    results = [evaluate_agent(agent, family, settings, threads=1) for _ in range(2)]
    assert np.isfinite(results[0].returns).all()
    np.testing.assert_array_equal(results[0].returns, results[1].returns)
    assert results[0].summary == results[1].summary


def test_finitely_many_tasks_are_said_to_be_those_of_training() -> None:
    family = make_family(HalfCheetahDirectionSettings(horizon=3))
    result = evaluated(Scripted([[0.0] * 6] * 3), family)
    assert any("training meets all: those that are judged on are no others" in note for note in result.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": 1}, r"evaluation\.tasks"),
        ({"seeds": ()}, r"evaluation\.seeds"),
        ({"seeds": (1, 1)}, r"evaluation\.seeds"),
        ({"adaptations": -1}, r"evaluation\.adaptations"),
        ({"split": "test"}, r"evaluation\.split is 'test'; valid: train, held_out"),
    ],
)
def test_settings_that_give_no_number_are_refused(change: dict[str, object], message: str) -> None:
    settings = replace(SMALL, **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        evaluated(Scripted([STAY] * 3), settings=settings)


def test_without_adaptation_there_is_a_return_and_no_gain_to_warn_of() -> None:
    result = evaluated(Scripted([STAY]), settings=replace(SMALL, adaptations=0))
    assert result.returns.shape == (2, 1, 4)
    assert result.warnings == []


def test_warning_says_what_was_found_and_where_to_look() -> None:
    assert gain_warnings(Interval(2.0, 0.1, 3.0), 1) == []
    [warning] = gain_warnings(Interval(1.5, -0.5, 3.0), 1)
    assert "after 1 round of adaptation is 1.5 [-0.5, 3], which includes 0" in warning
    assert "learning curve" in warning
    assert "after 2 rounds" in gain_warnings(Interval(-2.0, -3.0, -1.0), 2)[0]


def test_a_return_that_falls_after_an_earlier_round_is_warned_of() -> None:
    settings = replace(SMALL, adaptations=2)
    [falls] = [
        w for w in evaluated(Scripted([[1.0, 1.0], STAY, [1.0, 1.0]]), settings=settings).warnings if "falls" in w
    ]
    assert "from round 1 to round 2 of adaptation the return falls by" in falls and "Stop after round 1" in falls
    for better in ([[1.0, 1.0], STAY, STAY], [[1.0, 1.0], [1.0, 1.0], STAY]):
        assert not any("falls" in w for w in evaluated(Scripted(better), settings=settings).warnings)


def compared(**judged: Sequence[Judged]) -> Comparison:
    config = RunConfig(PpoSettings(), PointGoalSettings(horizon=6), evaluation=SMALL)
    return comparison_of(judged, config, POINT, draw_tasks(POINT, SMALL), {})


def scripted_run(actions: list[list[float]], seed: int = 1, adapts: bool = True, **settings: Any) -> Judged:
    """A run of a scripted agent, judged as those of a comparison are."""
    result = evaluated(Scripted(actions))
    return Judged(
        result=replace(result, source=Source(f"run_{seed}", 1, 1), settings=replace(SMALL, **settings)),
        agent="scripted",
        adapts=adapts,
        overrides={},
        folder=Path(f"run_{seed}"),
        trained={"training": {"seed": seed, "reveal_task": False}},
    )


def test_a_comparison_warns_once_of_each_agent_whose_return_falls_after_an_earlier_round(capsys) -> None:
    falls, rises = [[1.0, 1.0], STAY, [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0], STAY]
    agents = {
        "spoilt": [scripted_run(falls)],
        "seeds": [scripted_run([[1.0, 1.0], STAY, [1.0, 0.02 * seed]], seed) for seed in (1, 2, 3)],
        "better": [scripted_run(rises)],
        "constant": [scripted_run(falls, adapts=False)],
        "reset": [scripted_run(falls, reset_memory="step")],
    }
    comparison = compared(**agents)
    [warning] = [text for text in comparison.warnings if "falls" in text]
    assert warning.startswith("from round 1 to round 2 of adaptation the return falls by ")
    assert [label for label in agents if f"({label})" in warning] == ["spoilt", "seeds"]
    alone = later_warnings(agents["spoilt"][0].result.returns[None], agents["spoilt"][0].result.summary, SMALL)
    assert compared(spoilt=agents["spoilt"], better=agents["better"]).warnings == [f"spoilt: {alone[0]}"]
    for show in (comparison_tables.show, partial(headroom_report.show, found=None, cost={}, notes=["note: a note"])):
        show(comparison)
        assert capsys.readouterr().out.count(f"warning: {warning}") == 1


def test_where_the_task_changes_on_the_way_no_gain_or_loss_is_put_down_to_adaptation() -> None:
    settings = PointGoalSettings(horizon=6)
    changing = replace(make_family(settings), changes=Changes(("goal_x",), 1, (6, 6)))
    falls = [[1.0, 1.0], STAY, [1.0, 1.0]]
    result = evaluated(Scripted(falls), changing)
    assert not result.warnings and any("tasks change while they last" in note for note in result.notes)
    assert evaluated(Scripted(falls)).warnings
    own = Judged(
        result=replace(result, source=Source("run", 1, 1)),
        agent="scripted",
        adapts=True,
        overrides={},
        folder=Path("run"),
        trained={"training": {"seed": 1, "reveal_task": False}},
    )
    config = RunConfig(PpoSettings(), settings, evaluation=SMALL)
    assert comparison_of({"a": [own]}, config, changing, draw_tasks(changing, SMALL), {}).warnings == []


@pytest.mark.thorough
def test_the_best_of_many_equal_rounds_is_no_better_than_the_last() -> None:
    """With ten rounds as good as each other a warning is as rare as with two."""
    rng = np.random.default_rng(0)
    warned = 0
    for _ in range(200):
        returns = rng.normal(size=(1, 2, 11, 20))
        warned += bool(later_warnings(returns, summarise(returns[0], 50, rng), replace(SMALL, bootstrap_samples=1000)))
    assert warned <= 12  # 2.5 % are 5


def test_training_seeds_that_disagree_widen_the_interval_of_what_later_rounds_lose() -> None:
    rng = np.random.default_rng(0)
    loss = np.array([0.5, 1.0, 1.5]).reshape(3, 1, 1)
    returns = rng.normal(size=(3, 2, 1, 20)) + np.zeros((3, 2, 3, 20))
    returns[:, :, 1] += 1 + loss
    returns[:, :, 2] += 1
    summary = summarise(returns, 200, rng)
    [pooled] = later_warnings(returns.mean(0, keepdims=True), summary, SMALL)
    assert "falls by 1 [1, 1]" in pooled and later_warnings(returns, summary, SMALL) == []
    for settings, remedied in ((SMALL, True), (replace(SMALL, explore=True), False)):
        [warning] = later_warnings(returns.mean(0, keepdims=True), summary, settings)
        assert ("explore_to_adapt=true" in warning) == remedied


def test_a_wrong_reward_scale_is_shown_to_the_agent_and_not_reported() -> None:
    agent, told = Watching(), Watching()
    result = evaluated(agent)
    scaled = evaluated(told, settings=replace(SMALL, reward_scale=3.0))
    np.testing.assert_array_equal(scaled.returns, result.returns)
    for wrong, right in zip(told.rewarded, agent.rewarded, strict=True):
        np.testing.assert_allclose(wrong, 3 * right, rtol=1e-6)
    np.testing.assert_allclose(told.adapted[0].rewards, 3 * agent.adapted[0].rewards, rtol=1e-6)
    assert "the agent was shown 3 times the reward; the returns are the true ones" in scaled.notes


def test_noise_is_on_what_the_agent_sees_alone_and_has_the_size_that_is_said() -> None:
    """The point stays at the origin: what is seen of it is the noise."""
    family = make_family(PointGoalSettings(horizon=50))
    agent, settings = Watching(), replace(SMALL, adaptations=0, observation_noise=0.5)
    noisy = evaluated(agent, family, settings)
    plain = evaluated(Scripted([STAY]), family, replace(settings, observation_noise=0.0))
    np.testing.assert_array_equal(noisy.returns, plain.returns)
    seen = torch.cat([observed.reshape(-1, 2) for observed in agent.observed]).numpy()
    spread = observation_spread(family)
    np.testing.assert_allclose(seen.std(axis=0), 0.5 * spread, rtol=0.1)
    # A walk of U(-.1, .1) m a step: its variance after t steps is t .1^2 / 3, on average over 50 steps 25 .1^2 / 3.
    np.testing.assert_allclose(spread, np.sqrt(25 * 0.01 / 3), rtol=0.5)
    assert any(note.startswith("observed with noise: 0.5 standard deviations") for note in noisy.notes)


def test_what_an_oracle_is_told_has_no_noise() -> None:
    spread = observation_spread(reveal(POINT))
    assert (spread[:2] > 0).all() and (spread[2:] == 0).all() and len(spread) == 4


def test_measures_are_means_over_the_episodes_of_a_task() -> None:
    result = evaluated(Scripted([STAY] * 3))
    assert list(result.measures) == list(result.measured) == ["success", "final_goal_distance", "goal_reached"]
    for s, tasks in enumerate(result.tasks):
        distances = [math.hypot(values["goal_x"], values["goal_y"]) for values in tasks]
        np.testing.assert_allclose(result.measures["final_goal_distance"][s], [distances] * 3, rtol=1e-6)
    assert (result.measures["success"] == 0).all()
    assert result.measured["final_goal_distance"][0].estimate == pytest.approx(
        result.measures["final_goal_distance"][:, 0].mean()
    )
    assert result.scalars["evaluation/success"] == 0.0


def trial_of(
    rewards: Sequence[torch.Tensor], valid: Sequence[torch.Tensor], terminated: Sequence[torch.Tensor] | None = None
) -> TrialResult:
    """A trial of rewards [K][T, M, N]."""
    empty, ended = torch.zeros(0), [torch.zeros_like(v) for v in valid] if terminated is None else terminated
    rollouts = [Rollout(empty, empty, r, e, empty, v, empty) for r, v, e in zip(rewards, valid, ended, strict=True)]
    return TrialResult(Trial(rollouts, []), None, [], [], [])


def test_recovery_is_read_from_the_trial_of_a_task_that_changes() -> None:
    """Two episodes of 60 steps. One env of two ends its first early; steps that no env takes do not count."""
    rewards, valid = torch.ones(2, 60, 1, 2), torch.ones(2, 60, 1, 2, dtype=torch.bool)
    valid[0, 50:] = False
    rewards[1, :30] = 0.0
    valid[0, 40:, 0, 1], rewards[0, 40:, 0, 1] = False, 99.0
    result = trial_of(rewards, valid)
    task = Task("any", {}, (Change(60, {}),))
    # Of the 30 bad steps the first 20 are the episode's start; then 18 of the 20 steps of the window are good again.
    assert recovery_of(result, task, 0, True) == 10 + 18
    assert math.isnan(
        recovery_of(result, Task("any", {}, (Change(10, {}),)), 0, True)
    )  # too early to have a level before
    assert math.isnan(recovery_of(result, Task("any", {}, (Change(200, {}),)), 0, True))  # after the trial's end
    fault, mended = Change(60, {"fault_kind": 1.0}), Change(115, {"fault_kind": 0.0})
    assert (
        recovery_of(result, Task("any", {}, (fault, mended)), 0, True) == 10 + 18
    )  # that a fault ends is nothing to mend


@pytest.mark.parametrize("step", [100, 150, 190, 230])
def test_a_robot_that_gets_going_in_every_episode_has_nothing_to_recover_from(step: int) -> None:
    rewards = torch.linspace(0, 1, 25).clamp(max=1)
    episode = torch.cat([rewards, torch.ones(175)])[:, None, None]
    result = trial_of([episode] * 2, [torch.ones(200, 1, 1, dtype=torch.bool)] * 2)
    assert recovery_of(result, Task("any", {}, (Change(step, {}),)), 0, True) == 0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_robot_that_fell_after_the_change_has_not_recovered(sign: float) -> None:
    """Twenty robots, 100 steps; the change comes at step 50, and some fall ten steps later."""
    task = Task("any", {}, (Change(50, {}),))

    def recovery(fallen: int, episodes: int = 1) -> float:
        rewards = torch.full((episodes, 100, 1, 20), sign)
        valid, terminated = torch.ones_like(rewards, dtype=torch.bool), torch.zeros_like(rewards, dtype=torch.bool)
        valid[0, 61:, 0, :fallen], rewards[0, 61:, 0, :fallen] = False, 0.0
        terminated[0, 60, 0, :fallen] = fallen > 0
        return recovery_of(trial_of(rewards, valid, terminated), task, 0, True)

    assert recovery(0) == 0 and recovery(1) == 0  # of the reward a tenth may be lost
    assert recovery(5) == recovery(20) == math.inf
    assert math.isfinite(recovery(20, episodes=2))  # in its next episode it is as good as before


def test_an_end_at_the_goal_is_no_fall_and_a_simulation_that_broke_down_says_nothing() -> None:
    task = Task("any", {}, (Change(50, {}),))
    rewards = -torch.ones(1, 100, 1, 4)
    valid, terminated = torch.ones_like(rewards, dtype=torch.bool), torch.zeros_like(rewards, dtype=torch.bool)
    valid[0, 61:, 0, :3], terminated[0, 60, 0, :3] = False, True
    assert recovery_of(trial_of(rewards, valid, terminated), task, 0, False) == 0
    assert recovery_of(trial_of(rewards, valid, terminated), task, 0, True) == math.inf
    valid[0, :, 0, :3] = False
    assert recovery_of(trial_of(rewards, valid, terminated), task, 0, True) == 0


def test_of_robots_that_fell_before_the_change_nothing_is_said() -> None:
    rewards = torch.ones(1, 100, 1, 2)
    valid, terminated = torch.ones_like(rewards, dtype=torch.bool), torch.zeros_like(rewards, dtype=torch.bool)
    valid[0, 41:], terminated[0, 40] = False, True
    assert math.isnan(recovery_of(trial_of(rewards, valid, terminated), Task("any", {}, (Change(50, {}),)), 0, True))


def test_recovery_of_a_family_that_changes_is_summed_up() -> None:
    family = make_family(HalfCheetahMassSettings(horizon=60, changes=1, change_gap=(50, 58)))
    result = evaluated(Scripted([[0.3] * 6] * 3), family)
    assert result.recovery is not None and result.recovery.shape == (2, 4)
    assert result.recovered is not None and 0 <= result.recovered.share.estimate <= 1
    json.dumps(result.to_dict(), allow_nan=False)
    assert evaluated(Scripted([STAY] * 3)).recovery is None


@pytest.mark.thorough
def test_gap_to_training_tasks(run_dir: Path) -> None:
    run = load_run(run_dir)

    def gap_to(split: str) -> tuple[EvaluationResult, TrainGap | None]:
        result = evaluate_agent(run.agent, run.family, replace(SMALL, split=split), 1)
        return result, train_gap(run, run.family, result.settings, result.returns, 1)

    held_out, gap = gap_to("held_out")
    assert gap is not None and gap.own and gap.returns.shape == (2, 3, 4)
    iqm = [float(interquartile_mean(r[:, -1].ravel())) for r in (gap.returns, held_out.returns)]
    assert gap.after.estimate == pytest.approx(iqm[0] - iqm[1]) and gap.train.estimate == pytest.approx(iqm[0])
    ids = {task.id for tasks in training_tasks(run, SMALL) for task in tasks}
    assert len(ids) == 8 and not ids & {POINT.task(values).id for drawn in held_out.tasks for values in drawn}
    _, far = gap_to("ood")
    assert far is not None and not far.own and far.warnings == []
    assert gap_to("train")[1] is None
    few = replace(run.config.training, distinct_tasks=3)
    run.config = replace(run.config, training=few)  # tasks of the same range that it has not met
    _, gap = gap_to("train")
    assert gap is not None and gap.own


def test_training_tasks_of_a_run_that_had_few_are_those(run_dir: Path) -> None:
    run = load_run(run_dir)
    run.config = replace(run.config, training=replace(run.config.training, distinct_tasks=3))
    tasks = training_tasks(run, SMALL)
    assert [len(drawn) for drawn in tasks] == [4, 4]
    assert {task.id for drawn in tasks for task in drawn} <= {task.id for task in distinct_tasks(run)}


@pytest.mark.parametrize(
    ("after", "own", "said"),
    [
        (Interval(3.0, 1.0, 5.0), True, "the return on training tasks is higher by 3 [1, 5]"),
        (Interval(-3.0, -5.0, -1.0), True, "the return on training tasks is lower by 3 [1, 5]"),
        (Interval(3.0, -1.0, 5.0), True, None),
        (Interval(3.0, 1.0, 5.0), False, None),
    ],
)
def test_gap_is_warned_of_where_its_interval_excludes_0(after: Interval, own: bool, said: str | None) -> None:
    gap = TrainGap(np.zeros((1, 1, 2)), after, after, after, own)
    assert gap.flagged == (not after.includes(0))
    assert (said is None) == (gap.warnings == []) and (said is None or said in gap.warnings[0])


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two iterations, evaluated once by the end of training."""
    config = RunConfig(
        MamlSettings(hidden_sizes=(8,)),
        PointGoalSettings(horizon=5),
        TrainingSettings(iterations=2, tasks=3, envs_per_task=2, threads=1, checkpoint_every=1, device="cpu"),
        SMALL,
        TrackingSettings(wandb="disabled"),
    )
    directory = tmp_path_factory.mktemp("runs") / "small"
    directory.mkdir()
    save_config(config, directory)
    train(config, directory)
    return directory


def test_evaluation_of_a_run_is_printed_and_saved(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluate(run_dir, adaptations=1)
    printed = capsys.readouterr().out
    assert "point_goal, held-out tasks, run small at iteration 2 (120 env steps)" in printed
    assert "gain: IQM [95 %]" in printed
    folder = run_dir / "evaluation"
    saved = json.loads((folder / "held_out_seeds1to2_iteration000002_2.json").read_text())
    assert saved["evaluation"]["adaptations"] == 1
    assert (saved["run"], saved["iteration"], saved["env_steps"]) == ("small", 2, 120)
    assert saved["returns"] == result.returns.tolist()
    assert [[POINT.task(values).id for values in tasks] for tasks in saved["tasks"]] == [
        [POINT.task(values).id for values in drawn] for drawn in result.tasks
    ]
    assert saved["summary"]["gain"][1].keys() == {"estimate", "low", "high"}
    assert saved["provenance"]["config"]["evaluation"]["adaptations"] == 1
    assert saved["provenance"]["command"]
    assert read_evaluation(folder / "held_out_seeds1to2_iteration000002_2.json") == result
    assert saved["provenance"]["versions"]["mujoco"]
    for name in ("held_out_seeds1to2_iteration000002_2.png", "learning.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    first = sorted(p.name for p in folder.iterdir())
    evaluate(run_dir, adaptations=1)
    assert sorted(p.name for p in folder.iterdir()) == first
    evaluate(run_dir, replace(SMALL, tasks=3))
    assert json.loads((folder / "held_out_seeds1to2_iteration000002_2.json").read_text())["evaluation"]["tasks"] == 4
    assert json.loads((folder / "held_out_seeds1to2_iteration000002_3.json").read_text())["evaluation"]["tasks"] == 3


def test_an_unknown_override_names_the_nearest(run_dir: Path) -> None:
    with pytest.raises(
        UsageError, match=r"unknown key 'evaluation\.adaptation'; did you mean 'evaluation.adaptations'"
    ):
        evaluate(run_dir, adaptation=2)
    with pytest.raises(UsageError, match=r"evaluation\.tasks is 'many'"):
        evaluate(run_dir, tasks="many")


@pytest.mark.thorough
@pytest.mark.parametrize("adaptation", ["fine_tune", "scratch"])
def test_what_adapts_by_a_policy_gradient_acts_with_its_noise_whatever_the_settings_say(adaptation: str) -> None:
    """At the policy's mean the gradient is 0: a baseline that was evaluated so would learn nothing."""
    family = make_family(PointGoalSettings(horizon=20))
    settings = PpoSettings(hidden_sizes=(8,), adaptation=adaptation)  # pyright: ignore[reportArgumentType]
    agent = make_agent(settings, 2, 2, torch.Generator().manual_seed(0), torch.device("cpu"))
    silent, noisy = (
        evaluate_agent(agent, family, replace(SMALL, adaptations=2, explore=explore), threads=1)
        for explore in (False, True)
    )
    np.testing.assert_array_equal(silent.returns, noisy.returns)
    assert silent.settings.explore
    still = evaluate_agent(agent, family, replace(SMALL, adaptations=0, explore=False), threads=1)
    assert not np.array_equal(still.returns[:, 0], noisy.returns[:, 0])


class Listener(Scripted):
    """Adds the noise to its action, and keeps what it adapts from."""

    def __init__(self, actions: list[list[float]]):
        super().__init__(actions)
        self.read: list[tuple[int, torch.Tensor]] = []

    def act(self, belief: Round, observations: torch.Tensor, noise: torch.Tensor | None) -> tuple[torch.Tensor, Round]:
        actions, belief = super().act(belief, observations, noise)
        return actions if noise is None else actions + noise, belief

    def adapt(self, belief: Round, rollout: Rollout, generators: Sequence[torch.Generator]) -> Round:
        self.read.append((belief.number, rollout.actions.clone()))
        return super().adapt(belief, rollout, generators)


class TestExploringToAdapt:
    ACTIONS: ClassVar = [[0.01, 0.0], [0.02, 0.0], [0.03, 0.0]]

    def judged(self, **settings: Any) -> tuple[Listener, EvaluationResult]:
        agent = Listener(self.ACTIONS)
        return agent, evaluate_agent(agent, POINT, replace(SMALL, **settings), threads=1)  # pyright: ignore[reportArgumentType]

    def test_what_is_judged_has_no_noise_and_what_is_adapted_from_has(self) -> None:
        """The judged episodes start as they do without it: an agent that learns nothing has the same returns."""
        (still, without), (apart, beside) = self.judged(), self.judged(explore_to_adapt=True)
        np.testing.assert_array_equal(without.returns, beside.returns)
        planned = [torch.tensor(action) for action in self.ACTIONS]
        noises = []
        for (number, actions), (again, noisy) in zip(still.read, apart.read, strict=True):
            assert number == again and (actions == planned[number]).all()
            noises.append((noisy - planned[number]).flatten())
            assert abs(noises[-1].mean()) < 0.4 and 0.7 < noises[-1].std() < 1.3
        assert {number for number, _ in apart.read} == {0, 1}
        assert len({tuple(noise[:4].tolist()) for noise in noises}) == len(noises), "rounds and tasks share no noise"
        assert any("explore_to_adapt" in note for note in beside.notes)
        assert not any("explore_to_adapt" in note for note in without.notes)

    def test_a_task_changes_when_it_does_without_it(self) -> None:
        """The episode that is adapted from is the judged one once more: it takes no time of the trial."""
        family = make_family(HalfCheetahMassSettings(horizon=12, changes=1, change_gap=(15, 15)))
        judged = []
        for apart in (False, True):
            agent = Listener([[0.1] * 6, [0.2] * 6, [0.3] * 6])
            judged.append(evaluate_agent(agent, family, replace(SMALL, explore_to_adapt=apart), threads=1))
        np.testing.assert_array_equal(judged[0].returns, judged[1].returns)

    def test_who_needs_noise_is_judged_without_it(self) -> None:
        """MAML adapts by the gradient of its noise, from episodes that are not judged."""
        family = make_family(PointGoalSettings(horizon=20))
        agent = make_agent(MamlSettings(hidden_sizes=(8,)), 2, 2, torch.Generator().manual_seed(0), torch.device("cpu"))
        settings = replace(SMALL, adaptations=1)
        apart, still, noisy = (
            evaluate_agent(agent, family, replace(settings, **given), threads=1)  # pyright: ignore[reportArgumentType]
            for given in ({"explore_to_adapt": True}, {"adaptations": 0}, {"explore": True})
        )
        np.testing.assert_array_equal(apart.returns[:, 0], still.returns[:, 0])
        assert not apart.settings.explore and not np.array_equal(apart.returns[:, 0], noisy.returns[:, 0])
        assert not np.array_equal(apart.returns[:, 1], apart.returns[:, 0])

    def test_with_noise_everywhere_it_changes_nothing(self) -> None:
        (one, plain), (other, given) = self.judged(explore=True), self.judged(explore=True, explore_to_adapt=True)
        np.testing.assert_array_equal(plain.returns, given.returns)
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(one.read, other.read, strict=True))


def test_domain_randomisation_is_not_told_to_adapt() -> None:
    family = make_family(PointGoalSettings(horizon=5))
    agent = make_agent(PpoSettings(hidden_sizes=(8,)), 2, 2, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert evaluate_agent(agent, family, replace(SMALL, adaptations=1), threads=1).warnings == []


def test_that_nothing_recovers_is_said() -> None:
    found = recovered_of(np.full((1, 40), np.inf), 50, np.random.default_rng(0))
    assert found is not None and found.share.estimate == 0 and found.steps is None
