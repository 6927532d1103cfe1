"""Ground, feet, and directions of the base of a user's robot."""

from __future__ import annotations

import re

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.own_robot import contacts as robot_contacts
from metarl.envs.own_robot.contacts import GROUND
from metarl.envs.own_robot.declaration import Hints, one_of
from metarl.envs.own_robot.description import Robot, unused
from metarl.envs.own_robot.ground import find_ground, is_level
from metarl.envs.own_robot.options import switched_off
from metarl.envs.own_robot.structure import subtree

FOOT_NAMES = (r"foot|feet|toe|ankle|hoof|paw|sole", r"calf|shin|shank|lower")
"""Usual names of feet, likeliest first."""
FOOT_HEIGHT = 0.1
"""Leaf bodies whose lowest point is within this share of the robot's height of the ground count as feet."""
NAMED_HEIGHT = 1 / 3
"""The same for the lowest of those with the name of a foot: a lower lip is none."""
AXES = {sign + axis: (-1.0 if sign else 1.0) * np.eye(3)[i] for i, axis in enumerate("xyz") for sign in ("", "-")}
"""Direction of each axis by its name in a file."""
STEEP = 0.1
"""Least rise of a slide that lets the robot fall, m/m."""
UPRIGHT = np.cos(np.pi / 4)
"""Cosine of the angle from the vertical at which the base's axis still points up at home."""


def find_floor(robot: Robot, hints: Hints) -> None:
    """Find the robot's ground, and add a level floor if the robot could fall and there is no ground."""
    model, can_fall = robot.model, falls(robot)
    masks = [(g.contype, g.conaffinity) for g in robot.geoms() if g.contype or g.conaffinity]
    fixed = (model.body_weldid[model.geom_bodyid] == 0) & ~robot_contacts.own_geoms(model, robot.bodies)
    solid = [model.geom(i).name for i in np.flatnonzero(fixed)]
    simulated = {g.name for g in robot.spec.geoms}
    drawn = [g.name for g in robot.visual.worldbody.geoms if g.type in GROUND and g.name not in simulated]
    level = [n for n in solid if model.geom(n).type == mujoco.mjtGeom.mjGEOM_PLANE and is_level(model, n)]
    if hints.floor and level:
        raise ValueError(
            f"robot.floor is true, and the model has a level floor at height 0, {level[0]!r}; leave it out"
        )
    if hints.floor or (hints.floor is None and can_fall and masks and not solid and not drawn):
        taken = {g.name for g in robot.visual.geoms}
        name = "floor" if "floor" not in taken else unused("metarl_floor", taken)
        for spec in (robot.visual, robot.spec):
            robot_contacts.add_floor(spec, name, masks)
        robot.model = model = robot.spec.compile()
        robot.note("floor", f"{name}, a plane at height 0, added", "inferred" if hints.floor is None else "file")
        solid.append(name)
    touched = robot_contacts.standing_on(model, robot.bodies).any(axis=0)
    if not robot.findings or robot.findings[-1].subject != "floor":
        names = ", ".join(model.geom(i).name for i in np.flatnonzero(touched))
        robot.note("floor", names or ("none, the base is fixed" if robot.mobility == "fixed" else "none"), "model")
    robot.ground = find_ground(model, robot.bodies)
    around = [n for n in robot.ground.boxes if model.geom(n).type != mujoco.mjtGeom.mjGEOM_BOX]
    if around and robot.mobility != "fixed":
        robot.note("heights", f"over the boxes around {', '.join(around)}", "inferred")
    if robot.mobility != "floating" or not can_fall or robot.ground.names or hints.floor is False:
        return
    if flag := switched_off(model, "contact"):
        robot.questions.append(
            f'the model switches contacts off (<flag {flag}="disable"/>), so the robot falls for ever; take that out '
            "of the model, or write robot: {floor: false} if it is to fly or to swim"
        )
        return
    ways = "or write robot: {floor: true} for a level floor at height 0, or {floor: false} if it is to fly or to swim"
    if not masks:
        robot.questions.append(
            "no geom of the robot collides: all have contype 0 and conaffinity 0, and no <pair> names one with a "
            "ground, so it falls for ever; give its geoms contype 1 and conaffinity 1 in the model, or write robot: "
            "{floor: false} if it is to fly or to swim"
        )
    elif touched.any():
        robot.questions.append(
            f"{', '.join(model.geom(i).name for i in np.flatnonzero(touched))} can be touched but are walls, so the "
            f"robot falls for ever; add a floor to the model, {ways}"
        )
    elif solid:
        robot.questions.append(
            f"no geom of the robot can touch {', '.join(solid)}: contype and conaffinity do not meet, or an <exclude> "
            f"keeps them apart, so it falls for ever; mend that in the model, {ways}"
        )
    else:
        robot.questions.append(
            f"{', '.join(drawn)} is drawn but touches nothing (contype 0, conaffinity 0), so the robot falls for ever; "
            f"give it contype 1 and conaffinity 1 in the model, {ways}"
        )


def falls(robot: Robot) -> bool:
    """Return whether the base can fall."""
    model = robot.model
    pulled = not switched_off(model, "gravity") and bool(np.linalg.norm(model.opt.gravity))
    return pulled and riser(robot) is not None


def riser(robot: Robot) -> tuple[int, float] | None:
    """Return the place in qpos that takes the root up or down, and its rise, m/m; None if nothing lets it fall.

    Of a guided robot it is the steepest slide at the root that nothing drives.
    """
    model, root = robot.model, robot.spec.body(robot.bodies[0])
    if robot.mobility == "floating":
        return int(model.joint(root.joints[0].name).qposadr[0]) + 2, 1.0
    if robot.mobility == "fixed":
        return None
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    slides = [j.name for j in root.joints if j.type == mujoco.mjtJoint.mjJNT_SLIDE and j.name not in robot.joints]
    rises = {name: float(data.joint(name).xaxis[2]) for name in slides}
    steepest = max(rises, key=lambda name: abs(rises[name]), default="")
    if not steepest or abs(rises[steepest]) <= STEEP:
        return None
    return int(model.joint(steepest).qposadr[0]), rises[steepest]


def find_frame(robot: Robot, hints: Hints) -> None:
    """Find the axes of the base that point forwards and up: x and z, unless the file names others."""
    if robot.mobility == "fixed":
        if hints.up or hints.forward:
            raise ValueError("robot.up and robot.forward need a base that moves, but the base is fixed; leave them out")
        return
    gravity = np.array(robot.model.opt.gravity)
    if -gravity[2] < UPRIGHT * np.linalg.norm(gravity):
        robot.questions.append(
            f"gravity is {gravity.round(3).tolist()} m/s^2, but heights, tilt and velocities take the world's z for "
            "up; turn the model in its world until gravity points down z"
        )
    data = mujoco.MjData(robot.model)
    data.qpos = robot.home
    mujoco.mj_kinematics(robot.model, data)
    turn = data.body(robot.base).xmat.reshape(3, 3)

    def ahead(up: str) -> str:
        """Return the axis perpendicular to `up` that is closest to the world's x at home."""
        return max((a for a in AXES if not AXES[a] @ AXES[up]), key=lambda a: float((turn @ AXES[a])[0]))

    up = hints.up or "z"
    if (turn @ AXES[up])[2] < UPRIGHT:
        upmost = max(AXES, key=lambda a: float((turn @ AXES[a])[2]))
        robot.questions.append(
            f"the {up} axis of base {robot.base!r} does not point up at home, where heights, tilt and velocities are "
            f"measured by it; write robot: {{up: {upmost}, forward: {ahead(upmost)}}} (which of its axes points up, "
            "and which forwards), or choose another home pose"
        )
    forward = hints.forward or ("x" if hints.up in (None, "z") else ahead(up))
    if AXES[forward] @ AXES[up]:
        raise ValueError(f"robot.forward is {forward}, and {up} points up; give an axis across it, such as {ahead(up)}")
    robot.axes = np.stack([AXES[forward], np.cross(AXES[up], AXES[forward]), AXES[up]], axis=1)
    if hints.up or hints.forward:
        robot.note("base frame", f"{forward} forwards, {up} up", "file")


def find_feet(robot: Robot, hints: Hints) -> None:
    """Find the bodies that the robot stands on; ValueError for a hint that is no body and no geom of it."""
    if hints.feet is not None:
        body_of = {geom.name: geom.parent.name for geom in robot.geoms() if geom.name not in robot.bodies}
        named = [one_of(name, [*robot.bodies, *body_of], "robot.feet: body or geom") for name in hints.feet]
        robot.soles = {body_of[name]: name for name in named if name in body_of}
        robot.feet = tuple(body_of.get(name, name) for name in named)
        if twice := next((foot for foot in robot.feet if robot.feet.count(foot) > 1), None):
            raise ValueError(f"robot.feet has body {twice!r} twice; name it, or one geom of it, as the foot")
        robot.note("feet", ", ".join(named) or "none", "file")
        return
    if robot.mobility == "fixed":
        robot.note("feet", "none, the base is fixed", "inferred")
        return
    robot.feet, how = _likely_feet(robot)
    robot.note("feet", f"{', '.join(robot.feet) or 'none'} ({how})", "inferred")


def _likely_feet(robot: Robot) -> tuple[tuple[str, ...], str]:
    """Return the bodies that are likely feet, and how they were recognised."""
    touching, leaves = _leaves(robot)
    data = mujoco.MjData(robot.model)
    data.qpos = robot.home
    mujoco.mj_kinematics(robot.model, data)

    def height(place: Array) -> float:
        return robot.ground.height_in(robot.model, place)

    bottom = {
        name: min(height(data.geom(g).xpos) - robot.model.geom(g).rbound[0] for g in touching[name]) for name in leaves
    }
    lowest = min(bottom.values(), default=0.0)
    tall = max(height(data.body(robot.base).xpos) - lowest, 0.0)
    for pattern in FOOT_NAMES:
        named = [name for name in leaves if re.search(pattern, " ".join([name, *touching[name]]), re.IGNORECASE)]
        if named and min(bottom[name] for name in named) <= lowest + NAMED_HEIGHT * tall:
            return tuple(named), "leaf bodies, by name"
    return tuple(name for name, z in bottom.items() if z <= lowest + FOOT_HEIGHT * tall), "lowest leaf bodies at home"


def _leaves(robot: Robot) -> tuple[dict[str, list[str]], list[str]]:
    """Return the geoms that can touch something by body, and the last bodies of each limb that have some."""
    bodies = [robot.spec.body(name) for name in robot.bodies]
    ground = robot_contacts.touching(robot.model, robot.bodies)
    touching = {b.name: [g.name for g in b.geoms if g.name in ground] for b in bodies}
    ends = [b.name for b in bodies if touching[b.name] and not any(touching[c.name] for c in list(subtree(b))[1:])]
    return touching, ends
