"""Families of walking robots on uneven ground: `on_terrain(family, settings, ground, ...)`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import mujoco
import numpy as np

from metarl.envs.arrays import Array, like
from metarl.envs.family import TaskFamily
from metarl.envs.parameters import Law, Parameter, Uniform
from metarl.envs.rendering import AZIMUTH, follow
from metarl.envs.state import State, StateFunction
from metarl.envs.task import CurriculumRule
from metarl.envs.terms import ObservationTerm, elements
from metarl.envs.terrain import kinds as terrain
from metarl.envs.terrain.kinds import Field, TerrainMix
from metarl.envs.terrain.settings import TerrainSettings

EDGE = 1.0  # m before the ends of the ground at which an episode is cut
VIEW, VIEW_OF_STRIP = 3.0, 4.0  # of the start patch, distance of the camera in pictures: there is ground to be seen
SCAN_X = np.round(np.arange(-0.8, 0.81, 0.1), 1)  # m ahead of the root, of a height scan
SCAN_Y = np.round(np.arange(-0.5, 0.51, 0.1), 1)  # m to its left, where the ground is wider than a strip
AROUND_FOOT = {
    "below": (0.0, 0.0),
    "ahead": (0.1, 0.0),
    "left": (0.0, 0.1),
    "behind": (-0.1, 0.0),
    "right": (0.0, -0.1),
}
"""Points around a foot where oracles and teachers are told the ground's height, m along the root's heading and to its
left."""
_AROUND = np.array(tuple(AROUND_FOOT.values()))


@dataclass(frozen=True)
class Root:
    """Indices in qpos of the position of the robot's root."""

    x: int
    z: int
    y: int | None = None
    """Index of y; None: the robot moves in the x-z plane."""
    quaternion: int | None = None
    """Index of the quaternion's first element; None: the robot does not turn about z."""
    ahead: tuple[float, float, float] = (1.0, 0.0, 0.0)
    """Direction in the root's frame that is forwards."""


PLANAR = Root(x=0, z=1)
"""Root on slides along x and z: HalfCheetah, Hopper, Walker2d."""
FREE = Root(x=0, y=1, z=2, quaternion=3)
"""Root on a free joint: Ant, quadrupeds."""


class Feet(NamedTuple):
    """The feet of a robot."""

    names: tuple[str, ...]
    """Name of each."""
    positions: StateFunction
    """Return the positions of the feet, [S, F, 3] m."""


@dataclass(frozen=True, eq=False)
class Ground:
    """The ground under the robots of a batch."""

    field: Field
    root: Root

    @functools.cached_property
    def scan(self) -> Array:
        """Points of the height scan ahead of the root and to its left, [P, 2] m."""
        across = [0.0] if self.field.strip else SCAN_Y
        return np.array([(x, y) for x in SCAN_X for y in across])

    def grounds(self, models: Sequence[mujoco.MjModel]) -> Array:
        """Return the heights of the models' grounds, [M, rows * columns] m."""
        return terrain.compiled_heights(models, self.field)

    def rims(self, models: Sequence[mujoco.MjModel]) -> Array:
        """Return the heights of the models' grounds with gaps filled to their rims, [M, rows * columns] m."""
        return terrain.filled(self.grounds(models), self.field)

    def place(self, state: State) -> tuple[Array, Array]:
        """Return x and y of the roots, [S] m."""
        x = state.qpos[:, self.root.x]
        return x, state.xp.zeros_like(x) if self.root.y is None else state.qpos[:, self.root.y]

    def under_root(self, state: State) -> Array:
        """Return the height of the ground under the roots, [S] m; over a gap that of its rim."""
        return terrain.height_at(state.once(self.rims), state.task_index, *self.place(state), self.field)

    def over(self, state: State, points: Array) -> Array:
        """Return heights of points [S, ..., 3] m over the ground below them, or over the rim of a gap, [S, ...] m."""
        index = state.task_index.reshape(-1, *(1,) * (points.ndim - 2))
        below = terrain.height_at(state.once(self.rims), index, points[..., 0], points[..., 1], self.field)
        return points[..., 2] - below

    def relative(self, state: State) -> Array:
        """Return heights of the scan's points over the ground under the root, [S, P] m; points turn with the root."""
        return self._around(state, *self.place(state), self.scan) - self.under_root(state)[:, None]

    def around_feet(self, state: State, feet: StateFunction) -> Array:
        """Return heights of the points around each foot [S, F, 3] over the foot, [S, F * P] m."""
        positions = feet(state)
        over = []
        for foot in range(positions.shape[1]):
            x, y, z = (positions[:, foot, axis] for axis in range(3))
            over.append(self._around(state, x, y, _AROUND) - z[:, None])
        return state.xp.concat(over, axis=1)

    def _around(self, state: State, x: Array, y: Array, points: Array) -> Array:
        """Return heights of points [P, 2] around places x and y [S], [S, P] m; the points turn with the root."""
        c, s = self._heading(state)
        ahead, left = like(points, x).T
        points_x = x[:, None] + c * ahead - s * left  # [S, P]
        points_y = y[:, None] + s * ahead + c * left
        index = state.task_index[:, None]
        return terrain.height_at(state.once(self.grounds), index, points_x, points_y, self.field)

    def _heading(self, state: State) -> tuple[Any, Any]:
        """Return cosine and sine of the root's yaw, [S, 1]."""
        if self.root.quaternion is None:
            return 1.0, 0.0
        w, x, y, z = state.qpos[:, self.root.quaternion : self.root.quaternion + 4].T[:, :, None]
        a, b, d = self.root.ahead
        c = (w * w + x * x - y * y - z * z) * a + 2 * (x * y - w * z) * b + 2 * (x * z + w * y) * d
        s = 2 * (x * y + w * z) * a + (w * w - x * x + y * y - z * z) * b + 2 * (y * z - w * x) * d
        length = state.xp.clip(state.xp.hypot(c, s), 1e-9, None)
        return c / length, s / length

    def off(self, state: State) -> Array:
        """Return whether the root is about to leave the ground, [S] bool."""
        x, y = self.place(state)
        over = (x > self.field.ahead - EDGE) | (x < EDGE - self.field.behind)
        return over if self.field.strip else over | (state.xp.abs(y) > self.field.half_width - EDGE)

    def level(self, state: State) -> State:
        """Return the state with the root's height measured from the ground below it."""
        qpos = state.xp.asarray(state.qpos, copy=True)
        qpos[:, self.root.z] -= self.under_root(state)
        return _Levelled(state, qpos)

    def scan_term(self) -> ObservationTerm:
        """Return the height scan as a term of the observation."""
        names = (f"ground_at_{x:+.1f}" + ("" if self.field.strip else f"_{y:+.1f}") for x, y in self.scan)
        return ObservationTerm(self.relative, elements("m", names))

    def feet_term(self, feet: Feet) -> ObservationTerm:
        """Return the heights around the feet as a term of what is around the robot."""
        names = (f"ground_{place}_{foot}" for foot in feet.names for place in AROUND_FOOT)
        return ObservationTerm(lambda state: self.around_feet(state, feet.positions), elements("m", names))


class _Levelled(State):
    """A state with another qpos."""

    def __init__(self, state: State, qpos: Array):
        super().__init__(lambda name: qpos if name == "qpos" else getattr(state, name), state.xp)
        self.once = state.once


def on_terrain(
    family: TaskFamily,
    settings: TerrainSettings,
    *,
    ground: Ground,
    lift: float,
    floor: str = "floor",
    feet: Feet | None = None,
) -> TaskFamily:
    """Return the family on ground of the settings' kinds, with kind, difficulty and seed of the ground as parameters.

    Observation, rewards, measures and ends of episodes see the root's height over the ground below it.
    lift: m by which the robot starts higher than on its own floor, so that no limb starts in the ground.
    floor: geom that the ground replaces. feet: those around which the ground's height is told to oracles and teachers,
    who are told the height scan, too.
    """
    field, root = ground.field, ground.root
    scan = {"height_scan": ground.scan_term()}

    def reset(model: mujoco.MjModel, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        qpos, qvel = family.reset(model, rng, n)
        qpos[:, root.z] += lift
        return qpos, qvel

    def truncate(state: State) -> Array:
        off = ground.off(state)
        return off if family.truncate is None else off | family.truncate(state)

    return dataclasses.replace(
        family,
        parameters=(*family.parameters, *parameters(settings)),
        edit=functools.partial(terrain.edit, field=field, floor=floor),
        decorate=functools.partial(look, field=field, decorate=family.decorate),
        view=ground.level,
        observation={**family.observation, **(scan if settings.height_scan else {})},
        surroundings={
            **({} if settings.height_scan else scan),
            **({} if feet is None else {"ground_around_feet": ground.feet_term(feet)}),
        },
        truncate=truncate,
        reset=reset,
        curriculum=CurriculumRule(
            group="terrain_kind",
            difficulty="terrain_difficulty",
            promote_at=settings.promote_at,
            demote_at=settings.demote_at,
            name=terrain.kind_name,
        ),
        settings=settings,
    )


def look(
    spec: mujoco.MjSpec,
    values: Mapping[str, float],
    *,
    field: Field,
    decorate: Callable[[mujoco.MjSpec, Mapping[str, float]], None] | None,
) -> None:
    """Move a picture's camera back to show the ground; a strip is seen from its side."""
    if decorate is not None:
        decorate(spec, values)
    if field.strip:
        follow(spec, VIEW_OF_STRIP * field.patch, 90.0, -12.0, ahead=field.patch)
    else:
        follow(spec, VIEW * field.patch, AZIMUTH, -28.0)


def parameters(settings: TerrainSettings) -> tuple[Parameter, ...]:
    """Return kind, difficulty and seed, which decide the ground together."""
    shared = set(settings.kinds) & set(settings.ood_kinds)
    if shared:
        raise ValueError(f"{', '.join(sorted(shared))} is both in kinds and in ood_kinds; leave it out of one of them")
    low, high = settings.difficulty_low, settings.difficulty_high
    if not low < high:
        raise ValueError(
            f"difficulty_low is {low:g} and difficulty_high {high:g}; give difficulty_low < difficulty_high"
        )
    names = ", ".join(f"{i} {kind}" for i, kind in enumerate(terrain.KINDS))
    return (
        Parameter(
            name="terrain_kind",
            unit="1",
            distribution=TerrainMix(settings.kinds, settings.proportions).distribution,
            law=Law(f"kind of ground: {names}", joint=True),
            neutral=terrain.number("flat"),
            ood=TerrainMix(settings.ood_kinds).distribution if settings.ood_kinds else None,
            names=tuple(terrain.KINDS),
        ),
        Parameter(
            name="terrain_difficulty",
            unit="1",
            distribution=Uniform(low, high),
            law=Law("height of its steps, angle, width of its gaps, from 0 to 1", joint=True),
            neutral=0.0,
        ),
        Parameter(
            name="terrain_seed",
            unit="1",
            distribution=Uniform(0.0, 1.0),
            law=Law("which ground of the kind and difficulty", joint=True),
            neutral=0.0,
            nuisance=True,
        ),
    )
