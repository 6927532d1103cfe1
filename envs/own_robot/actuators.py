"""Actuators: the meaning of their control signals, the signals that hold the robot at home, and adding actuators."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import mujoco
import numpy as np

from metarl.envs.added import plain
from metarl.envs.arrays import Array
from metarl.envs.control import ON_JOINT, SCALAR, joint_of
from metarl.envs.own_robot.declaration import Actuators
from metarl.envs.strict_yaml import quoted
from metarl.envs.text import near
from metarl.patterns import matched

T = TypeVar("T")
Gain, Bias, Dynamics, Transmission = mujoco.mjtGain, mujoco.mjtBias, mujoco.mjtDyn, mujoco.mjtTrn
INTERNAL = (*ON_JOINT, Transmission.mjTRN_TENDON, Transmission.mjTRN_SLIDERCRANK)
"""Transmissions that drive joints; others push on a body."""
ENDLESS = 1e3
"""Width of a range, rad (m), by which a URDF describes a joint that turns without end."""
Kind = Literal["position", "velocity", "force", "damping", "voltage", "muscle", "adhesion"]
MEANINGS: dict[Kind, str] = {
    "position": "action = offset from the home pose, rad (m)",
    "velocity": "action = share of the largest speed",
    "force": "action = share of the largest force",
    "damping": "action = share of the largest damping",
    "voltage": "action = share of the largest voltage",
    "muscle": "action = excitation",
    "adhesion": "action = share of the largest adhesion",
}
"""Meaning of an action by kind of actuator."""
TAKES = {
    **dict.fromkeys(("kp",), ("position",)),
    **dict.fromkeys(("kd", "gains"), ("position", "velocity")),
    **dict.fromkeys(("speed", "speeds"), ("velocity",)),
}
"""Kinds of added actuators that a key is for, where it is not for all."""


@dataclass(frozen=True)
class Drive:
    """Control signal of an action: control = rest + gain * action, within [bottom, top]."""

    name: str
    kind: Kind
    rest: float
    """Control signal of action 0."""
    gain: float
    """Change of the control signal that an action of 1 makes."""
    bottom: float
    """Lowest control signal."""
    top: float
    """Highest control signal."""
    activation: float | None = None
    """Activation that holds home; None: the keyframe's, or 0."""
    activation_unit: float = math.nan
    """Change of that activation by which the joint that it holds moves 1 rad (m)."""


def require_single_inputs(model: mujoco.MjModel) -> None:
    """Raise ValueError for an actuator whose force does not follow from the model and one control signal."""
    for i in range(model.nactuator):
        name, inputs = model.actuator(i).name, int(model.actuator_ctrlnum[i])
        types = (model.actuator_gaintype[i], model.actuator_biastype[i], model.actuator_dyntype[i])
        gain, bias, dynamics = map(int, types)
        what = ""
        if inputs != 1:
            what = f"takes {inputs} control signals"
        elif Gain.mjGAIN_USER == gain or Bias.mjBIAS_USER == bias or Dynamics.mjDYN_USER == dynamics:
            what = "has a user-defined force, which is not part of the model"
        elif model.actuator_plugin[i] >= 0:
            what = "is a plugin's"
        elif gain == Gain.mjGAIN_DCMOTOR and np.any(model.actuator_gainprm[i, 4:8]):
            what = "is a DC motor with a controller of its own"
        elif gain in (Gain.mjGAIN_PID, Gain.mjGAIN_SO3):
            what = f"is of the type {Gain(gain).name.removeprefix('mjGAIN_').lower()}"
        if what:
            raise ValueError(
                f"actuator {name!r} {what}: the signal that holds it at home is unknown; make it a <position>, "
                "<velocity>, <motor> or <general> of one control signal"
            )


def moved_joints(model: mujoco.MjModel) -> tuple[frozenset[str], ...]:
    """Return the names of the joints that each actuator moves at any of ten poses, also by a tendon or a slider-crank.

    An actuator that pushes on a body (a thruster at a site, adhesion) moves no joint in this sense.
    """
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    moved = np.zeros((model.nactuator, model.nv), dtype=bool)
    for pose in range(10):
        data.qpos = model.qpos0
        for j in range(model.njnt) if pose else ():
            if int(model.jnt_type[j]) in SCALAR:
                low, high = model.jnt_range[j] if model.jnt_limited[j] else (-1.0, 1.0)
                data.qpos[model.jnt_qposadr[j]] = rng.uniform(low, high)
        mujoco.mj_fwdPosition(model, data)
        moment = np.zeros((len(data.moment_rownnz), model.nv))
        mujoco.mju_sparse2dense(
            moment, data.actuator_moment, data.moment_rownnz, data.moment_rowadr, data.moment_colind
        )
        for i in range(model.nactuator):
            rows = slice(model.actuator_outadr[i], model.actuator_outadr[i] + model.actuator_outnum[i])
            moved[i] |= np.any(np.abs(moment[rows]) > 1e-9, axis=0)
    for i in range(model.nactuator):
        relative = model.actuator_trntype[i] == Transmission.mjTRN_SITE and model.actuator_trnid[i, 1] >= 0
        if int(model.actuator_trntype[i]) not in INTERNAL and not relative:
            moved[i] = False
    return tuple(frozenset(model.joint(int(j)).name for j in model.dof_jntid[row]) for row in moved)


def actuated_bodies(model: mujoco.MjModel) -> set[int]:
    """Return the bodies that actuators act on."""
    bodies: set[int] = set()
    for i in range(model.nactuator):
        kind, (first, second) = int(model.actuator_trntype[i]), map(int, model.actuator_trnid[i])
        if kind in ON_JOINT:
            bodies.add(int(model.jnt_bodyid[first]))
        elif kind == Transmission.mjTRN_TENDON:
            start = model.tendon_adr[first]
            for w in range(start, start + model.tendon_num[first]):
                of = {
                    mujoco.mjtWrap.mjWRAP_JOINT: model.jnt_bodyid,
                    mujoco.mjtWrap.mjWRAP_SITE: model.site_bodyid,
                    mujoco.mjtWrap.mjWRAP_SPHERE: model.geom_bodyid,
                    mujoco.mjtWrap.mjWRAP_CYLINDER: model.geom_bodyid,
                }.get(int(model.wrap_type[w]))  # pyright: ignore[reportArgumentType, reportCallIssue]
                if of is not None:
                    bodies.add(int(of[model.wrap_objid[w]]))
        elif kind in (Transmission.mjTRN_SITE, Transmission.mjTRN_SLIDERCRANK):
            bodies |= {int(model.site_bodyid[s]) for s in (first, second) if s >= 0}
        elif kind == Transmission.mjTRN_BODY:
            bodies.add(int(first))
    return bodies


def kind_of(model: mujoco.MjModel, i: int) -> Kind:
    """Classify actuator i's control signal by its force law f = gain * (control or activation) + bias.

    If the bias falls with the length, it is a position servo; if it falls with the velocity alone, by as much as the
    gain, a velocity servo. A position servo behind an integrator takes a velocity.
    """
    gain, stiffness, damping = model.actuator_gainprm[i, 0], *-model.actuator_biasprm[i, 1:3]
    if model.actuator_gaintype[i] == Gain.mjGAIN_MUSCLE:
        return "muscle"
    if model.actuator_gaintype[i] == Gain.mjGAIN_DCMOTOR:
        return "voltage"
    if model.actuator_trntype[i] == Transmission.mjTRN_BODY:
        return "adhesion"
    if model.actuator_gaintype[i] == Gain.mjGAIN_AFFINE and np.any(model.actuator_gainprm[i, 1:3]):
        return "damping"
    if model.actuator_biastype[i] != Bias.mjBIAS_AFFINE or gain == 0:
        return "force"
    if stiffness > 0:
        return "velocity" if model.actuator_dyntype[i] == Dynamics.mjDYN_INTEGRATOR else "position"
    return "velocity" if damping > 0 and np.isclose(damping, gain) else "force"


def find_drive(model: mujoco.MjModel, i: int, length: float, limit: float | None) -> Drive:
    """Return how actuator i is driven. length: of its transmission at home. limit: of control signals without a range.

    The control range is NaN where neither the model nor the limit gives one.
    """
    name, kind = model.actuator(i).name, kind_of(model, i)
    bottom, top = map(float, model.actuator_ctrlrange[i]) if model.actuator_ctrllimited[i] else (math.nan, math.nan)
    if math.isnan(bottom) and kind == "muscle":
        bottom, top = 0.0, 1.0  # its dynamics take no other excitation
    if math.isnan(bottom) and limit is not None:
        bottom, top = -limit, limit
    gain, bias = float(model.actuator_gainprm[i, 0]), model.actuator_biasprm[i]
    holds = model.actuator_biastype[i] == Bias.mjBIAS_AFFINE and gain != 0 and bias[1] < 0
    scale = float(-bias[1] / gain) if holds else 0.0  # control signal a metre or radian of the transmission
    hold = scale * length - float(bias[0]) / gain if holds else 0.0
    on_joint = joint_of(model, i) is not None
    unit = scale * (float(model.actuator_gear[i, 0]) if on_joint else 1.0)  # a joint's radian or metre
    if kind == "position":
        if math.isnan(bottom):
            bottom, top = hold - np.pi * abs(unit), hold + np.pi * abs(unit)
        filtered = model.actuator_dyntype[i] != Dynamics.mjDYN_NONE
        return Drive(name, kind, hold, unit, bottom, top, *((hold, unit) if filtered else ()))
    rest = 0.0
    if kind in ("force", "velocity") and model.actuator_biastype[i] == Bias.mjBIAS_AFFINE and gain and not holds:
        rest = -float(bias[0]) / gain  # no force at rest
    share = max(abs(bottom - rest), abs(top - rest))
    return Drive(name, kind, rest, share, bottom, top, *((hold, unit) if holds else ()))


def unlimited(drives: Sequence[Drive]) -> str | None:
    """Return a question about actuators without a control range; None if all have one."""
    names = [drive.name for drive in drives if math.isnan(drive.bottom)]
    if not names:
        return None
    which = f"actuator {names[0]!r} has" if len(names) == 1 else f"actuators {', '.join(map(repr, names))} have"
    return (
        f"{which} no control range; give a ctrlrange in the model, or write control: {{limit: 1.0}} in the YAML, the "
        "largest control signal"
    )


def question(model: mujoco.MjModel, i: int, drive: Drive, home: Array) -> str | None:
    """Return a question about actuator i if action 0 cannot hold home; None if it can."""
    bounds = (
        [(drive.rest, drive.gain, "control signals", (drive.bottom, drive.top))] if drive.kind == "position" else []
    )
    if drive.activation is not None and model.actuator_actlimited[i]:
        bounds.append((drive.activation, drive.activation_unit, "activations", tuple(model.actuator_actrange[i])))
    for needed, unit, what, (low, high) in bounds:
        slack = 1e-6 * max(1.0, high - low)
        if low - slack <= needed <= high + slack:
            continue
        joint = joint_of(model, i)
        if joint is None:
            remedy = f"write another robot: {{pose: ...}}, or widen the range of {drive.name!r} in the model"
        else:
            at, name = float(home[model.jnt_qposadr[joint]]), model.joint(joint).name
            reached = at + (np.clip(needed, low, high) - needed) / unit
            other = f"robot: {{pose: {{{quoted(re.escape(name))}: {reached:.4g}}}}}"
            remedy = f"write {other} instead of {at:.4g}, or widen the range in the model"
        return (
            f"action 0 cannot hold home: {drive.kind} actuator {drive.name!r} needs {needed:.4g} there, and takes "
            f"{what} in [{low:.4g}, {high:.4g}]; {remedy}"
        )
    return None


def started(model: mujoco.MjModel, drives: Sequence[Drive], key: int) -> dict[str, Array]:
    """Return the MjData fields, besides positions and velocities, that hold home when an episode starts.

    key: keyframe of the home pose, whose activations and mocap bodies count; -1: none.
    """
    fields: dict[str, Array] = {}
    if model.na:
        activations = np.zeros(model.na) if key < 0 else model.key_act[key].copy()
        for i, drive in enumerate(drives):
            if drive.activation is not None and model.actuator_actnum[i] == 1:
                activations[model.actuator_actadr[i]] = drive.activation
        fields["act"] = activations
    data = mujoco.MjData(model)
    for i, drive in enumerate(drives):
        if model.actuator_history[i, 0] > 0:
            mujoco.mj_initCtrlHistory(model, data, i, None, np.full(model.actuator_history[i, 0], drive.rest))
            fields["history"] = data.history
    if model.nmocap and key >= 0:
        keyed = {"mocap_pos": model.key_mpos[key], "mocap_quat": model.key_mquat[key]}
        own = {name: value.reshape(model.nmocap, -1) for name, value in keyed.items()}
        fields |= {name: value for name, value in own.items() if not np.allclose(value, getattr(data, name))}
    return {name: np.array(value) for name, value in fields.items()}


def add_actuators(
    spec: mujoco.MjSpec, model: mujoco.MjModel, joints: Sequence[mujoco.MjsJoint], wanted: Actuators
) -> list[str]:
    """Add the actuators that a robot's file asks for to joints that do not follow others.

    model: compiled without them. Returns the joints' names. ValueError if they cannot be added.
    """
    chosen = _chosen(joints, wanted)
    for joint in chosen:
        actuator = plain(spec.add_actuator(), name=joint.name, target=joint.name, trntype=Transmission.mjTRN_JOINT)
        _set_up(actuator, model, joint.name, wanted, _effort(model, joint.name))
        _set_armature(joint, wanted)
    return [j.name for j in chosen]


def replace_motors(
    spec: mujoco.MjSpec, model: mujoco.MjModel, joints: Sequence[mujoco.MjsJoint], wanted: Actuators
) -> list[str]:
    """Put what a robot's file asks for in place of the torque motors on the joints that it names, within their limits.

    Returns the joints' names. ValueError where `irreplaceable` says why not.
    """
    if why := irreplaceable(model):
        raise ValueError(f"robot.actuators is given, but {why}; leave robot.actuators out")
    on = [model.joint(joint).name for i in range(model.nu) if (joint := joint_of(model, i)) is not None]
    own, motors = {joint.name: joint for joint in joints}, dict(zip(on, spec.actuators, strict=True))
    driven = {name: motor for name, motor in motors.items() if name in own}
    chosen = _chosen([own[name] for name in driven], wanted)
    for joint in chosen:
        actuator = driven[joint.name]
        most = _most_force(model, model.actuator(actuator.name).id)
        _on_the_joint(actuator)
        actuator.forcelimited = False
        _set_up(actuator, model, joint.name, wanted, most)
        if most is not None and _matched(wanted.forces, joint.name, wanted.force) is None:
            actuator.forcelimited, actuator.forcerange = True, most
        if _set_armature(joint, wanted):
            actuator.armature = 0.0
    return [joint.name for joint in chosen]


def irreplaceable(model: mujoco.MjModel) -> str:
    """Return why no others can take the place of the model's actuators; empty if each is a torque motor of a joint."""
    driven = set()
    for i in range(model.nu):
        name, joint = model.actuator(i).name, joint_of(model, i)
        if joint is None or kind_of(model, i) != "force" or model.actuator_dyntype[i] != Dynamics.mjDYN_NONE:
            return (
                f"the model has {model.nu}, and {name!r} is no torque motor of one joint, which another could take the "
                "place of"
            )
        if not model.actuator_gear[i, 0]:
            return f"motor {name!r} of the model has gear 0"
        if joint in driven:
            return f"joint {model.joint(joint).name!r} of the model has two motors"
        driven.add(joint)
    return ""


def _on_the_joint(actuator: mujoco.MjsActuator) -> None:
    """Give an actuator on a joint the gear 1, with the inertia and the damping that it has for the joint.

    MuJoCo multiplies an actuator's armature, and its damping as a function of the joint's speed, by the gear's square.
    """
    ratio = float(actuator.gear[0]) ** 2
    actuator.armature *= ratio
    actuator.damping = np.array(actuator.damping) * ratio
    actuator.gear[:] = (1, 0, 0, 0, 0, 0)


def _chosen(joints: Sequence[mujoco.MjsJoint], wanted: Actuators) -> list[mujoco.MjsJoint]:
    """Return the joints that the file names; ValueError for a pattern that matches none of them, and for a key of
    another kind of actuator."""
    for key, kinds in TAKES.items():
        if getattr(wanted, key) and wanted.kind not in kinds:
            raise ValueError(f"robot.actuators.{key} is for kind {' or '.join(kinds)}, not {wanted.kind}; leave it out")
    names = [j.name for j in joints]
    found = matched(wanted.joints, names, "robot.actuators.joints")
    chosen = [j for j in joints if j.name in found]
    if not chosen:
        raise ValueError(f"robot.actuators.joints {wanted.joints!r} matches no joint{near(wanted.joints, names)}")
    for key in ("gains", "speeds", "forces", "armatures"):
        for pattern in getattr(wanted, key):
            if not matched(pattern, found, f"robot.actuators.{key}"):
                raise ValueError(f"robot.actuators.{key} {pattern!r} matches no joint{near(pattern, found)}")
        _require_first(key, list(getattr(wanted, key)), found)
    return chosen


def _require_first(key: str, patterns: Sequence[str], names: Sequence[str]) -> None:
    """Raise ValueError for a pattern whose joints have all been matched by the patterns before it."""
    left = list(names)
    for pattern in patterns:
        own = matched(pattern, names, f"robot.actuators.{key}")
        if not any(name in left for name in own):
            earlier = next(p for p in patterns if matched(p, own[:1], f"robot.actuators.{key}"))
            raise ValueError(
                f"robot.actuators.{key} {pattern!r} has no effect: {earlier!r} comes first, and the first match "
                "counts; write it before that one"
            )
        left = [name for name in left if name not in own]


def _matched(values: Mapping[str, T], name: str, otherwise: T) -> T:
    """Return the value of the first regular expression that matches a name."""
    return next((value for pattern, value in values.items() if matched(pattern, [name], "joint")), otherwise)


def _effort(model: mujoco.MjModel, name: str) -> tuple[float, float] | None:
    """Return the model's own limit of the force on a joint, N m (N)."""
    joint = model.joint(name).id
    low, high = map(float, model.jnt_actfrcrange[joint])
    return (low, high) if model.jnt_actfrclimited[joint] else None


def _most_force(model: mujoco.MjModel, i: int) -> tuple[float, float] | None:
    """Return the lowest and the highest force of a torque motor on its joint, N m (N); None without a limit."""
    gear, gain = float(model.actuator_gear[i, 0]), float(model.actuator_gainprm[i, 0])
    ends = []
    if model.actuator_ctrllimited[i]:
        ends.append(sorted(float(c) * gain * gear for c in model.actuator_ctrlrange[i]))
    if model.actuator_forcelimited[i]:
        ends.append(sorted(float(f) * gear for f in model.actuator_forcerange[i]))
    if (effort := _effort(model, model.joint(joint_of(model, i)).name)) is not None:
        ends.append(list(effort))
    return (max(e[0] for e in ends), min(e[1] for e in ends)) if ends else None


def _set_armature(joint: mujoco.MjsJoint, wanted: Actuators) -> bool:
    """Give a joint the inertia of the rotor that the file names; return whether it names one."""
    armature = _matched(wanted.armatures, joint.name, wanted.armature)
    if armature is not None:
        if armature < 0:
            raise ValueError(
                f"robot.actuators: the armature of {joint.name!r} is {armature:g}; it must not be negative"
            )
        joint.armature = armature
    return armature is not None


def _set_up(
    actuator: mujoco.MjsActuator,
    model: mujoco.MjModel,
    name: str,
    wanted: Actuators,
    most: tuple[float, float] | None,
) -> None:
    """Make an actuator what the file asks for on a joint. most: lowest and highest force without the file, N m (N)."""
    joint, force = model.joint(name), _matched(wanted.forces, name, wanted.force)
    actuator.ctrllimited = True
    if force is not None and force <= 0:
        raise ValueError(f"robot.actuators: the force of joint {name!r} is {force:g}; it must be greater than 0")
    if most is not None and force is not None and force > min(-most[0], most[1]) * (1 + 1e-9):
        raise ValueError(
            f"robot.actuators.force is {force:g}, above the model's own limit of joint {name!r}, "
            f"[{most[0]:g}, {most[1]:g}], which is what acts; leave force out, or change the limit in the model"
        )
    kp, kd = _matched(wanted.gains, name, (wanted.kp, wanted.kd))
    if wanted.kind != "motor" and force is not None:
        actuator.forcelimited, actuator.forcerange = True, (-force, force)
    if wanted.kind == "position":
        if kp is None or kp <= 0:
            raise ValueError("robot.actuators: a position servo needs kp > 0, its stiffness in N m/rad")
        actuator.set_to_position(kp=kp, kv=kd)
        ends = joint.limited[0] and np.ptp(joint.range) < ENDLESS
        actuator.ctrlrange = joint.range if ends else (-np.pi, np.pi)
        return
    if wanted.kind == "velocity":
        speed = _matched(wanted.speeds, name, wanted.speed)
        if kp or kd <= 0 or speed is None or speed <= 0:
            raise ValueError(
                f"robot.actuators: the velocity servo of {name!r} needs kd > 0, its gain in N m s/rad, no kp (in gains "
                "it is 0), and speed > 0, the largest speed in rad/s"
            )
        actuator.set_to_velocity(kv=kd)
        actuator.ctrlrange = (-speed, speed)
        return
    limit = most if force is None else (-force, force)
    if limit is None:
        raise ValueError(
            f"robot.actuators: the model has no force limit for joint {name!r}; write "
            "actuators: {kind: motor, force: NEWTON_METRES}"
        )
    actuator.set_to_motor()
    actuator.ctrlrange = limit
