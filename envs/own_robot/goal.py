"""What a user's robot is to bring to a target, where the target is, and what a picture shows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mujoco
import numpy as np

from metarl.envs.arrays import Array, like
from metarl.envs.declared.rig import Reaching
from metarl.envs.own_robot.declaration import Goal, one_of
from metarl.envs.own_robot.description import Robot
from metarl.envs.state import State, StateFunction

UNIT = 1e-3
"""Largest difference of a quaternion's length from 1."""
PLACE = ("goal_x", "goal_y", "goal_z")
"""Quantities that are the target's position."""
TURN = ("goal_roll", "goal_pitch", "goal_yaw")
"""Quantities that turn the target about the world's x, y and z axes, in this order."""
RADIUS = 0.03  # m, of the target in pictures
AXIS = (0.1, 0.006)  # m, length and radius of its axes in pictures
COLOURS = ((0.8, 0.1, 0.1, 0.8), (0.1, 0.6, 0.1, 0.8), (0.1, 0.2, 0.8, 0.8))
"""Of its x, y and z axis."""


def reaching(robot: Robot, goal: Goal | None, named: Mapping[str, str]) -> Reaching | None:
    """Return what is to reach its target. named: parameters by their quantity.

    ValueError for a name that is neither a body nor a site, and for a parameter of a target that nothing reaches for.
    """
    if goal is None:
        if given := next((named[quantity] for quantity in (*PLACE, *TURN) if quantity in named), None):
            raise ValueError(f"{given} is of a target; say what reaches for it by goal: {{effector: BODY or SITE}}")
        return None
    names = [named.get(quantity) for quantity in PLACE]

    def target(state: State) -> Array:
        zero = state.xp.zeros_like(state.qpos[:, 0])
        given = [state.task[n] if n else zero + at for n, at in zip(names, goal.position, strict=True)]
        return state.xp.stack(given, axis=1)

    moved = [name for name in (goal.effector, goal.object) if name is not None]
    for name, where in zip(moved, ("effector", "object"), strict=False):
        one_of(name, _places(robot), f"goal.{where}: site or body")
    return Reaching(
        _position(robot, goal.effector),
        _orientation(robot, goal.effector),
        target,
        _aim(goal, named),
        None if goal.object is None else _position(robot, goal.object),
        None if goal.object is None else _orientation(robot, goal.object),
    )


def turned(xp: Any, roll: Array, pitch: Array, yaw: Array) -> Array:
    """Return Rz(yaw) Ry(pitch) Rx(roll), [S, 3, 3], of angles [S] rad: turns about the world's x, then y, then z."""
    (a, b, c), (d, e, f) = ([wave(angle) for angle in (roll, pitch, yaw)] for wave in (xp.cos, xp.sin))
    rows = (
        (c * b, c * e * d - f * a, c * e * a + f * d),
        (f * b, f * e * d + c * a, f * e * a - c * d),
        (-e, b * d, b * a),
    )
    return xp.stack([xp.stack(row, axis=-1) for row in rows], axis=-2)


def _aim(goal: Goal, named: Mapping[str, str]) -> StateFunction | None:
    """Return a function for the target's orientation, [S, 3, 3]; None if it has none."""
    first, names = _first_turn(goal, named), [named.get(quantity) for quantity in TURN]
    if first is None:
        return None

    def aim(state: State) -> Array:
        zero = state.xp.zeros_like(state.qpos[:, 0])
        return turned(state.xp, *(state.task[n] if n else zero for n in names)) @ like(first, state.qpos)

    return aim


def _first_turn(goal: Goal, named: Mapping[str, str]) -> Array | None:
    """Return the target's orientation before parameters turn it, [3, 3]; None if it has none."""
    if goal.orientation is None:
        return np.eye(3) if any(quantity in named for quantity in TURN) else None
    quat, first = np.array(goal.orientation), np.zeros(9)
    if abs(np.linalg.norm(quat) - 1) > UNIT:
        raise ValueError(f"goal.orientation {list(goal.orientation)} is no unit quaternion w, x, y, z")
    mujoco.mju_quat2Mat(first, quat)
    return first.reshape(3, 3)


def _places(robot: Robot) -> list[str]:
    """Return the names of sites and bodies."""
    model = robot.model
    return [model.site(i).name for i in range(model.nsite)] + [model.body(i).name for i in range(model.nbody)]


def _index(robot: Robot, name: str) -> tuple[str, int]:
    """Return the beginning of its MjData fields, and the index, of a site or else a body."""
    site = mujoco.mj_name2id(robot.model, mujoco.mjtObj.mjOBJ_SITE, name)
    return ("x", robot.model.body(name).id) if site < 0 else ("site_x", site)


def _position(robot: Robot, name: str) -> StateFunction:
    """Return a function for the position of a site or a body, [S, 3] m."""
    of, index = _index(robot, name)
    return lambda state: getattr(state, f"{of}pos")[:, index]


def _orientation(robot: Robot, name: str) -> StateFunction:
    """Return a function for the orientation of a site or a body, [S, 3, 3]."""
    of, index = _index(robot, name)
    return lambda state: getattr(state, f"{of}mat")[:, index].reshape(-1, 3, 3)


def show_goal(
    goal: Goal | None, named: Mapping[str, str]
) -> Callable[[mujoco.MjSpec, Mapping[str, float]], None] | None:
    """Return a function that adds a task's target to a picture, with its axes if it has an orientation.

    named: parameters by their quantity.
    """
    if goal is None:
        return None
    first = _first_turn(goal, named)

    def show(spec: mujoco.MjSpec, values: Mapping[str, float]) -> None:
        def given(quantity: str, otherwise: float) -> float:
            return values[named[quantity]] if quantity in named else otherwise

        place = np.array([given(axis, at) for axis, at in zip(PLACE, goal.position, strict=True)])
        ball = spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(RADIUS, 0, 0), pos=place)
        ball.rgba, ball.contype, ball.conaffinity = (0.1, 0.7, 0.2, 0.6), 0, 0
        if first is None:
            return
        axes = turned(np, *(np.array([given(angle, 0.0)]) for angle in TURN))[0] @ first
        for axis, colour in zip(axes.T, COLOURS, strict=True):
            ends = [*place, *(place + AXIS[0] * axis)]
            rod = spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=(AXIS[1], 0, 0), fromto=ends)
            rod.rgba, rod.contype, rod.conaffinity = colour, 0, 0

    return show
