"""The file of a sweep: base configuration, what varies, how it is searched and judged. Read strictly.

Nothing here imports torch, MuJoCo or Optuna.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from metarl.bounds import names_without_effect
from metarl.config import (
    RunConfig,
    config_from_dict,
    config_to_dict,
    files_of,
    load_config,
    map_files,
    options,
    preset,
    read_settings,
    read_yaml,
)
from metarl.errors import UsageError, nearest
from metarl.options import coerce, require_mapping
from metarl.runs.entries import content

KEYS = ("base", "factors", "method", "trials", "seed", "objective", "pruner", "report")
BASE_KEYS = ("agent", "family", "config")
SWEPT = ("agent.", "family.", "training.", "evaluation.adaptations", "evaluation.envs_per_task")
"""Settings that can be swept. The others of the evaluation are the yardstick, the same for every trial."""
METHODS = ("grid", "random", "tpe")
LIMITS = ("low", "high", "log", "levels")
LOW, HIGH = "_low", "_high"
"""Ends of names of two settings that are a range together: `velocity_low` and `velocity_high` are `velocity`."""
PAIR = tuple[float, float]


@dataclass(frozen=True)
class Levels:
    """A dimension of finitely many values."""

    values: tuple[Any, ...]

    @property
    def labels(self) -> tuple[Any, ...]:
        """What Optuna's journal keeps for each value: the value, or a list as JSON."""
        return tuple(label(value) for value in self.values)

    def extremes(self) -> tuple[Any, ...]:
        """Values between which all others lie, as far as they have an order."""
        return self.values


@dataclass(frozen=True)
class Interval:
    """A dimension of all numbers from low to high."""

    low: float
    high: float
    log: bool
    """Whether it is searched evenly in the logarithm."""
    whole: bool
    """Whether whole numbers are meant."""

    def extremes(self) -> tuple[Any, ...]:
        return (self.low, self.high)


Dimension = Levels | Interval


def label(value: Any) -> Any:
    """A value as plain text or number."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Factor:
    """What varies: settings that take one value together, or the centre and the width of a range."""

    name: str
    settings: tuple[str, ...]
    """Dotted names; of a range whose ends are two settings, the two."""
    dimensions: Mapping[str, Dimension]
    """By name: the factor's own, or with `.center` and `.width` behind it."""
    center: float = math.nan
    """Of a range: where it stays if its centre does not vary."""
    width: float = math.nan
    """Of a range: what it keeps if its width does not vary."""

    def values(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Each setting's value at a point of the search."""
        if math.isnan(self.center):
            value = point[self.name]
            ends = isinstance(value, tuple) and len(self.settings) == 2 and self.settings[0].endswith(LOW)
            return dict(zip(self.settings, value if ends else itertools.repeat(value), strict=False))
        center = point.get(f"{self.name}.center", self.center)
        width = point.get(f"{self.name}.width", self.width)
        low, high = center - width / 2, center + width / 2
        if len(self.settings) == 2:
            return dict(zip(self.settings, (low, high), strict=True))
        return {self.settings[0]: (low, high)}


@dataclass(frozen=True)
class ObjectiveSettings:
    """What a trial is judged by; on how many tasks, episodes and adaptations, the base's `evaluation` says."""

    measure: Literal["return", "gain"] = "return"
    """Mean over tasks of the return after the last adaptation, or of what it is above the return before the first."""
    tasks: Literal["auto", "wide", "held_out", "ood", "train"] = "auto"
    """wide: the same tasks for all trials, over all their training ranges or `ranges`; otherwise tasks of a split of
    each trial's own family. auto: wide if training ranges vary or `ranges` are given, else held_out."""


@dataclass(frozen=True)
class PrunerSettings:
    """When a trial that does badly is ended early."""

    name: Literal["none", "median", "successive_halving"] = "none"
    """median: worse than the median of the others at the same iteration; successive_halving: not among the best
    1 / reduction at iterations that grow by that factor."""
    every: int = 0
    """Iterations between two looks. 0: a tenth of the run."""
    by: Literal["objective", "training"] = "objective"
    """What is looked at: the objective, which costs an evaluation; or the same measure on the iteration's training
    tasks, which costs nothing and compares only trials that train on the same tasks."""
    warmup: int = 0
    """Iterations before which no trial is ended."""
    startup_trials: int = 4
    """median: finished trials before any is ended."""
    reduction: int = 3
    """successive_halving: one in so many goes on."""


@dataclass(frozen=True)
class ReportSettings:
    """What is drawn in the end. May change at any time."""

    parameters: tuple[str, ...] = ()
    """One or two task parameters of the heat map. Empty: those whose training ranges vary, then the first."""
    grid: int = 11
    """Values of each of the two."""
    maps: Literal["best", "all"] = "best"
    """Trials that get a heat map over two parameters."""


@dataclass(frozen=True)
class Sweep:
    """A sweep as its file describes it."""

    path: Path
    base: RunConfig
    factors: tuple[Factor, ...]
    method: Literal["grid", "random", "tpe"]
    trials: int
    """Trials in all."""
    seed: int = 1
    """Of random and of tpe."""
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Task parameters' ranges that trials are judged on, where the file gives them."""
    pruner: PrunerSettings = field(default_factory=PrunerSettings)
    report: ReportSettings = field(default_factory=ReportSettings)

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """Every dimension of the search by name."""
        return {name: dimension for factor in self.factors for name, dimension in factor.dimensions.items()}

    def grid(self) -> Iterator[dict[str, Any]]:
        """All points of the grid, in order: the last dimension changes fastest."""
        names = list(self.dimensions)
        levels = [d.values for d in self.dimensions.values() if isinstance(d, Levels)]
        return (dict(zip(names, values, strict=True)) for values in itertools.product(*levels))

    def point(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The values that Optuna's parameters, labels among them, stand for; UsageError for one that is none."""
        point = {}
        for name, value in params.items():
            if name not in self.dimensions:
                raise UsageError(f"unknown factor {name!r}{nearest(name, self.dimensions)}")
            dimension = self.dimensions[name]
            if isinstance(dimension, Levels):
                labels = dimension.labels
                if label(value) not in labels:
                    raise UsageError(f"{name} is {value!r}; its levels are {', '.join(map(str, labels))}")
                point[name] = dimension.values[labels.index(label(value))]
            else:
                point[name] = coerce(value, int if dimension.whole else float, name)
        for name in self.dimensions:
            if name not in point:
                raise UsageError(f"{name} has no value; give one to each of {', '.join(self.dimensions)}")
        return point

    def config(self, point: Mapping[str, Any]) -> RunConfig:
        """The configuration of a trial; UsageError for values that cannot be."""
        return self.replaced({k: v for factor in self.factors for k, v in factor.values(point).items()})

    def replaced(self, settings: Mapping[str, Any]) -> RunConfig:
        """The base with other values of some settings, by dotted name."""
        return replaced(self.base, settings)

    def fingerprint(self) -> dict[str, Any]:
        """All that decides what the trials are, as plain types: two sweeps that differ in it cannot share a journal."""
        return {
            "base": essentials(self.base),
            "files": {name: content(file) for name, file in files_of(self.base).items()},
            "method": self.method,
            "seed": self.seed,
            "objective": {**vars(self.objective), "ranges": {k: list(v) for k, v in self.ranges.items()}},
            "pruner": dict(vars(self.pruner)),
            "factors": {name: _plain(dimension) for name, dimension in self.dimensions.items()},
        }


def essentials(config: RunConfig) -> dict[str, Any]:
    """Return a configuration as plain types, without the settings that change no result."""
    data = config_to_dict(config)
    for section, settings in data.items():
        for name in names_without_effect(type(getattr(config, section))):
            del settings[name]
    return {section: settings for section, settings in data.items() if settings}


def replaced(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """A configuration with other values of some settings, by dotted name, checked as a file is."""
    data = config_to_dict(config)
    for name, value in settings.items():
        section, setting = name.split(".")
        data[section][setting] = value
    return config_from_dict(data)


def load_sweep(path: Path, trials: int | None = None) -> Sweep:
    """Read the file of a sweep; UsageError for anything unknown, mistyped or empty. trials: instead of the file's."""
    data = read_yaml(path, "sweep file", "give a YAML file with `base:` and `factors:`")
    try:
        return _read(path, data, trials)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _read(path: Path, data: Any, trials: int | None) -> Sweep:
    require_mapping(data, "the sweep")
    _require_known(data, KEYS, "")
    if "factors" not in data:
        raise UsageError("nothing varies; add `factors:` with settings and their levels")
    base = _base(path, data.get("base", {}))
    method = data.get("method", "grid")
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}{nearest(str(method), METHODS)}")
    factors = _factors(data["factors"], base)
    objective, ranges = _objective(data.get("objective", {}))
    pruner = _settings(PrunerSettings, data, "pruner", {"every": 0, "warmup": 0, "startup_trials": 0, "reduction": 2})
    report = _settings(ReportSettings, data, "report", {"grid": 2})
    if len(set(report.parameters)) != len(report.parameters) or len(report.parameters) > 2:
        raise UsageError(f"report.parameters is {list(report.parameters)}; name one or two task parameters")
    seed = coerce(data.get("seed", 1), int, "seed")
    if seed < 0:
        raise UsageError(f"seed is {seed}; it must be at least 0")
    sweep = Sweep(path, base, factors, method, 0, seed, objective, ranges, pruner, report)
    own = coerce(data["trials"], int, "trials") if "trials" in data else None
    total = _total(sweep, own if trials is None else trials)
    swept = [name for factor in factors for name in factor.settings]
    tasks_vary = [name for name in swept if name.startswith("family.") or name == "training.adaptations"]
    if pruner.name != "none" and pruner.by == "training" and tasks_vary:
        raise UsageError(f"pruner.by is training, but {tasks_vary[0]} varies what is trained on; set it to objective")
    return Sweep(path, base, factors, method, total, seed, objective, ranges, pruner, report)


def _total(sweep: Sweep, trials: int | None) -> int:
    """Trials in all; UsageError if the method cannot say how many."""
    if trials is not None and trials < 1:
        raise UsageError(f"trials is {trials}; it must be at least 1")
    if sweep.method != "grid":
        if trials is None:
            raise UsageError(f"method {sweep.method} never ends by itself; say how many `trials:`, or give --trials N")
        return trials
    for name, dimension in sweep.dimensions.items():
        if isinstance(dimension, Interval):
            raise UsageError(
                f"factors: {name} is a range, and a grid needs levels: add `levels: N` to it, list values, "
                "or choose method random or tpe"
            )
    size = math.prod(len(d.values) for d in sweep.dimensions.values() if isinstance(d, Levels))
    return size if trials is None else min(trials, size)


def _base(path: Path, data: Any) -> RunConfig:
    require_mapping(data, "base")
    plain = {key: value for key, value in data.items() if "." not in str(key)}
    for key, value in plain.items():
        if key not in BASE_KEYS:
            raise UsageError(
                f"unknown key 'base.{key}'{nearest(str(key), BASE_KEYS)}, or a dotted setting: training.iterations"
            )
        coerce(value, str, f"base.{key}")
    if "config" in plain and len(plain) > 1:
        raise UsageError("base.config already says agent and family; leave them out")
    config = load_config(path.parent / plain["config"]) if "config" in plain else preset(**plain)
    overrides = {key: value for key, value in data.items() if key not in plain}
    known = options(config)
    for key in overrides:
        if key not in known:
            raise UsageError(f"unknown setting 'base: {key}'{nearest(key, known)}")
    return map_files(replaced(config, overrides), os.path.abspath)


def _factors(data: Any, base: RunConfig) -> tuple[Factor, ...]:
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
    known = {key: kind for key, kind in options(base).items() if key.startswith(SWEPT)}
    ranges = _ranges(base, known)
    names = [part.strip() for part in name.split(",")]
    for part in names:
        if part in options(base) and part not in known:
            raise UsageError(f"factors: {part} cannot be swept; {', '.join(s.rstrip('.') for s in SWEPT)} can")
        if part not in known and part not in ranges:
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
            raise UsageError(f"{where}: {part} is a range, which cannot be set together with another")
    kinds = {known[part] for part in names}
    if len(kinds) > 1:
        raise UsageError(f"{where}: these are of different types, and cannot have one value")
    return Factor(name, tuple(names), {name: _dimension(value, kinds.pop(), where)})


def _ranges(base: RunConfig, known: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Settings that are a range, or its two ends, by the range's name."""
    ranges: dict[str, tuple[str, ...]] = {
        key: (key,) for key, kind in known.items() if key.startswith("family.") and kind == PAIR
    }
    for key in known:
        stem = key.removesuffix(LOW)
        if stem != key and stem + HIGH in known and known[key] is float:
            ranges[stem] = (key, stem + HIGH)
    return ranges


def _range_factor(name: str, ends: tuple[str, ...], value: Mapping[str, Any], base: RunConfig, where: str) -> Factor:
    _require_known(value, ("center", "width"), f"{where}.")
    if not value:
        raise UsageError(f"{where} is empty; give `center:`, `width:` or both")
    settings = config_to_dict(base)["family"]
    own = [settings[end.split(".")[1]] for end in ends]
    low, high = own if len(own) == 2 else own[0]
    dimensions = {}
    for part, given in value.items():
        levels = [given] if isinstance(given, int | float) and not isinstance(given, bool) else given
        dimensions[f"{name}.{part}"] = _dimension(levels, float, f"{where}.{part}")
    width = dimensions.get(f"{name}.width", Levels((high - low,)))
    if min(width.extremes()) <= 0:
        raise UsageError(f"{where} has the empty width {min(width.extremes()):g}; it must be greater than 0")
    return Factor(name, ends, dimensions, (low + high) / 2, high - low)


def _dimension(value: Any, kind: Any, where: str) -> Dimension:
    if not isinstance(value, Mapping):
        return _levels(value, kind, where)
    _require_known(value, LIMITS, f"{where}.")
    if kind not in (int, float):
        raise UsageError(f"{where} is no number, so it has no low and high; list its levels")
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
        return Interval(low, high, log, kind is int)
    count = coerce(value["levels"], int, f"{where}.levels")
    if count < 2:
        raise UsageError(f"{where}.levels is {count}; it must be at least 2")
    shares = [i / (count - 1) for i in range(count)]
    spaced = [low * (high / low) ** u if log else low + u * (high - low) for u in shares]
    spaced[0], spaced[-1] = low, high
    return Levels(tuple(dict.fromkeys(round(v) if kind is int else float(f"{v:.12g}") for v in spaced)))


def _levels(value: Any, kind: Any, where: str) -> Levels:
    if not isinstance(value, list):
        raise UsageError(f"{where} is {value!r}; list its levels, or give low and high")
    if not value:
        raise UsageError(f"{where} has no levels; list at least one")
    levels = tuple(coerce(entry, kind, f"{where}[{i}]") for i, entry in enumerate(value))
    for i, entry in enumerate(levels):
        if entry in levels[:i]:
            raise UsageError(f"{where} has the level {label(entry)} twice")
    return Levels(levels)


def _objective(data: Any) -> tuple[ObjectiveSettings, dict[str, tuple[float, float]]]:
    require_mapping(data, "objective")
    _require_known(data, (*typing.get_type_hints(ObjectiveSettings), "ranges"), "objective.")
    objective = read_settings(ObjectiveSettings, {k: v for k, v in data.items() if k != "ranges"}, "objective")
    given = data.get("ranges", {})
    require_mapping(given, "objective.ranges")
    if given and objective.tasks not in ("auto", "wide"):
        raise UsageError(f"objective.ranges are of tasks: wide, but objective.tasks is {objective.tasks}")
    ranges = {str(k): coerce(v, PAIR, f"objective.ranges.{k}") for k, v in given.items()}
    for name, (low, high) in ranges.items():
        if not low < high:
            raise UsageError(f"objective.ranges.{name} is the empty range [{low:g}, {high:g}]; give low < high")
    return objective, ranges


def _settings(cls: type, data: Mapping[str, Any], section: str, minima: Mapping[str, int]) -> Any:
    given = data.get(section, {})
    require_mapping(given, section)
    settings = read_settings(cls, given, section)
    for name, minimum in minima.items():
        if getattr(settings, name) < minimum:
            raise UsageError(f"{section}.{name} is {getattr(settings, name)}; it must be at least {minimum}")
    return settings


def _require_known(data: Mapping[Any, Any], known: tuple[str, ...], where: str) -> None:
    for key in data:
        if key not in known:
            raise UsageError(f"unknown key '{where}{key}'{nearest(str(key), known)}")


def _plain(dimension: Dimension) -> Any:
    if isinstance(dimension, Levels):
        return [list(v) if isinstance(v, tuple) else v for v in dimension.values]
    return dict(vars(dimension))
