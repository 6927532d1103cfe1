"""Kinds of ground: pure functions of (difficulty, generator, field) that give heights on a grid, and mixes of kinds.

Sizes follow legged_gym and IsaacLab: slopes to .4 rad, stairs and blocks to .23 and .25 m, roughness to .1 m, waves to
.2 m, gaps to 1 m. Every kind leaves the square around the start flat and at height 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from metarl.envs.arrays import Array, namespace
from metarl.envs.parameters import Choice

SLOPE = 0.4  # rad at difficulty 1
STEP = (0.05, 0.23)  # m, height of a stair at difficulty 0 and 1
TREAD = 0.3  # m, depth of a stair; published as .31, here a multiple of the grid
ROUGHNESS = (0.02, 0.10)  # m, from the lowest to the highest knot
KNOT = 0.2  # m between knots
WAVE = 0.2  # m, amplitude at difficulty 1
WAVELENGTH = 2.0  # m
FADE = 1.0  # m over which waves rise from the flat start
BLOCK = (0.05, 0.25)  # m, height of the tallest blocks
BLOCK_SPACING = 1.5  # m, one block in each square of this side
BLOCK_SIDE = (0.3, 0.9)  # m
STONE_PITCH = 0.6  # m from stone to stone
STONE_GAP = (0.1, 0.3)  # m between stones
STONE_JITTER = 0.1  # m, of the stones' tops at difficulty 1
GAP = 1.0  # m, width at difficulty 1
GAP_RUN = (0.8, 2.0)  # m of ground between gaps
DEPTH = 1.0  # m, depth between stones and of gaps
BASE = 1.0  # m of solid ground below the lowest point
NAME = "terrain"
EPSILON = 1e-6  # m, against rounding on the grid


@dataclass(frozen=True)
class Field:
    """Extent of the ground around the start, which is the origin, and its grid."""

    ahead: float
    """Ground at x > 0, m."""
    behind: float
    """Ground at x < 0, m."""
    half_width: float
    """Ground on either side, m."""
    patch: float
    """Half the side of the flat square at the start, m."""
    cell: float = 0.05
    """Distance of grid points, m: the horizontal run of every riser."""
    strip: bool = False
    """Whether heights depend on x alone, on two rows of points, for a robot in the x-z plane."""

    def __post_init__(self) -> None:
        if not self.cell > 0 or not 0 <= self.patch < min(self.ahead, self.behind):
            raise ValueError(
                f"a field needs grid cells and a start patch within its ends, got {self.ahead:g} m ahead, "
                f"{self.behind:g} m behind, a patch of {self.patch:g} m, cells of {self.cell:g} m"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows along y and columns along x."""
        rows = 2 if self.strip else round(2 * self.half_width / self.cell) + 1
        return rows, round((self.ahead + self.behind) / self.cell) + 1

    @property
    def x(self) -> Array:
        """Positions along x, [1, columns] m."""
        return np.linspace(-self.behind, self.ahead, self.shape[1])[None]

    @property
    def y(self) -> Array:
        """Positions along y, [rows, 1] m; 0 on a strip."""
        return np.linspace(-self.half_width, self.half_width, self.shape[0])[:, None] * (not self.strip)

    @property
    def distance(self) -> Array:
        """Distance to the start patch along the larger coordinate, [rows, columns] m; negative on the patch."""
        return np.maximum(np.abs(self.x), np.abs(self.y)) - self.patch

    @property
    def outside(self) -> Array:
        """Whether grid points are off the start patch, [rows, columns] bool."""
        return self.distance > EPSILON


Kind = Callable[[float, np.random.Generator, Field], Array]


def between(limits: tuple[float, float], difficulty: float) -> float:
    """Return the value at a difficulty, linear from the first limit to the second."""
    return limits[0] + difficulty * (limits[1] - limits[0])


def flat(difficulty: float, rng: np.random.Generator, field: Field) -> Array:
    """Return height 0 everywhere."""
    return np.zeros(field.shape)


def slope(difficulty: float, rng: np.random.Generator, field: Field) -> Array:
    """Return a slope away from the start on all sides, up or down at random."""
    return rng.choice((-1.0, 1.0)) * math.tan(SLOPE * difficulty) * np.maximum(field.distance, 0)


def stairs_up(difficulty: float, rng: np.random.Generator, field: Field) -> Array:
    """Return stairs that rise away from the start on all sides."""
    return between(STEP, difficulty) * np.ceil(np.maximum(field.distance, 0) / TREAD - EPSILON)


def stairs_down(difficulty: float, rng: np.random.Generator, field: Field) -> Array:
    """Return stairs that fall away from the start on all sides."""
    return -stairs_up(difficulty, rng, field)


def rough(difficulty: float, rng: np.random.Generator, field: Field) -> Array:
    """Return uniform heights on a coarse grid of knots, linear between them."""
    column, row = (_fraction(c / KNOT) for c in (field.x[0], field.y[:, 0]))
    knots = rng.uniform(-0.5, 0.5, (row[0][-1] + 2, column[0][-1] + 2))
    rows = _interpolate(knots, *row)
    return between(ROUGHNESS, difficulty) * _interpolate(rows.T, *column).T * field.outside


def waves(difficulty: float, rng: np.random.Generator, field: Field) -> Array:
    """Return sine waves along x, crossed by waves along y."""
    phase = rng.uniform(0, 2 * math.pi)
    wave = np.sin(2 * math.pi * field.x / WAVELENGTH + phase) * np.cos(2 * math.pi * field.y / WAVELENGTH)
    return WAVE * difficulty * wave * np.clip(field.distance / FADE, 0, 1)


def obstacles(difficulty: float, rng: np.random.Generator, field: Field) -> Array:
    """Return one block per square, of random place, sides and height."""
    (i, dy), (j, dx) = _tiles(field.y, BLOCK_SPACING), _tiles(field.x, BLOCK_SPACING)
    tiles = (i.max() + 1, j.max() + 1)
    half_x, half_y = 0.5 * rng.uniform(*BLOCK_SIDE, (2, *tiles))
    place_x, place_y = rng.uniform(-1, 1, (2, *tiles)) * (0.5 * BLOCK_SPACING - np.stack([half_x, half_y]))
    height = rng.choice((0.5, 1.0), tiles)
    on = np.abs(dx - place_x[i, j]) < half_x[i, j]
    if not field.strip:
        on &= np.abs(dy - place_y[i, j]) < half_y[i, j]
    return between(BLOCK, difficulty) * height[i, j] * (on & field.outside)


def stepping_stones(difficulty: float, rng: np.random.Generator, field: Field) -> Array:
    """Return square stones of uneven height with gaps between them."""
    (i, dy), (j, dx) = _tiles(field.y, STONE_PITCH), _tiles(field.x, STONE_PITCH)
    tops = STONE_JITTER * difficulty * rng.uniform(-1, 1, (i.max() + 1, j.max() + 1))
    reach = 0.5 * (STONE_PITCH - between(STONE_GAP, difficulty)) + EPSILON
    on = np.maximum(np.abs(dx), np.abs(dy)) <= reach
    return np.where(on, tops[i, j], -DEPTH) * field.outside


def gaps(difficulty: float, rng: np.random.Generator, field: Field) -> Array:
    """Return trenches around the start, of one width, at random distances from each other."""
    width = field.cell * round(GAP * difficulty / field.cell)
    farthest = field.distance.max()
    runs = field.cell * np.round(rng.uniform(*GAP_RUN, math.ceil(farthest / GAP_RUN[0]) + 1) / field.cell)
    begins = np.cumsum(runs + width) - width
    k = np.searchsorted(begins, field.distance - EPSILON) - 1  # the last trench that begins before a point
    within = (k >= 0) & (field.distance < begins[k] + width - EPSILON)
    return np.where(within, -DEPTH, 0.0)


KINDS: dict[str, Kind] = {
    "flat": flat,
    "slope": slope,
    "stairs_up": stairs_up,
    "stairs_down": stairs_down,
    "rough": rough,
    "waves": waves,
    "obstacles": obstacles,
    "stepping_stones": stepping_stones,
    "gaps": gaps,
}
"""Every kind by name. Its place is its number in a task's values: new kinds come last."""


def number(kind: str) -> float:
    """Return a kind's number in a task's values; ValueError if there is no such kind."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind of ground {kind!r}; the kinds are {', '.join(KINDS)}")
    return float(list(KINDS).index(kind))


def kind_name(value: float) -> str:
    """Return the kind of a number; ValueError if there is none."""
    if value not in range(len(KINDS)):
        raise ValueError(
            f"no kind of ground has the number {value:g}; they are "
            + ", ".join(f"{i} {kind}" for i, kind in enumerate(KINDS))
        )
    return list(KINDS)[int(value)]


def heights(kind: float, difficulty: float, seed: float, field: Field) -> Array:
    """Return the ground of a task's values, [rows, columns] m; the same values give the same ground."""
    name = kind_name(kind)
    if not 0 <= difficulty <= 1:
        raise ValueError(f"the difficulty of a ground lies in [0, 1], got {difficulty:g}")
    bits = int(np.float64(seed + 0.0).view(np.uint64))  # any finite number is a seed; -0 is 0
    return KINDS[name](difficulty, np.random.default_rng(bits), field)


@dataclass(frozen=True)
class TerrainMix:
    """Kinds of ground and how often each is drawn."""

    kinds: tuple[str, ...]
    proportions: tuple[float, ...] = ()
    """Relative frequency of each kind; empty: equal."""

    @property
    def distribution(self) -> Choice:
        """Distribution of the kinds' numbers; ValueError for unknown or repeated kinds, or missing proportions."""
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"a kind of ground is named twice in {', '.join(self.kinds)}")
        return Choice(tuple(number(kind) for kind in self.kinds), self.proportions)


def lay(spec: mujoco.MjSpec, ground: Array, field: Field, floor: str = "floor") -> None:
    """Give the geom `floor` the shape of the ground [rows, columns] m; its friction and contacts stay the same.

    The ground's height 0 is that of the floor. Ground that is flat all over leaves the floor as it is.
    """
    if not ground.any():
        return
    geom = spec.geom(floor)
    if geom is None:
        raise ValueError(f"the robot has no geom {floor!r} to put the ground in place of")
    low, span = float(ground.min()), float(np.ptp(ground))
    spec.add_hfield(
        name=NAME,
        nrow=ground.shape[0],
        ncol=ground.shape[1],
        size=((field.ahead + field.behind) / 2, field.half_width, span, BASE),
        userdata=ground.ravel(),
    )
    geom.type = mujoco.mjtGeom.mjGEOM_HFIELD
    geom.hfieldname = NAME
    geom.pos += ((field.ahead - field.behind) / 2, 0, low)


def edit(spec: mujoco.MjSpec, values: Mapping[str, float], *, field: Field, floor: str) -> None:
    """Lay the ground of a task's values."""
    lay(
        spec, heights(values["terrain_kind"], values["terrain_difficulty"], values["terrain_seed"], field), field, floor
    )


def compiled_heights(models: Sequence[mujoco.MjModel], field: Field) -> Array:
    """Return the grounds that the models collide with, [M, rows * columns] float32 m over the start.

    They are rounded to 0.1 mm: MuJoCo's own rounding depends on the ground and would reveal it at the flat start.
    """
    grounds = np.zeros((len(models), math.prod(field.shape)), dtype=np.float32)
    start = np.abs(field.distance + field.patch).argmin()
    for ground, model in zip(grounds, models, strict=True):
        h = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_HFIELD, NAME)
        if h >= 0:
            begin = model.hfield_adr[h]
            ground[:] = model.hfield_data[begin : begin + ground.size]
            ground *= model.hfield_size[h, 2]
            ground -= ground[start]
    return np.round(grounds, 4)


def filled(grounds: Array, field: Field) -> Array:
    """Return grounds [M, rows * columns] m whose gaps and voids between stones are filled to their rims.

    A morphological closing (Serra 1982), whose square spans the widest of them, where it raises the ground by more than
    half their depth: other ground stays as it is.
    """
    maps = grounds.reshape(len(grounds), *field.shape)
    steep = [any((np.abs(np.diff(one, axis=axis)) > DEPTH / 2).any() for axis in (0, 1)) for one in maps]
    if not any(steep):
        return grounds
    reach = math.ceil(max(GAP, STONE_GAP[1]) / field.cell) // 2 + 2
    rimmed, maps = maps.copy(), maps[steep]
    closed = -_spread(-_spread(maps, reach), reach)
    rimmed[steep] = np.where(closed - maps > DEPTH / 2, closed, maps)
    return rimmed.reshape(grounds.shape)


def _spread(maps: Array, reach: int) -> Array:
    """Return the largest value within `reach` cells along both axes of maps [M, rows, columns]."""
    for axis in (1, 2):
        if maps.shape[axis] > 1:
            width = [(0, 0), (reach, reach), (0, 0)] if axis == 1 else [(0, 0), (0, 0), (reach, reach)]
            padded = np.pad(maps, width, mode="edge")
            maps = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=axis).max(axis=-1)
    return maps


def height_at(grounds: Array, index: Array, x: Array, y: Array, field: Field) -> Array:
    """Return the height of the ground at points, on the triangles that MuJoCo splits cells into; [...] as x and y.

    grounds: [M, rows * columns]. index: which of them, broadcast against x and y. The last cell extends past the edge.
    """
    rows, columns = field.shape
    u = (x + field.behind) * ((columns - 1) / (field.ahead + field.behind))
    v = (y + field.half_width) * ((rows - 1) / (2 * field.half_width))
    return interpolate(grounds, index, u, v, (rows, columns))


def interpolate(grounds: Array, index: Array | int, u: Array, v: Array, shape: tuple[int, int]) -> Array:
    """Return the height on MuJoCo's triangles at fractional column u and row v; [...] as u and v.

    grounds: [M, rows * columns]. index: which of them. shape: (rows, columns).
    """
    xp, (rows, columns) = namespace(u), shape
    column = xp.clip(xp.astype(u, xp.int64), 0, columns - 2)
    row = xp.clip(xp.astype(v, xp.int64), 0, rows - 2)
    u, v = u - column, v - row
    at = index * (rows * columns) + row * columns + column
    flat_grounds = grounds.reshape(-1)
    near, right = flat_grounds[at], flat_grounds[at + 1]
    far, across = flat_grounds[at + columns], flat_grounds[at + columns + 1]
    lower = near + u * (right - near) + v * (across - right)
    upper = near + v * (far - near) + u * (across - far)
    return xp.where(u > v, lower, upper)


def _fraction(position: Array) -> tuple[Array, Array]:
    """Return (index from 0, fraction) of positions in units of a grid."""
    whole = np.floor(position + EPSILON)
    return (whole - whole[0]).astype(np.int64), position - whole


def _interpolate(knots: Array, index: Array, fraction: Array) -> Array:
    """Interpolate rows between the rows of knots."""
    return knots[index] + fraction[:, None] * (knots[index + 1] - knots[index])


def _tiles(position: Array, side: float) -> tuple[Array, Array]:
    """Return (index from 0, offset from the tile's centre in m) of positions; a tile is centred on 0."""
    tile = np.floor(position / side + 0.5 + EPSILON)
    return (tile - tile.min()).astype(np.int64), position - tile * side
