"""Start of episodes of a user's robot: near the home pose, within limits, with coupled joints in agreement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.own_robot.declaration import EpisodeRules
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.structure import Coupling, couplings, follow, held_joints

HALVINGS = 10
"""Most times that a start's noise is halved until every joint that follows another is within its limits."""


@dataclass(frozen=True)
class Spread:
    """Joints that noise moves, and joints that follow them."""

    joints: Array
    """Indices of the robot's joints in the model, [J]."""
    free: Array
    """1 where noise moves the joint, 0 where a coupling or a loop holds it, [J]."""
    chain: list[Coupling]

    def sizes(self, model: mujoco.MjModel) -> Array:
        """Return the metres or radians of a noise of 1, [J]: half of a limited slide's range, 1 otherwise."""
        low, high = model.jnt_range[self.joints].T
        slides = (model.jnt_type[self.joints] == mujoco.mjtJoint.mjJNT_SLIDE) & (model.jnt_limited[self.joints] > 0)
        return np.where(slides, (high - low) / 2, 1.0) * self.free

    def limits(self, model: mujoco.MjModel) -> tuple[Array, Array]:
        """Return lowest and highest positions, [J] each."""
        limited = model.jnt_limited[self.joints] > 0
        low, high = model.jnt_range[self.joints].T
        return np.where(limited, low, -np.inf), np.where(limited, high, np.inf)


def spread_of(robot: Robot, model: mujoco.MjModel) -> Spread:
    """Find the joints that noise moves on a task's model."""
    joints = np.array([model.joint(name).id for name in robot.joints], dtype=int)
    chain = couplings(model)
    still = held_joints(model, robot.home) | {c.follower for c in chain}
    return Spread(joints, np.array([j not in still for j in joints.tolist()], dtype=float), chain)


def start_near(
    robot: Robot, episode: EpisodeRules, home: Callable[[mujoco.MjModel], Array]
) -> Callable[[mujoco.MjModel, np.random.Generator, int], tuple[Array, Array]]:
    """Return a `TaskFamily.reset`. home: returns the home pose on a task's model, [nq].

    A heading is about the normal of the ground, so on a slope all feet are on it. ValueError for negative noise.
    """
    if episode.position_noise < 0 or episode.velocity_noise < 0 or episode.drop < 0:
        raise ValueError("episode: position_noise, velocity_noise and drop must not be negative")
    free = _free_joint(robot)
    if (episode.random_heading or episode.drop) and free < 0:
        raise ValueError("episode: random_heading and drop need a base with a free joint; leave them out")
    if (episode.random_heading or episode.drop) and (tied := _tied(robot)):
        raise ValueError(
            f"episode: random_heading and drop move the robot alone, and {tied} ties it to a body apart; leave them out"
        )
    neutral = spread_of(robot, robot.model)
    positions, velocities = robot.model.jnt_qposadr[neutral.joints], robot.model.jnt_dofadr[neutral.joints]
    spreads = {robot.model.eq_active0.tobytes(): neutral}
    """By which equalities are active: a task may lock a joint."""

    def reset(model: mujoco.MjModel, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        qpos, qvel = np.tile(home(model), (n, 1)), np.zeros((n, model.nv))
        if episode.random_heading:
            turn(qpos[:, free + 3 : free + 7], rng.uniform(-np.pi, np.pi, n), robot.ground.normal(model))
        if episode.drop:
            qpos[:, free : free + 3] += episode.drop * robot.ground.normal(model)
        active = model.eq_active0.tobytes()
        if active not in spreads:
            spreads[active] = spread_of(robot, model)
        spread = spreads[active]
        sizes, (low, high) = spread.sizes(model), spread.limits(model)
        noise = rng.uniform(-episode.position_noise, episode.position_noise, (n, len(sizes))) * sizes
        rest = qpos[:, positions]
        if episode.velocity_noise:
            qvel[:, velocities] = episode.velocity_noise * rng.standard_normal((n, len(sizes))) * sizes
        for _ in range(HALVINGS + 1):
            qpos[:, positions] = np.where(spread.free > 0, np.clip(rest + noise, low, high), rest)
            if not spread.chain:
                break
            follow(model, spread.chain, qpos, qvel)
            out = np.any((qpos[:, positions] < low - 1e-9) | (qpos[:, positions] > high + 1e-9), axis=1)
            if not out.any():
                break
            noise[out] /= 2
        return qpos, qvel

    return reset


def _free_joint(robot: Robot) -> int:
    """Return the address of the robot's free joint in qpos, or -1."""
    root = robot.model.body(robot.bodies[0])
    joint = int(root.jntadr[0])
    return int(robot.model.jnt_qposadr[joint]) if robot.mobility == "floating" else -1


def _tied(robot: Robot) -> str:
    """Return the equality that ties the robot to another body that moves; empty if there is none."""
    model, own = robot.model, {robot.model.body(name).id for name in robot.bodies}
    joins = (int(mujoco.mjtEq.mjEQ_CONNECT), int(mujoco.mjtEq.mjEQ_WELD))
    for i in (i for i in range(model.neq) if model.eq_type[i] in joins and model.eq_active0[i]):
        ends = [int(model.eq_obj1id[i]), int(model.eq_obj2id[i])]
        if model.eq_objtype[i] == mujoco.mjtObj.mjOBJ_SITE:
            ends = [int(model.site_bodyid[end]) for end in ends]
        here = [end in own for end in ends]
        if any(here) and not all(here) and model.body_weldid[ends[here.index(False)]]:
            return f"equality {model.equality(i).name or i!r}"
    return ""


def turn(quaternions: Array, angles: Array, axis: Array) -> None:
    """Turn orientations [N, 4] about an axis of the world, [3] of length 1, by angles [N] rad, in place."""
    w, v = quaternions[:, :1].copy(), quaternions[:, 1:].copy()
    c, s = np.cos(angles / 2)[:, None], np.sin(angles / 2)[:, None]
    quaternions[:, :1] = c * w - s * (v @ axis)[:, None]
    quaternions[:, 1:] = c * v + s * (w * axis + np.cross(axis, v))
