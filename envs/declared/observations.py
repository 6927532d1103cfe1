"""Observation terms by name. A term is made from the robot, and returns a function of the state and its elements."""

from __future__ import annotations

from metarl.envs import efforts
from metarl.envs.declared.catalogue import ObservationKind
from metarl.envs.declared.own_functions import own_function
from metarl.envs.declared.rig import COMMANDS, Rig
from metarl.envs.state import StateFunction
from metarl.envs.terms import Element, elements

Observed = tuple[StateFunction, tuple[Element, ...]]
XYZ = ("x", "y", "z")


def joint_positions(rig: Rig) -> Observed:
    """Joint positions relative to home."""
    joints = rig.joints
    named = zip(joints.names, joints.units, strict=True)
    return joints.from_home, tuple(Element(f"{name} - home", unit) for name, unit in named)


def joint_velocities(rig: Rig) -> Observed:
    """Joint velocities."""
    velocities, named = rig.joints.velocities, zip(rig.joints.names, rig.joints.units, strict=True)
    names = tuple(Element(f"{name}_velocity", f"{unit}/s") for name, unit in named)
    return lambda state: velocities.of(state.qvel), names


def last_action(rig: Rig) -> Observed:
    """The action before, scaled and clipped; 0 at the start."""
    return lambda state: state.action, elements(rig.action_unit, (f"action {name}" for name in rig.actuators))


def joint_forces(rig: Rig) -> Observed:
    """Forces of the actuators on their joints at the end of the control step, gears included."""
    named = zip(rig.actuators, rig.force_units, strict=True)
    return efforts.joint_forces, tuple(Element(f"{name} force", unit) for name, unit in named)


def command(rig: Rig) -> Observed:
    """The command: velocities forwards and to the left, and the rate of turning, as far as it is given them."""
    if not rig.commands:
        raise ValueError("it is given no command; write commands: {forward_velocity: [0, 1]}")
    names = tuple(Element(rig.names.get(name, f"command_{name}"), COMMANDS[name]) for name in rig.commands)
    return lambda state: state.memory["command"], names


def base_angular_velocity(rig: Rig) -> Observed:
    """Angular velocity of the base in its frame, as a gyroscope tells it."""
    return rig.needed_base.angular_velocity, elements("rad/s", (f"base_angular_velocity_{a}" for a in XYZ))


def projected_gravity(rig: Rig) -> Observed:
    """Direction of gravity in the base's frame, as an IMU's filter tells it."""
    return rig.needed_base.gravity, elements("1", (f"gravity_{a}" for a in XYZ))


def up(rig: Rig) -> Observed:
    """The vertical in the base's frame: minus projected_gravity."""
    base = rig.needed_base
    return lambda state: -base.gravity(state), elements("", (f"up_{a}" for a in XYZ))


def heading(rig: Rig) -> Observed:
    """Cosine and sine of the base's angle about the vertical, from the world's x."""
    return rig.needed_base.heading, elements("1", ("cos_heading", "sin_heading"))


def base_height(rig: Rig) -> Observed:
    """Height of the base over the ground."""
    base = rig.needed_base
    return lambda state: base.height(state)[:, None], elements("m", ("base_height",))


def base_velocity(rig: Rig) -> Observed:
    """Velocity of the base in its frame."""
    return rig.needed_base.velocity, elements("m/s", (f"base_velocity_{a}" for a in XYZ))


def guide_positions(rig: Rig) -> Observed:
    """Positions of the joints that guide the base, without its place on the plane."""
    guides = rig.needed_guides
    return lambda state: guides.positions.of(state.qpos), elements("rad or m", guides.placed)


def guide_velocities(rig: Rig) -> Observed:
    """Velocities of the joints that guide the base."""
    guides = rig.needed_guides
    moving = (f"{name}_velocity" for name in guides.moving)
    return lambda state: guides.velocities.of(state.qvel), elements("rad/s or m/s", moving)


def foot_heights(rig: Rig) -> Observed:
    """Heights of the feet's centres of mass over the ground."""
    feet, base = rig.needed_feet, rig.needed_base
    names = elements("m", (f"{name} height" for name in feet.names))
    return lambda state: base.over_ground(state, feet.centres(state)), names


def foot_contacts(rig: Rig) -> Observed:
    """1 for each foot that touches something, 0 for the others."""
    feet = rig.needed_feet
    return contacts(rig, bodies=feet.contacts)


def contacts(rig: Rig, *, bodies: tuple[str, ...]) -> Observed:
    """1 for each of these bodies, or of those of these groups, that touches something, 0 for the others."""
    names = rig.bodies_of(bodies)
    touching = rig.touching(names)
    return (
        lambda state: state.xp.astype(touching(state), state.sensordata.dtype),
        elements("1", (f"{name} contact" for name in names)),
    )


def contact_forces(rig: Rig, *, bodies: tuple[str, ...]) -> Observed:
    """Contact force on each of these bodies, or of those of these groups, in the world's frame."""
    names = rig.bodies_of(bodies)
    force = rig.contact_forces(names)
    return (
        lambda state: force(state).reshape(-1, 3 * len(names)),
        elements("N", (f"{name} force_{a}" for name in names for a in XYZ)),
    )


def effector_position(rig: Rig) -> Observed:
    """Position of the end effector in the world."""
    return rig.needed_reaching.effector, elements("m", (f"effector_{a}" for a in XYZ))


def object_position(rig: Rig) -> Observed:
    """Position of the object that is to be moved, in the world."""
    thing = rig.needed_reaching.thing
    if thing is None:
        raise ValueError("it moves no object; name one by goal: {object: BODY}")
    return thing, elements("m", (f"object_{a}" for a in XYZ))


def effector_orientation(rig: Rig) -> Observed:
    """Orientation of the end effector in the world: the first two columns of its rotation matrix, x and y axis."""
    return _axes(rig.needed_reaching.turn, "effector")


def object_orientation(rig: Rig) -> Observed:
    """Orientation of the object that is to be moved, in the world: its x and y axis."""
    turn = rig.needed_reaching.thing_turn
    if turn is None:
        raise ValueError("it moves no object; name one by goal: {object: BODY}")
    return _axes(turn, "object")


def goal_orientation(rig: Rig) -> Observed:
    """Orientation of the target in the world: its x and y axis."""
    return _axes(rig.needed_reaching.needed_aim, "goal")


def _axes(turn: StateFunction, name: str) -> Observed:
    """Return the first two columns of a rotation matrix, x and y axis, [S, 6]."""
    return (
        lambda state: state.xp.permute_dims(turn(state)[:, :, :2], (0, 2, 1)).reshape(-1, 6),
        elements("1", (f"{name}_{axis}_axis_{a}" for axis in "xy" for a in XYZ)),
    )


def python(rig: Rig, *, function: str, size: int = 1, unit: str = "1") -> Observed:
    """What your own function(state), file.py:function, returns, [S, size]. Its code is run."""
    return own_function(function, (size,)), elements(unit, (f"[{i}]" for i in range(size)))  # after the entry's name


def goal(rig: Rig) -> Observed:
    """The target in the world."""
    return rig.needed_reaching.target, elements("m", (f"goal_{a}" for a in XYZ))


OBSERVATIONS: dict[str, ObservationKind] = {
    "joint_positions": ObservationKind(joint_positions, "rad or m"),
    "joint_velocities": ObservationKind(joint_velocities, "rad/s or m/s"),
    "last_action": ObservationKind(last_action, "any"),
    "joint_forces": ObservationKind(joint_forces, "N m or N"),
    "command": ObservationKind(command, " or ".join(dict.fromkeys(COMMANDS.values()))),
    "base_angular_velocity": ObservationKind(base_angular_velocity, "rad/s"),
    "projected_gravity": ObservationKind(projected_gravity, "1"),
    "up": ObservationKind(up, "1"),
    "heading": ObservationKind(heading, "1", measured=False),
    "base_height": ObservationKind(base_height, "m", measured=False),
    "base_velocity": ObservationKind(base_velocity, "m/s", measured=False),
    "guide_positions": ObservationKind(guide_positions, "rad or m"),
    "guide_velocities": ObservationKind(guide_velocities, "rad/s or m/s"),
    "foot_contacts": ObservationKind(foot_contacts, "1"),
    "foot_heights": ObservationKind(foot_heights, "m", measured=False),
    "contacts": ObservationKind(contacts, "1"),
    "contact_forces": ObservationKind(contact_forces, "N", measured=False),
    "effector_position": ObservationKind(effector_position, "m"),
    "effector_orientation": ObservationKind(effector_orientation, "1"),
    "object_position": ObservationKind(object_position, "m", measured=False),
    "object_orientation": ObservationKind(object_orientation, "1", measured=False),
    "goal": ObservationKind(goal, "m"),
    "goal_orientation": ObservationKind(goal_orientation, "1"),
    "python": ObservationKind(python, "any"),
}
"""Every observation term by name."""
