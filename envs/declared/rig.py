"""What terms are functions of: the base, joints, feet and contacts of a robot, and its commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.declared.base import Base
from metarl.envs.declared.columns import Columns
from metarl.envs.declared.sensors import ContactSensors
from metarl.envs.state import State, StateFunction
from metarl.envs.text import near
from metarl.patterns import matched

COMMANDS = {"forward_velocity": "m/s", "sideways_velocity": "m/s", "yaw_rate": "rad/s"}
"""Unit of each component of a command, by name."""
MOVES = 0.1
"""Command above which it asks for motion, m/s and rad/s."""


@dataclass(frozen=True, eq=False)
class Joints:
    """Hinges and slides that the robot has besides those of its base."""

    names: tuple[str, ...]
    positions: Columns
    """Their columns of qpos."""
    velocities: Columns
    """Their columns of qvel."""
    home: StateFunction
    """Return their positions at the home pose, [S, J] or [J] rad (m)."""
    units: tuple[str, ...]
    """Units of their positions."""

    def from_home(self, state: State) -> Array:
        """Return positions relative to home, [S, J] rad (m)."""
        return self.positions.of(state.qpos) - self.home(state)

    def limits(self, models: Sequence[mujoco.MjModel]) -> Array:
        """Return lowest and highest positions of joints in each model, infinite without, [K, 2, J] rad (m)."""
        ids = [models[0].joint(name).id for name in self.names]
        bounds = np.array([m.jnt_range[ids].T for m in models])
        free = np.array([m.jnt_limited[ids] == 0 for m in models])
        bounds[:, 0][free], bounds[:, 1][free] = -np.inf, np.inf
        return bounds


@dataclass(frozen=True, eq=False)
class Feet:
    """The feet: a geom of each."""

    names: tuple[str, ...]
    geoms: Callable[[Sequence[mujoco.MjModel]], np.ndarray]
    """Return the index of each foot's geom, [F]; a task does not change them."""
    contacts: tuple[str, ...]
    """Names of their contact sensors, or of the bodies or geoms that get one."""
    soles: Callable[[Sequence[mujoco.MjModel]], np.ndarray]
    """Return the distance from the middle of each foot's geom to its sole at home in each model, [K, F] m."""

    def centres(self, state: State) -> Array:
        """Return the centres of mass of the feet's bodies, [S, F, 3] m."""
        bodies, _ = state.once(self.bodies)
        return state.xipos[:, bodies]

    def positions(self, state: State) -> Array:
        """Return the middles of the feet as the last substep began, [S, F, 3] m."""
        return state.geom_xpos[:, state.once(self.geoms)]

    def velocities(self, state: State) -> Array:
        """Return the velocities of the middles of the feet in the world, as the last substep began, [S, F, 3] m/s."""
        bodies, roots = state.once(self.bodies)
        twist = state.cvel[:, bodies]
        arm = self.positions(state) - state.subtree_com[:, roots]
        return twist[..., 3:] + state.xp.linalg.cross(twist[..., :3], arm)

    def bodies(self, models: Sequence[mujoco.MjModel]) -> tuple[np.ndarray, np.ndarray]:
        """Return the body of each foot and the root of its tree, [F] each."""
        bodies = models[0].geom_bodyid[self.geoms(models)].astype(np.int64)
        return bodies, models[0].body_rootid[bodies].astype(np.int64)


@dataclass(frozen=True, eq=False)
class Guides:
    """Joints that guide a base that does not float."""

    positions: Columns
    """Columns of qpos, without its place on the plane, by which alone a policy could act."""
    placed: tuple[str, ...]
    """Names of those columns."""
    velocities: Columns
    """Columns of qvel."""
    moving: tuple[str, ...]
    """Names of those columns."""


@dataclass(frozen=True, eq=False)
class Reaching:
    """An end effector and its target."""

    effector: StateFunction
    """Return its position in the world, [S, 3] m."""
    turn: StateFunction
    """Return its orientation in the world, [S, 3, 3]."""
    target: StateFunction
    """Return the target in the world, [S, 3] m."""
    aim: StateFunction | None = None
    """Return the orientation of the target in the world, [S, 3, 3]; None: any."""
    thing: StateFunction | None = None
    """Return the position of the object that is to be moved there, [S, 3] m; None: the effector itself is."""
    thing_turn: StateFunction | None = None
    """Return the orientation of the object, [S, 3, 3]."""

    @property
    def needed_aim(self) -> StateFunction:
        """The target's orientation; ValueError if it has none."""
        if self.aim is None:
            raise ValueError(
                "the target has no orientation; give one by goal: {orientation: [w, x, y, z]}, or by a parameter of "
                "quantity goal_roll, goal_pitch or goal_yaw"
            )
        return self.aim

    def gap(self, state: State) -> Array:
        """Return what is to be at the target minus the target, [S, 3] m."""
        return (self.thing or self.effector)(state) - self.target(state)


def named_parts(
    names: Sequence[str], bodies: Sequence[str], geoms: Sequence[str], groups: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """Return the bodies and geoms that names stand for, each once.

    A name is that of a group, a body or a geom, in this order, or a regular expression that matches bodies in full, or
    geoms if it matches no body. ValueError for a name that is nothing of these.
    """
    found: list[str] = []
    for name in names:
        if name in groups:
            found += groups[name]
        elif name in bodies or name in geoms:
            found.append(name)
        elif fitting := matched(name, bodies, "bodies") or matched(name, geoms, "geoms"):
            found += fitting
        else:
            known = (*groups, *bodies, *geoms)
            raise ValueError(f"{name!r} is no group, body or geom of it, and matches none{near(name, known)}")
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Tracker:
    """Memory that a term needs, and what keeps it up to date."""

    memory: Mapping[str, tuple[int, ...]]
    """Shapes without the leading S, by name."""
    begin: Callable[[State, Array], None] | None = None
    """(state, chosen [S] bool): fills it where an episode starts; it is zero there otherwise."""
    actuate: Callable[[State], None] | None = None
    """Update it before the simulation steps, when the action is known."""
    update: Callable[[State], None] | None = None
    """Update it after the simulation has stepped."""


@dataclass(eq=False)
class Rig:
    """A robot as its terms see it. They add the trackers and sensors that they need."""

    joints: Joints
    actuators: tuple[str, ...]
    """Names of the actuators, as the actions are called."""
    force_units: tuple[str, ...]
    """Units of their forces."""
    dt: float
    """Control step, s."""
    sensors: ContactSensors
    action_unit: str = ""
    """Unit of the actions; empty where they are of several."""
    base: Base | None = None
    """None: the base is fixed to the world."""
    feet: Feet | None = None
    reaching: Reaching | None = None
    """An end effector and its target; None: it has none."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Contact sensors, or bodies and geoms that get one, by the name of their group."""
    bodies: tuple[str, ...] = ()
    """Bodies that can get a contact sensor."""
    geoms: tuple[str, ...] = ()
    """Geoms that can get one of their own, apart from the rest of their body."""
    guides: Guides | None = None
    """Joints that guide the base; None: nothing does."""
    commands: tuple[str, ...] = ()
    """Components of the command that `State.memory` has, in this order."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What components of the command are called in observations, where it is not by their own names."""
    fallen: StateFunction | None = None
    """Return where an episode ends for good, [S] bool; None: it never does."""
    trackers: dict[str, Tracker] = field(default_factory=dict)
    """What keeps the terms' memory, by name."""

    @property
    def needed_base(self) -> Base:
        """The base; ValueError if it is fixed."""
        if self.base is None:
            raise ValueError("the base is fixed")
        return self.base

    @property
    def needed_feet(self) -> Feet:
        """The feet; ValueError if there are none."""
        if self.feet is None:
            raise ValueError("it has no feet; name them by robot: {feet: [BODY, ...]}")
        return self.feet

    @property
    def needed_guides(self) -> Guides:
        """The joints that guide the base; ValueError if nothing does."""
        if self.guides is None:
            raise ValueError("no joints guide its base")
        return self.guides

    @property
    def needed_reaching(self) -> Reaching:
        """The end effector and its target; ValueError if there is none."""
        if self.reaching is None:
            raise ValueError("it has no target; name what reaches for it by goal: {effector: BODY or SITE}")
        return self.reaching

    def bodies_of(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the bodies and geoms that the names stand for; see `named_parts`."""
        return named_parts(names, self.bodies, self.geoms, self.groups)

    def use(self, name: str, tracker: Tracker) -> None:
        """Keep a memory; a name stands for one."""
        self.trackers.setdefault(name, tracker)

    def commanded(self, state: State, name: str) -> Array | float:
        """Return a component of the command, [S]; 0 where the robot is not given it."""
        return state.memory["command"][:, self.commands.index(name)] if name in self.commands else 0.0

    def course(self, state: State) -> Array:
        """Return the commanded velocity forwards and to the left, [S, 2] m/s."""
        if self.commands[:2] == ("forward_velocity", "sideways_velocity"):
            return state.memory["command"][:, :2]
        zero = state.xp.zeros_like(state.qpos[:, 0])
        return state.xp.stack([self.commanded(state, n) + zero for n in tuple(COMMANDS)[:2]], axis=1)

    def asked_to_move(self, state: State) -> Array:
        """Return whether the command asks for motion, [S] bool; everywhere if there is none."""
        xp = state.xp
        if not self.commands:
            return xp.ones_like(state.qpos[:, 0], dtype=xp.bool)
        return xp.max(xp.abs(state.memory["command"]), axis=1) > MOVES

    def touching(self, names: tuple[str, ...]) -> StateFunction:
        """Return a function for which of these bodies touch anything, [S, n] bool."""
        found = self.sensors.found(names)
        return lambda state: found.of(state.sensordata) > 0

    def contact_forces(self, names: tuple[str, ...]) -> StateFunction:
        """Return a function for the contact force on each of these bodies in the world's frame, [S, n, 3] N."""
        force = self.sensors.force(names)  # that of the bodies on what they touch
        return lambda state: -force.of(state.sensordata).reshape(-1, len(names), 3)
