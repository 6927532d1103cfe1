"""Hopper and Walker2d families: random parameters (rand_param_envs), limbs, terrain. Gymnasium's own models."""

from __future__ import annotations

import functools
from typing import Any

import mujoco
import numpy as np

from metarl.envs import measures
from metarl.envs.arrays import Array
from metarl.envs.control import read_signals
from metarl.envs.family import TaskFamily
from metarl.envs.locomotion import (
    control_cost,
    gymnasium_model,
    planar_observation,
    root_velocity,
    survival,
    uniform_start,
)
from metarl.envs.mjcf import load_spec
from metarl.envs.parameters import Law, LogUniform, Parameter, outside_scale
from metarl.envs.robots.dynamics import dynamics_parameters
from metarl.envs.robots.feet import standing_on, telling_contacts
from metarl.envs.robots.morphology import geometric_spec, limb_parameters, lowest, stand
from metarl.envs.robots.walkers_settings import (
    HopperParametersSettings,
    Walker2dDynamicsSettings,
    Walker2dLimbsSettings,
    Walker2dParametersSettings,
    Walker2dTerrainSettings,
)
from metarl.envs.state import State, StateFunction
from metarl.envs.terms import Criterion, RewardTerm
from metarl.envs.terrain.kinds import Field
from metarl.envs.terrain.on_terrain import PLANAR, Ground, on_terrain

HOPPER = gymnasium_model("hopper")
WALKER2D = gymnasium_model("walker2d_v5")
FRAME_SKIP = 4
TERRAIN_PATCH = 1.0  # m, half the side of the flat start
RESET_NOISE = 0.005  # half-width of the uniform noise on qpos and qvel
SPEED = 0.5  # m/s, the least mean speed of a success
VELOCITY_LIMIT = 10.0  # m/s and rad/s, at which observed velocities are clipped
MASS_BASE, FRICTION_BASE, DAMPING_BASE = 1.5, 1.5, 1.3  # each factor is base^U(-exponent, exponent)
HOPPER_JOINTS = ("thigh_joint", "leg_joint", "foot_joint")
WALKER2D_JOINTS = (*HOPPER_JOINTS, "thigh_left_joint", "leg_left_joint", "foot_left_joint")
FEET = {"foot": "foot_geom", "foot_left": "foot_left_geom"}  # geoms; Hopper has the first
LIMBS = {part: [f"{part}_joint", f"{part}_left_joint"] for part in ("thigh", "leg", "foot")}


@functools.cache
def _frozen(path: str, timestep: float) -> mujoco.MjSpec:
    spec = load_spec(path)
    spec.option.timestep = timestep
    return spec


@functools.cache
def _geometric(path: str, timestep: float) -> tuple[mujoco.MjSpec, float]:
    spec = geometric_spec(path)
    spec.option.timestep = timestep
    return spec, lowest(spec)


def base(path: str, timestep: float) -> mujoco.MjSpec:
    """Return Gymnasium's robot with mass and inertia set body by body."""
    return _frozen(path, timestep).copy()


def geometric_base(path: str, timestep: float) -> mujoco.MjSpec:
    """Return Gymnasium's robot with masses and inertias that follow from its geometry."""
    return _geometric(path, timestep)[0].copy()


def hopper_fallen(state: State) -> Array:
    """Return whether the robot is too low, tilted, or another element of the state is out of bounds, [S] bool."""
    xp, z, pitch = state.xp, state.qpos[:, 1], state.qpos[:, 2]
    rest = xp.concat([state.qpos[:, 2:], state.qvel], axis=1)
    return (z <= 0.7) | (xp.abs(pitch) >= 0.2) | xp.any(xp.abs(rest) >= 100, axis=1)


def walker2d_fallen(state: State) -> Array:
    """Return whether the robot is too low, too high or tilted, [S] bool."""
    z, pitch = state.qpos[:, 1], state.qpos[:, 2]
    return (z <= 0.8) | (z >= 2.0) | (state.xp.abs(pitch) >= 1.0)


def scale_mass(spec: mujoco.MjSpec, factor: float, *, body: str) -> None:
    """Multiply a body's mass and inertia: the same shape of another density."""
    scaled = spec.body(body)
    scaled.mass *= factor
    scaled.inertia *= factor


def scale_damping(spec: mujoco.MjSpec, factor: float, *, joint: str) -> None:
    """Multiply a joint's viscous damping."""
    spec.joint(joint).damping *= factor


def scale_friction(spec: mujoco.MjSpec, factor: float, *, geom: str) -> None:
    """Multiply a geom's sliding friction. A contact has the larger one of its two geoms."""
    spec.geom(geom).friction[0] *= factor


def random_parameters(path: str, timestep: float, exponent: float) -> tuple[Parameter, ...]:
    """Return factors on each body's mass, each driven joint's damping, and sliding friction of floor and feet.

    Factors are 1.5^U, for dampings 1.3^U. rand_param_envs draws a body's inertia apart from its mass, which may be
    impossible; here it scales with the mass. It also draws every friction coefficient; here torsional and rolling
    friction have no effect (condim 3), and only the feet can touch the floor while an episode lasts.
    """

    def scaled(name: str, base: float, quantity: str, edit: Any) -> Parameter:
        with np.errstate(over="ignore"):  # an infinite range is refused by name
            high = float(np.float64(base) ** exponent)
        law = Law(f"{quantity} x value", edit)
        return Parameter(name, "1", LogUniform(1 / high, high), law, 1.0, above=0.0, ood=outside_scale(high))

    spec = _frozen(path, timestep)
    driven = [actuator.target for actuator in spec.actuators]
    masses = [
        scaled(f"{b.name}_mass", MASS_BASE, "mass and inertia", functools.partial(scale_mass, body=b.name))
        for b in spec.bodies[1:]
    ]
    dampings = [
        scaled(f"{joint}_damping", DAMPING_BASE, "damping", functools.partial(scale_damping, joint=joint))
        for joint in driven
    ]
    frictions = [
        scaled(
            f"{g.name.removesuffix('_geom')}_friction",
            FRICTION_BASE,
            "sliding friction",
            functools.partial(scale_friction, geom=g.name),
        )
        for g in spec.geoms
        if g.name.startswith(("floor", "foot"))
    ]
    return (*masses, *dampings, *frictions)


def _family(settings: Any, joints: tuple[str, ...], terminate: StateFunction, **rest: Any) -> TaskFamily:
    family = TaskFamily(
        observation=planar_observation(joints, VELOCITY_LIMIT),
        rewards={
            "velocity": RewardTerm(root_velocity),
            **survival(settings, terminate),
            "control": RewardTerm(control_cost, -settings.control_cost),
        },
        reset=functools.partial(uniform_start, RESET_NOISE),
        action_low=np.full(len(joints), -1.0),
        action_high=np.full(len(joints), 1.0),
        horizon=settings.horizon,
        frame_skip=FRAME_SKIP,
        control=read_signals(rest["base"]().compile(), "force"),
        previous=("qpos",),
        terminate=terminate,
        measures={
            **measures.progress(root_velocity),
            **measures.falls(terminate),
            **measures.energy(measures.path_of(root_velocity)),
        },
        success=(Criterion("speed", low=SPEED), Criterion("falls", high=0)),
        action_scale=settings.action_scale,
        settings=settings,
        groups={"right_leg": joints[:3], "left_leg": joints[3:]} if len(joints) == 6 else {},
        **rest,
    )
    feet = dict(list(FEET.items())[: len(joints) // 3])
    return telling_contacts(family, feet)


def hopper_parameters(settings: HopperParametersSettings) -> TaskFamily:
    """Return the family with reward v + 1 - c a^2."""
    return _family(
        settings,
        HOPPER_JOINTS,
        name="hopper_parameters",
        description="Hopper of unknown masses, damping and friction, forwards as fast as it can",
        base=functools.partial(base, HOPPER, settings.timestep),
        parameters=random_parameters(HOPPER, settings.timestep, settings.exponent),
        terminate=hopper_fallen,
    )


def walker2d_parameters(settings: Walker2dParametersSettings) -> TaskFamily:
    """Return the family with reward v + 1 - c a^2."""
    return _family(
        settings,
        WALKER2D_JOINTS,
        name="walker2d_parameters",
        description="Walker2d of unknown masses, damping and friction, forwards as fast as it can",
        base=functools.partial(base, WALKER2D, settings.timestep),
        parameters=random_parameters(WALKER2D, settings.timestep, settings.exponent),
        terminate=walker2d_fallen,
    )


def walker2d_dynamics(settings: Walker2dDynamicsSettings) -> TaskFamily:
    """Return the family with reward v + 1 - c a^2."""
    return _family(
        settings,
        WALKER2D_JOINTS,
        name="walker2d_dynamics",
        description="Walker2d of unknown mass, damping, torque and friction, forwards as fast as it can",
        base=functools.partial(base, WALKER2D, settings.timestep),
        parameters=dynamics_parameters(settings),
        terminate=walker2d_fallen,
    )


def walker2d_limbs(settings: Walker2dLimbsSettings) -> TaskFamily:
    """Return the family with reward v + 1 - c a^2 on legs of other lengths and thicknesses."""
    height = _geometric(WALKER2D, settings.timestep)[1]
    return _family(
        settings,
        WALKER2D_JOINTS,
        name="walker2d_limbs",
        description="Walker2d with legs of unknown lengths and thicknesses, forwards as fast as it can",
        base=functools.partial(geometric_base, WALKER2D, settings.timestep),
        parameters=limb_parameters(LIMBS, settings.limbs, settings.length_range, settings.thickness_range),
        settle=functools.partial(stand, height=height),
        terminate=walker2d_fallen,
    )


def walker2d_terrain(settings: Walker2dTerrainSettings) -> TaskFamily:
    """Return the family with reward v + 1 - c a^2, on uneven ground."""
    running = _family(
        settings,
        WALKER2D_JOINTS,
        name="walker2d_terrain",
        description="Walker2d on ground that it has to find out about, forwards as fast as it can",
        base=functools.partial(base, WALKER2D, settings.timestep),
        parameters=(),
        terminate=walker2d_fallen,
    )
    field = Field(settings.ground_ahead, settings.ground_behind, half_width=0.5, patch=TERRAIN_PATCH, strip=True)
    return on_terrain(running, settings, ground=Ground(field, PLANAR), lift=0.0, feet=standing_on(running, FEET))
