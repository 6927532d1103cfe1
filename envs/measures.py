"""What families measure of an episode besides its return: energy, cost of transport, distance, falls.

Each is a function of the state after a control step, of one step; `Measure` says what becomes of it over the episode.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.state import State, StateFunction
from metarl.envs.terms import Measure


def work(state: State) -> Array:
    """sum_i |tau_i w_i| dt over the motors, [S] J: what they do in a control step, none of it won back.

    Force and velocity of each actuator are MuJoCo's own, gears included; those of the step's last substep stand for
    the whole step.
    """
    return state.xp.sum(state.xp.abs(state.actuator_force * state.actuator_velocity), axis=1) * state.dt


def weight(state: State, root: int = 0) -> Array:
    """m g of a body and all that it carries, of the whole model for body 0, [S] N."""
    return state.once(_weigher(root))[state.task_index]


@functools.cache
def _weigher(root: int):
    def weights(models: Sequence[mujoco.MjModel]) -> Array:
        """[K] N"""
        return np.array([m.body_subtreemass[root] * np.linalg.norm(m.opt.gravity) for m in models])

    return weights


def step_of(velocity: StateFunction) -> StateFunction:
    """Displacement over the control step, [S] m, by a velocity [S] m/s."""
    return lambda state: velocity(state) * state.dt


def path_of(velocity: StateFunction) -> StateFunction:
    """Length of the way over the control step, [S] m, by a velocity along a track [S] or on the plane [S, 2], m/s."""

    def path(state: State) -> Array:
        v = velocity(state)
        return (state.xp.abs(v) if v.ndim == 1 else state.xp.linalg.vector_norm(v, axis=1)) * state.dt

    return path


def energy(path: StateFunction, root: int = 0) -> dict[str, Measure]:
    """Energy, and cost of transport: energy / (m g x length of the way), as walking machines are compared by.

    path: [S] m of the control step. root: the robot's first body; 0 where all that the model holds is the robot.
    """
    return {
        "energy": Measure(work, "J", "sum"),
        "cost_of_transport": Measure(work, "1", "sum", per=lambda state: weight(state, root) * path(state)),
    }


def falls(fallen: StateFunction) -> dict[str, Measure]:
    """Whether the episode ended by a fall: over episodes, the share of them."""
    return {"falls": Measure(fallen, "1", "last")}


def progress(velocity: StateFunction) -> dict[str, Measure]:
    """Distance covered and mean speed along a velocity, [S] m/s: backwards is negative."""
    return {"distance": Measure(step_of(velocity), "m", "sum"), "speed": Measure(velocity, "m/s", "mean")}
