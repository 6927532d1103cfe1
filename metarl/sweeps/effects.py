"""Main effects of a sweep's factors on its objective."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from metarl.evaluation.statistics import (
    Array,
    Interval,
    bootstrap_interval,
    interquartile_mean,
    stratified_resamples,
)
from metarl.evaluation.sweep_result import Effect, Level, Variant
from metarl.runs.trial import stream
from metarl.sweeps.dimensions import Dimension, Levels
from metarl.sweeps.study import Study

SAMPLES = 2000
"""Bootstrap resamples."""
ENOUGH = 20
"""Fewest variants for which an importance is computed: it compares the best tenth with all."""


def effects_of(study: Study, ended: Sequence[Variant]) -> tuple[Effect, ...]:
    """Return the main effect of each dimension of the search. ended: the complete variants."""
    importance = importances(study)
    return tuple(effect_of(name, ended, study, importance.get(name)) for name in study.sweep.dimensions)


def effect_of(name: str, ended: Sequence[Variant], study: Study, importance: float | None) -> Effect:
    """Return the main effect of a factor: the objective by its levels, or by quartiles of a number range."""
    dimensions = study.sweep.dimensions
    values = [variant.params[name] for variant in ended]
    objective = np.array([variant.objective for variant in ended], dtype=float)
    rng = stream(study.sweep.seed, "sweep/bootstrap")
    adjusted = without_others(name, ended, objective) if len(dimensions) > 1 else None
    if not isinstance(dimensions[name], Levels):
        adjusted = None
    parts = _parts(dimensions[name], values, objective if adjusted is None else adjusted)
    levels = tuple(_level(label, part, rng) for label, part in parts)
    ordered = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if name == "training.distinct_tasks":  # 0: as many as there are iterations
        values = [value or np.inf for value in values]
    rho = None
    if ordered and len(set(values)) > 1 and len(values) > 3:
        rho = spearman(np.array(values, dtype=float), objective, rng)
    return Effect(name, levels, rho, importance, None if len(dimensions) == 1 else adjusted is not None)


def _parts(dimension: Dimension, values: Sequence[Any], objective: Array) -> list[tuple[str, Array]]:
    """Return the objective of the variants at each level, or in each quartile of a number range, with its name."""
    if isinstance(dimension, Levels):
        found = [(_name(value), objective[[v == value for v in values]]) for value in dimension.values]
        return [(name, chosen) for name, chosen in found if len(chosen)]
    order = np.argsort(values, kind="stable")
    quartiles = np.array_split(order, min(4, max(1, len(order) // 3)))
    return [(f"{values[part[0]]:.3g} to {values[part[-1]]:.3g}", objective[part]) for part in quartiles]


def without_others(name: str, ended: Sequence[Variant], objective: Array) -> Array | None:
    """Return the objective [n] adjusted for the other factors; None unless the variants are full blocks of a grid.

    A block is the variants that differ in this factor only:  y - mean(y of its block) + mean(y)  (Cousineau 2005),
    spread about the mean of its level by sqrt(M / (M - 1)) for M levels (Morey 2008): the block's mean is of M values.
    """
    blocks: dict[str, list[int]] = {}
    for i, variant in enumerate(ended):
        others = {k: v for k, v in variant.params.items() if k != name}
        blocks.setdefault(json.dumps(others, sort_keys=True), []).append(i)
    held = {json.dumps(sorted(str(ended[i].params[name]) for i in block)) for block in blocks.values()}
    levels = [str(variant.params[name]) for variant in ended]
    count = len(set(levels))
    if len(held) > 1 or len(blocks) == len(ended) or count == 1:  # one level alone, drawn again: nothing to adjust
        return None
    result = objective.copy()
    for block in blocks.values():
        result[block] += objective.mean() - objective[block].mean()
    for level in set(levels):
        own = np.array([other == level for other in levels])
        centre = result[own].mean()
        result[own] = centre + (result[own] - centre) * math.sqrt(count / (count - 1))
    return result


def _name(value: Any) -> str:
    """Return a level as text."""
    if isinstance(value, tuple):
        return ", ".join(map(_name, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _level(name: str, values: Array, rng: np.random.Generator) -> Level:
    interval = None
    if len(values) > 1:
        interval = bootstrap_interval(values, stratified_resamples([len(values)], SAMPLES, rng), interquartile_mean)
    return Level(name, len(values), interval, float(interquartile_mean(values)))


def ranks(values: Array) -> Array:
    """Return ranks along the last axis, from 0; equal values share the mean of theirs."""
    below = (values[..., None, :] < values[..., :, None]).sum(-1)
    same = (values[..., None, :] == values[..., :, None]).sum(-1)
    return below + (same - 1) / 2


def rank_correlation(x: Array, y: Array) -> Array:
    """Return Spearman's rho along the last axis: Pearson's correlation of the ranks; 0 where one is constant."""
    a, b = ranks(x), ranks(y)
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return np.divide((a * b).sum(-1), scale, out=np.zeros(np.shape(scale)), where=scale > 0)


def spearman(x: Array, y: Array, rng: np.random.Generator) -> Interval:
    """Return Spearman's rho of x and y [n] with its bootstrap interval over variants."""
    index = np.arange(len(x), dtype=float)
    resamples = stratified_resamples([len(x)], SAMPLES, rng)
    return bootstrap_interval(index, resamples, lambda i: rank_correlation(x[i.astype(int)], y[i.astype(int)]))


def importances(study: Study) -> dict[str, float]:
    """Return the PED-ANOVA importance (Watanabe 2023) of each factor; empty for too few variants."""
    if sum(trial.state == TrialState.COMPLETE for trial in study.trials()) < ENOUGH:
        return {}
    try:
        found = optuna.importance.get_param_importances(study.study)
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}
    return {name: share for name, share in found.items() if np.isfinite(share)}
