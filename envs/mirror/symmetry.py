"""Where a robot's joints and actions go in a mirror, by its geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import mujoco
import numpy as np

from metarl.envs.family import TaskFamily
from metarl.envs.reflection import Reflection
from metarl.envs.task import Task

CLOSE = 1e-3
"""Largest difference of places, axes and motors of joints that mirror each other, m and 1."""
FREE_POSITION = np.array([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0])  # x, y, z, then the quaternion
FREE_VELOCITY = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
POLAR, AXIAL = np.array([1.0, -1.0, 1.0]), np.array([-1.0, 1.0, -1.0])
"""What a mirror on the x-z plane makes of a vector of motion, and of one of rotation."""
IDENTITY = (0.0, 1.0)
FREE = mujoco.mjtJoint.mjJNT_FREE


class Asymmetric(ValueError):
    """The robot, its tasks or what is observed of them have no mirror image."""


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Where a robot's joints and actions, and its tasks, go in a mirror."""

    positions: Reflection
    """Of qpos - origin."""
    origin: np.ndarray
    """[nq]."""
    velocities: Reflection
    """Of qvel."""
    actions: Reflection
    categories: dict[str, dict[float, float]] = field(default_factory=dict)
    """Mirror image of each category, by parameter."""
    partners: dict[str, str] = field(default_factory=dict)
    """Parameter that a quantity changes places with, as the lengths of a left and a right leg do."""
    images: dict[str, tuple[float, float]] = field(default_factory=dict)
    """(a, b) by parameter: in the mirror it is a + b x, where x is its own value, or its partner's."""
    drawn: dict[str, np.ndarray] = field(default_factory=dict)
    """Sign of the mirror image of each element of the memory that an episode starts with, as a command, by name."""

    def pose(self, qpos: np.ndarray) -> np.ndarray:
        """Return positions in the mirror, [..., nq]."""
        return self.origin + self.positions.of(qpos - self.origin)

    def task(self, task: Task) -> Task:
        """Return a task without changes in the mirror."""

        def image(name: str) -> float:
            value, (at_zero, sign) = task.values[self.partners.get(name, name)], self.images.get(name, IDENTITY)
            return self.categories.get(name, {}).get(value, at_zero + sign * value)

        return Task(task.family, {name: image(name) for name in task.values})


def by_geometry(family: TaskFamily) -> Symmetry:
    """Return where joints and actions of the neutral robot go in a mirror, by geometry."""
    model = family.compile(family.neutral())
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    qpos, qvel = (np.arange(n) for n in (model.nq, model.nv))
    qpos_signs, qvel_signs, origin = np.ones(model.nq), np.ones(model.nv), np.zeros(model.nq)
    partner, turns = _partners(model, data)
    for j, other in enumerate(partner):
        p, v, p_from, v_from = (int(a[k]) for k in (j, other) for a in (model.jnt_qposadr, model.jnt_dofadr))
        if model.jnt_type[j] == FREE:
            qpos[p : p + 7], qvel[v : v + 6] = np.arange(p_from, p_from + 7), np.arange(v_from, v_from + 6)
            qpos_signs[p : p + 7], qvel_signs[v : v + 6] = FREE_POSITION, FREE_VELOCITY
        else:
            qpos[p], qvel[v], origin[p] = p_from, v_from, model.qpos0[p]
            qpos_signs[p] = qvel_signs[v] = turns[j]
    return Symmetry(
        positions=made(qpos, qpos_signs),
        origin=origin,
        velocities=made(qvel, qvel_signs),
        actions=_actions(family, model, partner, turns),
        categories=_places(family, [model.joint(j).name for j in range(model.njnt)], partner),
    )


def _places(family: TaskFamily, joints: Sequence[str], partner: Sequence[int]) -> dict[str, dict[float, float]]:
    """Return the mirror image of each category that is named for a joint, or a group of them, by parameter."""
    image = {frozenset([name]): frozenset([joints[other]]) for name, other in zip(joints, partner, strict=True)}
    of = {name: frozenset([name]) for name in joints} | {name: frozenset(own) for name, own in family.groups.items()}
    image |= {own: frozenset().union(*(image[frozenset([name])] for name in own)) for own in of.values()}
    found: dict[str, dict[float, float]] = {}
    for p in family.parameters:
        number = {of[name]: float(i) for i, name in enumerate(p.names) if name in of}
        found[p.name] = {number[own]: number[image[own]] for own in number if image[own] in number}
    return {name: images for name, images in found.items() if images}


def _partners(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[list[int], np.ndarray]:
    """Return the joint that each joint is the mirror image of, and the sign of its position there."""
    partner, turns = [], np.ones(model.njnt)
    for j in range(model.njnt):
        name, kind = model.joint(j).name, model.jnt_type[j]
        if kind == mujoco.mjtJoint.mjJNT_BALL:
            raise Asymmetric(f"joint {name!r} is a ball joint, whose mirror image is not known")
        there, axis = data.xanchor[j] * POLAR, data.xaxis[j] * (POLAR if kind == mujoco.mjtJoint.mjJNT_SLIDE else AXIAL)
        near = (np.abs(data.xanchor - there).max(1) < CLOSE) & (model.jnt_type == kind)
        able = np.flatnonzero(near & ((1 - np.abs(data.xaxis @ axis) < CLOSE) | (kind == FREE)))
        if not able.size:
            raise Asymmetric(
                f"joint {name!r} has no partner on the other side of the x-z plane: no joint of its kind has the "
                "mirrored place and axis; a robot starts with its middle on that plane, and faces along x"
            )
        partner.append(j if j in able else int(able[0]))
        turns[j] = 1.0 if kind == FREE else np.sign(data.xaxis[partner[j]] @ axis)
    if any(partner[other] != j for j, other in enumerate(partner)):
        raise Asymmetric("several joints have the same place and axis, so that their partners are not known")
    if partner == list(range(model.njnt)) and (turns > 0).all():
        raise Asymmetric("the robot moves in the mirror's plane alone: its mirror image is itself")
    return partner, turns


def _actions(family: TaskFamily, model: mujoco.MjModel, partner: Sequence[int], turns: np.ndarray) -> Reflection:
    signals, places, signs = family.control, [], []
    of = {name: i for i, name in enumerate(signals.joints) if name}
    strength = signals.gain * signals.size
    for i, name in enumerate(signals.joints):
        j = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name) if name else -1
        other = of.get(model.joint(partner[j]).name, -1) if j >= 0 else -1
        if other < 0 or abs(abs(strength[i]) - abs(strength[other])) > CLOSE * abs(strength[i]):
            raise Asymmetric(f"motor {signals.names[i]!r} has no partner on the other side that an action moves as far")
        places.append(other)
        signs.append(turns[j] * np.sign(strength[i] * strength[other]))
    return made(places, signs)


def made(places: Sequence[int] | np.ndarray, signs: Sequence[float] | np.ndarray) -> Reflection:
    """Return the reflection of these places and signs."""
    return Reflection(np.asarray(places, dtype=np.int64), np.asarray(signs, dtype=np.float32))
