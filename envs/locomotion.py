"""What the robots of Gymnasium have in common: model files, noise at the start, costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gymnasium
import mujoco
import numpy as np

from metarl.envs.family import Array, State


def gymnasium_model(name: str) -> str:
    """Path of one of Gymnasium's own MJCF files."""
    return str(Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / f"{name}.xml")


def root_velocity(state: State) -> Array:
    """Along x over the control step, of a root that slides along it, [S] m/s; of a family whose `previous` has qpos."""
    return (state.qpos[:, 0] - state.previous["qpos"][:, 0]) / state.dt


def control_cost(state: State) -> Array:
    """Squared norm of the applied action, [S]."""
    return state.xp.einsum("sa,sa->s", state.action, state.action)


def survive(state: State) -> Array:
    """1 at every step, the last one too, as published; Gymnasium's v5 gives 0 at the step that ends the episode."""
    return state.xp.ones_like(state.qpos[:, 0])


def uniform_start(half_width: float, model: mujoco.MjModel, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """qpos and qvel of n episodes, each element uniform within half_width of the model's own, as Gymnasium resets."""
    qpos = model.qpos0 + rng.uniform(-half_width, half_width, (n, model.nq))
    return qpos, rng.uniform(-half_width, half_width, (n, model.nv))


def watch_contact_forces(spec: mujoco.MjSpec, body: str) -> None:
    """Have every step fill `cfrc_ext`: MuJoCo computes it only for a sensor that needs it.

    It is then that of the last substep's start. Gymnasium calls mj_rnePostConstraint after mj_step: under the
    Runge-Kutta integrator it sees the forces of an intermediate stage.
    """
    spec.add_sensor(
        name="acceleration",
        type=mujoco.mjtSensor.mjSENS_FRAMELINACC,
        objtype=mujoco.mjtObj.mjOBJ_BODY,
        objname=body,
    )


def force_names(bodies: Sequence[str]) -> tuple[str, ...]:
    """Of the elements of `cfrc_ext`, body by body: torque, then force, about the robot's centre of mass."""
    parts = (*(f"torque_{axis} [N m]" for axis in "xyz"), *(f"force_{axis} [N]" for axis in "xyz"))
    return tuple(f"{body}_contact_{part}" for body in bodies for part in parts)
