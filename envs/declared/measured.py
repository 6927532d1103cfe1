"""Measures of an episode of a robot that follows commands."""

from __future__ import annotations

from metarl.envs import measures
from metarl.envs.arrays import Array
from metarl.envs.declared import rewards
from metarl.envs.declared.rig import Rig
from metarl.envs.state import State, StateFunction
from metarl.envs.terms import Measure


def velocity_error(rig: Rig) -> Measure:
    """Return the mean error of the velocity forwards and to the left."""
    return Measure(rewards.velocity_error(rig), "m/s", "mean")


def yaw_rate_error(rig: Rig) -> Measure:
    """Return the mean error of the rate of turning."""
    gap = rewards.yaw_gap(rig)
    return Measure(lambda state: state.xp.abs(gap(state)), "rad/s", "mean")


def tracking_errors(rig: Rig) -> dict[str, Measure]:
    """Return the measures of both errors."""
    return {"velocity_error": velocity_error(rig), "yaw_rate_error": yaw_rate_error(rig)}


def path(rig: Rig) -> StateFunction:
    """Return a function for the base's horizontal path length over the control step, [S] m."""
    base = rig.needed_base

    def velocity(state: State) -> Array:
        return base.world_velocity(state)[:, :2]

    return measures.path_of(velocity)
