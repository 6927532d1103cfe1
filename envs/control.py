"""Control signals: how an action becomes the model's control signals, and what these ask of the motors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from metarl.envs.arrays import Array, like

UNITS = {"position": ("rad", "m"), "velocity": ("rad/s", "m/s"), "force": ("N m", "N")}
"""Units of a motor's target for a hinge and for a slide, by the first word of its kind."""
SLIDE = int(mujoco.mjtJoint.mjJNT_SLIDE)
SCALAR = (int(mujoco.mjtJoint.mjJNT_HINGE), SLIDE)
AFFINE = (int(mujoco.mjtBias.mjBIAS_NONE), int(mujoco.mjtBias.mjBIAS_AFFINE))
ON_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))


@dataclass(frozen=True)
class Signals:
    """Control signals in the model's order: offset + gain x the applied action. One action moves one motor.

    A signal asks zero + size x signal of its joint, in the unit.
    """

    names: tuple[str, ...]
    """Names of the motors, [act]."""
    joints: tuple[str, ...]
    """Joints that they drive, [act]; empty where it is not a single joint."""
    kinds: tuple[str, ...]
    """Kind of each signal, [act]: position, velocity, force, ..."""
    units: tuple[str, ...]
    """Units of what the signals ask of the joints, [act]."""
    offset: np.ndarray
    """Control signal of action 0, [act]."""
    gain: np.ndarray
    """Change of the control signal that an action of 1 makes, [act]."""
    zero: np.ndarray
    """Target of signal 0 for the neutral robot's joints, [act]."""
    size: np.ndarray
    """Change of the target that a signal of 1 makes, [act]."""
    ranges: np.ndarray
    """Control ranges in the model, [act, 2]; infinite where it has none."""
    home: Mapping[str, float]
    """Position of each hinge and slide at the home pose by name, rad (m)."""

    def of(self, applied: Array) -> Array:
        """Return the control signals of actions that are scaled and clipped already, [..., act]."""
        return applied * like(self.gain, applied) + like(self.offset, applied)

    def targets(self, signals: np.ndarray) -> np.ndarray:
        """Return what control signals ask of the joints, in the units, [..., act]."""
        return self.zero + self.size * signals


def read_signals(
    model: mujoco.MjModel,
    kinds: str | Sequence[str],
    offset: np.ndarray | float = 0.0,
    gain: np.ndarray | float = 1.0,
    home: np.ndarray | None = None,
) -> Signals:
    """Return the signals of a model's actuators, whose kinds are one for all or one each.

    home: [nq]; None: the model's default pose.
    """
    each = (kinds,) * model.nu if isinstance(kinds, str) else tuple(kinds)
    joints = [joint_of(model, i) for i in range(model.nu)]
    targets = [asked(model, i, kind, joint) for i, (kind, joint) in enumerate(zip(each, joints, strict=True))]
    limited = model.actuator_ctrllimited.astype(bool)[:, None]
    pose = model.qpos0 if home is None else home
    return Signals(
        names=tuple(
            model.actuator(i).name or (model.joint(joint).name if joint is not None else "") or f"motor_{i}"
            for i, joint in enumerate(joints)
        ),
        joints=tuple("" if joint is None else model.joint(joint).name for joint in joints),
        kinds=each,
        units=tuple(unit for unit, _, _ in targets),
        offset=np.zeros(model.nu) + offset,
        gain=np.zeros(model.nu) + gain,
        zero=np.array([zero for _, zero, _ in targets]),
        size=np.array([size for _, _, size in targets]),
        ranges=np.where(limited, model.actuator_ctrlrange, (-np.inf, np.inf)),
        home={
            model.joint(j).name: float(pose[model.jnt_qposadr[j]])
            for j in range(model.njnt)
            if model.jnt_type[j] in SCALAR
        },
    )


def in_steps(delay: float, timestep: float) -> float:
    """Return a delay, s, as MuJoCo is given it to last as many steps late in an episode as at first.

    MuJoCo looks for the signal of its time less the delay, and its time is a sum of steps: rounded, it may fall just
    short of that of the signal, which would then act a step later. So a delay is a millionth of a step shorter.
    """
    return max(0.0, delay - 1e-6 * timestep)


def joint_of(model: mujoco.MjModel, actuator: int) -> int | None:
    """Return the hinge or slide that an actuator drives alone."""
    if model.actuator_trntype[actuator] not in ON_JOINT:
        return None
    joint = int(model.actuator_trnid[actuator, 0])
    return joint if model.jnt_type[joint] in SCALAR else None


def unit_of_joint(model: mujoco.MjModel, joint: int) -> str:
    """Return the unit of a hinge's or slide's position."""
    return UNITS["position"][int(model.jnt_type[joint] == SLIDE)]


def unit_of_force(model: mujoco.MjModel, actuator: int) -> str:
    """Return the unit of an actuator's force; of one that drives no single joint the model does not define it."""
    joint = joint_of(model, actuator)
    return " or ".join(UNITS["force"]) if joint is None else UNITS["force"][int(model.jnt_type[joint] == SLIDE)]


def asked(model: mujoco.MjModel, i: int, kind: str, joint: int | None) -> tuple[str, float, float]:
    """Return (unit, zero, size) of what an actuator's signal asks of its joint: where its force is 0, or the force.

    force = gain u + b0 + b1 length + b2 velocity, and length = gear q. An integrator's signal is a target's rate.
    Any other actuator asks for the signal itself, in a unit that the model does not define.
    """
    gain, (b0, b1, b2), gear = model.actuator_gainprm[i, 0], model.actuator_biasprm[i, :3], model.actuator_gear[i, 0]
    affine = model.actuator_gaintype[i] == mujoco.mjtGain.mjGAIN_FIXED and model.actuator_biastype[i] in AFFINE
    quantity = kind.split(" ")[0]
    if joint is None or not affine or gear == 0 or quantity not in UNITS:
        return "1", 0.0, 1.0
    unit = UNITS[quantity][int(model.jnt_type[joint] == SLIDE)]
    if quantity == "force":
        return unit, float(gear * b0), float(gear * gain)
    integrates = model.actuator_dyntype[i] == mujoco.mjtDyn.mjDYN_INTEGRATOR
    stiffness = -gear * (b1 if quantity == "position" or integrates else b2)
    if stiffness == 0:
        return "1", 0.0, 1.0
    return unit, 0.0 if integrates else float(b0 / stiffness), float(gain / stiffness)
