"""Ranges of several parameters that are possible one by one, and not together."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.family import TaskFamily
from metarl.envs.own_robot.description import Robot
from metarl.envs.parameters import Choice, Distribution, Parameter

TRIANGLE = re.compile(r"A \+ B >= C.*Element name '([^']*)'")
"""MuJoCo's words about moments of inertia that no body has, and the body."""


def reason(error: ValueError) -> str:
    """Return why MuJoCo refuses a robot, in one line, and what to do about moments of inertia that no body has."""
    message = " ".join(str(error).split())
    if (found := TRIANGLE.search(message)) is None:
        return message
    return (
        f"of the moments of inertia of body {found[1]!r} two together are less than the third, and each body has "
        "A + B >= C; narrow the range until that holds at all its ends, or vary mass, which scales all three alike"
    )


def require_possible_together(family: TaskFamily, robot: Robot, models: Mapping[str, Sequence[mujoco.MjModel]]) -> None:
    """Raise ValueError if values of parameters that shape the inertia of one body are impossible together.

    models: by parameter, the robot's with the ends of its ranges.

    A + B >= C is linear in each moment of inertia, so it holds within the ranges of all if it holds at their corners;
    of a choice, all values are looked at, of a function of one's own the ends alone. An inertia that follows from
    shapes is always one that a body has.
    """
    given = [name for name in robot.bodies if robot.spec.body(name).explicitinertial]
    groups = [
        tuple(p for p in family.parameters if _shapes(models.get(p.name, ()), robot.model, name)) for name in given
    ]
    for group, split in itertools.product(dict.fromkeys(groups), family.splits):
        ends = [values_to_check(p.of_split(split)) for p in group]
        for corner in dict.fromkeys(itertools.product(*ends)) if len(group) > 1 else ():
            _require_possible(family, group, corner)


def values_to_check(distribution: Distribution) -> list[float]:
    """Return the ends of a range, or all values of a choice."""
    return list(distribution.values) if isinstance(distribution, Choice) else [distribution.low, distribution.high]


def _shapes(models: Iterable[mujoco.MjModel], neutral: mujoco.MjModel, body: str) -> bool:
    """Return whether a body's moments of inertia in some model are not one multiple of the neutral ones."""
    return any(
        not np.allclose(_shares(model, body), _shares(neutral, body), rtol=1e-6)
        for model in models
        if model.nbody == neutral.nbody
    )


def _shares(model: mujoco.MjModel, body: str) -> Array:
    """Return a body's moments of inertia as shares of their sum, [3]."""
    moments = model.body(body).inertia
    return moments / max(moments.sum(), mujoco.mjMINVAL)


def _require_possible(family: TaskFamily, group: Sequence[Parameter], corner: Sequence[float]) -> None:
    try:
        family.compile(family.task(dict(zip((p.name for p in group), corner, strict=True))))
    except ValueError as error:
        values = [f"{p.name} = {value:g} ({p.law.description})" for p, value in zip(group, corner, strict=True)]
        raise ValueError(f"{' and '.join(values)} together make an impossible robot: {reason(error)}") from error
