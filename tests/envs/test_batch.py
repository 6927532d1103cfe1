"""The batch: faults, resets of some envs, errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv, SimulationFault
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahVelocitySettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.task import Task
from metarl.envs.terms import RewardTerm

CHEETAH = make_family(HalfCheetahVelocitySettings())


def test_a_simulation_that_mujoco_flags_ends_alone_and_is_counted():
    env = BatchedEnv(CHEETAH, 2, 2, 2)
    env.reset([np.random.default_rng(i) for i in range(2)])
    env.step(np.zeros((2, 2, 6)))
    env.simulation.batch.qvel[2, 3] = np.inf
    step = env.step(np.zeros((2, 2, 6)))
    assert step.faulted.tolist() == [[False, False], [True, False]]
    assert env.active.tolist() == [[True, True], [False, True]]
    assert env.num_faults == 1
    assert np.isfinite(step.observations).all() and step.rewards[1, 0] == 0
    assert not env.step(np.zeros((2, 2, 6))).faulted.any()
    env.reset([np.random.default_rng(i) for i in range(2)])
    assert env.active.all() and not env.step(np.zeros((2, 2, 6))).faulted.any()
    assert env.num_faults == 1


def test_who_was_active_before_a_step_stays_so():
    env = BatchedEnv(dataclasses.replace(CHEETAH, horizon=1), 1, 2, 1)
    env.reset([np.random.default_rng(0)])
    before = env.active
    env.step(np.zeros((1, 2, 6)))
    assert before.all() and not env.active.any()


def test_an_action_that_is_nan_is_a_fault_of_its_env_alone():
    env = BatchedEnv(CHEETAH, 1, 2, 1)
    env.reset([np.random.default_rng(0)])
    action = np.zeros((1, 2, 6))
    action[0, 1, 2] = np.nan
    assert env.step(action).faulted.tolist() == [[False, True]]


def test_a_reward_that_is_nan_names_term_family_and_task():
    broken = dataclasses.replace(CHEETAH, rewards={"broken": RewardTerm(lambda state: np.log(state.qpos[:, 0] - 1e9))})
    env = BatchedEnv(broken, 1, 1, 1)
    env.set_tasks([broken.task({"target_velocity": 1.5})])
    env.reset([np.random.default_rng(0)])
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(
            SimulationFault,
            match=r"reward term 'broken' of family 'half_cheetah_velocity' is nan at step 1 .*target_velocity.*1\.5",
        ),
    ):
        env.step(np.zeros((1, 1, 6)))


def test_resetting_some_envs_leaves_the_others():
    env = BatchedEnv(CHEETAH, 2, 2, 1)
    env.reset([np.random.default_rng(i) for i in range(2)])
    env.step(np.full((2, 2, 6), 0.3))
    before = env.step(np.full((2, 2, 6), 0.3)).observations
    chosen = np.array([[True, False], [False, True]])
    after = env.reset([np.random.default_rng(i) for i in range(2)], chosen)
    np.testing.assert_array_equal(after[~chosen], before[~chosen])
    assert (after[chosen] != before[chosen]).any()
    assert env.term_sums["control"].reshape(2, 2)[chosen].tolist() == [0.0, 0.0]


def test_the_task_stays_over_resets():
    env = BatchedEnv(CHEETAH, 2, 1, 1)
    tasks = CHEETAH.sample(2, np.random.default_rng(0))
    env.set_tasks(tasks)
    for seed in range(3):
        env.reset([np.random.default_rng(seed)] * 2)
        assert env.tasks == tasks


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BatchedEnv(CHEETAH, 0, 1), "at least 1 task and 1 env"),
        (lambda: BatchedEnv(CHEETAH, 2, 1).set_tasks([CHEETAH.neutral()]), "holds 2 tasks, got 1"),
        (lambda: CHEETAH.compile(make_family(PointGoalSettings()).neutral()), "is of family 'point_goal', not of"),
        (
            lambda: BatchedEnv(CHEETAH, 1, 1).set_tasks([make_family(PointGoalSettings()).neutral()]),
            "is of family 'point_goal', not of 'half_cheetah_velocity'",
        ),
        (
            lambda: BatchedEnv(CHEETAH, 1, 1).set_tasks([Task(CHEETAH.name, {"target_velocity": float("nan")})]),
            "parameter 'target_velocity' must be finite",
        ),
        (lambda: Task.from_json('{"family": "a", "values": {"b": "fast"}}'), "not a task"),
        (
            lambda: CHEETAH.sample(1, np.random.default_rng(0), "test"),
            "unknown split 'test'; the splits are train, held_out",
        ),
        (lambda: CHEETAH.task({"target_velocity": "fast"}), "must be a number"),
        (lambda: Task.from_json('{"famly": 1}'), "not a task"),
        (lambda: Task.from_json("{"), "not a task"),
    ],
)
def test_mistakes_are_refused(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_task_that_names_less_is_neutral_in_the_rest():
    env = BatchedEnv(CHEETAH, 1, 1)
    env.set_tasks([Task(CHEETAH.name, {})])
    assert env.tasks == [CHEETAH.neutral()]


def test_the_same_values_are_the_same_task():
    assert Task("a", {"b": 1}).id == Task("a", {"b": 1.0}).id
