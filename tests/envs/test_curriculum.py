"""The curriculum climbs for an agent that does well, and only then."""

from __future__ import annotations

import json

import numpy as np
import pytest

from metarl.envs.curriculum import Curriculum
from metarl.envs.parameters import GRID
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahTerrainSettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.task import Task
from metarl.envs.terrain import kinds as terrain

FAMILY = make_family(HalfCheetahTerrainSettings(kinds=("flat", "rough", "stairs_up"), promote_at=100, demote_at=20))


def run(curriculum: Curriculum, score, updates: int, seed: int = 0) -> list[Task]:
    """Tasks of the last of some updates; score: of a task."""
    rng, tasks = np.random.default_rng(seed), []
    for _ in range(updates):
        tasks = curriculum.sample(40, rng)
        curriculum.update(tasks, np.array([score(task) for task in tasks]))
    return tasks


def difficulties(tasks: list[Task]) -> np.ndarray:
    return np.array([task.values["terrain_difficulty"] for task in tasks])


def test_it_starts_easy_climbs_level_by_level_and_comes_down_again():
    curriculum = Curriculum(FAMILY)
    assert difficulties(curriculum.sample(200, np.random.default_rng(0))).max() < 0.1
    run(curriculum, lambda task: 150.0, 4)
    assert set(curriculum.levels.values()) == {4}
    drawn = difficulties(curriculum.sample(400, np.random.default_rng(0)))
    assert 0.4 < drawn.max() < 0.5 and drawn.min() < 0.1
    assert np.mean(drawn >= 0.4) == pytest.approx(0.5 + 0.5 / 5, abs=0.08)  # half, and a fifth of the other half
    run(curriculum, lambda task: 150.0, 20)
    assert set(curriculum.levels.values()) == {9}
    assert set(curriculum.metrics()) == {"flat", "rough", "stairs_up"} and set(curriculum.metrics().values()) == {1.0}
    run(curriculum, lambda task: 60.0, 5)
    assert set(curriculum.levels.values()) == {9}
    run(curriculum, lambda task: 10.0, 3)
    assert set(curriculum.levels.values()) == {6}
    run(curriculum, lambda task: 10.0, 20)
    assert set(curriculum.levels.values()) == {0}


def test_an_agent_of_limited_skill_ends_where_its_skill_does_kind_by_kind():
    curriculum = Curriculum(FAMILY)
    skill = {terrain.number("flat"): 2.0, terrain.number("rough"): 0.55, terrain.number("stairs_up"): 0.25}
    run(curriculum, lambda t: 150.0 if t.values["terrain_difficulty"] < skill[t.values["terrain_kind"]] else 0.0, 40)
    flat, rough, stairs = (curriculum.levels[terrain.number(k)] for k in ("flat", "rough", "stairs_up"))
    assert flat == 9 and rough in (4, 5, 6) and stairs in (1, 2, 3)


def test_scores_of_lower_levels_do_not_count_nor_do_faults():
    curriculum = Curriculum(FAMILY)
    run(curriculum, lambda task: 150.0, 3)
    run(curriculum, lambda task: 150.0 if task.values["terrain_difficulty"] < 0.3 else 60.0, 5)
    assert set(curriculum.levels.values()) == {3}
    run(curriculum, lambda task: np.nan, 2)
    assert set(curriculum.levels.values()) == {3}


def test_tasks_are_training_tasks_of_the_level_and_follow_from_the_generator():
    curriculum = Curriculum(FAMILY)
    run(curriculum, lambda task: 150.0, 6)
    tasks = curriculum.sample(500, np.random.default_rng(3))
    assert tasks == curriculum.sample(500, np.random.default_rng(3))
    cells = difficulties(tasks) * GRID  # the distribution is U(0, 1): a value is its quantile
    assert np.all(cells % 2 == 0)
    assert {task.values["terrain_kind"] for task in tasks} == {0.0, 4.0, 2.0}
    assert all(FAMILY.own(task) == task for task in tasks)


def test_state_survives_and_goes_on_alike():
    one, other = Curriculum(FAMILY), Curriculum(FAMILY)
    run(one, lambda task: 150.0, 3)
    state = one.state_dict()
    json.dumps(state)
    other.load_state_dict(state)
    assert other.levels == one.levels
    assert run(one, lambda task: 150.0, 2, seed=5) == run(other, lambda task: 150.0, 2, seed=5)
    assert other.state_dict() == one.state_dict() and state != one.state_dict()


def test_a_family_without_difficulty_is_refused():
    with pytest.raises(ValueError, match="family 'point_goal' has no curriculum"):
        Curriculum(make_family(PointGoalSettings()))
