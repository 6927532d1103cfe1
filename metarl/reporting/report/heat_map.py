"""Heat map of a report: the return of an agent after adaptation against two parameters of the tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from metarl.envs.parameters import LogUniform
from metarl.evaluation.comparison import Comparison
from metarl.evaluation.statistics import Array, Interval
from metarl.reporting.agent_figures import Shown, bin_interval, is_named, mark_range
from metarl.reporting.figures import name_ticks
from metarl.reporting.report.figures import (
    HEIGHT,
    Picture,
    axis_words,
    parameter_of,
    picture,
    range_note,
    trained_ranges,
)
from metarl.wording import number_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from metarl.envs.family import TaskFamily
    from metarl.envs.parameters import Parameter

CELL_TASKS, CELLS = 4, 6
"""Smallest average number of tasks in a cell, and largest number of cells along a side."""
Cells = Mapping[tuple[int, int], Interval]
"""IQM of the return by (row, column)."""


@dataclass(frozen=True)
class Side:
    """One of the two parameters."""

    name: str
    values: Array
    """[seed x task]"""
    parameter: Parameter | None
    """None if the family is not known."""
    trained: Parameter | None
    """Parameter whose range of training is to be marked."""

    @property
    def logarithmic(self) -> bool:
        """Whether the axis is logarithmic."""
        return self.parameter is not None and isinstance(self.parameter.distribution, LogUniform)

    @property
    def edges(self) -> Array:
        """Edges of the cells; a parameter of few values, or of values with names, has a cell for each value."""
        values, distinct = self.values, np.unique(self.values)
        if is_named(self.parameter):
            return np.arange(distinct[0], distinct[-1] + 2) - 0.5
        if 1 < len(distinct) <= CELLS and 2 * len(distinct) <= len(values):
            inner = (distinct[1:] + distinct[:-1]) / 2
            return np.array([2 * distinct[0] - inner[0], *inner, 2 * distinct[-1] - inner[-1]])
        count = max(2, min(CELLS, int(np.sqrt(len(values) / CELL_TASKS))))
        return (np.geomspace if self.logarithmic else np.linspace)(values.min(), values.max(), count + 1)

    def middle(self, cell: int) -> float:
        """Return the middle of a cell as it is drawn."""
        ends = self.edges[cell : cell + 2]
        return float(np.sqrt(ends[0] * ends[1]) if self.logarithmic else np.mean(ends))


def heat_map(
    name: str,
    comparison: Comparison,
    agents: Sequence[Shown],
    agent: Shown,
    pair: tuple[str, str],
    family: TaskFamily | None,
) -> Picture | None:
    """Draw the return of one agent after adaptation against two parameters; the scale is the same for all agents.

    None if no cell has two tasks.
    """
    trained = trained_ranges(comparison, family)
    across, up = (Side(own, comparison.values(own), parameter_of(family, own), trained.get(own)) for own in pair)
    by_agent = {id(a): cells_of((across, up), a.after()) for a in agents}
    own = by_agent[id(agent)]
    if not own:
        return None
    scale = [interval.estimate for cells in by_agent.values() for interval in cells.values()]
    rounds = number_of(agent.adaptations, "round")
    words = [parameter.replace("_", " ") for parameter in pair]
    best, worst = (choose(own.values(), key=lambda i: i.estimate).estimate for choose in (max, min))
    return picture(
        name,
        f"Heat map of {agent.label}'s return{' after adaptation' * bool(agent.adaptations)} against {words[0]} and "
        f"{words[1]}, in {number_of(len(own), 'cell')} from {worst:.4g} to {best:.4g}.",
        f"{agent.label}{f' after {rounds}' if agent.adaptations else ''}: IQM of the return over the tasks in a cell, "
        f"{'with its 95 % interval; ' if len(across.edges) <= CELLS + 2 else ''}empty where there are fewer than two "
        "tasks. One scale for all agents." + range_note(across.trained, up.trained),
        lambda axes: _draw(axes, (across, up), own, min(scale), max(scale)),
        HEIGHT + 0.5,
    )


def cells_of(sides: tuple[Side, Side], returns: Array) -> Cells:
    """Return the IQM of returns [training seed, task] of the cells with at least two tasks. sides: across and up."""
    columns, rows = (
        np.clip(np.searchsorted(side.edges, side.values, side="right") - 1, 0, len(side.edges) - 2) for side in sides
    )
    found = {}
    for row, column in sorted(set(zip(rows.tolist(), columns.tolist(), strict=True))):
        interval = bin_interval(returns[:, (rows == row) & (columns == column)])
        if interval is not None:
            found[row, column] = interval
    return found


def _draw(axes: Axes, sides: tuple[Side, Side], cells: Cells, low: float, high: float) -> None:
    """Draw the cells in colours of a scale from low to high, each with its number."""
    import matplotlib

    across, up = sides
    grid = np.full((len(up.edges) - 1, len(across.edges) - 1), np.nan)
    for (row, column), interval in cells.items():
        grid[row, column] = interval.estimate
    colours = matplotlib.colormaps["cividis"]
    mesh = axes.pcolormesh(
        across.edges, up.edges, grid, cmap=colours, vmin=low, vmax=high, edgecolor="face", linewidth=0.4
    )
    small = 8.0 if len(across.edges) <= 4 else 6.6 if len(across.edges) <= 5 else 5.4
    for (row, column), interval in cells.items():
        share = (interval.estimate - low) / (high - low) if high > low else 1.0
        text = _brief(interval.estimate)
        if len(across.edges) <= CELLS + 2:
            text += f"\n[{_brief(interval.low)}, {_brief(interval.high)}]"
        colour = "#fefefe" if share < 0.5 else "#111111"
        at = across.middle(column), up.middle(row)
        axes.text(*at, text, ha="center", va="center", fontsize=small, color=colour)
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(mesh, ax=axes, label="return of an episode", aspect=30, pad=0.02)
    bar.outline.set(visible=False)
    axes.grid(visible=False)
    for axis, side in zip("xy", sides, strict=True):
        mark_range(axes, side.trained, axis)
    _scale(axes, sides)
    axes.set(xlabel=axis_words(across.name, across.parameter), ylabel=axis_words(up.name, up.parameter))


def _scale(axes: Axes, sides: tuple[Side, Side]) -> None:
    """Make axes logarithmic where their parameter is, and name the values of those that have names."""
    for side, set_scale in zip(sides, (axes.set_xscale, axes.set_yscale), strict=True):
        if side.logarithmic:
            set_scale("log", base=2)
    for side, axis in zip(sides, (axes.xaxis, axes.yaxis), strict=True):
        if side.logarithmic:
            axis.set_major_formatter("{x:g}")
        name_ticks(axis, side.values, side.parameter)


def _brief(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.2g}"
