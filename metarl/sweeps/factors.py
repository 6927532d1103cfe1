"""Read the factors of a sweep's file: which settings vary, over which levels or number ranges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from metarl.config import PAIR, RunConfig, named, options
from metarl.envs.own_robot.declared_ranges import ranges_of
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.text import shown
from metarl.errors import UsageError, nearest, usage_errors
from metarl.options import coerce, is_entry, require_mapping
from metarl.sweeps.dimensions import HIGH, LOW, Dimension, Factor, Levels, NumberRange, label

SWEPT = ("agent.", "family.", "training.", "evaluation.adaptations", "evaluation.envs_per_task")
"""Settings that can be swept. The other settings of the evaluation are the same for every variant."""
THREADS = "training.threads"
"""A setting that the command gives all variants."""
ONE = ("agent", "agent.name", "family", "family.name")
"""What all variants of a sweep share."""
LIMITS = ("low", "high", "log", "levels")
MOST_LEVELS = 10_000
"""Largest number of levels of a factor."""


def read_factors(data: Any, base: RunConfig) -> tuple[Factor, ...]:
    """Return the factors of a sweep; UsageError for anything unknown, mistyped or empty, or for a setting twice."""
    require_mapping(data, "factors")
    if not data:
        raise UsageError("nothing varies; `factors:` is empty")
    factors = tuple(_factor(str(name), value, base) for name, value in data.items())
    owner: dict[str, str] = {}
    for factor in factors:
        for setting in factor.settings:
            if setting in owner:
                raise UsageError(
                    f"factors: {owner[setting]} and {factor.name} both set {setting}; leave one of them out"
                )
            owner[setting] = factor.name
    return factors


def _factor(name: str, value: Any, base: RunConfig) -> Factor:
    every = options(base)
    known = {key: kind for key, kind in every.items() if key.startswith(SWEPT)}
    ranges = _ranges(base, known)
    names = [part.strip() for part in name.split(",")]
    for part in names:
        if part in every and part not in known:
            raise UsageError(f"factors: {part} cannot be swept; {', '.join(s.rstrip('.') for s in SWEPT)} can")
        if part == THREADS:
            raise UsageError(
                f"factors: {part} cannot be swept, as it changes no number and all variants have the command's; leave "
                "it out, and give --threads N"
            )
        if part in ONE:
            raise UsageError(
                f"factors: {part} cannot be swept, as a sweep has one agent and one family; write a sweep for each "
                "and compare their best runs with metarl evaluate, or compare agents with metarl headroom --arms"
            )
        if part not in known and part not in ranges:
            require_readable(part, base)
            raise UsageError(f"unknown factor {part!r}{nearest(part, [*known, *ranges])}")
    where = f"factors: {name}"
    if len(names) == 1 and name in ranges:
        ends = ranges[name]
        if isinstance(value, Mapping):
            return _range_factor(name, ends, value, base, where)
        levels = _levels(value, PAIR, where)
        for low, high in levels.values:
            if not low < high and not (low == high and len(ends) == 1):
                raise UsageError(f"{where} has the empty range [{low:g}, {high:g}]; give low < high")
        return Factor(name, ends, {name: levels})
    for part in names:
        if part in ranges:
            raise UsageError(f"{where}: {part} is a range, which cannot share its value with another setting")
    kinds = {known[part] for part in names}
    if len(kinds) > 1:
        raise UsageError(f"{where}: these settings have different types, so they cannot share a value")
    return Factor(name, tuple(names), {name: _dimension(value, kinds.pop(), where)})


def _ranges(base: RunConfig, known: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the settings that are a range, or are the two ends of one, by the name of the range."""
    ranges: dict[str, tuple[str, ...]] = {
        key: (key,) for key, kind in known.items() if key.startswith("family.") and kind == PAIR
    }
    for key in known:
        stem = key.removesuffix(LOW)
        if stem != key and stem + HIGH in known and known[key] is float:
            ranges[stem] = (key, stem + HIGH)
    return ranges


def _range_factor(name: str, ends: tuple[str, ...], value: Mapping[str, Any], base: RunConfig, where: str) -> Factor:
    require_known(value, ("center", "width"), f"{where}.")
    if not value:
        raise UsageError(f"{where} is empty; give `center:`, `width:` or both")
    own = [_own(end, base) for end in ends]
    ends_of_base = own if len(own) == 2 else own[0]
    if len(ends_of_base) != 2:
        raise UsageError(f"{where}: the base's range is {shown(list(ends_of_base))}; it must be two numbers")
    low, high = ends_of_base
    dimensions = {}
    for part, given in value.items():
        levels = [given] if isinstance(given, int | float) and not isinstance(given, bool) else given
        dimensions[f"{name}.{part}"] = _dimension(levels, float, f"{where}.{part}")
    _require_few(math.prod(len(d.values) for d in dimensions.values() if isinstance(d, Levels)), where)
    width = dimensions.get(f"{name}.width", Levels((high - low,)))
    if min(width.extremes()) <= 0:
        raise UsageError(f"{where} has the empty width {min(width.extremes()):g}; it must be greater than 0")
    return Factor(name, ends, dimensions, (low + high) / 2, high - low)


def require_readable(name: str, base: RunConfig) -> None:
    """Raise UsageError if a range of a robot's file is unknown because the file cannot be read."""
    if is_entry(name) and isinstance(base.family, RobotSettings):
        with usage_errors("family"):
            ranges_of(base.family)


def _own(name: str, base: RunConfig) -> Any:
    """Return the base's value of a setting of the family; of a range of your own robot, the file's if it has none."""
    _, setting, entry = named(name)
    own = base.family
    return ranges_of(own)[entry].values if entry and isinstance(own, RobotSettings) else getattr(own, setting)


def _dimension(value: Any, kind: Any, where: str) -> Dimension:
    if not isinstance(value, Mapping):
        return _levels(value, kind, where)
    require_known(value, LIMITS, f"{where}.")
    if kind not in (int, float):
        raise UsageError(f"{where} is not a number, so it has no low and high; list its levels")
    for key in ("low", "high"):
        if key not in value:
            raise UsageError(f"{where} has no {key}; give low and high, or a list of levels")
    low, high = (coerce(value[key], kind, f"{where}.{key}") for key in ("low", "high"))
    log = coerce(value.get("log", False), bool, f"{where}.log")
    if not low < high:
        raise UsageError(f"{where} has the empty range [{low:g}, {high:g}]; give low < high")
    if log and low <= 0:
        raise UsageError(f"{where}.low is {low:g}; a range in the logarithm must be greater than 0")
    if "levels" not in value:
        return NumberRange(low, high, log, kind is int)
    count = coerce(value["levels"], int, f"{where}.levels")
    if count < 2:
        raise UsageError(f"{where}.levels is {count}; it must be at least 2")
    _require_few(count, where)
    shares = [i / (count - 1) for i in range(count)]
    spaced = [low * (high / low) ** u if log else low + u * (high - low) for u in shares]
    spaced[0], spaced[-1] = low, high
    return Levels(tuple(dict.fromkeys(round(v) if kind is int else float(f"{v:.12g}") for v in spaced)))


def _levels(value: Any, kind: Any, where: str) -> Levels:
    if not isinstance(value, list):
        raise UsageError(f"{where} is {value!r}; list its levels, or give low and high")
    if not value:
        raise UsageError(f"{where} has no levels; list at least one")
    _require_few(len(value), where)
    levels = tuple(coerce(entry, kind, f"{where}[{i}]") for i, entry in enumerate(value))
    for i, entry in enumerate(levels):
        if entry in levels[:i]:
            raise UsageError(f"{where} has the level {label(entry)} twice")
    return Levels(levels)


def _require_few(count: int, where: str) -> None:
    if count > MOST_LEVELS:
        raise UsageError(f"{where} has {count} levels; it must have at most {MOST_LEVELS}")


def require_known(data: Mapping[Any, Any], known: Iterable[str], where: str) -> None:
    """Raise UsageError if a key is not known. where: prefix of the keys in the message."""
    for key in data:
        if key not in known:
            raise UsageError(f"unknown key '{where}{key}'{nearest(str(key), known)}")
