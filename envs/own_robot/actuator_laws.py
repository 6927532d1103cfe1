"""Sites of quantities of actuators: stiffness, damping, strength, gear and force limit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

from metarl.envs.control import ON_JOINT, in_steps
from metarl.envs.force_laws import Bias, Gain, force_law
from metarl.envs.own_robot.declaration import DeclaredParameter
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.sites import Find, Site, attribute
from metarl.patterns import matched


@dataclass(frozen=True)
class Limit:
    """A limit on the total force of actuators on a joint or a tendon."""

    kind: str
    """joint or tendon."""
    name: str
    range: tuple[float, float]
    """Lowest and highest force, N m (N)."""
    sharers: tuple[str, ...]
    """Actuators whose force it limits."""

    def scale(self, spec: mujoco.MjSpec, factor: float) -> None:
        """Multiply the limit."""
        element = getattr(spec, self.kind)(self.name)
        element.actfrcrange = np.array(element.actfrcrange) * factor


def servo(which: str) -> Find:
    """Return a function that finds kp or kd of a position servo; control signals scale with kp, and still hold home.

    A velocity servo has a kd, with which its control signals scale.
    """

    def find(robot: Robot, name: str, _: DeclaredParameter) -> Site:
        i = robot.model.actuator(name).id
        of_speed = which == "kd" and robot.kinds[i] == "velocity" and robot.model.actuator_biasprm[i, 1] == 0
        if robot.kinds[i] != "position" and not of_speed:
            servos = "position servo" if which == "kp" else "position servo, and no <velocity>"
            raise ValueError(f"actuator {name!r} is no {servos}: it has no {which}")
        index = {"kp": 1, "kd": 2}[which]
        asked = which == "kp" or of_speed  # whether it is what the signal is multiplied by, too
        default = -float(robot.model.actuator_biasprm[i, index])

        def read(spec: mujoco.MjSpec) -> float:
            return -float(spec.actuator(name).biasprm[index])

        def write(spec: mujoco.MjSpec, value: float) -> None:
            actuator, before = spec.actuator(name), read(spec) or default
            actuator.biasprm[index] = -value
            for values in (actuator.gainprm, actuator.biasprm) if asked else ():
                values[0] *= value / before

        def multiply(spec: mujoco.MjSpec, factor: float) -> None:
            actuator = spec.actuator(name)
            actuator.biasprm[index] *= factor
            for values in (actuator.gainprm, actuator.biasprm) if asked else ():
                values[0] *= factor

        return Site(default, write, (f"{which} of {name}",), read, multiply)

    return find


def strength(robot: Robot, name: str, entry: DeclaredParameter) -> Site:
    """Find an actuator's strength: one factor on its force law and on every limit of its force."""
    model = robot.model
    scale, limits = force_law(model, model.actuator(name).id), _own(_limits_on(robot, name, entry), name)

    def write(spec: mujoco.MjSpec, value: float) -> None:
        actuator = spec.actuator(name)
        scale(actuator, value)
        actuator.forcerange = np.array(actuator.forcerange) * value
        for limit in limits:
            limit.scale(spec, value)

    slots = tuple(f"{what} of {name}" for what in ("strength", "kp", "kd", "force_limit"))
    return Site(1.0, write, slots, read=lambda spec: 1.0, multiply=write)


def force_limit(robot: Robot, name: str, entry: DeclaredParameter) -> Site:
    """Find the lowest limit on an actuator's force, its own or that of its joint or tendon; all scale together."""
    model = robot.model
    i = model.actuator(name).id
    acts_on = {"joint": ON_JOINT, "tendon": (mujoco.mjtTrn.mjTRN_TENDON,)}
    limits = [x for x in _limits_on(robot, name, entry) if int(model.actuator_trntype[i]) in acts_on[x.kind]]
    tops = [float(np.abs(model.actuator_forcerange[i]).max())] if model.actuator_forcelimited[i] else []
    geared = {"joint": abs(float(model.actuator_gear[i, 0])), "tendon": 1.0}  # a tendon's is of forces before gears
    tops += [max(map(abs, limit.range)) / geared[limit.kind] for limit in limits]
    if not tops:
        raise ValueError(f"actuator {name!r} has no force limit")
    default, owned = min(tops), _own(limits, name)

    def write(spec: mujoco.MjSpec, value: float) -> None:
        actuator = spec.actuator(name)
        actuator.forcerange = np.array(actuator.forcerange) * (value / default)
        for limit in owned:
            limit.scale(spec, value / default)

    return Site(default, write, (f"force_limit of {name}",))


def gear(robot: Robot, name: str, _: DeclaredParameter) -> Site:
    """Find the first gear of an actuator; a motor's gearbox multiplies force and divides speed by it."""
    model = robot.model
    i = model.actuator(name).id
    if int(model.actuator_trntype[i]) == mujoco.mjtTrn.mjTRN_BODY:
        raise ValueError(f"actuator {name!r} acts by adhesion: it has no gear; vary strength")
    holds = int(model.actuator_biastype[i]) == Bias.mjBIAS_AFFINE and model.actuator_biasprm[i, 1] != 0
    if holds or int(model.actuator_gaintype[i]) == Gain.mjGAIN_MUSCLE:
        raise ValueError(
            f"the force of actuator {name!r} ({robot.kinds[i]}) depends on its length, and another gear would "
            "change the pose that it holds; vary strength or kp"
        )
    return attribute(float(robot.spec.actuator(name).gear[0]), "actuator", name, "gear", 0)


def _limits_on(robot: Robot, name: str, entry: DeclaredParameter) -> list[Limit]:
    """Return the limits of the joints and tendons that an actuator acts on.

    ValueError if another actuator shares one and is not varied with it, since its limit would change too.
    """
    limits = [limit for limit in _limits(robot) if name in limit.sharers]
    for limit in limits:
        outside = [s for s in limit.sharers if not matched(entry.target or "", [s], "target")]
        if outside:
            raise ValueError(
                f"the force on {limit.kind} {limit.name!r} is limited to [{limit.range[0]:g}, {limit.range[1]:g}] for "
                f"{', '.join(map(repr, limit.sharers))} together; let target match {', '.join(map(repr, outside))} too"
            )
    return limits


def _own(limits: list[Limit], name: str) -> list[Limit]:
    """Return the limits that the actuator scales: a limit that several share is scaled once, by the first of them."""
    return [limit for limit in limits if limit.sharers[0] == name]


def _limits(robot: Robot) -> Iterator[Limit]:
    model = robot.model
    names = [model.actuator(i).name for i in range(model.nu)]
    for j in np.flatnonzero(model.jnt_actfrclimited):
        joint = model.joint(int(j)).name
        sharers = tuple(n for n, moved in zip(names, robot.moves, strict=True) if joint in moved)
        yield Limit("joint", joint, tuple(model.jnt_actfrcrange[j]), sharers)
    for t in np.flatnonzero(model.tendon_actfrclimited):
        pulls = (model.actuator_trntype == int(mujoco.mjtTrn.mjTRN_TENDON)) & (model.actuator_trnid[:, 0] == t)
        sharers = tuple(n for n, pull in zip(names, pulls, strict=True) if pull)
        yield Limit("tendon", model.tendon(int(t)).name, tuple(model.tendon_actfrcrange[t]), sharers)


def action_delay(robot: Robot, name: str, entry: DeclaredParameter) -> Site:
    """Find the delay from a control signal to its force; MuJoCo keeps enough old signals for the longest."""
    default = float(robot.spec.actuator(name).delay)
    longest = max(entry.values()) + (default if entry.operation == "add" else 0.0)
    keep_signals(robot, name, longest)
    site = attribute(default, "actuator", name, "delay")

    def write(spec: mujoco.MjSpec, value: float) -> None:
        if value > longest + 1e-9:
            raise ValueError(f"{entry.name} {value:g} s is longer than the family's longest, {longest:g} s")
        site.write(spec, default if value == default else in_steps(value, spec.option.timestep))

    return dataclasses.replace(site, write=write, read=None)


def keep_signals(robot: Robot, name: str, delay: float) -> None:
    """Let an actuator keep as many old control signals as a delay needs, s."""
    for spec in (robot.spec, robot.visual):
        actuator = spec.actuator(name)
        actuator.nsample = max(actuator.nsample, math.ceil(delay / spec.option.timestep - 1e-9))
