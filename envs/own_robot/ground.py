"""The ground under a user's robot, and heights over it along its normal: planes, heightfields and solids of the scene.

Heights over a plane are along its normal, and over a box along the normal of its upper face. A solid of another shape
(mesh, cylinder) counts as the box around it. Heights over a heightfield are along the normal of its mean slope over the
robot's footprint, so that rough ground does not tilt the vertical.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from metarl.envs.arrays import Array, namespace
from metarl.envs.own_robot import contacts as robot_contacts
from metarl.envs.state import State
from metarl.envs.terrain import kinds as terrain

STEEPEST = 0.5
"""Cosine of the steepest slope of a plane or a box's face that is ground and not a wall."""


@dataclass(frozen=True)
class HeightFields:
    """One heightfield in the grounds of K tasks."""

    place: Array
    """Position, [K, 3] m."""
    turn: Array
    """Rotation from its frame to the world's, [K, 3, 3]."""
    half: Array
    """Half its extent along its x and y, [K, 2] m."""
    heights: Array
    """Heights over its frame's origin, [K, rows * columns] m."""
    shape: tuple[int, int]
    """(rows, columns)."""


@dataclass(frozen=True)
class Shapes:
    """Geometry of the grounds of K tasks."""

    planes: Array
    """A point of each plane, m, and its normal, [K, P, 2, 3]."""
    boxes: Array
    """Middle of each box's upper face, m; its two edges and its normal; half its sizes along these, [K, B, 5, 3]."""
    fields: tuple[HeightFields, ...]


@dataclass(frozen=True)
class GroundGeoms:
    """Names of the geoms that a robot stands on."""

    planes: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    boxes: tuple[str, ...] = ()
    """Boxes and solids of other shapes."""
    level: float | None = 0.0
    """Height of the ground if it is the same everywhere and in all tasks, m; None if it is not."""
    footprint: float = 0.0
    """Distance to each side over which a heightfield's slope is averaged, m."""

    @property
    def names(self) -> tuple[str, ...]:
        return self.planes + self.fields + self.boxes

    def height(self, state: State, points: Array) -> Array:
        """Return the height of points [S, ..., 3] m over the ground along its normal, [S, ...] m."""
        if self.level is not None:
            return points[..., 2] - self.level
        shapes = state.once(_shaper(self))
        flat = points.reshape(len(points), -1, 3)
        return over(shapes, state.task_index, flat, self.footprint).reshape(points.shape[:-1])

    def normal(self, model: mujoco.MjModel) -> Array:
        """Return the normal of the ground in one model, [3]: that of its first plane; upwards if it has none."""
        return _normal(model, model.geom(self.planes[0]).id) if self.planes else np.array([0.0, 0.0, 1.0])

    def height_in(self, model: mujoco.MjModel, point: Array) -> float:
        """Return the height of a point [3] m in one model, m."""
        if self.level is not None:
            return float(point[2]) - self.level
        return float(over(_shaper(self)([model]), np.zeros(1, dtype=np.int64), point[None, None], self.footprint)[0, 0])


def find_ground(model: mujoco.MjModel, bodies: Collection[str]) -> GroundGeoms:
    """Find the geoms that bodies can stand on: fixed ones of others that can touch theirs."""
    on = robot_contacts.standing_on(model, bodies).any(axis=0)

    def of_type(kind: mujoco.mjtGeom) -> list[int]:
        return [int(i) for i in np.flatnonzero(on & (model.geom_type == kind))]

    planes = [i for i in of_type(mujoco.mjtGeom.mjGEOM_PLANE) if _normal(model, i)[2] > STEEPEST]
    fields = of_type(mujoco.mjtGeom.mjGEOM_HFIELD)
    boxes = [int(i) for i in np.flatnonzero(on & ~np.isin(model.geom_type, robot_contacts.GROUND))]
    names = [tuple(model.geom(i).name for i in chosen) for chosen in (planes, fields, boxes)]
    level = None
    if not fields and not boxes and all((_normal(model, i) == (0, 0, 1)).all() for i in planes):
        level = max((float(geom_pose(model, i)[0][2]) for i in planes), default=0.0)
    return GroundGeoms(*names, level=level, footprint=max(1e-3, _reach(model, bodies) / 2))


def is_level(model: mujoco.MjModel, plane: str) -> bool:
    """Return whether a plane that never moves is level and at height 0."""
    i = model.geom(plane).id
    return bool((_normal(model, i) == (0, 0, 1)).all() and geom_pose(model, i)[0][2] == 0)


def geom_pose(model: mujoco.MjModel, geom: int) -> tuple[Array, Array]:
    """Return position and quaternion in the world of a geom that never moves."""
    position, quaternion = body_pose(model, int(model.geom_bodyid[geom]))
    return compose(position, quaternion, model.geom_pos[geom], model.geom_quat[geom])


def body_pose(model: mujoco.MjModel, body: int) -> tuple[Array, Array]:
    """Return position and quaternion in the world of a body that never moves."""
    if body == 0:
        return np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
    position, quaternion = body_pose(model, int(model.body_parentid[body]))
    return compose(position, quaternion, model.body_pos[body], model.body_quat[body])


def compose(position: Array, quaternion: Array, place: Array, turn: Array) -> tuple[Array, Array]:
    """Transform a pose (place, turn) from a frame to the frame's parent."""
    moved, turned = np.zeros(3), np.zeros(4)
    mujoco.mju_rotVecQuat(moved, place, quaternion)
    mujoco.mju_mulQuat(turned, quaternion, turn)
    return position + moved, turned


def inverse(position: Array, quaternion: Array) -> tuple[Array, Array]:
    """Return the inverse of a pose."""
    back, place = np.zeros(4), np.zeros(3)
    mujoco.mju_negQuat(back, quaternion)
    mujoco.mju_rotVecQuat(place, -position, back)
    return place, back


def frame_of(spec: mujoco.MjSpec, model: mujoco.MjModel, geom: str) -> tuple[Array, Array]:
    """Return the world pose of a geom's reference frame: its body, or a `<frame>` in it."""
    if spec.geom(geom).frame is None:
        return body_pose(model, int(model.geom(geom).bodyid[0]))
    bare = spec.copy()
    bare.geom(geom).pos, bare.geom(geom).quat = np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
    bare.geom(geom).alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT
    return geom_pose(bare.compile(), model.geom(geom).id)


def _matrix(quaternion: Array) -> Array:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def _normal(model: mujoco.MjModel, geom: int) -> Array:
    return _matrix(geom_pose(model, geom)[1])[:, 2]


def _reach(model: mujoco.MjModel, bodies: Collection[str]) -> float:
    """Return half the horizontal extent of the robot's geoms in the model's own pose, m."""
    own = robot_contacts.own_geoms(model, bodies)
    if not own.any():
        return 0.0
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    centre, radius = data.geom_xpos[own, :2], model.geom_rbound[own, None]
    return float(np.ptp([(centre - radius).min(axis=0), (centre + radius).max(axis=0)], axis=0).max()) / 2


@functools.cache
def _shaper(ground: GroundGeoms) -> Callable[[Sequence[mujoco.MjModel]], Shapes]:
    """Return one function per ground, so that `State.once` keeps its result."""

    def shapes(models: Sequence[mujoco.MjModel]) -> Shapes:
        return Shapes(
            np.array([[_plane(m, name) for name in ground.planes] for m in models]).reshape(len(models), -1, 2, 3),
            np.array([[_box(m, name) for name in ground.boxes] for m in models]).reshape(len(models), -1, 5, 3),
            tuple(_field(models, name) for name in ground.fields),
        )

    return shapes


def _plane(model: mujoco.MjModel, name: str) -> Array:
    place, turn = geom_pose(model, model.geom(name).id)
    return np.array([place, _matrix(turn)[:, 2]])


def _box(model: mujoco.MjModel, name: str) -> Array:
    """Describe a box by the face that points up most."""
    geom = model.geom(name).id
    place, turn = geom_pose(model, geom)
    middle, half = np.split(model.geom_aabb[geom], 2)
    axes = _matrix(turn).T
    place = place + middle @ axes
    up = int(np.argmax(np.abs(axes[:, 2])))
    first, second = (i for i in range(3) if i != up)
    normal = axes[up] * np.sign(axes[up, 2])
    return np.array([place + half[up] * normal, axes[first], axes[second], normal, half[[first, second, up]]])


def _field(models: Sequence[mujoco.MjModel], name: str) -> HeightFields:
    ids = [m.geom(name).id for m in models]
    poses = [geom_pose(m, i) for m, i in zip(models, ids, strict=True)]
    fields = [int(m.geom_dataid[i]) for m, i in zip(models, ids, strict=True)]
    rows, columns = int(models[0].hfield_nrow[fields[0]]), int(models[0].hfield_ncol[fields[0]])
    heights = [
        m.hfield_data[m.hfield_adr[h] : m.hfield_adr[h] + rows * columns] * m.hfield_size[h, 2]
        for m, h in zip(models, fields, strict=True)
    ]
    return HeightFields(
        np.array([place for place, _ in poses]),
        np.array([_matrix(turn) for _, turn in poses]),
        np.array([m.hfield_size[h, :2] for m, h in zip(models, fields, strict=True)]),
        np.array(heights, dtype=np.float32),
        (rows, columns),
    )


def over(shapes: Shapes, index: Array, points: Array, footprint: float) -> Array:
    """Return the height of points [S, N, 3] m over the nearest ground below, [S, N] m; index [S]: of tasks' grounds.

    Points beside all grounds are measured from the ground's edge, as if it went on.
    """
    xp, below, beside = namespace(points), [], []
    for p in range(shapes.planes.shape[1]):
        place, normal = xp.permute_dims(shapes.planes[:, p][index][:, :, None], (1, 0, 2, 3))
        below.append(_along(points - place, normal))
    for b in range(shapes.boxes.shape[1]):
        gap, on = _over_box(shapes.boxes[:, b][index], points)
        below.append(xp.where(on, gap, xp.inf))
        beside.append(gap)
    for field in shapes.fields:
        gap, on = _over_field(field, index, points, footprint)
        below.append(xp.where(on, gap, xp.inf))
        beside.append(gap)
    nearest = xp.min(xp.stack(below), axis=0)
    return xp.where(xp.isinf(nearest), xp.max(xp.stack(beside), axis=0), nearest) if beside else nearest


def _along(vectors: Array, direction: Array) -> Array:
    """Return v . d, [...]."""
    return (
        vectors[..., 0] * direction[..., 0] + vectors[..., 1] * direction[..., 1] + vectors[..., 2] * direction[..., 2]
    )


def _over_box(box: Array, points: Array) -> tuple[Array, Array]:
    """Return the height over the upper face [S, N] and whether the face is below the point; box [S, 5, 3]."""
    xp = namespace(points)
    place, first, second, normal, half = xp.permute_dims(box[:, :, None], (1, 0, 2, 3))
    gap = _along(points - place, normal)
    down = points - place
    down[..., 2] -= gap / normal[..., 2]  # straight down to the face
    on = xp.abs(_along(down, first)) <= half[..., 0]
    on &= (xp.abs(_along(down, second)) <= half[..., 1]) & (gap > -half[..., 2])
    return gap, on


def _over_field(field: HeightFields, index: Array, points: Array, footprint: float) -> tuple[Array, Array]:
    """Return the height over the heightfield [S, N] and whether it is below the point."""
    xp, (rows, columns) = namespace(points), field.shape
    index = index[:, None]
    local = xp.einsum("sij,sni->snj", field.turn[index[:, 0]], points - field.place[index])
    half_x, half_y = field.half[index, 0], field.half[index, 1]
    x, y = xp.clip(local[..., 0], -half_x, half_x), xp.clip(local[..., 1], -half_y, half_y)

    def ground(x: Array, y: Array) -> Array:
        u, v = (x + half_x) * ((columns - 1) / (2 * half_x)), (y + half_y) * ((rows - 1) / (2 * half_y))
        return terrain.interpolate(field.heights, index, u, v, field.shape)

    back, front = xp.maximum(x - footprint, -half_x), xp.minimum(x + footprint, half_x)
    right, left = xp.maximum(y - footprint, -half_y), xp.minimum(y + footprint, half_y)
    rise_x = (ground(front, y) - ground(back, y)) / (front - back)
    rise_y = (ground(x, left) - ground(x, right)) / (left - right)
    gap = (local[..., 2] - ground(x, y)) / xp.sqrt(1 + rise_x**2 + rise_y**2)
    return gap, (x == local[..., 0]) & (y == local[..., 1])
