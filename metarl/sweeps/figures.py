"""Figures of a sweep: heat maps over task parameters, generalisation, effects of the factors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarl.envs.parameters import Choice, Distribution, LogUniform, Parameter
from metarl.envs.terrain.kinds import kind_name
from metarl.evaluation.statistics import Array
from metarl.reporting.figures import AFTER, NARROW, QUIET, STYLE, WIDTH, axis_label, save, title_of
from metarl.sweeps.file import Dimension, Interval
from metarl.sweeps.tasks import edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    from metarl.sweeps.rows import Curve, Effect, Row

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, told apart by every kind of colour vision."""
HEATED = ("return after adaptation", "gain")
PER_ROW = 3
"""Factors in a row of the figure of effects."""


def heat_map(
    found: Mapping[str, Any], parameters: Sequence[Parameter], axes: Sequence[Distribution], title: str, path: Path
) -> None:
    """Return after adaptation and gain over two task parameters, the training range framed."""
    import matplotlib
    from matplotlib.figure import Figure

    shape = [len(values) for values in found["grid"]]
    before, after = (np.array(found[key], dtype=float).reshape(shape).T for key in ("before", "after"))  # [y, x]
    borders = [edges(axis, count) for axis, count in zip(axes, shape, strict=True)]
    frames = [
        _spans(p, axis, found["grid"][i], found["ranges"])
        for i, (p, axis) in enumerate(zip(parameters, axes, strict=True))
    ]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for panel, values, name in zip(panels, (after, after - before), HEATED, strict=True):
            _draw(panel, figure, borders[0], borders[1], values, name)
            for left, right in frames[0]:
                for low, high in frames[1]:
                    for width, colour in ((3.6, "white"), (1.6, "black")):
                        panel.add_patch(_frame(left, low, right, high, width, colour))
            _scale(panel, "x", parameters[0], axes[0])
            _scale(panel, "y", parameters[1], axes[1])
        panels[1].set_ylabel("")
        title_of(figure, title)
        save(figure, path)


def rows_map(
    maps: Sequence[Mapping[str, Any]], parameter: Parameter, axis: Distribution, title: str, path: Path
) -> None:
    """Return after adaptation and gain over one task parameter, a row a training range, which is marked on it."""
    import matplotlib
    from matplotlib.figure import Figure

    groups: dict[str, list[Mapping[str, Any]]] = {}
    for found in maps:
        groups.setdefault(json.dumps(found["ranges"].get(parameter.name)), []).append(found)
    ranges = sorted((json.loads(key) for key in groups), key=lambda r: (r[-1] - r[0], r[0]))
    grid, spans = maps[0]["grid"][0], []
    after, gain = [], []
    for span in ranges:
        group = groups[json.dumps(span)]
        shots = [[np.array(found[key], dtype=float) for found in group] for key in ("before", "after")]
        after.append(np.mean(shots[1], axis=0))
        gain.append(np.mean(shots[1], axis=0) - np.mean(shots[0], axis=0))
        spans.append(f"{span[0]:g} to {span[-1]:g}" + (f"  ({len(group)} trials)" if len(group) > 1 else ""))
    borders = edges(axis, len(grid))
    rows = [i - 0.5 for i in range(len(ranges) + 1)]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 1.7 + 0.36 * len(ranges)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for panel, values, name in zip(panels, (after, gain), HEATED, strict=True):
            _draw(panel, figure, borders, rows, np.array(values), name)
            for place, span in enumerate(ranges):
                for left, right in _spans(parameter, axis, grid, {parameter.name: span}):
                    for width, colour in ((3.6, "white"), (1.6, "black")):
                        panel.add_patch(_frame(left, place - 0.42, right, place + 0.42, width, colour))
            _scale(panel, "x", parameter, axis)
            panel.set_yticks(range(len(ranges)), spans)
        panels[0].set_ylabel("training range")
        title_of(figure, title)
        save(figure, path)


def generalisation(curves: Sequence[Curve], title: str, path: Path) -> None:
    """Return and gain against the distance of a task from the training range."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        rows = -(-len(curves) // 2)
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
        below = ", below 0: under it" if min(d for curve in curves for d in curve.distance) < 0 else ""
        distance = f"distance from the training range (0: inside{below})\nin widths of all that is judged on"
        for panel, name in zip(panels, HEATED, strict=True):
            panel.set(xlabel=distance, ylabel=name)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=2)
        title_of(figure, f"{title}; mean over tasks and its 95 % interval")
        save(figure, path)


def effects(
    found: Sequence[Effect],
    ended: Sequence[Row],
    dimensions: Mapping[str, Dimension],
    measure: str,
    title: str,
    path: Path,
    say_others: bool = False,
) -> None:
    """The objective by each factor: every trial, and the IQM of each level with its interval.

    say_others: at each factor, whether the others are taken out; otherwise the title says so.
    """
    import matplotlib
    from matplotlib.figure import Figure

    count = len(found)
    columns = min(count, PER_ROW)
    lines = -(-count // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(NARROW if count == 1 else WIDTH, 0.7 + 2.7 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, sharey=True, squeeze=False).reshape(-1)
        for panel, effect in zip(panels, found, strict=False):
            _draw_effect(panel, effect, ended, dimensions[effect.name], say_others)
        for panel in panels[count:]:
            panel.set_visible(False)
        for panel in panels[::columns]:
            panel.set_ylabel(f"{measure} after adaptation" if measure == "return" else "gain")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=2, handletextpad=0.3)
        title_of(figure, title)
        save(figure, path)


def _draw_effect(axes: Axes, effect: Effect, ended: Sequence[Row], dimension: Dimension, say_others: bool) -> None:
    objective = np.array([row.objective for row in ended], dtype=float)
    if isinstance(dimension, Interval):
        x = np.array([row.params[effect.name] for row in ended], dtype=float)
        order = np.argsort(x, kind="stable")
        parts = np.array_split(order, len(effect.levels))
        places: list[float] = [float(np.median(x[part])) for part in parts]
        if dimension.log:
            axes.set_xscale("log")
    else:
        places = [float(i) for i in range(len(effect.levels))]
        levels = [
            label
            for label, value in zip(dimension.labels, dimension.values, strict=True)
            if any(row.params[effect.name] == value for row in ended)
        ]
        x = np.array([levels.index(_label(row.params[effect.name])) for row in ended], dtype=float)
        names = [level.name.replace(", ", ",\n") for level in effect.levels]
        axes.set_xticks(places, names)
        axes.set_xlim(-0.5, len(places) - 0.5)
    beside = 0.0 if isinstance(dimension, Interval) else 0.12  # so that the whiskers do not hide them
    axes.scatter(x - beside, objective, s=14, color=QUIET, linewidths=0, label="one trial, as it is")
    whiskers = [(p, level.iqm) for p, level in zip(places, effect.levels, strict=True) if level.iqm is not None]
    if whiskers:
        at = [p for p, _ in whiskers]
        axes.vlines(at, [w.low for _, w in whiskers], [w.high for _, w in whiskers], color=AFTER, linewidth=2)
    ordered = isinstance(dimension, Interval) or all(type(v) in (int, float) for v in dimension.values)
    without = "; without what the other factors do" if effect.others_out and not say_others else ""
    axes.plot(
        places,
        [level.value for level in effect.levels],
        color=AFTER,
        linewidth=0.9 if ordered else 0,
        marker="o",
        markersize=5,
        label=f"IQM, 95 % interval{without}",
    )
    if isinstance(dimension, Interval) and dimension.log:
        _plain_ticks(axes.xaxis)
    facts = [f"rank correlation {effect.spearman.estimate:+.2f}"] if effect.spearman else []
    facts += [f"importance {effect.importance:.2f}"] if effect.importance is not None else []
    facts += [effect.others] if say_others and effect.others else []
    axes.set_xlabel("\n".join([effect.name, *facts]))


def _label(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, tuple) else value


def _draw(axes: Axes, figure: Figure, x: Sequence[float], y: Sequence[float], values: Array, name: str) -> None:
    """A heat map [y, x] between borders; the colours of a gain are divided at 0."""
    finite = values[np.isfinite(values)]
    colours: dict[str, Any] = {"cmap": "viridis"}
    if name == HEATED[1]:
        reach = float(np.abs(finite).max()) if finite.size else 1.0
        colours = {"cmap": "PuOr_r", "vmin": -reach, "vmax": reach}
    mesh = axes.pcolormesh(x, y, values, **colours)
    bar = figure.colorbar(mesh, ax=axes, pad=0.02)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    axes.set_title(name, fontsize=9.5, loc="left")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=2)


def _frame(left: float, low: float, right: float, high: float, width: float, colour: str) -> Rectangle:
    from matplotlib.patches import Rectangle

    size = (right - left, high - low)
    return Rectangle((left, low), *size, fill=False, edgecolor=colour, linewidth=width, clip_on=False, zorder=3)


def _spans(
    parameter: Parameter, axis: Distribution, grid: Sequence[float], ranges: Mapping[str, Any]
) -> list[tuple[float, float]]:
    """Where the training range begins and ends on an axis; neighbouring values of a choice are one span."""
    span = ranges[parameter.name]
    if not isinstance(axis, Choice):
        return [(span[0], span[-1])]
    spans: list[tuple[float, float]] = []
    for i in (i for i, value in enumerate(grid) if value in span):
        if spans and spans[-1][1] == i - 0.5:
            spans[-1] = (spans[-1][0], i + 0.5)
        else:
            spans.append((i - 0.5, i + 0.5))
    return spans


def _scale(axes: Axes, which: str, parameter: Parameter, axis: Distribution) -> None:
    """Ticks and label of a task parameter's axis."""
    label = axes.set_xlabel if which == "x" else axes.set_ylabel
    label(axis_label(parameter))
    if isinstance(axis, Choice):
        values = sorted(axis.values)
        terrain = parameter.name == "terrain_kind"
        names = [kind_name(value).replace("_", " ") if terrain else f"{value:g}" for value in values]
        (axes.set_xticks if which == "x" else axes.set_yticks)(range(len(values)), names)
        if which == "x" and max(map(len, names)) > 4:
            axes.set_xticks(range(len(values)), names, rotation=40, ha="right", rotation_mode="anchor")
    elif isinstance(axis, LogUniform):
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        _plain_ticks(axes.xaxis if which == "x" else axes.yaxis)


def _plain_ticks(axis: Axis) -> None:
    """Few ticks on a logarithmic axis, written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high / low < 30 else (1.0, 3.0) if high / low < 1000 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
