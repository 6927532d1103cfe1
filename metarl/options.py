"""Parse option values as they are typed on the command line and after the names of runs."""

from __future__ import annotations

import typing
from typing import Any

from metarl.config import coerce
from metarl.envs import strict_yaml
from metarl.errors import UsageError

TRUTH = {"true": True, "false": False}


def flag(name: str) -> str:
    """Return an option as it is typed, such as `--agent.inner-lr`."""
    return f"--{name.replace('_', '-')}"


def value_of(name: str, values: list[str], annotation: Any) -> Any:
    """Return the typed values of an option as the annotated type, by the rules of config files.

    UsageError if they do not fit.
    """
    if typing.get_origin(annotation) is tuple:
        entries = values[0].strip("[]() ").split(",") if len(values) == 1 else values
        return coerce([_scalar(entry) for entry in entries if entry], annotation, flag(name))
    if not values:
        raise UsageError(f"{flag(name)} needs a value")
    if annotation is bool:
        return coerce(TRUTH.get(values[0].lower(), values[0]), bool, flag(name))
    return coerce(_scalar(values[0]) if annotation in (int, float) else values[0], annotation, flag(name))


def _scalar(text: str) -> Any:
    try:
        value = strict_yaml.parse_yaml(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text
