"""Figures of a report, narrow enough to be read on a phone, each as PNG and as SVG that follows light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metarl.comparison_figures import COLOURS, FEW, MARKERS
from metarl.config import SPLIT_NAMES
from metarl.envs.parameters import LogUniform
from metarl.figures import INK, LEGEND, QUIET, STYLE, axis_label
from metarl.report_data import Judged, Judgement, ReportedRun, seconds_of
from metarl.statistics import Array, Interval, bootstrap_interval, mean
from metarl.trial import stream

Indices = NDArray[np.int64]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from metarl.envs.family import Parameter, TaskFamily

WIDTH, HEIGHT = 4.9, 3.5
"""Inches: at 390 pixels the text is as large as the page's small print."""
PARAMETERS = 8
"""Parameters drawn at most, those first on which the returns depend most."""
BIN_TASKS, BINS = 6, 8
"""Tasks of a bin along one parameter at least, and bins at most."""
CELL_TASKS, CELLS = 4, 6
"""Tasks of a cell of a heat map on average at least, and cells along a side at most."""
SAMPLES = 1000
"""Resamples of the bootstrap behind the interval of a bin or a cell."""
LINES = 200
"""Points of a learning curve at most; each is the mean of the iterations that it stands for."""
DARK = {
    INK: "#e4e6ea",
    "#e6e6e6": "#3a3f47",
    QUIET: "#8b929a",
    **dict(zip(COLOURS, ("#5cb2ee", "#ff9a52", "#3fd0a4", "#e9a5cb", "#f5be4a", "#8fd0f7", "#c9a871"), strict=True)),
}
"""What each colour is on a dark page."""


@dataclass(frozen=True)
class Picture:
    """A figure."""

    name: str
    """Of its file, without suffix."""
    alt: str
    """What it shows, for those who do not see it."""
    caption: str
    png: bytes
    svg: bytes = b""
    """Empty: the PNG is shown."""
    wide: bool = False
    """Whether it takes the whole width of the page."""


def picture(name: str, alt: str, caption: str, draw: Callable[[Axes], None], height: float = HEIGHT) -> Picture:
    """A figure of one panel."""
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {**STYLE, "svg.hashsalt": name, "svg.fonttype": "path"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.subplots())
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it stays as it is; the layout takes longer than the drawing
        return Picture(name, alt, caption, _png(figure), adaptive(_svg(figure)))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def adaptive(svg: str) -> bytes:
    """An SVG whose colours of `DARK` follow prefers-color-scheme, and without what names another address."""
    names = {light.lower(): f"--c{i}" for i, light in enumerate(DARK)}
    svg = re.sub(r"#[0-9a-fA-F]{6}\b", lambda m: f"var({n})" if (n := names.get(m[0].lower())) else m[0], svg)
    light = ";".join(f"{name}:{colour}" for colour, name in names.items())
    dark = ";".join(f"{name}:{colour}" for name, colour in zip(names.values(), DARK.values(), strict=True))
    rules = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<\?xml.*?\?>\s*|<!DOCTYPE.*?>\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"(<svg[^>]*>)", lambda m: m[1] + rules, svg, count=1, flags=re.DOTALL).encode()


def look(agents: Sequence[Judged], index: int) -> dict[str, Any]:
    """Colour, marker and line of an agent; an oracle is grey and dashed."""
    if agents[index].oracle:
        return {"color": INK, "marker": "", "linestyle": (0, (4, 2))}
    place = index - sum(agent.oracle for agent in agents[:index])
    line = "-" if place < len(COLOURS) else "--"
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)], "linestyle": line}


def rounds(agent: Judged) -> str:
    """How often it adapted, in words."""
    return f"{agent.adaptations} round{'s' * (agent.adaptations != 1)}"


def legend(axes: Axes) -> None:
    """Names above the axes, in as many columns as they fit into."""
    handles, names = axes.get_legend_handles_labels()
    longest = max(map(len, names), default=1)
    axes.legend(handles, [_short(name) for name in names], **{**LEGEND, "ncols": max(1, min(3, 52 // (longest + 6)))})


def _short(text: str, length: int = 44) -> str:
    return text if len(text) <= length else f"{text[: length // 2]}…{text[-length // 2 + 1 :]}"


def adaptation_curves(name: str, judgement: Judgement) -> Picture:
    """IQM of the return after each round with its interval, all agents."""
    agents = judgement.agents
    alike = len({agent.envs_per_task for agent in agents}) == 1

    def draw(axes: Axes) -> None:
        for i, agent in enumerate(agents):
            x = np.arange(len(agent.iqm)) * (1 if alike else agent.envs_per_task)
            low, middle, high = _ends(agent.iqm)
            style = look(agents, i)
            axes.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)
            axes.errorbar(x, middle, [middle - low, high - middle], fmt="none", ecolor=style["color"], capsize=2.5)
            axes.plot(x, middle, label=agent.label, linewidth=1.8, markersize=4.5, **style)
        axes.locator_params(axis="x", integer=True)
        each = f"{agents[0].envs_per_task} episode{'s' * (agents[0].envs_per_task != 1)} each"
        what = f"rounds of adaptation ({each})" if alike else "episodes of the task"
        axes.set(xlabel=what, ylabel="return of an episode")
        legend(axes)

    said = "; ".join(
        f"{a.label} from {a.iqm[0].estimate:.4g} to {a.iqm[-1].estimate:.4g} after {rounds(a)}" for a in agents
    )
    split = SPLIT_NAMES[judgement.split]
    return picture(
        name,
        f"Adaptation curves on {split} tasks of {judgement.family}: IQM of the return of {said}.",
        f"Return against rounds of adaptation on {split} tasks of {judgement.family}: IQM over tasks, with its 95 % "
        "interval.",
        draw,
    )


def _ends(intervals: Sequence[Interval]) -> tuple[Array, Array, Array]:
    low, middle, high = (np.array([getattr(i, end) for i in intervals]) for end in ("low", "estimate", "high"))
    return low, middle, high


def final(agent: Judged, shot: int = -1) -> Array:
    """Return of each task after a round, [seed x task]."""
    return agent.returns[:, shot].ravel()


def dependence(values: Array, returns: Array) -> float:
    """Share of the variance of the returns that lies between bins of the values (correlation ratio, eta squared)."""
    sound = np.isfinite(returns)
    values, returns = values[sound], returns[sound]
    if len(returns) < 2 or np.var(returns) == 0:
        return 0.0
    own = [returns[chosen] for chosen in bins_of(values)]
    between = sum(len(part) * (part.mean() - returns.mean()) ** 2 for part in own)
    return float(between / (len(returns) * np.var(returns)))


def ranked(judgement: Judgement) -> list[str]:
    """Parameters that vary among the tasks, those first on which the returns depend most."""
    names = [name for name in judgement.names if np.ptp(judgement.values(name)) > 0]
    total = {
        name: sum(dependence(judgement.values(name), final(agent)) for agent in judgement.agents) for name in names
    }
    return sorted(names, key=lambda name: -total[name])


def bins_of(values: Array) -> list[Indices]:
    """Indices of the values in groups of equally many, or one group a value where there are few."""
    distinct = np.unique(values)
    if len(distinct) < FEW and 2 * len(distinct) <= len(values):
        return [np.flatnonzero(values == value) for value in distinct]
    return np.array_split(np.argsort(values, kind="stable"), max(1, min(BINS, len(values) // BIN_TASKS)))


def sides_of(values: Array, trained: Parameter | None) -> list[list[Indices]]:
    """`bins_of` the values below, in and above the range of training, each by itself; of all if it is None."""
    if trained is None:
        return [bins_of(values)]
    low, high = trained.distribution.low, trained.distribution.high
    sides = [np.flatnonzero(side) for side in (values < low, (low <= values) & (values <= high), values > high)]
    return [[side[group] for group in bins_of(values[side])] for side in sides if len(side)]


def bin_interval(returns: Array) -> Interval | None:
    """Mean over the tasks of a bin with its bootstrap interval; None if fewer than two have a return."""
    sound = returns[np.isfinite(returns)]
    if len(sound) < 2:
        return None
    resamples = stream(0, "report/bins").integers(0, len(sound), (SAMPLES, len(sound)))
    return bootstrap_interval(sound, resamples, mean)


def by_parameter(name: str, judgement: Judgement, parameter: str, family: TaskFamily | None) -> Picture:
    """Return before and after adaptation against a parameter."""
    agents, values = judgement.agents, judgement.values(parameter)
    known = _parameter(family, parameter)
    sides = sides_of(values, known if judgement.split == "ood" else None)
    groups = [group for side in sides for group in side]

    def draw(axes: Axes) -> None:
        _mark_range(axes, judgement, known, "x")
        for i, agent in enumerate(agents):
            style = look(agents, i)
            if agent.adaptations and len(agents) <= 4:
                quiet = {**style, "marker": "", "linestyle": ":"}
                _draw_bins(axes, values, final(agent, 0), sides, quiet, 0.08)
            _draw_bins(axes, values, final(agent), sides, style, 0.18, agent.label)
        if any(agent.adaptations for agent in agents) and len(agents) <= 4:
            axes.plot([], [], color=QUIET, linestyle=":", label="before adaptation")
        if isinstance(known and known.distribution, LogUniform):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
        axes.set(xlabel=_words(parameter, known), ylabel="return of an episode")
        legend(axes)

    ends = []
    for agent in agents:
        means = [f"{found.estimate:.4g}" for group in groups if (found := bin_interval(final(agent)[group]))]
        ends.append(f"{agent.label} {', '.join(means)}")
    words = parameter.replace("_", " ")
    return picture(
        name,
        f"Return after adaptation against {words}, from {values.min():.3g} to {values.max():.3g}: {'; '.join(ends)}.",
        f"Return against {words} after the last round of adaptation: mean over tasks of like values, with its 95 % "
        "interval." + _range_note(judgement, known),
        draw,
    )


def _draw_bins(
    axes: Axes,
    values: Array,
    returns: Array,
    sides: Sequence[Sequence[Indices]],
    style: dict[str, Any],
    alpha: float,
    label: str | None = None,
) -> None:
    """A line a side: between two of them nothing was measured."""
    for i, groups in enumerate(sides):
        found = [(float(np.mean(values[group])), bin_interval(returns[group])) for group in groups]
        x = np.array([at for at, interval in found if interval])
        low, middle, high = _ends([interval for _, interval in found if interval])
        axes.fill_between(x, low, high, color=style["color"], alpha=alpha, linewidth=0)
        axes.plot(x, middle, label=None if i else label, linewidth=1.6, markersize=4, **style)


def heat_map(
    name: str, judgement: Judgement, agent: Judged, pair: tuple[str, str], family: TaskFamily | None
) -> Picture | None:
    """Return after adaptation against two parameters, of one agent; the scale is the same for all agents.

    None if no cell has two tasks.
    """
    across, up = pair
    x, y = judgement.values(across), judgement.values(up)
    known = [_parameter(family, parameter) for parameter in pair]
    edges = [_edges(v, parameter) for v, parameter in zip((x, y), known, strict=True)]
    cells = {id(a): _cells(x, y, final(a), edges) for a in judgement.agents}
    scale = [i.estimate for own in cells.values() for i in own.values()]
    own = cells[id(agent)]
    if not own:
        return None
    low, high = min(scale), max(scale)

    def draw(axes: Axes) -> None:
        import matplotlib

        grid = np.full((len(edges[1]) - 1, len(edges[0]) - 1), np.nan)
        for (row, column), interval in own.items():
            grid[row, column] = interval.estimate
        colours = matplotlib.colormaps["cividis"]
        mesh = axes.pcolormesh(
            edges[0], edges[1], grid, cmap=colours, vmin=low, vmax=high, edgecolor="face", linewidth=0.4
        )
        for (row, column), interval in own.items():
            share = (interval.estimate - low) / (high - low) if high > low else 1.0
            at = [_middle(e[i : i + 2], p) for e, i, p in zip(edges, (column, row), known, strict=True)]
            text = f"{_brief(interval.estimate)}\n[{_brief(interval.low)}, {_brief(interval.high)}]"
            small = 8.0 if len(edges[0]) <= 4 else 6.6 if len(edges[0]) <= 5 else 5.4
            colour = "#fefefe" if share < 0.5 else "#111111"
            axes.text(at[0], at[1], text, ha="center", va="center", fontsize=small, color=colour)
        bar = figure_of(axes).colorbar(mesh, ax=axes, label="return of an episode", aspect=30, pad=0.02)
        bar.outline.set(visible=False)
        axes.grid(visible=False)
        _mark_box(axes, judgement, known)
        for parameter, set_scale in zip(known, (axes.set_xscale, axes.set_yscale), strict=True):
            if isinstance(parameter and parameter.distribution, LogUniform):
                set_scale("log", base=2)
        for axis, parameter in zip((axes.xaxis, axes.yaxis), known, strict=True):
            if isinstance(parameter and parameter.distribution, LogUniform):
                axis.set_major_formatter("{x:g}")
        axes.set(xlabel=_words(across, known[0]), ylabel=_words(up, known[1]))

    words = [parameter.replace("_", " ") for parameter in pair]
    best, worst = (choose(own.values(), key=lambda i: i.estimate).estimate for choose in (max, min))
    return picture(
        name,
        f"Heat map of {agent.label}'s return after adaptation against {words[0]} and {words[1]}, in {len(own)} cells "
        f"from {worst:.4g} to {best:.4g}.",
        f"{agent.label} after {rounds(agent)}: mean return of the tasks in a cell, with its 95 % interval; "
        "empty where there are fewer than two tasks. One scale for all agents." + _range_note(judgement, *known),
        draw,
        HEIGHT + 0.5,
    )


def _edges(values: Array, parameter: Parameter | None) -> Array:
    """Edges of cells along a parameter; a parameter of few values has a cell a value."""
    distinct = np.unique(values)
    if 1 < len(distinct) <= CELLS and 2 * len(distinct) <= len(values):
        inner = (distinct[1:] + distinct[:-1]) / 2
        return np.array([2 * distinct[0] - inner[0], *inner, 2 * distinct[-1] - inner[-1]])
    count = max(2, min(CELLS, int(np.sqrt(len(values) / CELL_TASKS))))
    if parameter is not None and isinstance(parameter.distribution, LogUniform):
        return np.geomspace(values.min(), values.max(), count + 1)
    return np.linspace(values.min(), values.max(), count + 1)


def _cells(x: Array, y: Array, returns: Array, edges: Sequence[Array]) -> dict[tuple[int, int], Interval]:
    """The return's mean by (row, column) of the cells that have one."""
    columns, rows = (
        np.clip(np.searchsorted(e, v, side="right") - 1, 0, len(e) - 2) for e, v in zip(edges, (x, y), strict=True)
    )
    found = {}
    for row, column in sorted(set(zip(rows.tolist(), columns.tolist(), strict=True))):
        interval = bin_interval(returns[(rows == row) & (columns == column)])
        if interval is not None:
            found[row, column] = interval
    return found


def figure_of(axes: Axes) -> Figure:
    """The figure that a panel is in."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _middle(ends: Array, parameter: Parameter | None) -> float:
    log = parameter is not None and isinstance(parameter.distribution, LogUniform)
    return float(np.sqrt(ends[0] * ends[1]) if log else np.mean(ends))


def _brief(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.2g}"


def _parameter(family: TaskFamily | None, name: str) -> Parameter | None:
    return next((p for p in family.parameters if p.name == name), None) if family else None


def _words(name: str, parameter: Parameter | None) -> str:
    return axis_label(parameter) if parameter else name.replace("_", " ")


def _mark_range(axes: Axes, judgement: Judgement, parameter: Parameter | None, side: str) -> None:
    """Where training ended, on tasks beyond it."""
    if judgement.split == "ood" and parameter is not None:
        for end in (parameter.distribution.low, parameter.distribution.high):
            line = axes.axvline if side == "x" else axes.axhline
            line(end, color=INK, linewidth=0.9, linestyle=(0, (5, 3)))


def _mark_box(axes: Axes, judgement: Judgement, known: Sequence[Parameter | None]) -> None:
    for side, parameter in zip("xy", known, strict=True):
        _mark_range(axes, judgement, parameter, side)


def _range_note(judgement: Judgement, *known: Parameter | None) -> str:
    marked = judgement.split == "ood" and any(known)
    return " Dashed: the ends of the range of training." if marked else ""


def learning_curves(name: str, family: str, runs: Sequence[ReportedRun], hours: bool) -> Picture:
    """Return before and after adaptation on training tasks against env steps or hours, all runs."""
    most = max(run.metrics[-1]["env_steps"] for run in runs)
    scale, unit = (1e6, "millions") if most >= 1e6 else (1e3, "thousands")
    longest = max(run.hours for run in runs)
    clock, clock_unit = (1.0, "hours") if longest >= 1 else (1 / 60, "minutes")

    def x_of(run: ReportedRun) -> Array:
        if hours:
            return np.cumsum([seconds_of(line) for line in run.metrics]) / 3600 / clock
        return np.array([line["env_steps"] for line in run.metrics], dtype=np.float64) / scale

    def draw(axes: Axes) -> None:
        for i, run in enumerate(runs):
            colour, line = COLOURS[i % len(COLOURS)], "-" if i < len(COLOURS) else "--"
            for key, width, style, label in (
                ("return/before", 1.1, ":", None),
                ("return/after", 1.6, line, run.label),
            ):
                y = np.array([line.get(key) for line in run.metrics], dtype=np.float64)
                x, y = _thinned(x_of(run)), _thinned(y)
                dot: dict[str, Any] = (
                    {"marker": "o", "markerfacecolor": colour if label else "none"} if len(x) == 1 else {}
                )
                axes.plot(x, y, color=colour, linewidth=width, linestyle=style, label=label, **dot)
        axes.plot([], [], color=QUIET, linestyle=":", label="before adaptation")
        axes.set(xlabel=f"{clock_unit} of training" if hours else f"env steps of training ({unit})")
        axes.set(ylabel="return, training tasks")
        if hours:
            axes.set_xlim(left=0)
        legend(axes)

    against = "time" if hours else "env steps"
    said = "; ".join(
        f"{run.label} ends at {last:.4g}" if (last := run.metrics[-1].get("return/after")) is not None else run.label
        for run in runs
    )
    return picture(
        name,
        f"Learning curves on {family} against {against}: return after adaptation on training tasks; {said}.",
        f"Learning curves against {against}: mean return of an iteration's training tasks after (lines) and before "
        "(dots) adaptation. "
        + ("Time of collection and updates, without evaluations. " if hours else "")
        + "One line is one training run: no interval can be given.",
        draw,
    )


def _thinned(values: Array) -> Array:
    """At most `LINES` values, each the mean of its neighbours; NaN are left out of it."""
    if len(values) <= LINES:
        return values
    parts: Iterable[Array] = np.array_split(values, LINES)
    return np.array([np.nan if np.isnan(part).all() else np.nanmean(part) for part in parts])
