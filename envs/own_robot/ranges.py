"""Other ranges in place of those that a robot's file declares."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from metarl.envs.own_robot.declaration import Declaration, DeclaredParameter
from metarl.envs.parameters import overlap
from metarl.envs.text import near, shown


def with_ranges(said: Declaration, ranges: Mapping[str, tuple[float, ...]]) -> Declaration:
    """Return what a file declares with other ranges, by the name of the parameter or the component of the commands.

    The held-out tasks of such a parameter are of the new range, and so are its out-of-distribution ones if the file's
    lie within. ValueError for an unknown name or an impossible range.
    """
    if not isinstance(ranges, Mapping):
        raise ValueError(f"family.ranges is {shown(ranges)}; it must be a mapping of names to ranges")
    commands, drawn = said.commands, {entry.name: entry for entry in said.distribution}
    for name, values in ranges.items():
        where = f"family.ranges.{name}"
        if not isinstance(values, tuple | list) or not all(_is_number(value) for value in values):
            raise ValueError(f"{where} is {shown(values)}; it must be a list of finite numbers")
        if name in drawn:
            try:
                drawn[name] = _with_range(drawn[name], tuple(values))
            except ValueError as error:
                raise ValueError(f"{where} is {shown(list(values))}: {error}") from None
        elif name in commands.ranges():
            if len(values) != 2 or values[0] > values[1]:
                raise ValueError(
                    f"{where} is {shown(list(values))}; it must be two numbers, the first at most the second"
                )
            commands = dataclasses.replace(commands, **{name: (values[0], values[1])})
        else:
            known = [*drawn, *commands.ranges()]
            raise ValueError(f"{where}: the robot's file declares no range of that name{near(name, known)}")
    return dataclasses.replace(said, commands=commands, distribution=tuple(drawn.values()))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _with_range(entry: DeclaredParameter, values: tuple[float, ...]) -> DeclaredParameter:
    entry = dataclasses.replace(entry, range=values, splits=dataclasses.replace(entry.splits, held_out=None))
    drawn, _, ood = entry.distributions()
    return dataclasses.replace(entry, splits=type(entry.splits)()) if ood and overlap(drawn, ood) else entry
