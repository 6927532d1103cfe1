"""Sites: places of a robot's model where quantities are varied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco

from metarl.envs.own_robot.declaration import DeclaredParameter
from metarl.envs.own_robot.description import Robot

Write = Callable[[mujoco.MjSpec, float], None]


@dataclass(frozen=True)
class Site:
    """A place of a model where a quantity is varied."""

    default: float
    write: Write
    slots: tuple[str, ...]
    """Numbers of the model that are written, by name; of two parameters that share one, the second must scale it."""
    read: Callable[[mujoco.MjSpec], float] | None = None
    """Return the value as earlier edits left it; None: no earlier parameter may vary it."""
    multiply: Write | None = None
    """Multiply what earlier edits left by a factor; None: write the product."""
    follows: bool = False
    """Whether the number follows from others that other parameters may vary: a factor multiplies what they left."""


Find = Callable[[Robot, str, DeclaredParameter], Site | dict[str, Site]]
"""(robot, target, declared parameter): returns the site of a quantity on a target, or several by name; ValueError if
the target lacks it. It may add elements that its edits need to `robot.spec`."""


def attribute(default: float, kind: str, name: str, attribute: str, index: int | None = None) -> Site:
    """Return the site of an attribute of an element by kind (`body`, `geom`, `joint`, `actuator`) and name."""

    def write(spec: mujoco.MjSpec, value: float) -> None:
        element: Any = getattr(spec, kind)(name)
        if index is None:
            setattr(element, attribute, value)
        else:
            getattr(element, attribute)[index] = value

    def read(spec: mujoco.MjSpec) -> float:
        value = getattr(getattr(spec, kind)(name), attribute)
        return float(value if index is None else value[index])

    slot = attribute if index is None or attribute == "size" else f"{attribute}[{index}]"
    return Site(default, write, (f"{slot} of {name}",), read)
