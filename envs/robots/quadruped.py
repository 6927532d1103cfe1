"""Quadruped families: a Go1 that follows velocity commands; a task is its body, its motors and its ground.

Episodes follow quadruped practice (legged_gym: Rudin et al., CoRL 2022; RMA: Kumar et al., RSS 2021).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import mujoco
import numpy as np

from metarl.envs import measures
from metarl.envs.arrays import Array
from metarl.envs.control import read_signals
from metarl.envs.declared.entries import CommandEntry, PushEntry, TaskEntries
from metarl.envs.declared.measured import path, tracking_errors
from metarl.envs.declared.rig import COMMANDS
from metarl.envs.declared.task import task_terms
from metarl.envs.family import TaskFamily
from metarl.envs.robots.quadruped_parameters import declared, entries
from metarl.envs.robots.quadruped_robot import (
    FRAME_SKIP,
    GO1,
    LEG_JOINTS,
    LEGS,
    TIMESTEP,
    build,
)
from metarl.envs.robots.quadruped_settings import QuadrupedSettings, QuadrupedTerrainSettings
from metarl.envs.robots.quadruped_terms import REWARDS, observation, privileged, rig
from metarl.envs.task import Changes
from metarl.envs.terms import Criterion
from metarl.envs.terrain.kinds import Field
from metarl.envs.terrain.on_terrain import FREE, Feet, Ground, on_terrain

ACTION_LIMIT = 0.8  # rad from home; keeps every target within the joint ranges
RESET_JOINT = 0.05  # half-width of the uniform noise on the joints at the start, rad
RESET_HEIGHT = 0.02  # m, of the feet over the ground at the start, at home
VELOCITY_TOLERANCE = 0.3  # m/s, the largest mean error of a success
TERRAIN_PATCH = 0.9  # m, half the side of the flat start: the robot reaches .4 m from its middle
TERRAIN_CELL = 0.075  # m


def reset(model: mujoco.MjModel, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Return starts at rest near the home pose, a little over the ground and upright on it, with random headings."""
    yaw = rng.uniform(-np.pi, np.pi, n)
    joints = rng.uniform(-RESET_JOINT, RESET_JOINT, (n, model.nq - 7))
    joints[:, model.eq_obj1id[model.eq_active0 == 1] - 1] = 0.0  # joint 0 is the trunk's
    qpos = np.tile(model.key("home").qpos, (n, 1))
    ground, up = model.geom("floor").quat, np.zeros(3)
    mujoco.mju_rotVecQuat(up, np.array([0.0, 0.0, 1.0]), ground)
    qpos[:, :3] = (qpos[0, 2] + RESET_HEIGHT) * up
    w, x, y, z = ground
    c, s = np.cos(yaw / 2), np.sin(yaw / 2)
    qpos[:, 3:7] = np.stack([w * c - z * s, x * c + y * s, y * c - x * s, z * c + w * s], axis=1)
    qpos[:, 7:] += joints
    return qpos, np.zeros((n, model.nv))


def _commands(settings: QuadrupedSettings, names: Collection[str]) -> CommandEntry:
    """Return the commands that episodes draw, or what a task's command is where no parameter says it."""
    ends: dict[str, tuple[float, float]] = {name: getattr(settings, name) for name in COMMANDS}
    if settings.command == "episode":
        return CommandEntry(ends)
    return CommandEntry({name: (low, low) for name, (low, _) in ends.items() if name not in names})


def quadruped(settings: QuadrupedSettings) -> TaskFamily:
    """Return the family that the settings describe."""
    return with_legs(settings, LEGS)


def with_legs(settings: QuadrupedSettings, legs: Sequence[str]) -> TaskFamily:
    """Return the family of a robot of these legs, as `quadruped_robot.build` takes them."""
    spec, varied = declared(settings, entries(settings), legs)
    names = {p.name for p in varied}
    robot, go1 = rig(legs), build(GO1, TIMESTEP, legs).compile()
    task = TaskEntries(
        observation={k: term for k, term in observation(legs).items() if k != "velocity" or settings.observe_velocity},
        privileged=privileged(legs),
        rewards=REWARDS,
        rewards_per_second=True,
        commands=_commands(settings, names),
        pushes=PushEntry(0.0, settings.push_interval) if "push_velocity" in names else None,
    )
    assert robot.fallen is not None
    if settings.changes and "slope" in settings.changing:
        raise ValueError("changing has slope; the ground cannot turn under a robot that stands on it: leave it out")
    return TaskFamily(
        name="quadruped",
        description="quadruped (Go1) that follows velocity commands, whatever its load, motors and ground",
        base=spec.copy,
        parameters=varied,
        changes=Changes.of(settings, *settings.changing),
        **task_terms(robot, task, {name: name for name in COMMANDS if name in names}, pushed="push_velocity"),
        noise_factor="sensor_noise" if "sensor_noise" in names else 0.0,
        reset=reset,
        action_low=np.full(go1.nu, -ACTION_LIMIT),
        action_high=np.full(go1.nu, ACTION_LIMIT),
        horizon=settings.horizon,
        frame_skip=FRAME_SKIP,
        control=read_signals(go1, "position from home", home=go1.key("home").qpos),
        action_scale=settings.action_scale,
        measures={**tracking_errors(robot), **measures.falls(robot.fallen), **measures.energy(path(robot))},
        success=(Criterion("velocity_error", high=VELOCITY_TOLERANCE), Criterion("falls", high=0)),
        noisy=True,
        groups={leg: tuple(f"{leg}_{joint}" for joint in LEG_JOINTS) for leg in legs},
        settings=settings,
    )


def quadruped_terrain(settings: QuadrupedTerrainSettings) -> TaskFamily:
    """Return the quadruped on uneven ground."""
    if any(settings.slope):
        raise ValueError(f"slope is {list(settings.slope)}; on terrain, slopes are a kind of ground: leave it at 0, 0")
    around = settings.ground_around
    return dataclasses.replace(
        on_terrain(
            quadruped(settings),
            settings,
            ground=Ground(Field(around, around, around, TERRAIN_PATCH, cell=TERRAIN_CELL), FREE),
            lift=0.0,
            feet=Feet(LEGS, rig().needed_feet.positions),
        ),
        name="quadruped_terrain",
        description="quadruped (Go1) that follows velocity commands on ground that it has to find out about",
    )
