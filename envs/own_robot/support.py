"""What a robot at rest stands on: the polygon that its contacts span, and its centre of mass over it."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.own_robot.contacts import standing_on
from metarl.envs.own_robot.description import Robot, tolerance
from metarl.envs.own_robot.footing import riser
from metarl.envs.own_robot.pose import standing_height

NARROW = 0.05
"""Width of a support as a share of the height of the centre of mass, below which it is a line or a point."""
ANGLES = np.linspace(0, 2 * np.pi, 720, endpoint=False)
DIRECTIONS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
"""Horizontal directions in which a support is measured, [720, 2]."""


@dataclasses.dataclass(frozen=True)
class Support:
    """Support of a robot that rests on its ground in its home pose."""

    points: Array
    """Where it touches the ground, [N, 2] m."""
    centre: Array
    """Its centre of mass, [3] m, its height over the ground last."""

    @property
    def width(self) -> float:
        """Least width of the polygon, m."""
        along = self.points @ DIRECTIONS.T
        return float(np.ptp(along, axis=0).min())

    @property
    def margin(self) -> float:
        """Distance of the centre of mass from the polygon's edge, m; negative if it is not over the polygon."""
        edges = (self.points @ DIRECTIONS.T).max(axis=0)
        return float((edges - DIRECTIONS @ self.centre[:2]).min())

    @property
    def narrow(self) -> bool:
        """Whether it is a line or a point, on which no stiffness of joints keeps it upright."""
        return self.width < NARROW * self.centre[2]


def support_of(robot: Robot) -> Support | None:
    """Return what a floating robot stands on in its home pose; None if it is not floating or touches no ground."""
    height, found = standing_height(robot), riser(robot)
    if robot.mobility != "floating" or height is None or found is None:
        return None
    model, data = robot.model, mujoco.MjData(robot.model)
    data.qpos = robot.home
    mujoco.mj_kinematics(model, data)
    over = robot.ground.height_in(model, data.body(robot.bodies[0]).xpos) - height
    data.qpos[found[0]] -= (over + tolerance(robot)) / found[1]
    mujoco.mj_fwdPosition(model, data)
    own = standing_on(model, robot.bodies)
    points = [c.pos[:2] for c in data.contact if own[c.geom[0], c.geom[1]] or own[c.geom[1], c.geom[0]]]
    if not points:
        return None
    centre = data.subtree_com[model.body(robot.bodies[0]).id].copy()
    centre[2] = robot.ground.height_in(model, centre)
    return Support(np.array(points), centre)
