"""A user's robot as the terms of its task see it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from metarl.envs.arrays import like
from metarl.envs.control import unit_of_force, unit_of_joint
from metarl.envs.declared.base import Base
from metarl.envs.declared.columns import Columns
from metarl.envs.declared.rig import COMMANDS, Feet, Guides, Joints, Rig, named_parts
from metarl.envs.declared.sensors import ContactSensors
from metarl.envs.own_robot.declaration import Declaration
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.goal import reaching

VERTICAL = 0.5
"""Least component along z of a slide's axis that leads up and down."""


def base_of(robot: Robot) -> Base:
    """Return the motion of the robot's base."""
    model, root = robot.model, robot.model.body(robot.bodies[0]).id
    body, floats = model.body(robot.base).id, robot.mobility == "floating"
    axes = None if np.array_equal(robot.axes, np.eye(3)) else robot.axes
    joint, free = model.body_jntadr[root], floats and body == root
    qpos, qvel = (int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])) if free else (-1, -1)
    return Base(body, root, qpos, qvel, robot.ground.height, axes, turns=floats)


def rig_of(robot: Robot, said: Declaration, dt: float, commands: Mapping[str, str], named: Mapping[str, str]) -> Rig:
    """Return the robot as its terms see it. dt: control step, s.

    commands: names of parameters by the component of the command that they are. named: by their quantity.
    """
    model = robot.model
    ranges = said.commands.ranges()
    given = tuple(name for name in COMMANDS if name in commands or name in ranges)
    return Rig(
        joints=_joints(robot),
        actuators=tuple(model.actuator(i).name for i in range(model.nu)),
        force_units=tuple(unit_of_force(model, i) for i in range(model.nu)),
        dt=dt,
        sensors=ContactSensors(model.nsensordata),
        base=None if robot.mobility == "fixed" else base_of(robot),
        feet=_feet(robot),
        guides=_guides(robot),
        reaching=reaching(robot, said.goal, named),
        groups=_groups(robot, said.contacts),
        bodies=robot.bodies,
        geoms=_geom_names(robot),
        commands=given,
        names=commands,
    )


def _joints(robot: Robot) -> Joints:
    joints = [robot.model.joint(name) for name in robot.joints]
    positions = Columns([int(joint.qposadr[0]) for joint in joints])
    home = robot.home[positions.places]
    return Joints(
        robot.joints,
        positions,
        Columns([int(joint.dofadr[0]) for joint in joints]),
        lambda state: like(home, state.qpos),
        tuple(unit_of_joint(robot.model, joint.id) for joint in joints),
    )


def _feet(robot: Robot) -> Feet | None:
    """Return the feet: of each body that is one, the geom that the file names, or that is lowest at home."""
    if not robot.feet:
        return None
    model = robot.model
    data = mujoco.MjData(model)
    data.qpos = robot.home
    mujoco.mj_kinematics(model, data)
    names = []
    for name in robot.feet:
        own = range(model.body(name).geomadr[0], model.body(name).geomadr[0] + model.body(name).geomnum[0])
        own = [model.geom(robot.soles[name]).id] if name in robot.soles else own
        bottoms = {g: float(data.geom_xpos[g][2]) - _reach_down(model, data, g) for g in own}
        if not bottoms:
            return None
        lowest = min(bottoms, key=lambda g: bottoms[g])
        names.append(model.geom(lowest).name)
    geoms, soles = functools.partial(_geoms, tuple(names)), functools.partial(_soles, tuple(names), robot.home)
    return Feet(robot.foot_parts, geoms, robot.foot_parts, soles)


def _reach_down(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> float:
    """Return how far a geom reaches below its middle, m: that of the box around it, or a sphere's radius."""
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_SPHERE:
        return float(model.geom_size[geom, 0])
    middle, half = np.split(model.geom_aabb[geom], 2)
    down = data.geom_xmat[geom].reshape(3, 3)[2]
    return float(np.abs(down) @ half - down @ middle)


def _soles(names: tuple[str, ...], home: np.ndarray, models: Sequence[mujoco.MjModel]) -> np.ndarray:
    """Return how far each of these geoms reaches below its middle at home in each model, [K, F] m."""
    rows = []
    for model in models:
        data = mujoco.MjData(model)
        data.qpos = home
        mujoco.mj_kinematics(model, data)
        rows.append([_reach_down(model, data, int(g)) for g in _geoms(names, models)])
    return np.array(rows)


def _geoms(names: tuple[str, ...], models: Sequence[mujoco.MjModel]) -> np.ndarray:
    return np.array([models[0].geom(name).id for name in names], dtype=np.int64)


def _guides(robot: Robot) -> Guides | None:
    """Return the joints that guide the base, without its place on the plane."""
    if robot.mobility != "guided":
        return None
    guides = [j for j in robot.spec.body(robot.bodies[0]).joints if j.name not in robot.joints]
    slides = mujoco.mjtJoint.mjJNT_SLIDE
    kept = [j.name for j in guides if not (j.type == slides and abs(j.axis[2]) < VERTICAL)]
    where, placed = _elements([robot.model.joint(name) for name in kept], "qposadr", "qpos0", "wxyz")
    speeds, moving = _elements([robot.model.joint(j.name) for j in guides], "dofadr", "damping", "xyz")
    return Guides(Columns(where), tuple(placed), Columns(speeds), tuple(moving))


def _elements(joints: list[Any], address: str, values: str, axes: str) -> tuple[list[int], list[str]]:
    """Return addresses in qpos or qvel, and names, of joints: one number for a hinge or slide, several for a ball."""
    places, names = [], []
    for joint in joints:
        first, count = int(getattr(joint, address)[0]), len(getattr(joint, values))
        places += range(first, first + count)
        names += [joint.name] if count == 1 else [f"{joint.name}_{a}" for a in axes]
    return places, names


def _geom_names(robot: Robot) -> tuple[str, ...]:
    return tuple(geom.name for geom in robot.geoms())


def _groups(robot: Robot, declared: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the bodies and geoms of each group by its name; the feet are one."""
    groups = {"feet": robot.foot_parts} if robot.feet else {}
    for group, names in declared.items():
        try:
            groups[group] = named_parts(names, robot.bodies, _geom_names(robot), {})
        except ValueError as error:
            raise ValueError(f"contacts.{group}: {error}") from None
    return groups
