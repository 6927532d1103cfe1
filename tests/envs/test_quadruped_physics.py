"""The quadruped's fast physics against the exact one and against half its time step."""

from __future__ import annotations

import dataclasses
import math

import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.registry import make_family
from metarl.envs.robots.quadruped import quadruped
from metarl.envs.robots.quadruped_parameters import GO1
from metarl.envs.robots.quadruped_physics import FRICTION_SPEED
from metarl.envs.robots.quadruped_robot import FRAME_SKIP, build
from metarl.envs.robots.quadruped_settings import QuadrupedSettings, QuadrupedTerrainSettings
from metarl.envs.task import Task

NEUTRAL = QuadrupedSettings(
    payload_mass=(0.0, 0.0), friction=(0.8, 0.8), motor_strength=(1.0, 1.0), action_delay=(0.0, 0.0)
)
STATE = ("qpos", "qvel", "qacc_warmstart")


def model_of(**settings) -> mujoco.MjModel:
    family = quadruped(dataclasses.replace(NEUTRAL, **settings))
    return family.compile(family.neutral())


def saved(model: mujoco.MjModel) -> np.ndarray:
    buffer = np.zeros(mujoco.mj_sizeModel(model), dtype=np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer


def test_the_exact_physics_is_that_of_the_robot_as_it_is_built():
    built = build().compile()
    np.testing.assert_array_equal(saved(model_of(physics="exact")), saved(built))
    assert built.opt.solver == mujoco.mjtSolver.mjSOL_NEWTON and built.opt.iterations == 100
    assert not np.array_equal(saved(model_of(physics="fast")), saved(built))


def test_the_fast_physics_is_the_default_on_flat_ground_and_on_terrain():
    for settings in (QuadrupedSettings(), QuadrupedTerrainSettings()):
        family = make_family(settings)
        model = family.compile(family.neutral())
        assert model.opt.solver == mujoco.mjtSolver.mjSOL_PGS
        assert not model.dof_frictionloss.any()


@pytest.mark.parametrize("friction", [0.0, 0.2, 0.5])
def test_friction_as_damping_takes_the_torque_that_friction_takes_at_its_speed(friction: float):
    family = quadruped(
        dataclasses.replace(NEUTRAL, physics="fast", joint_friction=(0.0, 0.5), joint_damping=(0.0, 0.1))
    )
    damping = 0.07
    model = family.compile(family.task({"joint_damping": damping, "joint_friction": friction}))
    data = mujoco.MjData(model)
    data.qvel[6:] = FRICTION_SPEED
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.qfrc_damper[6:], -damping * FRICTION_SPEED - friction, rtol=1e-12)


def test_a_joint_without_damping_or_friction_has_none():
    ranges = {"joint_friction": (0.0, 0.5), "joint_damping": (0.0, 0.1)}
    family = quadruped(dataclasses.replace(NEUTRAL, physics="fast", **ranges))
    model = family.compile(family.task({"joint_damping": 0.0, "joint_friction": 0.0}))
    assert (model.dof_damping >= 0).all() and model.dof_damping.max() < 1e-15


def visited(tasks: list[Task], settings: QuadrupedSettings) -> list[tuple[int, dict[str, np.ndarray]]]:
    """Task and state of robots that the exact physics moves by random targets, on their feet."""
    env = BatchedEnv(quadruped(settings), len(tasks), 1, 1)
    env.set_tasks(tasks)
    env.reset([np.random.default_rng(m) for m in range(len(tasks))])
    rng, found = np.random.default_rng(0), []
    arrays = {name: env.simulation.bind(name) for name in (*STATE, "ctrl")}
    for t in range(40):
        env.step(rng.standard_normal((len(tasks), 1, 12)).astype(np.float32))
        for m in np.flatnonzero(env.active[:, 0]) if t > 8 else ():
            found.append((int(m), {name: array[m].copy() for name, array in arrays.items()}))
    return found


def stepped(
    models: list[mujoco.MjModel], states: list[tuple[int, dict[str, np.ndarray]]], share: int = 1
) -> np.ndarray:
    """Velocities after a control step, [states, nv]; share: the time step is divided by it."""
    velocities = []
    for m, state in states:
        model, data = models[m], mujoco.MjData(models[m])
        model.opt.timestep /= share
        for name, value in state.items():
            getattr(data, name)[:] = value
        mujoco.mj_step(model, data, FRAME_SKIP * share)
        model.opt.timestep *= share
        velocities.append(data.qvel.copy())
    return np.array(velocities)


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    """Rms error of the trunk's velocity after a control step, against the exact physics, m/s."""
    settings = dataclasses.replace(NEUTRAL, payload_mass=(0.0, 5.0), friction=(0.3, 1.25), physics="exact")
    exact, fast = quadruped(settings), quadruped(dataclasses.replace(settings, physics="fast"))
    tasks = exact.sample(12, np.random.default_rng(0))
    states = visited(tasks, settings)
    assert len(states) > 200
    models = [exact.compile(task) for task in tasks]
    true = stepped(models, states)

    def error(velocities: np.ndarray) -> float:
        return math.sqrt(np.square(velocities - true)[:, :3].sum(1).mean())

    found = {
        "half": error(stepped(models, states, 2)),
        "fast": error(stepped([fast.compile(t) for t in tasks], states)),
    }
    for model in models:
        model.opt.iterations = 1
    return found | {"one iteration": error(stepped(models, states))}


@pytest.mark.thorough
def test_the_fast_physics_errs_about_as_much_as_the_time_step(errors: dict[str, float]):
    assert 0 < errors["fast"] < 2.0 * errors["half"]


def test_one_iteration_of_newtons_method_would_err_far_more(errors: dict[str, float]):
    assert errors["one iteration"] > 10 * errors["half"]


def slip(**options) -> float:
    """Mean speed in m/s of robots that stand on a slope of 15 degrees, with every heading."""
    angle = math.radians(15)
    physics = options.pop("physics")
    stiff = dataclasses.replace(NEUTRAL, slope=(angle, angle), kp=(100.0, 100.0), kd=(3.0, 3.0), physics=physics)
    family = quadruped(stiff)
    base = family.base

    def edited(**layout) -> mujoco.MjSpec:
        spec = base(**layout)
        for name, value in options.items():
            setattr(spec.option, name, value)
        return spec

    env = BatchedEnv(dataclasses.replace(family, base=edited), 1, 12, 1)
    env.set_tasks([family.task({})])
    env.reset([np.random.default_rng(0)])
    places = []
    for _ in range(200):
        assert not env.step(np.zeros((1, 12, 12), dtype=np.float32)).terminated.any()
        places.append(env.poses[:, :3].copy())
    return float(np.linalg.norm(places[-1] - places[99], axis=1).mean()) / (100 * env.dt)


def test_feet_hold_on_a_slope_as_they_do_exactly_and_better_than_on_pyramids():
    exact, fast = slip(physics="exact"), slip(physics="fast")
    assert abs(fast - exact) < 0.1 * exact
    assert slip(physics="exact", cone=mujoco.mjtCone.mjCONE_PYRAMIDAL) > 1.3 * exact


def test_the_gpu_simulator_solves_the_fast_physics_to_convergence():
    models = pytest.importorskip("metarl.envs.warp.models")
    fast, exact = (models.mixed([model_of(physics=physics)]).base.opt for physics in ("fast", "exact"))
    assert fast.solver == exact.solver == mujoco.mjtSolver.mjSOL_NEWTON
    assert fast.iterations == models.NEWTON_ITERATIONS and exact.iterations == 100
    assert model_of(physics="fast").opt.solver == mujoco.mjtSolver.mjSOL_PGS  # a task's own model stays as it is


def test_the_robot_rests_as_heavy_and_as_deep_as_exactly():
    heights = []
    for physics in ("exact", "fast"):
        model = model_of(physics=physics)
        data = mujoco.MjData(model)
        data.qpos[:] = model.key("home").qpos
        mujoco.mj_step(model, data, 1600)
        mujoco.mj_forward(model, data)
        assert data.qfrc_constraint[2] == pytest.approx(9.81 * model.body_mass.sum(), rel=1e-3)
        heights.append([data.geom(f"{leg}_foot").xpos[2] for leg in ("FR", "FL", "RR", "RL")])
    np.testing.assert_allclose(heights[1], heights[0], atol=5e-5)
    assert GO1.foot_radius - 0.002 < np.mean(heights) < GO1.foot_radius
