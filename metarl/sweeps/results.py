"""What a sweep came to: table, effect of each factor, generalisation, heat map, best configuration."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from metarl.config import dump_yaml, read_run_config
from metarl.envs.family import TaskFamily
from metarl.envs.parameters import Distribution, Parameter
from metarl.envs.registry import make_family
from metarl.errors import RunError
from metarl.evaluation.statistics import (
    Array,
    Interval,
    bootstrap_interval,
    interquartile_mean,
    mean,
    stratified_resamples,
)
from metarl.files import write
from metarl.provenance import provenance
from metarl.runs.run import load_run
from metarl.runs.trial import stream
from metarl.sweeps import figures as sweep_figures
from metarl.sweeps.file import Levels
from metarl.sweeps.rows import Curve, Effect, Level, Row
from metarl.sweeps.sweep import Study, words
from metarl.sweeps.tasks import Yardstick, cells, centre, distances, returns_on, training_ranges
from metarl.sweeps.trial import RESULT

SAMPLES = 2000
"""Bootstrap resamples."""
BINS = 6
"""Of the distance from the training range, besides what lies inside it."""
GROUPS = 6
"""Curves that are told apart in one figure."""
MAP = "sweep_map.json"
"""In a trial's folder: its returns on a grid of tasks."""
ENOUGH = 20
"""Trials before an importance is told: it compares the best tenth with all."""
ROWS = 24
"""Most training ranges that a heat map over one parameter shows."""


def rows(study: Study) -> list[Row]:
    """Every trial of a sweep, by number."""
    return [_row(trial, study) for trial in study.trials()]


def _row(trial: FrozenTrial, study: Study) -> Row:
    whole = len(trial.params) == len(study.sweep.dimensions)
    params = study.sweep.point(trial.params) if whole else dict(trial.params)
    state = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    return Row(
        trial.number,
        state.get(trial.state, "running"),
        params,
        trial.value if trial.state == TrialState.COMPLETE else None,
        dict(trial.user_attrs),
    )


def conclude(study: Study, stick: Yardstick, say: Callable[[str], None] = print, threads: int = 0) -> Path:
    """Write tables, figures and best.yaml into the sweep's folder; returns report.json. RunError if no trial ended.

    Best agents are evaluated on a grid of tasks, once: what was evaluated is kept in their folders.
    """
    table = rows(study)
    ended = [row for row in table if row.complete]
    write(study.folder / "trials.csv", _csv(table, study).encode())
    if not ended:
        failed = next((row.attributes["error"] for row in table if "error" in row.attributes), "")
        why = f": {failed}" if failed else ""
        raise RunError(f"no trial of {study.folder} came to its end, so there is no result{why}")
    best = best_of(ended)
    seconds = f"return {best.attributes['return']:.4g}, gain {best.attributes['gain']:.4g}"
    head = f"# Best of {len(ended)} trials of {study.folder.resolve().name}: trial {best.number}, {seconds}.\n"
    write(study.folder / "best.yaml", (head + dump_yaml(study.sweep.config(best.params))).encode())
    effects = [effect_of(name, ended, study) for name in study.sweep.dimensions]
    importance = importances(study)
    effects = [dataclasses.replace(e, importance=importance.get(e.name)) for e in effects]
    figures = {"effects": study.folder / "effects.png"}
    measure = "gain" if stick.measure == "gain" else "return"
    title = f"{study.folder.resolve().name}: {measure} after adaptation by factor, {len(ended)} trials"
    alike = len({effect.others for effect in effects}) == 1 and effects[0].others
    title += f"; {effects[0].others}" if alike else ""
    sweep_figures.effects(effects, ended, study.sweep.dimensions, measure, title, figures["effects"], not alike)
    maps, drawn = _maps(study, stick, ended, best, say, threads)
    curves = _generalisation(study, stick, ended, best, maps)
    if curves:
        figures["generalisation"] = study.folder / "generalisation.png"
        sweep_figures.generalisation(
            curves, f"{study.folder.resolve().name}: generalisation", figures["generalisation"]
        )
    report = {
        "sweep": study.folder.resolve().name,
        **study.sweep.fingerprint(),
        "judged_on": {"split": stick.split, "ranges": {k: [d.low, d.high] for k, d in stick.wide.items()}},
        "best": {"trial": best.number, "params": best.params, "objective": best.objective},
        "trials": [asdict(row) for row in table],
        "effects": [asdict(effect) for effect in effects],
        "generalisation": [asdict(curve) for curve in curves],
        "maps": maps,
        "figures": {name: path.name for name, path in {**figures, **drawn}.items()},
        "provenance": provenance(study.sweep.base),
    }
    path = study.folder / "report.json"
    write(path, json.dumps(report, indent=1, default=list, allow_nan=False).encode())
    for line in summary(ended, table, effects, best):
        say(line)
    say(f"best: {study.folder / 'best.yaml'}  (metarl train --config {study.folder / 'best.yaml'})")
    names = [p.name for p in (*figures.values(), *drawn.values())]
    say(f"report: {path}, trials.csv, {', '.join(names)}")
    return path


def summary(ended: Sequence[Row], table: Sequence[Row], effects: Sequence[Effect], best: Row) -> list[str]:
    """The result in a few lines."""
    counts = {state: sum(row.state == state for row in table) for state in ("complete", "pruned", "failed", "running")}
    lines = [", ".join(f"{count} {state}" for state, count in counts.items() if count)]
    low, high = best.attributes["return_interval"]
    lines.append(
        f"best trial {best.number}: {words(best.params)}: return {best.attributes['return']:.4g} [{low:.4g}, "
        f"{high:.4g}], gain {best.attributes['gain']:.4g}"
    )
    for effect in effects:
        levels = "  ".join(
            f"{level.name}: {level.value:.4g}" + (f" [{level.iqm.low:.4g}, {level.iqm.high:.4g}]" if level.iqm else "")
            for level in effect.levels
        )
        share = f"  importance {effect.importance:.2f}" if effect.importance is not None else ""
        others = f"  ({effect.others})" if effect.others else ""
        lines.append(f"{effect.name}:  {levels}{share}{others}")
    return lines


def best_of(ended: Sequence[Row]) -> Row:
    """The best trial of the best configuration: where seeds vary, of that whose mean over seeds is highest."""
    groups: dict[str, list[Row]] = {}
    for row in ended:
        key = json.dumps({k: v for k, v in row.params.items() if k != "training.seed"}, sort_keys=True, default=list)
        groups.setdefault(key, []).append(row)
    most = max(map(len, groups.values()))

    def score(group: list[Row]) -> float:
        return float(np.mean(np.array([row.objective for row in group], dtype=float)))

    winners = max((group for group in groups.values() if len(group) == most), key=score)
    return max(winners, key=lambda row: row.objective or 0.0)


def effect_of(name: str, ended: Sequence[Row], study: Study) -> Effect:
    """The main effect of a factor: the objective by its levels, or by quartiles of a range, over trials."""
    dimension = study.sweep.dimensions[name]
    values = [row.params[name] for row in ended]
    objective = np.array([row.objective for row in ended], dtype=float)
    rng = stream(study.sweep.seed, "sweep/bootstrap")
    ordered = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    levels = []
    others_out = False if len(study.sweep.dimensions) > 1 else None
    if isinstance(dimension, Levels):
        alone = without_others(name, ended, objective) if others_out is False else None
        others_out = True if alone is not None else others_out
        for value in dimension.values:
            chosen = (objective if alone is None else alone)[[v == value for v in values]]
            if len(chosen):
                levels.append(_level(_name(value), chosen, rng))
    else:
        order = np.argsort(values, kind="stable")
        for part in np.array_split(order, min(4, max(1, len(order) // 3))):
            low, high = values[part[0]], values[part[-1]]
            levels.append(_level(f"{low:.3g} to {high:.3g}", objective[part], rng))
    if name == "training.distinct_tasks":  # 0: as many as there are iterations
        values = [value or np.inf for value in values]
    rho = None
    if ordered and len(set(values)) > 1 and len(values) > 3:
        rho = spearman(np.array(values, dtype=float), objective, rng)
    return Effect(name, levels, rho, None, others_out)


def without_others(name: str, ended: Sequence[Row], objective: Array) -> Array | None:
    """The objective [n] without what the other factors do to it; None unless the trials are whole blocks of a grid.

    A block is the trials that are alike but for this factor:  y - mean(y of its block) + mean(y)  (Cousineau 2005),
    spread about the mean of its level by sqrt(M / (M - 1)) for M levels (Morey 2008): the block's mean is of M values.
    """
    blocks: dict[str, list[int]] = {}
    for i, row in enumerate(ended):
        others = {k: v for k, v in row.params.items() if k != name}
        blocks.setdefault(json.dumps(others, sort_keys=True), []).append(i)
    held = {json.dumps(sorted(str(ended[i].params[name]) for i in block)) for block in blocks.values()}
    if len(held) > 1 or len(blocks) == len(ended):
        return None
    result = objective.copy()
    for block in blocks.values():
        result[block] += objective.mean() - objective[block].mean()
    levels = [str(row.params[name]) for row in ended]
    count = len(set(levels))
    for level in set(levels):
        own = np.array([other == level for other in levels])
        centre = result[own].mean()
        result[own] = centre + (result[own] - centre) * math.sqrt(count / (count - 1))
    return result


def _name(value: Any) -> str:
    """A level in words."""
    if isinstance(value, tuple):
        return ", ".join(map(_name, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _level(name: str, values: Array, rng: np.random.Generator) -> Level:
    interval = None
    if len(values) > 1:
        interval = bootstrap_interval(values, stratified_resamples([len(values)], SAMPLES, rng), interquartile_mean)
    return Level(name, len(values), interval, float(interquartile_mean(values)))


def ranks(values: Array) -> Array:
    """Ranks along the last axis, from 0; equal values share the mean of theirs."""
    below = (values[..., None, :] < values[..., :, None]).sum(-1)
    same = (values[..., None, :] == values[..., :, None]).sum(-1)
    return below + (same - 1) / 2


def rank_correlation(x: Array, y: Array) -> Array:
    """Spearman's rho along the last axis: Pearson's correlation of the ranks; 0 where one of them is constant."""
    a, b = ranks(x), ranks(y)
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return np.divide((a * b).sum(-1), scale, out=np.zeros(np.shape(scale)), where=scale > 0)


def spearman(x: Array, y: Array, rng: np.random.Generator) -> Interval:
    """Spearman's rho with its bootstrap interval over trials."""
    index = np.arange(len(x), dtype=float)
    resamples = stratified_resamples([len(x)], SAMPLES, rng)
    return bootstrap_interval(index, resamples, lambda i: rank_correlation(x[i.astype(int)], y[i.astype(int)]))


def importances(study: Study) -> dict[str, float]:
    """PED-ANOVA (Watanabe 2023) of the factors, where there are trials enough for it."""
    if sum(trial.state == TrialState.COMPLETE for trial in study.trials()) < ENOUGH:
        return {}
    try:
        found = optuna.importance.get_param_importances(study.study)
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}
    return {name: share for name, share in found.items() if np.isfinite(share)}


def _csv(table: Sequence[Row], study: Study) -> str:
    columns = ["return", "before", "gain", "iteration", "env_steps", "seconds", "error"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["trial", "state", *study.sweep.dimensions, "objective", *columns])
    for row in table:
        params = [row.params.get(name, "") for name in study.sweep.dimensions]
        params = [json.dumps(v) if isinstance(v, tuple) else v for v in params]
        objective = "" if row.objective is None else row.objective
        writer.writerow([row.number, row.state, *params, objective, *(row.attributes.get(c, "") for c in columns)])
    return out.getvalue()


def _group(row: Row, study: Study, stick: Yardstick) -> str:
    """What tells a trial's training range from others': its first varied parameter's."""
    ranges = row.attributes["ranges"]
    parts = []
    for name in stick.varied[:2]:
        if name in ranges:
            ends = ranges[name]
            parts.append(f"{name.replace('_', ' ')} {ends[0]:g} to {ends[-1]:g}")
    return ("trained on " + ", ".join(parts)) if parts else "all trials"


def _generalisation(
    study: Study, stick: Yardstick, ended: Sequence[Row], best: Row, maps: Sequence[Mapping[str, Any]]
) -> list[Curve]:
    """Return against distance from the training range, one curve a training range; of the best trial's map where all
    trials were judged inside their own ranges."""
    data: dict[str, list[tuple[Array, Array, Array]]] = {}
    if stick.split == "wide":
        axes = dict(stick.wide)
        for row in ended:
            path = study.directory(row.number) / RESULT
            found = json.loads(path.read_text(encoding="utf-8"))
            data.setdefault(_group(row, study, stick), []).append(_distant(found, row, axes))
        if len(data) > GROUPS:  # most trials first
            kept = sorted(data, key=lambda name: -len(data[name]))[:GROUPS]
            data = {name: parts for name, parts in data.items() if name in kept}
    else:
        family = make_family(study.sweep.base.family)
        for found in maps:
            if found["trial"] == best.number:
                axes = {p.name: stick.axis(p) for p in family.parameters if p.name in found["parameters"]}
                data[f"trial {best.number}"] = [_distant(found, best, axes)]
    rng = stream(study.sweep.seed, "sweep/generalisation")
    curves = [_curve(name, parts, rng) for name, parts in data.items()]
    curves = [curve for curve in curves if len(curve.distance) > 1]
    return sorted(curves, key=lambda curve: curve.name)


def _distant(found: Mapping[str, Any], row: Row, axes: Mapping[str, Distribution]) -> tuple[Array, Array, Array]:
    values = {name: np.array([task[name] for task in found["tasks"]], dtype=float) for name in axes}
    before, after = (np.array(found[key], dtype=float) for key in ("before", "after"))
    return distances(values, row.attributes["ranges"], axes), before, after


def _curve(name: str, parts: Sequence[tuple[Array, Array, Array]], rng: np.random.Generator) -> Curve:
    distance, before, after = (np.concatenate(column) for column in zip(*parts, strict=True))
    sound = np.isfinite(before) & np.isfinite(after)
    distance, before, after = distance[sound], before[sound], after[sound]
    places, returns, gains = [], [], []
    sides = [np.sign(distance) == side for side in (-1, 0, 1)]
    counts = [max(1, min(BINS, side.sum() // 4)) for side in sides]
    bins = [part for side, count in zip(sides, counts, strict=True) for part in _bins(distance, side, int(count))]
    for chosen in bins:
        if chosen.sum() < 2:
            continue
        resamples = stratified_resamples([int(chosen.sum())], SAMPLES, rng)
        places.append(float(distance[chosen].mean()))
        returns.append(bootstrap_interval(after[chosen], resamples, mean))
        gains.append(bootstrap_interval(after[chosen] - before[chosen], resamples, mean))
    return Curve(name, places, returns, gains)


def _bins(distance: Array, side: Any, count: int) -> list[Any]:
    """Masks [n] of equally wide parts of the distances on one side."""
    if not side.any():
        return []
    low, high = distance[side].min(), distance[side].max()
    part = np.clip(((distance - low) / max(high - low, 1e-12) * count).astype(int), 0, count - 1)
    return [side & (part == i) for i in range(count)] if high > low else [side]


def map_parameters(study: Study, stick: Yardstick, family: TaskFamily) -> list[Parameter]:
    """The one or two task parameters of the heat map: those asked for, else those that vary, else the first."""
    named = study.sweep.report.parameters
    known = {p.name: p for p in family.parameters}
    if named:
        return [known[name] for name in named if name in known]
    order = sorted(family.parameters, key=lambda p: (p.name not in stick.varied, not p.continuous))
    return order[:2]


def _maps(
    study: Study, stick: Yardstick, ended: Sequence[Row], best: Row, say: Callable[[str], None], threads: int
) -> tuple[list[dict[str, Any]], dict[str, Path]]:
    """Returns on grids of tasks: over two parameters of the best trial or of all; over one, of every training range."""
    family = make_family(study.sweep.config(best.params).family)
    parameters = map_parameters(study, stick, family)
    every = study.sweep.report.maps == "all" or len(parameters) == 1
    chosen = list(ended) if every else [best]
    if len(parameters) == 1 and len(chosen) > ROWS:
        chosen = sorted(ended, key=lambda row: -(row.objective or 0.0))[:ROWS]
    axes = [stick.axis(p) for p in parameters]
    maps = []
    for row in chosen:
        maps.append(_map(study, row, parameters, axes, say, threads))
    name = study.folder.resolve().name
    if not axes:
        return maps, {}
    if len(parameters) == 1:
        path = study.folder / "heat_map.png"
        sweep_figures.rows_map(maps, parameters[0], axes[0], f"{name}: each training range (black) on all tasks", path)
        return maps, {"heat_map": path}
    figures = {}
    for found in maps:
        key = "heat_map" if found["trial"] == best.number else f"heat_map_{found['trial']:04d}"
        figures[key] = study.folder / f"{key}.png"
        others = len(family.parameters) - 2
        rest = "; other parameters at the middle of their training range" if others > 0 else ""
        best_or = "best trial" if found["trial"] == best.number else "trial"
        title = f"{name}, {best_or} {found['trial']}: training range framed{rest}"
        sweep_figures.heat_map(found, parameters, axes, title, figures[key])
    return maps, figures


def _map(
    study: Study,
    row: Row,
    parameters: Sequence[Parameter],
    axes: Sequence[Distribution],
    say: Callable[[str], None],
    threads: int,
) -> dict[str, Any]:
    directory = study.directory(row.number)
    grid = [cells(axis, study.sweep.report.grid) for axis in axes]
    asked = {"trial": row.number, "parameters": [p.name for p in parameters], "grid": grid}
    path = directory / MAP
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if {key: kept.get(key) for key in asked} == json.loads(json.dumps(asked)):
            return kept
    say(f"evaluating trial {row.number} on {np.prod([len(g) for g in grid]):.0f} tasks")
    run = load_run(directory)
    middle = centre(run.family)
    points = [dict(zip(asked["parameters"], values, strict=True)) for values in itertools.product(*grid)]
    tasks = [run.family.task({**middle, **point}) for point in points]
    config = read_run_config(directory)
    before, after = returns_on(run.agent, run.family, tasks, config.evaluation, threads or config.training.threads)
    found = {
        **asked,
        "ranges": training_ranges(run.family),
        "tasks": [dict(task.values) for task in tasks],
        **{k: [float(r) if np.isfinite(r) else None for r in v] for k, v in {"before": before, "after": after}.items()},
    }
    write(path, json.dumps(found).encode())
    return found
