"""List of the families: their parameters, distributions, measures and settings."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import get_type_hints

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metarl.envs.family import TaskFamily
from metarl.envs.family_settings import FamilySettings
from metarl.envs.parameters import Parameter
from metarl.envs.registry import make_family


def show_families(settings: Iterable[FamilySettings], console: Console | None = None) -> None:
    """Print each family: its parameters and its settings with their defaults."""
    console = console or Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    for chosen in settings:
        family = make_family(chosen)
        console.print(f"\n[bold]{family.name}[/bold]  {family.description}", highlight=False)
        console.print(
            f"{family.observation_size} observations, {family.action_size} actions, {family.horizon} steps an episode; "
            f"{splits(family)}",
            highlight=False,
        )
        console.print(measured(family), highlight=False, markup=False)
        for line in fault_lines(family):
            console.print(line, highlight=False, markup=False)
        console.print(table(("parameter", "unit", "tasks", "neutral", "law"), parameter_rows(family)))
        console.print(table(("setting", "type", "default"), setting_rows(chosen)))


def splits(family: TaskFamily) -> str:
    """Return one phrase on the tasks of the other splits."""
    outside = "; split ood lies outside of training" if "ood" in family.splits else ""
    if family.named:
        outside = f"; split ood has the named tasks {', '.join(family.named)}"
    if family.disjoint_splits:
        return f"held-out tasks are never trained on{outside}"
    return f"finitely many tasks: the held-out ones are those of training{outside}"


def measured(family: TaskFamily) -> str:
    """Return one line with the measures of a family and its criterion of success."""
    units = {name: unit for name, unit in family.measure_units.items() if name != "success"}
    names = ", ".join(name.replace("_", " ") + ("" if unit == "1" else f" ({unit})") for name, unit in units.items())
    return f"measured: {names}" + (f"; success: {text}" if (text := family.success_text()) else "")


def fault_lines(family: TaskFamily) -> list[str]:
    """Return lines that say which faults the family's tasks have; none if they have none."""
    return [] if family.faults is None else [f"faults: {line}" for line in family.faults.words]


def parameter_rows(family: TaskFamily) -> list[tuple[str, ...]]:
    """Return a row for each parameter: name, unit, distribution, neutral value, law."""
    return [(p.name, p.unit, tasks(p), f"{p.neutral:g}", p.law.description) for p in family.parameters]


def tasks(parameter: Parameter) -> str:
    """Return the distribution of a parameter by split; held-out values follow that of training unless they have one."""
    own = (("held out", parameter.held_out), ("ood", parameter.ood))
    return "\n".join([parameter.distribution.describe(), *(f"{name}: {d.describe()}" for name, d in own if d)])


def setting_rows(settings: FamilySettings) -> list[tuple[str, ...]]:
    """Return a row for each setting as `metarl train` takes it: option, type, default."""
    kinds = get_type_hints(type(settings))
    rows = [(f.name.replace("_", "-"), kinds[f.name], getattr(settings, f.name)) for f in dataclasses.fields(settings)]
    return [
        (f"--family.{name}.NAME", _kind(typing.get_args(kind)[1]), ", ".join(value))
        if isinstance(value, Mapping)
        else (f"--family.{name}", _kind(kind), str(value))
        for name, kind, value in rows
    ]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table to be drawn on a terminal."""
    result = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        result.add_row(*row)
    return result


def _kind(annotation: object) -> str:
    if typing.get_origin(annotation) is tuple:
        return " ".join("..." if entry is ... else entry.__name__ for entry in typing.get_args(annotation))
    choices = getattr(annotation, "__args__", ())
    return "|".join(map(str, choices)) if choices else getattr(annotation, "__name__", str(annotation))


def show_tables(tables: Iterable[tuple[str, Sequence[str], Iterable[Sequence[str]]]]) -> None:
    """Print tables, each with its title, columns and rows."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    for title, columns, rows in tables:
        console.print(f"\n[bold]{title}[/bold]", highlight=False)
        console.print(table(columns, [[escape(cell) for cell in row] for row in rows]))
