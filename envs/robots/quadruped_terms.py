"""Quadruped: the robot as its terms see it, and the task that it is declared to have.

Observation, reward terms and their weights are those of quadruped practice (legged_gym: Rudin et al., CoRL 2022; RMA:
Kumar et al., RSS 2021). The reward of a step is weight x term x 0.02 s, so weights are per second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.declared.base import Base
from metarl.envs.declared.columns import Columns
from metarl.envs.declared.ends import Termination, termination
from metarl.envs.declared.entries import ObservationEntry, RewardEntry
from metarl.envs.declared.rig import COMMANDS, Feet, Joints, Rig
from metarl.envs.declared.sensors import ContactSensors
from metarl.envs.robots.quadruped_robot import LEGS, TRUNK_CONTACT, foot_contacts, joints_of
from metarl.envs.robots.quadruped_settings import DT
from metarl.envs.state import State

FALLS = Termination(tilt=math.radians(60), contact=("trunk",))
AXES = ("x", "y", "z")


def foot_geoms(models: Sequence[mujoco.MjModel]) -> np.ndarray:
    """Return the indices of the feet's geoms in the order of the legs, [legs]; a task does not change them."""
    return np.array([i for i in range(models[0].ngeom) if models[0].geom(i).name.endswith("_foot")])


def foot_radii(models: Sequence[mujoco.MjModel]) -> np.ndarray:
    """Return the radii of the feet in each model, [K, legs] m."""
    return np.array([model.geom_size[foot_geoms(models), 0] for model in models])


def home_poses(models: Sequence[mujoco.MjModel]) -> np.ndarray:
    """Return the joint angles of each model's home pose, [K, joints] rad."""
    return np.array([model.key("home").qpos[7:] for model in models])


def home(state: State) -> Array:
    """Return the joint angles of the home pose of the task's robot, [S, joints] rad."""
    return state.once(home_poses)[state.task_index]


def rig(legs: Sequence[str] = LEGS) -> Rig:
    """Return the robot of these legs as its terms see it."""
    names = joints_of(legs)
    joints, sensors = np.arange(len(names)), (*foot_contacts(legs), TRUNK_CONTACT)
    made = Rig(
        joints=Joints(names, Columns(joints + 7), Columns(joints + 6), home, ("rad",) * len(names)),
        actuators=names,
        force_units=("N m",) * len(names),
        dt=DT,
        action_unit="rad",
        sensors=ContactSensors(len(sensors), {name: i for i, name in enumerate(sensors)}),
        base=Base(body=1, root=1, qpos=0, qvel=0, over_ground=lambda state, points: points[..., 2]),
        feet=Feet(tuple(legs), foot_geoms, foot_contacts(legs), foot_radii),
        groups={"trunk": (TRUNK_CONTACT,)},
        bodies=sensors,
        commands=tuple(COMMANDS),
    )
    made.fallen = termination(made, FALLS)
    return made


def _sensor(term: str, names: Sequence[str], half_width: float) -> ObservationEntry:
    """Return a term with legged_gym's noise, uniform in +- half_width; ours is normal with its standard deviation."""
    return ObservationEntry(term, noise=half_width / math.sqrt(3), names=tuple(names))


def observation(legs: Sequence[str] = LEGS) -> dict[str, ObservationEntry]:
    """Return terms by name; joints are relative to home."""
    joints = joints_of(legs)
    return {
        "velocity": _sensor("base_velocity", [f"base_v{a}" for a in AXES], 0.1),
        "rate": _sensor("base_angular_velocity", [f"base_w{a}" for a in AXES], 0.2),
        "gravity": _sensor("projected_gravity", [f"gravity_{a}" for a in AXES], 0.05),
        "command": ObservationEntry("command", names=("command_vx", "command_vy", "command_wz")),
        "joints": _sensor("joint_positions", joints, 0.01),
        "joint_velocities": _sensor("joint_velocities", [f"{joint}_velocity" for joint in joints], 1.5),
        "action": ObservationEntry("last_action", names=tuple(f"{joint}_action" for joint in joints)),
    }


def privileged(legs: Sequence[str] = LEGS) -> dict[str, ObservationEntry]:
    """Return terms by name that the robot's sensors do not give, without noise."""
    return {
        "velocity": ObservationEntry("base_velocity", names=tuple(f"true_base_v{a}" for a in AXES)),
        "contacts": ObservationEntry("foot_contacts", names=foot_contacts(legs)),
    }


REWARDS = {
    "velocity": RewardEntry("track_velocity", 1.0),
    "yaw_rate": RewardEntry("track_yaw", 0.5),
    "vertical_velocity": RewardEntry("vertical_velocity", 2.0),
    "tilt_rate": RewardEntry("tilt_rate", 0.05),
    "tilt": RewardEntry("tilt", 1.0),
    "torque": RewardEntry("torque", 1e-4),
    "joint_acceleration": RewardEntry("joint_acceleration", 2.5e-7),
    "action_rate": RewardEntry("action_rate", 0.1),
    "pose": RewardEntry("home_cost", 0.2),
    "air_time": RewardEntry("air_time", 1.0),
    "fall": RewardEntry("fall", 50.0),
}
"""Terms and their weights, 1/s; a fall lasts one control step."""
