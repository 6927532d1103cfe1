"""Measures of an episode besides its return: energy, cost of transport, distance, falls.

Each is a function of the state after a control step; `Measure` says how it is reduced over the episode.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.efforts import applied_forces
from metarl.envs.state import State, StateFunction
from metarl.envs.terms import FALLS, Measure


def work(state: State) -> Array:
    """Return sum_i |tau_i w_i| dt over the motors, [S] J: their work in a control step, without recuperation.

    Force and velocity of each actuator are MuJoCo's, gears and the joints' limits included, at the last substep.
    """
    return state.xp.sum(state.xp.abs(applied_forces(state) * state.actuator_velocity), axis=1) * state.dt


def weight(state: State, root: int = 0) -> Array:
    """Return m g of a body and all that it carries, [S] N; body 0 stands for the whole model."""
    return state.once(_weigher(root))[state.task_index]


@functools.cache
def _weigher(root: int):
    def weights(models: Sequence[mujoco.MjModel]) -> Array:
        """Return the weight in each model, [K] N."""
        return np.array([m.body_subtreemass[root] * np.linalg.norm(m.opt.gravity) for m in models])

    return weights


def step_of(velocity: StateFunction) -> StateFunction:
    """Return a function for the displacement over the control step, [S] m, by a velocity [S] m/s."""
    return lambda state: velocity(state) * state.dt


def path_of(velocity: StateFunction) -> StateFunction:
    """Return a function for the path length over the control step, [S] m, by a velocity [S] or [S, 2] m/s."""

    def path(state: State) -> Array:
        v = velocity(state)
        return (state.xp.abs(v) if v.ndim == 1 else state.xp.linalg.vector_norm(v, axis=1)) * state.dt

    return path


def energy(path: StateFunction, root: int = 0) -> dict[str, Measure]:
    """Return measures of energy and cost of transport, energy / (m g x path length).

    path: path length of the control step, [S] m. root: the robot's first body; 0 where the whole model is the robot.
    """
    return {
        "energy": Measure(work, "J", "sum"),
        "cost_of_transport": Measure(work, "1", "sum", per=lambda state: weight(state, root) * path(state)),
    }


def falls(fallen: StateFunction) -> dict[str, Measure]:
    """Return the measure of whether the robot fell in the episode, whose mean is the share of episodes with a fall."""
    return {FALLS: Measure(fallen, "1", "max")}


def progress(velocity: StateFunction) -> dict[str, Measure]:
    """Return measures of distance and mean speed by a velocity, [S] m/s; backwards is negative."""
    return {"distance": Measure(step_of(velocity), "m", "sum"), "speed": Measure(velocity, "m/s", "mean")}
