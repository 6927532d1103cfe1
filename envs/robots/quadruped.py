"""Quadruped families: a Go1 that follows velocity commands; a task is its body, its motors and its ground.

Episodes follow quadruped practice (legged_gym: Rudin et al., CoRL 2022; RMA: Kumar et al., RSS 2021).
"""

from __future__ import annotations

import dataclasses
import functools

import mujoco
import numpy as np

from metarl.envs import measures, noise
from metarl.envs.arrays import Array, like, namespace, none, write
from metarl.envs.control import read_signals
from metarl.envs.family import TaskFamily
from metarl.envs.robots.quadruped_parameters import COMMAND, base, parameters
from metarl.envs.robots.quadruped_robot import (
    FRAME_SKIP,
    GO1,
    JOINTS,
    LEG_JOINTS,
    LEGS,
    TIMESTEP,
    build,
)
from metarl.envs.robots.quadruped_settings import DT, QuadrupedSettings, QuadrupedTerrainSettings
from metarl.envs.robots.quadruped_terms import (
    AIR_TIME,
    NUM_FEET,
    OBSERVATION,
    PRIVILEGED,
    REWARDS,
    fallen,
    foot_contacts,
    foot_positions,
    path,
    velocity_error,
    yaw_rate_error,
)
from metarl.envs.state import State
from metarl.envs.task import Changes
from metarl.envs.terms import Criterion, Measure, RewardTerm
from metarl.envs.terrain.kinds import Field
from metarl.envs.terrain.on_terrain import FREE, Feet, on_terrain

ACTION_LIMIT = 0.8  # rad from home; keeps every target within the joint ranges
RESET_JOINT = 0.05  # half-width of the uniform noise on the joints at the start, rad
RESET_HEIGHT = 0.02  # m, of the feet over the ground at the start, at home
VELOCITY_TOLERANCE = 0.3  # m/s, the largest mean error of a success
STANDING = 0.1  # m/s and rad/s; commands below it ask for no steps
TERRAIN_PATCH = 0.9  # m, half the side of the flat start: the robot reaches .4 m from its middle
TERRAIN_CELL = 0.075  # m


def begin(state: State, chosen: Array, low: Array, high: Array, drawn: bool) -> None:
    """Set the command of the episode: drawn from U(low, high), [3] each, or the task's."""
    command = state.memory["command"]
    if drawn:
        low, high = like(low, command), like(high, command)
        write(command, low + (high - low) * noise.uniform(state.keys, 0, noise.COMMANDS, len(COMMAND)), where=chosen)
    else:
        for i, name in enumerate(COMMAND):
            write(command[:, i], state.task[name] if name in state.task else low[i], where=chosen)


def actuate(state: State, push_every: int) -> None:
    """Store the joint targets, and push the trunk every push_every control steps (0: never)."""
    xp, memory = state.xp, state.memory
    memory["action_change"][...] = state.action - memory["action"]
    memory["action"][...] = state.action
    memory["joint_velocity"][...] = state.qvel[:, 6:]
    if push_every:
        due = (state.steps % push_every == 0) & (state.steps > 0)
        if not none(due):
            angle = 2 * np.pi * noise.uniform(state.keys, state.steps, noise.PUSHES, 1)
            push = state.task["push_velocity"][:, None] * xp.concat([xp.cos(angle), xp.sin(angle)], axis=1)
            write(state.qvel[:, :2], state.qvel[:, :2] + push, where=due)


def update(state: State) -> None:
    """Update each foot's time in the air and the reward of this step's landings."""
    air, contacts = state.memory["air_time"], foot_contacts(state)
    xp = namespace(air)
    landed = contacts & (air > 0)
    asked = xp.max(xp.abs(state.memory["command"]), axis=1) > STANDING
    state.memory["landing"][...] = xp.sum((air - AIR_TIME) * landed, axis=1) * asked
    air += DT
    air *= ~contacts


def reset(model: mujoco.MjModel, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Return starts at rest near the home pose, a little over the ground and upright on it, with random headings."""
    yaw = rng.uniform(-np.pi, np.pi, n)
    joints = rng.uniform(-RESET_JOINT, RESET_JOINT, (n, len(JOINTS)))
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


def quadruped(settings: QuadrupedSettings) -> TaskFamily:
    """Return the family that the settings describe."""
    varied = parameters(settings)
    names = {p.name for p in varied}
    push_every = round(settings.push_interval / DT)
    command = np.array([getattr(settings, name) for name in COMMAND])
    robot = build(GO1, TIMESTEP).compile()
    return TaskFamily(
        name="quadruped",
        description="quadruped (Go1) that follows velocity commands, whatever its load, motors and ground",
        base=base(settings).copy,
        parameters=varied,
        changes=Changes.of(settings, *settings.changing),
        observation={k: term for k, term in OBSERVATION.items() if k != "velocity" or settings.observe_velocity},
        noise_factor="sensor_noise" if "sensor_noise" in names else None,
        rewards={name: RewardTerm(function, weight * DT) for name, (function, weight) in REWARDS.items()},
        reset=reset,
        action_low=np.full(len(JOINTS), -ACTION_LIMIT),
        action_high=np.full(len(JOINTS), ACTION_LIMIT),
        horizon=settings.horizon,
        frame_skip=FRAME_SKIP,
        control=read_signals(robot, "position from home", home=robot.key("home").qpos),
        action_scale=settings.action_scale,
        terminate=fallen,
        privileged=PRIVILEGED,
        measures={
            "velocity_error": Measure(velocity_error, "m/s", "mean"),
            "yaw_rate_error": Measure(yaw_rate_error, "rad/s", "mean"),
            **measures.falls(fallen),
            **measures.energy(path),
        },
        success=(Criterion("velocity_error", high=VELOCITY_TOLERANCE), Criterion("falls", high=0)),
        actuate=functools.partial(actuate, push_every=push_every if "push_velocity" in names else 0),
        memory={
            "command": (3,),
            "action": (len(JOINTS),),
            "action_change": (len(JOINTS),),
            "joint_velocity": (len(JOINTS),),
            "air_time": (NUM_FEET,),
            "landing": (),
        },
        begin=functools.partial(begin, low=command[:, 0], high=command[:, 1], drawn=settings.command == "episode"),
        update=update,
        noisy=True,
        groups={leg: tuple(f"{leg}_{joint}" for joint in LEG_JOINTS) for leg in LEGS},
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
            field=Field(around, around, around, TERRAIN_PATCH, cell=TERRAIN_CELL),
            root=FREE,
            lift=0.0,
            feet=Feet(LEGS, foot_positions),
        ),
        name="quadruped_terrain",
        description="quadruped (Go1) that follows velocity commands on ground that it has to find out about",
    )
