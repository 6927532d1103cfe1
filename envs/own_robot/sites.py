"""One place of a robot where a quantity is varied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco

Write = Callable[[mujoco.MjSpec, float], None]


@dataclass(frozen=True)
class Site:
    """One place where a quantity is varied."""

    default: float
    write: Write
    slots: tuple[str, ...]
    """What the write takes hold of: no two parameters may share one."""


def attribute(default: float, kind: str, name: str, attribute: str, index: int | None = None) -> Site:
    """The site of an attribute of the element `name` of a kind: `body`, `geom`, `joint`, `actuator`."""

    def write(spec: mujoco.MjSpec, value: float) -> None:
        element: Any = getattr(spec, kind)(name)
        if index is None:
            setattr(element, attribute, value)
        else:
            getattr(element, attribute)[index] = value

    slot = attribute if index is None or attribute == "size" else f"{attribute}[{index}]"
    return Site(default, write, (f"{slot} of {name}",))
