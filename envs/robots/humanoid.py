"""Humanoid family: direction (PEARL, VariBAD). Gymnasium's own model."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import mujoco
import numpy as np

from metarl.envs import measures
from metarl.envs.arrays import Array
from metarl.envs.control import read_signals
from metarl.envs.family import TaskFamily
from metarl.envs.locomotion import (
    control_cost,
    force_elements,
    free_observation,
    gymnasium_model,
    survival,
    uniform_start,
    watch_contact_forces,
)
from metarl.envs.mjcf import load_spec
from metarl.envs.parameters import Law, Parameter, Uniform
from metarl.envs.robots.feet import telling_contacts
from metarl.envs.robots.humanoid_settings import HumanoidDirectionSettings
from metarl.envs.state import State, StateFunction
from metarl.envs.terms import Criterion, Element, ObservationTerm, RewardTerm, elements

MODEL = gymnasium_model("humanoid")
FRAME_SKIP = 5
RESET_NOISE = 0.01  # half-width of the uniform noise on qpos and qvel
HEALTHY_Z = (1.0, 2.0)  # m, of the torso; an episode ends outside
SPEED = 0.5  # m/s, the least mean speed of a success
VELOCITY_WEIGHT = 1.25
CONTACT_WEIGHT, CONTACT_LIMIT = 5e-7, 10.0  # of the squared contact forces; of the weighted sum
TORQUE_LIMIT = 0.4  # of the action
JOINTS = (
    *("abdomen_z", "abdomen_y", "abdomen_x"),
    *("right_hip_x", "right_hip_z", "right_hip_y", "right_knee"),
    *("left_hip_x", "left_hip_z", "left_hip_y", "left_knee"),
    *("right_shoulder1", "right_shoulder2", "right_elbow"),
    *("left_shoulder1", "left_shoulder2", "left_elbow"),
)
LIMBS = {"leg": ("hip_x", "hip_z", "hip_y", "knee"), "arm": ("shoulder1", "shoulder2", "elbow")}
FEET = {"right_foot": "right_foot", "left_foot": "left_foot"}  # geoms
BODIES = (
    *("torso", "lwaist", "pelvis"),
    *("right_thigh", "right_shin", "right_foot", "left_thigh", "left_shin", "left_foot"),
    *("right_upper_arm", "right_lower_arm", "left_upper_arm", "left_lower_arm"),
)
ROOT = tuple(f"root_{axis}{kind}" for kind in ("", "_angular") for axis in "xyz")
INERTIA = (
    *elements("kg m^2", (f"inertia_{element}" for element in ("xx", "yy", "zz", "xy", "xz", "yz"))),
    *elements("kg m", (f"mass_moment_{axis}" for axis in "xyz")),
    Element("mass", "kg"),
)
MOTION = (
    *elements("rad/s", (f"angular_velocity_{axis}" for axis in "xyz")),
    *elements("m/s", (f"velocity_{axis}" for axis in "xyz")),
)


@functools.cache
def _neutral() -> mujoco.MjSpec:
    spec = load_spec(MODEL)
    watch_contact_forces(spec, "torso")
    return spec


def base() -> mujoco.MjSpec:
    """Return Gymnasium's robot with mass and inertia set body by body."""
    return _neutral().copy()


def _of_bodies(bodies: Sequence[str], parts: Sequence[Element]) -> tuple[Element, ...]:
    return tuple(Element(f"{body}_{part.name}", part.unit) for body in bodies for part in parts)


def _body_terms(bodies: Sequence[str], torques: Sequence[str]) -> dict[str, ObservationTerm]:
    """Return inertia and velocity of the last bodies, torques of the last degrees of freedom, and contact forces."""

    def last_bodies(field: str) -> StateFunction:
        return lambda state: getattr(state, field)[:, -len(bodies) :].reshape(len(state.qpos), -1)

    return {
        "inertia": ObservationTerm(last_bodies("cinert"), _of_bodies(bodies, INERTIA)),
        "body_velocities": ObservationTerm(last_bodies("cvel"), _of_bodies(bodies, MOTION)),
        "torques": ObservationTerm(
            lambda state: state.qfrc_actuator[:, -len(torques) :],
            elements("N m", (f"{torque}_torque" for torque in torques)),
        ),
        "contact_forces": ObservationTerm(last_bodies("cfrc_ext"), force_elements(bodies)),
    }


POSTURE = free_observation("root", JOINTS)
OBSERVATIONS = {
    "gymnasium": {**POSTURE, **_body_terms(BODIES, JOINTS)},
    "published": {**POSTURE, **_body_terms(("world", *BODIES), (*ROOT, *JOINTS))},
    "posture": POSTURE,
}
"""gymnasium: 348 elements as Humanoid-v5, of the robot's bodies and motors; published: 376 elements, with those of the
world and of the root, which are constant."""


def velocity(state: State) -> Array:
    """Return the velocity of the robot's centre of mass on the plane, [S, 2] m/s."""
    return (state.subtree_com[:, 0, :2] - state.previous["subtree_com"][:, 0, :2]) / state.dt


def velocity_along_heading(state: State) -> Array:
    """Return v (cos g, sin g) of the robot's centre of mass, [S] m/s."""
    moved = velocity(state)
    heading = state.task["heading"]
    return moved[:, 0] * state.xp.cos(heading) + moved[:, 1] * state.xp.sin(heading)


def contact_cost(state: State) -> Array:
    """Return the weighted squared norm of all contact forces, at most CONTACT_LIMIT, [S]."""
    squared = state.xp.einsum("sbi,sbi->s", state.cfrc_ext, state.cfrc_ext)
    return state.xp.clip(CONTACT_WEIGHT * squared, None, CONTACT_LIMIT)


def fallen(state: State) -> Array:
    """Return whether the torso is too low or too high, [S] bool."""
    z = state.qpos[:, 2]
    return (z <= HEALTHY_Z[0]) | (z >= HEALTHY_Z[1])


def humanoid_direction(settings: HumanoidDirectionSettings) -> TaskFamily:
    """Return the family with reward 1.25 v (cos g, sin g) - c a^2 - contact cost + 5."""
    heading = Parameter("heading", "rad", Uniform(0, 2 * math.pi), Law("direction of the reward"), neutral=0.0)
    family = TaskFamily(
        name="humanoid_direction",
        description="Humanoid in a direction that only the reward tells of",
        base=base,
        parameters=(heading,),
        observation=OBSERVATIONS[settings.observation],
        rewards={
            "velocity": RewardTerm(velocity_along_heading, VELOCITY_WEIGHT),
            **survival(settings, fallen),
            "control": RewardTerm(functools.partial(control_cost, of="ctrl"), -settings.control_cost),
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
        groups={
            f"{side}_{limb}": tuple(f"{side}_{joint}" for joint in joints)
            for side in ("right", "left")
            for limb, joints in LIMBS.items()
        },
        settings=settings,
    )
    return telling_contacts(family, FEET)
