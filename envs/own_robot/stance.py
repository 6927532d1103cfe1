"""Gains of servos that carry a legged robot or an arm, or that turn wheels."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.strict_yaml import quoted

SAG = 0.1
"""Largest deflection of a joint under the robot's weight, rad (m)."""
NEAR = 0.5
"""Angle (distance) by which each joint is bent from home in turn, as straight legs need no torque, rad (m)."""
LEAST = 0.1
"""Least stiffness of a joint as a share of the largest."""
STEADY = 3.0
"""Stiffness of a joint as a multiple of that below which the robot topples about it, as several joints give way."""
ARM_SAG, ARM_LEAST = 0.05, 0.05
"""The same of an arm."""
POSES = 50
"""Number of random poses of an arm."""
CENTRED = 0.1
"""Distance of a wheel's centre of mass from its axis, at most, as a share of its radius."""
RIM_SPEED = 2.0
"""Speed of a wheel's rim that an action of 1 asks for, m/s."""
REACHED_IN = 0.1
"""Time in which a robot on wheels is to come near to the speed asked for, s."""


def suggested_gains(
    model: mujoco.MjModel, home: Array, joints: tuple[str, ...], feet: tuple[str, ...]
) -> dict[str, tuple[float, float]]:
    """Return kp, N m/rad (N/m), and kd, N m s/rad (N s/m), by joint, which carry its load with a sag of 0.1 rad (m).

    The load is the largest over home and poses with one joint bent: gravity's torque less that of the ground, whose
    reaction to the robot's weight all feet share. The stiffness is also a multiple of that below which the robot
    topples about the joint, which for an ankle is more. Damping is critical for the inertia that the joint moves.
    """
    low, high = np.array([model.joint(n).range if model.joint(n).limited[0] else (-np.inf, np.inf) for n in joints]).T
    bent = NEAR * np.concatenate([np.zeros((1, len(joints))), np.eye(len(joints)), -np.eye(len(joints))])
    at = home[_addresses(model, joints, "qposadr")]
    poses = np.clip(at + bent, low, high)
    needed = STEADY * toppling(model, home, joints, feet)
    return _gains(model, home, joints, poses, lambda data: _carried(model, data, feet), SAG, LEAST, needed)


def toppling(model: mujoco.MjModel, home: Array, joints: tuple[str, ...], feet: tuple[str, ...]) -> Array:
    """Return the stiffness of each joint, N m/rad, below which what it carries topples about it, [J]; a slide's is 0.

    A body of mass m whose centre of mass is at r from a hinge of direction a has under gravity the negative stiffness
    m g (r_z - (a . r) a_z). A joint between the robot and feet on the ground carries all but its own limb, and shares
    it with the other feet; another joint carries what is beyond it.
    """
    data = mujoco.MjData(model)
    data.qpos = home
    mujoco.mj_fwdPosition(model, data)
    root, gravity = int(model.body_rootid[model.body(feet[0]).id]), float(np.linalg.norm(model.opt.gravity))
    total, middle = model.body_subtreemass[root], data.subtree_com[root]
    needed = np.zeros(len(joints))
    for i, name in enumerate(joints):
        joint = model.joint(name)
        if joint.type[0] != int(mujoco.mjtJoint.mjJNT_HINGE):
            continue
        limb = int(joint.bodyid[0])
        mass, centre = model.body_subtreemass[limb], data.subtree_com[limb]
        share = sum(limb in _above(model, model.body(foot).id) for foot in feet) / len(feet)
        if share:
            mass, centre = total - mass, (total * middle - mass * centre) / max(total - mass, 1e-9)
        arm, axis = centre - data.xanchor[joint.id], data.xaxis[joint.id]
        needed[i] = (share or 1.0) * mass * gravity * (arm[2] - axis @ arm * axis[2])
    return np.maximum(needed, 0.0)


def _above(model: mujoco.MjModel, body: int) -> set[int]:
    """Return a body and those that carry it, without the world."""
    line = set()
    while body:
        line.add(body)
        body = int(model.body_parentid[body])
    return line


def arm_gains(model: mujoco.MjModel, home: Array, joints: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Return kp and kd by joint of an arm, which carry it at random poses with a sag of 0.05 rad (m)."""
    rng = np.random.default_rng(0)
    poses = (np.array([drawn(model, name, rng) for name in joints]) for _ in range(POSES))
    return _gains(model, home, joints, poses, lambda data: data.qfrc_bias, ARM_SAG, ARM_LEAST, np.zeros(len(joints)))


def drawn(model: mujoco.MjModel, name: str, rng: np.random.Generator) -> float:
    """Return a random position of a joint within its limits; without any, within a radian (m) of 0."""
    joint = model.joint(name)
    return float(rng.uniform(*joint.range)) if joint.limited[0] else float(rng.uniform(-1, 1))


def _gains(
    model: mujoco.MjModel,
    home: Array,
    joints: tuple[str, ...],
    poses: Iterable[Array],
    carried: Callable[[mujoco.MjData], Array],
    sag: float,
    least: float,
    needed: Array,
) -> dict[str, tuple[float, float]]:
    """Return kp and kd by joint for the largest load over poses of the joints.

    carried: the load there, [nv]. needed: least stiffness, [J].
    """
    data = mujoco.MjData(model)
    places, dofs = (_addresses(model, joints, name) for name in ("qposadr", "dofadr"))
    loads, inertias = [], []
    for pose in poses:
        data.qpos = home
        data.qpos[places] = pose
        mujoco.mj_forward(model, data)
        inertia = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, data, inertia)
        loads.append(np.abs(carried(data))[dofs])
        inertias.append(np.diag(inertia)[dofs])
    stiffness = np.max(loads, axis=0) / sag
    stiffness = np.maximum(stiffness, least * stiffness.max(initial=0.0))
    stiffness = np.maximum(stiffness, needed)
    damping = 2 * np.sqrt(stiffness * np.max(inertias, axis=0))
    return {name: (_two_digits(k), _two_digits(d)) for name, k, d in zip(joints, stiffness, damping, strict=True)}


def _addresses(model: mujoco.MjModel, joints: tuple[str, ...], name: str) -> Array:
    """Return the place of each joint's first position (qposadr) or velocity (dofadr)."""
    return np.array([int(getattr(model.joint(joint), name)[0]) for joint in joints])


def _carried(model: mujoco.MjModel, data: mujoco.MjData, feet: tuple[str, ...]) -> Array:
    """Return the force in each degree of freedom that holds the robot on its feet at rest, [nv]."""
    load, robot = data.qfrc_bias.copy(), model.body_rootid[model.body(feet[0]).id]
    weight = -float(model.body_subtreemass[robot]) * model.opt.gravity
    for name in feet:
        jacobian, body = np.zeros((3, model.nv)), model.body(name).id
        mujoco.mj_jac(model, data, jacobian, None, _lowest_point(model, data, body), body)
        load -= jacobian.T @ weight / len(feet)
    return load


def _lowest_point(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> Array:
    """Return the lowest corner of the boxes around a body's geoms, or its centre of mass without geoms, [3]."""
    corners = [data.xipos[body][None]]
    for g in range(model.body_geomadr[body], model.body_geomadr[body] + model.body_geomnum[body]):
        centre, half = model.geom_aabb[g, :3], model.geom_aabb[g, 3:]
        at = centre + half * np.array(list(itertools.product((-1, 1), repeat=3)))
        corners.append(data.geom_xpos[g] + at @ data.geom_xmat[g].reshape(3, 3).T)
    points = np.concatenate(corners)
    lowest = points[:, 2] <= points[:, 2].min() + 1e-6
    return points[lowest].mean(axis=0)


def actuators_text(gains: dict[str, tuple[float, float]]) -> str:
    """Return the lines of a robot's file that ask for position servos of these gains."""
    groups: dict[tuple[float, float], list[str]] = {}
    for name, gain in gains.items():
        groups.setdefault(gain, []).append(name)
    kp, kd = max(groups, key=lambda gain: len(groups[gain]))
    others = ", ".join(
        f"{quoted('|'.join(map(re.escape, names)))}: [{k:g}, {d:g}]"
        for (k, d), names in groups.items()
        if (k, d) != (kp, kd)
    )
    return f"{{kind: position, kp: {kp:g}, kd: {kd:g}{f', gains: {{{others}}}' if others else ''}}}"


def wheels(model: mujoco.MjModel, home: Array, feet: tuple[str, ...]) -> dict[str, float]:
    """Return the hinges without limits that turn a foot about its own centre, and the radius of each, m."""
    data = mujoco.MjData(model)
    data.qpos = home
    mujoco.mj_fwdPosition(model, data)
    found = {}
    for body in (model.body(foot).id for foot in feet):
        j = int(model.body_jntadr[body])
        if model.body_jntnum[body] != 1 or model.jnt_type[j] != mujoco.mjtJoint.mjJNT_HINGE or model.jnt_limited[j]:
            continue
        radius = float(data.xanchor[j, 2] - _lowest_point(model, data, body)[2])
        off = np.linalg.norm(np.cross(data.xaxis[j], data.xipos[body] - data.xanchor[j]))
        if radius > 0 and off <= CENTRED * radius:
            found[model.joint(j).name] = radius
    return found


def wheel_servos(model: mujoco.MjModel, home: Array, radii: dict[str, float]) -> tuple[float, float]:
    """Return kd, N m s/rad, and speed, rad/s, of velocity servos that drive a robot on wheels of these radii.

    kd = (m r^2 / n + I) / time, of the robot's mass m on n wheels of radius r and inertia I about their axes.
    """
    data = mujoco.MjData(model)
    data.qpos = home
    mujoco.mj_forward(model, data)
    inertia = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, inertia)
    own = np.diag(inertia)[_addresses(model, tuple(radii), "dofadr")].max()
    root = model.body_rootid[model.joint(next(iter(radii))).bodyid[0]]
    radius = max(radii.values())
    load = float(model.body_subtreemass[root]) * radius**2 / len(radii)
    return _two_digits((load + own) / REACHED_IN), _two_digits(RIM_SPEED / radius)


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")
