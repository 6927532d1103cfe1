"""What is shown and kept of an evaluation: a table, a JSON file and figures."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from metarl import figures
from metarl.checkpoint import write
from metarl.config import SPLIT_NAMES
from metarl.errors import RunError, describe
from metarl.statistics import Interval
from metarl.tracking import METRICS, read_metrics

if TYPE_CHECKING:
    from metarl.evaluation import EvaluationResult

COLUMNS = ("rounds", "return: IQM [95 %]", "return: mean ± std", "gain: IQM [95 %]")


def heading(result: EvaluationResult) -> str:
    """One line: family, split, and whose agent it is."""
    text = f"{result.family.name}, {SPLIT_NAMES[result.settings.split]} tasks"
    if source := result.source:
        text += f", run {source.run} at iteration {source.iteration} ({source.env_steps:,} env steps)"
    return text


def rows(result: EvaluationResult) -> list[tuple[str, ...]]:
    """The table's cells by `COLUMNS`, one row a round of adaptation."""
    summary = result.summary
    places = 1 if max(abs(i.estimate) for i in summary.mean) >= 100 else 2

    def interval(i: Interval, sign: str = "") -> str:
        return f"{i.estimate:{sign}.{places}f} [{i.low:{sign}.{places}f}, {i.high:{sign}.{places}f}]"

    return [
        (
            str(k),
            interval(summary.iqm[k]),
            f"{summary.mean[k].estimate:.{places}f} ± {summary.std[k]:.{places}f}",
            interval(summary.gain[k], sign="+") if k else "",
        )
        for k in range(len(summary.iqm))
    ]


def remarks(result: EvaluationResult) -> list[str]:
    """The lines below the table."""
    trial = result.summary.trial_mean
    lines = [f"note: {note}" for note in result.notes]
    if result.settings.adaptations:
        lines.insert(0, f"mean over all rounds: {trial.estimate:.1f} [{trial.low:.1f}, {trial.high:.1f}]")
    return lines + [f"warning: {warning}" for warning in result.warnings]


def show(result: EvaluationResult, console: Console | None = None) -> None:
    """Print the table and the remarks: drawn on a terminal, plain columns elsewhere."""
    console = console or Console(file=sys.stdout)
    if console.is_terminal:
        console.print(heading(result), style="bold", markup=False, highlight=False)
        table = Table(*COLUMNS, box=box.SIMPLE_HEAD)
        for column in table.columns:
            column.justify = "right"
        for row in rows(result):
            table.add_row(*row)
        console.print(table)
    else:
        print(heading(result), *_plain([COLUMNS, *rows(result)]), sep="\n", file=console.file)
    for line in remarks(result):
        style = "yellow" if line.startswith("warning") else None
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def save_all(result: EvaluationResult, directory: Path) -> dict[str, Path]:
    """Save an evaluation and the learning curve in a run's folder, and say where; returns the figures by name."""
    saved = save(result, directory / "evaluation")
    figures = {"adaptation": saved.with_suffix(".png")}
    if (learning := save_learning_curve(directory, result.family.name)) is not None:
        figures["learning"] = learning
    for path in (saved, *figures.values()):
        print(f"saved {os.path.relpath(path)}")
    return figures


def save(result: EvaluationResult, folder: Path) -> Path:
    """Write the JSON file, with the adaptation curve beside it; returns the JSON file's path.

    The name says split, seeds and iteration. A file of that name is replaced only if it was made with the same
    settings; otherwise a number is added. RunError if the disk refuses.
    """
    text = json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n"
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path = _free_path(folder, _name(result), json.loads(text))
        write(path, text.encode())
        figures.adaptation_curve(result, path.with_suffix(".png"))
    return path


def save_learning_curve(directory: Path, family: str) -> Path | None:
    """Draw evaluation/learning.png from a run's metrics.jsonl; None if there is no iteration in it yet."""
    if not (directory / METRICS).exists() or not (metrics := read_metrics(directory)):
        return None
    path = directory / "evaluation" / "learning.png"
    with _disk_errors(path.parent):
        path.parent.mkdir(exist_ok=True)
        figures.learning_curve(metrics, path, f"{family}, run {directory.name}: meta-training")
    return path


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot save in {folder}: {describe(error)}; make room, or allow writing there") from error


def _name(result: EvaluationResult) -> str:
    seeds = result.settings.seeds
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        named = f"{seeds[0]}to{seeds[-1]}"
    elif len(seeds) <= 4:
        named = "_".join(map(str, seeds))
    else:
        named = hashlib.sha256(repr(seeds).encode()).hexdigest()[:8]
    iteration = f"_iteration{result.source.iteration:06d}" if result.source else ""
    return f"{result.settings.split}_seeds{named}{iteration}"


def _free_path(folder: Path, name: str, content: dict[str, Any]) -> Path:
    for number in itertools.count(1):
        path = folder / f"{name}{f'_{number}' if number > 1 else ''}.json"
        if not path.exists() or _made_with(_read(path)) == _made_with(content):
            return path
    raise AssertionError("unreachable")


def _made_with(content: dict[str, Any]) -> dict[str, Any]:
    """What decides an evaluation's numbers."""
    provenance = content.get("provenance", {})
    config = provenance.get("config", {})
    return {
        **{key: content.get(key) for key in ("family", "iteration", "env_steps", "evaluation")},
        **{key: config.get(key) for key in ("agent", "family", "training")},
        **{key: provenance.get(key) for key in ("metarl", "commit", "versions")},
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # not ours, or cut short: kept, and never the same
        return {}
    return content if isinstance(content, dict) else {}


def _plain(table: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[c]) for row in table) for c in range(len(table[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
