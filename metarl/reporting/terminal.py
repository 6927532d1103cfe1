"""Printing of tables and remarks: drawn on a terminal, in plain aligned columns elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich import table as drawn
from rich.console import Console

from metarl.reporting.columns import Table


def print_title(text: str, console: Console) -> None:
    """Print a heading."""
    console.print(text, style="bold", markup=False, highlight=False, soft_wrap=not console.is_terminal)


def print_table(table: Table, console: Console, left: int = 0) -> None:
    """Print the headings and cells of a table. left: number of columns that are aligned at the left."""
    if not console.is_terminal:
        print(*_plain(table.columns, table.rows, left), sep="\n", file=console.file)
        return
    result = drawn.Table(*table.columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(result.columns):
        column.justify = "left" if i < left else "right"
    for row in table.rows:
        result.add_row(*row)
    console.print(result, markup=False)


def print_lines(lines: Iterable[str], console: Console) -> None:
    """Print remarks; warnings are yellow."""
    for line in lines:
        style = "yellow" if line.startswith("warning") else None
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _plain(columns: Sequence[str], cells: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return the lines of a table with aligned columns; headings may have several lines."""
    lines = max(head.count("\n") for head in columns) + 1
    heads = [[""] * (lines - 1 - head.count("\n")) + head.split("\n") for head in columns]
    table = [*zip(*heads, strict=True), *cells]
    widths = [max(len(row[c]) for row in table) for c in range(len(table[0]))]

    def cell(text: str, c: int) -> str:
        return text.ljust(widths[c]) if c < left else text.rjust(widths[c])

    return ["  ".join(cell(text, c) for c, text in enumerate(row)).rstrip() for row in table]
