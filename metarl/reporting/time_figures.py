"""Figures of adaptation in time: reward per second, success and errors against seconds, over a trial and after changes;
and the return on a task before another one is met and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarl.evaluation.binning import REWARD_RATE, SUCCESS
from metarl.evaluation.comparison import Compared
from metarl.evaluation.statistics import Interval
from metarl.evaluation.time_course import TimeCourse
from metarl.reporting.agent_figures import BANDS, ends_of, legend_columns, short
from metarl.reporting.columns import measure_name
from metarl.reporting.figures import INK, NARROW, QUIET, STYLE, WIDTH, save, title_of
from metarl.wording import number_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS, ROWS_OF_ONE, CHANGES = 4, 2, 2
"""Largest number of curves that are drawn of several agents and of one, and of changes."""
ROOM = 84
"""Number of letters that fit beside each other in a figure."""


@dataclass(frozen=True)
class Timed:
    """An agent with its style in figures."""

    agent: Compared
    style: Mapping[str, Any]
    """Colour, marker and line, see `figures.styles`."""

    @property
    def label(self) -> str:
        """Label of the agent."""
        return self.agent.label

    def course(self, change: int = 0) -> TimeCourse | None:
        """Return the time course after a change, or over the trial; None if there is none."""
        return next((course for course in self.agent.result.courses if course.change == change), None)


def curves_of(agents: Sequence[Timed], change: int = 0) -> list[str]:
    """Return the names of the curves that all agents have, at most `ROWS`; some older records have the reward alone."""
    courses = [course for agent in agents if (course := agent.course(change))]
    names = courses[0].curves if courses else ()
    return [name for name in names if all(name in course.curves for course in courses)][:ROWS]


def changes_of(agents: Sequence[Timed]) -> list[int]:
    """Return the numbers of the changes that some agent has a time course after, at most `CHANGES`."""
    return sorted({course.change for agent in agents for course in agent.agent.result.courses if course.change})[
        :CHANGES
    ]


def curve_label(name: str, units: Mapping[str, str]) -> str:
    """Return the name of a curve in words, with its unit."""
    if name == REWARD_RATE:
        return "reward per second"
    return "success so far, %" if name == SUCCESS else measure_name(name, units.get(name, "1"))


def draw_course(axes: Axes, agents: Sequence[Timed], name: str, change: int = 0, until_s: float | None = None) -> None:
    """Draw a curve of each agent against seconds, with its interval; vertical lines are ends of episodes and changes.

    until_s: last second of the first episode that is drawn; None: the whole trial.
    """
    drawn = [(agent, course) for agent in agents if (course := agent.course(change)) and name in course.curves]
    scale = 100.0 if name == SUCCESS else 1.0
    for place, (agent, course) in enumerate(drawn):  # the first lies on top
        shown = course.seconds_of_trial <= (np.inf if until_s is None else min(until_s, course.ends_s[-1]))
        bounds = np.arange(len(course.ends_s), int(shown.sum()), len(course.ends_s))
        x = np.insert(course.seconds_of_trial[shown], bounds, np.nan)  # a line ends with its episode
        middle, low, high = np.insert(scale * course.curves[name][:, shown], bounds, np.nan, axis=1)
        style = {**agent.style, "marker": ""}
        if len(drawn) <= BANDS:
            axes.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)
        axes.plot(x, middle, label=short(agent.label), linewidth=1.5, zorder=3 - 0.01 * place, **style)
    longest = max((course for _, course in drawn), key=lambda course: course.episodes)
    if until_s is None:
        for end in longest.episode_ends_s[:-1]:
            axes.axvline(end, color=QUIET, linewidth=0.9, zorder=0.5)
    for first, last in longest.changes_s:
        if first == last:
            axes.axvline(first, color=INK, linewidth=1.0, linestyle=(0, (5, 3)), zorder=0.6)
        else:
            axes.axvspan(first, last, color=QUIET, alpha=0.15, linewidth=0, zorder=0.4)
    if name == SUCCESS:
        axes.set_ylim(-3, max(10, axes.get_ylim()[1]))
    axes.set_xlim(0, until_s or longest.episode_ends_s[-1])


def courses(agents: Sequence[Timed], units: Mapping[str, str], title: str, path: Path) -> None:
    """Draw all curves: over the first episode, over the trial if it has more, and after each change of the tasks."""
    import matplotlib
    from matplotlib.figure import Figure

    names = curves_of(agents)[: ROWS if len(agents) > 1 else ROWS_OF_ONE]
    changes = changes_of(agents)
    longest = max((course for agent in agents if (course := agent.course())), key=lambda course: course.episodes)
    several = longest.episodes > 1
    ratios = [1.0, *([2.0] if several else []), *[1.0] * len(changes)]
    across = legend_columns((short(agent.label) for agent in agents), ROOM)
    height = 2.0 * len(names) + 1.1 + 0.2 * -(-len(agents) // across)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH if len(ratios) > 1 else NARROW, height), layout="constrained")
        panels = figure.subplots(
            len(names), len(ratios), squeeze=False, sharey="row", gridspec_kw={"width_ratios": ratios}
        )
        for row, name in zip(panels, names, strict=True):
            draw_course(row[0], agents, name, until_s=longest.ends_s[-1])
            row[0].set_ylabel(curve_label(name, units))
            if several:
                draw_course(row[1], agents, name)
            for axes, change in zip(row[1 + several :], changes, strict=True):
                if name in curves_of(agents, change):
                    draw_course(axes, agents, name, change)
                else:
                    axes.set_axis_off()
        panels[-1][0].set_xlabel("s of the first episode" if several else "s of the episode")
        if several:
            panels[-1][1].set_xlabel("s of the trial; lines: ends of episodes")
        for axes, change in zip(panels[-1][1 + several :], changes, strict=True):
            axes.set_xlabel(f"s after change {change}")
        if len(agents) > 1:
            figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower left", ncols=across)
        title_of(figure, f"{title}\nMean over tasks{band_words(agents)}{_changes(longest)}")
        save(figure, path)


def band_words(agents: Sequence[Timed]) -> str:
    """Return what a caption says of the intervals that are drawn; empty if there are too many agents for them."""
    return " and its 95 % interval" if len(agents) <= BANDS else ""


def _changes(course: TimeCourse) -> str:
    if not course.changes_s:
        return ""
    alike = all(first == last for first, last in course.changes_s)
    return "; dashed: changes of the tasks" if alike else "; grey: seconds in which tasks change"


def draw_revisit(axes: Axes, agents: Sequence[Timed]) -> None:
    """Draw the IQM of the return after each round on the first task, on another one, and on the first again."""
    counts = {len(found.back) for agent in agents if (found := agent.agent.result.forgetting) is not None}
    shots = max(counts)
    for place, agent in enumerate(agents):
        found = agent.agent.result.forgetting
        if found is None:
            continue
        played = len(found.back)
        own: Sequence[Interval] = [*agent.agent.result.summary.iqm, *found.other, *found.back]
        low, middle, high = ends_of(own)
        for visit in range(3):  # lines are interrupted where the task is another
            part = slice(visit * played, (visit + 1) * played)
            x = visit * shots + np.arange(played) + (place - (len(agents) - 1) / 2) * 0.08
            style = {**agent.style, "marker": agent.style["marker"] or "."}
            axes.errorbar(
                x,
                middle[part],
                [middle[part] - low[part], high[part] - middle[part]],
                label=None if visit else short(agent.label),
                linewidth=1.6,
                markersize=4.5,
                elinewidth=1.0,
                capsize=2,
                **style,
            )
    for end in (shots, 2 * shots):
        axes.axvline(end - 0.5, color=QUIET, linewidth=0.9, zorder=0.5)
    top = axes.get_xaxis_transform()
    for visit, text in enumerate(("task A", "task B", "task A again")):
        axes.text((visit + 0.5) * shots - 0.5, 0.99, text, transform=top, ha="center", va="top", color=INK)
    axes.margins(y=0.15)
    axes.set_xticks(range(3 * shots), [str(i if len(counts) == 1 else i % shots) for i in range(3 * shots)])
    axes.set(xlabel="round of the trial" if len(counts) == 1 else "round on the task", ylabel="return of an episode")


def revisits(agents: Sequence[Timed], title: str, path: Path) -> None:
    """Draw the return on the first task, on another one, and on the first again, all agents in one panel."""
    import matplotlib
    from matplotlib.figure import Figure

    across = legend_columns((short(agent.label) for agent in agents), int(ROOM * NARROW / WIDTH))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(NARROW, 3.6 + 0.2 * -(-len(agents) // across)), layout="constrained")
        axes = figure.subplots()
        draw_revisit(axes, agents)
        if len(agents) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=across)
        title_of(figure, f"{title}\nIQM over tasks and its 95 % interval; memory is kept from task to task")
        save(figure, path)


def said_of(agents: Sequence[Timed]) -> str:
    """Return the seconds that each agent takes, for readers who do not see the figure."""
    found = [(agent.label, course) for agent in agents if (course := agent.course())]
    return "; ".join(
        f"{label} " + (f"takes {number_of(round(c.seconds.estimate, 2), 'second')}" if c.seconds else "does not adapt")
        for label, c in found
    )
