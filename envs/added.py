"""Elements that are added to a user's model, free of its default classes."""

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
"""Method that adds an element, by its type."""
OWN = {"compiler", "frame", "id", "parent", "plugin", "signature", "classname", "name"}
"""Attributes that an element has from its place, and not from a default class."""


def plain(element: E, **given: Any) -> E:
    """Set a new element to MuJoCo's own defaults, not those of default classes, and then to the given values."""
    for name, value in {**_made(type(element)), **given}.items():
        setattr(element, name, value)
    return element


@functools.cache
def _made(kind: type) -> dict[str, Any]:
    """Return every attribute of an element of a type as it is without default classes."""
    element = MADE[kind](_empty())
    names = [name for name in dir(element) if not name.startswith("_") and name not in OWN]
    values = {name: value for name in names if not callable(value := getattr(element, name))}
    return {name: np.copy(value) if isinstance(value, np.ndarray) else value for name, value in values.items()}


@functools.cache
def _empty() -> mujoco.MjSpec:
    """Return an empty specification; it is kept, as its elements' attributes are views of it."""
    return mujoco.MjSpec()
