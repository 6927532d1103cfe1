"""Walking robots of three to six legs as one family: the Go1's trunk and legs, and one policy for all.

Legs stand in pairs at the front, the rear and the middle of the trunk; one without its pair is in the middle between
left and right. With four legs it is `quadruped`. Observation and action are those of six legs, zero for legs that a
robot lacks (besides the sensors' noise, where there is some), and the observation tells which there are.
"""

from __future__ import annotations

from metarl.envs.family import TaskFamily
from metarl.envs.layouts import joined, number_of_parts
from metarl.envs.robots.quadruped import with_legs
from metarl.envs.robots.quadruped_legs_settings import FEWEST, MOST, QuadrupedLegsSettings
from metarl.envs.robots.quadruped_robot import LEGS, MORE_LEGS


def quadruped_legs(settings: QuadrupedLegsSettings) -> TaskFamily:
    """Return the family that the settings describe."""
    for name in ("weak_joints", "locked_joints"):
        if getattr(settings, name):
            raise ValueError(f"{name} numbers the joints of four legs; name what fails by faults and fault_places")
    if settings.changes and "legs" in settings.changing:
        raise ValueError("changing has legs; a body stays the same while a task lasts: leave it out")
    says = "legs: front, rear and middle pairs; one without its pair in the middle"
    return joined(
        number_of_parts("legs", settings.legs, settings.held_out_legs, len(LEGS), says),
        {float(n): with_legs(settings, MORE_LEGS[:n]) for n in range(FEWEST, MOST + 1)},
        name="quadruped_legs",
        description="walking robot of 3 to 6 legs that follows velocity commands",
    )
