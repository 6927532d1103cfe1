"""Everything that a robot's file can say, as rows of text: made from the code that reads it."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from metarl.envs.declared.catalogue import TakesSettings
from metarl.envs.declared.entries import ObservationEntry, RewardEntry, said_of
from metarl.envs.declared.observations import OBSERVATIONS
from metarl.envs.declared.rewards import REWARDS
from metarl.envs.docstrings import field_texts
from metarl.envs.own_robot.declaration import Declaration
from metarl.envs.own_robot.quantities import QUANTITIES

Row = tuple[str, ...]
KINDS = {"told": "", "model": ""}
"""What a quantity's target matches, where it is not a kind of element by its own name."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the reference."""

    title: str
    head: Row
    rows: list[Row]


def reference() -> list[Table]:
    """Return all tables."""
    return [
        Table("Keys of the file", ("key", "type", "default", "meaning"), keys_of(Declaration)),
        Table("Settings of any observation term", ("setting", "type", "default", "meaning"), _said(ObservationEntry)),
        Table("Observation terms", ("term", "unit", "measured", "settings", "values"), _observations()),
        Table("Settings of any reward term", ("setting", "type", "default", "meaning"), _said(RewardEntry)),
        Table("Reward terms", ("term", "unit", "counts", "settings", "value"), _rewards()),
        Table("Quantities", ("quantity", "of each", "unit", "operations", "meaning"), _quantities()),
    ]


def inner(annotation: Any) -> type | None:
    """Return the dataclass that an annotation is of: itself, one of several, or none."""
    for candidate in (annotation, *typing.get_args(annotation)):
        if dataclasses.is_dataclass(candidate):
            return typing.cast(type, candidate)
    return None


def keys_of(cls: type, prefix: str = "") -> list[Row]:
    """Return a row for each key of a dataclass, and for those within it."""
    rows: list[Row] = []
    kinds = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        key, annotation = f"{prefix}{field.name}", kinds[field.name]
        part = None if typing.get_origin(annotation) is Annotated else inner(annotation)
        many = typing.get_origin(annotation) is tuple and part is not None
        shown = "list" if many else "" if part is not None else type_text(annotation)
        rows.append((f"{key}[]" if many else key, shown, _default(field, part), field_texts(cls)[field.name]))
        if part is not None:
            rows += keys_of(part, f"{key}[]." if many else f"{key}.")
    return rows


def _default(field: dataclasses.Field[Any], part: type | None) -> str:
    if "default" in field.metadata:
        return field.metadata["default"]
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "required"
    if part is not None or field.default is dataclasses.MISSING:
        return ""
    return value_text(field.default)


def value_text(value: Any) -> str:
    """Return a value as a file writes it; empty where it is none."""
    if value is None or value in ((), math.inf):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(value_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def type_text(annotation: Any) -> str:
    """Return what a key takes, in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return "terms"
    if origin in (types.UnionType, typing.Union):
        return type_text(arguments[0])
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin is tuple:
        each = type_text(arguments[0])
        return f"list of {each}" if arguments[-1] is Ellipsis else f"{len(arguments)} x {each}"
    if origin is dict:
        return f"name: {type_text(arguments[1])}"
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}[annotation]


def _said(entry: type) -> list[Row]:
    """Return a row for each setting of an entry, without those of its kind."""
    fields, texts = {f.name: f for f in dataclasses.fields(entry)}, field_texts(entry)
    return [(name, type_text(kind), _default(fields[name], None), texts[name]) for name, kind in said_of(entry).items()]


def _settings(kind: TakesSettings) -> str:
    said = [f"{name}: {value_text(kind.defaults[name])}" if name in kind.defaults else name for name in kind.types]
    return ", ".join(said)


def _observations() -> list[Row]:
    return [(name, k.unit, "yes" if k.measured else "no", _settings(k), k.text) for name, k in OBSERVATIONS.items()]


def _rewards() -> list[Row]:
    return [(name, k.unit, "-" if k.cost else "+", _settings(k), k.text) for name, k in REWARDS.items()]


def _quantities() -> list[Row]:
    return [
        (name, KINDS.get(q.kind, q.kind), q.unit, "set" if q.kind == "told" else ", ".join(q.operations), q.says)
        for name, q in QUANTITIES.items()
    ]


def markdown() -> str:
    """Return the tables for a page."""
    parts = []
    for table in reference():
        lines = [f"### {table.title}", "", _line(table.head), _line(tuple("---" for _ in table.head))]
        parts.append("\n".join([*lines, *(_line(row) for row in table.rows)]))
    return "\n\n".join(parts) + "\n"


def _line(row: Row) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a robot's file, which editors complete and check it by."""
    own = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "metarl robot"}
    whole = _object(Declaration)
    whole["properties"]["distribution"]["items"]["properties"]["quantity"] = {"enum": list(QUANTITIES)}
    return own | whole


def _object(cls: type) -> dict[str, Any]:
    kinds = typing.get_type_hints(cls, include_extras=True)
    properties = {}
    for field in dataclasses.fields(cls):
        properties[field.name] = {
            **_schema_of(field.name, kinds[field.name]),
            "description": field_texts(cls)[field.name],
        }
    needed = [f.name for f in dataclasses.fields(cls) if _default(f, None) == "required"]
    return {"type": "object", "properties": properties, "additionalProperties": False, "required": needed}


def _schema_of(name: str, annotation: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _weighted() if name == "reward" else _observed()
    if origin in (types.UnionType, typing.Union):
        return _schema_of(name, arguments[0])
    if dataclasses.is_dataclass(annotation):
        return _object(typing.cast(type, annotation))
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        counted = {} if arguments[-1] is Ellipsis else {"minItems": len(arguments), "maxItems": len(arguments)}
        return {"type": "array", "items": _schema_of(name, arguments[0]), **counted}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(name, arguments[1])}
    return {"type": {bool: "boolean", int: "integer", float: "number", str: "string"}[annotation]}


def _observed() -> dict[str, Any]:
    """Return the schema of terms that are observed: a list of names, or what is said of each by name."""
    mapping = _terms(OBSERVATIONS, ObservationEntry, {"type": "null"})
    return {"anyOf": [{"type": "array", "items": {"anyOf": [{"enum": list(OBSERVATIONS)}, mapping]}}, mapping]}


def _weighted() -> dict[str, Any]:
    """Return the schema of terms of a reward: a weight, or what is said of each, by name."""
    return _terms(REWARDS, RewardEntry, {"type": "number", "exclusiveMinimum": 0})


def _terms(kinds: Mapping[str, TakesSettings], entry: type, short: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of terms: by name, what is said of each. short: schema of what stands for a whole entry."""
    properties = {}
    for name, kind in kinds.items():
        said = {key: _schema_of(key, annotation) for key, annotation in (said_of(entry) | kind.types).items()}
        whole = {"type": "object", "properties": said, "additionalProperties": False}
        properties[name] = {"anyOf": [short, whole], "description": kind.text}
    return {"type": "object", "properties": properties}
