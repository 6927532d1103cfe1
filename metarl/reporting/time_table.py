"""Curves against seconds as CSV, for figures of one's own: what time.png shows, and the curves it has no room for."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from metarl.evaluation.comparison import Compared
from metarl.evaluation.time_course import TimeCourse

FIXED = ("label", "change", "episode", "seconds")
"""Columns that say where a row is. `change` is 0 over the trial, or the number of the change it is counted from."""


def csv_text(agents: Sequence[Compared]) -> str:
    """Return one row for each agent and bin of time, with the mean over tasks of each curve and its interval.

    seconds: middle of the bin, from the start of the trial or from the change. Empty where fewer than two tasks have a
    value, and where an agent lacks a curve.
    """
    rows = [row for agent in agents for course in agent.result.courses for row in _rows(agent.label, course)]
    curves = dict.fromkeys(name for agent in agents for course in agent.result.courses for name in course.curves)
    columns = [*FIXED, *(f"{name}{end}" for name in curves for end in ("", "_low", "_high"))]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _rows(label: str, course: TimeCourse) -> list[dict[str, Any]]:
    episodes = np.repeat(np.arange(course.episodes) + 1, len(course.ends_s))
    rows: list[dict[str, Any]] = [
        {"label": label, "change": course.change, "episode": episode or "", "seconds": f"{seconds:.5g}"}
        for episode, seconds in zip(episodes * (course.change == 0), course.seconds_of_trial, strict=True)
    ]
    for name, curve in course.curves.items():
        for row, ends in zip(rows, curve.T, strict=True):
            texts = [f"{value:.5g}" if math.isfinite(value) else "" for value in ends]
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), texts, strict=True))
    return rows
