"""`metarl report`: write one page about one run, or about several that are compared."""

from __future__ import annotations

from pathlib import Path

from metarl.cli.arguments import Arguments
from metarl.cli.invocation import Invocation
from metarl.config import read_run_config
from metarl.errors import UsageError
from metarl.runs.entries import run_dir

HELP = """usage: metarl report RUN... [--comparison DIR] [--output DIR] [--title TEXT] [--no-videos] [--wandb]

Write report.html, a single page that needs no network, report.md and report.json. They show adaptation curves, returns
by task parameter, learning curves, comparison tables, films before and after adaptation, the task distribution,
settings that differ, commands, versions and seeds.

  RUN...             folders of runs, or their names in runs/
  --comparison DIR   folder that metarl evaluate RUN RUN... saved, or a folder of several (the newest in comparisons/
                     with all runs of a family; without one, of each run's evaluations that on most tasks
                     of the checkpoint that was evaluated last)
  --output DIR       folder of the report (a new one in reports/)
  --title TEXT       heading of the report
  --no-videos        make no films
  --wandb            also send the page, its figures and films to each run's W&B run
"""
OPTIONS = ("comparison", "output", "title")
SWITCHES = ("no_videos", "wandb")


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    given, plain, switched = Arguments.plain(arguments, OPTIONS, SWITCHES)
    if given.help:
        print(HELP, end="")
        return 0
    if not given.positionals:
        raise UsageError("metarl report takes the folders of one or more runs (metarl report runs/NAME runs/OTHER)")
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
