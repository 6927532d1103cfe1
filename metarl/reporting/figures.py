"""Figures of a run, the adaptation curve and the learning curve, as PNG; colours and styles of all figures."""

from __future__ import annotations

import contextlib
import io
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metarl.config import SPLIT_NAMES
from metarl.evaluation.statistics import Array, pool_tasks
from metarl.files import write
from metarl.wording import number_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

    from metarl.envs.family import TaskFamily
    from metarl.envs.parameters import Parameter
    from metarl.evaluation.results import EvaluationResult

AFTER, BEFORE, QUIET, INK = "#0072B2", "#D55E00", "#9aa0a6", "#333333"
"""Okabe and Ito's blue and vermilion, told apart by every kind of colour vision, and two greys."""
ROW = 22
"""Number of letters that fit beside each other under a narrow panel."""
SLANTED = 5
"""Largest number of names that are slanted where they do not fit; more stand upright."""
SPLIT_COLOURS = {"train": "#0072B2", "held_out": "#D55E00", "ood": "#009E73"}
"""Okabe and Ito's blue, vermilion and green."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8c6d31")
"""Colours of agents: Okabe and Ito's, which every kind of colour vision tells apart, without yellow; and a brown."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ((0, (4, 2)), (0, (8, 2)), (0, (6, 2, 1, 2)))
"""Lines of oracles."""

STYLE: dict[RcKeyType, Any] = {
    "font.size": 9.5,
    "text.parse_math": False,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.borderaxespad": 0.2,
    "legend.columnspacing": 1.6,
    "legend.fontsize": 9,
    "figure.dpi": 160,
}
LEGEND: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": 2}
"""Place above the axes, where a legend covers no data."""
WIDTH, NARROW = 8.3, 6.4
"""Widths of a figure with two panels and with one, inches: 1,328 and 1,024 pixels."""
LETTERS = 12.5
"""Number of letters of a title on an inch."""


def adaptation_curve(result: EvaluationResult, family: TaskFamily, path: Path) -> None:
    """Draw the return after 0..K rounds of adaptation; beside it against the parameter, if the family has just one."""
    import matplotlib
    from matplotlib.figure import Figure

    by_parameter = len(family.parameters) == 1 and family.disjoint_splits and result.adaptations > 0
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH if by_parameter else NARROW, 3.5), layout="constrained")
        axes = figure.subplots(1, 2 if by_parameter else 1, sharey=True, squeeze=False)[0]
        _draw_curve(axes[0], result)
        if by_parameter:
            _draw_by_parameter(axes[1], result, family.parameters[0])
        axes[0].set_ylabel("return of an episode")
        title_of(figure, f"{whose(result)}\n{_what(result, family)}")
        save(figure, path)


def learning_curve(metrics: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw the return before and after adaptation on training tasks against env steps; metrics: a dict an iteration."""
    import matplotlib
    from matplotlib.figure import Figure

    steps = np.array([line["env_steps"] for line in metrics], dtype=float)
    scale, unit = (1e6, "millions") if steps[-1] >= 1e6 else (1e3, "thousands")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(NARROW, 3.2), layout="constrained")
        axes = figure.subplots()
        for key, label, colour in [("return/after", "after", AFTER), ("return/before", "before", BEFORE)]:
            returns = np.array([line.get(key) for line in metrics], dtype=float)  # None, not a number, becomes NaN
            marker = "o" if len(metrics) == 1 else None
            axes.plot(steps / scale, returns, color=colour, linewidth=1.4, marker=marker, label=f"{label} adaptation")
        axes.set(xlabel=f"env steps of training ({unit})", ylabel="return of an episode, training tasks")
        axes.legend(**LEGEND)
        title_of(figure, title)
        save(figure, path)


def _draw_curve(axes: Axes, result: EvaluationResult) -> None:
    values = pool_tasks(result.returns)[0].mean(axis=1)  # [K, n]
    rounds = np.arange(len(values))
    iqm = result.summary.iqm
    axes.plot(rounds, values, color=QUIET, linewidth=0.6, alpha=min(0.6, 12.0 / values.shape[1] + 0.15))
    [single] = axes.plot([], [], color=QUIET, linewidth=0.9)  # opaque, for the legend
    axes.fill_between(rounds, [i.low for i in iqm], [i.high for i in iqm], color=AFTER, alpha=0.25, linewidth=0)
    [line] = axes.plot(rounds, [i.estimate for i in iqm], color=AFTER, linewidth=2, marker="o", markersize=4.5)
    axes.legend([line, single], ["IQM and its 95 % interval", "one task"], **LEGEND)
    axes.set_xticks(rounds)
    each = number_of(result.episodes_per_round or result.settings.envs_per_task, "episode")
    axes.set(xlabel=f"rounds of adaptation ({each} each)")


def _draw_by_parameter(axes: Axes, result: EvaluationResult, parameter: Parameter) -> None:
    x = np.array([[values[parameter.name] for values in drawn] for drawn in result.tasks])  # [S, M]
    last = result.adaptations
    for shot, label, colour in [(last, f"after {number_of(last, 'round')}", AFTER), (0, "before adaptation", BEFORE)]:
        axes.scatter(x, result.returns[:, shot], s=11, color=colour, alpha=0.75, linewidths=0, label=label)
    axes.set(xlabel=axis_label(parameter))
    axes.legend(handletextpad=0.2, **LEGEND)
    axes.locator_params(axis="x", nbins=5)


def whose(result: EvaluationResult) -> str:
    """Return the family, the run and the way trials are played, in words."""
    run = f", run {result.source.run}" if result.source else ""
    return f"{result.family}{run}{result.settings.protocol}"


def _what(result: EvaluationResult, family: TaskFamily) -> str:
    settings = result.settings
    counted, seeds = result.summary.tasks_counted, len(settings.seeds)
    if family.disjoint_splits:
        tasks = number_of(counted, f"{SPLIT_NAMES[settings.split]} task")
    else:
        distinct = len({tuple(values.items()) for drawn in result.tasks for values in drawn})
        tasks = f"{number_of(counted, 'draw')} of {number_of(distinct, 'task')}"
    tasks += f" ({number_of(seeds, 'seed')}), {number_of(family.horizon, 'step')} an episode"
    return tasks + (f", trained for {result.source.env_steps / 1e6:.3g}M env steps" if result.source else "")


def styles(agents: Iterable[tuple[str, bool]]) -> dict[str, dict[str, Any]]:
    """Return colour, marker and line by name. agents: (name, whether it is an oracle); an oracle is dark and dashed.

    It is called once for all figures of a comparison or a report, so that an agent looks the same in each of them.
    """
    looks: dict[str, dict[str, Any]] = {}
    oracles = 0
    for name, oracle in agents:
        if name in looks:
            continue
        turn, place = divmod(len(looks) - oracles, len(COLOURS))
        if oracle:
            looks[name] = {"color": INK, "marker": "", "linestyle": DASHES[oracles % len(DASHES)]}
            oracles += 1
        else:
            marker = MARKERS[(place + turn) % len(MARKERS)]
            looks[name] = {"color": COLOURS[place], "marker": marker, "linestyle": "--" if turn % 2 else "-"}
    return looks


def axis_label(parameter: Parameter) -> str:
    """Return the name of a parameter in words, with its unit."""
    name = parameter.name.replace("_", " ")
    return name if parameter.unit == "1" else f"{name} ({parameter.unit})"


def name_ticks(axis: Axis, values: Array, parameter: Parameter | None) -> None:
    """Name the values on an axis if the parameter names them, with room beside them."""
    from matplotlib.axis import XAxis

    if parameter is None or not parameter.names:
        return
    distinct = np.unique(values)
    names = [parameter.words(value) for value in distinct]
    turned: dict[str, Any] = {}
    if isinstance(axis, XAxis) and sum(map(len, names)) > ROW:
        turned = {"rotation": 30, "ha": "right"} if len(names) <= SLANTED else {"rotation": 90, "fontsize": 7.5}
    axis.set_ticks(distinct, names, **turned)
    axis.set_view_interval(distinct[0] - 0.5, distinct[-1] + 0.5, ignore=True)


def title_of(figure: Figure, title: str) -> None:
    """Put a title over a figure, at the left; a line that is wider than it is broken into lines of like length."""
    room = int(LETTERS * figure.get_figwidth())
    lines = [part for line in title.split("\n") for part in balanced(line, room)]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=10, parse_math=False)


GLUE = "\N{NO-BREAK SPACE}"


def balanced(line: str, room: int) -> list[str]:
    """Return a line as few lines of at most `room` letters, and no wider than that many need.

    They are broken after commas, where each part fits into a line.
    """
    glued = ", ".join(part.replace(" ", GLUE) for part in line.split(", "))
    line = glued if max(map(len, glued.split(" "))) <= room else line
    count, widest = len(textwrap.wrap(line, room)), max(map(len, line.split(" ")))
    while room > max(widest, 1) and len(textwrap.wrap(line, room - 1)) == count:
        room -= 1
    return [part.replace(GLUE, " ") for part in textwrap.wrap(line, room)] or [""]


@contextlib.contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Draw letters that the font lacks, as in names in other scripts, as boxes without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        yield


def save(figure: Figure, path: Path, option: str = "") -> None:
    """Write a figure as PNG, whole or not at all. option: see `files.write`."""
    buffer = io.BytesIO()
    with without_glyph_warnings():
        figure.savefig(buffer, format="png")
    write(path, buffer.getvalue(), option)
