"""Figures of a sweep: effects of the factors, generalisation, heat maps over task parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarl.evaluation.sweep_result import Effect, GeneralisationCurve, SweepResult, Variant
from metarl.reporting import task_map_figures
from metarl.reporting.figures import AFTER, COLOURS, NARROW, QUIET, STYLE, WIDTH, save, title_of
from metarl.reporting.sweep_tables import adjustment
from metarl.reporting.task_map_figures import HEATED, plain_ticks
from metarl.wording import number_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PER_ROW = 3
"""Factors in a row of the figure of effects."""
BESIDE = 50
"""Longest name of a curve, in characters, with which two names fit beside each other in the legend."""


def draw(result: SweepResult, folder: Path) -> dict[str, Path]:
    """Draw every figure of a sweep into a folder; return the files by name."""
    figures = {"effects": folder / "effects.png"}
    effects(result, figures["effects"])
    if result.generalisation:
        figures["generalisation"] = folder / "generalisation.png"
        generalisation(result.generalisation, f"{result.name}: generalisation", figures["generalisation"])
    if len(result.axes) == 1:
        figures["heat_map"] = folder / "heat_map.png"
        title = f"{result.name}: agents of each training range (black) on all tasks"
        task_map_figures.rows_map(result.maps, result.axes[0], title, figures["heat_map"])
    for found in result.maps if len(result.axes) == 2 else ():
        best = found.trial == result.best
        name = "heat_map" if best else f"heat_map_{found.trial:04d}"
        figures[name] = folder / f"{name}.png"
        variant = next(v for v in result.variants if v.number == found.trial)
        rest = "; other parameters at the middle of their training range" if len(found.ranges) > 2 else ""
        title = f"{result.name}, {variant.name}{' (best)' if best else ''}: training range framed{rest}"
        task_map_figures.heat_map(found, result.axes, title, figures[name])
    return figures


def generalisation(curves: Sequence[GeneralisationCurve], title: str, path: Path) -> None:
    """Draw return and gain against the distance of a task from the training range."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = 2 if max(len(curve.name) for curve in curves) <= BESIDE else 1
    with matplotlib.rc_context(STYLE):
        rows = -(-len(curves) // columns)
        figure = Figure(figsize=(WIDTH, 3.3 + 0.2 * rows), layout="constrained")
        panels = figure.subplots(1, 2)
        for curve, colour in zip(curves, COLOURS, strict=False):
            for panel, intervals in zip(panels, (curve.after, curve.gain), strict=True):
                low, high = [i.low for i in intervals], [i.high for i in intervals]
                panel.fill_between(curve.distance, low, high, color=colour, alpha=0.18, linewidth=0)
                panel.plot(
                    curve.distance,
                    [i.estimate for i in intervals],
                    color=colour,
                    linewidth=1.8,
                    marker="o",
                    markersize=4,
                    label=curve.name,
                )
        below = "; negative: below" if min(d for curve in curves for d in curve.distance) < 0 else ""
        distance = f"distance from the training range (0: inside)\nin widths of the evaluated range{below}"
        for panel, name in zip(panels, HEATED, strict=True):
            panel.set(xlabel=distance, ylabel=name)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=columns)
        title_of(figure, f"{title}, mean over tasks with 95 % interval")
        save(figure, path)


def effects(result: SweepResult, path: Path) -> None:
    """Draw the objective by each factor: every variant, and the IQM of each level with its interval."""
    import matplotlib
    from matplotlib.figure import Figure

    said = {adjustment(effect) for effect in result.effects}
    alike = said.pop() if len(said) == 1 else ""  # said once, in the title
    measure = "return after adaptation" if result.measure == "return" else "gain"
    title = f"{result.name}: {measure} by factor, {number_of(len(result.ended), 'variant')}"
    columns = min(len(result.effects), PER_ROW)
    lines = -(-len(result.effects) // columns)
    width = NARROW if len(result.effects) == 1 else WIDTH
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, 0.7 + 2.7 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, sharey=True, squeeze=False).reshape(-1)
        for panel, effect in zip(panels, result.effects, strict=False):
            _draw_effect(panel, effect, result.ended, result.factors[effect.name])
            panel.set_xlabel("\n".join([effect.name, *_facts(effect, not alike)]))
        for panel in panels[len(result.effects) :]:
            panel.set_visible(False)
        for panel in panels[::columns]:
            panel.set_ylabel(measure)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=2, handletextpad=0.3)
        title_of(figure, f"{title}; {alike}" if alike else title)
        save(figure, path)


def _facts(effect: Effect, with_adjustment: bool) -> list[str]:
    """Return the lines below a factor's name."""
    rho = f"{effect.spearman.estimate:+.2f}".replace("-", "\N{MINUS SIGN}") if effect.spearman else ""
    facts = [f"rank correlation {rho}"] if rho else []
    facts += [f"importance {effect.importance:.2f}"] if effect.importance is not None else []
    return facts + ([adjustment(effect)] if with_adjustment and adjustment(effect) else [])


def _draw_effect(axes: Axes, effect: Effect, ended: Sequence[Variant], factor: Any) -> None:
    """Draw one panel. factor: the levels, or low, high, log and whole of a number range."""
    objective = np.array([variant.objective for variant in ended], dtype=float)
    values = [variant.params[effect.name] for variant in ended]
    beside = 0.0
    if isinstance(factor, Mapping):
        x, places, ordered = *_place_range(axes, effect, values, factor), True
    else:
        x, places = _place_levels(axes, effect, values, factor)
        beside = 0.12  # so that the whiskers do not hide them
        ordered = all(type(value) in (int, float) for value in factor)
    axes.scatter(x - beside, objective, s=14, color=QUIET, linewidths=0, label="one variant, not adjusted")
    whiskers = [(p, level.iqm) for p, level in zip(places, effect.levels, strict=True) if level.iqm is not None]
    if whiskers:
        at = [p for p, _ in whiskers]
        axes.vlines(at, [w.low for _, w in whiskers], [w.high for _, w in whiskers], color=AFTER, linewidth=2)
    axes.plot(
        places,
        [level.value for level in effect.levels],
        color=AFTER,
        linewidth=0.9 if ordered else 0,
        marker="o",
        markersize=5,
        label=f"IQM, 95 % interval{', adjusted' if effect.others_out else ''}",
    )
    if isinstance(factor, Mapping) and factor["log"]:
        plain_ticks(axes.xaxis)
    elif isinstance(factor, Mapping) and factor["whole"]:
        axes.locator_params(axis="x", integer=True)


def _place_range(
    axes: Axes, effect: Effect, values: Sequence[float], factor: Mapping[str, Any]
) -> tuple[np.ndarray, list[float]]:
    """Return x of each variant, and x of each bin: the median of its variants."""
    x = np.array(values, dtype=float)
    parts = np.array_split(np.argsort(x, kind="stable"), len(effect.levels))
    if factor["log"]:
        axes.set_xscale("log")
    return x, [float(np.median(x[part])) for part in parts]


def _place_levels(
    axes: Axes, effect: Effect, values: Sequence[Any], factor: Sequence[Any]
) -> tuple[np.ndarray, list[float]]:
    """Return x of each variant, and x of each level: one place for each level that some variant has."""
    held = [json.dumps(value) for value in values]
    levels = [json.dumps(level) for level in factor if json.dumps(level) in held]
    places = [float(i) for i in range(len(effect.levels))]
    axes.set_xticks(places, [level.name.replace(", ", ",\n") for level in effect.levels])
    axes.set_xlim(-0.5, len(places) - 0.5)
    return np.array([levels.index(value) for value in held], dtype=float), places
