"""Functions that Gymnasium's robots share: model files, observations, noise at the start, costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import gymnasium
import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.family_settings import SurvivalSettings
from metarl.envs.state import State, StateFunction
from metarl.envs.terms import Element, ObservationTerm, RewardTerm, elements


def gymnasium_model(name: str) -> str:
    """Return the path of one of Gymnasium's own MJCF files."""
    return str(Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / f"{name}.xml")


def root_velocity(state: State) -> Array:
    """Return the velocity along x over the control step of a root on a slide, [S] m/s; needs previous qpos."""
    return (state.qpos[:, 0] - state.previous["qpos"][:, 0]) / state.dt


def control_cost(state: State, of: Literal["action", "ctrl"] = "action") -> Array:
    """Return the squared norm of the applied action, or of the control signals that the model has motors for, [S]."""
    values = getattr(state, of)
    return state.xp.einsum("sa,sa->s", values, values)


def survive(state: State) -> Array:
    """Return 1 at every step, [S]: as published, also at the last one, where Gymnasium's v5 gives 0."""
    return state.xp.ones_like(state.qpos[:, 0])


def fall(fallen: StateFunction) -> StateFunction:
    """Return a function that is 1 at the step that ends in a fall, else 0, [S]."""
    return lambda state: state.xp.astype(fallen(state), state.qpos.dtype)


def survival(settings: SurvivalSettings, fallen: StateFunction) -> dict[str, RewardTerm]:
    """Return the rewards of robots that must not fall."""
    cost = {"fall": RewardTerm(fall(fallen), -settings.fall_cost)} if settings.fall_cost else {}
    return {"survive": RewardTerm(survive, settings.survive), **cost}


def uniform_start(half_width: float, model: mujoco.MjModel, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Return qpos and qvel of n episodes, each element uniform within half_width of the model's, as Gymnasium does."""
    qpos = model.qpos0 + rng.uniform(-half_width, half_width, (n, model.nq))
    return qpos, rng.uniform(-half_width, half_width, (n, model.nv))


def watch_contact_forces(spec: mujoco.MjSpec, body: str) -> None:
    """Add a sensor so that MuJoCo computes `cfrc_ext` at every step.

    Its values are those of the last substep's start. Gymnasium calls mj_rnePostConstraint after mj_step, and so gets
    the forces of an intermediate stage of the Runge-Kutta integrator.
    """
    spec.add_sensor(
        name="acceleration",
        type=mujoco.mjtSensor.mjSENS_FRAMELINACC,
        objtype=mujoco.mjtObj.mjOBJ_BODY,
        objname=body,
    )


def force_elements(bodies: Iterable[str]) -> tuple[Element, ...]:
    """Return the elements of `cfrc_ext`, body by body: torque, then force, about the robot's centre of mass."""
    return tuple(
        Element(f"{body}_contact_{kind}_{axis}", unit)
        for body in bodies
        for kind, unit in (("torque", "N m"), ("force", "N"))
        for axis in "xyz"
    )


def planar_observation(joints: Sequence[str], velocity_limit: float = math.inf) -> dict[str, ObservationTerm]:
    """Return qpos without the place on the track, and qvel, of a robot that moves in the x-z plane.

    velocity_limit: m/s and rad/s, at which velocities are clipped.
    """

    def velocities(state: State) -> Array:
        clipped = velocity_limit < math.inf
        return state.xp.clip(state.qvel, -velocity_limit, velocity_limit) if clipped else state.qvel

    names = [f"{joint}_velocity" for joint in joints]
    return {
        "positions": ObservationTerm(
            lambda state: state.qpos[:, 1:],
            (Element("root_z", "m"), Element("root_pitch", "rad"), *elements("rad", joints)),
        ),
        "velocities": ObservationTerm(
            velocities,
            (
                *elements("m/s", ("root_x_velocity", "root_z_velocity")),
                *elements("rad/s", ("root_pitch_velocity", *names)),
            ),
        ),
    }


def free_observation(root: str, joints: Sequence[str]) -> dict[str, ObservationTerm]:
    """Return qpos without the place on the plane, and qvel, of a robot whose root is on a free joint."""
    names = [f"{joint}_velocity" for joint in joints]
    return {
        "positions": ObservationTerm(
            lambda state: state.qpos[:, 2:],
            (
                Element(f"{root}_z", "m"),
                *elements("1", (f"{root}_quaternion_{part}" for part in "wxyz")),
                *elements("rad", joints),
            ),
        ),
        "velocities": ObservationTerm(
            lambda state: state.qvel,
            (
                *elements("m/s", (f"{root}_{axis}_velocity" for axis in "xyz")),
                *elements("rad/s", (f"{root}_{axis}_angular_velocity" for axis in "xyz")),
                *elements("rad/s", names),
            ),
        ),
    }
