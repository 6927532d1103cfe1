"""One's own robot as it is understood: its parts, home, control and ground, and what must be asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.own_robot.actuators import Kind
from metarl.envs.own_robot.file import near
from metarl.envs.own_robot.ground import Ground

Source = Literal["model", "inferred", "file"]
Mobility = Literal["floating", "guided", "fixed"]


@dataclass(frozen=True)
class Finding:
    """What is known about the robot, and whence."""

    subject: str
    value: str
    source: Source


@dataclass
class Robot:
    """A robot ready to simulate, if `questions` is empty."""

    name: str
    spec: mujoco.MjSpec
    """For simulation: without decoration, each mass where an edit can reach it."""
    visual: mujoco.MjSpec
    """With decoration."""
    model: mujoco.MjModel
    """Of `spec`."""
    base: str = ""
    """Body whose motion is the robot's."""
    mobility: Mobility = "fixed"
    """floating: by a free joint; guided: by joints that nothing drives (planar robots); fixed to the world."""
    bodies: tuple[str, ...] = ()
    """Of the robot, without those of its scene."""
    feet: tuple[str, ...] = ()
    ground: Ground = field(default_factory=Ground)
    """What the robot stands on."""
    axes: Array = field(default_factory=lambda: np.eye(3))
    """[3, 3] columns: what is forwards, left and up for the base, in the frame of its body."""
    joints: tuple[str, ...] = ()
    """Hinges and slides of the robot, without those that guide its base."""
    home: Array = field(default_factory=lambda: np.zeros(0))
    """[nq] home pose."""
    offset: Array = field(default_factory=lambda: np.zeros(0))
    """[nu] control signal of action 0."""
    gain: Array = field(default_factory=lambda: np.zeros(0))
    """[nu] change of the control signal that an action of 1 makes."""
    low: Array = field(default_factory=lambda: np.zeros(0))
    """[nu] lowest action."""
    high: Array = field(default_factory=lambda: np.zeros(0))
    """[nu] highest action."""
    kinds: tuple[Kind, ...] = ()
    """[nu] what each control signal is."""
    moves: tuple[frozenset[str], ...] = ()
    """[nu] names of the joints that each actuator moves."""
    initial: dict[str, Array] = field(default_factory=dict)
    """MjData fields, besides positions and velocities, that an episode starts with."""
    geom_masses: dict[str, float] = field(default_factory=dict)
    """kg, of geoms whose density makes their body's mass."""
    findings: list[Finding] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    """What could not be inferred, each with what to write."""

    def geoms(self) -> Iterator[mujoco.MjsGeom]:
        """Of the robot, for simulation."""
        for name in self.bodies:
            yield from self.spec.body(name).geoms

    def note(self, subject: str, value: str, source: Source) -> None:
        self.findings.append(Finding(subject, value, source))


def penetrations(model: mujoco.MjModel, qpos: Array) -> dict[tuple[str, str], float]:
    """Depth of each contact by the names of its geoms, m."""
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
    """Depth that the contact solver forgives, m: 2 % of the robot's size."""
    ids = [robot.model.geom(g.name).id for g in robot.geoms()]
    data = mujoco.MjData(robot.model)
    data.qpos = robot.home
    mujoco.mj_kinematics(robot.model, data)
    if not ids:
        return 1e-3
    reach, radius = data.geom_xpos[ids], robot.model.geom_rbound[ids, None]
    return max(1e-3, 0.02 * float(np.max((reach + radius).max(axis=0) - (reach - radius).min(axis=0))))


def matching(pattern: str, names: list[str], what: str) -> list[str]:
    """The names that a regular expression matches as a whole; ValueError with the nearest if there are none."""
    try:
        found = [name for name in names if re.fullmatch(pattern, name)]
    except re.error as error:
        raise ValueError(f"{what} {pattern!r} is no regular expression: {error}") from None
    if not found:
        raise ValueError(f"{what} {pattern!r} matches nothing in the model{near(pattern, names)}")
    return found


def unused(wanted: str, taken: set[str]) -> str:
    """The wanted name, or the first of wanted_2, wanted_3, ... that nothing has."""
    candidates = (wanted, *(f"{wanted}_{i}" for i in range(2, len(taken) + 3)))
    return next(c for c in candidates if c not in taken)
