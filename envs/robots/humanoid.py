"""Humanoid family: direction (PEARL, VariBAD). Gymnasium's own model."""

from __future__ import annotations

import functools
import math

import mujoco
import numpy as np

from metarl.envs import measures
from metarl.envs.control import read_signals
from metarl.envs.family import Array, Criterion, RewardTerm, State, TaskFamily, load_spec
from metarl.envs.locomotion import (
    force_names,
    gymnasium_model,
    survive,
    uniform_start,
    watch_contact_forces,
)
from metarl.envs.parameters import Law, Parameter, Uniform
from metarl.envs.robots.humanoid_settings import HumanoidDirectionSettings

MODEL = gymnasium_model("humanoid")
FRAME_SKIP = 5
RESET_NOISE = 0.01  # half-width of the uniform noise on qpos and qvel
HEALTHY_Z = (1.0, 2.0)  # m, of the torso; an episode ends outside
SPEED = 0.5  # m/s, the least mean speed of a success
VELOCITY_WEIGHT = 1.25
CONTACT_WEIGHT, CONTACT_LIMIT = 5e-7, 10.0  # of the squared contact forces; of the weighted sum
TORQUE_LIMIT = 0.4  # of the action
FREE = 6  # degrees of freedom of the root, which no motor drives
JOINTS = (
    *("abdomen_z", "abdomen_y", "abdomen_x"),
    *("right_hip_x", "right_hip_z", "right_hip_y", "right_knee"),
    *("left_hip_x", "left_hip_z", "left_hip_y", "left_knee"),
    *("right_shoulder1", "right_shoulder2", "right_elbow"),
    *("left_shoulder1", "left_shoulder2", "left_elbow"),
)
BODIES = (
    *("torso", "lwaist", "pelvis"),
    *("right_thigh", "right_shin", "right_foot", "left_thigh", "left_shin", "left_foot"),
    *("right_upper_arm", "right_lower_arm", "left_upper_arm", "left_lower_arm"),
)
VELOCITIES = (
    *(f"root_{axis}_velocity [m/s]" for axis in "xyz"),
    *(f"root_{axis}_angular_velocity [rad/s]" for axis in "xyz"),
    *(f"{joint}_velocity [rad/s]" for joint in JOINTS),
)
POSTURE_NAMES = (
    "root_z [m]",
    *(f"root_quaternion_{element} [1]" for element in "wxyz"),
    *(f"{joint} [rad]" for joint in JOINTS),
    *VELOCITIES,
)
INERTIA = (
    *(f"inertia_{element} [kg m^2]" for element in ("xx", "yy", "zz", "xy", "xz", "yz")),
    *(f"mass_moment_{axis} [kg m]" for axis in "xyz"),
    "mass [kg]",
)
MOTION = (*(f"angular_velocity_{a} [rad/s]" for a in "xyz"), *(f"velocity_{a} [m/s]" for a in "xyz"))


@functools.cache
def _neutral() -> mujoco.MjSpec:
    spec = load_spec(MODEL)
    watch_contact_forces(spec, "torso")
    return spec


def base() -> mujoco.MjSpec:
    """Gymnasium's robot, each body's mass and inertia its own."""
    return _neutral().copy()


def observe_posture(state: State) -> Array:
    """qpos[2:], qvel."""
    return state.xp.concat([state.qpos[:, 2:], state.qvel], axis=1)


def _observe_bodies(state: State, first_body: int, first_dof: int) -> Array:
    """qpos[2:], qvel, then inertia and velocity of each body, actuator torques and contact forces of each body."""
    s = len(state.qpos)
    return state.xp.concat(
        [
            state.qpos[:, 2:],
            state.qvel,
            state.cinert[:, first_body:].reshape(s, -1),
            state.cvel[:, first_body:].reshape(s, -1),
            state.qfrc_actuator[:, first_dof:],
            state.cfrc_ext[:, first_body:].reshape(s, -1),
        ],
        axis=1,
    )


def observe_bodies(state: State) -> Array:
    """348 elements as Humanoid-v5: of the robot's bodies and motors."""
    return _observe_bodies(state, 1, FREE)


def observe_bodies_and_world(state: State) -> Array:
    """376 elements as published: those of the world and of the root, which are constant, as well."""
    return _observe_bodies(state, 0, 0)


def _names(bodies: tuple[str, ...], torques: tuple[str, ...]) -> tuple[str, ...]:
    return (
        *POSTURE_NAMES,
        *(f"{body}_{element}" for body in bodies for element in INERTIA),
        *(f"{body}_{element}" for body in bodies for element in MOTION),
        *(f"{torque}_torque [N m]" for torque in torques),
        *force_names(bodies),
    )


ROOT = tuple(f"root_{axis}{kind}" for kind in ("", "_angular") for axis in "xyz")
OBSERVATIONS = {
    "gymnasium": (observe_bodies, _names(BODIES, JOINTS)),
    "published": (observe_bodies_and_world, _names(("world", *BODIES), (*ROOT, *JOINTS))),
    "posture": (observe_posture, POSTURE_NAMES),
}


def velocity(state: State) -> Array:
    """Of the whole robot's centre of mass on the plane, [S, 2] m/s."""
    return (state.subtree_com[:, 0, :2] - state.previous["subtree_com"][:, 0, :2]) / state.dt


def velocity_along_heading(state: State) -> Array:
    """v (cos g, sin g) of the whole robot's centre of mass, [S] m/s."""
    moved = velocity(state)
    heading = state.task["heading"]
    return moved[:, 0] * state.xp.cos(heading) + moved[:, 1] * state.xp.sin(heading)


def control_cost(state: State) -> Array:
    """Squared norm of the controls, [S]."""
    return state.xp.einsum("sa,sa->s", state.ctrl, state.ctrl)


def contact_cost(state: State) -> Array:
    """Weighted squared norm of all contact forces, at most CONTACT_LIMIT, [S]."""
    squared = state.xp.einsum("sbi,sbi->s", state.cfrc_ext, state.cfrc_ext)
    return state.xp.clip(CONTACT_WEIGHT * squared, None, CONTACT_LIMIT)


def fallen(state: State) -> Array:
    """Torso too low or too high, [S] bool."""
    z = state.qpos[:, 2]
    return (z <= HEALTHY_Z[0]) | (z >= HEALTHY_Z[1])


def humanoid_direction(settings: HumanoidDirectionSettings) -> TaskFamily:
    """Reward 1.25 v (cos g, sin g) - c a^2 - contact cost + 5."""
    observe, names = OBSERVATIONS[settings.observation]
    heading = Parameter("heading", "rad", Uniform(0, 2 * math.pi), Law("direction of the reward"), neutral=0.0)
    return TaskFamily(
        name="humanoid_direction",
        description="Humanoid in a direction that only the reward tells of",
        base=base,
        parameters=(heading,),
        observe=observe,
        observation_names=names,
        rewards={
            "velocity": RewardTerm(velocity_along_heading, VELOCITY_WEIGHT),
            "survive": RewardTerm(survive, settings.survive),
            "control": RewardTerm(control_cost, -settings.control_cost),
            "contact": RewardTerm(contact_cost, -1.0),
        },
        reset=functools.partial(uniform_start, RESET_NOISE),
        action_low=np.full(len(JOINTS), -TORQUE_LIMIT),
        action_high=np.full(len(JOINTS), TORQUE_LIMIT),
        horizon=settings.horizon,
        frame_skip=FRAME_SKIP,
        control=read_signals(base().compile(), "force"),
        action_scale=settings.action_scale,
        terminate=fallen,
        previous=("subtree_com",),
        measures={
            **measures.progress(velocity_along_heading),
            **measures.falls(fallen),
            **measures.energy(measures.path_of(velocity)),
        },
        success=(Criterion("speed", low=SPEED), Criterion("falls", high=0)),
        settings=settings,
    )
