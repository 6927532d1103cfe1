"""Limbs of varied lengths and thicknesses, with masses and inertias that follow from geometry and density.

A limb is the body that a joint moves: capsules between the joint and those of the bodies it carries.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.mjcf import compile_neutral, read_spec
from metarl.envs.parameters import Law, LogUniform, Parameter, outside_scale


def geometric_spec(path: str) -> mujoco.MjSpec:
    """Read an MJCF file as a specification whose masses and inertias follow from its geoms' sizes and densities.

    Geoms get position, orientation and size in place of other notations, and densities in place of `settotalmass`,
    which would scale every edited robot back to its neutral mass.
    """
    spec = read_spec(path)
    neutral = compile_neutral(spec)
    factor = neutral.body_subtreemass[0] / spec.compile().body_subtreemass[0]
    for geom in spec.geoms:
        compiled = neutral.geom(geom.id)
        geom.alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT
        geom.fromto = np.full(6, np.nan)
        geom.pos, geom.quat, geom.size = compiled.pos, compiled.quat, compiled.size
        geom.density *= factor
    return spec


def lengthen(spec: mujoco.MjSpec, factor: float, *, joint: str) -> None:
    """Multiply the length of a limb's capsules and the distances from its joint to the limbs that it carries."""
    pivot = spec.joint(joint)
    for geom in pivot.parent.geoms:
        geom.pos = pivot.pos + factor * (geom.pos - pivot.pos)
        geom.size[1] *= factor
    for child in pivot.parent.bodies:
        distal = child.pos + _rotate(child.joints[0].pos, child.quat) if child.joints else child.pos
        child.pos = child.pos + (factor - 1) * (distal - pivot.pos)


def thicken(spec: mujoco.MjSpec, factor: float, *, joint: str) -> None:
    """Multiply the radius of a limb's capsules."""
    for geom in spec.joint(joint).parent.geoms:
        geom.size[0] *= factor


def lowest(spec: mujoco.MjSpec) -> float:
    """Return the height of the robot's lowest point in its initial pose, m."""
    return min(_lowest(body, np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])) for body in spec.worldbody.bodies)


def stand(spec: mujoco.MjSpec, *, height: float) -> None:
    """Raise or lower the robot until its lowest point is at a height, so that longer legs do not start in the ground.

    A joint position that is the root's height (Hopper, Walker2d) stays so.
    """
    [root] = spec.worldbody.bodies
    rise = height - lowest(spec)
    for joint in root.joints:
        if joint.type == mujoco.mjtJoint.mjJNT_SLIDE and joint.ref == root.pos[2]:
            joint.ref += rise
    root.pos[2] += rise


def limb_parameters(
    groups: Mapping[str, Sequence[str]], which: Literal["each", "alike"], length: float, thickness: float
) -> tuple[Parameter, ...]:
    """Return length and thickness of limbs as parameters, each logU(1 / range, range) times the neutral one.

    groups: joints of limbs of one kind, by name. which: a parameter for each limb, or one for each kind.
    """
    if which == "each":
        groups = {joint.removesuffix("_joint"): (joint,) for joints in groups.values() for joint in joints}
    return tuple(
        Parameter(
            name=f"{name}_{quantity}",
            unit="1",
            distribution=LogUniform(1 / scale, scale),
            law=Law(f"{quantity} x value, mass by density", functools.partial(_each, edit=edit, joints=tuple(joints))),
            neutral=1.0,
            above=0.0,
            ood=outside_scale(scale),
        )
        for quantity, edit, scale in (("length", lengthen, length), ("thickness", thicken, thickness))
        for name, joints in groups.items()
    )


def _each(spec: mujoco.MjSpec, factor: float, *, edit: Callable[..., None], joints: Sequence[str]) -> None:
    for joint in joints:
        edit(spec, factor, joint=joint)


def _lowest(body: mujoco.MjsBody, position: Array, orientation: Array) -> float:
    """Return the lowest point of a body and all that it carries; position and orientation are its parent's."""
    position = position + _rotate(body.pos, orientation)
    orientation = _compose(orientation, body.quat)
    heights = [_lowest(child, position, orientation) for child in body.bodies]
    for geom in body.geoms:
        centre = position + _rotate(geom.pos, orientation)
        heights.append(centre[2] - _reach(geom, orientation))
    return min(heights, default=np.inf)


def _reach(geom: mujoco.MjsGeom, orientation: Array) -> float:
    """Return how far a geom reaches below its centre, m."""
    if geom.type == mujoco.mjtGeom.mjGEOM_SPHERE:
        return geom.size[0]
    if geom.type == mujoco.mjtGeom.mjGEOM_CAPSULE:
        axis = _rotate(np.array([0.0, 0.0, geom.size[1]]), _compose(orientation, geom.quat))
        return abs(axis[2]) + geom.size[0]
    raise ValueError(f"geom {geom.name!r} is neither a sphere nor a capsule; limbs are resized of these only")


def _rotate(vector: Array, quat: Array) -> Array:
    result = np.zeros(3)
    mujoco.mju_rotVecQuat(result, vector, quat)
    return result


def _compose(first: Array, second: Array) -> Array:
    result = np.zeros(4)
    mujoco.mju_mulQuat(result, first, second)
    return result
