"""What is added to somebody's model: elements that take nothing of its default classes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import mujoco
import numpy as np

E = TypeVar("E", bound=mujoco.MjsElement)
MADE: dict[type, Callable[[mujoco.MjSpec], mujoco.MjsElement]] = {
    mujoco.MjsGeom: lambda spec: spec.worldbody.add_geom(),
    mujoco.MjsActuator: lambda spec: spec.add_actuator(),
    mujoco.MjsPair: lambda spec: spec.add_pair(),
    mujoco.MjsMaterial: lambda spec: spec.add_material(),
    mujoco.MjsLight: lambda spec: spec.worldbody.add_light(),
    mujoco.MjsCamera: lambda spec: spec.worldbody.add_camera(),
}
"""How an element comes to be, by its type."""
OWN = {"compiler", "frame", "id", "parent", "plugin", "signature", "classname", "name"}
"""What an element has of its place, and not of a default class."""


def plain(element: E, **given: Any) -> E:
    """Give a new element MuJoCo's own defaults, whatever the model's default classes say, and then what is given."""
    for name, value in {**_made(type(element)), **given}.items():
        setattr(element, name, value)
    return element


@functools.cache
def _made(kind: type) -> dict[str, Any]:
    """Every attribute of an element as MuJoCo makes it where there is no default class."""
    element = MADE[kind](_empty())
    names = [name for name in dir(element) if not name.startswith("_") and name not in OWN]
    values = {name: value for name in names if not callable(value := getattr(element, name))}
    return {name: np.copy(value) if isinstance(value, np.ndarray) else value for name, value in values.items()}


@functools.cache
def _empty() -> mujoco.MjSpec:
    """Kept, as attributes of its elements are views of it."""
    return mujoco.MjSpec()
