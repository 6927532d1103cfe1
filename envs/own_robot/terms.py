"""Observation terms, reward terms and termination that a robot's file can choose from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from metarl.envs import measures
from metarl.envs.arrays import Array, like, rows
from metarl.envs.locomotion import control_cost, survive
from metarl.envs.own_robot.declaration import Termination, near
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.ground import GroundGeoms
from metarl.envs.state import State, StateFunction
from metarl.envs.terms import Criterion, Element, Measure, ObservationTerm, RewardTerm, elements

TRACKING = 0.25
"""Squared error at which a tracking term falls to 1/e, (m/s)^2 or (rad/s)^2."""
VELOCITY_TOLERANCE = 0.25
"""Largest mean velocity error of a success, m/s."""


@dataclass(frozen=True, eq=False)
class Motion:
    """Motion of the base: from qpos and qvel if it floats, and from MuJoCo's derived fields otherwise.

    The base's frame has x forwards and z up. Commands are velocities in this frame, and for a guided base along the
    world's x and y, as its guides are.
    """

    body: int
    root: int
    """The body on the world that carries the base."""
    qpos: int
    """Address of the free joint in qpos; -1: none."""
    qvel: int
    ground: GroundGeoms
    axes: Array | None
    """Rotation from the base's frame to its body's, [3, 3]; None: they are the same."""
    turns: bool
    """Whether commands turn with the base."""

    def rotation(self, state: State) -> Array:
        """Return the rotation from the base to the world, [S, 3, 3]."""
        turn = self._body_rotation(state)
        return turn if self.axes is None else turn @ like(self.axes, turn)

    def _body_rotation(self, state: State) -> Array:
        if self.qpos < 0:
            return state.xmat[:, self.body].reshape(-1, 3, 3)
        w, x, y, z = rows(state.qpos[:, self.qpos + 3 : self.qpos + 7])
        elements = (
            *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        )
        return state.xp.permute_dims(state.xp.stack(elements).reshape(3, 3, -1), (2, 0, 1))

    def height(self, state: State) -> Array:
        """Return the height over the ground along its normal, [S] m."""
        place = state.xpos[:, self.body] if self.qpos < 0 else state.qpos[:, self.qpos : self.qpos + 3]
        return self.ground.height(state, place)

    def up(self, state: State) -> Array:
        """Return the world's vertical in the base's frame, [S, 3]."""
        return self.rotation(state)[:, 2]

    def world_velocity(self, state: State) -> Array:
        """Return the velocity in the world's frame, [S, 3] m/s."""
        if self.qpos >= 0:
            return state.qvel[:, self.qvel : self.qvel + 3]
        arm = state.xpos[:, self.body] - state.subtree_com[:, self.root]
        return state.cvel[:, self.body, 3:] + state.xp.linalg.cross(state.cvel[:, self.body, :3], arm)

    def course(self, state: State) -> Array:
        """Return the velocity forwards and to the left, [S, 2] m/s; of a guided base, along the world's x and y."""
        return (self.velocity(state) if self.turns else self.world_velocity(state))[:, :2]

    def velocity(self, state: State) -> Array:
        """Return the velocity in the base's frame, [S, 3] m/s."""
        return state.xp.einsum("sij,si->sj", self.rotation(state), self.world_velocity(state))

    def angular_velocity(self, state: State) -> Array:
        """Return the angular velocity in the base's frame, [S, 3] rad/s."""
        if self.qpos >= 0:
            local = state.qvel[:, self.qvel + 3 : self.qvel + 6]
            return local if self.axes is None else local @ like(self.axes, local)
        return state.xp.einsum("sij,si->sj", self.rotation(state), state.cvel[:, self.body, :3])


def motion(robot: Robot) -> Motion:
    """Return the motion of the robot's base."""
    model, root = robot.model, robot.model.body(robot.bodies[0]).id
    body, floats = model.body(robot.base).id, robot.mobility == "floating"
    axes = None if np.array_equal(robot.axes, np.eye(3)) else robot.axes
    joint, free = model.body_jntadr[root], floats and body == root
    qpos, qvel = (int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])) if free else (-1, -1)
    return Motion(body, root, qpos, qvel, robot.ground, axes, turns=floats)


def observation_terms(robot: Robot, commands: Mapping[str, str]) -> dict[str, ObservationTerm]:
    """Return all terms that this robot can observe. commands: parameter names by their quantity."""
    model = robot.model
    joints = [model.joint(name) for name in robot.joints]
    positions, velocities = _addresses(joints, "qposadr"), _addresses(joints, "dofadr")
    home = robot.home[positions]
    result = {
        "joint_positions": ObservationTerm(
            lambda s: _columns(s.qpos, positions) - like(home, s.qpos),
            elements("rad", (f"{name} - home" for name in robot.joints)),
        ),
        "joint_velocities": ObservationTerm(
            lambda s: _columns(s.qvel, velocities), elements("rad/s", (f"{name}_velocity" for name in robot.joints))
        ),
        "last_action": ObservationTerm(
            lambda s: s.action, elements("", (f"action {model.actuator(i).name}" for i in range(model.nu)))
        ),
    }
    if robot.mobility != "fixed":
        result |= _base_terms(motion(robot))
    if robot.mobility == "guided":
        result |= _guide_terms(robot)
    if robot.feet:
        feet = np.array([model.body(name).id for name in robot.feet])
        result["foot_heights"] = ObservationTerm(
            lambda s: robot.ground.height(s, _columns(s.xipos, feet)),
            elements("m", (f"{name} height" for name in robot.feet)),
        )
    if commands:
        units = {"command_yaw": "rad/s"}
        result["command"] = ObservationTerm(
            lambda s: s.xp.stack([s.task[name] for name in commands.values()], axis=1),
            tuple(Element(name, units.get(kind, "m/s")) for kind, name in commands.items()),
        )
    return result


def _base_terms(base: Motion) -> dict[str, ObservationTerm]:
    axes = ("x", "y", "z")
    return {
        "base_height": ObservationTerm(lambda s: base.height(s)[:, None], elements("m", ("base_height",))),
        "up": ObservationTerm(base.up, elements("", (f"up_{a}" for a in axes))),
        "base_velocity": ObservationTerm(base.velocity, elements("m/s", (f"base_velocity_{a}" for a in axes))),
        "base_angular_velocity": ObservationTerm(
            base.angular_velocity, elements("rad/s", (f"base_angular_velocity_{a}" for a in axes))
        ),
    }


def _guide_terms(robot: Robot) -> dict[str, ObservationTerm]:
    """Return positions and velocities of the joints that guide the base, without its place on the plane."""
    guides = [j for j in robot.spec.body(robot.bodies[0]).joints if j.name not in robot.joints]
    # A policy could act by the place alone.
    kept = [j.name for j in guides if not (j.type == 2 and abs(j.axis[2]) < 0.5)]
    where, placed = _elements([robot.model.joint(n) for n in kept], "qposadr", "qpos0", "wxyz")
    speeds, moving = _elements([robot.model.joint(j.name) for j in guides], "dofadr", "damping", "xyz")
    return {
        "guide_positions": ObservationTerm(lambda s: _columns(s.qpos, where), elements("rad or m", placed)),
        "guide_velocities": ObservationTerm(
            lambda s: _columns(s.qvel, speeds), elements("rad/s or m/s", (f"{n}_velocity" for n in moving))
        ),
    }


def _columns(values: Array, places: np.ndarray) -> Array:
    """Return columns of values [S, ...], [S, n, ...]."""
    return values[:, like(places, values)]


def _addresses(joints: list[Any], kind: str) -> np.ndarray:
    """Return the address of each joint in qpos or qvel, [n]."""
    return np.array([int(getattr(joint, kind)[0]) for joint in joints], dtype=np.int64)


def _elements(joints: list[Any], address: str, values: str, axes: str) -> tuple[np.ndarray, list[str]]:
    """Return addresses in qpos or qvel, and names, of joints: one number for a hinge or slide, several for a ball."""
    places, names = [], []
    for joint in joints:
        first, count = int(getattr(joint, address)[0]), len(getattr(joint, values))
        places += range(first, first + count)
        names += [joint.name] if count == 1 else [f"{joint.name}_{a}" for a in axes]
    return np.array(places, dtype=np.int64), names


DEFAULT_OBSERVATION = {
    "floating": ("base_height", "up", "base_velocity", "base_angular_velocity", "joint_positions", "joint_velocities"),
    "guided": ("guide_positions", "guide_velocities", "joint_positions", "joint_velocities"),
    "fixed": ("joint_positions", "joint_velocities"),
}


def observation(
    robot: Robot, wanted: tuple[str, ...] | None, commands: Mapping[str, str]
) -> dict[str, ObservationTerm]:
    """Return the chosen terms in their order; ValueError for a term that this robot lacks."""
    available = observation_terms(robot, commands)
    wanted = wanted if wanted is not None else DEFAULT_OBSERVATION[robot.mobility]
    for name in wanted:
        if name not in available:
            raise ValueError(f"observation: this robot has no {name!r}{near(name, available)}")
        if wanted.count(name) > 1:
            raise ValueError(f"observation has {name!r} more than once; list it once")
    if not wanted:
        raise ValueError(f"observation is empty; choose from {', '.join(available)}")
    return {name: available[name] for name in wanted}


def rewards(robot: Robot, weights: Mapping[str, float], commands: Mapping[str, str]) -> dict[str, RewardTerm]:
    """Return the chosen reward terms; costs are subtracted. ValueError for one that robot or distribution lacks."""
    base, model = motion(robot), robot.model
    joints = [model.joint(name) for name in robot.joints]
    positions, velocities = _addresses(joints, "qposadr"), _addresses(joints, "dofadr")
    home = robot.home[positions]

    def command(state: State, kind: str) -> Array | float:
        return state.task[commands[kind]] if kind in commands else 0.0

    def velocity_gap(state: State) -> Array:
        course = base.course(state)
        return (course[:, 0] - command(state, "command_x")) ** 2 + (course[:, 1] - command(state, "command_y")) ** 2

    def yaw_gap(state: State) -> Array:
        return (base.angular_velocity(state)[:, 2] - command(state, "command_yaw")) ** 2

    mobile: dict[str, tuple[Callable[[State], Array], int]] = {
        "forward_velocity": (lambda s: base.course(s)[:, 0], 1),
        "height": (base.height, 1),
        "upright": (lambda s: base.up(s)[:, 2], 1),
        "track_velocity": (lambda s: s.xp.exp(-velocity_gap(s) / TRACKING), 1),
        "track_yaw": (lambda s: s.xp.exp(-yaw_gap(s) / TRACKING), 1),
        "velocity_error": (lambda s: s.xp.sqrt(velocity_gap(s)), -1),
    }
    terms: dict[str, tuple[Callable[[State], Array], int]] = {
        "alive": (survive, 1),
        "control_cost": (control_cost, -1),
        "joint_velocity_cost": (lambda s: s.xp.sum(s.xp.square(_columns(s.qvel, velocities)), axis=1), -1),
        "home_cost": (lambda s: s.xp.sum(s.xp.square(_columns(s.qpos, positions) - like(home, s.qpos)), axis=1), -1),
        **(mobile if robot.mobility != "fixed" else {}),
    }
    if not weights:
        wanted = "home_cost" if robot.mobility == "fixed" else "forward_velocity"
        raise ValueError(f"reward is missing; write reward: {{{wanted}: 1, control_cost: 0.05}}, of {', '.join(terms)}")
    for name, weight in weights.items():
        if name not in terms:
            raise ValueError(f"reward: this robot has no term {name!r}{near(name, terms)}")
        if weight <= 0:
            raise ValueError(
                f"reward.{name} is {weight:g}; a weight must be positive (costs and errors are subtracted anyway)"
            )
    asked = {"command_x", "command_y"} if {"track_velocity", "velocity_error"} & set(weights) else set()
    asked |= {"command_yaw"} if "track_yaw" in weights else set()
    for kind, name in commands.items():
        if kind not in asked:
            term = "track_yaw" if kind == "command_yaw" else "track_velocity or velocity_error"
            raise ValueError(f"no reward term asks for {name!r} ({kind}); add {term}")
    return {name: RewardTerm(terms[name][0], terms[name][1] * weight) for name, weight in weights.items()}


def judged(robot: Robot, commands: Mapping[str, str], fallen: StateFunction | None) -> dict[str, Any]:
    """Return measures and success of a family of this robot. fallen: its termination."""
    base, root = motion(robot), robot.model.body(robot.bodies[0]).id
    if robot.mobility == "fixed":
        return {"measures": {"energy": Measure(measures.work, "J", "sum")}}

    def asked(state: State, kind: str) -> Array | float:
        return state.task[commands[kind]] if kind in commands else 0.0

    def velocity_error(state: State) -> Array:
        v = base.course(state)
        return state.xp.hypot(v[:, 0] - asked(state, "command_x"), v[:, 1] - asked(state, "command_y"))

    def yaw_rate_error(state: State) -> Array:
        return state.xp.abs(base.angular_velocity(state)[:, 2] - asked(state, "command_yaw"))

    found: dict[str, Measure] = {}
    success: list[Criterion] = []
    if {"command_x", "command_y"} & commands.keys():
        found["velocity_error"] = Measure(velocity_error, "m/s", "mean")
        success.append(Criterion("velocity_error", high=VELOCITY_TOLERANCE))
    else:
        found |= measures.progress(lambda state: base.course(state)[:, 0])
    if "command_yaw" in commands:
        found["yaw_rate_error"] = Measure(yaw_rate_error, "rad/s", "mean")
    if fallen is not None:
        found |= measures.falls(fallen)
        success.append(Criterion("falls", high=0))
    return {
        "measures": found | measures.energy(measures.path_of(lambda state: base.world_velocity(state)[:, :2]), root),
        "success": tuple(success),
    }


def termination(robot: Robot, wanted: Termination) -> StateFunction | None:
    """Return a function that is True where the base leaves its heights or tilts too far; None without bounds."""
    if wanted.height is None and wanted.tilt is None:
        return None
    if robot.mobility == "fixed":
        raise ValueError("termination: the base is fixed, it neither falls nor tilts; leave it out")
    base = motion(robot)
    low, high = wanted.height or (-math.inf, math.inf)
    if low >= high:
        raise ValueError(f"termination.height [{low:g}, {high:g}] is reversed or empty; give low < high")
    if wanted.tilt is not None and not 0 < wanted.tilt <= math.pi:
        raise ValueError(f"termination.tilt is {wanted.tilt:g} rad; it must be above 0 and at most pi")
    least = -math.inf if wanted.tilt is None else float(np.cos(wanted.tilt))

    def terminate(state: State) -> Array:
        height = base.height(state)
        return (height < low) | (height > high) | (base.up(state)[:, 2] < least)

    return terminate
