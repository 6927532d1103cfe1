"""Site of the quantity python: what a function of the user's own edits, whose code is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco

from metarl.envs import code
from metarl.envs.declared.own_functions import loaded
from metarl.envs.own_robot.declaration import DeclaredParameter
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.sites import Site


def own_edit(robot: Robot, _: str, entry: DeclaredParameter) -> Site:
    """Return a site that calls the user's function(spec, value); ValueError if there is none."""
    if entry.function is None:
        raise ValueError("function is missing; write function: file.py:function, a function(spec, value)")
    if not isinstance(entry.function, str):
        return Site(0.0, entry.function, ())
    if entry.neutral is None:
        raise ValueError("neutral is missing; say at which value the robot is unchanged")
    return Site(0.0, _checked(entry.function, loaded(entry.function)), ())


def _checked(name: str, function: Callable[[mujoco.MjSpec, float], Any]) -> Callable[[mujoco.MjSpec, float], None]:
    """Return the function with its errors as ValueError."""

    def edit(spec: mujoco.MjSpec, value: float) -> None:
        try:
            function(spec, value)
        except Exception as error:
            raise ValueError(f"{name} failed: {code.failure(error)}") from error

    return edit
