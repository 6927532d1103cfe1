"""Reward terms by name: those of quadruped practice (legged_gym: Rudin et al., CoRL 2022), and those of reaching.

A term is made from the robot and its own settings, and returns a function of the state, [S]. A cost is subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mujoco
import numpy as np

from metarl.envs import locomotion
from metarl.envs.arrays import Array, namespace
from metarl.envs.declared.catalogue import RewardKind, WrongSetting
from metarl.envs.declared.own_functions import own_function
from metarl.envs.declared.rig import Rig
from metarl.envs.declared.trackers import (
    track_action_acceleration,
    track_actions,
    track_air_time,
    track_joint_velocity,
)
from metarl.envs.efforts import applied_forces, force_limit_of, gear_on_joint, joint_forces
from metarl.envs.state import State, StateFunction

STUMBLE = 5.0
"""Ratio of a foot's horizontal to its vertical contact force above which it has hit something that stands."""


def square(x: Array) -> Array:
    """Return the sum of squares of [S, n], [S]."""
    return namespace(x).einsum("si,si->s", x, x)


def alive(rig: Rig) -> StateFunction:
    """1 in every step."""
    return locomotion.survive


def forward_velocity(rig: Rig) -> StateFunction:
    """Velocity forwards; of a guided base, along the world's x."""
    base = rig.needed_base
    return lambda state: base.course(state)[:, 0]


def height(rig: Rig) -> StateFunction:
    """Height of the base over the ground."""
    return rig.needed_base.height


def upright(rig: Rig) -> StateFunction:
    """Cosine of the angle between the base's up and the vertical."""
    base = rig.needed_base
    return lambda state: -base.gravity(state)[:, 2]


def velocity_gap(rig: Rig) -> StateFunction:
    """Return a function for v_xy - v_xy*, [S, 2] m/s, in the frame of commands."""
    base = rig.needed_base
    return lambda state: base.course(state) - rig.course(state)


def yaw_gap(rig: Rig) -> StateFunction:
    """Return a function for w_z - w_z*, [S] rad/s, in the base's frame."""
    base = rig.needed_base
    return lambda state: base.angular_velocity(state)[:, 2] - rig.commanded(state, "yaw_rate")


def positive(value: float, name: str, most: float = math.inf) -> float:
    """Return a number of a term that must be greater than 0, and at most `most`; WrongSetting if it is not."""
    if not 0 < value <= most:
        bound = f", at most {most:g}" if most < math.inf else ""
        raise WrongSetting(f"has {name} {value:g}; it must be greater than 0{bound}")
    return value


def track_velocity(rig: Rig, *, width: float = 0.25) -> StateFunction:
    """exp(-|v_xy - v_xy*|^2 / width), width in (m/s)^2."""
    gap, width = velocity_gap(rig), positive(width, "width")
    return lambda state: state.xp.exp(square(gap(state)) / -width)


def track_yaw(rig: Rig, *, width: float = 0.25) -> StateFunction:
    """exp(-(w_z - w_z*)^2 / width), width in (rad/s)^2."""
    gap, width = yaw_gap(rig), positive(width, "width")
    return lambda state: state.xp.exp(gap(state) ** 2 / -width)


def velocity_error(rig: Rig) -> StateFunction:
    """|v_xy - v_xy*|."""
    gap = velocity_gap(rig)
    return lambda state: state.xp.linalg.vector_norm(gap(state), axis=1)


def vertical_velocity(rig: Rig) -> StateFunction:
    """v_z^2 in the base's frame."""
    base = rig.needed_base
    return lambda state: base.velocity(state)[:, 2] ** 2


def tilt(rig: Rig) -> StateFunction:
    """Squared sine of the angle between the base's up and the vertical."""
    base = rig.needed_base
    return lambda state: square(base.gravity(state)[:, :2])


def tilt_rate(rig: Rig) -> StateFunction:
    """w_x^2 + w_y^2 in the base's frame."""
    base = rig.needed_base
    return lambda state: square(base.angular_velocity(state)[:, :2])


def base_height(rig: Rig, *, target: float) -> StateFunction:
    """(height of the base over the ground - target)^2, target in m."""
    base = rig.needed_base
    return lambda state: (base.height(state) - target) ** 2


def control_cost(rig: Rig) -> StateFunction:
    """Sum of squared actions, scaled and clipped."""
    return locomotion.control_cost


def joint_velocity_cost(rig: Rig) -> StateFunction:
    """Sum of squared joint velocities."""
    return lambda state: state.xp.sum(state.xp.square(rig.joints.velocities.of(state.qvel)), axis=1)


def home_cost(rig: Rig) -> StateFunction:
    """Sum of squared joint positions relative to home."""
    return lambda state: square(rig.joints.from_home(state))


def joint_acceleration(rig: Rig) -> StateFunction:
    """Sum of squared joint accelerations over the control step."""
    track_joint_velocity(rig)
    joints, dt = rig.joints, rig.dt
    return lambda state: square((joints.velocities.of(state.qvel) - state.memory["joint_velocity"]) / dt)


def joint_limits(rig: Rig, *, share: float = 0.9) -> StateFunction:
    """Sum of what joint positions are beyond this share of their range, about its middle."""
    low_high, share = rig.joints.limits, positive(share, "share", most=1)

    def beyond(state: State) -> Array:
        bounds = state.once(low_high)[state.task_index]
        low, high = bounds[:, 0], bounds[:, 1]
        xp, margin = state.xp, (1 - share) / 2
        room = xp.where(xp.isinf(high - low), 0.0, high - low) * margin
        q = rig.joints.positions.of(state.qpos)
        return xp.sum(xp.clip(low + room - q, 0.0, None) + xp.clip(q - high + room, 0.0, None), axis=1)

    return beyond


def torque(rig: Rig) -> StateFunction:
    """Sum of squared forces of the actuators on their joints, gears included."""
    return lambda state: square(joint_forces(state))


def torque_limits(rig: Rig, *, share: float = 0.8) -> StateFunction:
    """Sum of what forces of actuators on their joints are beyond this share of their limits, or of their joints' or
    tendons'."""
    share = positive(share, "share", most=1)

    def limits(models: Sequence[mujoco.MjModel]) -> Array:
        return np.array([[force_limit_of(m, i) * abs(gear_on_joint(m, i)) for i in range(m.nu)] for m in models])

    def beyond(state: State) -> Array:
        bound = share * state.once(limits)[state.task_index]
        return state.xp.sum(state.xp.clip(state.xp.abs(joint_forces(state)) - bound, 0.0, None), axis=1)

    return beyond


def power(rig: Rig) -> StateFunction:
    """Sum of |force x velocity| of the actuators."""
    return lambda state: state.xp.sum(state.xp.abs(applied_forces(state) * state.actuator_velocity), axis=1)


def action_rate(rig: Rig) -> StateFunction:
    """Sum of squared changes of the action."""
    track_actions(rig)
    return lambda state: square(state.memory["action_change"])


def action_acceleration(rig: Rig) -> StateFunction:
    """Sum of squared changes of the action's change."""
    track_action_acceleration(rig)
    return lambda state: square(state.memory["action_acceleration"])


def air_time(rig: Rig, *, beyond: float = 0.2) -> StateFunction:
    """Time in the air beyond `beyond` seconds, summed over feet that land while the command asks for motion."""
    track_air_time(rig)

    def landings(state: State) -> Array:
        flight = state.memory["flight"]
        return state.xp.sum((flight - beyond) * (flight > 0), axis=1) * rig.asked_to_move(state)

    return landings


def clearance(rig: Rig, *, target: float = 0.08) -> StateFunction:
    """Sum over feet of (height of the sole over the ground - target)^2 x horizontal speed, target in m."""
    feet, base = rig.needed_feet, rig.needed_base

    def cost(state: State) -> Array:
        soles = state.once(feet.soles)[state.task_index]
        heights = base.over_ground(state, feet.positions(state)) - soles
        speed = state.xp.linalg.vector_norm(feet.velocities(state)[..., :2], axis=2)
        return state.xp.sum((heights - target) ** 2 * speed, axis=1)

    return cost


def slip(rig: Rig) -> StateFunction:
    """Sum of squared horizontal velocities of feet that touch something."""
    feet = rig.needed_feet
    touching = rig.touching(feet.contacts)

    def cost(state: State) -> Array:
        speed = state.xp.sum(state.xp.square(feet.velocities(state)[..., :2]), axis=2)
        return state.xp.sum(speed * touching(state), axis=1)

    return cost


def stumble(rig: Rig) -> StateFunction:
    """Number of feet whose horizontal contact force is more than five times the vertical one."""
    force = rig.contact_forces(rig.needed_feet.contacts)

    def hits(state: State) -> Array:
        xp, f = state.xp, force(state)
        sideways = xp.linalg.vector_norm(f[..., :2], axis=2)
        return xp.sum(xp.astype(sideways > STUMBLE * xp.abs(f[..., 2]), f.dtype), axis=1)

    return hits


def contact_force(rig: Rig, *, above: float) -> StateFunction:
    """Sum over feet of the contact force above `above` newtons."""
    force = rig.contact_forces(rig.needed_feet.contacts)
    return lambda state: state.xp.sum(
        state.xp.clip(state.xp.linalg.vector_norm(force(state), axis=2) - above, 0.0, None), axis=1
    )


def contact(rig: Rig, *, bodies: tuple[str, ...]) -> StateFunction:
    """Number of these bodies, or of those of these groups, that touch something."""
    touching = rig.touching(rig.bodies_of(bodies))
    return lambda state: state.xp.sum(state.xp.astype(touching(state), state.qpos.dtype), axis=1)


def stand_still(rig: Rig) -> StateFunction:
    """Sum of absolute joint positions relative to home while the command asks for no motion."""
    return lambda state: state.xp.sum(state.xp.abs(rig.joints.from_home(state)), axis=1) * ~rig.asked_to_move(state)


def fall(rig: Rig) -> StateFunction:
    """1 in the step in which the episode ends for good."""
    if rig.fallen is None:
        raise ValueError("its episodes do not end early; write termination: {...}")
    return locomotion.fall(rig.fallen)


def distance(rig: Rig) -> StateFunction:
    """Distance of the end effector, or of the object that it is to move, to its target."""
    reaching = rig.needed_reaching
    return lambda state: state.xp.linalg.vector_norm(reaching.gap(state), axis=1)


def reach(rig: Rig, *, width: float = 0.1) -> StateFunction:
    """exp(-distance / width) of the end effector, or of the object, to its target, width in m."""
    far, width = distance(rig), positive(width, "width")
    return lambda state: state.xp.exp(far(state) / -width)


def object_distance(rig: Rig) -> StateFunction:
    """Distance of the end effector to the object that it is to move."""
    reaching = rig.needed_reaching
    thing = reaching.thing
    if thing is None:
        raise ValueError("it moves no object; name one by goal: {object: BODY}")
    return lambda state: state.xp.linalg.vector_norm(reaching.effector(state) - thing(state), axis=1)


def orientation_error(rig: Rig) -> StateFunction:
    """Angle between the orientation of the end effector, or of the object that it is to move, and its target's."""
    reaching = rig.needed_reaching
    turn, aim = reaching.thing_turn or reaching.turn, reaching.needed_aim

    def angle(state: State) -> Array:
        xp = state.xp
        trace = xp.sum(turn(state) * aim(state), axis=(1, 2))  # of aim^T R
        return xp.acos(xp.clip((trace - 1) / 2, -1.0, 1.0))

    return angle


def velocity_limits(rig: Rig, *, limit: float) -> StateFunction:
    """Sum of what speeds of joints are beyond this limit, rad/s, each counted as at most 1."""

    def beyond(state: State) -> Array:
        speeds = state.xp.abs(rig.joints.velocities.of(state.qvel))
        return state.xp.sum(state.xp.clip(speeds - limit, 0.0, 1.0), axis=1)

    return beyond


def python(rig: Rig, *, function: str) -> StateFunction:
    """What your own function(state), file.py:function, returns, [S]. Its code is run."""
    return own_function(function)


REWARDS: dict[str, RewardKind] = {
    "forward_velocity": RewardKind(forward_velocity, "m/s"),
    "track_velocity": RewardKind(track_velocity, "1"),
    "track_yaw": RewardKind(track_yaw, "1"),
    "velocity_error": RewardKind(velocity_error, "m/s", cost=True),
    "height": RewardKind(height, "m"),
    "upright": RewardKind(upright, "1"),
    "alive": RewardKind(alive, "1"),
    "air_time": RewardKind(air_time, "s"),
    "vertical_velocity": RewardKind(vertical_velocity, "m^2/s^2", cost=True),
    "base_height": RewardKind(base_height, "m^2", cost=True),
    "tilt": RewardKind(tilt, "1", cost=True),
    "tilt_rate": RewardKind(tilt_rate, "rad^2/s^2", cost=True),
    "torque": RewardKind(torque, "N^2 m^2", cost=True),
    "torque_limits": RewardKind(torque_limits, "N m", cost=True),
    "power": RewardKind(power, "W", cost=True),
    "control_cost": RewardKind(control_cost, "1", cost=True),
    "action_rate": RewardKind(action_rate, "1", cost=True),
    "action_acceleration": RewardKind(action_acceleration, "1", cost=True),
    "joint_velocity_cost": RewardKind(joint_velocity_cost, "rad^2/s^2", cost=True),
    "joint_acceleration": RewardKind(joint_acceleration, "rad^2/s^4", cost=True),
    "joint_limits": RewardKind(joint_limits, "rad", cost=True),
    "velocity_limits": RewardKind(velocity_limits, "rad/s", cost=True),
    "home_cost": RewardKind(home_cost, "rad^2", cost=True),
    "stand_still": RewardKind(stand_still, "rad", cost=True),
    "clearance": RewardKind(clearance, "m^3/s", cost=True),
    "slip": RewardKind(slip, "m^2/s^2", cost=True),
    "stumble": RewardKind(stumble, "1", cost=True),
    "contact": RewardKind(contact, "1", cost=True),
    "contact_force": RewardKind(contact_force, "N", cost=True),
    "fall": RewardKind(fall, "1", cost=True),
    "reach": RewardKind(reach, "1"),
    "distance": RewardKind(distance, "m", cost=True),
    "object_distance": RewardKind(object_distance, "m", cost=True),
    "orientation_error": RewardKind(orientation_error, "rad", cost=True),
    "python": RewardKind(python, "any"),
}
"""Every reward term by name."""
