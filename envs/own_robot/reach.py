"""What an arm reaches with, and where to: found by random positions of its joints."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.control import SCALAR
from metarl.envs.own_robot.description import Robot, joints_to
from metarl.envs.own_robot.stance import drawn

POSES = 500
"""Number of random poses."""
MIDDLE = (0.2, 0.8)
"""Quantiles of the places between which a target is."""
DECIMALS = 3  # of a metre, in a file


@dataclass(frozen=True)
class Reach:
    """An end effector and the middle 60 % of where it can be."""

    effector: str
    """Site or body."""
    low: Array
    """Lowest coordinates in the world, [3] m."""
    high: Array
    """Highest coordinates in the world, [3] m; equal to the lowest along an axis along which it does not move."""

    @property
    def extent(self) -> float:
        """Length of the diagonal of the box of its places, m."""
        return float(np.linalg.norm(self.high - self.low))


def find_reach(robot: Robot) -> Reach | None:
    """Return the site or body that moves most, of those that the most joints carry; None if none moves."""
    model, carriers = robot.model, _carriers(robot)
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    places: dict[str, list[Array]] = {name: [] for name in carriers}
    sites = {model.site(i).name for i in range(model.nsite)}
    for _ in range(POSES):
        data.qpos = robot.home
        for name in robot.joints:
            at = int(model.joint(name).qposadr[0])
            if int(model.joint(name).type[0]) in SCALAR:
                data.qpos[at] = 0.5 * (robot.home[at] + drawn(model, name, rng))
        mujoco.mj_kinematics(model, data)
        for name in places:
            places[name].append((data.site(name).xpos if name in sites else data.body(name).xpos).copy())
    found = [Reach(name, *np.quantile(at, MIDDLE, axis=0).round(DECIMALS) + 0.0) for name, at in places.items()]
    moving = [reach for reach in reversed(found) if reach.extent > 0]  # of two at one place, a site or the outer body
    return max(moving, key=lambda reach: (carriers[reach.effector], reach.extent), default=None)


def _carriers(robot: Robot) -> dict[str, int]:
    """Return the number of joints between the base and each of the robot's bodies and sites that has a name."""
    model = robot.model
    numbers = {name: len(joints_to(robot, name)) for name in robot.bodies}
    on = ((model.site(i).name, model.body(int(model.site_bodyid[i])).name) for i in range(model.nsite))
    return numbers | {site: numbers[body] for site, body in on if site and body in robot.bodies}
