"""Lengths that a model gives by number, which do not follow a part of another size."""

from __future__ import annotations

from metarl.envs.links import given_lengths, spans
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.sites import Write

PROBE = 1.1
"""Factor at which lengths are compared with the neutral robot's."""


def require_lengths(robot: Robot, name: str, write: Write) -> None:
    """Raise ValueError if a body of another size takes a tendon or an actuator off a length that the model gives.

    write: the edit of the size, which takes a factor on what it is at first.
    """
    if not spans(robot.model):
        return
    other = robot.spec.copy()
    write(other, PROBE)
    if why := given_lengths(robot.spec.compile(), other.compile(), robot.home):
        raise ValueError(f"body {name!r} cannot have another size: {why}")
