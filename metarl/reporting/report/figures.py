"""Figures of a report that are readable on a phone, each as PNG and as SVG that follows the light or dark scheme."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from metarl.config import SPLIT_NAMES
from metarl.evaluation.comparison import Comparison
from metarl.evaluation.statistics import Array
from metarl.reporting.agent_figures import (
    Shown,
    bin_interval,
    bins_of,
    draw_adaptation,
    draw_parameter,
    is_named,
    legend,
    ranges_to_mark,
    short,
    what_is_drawn,
)
from metarl.reporting.figures import COLOURS, INK, QUIET, STYLE, axis_label, styles, without_glyph_warnings
from metarl.reporting.report.material import ReportedComparison, ReportedRun, one_agent, seconds_of
from metarl.wording import number_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from metarl.envs.family import TaskFamily
    from metarl.envs.parameters import Parameter

WIDTH, HEIGHT = 4.9, 3.5
"""Size in inches: at a width of 390 pixels the text is as large as the page's small print."""
ROOM = 52
"""Number of letters that fit beside each other in a legend."""
PARAMETERS = 8
"""Largest number of parameters drawn, by how much the returns depend on them."""
LINES = 200
"""Largest number of points of a learning curve; each is the mean of several iterations in longer runs."""
DARK = {
    INK: "#e4e6ea",
    "#e6e6e6": "#3a3f47",
    QUIET: "#8b929a",
    **dict(zip(COLOURS, ("#5cb2ee", "#ff9a52", "#3fd0a4", "#e9a5cb", "#f5be4a", "#8fd0f7", "#c9a871"), strict=True)),
}
"""Colours on a dark page, by the colours on a light one."""
Looks = Mapping[str, dict[str, Any]]
"""Style of each run and agent in all figures, see `looks_of`."""


@dataclass(frozen=True)
class Picture:
    """A figure."""

    name: str
    """Name of its file, without suffix."""
    alt: str
    """Description for readers who do not see it."""
    caption: str
    png: bytes
    svg: bytes = b""
    """Empty if the page shows the PNG."""


def picture(name: str, alt: str, caption: str, draw: Callable[[Axes], None], height: float = HEIGHT) -> Picture:
    """Draw a figure of one panel. height: inches."""
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {**STYLE, "svg.hashsalt": name, "svg.fonttype": "path"}
    with matplotlib.rc_context(style), without_glyph_warnings():
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
    """Return an SVG whose colours follow prefers-color-scheme by `DARK`, without references to other addresses."""
    names = {light.lower(): f"--c{i}" for i, light in enumerate(DARK)}
    svg = re.sub(r"#[0-9a-fA-F]{6}\b", lambda m: f"var({n})" if (n := names.get(m[0].lower())) else m[0], svg)
    light = ";".join(f"{name}:{colour}" for colour, name in names.items())
    dark = ";".join(f"{name}:{colour}" for name, colour in zip(names.values(), DARK.values(), strict=True))
    rules = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<\?xml.*?\?>\s*|<!DOCTYPE.*?>\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"(<svg[^>]*>)", lambda m: m[1] + rules, svg, count=1, flags=re.DOTALL).encode()


def looks_of(runs: Sequence[ReportedRun], comparisons: Sequence[ReportedComparison]) -> dict[str, dict[str, Any]]:
    """Return the style of each run and each agent in all figures, by the label of a run and the key of an agent.

    A run that was evaluated with settings of its own only gives its style to the first agent that it is. Runs of one
    agent look alike.
    """
    agents = [agent for own in comparisons for agent in own.agents]
    first = one_agent(comparisons)
    own = [(run.label, run.config.training.reveal_task) for run in runs if first.get(run.label, run.label) == run.label]
    looks = styles([*own, *((agent.key, agent.agent.oracle) for agent in agents)])
    looks |= {label: looks[leader] for label, leader in first.items()}
    lent = {agent.first_run for agent in agents if agent.as_trained}
    for agent in agents:
        if agent.first_run and agent.first_run not in lent:
            looks[agent.key] = looks[agent.first_run]
            lent.add(agent.first_run)
    return looks


def shown_of(own: ReportedComparison, looks: Looks) -> list[Shown]:
    """Return the agents as they are drawn in every figure."""
    return [
        Shown(a.label, a.agent.returns, a.agent.result.summary.iqm, a.agent.episodes_per_round, looks[a.key])
        for a in own.agents
    ]


def adaptation_curves(name: str, comparison: Comparison, agents: Sequence[Shown]) -> Picture:
    """Draw the IQM of the return after each round with its interval, all agents."""

    def draw(axes: Axes) -> None:
        draw_adaptation(axes, agents)
        legend(axes, ROOM)

    said = "; ".join(
        f"{a.label} from {a.iqm[0].estimate:.4g} to {a.iqm[-1].estimate:.4g} after {number_of(a.adaptations, 'round')}"
        for a in agents
    )
    split = SPLIT_NAMES[comparison.settings.split]
    return picture(
        name,
        f"Adaptation curves on {split} tasks of {comparison.family}: IQM of the return of {said}.",
        f"Return against rounds of adaptation on {split} tasks of {comparison.family}: IQM over tasks, with its 95 % "
        "interval.",
        draw,
    )


def by_parameter(
    name: str, comparison: Comparison, agents: Sequence[Shown], parameter: str, family: TaskFamily | None
) -> Picture:
    """Draw the return before and after adaptation against a parameter. family: None if it can no longer be made."""
    values = comparison.values(parameter)
    known = parameter_of(family, parameter)
    trained = trained_ranges(comparison, family).get(parameter)

    def draw(axes: Axes) -> None:
        draw_parameter(axes, agents, values, known, trained, axis_words(parameter, known))
        axes.set_ylabel("return of an episode")
        legend(axes, ROOM)

    ends = []
    for agent in agents:
        found = (bin_interval(agent.after()[:, group]) for group in bins_of(values, is_named(known)))
        ends.append(f"{agent.label} {', '.join(f'{own.estimate:.4g}' for own in found if own)}")
    words = parameter.replace("_", " ")
    adapts = any(agent.adaptations for agent in agents)
    adapted, last = (" after adaptation", " after the last round of adaptation") if adapts else ("", "")
    low, high = (known.words(end) if known else f"{end:.3g}" for end in (values.min(), values.max()))
    return picture(
        name,
        f"Return{adapted} against {words}, from {low} to {high}: {'; '.join(ends)}.",
        f"Return against {words}{last}: {what_is_drawn(values, is_named(known))}." + range_note(trained),
        draw,
    )


def parameter_of(family: TaskFamily | None, name: str) -> Parameter | None:
    """Return the parameter of that name; None if the family is not known."""
    return next((p for p in family.parameters if p.name == name), None) if family else None


def axis_words(name: str, parameter: Parameter | None) -> str:
    """Return the label of an axis, with the unit if the parameter is known."""
    return axis_label(parameter) if parameter else name.replace("_", " ")


def trained_ranges(comparison: Comparison, family: TaskFamily | None) -> dict[str, Parameter]:
    """Return the parameters, by name, whose range of training is to be marked; see `ranges_to_mark`."""
    trained = [agent.trained for agent in comparison.agents]
    return ranges_to_mark(trained, comparison.family_settings, family, comparison.settings.split)


def range_note(*trained: Parameter | None) -> str:
    """Return the sentence that explains marked ranges; empty if none is marked."""
    return " Dashed: the ends of the range of training." if any(trained) else ""


def learning_curves(name: str, family: str, runs: Sequence[ReportedRun], looks: Looks, hours: bool) -> Picture:
    """Draw the return before and after adaptation on training tasks against env steps or hours, all runs."""
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
        if adapts:
            axes.plot([], [], color=QUIET, linestyle=":", label="before adaptation")
        axes.set(xlabel=f"{clock_unit} of training" if hours else f"env steps of training ({unit})")
        axes.set(ylabel="return, training tasks")
        if hours:
            axes.set_xlim(left=0)
        legend(axes, ROOM)

    against = "time" if hours else "env steps"
    adapts = any(run.config.training.adaptations for run in runs)
    said = "; ".join(
        f"{run.label} ends at {last:.4g}" if (last := run.metrics[-1].get("return/after")) is not None else run.label
        for run in runs
    )
    return picture(
        name,
        f"Learning curves on {family} against {against}: return{' after adaptation' * adapts} on training tasks; "
        f"{said}.",
        f"Learning curves against {against}: mean return of an iteration's training tasks"
        + (" after (lines) and before (dots) adaptation. " if adapts else ". ")
        + ("Time of collection and updates, without evaluations. " if hours else "")
        + (
            "Lines alike are training seeds of one agent."
            if len({id(looks[run.label]) for run in runs}) < len(runs)
            else "One line is one training run: no interval can be given."
        ),
        draw,
    )


def _thinned(values: Array) -> Array:
    """Return at most `LINES` values, each the mean of neighbours that are not NaN."""
    if len(values) <= LINES:
        return values
    parts: Iterable[Array] = np.array_split(values, LINES)
    return np.array([np.nan if np.isnan(part).all() else np.nanmean(part) for part in parts])
