"""The tables of a sweep: for the terminal, and one row a variant as CSV."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from metarl.evaluation.sweep_result import Effect, SweepResult, Variant
from metarl.reporting.columns import Table
from metarl.reporting.terminal import print_lines, print_table
from metarl.wording import number_of

CSV_COLUMNS = ("return", "before", "gain", "iteration", "env_steps", "seconds", "error")
"""Attributes of a variant."""


def show(result: SweepResult, console: Console | None = None) -> None:
    """Print the result of a sweep: drawn on a terminal, plain columns elsewhere."""
    console = console or Console(file=sys.stdout)
    print_lines([counts_text(result.variants), *best_lines(result)], console)
    print_table(effects_table(result), console, left=2)
    print_lines(remarks(result), console)


def counts_text(variants: Sequence[Variant]) -> str:
    """Return how many variants are in each state."""
    counts = Counter(variant.state for variant in variants)
    states = ("complete", "pruned", "failed", "running")
    return f"{number_of(len(variants), 'variant')}: " + ", ".join(f"{counts[s]} {s}" for s in states if counts[s])


def best_lines(result: SweepResult) -> list[str]:
    """Return which variant is the best, and its return and gain."""
    best = result.best_variant
    low, high = best.attributes["return_interval"]
    return [
        f"best: {best.name}, {point_text(best.params)}",
        f"      return {best.attributes['return']:.4g} [{low:.4g}, {high:.4g}], gain {best.attributes['gain']:.4g}",
    ]


def effects_table(result: SweepResult) -> Table:
    """Return the table of effects, one row for each level."""
    more = ["importance"] if any(effect.importance is not None for effect in result.effects) else []
    columns, cells = ["factor", "level", f"{result.measure}: IQM [95 %]", "variants", *more], []
    for effect in result.effects:
        for i, level in enumerate(effect.levels):
            interval = f" [{level.iqm.low:.4g}, {level.iqm.high:.4g}]" if level.iqm else ""
            row = ["" if i else effect.name, level.name, f"{level.value:.4g}{interval}", str(level.trials)]
            if more:
                row.append(f"{effect.importance:.2f}" if i == 0 and effect.importance is not None else "")
            cells.append(row)
    return Table("", columns, cells)


def remarks(result: SweepResult) -> list[str]:
    """Return what to know of the numbers: which factors change what is judged, and which are adjusted for others."""
    texts = {effect.name: adjustment(effect) for effect in result.effects}
    found = dict.fromkeys(filter(None, texts.values()))
    warnings = [
        f"warning: {name} is no training range, so each variant is judged with its own: the returns are not all of the "
        "same tasks, or not of the same reward"
        for name in result.unshared
    ]
    if len(found) == 1 and all(texts.values()):
        return [*warnings, *(f"effects: {text}" for text in found)]
    return [*warnings, *(f"{', '.join(name for name, own in texts.items() if own == text)}: {text}" for text in found)]


def saved_line(files: Sequence[Path]) -> str:
    """Return which files a result was saved in; many heat maps are counted."""
    maps = [path for path in files if path.name.startswith("heat_map_")]
    names = [path.name for path in files if path not in maps]
    others = [f"{len(maps)} more heat maps"] if len(maps) > 1 else [path.name for path in maps]
    return f"saved {', '.join([*names, *others])} in {files[0].parent}"


def adjustment(effect: Effect) -> str:
    """Return whether an effect is adjusted for the other factors; empty if there are none."""
    adjusted, not_adjusted = "adjusted for the other factors", "not adjusted for the other factors"
    return {True: adjusted, False: not_adjusted, None: ""}[effect.others_out]


def point_text(point: Mapping[str, Any]) -> str:
    """Return a point of the search as text."""
    return ", ".join(f"{name}={_value_text(value)}" for name, value in point.items())


def _value_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value_text, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def csv_text(variants: Sequence[Variant], factors: Sequence[str]) -> str:
    """Return one row a variant as CSV. factors: names of the dimensions of the search."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["trial", "state", *factors, "objective", *CSV_COLUMNS])
    for variant in variants:
        params = [variant.params.get(name, "") for name in factors]
        params = [json.dumps(value) if isinstance(value, tuple) else value for value in params]
        objective = "" if variant.objective is None else variant.objective
        own = (variant.attributes.get(column, "") for column in CSV_COLUMNS)
        writer.writerow([variant.number, variant.state, *params, objective, *own])
    return out.getvalue()
