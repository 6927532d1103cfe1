"""Panels that show several agents: adaptation curves, and the return against a parameter of the tasks. Figures of a
comparison and of a report are made of them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metarl.config import recorded_config
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.parameters import LogUniform
from metarl.envs.registry import make_family
from metarl.errors import UsageError
from metarl.evaluation.statistics import (
    Array,
    Interval,
    bootstrap_interval,
    by_run,
    interquartile_mean,
    seed_deviations,
)
from metarl.reporting.figures import INK, LEGEND, QUIET, name_ticks
from metarl.runs.trial import stream
from metarl.wording import number_of

Indices = NDArray[np.int64]

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from metarl.envs.family import TaskFamily
    from metarl.envs.parameters import Parameter

LABEL = 40
"""Longest name of an agent in a figure."""
BANDS = 3
"""Largest number of agents whose intervals are drawn as bands; intervals of more agents are bars."""
BEFORE = 4
"""Largest number of agents that are also drawn before adaptation."""
BIN_TASKS, BINS = 6, 8
"""Smallest number of tasks in a bin along a parameter, and largest number of bins. With fewer tasks than two bins
need, each task is drawn."""
FEW = 9
"""A parameter with fewer values than this has a bin for each value."""
ASIDE = 0.14
"""How far apart agents are drawn at a value that has a name, as a share of the distance of two values."""
BEFORE_NAMED: dict[str, Any] = {"marker": "_", "linestyle": ""}
"""How returns before adaptation are drawn where values have names."""
TICKS, TICK_GAP = 8, 1 / 14
"""Largest number of values with a tick on an axis, and the smallest gap between them as a share of its length."""
SAMPLES = 1000
"""Number of bootstrap samples for the interval of a bin."""
DIGITS = re.compile(r" \([0-9a-f]{8}\)$")
"""What follows the name of a file that is told by its content."""
LOG_FROM = 10
"""With more rounds than this, the axis of rounds is logarithmic."""


@dataclass(frozen=True)
class Shown:
    """An agent with its style in figures."""

    label: str
    returns: Array
    """[training seed, seed, shot, task], or [seed, shot, task] of one agent; NaN where all episodes broke down."""
    iqm: Sequence[Interval]
    """IQM of the return after each round."""
    episodes_per_round: int
    """Episodes of a task that a round of adaptation reads."""
    style: Mapping[str, Any]
    """Colour, marker and line, see `figures.styles`."""

    @property
    def adaptations(self) -> int:
        """Rounds of adaptation."""
        return self.returns.shape[-2] - 1

    def after(self, shot: int = -1) -> Array:
        """Return the return of each task after a round, [training seed, seed x task]."""
        returns = by_run(self.returns, 3)[:, :, shot]
        return returns.reshape(len(returns), -1)


def short(label: str, length: int = LABEL) -> str:
    """Return a label of at most that length; the middle is cut, since both ends tell agents apart."""
    tail = length // 2
    return label if len(label) <= length else f"{label[: length - tail - 1]}…{label[-tail:]}"


def legend_columns(names: Iterable[str], room: int) -> int:
    """Return the number of columns of a legend. room: its width in letters."""
    lengths = [len(name) for name in names]
    return max(1, min(len(lengths), 3, room // (max(lengths, default=1) + 8)))


def legend(axes: Axes, room: int) -> None:
    """Draw a legend above the axes, in as many columns as fit. room: its width in letters."""
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles, names, **(LEGEND | {"ncols": legend_columns(names, room)}))


def draw_adaptation(axes: Axes, agents: Sequence[Shown]) -> None:
    """Draw the IQM of the return after each round with its interval, all agents."""
    alike = len({agent.episodes_per_round for agent in agents}) == 1
    unit = 1 if alike else min(agent.episodes_per_round for agent in agents)
    most = max(agent.adaptations for agent in agents)
    for i, agent in enumerate(agents):
        step = 1 if alike else agent.episodes_per_round
        x = np.arange(len(agent.iqm)) * float(step)
        low, middle, high = ends_of(agent.iqm)
        colour = agent.style["color"]
        if len(agent.iqm) == 1 or len(agents) > BANDS:
            x += (i - (len(agents) - 1) / 2) * 0.05 * step
            axes.errorbar(x, middle, [middle - low, high - middle], fmt="none", ecolor=colour, capsize=2, linewidth=1.1)
        else:
            axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
        dot = {"marker": "D"} if len(agent.iqm) == 1 and not agent.style["marker"] else {}  # a line of no length
        axes.plot(x, middle, label=short(agent.label), linewidth=1.8, markersize=4.5, **{**agent.style, **dot})
        if agent.adaptations < most:  # goes on as it is, to be compared with at the others' last round
            axes.axhline(middle[-1], color=colour, linewidth=0.9, linestyle=(0, (1, 2)), zorder=0.5)
    if most > LOG_FROM:
        axes.set_xscale("symlog", linthresh=unit)
        axes.set_xlim(left=-0.3 * unit)
        axes.set_xticks([0, *(unit * rounds for rounds in (1, 3, 10, 30, 100, 300) if rounds <= most)])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    elif alike:
        axes.set_xticks(range(most + 1))
    else:
        axes.locator_params(axis="x", integer=True)
    each = f"rounds of adaptation ({number_of(agents[0].episodes_per_round, 'episode')} each)"
    axes.set(xlabel=each if alike else "episodes of the task before", ylabel="return of an episode")


def ends_of(intervals: Sequence[Interval]) -> tuple[Array, Array, Array]:
    """Return the low ends, estimates and high ends of intervals."""
    low, middle, high = (np.array([getattr(i, end) for i in intervals]) for end in ("low", "estimate", "high"))
    return low, middle, high


def bins_of(values: Array, named: bool = False) -> list[Indices]:
    """Return the indices of the values in groups of equal size, or a group for each value if there are few values.

    named: the values have names and no order, and are never pooled.
    """
    distinct = np.unique(values)
    if named or is_discrete(values):
        return [np.flatnonzero(values == value) for value in distinct]
    groups = max(min(2, len(values) // 2), min(BINS, len(values) // BIN_TASKS), 1)
    return np.array_split(np.argsort(values, kind="stable"), groups)


def is_discrete(values: Array) -> bool:
    """Return whether there are few distinct values, each of several tasks on average."""
    distinct = len(np.unique(values))
    return distinct < FEW and 2 * distinct <= len(values)


def dependence(values: Array, returns: Array, named: bool = False) -> float:
    """Return the share of the variance of the returns that lies between bins of the values (epsilon squared).

    It is below 0 where less lies there than would by chance. named: see `bins_of`.
    """
    sound = np.isfinite(returns)
    values, returns = values[sound], returns[sound]
    if len(returns) < 2 or np.var(returns) == 0:
        return 0.0
    own = [returns[chosen] for chosen in bins_of(values, named)]
    if len(own) == len(returns):
        return 0.0
    within = sum(len(part) * np.var(part) for part in own) / (len(returns) - len(own))
    return float(1 - within / np.var(returns, ddof=1))


def ranked(values: Mapping[str, Array], agents: Sequence[Shown], named: Collection[str] = ()) -> list[str]:
    """Return the parameters whose values [seed x task] differ, by how much the return of some agent depends on them.

    named: parameters whose values have names, see `bins_of`.
    """
    varied = {name: own for name, own in values.items() if np.ptp(own) > 0}
    most = {
        name: max(dependence(own, agent.after().mean(axis=0), name in named) for agent in agents)
        for name, own in varied.items()
    }
    return sorted(varied, key=lambda name: -most[name])


def bin_interval(returns: Array) -> Interval | None:
    """Return the IQM over the tasks of a bin [training seed, task], with its bootstrap interval over both.

    None if fewer than two tasks have a return.
    """
    sound = returns[:, np.isfinite(returns).all(axis=0)]
    runs, tasks = sound.shape
    if tasks < 2:
        return None
    rng = stream(0, "figures/bins")
    resamples = rng.integers(0, tasks, (SAMPLES, tasks))
    return bootstrap_interval(sound, resamples, interquartile_mean, seed_deviations(runs, SAMPLES, rng))


def draws_each(values: Array) -> bool:
    """Return whether `draw_parameter` draws every task, because there are too few for bins."""
    return len(values) < 2 * BIN_TASKS and not is_discrete(values)


def is_named(parameter: Parameter | None) -> bool:
    """Return whether the values of a parameter have names, and no order."""
    return parameter is not None and bool(parameter.names)


def what_is_drawn(values: Array, named: bool = False) -> str:
    """Return the meaning of a point of `draw_parameter` in words. named: see `bins_of`."""
    if named:
        return "IQM over the tasks of each value, with its 95 % interval if they are several"
    if draws_each(values):
        return "each point one task"
    return "IQM over tasks of like values, with its 95 % interval"


def ranges_to_mark(
    trained: Sequence[Mapping[str, Any]], judged: Mapping[str, Any], family: TaskFamily | None, split: str
) -> dict[str, Parameter]:
    """Return the parameters with the ranges of training, by name, if the agents are evaluated outside these ranges.

    trained: each agent's training configuration, empty if it is not known; then the agent is taken to be trained with
    the settings of the tasks. judged: settings of the family of the tasks. Nothing is marked if the agents were trained
    with different families.
    """
    if judged["name"] == "robot":
        return _ranges_of_robot(trained, judged, family, split)
    texts = [json.dumps(own["family"], sort_keys=True) for own in trained if own.get("family")]
    own = judged["name"] == "env"  # its source is named otherwise where it was trained
    if own or not texts or set(texts) == {json.dumps(judged, sort_keys=True)}:
        return _ranges(family.parameters) if family is not None and split == "ood" else {}
    if len(set(texts)) > 1:
        return {}
    try:
        settings = recorded_config({"family": json.loads(texts[0])}).family
    except UsageError:  # of another version
        return {}
    return _ranges(make_family(settings).parameters)


def _ranges_of_robot(
    trained: Sequence[Mapping[str, Any]], judged: Mapping[str, Any], family: TaskFamily | None, split: str
) -> dict[str, Parameter]:
    """Return what `ranges_to_mark` does for a robot of one's own, which was trained on the same file."""
    own = [settings for of_run in trained if (settings := of_run.get("family")) and settings["name"] == "robot"]
    files = {Path(DIGITS.sub("", settings["file"])).name for settings in [*own, judged]}
    texts = {json.dumps(settings.get("ranges", {}), sort_keys=True) for settings in own}
    if family is None or not isinstance(family.settings, RobotSettings) or len(files) > 1 or len(texts) > 1:
        return {}
    ranges = {name: tuple(values) for text in texts for name, values in json.loads(text).items()}
    if not own or ranges == dict(family.settings.ranges):
        return _ranges(family.parameters) if split == "ood" else {}
    return _ranges(make_family(dataclasses.replace(family.settings, ranges=ranges)).parameters)


def _ranges(parameters: Iterable[Parameter]) -> dict[str, Parameter]:
    return {p.name: p for p in parameters if not p.names}  # what has no order has no range


def mark_range(axes: Axes, trained: Parameter | None, side: str = "x") -> None:
    """Draw lines at the ends of the range of training along an axis, x or y; none if the parameter is None."""
    if trained is not None:
        for end in (trained.distribution.low, trained.distribution.high):
            (axes.axvline if side == "x" else axes.axhline)(end, color=INK, linewidth=0.9, linestyle=(0, (5, 3)))


def draw_parameter(
    axes: Axes,
    agents: Sequence[Shown],
    values: Array,
    parameter: Parameter | None,
    trained: Parameter | None,
    name: str,
) -> None:
    """Draw the return before and after adaptation against a parameter.

    values: of the parameter, [seed x task]. parameter: None if it is not known. trained: the parameter whose range of
    training is marked; lines are interrupted at its ends. name: label of the axis.
    """
    named, early = is_named(parameter), len(agents) <= BEFORE
    sides = [bins_of(values, named)] if named else _sides(values, trained)
    before: dict[str, Any] = BEFORE_NAMED if named else {"marker": "", "linestyle": ":"}
    mark_range(axes, trained)

    def draw(returns: Array, style: dict[str, Any], i: int, label: str | None = None) -> None:
        if named:
            at = (i - (len(agents) - 1) / 2) * min(ASIDE, 0.8 / len(agents))
            _draw_named(axes, values, returns, sides[0], style, at, label)
        else:
            _draw_sides(axes, values, returns, sides, style, len(agents), 0.16 * bool(label), label)

    for i, agent in enumerate(agents):
        if agent.adaptations and early:
            draw(agent.after(0), {**agent.style, **before}, i)
        draw(agent.after(), dict(agent.style), i, short(agent.label))
    if early and any(agent.adaptations for agent in agents):
        axes.plot([], [], color=QUIET, linewidth=1.4, label="before adaptation", **before)
    _scale(axes, values, parameter)
    axes.set_xlabel(name)


def _sides(values: Array, trained: Parameter | None) -> list[list[Indices]]:
    """Return the bins of the values below, in and above the range of training; bins of all values if it is None."""
    split = (lambda own: [np.array([i]) for i in np.argsort(own, kind="stable")]) if draws_each(values) else bins_of
    if trained is None:
        return [split(values)]
    low, high = trained.distribution.low, trained.distribution.high
    sides = [np.flatnonzero(side) for side in (values < low, (low <= values) & (values <= high), values > high)]
    return [[side[group] for group in split(values[side])] for side in sides if len(side)]


def _draw_sides(
    axes: Axes,
    values: Array,
    returns: Array,
    sides: Sequence[Sequence[Indices]],
    style: dict[str, Any],
    agents: int,
    alpha: float,
    label: str | None = None,
) -> None:
    """Draw a line for each side of the range of training. returns: [training seed, seed x task].

    alpha: opacity of the intervals, 0 for none.
    """
    each = draws_each(values)
    look: dict[str, Any] = style | {"linewidth": 1.3 if not alpha else 1.6}
    for i, groups in enumerate(sides):
        if each:
            found = [(float(values[g[0]]), Interval(*[float(returns[:, g[0]].mean())] * 3)) for g in groups]
        else:
            found = [(float(np.mean(values[g])), own) for g in groups if (own := bin_interval(returns[:, g]))]
        x = np.array([at for at, _ in found])
        low, middle, high = ends_of([interval for _, interval in found])
        if alpha and not each and agents <= BANDS:
            axes.fill_between(x, low, high, color=style["color"], alpha=alpha, linewidth=0)
        elif alpha and not each:
            axes.vlines(x, low, high, color=style["color"], linewidth=1.0, alpha=0.55)
        axes.plot(x, middle, label=None if i else label, markersize=4, **look)


def _draw_named(
    axes: Axes,
    values: Array,
    returns: Array,
    groups: Sequence[Indices],
    style: dict[str, Any],
    at: float,
    label: str | None,
) -> None:
    """Draw a point for each value that has a name, with no line between them. returns: [training seed, seed x task].

    at: how far beside the value. The interval is drawn with the label alone; a value of one task has none.
    """
    look: dict[str, Any] = style | {"linestyle": "", "marker": style["marker"] or "o", "markersize": 4.5}
    for i, group in enumerate(groups):
        own = bin_interval(returns[:, group])
        x = float(values[group[0]]) + at
        if own is not None and label:
            axes.vlines(x, own.low, own.high, color=style["color"], linewidth=1.2, alpha=0.55)
        y = own.estimate if own else float(returns[:, group].mean())
        axes.plot([x], [y], label=None if i else label, **look)


def _scale(axes: Axes, values: Array, parameter: Parameter | None) -> None:
    """Make the axis logarithmic if the parameter's distribution is, with ticks that do not overlap."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    low, high = float(values.min()), float(values.max())
    log = parameter is not None and isinstance(parameter.distribution, LogUniform) and low > 0
    if log:
        axes.set_xscale("log", base=2)
    distinct = np.unique(values)
    places = (np.log(distinct) if log else distinct) / (np.log(high / low) if log else max(high - low, 1e-12))
    if is_discrete(values) and len(distinct) <= TICKS and np.diff(places).min(initial=1.0) >= TICK_GAP:
        axes.set_xticks(distinct)
        axes.xaxis.set_major_formatter("{x:.3g}")
    elif not log or high < 8 * low:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.xaxis.set_major_formatter("{x:g}")
    if log:
        axes.xaxis.set_minor_locator(NullLocator())
    name_ticks(axes.xaxis, values, parameter)
