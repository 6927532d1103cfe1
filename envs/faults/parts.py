"""Parts of a robot that can fail: joints with their actuators and encoders, and terms of the observation."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import mujoco

from metarl.envs.family import TaskFamily
from metarl.envs.task import Task
from metarl.envs.text import near
from metarl.patterns import matched


@dataclass(frozen=True)
class Part:
    """A joint with its actuators and encoder, an actuator of no single joint, or a term of the observation."""

    name: str
    """Name of the joint, the actuator or the term."""
    joint: str = ""
    """Name of the joint; empty: none."""
    actuators: tuple[int, ...] = ()
    """Indices of the actuators that drive it."""
    position: int = -1
    """Index of the observation's element that shows the joint's position; -1: none."""
    velocity: int = -1
    """Index of the element that shows the joint's velocity; -1: none."""
    elements: tuple[int, ...] = ()
    """Indices of the elements that its sensors give."""


@dataclass(frozen=True)
class Anatomy:
    """What can fail in a family's robot."""

    family: TaskFamily
    neutral: Task
    """The neutral robot, of the layout with the most parts."""
    model: mujoco.MjModel
    """Its model."""
    parts: Mapping[str, Part]
    """Every joint, actuator of no single joint and term of the observation by name."""

    @property
    def driven(self) -> tuple[Part, ...]:
        """The parts with an action of the policy's: those that can fail where no place is named."""
        return tuple(part for part in self.parts.values() if part.actuators)

    @functools.cached_property
    def _names(self) -> dict[str, Part]:
        """The parts by the names of their joints, terms and actuators."""
        actuators = {self.family.control.names[i]: part for part in self.driven for i in part.actuators}
        return {**actuators, **self.parts}

    @functools.cached_property
    def _elements(self) -> dict[str, Part]:
        """Each element of the observation as a part."""
        return {e.name: Part(e.name, elements=(i,)) for i, e in enumerate(self.family.elements)}

    def found(self, pattern: str, setting: str) -> dict[str, tuple[Part, ...]]:
        """Return the places that a group, a name or a regular expression stands for, each its parts by name.

        ValueError if there are none.
        """
        if pattern in self.family.groups:
            if not self.family.groups[pattern]:
                raise ValueError(f"the group {pattern!r} is empty; name its joints, or leave it out")
            members = (self.members(name, pattern) for name in self.family.groups[pattern])
            return {pattern: tuple(dict.fromkeys(part for parts in members for part in parts))}
        if (element := self._elements.get(pattern)) and pattern not in self._names:
            return {pattern: (element,)}
        named = (self._names[name] for name in matched(pattern, self._names, f"{setting}:"))
        parts = {part.name: (part,) for part in named}
        if not parts:
            raise ValueError(f"{setting} has {pattern!r}, {self._unknown(pattern)}")
        return parts

    def members(self, pattern: str, group: str) -> list[Part]:
        """Return the parts of a group that a name or a regular expression stands for; ValueError if there are none."""
        found = matched(pattern, self._names, f"the group {group!r}:")
        if not found:
            raise ValueError(f"the group {group!r} has {pattern!r}, {self._unknown(pattern)}")
        return [self._names[name] for name in found]

    def _unknown(self, name: str) -> str:
        valid = [*self.family.groups, *self._names]
        what = "which is no joint, actuator, group, observation term or element of one"
        return what + near(name, [*valid, *self._elements], valid)


def anatomy(family: TaskFamily) -> Anatomy:
    """Return the parts of the family's robot."""
    control, place = family.control, {element.name: i for i, element in enumerate(family.elements)}
    neutral = _fullest(family)
    model, parts = family.compile(neutral), {}
    for joint in (
        name for name in control.home if name and mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name) >= 0
    ):
        shown = family.encoders.get(joint, joint)
        position = next((place[name] for name in (shown, f"{shown} - home") if name in place), -1)
        velocity = place.get(f"{shown}_velocity", -1)
        elements = tuple(i for i in (position, velocity) if i >= 0)
        driving = tuple(i for i, driven in enumerate(control.joints) if driven == joint)
        parts[joint] = Part(joint, joint, driving, position, velocity, elements)
    for i, (name, joint) in enumerate(zip(control.names, control.joints, strict=True)):
        if not joint:
            parts[name] = Part(name, actuators=(i,))
    return Anatomy(family, neutral, model, {**_terms(family), **parts})


def check_groups(family: TaskFamily) -> None:
    """Raise ValueError if a group of the family is empty, or has a member that is no part."""
    if family.groups:
        robot = anatomy(family)
        for name in family.groups:
            robot.found(name, "fault_groups")


def _fullest(family: TaskFamily) -> Task:
    """Return the neutral task, with the largest values of the parameters that decide its layout."""
    layout = {}
    for p in family.parameters:
        if p.name in family.layout:
            layout[p.name] = max(d.high for d in (p.distribution, p.held_out, p.ood) if d is not None)
    return family.task(layout)


def _terms(family: TaskFamily) -> dict[str, Part]:
    """Return the terms of the observation as parts."""
    parts, start = {}, 0
    for name, term in family.observation.items():
        parts[name] = Part(name, elements=tuple(range(start, start + len(term.elements))))
        start += len(term.elements)
    return parts


def actuators_of(spec: mujoco.MjSpec, part: Part) -> list[mujoco.MjsActuator]:
    """Return the actuators that drive a part; a robot of fewer legs lacks some."""
    there: Sequence[mujoco.MjsActuator] = spec.actuators
    return [there[i] for i in part.actuators if i < len(there)]


def listed(names: Iterable[str]) -> str:
    """Return names as text, or `nothing`."""
    return ", ".join(names) or "nothing"
