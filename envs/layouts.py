"""Robots of different layouts as one family: observation and action are padded to those of the largest robot.

Each number of legs, say, is a `TaskFamily` by itself. The joined family calls the functions of the robot that is
simulated, with the state as that robot's own family has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import mujoco
import numpy as np

from metarl.envs.arrays import Array, like
from metarl.envs.family import TaskFamily
from metarl.envs.parameters import Choice, Law, Parameter
from metarl.envs.state import State
from metarl.envs.terms import ObservationTerm, elements


class _Own:
    """The state of a smaller robot without the padding of actions and memory."""

    def __init__(self, whole: State, family: TaskFamily) -> None:
        self._whole = whole
        self.memory = {
            name: whole.memory[name][(slice(None), *map(slice, shape))] for name, shape in family.memory.items()
        }
        self.action = whole.action[:, : family.action_size]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


class _Joined:
    """Functions of families by the number of their motors."""

    def __init__(self, families: Mapping[float, TaskFamily]) -> None:
        self.families = {family.action_size: family for family in families.values()}
        self.largest = self.families[max(self.families)]

    def call(self, of: Callable[[TaskFamily], Callable[..., Any] | None]) -> Callable[..., Any] | None:
        """Return a function of a state, and maybe more, that calls that of the state's robot; None without any."""
        functions = {size: function for size, family in self.families.items() if (function := of(family)) is not None}
        if not functions:
            return None

        def called(state: State, *arguments: Any) -> Any:
            size = state.ctrl.shape[1]
            return functions[size](cast(State, _Own(state, self.families[size])), *arguments)

        return called

    def terms(self, of: Callable[[TaskFamily], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the terms or measures of the largest robot by name, with the functions of all."""
        return {
            name: dataclasses.replace(term, function=self.call(lambda family, name=name: of(family)[name].function))
            for name, term in of(self.largest).items()
        }

    def observed(self, of: Callable[[TaskFamily], Mapping[str, ObservationTerm]]) -> dict[str, ObservationTerm]:
        """Return the terms of an observation, each padded with zeros."""
        return {name: _padded(term) for name, term in self.terms(of).items()}

    def parameter(self, place: int) -> Parameter:
        """Return a parameter of all families, with the edit of the robot that is edited."""
        laws = {size: family.parameters[place].law for size, family in self.families.items()}
        edits = {size: law.edit for size, law in laws.items() if law.edit is not None}
        p = self.largest.parameters[place]
        if not edits:
            return p

        def edit(spec: mujoco.MjSpec, value: float) -> None:
            edits[len(spec.actuators)](spec, value)

        return dataclasses.replace(p, law=dataclasses.replace(p.law, edit=edit))


def _padded(term: ObservationTerm) -> ObservationTerm:
    size, function = len(term.elements), term.function

    def padded(state: State) -> Array:
        values = function(state)
        missing = state.xp.zeros_like(values[:, :1])
        return state.xp.concat([values, *[missing] * (size - values.shape[1])], axis=1)

    return dataclasses.replace(term, function=padded)


def number_of_parts(
    name: str, trained: Sequence[int], held_out: Sequence[int], neutral: int, description: str
) -> Parameter:
    """Return the parameter that is the number of parts, as `joined` takes it. held_out: empty for those of training."""
    return Parameter(
        name=name,
        unit="1",
        distribution=Choice(tuple(map(float, trained))),
        law=Law(description),
        neutral=float(neutral),
        held_out=Choice(tuple(map(float, held_out))) if held_out else None,
    )


def joined(parameter: Parameter, families: Mapping[float, TaskFamily], **said: Any) -> TaskFamily:
    """Return one family of several, which differ in the number of equal parts that a robot has, its legs.

    parameter: that number, which decides the layout. families: by its value; their groups are the parts, those of a
    smaller robot the first of the largest one's. said: further fields of the family, its name and description.

    Beside the terms of the families, an observation has one by the parameter's name: for each part, whether it is
    there. What is no function of the state (reset, settle, edit, control, success) is the largest robot's, and must
    serve all.
    """
    join = _Joined(families)
    largest = join.largest
    parts = tuple(largest.groups)
    masks = {f.action_size: (np.arange(len(parts)) < len(f.groups)).astype(np.float64) for f in families.values()}

    def is_there(state: State) -> Array:
        there = like(masks[state.ctrl.shape[1]], state.qpos)
        return state.xp.broadcast_to(there, (len(state.qpos), len(parts)))

    mask = ObservationTerm(is_there, elements("1", (f"{part}_is_there" for part in parts)))

    def base(**layout: float) -> mujoco.MjSpec:
        number = layout[parameter.name]
        if number not in families:
            numbers = ", ".join(f"{n:g}" for n in families)
            raise ValueError(f"parameter {parameter.name!r} must be one of {numbers}, got {number:g}")
        return families[number].base()

    return dataclasses.replace(
        largest,
        base=base,
        parameters=(parameter, *map(join.parameter, range(len(largest.parameters)))),
        layout=(parameter.name,),
        observation={**join.observed(lambda family: family.observation), parameter.name: mask},
        privileged=join.observed(lambda family: family.privileged),
        rewards=join.terms(lambda family: family.rewards),
        measures=join.terms(lambda family: family.measures),
        terminate=join.call(lambda family: family.terminate),
        begin=join.call(lambda family: family.begin),
        actuate=join.call(lambda family: family.actuate),
        update=join.call(lambda family: family.update),
        **said,
    )
