"""HalfCheetah families against Gymnasium's HalfCheetah and against closed forms."""

from __future__ import annotations

import warnings

import gymnasium
import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.registry import make_family
from metarl.envs.robots import half_cheetah
from metarl.envs.robots.half_cheetah import LIMB_RADIUS
from metarl.envs.robots.half_cheetah_settings import (
    HalfCheetahDirectionSettings,
    HalfCheetahMassSettings,
    HalfCheetahVelocitySettings,
)


def gymnasium_cheetah() -> gymnasium.Env:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gymnasium.make("HalfCheetah-v5", ctrl_cost_weight=0.05).unwrapped


@pytest.mark.parametrize(
    "settings",
    [HalfCheetahVelocitySettings(), HalfCheetahDirectionSettings(), HalfCheetahMassSettings()],
    ids=lambda s: type(s).__name__,
)
def test_neutral_task_equals_gymnasium_step_by_step(settings):
    family = make_family(settings)
    env = BatchedEnv(family, 1, 1, 1)
    first = env.reset([np.random.default_rng(0)])
    reference = gymnasium_cheetah()
    reference.reset(seed=0)
    reference.set_state(env.simulation.batch.qpos[0].copy(), env.simulation.batch.qvel[0].copy())
    np.testing.assert_array_equal(first[0, 0, :17], reference._get_obs().astype(np.float32))
    np.testing.assert_array_equal(
        first[0, 0, 17:], reference.data.body("torso").xpos.astype(np.float32)[: first.shape[-1] - 17]
    )
    rng = np.random.default_rng(1)
    for _ in range(family.horizon):
        sums = {k: v[0] for k, v in env.term_sums.items()}
        action = rng.uniform(-1, 1, 6)
        step = env.step(action[None, None])
        observation, _, terminated, _, info = reference.step(action)
        terms = {k: v[0] - sums[k] for k, v in env.term_sums.items()}
        np.testing.assert_array_equal(step.observations[0, 0, :17], observation.astype(np.float32))
        np.testing.assert_array_equal(env.simulation.batch.qpos[0], reference.data.qpos)
        np.testing.assert_array_equal(env.simulation.batch.qvel[0], reference.data.qvel)
        assert terms["control"] == pytest.approx(info["reward_ctrl"], abs=1e-9)
        forward = -abs(info["x_velocity"]) if family.name == "half_cheetah_velocity" else info["x_velocity"]
        assert terms["velocity"] == pytest.approx(forward, abs=1e-9)
        if family.name == "half_cheetah_mass":
            assert terms["height"] == pytest.approx(observation[0], abs=1e-9)
            np.testing.assert_array_equal(
                step.observations[0, 0, 17:], reference.data.body("torso").xpos.astype(np.float32)
            )
        assert step.rewards[0, 0] == pytest.approx(sum(terms.values()), abs=1e-5)
        assert not terminated and not step.terminated[0, 0]


def test_reset_noise_is_gymnasiums():
    family = make_family(HalfCheetahVelocitySettings())
    env = BatchedEnv(family, 1, 4000, 1)
    env.reset([np.random.default_rng(0)])
    neutral = family.compile(family.neutral())
    offset, velocity = env.simulation.batch.qpos - neutral.qpos0, env.simulation.batch.qvel
    assert np.abs(offset).max() <= 0.1
    np.testing.assert_allclose(offset.std(0), 0.1 / np.sqrt(3), rtol=0.06)
    np.testing.assert_allclose(velocity.std(0), 0.1, rtol=0.06)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("inertia", ["published", "consistent"])
def test_mass_scales_the_compiled_model(factor: float, inertia: str):
    family = make_family(HalfCheetahMassSettings(inertia=inertia))
    neutral, model = family.compile(family.neutral()), family.compile(family.task({"mass_scale": factor}))
    np.testing.assert_allclose(model.body_mass, factor * neutral.body_mass, rtol=1e-12)
    assert model.body_subtreemass[0] == pytest.approx(14.0 * factor)  # settotalmass must not scale it back
    np.testing.assert_allclose(
        model.body_inertia, neutral.body_inertia * (factor if inertia == "consistent" else 1), rtol=1e-12
    )
    limbs = model.geom_bodyid > 0
    np.testing.assert_allclose(model.geom_size[limbs, 0], LIMB_RADIUS * factor, rtol=1e-12)
    np.testing.assert_array_equal(model.geom_size[~limbs], neutral.geom_size[~limbs])


def test_derived_constants_are_those_of_mujocos_own_set_const():
    family = make_family(HalfCheetahMassSettings(inertia="consistent"))
    model = family.compile(family.task({"mass_scale": 1.7}))
    again = family.compile(family.task({"mass_scale": 1.7}))
    mujoco.mj_setConst(again, mujoco.MjData(again))
    for field in ("dof_invweight0", "body_invweight0", "body_subtreemass", "dof_M0", "actuator_acc0"):
        np.testing.assert_allclose(getattr(model, field), getattr(again, field), rtol=1e-9)


def test_action_is_scaled_then_clipped_and_the_cost_is_on_what_was_applied():
    family = make_family(HalfCheetahVelocitySettings(action_scale=0.1, control_cost=1.0))
    env = BatchedEnv(family, 1, 1, 1)
    env.reset([np.random.default_rng(0)])
    env.step(np.array([[[1.0, -1.0, 5.0, 50.0, -50.0, 0.0]]]))
    np.testing.assert_allclose(env.simulation.batch.ctrl[0], [0.1, -0.1, 0.5, 1.0, -1.0, 0.0])
    assert env.term_sums["control"][0] == pytest.approx(-(0.01 + 0.01 + 0.25 + 1 + 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (HalfCheetahVelocitySettings(velocity_low=2.0, velocity_high=1.0), "reversed"),
        (HalfCheetahVelocitySettings(velocity_high=float("inf")), "velocity_high is inf; it must be a finite number"),
        (HalfCheetahMassSettings(mass_exponent=5000.0), "must be finite"),
    ],
)
def test_bad_settings_are_refused(settings, message: str):
    with pytest.raises(ValueError, match=message):
        make_family(settings)


@pytest.mark.parametrize("mass", [-1.0, 0.0])
def test_a_mass_that_is_not_positive_is_refused(mass: float):
    family = make_family(HalfCheetahMassSettings())
    with pytest.raises(ValueError, match=r"parameter 'mass_scale' must be greater than 0 \(1\), got"):
        family.task({"mass_scale": mass})


def test_steps_without_the_search_for_islands_are_bit_for_bit_gymnasiums():
    model = half_cheetah.base().compile()
    assert model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_ISLAND
    original = mujoco.MjModel.from_xml_path(half_cheetah.MODEL)
    original.body_mass[:], original.body_inertia[:] = model.body_mass, model.body_inertia
    mujoco.mj_setConst(original, mujoco.MjData(original))
    ours, theirs = mujoco.MjData(model), mujoco.MjData(original)
    rng = np.random.default_rng(0)
    for _ in range(500):
        ours.ctrl[:] = theirs.ctrl[:] = rng.uniform(-1, 1, model.nu)
        for pair in ((model, ours), (original, theirs)):
            mujoco.mj_step(*pair, nstep=5)
        np.testing.assert_array_equal(ours.qpos, theirs.qpos)
        np.testing.assert_array_equal(ours.qvel, theirs.qvel)
