"""The ranges that a robot's file declares; read without MuJoCo, as a configuration is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.strict_yaml import read_yaml


class Range(NamedTuple):
    """What the training values of a parameter, or of a component of the commands, are drawn from."""

    values: tuple[float, ...]
    """Two ends, or all values of a choice."""
    choice: bool


def ranges_of(settings: RobotSettings) -> dict[str, Range]:
    """Return the ranges of training by the name of the parameter or of the component of the commands.

    What cannot be read, or is wrong, is left out: whoever makes the family says what is wrong.
    """
    try:
        data = read_yaml(Path(settings.files[1]))
    except (OSError, ValueError):
        return {}
    commands, drawn = (data.get(key) for key in ("commands", "distribution")) if isinstance(data, dict) else ({}, ())
    found = {name: (value, False) for name, value in commands.items()} if isinstance(commands, dict) else {}
    for entry in drawn if isinstance(drawn, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            found[entry["name"]] = entry.get("range"), entry.get("distribution") == "choice"
    return {
        name: Range(tuple(settings.ranges.get(name, map(float, values))), choice)
        for name, (values, choice) in found.items()
        if isinstance(values, list) and all(type(v) in (int, float) for v in values)
    }
