"""`metarl families show`: sampled robots of every split, and what their parameters range over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metarl.config import SPLIT_NAMES
from metarl.envs.family import Array, Task, TaskFamily
from metarl.envs.parameters import LogUniform, Parameter, Split
from metarl.envs.rendering import Renderer
from metarl.errors import RunError, describe
from metarl.figures import INK, QUIET, SPLIT_COLOURS, STYLE, axis_label, save, title_of
from metarl.render import usable_renderer, value_captions
from metarl.trial import stream

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

COLUMNS = 4
ROWS = 4
"""Of robots, shared by the splits."""
WIDTH = 9.0
"""Inches, at 160 pixels each."""
TILE = (384, 288)
"""Width and height of a rendered robot, pixels."""
TILE_HEIGHT, LINE_HEIGHT, PLOT_HEIGHT, SINGLE_HEIGHT = 1.62, 0.135, 1.35, 3.0
"""Inches, of a robot, of a line of its caption, of a row of plots, and of a robot that is shown alone."""
CAPTION_LINES = 5
SAMPLES = 300
"""Tasks of each split in the plots."""


def draw(family: TaskFamily, path: Path, seed: int = 1) -> None:
    """Write the contact sheet of a family as PNG; UsageError if there is no renderer.

    A family that looks the same whatever the task is shown once.
    """
    import matplotlib
    from matplotlib.figure import Figure

    tasks: dict[Split, list[Task]] = {}
    tiles: dict[Split, list[Task]] = {}
    for split in family.splits:
        tasks[split] = family.sample(SAMPLES, stream(seed, f"contact_sheet/{split}"), split)
    if family.edits_model or family.decorate is not None:
        rows = _rows(family)
        tiles |= {split: _spread(family, tasks[split], COLUMNS * count) for split, count in rows.items()}
        row_height = TILE_HEIGHT + LINE_HEIGHT * min(len(family.parameters), CAPTION_LINES)
        heights = [count * row_height + 0.3 for count in rows.values()]
    else:
        heights = [SINGLE_HEIGHT]
    heights.append(-(-len(family.parameters) // _plot_columns(family)) * PLOT_HEIGHT)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.45), layout="constrained")
        title_of(figure, f"{family.name}: {family.description}")
        grid = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
        parts: list[SubFigure] = grid[:, 0].tolist()
        for part, (split, chosen) in zip(parts, tiles.items(), strict=False):
            _draw_robots(part, family, split, chosen)
        if not tiles:
            _draw_one(parts[0], family)
        _draw_parameters(parts[-1], family, tasks, tiles)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {path.parent}: {describe(error)}; choose another --output") from error
        save(figure, path, "--output")


def picture(family: TaskFamily, task: Task) -> Array:
    """A task's robot as an episode starts, [height, width, 3] uint8; the same start for every task."""
    with usable_renderer(), Renderer(family.picture(task), *TILE) as renderer:
        qpos, _ = family.reset(family.compile(task), stream(0, "contact_sheet/start"), 1)
        return renderer.frame(qpos[0])


def _rows(family: TaskFamily) -> dict[Split, int]:
    """Rows of robots by split, at least one: what is left over goes to the first splits."""
    share, left = divmod(max(ROWS, len(family.splits)), len(family.splits))
    return {split: share + (i < left) for i, split in enumerate(family.splits)}


def _spread(family: TaskFamily, tasks: list[Task], count: int) -> list[Task]:
    """The first tasks, in the order of the first parameter that shapes the robot, or else of the first one."""
    shaping = [p for p in family.parameters if p.law.edit is not None] or list(family.parameters)
    return sorted(tasks[:count], key=lambda task: task.values[shaping[0].name])


def _draw_robots(part: SubFigure, family: TaskFamily, split: Split, tasks: list[Task]) -> None:
    colour = SPLIT_COLOURS[split]
    part.suptitle(f"{SPLIT_NAMES[split]} tasks", x=0.01, ha="left", fontsize=9.5, color=colour, weight="bold")
    for axes, task in zip(part.subplots(len(tasks) // COLUMNS, COLUMNS, squeeze=False).flat, tasks, strict=True):
        _show(axes, picture(family, task), colour)
        axes.set_xlabel("\n".join(_tile_caption(family, task)), fontsize=7, labelpad=3, parse_math=False)


def _draw_one(part: SubFigure, family: TaskFamily) -> None:
    left, right = part.subplots(1, 2, width_ratios=(1, 1))
    _show(left, picture(family, family.neutral()), QUIET)
    right.axis("off")
    names = ", ".join(p.name.replace("_", " ") for p in family.parameters)
    text = f"Every task has this robot:\nonly the reward tells of the {names}."
    right.text(0, 0.5, text, va="center", fontsize=9.5, parse_math=False)


def _show(axes: Axes, image: Array, colour: str) -> None:
    axes.imshow(image, interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, edgecolor=colour, linewidth=1.4)


def _tile_caption(family: TaskFamily, task: Task) -> list[str]:
    """The task's values; where they are too many, those furthest from neutral within their range."""
    texts = value_captions(family, task.values)
    if len(texts) <= CAPTION_LINES:
        return texts
    furthest = sorted(range(len(texts)), key=lambda i: -_deviation(family.parameters[i], task))[: CAPTION_LINES - 1]
    return [texts[i] for i in sorted(furthest)] + [f"and {len(texts) - len(furthest)} more nearer to neutral"]


def _deviation(parameter: Parameter, task: Task) -> float:
    low, high, at, neutral = (
        parameter.distribution.low,
        parameter.distribution.high,
        task.values[parameter.name],
        parameter.neutral,
    )
    if isinstance(parameter.distribution, LogUniform):
        low, high, at, neutral = np.log([low, high, at, neutral])
    return abs(at - neutral) / (high - low) if high > low else 0.0


def _draw_parameters(
    part: SubFigure, family: TaskFamily, tasks: dict[Split, list[Task]], tiles: dict[Split, list[Task]]
) -> None:
    """Values by split, one plot a parameter: sampled tasks as dots, those pictured as circles, neutral as a line."""
    columns = _plot_columns(family)
    plots = part.subplots(-(-len(family.parameters) // columns), columns, squeeze=False).flat
    for axes in plots[len(family.parameters) :]:
        axes.axis("off")
    for i, (axes, parameter) in enumerate(zip(plots, family.parameters, strict=False)):
        _draw_parameter(axes, parameter, tasks, tiles)
        axes.set_yticks(range(len(tasks)), [SPLIT_NAMES[split] for split in tasks] if i % columns == 0 else [])


def _plot_columns(family: TaskFamily) -> int:
    return min(len(family.parameters), 2 if len(family.parameters) <= 8 else 3)


def _draw_parameter(
    axes: Axes, parameter: Parameter, tasks: dict[Split, list[Task]], tiles: dict[Split, list[Task]]
) -> None:
    jitter = stream(0, "contact_sheet/jitter").uniform(-0.26, 0.26, SAMPLES)
    axes.axvline(parameter.neutral, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    for row, (split, drawn) in enumerate(tasks.items()):
        colour = SPLIT_COLOURS[split]
        values = [task.values[parameter.name] for task in drawn]
        axes.scatter(values, row + jitter, s=4, color=colour, alpha=0.4, linewidths=0)
        pictured = [task.values[parameter.name] for task in tiles.get(split, [])]
        axes.scatter(pictured, [row] * len(pictured), s=22, facecolor="white", edgecolor=colour, linewidths=1.1)
    if isinstance(parameter.distribution, LogUniform):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel=axis_label(parameter), ylim=(len(tasks) - 0.5, -0.5))
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)
