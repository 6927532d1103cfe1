"""Figures of a comparison: adaptation curves, return against each parameter, probability of improvement, as PNG."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metarl.config import SPLIT_NAMES
from metarl.figures import INK, LEGEND, NARROW, QUIET, STYLE, WIDTH, axis_label, save, title_of
from metarl.statistics import Array, interquartile_mean

Indices = NDArray[np.int64]

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from metarl.comparison import Compared, Comparison
    from metarl.envs.family import Parameter

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8c6d31")
"""Okabe and Ito's, told apart by every kind of colour vision, yellow left out, and a brown; agent by agent."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LABEL = 40
"""Longest names of agents in figures."""
BANDS = 3
"""Agents whose intervals are drawn as bands; those of more agents are bars beside each other."""
PANELS, COLUMNS = 6, 3
"""Parameters drawn at most, those first on which the return depends most; panels in a row."""
BINS, FEW = 6, 9
"""Groups of equally many tasks along a parameter; a parameter of fewer values has one group a value."""
PAIR_LABEL = 32
"""Longest names of agents beside their pair's bar."""
PAIRS = 15
"""Pairs of agents drawn at most."""
LOG_FROM = 10
"""Rounds beyond which the axis of rounds is logarithmic."""


def draw(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Draw what there is to see; returns the files by name."""
    import matplotlib

    wanted: dict[str, tuple[bool, Callable[[Comparison, Path], None]]] = {
        "curves": (True, adaptation_curves),
        "parameters": (bool(informative(comparison)), by_parameter),
        "improvement": (bool(comparison.improvements), improvement_bars),
    }
    paths = {name: folder / f"{name}.png" for name, (there, _) in wanted.items() if there}
    with matplotlib.rc_context(STYLE):
        for name, path in paths.items():
            wanted[name][1](comparison, path)
    return paths


def adaptation_curves(comparison: Comparison, path: Path) -> None:
    """IQM of the return after each round with its interval, all agents on one axes."""
    from matplotlib.figure import Figure

    agents = comparison.agents
    alike = len({agent.result.settings.envs_per_task for agent in agents}) == 1
    per_round = agents[0].result.settings.envs_per_task if alike else 1
    rows = -(-len(agents) // columns_of(agents))
    figure = Figure(figsize=(NARROW, 3.4 + 0.2 * rows), layout="constrained")
    axes = figure.subplots()
    most = max(agent.result.settings.adaptations for agent in agents)
    for i, agent in enumerate(agents):
        settings, iqm = agent.result.settings, agent.result.summary.iqm
        x = np.arange(len(iqm)) * (1 if alike else settings.envs_per_task)
        low, middle, high = (np.array([getattr(shot, end) for shot in iqm]) for end in ("low", "estimate", "high"))
        look = style_of(agents, i)
        bars = len(iqm) == 1 or len(agents) > BANDS
        if bars:
            x = x + (i - (len(agents) - 1) / 2) * 0.05 * (1 if alike else settings.envs_per_task)
            axes.errorbar(x, middle, [middle - low, high - middle], color=look["color"], capsize=2, linewidth=1.1)
        else:
            axes.fill_between(x, low, high, color=look["color"], alpha=0.16, linewidth=0)
        axes.plot(x, middle, label=short(agent.label, LABEL), linewidth=1.8, markersize=4.5, **look)
        if len(iqm) <= most:  # goes on as it is, to be compared with at the others' last round
            axes.axhline(middle[-1], color=look["color"], linewidth=0.9, linestyle=(0, (1, 2)), zorder=0.5)
    if most > LOG_FROM:
        unit = 1 if alike else min(agent.result.settings.envs_per_task for agent in agents)
        axes.set_xscale("symlog", linthresh=unit)
        axes.set_xlim(left=-0.3 * unit)
        axes.set_xticks([0, *(unit * rounds for rounds in (1, 3, 10, 30, 100, 300) if rounds <= most)])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    elif alike:
        axes.set_xticks(range(most + 1))
    rounds = f"rounds of adaptation ({per_round} episodes each)" if alike else "episodes of the task before"
    axes.set(xlabel=rounds, ylabel="return of an episode")
    axes.legend(**(LEGEND | {"ncols": columns_of(agents)}))
    title_of(figure, f"{what(comparison)}\nIQM over tasks and its 95 % interval")
    save(figure, path)


def short(label: str, length: int) -> str:
    """A label of at most that length; what is cut is in its middle, since both ends tell agents apart."""
    tail = length // 2
    return label if len(label) <= length else f"{label[: length - tail - 1]}…{label[-tail:]}"


def columns_of(agents: list[Compared]) -> int:
    """Columns of a legend into which the labels fit."""
    longest = max(len(short(agent.label, LABEL)) for agent in agents)
    return max(1, min(len(agents), 3, 84 // (longest + 8)))


def style_of(agents: list[Compared], index: int) -> dict[str, Any]:
    """Colour, marker and line of an agent; an oracle is black and dashed."""
    if agents[index].oracle:
        return {"color": INK, "marker": "", "linestyle": (0, (4, 2))}
    place = index - sum(agent.oracle for agent in agents[:index])
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)], "linestyle": "-"}


def what(comparison: Comparison) -> str:
    """The tasks, in words."""
    settings = comparison.settings
    tasks = sum(map(len, comparison.tasks))
    return f"{comparison.family.name}: {tasks} {SPLIT_NAMES[settings.split]} tasks, {len(settings.seeds)} seeds"


def informative(comparison: Comparison) -> list[Parameter]:
    """The parameters that differ between the tasks, those first with which the return of some agent goes most."""
    found = []
    for parameter in comparison.family.parameters:
        values = values_of(comparison, parameter)
        if len(np.unique(values)) > 1:
            returns = (agent.result.returns[:, -1].ravel() for agent in comparison.agents)
            found.append((max(dependence(values, r) for r in returns), parameter))
    found.sort(key=lambda pair: -pair[0])
    return [parameter for _, parameter in found[:PANELS]]


def values_of(comparison: Comparison, parameter: Parameter) -> Array:
    """The parameter's value in each task, seed after seed."""
    return np.array([task.values[parameter.name] for tasks in comparison.tasks for task in tasks])


def groups_of(values: Array) -> list[Indices]:
    """Tasks of like values: one group a value where these are few, otherwise equally many in each; indices."""
    order = np.argsort(values, kind="stable")
    distinct = np.unique(values)
    if len(distinct) < FEW:
        return [np.flatnonzero(values == value) for value in distinct]
    return [part for part in np.array_split(order, min(BINS, len(values))) if part.size]


def dependence(values: Array, returns: Array) -> float:
    """Share of the variance of the return that is between groups of tasks of like values (eta squared)."""
    sound = np.isfinite(returns)
    values, returns = values[sound], returns[sound]
    total = float(np.sum((returns - returns.mean()) ** 2)) if returns.size else 0.0
    if total == 0.0:
        return 0.0
    return sum(g.size * (returns[g].mean() - returns.mean()) ** 2 for g in groups_of(values)) / total


def by_parameter(comparison: Comparison, path: Path) -> None:
    """IQM of the return over tasks of like values of a parameter, before adaptation and after, one panel each."""
    from matplotlib.figure import Figure

    parameters, agents = informative(comparison), comparison.agents
    columns = min(COLUMNS, len(parameters))
    rows = -(-len(parameters) // columns)
    legend_rows = -(-(len(agents) + 1) // columns_of(agents))
    size = (WIDTH if columns > 1 else NARROW, 2.5 * rows + 0.9 + 0.2 * legend_rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for panel, parameter in zip(panels.flat, parameters, strict=False):
        draw_parameter(panel, comparison, parameter)
    for panel in panels.flat[len(parameters) :]:
        panel.set_axis_off()
    for row in panels:
        row[0].set_ylabel("return of an episode")
    handles, names = panels[0, 0].get_legend_handles_labels()
    if any(agent.result.settings.adaptations for agent in agents):
        handles += panels[0, 0].plot([], [], color=QUIET, linestyle=":", linewidth=1.4)
        names.append("before adaptation")
    figure.legend(handles, names, loc="outside lower left", ncols=columns_of(agents))
    title_of(figure, f"{what(comparison)}\nIQM over tasks of like values, after the last round of adaptation")
    save(figure, path)


def draw_parameter(axes: Axes, comparison: Comparison, parameter: Parameter) -> None:
    """One panel of `by_parameter`."""
    values = values_of(comparison, parameter)
    groups = groups_of(values)
    x = [float(np.mean(values[group])) for group in groups]
    for i, agent in enumerate(comparison.agents):
        look = style_of(comparison.agents, i)
        shots = [(-1, 1.8, 1.0), *([(0, 1.2, 0.75)] if agent.result.settings.adaptations else [])]
        for shot, width, alpha in shots:
            returns = agent.result.returns[:, shot].ravel()
            y = [middle(returns[group]) for group in groups]
            drawn = {**look, "linestyle": ":", "marker": ""} if shot == 0 else look
            name = short(agent.label, LABEL) if shot == -1 else None
            axes.plot(x, y, label=name, linewidth=width, alpha=alpha, markersize=3.8, **drawn)
    axes.set_xlabel(axis_label(parameter))
    if len(np.unique(values)) < FEW:
        axes.set_xticks(x)
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.locator_params(axis="x", nbins=5)


def middle(returns: Array) -> float:
    """IQM of the returns that there are."""
    sound = returns[np.isfinite(returns)]
    return float(interquartile_mean(sound)) if sound.size else math.nan


def improvement_bars(comparison: Comparison, path: Path) -> None:
    """How likely one agent does better on a task than another, with the interval; what crosses the line is open."""
    from matplotlib.figure import Figure

    pairs = comparison.improvements[:PAIRS]
    figure = Figure(figsize=(NARROW, 1.3 + 0.42 * len(pairs)), layout="constrained")
    axes = figure.subplots()
    for y, pair in enumerate(pairs):
        interval = pair.interval
        decided = not interval.includes(0.5)
        colour = COLOURS[0] if interval.low > 0.5 else COLOURS[1] if decided else QUIET
        axes.barh(y, interval.high - interval.low, left=interval.low, height=0.5, color=colour, alpha=0.35, linewidth=0)
        axes.plot([interval.estimate] * 2, [y - 0.25, y + 0.25], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.annotate(f"{interval.estimate:.2f}", (1.02, y), va="center", annotation_clip=False)
    axes.axvline(0.5, color=INK, linewidth=0.9, zorder=0.5)
    axes.set(xlim=(0, 1), ylim=(len(pairs) - 0.5, -0.5), xlabel="probability of the better return on a task")
    names = [f"{short(pair.a, PAIR_LABEL)}\nover {short(pair.b, PAIR_LABEL)}" for pair in pairs]
    axes.set_yticks(range(len(pairs)), names, fontsize=8.5, parse_math=False)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x")
    left = len(comparison.improvements) - len(pairs)
    title_of(figure, f"{what(comparison)}, paired by task" + (f"; {left} more pairs in the file" if left else ""))
    save(figure, path)
