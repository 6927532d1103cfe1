"""Heat maps of an agent's returns over task parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarl.evaluation.statistics import Array
from metarl.evaluation.sweep_result import TaskAxis, TaskMap
from metarl.reporting.figures import STYLE, WIDTH, save, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

HEATED = ("return after adaptation", "gain")
"""Titles of the two panels."""
FRAME = ((3.6, "white"), (1.6, "black"))
"""Width and colour of the lines around a training range."""


def heat_map(found: TaskMap, axes: Sequence[TaskAxis], title: str, path: Path) -> None:
    """Draw return after adaptation and gain over two task parameters, with the training range framed."""
    import matplotlib
    from matplotlib.figure import Figure

    before, after = (values.reshape([len(axis.cells) for axis in axes]).T for values in found.arrays)  # [y, x]
    frames = [_spans(axis, found.ranges[axis.parameter]) for axis in axes]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for panel, values, name in zip(panels, (after, after - before), HEATED, strict=True):
            _draw(panel, figure, axes[0].borders, axes[1].borders, values, name)
            for left, right in frames[0]:
                for low, high in frames[1]:
                    _frame(panel, left, low, right, high)
            _scale(panel, "x", axes[0])
            _scale(panel, "y", axes[1])
        panels[1].set_ylabel("")
        title_of(figure, title)
        save(figure, path)


def rows_map(maps: Sequence[TaskMap], axis: TaskAxis, title: str, path: Path) -> None:
    """Draw return after adaptation and gain over one task parameter, one row for each training range."""
    import matplotlib
    from matplotlib.figure import Figure

    groups: dict[tuple[float, ...], list[TaskMap]] = {}
    for found in maps:
        groups.setdefault(found.ranges[axis.parameter], []).append(found)
    ranges = sorted(groups, key=lambda span: (span[-1] - span[0], span[0]))
    means = [np.mean([found.arrays for found in groups[span]], axis=0) for span in ranges]  # [before and after, cell]
    after, gain = np.array([m[1] for m in means]), np.array([m[1] - m[0] for m in means])
    names = [_span_name(axis, span) + _count(len(groups[span])) for span in ranges]
    borders = [i - 0.5 for i in range(len(ranges) + 1)]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 1.7 + 0.36 * len(ranges)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for panel, values, name in zip(panels, (after, gain), HEATED, strict=True):
            _draw(panel, figure, axis.borders, borders, values, name)
            for place, span in enumerate(ranges):
                for left, right in _spans(axis, span):
                    _frame(panel, left, place - 0.42, right, place + 0.42)
            _scale(panel, "x", axis)
            panel.set_yticks(range(len(ranges)), names)
        panels[0].set_ylabel("training range")
        title_of(figure, title)
        save(figure, path)


def _count(variants: int) -> str:
    return f"  (mean of {variants})" if variants > 1 else ""


def _span_name(axis: TaskAxis, span: Sequence[float]) -> str:
    """Return a training range as text: its ends, or the names of a choice."""
    if axis.names:
        return ", ".join(name for name, value in zip(axis.names, axis.cells, strict=True) if value in span)
    return f"{span[0]:g} to {span[-1]:g}".replace("-", "\N{MINUS SIGN}")


def _draw(axes: Axes, figure: Figure, x: Sequence[float], y: Sequence[float], values: Array, name: str) -> None:
    """Draw a heat map [y, x] between borders; the colours of a gain are centred at 0."""
    finite = values[np.isfinite(values)]
    colours: Mapping[str, Any] = {"cmap": "viridis"}
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


def _frame(axes: Axes, left: float, low: float, right: float, high: float) -> None:
    for width, colour in FRAME:
        axes.add_patch(_rectangle(left, low, right, high, width, colour))


def _rectangle(left: float, low: float, right: float, high: float, width: float, colour: str) -> Rectangle:
    from matplotlib.patches import Rectangle

    size = (right - left, high - low)
    return Rectangle((left, low), *size, fill=False, edgecolor=colour, linewidth=width, clip_on=False, zorder=3)


def _spans(axis: TaskAxis, span: Sequence[float]) -> list[tuple[float, float]]:
    """Return where the training range begins and ends on an axis; neighbouring values of a choice are one span."""
    if not axis.names:
        return [(span[0], span[-1])]
    spans: list[tuple[float, float]] = []
    for i in (i for i, value in enumerate(axis.cells) if value in span):
        if spans and spans[-1][1] == i - 0.5:
            spans[-1] = (spans[-1][0], i + 0.5)
        else:
            spans.append((i - 0.5, i + 0.5))
    return spans


def _scale(axes: Axes, which: str, axis: TaskAxis) -> None:
    """Set ticks and label of a task parameter's axis."""
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(axis.label)
    if axis.names:
        (axes.set_xticks if which == "x" else axes.set_yticks)(range(len(axis.names)), axis.names)
        if which == "x" and max(map(len, axis.names)) > 4:
            axes.set_xticks(range(len(axis.names)), axis.names, rotation=40, ha="right", rotation_mode="anchor")
    elif axis.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        plain_ticks(axes.xaxis if which == "x" else axes.yaxis)


def plain_ticks(axis: Axis) -> None:
    """Set few ticks on a logarithmic axis, with the numbers written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high / low < 30 else (1.0, 3.0) if high / low < 1000 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
