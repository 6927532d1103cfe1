"""Published families on Gymnasium's robots, against Gymnasium's own envs and against MuJoCo."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.registry import make_family
from metarl.envs.robots.ant_settings import (
    AntCrippledSettings,
    AntDirectionSettings,
    AntGoalSettings,
    AntLimbsSettings,
    AntVelocitySettings,
)
from metarl.envs.robots.half_cheetah_settings import (
    HalfCheetahBodySettings,
    HalfCheetahDisabledJointSettings,
    HalfCheetahDynamicsSettings,
    HalfCheetahLimbsSettings,
)
from metarl.envs.robots.humanoid_settings import HumanoidDirectionSettings
from metarl.envs.robots.walkers_settings import (
    HopperParametersSettings,
    Walker2dDynamicsSettings,
    Walker2dLimbsSettings,
    Walker2dParametersSettings,
)

Info = Mapping[str, Any]
ANT = {"include_cfrc_ext_in_observation": False}


def forward(info: Info) -> float:
    return info["x_velocity"]


def distance_from_neutral_goal(info: Info) -> float:
    return abs(info["x_position"] - 1.5) + abs(info["y_position"])


CASES: list[tuple[Any, str, dict[str, Any], Callable[[Info], float]]] = [
    (AntDirectionSettings(), "Ant-v5", ANT, forward),
    (AntDirectionSettings(directions="2d"), "Ant-v5", ANT, forward),
    (AntVelocitySettings(), "Ant-v5", ANT | {"ctrl_cost_weight": 0.005}, lambda info: 1 - abs(info["x_velocity"])),
    (AntCrippledSettings(), "Ant-v5", ANT, forward),
    (AntLimbsSettings(), "Ant-v5", ANT, forward),
    (HumanoidDirectionSettings(), "Humanoid-v5", {}, lambda info: 1.25 * info["x_velocity"]),
    (HopperParametersSettings(timestep=0.002), "Hopper-v5", {}, forward),
    (Walker2dParametersSettings(timestep=0.002), "Walker2d-v5", {}, forward),
    (Walker2dLimbsSettings(), "Walker2d-v5", {}, forward),
    (Walker2dDynamicsSettings(), "Walker2d-v5", {}, forward),
    (HalfCheetahDynamicsSettings(), "HalfCheetah-v5", {}, forward),
    (HalfCheetahDisabledJointSettings(), "HalfCheetah-v5", {"ctrl_cost_weight": 0.05}, forward),
    (HopperParametersSettings(), "Hopper-v5", {}, forward),
    (Walker2dParametersSettings(), "Walker2d-v5", {}, forward),
]


def gymnasium_env(name: str, **settings: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gymnasium.make(name, **settings).unwrapped


@pytest.mark.parametrize(("settings", "name", "options", "progress"), CASES)
def test_neutral_task_equals_gymnasium_step_by_step(settings: Any, name: str, options: dict[str, Any], progress):
    family, reference = make_family(settings), gymnasium_env(name, **options)
    reference.model.opt.timestep = getattr(settings, "timestep", reference.model.opt.timestep)
    env = BatchedEnv(family, 1, 1, 1)
    env.simulation.batch.bind("cfrc_ext")
    rng, ended = np.random.default_rng(1), 0
    for seed in range(3):
        first = env.reset([np.random.default_rng(seed)])
        reference.reset(seed=seed)
        reference.set_state(env.simulation.batch.qpos[0].copy(), env.simulation.batch.qvel[0].copy())
        compared = 270 if name == "Humanoid-v5" else family.observation_size  # contact forces: see the next test
        np.testing.assert_array_equal(first[0, 0, :compared], reference._get_obs()[:compared].astype(np.float32))
        for _ in range(60):
            sums = {k: v[0] for k, v in env.term_sums.items()}
            action = rng.uniform(family.action_low, family.action_high)
            step = env.step(action[None, None])
            observation, _, terminated, _, info = reference.step(action)
            terms = {k: v[0] - sums[k] for k, v in env.term_sums.items()}
            np.testing.assert_array_equal(step.observations[0, 0, :compared], observation[:compared].astype(np.float32))
            assert terms["velocity"] == pytest.approx(progress(info), abs=1e-9)
            assert terms["control"] == pytest.approx(info["reward_ctrl"], abs=1e-9)
            assert step.terminated[0, 0] == terminated
            if "survive" in terms and not terminated:  # published: at the last step too
                assert terms["survive"] == pytest.approx(settings.survive)
                assert info["reward_survive"] == (5.0 if name == "Humanoid-v5" else 1.0)
            if terminated:
                ended += 1
                break
    assert ended or name in ("Ant-v5", "HalfCheetah-v5")


def test_ant_goal_is_the_distance_over_both_axes_and_observes_the_place():
    settings = AntGoalSettings()
    family, reference = make_family(settings), gymnasium_env("Ant-v5", ctrl_cost_weight=0.1)
    env = BatchedEnv(family, 1, 1, 1)
    env.reset([np.random.default_rng(0)])
    reference.reset(seed=0)
    reference.set_state(env.simulation.batch.qpos[0].copy(), env.simulation.batch.qvel[0].copy())
    rng = np.random.default_rng(1)
    for _ in range(30):
        sums = {k: v[0] for k, v in env.term_sums.items()}
        action = rng.uniform(-1, 1, 8)
        step = env.step(action[None, None])
        *_, info = reference.step(action)
        terms = {k: v[0] - sums[k] for k, v in env.term_sums.items()}
        expected = np.concatenate([reference.data.qpos, reference.data.qvel])
        np.testing.assert_array_equal(step.observations[0, 0, :29], expected.astype(np.float32))
        place = reference.data.body("torso").xpos
        assert terms["distance"] == pytest.approx(-abs(place[0] - 1.5) - abs(place[1]), abs=1e-9)
        assert terms["control"] == pytest.approx(info["reward_ctrl"], abs=1e-9)
        assert not step.terminated[0, 0]


@pytest.mark.parametrize("settings", [AntGoalSettings(), HumanoidDirectionSettings(observation="published")])
def test_contact_forces_are_those_of_the_last_substeps_start(settings: Any):
    family = make_family(settings)
    env = BatchedEnv(family, 1, 1, 1)
    model = family.compile(family.neutral())
    data, probe = mujoco.MjData(model), mujoco.MjData(model)
    env.reset([np.random.default_rng(0)])
    data.qpos, data.qvel = env.simulation.batch.qpos[0], env.simulation.batch.qvel[0]
    mujoco.mj_forward(model, data)
    rng, touched = np.random.default_rng(1), 0.0
    is_ant = family.name == "ant_goal"
    while env.active[0, 0] and data.time < 4:
        before = env.term_sums["contact"][0]
        data.ctrl = rng.uniform(family.action_low, family.action_high)
        step = env.step(data.ctrl[None, None])
        mujoco.mj_step(model, data, family.frame_skip - 1)
        mujoco.mj_copyData(probe, model, data)
        mujoco.mj_forward(model, probe)
        mujoco.mj_rnePostConstraint(model, probe)
        mujoco.mj_step(model, data)
        forces = np.clip(probe.cfrc_ext, -1, 1) if is_ant else probe.cfrc_ext
        np.testing.assert_array_equal(step.observations[0, 0, -6 * model.nbody :], forces.ravel().astype(np.float32))
        cost = 5e-4 * (forces**2).sum() if is_ant else min(5e-7 * (forces**2).sum(), 10.0)
        assert before - env.term_sums["contact"][0] == pytest.approx(cost)
        touched = max(touched, cost)
    assert touched > 1e-3


@pytest.mark.parametrize(("observation", "size"), [("gymnasium", 348), ("published", 376), ("posture", 45)])
def test_humanoid_observation_sizes(observation, size: int):
    family = make_family(HumanoidDirectionSettings(observation=observation))
    assert BatchedEnv(family, 1, 1, 1).reset([np.random.default_rng(0)]).shape == (1, 1, size)


@pytest.mark.parametrize("settings", [AntDirectionSettings(directions="2d"), HumanoidDirectionSettings()])
def test_heading_turns_the_velocity_that_is_rewarded(settings: Any):
    family = make_family(settings)
    env = BatchedEnv(family, 3, 1, 1)
    env.set_tasks([family.task({"heading": angle}) for angle in (0.0, np.pi / 2, 0.7)])
    env.reset([np.random.default_rng(0) for _ in range(3)])
    action = np.random.default_rng(1).uniform(family.action_low, family.action_high)
    for _ in range(5):
        env.step(np.broadcast_to(action, (3, 1, family.action_size)))
    x, y, along = env.term_sums["velocity"]
    assert along == pytest.approx(np.cos(0.7) * x + np.sin(0.7) * y) and abs(x) > 1e-4 and abs(y) > 1e-4


@pytest.mark.parametrize("settings", [HalfCheetahLimbsSettings(), HalfCheetahBodySettings()])
def test_geometric_cheetah_is_gymnasiums_up_to_rounding(settings: Any):
    family = make_family(settings)
    model, reference = family.compile(family.neutral()), gymnasium_env("HalfCheetah-v5").model
    for field in ("body_mass", "body_inertia", "body_ipos", "dof_M0", "geom_size", "geom_pos", "qpos0"):
        np.testing.assert_allclose(getattr(model, field), getattr(reference, field), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("settings", "parameter", "joints"),
    [
        (AntCrippledSettings(), "crippled_leg", [(f"hip_{i}", f"ankle_{i}") for i in (1, 2, 3, 4)]),
        (
            HalfCheetahDisabledJointSettings(),
            "disabled_joint",
            [(j,) for j in ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")],
        ),
    ],
)
def test_a_failed_motor_gives_no_torque_and_all_others_do(settings: Any, parameter: str, joints):
    family = make_family(settings)
    for value, failed in enumerate(joints):
        model = family.compile(family.task({parameter: value}))
        data = mujoco.MjData(model)
        data.ctrl[:] = 0.5
        mujoco.mj_forward(model, data)
        for i in range(model.nu):
            name = model.joint(model.actuator_trnid[i, 0]).name
            torque = data.qfrc_actuator[model.jnt_dofadr[model.actuator_trnid[i, 0]]]
            assert (torque == 0) == (name in failed)


@pytest.mark.parametrize("settings", [HopperParametersSettings(), Walker2dParametersSettings()])
def test_random_parameters_scale_the_compiled_model(settings: Any):
    family = make_family(settings)
    neutral = family.compile(family.neutral())
    for parameter in family.parameters:
        model = family.compile(family.task({parameter.name: 2.5}))
        expected = {
            f: getattr(neutral, f).copy() for f in ("body_mass", "body_inertia", "dof_damping", "geom_friction")
        }
        name, _, quantity = parameter.name.rpartition("_")
        if quantity == "mass":
            expected["body_mass"][neutral.body(name).id] *= 2.5
            expected["body_inertia"][neutral.body(name).id] *= 2.5
        elif quantity == "damping":
            expected["dof_damping"][neutral.joint(name).dofadr] *= 2.5
        else:
            expected["geom_friction"][neutral.geom(name if name == "floor" else f"{name}_geom").id, 0] *= 2.5
        for field, values in expected.items():
            np.testing.assert_allclose(getattr(model, field), values, rtol=1e-12, err_msg=f"{parameter.name} {field}")
    low, high = (family.parameters[0].distribution.low, family.parameters[0].distribution.high)
    assert (low, high) == pytest.approx((1.5**-3, 1.5**3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (HopperParametersSettings(exponent=5000.0), "must be finite"),
    ],
)
def test_bad_settings_are_refused(settings: Any, message: str):
    with pytest.raises(ValueError, match=message):
        make_family(settings)


@pytest.mark.parametrize("settings", [HalfCheetahDynamicsSettings(), Walker2dDynamicsSettings()])
def test_a_scale_of_the_dynamics_is_one_of_the_compiled_model(settings: Any):
    family = make_family(settings)
    robot = {"half_cheetah_dynamics": "HalfCheetah-v5", "walker2d_dynamics": "Walker2d-v5"}[family.name]
    factors = {"mass_scale": 1.7, "damping_scale": 0.6, "torque_scale": 1.3, "friction_scale": 0.8}
    model, expected = family.compile(family.task(factors)), gymnasium_env(robot).model
    expected.body_mass[:] *= 1.7
    expected.body_inertia[:] *= 1.7
    expected.dof_damping[:] *= 0.6
    expected.actuator_gear[:] *= 1.3
    expected.geom_friction[:, 0] *= 0.8
    fields = (
        "body_mass",
        "body_inertia",
        "dof_damping",
        "actuator_gear",
        "geom_friction",
        "jnt_stiffness",
        "geom_size",
    )
    for field in fields:
        np.testing.assert_allclose(getattr(model, field), getattr(expected, field), rtol=1e-12, err_msg=field)
    mujoco.mj_setConst(expected, mujoco.MjData(expected))
    np.testing.assert_allclose(model.dof_M0, expected.dof_M0, rtol=1e-12)
