"""Ground of all kinds under a user's robot, in place of its level floor."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import mujoco
import numpy as np

from metarl.bounds import check
from metarl.envs.arrays import Array, like
from metarl.envs.declared.rig import Rig
from metarl.envs.family import TaskFamily
from metarl.envs.own_robot import contacts
from metarl.envs.own_robot.declaration import DeclaredTerrain
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.ground import geom_pose
from metarl.envs.state import State
from metarl.envs.terrain.kinds import Field
from metarl.envs.terrain.on_terrain import EDGE, Feet, Ground, Root, on_terrain
from metarl.envs.terrain.settings import TerrainSettings

CORNERS = np.array(list(itertools.product((-1, 1), repeat=3)))
"""Corners of a box of half-sizes 1."""
NEAR = 0.05
"""Height over the floor up to which a geom stands on it at home, m."""


def _require_on_patch(robot: Robot, floor: str, patch: float) -> None:
    """Raise ValueError for what stands at home beyond the flat square: an episode would begin with it in the ground.

    The robot may begin with any heading, its scene does not turn.
    """
    model, data = robot.model, mujoco.MjData(robot.model)
    data.qpos[:] = robot.home
    mujoco.mj_kinematics(model, data)
    plane = model.geom(floor).id
    own, origin = contacts.own_geoms(model, robot.bodies), data.xpos[model.body(robot.base).id, :2]
    for geom in np.flatnonzero(contacts.meetings(model)[plane] & (model.body_weldid[model.geom_bodyid] != 0)):
        if mujoco.mj_geomDistance(model, data, plane, geom, NEAR, None) >= NEAR:
            continue
        turn, centre, half = data.geom_xmat[geom].reshape(3, 3), *model.geom_aabb[geom].reshape(2, 3)
        corners = (data.geom_xpos[geom] + (centre + half * CORNERS) @ turn.T)[:, :2]
        reach = np.linalg.norm(corners - origin, axis=1) + np.abs(origin).max() if own[geom] else np.abs(corners)
        beyond = float(reach.max())
        if beyond > patch:
            enough = np.ceil(10 * beyond) / 10
            raise ValueError(
                f"{model.geom(geom).name} reaches {beyond:.2f} m from the start at home, and the ground is flat for "
                f"{patch:g} m: it would begin in the ground; write terrain: {{patch: {enough:g}}} or more, and around "
                "above it"
            )


def lay_ground(robot: Robot, rig: Rig, said: DeclaredTerrain | None) -> Callable[[TaskFamily], TaskFamily]:
    """Let heights be over the ground of the tasks, and return a function that puts a family on it.

    ValueError for a robot that cannot stand on it.
    """
    if said is None:
        return lambda family: family
    base, planes = rig.base, robot.ground.planes
    if base is None or base.qpos < 0:
        raise ValueError("terrain needs a robot whose base has a free joint of its own")
    if len(planes) != 1 or robot.ground.level is None:
        raise ValueError(
            "terrain takes the place of one level floor, and the robot stands on "
            f"{', '.join(robot.ground.names) or 'none'}; leave terrain out, or give the model a plane"
        )
    position, turn = geom_pose(robot.model, robot.model.geom(planes[0]).id)
    if not np.allclose(turn, (1, 0, 0, 0)) or np.any(position[:2]):
        raise ValueError(f"terrain needs a floor that is not turned, at x 0 and y 0; {planes[0]} is")
    if said.patch <= 0 or said.cell <= 0 or said.around <= said.patch + EDGE:
        raise ValueError(
            f"terrain has patch {said.patch:g} m, cell {said.cell:g} m and around {said.around:g} m; the first two "
            f"must be above 0, and the last above patch + {EDGE:g} m: an episode is cut that far before the end"
        )
    _require_on_patch(robot, planes[0], said.patch)
    field = Field(said.around, said.around, said.around, said.patch, cell=said.cell)
    at = base.qpos
    ahead = (1.0, 0.0, 0.0) if base.axes is None else tuple(base.axes[:, 0].tolist())
    ground = Ground(field, Root(x=at, y=at + 1, z=at + 2, quaternion=at + 3, ahead=ahead))

    def over_ground(state: State, points: Array) -> Array:
        return ground.over(state, points) - position[2]

    rig.base = dataclasses.replace(base, over_ground=over_ground)
    low, high = said.difficulty
    settings = TerrainSettings(
        kinds=said.kinds,
        proportions=said.proportions,
        ood_kinds=said.ood_kinds,
        difficulty_low=low,
        difficulty_high=high,
        height_scan=said.height_scan,
        promote_at=said.promote_at,
        demote_at=said.demote_at,
    )
    check(settings, "terrain")
    feet = rig.feet

    def over_floor(state: State) -> Array:
        """Return the positions of the feet over the floor, [S, F, 3] m."""
        assert feet is not None
        return feet.positions(state) - like(position, state.qpos)

    def put(family: TaskFamily) -> TaskFamily:
        put_on = on_terrain(
            family,
            settings,
            ground=ground,
            lift=0.0,
            floor=planes[0],
            feet=None if feet is None else Feet(feet.names, over_floor),
        )
        # Heights are over the ground already.
        return dataclasses.replace(put_on, view=family.view, settings=family.settings)

    return put
