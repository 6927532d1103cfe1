"""Printing of an evaluation: a table of returns by round, a table of measures, and remarks."""

from __future__ import annotations

import sys

from rich.console import Console

from metarl.config import SPLIT_NAMES
from metarl.evaluation.comparison import Comparison
from metarl.evaluation.results import EvaluationResult
from metarl.reporting.columns import (
    ABSENT,
    GAP,
    REACH,
    RECOVERY,
    WORST_TASKS,
    Agents,
    Column,
    Table,
    interval_text,
    measure_column,
    places_of,
)
from metarl.reporting.terminal import print_lines, print_table, print_title
from metarl.reporting.time_columns import TIME

COLUMNS = ("rounds", "return: IQM [95 %]", "return: mean ± std", "gain: IQM [95 %]")
"""Headings of the table of returns."""
LINES: tuple[Column, ...] = (WORST_TASKS, REACH, RECOVERY, *TIME, GAP)
"""Columns that a single agent has a line of."""


def show(result: EvaluationResult, console: Console | None = None) -> None:
    """Print the tables and the remarks: drawn on a terminal, plain columns elsewhere."""
    console = console or Console(file=sys.stdout)
    print_title(heading(result), console)
    print_table(return_table(result), console)
    measures = measure_table(result)
    if measures.rows:
        print_table(measures, console)
    print_lines(remarks(result), console)


def heading(result: EvaluationResult) -> str:
    """Return one line with the family, the split and the run."""
    text = f"{result.family}, {SPLIT_NAMES[result.settings.split]} tasks{result.settings.protocol}"
    if source := result.source:
        text += f", run {source.run} at iteration {source.iteration} ({source.env_steps:,} env steps)"
    return text


def return_table(result: EvaluationResult) -> Table:
    """Return the table of returns and gains, one row for each number of rounds of adaptation."""
    summary = result.summary
    places = places_of(summary.mean)
    rows = [
        (
            str(k),
            interval_text(summary.iqm[k], places),
            f"{summary.mean[k].estimate:z.{places}f} ± {summary.std[k]:.{places}f}",
            interval_text(summary.gain[k], places, "+") if k else "",
        )
        for k in range(len(summary.iqm))
    ]
    return Table("", COLUMNS, rows)


def measure_table(result: EvaluationResult) -> Table:
    """Return the table of the family's measures, before adaptation and after the last round."""
    agents = _agents(result)
    shots = (0, -1) if result.adaptations else (0,)
    rows = []
    for name in result.measured:
        columns = [measure_column(name, result.units[name], shot) for shot in shots]
        rows.append((columns[0].heading, *(column.cell(agents.agents[0], agents) for column in columns)))
    after = [f"after {result.adaptations}"] if result.adaptations else []
    return Table("", ("mean over tasks [95 %]", "before", *after), rows)


def _agents(result: EvaluationResult) -> Agents:
    """Return the agent alone, with the places of the table of returns."""
    return Agents(Comparison.of(result, "").agents, places_of(result.summary.mean))


def remarks(result: EvaluationResult) -> list[str]:
    """Return the lines below the tables."""
    lines = summary_lines(result)
    if result.adaptations:
        lines.insert(0, f"mean over all rounds: {interval_text(result.summary.trial_mean, 1)}")
    return lines + [f"note: {note}" for note in result.notes] + [f"warning: {text}" for text in result.warnings]


def summary_lines(result: EvaluationResult) -> list[str]:
    """Return a line for each quantity besides the tables: worst tasks, speed, recovery, gap to training tasks."""
    agents = _agents(result)
    cells = [(column, column.cell(agents.agents[0], agents)) for column in LINES]
    lines = [
        f"{column.heading}: {text}" + (f" ({column.reason})" if text == ABSENT else "")
        for column, text in cells
        if text
    ]
    if result.train_gap:
        lines.append(f"return on training tasks: {interval_text(result.train_gap.train, agents.places)}")
    return lines + ([f"success: {result.success}"] if result.success else [])
