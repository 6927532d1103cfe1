"""What varying an actuator does: stiffness, damping, strength, gear and force limit, each by the law of its force."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from metarl.envs.robot_actuators import JOINT, joint_of
from metarl.envs.robot_file import Entry
from metarl.envs.robot_model import Robot
from metarl.envs.robot_sites import Site, attribute

Gain, Bias = mujoco.mjtGain, mujoco.mjtBias
AFFINE_TERMS = 3  # of gainprm and biasprm: constant, of the length, of the velocity


@dataclass(frozen=True)
class Limit:
    """A limit on what acts on a joint or a tendon, whichever actuators it comes from."""

    kind: str
    """joint or tendon."""
    name: str
    range: tuple[float, float]
    """N m (N)"""
    sharers: tuple[str, ...]
    """Actuators whose force it limits."""

    def scale(self, spec: mujoco.MjSpec, factor: float) -> None:
        """Multiply the limit."""
        element = getattr(spec, self.kind)(self.name)
        element.actfrcrange = np.array(element.actfrcrange) * factor


def servo(which: str) -> Callable[[Robot, str, Entry], Site]:
    """kp or kd of a position servo; the scale of its control signal follows kp, so that the same signal holds home."""

    def find(robot: Robot, name: str, _: Entry) -> Site:
        i = robot.model.actuator(name).id
        if robot.kinds[i] != "position":
            raise ValueError(f"actuator {name!r} is no position servo: it has no {which}")
        index = {"kp": 1, "kd": 2}[which]
        default = -float(robot.model.actuator_biasprm[i, index])

        def write(spec: mujoco.MjSpec, value: float) -> None:
            actuator = spec.actuator(name)
            actuator.biasprm[index] = -value
            if which == "kp":
                for values in (actuator.gainprm, actuator.biasprm):
                    values[0] *= value / default

        return Site(default, write, (f"{which} of {name}",))

    return find


def strength(robot: Robot, name: str, entry: Entry) -> Site:
    """All that an actuator's force comes from, and every limit on it, by one factor."""
    model = robot.model
    scale, limit = _force_law(model, model.actuator(name).id), _shared_limit(robot, name, entry)

    def write(spec: mujoco.MjSpec, value: float) -> None:
        actuator = spec.actuator(name)
        scale(actuator, value)
        actuator.forcerange = np.array(actuator.forcerange) * value
        if limit is not None:
            limit.scale(spec, value)

    return Site(1.0, write, tuple(f"{what} of {name}" for what in ("strength", "kp", "kd", "force_limit")))


def force_limit(robot: Robot, name: str, entry: Entry) -> Site:
    """The lowest limit on an actuator's force: its own, or that of its joint or tendon; all of them go along."""
    model = robot.model
    i = model.actuator(name).id
    limit = _shared_limit(robot, name, entry, writer_only=False)
    tops = [float(np.abs(model.actuator_forcerange[i]).max())] if model.actuator_forcelimited[i] else []
    if limit is not None:
        tops.append(max(map(abs, limit.range)) / abs(float(model.actuator_gear[i, 0])))
    if not tops:
        raise ValueError(f"actuator {name!r} has no force limit")
    default, owned = min(tops), _shared_limit(robot, name, entry)

    def write(spec: mujoco.MjSpec, value: float) -> None:
        actuator = spec.actuator(name)
        actuator.forcerange = np.array(actuator.forcerange) * (value / default)
        if owned is not None:
            owned.scale(spec, value / default)

    return Site(default, write, (f"force_limit of {name}",))


def gear(robot: Robot, name: str, _: Entry) -> Site:
    """The first gear of an actuator whose force it multiplies."""
    i = robot.model.actuator(name).id
    if robot.kinds[i] in ("position", "velocity") or robot.model.actuator_biastype[i] != Bias.mjBIAS_NONE:
        raise ValueError(
            f"actuator {name!r} is a {robot.kinds[i]} actuator whose force depends on the joint's motion: another gear "
            "would give it another home, stiffness and damping; vary strength, kp or kd"
        )
    if robot.model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_BODY:
        raise ValueError(f"actuator {name!r} acts by adhesion: it has no gear; vary strength")
    return attribute(float(robot.spec.actuator(name).gear[0]), "actuator", name, "gear", 0)


def _force_law(model: mujoco.MjModel, i: int) -> Callable[[Any, float], None]:
    """(actuator, factor): multiplies the force at every state and control signal. ValueError if that cannot be."""
    name, gain, bias = model.actuator(i).name, int(model.actuator_gaintype[i]), int(model.actuator_biastype[i])
    if gain == Gain.mjGAIN_MUSCLE:
        return _scaled(2, 3)  # peak force; what it follows from is frozen
    if gain == Gain.mjGAIN_DCMOTOR:
        extras = np.r_[model.actuator_gainprm[i, 2:], model.actuator_biasprm[i], model.actuator_dynprm[i, 1:]]
        if np.any(extras) or model.actuator_gainprm[i, 0] <= 0:
            raise ValueError(
                f"actuator {name!r} is a DC motor with saturation, cogging, heating or friction, which no strength "
                "scales; vary force_limit, or leave them out of the model"
            )

        def scale_current(actuator: Any, factor: float) -> None:
            """Torque = K (V - K w) / R: the resistance alone is in every term."""
            actuator.gainprm[0] /= factor

        return scale_current
    if bias not in (Bias.mjBIAS_NONE, Bias.mjBIAS_AFFINE) or gain not in (Gain.mjGAIN_FIXED, Gain.mjGAIN_AFFINE):
        raise ValueError(f"actuator {name!r} has a force that no strength scales: {Gain(gain).name}, {Bias(bias).name}")
    return _scaled(0, AFFINE_TERMS)


def _scaled(start: int, end: int) -> Callable[[Any, float], None]:
    def scale(actuator: Any, factor: float) -> None:
        for values in (actuator.gainprm, actuator.biasprm):
            values[start:end] = np.array(values[start:end]) * factor

    return scale


def _shared_limit(robot: Robot, name: str, entry: Entry, writer_only: bool = True) -> Limit | None:
    """The limit of the actuator's joint or tendon; None if there is none, or if an earlier target of the entry has it.

    writer_only: whether only one of several actuators that share a limit gets it. ValueError if one of them is not
    varied, since its limit would change too.
    """
    limit = next((limit for limit in _limits(robot.model) if name in limit.sharers), None)
    if limit is None:
        return None
    outside = [s for s in limit.sharers if entry.target is None or not re.fullmatch(entry.target, s)]
    if outside:
        raise ValueError(
            f"the force on {limit.kind} {limit.name!r} is limited to [{limit.range[0]:g}, {limit.range[1]:g}] for "
            f"{', '.join(map(repr, limit.sharers))} together; let target match {', '.join(map(repr, outside))} too"
        )
    return limit if not writer_only or limit.sharers[0] == name else None


def _limits(model: mujoco.MjModel) -> Iterator[Limit]:
    for j in range(model.njnt):
        if model.jnt_actfrclimited[j]:
            sharers = [
                i for i in range(model.nu) if int(model.actuator_trntype[i]) in JOINT and joint_of(model, i) == j
            ]
            yield Limit("joint", model.joint(j).name, tuple(model.jnt_actfrcrange[j]), _names(model, sharers))
    for t in range(model.ntendon):
        if model.tendon_actfrclimited[t]:
            acting = model.actuator_trntype == int(mujoco.mjtTrn.mjTRN_TENDON)
            sharers = np.flatnonzero(acting & (model.actuator_trnid[:, 0] == t)).tolist()
            yield Limit("tendon", model.tendon(t).name, tuple(model.tendon_actfrcrange[t]), _names(model, sharers))


def _names(model: mujoco.MjModel, actuators: list[int]) -> tuple[str, ...]:
    return tuple(model.actuator(i).name for i in actuators)
