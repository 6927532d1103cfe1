"""Quadruped: the parameters of tasks, declared in the words of a user's own robot (`metarl robot terms`).

Settings give the ranges. What the language has no quantity for is a function here, by the quantity python.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import mujoco

from metarl.envs.declared.rig import COMMANDS
from metarl.envs.own_robot import distribution
from metarl.envs.own_robot.declaration import DeclaredParameter
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.ground import GroundGeoms
from metarl.envs.own_robot.quantities import COMMANDED
from metarl.envs.parameters import Choice, Parameter
from metarl.envs.robots.quadruped_physics import FRICTION_SPEED, add_damping, simplify
from metarl.envs.robots.quadruped_robot import GO1, JOINTS, LEGS, TIMESTEP, build, joints_of
from metarl.envs.robots.quadruped_settings import QuadrupedSettings

Entries = tuple[DeclaredParameter, ...]

PAYLOAD_DENSITY = 2000.0  # kg/m^3, of the cube that a payload is
TOUCHING = "trunk|.*_(thigh|calf|foot)"
"""Geoms that can touch the ground."""


def scale_motor(motor: mujoco.MjsActuator, gains: float = 1.0, damping: float = 1.0, limit: float = 1.0) -> None:
    """Multiply a motor's proportional and derivative gain and torque limit."""
    motor.gainprm[0] *= gains
    motor.biasprm[:3] *= (gains, gains, damping)
    motor.forcerange *= limit


def weaken(spec: mujoco.MjSpec, joint: float, strength: float) -> None:
    """Multiply gains and torque limit of the motor of joint number `joint` by strength; -1: of none."""
    if (chosen := joint_number(joint)) >= 0:
        scale_motor(spec.actuators[chosen], strength, strength, strength)


def lock(spec: mujoco.MjSpec, joint: float) -> None:
    """Hold joint number `joint` at home; -1: none."""
    if (chosen := joint_number(joint)) >= 0:
        spec.equality(JOINTS[chosen]).active = True


def joint_number(value: float) -> int:
    """Return the index in JOINTS, or -1; ValueError for any other number."""
    if value != int(value) or not -1 <= value < len(JOINTS):
        raise ValueError(f"there is no joint number {value:g}; give 0 to {len(JOINTS) - 1}, or -1 for none")
    return int(value)


def damp_as_friction(spec: mujoco.MjSpec, loss: float) -> None:
    """Let every joint's damping take as much power in a walk as this friction loss would, N m."""
    add_damping(spec, loss, neutral=GO1.joint_friction, per=FRICTION_SPEED)


def base(settings: QuadrupedSettings, legs: Sequence[str] = LEGS) -> mujoco.MjSpec:
    """Return the Go1, with these legs, and with locks where the settings need them."""
    spec = build(GO1, TIMESTEP, legs)
    if settings.physics == "fast":
        simplify(spec)
    for name in JOINTS if settings.locked_joints else ():
        spec.add_equality(
            name=name,
            type=mujoco.mjtEq.mjEQ_JOINT,
            objtype=mujoco.mjtObj.mjOBJ_JOINT,
            name1=name,
            active=False,
            data=[GO1.home_pose[JOINTS.index(name)]] + [0.0] * 11,
            solref=(2 * TIMESTEP, 1.0),
            solimp=(0.999, 0.9999, 0.001, 0.5, 2.0),
        )
    return spec


def declared(
    settings: QuadrupedSettings, entries: Entries, legs: Sequence[str] = LEGS
) -> tuple[mujoco.MjSpec, tuple[Parameter, ...]]:
    """Return the robot of these legs, prepared for the parameters' edits, and the parameters that the entries declare.

    What every task has, the neutral one has, too. ValueError names an entry that is wrong.
    """
    spec, joints = base(settings, legs), joints_of(legs)
    robot = Robot(
        *("quadruped", spec, spec.copy(), spec.compile()),
        base="trunk",
        mobility="floating",
        bodies=tuple(body.name for body in spec.bodies[1:]),
        feet=tuple(f"{leg}_calf" for leg in legs),
        ground=GroundGeoms(planes=("floor",)),
        joints=joints,
        kinds=("position",) * len(joints),
        moves=tuple(frozenset({joint}) for joint in joints),
    )
    return spec, tuple(map(_as_every_task, distribution.parameters(robot, entries)))


def _as_every_task(p: Parameter) -> Parameter:
    values = p.distribution.values if isinstance(p.distribution, Choice) else ()
    return dataclasses.replace(p, neutral=values[0]) if len(values) == 1 else p


def ranged(settings: QuadrupedSettings, name: str, neutral: float, **said: Any) -> Entries:
    """Return the entry of a quantity whose range the setting of its name gives; none if all tasks are neutral in it."""
    low, high = getattr(settings, name)
    return () if low == high == neutral else (entry(name, low, high, neutral=neutral, **said),)


def entry(name: str, low: float, high: float, **said: Any) -> DeclaredParameter:
    """Return an entry of a range; one with equal ends is a choice of one value."""
    drawn = {"distribution": "uniform", "range": (low, high), **said}
    return DeclaredParameter(
        name=name, **(drawn if low < high else {**drawn, "distribution": "choice", "range": (low,)})
    )


def _one_joint(settings: QuadrupedSettings, name: str, edit: Callable[..., None], says: str) -> Entries:
    """Return the entry of a joint, or none, that a task chooses; ValueError for one that the robot lacks."""
    joints: tuple[str, ...] = getattr(settings, f"{name}s")
    for joint in joints:
        if joint not in JOINTS:
            raise ValueError(f"{name}s has {joint!r}, which is no joint; the joints are {', '.join(JOINTS)}")
    numbers = (-1.0, *(float(JOINTS.index(joint)) for joint in joints))
    said = DeclaredParameter(name, "python", "choice", numbers, neutral=-1.0, function=edit, unit="index", says=says)
    return (said,) if joints else ()


def payload(settings: QuadrupedSettings) -> Entries:
    """Return mass and place of the payload, if there is one."""
    if not any(settings.payload_mass):
        return ()
    of = functools.partial(ranged, settings, neutral=0.0, operation="set", target="trunk")
    cube = {"stands_on": "trunk", "payload_density": PAYLOAD_DENSITY, "says": "cube on the back"}
    return (
        *of("payload_mass", quantity="payload", **cube),
        *of("payload_x", quantity="payload_x", says="place of the payload on the trunk"),
        *of("payload_y", quantity="payload_y", says="place of the payload on the trunk"),
    )


def contact(settings: QuadrupedSettings) -> Entries:
    """Return the friction with the ground."""
    said = {"quantity": "friction", "operation": "set", "target": TOUCHING, "says": "with the ground"}
    return ranged(settings, "friction", GO1.friction, **said)


def motors(settings: QuadrupedSettings) -> Entries:
    """Return the strength of all motors."""
    said = {"quantity": "strength", "operation": "scale", "target": ".*", "says": "torque limits and gains x value"}
    return ranged(settings, "motor_strength", 1.0, **said)


def gains(settings: QuadrupedSettings) -> Entries:
    """Return the motors' proportional and derivative gain."""
    of = functools.partial(ranged, settings, operation="scale", target=".*", says="gain")
    return (*of("kp", GO1.kp, quantity="kp"), *of("kd", GO1.kd, quantity="kd"))


def losses(settings: QuadrupedSettings) -> Entries:
    """Return damping and friction loss of the joints."""
    of = functools.partial(ranged, settings)
    damping = {"quantity": "damping", "target": ".*", "says": "of every joint, besides kd"}
    if settings.physics == "exact":
        friction = {"quantity": "friction_loss", "operation": "set", "target": ".*"}
        return (
            *of("joint_damping", GO1.joint_damping, operation="set", **damping),
            *of("joint_friction", GO1.joint_friction, **friction, says="friction loss of every joint"),
        )
    says = f"of every joint, as damping: value / {FRICTION_SPEED:g} rad/s"
    friction = {"quantity": "python", "function": damp_as_friction, "unit": "N m", "says": says}
    return (
        *of("joint_damping", GO1.joint_damping, operation="add", **damping),
        *of("joint_friction", GO1.joint_friction, **friction),
    )


def armature(settings: QuadrupedSettings) -> Entries:
    """Return the rotors' inertia."""
    said = {
        "quantity": "armature",
        "operation": "scale",
        "target": ".*",
        "says": "rotor inertia of every joint x value",
    }
    return ranged(settings, "armature", 1.0, **said)


def centre(settings: QuadrupedSettings, axes: str = "xyz") -> Entries:
    """Return the displacement of the trunk's centre of mass."""
    of = functools.partial(ranged, settings, neutral=0.0, operation="add", target="trunk")
    says = "displaces the trunk's centre of mass"
    return sum((of(f"com_{a}", quantity=f"com_{a}", says=says) for a in axes), ())


def outside(settings: QuadrupedSettings) -> Entries:
    """Return delay, ground, joints that fail, noise of the sensors and pushes."""
    of, strength = functools.partial(ranged, settings, neutral=0.0), settings.weak_strength
    weak = functools.partial(weaken, strength=strength)
    return (
        *of("action_delay", quantity="action_delay", operation="set", target=".*", says="from action to torque"),
        *of("slope", quantity="slope", operation="set", says="ground rises along x"),
        *_one_joint(settings, "weak_joint", weak, f"motor of one joint, or none (-1), x {strength:g}"),
        *_one_joint(settings, "locked_joint", lock, "one joint, or none (-1), held at home"),
        *of("sensor_noise", quantity="sensor_noise", says="factor on the sensors' noise"),
        *of("push_velocity", quantity="push_velocity", says="kick to the trunk at intervals"),
    )


def commands(settings: QuadrupedSettings) -> Entries:
    """Return the command, where it differs from task to task."""
    quantity_of = {component: quantity for quantity, component in COMMANDED.items()}
    each = (ranged(settings, name, 0.0, quantity=quantity_of[name], says="command, observed") for name in COMMANDS)
    return sum(each, ()) if settings.command == "task" else ()


def entries(settings: QuadrupedSettings) -> Entries:
    """Return the declared parameters in the order in which tasks draw them; ValueError names a wrong setting."""
    said = (payload, contact, motors, gains, losses, armature, centre, outside, commands)
    return sum((part(settings) for part in said), ())
