"""Tasks that change while they last."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.robots.ant_settings import AntCrippledSettings
from metarl.envs.robots.half_cheetah_settings import (
    HalfCheetahDisabledJointSettings,
    HalfCheetahMassSettings,
    HalfCheetahVelocitySettings,
)
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.task import Change, Changes, Task

HORIZON = 10
MASS = make_family(HalfCheetahMassSettings(horizon=HORIZON))
LATER = Task(MASS.name, {"mass_scale": 0.8}, (Change(4, {"mass_scale": 1.5}), Change(HORIZON, {"mass_scale": 0.6})))


def test_envs_of_one_task_start_each_on_the_model_of_its_stage():
    family = make_family(HalfCheetahMassSettings(horizon=HORIZON))
    seen = []
    family = dataclasses.replace(
        family, reset=lambda model, rng, n: seen.append((model, n)) or family_reset(model, rng, n)
    )
    family_reset = MASS.reset
    env = BatchedEnv(family, 1, 2, threads=1)
    env.set_tasks([LATER])
    rngs = [np.random.default_rng(0)]
    env.reset(rngs)
    for _ in range(5):
        env.step(np.zeros((1, 2, 6)))
    seen.clear()
    env.reset(rngs, np.ones((1, 2), dtype=bool), np.array([[True, False]]))
    assert [n for _, n in seen] == [1, 1]
    masses = [float(model.body_mass.sum()) for model, _ in seen]
    assert masses == [float(MASS.compile(MASS.task({"mass_scale": s})).body_mass.sum()) for s in (0.8, 0.6)]


def test_the_ground_does_not_turn_under_a_robot_that_stands():
    with pytest.raises(ValueError, match="changing has slope; the ground cannot turn under a robot"):
        make_family(QuadrupedSettings(slope=(0.0, 0.2), changes=1, changing=("slope",)))


def test_a_changing_task_equals_models_swapped_in_mj_step():
    env = BatchedEnv(MASS, 2, 2, threads=1)
    env.set_tasks([LATER, MASS.task({"mass_scale": 1.1})])
    actions = np.random.default_rng(0).uniform(-1, 1, (2 * HORIZON, 2, 2, 6))
    rngs = [np.random.default_rng(m) for m in range(2)]
    models = [MASS.compile(MASS.task({"mass_scale": scale})) for scale in (0.8, 1.5, 0.6)]
    for episode in range(2):
        env.reset(rngs)
        copies = [mujoco.MjData(models[0]) for _ in range(2)]
        for n, data in enumerate(copies):
            data.qpos[:], data.qvel[:] = env.simulation.batch.qpos[n], env.simulation.batch.qvel[n]
            mujoco.mj_forward(models[2 * episode], data)
        for t in range(HORIZON):
            model = models[2] if episode else models[int(t >= 4)]
            env.step(actions[episode * HORIZON + t])
            for n, data in enumerate(copies):
                data.ctrl[:] = actions[episode * HORIZON + t, 0, n]
                mujoco.mj_step(model, data, nstep=MASS.frame_skip)
                np.testing.assert_array_equal(env.simulation.batch.qpos[n], data.qpos)
            expected = 0.6 if episode else (0.8, 1.5)[t >= 4]
            np.testing.assert_array_equal(env._state.task["mass_scale"], [expected, expected, 1.1, 1.1])
    env.set_tasks(env.tasks)
    env.reset(rngs)
    assert env._state.task["mass_scale"][0] == 0.8  # a new trial starts the task anew


def test_a_joint_that_locks_or_comes_free_on_the_way_is_as_by_mj_step():
    family = make_family(QuadrupedSettings(locked_joints=("FR_calf",), horizon=HORIZON))
    free, locked = ({**family.neutral().values, "locked_joint": value} for value in (-1.0, 2.0))
    models = [family.compile(family.task(values)) for values in (free, locked)]
    tasks = [
        Task(family.name, a, (Change(4, {"locked_joint": b["locked_joint"]}),))
        for a, b in ((free, locked), (locked, free))
    ]
    env = BatchedEnv(family, 2, 1, threads=1)
    env.set_tasks(tasks)
    env.reset([np.random.default_rng(m) for m in range(2)])
    singles = [mujoco.MjData(model) for model in models]
    for m, data in enumerate(singles):
        data.qpos[:], data.qvel[:] = env.simulation.batch.qpos[m], env.simulation.batch.qvel[m]
        mujoco.mj_forward(models[m], data)
    for t, action in enumerate(np.random.default_rng(0).uniform(-1, 1, (HORIZON, family.action_size))):
        env.step(np.broadcast_to(action, (2, 1, family.action_size)))
        for m, data in enumerate(singles):
            model = models[m] if t < 4 else models[1 - m]
            data.eq_active[:] = model.eq_active0
            data.ctrl[:] = family.action_scale * action
            mujoco.mj_step(model, data, nstep=family.frame_skip)
            np.testing.assert_array_equal(env.simulation.batch.qpos[m], data.qpos)
    env.reset([np.random.default_rng(m) for m in range(2)], trials=np.ones((2, 1), dtype=bool))
    np.testing.assert_array_equal(env.simulation.batch.eq_active[:, 2], [0, 1])  # a new trial starts anew


def test_an_episode_that_ended_early_does_not_skip_a_change():
    env = BatchedEnv(MASS, 1, 2, threads=1)
    env.set_tasks([LATER])
    rngs = [np.random.default_rng(0)]
    env.reset(rngs)
    for _ in range(2):
        env.step(np.zeros((1, 2, 6)))
    env.reset(rngs, np.array([[False, True]]))
    np.testing.assert_array_equal(env._state.task["mass_scale"], [0.8, 0.6])


def changing(**changes) -> TaskFamily:
    settings = {"parameters": ("mass_scale",), "count": 2, "gap": (3, 5), **changes}
    return dataclasses.replace(MASS, changes=Changes(**settings))


def test_changes_are_drawn_from_the_split_and_written_and_read():
    family = changing()
    rng = np.random.default_rng(0)
    tasks = family.sample(50, rng)
    assert tasks == family.sample(50, np.random.default_rng(0))
    for task in tasks:
        first, second = (change.step for change in task.changes)
        assert 3 <= first <= 5 and 3 <= second - first <= 5
        assert Task.from_json(task.to_json()) == task == family.own(task)
        values = [stage.values["mass_scale"] for stage in family.stages(task)]
        assert len(set(values)) == 3
    held_out = {c.values["mass_scale"] for t in family.sample(50, rng, "held_out") for c in t.changes}
    assert not held_out & {c.values["mass_scale"] for t in tasks for c in t.changes}


def test_a_task_without_changes_has_the_name_that_it_had_before_there_were_changes():
    task = make_family(HalfCheetahVelocitySettings()).task({"target_velocity": 1.5})
    assert task.to_json() == '{"family": "half_cheetah_velocity", "values": {"target_velocity": 1.5}}'
    assert LATER.id != Task(MASS.name, LATER.values).id


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        (HalfCheetahMassSettings(changes=1), {"mass_scale"}),
        (HalfCheetahDisabledJointSettings(changes=2), {"disabled_joint"}),
        (AntCrippledSettings(changes=1), {"crippled_leg"}),
        (QuadrupedSettings(changes=1, changing=("payload_mass", "friction")), {"payload_mass", "friction"}),
    ],
)
def test_a_family_that_says_so_changes(settings, parameters: set[str]):
    family = make_family(settings)
    for task in family.sample(3, np.random.default_rng(0)):
        assert len(task.changes) == settings.changes
        assert all(set(change.values) == parameters for change in task.changes)
        low, high = settings.change_gap
        assert low <= task.changes[0].step <= high
    assert make_family(dataclasses.replace(settings, changes=0)).changes is None


def test_a_dropped_payload_lightens_the_quadruped_in_the_middle_of_an_episode():
    family = make_family(QuadrupedSettings(horizon=40))
    env = BatchedEnv(family, 1, 1, threads=1)
    heavy = {"payload_mass": 5.0}
    env.set_tasks([Task(family.name, heavy, (Change(20, {"payload_mass": 0.0}),))])
    env.reset([np.random.default_rng(0)])
    masses = []
    for _ in range(40):
        env.step(np.zeros((1, 1, family.action_size)))
        masses.append(env.simulation.batch.get_model(0).body_subtreemass[1])
    assert masses[19] - masses[20] == pytest.approx(5.0) and len(set(masses)) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: changing(parameters=("mas_scale",)), "no parameter 'mas_scale'; did you mean 'mass_scale'"),
        (lambda: changing(count=0), "at least 1 change"),
        (lambda: changing(gap=(5, 3)), "low <= high"),
        (lambda: MASS.own(Task(MASS.name, {}, (Change(0, {}),))), "after 1 step at the earliest, got step 0"),
        (lambda: MASS.own(Task(MASS.name, {}, (Change(3, {"mass_scale": -1.0}),))), "mass_scale"),
    ],
)
def test_wrong_changes_are_refused(wrong, message: str):
    with pytest.raises(ValueError, match=message):
        wrong()
