"""Report of an identification: a table, what follows in words, and files of both with figures and the identifier."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from metarl.evaluation.statistics import Interval
from metarl.files import write
from metarl.identification.identifier import NONE, Identifier
from metarl.identification.result import REACHED, Identification, Judged
from metarl.reporting.columns import Table
from metarl.reporting.evaluation_files import disk_errors
from metarl.reporting.figures import AFTER, BEFORE, INK, LEGEND, NARROW, QUIET, STYLE, save, title_of
from metarl.reporting.terminal import print_lines, print_table, print_title
from metarl.wording import number_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

JSON, ACCURACY, CONFUSION, RELIABILITY = (
    "identification.json",
    "accuracy.png",
    "confusion.png",
    "reliability.png",
)
CELL, MARGIN, MOST_IN = 0.34, 1.1, 16.0
"""Size of a cell of a confusion matrix, its margin without labels, and the largest figure, inches."""
LABEL, LETTER, LINE = 28, 0.075, 0.17
"""Most letters of a line of a label, and the width of a letter and the height of a line, inches."""
DARK = 0.55
"""Share from which a cell's number is white."""
FEWEST = 0.002
"""Share of the queries below which a bin of the reliability diagram is not drawn."""


def show(found: Identification) -> None:
    """Print the table and what follows."""
    console = Console(file=sys.stdout)
    print_title(heading(found), console)
    print_table(table(found), console, left=1)
    print_lines(lines(found), console)


def heading(found: Identification) -> str:
    """Return what was told apart, in words."""
    return f"{_whose(found)}, {found.ways}-way {found.shots}-shot"


def _whose(found: Identification) -> str:
    by = " and ".join(name.replace("_", " ") for name in found.by)
    return f"{found.family}, run {found.run}: {by}"


def table(found: Identification) -> Table:
    """Return a row for each duration of a single episode, and for each number of whole ones together."""
    columns = (
        "seconds",
        "accuracy, classes\nnever met",
        "\nof training",
        "calibration\nerror",
        "none of these:\nAUROC",
        "\nfound",
        "\nfalse alarms",
        "calibration error,\nnone of these too",
        f"among {found.all_ways} classes:\naccuracy",
        "none of these:\nfound",
        "\nfalse alarms",
    )
    together = [(f"{n} x ", at) for n, at in found.several.items() if n > 1]
    return Table("identification", columns, [_row(*row) for row in (*(("", at) for at in found.curve), *together)])


def _row(several: str, at: Judged) -> list[str]:
    error, area = f"{at.calibration_error:.3f}", f"{at.auroc:.2f}"
    everything = at.among_all
    shares = (at.accuracy, at.trained, at.detected, at.false_alarms)
    shares += (everything.accuracy, everything.detected, everything.false_alarms)
    accuracy, trained, detected, false, *of_all = map(_percent, shares)
    seconds = f"{several}{at.seconds:.2f}"
    return [seconds, accuracy, trained, error, area, detected, false, f"{at.open_error:.3f}", *of_all]


def _percent(share: Interval) -> str:
    return f"{100 * share.estimate:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def lines(found: Identification) -> list[str]:
    """Return what follows, and the notes, as lines."""
    reached, last = found.seconds_to_reach, found.curve[-1]
    told = (
        f"{REACHED:.0%} of new classes' episodes are told after {reached:.2f} s"
        if reached
        else (f"{REACHED:.0%} is not reached: {_percent(last.accuracy)} after {last.seconds:.2f} s")
    )
    returns = ", ".join(
        f"{name} {r.estimate:z.1f} [{r.low:z.1f}, {r.high:z.1f}]" for name, r in found.retrieved.items()
    )
    retrieved = [f"return with the policy of the nearest known task: {returns}"] if returns else []
    counts = {use: len(labels) for use, labels in found.classes.items()}
    return [
        f"{told}; by chance {1 / found.ways:.0%}",
        *retrieved,
        f"note: {counts['training']} classes of training, {counts['calibration']} of calibration, "
        f"{counts['judged']} judged on {number_of(found.tasks, 'task')}; [ ]: 95 % bootstrap interval over tasks, of "
        "this one encoder",
        f"note: none of these: {found.all_ways} classes are all but one; the thresholds are from the classes of "
        "calibration",
        *(f"note: {text}" for text in found.notes),
    ]


def save_report(found: Identification, identifier: Identifier, folder: Path) -> dict[str, Path]:
    """Write the identifier, JSON and figures into a folder that exists, print where, and return them by kind.

    RunError if the disk refuses.
    """
    import matplotlib

    paths = {name.partition(".")[0]: folder / name for name in (JSON, ACCURACY, CONFUSION, RELIABILITY)}
    with disk_errors(folder), matplotlib.rc_context(STYLE):
        paths["identifier"] = identifier.save(folder)
        data = json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n"
        write(paths["identification"], data.encode(), "--output")
        draw_accuracy(found, paths["accuracy"])
        draw_confusion(found, paths["confusion"])
        draw_reliability(found, paths["reliability"])
    for path in paths.values():
        print(f"saved {os.path.relpath(path)}")
    return paths


def draw_accuracy(found: Identification, path: Path) -> None:
    """Draw the accuracy against the seconds of a query, with intervals, and how often none of these is found."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(NARROW, 3.7), layout="constrained")
    axes = figure.subplots()
    _band(axes, found, "accuracy", AFTER, "o", "classes never met")
    _band(axes, found, "trained", QUIET, "s", "classes of training")
    _band(axes, found, "detected", BEFORE, "^", f"{NONE}: found")
    _band(axes, found, "false_alarms", "#CC79A7", "v", f"{NONE}: false alarms")
    axes.axhline(100 / found.ways, color=INK, linewidth=0.8, linestyle=":")
    axes.annotate("chance", (found.curve[-1].seconds, 100 / found.ways), (0, 2), textcoords="offset points", ha="right")
    seconds = [at.seconds for at in found.curve]
    axes.set_xscale("log")
    axes.set_xticks(seconds, [f"{s:.3g}" for s in seconds])
    axes.minorticks_off()
    axes.set(xlabel="seconds of the query", ylabel="share of episodes, %", ylim=(0, 102))
    axes.legend(**LEGEND)
    title_of(figure, f"{heading(found)}\n95 % intervals over tasks")
    save(figure, path, "--output")


def _band(axes: Axes, found: Identification, name: str, colour: str, marker: str, label: str) -> None:
    x, shares = [at.seconds for at in found.curve], [getattr(at, name) for at in found.curve]
    middle, low, high = (100 * np.array([getattr(s, end) for s in shares]) for end in ("estimate", "low", "high"))
    axes.fill_between(x, low, high, color=colour, alpha=0.22, linewidth=0)
    axes.plot(x, middle, color=colour, marker=marker, markersize=4.5, linewidth=1.6, label=label)


def draw_confusion(found: Identification, path: Path) -> None:
    """Draw the answers to queries of each judged class, in percent."""
    from matplotlib.figure import Figure

    own, count = found.confusion, len(found.confusion.labels)
    labels = [textwrap.fill(label, LABEL, break_long_words=False) for label in own.labels]
    margin = MARGIN + LETTER * max(len(line) for label in labels for line in label.split("\n"))
    cell = max(CELL, LINE * max(1 + label.count("\n") for label in labels))
    size = min(margin + cell * (count + 1), MOST_IN), min(margin + cell * count, MOST_IN)
    figure = Figure(figsize=(max(size[0], NARROW), size[1]), layout="constrained")
    axes = figure.subplots()
    axes.imshow(own.shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.grid(visible=False)
    axes.axvline(count - 0.5, color=INK, linewidth=0.8)
    for row, column in np.argwhere(own.shares >= 0.005):
        share = own.shares[row, column]
        colour = "white" if share > DARK else INK
        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(count + 1), [*labels, NONE], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), labels)
    axes.set(xlabel="answer", ylabel="class of the episode")
    shots = number_of(found.shots, "supporting episode")
    said = f"Answers after {own.seconds:.2f} s, % of a row; classes never met in training, {shots} of each"
    title_of(figure, f"{_whose(found)}\n{said}")
    save(figure, path, "--output")


def draw_reliability(found: Identification, path: Path) -> None:
    """Draw the share of right answers against their probability."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    confidence, accuracy, share = (np.array(found.reliability[k]) for k in ("confidence", "accuracy", "share"))
    drawn = share > FEWEST
    axes.plot([0, 100], [0, 100], color=INK, linewidth=0.8, linestyle=":")
    width = 100 / len(share)
    centres = width * (np.arange(len(share)) + 0.5)
    axes.bar(centres, 100 * share, width=0.92 * width, color=QUIET, alpha=0.35, label="share of all answers")
    axes.plot(100 * confidence[drawn], 100 * accuracy[drawn], "-o", color=AFTER, label="right answers")
    axes.set(xlabel="probability of the answer, %", ylabel="%", xlim=(0, 100), ylim=(0, 102))
    axes.legend(loc="upper left")
    at = min(found.curve, key=lambda at: abs(at.seconds - found.confusion.seconds))
    title_of(
        figure,
        f"{found.family}, run {found.run}: classes never met, {at.seconds:.2f} s\n"
        f"expected calibration error {at.calibration_error:.3f}, {at.uncalibrated_error:.3f} before",
    )
    save(figure, path, "--output")
