"""What is shown and kept of an evaluation: a table, a JSON file and figures."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from metarl.config import SPLIT_NAMES, EvaluationSettings
from metarl.errors import RunError, describe
from metarl.evaluation.evaluate import SHARES, EvaluationResult
from metarl.evaluation.statistics import REACHED, WORST, Interval
from metarl.files import write
from metarl.reporting import figures
from metarl.runs.tracking import METRICS, read_metrics, read_record
from metarl.wording import number_of

COLUMNS = ("rounds", "return: IQM [95 %]", "return: mean ± std", "gain: IQM [95 %]")
ABSENT = "—"
"""What stands where there is no number."""
NO_GAIN = "the interval of the gain does not lie above 0"
NO_LEAD = "the interval of the oracle's lead over the agent before adaptation does not lie above 0"
"""Why there is none."""


def heading(result: EvaluationResult) -> str:
    """One line: family, split, and whose agent it is."""
    text = f"{result.family.name}, {SPLIT_NAMES[result.settings.split]} tasks"
    if source := result.source:
        text += f", run {source.run} at iteration {source.iteration} ({source.env_steps:,} env steps)"
    return text


def rows(result: EvaluationResult) -> list[tuple[str, ...]]:
    """The table's cells by `COLUMNS`, one row a round of adaptation."""
    summary = result.summary
    places = places_of(summary.mean)
    return [
        (
            str(k),
            interval_text(summary.iqm[k], places),
            f"{summary.mean[k].estimate:z.{places}f} ± {summary.std[k]:.{places}f}",
            interval_text(summary.gain[k], places, "+") if k else "",
        )
        for k in range(len(summary.iqm))
    ]


def measure_columns(result: EvaluationResult) -> tuple[str, ...]:
    """The heads of the table of measures."""
    last = result.settings.adaptations
    return ("mean over tasks [95 %]", "before", *([f"after {last}"] if last else []))


def measure_rows(result: EvaluationResult) -> list[tuple[str, ...]]:
    """What the family measures, before adaptation and after the last round."""
    shots = (0, -1) if result.settings.adaptations else (0,)
    units = result.family.measure_units
    return [
        (measure_name(name, units[name]), *(measure_text(name, result.measured[name][k]) for k in shots))
        for name in result.measured
    ]


def measure_name(name: str, unit: str) -> str:
    """A measure in words, with its unit."""
    words = name.replace("_", " ")
    return f"{words}, %" if name in SHARES else words if unit == "1" else f"{words}, {unit}"


def measure_text(name: str, measured: Interval | None) -> str:
    """A measure's mean with its interval."""
    if measured is None:
        return ABSENT
    if name in SHARES:
        return interval_text(Interval(*(100 * x for x in (measured.estimate, measured.low, measured.high))), 0)
    return interval_text(measured, places_of([measured]))


def interval_text(i: Interval, places: int, sign: str = "") -> str:
    """An estimate and its interval, such as `-1.5 [-2.0, -1.0]`; what is infinite is said so."""
    return f"{i.estimate:{sign}z.{places}f} [{i.low:{sign}z.{places}f}, {i.high:{sign}z.{places}f}]"


def share_text(share: Interval) -> str:
    """A share with its interval, in per cent."""
    return f"{100 * share.estimate:z.0f} % [{100 * share.low:z.0f}, {100 * share.high:z.0f}]"


def by_seed_text(levels: Sequence[tuple[Any, Interval]]) -> str:
    """The estimate of each training seed, such as `1: 12.3, 2: 12.9`."""
    places = places_of(level for _, level in levels)
    return ", ".join(f"{seed}: {level.estimate:z.{places}f}" for seed, level in levels)


def places_of(intervals: Iterable[Interval]) -> int:
    """Decimal places at which numbers of that size are read."""
    return 1 if max(abs(i.estimate) for i in intervals) >= 100 else 2


def remarks(result: EvaluationResult) -> list[str]:
    """The lines below the table."""
    lines = summary_lines(result)
    if result.settings.adaptations:
        trial = result.summary.trial_mean
        lines.insert(0, f"mean over all rounds: {trial.estimate:z.1f} [{trial.low:z.1f}, {trial.high:z.1f}]")
    return lines + [f"note: {note}" for note in result.notes] + [f"warning: {text}" for text in result.warnings]


def summary_lines(result: EvaluationResult) -> list[str]:
    """What is said besides the tables: worst tasks, speed of adaptation, recovery, the gap to training tasks."""
    summary, gap = result.summary, result.train_gap
    places = places_of(summary.mean)
    lines = [f"worst {100 * WORST:g} % of the tasks: " + interval_text(summary.worst[-1], places)]
    if (reach := summary.rounds_to_reach) is not None:
        lines.append(f"{100 * REACHED:g} % of the way up: {rounds_text(reach, result.settings.envs_per_task)}")
    elif result.settings.adaptations:
        lines.append(f"{100 * REACHED:g} % of the way up: {ABSENT} ({NO_GAIN})")
    if result.recovered is not None:
        share, steps = result.recovered
        how_fast = "" if steps is None else f", in {interval_text(steps, 0)} control steps"
        lines.append(f"after a change: {measure_text('success', share)} % of the tasks recover{how_fast}")
    if gap is not None:
        flag = ": its interval excludes 0" if gap.flagged else ""
        train, after = interval_text(gap.train, places), interval_text(gap.after, places, "+")
        lines.append(f"training tasks: {train}, a gap of {after}{flag}")
    if text := result.family.success_text():
        lines.append(f"success: {text}")
    return lines


def rounds_text(reach: Interval, envs_per_task: int) -> str:
    """Rounds of adaptation, and the episodes that they are."""
    low, high = (f"{end:g}" if math.isfinite(end) else "∞" for end in (reach.low, reach.high))
    episodes = reach.estimate * envs_per_task
    return f"after {reach.estimate:g} [{low}, {high}] rounds, {number_of(episodes, 'episode')} a task"


def show(result: EvaluationResult, console: Console | None = None) -> None:
    """Print the tables and the remarks: drawn on a terminal, plain columns elsewhere."""
    console = console or Console(file=sys.stdout)
    title(heading(result), console)
    show_table(COLUMNS, rows(result), console)
    if measured := measure_rows(result):
        show_table(measure_columns(result), measured, console)
    show_lines(remarks(result), console)


def title(text: str, console: Console) -> None:
    """Print a heading."""
    console.print(text, style="bold", markup=False, highlight=False, soft_wrap=not console.is_terminal)


def show_table(columns: Sequence[str], cells: Sequence[Sequence[str]], console: Console, left: int = 0) -> None:
    """Print a table: drawn on a terminal, plain columns elsewhere. left: how many columns begin at the left."""
    if not console.is_terminal:
        print(*_plain(columns, cells, left), sep="\n", file=console.file)
        return
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(table.columns):
        column.justify = "left" if i < left else "right"
    for row in cells:
        table.add_row(*row)
    console.print(table, markup=False)


def show_lines(lines: Iterable[str], console: Console) -> None:
    """Print remarks, warnings in yellow."""
    for line in lines:
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
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path = _free_path(folder, name_of(result.settings, result.source and result.source.iteration), json.loads(text))
        write(path, text.encode())
        figures.adaptation_curve(result, path.with_suffix(".png"))
    return path


def save_learning_curve(directory: Path, family: str) -> Path | None:
    """Draw evaluation/learning.png from a run's metrics.jsonl; None if there is no iteration in it yet."""
    if not (directory / METRICS).exists() or not (metrics := read_metrics(directory)):
        return None
    path = learning_path(directory)
    with disk_errors(path.parent):
        path.parent.mkdir(exist_ok=True)
        figures.learning_curve(metrics, path, f"{family}, run {directory.name}: meta-training")
    return path


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into RunError."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot save in {folder}: {describe(error)}; make room, or allow writing there") from error


def name_of(settings: EvaluationSettings, iteration: int | None) -> str:
    """What the files of an evaluation are called. iteration: of the checkpoint; None: the agent is of no run."""
    seeds = settings.seeds
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        named = f"{seeds[0]}to{seeds[-1]}"
    elif len(seeds) <= 4:
        named = "_".join(map(str, seeds))
    else:
        named = hashlib.sha256(repr(seeds).encode()).hexdigest()[:8]
    at = "" if iteration is None else f"_iteration{iteration:06d}"
    return f"{settings.split}_seeds{named}{at}"


def has_pictures(directory: Path, settings: EvaluationSettings, iteration: int) -> bool:
    """Whether a run's folder has the pictures that `save_all` makes of its evaluation with these settings, if any."""
    saved = list((directory / "evaluation").glob(f"{name_of(settings, iteration)}*.json"))
    drawn = any(path.with_suffix(".png").is_file() for path in saved) or not saved
    metrics = directory / METRICS
    return drawn and (learning_path(directory).is_file() or not (metrics.exists() and read_record(metrics).lines))


def learning_path(directory: Path) -> Path:
    """Where the learning curve of a run is."""
    return directory / "evaluation" / "learning.png"


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
        **{key: content.get(key) for key in ("family", "iteration", "env_steps")},
        # The gap to training tasks is beside the numbers; what an older version did not ask has its default.
        "evaluation": {**_plain_settings(), **(content.get("evaluation") or {}), "train_gap": None},
        **{key: config.get(key) for key in ("agent", "family", "training")},
        **{key: provenance.get(key) for key in ("metarl", "commit", "versions")},
    }


def _plain_settings() -> dict[str, Any]:
    return json.loads(json.dumps(asdict(EvaluationSettings())))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # not ours, or cut short: kept, and never the same
        return {}
    return content if isinstance(content, dict) else {}


def _plain(columns: Sequence[str], cells: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    lines = max(head.count("\n") for head in columns) + 1
    heads = [[""] * (lines - 1 - head.count("\n")) + head.split("\n") for head in columns]
    table = [*zip(*heads, strict=True), *cells]
    widths = [max(len(row[c]) for row in table) for c in range(len(table[0]))]

    def cell(text: str, c: int) -> str:
        return text.ljust(widths[c]) if c < left else text.rjust(widths[c])

    return ["  ".join(cell(text, c) for c, text in enumerate(row)).rstrip() for row in table]
