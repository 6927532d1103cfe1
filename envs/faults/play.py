"""Play of a slack joint: how far a servo's target comes through, and when a motor's rotor has crossed it."""

from __future__ import annotations

import mujoco

from metarl.envs.arrays import Array, namespace
from metarl.envs.control import joint_of

LEAST = 1e-30  # added to what is divided by, so that a rotor without torque or inertia has a time of its own


def followed(reached: Array, wanted: Array, half: Array) -> Array:
    """Return min(max(y_(t - 1), a_t - half), a_t + half), the play operator: y moves on as half of the play is used up.

    reached: y_(t - 1); wanted: a_t; half of the play, all in one unit.
    """
    xp = namespace(wanted)
    return xp.minimum(xp.maximum(reached, wanted - half), wanted + half)


def inertia_of_rotor(model: mujoco.MjModel, actuator: int) -> float:
    """Return the inertia of the rotor of an actuator that drives one joint, seen from the joint, kg m^2 (kg)."""
    joint = joint_of(model, actuator)
    own = 0.0 if joint is None else float(model.dof_armature[model.jnt_dofadr[joint]])
    return own + float(model.actuator_armature[actuator] * model.actuator_gear[actuator, 0] ** 2)


def crossed(place: Array, speed: Array, pull: Array, half: Array, step: Array) -> tuple[Array, Array, Array]:
    """Return where a rotor is in its play after a step, how fast it is there, and the share of the step that it drives.

    A rotor in its play is pulled through it evenly, and stays without a rebound at the side that it comes to. It drives
    the joint from when it is at the side to which it is pulled. All is seen from the joint, whose own acceleration and
    the rotor's blow are left out.

    place: from -half to half, rad (m); speed: rad/s (m/s); pull: torque over the rotor's inertia, rad/s^2 (m/s^2);
    half of the play, rad (m); step: s.
    """
    xp = namespace(pull)
    side = xp.where(pull < 0, -1.0, 1.0)  # that it is pulled to
    size, place, speed = xp.abs(pull) + LEAST, side * place, side * speed
    ahead, behind, back = half - place, half + place, (xp.abs(speed) - speed) / 2
    room = back**2 - 2 * size * behind  # above 0 where it comes to the other side first
    other = 2 * behind / (back + xp.sqrt(xp.where(room > 0, room, 0.0)) + LEAST)
    root = xp.sqrt(speed**2 + 2 * size * ahead)
    straight = xp.where(speed > 0, 2 * ahead / (speed + root + LEAST), (root - speed) / size)
    arrival = xp.where(room > 0, other + 2 * xp.sqrt(half / size), straight)
    there, stopped = arrival <= step, (room > 0) & (other < step)
    left = xp.where(stopped, step - other, step)
    place, speed = xp.where(stopped, -half, place), xp.where(stopped, 0.0, speed)
    return (
        side * xp.where(there, half, place + speed * left + size * left**2 / 2),
        side * xp.where(there, 0.0, speed + size * left),
        xp.where(there, 1 - arrival / step, 0.0),
    )
