"""Commands of the command line that have a module of their own, imported when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from metarl.cli.arguments import Arguments
from metarl.config import RunConfig, read_run_config
from metarl.errors import UsageError
from metarl.runs.entries import run_dir

AGENT_OPTIONS: dict[str, Any] = {"checkpoint": str, "device": Literal["auto", "cpu", "cuda"]}
"""Which policy of a run, and where."""


def one_run(given: Arguments, blank: Any, command: str) -> tuple[Path, RunConfig]:
    """The run that a command is about, and its configuration; without one, --help shows that of `blank` and exits."""
    if given.help and not given.positionals:
        Arguments([], {}, help=True).parse(blank, {}, (), command)
    if len(given.positionals) != 1:
        got = f", got {' '.join(given.positionals)}" if given.positionals else ""
        raise UsageError(f"{command} takes the folder of one run ({command} runs/NAME){got}")
    directory = run_dir(given.positionals[0])
    return directory, read_run_config(directory)
