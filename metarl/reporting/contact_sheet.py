"""Contact sheet of a family: robots of sampled tasks of every split, and the values of their parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metarl.config import SPLIT_NAMES
from metarl.envs.arrays import Array
from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.foreign.family import GymFamily
from metarl.envs.foreign.simulation import GymSimulation
from metarl.envs.parameters import LogUniform, Parameter, Split
from metarl.envs.rendering import Renderer
from metarl.envs.task import Task
from metarl.files import make_folder
from metarl.reporting.figures import INK, QUIET, SPLIT_COLOURS, STYLE, axis_label, name_ticks, save, title_of
from metarl.reporting.films import closed, fitted, name_captions, usable_renderer, value_captions, visible
from metarl.runs.trial import stream

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

COLUMNS, ROWS = 4, 4
"""Robots in a row, and rows of robots that the splits share."""
WIDTH = 9.0
"""Width in inches, at 160 pixels each."""
TILE = (384, 288)
"""Width and height of a rendered robot, pixels."""
PLOT_HEIGHT, SINGLE_HEIGHT = 1.35, 3.0
"""Heights in inches: of a row of plots, and of a robot that is shown alone."""
NARROW, NARROW_COLUMNS, FEW = 4.9, 2, 4
"""For a phone: width in inches, robots in a row, and largest number of parameters with one plot in a row."""
CAPTION_LINES = 5
"""Largest number of lines below a robot."""
SAMPLES = 300
"""Tasks of each split in the plots."""


@dataclass(frozen=True)
class Layout:
    """Sizes of a sheet."""

    width: float
    """Width in inches."""
    columns: int
    """Robots in a row."""
    plots: int
    """Plots of parameters in a row."""
    tile_height: float = 1.62
    """Height of a robot, inches."""
    line_height: float = 0.135
    """Height of a line of its caption, inches."""
    text: float = 7.0
    """Size of its caption, points."""

    @property
    def narrow(self) -> bool:
        """Whether it is for a phone."""
        return self.width < WIDTH


def layout_of(family: TaskFamily, narrow: bool) -> Layout:
    """Return the sizes of a family's sheet. narrow: for a phone."""
    parameters = len(family.parameters)
    if narrow:
        return Layout(NARROW, NARROW_COLUMNS, 1 if parameters <= FEW else 2, 1.72, 0.165, 8.5)
    return Layout(WIDTH, COLUMNS, min(parameters, 2 if parameters <= 8 else 3))


def draw(family: TaskFamily, path: Path, seed: int = 1, narrow: bool = False) -> None:
    """Write the contact sheet of a family as PNG; UsageError if there is no renderer.

    A robot that looks the same in every task is shown once. narrow: for a page that is read on a phone.
    """
    import matplotlib
    from matplotlib.figure import Figure

    layout = layout_of(family, narrow)
    tasks: dict[Split, list[Task]] = {}
    tiles: dict[Split, list[Task]] = {}
    for split in family.splits:
        tasks[split] = family.sample(SAMPLES, stream(seed, f"contact_sheet/{split}"), split)
    if family.edits_model or family.decorate is not None:
        rows = _rows(family, layout.columns)
        tiles |= {split: _spread(family, tasks[split], layout.columns * count) for split, count in rows.items()}
        if family.named:
            tiles["ood"] = tasks["ood"][: len(family.named)]  # they are drawn in turn
        row_height = layout.tile_height + layout.line_height * min(len(family.parameters), CAPTION_LINES)
        heights = [count * row_height + 0.3 for count in rows.values()]
    else:
        heights = [SINGLE_HEIGHT]
    heights.append(-(-len(family.parameters) // layout.plots) * PLOT_HEIGHT)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(layout.width, sum(heights) + 0.45), layout="constrained")
        title_of(figure, family.name if narrow else f"{family.name}: {family.description}")
        grid = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
        parts: list[SubFigure] = grid[:, 0].tolist()
        for part, (split, chosen) in zip(parts, tiles.items(), strict=False):
            _draw_robots(part, family, split, chosen, layout)
        if not tiles:
            _draw_one(parts[0], family, layout)
        _draw_parameters(parts[-1], family, tasks, tiles, layout)
        make_folder(path.parent, "--output")
        save(figure, path, "--output")


def picture(family: TaskFamily, task: Task) -> Array:
    """Return a picture of a task's robot at the start of an episode, [height, width, 3] uint8; starts are the same."""
    if isinstance(family, GymFamily):
        env = BatchedEnv(visible(family), 1, 1, threads=1)
        env.set_tasks([task])
        env.reset([stream(0, "contact_sheet/start")])
        assert isinstance(env.simulation, GymSimulation)
        seen = env.simulation.picture()
        closed(env)
        return fitted(seen, TILE)
    with usable_renderer(), Renderer(family.picture(task), *TILE) as renderer:
        qpos, _ = family.reset(family.compile(task), stream(0, "contact_sheet/start"), 1)
        return renderer.frame(qpos[0])


def _rows(family: TaskFamily, columns: int) -> dict[Split, int]:
    """Return the rows of robots by split, at least one each; the first splits get the remainder.

    Named tasks are all shown.
    """
    share, left = divmod(max(ROWS, len(family.splits)), len(family.splits))
    rows: dict[Split, int] = {split: share + (i < left) for i, split in enumerate(family.splits)}
    if family.named:
        rows["ood"] = -(-len(family.named) // columns)
    return rows


def _spread(family: TaskFamily, tasks: list[Task], count: int) -> list[Task]:
    """Return the first tasks, sorted by the first parameter that edits the model, or else by the first parameter."""
    shaping = [p for p in family.parameters if p.law.edit is not None] or list(family.parameters)
    return sorted(tasks[:count], key=lambda task: task.values[shaping[0].name])


def _draw_robots(part: SubFigure, family: TaskFamily, split: Split, tasks: list[Task], layout: Layout) -> None:
    colour = SPLIT_COLOURS[split]
    part.suptitle(f"{SPLIT_NAMES[split]} tasks", x=0.01, ha="left", fontsize=9.5, color=colour, weight="bold")
    columns = layout.columns
    places = part.subplots(-(-len(tasks) // columns), columns, squeeze=False).flat
    for axes in places[len(tasks) :]:
        axes.axis("off")
    for axes, task in zip(places, tasks, strict=False):
        _show(axes, picture(family, task), colour)
        axes.set_xlabel("\n".join(_tile_caption(family, task)), fontsize=layout.text, labelpad=3, parse_math=False)


def _draw_one(part: SubFigure, family: TaskFamily, layout: Layout) -> None:
    names = ", ".join(p.name.replace("_", " ") for p in family.parameters)
    text = f"Every task has this robot:\nonly the reward tells of the {names}."
    image = picture(family, family.neutral())
    if layout.narrow:
        axes = part.subplots()
        _show(axes, image, QUIET)
        axes.set_xlabel(text, parse_math=False)
        return
    left, right = part.subplots(1, 2, width_ratios=(1, 1))
    _show(left, image, QUIET)
    right.axis("off")
    right.text(0, 0.5, text, va="center", fontsize=9.5, parse_math=False)


def _show(axes: Axes, image: Array, colour: str) -> None:
    axes.imshow(image, interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, edgecolor=colour, linewidth=1.4)


def _tile_caption(family: TaskFamily, task: Task) -> list[str]:
    """Return the values of a task; if there are too many, what decides the layout and those furthest from neutral."""
    shown = family.shown(task)
    name, texts = name_captions(family, task), value_captions(family, shown)
    lines = CAPTION_LINES - len(name)
    if len(texts) <= lines:
        return name + texts
    first = [(p.name in family.layout, _deviation(p, shown)) for p in family.parameters]
    furthest = sorted(range(len(texts)), key=first.__getitem__, reverse=True)[: lines - 1]
    return name + [texts[i] for i in sorted(furthest)] + [f"and {len(texts) - len(furthest)} more nearer to neutral"]


def _deviation(parameter: Parameter, values: Mapping[str, float]) -> float:
    low, high, at, neutral = (
        parameter.distribution.low,
        parameter.distribution.high,
        values[parameter.name],
        parameter.neutral,
    )
    if isinstance(parameter.distribution, LogUniform):
        low, high, at, neutral = np.log([low, high, at, neutral])
    return abs(at - neutral) / (high - low) if high > low else 0.0


def _draw_parameters(
    part: SubFigure,
    family: TaskFamily,
    tasks: dict[Split, list[Task]],
    tiles: dict[Split, list[Task]],
    layout: Layout,
) -> None:
    """Draw a plot for each parameter: sampled values by split as dots, pictured ones as circles, neutral as a line."""
    columns = layout.plots
    drawn, pictured = _shown(family, tasks), _shown(family, tiles)
    plots = part.subplots(-(-len(family.parameters) // columns), columns, squeeze=False).flat
    for axes in plots[len(family.parameters) :]:
        axes.axis("off")
    for i, (axes, parameter) in enumerate(zip(plots, family.parameters, strict=False)):
        _draw_parameter(axes, parameter, drawn, pictured)
        axes.set_yticks(range(len(tasks)), [SPLIT_NAMES[split] for split in tasks] if i % columns == 0 else [])


def _shown(family: TaskFamily, tasks: dict[Split, list[Task]]) -> dict[Split, list[dict[str, float]]]:
    """Return the values of tasks by split."""
    return {split: [family.shown(task) for task in own] for split, own in tasks.items()}


def _draw_parameter(
    axes: Axes,
    parameter: Parameter,
    tasks: dict[Split, list[dict[str, float]]],
    tiles: dict[Split, list[dict[str, float]]],
) -> None:
    """Draw the plot of a parameter, given the values of the sampled tasks and of the pictured ones."""
    jitter = stream(0, "contact_sheet/jitter").uniform(-0.26, 0.26, SAMPLES)
    axes.axvline(parameter.neutral, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    for row, (split, drawn) in enumerate(tasks.items()):
        colour = SPLIT_COLOURS[split]
        values = [task[parameter.name] for task in drawn]
        axes.scatter(values, row + jitter, s=4, color=colour, alpha=0.4, linewidths=0)
        pictured = [task[parameter.name] for task in tiles.get(split, [])]
        axes.scatter(pictured, [row] * len(pictured), s=22, facecolor="white", edgecolor=colour, linewidths=1.1)
    if isinstance(parameter.distribution, LogUniform):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.locator_params(axis="x", nbins=5)
    name_ticks(axes.xaxis, np.array([t[parameter.name] for own in tasks.values() for t in own]), parameter)
    axes.set(xlabel=axis_label(parameter), ylim=(len(tasks) - 0.5, -0.5))
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)
