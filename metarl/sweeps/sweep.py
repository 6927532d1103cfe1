"""A sweep as its file describes it: the base configuration, what varies, how it is searched and how it is judged.

Nothing here imports torch, MuJoCo or Optuna.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from metarl.bounds import bounded, names_without_effect
from metarl.config import RunConfig, config_from_dict, config_to_dict, file_settings, files_of, map_files, named
from metarl.errors import UsageError, nearest
from metarl.options import coerce
from metarl.runs.entries import content
from metarl.sweeps.dimensions import Dimension, Factor, Levels


@dataclass(frozen=True)
class ObjectiveSettings:
    """How variants are judged. The base's `evaluation` sets the numbers of tasks, episodes and adaptations."""

    measure: Literal["return", "gain"] = "return"
    """Mean over tasks of the return after the last adaptation, or of its gain over the return before the first."""
    tasks: Literal["auto", "wide", "held_out", "ood", "train"] = "auto"
    """wide: the same tasks for all variants, over all their training ranges or `ranges`; otherwise tasks of a split of
    each variant's own family. auto: wide if training ranges vary or `ranges` are given, else held_out."""


@dataclass(frozen=True)
class PrunerSettings:
    """When a poor variant is ended early."""

    name: Literal["none", "median", "successive_halving"] = "none"
    """median: worse than the median of the others at the same iteration; successive_halving: not among the best
    1 / reduction at iterations that grow by that factor."""
    every: int = bounded(0, at_least=0)
    """Iterations between two checks. 0: a tenth of the run."""
    by: Literal["objective", "training"] = "objective"
    """The number that is compared: the objective, which costs an evaluation; or the same measure on the iteration's
    training tasks, which costs nothing but compares only variants that train on the same tasks."""
    warmup: int = bounded(0, at_least=0)
    """Iterations before which no variant is ended."""
    startup_trials: int = bounded(4, at_least=0)
    """median: finished variants before any is ended."""
    reduction: int = bounded(3, at_least=2)
    """successive_halving: one in `reduction` variants continues."""


@dataclass(frozen=True)
class ReportSettings:
    """Figures that are drawn when the sweep has ended. May change at any time."""

    parameters: tuple[str, ...] = ()
    """One or two task parameters of the heat map. Empty: those whose training ranges vary, then the first."""
    grid: int = bounded(11, at_least=2, at_most=200)
    """Values of each of the two."""
    maps: Literal["best", "all"] = "best"
    """Variants that get a heat map over two parameters."""


@dataclass(frozen=True)
class Sweep:
    """A sweep as its file describes it."""

    path: Path
    base: RunConfig
    factors: tuple[Factor, ...]
    method: Literal["grid", "random", "tpe"]
    trials: int
    """Number of variants."""
    seed: int = 1
    """Seed of the methods random and tpe."""
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Ranges of task parameters that variants are judged on, where the file gives them."""
    pruner: PrunerSettings = field(default_factory=PrunerSettings)
    report: ReportSettings = field(default_factory=ReportSettings)

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """Every dimension of the search by name."""
        return {name: dimension for factor in self.factors for name, dimension in factor.dimensions.items()}

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yield all points of the grid; the last dimension changes fastest."""
        names = list(self.dimensions)
        levels = [d.values for d in self.dimensions.values() if isinstance(d, Levels)]
        return (dict(zip(names, values, strict=True)) for values in itertools.product(*levels))

    def point(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the point that Optuna's parameters, labels among them, stand for; UsageError if there is none."""
        point = {}
        for name, value in params.items():
            if name not in self.dimensions:
                raise UsageError(f"unknown factor {name!r}{nearest(name, self.dimensions)}")
            dimension = self.dimensions[name]
            if isinstance(dimension, Levels):
                if (level := dimension.level(value)) is None:
                    raise UsageError(f"{name} is {value!r}; its levels are {', '.join(map(str, dimension.labels))}")
                point[name] = level
            else:
                point[name] = coerce(value, int if dimension.whole else float, name)
        for name in self.dimensions:
            if name not in point:
                raise UsageError(f"{name} has no value; give one to each of {', '.join(self.dimensions)}")
        return point

    def config(self, point: Mapping[str, Any]) -> RunConfig:
        """Return the configuration of the variant at a point; UsageError for invalid values."""
        return self.replaced({k: v for factor in self.factors for k, v in factor.values(point).items()})

    def replaced(self, settings: Mapping[str, Any]) -> RunConfig:
        """Return the base with other values of some settings, by dotted name; files by their absolute paths."""
        return absolute(replaced(self.base, settings), self.path)

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that decides the results, as plain types; sweeps that differ in it share no journal."""
        from metarl.runs.parts import parts_by_content

        files = self._files()
        return {
            "base": essentials(self.base),
            "files": {name: content(file) for name, file in files.items()},
            "parts": parts_by_content(files),
            "method": self.method,
            "seed": self.seed,
            "objective": {**vars(self.objective), "ranges": {k: list(v) for k, v in self.ranges.items()}},
            "pruner": dict(vars(self.pruner)),
            "factors": {name: dimension.plain() for name, dimension in self.dimensions.items()},
        }

    def _files(self) -> dict[str, str]:
        """Return the paths of the base's files, by setting, and of those that are levels, by factor and level."""
        files = files_of(self.base)
        for setting, levels in file_levels(self.factors, self.base).items():
            for level in levels:
                files[f"{setting}={level}"] = files_of(self.replaced({f"family.{setting}": level}))[setting]
        return files


def file_levels(factors: Sequence[Factor], base: RunConfig) -> dict[str, tuple[str, ...]]:
    """Return the levels of each setting of the family that is a file and that some factor varies."""
    files = {f"family.{name}": name for name in file_settings(base.family)}
    return {
        files[setting]: dimension.values
        for factor in factors
        for setting in factor.settings
        for dimension in factor.dimensions.values()
        if setting in files and isinstance(dimension, Levels)
    }


def absolute(config: RunConfig, sweep: Path) -> RunConfig:
    """Return a configuration whose files have absolute paths; relative ones are relative to the sweep file's folder."""
    return map_files(config, lambda file: os.path.abspath(sweep.parent / file))


def essentials(config: RunConfig) -> dict[str, Any]:
    """Return a configuration as plain types, without settings that change results by rounding at most.

    Files have their names alone: they may lie elsewhere, and the fingerprint has what they hold.
    """
    data = config_to_dict(map_files(config, lambda file: Path(file).name))
    for section, settings in data.items():
        for name in names_without_effect(type(getattr(config, section))):
            del settings[name]
    return {section: settings for section, settings in data.items() if settings}


def replaced(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """Return a configuration with other values of some settings, by dotted name, checked as a file is."""
    data = config_to_dict(config)
    for name, value in settings.items():
        section, setting, entry = named(name)
        place = data[section][setting] if entry else data[section]
        place[entry or setting] = value
    return config_from_dict(data)
