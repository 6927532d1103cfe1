"""HalfCheetah families: velocity, direction (MAML 2017, ProMP, PEARL), mass (RoML), disabled joint (Nagabandi 2019),
body sizes, limbs. Gymnasium's own model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from metarl.envs import measures
from metarl.envs.arrays import Array
from metarl.envs.control import read_signals
from metarl.envs.family import TaskFamily
from metarl.envs.locomotion import control_cost, gymnasium_model, planar_observation, root_velocity
from metarl.envs.mjcf import load_spec
from metarl.envs.parameters import Choice, Law, LogUniform, Parameter, Uniform, beyond, outside_scale
from metarl.envs.robots.dynamics import dynamics_parameters
from metarl.envs.robots.feet import standing_on, telling_contacts
from metarl.envs.robots.half_cheetah_settings import (
    HalfCheetahBodySettings,
    HalfCheetahDirectionSettings,
    HalfCheetahDisabledJointSettings,
    HalfCheetahDynamicsSettings,
    HalfCheetahLimbsSettings,
    HalfCheetahMassSettings,
    HalfCheetahTerrainSettings,
    HalfCheetahVelocitySettings,
)
from metarl.envs.robots.morphology import geometric_spec, limb_parameters, lowest, stand
from metarl.envs.state import State, StateFunction
from metarl.envs.task import Changes
from metarl.envs.terms import Criterion, Measure, ObservationTerm, RewardTerm, elements
from metarl.envs.terrain.kinds import Field
from metarl.envs.terrain.on_terrain import PLANAR, Ground, on_terrain

MODEL = gymnasium_model("half_cheetah")
FRAME_SKIP = 5
RESET_POSITION = 0.1  # half-width of the uniform noise on qpos, m and rad
RESET_VELOCITY = 0.1  # standard deviation of the noise on qvel, m/s and rad/s
SPEED = 1.0  # m/s, a body length a second: the least mean speed of a success
VELOCITY_TOLERANCE = 0.5  # m/s, the largest mean error of a success, in which the robot also gets up to speed
LIMB_RADIUS = 0.046  # m, of every geom but the floor
TERRAIN_PATCH = 1.5  # m, half the side of the flat start: the robot reaches .8 m ahead and behind
TERRAIN_LIFT = 0.15  # m, above which no start touches the ground
JOINTS = ("back_thigh", "back_shin", "back_foot", "front_thigh", "front_shin", "front_foot")
MOTORS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")  # joints, as the model names them
LIMBS = {part: [f"b{part}", f"f{part}"] for part in ("thigh", "shin", "foot")}
FEET = {"back_foot": "bfoot", "front_foot": "ffoot"}  # geoms
SIZES = {"torso": ["torso"], "head": ["head"], **LIMBS}  # geoms
OBSERVATION = planar_observation(JOINTS)
TORSO_PLACE = ObservationTerm(lambda state: state.xpos[:, 1], elements("m", (f"torso_{axis}" for axis in "xyz")))
"""Position of the torso, which RoML observes."""


@functools.cache
def _neutral() -> mujoco.MjSpec:
    spec = load_spec(MODEL)
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_ISLAND  # saves 4 % of a step, with bitwise equal results
    return spec


@functools.cache
def _geometric() -> mujoco.MjSpec:
    return geometric_spec(MODEL)


@functools.cache
def _height() -> float:
    return lowest(_geometric())


def base() -> mujoco.MjSpec:
    """Return Gymnasium's robot with mass and inertia set body by body."""
    return _neutral().copy()


def geometric_base() -> mujoco.MjSpec:
    """Return Gymnasium's robot with masses and inertias that follow from its geometry."""
    return _geometric().copy()


def velocity_error(state: State) -> Array:
    """Return |v - v*|, [S] m/s."""
    return state.xp.abs(root_velocity(state) - state.task["target_velocity"])


def directed_velocity(state: State) -> Array:
    """Return g v, [S] m/s."""
    return state.task["direction"] * root_velocity(state)


def torso_height(state: State) -> Array:
    """Return the height of the torso over its place in the model, [S] m."""
    return state.qpos[:, 1]


ENERGY = measures.energy(measures.path_of(root_velocity))


def reset(model: mujoco.MjModel, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Return starts as those of Gymnasium's HalfCheetah-v5."""
    qpos = model.qpos0 + rng.uniform(-RESET_POSITION, RESET_POSITION, (n, model.nq))
    return qpos, RESET_VELOCITY * rng.standard_normal((n, model.nv))


def scale_mass(spec: mujoco.MjSpec, factor: float, *, scale_inertia: bool) -> None:
    """Multiply every body's mass, and set every limb's radius to .046 m x factor (RoML)."""
    for body in spec.bodies[1:]:
        body.mass *= factor
        if scale_inertia:
            body.inertia *= factor
        for geom in body.geoms:
            geom.size[0] = LIMB_RADIUS * factor


def disable(spec: mujoco.MjSpec, joint: float) -> None:
    """Switch off one motor, counted from 0 as in `MOTORS`; below 0, none."""
    if joint >= 0:
        spec.actuator(MOTORS[int(joint)]).gear = np.zeros(6)


def scale_size(spec: mujoco.MjSpec, factor: float, *, geoms: Sequence[str]) -> None:
    """Multiply radius and length of capsules about their middles; the joints stay where they are."""
    for geom in geoms:
        spec.geom(geom).size *= factor


def _running(velocity: StateFunction) -> dict[str, Any]:
    """Return measures and success of a robot that should move fast along a velocity."""
    return {"measures": {**measures.progress(velocity), **ENERGY}, "success": (Criterion("speed", low=SPEED),)}


def _family(settings: Any, rewards: dict[str, RewardTerm], **rest: Any) -> TaskFamily:
    family = TaskFamily(
        rewards={**rewards, "control": RewardTerm(control_cost, weight=-settings.control_cost)},
        reset=reset,
        action_low=np.full(6, -1.0),
        action_high=np.full(6, 1.0),
        horizon=settings.horizon,
        frame_skip=FRAME_SKIP,
        control=read_signals(base().compile(), "force"),
        previous=("qpos",),
        action_scale=settings.action_scale,
        settings=settings,
        groups={"back": MOTORS[:3], "front": MOTORS[3:]},
        encoders=dict(zip(MOTORS, JOINTS, strict=True)),
        **{
            "base": base,
            "observation": OBSERVATION,
            **_running(root_velocity),
            **rest,
        },
    )
    return telling_contacts(family, FEET)


def half_cheetah_velocity(settings: HalfCheetahVelocitySettings) -> TaskFamily:
    """Return the family with reward -|v - v*| - c a^2."""
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
        {"velocity": RewardTerm(velocity_error, weight=-1.0)},
        name="half_cheetah_velocity",
        description="HalfCheetah at a target velocity that only the reward tells of",
        parameters=(target,),
        measures={"velocity_error": Measure(velocity_error, "m/s", "mean"), **ENERGY},
        success=(Criterion("velocity_error", high=VELOCITY_TOLERANCE),),
    )


def half_cheetah_direction(settings: HalfCheetahDirectionSettings) -> TaskFamily:
    """Return the family with reward g v - c a^2."""
    direction = Parameter(
        name="direction",
        unit="1",
        distribution=Choice((-1.0, 1.0)),
        law=Law("sign of the reward"),
        neutral=1.0,
    )
    return _family(
        settings,
        {"velocity": RewardTerm(directed_velocity)},
        name="half_cheetah_direction",
        description="HalfCheetah forwards or backwards, as only the reward tells",
        parameters=(direction,),
        **_running(directed_velocity),
    )


def half_cheetah_mass(settings: HalfCheetahMassSettings) -> TaskFamily:
    """Return the family with reward v - c a^2 + torso height."""
    consistent = settings.inertia == "consistent"
    with np.errstate(over="ignore"):  # an infinite range is refused by name
        high = float(np.exp2(settings.mass_exponent))
    mass = Parameter(
        name="mass_scale",
        unit="1",
        distribution=LogUniform(1 / high, high),
        law=Law(
            f"masses and radii x value, inertia {'x value' if consistent else 'kept'}",
            functools.partial(scale_mass, scale_inertia=consistent),
        ),
        neutral=1.0,
        above=0.0,
        ood=outside_scale(high),
    )
    return _family(
        settings,
        {"velocity": RewardTerm(root_velocity), "height": RewardTerm(torso_height)},
        name="half_cheetah_mass",
        description="HalfCheetah of unknown mass, forwards as fast as it can",
        parameters=(mass,),
        changes=Changes.of(settings, "mass_scale"),
        observation={**OBSERVATION, "torso_place": TORSO_PLACE},
    )


def half_cheetah_dynamics(settings: HalfCheetahDynamicsSettings) -> TaskFamily:
    """Return the family with reward v - c a^2."""
    return _family(
        settings,
        {"velocity": RewardTerm(root_velocity)},
        name="half_cheetah_dynamics",
        description="HalfCheetah of unknown mass, damping, torque and friction, forwards as fast as it can",
        parameters=dynamics_parameters(settings),
    )


def half_cheetah_disabled_joint(settings: HalfCheetahDisabledJointSettings) -> TaskFamily:
    """Return the family with reward v - c a^2 and one motor off: 0 to 4 in training, 5 (the front foot) held out.

    Nagabandi 2019's code draws 1 to 5 in training and test alike, and counts no control cost of the failed motor.
    """
    joint = Parameter(
        name="disabled_joint",
        unit="1",
        distribution=Choice((0.0, 1.0, 2.0, 3.0, 4.0)),
        law=Law("motor without torque, none below 0", disable),
        neutral=-1.0,
        held_out=Choice((5.0,)),
    )
    return _family(
        settings,
        {"velocity": RewardTerm(root_velocity)},
        name="half_cheetah_disabled_joint",
        description="HalfCheetah with a motor that fails, forwards as fast as it can",
        parameters=(joint,),
        changes=Changes.of(settings, "disabled_joint"),
    )


def half_cheetah_body(settings: HalfCheetahBodySettings) -> TaskFamily:
    """Return the family with reward v - c a^2 with body parts of other sizes."""
    sizes = (1 - settings.size_range, 1 + settings.size_range)
    parameters = tuple(
        Parameter(
            name=f"{part}_size",
            unit="1",
            distribution=Uniform(*sizes),
            law=Law("radius and length x value, mass by density", functools.partial(scale_size, geoms=tuple(geoms))),
            neutral=1.0,
            above=0.0,
            ood=beyond(*sizes),
        )
        for part, geoms in SIZES.items()
    )
    return _family(
        settings,
        {"velocity": RewardTerm(root_velocity)},
        name="half_cheetah_body",
        description="HalfCheetah with body parts of unknown sizes, forwards as fast as it can",
        base=geometric_base,
        parameters=parameters,
        settle=functools.partial(stand, height=_height()),
    )


def half_cheetah_limbs(settings: HalfCheetahLimbsSettings) -> TaskFamily:
    """Return the family with reward v - c a^2 on legs of other lengths and thicknesses."""
    return _family(
        settings,
        {"velocity": RewardTerm(root_velocity)},
        name="half_cheetah_limbs",
        description="HalfCheetah with legs of unknown lengths and thicknesses, forwards as fast as it can",
        base=geometric_base,
        parameters=limb_parameters(LIMBS, settings.limbs, settings.length_range, settings.thickness_range),
        settle=functools.partial(stand, height=_height()),
    )


def half_cheetah_terrain(settings: HalfCheetahTerrainSettings) -> TaskFamily:
    """Return the family with reward v - c a^2, on uneven ground."""
    running = _family(
        settings,
        {"velocity": RewardTerm(root_velocity)},
        name="half_cheetah_terrain",
        description="HalfCheetah on ground that it has to find out about, forwards as fast as it can",
        parameters=(),
    )
    field = Field(settings.ground_ahead, settings.ground_behind, half_width=0.5, patch=TERRAIN_PATCH, strip=True)
    feet = standing_on(running, FEET)
    return on_terrain(running, settings, ground=Ground(field, PLANAR), lift=TERRAIN_LIFT, feet=feet)
