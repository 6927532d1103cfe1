"""Return against the distance of a task from the training range."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarl.envs.parameters import Distribution, Parameter
from metarl.envs.registry import make_family
from metarl.evaluation.statistics import Array, crossed_counts, crossed_interval
from metarl.evaluation.sweep_result import GeneralisationCurve, TaskMap, TaskReturns, Variant
from metarl.runs.trial import stream
from metarl.sweeps.attempt import RESULT
from metarl.sweeps.effects import SAMPLES
from metarl.sweeps.study import Study
from metarl.sweeps.task_axes import distances
from metarl.sweeps.yardstick import Yardstick

BINS = 6
"""Bins of the distance on each side of the training range."""
GROUPS = 6
"""Most curves in one figure."""


def generalisation_of(
    study: Study, stick: Yardstick, ended: Sequence[Variant], best: Variant, maps: Sequence[TaskMap]
) -> tuple[GeneralisationCurve, ...]:
    """Return one curve for each training range.

    Where all variants were judged inside their own ranges, it is the curve of the best one's map alone.
    """
    family = make_family(study.sweep.base.family)
    data: dict[str, list[tuple[Array, Array, Array]]] = {}
    if stick.split == "wide":
        varied = [p for name in stick.varied[:2] for p in family.parameters if p.name == name]
        for variant in filter(study.has_folder, ended):
            if axes := _own(stick.wide, variant):
                found = TaskReturns.from_dict(_read(study, variant))
                data.setdefault(_group(variant, varied), []).append(_distant(found, variant, axes))
        if len(data) > GROUPS:  # the best variant's, then those of most variants
            ours = _group(best, varied)
            kept = sorted(data, key=lambda name: (name != ours, -len(data[name])))[:GROUPS]
            data = {name: parts for name, parts in data.items() if name in kept}
    else:
        for found in maps:
            if found.trial == best.number:
                axes = {p.name: stick.axis(p) for p in family.parameters if p.name in found.parameters}
                if axes := _own(axes, best):
                    data[best.name] = [_distant(found, best, axes)]
    rng = stream(study.sweep.seed, "sweep/generalisation")
    curves = [_curve(name, parts, rng) for name, parts in data.items()]
    curves = [curve for curve in curves if len(curve.distance) > 1]
    return tuple(sorted(curves, key=lambda curve: curve.name))


def _read(study: Study, variant: Variant) -> dict[str, Any]:
    return json.loads((study.directory(variant.number) / RESULT).read_text(encoding="utf-8"))


def _group(variant: Variant, varied: Sequence[Parameter]) -> str:
    """Return the variant's training ranges of these parameters as text: the name of its curve."""
    ranges = variant.attributes["ranges"]
    parts = [f"{p.name.replace('_', ' ')} {_range(p, ranges[p.name])}" for p in varied if p.name in ranges]
    return ("trained on " + "; ".join(parts)) if parts else "all variants"


def _range(parameter: Parameter, span: Sequence[float]) -> str:
    """Return a training range as text: its ends, or the names of a choice."""
    if parameter.names:
        return ", ".join(map(parameter.words, span))
    return f"{span[0]:g} to {span[-1]:g}".replace("-", "\N{MINUS SIGN}")


def _own(axes: Mapping[str, Distribution], variant: Variant) -> dict[str, Distribution]:
    """Return the axes of parameters that the variant's tasks have: one without faults has no severity of them."""
    return {name: axis for name, axis in axes.items() if name in variant.attributes["ranges"]}


def _distant(found: TaskReturns, variant: Variant, axes: Mapping[str, Distribution]) -> tuple[Array, Array, Array]:
    """Return distance, return before and return after of each task, [n] each."""
    values = {name: np.array([task[name] for task in found.tasks], dtype=float) for name in axes}
    return distances(values, variant.attributes["ranges"], axes), *found.arrays


def _curve(name: str, parts: Sequence[tuple[Array, Array, Array]], rng: np.random.Generator) -> GeneralisationCurve:
    """Return the curve of variants that were judged on the same tasks: distance, before and after of each of them."""
    distance, before, after = (np.stack(column) for column in zip(*parts, strict=True))  # [variants, tasks]
    sound = np.isfinite(before) & np.isfinite(after)
    places, returns, gains = [], [], []
    sides = [sound & (np.sign(distance) == side) for side in (-1, 0, 1)]
    counts = [max(1, min(BINS, side.any(axis=0).sum() // 4)) for side in sides]
    bins = [part for side, count in zip(sides, counts, strict=True) for part in _bins(distance, side, int(count))]
    for chosen in bins:
        variants, tasks = chosen.any(axis=1), chosen.any(axis=0)
        if tasks.sum() < 2:
            continue
        drawn = crossed_counts(int(variants.sum()), int(tasks.sum()), SAMPLES, rng)
        ends = [np.where(chosen, own, np.nan)[variants][:, tasks] for own in (after, after - before)]
        places.append(float(distance[chosen].mean()))
        returns.append(crossed_interval(ends[0], *drawn))
        gains.append(crossed_interval(ends[1], *drawn))
    return GeneralisationCurve(name, tuple(places), tuple(returns), tuple(gains))


def _bins(distance: Array, side: Any, count: int) -> list[Any]:
    """Return masks, as that of the side, of equally wide parts of the distances on one side."""
    if not side.any():
        return []
    low, high = distance[side].min(), distance[side].max()
    part = np.clip(((distance - low) / max(high - low, 1e-12) * count).astype(int), 0, count - 1)
    return [side & (part == i) for i in range(count)] if high > low else [side]
