"""Measures and success of a task of a user's robot."""

from __future__ import annotations

from typing import Any

from metarl.envs import measures
from metarl.envs.declared import rewards
from metarl.envs.declared.measured import path, velocity_error, yaw_rate_error
from metarl.envs.declared.rig import Rig
from metarl.envs.own_robot.description import Robot
from metarl.envs.terms import Criterion, Measure

VELOCITY_TOLERANCE = 0.25
"""Largest mean velocity error of a success, m/s."""
REACHED = 0.05
"""Largest distance to the target at the end of a success, m."""
TURNED = 0.1
"""Largest angle to the target's orientation at the end of a success, rad."""


def judged(robot: Robot, rig: Rig) -> dict[str, Any]:
    """Return measures and success of a family of this robot."""
    found: dict[str, Measure] = {}
    success: list[Criterion] = []
    if rig.reaching is not None:
        found["distance_to_target"] = Measure(rewards.distance(rig), "m", "last")
        success.append(Criterion("distance_to_target", high=REACHED))
        if rig.reaching.aim is not None:
            found["angle_to_target"] = Measure(rewards.orientation_error(rig), "rad", "last")
            success.append(Criterion("angle_to_target", high=TURNED))
    base = rig.base
    if base is None:
        found["energy"] = Measure(measures.work, "J", "sum")
        return {"measures": found, "success": tuple(success)}
    if {"forward_velocity", "sideways_velocity"} & set(rig.commands):
        found["velocity_error"] = velocity_error(rig)
        success.append(Criterion("velocity_error", high=VELOCITY_TOLERANCE))
    else:
        found |= measures.progress(lambda state: base.course(state)[:, 0])
    if "yaw_rate" in rig.commands:
        found["yaw_rate_error"] = yaw_rate_error(rig)
    if rig.fallen is not None:
        found |= measures.falls(rig.fallen)
        success.append(Criterion("falls", high=0))
    root = robot.model.body(robot.bodies[0]).id
    return {"measures": found | measures.energy(path(rig), root), "success": tuple(success)}
