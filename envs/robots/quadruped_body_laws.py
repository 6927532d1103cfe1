"""Quadruped bodies: edits of the Go1's specification by which a figure of its body takes another value.

A part that gets another size keeps the Go1's distribution of mass, stretched with its geometry: x -> A x for each of
its points. At the same density its second moments S = integral of x x^T dm become |A| A S A^T, so masses and inertias
follow from geometry and density, are always physical, and are the published ones where nothing is stretched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mujoco
import numpy as np

from metarl.envs.links import scale_body
from metarl.envs.robots.quadruped_parameters import scale_motor
from metarl.envs.robots.quadruped_robot import GO1, JOINTS, LEG_JOINTS, LEGS, Inertial, combine

STANCE = math.cos(GO1.home[1])
"""Height of the Go1's hips over the middle of its feet at home, over the length of its straight leg."""


def _ball(radius: float) -> float:
    """Return the volume of a ball, m^3."""
    return 4 / 3 * math.pi * radius**3


def _bar(radius: float, length: float) -> float:
    """Return the volume of a cylinder, m^3."""
    return math.pi * radius**2 * length


FOOT_DENSITY = GO1.foot_mass / _ball(GO1.foot_radius)
"""Density of the Go1's foot, kg/m^3."""
DENSITY = {
    "trunk": (GO1.trunk.mass + 4 * GO1.hip_rotor.mass) / math.prod(GO1.trunk_size),
    "hip": (GO1.hip.mass + GO1.thigh_rotor.mass) / _bar(GO1.hip_radius, GO1.hip_width),
    "thigh": (GO1.thigh.mass + GO1.calf_rotor.mass) / _bar(GO1.thigh_radius, GO1.thigh_length),
    "calf": GO1.calf.mass / _bar(GO1.calf_radius, GO1.calf_length),
}
"""Mean density of each of the Go1's parts over its box or cylinder, rotors included and feet not, kg/m^3."""


def volumes(trunk: Sequence[float], hip_offset: float, thigh: float, calf: float, foot: float) -> dict[str, float]:
    """Return the volume of each part, m^3, by which its mass is divided for its density.

    trunk: length, width and height, m; hip_offset, thigh and calf: lengths, m; foot: radius, m. Radii of the legs are
    the Go1's. The calf's volume has its foot's, in proportion to the foot's share of the calf's density.
    """
    return {
        "trunk": math.prod(trunk),
        "hip": _bar(GO1.hip_radius, GO1.hip_width * hip_offset / GO1.hip_offset),
        "thigh": _bar(GO1.thigh_radius, thigh),
        "calf": _bar(GO1.calf_radius, calf) + FOOT_DENSITY / DENSITY["calf"] * _ball(foot),
    }


def stretched(part: Inertial, factors: Sequence[float]) -> Inertial:
    """Return a part that is stretched along x, y and z by three factors at the same density.

    Its second moments about the centre are S_xx = (I_yy + I_zz - I_xx) / 2 and S_xy = -I_xy, and so on by axes.
    """
    xx, yy, zz, xy, xz, yz = part.inertia
    (a, b, c), grown = factors, math.prod(factors)
    s_xx = a * a * grown * (yy + zz - xx) / 2
    s_yy = b * b * grown * (xx + zz - yy) / 2
    s_zz = c * c * grown * (xx + yy - zz) / 2
    products = (a * b * grown * xy, a * c * grown * xz, b * c * grown * yz)
    x, y, z = part.centre
    return Inertial(grown * part.mass, (a * x, b * y, c * z), (s_yy + s_zz, s_xx + s_zz, s_xx + s_yy, *products))


def read(body: mujoco.MjsBody) -> Inertial:
    """Return mass, centre and inertia of a body."""
    x, y, z = map(float, body.ipos)
    xx, yy, zz, xy, xz, yz = map(float, body.fullinertia)
    return Inertial(float(body.mass), (x, y, z), (xx, yy, zz, xy, xz, yz))


def write(body: mujoco.MjsBody, part: Inertial) -> None:
    """Set mass, centre and inertia of a body."""
    body.mass, body.ipos, body.fullinertia = part.mass, part.centre, part.inertia


def _ball_of(radius: float, height: float, sign: float = 1.0) -> Inertial:
    """Return a foot of the Go1's density at a height in its calf's frame, m; sign -1: of negative mass."""
    mass = sign * FOOT_DENSITY * _ball(radius)
    about = 0.4 * mass * radius**2
    return Inertial(mass, (0.0, 0.0, height), (about, about, about, 0.0, 0.0, 0.0))


def _stretch(body: mujoco.MjsBody, factors: Sequence[float]) -> None:
    write(body, stretched(read(body), factors))


def _along(axis: int, factor: float) -> list[float]:
    return [factor if i == axis else 1.0 for i in range(3)]


def set_trunk_size(spec: mujoco.MjSpec, size: float, axis: int) -> None:
    """Set the trunk's length (axis 0), width (1) or height (2), m; the hips stay at its ends and sides."""
    geom = spec.geom("trunk")
    factor = size / (2 * geom.size[axis])
    geom.size[axis] *= factor
    _stretch(spec.body("trunk"), _along(axis, factor))
    for leg in LEGS:
        spec.body(f"{leg}_hip").pos[axis] *= factor


def set_hip_offset(spec: mujoco.MjSpec, offset: float) -> None:
    """Set the distance sideways from a hip to the plane of its leg, m."""
    for leg in LEGS:
        hip, thigh = spec.body(f"{leg}_hip"), spec.body(f"{leg}_thigh")
        factor = offset / abs(thigh.pos[1])
        _stretch(hip, _along(1, factor))
        _stretch_geom(spec.geom(f"{leg}_hip"), 1, factor)
        thigh.pos[1] *= factor


def set_thigh_length(spec: mujoco.MjSpec, length: float) -> None:
    """Set the length from hip to knee, m."""
    for leg in LEGS:
        thigh, calf = spec.body(f"{leg}_thigh"), spec.body(f"{leg}_calf")
        factor = length / -calf.pos[2]
        _stretch(thigh, _along(2, factor))
        _stretch_geom(spec.geom(f"{leg}_thigh"), 2, factor)
        calf.pos[2] *= factor


def set_calf_length(spec: mujoco.MjSpec, length: float) -> None:
    """Set the length from the knee to the middle of the foot, m; the foot keeps its size."""
    radius, place = _foot(spec)
    factor = length / -place
    alone = combine(read(spec.body("FR_calf")), _ball_of(radius, place, sign=-1.0))
    calf = combine(stretched(alone, _along(2, factor)), _ball_of(radius, place * factor))
    for leg in LEGS:
        _stretch_geom(spec.geom(f"{leg}_calf"), 2, factor)
        spec.geom(f"{leg}_foot").pos[2] *= factor
        write(spec.body(f"{leg}_calf"), calf)


def set_foot_radius(spec: mujoco.MjSpec, radius: float) -> None:
    """Set the radius of the feet, m, whose masses follow at their density."""
    before, place = _foot(spec)
    alone = combine(read(spec.body("FR_calf")), _ball_of(before, place, sign=-1.0))
    calf = combine(alone, _ball_of(radius, place))
    for leg in LEGS:
        spec.geom(f"{leg}_foot").size[0] = radius
        write(spec.body(f"{leg}_calf"), calf)


def _foot(spec: mujoco.MjSpec) -> tuple[float, float]:
    """Return the radius of the feet and their height in the calves' frame, m. All calves are alike."""
    geom = spec.geom("FR_foot")
    return float(geom.size[0]), float(geom.pos[2])


def set_density(spec: mujoco.MjSpec, density: float, part: str) -> None:
    """Set the mean density of the trunk or of all hips, thighs or calves with their feet, kg/m^3."""
    factor = density / DENSITY[part]
    for body in _part(spec, part):
        body.mass *= factor
        body.fullinertia = [factor * float(entry) for entry in body.fullinertia]


def set_torque_limit(spec: mujoco.MjSpec, limit: float, joint: int) -> None:
    """Set the torque limit of all motors of one kind (0: hip, 1: thigh, 2: calf) on the Go1, N m."""
    for leg in LEGS:
        scale_motor(spec.actuator(f"{leg}_{LEG_JOINTS[joint]}"), limit=limit / GO1.torque_limit[joint])


def set_torque_limits(spec: mujoco.MjSpec, limit: float) -> None:
    """Set the torque limit of all hips and thighs, N m."""
    for joint in (0, 1):
        set_torque_limit(spec, limit, joint)


def set_knee_torque_limit(spec: mujoco.MjSpec, limit: float) -> None:
    """Set the torque limit of all knees, N m."""
    set_torque_limit(spec, limit, joint=2)


def resize(spec: mujoco.MjSpec, size: float) -> None:
    """Scale a whole robot by `size` so that its motions are the same, 1 / sqrt(size) times as fast.

    Gravity stays, so times scale with s^1/2 and the other quantities by their dimensions (Froude's law): lengths s,
    masses s^3, torques and proportional gains s^4, dampings s^9/2, rotor inertias s^5. Torque per mass grows with s, so
    large real robots have lower limits in proportion: `torque_limit` varies them.
    """
    spec.body("trunk").pos *= size
    for body in (body for part in DENSITY for body in _part(spec, part)):
        scale_body(body, np.zeros(3), size)
    home = list(spec.key("home").qpos)
    spec.key("home").qpos = [*(size * x for x in home[:3]), *home[3:]]
    for name in JOINTS:
        joint = spec.joint(name)
        joint.armature *= size**5
        joint.damping[0] *= size**4.5
        joint.frictionloss *= size**4
    for motor in spec.actuators:
        scale_motor(motor, gains=size**4, damping=size**4.5, limit=size**4)


def set_stance(spec: mujoco.MjSpec, stance: float) -> None:
    """Set the home pose: each foot below its hip, at a share `stance` of the straight leg, and just on the ground.

    The angles follow from the law of cosines. Joint ranges move with them: they are as wide about home as the Go1's.
    ValueError if thigh and calf are too unlike for it.
    """
    radius, place = _foot(spec)
    thigh, calf = -float(spec.body("FR_calf").pos[2]), -place
    height = stance * (thigh + calf)
    if not abs(thigh - calf) < height < thigh + calf:
        raise ValueError(
            f"a leg of a thigh of {thigh:g} m and a calf of {calf:g} m cannot stand at {stance:g} of its length; make "
            "thigh_length and calf_length more alike, or stance less than 1"
        )
    forward = math.acos((height**2 + thigh**2 - calf**2) / (2 * thigh * height))
    bent = math.acos((height**2 - thigh**2 - calf**2) / (2 * thigh * calf))
    leg = (GO1.home[0], forward, -bent)
    spec.body("trunk").pos[2] = height + radius
    spec.key("home").qpos = [0.0, 0.0, height + radius, 1.0, 0.0, 0.0, 0.0, *leg * len(LEGS)]
    for i, name in enumerate(JOINTS):
        kind = i % len(leg)
        spec.joint(name).range += leg[kind] - GO1.home[kind]
        if lock := spec.equality(name):
            lock.data[0] = leg[kind]


def hold(spec: mujoco.MjSpec) -> None:
    """Make each motor's signal 0 ask for its joint's home, whatever its gains have become."""
    home = spec.key("home").qpos
    for i, name in enumerate(JOINTS):
        motor = spec.actuator(name)
        motor.biasprm[0] = -motor.biasprm[1] * home[7 + i]


def _part(spec: mujoco.MjSpec, part: str) -> list[mujoco.MjsBody]:
    """Return the trunk, or the four bodies of a part of the legs."""
    return [spec.body(name) for name in ([part] if part == "trunk" else [f"{leg}_{part}" for leg in LEGS])]


def _stretch_geom(geom: mujoco.MjsGeom, axis: int, factor: float) -> None:
    """Multiply the ends of a cylinder or capsule along an axis of its body."""
    geom.fromto[axis] *= factor
    geom.fromto[3 + axis] *= factor
