"""The ranges that a robot's file declares; read without MuJoCo, as a configuration is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.strict_yaml import read_yaml


class Range(NamedTuple):
    """What the training values of a parameter, or of a component of the commands, are drawn from."""

    values: tuple[float, ...]
    """Two ends, or all values of a choice."""
    choice: bool


def ranges_of(settings: RobotSettings) -> dict[str, Range]:
    """Return the ranges of training by the name of the parameter or of the component of the commands.

    What is wrong in the file is left out: whoever makes the family says what it is. ValueError if it cannot be read.
    """
    data = declared_in(settings.files[1])
    commands, drawn = (data.get(key) for key in ("commands", "distribution")) if isinstance(data, dict) else ({}, ())
    found = {name: (value, False) for name, value in commands.items()} if isinstance(commands, dict) else {}
    for entry in drawn if isinstance(drawn, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            found[entry["name"]] = entry.get("range"), entry.get("distribution") == "choice"
    return {
        name: Range(tuple(settings.ranges.get(name, values)), choice)
        for name, (value, choice) in found.items()
        if isinstance(value, list) and len(values := [n for v in value if (n := _number(v)) is not None]) == len(value)
    }


def declared_in(path: str | Path) -> Any:
    """Read a robot's file as plain types; ValueError names the file and what is wrong."""
    try:
        return read_yaml(Path(path))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error


def _number(value: Any) -> float | None:
    """Return a finite number, also one that YAML 1.1 reads as text (`4e-1`); None for anything else."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
