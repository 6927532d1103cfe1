"""An oracle that is told a category finds the best action of each, and is not below a policy that is told nothing."""

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
from metarl.envs.family import TaskFamily
from metarl.envs.family_settings import FamilySettings
from metarl.envs.parameters import Choice, Law, Parameter
from metarl.envs.robots.point_goal import point_goal
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.state import State
from metarl.envs.terms import RewardTerm
from metarl.headroom.probe import actions

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
