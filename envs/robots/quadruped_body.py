"""Quadrupeds of other bodies: size, legs, masses and motors differ from task to task; published robots are held out.

The neutral body is the Go1's. Observation and action are those of `quadruped`: joints relative to the home pose of the
task's own body. Rewards, falls and success are its too, and size-free but for one: velocities, angles and the ground's
touch mean the same for any body, and torque counts relative to what the body's weight asks of its legs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from metarl.envs.family import TaskFamily
from metarl.envs.parameters import Choice, Law, LogUniform, Parameter, Uniform
from metarl.envs.rendering import AZIMUTH, ELEVATION, follow
from metarl.envs.robots import quadruped_body_laws as laws
from metarl.envs.robots.quadruped import quadruped
from metarl.envs.robots.quadruped_body_robots import ROBOTS
from metarl.envs.robots.quadruped_body_settings import QuadrupedBodySettings
from metarl.envs.robots.quadruped_parameters import COMMANDED, Range, table
from metarl.envs.robots.quadruped_robot import GO1, TIMESTEP, build
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.state import StateFunction


@dataclass(frozen=True)
class Figure(Range):
    """A figure of the body, in which named robots differ: it is a parameter whatever its range is."""

    above: float = 0.0
    """Bound that values must be greater than."""

    def parameters(self, settings: QuadrupedSettings) -> tuple[Parameter, ...]:
        """Return the parameter."""
        low, high = getattr(settings, self.name)
        drawn = LogUniform(low, high) if self is SIZE and low < high else _between(low, high)
        neutral = low if low == high else self.neutral
        return (Parameter(self.name, self.unit, drawn, Law(self.law, self.edit), neutral, above=self.above),)


def _between(low: float, high: float) -> Uniform | Choice:
    return Uniform(low, high) if low < high else Choice((low,))


def _trunk(name: str, axis: int, law: str) -> Figure:
    return Figure(name, "m", GO1.trunk_size[axis], law, functools.partial(laws.set_trunk_size, axis=axis))


def _density(part: str, law: str) -> Figure:
    edit = functools.partial(laws.set_density, part=part)
    return Figure(f"{part}_density", "kg/m^3", laws.DENSITY[part], law, edit)


def _set_knee_limit(spec: mujoco.MjSpec, limit: float) -> None:
    laws.set_torque_limit(spec, limit, joint=2)


DISTANCE = 1.9  # m, of a picture's camera from the robot
BY_DENSITY = "masses by density"
SIZE = Figure("size", "1", 1.0, "whole robot: lengths x s, masses x s^3, torques and gains x s^4", laws.resize)
BODY = (
    _trunk("trunk_length", 0, f"front hips to rear hips; {BY_DENSITY}"),
    _trunk("trunk_width", 1, f"left hips to right hips; {BY_DENSITY}"),
    _trunk("trunk_height", 2, f"of the trunk; {BY_DENSITY}"),
    _density("trunk", "mass and inertia of the trunk"),
    Figure("hip_offset", "m", GO1.hip_offset, f"hip to plane of the leg; {BY_DENSITY}", laws.set_hip_offset),
    _density("hip", "mass and inertia of the hips"),
    Figure("thigh_length", "m", GO1.thigh_length, f"hip to knee; {BY_DENSITY}", laws.set_thigh_length),
    _density("thigh", "mass and inertia of the thighs"),
    Figure("calf_length", "m", GO1.calf_length, f"knee to foot; {BY_DENSITY}", laws.set_calf_length),
    Figure("foot_radius", "m", GO1.foot_radius, f"of the feet; {BY_DENSITY}", laws.set_foot_radius),
    _density("calf", "mass and inertia of the calves and feet"),
    Figure("stance", "1", laws.STANCE, "hips' height at home / length of the straight leg", laws.set_stance),
    Figure("torque_limit", "N m", GO1.torque_limit[0], "of hips and thighs", laws.set_torque_limits),
    Figure("knee_torque_limit", "N m", GO1.torque_limit[2], "of the knees", _set_knee_limit),
)
"""Figures that only this family varies, in the order of their edits: a density or stance after what it applies to."""
SHARED = {"com_x": -math.inf, "kp": 0.0, "kd": 0.0, "armature": 0.0}
"""Figures that `quadruped` has too, and the bounds that their values must be greater than."""
LOSSES = ("joint_damping", "joint_friction")
"""Quantities of the joints that are scaled with the whole robot, but are the same in all named robots."""


def parameters(settings: QuadrupedBodySettings) -> tuple[Parameter, ...]:
    """Return the parameters; `size` comes after what it scales, and before loads, ground and faults."""
    others = {row.name: row for row in table(settings)}
    shared = [(others.pop(name), above) for name, above in SHARED.items()]
    losses = [others.pop(name) for name in LOSSES]
    figures = [Figure(r.name, r.unit, r.neutral, r.law, r.edit, above) for r, above in shared if isinstance(r, Range)]
    commands = COMMANDED if settings.command == "task" else ()
    rows = (*BODY, *figures, *losses, SIZE, *others.values(), *commands)
    return sum((row.parameters(settings) for row in rows), ())


def _check_changing(settings: QuadrupedBodySettings) -> None:
    body = {row.name for row in (*BODY, SIZE)}
    for name in settings.changing if settings.changes else ():
        if name in body:
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
    plain = quadruped(settings)
    torque = plain.rewards["torque"]
    relative = dataclasses.replace(torque, function=relative_torque(torque.function))
    return dataclasses.replace(
        plain,
        name="quadruped_body",
        description="quadruped of unknown body that follows velocity commands; published robots are held out",
        parameters=parameters(settings),
        rewards={**plain.rewards, "torque": relative},
        settle=laws.hold,
        decorate=keep_distance,
        named={name: robot.values() for name, robot in ROBOTS.items()},
    )
