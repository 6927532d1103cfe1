"""Edits of a task's model by faults of actuators and joints."""

from __future__ import annotations

import dataclasses
import math

import mujoco
import numpy as np

from metarl.envs.control import AFFINE, in_steps
from metarl.envs.efforts import limited_tendon, limits_in_model
from metarl.envs.faults.parts import Anatomy, Part, actuators_of
from metarl.envs.force_laws import force_law
from metarl.envs.links import direction_of, scale_link, shapes_across, stretch_along, stretch_given

Dyn = mujoco.mjtDyn
LONGEST_DELAY = 0.06  # s, of severity 1
LOCK_INERTIA = 1e2  # kg m^2 (kg), of a locked joint, which turns with the link before it
LOCK_TORQUE = 1e9  # N m (N), of a locked joint's friction, which takes its speed
LEAST = 1e-9  # share of a force limit that stays, as MuJoCo refuses a limit of 0
RIGID = (0.9999, 0.9999, 0.001, 0.5, 2.0)
"""Impedance of a held joint, the stiffest that MuJoCo allows."""
PLAY = {"rad": 0.2, "m": 0.02}
"""Play of a slack joint at severity 1, by the unit of its position."""
SHORTENING = 0.4  # share of a link's length that is lost at severity 1
MEMORYLESS = tuple(map(int, (Dyn.mjDYN_NONE, Dyn.mjDYN_FILTER, Dyn.mjDYN_FILTEREXACT)))
"""Dynamics whose activation never exceeds the signal."""


def force_limit(robot: Anatomy, i: int, of: mujoco.MjModel | None = None) -> float | None:
    """Return the largest force of an actuator at rest, before its gear: N m (N); None: it has no limit.

    of: model of the robot; None: the neutral one.
    """
    model, control = of or robot.model, robot.family.control
    limits = limits_in_model(model, i)
    if limits:
        return min(limits)
    fixed = int(model.actuator_gaintype[i]) == mujoco.mjtGain.mjGAIN_FIXED and model.actuator_dyntype[i] in MEMORYLESS
    if not (fixed and control.kinds[i].startswith("force") and int(model.actuator_biastype[i]) in AFFINE):
        return None
    bounds = np.stack([robot.family.action_low[i], robot.family.action_high[i]])
    signals = np.clip(control.offset[i] + control.gain[i] * bounds, *control.ranges[i])
    limit = float(np.abs(model.actuator_gainprm[i, 0] * signals).max())
    return limit if 0 < limit < math.inf else None


def servo(robot: Anatomy, i: int) -> bool:
    """Return whether an actuator's signal asks its joint for a position."""
    control = robot.family.control
    return bool(control.joints[i]) and control.kinds[i].startswith("position") and control.units[i] in PLAY


def weaken(spec: mujoco.MjSpec, robot: Anatomy, part: Part, severity: float) -> None:
    """Multiply force and force limit of a part's actuators by 1 - severity."""
    for i, actuator in zip(part.actuators, actuators_of(spec, part), strict=False):
        if severity == 1 and not (actuator.armature or np.any(actuator.damping)):  # its rotor stays
            actuator.gear = np.zeros(6)
        resistive = int(robot.model.actuator_gaintype[i]) == mujoco.mjtGain.mjGAIN_DCMOTOR
        force_law(robot.model, i)(actuator, max(1 - severity, LEAST if resistive else 0.0))
    saturate(spec, robot, part, severity)


def kill(spec: mujoco.MjSpec, robot: Anatomy, part: Part, severity: float) -> None:
    """Switch a part's actuators off."""
    weaken(spec, robot, part, 1.0)


def saturate(spec: mujoco.MjSpec, robot: Anatomy, part: Part, severity: float) -> None:
    """Multiply the force limit of a part's actuators, and of its joint or their tendons, by 1 - severity."""
    factor = max(1 - severity, LEAST)
    for i, actuator in zip(part.actuators, actuators_of(spec, part), strict=False):
        actuator.forcerange = np.array(actuator.forcerange) * factor
        if (index := limited_tendon(robot.model, i)) is not None:
            tendon = spec.tendons[index]
            tendon.actfrcrange = np.array(tendon.actfrcrange) * factor
    joint = spec.joint(part.joint) if part.joint else None
    if joint is not None:
        joint.actfrcrange = np.array(joint.actfrcrange) * factor


def limit_force(spec: mujoco.MjSpec, robot: Anatomy, part: Part) -> None:
    """Limit the force of a part's actuators to the largest that the actions ask for."""
    for i, actuator in zip(part.actuators, actuators_of(spec, part), strict=False):
        limit = force_limit(robot, i)
        if limit is not None and not limits_in_model(robot.model, i):
            actuator.forcelimited, actuator.forcerange = True, (-limit, limit)


def lock(spec: mujoco.MjSpec, robot: Anatomy, part: Part, severity: float) -> None:
    """Hold a joint where it is, whatever acts on it."""
    joint = spec.joint(part.joint)
    if joint is not None:
        joint.armature += LOCK_INERTIA
        _hold(spec, part, LOCK_TORQUE)


def jam(spec: mujoco.MjSpec, robot: Anatomy, part: Part, severity: float) -> None:
    """Let actuators that are no servos hold their joint where it is with their largest force, whatever is asked.

    Servos beside them hold it by their signals.
    """
    brakes = tuple(i for i in part.actuators if not servo(robot, i))
    if brakes:
        own = spec.compile()  # its motors may be stronger or weaker than the neutral robot's
        forces = [abs(own.actuator_gear[i, 0]) * (force_limit(robot, i, own) or 0.0) for i in brakes if i < own.nu]
        shared = brakes != part.actuators  # the joint's limit is then of the servos, too
        kill(spec, robot, dataclasses.replace(part, actuators=brakes, joint="" if shared else part.joint), 1.0)
        _hold(spec, part, sum(forces))


def delay(spec: mujoco.MjSpec, robot: Anatomy, part: Part, severity: float) -> None:
    """Delay the signals of a part's actuators by severity x 0.06 s more."""
    for actuator in actuators_of(spec, part):
        actuator.delay = in_steps(actuator.delay + severity * LONGEST_DELAY, spec.option.timestep)


def keep_signals(spec: mujoco.MjSpec, robot: Anatomy, part: Part) -> None:
    """Keep as many old signals of a part's actuators as the longest delay needs."""
    for actuator in actuators_of(spec, part):
        actuator.nsample += math.ceil(LONGEST_DELAY / spec.option.timestep - 1e-9)


def shorten(spec: mujoco.MjSpec, robot: Anatomy, part: Part, severity: float) -> None:
    """Shorten the link that a joint moves by severity x 40 %, with its mass and inertia."""
    joint, factor = spec.joint(part.joint), 1 - SHORTENING * severity
    if joint is not None:
        link, pivot = joint.parent, np.array(joint.pos)
        body = int(robot.model.joint(part.joint).bodyid[0])
        along = direction_of(robot.model, body, pivot)
        scale_link(link, pivot, factor, shapes_across(robot.model, body, along))
        if link.explicitinertial and along is not None:
            stretch_given(link, pivot, stretch_along(along, factor))


def _hold(spec: mujoco.MjSpec, part: Part, force: float) -> None:
    """Hold a joint by a friction of that largest torque or force."""
    joint = spec.joint(part.joint)
    if joint is not None:
        joint.frictionloss += force
        joint.solref_friction = (2 * spec.option.timestep, 1.0)
        joint.solimp_friction = RIGID
