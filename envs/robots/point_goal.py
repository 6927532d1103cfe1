"""Point goal (2D navigation, MAML 2017): a point moves by its action; only the reward depends on the goal."""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.control import Signals
from metarl.envs.family import TaskFamily
from metarl.envs.parameters import Law, Parameter, Uniform, outside
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.state import State
from metarl.envs.terms import Criterion, Measure, ObservationTerm, RewardTerm, elements

STEP = 0.1  # m, largest displacement on an axis in one step
REACHED = 0.01  # m, distance on each axis at which the goal counts as reached
DT = 0.1  # s, one simulation step a control step
DISPLACEMENT = Signals(
    names=("x", "y"),
    joints=("x", "y"),
    kinds=("displacement",) * 2,
    units=("m",) * 2,
    offset=np.zeros(2),
    gain=np.ones(2),
    zero=np.zeros(2),
    size=np.ones(2),
    ranges=np.tile((-np.inf, np.inf), (2, 1)),
    home={"x": 0.0, "y": 0.0},
)
"""Displacement in a step. The model has no motors: `displace` moves the point."""


def base() -> mujoco.MjSpec:
    """Return a point on two frictionless slides, without gravity."""
    spec = mujoco.MjSpec()
    spec.modelname = "point"
    spec.option.timestep = DT
    spec.option.gravity = (0, 0, 0)
    point = spec.worldbody.add_body(name="point")
    for name, axis in (("x", (1, 0, 0)), ("y", (0, 1, 0))):
        point.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
    point.add_geom(name="point", size=(0.02, 0, 0), mass=1, contype=0, conaffinity=0, rgba=(0.2, 0.4, 0.9, 1))
    spec.worldbody.add_camera(name="overview", pos=(0, 0, 1.6))
    return spec


def mark_goal(spec: mujoco.MjSpec, values: Mapping[str, float]) -> None:
    """Add a disc at the goal, larger than the centimetre within which it is reached."""
    spec.worldbody.add_geom(
        name="goal",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        pos=(values["goal_x"], values["goal_y"], -0.018),
        size=(0.03, 0.001, 0),
        contype=0,
        conaffinity=0,
        rgba=(0.0, 0.62, 0.45, 1),
    )


def displace(state: State) -> None:
    """Move the point by the action: a force-free body moves by qvel dt."""
    state.qvel[:] = state.action / DT


def to_goal(state: State) -> Array:
    """Return goal - position, [S, 2] m."""
    return state.xp.stack([state.task["goal_x"], state.task["goal_y"]], axis=1) - state.qpos


def distance(state: State) -> Array:
    """Return the distance to the goal, [S] m."""
    return state.xp.linalg.vector_norm(to_goal(state), axis=1)


def reached(state: State) -> Array:
    """Return whether the goal is within a centimetre on both axes, [S] bool."""
    return state.xp.all(state.xp.abs(to_goal(state)) < REACHED, axis=1)


def reset(model: mujoco.MjModel, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Return starts at the origin, at rest."""
    return np.zeros((n, model.nq)), np.zeros((n, model.nv))


def point_goal(settings: PointGoalSettings) -> TaskFamily:
    """Return the family of goals in a square around the start."""
    return TaskFamily(
        name="point_goal",
        description="point that finds an unseen goal on the plane",
        base=base,
        parameters=tuple(
            Parameter(
                name=f"goal_{axis}",
                unit="m",
                distribution=Uniform(-settings.goal_range, settings.goal_range),
                law=Law("goal of the reward"),
                neutral=0.0,
                ood=outside(settings.goal_range),
            )
            for axis in "xy"
        ),
        observation={"position": ObservationTerm(lambda state: state.qpos, elements("m", "xy"))},
        rewards={"distance": RewardTerm(distance, weight=-1.0)},
        reset=reset,
        action_low=np.full(2, -STEP),
        action_high=np.full(2, STEP),
        horizon=settings.horizon,
        frame_skip=1,
        control=DISPLACEMENT,
        action_scale=settings.action_scale,
        terminate=reached,
        measures={
            "final_goal_distance": Measure(distance, "m", "last"),
            "goal_reached": Measure(reached, "1", "last"),
        },
        success=(Criterion("goal_reached", low=1),),
        actuate=displace,
        decorate=mark_goal,
        settings=settings,
    )
