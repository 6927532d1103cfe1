"""Values of settings, as they are written in YAML files and typed on the command line."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from typing import Any, Literal

from metarl.envs import strict_yaml
from metarl.envs.text import WHOLE, shown
from metarl.errors import UsageError, nearest

ENTRIES = "family.ranges."
"""How the names of settings begin that are entries of a mapping."""
TRUTH = {"true": True, "false": False}


def flag(name: str) -> str:
    """Return an option as it is typed, such as `--agent.inner-lr`."""
    head, entries, entry = name.partition(ENTRIES)
    return f"--{head.replace('_', '-')}{entries}{entry}"


def is_entry(name: str) -> bool:
    """Return whether a setting is an entry of a mapping, whose names are their user's own and typed as they are."""
    return name.startswith(ENTRIES)


def value_of(name: str, values: list[str], annotation: Any) -> Any:
    """Return the value of an option from what was typed, as `coerce` does; UsageError if it is of another type."""
    if typing.get_origin(annotation) is tuple:
        entries = entries_of(values[0], flag(name)) if len(values) == 1 else values
        return coerce([_scalar(entry) for entry in entries if entry], annotation, flag(name))
    if not values:
        raise UsageError(f"{flag(name)} needs a value")
    if annotation is bool:
        return coerce(TRUTH.get(values[0].lower(), values[0]), bool, flag(name))
    return coerce(_scalar(values[0]) if annotation in (int, float) else values[0], annotation, flag(name))


def entries_of(text: str, name: str) -> list[str]:
    """Return the entries of a list that is typed as one text: `a,b`, `[a, b]` or `(a, b)`.

    Brackets around part of it, and commas within brackets, belong to an entry, such as a regular expression.
    UsageError for commas alone. name: of the option.
    """
    closing, inner = {"[": "]", "(": ")", "{": "}"}, text.strip()
    pieces, open_to, outer = [""], list[str](), -1  # outer: where the bracket that begins the text is closed
    for place, letter in enumerate(inner):
        if letter in closing:
            open_to.append(closing[letter])
        elif open_to and letter == open_to[-1]:
            open_to.pop()
            outer = place if outer < 0 and not open_to else outer
        if letter == "," and not open_to:
            pieces.append("")
        else:
            pieces[-1] += letter
    if inner[:1] in ("[", "(") and outer == len(inner) - 1:
        return entries_of(inner[1:-1], name) if inner[1:-1].strip() else []
    found = [piece.strip() for piece in pieces]
    if inner and not any(found):
        raise UsageError(f"{name} is {shown(text)}, a list without an entry; name some, or give [] for none")
    return found


def _scalar(text: str) -> Any:
    try:
        value = strict_yaml.parse_yaml(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def coerce(value: Any, annotation: Any, key: str) -> Any:
    """Return a value as the annotated type; UsageError names the setting if it is of another type.

    Converted are numbers that YAML 1.1 reads as text (`1e5`), whole numbers where any number will do, and lists.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        if value not in arguments:
            raise UsageError(f"{key} is {shown(value)}{nearest(str(value), map(str, arguments))}")
        return value
    if origin is Mapping:
        require_mapping(value, key)
        return {coerce(name, str, key): coerce(entry, arguments[1], f"{key}.{name}") for name, entry in value.items()}
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UsageError(
                f"{key} is {shown(value)}, {_kind(value)}; it must be a list, each entry {_expected(arguments[0])}"
            )
        if ... not in arguments and len(value) != len(arguments):
            raise UsageError(f"{key} is {shown(list(value))}; it must be a list of {len(arguments)} numbers")
        return tuple(coerce(entry, arguments[0], f"{key}[{i}]") for i, entry in enumerate(value))
    converted = _number(value, annotation) if annotation in (int, float) else value
    if isinstance(converted, int) and not -WHOLE <= converted < WHOLE:
        raise UsageError(f"{key} is {shown(value)}; it must fit in 64 bits")
    if type(converted) is not annotation or (annotation is float and not math.isfinite(converted)):
        raise UsageError(f"{key} is {shown(value)}, {_kind(value)}; it must be {_expected(annotation)}")
    return converted


def _number(value: Any, annotation: type) -> Any:
    """Return a value as a number of that type if it is one, otherwise unchanged."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if annotation is float and isinstance(value, int):
        return float(value) if -WHOLE <= value < WHOLE else value
    if annotation is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def require_mapping(value: Any, key: str) -> None:
    """Raise UsageError unless the value is a mapping."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{key} is {shown(value)}, {_kind(value)}; it must be a mapping of names to values")


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a mapping",
    }
    return names.get(type(value), type(value).__name__)


def _expected(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(annotation)))}"
    return {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}[annotation]
