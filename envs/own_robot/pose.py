"""The home pose of a user's robot: on the ground, within limits, with coupled joints in agreement."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.own_robot import contacts as robot_contacts
from metarl.envs.own_robot.declaration import Hints, one_of
from metarl.envs.own_robot.description import Robot, matching, tolerance
from metarl.envs.own_robot.footing import falls, riser
from metarl.envs.own_robot.structure import couplings, follow
from metarl.envs.strict_yaml import quoted

POSES = 201
"""Number of positions of a joint that are tried to find one that suits its followers."""


def find_home(robot: Robot, hints: Hints) -> int:
    """Set the home pose; returns its keyframe, or -1 for none."""
    model = robot.model
    keys = [model.key(i).name for i in range(model.nkey)]
    if hints.keyframe is not None:
        chosen, source = one_of(hints.keyframe, keys, "robot.keyframe: keyframe"), "file"
    else:
        chosen = "home" if "home" in keys else keys[0] if len(keys) == 1 else None
        source = "model" if chosen is not None else "inferred"
    at = keys.index(chosen) if chosen is not None else -1
    robot.home = (model.qpos0 if at < 0 else model.key_qpos[at]).copy()
    said = "the model's default pose" if chosen is None else f"keyframe {chosen!r}" if chosen else "the keyframe"
    posed: set[str] = set()
    for pattern, value in hints.pose.items():
        names = matching(pattern, list(robot.joints), "robot.pose: joints")
        posed.update(names)
        for name in names:
            robot.home[model.joint(name).qposadr[0]] = value
    moved = _move_into_range(robot, set(robot.joints) - posed if at < 0 else set())
    if moved:
        said = f"{said}, with {', '.join(moved)} moved into range"
    if posed:
        said, source = f"{said}, with the file's {', '.join(n for n in robot.joints if n in posed)}", "file"
    led = _follow_at_home(robot, posed)
    _ask_about_followers(robot)
    if led:
        said = f"{said}, with {', '.join(led)} where couplings hold them"
    if riser(robot) is not None:
        if hints.height is not None:
            _raise_to(robot, hints.height)
        elif (at < 0 or hints.floating) and (lifted := _lift(robot)):
            said, source = f"{said}, lifted by {lifted:.3g} m onto the ground", "inferred"
        said = f"{said}; base at {_root_height(robot):.4g} m"
    elif hints.height is not None:
        raise ValueError(f"robot.height is given, but base {robot.base!r} has no free joint or upright slide to lift")
    robot.note("home pose", said, source)
    others = [repr(name) for name in keys if name and name != chosen]
    if nameless := sum(not name for name in keys) - (chosen == ""):
        others.append(f"{nameless} without a name")
    if others:
        unnamed = " that has a name" if "" in keys else ""
        takes = f"robot: {{keyframe: NAME}} takes one{unnamed}"
        robot.note("other keyframes", f"{', '.join(others)}: not used; {takes}", "model")
    return at


def _move_into_range(robot: Robot, movable: set[str]) -> list[str]:
    """Clip the home of joints that may be moved to their ranges and ask about the others; returns the moved joints."""
    moved = []
    for name in robot.joints:
        joint = robot.model.joint(name)
        value, (low, high) = robot.home[joint.qposadr[0]], joint.range
        if not joint.limited[0] or low - 1e-6 <= value <= high + 1e-6:
            continue
        if name in movable:
            robot.home[joint.qposadr[0]] = np.clip(value, low, high)
            moved.append(name)
            continue
        robot.questions.append(
            f"home has joint {name!r} at {value:.4g}, outside of its range [{low:.4g}, {high:.4g}]; write robot: "
            f"{{pose: {{{quoted(re.escape(name))}: {np.clip(0.0, low, high):.4g}}}}}"
        )
    return moved


def _follow_at_home(robot: Robot, posed: set[str]) -> list[str]:
    """Move joints that follow others to where these put them at home; returns the moved joints."""
    model, before = robot.model, robot.home.copy()
    chain = couplings(model)
    follow(model, chain, robot.home)
    led = [
        model.joint(c.follower).name
        for c in chain
        if not np.isclose(*(q[model.jnt_qposadr[c.follower]] for q in (before, robot.home)), atol=1e-6)
    ]
    for name in led:
        if name in posed:
            robot.questions.append(
                f"robot.pose puts joint {name!r} elsewhere than its coupling holds it; leave it out, and pose the "
                "joint that it follows"
            )
    return led


def _ask_about_followers(robot: Robot) -> None:
    """Ask about joints that couplings put out of their ranges at home, and suggest a pose in which none is."""
    model, chain = robot.model, couplings(robot.model)
    leaders = {c.follower: c.leader for c in chain if model.joint(c.follower).name in robot.joints}
    for joint in _out_of_range(model, robot.home, leaders):
        lead = joint
        for _ in leaders:  # a circle has no first
            lead = leaders.get(lead, lead)
        low, high = model.jnt_range[joint]
        robot.questions.append(
            f"home has joint {model.joint(joint).name!r} at {robot.home[model.jnt_qposadr[joint]]:.4g}, where its "
            f"coupling takes it, outside of its range [{low:.4g}, {high:.4g}]; {_leading_pose(robot, lead, leaders)}"
            "change the coupling or the range in the model"
        )


def _leading_pose(robot: Robot, lead: int, leaders: Mapping[int, int]) -> str:
    """Return the smallest move of a joint that brings its followers into their ranges, as text, or "" for none."""
    model, chain = robot.model, couplings(robot.model)
    if lead < 0 or lead in leaders or model.joint(lead).name not in robot.joints:
        return ""
    place = int(model.jnt_qposadr[lead])
    home = float(robot.home[place])
    low, high = map(float, model.jnt_range[lead]) if model.jnt_limited[lead] else (home - np.pi, home + np.pi)
    written = [float(f"{value:.4g}") for value in np.linspace(low, high, POSES).tolist()]
    for value in sorted(written, key=lambda v: abs(v - home)):
        trial = robot.home.copy()
        trial[place] = value
        follow(model, chain, trial)
        if low <= value <= high and not _out_of_range(model, trial, leaders):
            return f"write robot: {{pose: {{{quoted(re.escape(model.joint(lead).name))}: {value:.4g}}}}}, or "
    return ""


def _out_of_range(model: mujoco.MjModel, qpos: Array, joints: Iterable[int]) -> list[int]:
    """Return the hinges and slides that are outside of their ranges."""
    limited = {j: float(qpos[model.jnt_qposadr[j]]) for j in joints if model.jnt_limited[j]}
    return [j for j, q in limited.items() if not model.jnt_range[j, 0] - 1e-6 <= q <= model.jnt_range[j, 1] + 1e-6]


def _raise_to(robot: Robot, height: float) -> None:
    """Move the root up or down to a height over the ground, m."""
    for _ in range(100):
        if abs(higher := height - _root_height(robot)) < 1e-12:
            break
        _rise(robot, higher)


def standing_height(robot: Robot) -> float | None:
    """Return the height over the ground of a base that can fall at which its lowest geom at home touches it, m.

    None if nothing pulls the robot to a ground, or if its guide does not reach down or up to it.
    """
    if not robot.ground.names or not falls(robot):
        return None
    standing = dataclasses.replace(robot, home=robot.home.copy())
    _sink(standing)
    _lift(standing)
    return _root_height(standing) if _guides_reach(standing) else None


def _guides_reach(robot: Robot) -> bool:
    """Return whether the joints that carry the root are within their limits at home."""
    root = robot.model.body(robot.bodies[0])
    first, count = int(root.jntadr[0]), int(root.jntnum[0])
    return not _out_of_range(robot.model, robot.home, range(first, first + count))


def _root(robot: Robot) -> Array:
    """Return the position of the root at home, [3] m."""
    data = mujoco.MjData(robot.model)
    data.qpos = robot.home
    mujoco.mj_kinematics(robot.model, data)
    return data.body(robot.bodies[0]).xpos.copy()


def _root_height(robot: Robot) -> float:
    """Return the height of the root at home over the ground, m."""
    return robot.ground.height_in(robot.model, _root(robot))


def _rise(robot: Robot, distance: float) -> None:
    """Move the root up by a distance, m, by its free joint or upright slide."""
    found = riser(robot)
    assert found is not None
    place, rise = found
    robot.home[place] += distance / rise


def _sink(robot: Robot) -> None:
    """Lower the root until the middle of a geom that can touch the ground is at it."""
    model, data = robot.model, mujoco.MjData(robot.model)
    own = np.flatnonzero(robot_contacts.standing_on(model, robot.bodies).any(axis=1))
    for _ in range(100):
        data.qpos = robot.home
        mujoco.mj_kinematics(model, data)
        over = min(robot.ground.height_in(model, data.geom_xpos[g]) for g in own)
        if over < 1e-9:
            break
        _rise(robot, -over)


def _lift(robot: Robot) -> float:
    """Raise the root until the robot is out of the ground, if it is deeper than 1 mm; returns the distance, m."""
    before = float(_root(robot)[2])
    if _clearance(robot) < -1e-3:
        for _ in range(100):
            if (depth := -_clearance(robot)) < 1e-9:
                break
            _rise(robot, depth)
    if _sunk(robot, robot.home, 1e-3):
        low, step = robot.home.copy(), tolerance(robot)
        while _sunk(robot, robot.home, 0.0):
            _rise(robot, step)
            step *= 2
        high = robot.home.copy()
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if _sunk(robot, middle, 0.0) else (low, middle)
        robot.home = high
    return float(_root(robot)[2]) - before


def _clearance(robot: Robot) -> float:
    """Return the least distance between the robot at home and the planes of its ground, m; 0 if there are none."""
    model = robot.model
    data = mujoco.MjData(model)
    data.qpos = robot.home
    mujoco.mj_kinematics(model, data)
    meet = robot_contacts.standing_on(model, robot.bodies)
    planes = [model.geom(name).id for name in robot.ground.planes]
    found = [mujoco.mj_geomDistance(model, data, p, g, 100.0, None) for p in planes for g in np.flatnonzero(meet[:, p])]
    return min(found, default=0.0)


def _sunk(robot: Robot, qpos: Array, depth: float) -> bool:
    """Return whether a geom is deeper than this in a heightfield or a box of the ground, or its middle is below it."""
    model, ground = robot.model, robot.ground
    solid = [model.geom(name).id for name in ground.fields + ground.boxes]
    if not solid:
        return False
    data = mujoco.MjData(model)
    data.qpos = qpos
    mujoco.mj_fwdPosition(model, data)
    if any(contact.dist < -depth and set(contact.geom) & set(solid) for contact in data.contact):
        return True
    own = np.flatnonzero(robot_contacts.standing_on(model, robot.bodies)[:, solid].any(axis=1))
    return any(ground.height_in(model, data.geom_xpos[g]) < 0 for g in own)
