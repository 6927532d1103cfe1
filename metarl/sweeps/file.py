"""Read the file of a sweep strictly.

Nothing here imports torch, MuJoCo or Optuna.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarl.bounds import check
from metarl.config import (
    PAIR,
    RunConfig,
    changed_faults,
    file_settings,
    files_of,
    load_config,
    options,
    preset,
    read_settings,
    read_yaml,
    require_faults,
)
from metarl.errors import UsageError, nearest, usage_errors
from metarl.options import coerce, require_mapping
from metarl.sweeps.dimensions import Levels, NumberRange
from metarl.sweeps.factors import read_factors, require_known, require_readable
from metarl.sweeps.sweep import (
    ObjectiveSettings,
    PrunerSettings,
    ReportSettings,
    Sweep,
    absolute,
    file_levels,
    replaced,
)

KEYS = ("base", "factors", "method", "trials", "seed", "objective", "pruner", "report")
BASE_KEYS = ("agent", "family", "config")
METHODS = ("grid", "random", "tpe")
TRAINING_TASKS = tuple(
    f"training.{name}" for name in ("adaptations", "distinct_tasks", "curriculum", "lives", "also_split", "mirror")
)
"""Settings of training that decide which tasks, and how much of each, a training return is of."""


def load_sweep(path: Path, trials: int | None = None) -> Sweep:
    """Read the file of a sweep; UsageError for anything unknown, mistyped or empty. trials: replaces the file's."""
    data = read_yaml(path, "sweep file", "give a YAML file with `base:` and `factors:`")
    try:
        return _read(path, data, trials)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _read(path: Path, data: Any, trials: int | None) -> Sweep:
    require_mapping(data, "the sweep")
    require_known(data, KEYS, "")
    if "factors" not in data:
        raise UsageError("nothing varies; add `factors:` with settings and their levels")
    base = _base(path, data.get("base", {}), data["factors"])
    method = data.get("method", "grid")
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}{nearest(str(method), METHODS)}")
    factors = read_factors(data["factors"], base)
    objective, ranges = _objective(data.get("objective", {}))
    pruner = _settings(PrunerSettings, data, "pruner")
    report = _settings(ReportSettings, data, "report")
    if len(set(report.parameters)) != len(report.parameters) or len(report.parameters) > 2:
        raise UsageError(f"report.parameters is {list(report.parameters)}; name one or two task parameters")
    seed = coerce(data.get("seed", 1), int, "seed")
    if seed < 0:
        raise UsageError(f"seed is {seed}; it must be at least 0")
    sweep = Sweep(path, base, factors, method, 0, seed, objective, ranges, pruner, report)
    own = coerce(data["trials"], int, "trials") if "trials" in data else None
    total = _total(sweep, own if trials is None else trials)
    swept = [name for factor in factors for name in factor.settings]
    if "family.faults" not in swept:
        require_faults([*changed_faults(base.family), *swept], base.family)
    tasks_vary = [name for name in swept if name.startswith("family.") or name in TRAINING_TASKS]
    if pruner.name != "none" and pruner.by == "training" and tasks_vary:
        raise UsageError(f"pruner.by is training, but {tasks_vary[0]} varies the training tasks; set it to objective")
    return Sweep(path, base, factors, method, total, seed, objective, ranges, pruner, report)


def _total(sweep: Sweep, trials: int | None) -> int:
    """Return the number of variants; UsageError if neither the method nor the file limits it."""
    if trials is not None and trials < 1:
        raise UsageError(f"trials is {trials}; it must be at least 1")
    if sweep.method != "grid":
        if trials is None:
            raise UsageError(
                f"method {sweep.method} never ends by itself; add `trials: N` to the file, or give --trials N"
            )
        return trials
    for name, dimension in sweep.dimensions.items():
        if isinstance(dimension, NumberRange):
            raise UsageError(
                f"factors: {name} is a range, and a grid needs levels: add `levels: N` to it, list values, "
                "or choose method random or tpe"
            )
    size = math.prod(len(d.values) for d in sweep.dimensions.values() if isinstance(d, Levels))
    return size if trials is None else min(trials, size)


def _base(path: Path, data: Any, factors: Any) -> RunConfig:
    """Return the base; of a file that is a factor and that it does not name, it has the first level."""
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
    files = {f"family.{name}" for name in file_settings(config.family)} & overrides.keys()
    config = absolute(replaced(config, {key: overrides[key] for key in files}), path)
    config = _with_files(config, factors, path)
    known = options(config)
    for key in overrides:
        if key not in known:
            require_readable(key, config)
            raise UsageError(f"unknown setting 'base: {key}'{nearest(key, known)}")
    return absolute(replaced(config, overrides), path)


def _with_files(base: RunConfig, factors: Any, path: Path) -> RunConfig:
    """Return the base with the first level of each factor that is a file which the base does not name."""
    settings, named = {f"family.{name}" for name in file_settings(base.family)}, files_of(base)
    require_mapping(factors, "factors")
    varied = {
        name: value for name, value in factors.items() if {part.strip() for part in str(name).split(",")} & settings
    }
    if not varied:
        return base
    levels = file_levels(read_factors(varied, base), base)
    missing = {f"family.{name}": own[0] for name, own in levels.items() if name not in named}
    return absolute(replaced(base, missing), path) if missing else base


def _objective(data: Any) -> tuple[ObjectiveSettings, dict[str, tuple[float, float]]]:
    require_mapping(data, "objective")
    require_known(data, (*typing.get_type_hints(ObjectiveSettings), "ranges"), "objective.")
    objective = read_settings(ObjectiveSettings, {k: v for k, v in data.items() if k != "ranges"}, "objective")
    given = data.get("ranges", {})
    require_mapping(given, "objective.ranges")
    if given and objective.tasks not in ("auto", "wide"):
        raise UsageError(f"objective.ranges apply to tasks: wide, but objective.tasks is {objective.tasks}")
    ranges = {str(k): coerce(v, PAIR, f"objective.ranges.{k}") for k, v in given.items()}
    for name, (low, high) in ranges.items():
        if not low < high:
            raise UsageError(f"objective.ranges.{name} is the empty range [{low:g}, {high:g}]; give low < high")
    return objective, ranges


def _settings(cls: type, data: Mapping[str, Any], section: str) -> Any:
    given = data.get(section, {})
    require_mapping(given, section)
    settings = read_settings(cls, given, section)
    with usage_errors(section):
        check(settings, section)
    return settings
