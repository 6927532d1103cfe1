"""Quadruped: the parameters of tasks and their edits of the model."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from metarl.envs.declared.rig import COMMANDS
from metarl.envs.parameters import Choice, Law, Parameter, Uniform
from metarl.envs.robots.quadruped_physics import FRICTION_SPEED, add_damping, simplify
from metarl.envs.robots.quadruped_robot import GO1, JOINTS, TIMESTEP, build
from metarl.envs.robots.quadruped_settings import QuadrupedSettings

PAYLOAD_DENSITY = 2000.0  # kg/m^3, of the cube that a payload is

Edit = Callable[[mujoco.MjSpec, float], None]


def set_payload_mass(spec: mujoco.MjSpec, mass: float) -> None:
    """Make the payload a solid cube of this mass in kg that stands on the trunk."""
    payload, side = spec.body("payload"), (mass / PAYLOAD_DENSITY) ** (1 / 3)
    payload.mass = mass
    payload.inertia = np.full(3, mass * side**2 / 6)
    payload.pos[2] = (2 * spec.geom("trunk").size[2] + side) / 2
    payload.geoms[0].size = np.full(3, max(side, 0.01) / 2)


def set_payload_place(spec: mujoco.MjSpec, place: float, axis: int) -> None:
    """Set the payload's place along the trunk's x or y axis, m."""
    spec.body("payload").pos[axis] = place


def set_friction(spec: mujoco.MjSpec, friction: float) -> None:
    """Set the friction of the robot's geoms, which have priority over the ground's."""
    for geom in spec.body("trunk").find_all("geom"):
        geom.friction[0] = friction


def scale_motor(motor: mujoco.MjsActuator, gains: float = 1.0, damping: float = 1.0, limit: float = 1.0) -> None:
    """Multiply a motor's proportional and derivative gain and torque limit."""
    motor.gainprm[0] *= gains
    motor.biasprm[:3] *= (gains, gains, damping)
    motor.forcerange *= limit


def scale_motors(spec: mujoco.MjSpec, value: float, per: float, **which: bool) -> None:
    """Scale the named properties (gains, damping, limit) of all motors by value / per."""
    for motor in spec.actuators:
        scale_motor(motor, **{name: value / per for name, chosen in which.items() if chosen})


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


def set_joint_damping(spec: mujoco.MjSpec, damping: float) -> None:
    """Set the damping of every joint, besides kd, N m s/rad."""
    for name in JOINTS:
        spec.joint(name).damping[0] = damping


def set_joint_friction(spec: mujoco.MjSpec, loss: float) -> None:
    """Set the friction loss of every joint, N m."""
    for name in JOINTS:
        spec.joint(name).frictionloss = loss


def scale_armature(spec: mujoco.MjSpec, factor: float) -> None:
    """Multiply the rotor inertia of every joint."""
    for name in JOINTS:
        spec.joint(name).armature *= factor


def move_centre(spec: mujoco.MjSpec, displacement: float, axis: int) -> None:
    """Displace the trunk's centre of mass, m."""
    spec.body("trunk").ipos[axis] += displacement


def set_delay(spec: mujoco.MjSpec, delay: float, longest: float) -> None:
    """Set the delay from control signal to torque, s; MuJoCo keeps enough old signals for `longest`."""
    if delay > longest + 1e-9:
        raise ValueError(f"action_delay {delay:g} s is longer than the family's longest, {longest:g} s")
    for motor in spec.actuators:
        motor.delay = delay


def set_slope(spec: mujoco.MjSpec, angle: float) -> None:
    """Turn the ground about y so that it rises along x by that angle, rad."""
    spec.geom("floor").quat = (math.cos(angle / 2), 0.0, -math.sin(angle / 2), 0.0)


def base(settings: QuadrupedSettings) -> mujoco.MjSpec:
    """Return the Go1, with the payload's body, locks and a buffer of delayed signals where the settings need them."""
    spec = build(GO1, TIMESTEP)
    if settings.physics == "fast":
        simplify(spec)
    if any(settings.payload_mass):
        payload = spec.body("trunk").add_body(name="payload", explicitinertial=True, ipos=(0, 0, 0))
        payload.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, contype=0, conaffinity=0, size=(0.01,) * 3, rgba=(0.8, 0.5, 0.2, 1)
        )
        set_payload_mass(spec, 0.0)
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
    longest = max(settings.action_delay)
    for motor in spec.actuators if longest > 0 else ():
        motor.nsample = math.ceil(longest / TIMESTEP - 1e-9)
    return spec


@dataclass(frozen=True)
class Range:
    """A quantity that settings give as a range: a parameter, unless the quantity is neutral in every task."""

    name: str
    """Name of the parameter and of the setting."""
    unit: str
    """Unit of its values."""
    neutral: float
    """Value of the unchanged robot."""
    law: str
    """How the parameter acts, in words."""
    edit: Edit | None = None
    """Edit of the model; None: the parameter acts on the simulation or the command."""

    def parameters(self, settings: QuadrupedSettings) -> tuple[Parameter, ...]:
        """Return the parameter, if there is one."""
        low, high = getattr(settings, self.name)
        if low == high == self.neutral:
            return ()
        distribution, neutral = (Choice((low,)), low) if low == high else (Uniform(low, high), self.neutral)
        return (Parameter(self.name, self.unit, distribution, Law(self.law, self.edit), neutral),)


@dataclass(frozen=True)
class OneJoint:
    """A joint, or none, that a task chooses among those that the settings list."""

    name: str
    """Name of the parameter; the setting is its plural."""
    law: str
    """How the parameter acts, in words."""
    edit: Edit
    """Edit of the model by the joint's number, or -1."""

    def parameters(self, settings: QuadrupedSettings) -> tuple[Parameter, ...]:
        """Return the parameter, if there are joints to choose from; ValueError for one that the robot lacks."""
        joints: tuple[str, ...] = getattr(settings, f"{self.name}s")
        for joint in joints:
            if joint not in JOINTS:
                raise ValueError(f"{self.name}s has {joint!r}, which is no joint; the joints are {', '.join(JOINTS)}")
        if not joints:
            return ()
        numbers = Choice((-1.0, *(float(JOINTS.index(joint)) for joint in joints)))
        return (Parameter(self.name, "index", numbers, Law(self.law, self.edit), neutral=-1.0),)


def _each_axis(names: tuple[str, ...], law: str, edit: Callable[..., None]) -> tuple[Range, ...]:
    return tuple(Range(name, "m", 0.0, law, functools.partial(edit, axis=axis)) for axis, name in enumerate(names))


def _scale(**which: float | bool) -> Edit:
    return functools.partial(scale_motors, **which)


PAYLOAD = (
    Range("payload_mass", "kg", 0.0, "cube on the back", set_payload_mass),
    *_each_axis(("payload_x", "payload_y"), "place of the payload on the trunk", set_payload_place),
)
MOTORS = "torque limits and gains x value"
CONTACT_AND_MOTORS = (
    Range("friction", "1", GO1.friction, "with the ground", set_friction),
    Range("motor_strength", "1", 1.0, MOTORS, _scale(per=1.0, gains=True, damping=True, limit=True)),
    Range("kp", "N m/rad", GO1.kp, "gain", _scale(per=GO1.kp, gains=True)),
    Range("kd", "N m s/rad", GO1.kd, "gain", _scale(per=GO1.kd, damping=True)),
)
DAMPING = functools.partial(Range, "joint_damping", "N m s/rad", GO1.joint_damping, "of every joint, besides kd")
FRICTION = functools.partial(Range, "joint_friction", "N m", GO1.joint_friction)
JOINT_LOSSES = {
    "exact": (DAMPING(set_joint_damping), FRICTION("friction loss of every joint", set_joint_friction)),
    "fast": (
        DAMPING(functools.partial(add_damping, neutral=GO1.joint_damping)),
        FRICTION(
            f"of every joint, as damping: value / {FRICTION_SPEED:g} rad/s",
            functools.partial(add_damping, neutral=GO1.joint_friction, per=FRICTION_SPEED),
        ),
    ),
}
"""Quantities of the joints' losses, by the physics."""
INERTIA = (
    Range("armature", "1", 1.0, "rotor inertia of every joint x value", scale_armature),
    *_each_axis(("com_x", "com_y", "com_z"), "displaces the trunk's centre of mass", move_centre),
)
SLOPE = Range("slope", "rad", 0.0, "ground rises along x", set_slope)
LOCKED = OneJoint("locked_joint", "one joint, or none (-1), held at home", lock)
DISTURBANCES = (
    Range("sensor_noise", "1", 0.0, "factor on the sensors' noise"),
    Range("push_velocity", "m/s", 0.0, "kick to the trunk at intervals"),
)
COMMANDED = tuple(Range(name, unit, 0.0, "command, observed") for name, unit in COMMANDS.items())


def table(settings: QuadrupedSettings) -> tuple[Range | OneJoint, ...]:
    """Return a row for each quantity, in the order in which tasks draw them."""
    longest, strength = max(settings.action_delay), settings.weak_strength
    delay = functools.partial(set_delay, longest=longest)
    weak = functools.partial(weaken, strength=strength)
    return (
        *(PAYLOAD if any(settings.payload_mass) else ()),
        *CONTACT_AND_MOTORS,
        *JOINT_LOSSES[settings.physics],
        *INERTIA,
        Range("action_delay", "s", 0.0, "from action to torque", delay),
        SLOPE,
        OneJoint("weak_joint", f"motor of one joint, or none (-1), x {strength:g}", weak),
        LOCKED,
        *DISTURBANCES,
    )


def parameters(settings: QuadrupedSettings) -> tuple[Parameter, ...]:
    """Return the parameters that the settings ask for; ValueError names a setting that is wrong."""
    varied = sum((row.parameters(settings) for row in table(settings)), ())
    return varied + sum((row.parameters(settings) for row in COMMANDED if settings.command == "task"), ())
