"""Figures of a report, narrow enough to be read on a phone, each as PNG and as SVG that follows light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from metarl.config import SPLIT_NAMES
from metarl.envs.parameters import LogUniform
from metarl.evaluation.statistics import Array, Interval
from metarl.reporting.agent_figures import (
    Shown,
    bin_interval,
    bins_of,
    draw_adaptation,
    draw_parameter,
    legend,
    mark_range,
    ranges_to_mark,
    short,
    what_is_drawn,
)
from metarl.reporting.figures import COLOURS, INK, QUIET, STYLE, axis_label, name_ticks, styles
from metarl.reporting.report_data import Judgement, ReportedRun, one_agent, seconds_of
from metarl.wording import number_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from metarl.envs.family import TaskFamily
    from metarl.envs.parameters import Parameter

WIDTH, HEIGHT = 4.9, 3.5
"""Inches: at 390 pixels the text is as large as the page's small print."""
ROOM = 52
"""Letters that fit beside each other in a legend."""
PARAMETERS = 8
"""Parameters drawn at most, those first on which the returns depend most."""
CELL_TASKS, CELLS = 4, 6
"""Tasks of a cell of a heat map on average at least, and cells along a side at most."""
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


def looks_of(runs: Sequence[ReportedRun], judgements: Sequence[Judgement]) -> dict[str, dict[str, Any]]:
    """How each run and each agent is drawn in all figures, by the label of a run and the key of an agent.

    A run that is judged with settings of its own only lends its look to the first agent that it is. Runs of one agent
    look alike.
    """
    agents = [agent for judgement in judgements for agent in judgement.agents]
    first = one_agent(judgements)
    own = [(run.label, run.config.training.reveal_task) for run in runs if first.get(run.label, run.label) == run.label]
    looks = styles([*own, *((agent.key, agent.oracle) for agent in agents)])
    looks |= {label: looks[leader] for label, leader in first.items()}
    lent = {agent.of for agent in agents if agent.plain}
    for agent in agents:
        if agent.of and agent.of not in lent:
            looks[agent.key] = looks[agent.of]
            lent.add(agent.of)
    return looks


def shown_of(judgement: Judgement, looks: Mapping[str, dict[str, Any]]) -> list[Shown]:
    """The agents as they are drawn in every figure."""
    return [Shown(a.label, a.by_seed, a.iqm, a.envs_per_task, looks[a.key]) for a in judgement.agents]


def adaptation_curves(name: str, judgement: Judgement, agents: Sequence[Shown]) -> Picture:
    """IQM of the return after each round with its interval, all agents."""

    def draw(axes: Axes) -> None:
        draw_adaptation(axes, agents)
        legend(axes, ROOM)

    said = "; ".join(
        f"{a.label} from {a.iqm[0].estimate:.4g} to {a.iqm[-1].estimate:.4g} after {number_of(a.adaptations, 'round')}"
        for a in agents
    )
    split = SPLIT_NAMES[judgement.split]
    return picture(
        name,
        f"Adaptation curves on {split} tasks of {judgement.family}: IQM of the return of {said}.",
        f"Return against rounds of adaptation on {split} tasks of {judgement.family}: IQM over tasks, with its 95 % "
        "interval.",
        draw,
    )


def by_parameter(
    name: str, judgement: Judgement, agents: Sequence[Shown], parameter: str, family: TaskFamily | None
) -> Picture:
    """Return before and after adaptation against a parameter."""
    values = judgement.values(parameter)
    known = _parameter(family, parameter)
    trained = _trained(judgement, family).get(parameter)

    def draw(axes: Axes) -> None:
        draw_parameter(axes, agents, values, known, trained, _words(parameter, known))
        axes.set_ylabel("return of an episode")
        legend(axes, ROOM)

    ends = []
    for agent in agents:
        found = (bin_interval(agent.after()[:, group]) for group in bins_of(values))
        ends.append(f"{agent.label} {', '.join(f'{own.estimate:.4g}' for own in found if own)}")
    words = parameter.replace("_", " ")
    low, high = (known.words(end) if known else f"{end:.3g}" for end in (values.min(), values.max()))
    return picture(
        name,
        f"Return after adaptation against {words}, from {low} to {high}: {'; '.join(ends)}.",
        f"Return against {words} after the last round of adaptation: {what_is_drawn(values)}." + _range_note(trained),
        draw,
    )


def heat_map(
    name: str,
    judgement: Judgement,
    agents: Sequence[Shown],
    agent: Shown,
    pair: tuple[str, str],
    family: TaskFamily | None,
) -> Picture | None:
    """Return after adaptation against two parameters, of one agent; the scale is the same for all agents.

    None if no cell has two tasks.
    """
    across, up = pair
    x, y = judgement.values(across), judgement.values(up)
    known = [_parameter(family, parameter) for parameter in pair]
    trained = [_trained(judgement, family).get(parameter) for parameter in pair]
    edges = [_edges(v, parameter) for v, parameter in zip((x, y), known, strict=True)]
    cells = {id(a): _cells(x, y, a.after(), edges) for a in agents}
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
        for side, parameter in zip("xy", trained, strict=True):
            mark_range(axes, parameter, side)
        for parameter, set_scale in zip(known, (axes.set_xscale, axes.set_yscale), strict=True):
            if isinstance(parameter and parameter.distribution, LogUniform):
                set_scale("log", base=2)
        for axis, parameter in zip((axes.xaxis, axes.yaxis), known, strict=True):
            if isinstance(parameter and parameter.distribution, LogUniform):
                axis.set_major_formatter("{x:g}")
        for axis, values, parameter in zip((axes.xaxis, axes.yaxis), (x, y), known, strict=True):
            name_ticks(axis, values, parameter)
        axes.set(xlabel=_words(across, known[0]), ylabel=_words(up, known[1]))

    words = [parameter.replace("_", " ") for parameter in pair]
    best, worst = (choose(own.values(), key=lambda i: i.estimate).estimate for choose in (max, min))
    return picture(
        name,
        f"Heat map of {agent.label}'s return after adaptation against {words[0]} and {words[1]}, in {len(own)} cells "
        f"from {worst:.4g} to {best:.4g}.",
        f"{agent.label} after {number_of(agent.adaptations, 'round')}: IQM of the return over the tasks in a cell, "
        "with its 95 % interval; empty where there are fewer than two tasks. One scale for all agents."
        + _range_note(*trained),
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
    """The IQM of returns [training seed, task] by (row, column) of the cells that have one."""
    columns, rows = (
        np.clip(np.searchsorted(e, v, side="right") - 1, 0, len(e) - 2) for e, v in zip(edges, (x, y), strict=True)
    )
    found = {}
    for row, column in sorted(set(zip(rows.tolist(), columns.tolist(), strict=True))):
        interval = bin_interval(returns[:, (rows == row) & (columns == column)])
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


def _trained(judgement: Judgement, family: TaskFamily | None) -> dict[str, Parameter]:
    trained = [agent.data.get("trained") or {} for agent in judgement.agents]
    return ranges_to_mark(trained, judgement.family_settings, family, judgement.split)


def _range_note(*trained: Parameter | None) -> str:
    return " Dashed: the ends of the range of training." if any(trained) else ""


def learning_curves(
    name: str, family: str, runs: Sequence[ReportedRun], looks: Mapping[str, dict[str, Any]], hours: bool
) -> Picture:
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
        alike = [id(looks[run.label]) for run in runs]
        for i, run in enumerate(runs):
            colour, line = looks[run.label]["color"], looks[run.label]["linestyle"]
            more = alike.count(alike[i]) - 1
            named = short(run.label) + (f" and {number_of(more, 'more training seed')}" if more else "")
            for key, width, style, label in (
                ("return/before", 1.1, ":", None),
                ("return/after", 1.6, line, None if alike[i] in alike[:i] else named),
            ):
                if key == "return/before" and not run.config.training.adaptations:
                    continue  # it is the same
                y = np.array([line.get(key) for line in run.metrics], dtype=np.float64)
                x, y = _thinned(x_of(run)), _thinned(y)
                face = "none" if key == "return/before" else colour
                dot: dict[str, Any] = {"marker": "o", "markerfacecolor": face} if len(x) == 1 else {}
                axes.plot(x, y, color=colour, linewidth=width, linestyle=style, label=label, **dot)
        if any(run.config.training.adaptations for run in runs):
            axes.plot([], [], color=QUIET, linestyle=":", label="before adaptation")
        axes.set(xlabel=f"{clock_unit} of training" if hours else f"env steps of training ({unit})")
        axes.set(ylabel="return, training tasks")
        if hours:
            axes.set_xlim(left=0)
        legend(axes, ROOM)

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
        + (
            "Lines alike are training seeds of one agent."
            if len({id(looks[run.label]) for run in runs}) < len(runs)
            else "One line is one training run: no interval can be given."
        ),
        draw,
    )


def _thinned(values: Array) -> Array:
    """At most `LINES` values, each the mean of its neighbours; NaN are left out of it."""
    if len(values) <= LINES:
        return values
    parts: Iterable[Array] = np.array_split(values, LINES)
    return np.array([np.nan if np.isnan(part).all() else np.nanmean(part) for part in parts])
