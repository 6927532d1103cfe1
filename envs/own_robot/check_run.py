"""A check of a robot before training: simulate a second of action 0 and a second of random actions, from home."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np

from metarl.envs import mujoco_log
from metarl.envs.arrays import Array
from metarl.envs.efforts import limited_tendon
from metarl.envs.own_robot import contacts as robot_contacts
from metarl.envs.own_robot.description import Robot, tolerance
from metarl.envs.own_robot.options import switched_off
from metarl.envs.own_robot.rig import base_of
from metarl.envs.own_robot.support import Support, support_of
from metarl.envs.state import State

SECONDS = 1.0
"""Length of a run with each kind of action."""
BROKEN = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)
"""Warnings after which MuJoCo resets the simulation."""
SATURATED = 0.5
"""Least share of the second for which a saturated actuator is at its limit."""
FULL = 1 - 1e-6
"""Share of a limit that counts as the limit."""
UNSEEN = 1e-9
"""Largest change of velocity that counts as rounding, rad/s (m/s)."""
STIRS, CALMER = 0.02, 0.5
"""Distance from home, rad (m), from which it is asked why; share of it that implicit damping leaves, at most."""
LATE = 0.3
"""Delay, s, beyond which what an actuator does is not waited for."""
FURTHEST = 1e5
"""Greatest distance to the ground that is measured, m."""


@dataclass(frozen=True)
class Base:
    """Heights and tilt of the base in a second."""

    start: float
    """Height over the ground at home, m."""
    end: float
    """Height at the end, m."""
    tilt: float
    """Largest angle between the base's up and the world's, rad."""


@dataclass(frozen=True)
class Second:
    """Observations of a robot in a second."""

    base: Base | None
    """Motion of the base; None if it is fixed to the world."""
    sunk: float
    """Largest depth of a geom in the ground or the scene, or of a geom's middle below the ground, m."""
    moved: Mapping[str, float]
    """Largest distance from home of each joint by name, rad (m)."""
    pressed: tuple[str, ...]
    """Joints that reached a limit."""
    saturated: tuple[str, ...]
    """Actuators that were at a limit of their force, or of their joint's, for most of the time."""
    warnings: Mapping[str, int]
    """Count of each of MuJoCo's warnings, by name without its prefix."""
    broken: float | None
    """Time at which the simulation became unstable, s; the other fields are about the time before. None: it did not."""


@dataclass(frozen=True)
class CheckRun:
    """Observations of a robot at home and in the two seconds from there."""

    gravity: float
    """Magnitude of gravity, m/s^2."""
    gap: float | None
    """Least distance to the ground at home, m; negative in the ground. None: there is no ground below the robot."""
    tolerance: float
    """Depth that counts as touching, m."""
    idle: tuple[str, ...]
    """Actuators that move nothing from home."""
    zero: Second
    """Observations under action 0."""
    random: Second
    """Observations under actions that are uniform in their range, or in what a policy's first ones are, drawn at each
    control step."""
    chatters: bool = False
    """Whether joints that leave home, or are at their force limit, under action 0 do not with implicit damping."""
    support: Support | None = None
    """What a floating robot stands on at home; None if it touches no ground, or is guided or fixed."""


def run_check(robot: Robot, dt: float, seed: int = 0, action_scale: float = 1.0) -> CheckRun:
    """Simulate the neutral robot from home. dt: control step, s, a multiple of the model's timestep or near to it.

    action_scale: factor on a policy's actions, if it is another than 1: random ones are then U(-1, 1) times it.
    """
    skip = max(1, round(dt / robot.model.opt.timestep))
    steps = max(1, round(SECONDS / (skip * robot.model.opt.timestep)))
    nothing = np.zeros((steps, robot.model.nu))
    low, high = robot.low, robot.high
    if action_scale != 1.0:
        low, high = (np.clip(end * action_scale, robot.low, robot.high) for end in (-1.0, 1.0))
    drawn = np.random.default_rng(seed).uniform(low, high, nothing.shape)
    with mujoco_log.silent():
        zero = _second(robot, nothing, skip)
        return CheckRun(
            _gravity(robot.model),
            _gap(robot),
            tolerance(robot),
            _idle(robot, skip),
            zero,
            _second(robot, drawn, skip),
            _chatters(robot, nothing, skip, zero),
            support_of(robot),
        )


def _chatters(robot: Robot, nothing: np.ndarray, skip: int, zero: Second) -> bool:
    """Return whether what a robot does under action 0 is due to the explicit damping of Euler's method."""
    options, moved = robot.model.opt, max(zero.moved.values(), default=0.0)
    if options.integrator != mujoco.mjtIntegrator.mjINT_EULER or not (moved > STIRS or zero.saturated):
        return False
    options.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    try:
        calm = _second(robot, nothing, skip)
    finally:
        options.integrator = mujoco.mjtIntegrator.mjINT_EULER
    fewer = set(calm.saturated) < set(zero.saturated) or (not zero.saturated and not calm.saturated)
    return calm.broken is None and fewer and max(calm.moved.values(), default=0.0) < CALMER * moved


def rest(robot: Robot, dt: float, seconds: float) -> Second:
    """Simulate the neutral robot from home with action 0. dt: control step, s."""
    skip = max(1, round(dt / robot.model.opt.timestep))
    steps = max(1, round(seconds / (skip * robot.model.opt.timestep)))
    with mujoco_log.silent():
        return _second(robot, np.zeros((steps, robot.model.nu)), skip)


def at_home(robot: Robot) -> mujoco.MjData:
    """Return the robot at the start of an episode without noise."""
    data = mujoco.MjData(robot.model)
    data.qpos = robot.home
    for name, value in robot.initial.items():
        getattr(data, name)[:] = value
    data.ctrl = robot.offset
    mujoco.mj_forward(robot.model, data)
    return data


def _gravity(model: mujoco.MjModel) -> float:
    return 0.0 if switched_off(model, "gravity") else float(np.linalg.norm(model.opt.gravity))


def _gap(robot: Robot) -> float | None:
    """Return the least distance of geoms to the ground; over a heightfield below all, of their bounding spheres."""
    if robot.mobility == "fixed" or not robot.ground.names:
        return None
    model, data, ground = robot.model, at_home(robot), robot.ground
    meet = robot_contacts.standing_on(model, robot.bodies)
    solid = [model.geom(name).id for name in ground.planes + ground.boxes]
    found = [
        mujoco.mj_geomDistance(model, data, s, g, FURTHEST, None) for s in solid for g in np.flatnonzero(meet[:, s])
    ]
    fields = {model.geom(name).id for name in ground.fields}
    found += [float(c.dist) for c in data.contact if fields & set(map(int, c.geom))]
    over = [g for g in np.flatnonzero(meet.any(axis=1)) if fields]
    if not any(distance < 0 for distance in found):
        found += [max(0.0, ground.height_in(model, data.geom_xpos[g]) - model.geom_rbound[g]) for g in over]
    return min(found, default=None)


def _idle(robot: Robot, skip: int) -> tuple[str, ...]:
    """Return the actuators whose lowest and highest action lead to the same velocities a control step after they act.

    Adhesion, which moves nothing by itself, is none of them, and one that acts later than LATE is.
    """
    tried = [i for i, kind in enumerate(robot.kinds) if kind != "adhesion"]
    return tuple(robot.model.actuator(i).name for i in tried if not _acts(robot, i, skip))


def _acts(robot: Robot, i: int, skip: int) -> bool:
    delay = min(float(robot.model.actuator_delay[i]), LATE)
    steps, ends = skip + math.ceil(delay / robot.model.opt.timestep - 1e-9), []
    for action in (robot.low[i], robot.high[i]):
        data = at_home(robot)
        data.ctrl[i] = robot.offset[i] + robot.gain[i] * action
        mujoco.mj_step(robot.model, data, nstep=steps)
        ends.append(data.qvel.copy())
    return bool(np.abs(ends[1] - ends[0]).max(initial=0.0) > UNSEEN)


def _second(robot: Robot, actions: Array, skip: int) -> Second:
    """Simulate actions [T, nu], each for `skip` simulation steps."""
    model, data = robot.model, at_home(robot)
    seen, broken = _Seen(robot), None
    for action in actions:
        data.ctrl = robot.offset + robot.gain * action
        time = float(data.time)
        mujoco.mj_step(model, data, nstep=skip)
        if any(data.warning[kind].number for kind in BROKEN):
            broken = time
            break
        seen.look(data)
    return seen.second(data, broken)


class _Seen:
    """Observations gathered over a second from copies of the simulation, which is not disturbed."""

    def __init__(self, robot: Robot):
        self._robot, self._data = robot, at_home(robot)
        model = robot.model
        self._joints = {name: model.joint(name) for name in robot.joints}
        self._base = None if robot.mobility == "fixed" else base_of(robot)
        self._state = State(lambda name: getattr(self._data, name)[None])
        self._state.take([model])
        self._state.task_index = np.zeros(1, dtype=np.int64)
        self._own = set(np.flatnonzero(robot_contacts.own_geoms(model, robot.bodies)))
        self._standing = np.flatnonzero(robot_contacts.standing_on(model, robot.bodies).any(axis=1))
        self._moved = dict.fromkeys(robot.joints, 0.0)
        self._pressed: set[int] = set()
        self._full = np.zeros(model.nu, dtype=int)
        self._looks, self._sunk, self._tilt = 0, 0.0, 0.0
        self._start = self._end = self._height()

    def look(self, simulation: mujoco.MjData) -> None:
        """Add the current state."""
        data, robot = self._data, self._robot
        mujoco.mj_copyData(data, robot.model, simulation)
        mujoco.mj_forward(robot.model, data)
        self._looks += 1
        for name, joint in self._joints.items():
            at = int(joint.qposadr[0])
            self._moved[name] = max(self._moved[name], abs(float(data.qpos[at] - robot.home[at])))
        limits = (data.efc_type == int(mujoco.mjtConstraint.mjCNSTR_LIMIT_JOINT)) & (data.efc_force > 0)
        self._pressed |= set(map(int, data.efc_id[limits]))
        self._full += at_limit(robot.model, data)
        self._sunk = max(self._sunk, self._depth())
        self._end = self._height()
        if self._base is not None:
            up = float(np.clip(-self._base.gravity(self._state)[0, 2], -1, 1))
            self._tilt = max(self._tilt, float(np.arccos(up)))

    def second(self, simulation: mujoco.MjData, broken: float | None) -> Second:
        """Return all observations."""
        model, counts = self._robot.model, {kind: int(simulation.warning[kind].number) for kind in _kinds()}
        base = None if self._start is None or self._end is None else Base(self._start, self._end, self._tilt)
        full = np.flatnonzero(self._full > SATURATED * max(1, self._looks))
        return Second(
            base,
            self._sunk,
            self._moved,
            tuple(name for name, joint in self._joints.items() if joint.id in self._pressed),
            tuple(model.actuator(int(i)).name for i in full),
            {kind.name.removeprefix("mjWARN_"): number for kind, number in counts.items() if number},
            broken,
        )

    def _height(self) -> float | None:
        return None if self._base is None else float(self._base.height(self._state)[0])

    def _depth(self) -> float:
        """Return the largest depth of the robot in other things, m."""
        data, ground = self._data, self._robot.ground
        depth = max((-float(c.dist) for c in data.contact if len(self._own & set(map(int, c.geom))) == 1), default=0.0)
        if not ground.names:
            return depth
        below = [-ground.height_in(self._robot.model, data.geom_xpos[g]) for g in self._standing]
        return max([depth, *below])


def _kinds() -> list[mujoco.mjtWarning]:
    return [mujoco.mjtWarning(k) for k in range(int(mujoco.mjtWarning.mjNWARNING))]


def at_limit(model: mujoco.MjModel, data: mujoco.MjData) -> Array:
    """Return whether each actuator is at a limit of its force, or of a joint or tendon that it drives, [nu] bool."""
    own = (model.actuator_forcelimited != 0) & _full(data.actuator_force, model.actuator_forcerange)
    on = np.array([-1 if (t := limited_tendon(model, i)) is None else t for i in range(model.nu)], dtype=int)
    for tendon in set(on.tolist()) - {-1}:
        total = data.actuator_force[on == tendon].sum(keepdims=True)
        own[on == tendon] |= _full(total, model.tendon_actfrcrange[[tendon]])
    dofs = model.jnt_dofadr
    taken = (model.jnt_actfrclimited != 0) & _full(data.qfrc_actuator[dofs], model.jnt_actfrcrange)
    moment = np.zeros((model.nu, model.nv))
    if model.nu:
        mujoco.mju_sparse2dense(
            moment, data.actuator_moment, data.moment_rownnz, data.moment_rowadr, data.moment_colind
        )
    return own | (moment[:, dofs[taken]] != 0).any(axis=1)


def _full(force: Array, limits: Array) -> Array:
    """Return whether forces [n] are at a limit [n, 2] that is not 0, [n] bool."""
    low, high = limits.T
    return (low < 0) & (force <= FULL * low) | (high > 0) & (force >= FULL * high)
