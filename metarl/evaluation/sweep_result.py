"""The result of a sweep as data: its variants, effects of the factors, generalisation, returns over tasks.

A sweep trains many variants of one configuration. In Optuna's journal, and so in the names of files and of JSON keys,
each variant is a trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from metarl.evaluation.statistics import Array, Interval
from metarl.files import plain

Returns = tuple[float | None, ...]
"""One return a task; None where every simulation of the task broke down."""
T = TypeVar("T", bound="TaskReturns")


def folder_name(number: int) -> str:
    """Return the name of a variant's run folder."""
    return f"trial_{number:04d}"


@dataclass(frozen=True)
class Variant:
    """One configuration of a sweep, and how far it got."""

    number: int
    """Number of its trial in Optuna's journal."""
    state: str
    """complete, pruned, failed or running."""
    params: dict[str, Any]
    """Value of each dimension of the search; a list is a tuple."""
    objective: float | None
    """The number that is maximised; None unless the variant is complete."""
    attributes: dict[str, Any]
    """`return`, `before`, `gain`, their intervals, `iteration`, `env_steps`, `seconds`, `ranges`, `error`."""

    @property
    def complete(self) -> bool:
        """Whether the variant was trained and judged to its end."""
        return self.state == "complete"

    @property
    def name(self) -> str:
        """Name of its run folder."""
        return folder_name(self.number)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Variant:
        """Return the variant that `asdict` and JSON described."""
        params = {name: _tuples(value) for name, value in data["params"].items()}
        return cls(data["number"], data["state"], params, data["objective"], dict(data["attributes"]))


@dataclass(frozen=True)
class Level:
    """The variants at one level of a factor, or in one bin of a number range."""

    name: str
    trials: int
    """Number of variants."""
    iqm: Interval | None
    """Interquartile mean of the objective over variants; None for fewer than two, which have no interval."""
    value: float
    """The interquartile mean alone."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Level:
        """Return the level that `asdict` and JSON described."""
        return cls(data["name"], data["trials"], _interval(data["iqm"]), data["value"])


@dataclass(frozen=True)
class Effect:
    """The main effect of a factor on the objective."""

    name: str
    levels: tuple[Level, ...]
    spearman: Interval | None
    """Rank correlation of the factor with the objective over variants; None where its values have no order, or where
    there are too few of them."""
    importance: float | None
    """Share of the variation of the objective among the better variants (PED-ANOVA); None for too few variants."""
    others_out: bool | None
    """Whether the levels are adjusted for the other factors, as in a full grid; None if there are no others."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Effect:
        """Return the effect that `asdict` and JSON described."""
        levels = tuple(map(Level.from_dict, data["levels"]))
        return cls(data["name"], levels, _interval(data["spearman"]), data["importance"], data["others_out"])


@dataclass(frozen=True)
class GeneralisationCurve:
    """Return against distance from the training range, for the variants of one group."""

    name: str
    distance: tuple[float, ...]
    """Mean distance of each bin; 0 is inside the range, negative is below it."""
    after: tuple[Interval, ...]
    """Mean return after the last adaptation, over the tasks and the variants."""
    gain: tuple[Interval, ...]
    """Mean gain, over the tasks and the variants."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GeneralisationCurve:
        """Return the curve that `asdict` and JSON described."""
        after, gain = (tuple(Interval(**i) for i in data[key]) for key in ("after", "gain"))
        return cls(data["name"], tuple(data["distance"]), after, gain)


@dataclass(frozen=True)
class TaskReturns:
    """Tasks, and the returns of one agent on them before the first and after the last adaptation."""

    tasks: tuple[Mapping[str, float], ...]
    before: Returns
    after: Returns

    @classmethod
    def of(cls: type[T], tasks: Sequence[Mapping[str, float]], before: ArrayLike, after: ArrayLike, **more: Any) -> T:
        """Return the returns [n] on n tasks; NaN becomes None."""
        values = tuple(dict(task) for task in tasks)
        returns = [tuple(plain(np.asarray(column, dtype=float))) for column in (before, after)]
        return cls(values, *returns, **more)

    @property
    def arrays(self) -> tuple[Array, Array]:
        """Returns before and after, [n] each; None is NaN."""
        return np.array(self.before, dtype=float), np.array(self.after, dtype=float)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON."""
        return plain(asdict(self))

    @classmethod
    def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
        """Return the returns that `to_dict` described."""
        return cls(**{name: _tuples(value) for name, value in data.items()})


@dataclass(frozen=True)
class TaskMap(TaskReturns):
    """Returns of a variant on a grid of tasks over one or two task parameters."""

    trial: int
    """Number of the variant."""
    parameters: tuple[str, ...]
    grid: tuple[tuple[float, ...], ...]
    """Values of each parameter; the last parameter changes fastest from task to task."""
    ranges: Mapping[str, tuple[float, ...]]
    """Training range of each task parameter: its ends, or all values of a choice."""


@dataclass(frozen=True)
class TaskAxis:
    """A task parameter as an axis that is divided into cells."""

    parameter: str
    unit: str
    log: bool
    """Whether the cells are equally wide in the logarithm."""
    cells: tuple[float, ...]
    """Value of each cell: its middle, or one value of a choice."""
    borders: tuple[float, ...]
    """Border of the cells; for a choice -0.5, 0.5, 1.5, ..."""
    names: tuple[str, ...] = ()
    """Name of each cell of a choice; empty for a continuous parameter."""

    @property
    def label(self) -> str:
        """Name of the parameter in words, with its unit."""
        name = self.parameter.replace("_", " ")
        return name if self.unit == "1" else f"{name} ({self.unit})"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaskAxis:
        """Return the axis that `asdict` and JSON described."""
        return cls(**{name: _tuples(value) for name, value in data.items()})


@dataclass(frozen=True)
class SweepResult:
    """Everything that a sweep has found so far; numbers only."""

    name: str
    settings: dict[str, Any]
    """The sweep as plain types: base, files, parts, method, seed, objective, pruner, factors."""
    split: str
    """Tasks that variants are judged on: `wide` or a split."""
    ranges: dict[str, tuple[float, float]]
    """Ranges of the task parameters that `wide` tasks are drawn from."""
    best: int
    """Number of the best variant."""
    variants: tuple[Variant, ...]
    effects: tuple[Effect, ...]
    generalisation: tuple[GeneralisationCurve, ...]
    maps: tuple[TaskMap, ...]
    provenance: dict[str, Any]
    axes: tuple[TaskAxis, ...] = field(default=())
    """Axes of the maps; empty in results of versions that did not save them."""
    unshared: tuple[str, ...] = ()
    """Settings of the family that vary and are no training range: each variant is judged with its own."""

    @property
    def measure(self) -> str:
        """The objective: return or gain."""
        return self.settings["objective"]["measure"]

    @property
    def factors(self) -> dict[str, Any]:
        """Dimensions of the search: a list of levels, or low, high, log and whole of a number range."""
        return self.settings["factors"]

    @property
    def ended(self) -> tuple[Variant, ...]:
        """The variants that are complete."""
        return tuple(variant for variant in self.variants if variant.complete)

    @property
    def best_variant(self) -> Variant:
        """The best variant."""
        return next(variant for variant in self.variants if variant.number == self.best)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON."""
        best = self.best_variant
        return plain(
            {
                "sweep": self.name,
                **self.settings,
                "judged_on": {"split": self.split, "ranges": self.ranges, "unshared": self.unshared},
                "best": {"trial": best.number, "params": best.params, "objective": best.objective},
                "trials": [asdict(variant) for variant in self.variants],
                "effects": [asdict(effect) for effect in self.effects],
                "generalisation": [asdict(curve) for curve in self.generalisation],
                "axes": [asdict(axis) for axis in self.axes],
                "maps": [found.to_dict() for found in self.maps],
                "provenance": self.provenance,
            }
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SweepResult:
        """Return the result that `to_dict` described."""
        keys = ("base", "files", "parts", "method", "seed", "objective", "pruner", "factors")
        judged_on = data["judged_on"]
        return cls(
            name=data["sweep"],
            settings={key: data[key] for key in keys if key in data},
            split=judged_on["split"],
            ranges={name: _tuples(ends) for name, ends in judged_on["ranges"].items()},
            best=data["best"]["trial"],
            variants=tuple(map(Variant.from_dict, data["trials"])),
            effects=tuple(map(Effect.from_dict, data["effects"])),
            generalisation=tuple(map(GeneralisationCurve.from_dict, data["generalisation"])),
            maps=tuple(map(TaskMap.from_dict, data["maps"])),
            provenance=dict(data["provenance"]),
            axes=tuple(map(TaskAxis.from_dict, data.get("axes", ()))),
            unshared=tuple(judged_on.get("unshared", ())),
        )


def _interval(data: Mapping[str, float] | None) -> Interval | None:
    return None if data is None else Interval(**data)


def _tuples(value: Any) -> Any:
    """Return a value from JSON with its lists as tuples."""
    if isinstance(value, dict):
        return {name: _tuples(entry) for name, entry in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
