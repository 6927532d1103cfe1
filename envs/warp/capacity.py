"""Memory that mujoco-warp needs for the contacts of the tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

TRIES, TRIED_MODELS, TRIED_STEPS, OFF, MARGIN = 3, 16, 150, 0.1, 1.25
"""Falls per model, models and simulation steps by which the number of contacts is estimated; factors on it."""
LONGEST_FALL = 2.0
"""Time after which a fall is over, whether the robot has touched something or not, s."""


def most_contacts(models: Sequence[mujoco.MjModel]) -> tuple[int, int]:
    """Return (contacts, constraint rows) to allocate per world: the most in random motion and falls, plus a margin.

    Each model starts near its keyframe or default pose, and its motors get random signals. A robot that is free to fall
    is tried from its first contact on. More rows cost time: the solver keeps a world's rows in shared memory.
    """
    chosen = [models[i] for i in np.unique(np.linspace(0, len(models) - 1, TRIED_MODELS).astype(int))]
    rng, contacts, rows = np.random.default_rng(0), 0, 0
    for model in chosen:
        data = mujoco.MjData(model)
        limited = model.actuator_ctrllimited[:, None].astype(bool)
        low, high = np.where(limited, model.actuator_ctrlrange, (-1.0, 1.0)).T
        for attempt in range(TRIES):
            mujoco.mj_resetDataKeyframe(model, data, 0) if model.nkey else mujoco.mj_resetData(model, data)
            mujoco.mj_integratePos(model, data.qpos, rng.normal(0, OFF * attempt, model.nv), 1.0)
            left, waiting = TRIED_STEPS, _steps_of_a_fall(model)
            while left:
                data.ctrl[:] = rng.uniform(low, high)
                mujoco.mj_step(model, data)
                contacts, rows = max(contacts, data.ncon), max(rows, data.nefc)
                waiting = 0 if data.ncon else max(0, waiting - 1)
                left -= not waiting
    return math.ceil(MARGIN * contacts) + 4, 8 * math.ceil((MARGIN * rows + 8) / 8)


def _steps_of_a_fall(model: mujoco.MjModel) -> int:
    """Return the simulation steps of the longest fall of a robot with a free joint; 0 for another."""
    falls = (model.jnt_type == mujoco.mjtJoint.mjJNT_FREE).any()
    return math.ceil(LONGEST_FALL / model.opt.timestep) if falls else 0


def convex_pairs(model: Any) -> int:
    """Return the most pairs of geoms of two types that mujoco-warp collides by iteration, in memory per type."""
    kinds = mujoco.mjtGeom
    closed = {kinds.mjGEOM_SPHERE: {kinds.mjGEOM_SPHERE, kinds.mjGEOM_CAPSULE, kinds.mjGEOM_CYLINDER, kinds.mjGEOM_BOX}}
    closed[kinds.mjGEOM_CAPSULE] = {kinds.mjGEOM_CAPSULE, kinds.mjGEOM_BOX}
    types = np.sort(model.geom_type.numpy()[model.nxn_geom_pair_filtered.numpy().reshape(-1, 2)], axis=1)
    iterated = [tuple(t) for t in types.tolist() if t[0] != kinds.mjGEOM_PLANE and t[1] not in closed.get(t[0], ())]
    return max((iterated.count(pair) for pair in set(iterated)), default=0)
