"""Figures of a sweep: heat maps over task parameters, generalisation, effects of the factors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarl.envs.parameters import Choice, Distribution, LogUniform, Parameter
from metarl.envs.terrain import kind_name
from metarl.figures import AFTER, INK, LEGEND, NARROW, QUIET, STYLE, WIDTH, axis_label, save, title_of
from metarl.statistics import Array
from metarl.sweep_file import Dimension, Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from metarl.sweep_results import Curve, Effect, Row

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, told apart by every kind of colour vision."""
PER_ROW = 3
"""Factors in a row of the figure of effects."""


def heat_map(
    found: Mapping[str, Any], parameters: Sequence[Parameter], axes: Sequence[Distribution], title: str, path: Path
) -> None:
    """Return after adaptation and gain over two task parameters, the training range framed."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    shape = [len(values) for values in found["grid"]]
    before, after = (np.array(found[key], dtype=float).reshape(shape).T for key in ("before", "after"))  # [y, x]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for panel, values, name in zip(
            panels, (after, after - before), ("return after adaptation", "gain"), strict=True
        ):
            _draw(panel, figure, values, name)
            x, y = (_ends(*part) for part in zip(parameters, axes, found["grid"], [found["ranges"]] * 2, strict=True))
            for left, right in x:
                for low, high in y:
                    for width, colour in ((3.4, "white"), (1.4, "black")):
                        frame = Rectangle(
                            (left, low), right - left, high - low, fill=False, edgecolor=colour, linewidth=width
                        )
                        frame.set_clip_on(False)
                        panel.add_patch(frame)
            _ticks(panel, "x", parameters[0], axes[0], found["grid"][0])
            _ticks(panel, "y", parameters[1], axes[1], found["grid"][1], label=panel is panels[0])
        title_of(figure, title)
        save(figure, path)


def rows_map(maps: Sequence[Mapping[str, Any]], parameter: Parameter, title: str, path: Path) -> None:
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
    axis = _axis_of(parameter, grid)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 1.7 + 0.36 * len(ranges)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for panel, values, name in zip(panels, (after, gain), ("return after adaptation", "gain"), strict=True):
            _draw(panel, figure, np.array(values), name)
            for place, span in enumerate(ranges):
                for left, right in _ends(parameter, axis, grid, {parameter.name: span}):
                    for width, colour in ((4.6, "white"), (2.2, "black")):
                        panel.plot(
                            [left, right], [place - 0.38] * 2, color=colour, linewidth=width, solid_capstyle="butt"
                        )
            _ticks(panel, "x", parameter, axis, grid)
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
                    label=f"trained on {curve.name}" if len(curves) > 1 else curve.name,
                )
        for panel, name in zip(panels, ("return after adaptation", "gain"), strict=True):
            panel.set(
                xlabel="distance from the training range\n(0: inside; 1: width of all that is judged on)", ylabel=name
            )
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
) -> None:
    """The objective by each factor: every trial, and the IQM of each level with its interval."""
    import matplotlib
    from matplotlib.figure import Figure

    count = len(found)
    columns = min(count, PER_ROW)
    lines = -(-count // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(NARROW if count == 1 else WIDTH, 0.7 + 2.7 * lines), layout="constrained")
        panels = figure.subplots(lines, columns, sharey=True, squeeze=False).reshape(-1)
        for panel, effect in zip(panels, found, strict=False):
            _draw_effect(panel, effect, ended, dimensions[effect.name])
        for panel in panels[count:]:
            panel.set_visible(False)
        for panel in panels[::columns]:
            panel.set_ylabel(f"{measure} after adaptation" if measure == "return" else "gain")
        panels[0].legend(handletextpad=0.3, **LEGEND)
        title_of(figure, title)
        save(figure, path)


def _draw_effect(axes: Axes, effect: Effect, ended: Sequence[Row], dimension: Dimension) -> None:
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
        names = [level.name for level in effect.levels]
        axes.set_xticks(places, names)
        axes.set_xlim(-0.5, len(places) - 0.5)
        if max(map(len, names)) * len(names) > 26:
            axes.tick_params(axis="x", labelrotation=20)
    axes.scatter(x, objective, s=12, color=QUIET, alpha=0.8, linewidths=0, label="one trial")
    whiskers = [(p, level.iqm) for p, level in zip(places, effect.levels, strict=True) if level.iqm is not None]
    if whiskers:
        at = [p for p, _ in whiskers]
        axes.vlines(at, [w.low for _, w in whiskers], [w.high for _, w in whiskers], color=AFTER, linewidth=2)
    axes.plot(
        places,
        [level.value for level in effect.levels],
        color=AFTER,
        linewidth=0.9,
        marker="o",
        markersize=5,
        label="IQM, 95 % interval",
    )
    share = f"\nimportance {effect.importance:.2f}" if effect.importance is not None else ""
    rho = f", rank correlation {effect.spearman.estimate:+.2f}" if effect.spearman and share else ""
    axes.set_xlabel(effect.name + share + rho)


def _label(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, tuple) else value


def _draw(axes: Axes, figure: Figure, values: Array, name: str) -> None:
    """A heat map [y, x]; the colours of a gain are divided at 0."""
    finite = values[np.isfinite(values)]
    if name == "gain":
        reach = float(np.abs(finite).max()) if finite.size else 1.0
        image = axes.imshow(values, origin="lower", aspect="auto", cmap="PuOr_r", vmin=-reach, vmax=reach)
    else:
        image = axes.imshow(values, origin="lower", aspect="auto", cmap="viridis")
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.outline.set_visible(False)
    axes.set_title(name, fontsize=9.5, loc="left")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=2)


def _place(axis: Distribution, grid: Sequence[float], value: float) -> float:
    """Where a value is on an axis whose cells are 0, 1, ..."""
    if isinstance(axis, LogUniform):
        return float(np.interp(np.log(value), np.log(grid), range(len(grid))))
    return float(np.interp(value, grid, range(len(grid))))


def _ends(
    parameter: Parameter, axis: Distribution, grid: Sequence[float], ranges: Mapping[str, Any]
) -> list[tuple[float, float]]:
    """Where the training range begins and ends on an axis; a frame of its own for each value of a choice."""
    span = ranges[parameter.name]
    if isinstance(axis, Choice):
        return [(i - 0.5, i + 0.5) for i, value in enumerate(grid) if value in span]
    low, high = (_place(axis, grid, value) for value in (span[0], span[-1]))
    # The outermost cells reach half a cell beyond the values that they stand for.
    return [(low if low > 0 else -0.5, high if high < len(grid) - 1 else len(grid) - 0.5)]


def _axis_of(parameter: Parameter, grid: Sequence[float]) -> Distribution:
    """The kind of axis that a grid of values was made over."""
    if isinstance(parameter.distribution, Choice):
        return Choice(tuple(grid))
    return LogUniform(grid[0], grid[-1]) if isinstance(parameter.distribution, LogUniform) else parameter.distribution


def _ticks(
    axes: Axes, which: str, parameter: Parameter, axis: Distribution, grid: Sequence[float], label: bool = True
) -> None:
    if isinstance(axis, Choice):
        terrain = parameter.name == "terrain_kind"
        places = list(range(len(grid)))
        names = [kind_name(value).replace("_", " ") if terrain else f"{value:g}" for value in grid]
    else:
        places = sorted({round(p) for p in np.linspace(0, len(grid) - 1, 5)})
        names = [f"{grid[p]:.3g}" for p in places]
    set_ticks, set_label = (axes.set_xticks, axes.set_xlabel) if which == "x" else (axes.set_yticks, axes.set_ylabel)
    set_ticks(places, names)
    if label:
        set_label(axis_label(parameter))
    if which == "x" and isinstance(axis, Choice) and max(map(len, names)) > 4:
        axes.tick_params(axis="x", labelrotation=30)
    axes.spines["bottom"].set_color(INK)
