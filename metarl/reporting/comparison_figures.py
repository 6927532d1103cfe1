"""Figures of a comparison, as PNG: adaptation curves, curves against seconds, return against each parameter,
probability of improvement."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from metarl.config import SPLIT_NAMES
from metarl.reporting.agent_figures import (
    Shown,
    draw_adaptation,
    draw_parameter,
    is_named,
    legend,
    legend_columns,
    ranges_to_mark,
    ranked,
    short,
    what_is_drawn,
)
from metarl.reporting.figures import INK, NARROW, QUIET, STYLE, WIDTH, axis_label, save, styles, title_of
from metarl.reporting.time_figures import Timed, courses, revisits
from metarl.wording import number_of

if TYPE_CHECKING:
    from metarl.envs.family import TaskFamily
    from metarl.evaluation.comparison import Comparison

PANELS, COLUMNS = 6, 3
"""Largest number of parameters drawn, by how much the return depends on them; panels in a row."""
PAIR_LABEL = 32
"""Longest names of agents beside their pair's bar."""
PAIRS = 15
"""Largest number of pairs of agents drawn."""
ROOM = 84
"""Number of letters that fit beside each other in a figure."""


def draw(comparison: Comparison, family: TaskFamily, folder: Path) -> dict[str, Path]:
    """Draw the figures of a comparison, and return the files by name. family: whose tasks they are."""
    import matplotlib

    agents, timed = shown_of(comparison), timed_of(comparison)
    named = [p.name for p in family.parameters if is_named(p)]
    names = ranked({p.name: comparison.values(p.name) for p in family.parameters}, agents, named)[:PANELS]
    wanted: dict[str, tuple[bool, Callable[[Path], None]]] = {
        "curves": (True, lambda path: adaptation_curves(comparison, agents, path)),
        "parameters": (bool(names), lambda path: by_parameter(comparison, family, agents, names, path)),
        "time": (any(a.course() for a in timed), lambda path: courses(timed, comparison.units, what(comparison), path)),
        "revisit": (
            any(agent.agent.result.forgetting for agent in timed),
            lambda path: revisits(timed, what(comparison), path),
        ),
        "improvement": (bool(comparison.improvements), lambda path: improvement_bars(comparison, agents, path)),
    }
    paths = {name: folder / f"{name}.png" for name, (there, _) in wanted.items() if there}
    with matplotlib.rc_context(STYLE):
        for name, path in paths.items():
            wanted[name][1](path)
    return paths


def shown_of(comparison: Comparison) -> list[Shown]:
    """Return the agents as they are drawn in every figure."""
    looks = styles((agent.label, agent.oracle) for agent in comparison.agents)
    return [
        Shown(a.label, a.returns, a.result.summary.iqm, a.episodes_per_round, looks[a.label]) for a in comparison.agents
    ]


def timed_of(comparison: Comparison, labels: Collection[str] | None = None) -> list[Timed]:
    """Return the agents as they are drawn in figures of time. labels: which of them; None: all."""
    agents = [agent for agent in comparison.agents if labels is None or agent.label in labels]
    looks = styles((agent.label, agent.oracle) for agent in agents)
    return [Timed(agent, looks[agent.label]) for agent in agents]


def what(comparison: Comparison) -> str:
    """Return the number of tasks, evaluation seeds and training seeds in words."""
    settings = comparison.settings
    tasks = number_of(sum(map(len, comparison.tasks)), f"{SPLIT_NAMES[settings.split]} task")
    trained = {len(agent.members) for agent in comparison.agents}
    most = number_of(max(trained), "training seed")
    seeds = "" if trained == {1} else f", {most}" if len(trained) == 1 else f", up to {most}"
    return f"{comparison.family}: {tasks}, {number_of(len(settings.seeds), 'seed')}{seeds}{settings.protocol}"


def adaptation_curves(comparison: Comparison, agents: Sequence[Shown], path: Path) -> None:
    """Draw the IQM of the return after each round with its interval, all agents in one panel."""
    from matplotlib.figure import Figure

    rows = -(-len(agents) // legend_columns((short(agent.label) for agent in agents), ROOM))
    figure = Figure(figsize=(NARROW, 3.4 + 0.2 * rows), layout="constrained")
    axes = figure.subplots()
    draw_adaptation(axes, agents)
    legend(axes, ROOM)
    title_of(figure, f"{what(comparison)}\nIQM over tasks and its 95 % interval")
    save(figure, path)


def by_parameter(
    comparison: Comparison, family: TaskFamily, agents: Sequence[Shown], names: Sequence[str], path: Path
) -> None:
    """Draw the return before and after adaptation against the parameters of these names, one panel each."""
    from matplotlib.figure import Figure

    values = {name: comparison.values(name) for name in names}
    parameters = {p.name: p for p in family.parameters}
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    wide = columns > 1
    legend_room = ROOM if wide else ROOM * NARROW / WIDTH
    labels = [*(short(agent.label) for agent in agents), "before adaptation"]
    across = legend_columns(labels, int(legend_room))
    size = (WIDTH if wide else NARROW, 2.5 * rows + 0.9 + 0.2 * -(-len(labels) // across))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    trained_with = [agent.trained for agent in comparison.agents]
    trained = ranges_to_mark(trained_with, comparison.family_settings, family, comparison.settings.split)
    for panel, name in zip(panels.flat, names, strict=False):
        draw_parameter(panel, agents, values[name], parameters[name], trained.get(name), axis_label(parameters[name]))
    for panel in panels.flat[len(names) :]:
        panel.set_axis_off()
    for row in panels:
        row[0].set_ylabel("return of an episode")
    lines = [panel for panel, name in zip(panels.flat, names, strict=False) if not is_named(parameters[name])]
    figure.legend(*(lines or [panels[0, 0]])[0].get_legend_handles_labels(), loc="outside lower left", ncols=across)
    marked = "\nDashed: the ends of the range of training" if any(name in trained for name in names) else ""
    drawn = what_is_drawn(values[names[0]], not lines)
    title_of(figure, f"{what(comparison)}\nAfter the last round of adaptation: {drawn}{marked}")
    save(figure, path)


def improvement_bars(comparison: Comparison, agents: Sequence[Shown], path: Path) -> None:
    """Draw the probability of improvement of each pair in the colour of the better agent, else grey."""
    from matplotlib.figure import Figure

    pairs = comparison.improvements[:PAIRS]
    colours = {agent.label: agent.style["color"] for agent in agents}
    figure = Figure(figsize=(NARROW, 1.3 + 0.42 * len(pairs)), layout="constrained")
    axes = figure.subplots()
    for y, pair in enumerate(pairs):
        interval = pair.interval
        colour = colours[pair.a] if interval.low > 0.5 else colours[pair.b] if interval.high < 0.5 else QUIET
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
    more = f"; {number_of(left, 'more pair')} in the file" if left else ""
    title_of(figure, f"{what(comparison)}, paired by task{more}")
    save(figure, path)
