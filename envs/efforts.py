"""Forces of actuators as far as their joints let them through."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.control import joint_of
from metarl.envs.state import State


def joint_forces(state: State) -> Array:
    """Return the forces that act on the joints by their actuators, [S, nu] N m or N, gears included.

    That of an actuator that drives no single joint is the actuator's own.
    """
    gears = state.once(_gears)
    return applied_forces(state) * gears[state.task_index] if gears.shape[1] else applied_forces(state)


def applied_forces(state: State) -> Array:
    """Return the forces of the actuators that act, [S, nu] N m or N before their gears.

    MuJoCo clips the sum of the actuators' forces on a joint, gears included, to the joint's `actuatorfrcrange` (a
    URDF's effort), and leaves `actuator_force` as it was asked for: each has its share of what is left.
    """
    low, high, gear, on = state.once(_limits)
    if not on.shape[1]:
        return state.actuator_force
    index = state.task_index
    asked = (state.actuator_force * gear[index]) @ on  # [S, J] of limited joints
    acting = state.xp.clip(asked, low[index], high[index])
    none = asked == 0
    left = state.xp.where(none, 1.0, acting / state.xp.where(none, 1.0, asked))
    return state.actuator_force * (1.0 + (left - 1.0) @ on.T)


def _gears(models: Sequence[mujoco.MjModel]) -> Array:
    """Return the gears of the actuators that drive one joint, [K, nu], 1 of others; [K, 0] if all are 1."""
    gears = np.array([[gear_on_joint(m, i) for i in range(m.nu)] for m in models])
    return gears if (gears != 1.0).any() else gears[:, :0]


def gear_on_joint(model: mujoco.MjModel, i: int) -> float:
    """Return the force that an actuator of force 1 puts on its joint; 1 where it drives no single one."""
    return 1.0 if joint_of(model, i) is None else float(model.actuator_gear[i, 0])


def _limits(models: Sequence[mujoco.MjModel]) -> tuple[Array, Array, Array, Array]:
    """Return bounds [K, J] of the limited joints that actuators drive, gears [K, nu], and which drive which [nu, J]."""
    model = models[0]
    driven = [-1 if (joint := joint_of(model, i)) is None else joint for i in range(model.nu)]
    joints = [j for j in sorted({*driven} - {-1}) if any(m.jnt_actfrclimited[j] for m in models)]
    if not joints:
        nothing = np.zeros((len(models), 0))
        return nothing, nothing, nothing, np.zeros((0, 0))
    limited = np.array([m.jnt_actfrclimited[joints] for m in models], dtype=bool)
    ranges = np.where(limited[:, :, None], [m.jnt_actfrcrange[joints] for m in models], (-np.inf, np.inf))
    gears = np.array([m.actuator_gear[:, 0] for m in models])
    return ranges[..., 0], ranges[..., 1], gears, np.equal.outer(driven, joints).astype(np.float64)


def limits_in_model(model: mujoco.MjModel, i: int) -> list[float]:
    """Return the limits of an actuator's force in the model, its own and its joint's or tendon's, before its gear.

    MuJoCo limits the sum of the forces on a tendon before their gears, and lessens `actuator_force`.
    """
    limits = [float(np.abs(model.actuator_forcerange[i]).max())] if model.actuator_forcelimited[i] else []
    joint, gear = joint_of(model, i), abs(float(model.actuator_gear[i, 0]))
    if joint is not None and gear and model.jnt_actfrclimited[joint]:
        limits.append(float(np.abs(model.jnt_actfrcrange[joint]).max() / gear))
    if (tendon := limited_tendon(model, i)) is not None:
        limits.append(float(np.abs(model.tendon_actfrcrange[tendon]).max()))
    return limits


def limited_tendon(model: mujoco.MjModel, i: int) -> int | None:
    """Return the tendon that an actuator pulls, if it limits the force of its actuators."""
    tendon = int(model.actuator_trnid[i, 0])
    pulls = model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_TENDON
    return tendon if pulls and model.tendon_actfrclimited[tendon] else None


def force_limit_of(model: mujoco.MjModel, i: int) -> float:
    """Return the largest force of an actuator, N m or N: its own, its joint's, tendon's or signal's; infinite: none."""
    limits = [math.inf, *limits_in_model(model, i)]
    plain = model.actuator_gaintype[i] == mujoco.mjtGain.mjGAIN_FIXED and model.actuator_dyntype[i] == 0
    if plain and model.actuator_ctrllimited[i] and model.actuator_biastype[i] == mujoco.mjtBias.mjBIAS_NONE:
        limits.append(float(np.abs(model.actuator_gainprm[i, 0] * model.actuator_ctrlrange[i]).max()))
    return min(limits)


def group_off(model: mujoco.MjModel, actuator: int) -> int | None:
    """Return the group of an actuator if `<option>` switches it off; None if it is on."""
    group = int(model.actuator_group[actuator])
    return group if 0 <= group < 31 and model.opt.disableactuator & (1 << group) else None
