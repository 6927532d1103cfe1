"""`metarl report`: runs, compared or alone, as one page to read, send and keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from metarl.cli.arguments import Arguments
from metarl.config import read_run_config
from metarl.errors import UsageError
from metarl.runs.entries import run_dir

if TYPE_CHECKING:
    from metarl.cli.app import Session

HELP = """usage: metarl report RUN... [--comparison DIR] [--output DIR] [--title TEXT] [--no-videos] [--wandb]

Writes report.html, one page that opens without a network, report.md and report.json: adaptation curves, returns against
task parameters, learning curves, comparison tables, films before and after adaptation, the task distribution, settings
that differ, commands, versions, seeds.

  RUN...             folders of runs, or their names in runs/
  --comparison DIR   what metarl evaluate RUN RUN... wrote, or a folder of several; not given: the newest in
                     comparisons/ that have all runs of a family, otherwise the newest evaluations in the runs' folders
  --output DIR       folder for the report; not given: a new one in reports/
  --title TEXT       its heading
  --no-videos        make no films
  --wandb            send the page, its figures and films to the W&B run of each run, too
"""
OPTIONS = ("comparison", "output", "title")
SWITCHES = ("no_videos", "wandb")


def run(arguments: list[str], session: Session) -> int:
    """`metarl report`."""
    given, plain, switched = Arguments.plain(arguments, OPTIONS, SWITCHES)
    if given.help:
        print(HELP, end="")
        return 0
    if not given.positionals:
        raise UsageError("metarl report takes the folders of one run or more (metarl report runs/NAME runs/OTHER)")
    directories = [run_dir(name) for name in given.positionals]
    for directory in directories:
        read_run_config(directory)
    output = Path(plain["output"]) if "output" in plain else None
    if output is not None and output.exists() and not output.is_dir():
        raise UsageError(f"--output is {str(output)!r}, which is a file; name a folder")

    from metarl.reporting.report.make import report

    comparison = Path(plain["comparison"]) if "comparison" in plain else None
    written = report(
        directories,
        comparison,
        output,
        "no_videos" not in switched,
        plain.get("title", ""),
        "wandb" in switched,
        lambda line: print(line, flush=True),
    )
    for name in ("report.html", "report.md", "report.json"):
        print(f"saved {written.folder / name}")
    return 0
