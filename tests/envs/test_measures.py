"""What families measure besides the return, against hand-made motions and MuJoCo's own numbers."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.control import read_signals
from metarl.envs.family import TaskFamily
from metarl.envs.measures import energy, falls, path_of, progress
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.robots.ant_settings import AntVelocitySettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahVelocitySettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.robots.walkers_settings import HopperParametersSettings
from metarl.envs.terms import Criterion, Measure, ObservationTerm, RewardTerm, elements

UNITS = {
    "success": "1",
    "falls": "1",
    "goal_reached": "1",
    "cost_of_transport": "1",
    "energy": "J",
    "distance": "m",
    "speed": "m/s",
    "velocity_error": "m/s",
    "yaw_rate_error": "rad/s",
    "goal_distance": "m",
    "final_goal_distance": "m",
}
SHARES = {"success", "falls", "goal_reached"}


@pytest.mark.parametrize("name", FAMILY_SETTINGS)
def test_every_measure_is_finite_and_of_its_unit(name: str):
    family = make_family(FAMILY_SETTINGS[name]())
    assert family.measure_units and family.measure_units == {k: UNITS[k] for k in family.measure_units}
    assert family.success and family.success_text()
    env = BatchedEnv(family, 1, 3, threads=1, measuring=True)
    env.reset([np.random.default_rng(0)])
    rng = np.random.default_rng(1)
    for _ in range(10):
        env.step(rng.uniform(family.action_low, family.action_high, (1, 3, family.action_size)))
    measures = env.measures
    assert set(measures) == set(family.measure_units)
    for measure, values in measures.items():
        assert values.shape == (1, 3) and np.isfinite(values).all(), measure
        if measure in SHARES:
            assert set(np.unique(values)) <= {0.0, 1.0}
        elif measure not in ("distance", "speed"):
            assert (values >= 0).all(), measure


MASS, GRAVITY, SPEED, FRICTION = 2.0, 9.81, 0.5, 3.0


def sled(horizon: int = 50, fall_at: float = np.inf) -> TaskFamily:
    """A mass on a slide with viscous friction: a velocity servo pulls it at the speed that the action says."""

    def base() -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.01
        body = spec.worldbody.add_body(name="sled")
        body.add_joint(name="x", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(1, 0, 0), damping=[FRICTION, 0, 0])
        body.add_geom(size=(0.1, 0, 0), mass=MASS)
        motor = spec.add_actuator(name="motor", target="x", trntype=mujoco.mjtTrn.mjTRN_JOINT)
        motor.gear[0] = 2.0  # twice the force at half the motor's speed
        return spec

    def velocity(state):
        return state.qvel[:, 0]

    def fallen(state):
        return state.qpos[:, 0] > fall_at

    return TaskFamily(
        name="sled",
        description="",
        base=base,
        parameters=(),
        observation={"place": ObservationTerm(lambda state: state.qpos, elements("m", "x"))},
        rewards={"none": RewardTerm(lambda state: np.zeros(len(state.qpos)))},
        reset=lambda model, rng, n: (np.zeros((n, 1)), np.full((n, 1), SPEED)),
        action_low=np.full(1, -10.0),
        action_high=np.full(1, 10.0),
        horizon=horizon,
        frame_skip=2,
        control=read_signals(base().compile(), "force"),
        terminate=fallen,
        measures={
            **progress(velocity),
            **energy(path_of(velocity)),
            **falls(fallen),
            "mean_x": Measure(lambda state: state.qpos[:, 0], "m", "mean"),
            "last_x": Measure(lambda state: state.qpos[:, 0], "m", "last"),
        },
        success=(Criterion("speed", 0.4, 0.6), Criterion("falls", high=0)),
    )


def played(family: TaskFamily, action: float, steps: int) -> dict[str, float]:
    env = BatchedEnv(family, 1, 1, threads=1, measuring=True)
    env.reset([np.random.default_rng(0)])
    for _ in range(steps):
        env.step(np.full((1, 1, 1), action))
    return {name: float(values[0, 0]) for name, values in env.measures.items()}


def test_a_steady_pull_against_friction():
    """Force 2 u = friction v holds the speed: 1 s at .5 m/s against 1.5 N takes .75 J, which is .75 / (m g .5 m)."""
    got = played(sled(), FRICTION * SPEED / 2, 50)
    assert got["energy"] == pytest.approx(FRICTION * SPEED * SPEED * 1.0, rel=1e-9)
    assert got["cost_of_transport"] == pytest.approx(0.75 / (MASS * GRAVITY * 0.5), rel=1e-9)
    assert got["distance"] == pytest.approx(0.5, rel=1e-9) and got["speed"] == pytest.approx(0.5, rel=1e-9)
    assert got["last_x"] == pytest.approx(0.5) and got["mean_x"] == pytest.approx(0.5 * 51 / 100)
    assert (got["success"], got["falls"]) == (1.0, 0.0)


def test_braking_costs_energy_too_and_a_fall_is_no_success():
    got = played(sled(), -0.5, 10)
    assert got["energy"] > 0
    fell = played(sled(fall_at=0.0501), FRICTION * SPEED / 2, 50)
    assert (fell["falls"], fell["success"]) == (1.0, 0.0)
    assert fell["distance"] == pytest.approx(0.06)  # what comes after the sixth step does not count


def test_energy_of_a_swing_is_that_of_a_fine_integral():
    """Against an integral over every substep of MuJoCo alone, with a force that swings at 1 Hz."""
    family = sled()
    model = family.compile(family.neutral())
    data = mujoco.MjData(model)
    data.qvel[0] = SPEED
    force = 5 * np.sin(2 * np.pi * 0.02 * np.arange(50))
    fine = 0.0
    for f in np.repeat(force, 2):
        data.ctrl[0] = f
        mujoco.mj_step(model, data)
        fine += abs(data.actuator_force[0] * data.actuator_velocity[0]) * model.opt.timestep
    env = BatchedEnv(family, 1, 1, threads=1, measuring=True)
    env.reset([np.random.default_rng(0)])
    for f in force:
        env.step(np.full((1, 1, 1), f))
    assert env.measures["energy"][0, 0] == pytest.approx(fine, rel=0.02)


def test_weight_follows_the_tasks_masses():
    family = make_family(FAMILY_SETTINGS["half_cheetah_mass"](horizon=5))
    env = BatchedEnv(family, 2, 1, threads=1, measuring=True)
    env.set_tasks([family.task({"mass_scale": scale}) for scale in (1.0, 2.0)])
    env.reset([np.random.default_rng(0)] * 2)
    path = np.zeros(2)
    for _ in range(5):
        before = env.simulation.batch.qpos[:, 0].copy()
        env.step(np.full((2, 1, 6), 0.3))
        path += np.abs(env.simulation.batch.qpos[:, 0] - before)
    got = {name: values[:, 0] for name, values in env.measures.items()}
    masses = np.array([14.0, 28.0])  # kg, Gymnasium's settotalmass
    np.testing.assert_allclose(got["cost_of_transport"], got["energy"] / (masses * 9.81 * path), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "task"),
    [(HalfCheetahVelocitySettings(), {"target_velocity": 1.5}), (AntVelocitySettings(), {"target_velocity": 1.5})],
)
def test_velocity_error_is_what_the_reward_subtracts(settings, task):
    """In the reward it is -|v - v*| (half_cheetah) or 1 - |v - v*| (ant) a step."""
    family = make_family(settings)
    env = BatchedEnv(family, 1, 2, threads=1, measuring=True)
    env.set_tasks([family.task(task)])
    env.reset([np.random.default_rng(0)])
    rng = np.random.default_rng(1)
    for _ in range(7):
        env.step(rng.uniform(-1, 1, (1, 2, family.action_size)))
    most = 0.0 if settings == HalfCheetahVelocitySettings() else 1.0
    np.testing.assert_allclose(env.measures["velocity_error"].ravel(), most - env.term_sums["velocity"] / 7, rtol=1e-9)


def test_a_quadruped_that_stands_is_as_wrong_as_its_command():
    family = make_family(
        QuadrupedSettings(forward_velocity=(0.6, 0.6), sideways_velocity=(0.0, 0.0), yaw_rate=(0.5, 0.5), horizon=100)
    )
    env = BatchedEnv(family, 1, 2, threads=1, measuring=True)
    env.reset([np.random.default_rng(0)])
    for _ in range(100):
        env.step(np.zeros((1, 2, family.action_size)))
    got = {name: values.ravel() for name, values in env.measures.items()}
    np.testing.assert_allclose(got["velocity_error"], 0.6, atol=0.05)  # it settles on its feet first
    np.testing.assert_allclose(got["yaw_rate_error"], 0.5, atol=0.03)
    assert (got["falls"] == 0).all() and (got["success"] == 0).all()


def test_a_hopper_left_alone_falls_and_a_point_at_its_goal_has_reached_it():
    family = make_family(HopperParametersSettings())
    env = BatchedEnv(family, 1, 1, threads=1, measuring=True)
    env.reset([np.random.default_rng(0)])
    while env.active.any():
        env.step(np.zeros((1, 1, family.action_size)))
    assert (env.measures["falls"][0, 0], env.measures["success"][0, 0]) == (1.0, 0.0)
    family = make_family(PointGoalSettings())
    env = BatchedEnv(family, 1, 1, threads=1, measuring=True)
    env.set_tasks([family.task({"goal_x": 0.1, "goal_y": -0.2})])
    env.reset([np.random.default_rng(0)])
    for action in ((0.1, -0.1), (0.0, -0.1)):
        env.step(np.array(action).reshape(1, 1, 2))
    assert env.measures["goal_reached"][0, 0] == env.measures["success"][0, 0] == 1.0


def test_nothing_is_measured_unless_it_is_asked_for():
    env = BatchedEnv(make_family(PointGoalSettings()), 1, 1, threads=1)
    env.reset([np.random.default_rng(0)])
    env.step(np.zeros((1, 1, 2)))
    assert env.measures == {}


def test_a_new_episode_starts_from_nothing():
    env = BatchedEnv(sled(), 1, 2, threads=1, measuring=True)
    rngs = [np.random.default_rng(0)]
    env.reset(rngs)
    env.step(np.ones((1, 2, 1)))
    env.reset(rngs, np.array([[True, False]]))
    distance = env.measures["distance"][0]
    assert np.isnan(distance[0]) and distance[1] > 0


def test_a_success_must_be_measured():
    with pytest.raises(ValueError, match="success asks for 'height', which is not measured"):
        dataclasses.replace(sled(), success=(Criterion("height", 1.0),))
    with pytest.raises(ValueError, match="a measure that is divided must be a sum, got 'mean'"):
        Measure(lambda state: state.qpos[:, 0], "1", "mean", per=lambda state: state.qpos[:, 0])
    assert sled().success_text() == "speed at least 0.4 m/s and at most 0.6, no falls"
