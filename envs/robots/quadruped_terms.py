"""Quadruped: functions of the state, and the observation and reward terms that use them.

Observation, reward terms and their weights are those of quadruped practice (legged_gym: Rudin et al., CoRL 2022; RMA:
Kumar et al., RSS 2021). The reward of a step is weight x term x 0.02 s, so weights are per second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import mujoco
import numpy as np

from metarl.envs.arrays import Array, namespace, rows
from metarl.envs.robots.quadruped_robot import FOOT_CONTACTS, JOINTS, LEGS
from metarl.envs.robots.quadruped_settings import DT
from metarl.envs.state import State, StateFunction
from metarl.envs.terms import Element, ObservationTerm, elements

FALL_TILT = math.radians(60)
TRACKING = 0.25  # (m/s)^2 and (rad/s)^2 in the kernels exp(-error^2 / TRACKING)
AIR_TIME = 0.2  # s, of a swing that is neither rewarded nor penalised
NUM_FEET = len(FOOT_CONTACTS)


def projected_gravity(state: State) -> Array:
    """Return the direction of gravity in the base's frame, [S, 3]."""
    w, x, y, z = rows(state.qpos[:, 3:7])
    return state.xp.stack([2 * (w * y - x * z), -2 * (w * x + y * z), 2 * (x * x + y * y) - 1], axis=1)


def base_velocity(state: State) -> Array:
    """Return the linear velocity in the base's frame, [S, 3] m/s."""
    w, *axis = rows(state.qpos[:, 3:7])
    v = rows(state.qvel[:, :3])
    twist = _cross(axis, v)  # R^T v = v - 2 w (u x v) + 2 u x (u x v)
    turned = _cross(axis, twist)
    return state.xp.stack([v[i] + 2 * (turned[i] - w * twist[i]) for i in range(3)], axis=1)


def _cross(a: Any, b: Any) -> list[Array]:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def foot_contacts(state: State) -> Array:
    """Return which feet touch the ground, [S, 4] bool."""
    return state.sensordata[:, :NUM_FEET] > 0


def foot_positions(state: State) -> Array:
    """Return the positions of the feet as the last substep began, [S, 4, 3] m."""
    return state.geom_xpos[:, state.once(foot_geoms)]


def foot_geoms(models: Sequence[mujoco.MjModel]) -> np.ndarray:
    """Return the indices of the feet's geoms, [4]; a task does not change them."""
    return np.array([models[0].geom(f"{leg}_foot").id for leg in LEGS])


def from_home(state: State) -> Array:
    """Return joint angles relative to the home pose of the task's robot, [S, 12] rad."""
    return state.qpos[:, 7:] - state.once(home_poses)[state.task_index]


def home_poses(models: Sequence[mujoco.MjModel]) -> np.ndarray:
    """Return the joint angles of each model's keyframe `home`, [K, 12] rad."""
    return np.stack([model.key("home").qpos[7:] for model in models])


def velocity_gap(state: State) -> Array:
    """Return v_xy - v_xy* in the base's frame, [S, 2] m/s."""
    return base_velocity(state)[:, :2] - state.memory["command"][:, :2]


def velocity_error(state: State) -> Array:
    """Return |v_xy - v_xy*|, [S] m/s."""
    return state.xp.linalg.vector_norm(velocity_gap(state), axis=1)


def yaw_rate_error(state: State) -> Array:
    """Return |w_z - w_z*|, [S] rad/s."""
    return state.xp.abs(state.qvel[:, 5] - state.memory["command"][:, 2])


def velocity_tracking(state: State) -> Array:
    """Return exp(-|v_xy - v_xy*|^2 / .25), [S]."""
    return state.xp.exp(_square(velocity_gap(state)) / -TRACKING)


def yaw_tracking(state: State) -> Array:
    """Return exp(-(w_z - w_z*)^2 / .25), [S]."""
    return state.xp.exp((state.qvel[:, 5] - state.memory["command"][:, 2]) ** 2 / -TRACKING)


def path(state: State) -> Array:
    """Return the trunk's horizontal path length over the control step, by its velocity at the end, [S] m."""
    return state.xp.linalg.vector_norm(state.qvel[:, :2], axis=1) * DT


def vertical_velocity(state: State) -> Array:
    """Return v_z^2 in the base's frame, [S] m^2/s^2."""
    return base_velocity(state)[:, 2] ** 2


def tilt_rate(state: State) -> Array:
    """Return w_x^2 + w_y^2, [S] rad^2/s^2."""
    return _square(state.qvel[:, 3:5])


def tilt(state: State) -> Array:
    """Return the squared sine of the angle between the base's axis and the vertical, [S]."""
    return _square(projected_gravity(state)[:, :2])


def torque(state: State) -> Array:
    """Return the sum of squared torques, [S] N^2 m^2."""
    return _square(state.actuator_force)


def joint_acceleration(state: State) -> Array:
    """Return the sum of squared joint accelerations over the control step, [S] rad^2/s^4."""
    return _square((state.qvel[:, 6:] - state.memory["joint_velocity"]) / DT)


def action_rate(state: State) -> Array:
    """Return the sum of squared changes of the joint targets, [S] rad^2."""
    return _square(state.memory["action_change"])


def pose(state: State) -> Array:
    """Return the sum of squared joint angles relative to home, [S] rad^2."""
    return _square(from_home(state))


def air_time(state: State) -> Array:
    """Return the time in the air beyond .2 s, summed over feet that land while the command asks for steps, [S] s."""
    return state.memory["landing"]


def fallen(state: State) -> Array:
    """Return whether the trunk touches the ground or is tilted by more than 60 degrees, [S] bool."""
    return (state.sensordata[:, NUM_FEET] > 0) | (projected_gravity(state)[:, 2] > -math.cos(FALL_TILT))


def _square(x: Array) -> Array:
    return namespace(x).einsum("si,si->s", x, x)


def _sensor(function: StateFunction, unit: str, names: Iterable[str], half_width: float = 0.0) -> ObservationTerm:
    """Return a term with legged_gym's noise, uniform in +- half_width; ours is normal with its standard deviation."""
    return ObservationTerm(function, elements(unit, names), half_width / math.sqrt(3))


OBSERVATION = {
    "velocity": _sensor(base_velocity, "m/s", ("base_vx", "base_vy", "base_vz"), 0.1),
    "rate": _sensor(lambda state: state.qvel[:, 3:6], "rad/s", ("base_wx", "base_wy", "base_wz"), 0.2),
    "gravity": _sensor(projected_gravity, "1", ("gravity_x", "gravity_y", "gravity_z"), 0.05),
    "command": ObservationTerm(
        lambda state: state.memory["command"],
        (Element("command_vx", "m/s"), Element("command_vy", "m/s"), Element("command_wz", "rad/s")),
    ),
    "joints": _sensor(from_home, "rad", JOINTS, 0.01),
    "joint_velocities": _sensor(
        lambda state: state.qvel[:, 6:], "rad/s", (f"{joint}_velocity" for joint in JOINTS), 1.5
    ),
    "action": ObservationTerm(lambda state: state.action, elements("rad", (f"{joint}_action" for joint in JOINTS))),
}
"""Terms by name; joints are relative to home."""

PRIVILEGED = {
    "velocity": ObservationTerm(base_velocity, elements("m/s", ("true_base_vx", "true_base_vy", "true_base_vz"))),
    "contacts": ObservationTerm(
        lambda state: state.xp.astype(foot_contacts(state), state.sensordata.dtype), elements("1", FOOT_CONTACTS)
    ),
}
"""Terms by name that the robot's sensors do not give, without noise."""

REWARDS: dict[str, tuple[Callable[[State], Array], float]] = {
    "velocity": (velocity_tracking, 1.0),
    "yaw_rate": (yaw_tracking, 0.5),
    "vertical_velocity": (vertical_velocity, -2.0),
    "tilt_rate": (tilt_rate, -0.05),
    "tilt": (tilt, -1.0),
    "torque": (torque, -1e-4),
    "joint_acceleration": (joint_acceleration, -2.5e-7),
    "action_rate": (action_rate, -0.1),
    "pose": (pose, -0.2),
    "air_time": (air_time, 1.0),
    "fall": (fallen, -50.0),
}
"""Terms and their weights, 1/s; a fall lasts one control step."""
