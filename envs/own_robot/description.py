"""Description of a user's robot: its parts, home pose, control and ground, and open questions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.own_robot.actuators import Drive, Kind
from metarl.envs.own_robot.ground import GroundGeoms
from metarl.envs.text import near
from metarl.patterns import matched

Origin = Literal["model", "inferred", "file"]
Mobility = Literal["floating", "guided", "fixed"]


@dataclass(frozen=True)
class Finding:
    """A fact about the robot and its origin."""

    subject: str
    value: str
    source: Origin


@dataclass
class Robot:
    """A robot ready to simulate, if `questions` is empty."""

    name: str
    spec: mujoco.MjSpec
    """Specification for simulation: without decoration, and with masses that can be edited."""
    visual: mujoco.MjSpec
    """Specification with decoration."""
    model: mujoco.MjModel
    """Compiled `spec`."""
    base: str = ""
    """Body whose motion is taken as the robot's."""
    mobility: Mobility = "fixed"
    """floating: by a free joint; guided: by joints that nothing drives (planar robots); fixed to the world."""
    bodies: tuple[str, ...] = ()
    """Bodies of the robot, without those of its scene."""
    feet: tuple[str, ...] = ()
    """Bodies that it stands on."""
    soles: dict[str, str] = field(default_factory=dict)
    """Geom that alone is the foot, of bodies that have others besides, by the body's name."""
    ground: GroundGeoms = field(default_factory=GroundGeoms)
    """Geoms that the robot stands on."""
    axes: Array = field(default_factory=lambda: np.eye(3))
    """Directions forwards, left and up of the base in the frame of its body, as columns, [3, 3]."""
    joints: tuple[str, ...] = ()
    """Hinges and slides of the robot, without those that guide its base."""
    home: Array = field(default_factory=lambda: np.zeros(0))
    """Home pose, [nq]."""
    offset: Array = field(default_factory=lambda: np.zeros(0))
    """Control signal of action 0, [nu]."""
    gain: Array = field(default_factory=lambda: np.zeros(0))
    """Change of the control signal that an action of 1 makes, [nu]."""
    low: Array = field(default_factory=lambda: np.zeros(0))
    """Lowest action, [nu]."""
    high: Array = field(default_factory=lambda: np.zeros(0))
    """Highest action, [nu]."""
    kinds: tuple[Kind, ...] = ()
    """Kind of each control signal, [nu]."""
    moves: tuple[frozenset[str], ...] = ()
    """Names of the joints that each actuator moves, [nu]."""
    drives: tuple[Drive, ...] = ()
    """How each actuator is driven, [nu]."""
    key: int = -1
    """Keyframe of the home pose; -1: none."""
    initial: dict[str, Array] = field(default_factory=dict)
    """MjData fields, besides positions and velocities, that an episode starts with."""
    geom_masses: dict[str, float] = field(default_factory=dict)
    """Mass of each geom whose density makes its body's mass, kg."""
    payloads: dict[str, str] = field(default_factory=dict)
    """Body of the payload of each body that has one, by name."""
    findings: list[Finding] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    """Questions about facts that could not be inferred, each with what to write."""

    @property
    def foot_parts(self) -> tuple[str, ...]:
        """Names of the bodies, or single geoms of them, that are the feet."""
        return tuple(self.soles.get(foot, foot) for foot in self.feet)

    def geoms(self) -> Iterator[mujoco.MjsGeom]:
        """Return the robot's geoms in the specification for simulation."""
        for name in self.bodies:
            yield from self.spec.body(name).geoms

    def note(self, subject: str, value: str, source: Origin) -> None:
        self.findings.append(Finding(subject, value, source))


def penetrations(model: mujoco.MjModel, qpos: Array) -> dict[tuple[str, str], float]:
    """Return the depth of each contact by the names of its geoms, m."""
    data = mujoco.MjData(model)
    data.qpos = qpos
    mujoco.mj_fwdPosition(model, data)
    depths: dict[tuple[str, str], float] = {}
    for contact in data.contact:
        pair = (model.geom(contact.geom[0]).name, model.geom(contact.geom[1]).name)
        if contact.dist < 0:
            depths[pair] = max(depths.get(pair, 0.0), -float(contact.dist))
    return depths


def tolerance(robot: Robot) -> float:
    """Return the depth that the contact solver forgives, m: 2 % of the robot's size."""
    ids = [robot.model.geom(g.name).id for g in robot.geoms()]
    data = mujoco.MjData(robot.model)
    data.qpos = robot.home
    mujoco.mj_kinematics(robot.model, data)
    if not ids:
        return 1e-3
    reach, radius = data.geom_xpos[ids], robot.model.geom_rbound[ids, None]
    return max(1e-3, 0.02 * float(np.max((reach + radius).max(axis=0) - (reach - radius).min(axis=0))))


def joints_to(robot: Robot, body: str) -> list[str]:
    """Return the robot's joints between its base and a body, in this order."""
    model, names = robot.model, []
    at = model.body(body).id
    while at:
        first, count = int(model.body_jntadr[at]), int(model.body_jntnum[at])
        names = [n for n in (model.joint(j).name for j in range(first, first + count)) if n in robot.joints] + names
        at = int(model.body_parentid[at])
    return names


def turning_freely(robot: Robot) -> list[str]:
    """Return the hinges without limits that no servo holds in a position, such as a wheel's: no angle is their home."""
    driven = {n for moved, kind in zip(robot.moves, robot.kinds, strict=True) if kind != "position" for n in moved}
    hinge = int(mujoco.mjtJoint.mjJNT_HINGE)
    joints = [(name, robot.model.joint(name)) for name in robot.joints if name in driven]
    return [name for name, joint in joints if joint.type[0] == hinge and not joint.limited[0]]


def matching(pattern: str, names: list[str], what: str) -> list[str]:
    """Return the names that a regular expression matches in full; ValueError with the nearest if there are none."""
    found = matched(pattern, names, what)
    if not found:
        raise ValueError(f"{what} {pattern!r} matches nothing in the model{near(pattern, names)}")
    return found


def unused(wanted: str, taken: set[str]) -> str:
    """Return the wanted name, or the first of wanted_2, wanted_3, ... that is not taken."""
    candidates = (wanted, *(f"{wanted}_{i}" for i in range(2, len(taken) + 3)))
    return next(c for c in candidates if c not in taken)
