"""Sites of quantities of joints: damping, stiffness, armature, friction loss, range."""

from __future__ import annotations

import mujoco
import numpy as np

from metarl.envs.own_robot.declaration import DeclaredParameter
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.sites import Find, Site, attribute


def joint_attribute(name_of: str, scalar: bool = False) -> Find:
    """Return a function that finds an attribute of a joint. scalar: whether it is one number, not a polynomial."""

    def find(robot: Robot, name: str, _: DeclaredParameter) -> Site:
        if scalar:
            return attribute(float(getattr(robot.spec.joint(name), name_of)), "joint", name, name_of)
        default = float(getattr(robot.spec.joint(name), name_of)[0])

        def write(spec: mujoco.MjSpec, value: float) -> None:
            terms = getattr(spec.joint(name), name_of)  # a polynomial: the linear term, then higher ones
            terms[1:] = np.array(terms[1:]) * (value / default if default else 1.0)
            terms[0] = value

        def read(spec: mujoco.MjSpec) -> float:
            return float(getattr(spec.joint(name), name_of)[0])

        return Site(default, write, (f"{name_of} of {name}",), read)

    return find


def joint_range(robot: Robot, name: str, _: DeclaredParameter) -> Site:
    """Find half the width of a joint's range, or a ball joint's largest angle."""
    joint = robot.model.joint(name)
    if not joint.limited[0]:
        raise ValueError(f"joint {name!r} has no range")
    if robot.spec.joint(name).type == mujoco.mjtJoint.mjJNT_BALL:  # [0, largest angle], in the unit of its file
        unit = robot.spec.joint(name).range[1] / joint.range[1]

        def widen(spec: mujoco.MjSpec, value: float) -> None:
            spec.joint(name).range[1] = value * unit

        return Site(float(joint.range[1]), widen, (f"range of {name}",))
    default = float(np.ptp(joint.range)) / 2

    def write(spec: mujoco.MjSpec, value: float) -> None:
        ends = np.array(spec.joint(name).range)
        spec.joint(name).range = ends.mean() + (ends - ends.mean()) * value / default

    return Site(default, write, (f"range of {name}",))
