"""Figures of a report on adaptation in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from metarl.config import SPLIT_NAMES
from metarl.evaluation.binning import REWARD_RATE
from metarl.reporting.agent_figures import legend
from metarl.reporting.report.figures import ROOM, Looks, Picture, picture
from metarl.reporting.report.material import ReportedComparison
from metarl.reporting.time_figures import (
    Timed,
    band_words,
    changes_of,
    curve_label,
    curves_of,
    draw_course,
    draw_revisit,
    said_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def time_pictures(key: str, own: ReportedComparison, looks: Looks) -> list[Picture]:
    """Return figures of each curve over the first episode and over the trial, of the reward per second after each
    change, and of the return back on a task. key: in the names of the figures."""
    agents = [Timed(agent.agent, looks[agent.key]) for agent in own.agents]
    timed = [agent for agent in agents if agent.course()]
    tasks = f"{SPLIT_NAMES[own.split]} tasks of {own.family}"
    units, pictures = own.comparison.units, []
    for name in curves_of(timed):
        label = curve_label(name, units)
        pictures.append(_of_trial(f"first_episode_{key}_{name}", timed, name, label, tasks, first=True))
        if any(agent.agent.adaptations for agent in timed):
            pictures.append(_of_trial(f"trial_{key}_{name}", timed, name, label, tasks, first=False))
    label = curve_label(REWARD_RATE, units)
    pictures += [_after_change(f"change_{key}_{number}", agents, label, tasks, number) for number in changes_of(agents)]
    revisited = [agent for agent in agents if agent.agent.result.forgetting]
    return pictures + ([_revisit(f"revisit_{key}", revisited, tasks)] if revisited else [])


def _of_trial(file: str, agents: Sequence[Timed], name: str, label: str, tasks: str, first: bool) -> Picture:
    """Return the figure of a curve over the first episode, or over the whole trial."""
    until = max(course.ends_s[-1] for agent in agents if (course := agent.course())) if first else None
    where = "the first episode" if first else "the trial; vertical lines are ends of episodes and changes of tasks"

    def draw(axes: Axes) -> None:
        draw_course(axes, agents, name, until_s=until)
        axes.set(xlabel="s of the first episode" if first else "s of the trial", ylabel=label)
        legend(axes, ROOM)

    said = said_of(agents) if name == REWARD_RATE and not first else ", ".join(agent.label for agent in agents)
    return picture(
        file,
        f"{label} against seconds of the {'first episode' if first else 'trial'} on {tasks}: {said}.",
        f"{label} against seconds of {where}, {tasks}: mean over tasks{band_words(agents)}.",
        draw,
    )


def _after_change(file: str, agents: Sequence[Timed], label: str, tasks: str, change: int) -> Picture:
    """Return the figure of the reward per second after a change."""

    def draw(axes: Axes) -> None:
        draw_course(axes, agents, REWARD_RATE, change)
        axes.set(xlabel=f"s after change {change}", ylabel=label)
        legend(axes, ROOM)

    text = f"{label} against seconds after change {change} of {tasks}: mean over tasks{band_words(agents)}."
    return picture(file, text, text, draw)


def _revisit(file: str, agents: Sequence[Timed], tasks: str) -> Picture:
    """Return the figure of the return on a task, on another one, and on the first again."""

    def draw(axes: Axes) -> None:
        draw_revisit(axes, agents)
        legend(axes, ROOM)

    text = f"Return on a task, on another one, and on the first again, {tasks}: IQM over tasks, with its 95 % interval."
    return picture(file, text, text, draw)
