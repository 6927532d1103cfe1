"""Robots beside what may be their mirror image, simulated from the same states."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.mirror.symmetry import Asymmetric, Symmetry
from metarl.envs.reflection import STEPS
from metarl.envs.state import State
from metarl.envs.task import Task

VISITED, STARTS = 200, 16
"""Control steps of random actions that pass through the states compared; how many of these states a task and its mirror
image start from."""
DRAWN = 8
"""Tasks on which random actions are taken."""
COMMAND = "command"
"""Memory that a declared task keeps the command in."""
NOTHING = 1e-6
"""Least difference that is one."""


class Visited(NamedTuple):
    """States that random actions pass through."""

    poses: np.ndarray
    """[n, nq]."""
    velocities: np.ndarray
    """[n, nv]."""

    def some(self) -> Visited:
        """Return the last of them."""
        return Visited(self.poses[-STARTS:], self.velocities[-STARTS:])


class _InMirror(np.random.Generator):
    """The generator of a simulation that starts as the mirror image of what it draws."""


class Pairs(NamedTuple):
    """What robots did for T steps from many starts, and beside each the robot that may be its mirror image, [T, pairs,
    2, starts, n] each."""

    poses: np.ndarray
    rewards: np.ndarray
    observations: np.ndarray
    privileged: np.ndarray

    def differences(self, symmetry: Symmetry) -> np.ndarray:
        """Return by how much motion and reward of each pair differ from a mirror image's, [pairs, 2]: shares
        of how far its robot moved, and of how much its reward varied."""
        (own, image), (earned, there) = (np.moveaxis(values, 2, 0) for values in (self.poses, self.rewards))
        expected = symmetry.pose(own)
        parts = (expected - image, own - own[:1]), (earned - there, earned - earned.mean((0, 2, 3), keepdims=True))
        return np.stack([_size(apart) / (_size(all_in_all) + NOTHING) for apart, all_in_all in parts], axis=1)


def _size(values: np.ndarray) -> np.ndarray:
    """Return the mean absolute value of each pair's from its median start, [pairs]; values: [T, pairs, starts, n].

    The median, as where robots are nearly alike, one touches the ground a step before the other from some starts.
    """
    return np.median(np.abs(values).mean((0, 3)), axis=1)


def stages(family: TaskFamily, count: int) -> Iterator[Task]:
    """Draw tasks of every split in turn; a task that changes by its stages."""
    rng = np.random.default_rng(count)
    for i in range(count):
        for task in family.sample(1, rng, family.splits[i % len(family.splits)]):
            yield from family.stages(task)


def commands_at_start(family: TaskFamily) -> dict[str, np.ndarray]:
    """Return which elements of a command are ever other than 0 where an episode starts, [n] bool, by the name of its
    memory; empty without commands."""
    if COMMAND not in family.memory or family.begin is None:
        return {}
    found = np.zeros(family.memory[COMMAND], dtype=bool)

    def begin(state: State, chosen: Array) -> None:
        assert family.begin is not None
        family.begin(state, chosen)
        np.logical_or(found, (state.memory[COMMAND] != 0).any(0), out=found)

    tasks = list(stages(family, DRAWN))
    env = BatchedEnv(dataclasses.replace(family, begin=begin), len(tasks), 1, threads=1)
    env.set_tasks(tasks)
    env.reset([np.random.default_rng(i) for i in range(len(tasks))])
    return {COMMAND: found}


def _require_positions(family: TaskFamily) -> None:
    """Raise Asymmetric unless positions and velocities of one robot on ground without seed make a start."""
    obstacles = {
        "other code steps it": family.simulator is not None,
        "its robots have different joints": bool(family.layout),
        f"an episode starts with {', '.join(family.starts)}": family.starts != ("qpos", "qvel"),
        "its ground is drawn from a seed": any(p.nuisance for p in family.parameters),
    }
    for what in (what for what, there in obstacles.items() if there):
        raise Asymmetric(f"family {family.name!r} cannot be mirrored: {what}")


def visited(family: TaskFamily) -> Visited:
    """Return states that random actions pass through: for each element of what is observed the one in which it is
    farthest from its mean, and others; Asymmetric if such states do not make a start."""
    _require_positions(family)
    tasks = list(stages(family, DRAWN))
    env = BatchedEnv(dataclasses.replace(family, noise_factor=0.0), len(tasks), 1, telling=True)
    env.set_tasks(tasks)
    rngs, rng = [np.random.default_rng(i) for i in range(len(tasks))], np.random.default_rng(0)
    env.reset(rngs)
    qpos, qvel = env.simulation.bind("qpos"), env.simulation.bind("qvel")
    found: list[tuple[np.ndarray, ...]] = []
    for _ in range(VISITED):
        step = env.step(rng.uniform(-1, 1, (len(tasks), 1, family.action_size)) / family.action_scale)
        seen = np.concatenate([step.observations[:, 0], env.privileged[:, 0]], axis=1)
        found.append((qpos.copy(), qvel.copy(), seen))
        env.reset(rngs, ~env.active)
    poses, velocities, seen = (np.concatenate(each) for each in zip(*found, strict=True))
    extreme = np.abs(seen - seen.mean(0)).argmax(0)
    chosen = np.concatenate([np.unique(extreme), rng.integers(len(poses), size=STARTS)])
    return Visited(poses[chosen], velocities[chosen])


def play(
    family: TaskFamily,
    symmetry: Symmetry,
    visited: Visited,
    tasks: Sequence[tuple[Task, Task]],
    drawn: Mapping[str, np.ndarray],
    steps: int = STEPS,
) -> Pairs:
    """Simulate each task for some steps beside what may be its mirror image, from mirrored starts and with mirrored
    actions; starts and actions are the same for all pairs.

    drawn: signs of the memory at the start of each image, [pairs, n] or [n].
    """

    starts = len(visited.poses)

    def reset(model: mujoco.MjModel, rng: np.random.Generator, n: int) -> tuple[Array, ...]:
        qpos, qvel = visited
        return (symmetry.pose(qpos), symmetry.velocities.of(qvel)) if isinstance(rng, _InMirror) else (qpos, qvel)

    def begin(state: State, chosen: Array) -> None:
        if family.begin is not None:
            family.begin(state, chosen)
        for name, signs in drawn.items():
            values = state.memory[name].reshape(len(tasks), 2, starts, -1)
            values[:, 1] *= signs.reshape(-1, 1, signs.shape[-1])

    seen = dataclasses.replace(family, reset=reset, begin=begin, noise_factor=0.0)
    env = BatchedEnv(seen, 2 * len(tasks), starts, telling=True)
    env.set_tasks([task for pair in tasks for task in pair])
    kinds = (np.random.Generator, _InMirror)
    env.reset([kind(np.random.PCG64(0)) for _ in tasks for kind in kinds])
    rng = np.random.default_rng(1)
    rows: list[tuple[np.ndarray, ...]] = []
    for _ in range(steps):
        actions = rng.uniform(-1, 1, (starts, family.action_size)) / family.action_scale
        both = np.stack([actions, symmetry.actions.of(actions)])
        step = env.step(np.tile(both, (len(tasks), 1, 1)))
        row = env.poses, step.rewards, step.observations, env.privileged
        rows.append(tuple(values.reshape(len(tasks), 2, starts, -1).copy() for values in row))
    return Pairs(*map(np.stack, zip(*rows, strict=True)))
