"""Task parameters as axes: training ranges, distances from them, and cells of a grid of tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from metarl.envs.family import TaskFamily
from metarl.envs.parameters import Choice, Distribution, LogUniform, Parameter
from metarl.evaluation.statistics import Array
from metarl.evaluation.sweep_result import TaskAxis


def training_ranges(family: TaskFamily) -> dict[str, list[float]]:
    """Return the lowest and the highest training value of each parameter, or all values of a choice."""
    return {
        p.name: list(p.distribution.values)
        if isinstance(p.distribution, Choice)
        else [p.distribution.low, p.distribution.high]
        for p in family.parameters
    }


def distances(
    values: Mapping[str, Array], ranges: Mapping[str, Sequence[float]], axes: Mapping[str, Distribution]
) -> Array:
    """Return the distance [n] of tasks from a training range: 0 inside, 1 for the width of the whole axis.

    d = sqrt(sum_p (max(low_p - v_p, v_p - high_p, 0) / w_p)^2),  w_p the width of the axis of p, in the logarithm where
    it is log-uniform. A value of a choice that was not trained on counts as 1. For a single continuous parameter the
    distance is negative below the range.
    """
    total = np.zeros(len(next(iter(values.values()))))
    for name, axis in axes.items():
        v = np.asarray(values[name], dtype=float)
        if isinstance(axis, Choice):
            total += ~np.isin(v, ranges[name])
            continue
        low, high, width = ranges[name][0], ranges[name][1], axis.high - axis.low
        if isinstance(axis, LogUniform):
            v, low, high, width = np.log(v), math.log(low), math.log(high), math.log(axis.high / axis.low)
        total += (np.maximum(np.maximum(low - v, v - high), 0.0) / width) ** 2
    distance = np.sqrt(total)
    [name, *others] = axes
    if others or isinstance(axes[name], Choice):
        return distance
    return np.where(np.asarray(values[name]) < ranges[name][0], -distance, distance)


def edges(axis: Distribution, count: int) -> list[float]:
    """Return the borders of `count` equal cells, in the logarithm for a log-uniform axis; for a choice around each."""
    if isinstance(axis, Choice):
        return [i - 0.5 for i in range(len(axis.values) + 1)]
    if isinstance(axis, LogUniform):
        return [float(v) for v in np.geomspace(axis.low, axis.high, count + 1)]
    return [float(v) for v in np.linspace(axis.low, axis.high, count + 1)]


def cells(axis: Distribution, count: int) -> list[float]:
    """Return the value in the middle of each cell of an axis; for a choice its values."""
    if isinstance(axis, Choice):
        return sorted(axis.values)
    borders = np.array(edges(axis, count))
    if isinstance(axis, LogUniform):
        return [float(v) for v in np.sqrt(borders[1:] * borders[:-1])]
    return [float(v) for v in (borders[1:] + borders[:-1]) / 2]


def centre(family: TaskFamily) -> dict[str, float]:
    """Return the middle of each continuous parameter's training range, and the neutral value of the others; with one of
    the family's faults, if it has any."""
    middle = {p.name: p.distribution.quantile(0.5) if p.continuous else p.neutral for p in family.parameters}
    return middle | dict(family.faults.typical() if family.faults else {})


def task_axis(parameter: Parameter, axis: Distribution, count: int) -> TaskAxis:
    """Return a parameter's axis with `count` cells; a choice has one cell a value."""
    names: tuple[str, ...] = ()
    if isinstance(axis, Choice):
        names = tuple(parameter.words(value) if parameter.names else f"{value:g}" for value in sorted(axis.values))
    return TaskAxis(
        parameter.name,
        parameter.unit,
        isinstance(axis, LogUniform),
        tuple(cells(axis, count)),
        tuple(edges(axis, count)),
        names,
    )
