"""Ant families: direction, goal, velocity (MAML 2017, ProMP, PEARL), crippled legs (Nagabandi 2019), limbs."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from metarl.envs import measures
from metarl.envs.added import plain
from metarl.envs.arrays import Array
from metarl.envs.control import read_signals
from metarl.envs.family import TaskFamily
from metarl.envs.locomotion import (
    control_cost,
    force_elements,
    free_observation,
    gymnasium_model,
    survival,
    watch_contact_forces,
)
from metarl.envs.mjcf import load_spec
from metarl.envs.parameters import Choice, DiscRadius, Law, Parameter, Uniform, beyond
from metarl.envs.rendering import AZIMUTH, follow
from metarl.envs.robots.ant_settings import (
    AntCrippledSettings,
    AntDirectionSettings,
    AntGoalSettings,
    AntLimbsSettings,
    AntTerrainSettings,
    AntVelocitySettings,
)
from metarl.envs.robots.feet import standing_on, telling_contacts
from metarl.envs.robots.morphology import geometric_spec, limb_parameters, lowest, stand
from metarl.envs.state import State, StateFunction
from metarl.envs.task import Changes
from metarl.envs.terms import Criterion, Measure, ObservationTerm, RewardTerm, elements
from metarl.envs.terrain.kinds import Field
from metarl.envs.terrain.on_terrain import FREE, Ground, on_terrain

MODEL = gymnasium_model("ant")
FRAME_SKIP = 5
RESET_POSITION = 0.1  # half-width of the uniform noise on qpos, m and quaternion and rad
RESET_VELOCITY = 0.1  # standard deviation of the noise on qvel, m/s and rad/s
HEALTHY_Z = (0.2, 1.0)  # m, of the torso; an episode ends outside
SPEED = 0.5  # m/s, the least mean speed of a success
VELOCITY_TOLERANCE = 0.5  # m/s, the largest mean error of a success, in which the robot also gets up to speed
GOAL_TOLERANCE = 0.5  # m, the torso's diameter: the farthest from the goal that a success may end
CONTACT_LIMIT = 1.0  # N and N m, at which each element of the contact forces is clipped
TORSO = 1  # body
TERRAIN_PATCH = 1.5  # m, half the side of the flat start: the legs reach 1.2 m
TERRAIN_CELL = 0.1  # m
LEGS = (1, 2, 3, 4)  # as the joints are numbered: front left, front right, back left, back right
JOINTS = tuple(f"{joint}_{leg}" for leg in LEGS for joint in ("hip", "ankle"))
LIMBS = {"upper_leg": [f"hip_{leg}" for leg in LEGS], "lower_leg": [f"ankle_{leg}" for leg in LEGS]}
FEET = {
    f"foot_{leg}": f"{name}_ankle_geom" for leg, name in zip(LEGS, ("left", "right", "third", "fourth"), strict=True)
}
BODIES = ("torso", *(f"{part}_{leg}" for leg in LEGS for part in ("stub", "upper_leg", "lower_leg")))
POSTURE = free_observation("torso", JOINTS)
PLACE = ObservationTerm(lambda state: state.qpos[:, :2], elements("m", ("torso_x", "torso_y")))


@functools.cache
def _frozen() -> mujoco.MjSpec:
    spec = load_spec(MODEL)
    watch_contact_forces(spec, "torso")
    return spec


@functools.cache
def _geometric() -> mujoco.MjSpec:
    spec = geometric_spec(MODEL)
    watch_contact_forces(spec, "torso")
    return spec


@functools.cache
def _height() -> float:
    return lowest(_geometric())


def base() -> mujoco.MjSpec:
    """Return Gymnasium's robot with mass and inertia set body by body."""
    return _frozen().copy()


def geometric_base() -> mujoco.MjSpec:
    """Return Gymnasium's robot with masses and inertias that follow from its geometry."""
    return _geometric().copy()


def contact_forces(state: State) -> Array:
    """Return torque and force on each body from contacts, clipped element by element, [S, body, 6] N m and N."""
    return state.xp.clip(state.cfrc_ext, -CONTACT_LIMIT, CONTACT_LIMIT)


CONTACT_FORCES = ObservationTerm(
    lambda state: contact_forces(state).reshape(len(state.qpos), -1), force_elements(("world", *BODIES))
)
"""Clipped contact forces of every body, the world first (always 0), as ProMP and PEARL publish them."""


def contact_cost(state: State) -> Array:
    """Return the squared norm of the clipped contact forces, [S]."""
    forces = contact_forces(state)
    return state.xp.einsum("sbi,sbi->s", forces, forces)


def velocity(state: State) -> Array:
    """Return the torso's velocity on the plane over the control step, [S, 2] m/s."""
    return (state.xpos[:, TORSO, :2] - state.previous["xpos"][:, TORSO, :2]) / state.dt


def forward_velocity(state: State) -> Array:
    """Return the velocity along x, [S] m/s."""
    return velocity(state)[:, 0]


def signed_velocity(state: State) -> Array:
    """Return g v along x, [S] m/s."""
    return state.task["direction"] * forward_velocity(state)


def velocity_along_heading(state: State) -> Array:
    """Return v (cos g, sin g), [S] m/s."""
    xp, heading = state.xp, state.task["heading"]
    return xp.einsum("si,is->s", velocity(state), xp.stack([xp.cos(heading), xp.sin(heading)]))


def velocity_error(state: State) -> Array:
    """Return |v - v*| along x, [S] m/s."""
    return state.xp.abs(forward_velocity(state) - state.task["target_velocity"])


def velocity_match(state: State) -> Array:
    """Return 1 - |v - v*| along x, [S] m/s."""
    return 1 - velocity_error(state)


def from_goal(state: State) -> Array:
    """Return the torso's position relative to the goal, [S, 2] m."""
    xp, angle, radius = state.xp, state.task["goal_angle"], state.task["goal_radius"]
    return state.xpos[:, TORSO, :2] - xp.stack([radius * xp.cos(angle), radius * xp.sin(angle)], axis=1)


def goal_distance(state: State) -> Array:
    """Return the sum over both axes of the torso's distance from the goal, [S] m."""
    return state.xp.sum(state.xp.abs(from_goal(state)), axis=1)


def goal_gap(state: State) -> Array:
    """Return the torso's distance from the goal, [S] m."""
    return state.xp.linalg.vector_norm(from_goal(state), axis=1)


def fallen(state: State) -> Array:
    """Return whether the torso is too low or too high, [S] bool."""
    z = state.qpos[:, 2]
    return (z < HEALTHY_Z[0]) | (z > HEALTHY_Z[1])


ENERGY = measures.energy(measures.path_of(velocity))


def walking(progress: StateFunction) -> dict[str, Any]:
    """Return measures and success of an ant that should move fast along a velocity without a fall."""
    return {
        "measures": {**measures.progress(progress), **measures.falls(fallen), **ENERGY},
        "success": (Criterion("speed", low=SPEED), Criterion("falls", high=0)),
    }


def reset(model: mujoco.MjModel, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Return starts as those of Gymnasium's Ant-v5."""
    qpos = model.qpos0 + rng.uniform(-RESET_POSITION, RESET_POSITION, (n, model.nq))
    return qpos, RESET_VELOCITY * rng.standard_normal((n, model.nv))


def cripple(spec: mujoco.MjSpec, leg: float) -> None:
    """Switch off both motors of a leg, counted from 0; below 0, of none."""
    for actuator in spec.actuators:
        if leg >= 0 and actuator.target in (f"hip_{LEGS[int(leg)]}", f"ankle_{LEGS[int(leg)]}"):
            actuator.gear = np.zeros(6)


def _family(settings: Any, rewards: dict[str, RewardTerm], **rest: Any) -> TaskFamily:
    family = TaskFamily(
        rewards={
            **rewards,
            "control": RewardTerm(control_cost, weight=-settings.control_cost),
            "contact": RewardTerm(contact_cost, weight=-settings.contact_cost),
        },
        reset=reset,
        action_low=np.full(8, -1.0),
        action_high=np.full(8, 1.0),
        horizon=settings.horizon,
        frame_skip=FRAME_SKIP,
        control=read_signals(base().compile(), "force"),
        action_scale=settings.action_scale,
        settings=settings,
        previous=("xpos",),
        groups={f"leg_{leg}": (f"hip_{leg}", f"ankle_{leg}") for leg in LEGS},
        **{
            "base": base,
            "observation": POSTURE,
            "terminate": fallen,
            **walking(forward_velocity),
            **rest,
        },
    )
    return telling_contacts(family, FEET)


def ant_direction(settings: AntDirectionSettings) -> TaskFamily:
    """Return the family with reward g v - c a^2 - contact cost + 1."""
    if settings.directions == "1d":
        task = Parameter("direction", "1", Choice((-1.0, 1.0)), Law("sign of the reward"), neutral=1.0)
        progress = signed_velocity
    else:
        task = Parameter("heading", "rad", Uniform(0, 2 * math.pi), Law("direction of the reward"), neutral=0.0)
        progress = velocity_along_heading
    return _family(
        settings,
        {"velocity": RewardTerm(progress), **survival(settings, fallen)},
        name="ant_direction",
        description="Ant in a direction that only the reward tells of",
        parameters=(task,),
        **walking(progress),
    )


def mark_goal(spec: mujoco.MjSpec, values: Mapping[str, float], *, distance: float) -> None:
    """Add a post at the goal, and a camera that sees the disc of goals from this distance, m."""
    x, y = (values["goal_radius"] * f(values["goal_angle"]) for f in (math.cos, math.sin))
    plain(
        spec.worldbody.add_geom(),
        name="goal",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        pos=(x, y, 0.4),
        size=(0.12, 0.4, 0),
        contype=0,
        conaffinity=0,
        rgba=(0.0, 0.62, 0.45, 1),
    )
    follow(spec, distance, AZIMUTH, -35.0)


def ant_goal(settings: AntGoalSettings) -> TaskFamily:
    """Return the family with reward -|xy - g|_1 - c a^2 - contact cost."""
    angle = Parameter("goal_angle", "rad", Uniform(0, 2 * math.pi), Law("goal of the reward"), neutral=0.0)
    radius = Parameter(
        name="goal_radius",
        unit="m",
        distribution=DiscRadius(settings.goal_radius),
        law=Law("goal of the reward"),
        neutral=settings.goal_radius / 2,
        ood=beyond(0, settings.goal_radius),
    )
    observation = {"place": PLACE, **POSTURE}
    return _family(
        settings,
        {"distance": RewardTerm(goal_distance, weight=-1.0)},
        name="ant_goal",
        description="Ant that finds an unseen goal in a disc around the start",
        parameters=(angle, radius),
        decorate=functools.partial(mark_goal, distance=3.5 * settings.goal_radius),
        terminate=None,
        measures={
            "goal_distance": Measure(goal_gap, "m", "mean"),
            "final_goal_distance": Measure(goal_gap, "m", "last"),
            **ENERGY,
        },
        success=(Criterion("final_goal_distance", high=GOAL_TOLERANCE),),
        observation=observation | ({"contact_forces": CONTACT_FORCES} if settings.observe_contact else {}),
    )


def ant_velocity(settings: AntVelocitySettings) -> TaskFamily:
    """Return the family with reward 1 - |v - v*| - c a^2 - contact cost + 0.05."""
    target = Parameter(
        name="target_velocity",
        unit="m/s",
        distribution=Uniform(settings.velocity_low, settings.velocity_high),
        law=Law("target of the reward"),
        neutral=0.0,
        ood=beyond(settings.velocity_low, settings.velocity_high),
    )
    return _family(
        settings,
        {"velocity": RewardTerm(velocity_match), **survival(settings, fallen)},
        name="ant_velocity",
        description="Ant at a target velocity that only the reward tells of",
        parameters=(target,),
        measures={"velocity_error": Measure(velocity_error, "m/s", "mean"), **measures.falls(fallen), **ENERGY},
        success=(Criterion("velocity_error", high=VELOCITY_TOLERANCE), Criterion("falls", high=0)),
    )


def ant_crippled(settings: AntCrippledSettings) -> TaskFamily:
    """Return the family with reward v - c a^2 - contact cost + 1 and one leg off: 0 to 2 in training, 3 held out."""
    leg = Parameter(
        name="crippled_leg",
        unit="1",
        distribution=Choice((0.0, 1.0, 2.0)),
        law=Law("leg without torque, none below 0", cripple),
        neutral=-1.0,
        held_out=Choice((3.0,)),
    )
    return _family(
        settings,
        {"velocity": RewardTerm(forward_velocity), **survival(settings, fallen)},
        name="ant_crippled",
        description="Ant with a leg that fails, forwards as fast as it can",
        parameters=(leg,),
        changes=Changes.of(settings, "crippled_leg"),
    )


def ant_limbs(settings: AntLimbsSettings) -> TaskFamily:
    """Return the family with reward v - c a^2 - contact cost + 1 on legs of other lengths and thicknesses."""
    return _family(
        settings,
        {"velocity": RewardTerm(forward_velocity), **survival(settings, fallen)},
        name="ant_limbs",
        description="Ant with legs of unknown lengths and thicknesses, forwards as fast as it can",
        base=geometric_base,
        parameters=limb_parameters(LIMBS, settings.limbs, settings.length_range, settings.thickness_range),
        settle=functools.partial(stand, height=_height()),
    )


def ant_terrain(settings: AntTerrainSettings) -> TaskFamily:
    """Return the family with reward v - c a^2 - contact cost + 1, on uneven ground."""
    running = _family(
        settings,
        {"velocity": RewardTerm(forward_velocity), **survival(settings, fallen)},
        name="ant_terrain",
        description="Ant on ground that it has to find out about, forwards as fast as it can",
        parameters=(),
    )
    field = Field(
        settings.ground_ahead, settings.ground_behind, settings.ground_beside, TERRAIN_PATCH, cell=TERRAIN_CELL
    )
    return on_terrain(running, settings, ground=Ground(field, FREE), lift=0.0, feet=standing_on(running, FEET))
