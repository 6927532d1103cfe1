"""The quadruped against published figures, closed forms and MuJoCo itself."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import mujoco
import numpy as np
import pytest

from metarl.config import load_config
from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahVelocitySettings
from metarl.envs.robots.quadruped import RESET_HEIGHT
from metarl.envs.robots.quadruped import quadruped as make
from metarl.envs.robots.quadruped_robot import JOINTS, Inertial, QuadrupedFigures, build, combine
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.state import State

GO1 = QuadrupedFigures()
FIXED = QuadrupedSettings(
    payload_mass=(0.0, 0.0), friction=(0.8, 0.8), motor_strength=(1.0, 1.0), action_delay=(0.0, 0.0)
)
EVERYTHING = QuadrupedSettings(
    kp=(20.0, 50.0),
    kd=(0.3, 1.0),
    joint_damping=(0.0, 0.1),
    joint_friction=(0.0, 0.5),
    armature=(0.8, 1.2),
    com_x=(-0.05, 0.05),
    com_y=(-0.05, 0.05),
    com_z=(-0.05, 0.05),
    action_delay=(0.0, 0.04),
    sensor_noise=(0.0, 1.0),
    push_velocity=(0.0, 1.0),
    push_interval=0.2,
    weak_joints=JOINTS,
    locked_joints=("FR_calf", "RL_thigh"),
    slope=(-0.3, 0.3),
    command="task",
)


def varying(**ranges) -> TaskFamily:
    return make(dataclasses.replace(FIXED, **ranges))


def start(family: TaskFamily, *values: dict[str, float], envs: int = 1, seed: int = 0) -> BatchedEnv:
    """An env of one task for each of the values, every task from the same start."""
    env = BatchedEnv(family, max(len(values), 1), envs, 1)
    env.set_tasks([family.task(v) for v in values] or [family.neutral()])
    env.simulation.batch.bind("actuator_force")
    env.reset([np.random.default_rng(seed) for _ in env.tasks])
    return env


def act(env: BatchedEnv, actions: np.ndarray):
    """Actions [T, act] for all envs; the last step's result."""
    shape = (env.num_tasks, env.envs_per_task, len(JOINTS))
    return [env.step(np.broadcast_to(action, shape)) for action in actions][-1]


def random_actions(steps: int, size: float = 1.0, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-size, size, (steps, len(JOINTS)))


def test_total_mass_is_that_of_the_published_links_and_rotors():
    model = build().compile()
    assert model.body_mass.sum() == pytest.approx(5.204 + 4 * (0.591 + 0.92 + 0.135862 + 0.06) + 12 * 0.089)
    assert 12 < model.body_mass.sum() < 13.2


def test_combined_inertia_is_that_of_mujocos_welded_bodies():
    parts = (GO1.thigh, GO1.calf_rotor, Inertial(0.3, (0.1, -0.2, 0.05), (2e-3, 3e-3, 4e-3, 1e-4, -2e-4, 3e-4)))

    def mass_matrix(welded: tuple[Inertial, ...]) -> np.ndarray:
        spec = mujoco.MjSpec()
        body = spec.worldbody.add_body()
        body.add_freejoint()
        for part in welded:
            child = body.add_body(explicitinertial=True)
            child.mass, child.ipos, child.fullinertia = part.mass, part.centre, part.inertia
        model = spec.compile()
        data, matrix = mujoco.MjData(model), np.zeros((6, 6))
        mujoco.mj_forward(model, data)
        mujoco.mj_fullM(model, data, matrix)
        return matrix

    np.testing.assert_allclose(mass_matrix((combine(*parts),)), mass_matrix(parts), atol=1e-12)


def test_feet_touch_the_ground_at_home_and_legs_are_as_long_as_published():
    model = build().compile()
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    for leg, (x, y) in {"FR": (1, -1), "FL": (1, 1), "RR": (-1, -1), "RL": (-1, 1)}.items():
        foot, hip = data.geom(f"{leg}_foot").xpos, data.body(f"{leg}_hip").xpos
        assert foot[2] == pytest.approx(0.02)
        np.testing.assert_allclose(hip[:2], (x * 0.1881, y * 0.04675))
        assert foot[1] == pytest.approx(y * (0.04675 + 0.08))
    data.qpos[7:] = np.tile((0, 0, -0.888), 4)
    mujoco.mj_kinematics(model, data)
    reach = math.dist(data.geom("FL_foot").xpos, data.body("FL_thigh").xpos)
    assert reach == pytest.approx(math.sqrt(0.213**2 * (2 + 2 * math.cos(0.888))))


@pytest.mark.parametrize(("physics", "settled"), [("exact", 100), ("fast", 150)])
def test_it_stands_for_five_seconds_within_its_torque_limits(physics: str, settled: int):
    env = start(varying(physics=physics), envs=8)
    for step in range(250):
        result = env.step(np.zeros((1, 8, 12)))
        assert (np.abs(env.simulation.batch.actuator_force) <= np.tile((23.7, 23.7, 35.55), 4)).all()
        assert not result.terminated.any()
        if step > settled:
            assert np.abs(env.simulation.batch.qvel).max() < 0.1
    assert (np.abs(env.simulation.batch.qpos[:, 2] - 0.245) < 0.02).all()
    assert env.simulation.batch.sensordata.tolist() == [[1, 1, 1, 1, 0]] * 8
    weight = 9.81 * env.simulation.batch.get_model(0).body_mass.sum()
    data = env.simulation.batch.get_data(0)
    mujoco.mj_forward(env.simulation.batch.get_model(0), data)
    assert data.qfrc_constraint[2] == pytest.approx(weight, rel=0.02)


def test_payload_adds_its_mass_at_its_place():
    family = varying(payload_mass=(0.0, 5.0))
    place = {"payload_mass": 3.0, "payload_x": 0.1, "payload_y": -0.04}
    plain, loaded = (family.compile(family.task(values)) for values in ({}, place))
    centres = []
    for model in (plain, loaded):
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        centres.append(data.subtree_com[1].copy())
    mass = plain.body_mass.sum()
    assert loaded.body_mass.sum() == pytest.approx(mass + 3.0)
    moved = (mass * centres[0] + 3.0 * np.array([0.1, -0.04, 0])) / (mass + 3.0)
    np.testing.assert_allclose(centres[1][:2], moved[:2])
    assert centres[1][2] > centres[0][2]
    np.testing.assert_allclose(plain.body_mass, varying(payload_mass=(0.0, 1.0)).compile(family.neutral()).body_mass)


def test_centre_of_mass_moves_by_the_trunks_share():
    family = varying(com_x=(-0.05, 0.05), com_z=(-0.05, 0.05))
    plain, moved = (family.compile(family.task(v)) for v in ({}, {"com_x": 0.04, "com_z": -0.02}))
    np.testing.assert_allclose((moved.body_ipos - plain.body_ipos)[1], (0.04, 0.0, -0.02), atol=1e-12)
    np.testing.assert_array_equal(moved.body_inertia, plain.body_inertia)


@pytest.mark.parametrize("physics", ["exact", "fast"])
def test_it_slides_where_the_slope_is_steeper_than_friction_holds(physics: str):
    angle = 0.2
    family = varying(physics=physics, friction=(0.1, 1.0), slope=(0.0, 0.4), kp=(35.0, 100.0), kd=(0.5, 3.0))
    stiff = {"slope": angle, "kp": 100.0, "kd": 3.0}
    env = start(family, *({**stiff, "friction": f * math.tan(angle)} for f in (0.9, 1.15)))
    act(env, np.zeros((75, 12)))
    before = env.simulation.batch.qpos[:, :3].copy()
    assert not act(env, np.zeros((50, 12))).terminated.any()
    slid = np.linalg.norm(env.simulation.batch.qpos[:, :3] - before, axis=1)  # in 1 s
    assert slid[0] > 0.3 and slid[1] < 0.03


def test_the_resting_contact_normal_is_the_slopes():
    angle = 0.2
    family = varying(slope=(-0.4, 0.4))
    model = family.compile(family.task({"slope": angle}))
    data = mujoco.MjData(model)
    qpos, qvel = family.reset(model, np.random.default_rng(0), 1)
    data.qpos, data.qvel = qpos[0], qvel[0]
    mujoco.mj_step(model, data, 400)
    assert data.ncon >= 2
    for contact in data.contact:
        np.testing.assert_allclose(contact.frame[:3], (-math.sin(angle), 0, math.cos(angle)), atol=1e-9)


def test_starts_stand_upright_on_the_slope_with_every_heading():
    family = varying(slope=(-0.4, 0.4))
    model = family.compile(family.task({"slope": 0.3}))
    qpos, _ = family.reset(model, np.random.default_rng(0), 200)
    up, forward = np.zeros(3), np.zeros(3)
    yaws = []
    for quat in qpos[:, 3:7]:
        mujoco.mju_rotVecQuat(up, np.array([0.0, 0, 1]), quat)
        mujoco.mju_rotVecQuat(forward, np.array([1.0, 0, 0]), quat)
        np.testing.assert_allclose(up, (-math.sin(0.3), 0, math.cos(0.3)), atol=1e-12)
        yaws.append(math.atan2(forward[1], forward[0]))
    assert np.histogram(yaws, bins=4, range=(-np.pi, np.pi))[0].min() > 25
    distance = qpos[:, :3] @ (-math.sin(0.3), 0, math.cos(0.3))
    np.testing.assert_allclose(distance, GO1.home_height + RESET_HEIGHT)


@pytest.mark.parametrize("physics", ["exact", "fast"])
def test_a_locked_joint_does_not_move(physics: str):
    joint = JOINTS.index("RL_thigh")
    env = start(varying(physics=physics, locked_joints=("RL_thigh",)), {"locked_joint": joint}, {})
    locked, free = [], []
    for action in random_actions(60, 2.0):
        act(env, action[None])
        locked.append(abs(env.simulation.batch.qpos[0, 7 + joint] - GO1.home[1]))
        free.append(abs(env.simulation.batch.qpos[1, 7 + joint] - GO1.home[1]))
    assert max(locked) < 0.005 and max(free) > 0.2


def test_a_weak_joint_gives_its_share_and_no_other_is_weak():
    joint = JOINTS.index("FL_calf")
    family = varying(weak_joints=("FL_calf", "RR_hip"), weak_strength=0.25)
    torques = []
    for values in ({}, {"weak_joint": joint}):
        model = family.compile(family.task(values))
        data = mujoco.MjData(model)
        data.qpos[7:] = GO1.home_pose + np.linspace(-1, 1, 12)
        data.qvel[6:] = np.linspace(3, -5, 12)
        mujoco.mj_forward(model, data)
        torques.append(data.actuator_force.copy())
    np.testing.assert_allclose(torques[1] / torques[0], np.where(np.arange(12) == joint, 0.25, 1.0), rtol=1e-9)


def test_motor_strength_and_gains_are_those_of_the_torque_law():
    family = varying(motor_strength=(0.5, 1.5), kp=(20.0, 50.0), kd=(0.1, 1.0))
    model = family.compile(family.task({"motor_strength": 0.8, "kp": 40.0, "kd": 0.7}))
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    for _ in range(20):
        data.qpos[7:] = GO1.home_pose + rng.uniform(-0.8, 0.8, 12)
        data.qvel[6:] = rng.uniform(-10, 10, 12)
        data.ctrl[:] = rng.uniform(-0.8, 0.8, 12)
        mujoco.mj_forward(model, data)
        torque = 40 * (GO1.home_pose + data.ctrl - data.qpos[7:]) - 0.7 * data.qvel[6:]
        limit = np.tile((23.7, 23.7, 35.55), 4)
        np.testing.assert_allclose(data.actuator_force, 0.8 * np.clip(torque, -limit, limit), rtol=1e-12)


def test_joint_damping_friction_and_armature_are_set():
    family = varying(physics="exact", joint_damping=(0.0, 0.1), joint_friction=(0.0, 0.5), armature=(0.5, 2.0))
    model = family.compile(family.task({"joint_damping": 0.07, "joint_friction": 0.4, "armature": 1.5}))
    assert (model.dof_damping == [0] * 6 + [0.07] * 12).all()
    assert (model.dof_frictionloss == [0] * 6 + [0.4] * 12).all()
    np.testing.assert_allclose(model.dof_armature[6:9], 1.5 * 1.11842e-4 * np.square((6.33, 6.33, 9.495)))


@pytest.mark.parametrize("control_steps", [1, 2])
def test_delay_shifts_the_effect_of_actions_by_exactly_its_steps(control_steps: int):
    family = varying(action_delay=(0.0, 0.04))
    env = start(family, {}, {"action_delay": control_steps * 0.02})
    for seed in (0, 1):  # a second episode begins without a memory of the first
        env.reset([np.random.default_rng(seed) for _ in env.tasks])
        actions = random_actions(25, seed=seed)
        late = np.concatenate([np.zeros((control_steps, 12)), actions])
        for now, before in zip(actions, late, strict=False):
            env.step(np.stack([before, now])[:, None])
            np.testing.assert_array_equal(env.simulation.batch.qpos[0], env.simulation.batch.qpos[1])
        assert np.abs(env.simulation.batch.qvel).max() > 0.1


def test_sensor_noise_has_its_standard_deviation_and_spares_command_and_action():
    family = varying(sensor_noise=(0.0, 2.0))
    env = start(family, {}, {"sensor_noise": 2.0}, envs=50)
    differences = []
    for action in random_actions(40, 0.3):
        observations = act(env, action[None]).observations.astype(np.float64)
        differences.append(observations[1] - observations[0])
    noise = np.stack(differences).reshape(-1, family.observation_size)  # [T N, obs]
    expected = 2 / math.sqrt(3) * np.array([0.2] * 3 + [0.05] * 3 + [0] * 3 + [0.01] * 12 + [1.5] * 12 + [0] * 12)
    np.testing.assert_allclose(noise.std(axis=0), expected, rtol=0.1)
    assert np.abs(noise.mean(axis=0)[expected > 0] / expected[expected > 0]).max() < 5 / math.sqrt(len(noise))


def test_a_push_adds_its_velocity_in_a_direction_of_its_own():
    family = varying(push_velocity=(0.0, 1.0), push_interval=0.1)
    env = start(family, {"push_velocity": 0.7}, {}, envs=30)
    velocity = env.simulation.batch.qvel.reshape(2, 30, -1)
    for _ in range(5):
        act(env, np.zeros((1, 12)))
        np.testing.assert_array_equal(velocity[0], velocity[1])
    before = velocity.copy()
    assert family.actuate is not None
    family.actuate(env._state)
    kick = velocity[0, :, :2] - before[0, :, :2]
    np.testing.assert_allclose(np.linalg.norm(kick, axis=1), 0.7)
    assert np.linalg.norm(kick.mean(axis=0)) < 0.35
    np.testing.assert_array_equal(velocity[1], before[1])
    np.testing.assert_array_equal(velocity[0, :, 2:], before[0, :, 2:])


def test_every_parameter_of_everything_has_an_effect():
    family = make(EVERYTHING)
    task = family.task({p.name: p.distribution.quantile(0.6) for p in family.parameters} | {"locked_joint": -1.0})
    values = [
        {**task.values, p.name: value}
        for p in family.parameters
        for value in (p.distribution.low, p.distribution.high)
        if value != task.values[p.name]
    ]
    env = start(family, task.values, *values)
    act(env, random_actions(20, 0.5))
    observations, returns = env._observations, np.sum(list(env.term_sums.values()), axis=0)
    for other, observation, total in zip(values, observations[1:], returns[1:], strict=True):
        assert not np.array_equal(observation, observations[0]), other
        noise_only = task.values.items() - other.items() <= {("sensor_noise", task.values["sensor_noise"])}
        assert (total == returns[0]) == noise_only, other


def test_everything_equals_one_model_and_mj_step_a_task():
    family = make(dataclasses.replace(EVERYTHING, push_velocity=(0.0, 0.0)))
    tasks = family.sample(8, np.random.default_rng(0))
    env = start(family, *(task.values for task in tasks))
    models = [family.compile(task) for task in tasks]
    singles = [mujoco.MjData(model) for model in models]
    for i, (model, data) in enumerate(zip(models, singles, strict=True)):
        data.qpos, data.qvel = env.simulation.batch.qpos[i], env.simulation.batch.qvel[i]
        data.eq_active = model.eq_active0
        mujoco.mj_forward(model, data)
    for action in random_actions(20):
        running = env.active[:, 0]
        act(env, action[None])
        for i in np.flatnonzero(running):
            singles[i].ctrl[:] = 0.25 * action
            mujoco.mj_step(models[i], singles[i], 4)
            np.testing.assert_array_equal(env.simulation.batch.qpos[i], singles[i].qpos)
    assert env.active.sum() >= 4


def test_an_episode_does_not_depend_on_which_tasks_run_beside_it():
    family = make(EVERYTHING)
    tasks = family.sample(3, np.random.default_rng(1))

    def rollout(chosen: list[int]) -> np.ndarray:
        env = BatchedEnv(family, len(chosen), 2, 1)
        env.set_tasks([tasks[i] for i in chosen])
        first = env.reset([np.random.default_rng(i) for i in chosen])
        return np.stack([first, *(act(env, action[None]).observations for action in random_actions(25, 0.5))])

    together = rollout([0, 1, 2])
    np.testing.assert_array_equal(rollout([2])[:, 0], together[:, 2])
    assert not np.array_equal(together[:, 2, 0], together[:, 2, 1])


def test_resetting_some_envs_gives_them_new_commands_and_empty_memories():
    env = start(varying(), envs=4)
    act(env, random_actions(5))
    command, steps = env._state.memory["command"], env._state.steps
    before = command.copy()
    env.reset([np.random.default_rng(9)], np.array([[True, False, True, False]]))
    assert (command != before).any(axis=1).tolist() == [True, False, True, False]
    assert steps.tolist() == [0, 5, 0, 5]
    assert env._state.memory["action"].any(axis=1).tolist() == [False, True, False, True]


def test_commands_of_episodes_fill_their_ranges_and_commands_of_tasks_are_the_tasks():
    env = start(varying(forward_velocity=(0.5, 1.0), yaw_rate=(0.0, 0.0)), envs=500)
    command = env._state.memory["command"]
    assert command.min(axis=0) == pytest.approx((0.5, -0.5, 0.0), abs=0.01)
    assert command.max(axis=0) == pytest.approx((1.0, 0.5, 0.0), abs=0.01)
    family = varying(command="task", sideways_velocity=(0.2, 0.2), yaw_rate=(0.0, 0.0))
    assert [p.name for p in family.parameters] == ["forward_velocity", "sideways_velocity"]
    env = start(family, {"forward_velocity": -0.4})
    np.testing.assert_allclose(act(env, np.zeros((1, 12))).observations[0, 0, 6:9], (-0.4, 0.2, 0.0))


def test_velocity_and_gravity_are_in_the_bases_frame():
    env = start(varying(observe_velocity=True), envs=20)
    rng = np.random.default_rng(0)
    env.simulation.batch.qpos[:, 3:7] = rng.standard_normal((20, 4))
    env.simulation.batch.qpos[:, 3:7] /= np.linalg.norm(env.simulation.batch.qpos[:, 3:7], axis=1, keepdims=True)
    env.simulation.batch.qvel[:] = rng.standard_normal((20, 18))
    observation = env.family.observe(env._state)
    for i in range(20):
        inverse, expected = np.zeros(4), np.zeros((3, 3))
        mujoco.mju_negQuat(inverse, env.simulation.batch.qpos[i, 3:7])
        mujoco.mju_rotVecQuat(expected[0], env.simulation.batch.qvel[i, :3].copy(), inverse)
        expected[1] = env.simulation.batch.qvel[i, 3:6]  # of a free joint, in its own frame
        mujoco.mju_rotVecQuat(expected[2], np.array([0.0, 0, -1]), inverse)
        np.testing.assert_allclose(observation[i, :9], expected.ravel(), atol=1e-12)


def test_tracking_is_one_at_the_command_and_falls_as_the_kernel_says():
    env = start(varying())
    state, command = env._state, np.array([0.6, -0.2, 0.4])
    state.memory["command"][:] = command
    env.simulation.batch.qpos[:, 3:7] = (1, 0, 0, 0)
    env.simulation.batch.qvel[0, [0, 1, 5]] = command
    velocity, yaw = (env.family.rewards[name].function for name in ("velocity", "yaw_rate"))
    assert velocity(state) == 1 and yaw(state) == 1
    env.simulation.batch.qvel[0, [0, 1, 5]] += (0.3, -0.4, 0.5)
    assert velocity(state) == pytest.approx(math.exp(-1))
    assert yaw(state) == pytest.approx(math.exp(-1))


def test_air_time_pays_at_the_landing_for_the_time_beyond_a_fifth_of_a_second():
    contacts = np.array([[1, 1, 0, 1]] * 15 + [[1, 1, 1, 0]] * 5 + [[1, 1, 1, 1]] * 3, dtype=float)
    command = np.array([[1.0, 0.0, 0.0]])
    memory = {"air_time": np.zeros((1, 4)), "flight": np.zeros((1, 4)), "command": command}
    family = varying()
    reward, keep = family.rewards["air_time"].function, family.update
    assert keep is not None

    def landing(readings: np.ndarray) -> float:
        state = cast(State, SimpleNamespace(memory=memory, sensordata=readings[None], xp=np))
        keep(state)
        return float(reward(state)[0])

    earned = [landing(row) for row in contacts]
    assert earned[15] == pytest.approx(15 * 0.02 - 0.2) and earned[20] == pytest.approx(5 * 0.02 - 0.2)
    assert np.count_nonzero(earned) == 2
    command[:] = 0.05
    memory["air_time"][:] = 0.5
    assert landing(np.ones(4)) == 0


@pytest.mark.parametrize("quat", [(0.5, 0.866, 0, 0), (0.0, 1.0, 0, 0)])
def test_a_robot_on_its_side_or_back_has_fallen(quat):
    env = start(varying(), {}, {})
    env.simulation.batch.qpos[0, 3:7] = quat
    result = act(env, np.zeros((1, 12)))
    assert result.terminated[:, 0].tolist() == [True, False]
    assert env.term_sums["fall"].tolist() == [-1.0, 0.0]


def test_a_trunk_on_the_ground_has_fallen():
    env = start(varying())
    env.simulation.batch.qpos[0, 2] = 0.05
    env.simulation.batch.qpos[0, 7:] = np.tile((0, 2.4, -2.7), 4)
    assert act(env, np.zeros((1, 12))).terminated[0, 0]


def test_families_without_noise_draw_as_their_reset_does():
    family = make_family(HalfCheetahVelocitySettings())
    env = BatchedEnv(family, 1, 3, 1)
    rng, alone = np.random.default_rng(0), np.random.default_rng(0)
    env.reset([rng])
    family.reset(family.compile(family.neutral()), alone, 3)
    assert rng.bit_generator.state == alone.bit_generator.state
    assert not env._state.keys.any()


def test_what_is_neutral_in_every_task_is_no_parameter_and_what_is_fixed_has_its_value():
    assert varying().parameters == ()
    family = varying(friction=(0.5, 0.5))
    assert dict(family.neutral().values) == {"friction": 0.5}
    assert family.compile(family.neutral()).geom("FL_foot").friction[0] == 0.5


def test_a_joint_that_the_robot_lacks_is_refused_by_name():
    with pytest.raises(ValueError, match="locked_joints has 'FL_knee', which is no joint; the joints are FR_hip"):
        make(dataclasses.replace(FIXED, locked_joints=("FL_knee",)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"action_delay": 0.1}, "action_delay 0.1 s is longer than the family's longest, 0.04 s"),
        ({"weak_joint": 12.0}, "there is no joint number 12; give 0 to 11, or -1 for none"),
    ],
)
def test_values_that_no_model_can_have_are_refused(values, message):
    family = make(EVERYTHING)
    with pytest.raises(ValueError, match=message):
        family.compile(family.task(values))


def test_a_home_outside_the_joint_ranges_is_refused():
    with pytest.raises(ValueError, match="home of the calf is -0.5 rad, outside its range"):
        QuadrupedFigures(home=(0.0, 0.9, -0.5))


def test_the_wide_variant_of_docs_is_accepted_and_its_ends_are_simulated():
    settings = load_config(Path(__file__).parents[2] / "docs/quadruped_wide.yaml").family
    assert isinstance(settings, QuadrupedSettings)
    family = make_family(settings)
    ends = {
        "friction": (0.05, 1.2),
        "motor_strength": (0.5, 1.5),
        "payload_mass": (0.0, 10.0),
        "payload_x": (-0.15, 0.15),
        "payload_y": (-0.08, 0.08),
    }
    for name, (low, high) in ends.items():
        [parameter] = [p for p in family.parameters if p.name == name]
        assert (parameter.distribution.low, parameter.distribution.high) == (low, high)
    env = start(family, *({name: pair[i] for name, pair in ends.items()} for i in (0, 1)), envs=2)
    act(env, np.zeros((25, len(JOINTS))))
    np.testing.assert_allclose(env.simulation.batch.get_model(0).actuator_forcerange[:, 1].max(), 0.5 * 35.55)
    assert np.isfinite(env.simulation.batch.qpos).all() and env.num_faults == 0
    commands = env._state.memory["command"]
    assert (commands[:, 0] >= 0.5).all() and (commands[:, 0] <= 1.5).all() and (commands[:, 1] == 0).all()


@pytest.mark.parametrize("friction", [0.05, 1.2])
def test_the_feets_friction_is_the_contacts_on_any_ground(friction: float):
    """MuJoCo takes the larger of two frictions, but here the feet have priority."""
    family = varying(friction=(0.01, 2.0))
    spec = family.spec(family.task({"friction": friction}))
    spec.geom("floor").friction[0] = 1.0
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    data.qpos[2] -= 0.001
    mujoco.mj_forward(model, data)
    assert data.ncon == 4
    np.testing.assert_allclose(data.contact.friction[:, 0], friction)
