"""Quadrupeds of other bodies: size, legs, masses and motors differ from task to task; published robots are held out.

The neutral body is the Go1's. Observation and action are those of `quadruped`: joints relative to the home pose of the
task's own body. Rewards, falls and success are its too, and size-free but for one: velocities, angles and the ground's
touch mean the same for any body, and torque counts relative to what the body's weight asks of its legs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from metarl.envs.family import TaskFamily
from metarl.envs.rendering import AZIMUTH, ELEVATION, follow
from metarl.envs.robots import quadruped_body_laws as laws
from metarl.envs.robots.quadruped import quadruped
from metarl.envs.robots.quadruped_body_laws import DENSITY, STANCE
from metarl.envs.robots.quadruped_body_robots import ROBOTS
from metarl.envs.robots.quadruped_body_settings import QuadrupedBodySettings
from metarl.envs.robots.quadruped_parameters import (
    Entries,
    centre,
    commands,
    contact,
    declared,
    entry,
    losses,
    motors,
    outside,
    payload,
)
from metarl.envs.robots.quadruped_robot import GO1, TIMESTEP, build
from metarl.envs.state import StateFunction


def _figure(settings: QuadrupedBodySettings, name: str, neutral: float, **said: Any) -> Entries:
    """Return the entry of a figure in which named robots differ: it is a parameter whatever its range is."""
    low, high = getattr(settings, name)
    return (entry(name, low, high, **{"neutral": neutral, "above": 0.0, **said}),)


def _trunk(axis: int) -> Callable[[mujoco.MjSpec, float], None]:
    return functools.partial(laws.set_trunk_size, axis=axis)


def _density(part: str) -> Callable[[mujoco.MjSpec, float], None]:
    return functools.partial(laws.set_density, part=part)


DISTANCE = 1.9  # m, of a picture's camera from the robot
BY_DENSITY = "masses by density"
RESIZED = "whole robot: lengths x s, masses x s^3, torques and gains x s^4"


FIGURES = (
    ("trunk_length", "m", GO1.trunk_size[0], _trunk(0), f"front hips to rear hips; {BY_DENSITY}"),
    ("trunk_width", "m", GO1.trunk_size[1], _trunk(1), f"left hips to right hips; {BY_DENSITY}"),
    ("trunk_height", "m", GO1.trunk_size[2], _trunk(2), f"of the trunk; {BY_DENSITY}"),
    ("trunk_density", "kg/m^3", DENSITY["trunk"], _density("trunk"), "mass and inertia of the trunk"),
    ("hip_offset", "m", GO1.hip_offset, laws.set_hip_offset, f"hip to plane of the leg; {BY_DENSITY}"),
    ("hip_density", "kg/m^3", DENSITY["hip"], _density("hip"), "mass and inertia of the hips"),
    ("thigh_length", "m", GO1.thigh_length, laws.set_thigh_length, f"hip to knee; {BY_DENSITY}"),
    ("thigh_density", "kg/m^3", DENSITY["thigh"], _density("thigh"), "mass and inertia of the thighs"),
    ("calf_length", "m", GO1.calf_length, laws.set_calf_length, f"knee to foot; {BY_DENSITY}"),
    ("foot_radius", "m", GO1.foot_radius, laws.set_foot_radius, f"of the feet; {BY_DENSITY}"),
    ("calf_density", "kg/m^3", DENSITY["calf"], _density("calf"), "mass and inertia of the calves and feet"),
    ("stance", "1", STANCE, laws.set_stance, "hips' height at home / length of the straight leg"),
    ("torque_limit", "N m", GO1.torque_limit[0], laws.set_torque_limits, "of hips and thighs"),
    ("knee_torque_limit", "N m", GO1.torque_limit[2], laws.set_knee_torque_limit, "of the knees"),
)
"""Name, unit, the Go1's value, edit and words of what only this family varies, in the order of the edits: a density or
stance after what it applies to."""


def body(settings: QuadrupedBodySettings) -> Entries:
    """Return the figures that only this family varies, but for the size of the whole robot."""
    of = functools.partial(_figure, settings, quantity="python")
    each = (of(name, go1, unit=unit, function=edit, says=says) for name, unit, go1, edit, says in FIGURES)
    return sum(each, ())


def shared(settings: QuadrupedBodySettings) -> Entries:
    """Return figures that `quadruped` has too, in which named robots differ."""
    scale = functools.partial(_figure, settings, operation="scale", target=".*")
    moved = {"operation": "add", "target": "trunk", "says": "displaces the trunk's centre of mass", "above": None}
    return (
        *_figure(settings, "com_x", 0.0, quantity="com_x", **moved),
        *scale("kp", GO1.kp, quantity="kp", says="gain"),
        *scale("kd", GO1.kd, quantity="kd", says="gain"),
        *scale("armature", 1.0, quantity="armature", says="rotor inertia of every joint x value"),
    )


def size(settings: QuadrupedBodySettings) -> Entries:
    """Return the size of the whole robot."""
    low, high = settings.size
    drawn = {"distribution": "log_uniform"} if low < high else {}
    return _figure(settings, "size", 1.0, quantity="python", function=laws.resize, says=RESIZED, **drawn)


def entries(settings: QuadrupedBodySettings) -> Entries:
    """Return the declared parameters; `size` comes after what it scales, and before loads, ground and faults."""
    scaled = (*body(settings), *shared(settings), *losses(settings), *size(settings))
    others = (payload, contact, motors, functools.partial(centre, axes="yz"), outside, commands)
    return sum((part(settings) for part in others), scaled)


def _check_changing(settings: QuadrupedBodySettings) -> None:
    bodily = {"size", *(name for name, *_ in FIGURES)}
    for name in settings.changing if settings.changes else ():
        if name in bodily:
            raise ValueError(f"changing has {name}; a body stays the same while a task lasts: leave it out")


@functools.cache
def _neutral_load() -> float:
    """Return what `loads` returns for the Go1, N m."""
    return float(loads([build(GO1, TIMESTEP).compile()])[0])


def loads(models: Sequence[mujoco.MjModel]) -> np.ndarray:
    """Return the weight times the height of the trunk at home of each model, [K] N m: torques scale with it."""
    return np.array([m.body_subtreemass[0] * np.linalg.norm(m.opt.gravity) * m.key("home").qpos[2] for m in models])


def relative_torque(torque: StateFunction) -> StateFunction:
    """Return a function for squared torques as the Go1 would have them at the same share of its load, [S] N^2 m^2."""
    return lambda state: torque(state) * (_neutral_load() / state.once(loads)[state.task_index]) ** 2


def keep_distance(spec: mujoco.MjSpec, values: Mapping[str, float]) -> None:
    """Let a picture's camera be as far away from every body, so that sizes are to scale."""
    follow(spec, DISTANCE, AZIMUTH, ELEVATION)


def quadruped_body(settings: QuadrupedBodySettings) -> TaskFamily:
    """Return the family that the settings describe."""
    _check_changing(settings)
    plain, (spec, varied) = quadruped(settings), declared(settings, entries(settings))
    torque = plain.rewards["torque"]
    relative = dataclasses.replace(torque, function=relative_torque(torque.function))
    return dataclasses.replace(
        plain,
        name="quadruped_body",
        description="quadruped of unknown body that follows velocity commands; published robots are held out",
        base=spec.copy,
        parameters=varied,
        rewards={**plain.rewards, "torque": relative},
        settle=laws.hold,
        decorate=keep_distance,
        named={name: robot.values() for name, robot in ROBOTS.items()},
    )
