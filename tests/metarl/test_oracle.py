"""An oracle that is told a category finds the best action of each, and is not below a policy that is told nothing; on
tasks of which no training task has the like, it is one that met them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import metarl
from metarl.agents.sb3.settings import PpoSettings
from metarl.config import EvaluationSettings, RunConfig, TrackingSettings, TrainingSettings
from metarl.envs import registry
from metarl.envs.arrays import Array, like
from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.family_settings import FamilySettings
from metarl.envs.parameters import Choice, Law, Parameter
from metarl.envs.registry import make_family
from metarl.envs.robots.ant_settings import AntCrippledSettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.envs.robots.point_goal import point_goal
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.quadruped_body_settings import QuadrupedBodySettings
from metarl.envs.state import State
from metarl.envs.terms import RewardTerm
from metarl.errors import UsageError
from metarl.evaluation.compare import family_for
from metarl.evaluation.results import EvaluationResult
from metarl.headroom.arms import read_arm
from metarl.headroom.probe import actions
from metarl.headroom.study import Study
from metarl.training.loop import draw_tasks

PLACES = np.array([[0.3, 0.3], [-0.3, 0.3], [0.3, -0.3], [0.0, 0.0], [-0.3, -0.3]])
"""Goal of each category, m: their order says nothing about where they are."""
HORIZON = 12
WAYS = np.sqrt(2) * np.array([0.3, 0.3, 0.3, 0.0, 0.3])
"""Distance from the start to each goal, m."""
BEST = -np.array([sum(max(way - 0.1 * np.sqrt(2) * t, 0.0) for t in range(1, HORIZON + 1)) for way in WAYS])
"""Return in each category of whoever moves by 0.1 m a step and axis towards the goal."""
BLIND = -HORIZON * WAYS
"""Return in each category of whoever stays: by symmetry, no one that is told nothing has a larger mean."""


@dataclass(frozen=True)
class PlacesSettings(FamilySettings):
    """A point that is to move to one of five places."""

    horizon: int = HORIZON
    action_scale: float = 1.0


def places(settings: PlacesSettings) -> TaskFamily:
    """Return the family of the five places; all of its tasks are met in training."""

    def distance(state: State) -> Array:
        goal = like(PLACES, state.qpos)[state.task["place"].astype(int)]
        return state.xp.linalg.vector_norm(goal - state.qpos, axis=1)

    place = Parameter(
        name="place",
        unit="1",
        distribution=Choice((0.0, 1.0, 2.0, 3.0, 4.0)),
        law=Law("goal of the reward"),
        neutral=0.0,
        names=("right", "left", "behind", "here", "far"),
    )
    return dataclasses.replace(
        point_goal(PointGoalSettings(horizon=settings.horizon)),
        name="places",
        parameters=(place,),
        rewards={"distance": RewardTerm(distance, weight=-1.0)},
        terminate=None,
        measures={},
        success=(),
        decorate=None,
        settings=settings,
    )


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[bool, metarl.Run]:
    """A run that is told the place and one that is not, of equal settings."""
    entry = registry.FamilyEntry(PlacesSettings, f"{__name__}:places")
    monkeypatch.setitem(registry.FAMILIES, "places", entry)
    monkeypatch.setitem(registry.FAMILY_SETTINGS, "places", PlacesSettings)
    agent = PpoSettings(hidden_sizes=(32,), initial_std=0.05, lr=3e-3, steps=HORIZON, discount=0.9)
    runs = {}
    for told in (True, False):
        config = RunConfig(
            agent=agent,
            family=PlacesSettings(),
            training=TrainingSettings(
                iterations=30, tasks=20, envs_per_task=4, adaptations=0, threads=1, reveal_task=told, seed=1
            ),
            evaluation=EvaluationSettings(
                tasks=20, envs_per_task=1, adaptations=0, seeds=(1,), explore=False, bootstrap_samples=200
            ),
            tracking=TrackingSettings(wandb="disabled"),
        )
        runs[told] = metarl.train(config, f"told_{told}".lower(), tmp_path)
    return runs


def test_an_oracle_finds_the_best_action_of_each_category_and_is_not_below_who_is_told_nothing(judged):
    at_start = torch.cat([torch.zeros(5, 1, 2), torch.eye(5)[:, None]], dim=-1)
    taken = actions(judged[True].agent, at_start)[:, 0].clamp(-0.1, 0.1)
    np.testing.assert_allclose(taken, np.clip(PLACES, -0.1, 0.1), atol=0.05)
    level = {}
    for told, run in judged.items():
        met = np.array([int(values["place"]) for values in run.evaluation.tasks[0]])
        returns = run.evaluation.returns[0, -1]
        assert set(met) == set(range(5)) and (returns < BEST[met] + 1e-5).all()
        level[told] = np.array([returns[met == place].mean() for place in range(5)])
    assert (level[True] > BEST - 0.5).all()
    assert level[False].mean() < BLIND.mean() + 1e-5 < level[True].mean()


def oracle_on_crippled_ants(**training) -> RunConfig:
    return RunConfig(
        agent=PpoSettings(hidden_sizes=(4,)),
        family=AntCrippledSettings(horizon=5),
        training=TrainingSettings(
            iterations=1, tasks=6, envs_per_task=1, adaptations=0, threads=1, reveal_task=True, **training
        ),
        evaluation=EvaluationSettings(
            tasks=2, envs_per_task=1, adaptations=0, seeds=(1,), bootstrap_samples=20, train_gap=False
        ),
        tracking=TrackingSettings(wandb="disabled"),
    )


@pytest.mark.parametrize(("also", "expected"), [("none", {0, 1, 2}), ("held_out", {0, 1, 2, 3})])
@pytest.mark.parametrize("distinct", [0, 12])
def test_an_oracle_may_meet_held_out_tasks_in_training_and_is_told_of_them_if_it_does(
    also: str, expected: set[int], distinct: int, tmp_path: Path
):
    run = metarl.train(oracle_on_crippled_ants(also_split=also, distinct_tasks=distinct), "oracle", tmp_path)
    tasks = [draw_tasks(run, np.random.default_rng(seed)) for seed in range(8)]
    legs = np.array([[task.values["crippled_leg"] for task in drawn] for drawn in tasks])
    assert set(legs.flat) == expected
    assert also == "none" or distinct or ((legs == 3).sum(axis=1) == 3).all()
    with_three = run.family.task({"crippled_leg": 3.0})
    for family in (run.family, family_for(run.config, make_family(run.config.family))):
        env = BatchedEnv(family, 1, 1, threads=1)
        env.set_tasks([with_three])
        told = env.reset([np.random.default_rng(0)])[0, 0, -4:]
        np.testing.assert_array_equal(told, [0, 0, 0, also == "held_out"])
    said = "an oracle that met tasks of this split in training (training.also_split)"
    assert (said in run.evaluation.notes) == (also == "held_out")
    saved = EvaluationResult.from_dict(run.evaluation.to_dict())
    assert saved.also_split == also


@pytest.mark.parametrize("training", [{"reveal_task": False}, {"curriculum": True}])
def test_only_oracles_without_a_curriculum_meet_the_tasks_to_be_judged_on(training: dict[str, bool]):
    config = oracle_on_crippled_ants(also_split="held_out")
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, **training))
    with pytest.raises(UsageError, match="training.also_split is held_out, which is for oracles without a curriculum"):
        config.validate()


LATE = HalfCheetahMassSettings(faults=("dead",), fault_held_out=(".*",), fault_onset=(3, 3), horizon=5)
"""A joint of HalfCheetah dies in held-out tasks, and none does in training."""


def test_every_other_task_of_an_oracle_s_training_has_the_fault_that_held_out_tasks_alone_have(tmp_path: Path):
    config = dataclasses.replace(oracle_on_crippled_ants(also_split="held_out"), family=LATE)
    run = metarl.train(config, "oracle", tmp_path)
    tasks = draw_tasks(run, np.random.default_rng(0))
    assert [len(task.changes) for task in tasks] == [0, 0, 0, 1, 1, 1]
    assert run.evaluation is not None and all(values["fault_kind"] == 1 for values in run.evaluation.tasks[0])


def test_a_study_s_oracle_meets_what_is_judged_and_no_training_task_has(tmp_path: Path):
    def study(family: FamilySettings, arms: str, split: str = "held_out") -> Study:
        base = RunConfig(family=family, evaluation=EvaluationSettings(split=split))
        return Study(tmp_path, base, [read_arm(arm) for arm in arms.split()], {}, 1e5, (1,))

    three = "oracle randomised"
    for family, split, expected in (
        (AntCrippledSettings(), "held_out", "held_out"),
        (AntCrippledSettings(), "train", "none"),
        (PointGoalSettings(), "held_out", "none"),
        (QuadrupedBodySettings(), "ood", "ood"),
        (LATE, "held_out", "held_out"),
        (LATE, "train", "none"),
    ):
        own = study(family, three, split)
        met = {arm.name: own.config(arm, 1).training.also_split for arm in own.arms}
        assert met == {"oracle": expected, "randomised": "none"}
    own = study(AntCrippledSettings(), "oracle distilled")
    assert [arm.name for arm in own.arms] == ["oracle", "distilled", "teacher"]
    assert own.config(own.arms[2], 1).training.also_split == "none"
    assert own.config(own.arms[1], 1).agent.teacher == str(tmp_path / "teacher_seed1")
    assert [arm.name for arm, _ in own.jobs] == ["oracle", "teacher", "distilled"]
    other = study(PointGoalSettings(), "oracle distilled")
    assert other.teacher_of(other.arms[1]) == "oracle" and len(other.arms) == 2
