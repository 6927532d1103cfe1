"""The Python API: what the commands do, as functions. `import metarl` offers them.

Runs are given as what `metarl.load` returned, as folders, or by their bare names where they are in `runs/`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from metarl.config import RunConfig, preset, read_run_config
from metarl.reporting import judge
from metarl.reporting.report import make as reports
from metarl.runs.entries import run_dir
from metarl.runs.run import Run, start_run
from metarl.training import loop as training
from metarl.training.finished import finished_run, finished_words

P = ParamSpec("P")
R = TypeVar("R")
AnyRun = Run | Path | str


def train(config: RunConfig | None = None, name: str | None = None, runs_dir: str | Path = "runs") -> Run:
    """Meta-train in a new folder of `runs_dir`, then evaluate; without a configuration, the main job.

    UsageError (a ValueError) for values out of range; RunError if the disk refuses.
    """
    config = config or preset()
    directory = start_run(config, Path(runs_dir), name)
    return training.train(read_run_config(directory), directory)


def resume(directory: str | Path) -> Run:
    """Go on with a run from its last checkpoint, up to `training.iterations` of its config.yaml, then evaluate.

    directory: the run's folder, or its bare name where it is in `runs/`. A finished run is returned as it is.
    """
    directory = run_dir(str(directory))
    config = read_run_config(directory)
    if (run := finished_run(directory, config)) is not None:
        print(finished_words(run), flush=True)
        return run
    return training.train(config, directory, resume=True)


def _of_one_or_more(
    function: Callable[Concatenate[Sequence[AnyRun], P], R],
) -> Callable[Concatenate[AnyRun | Sequence[AnyRun], P], R]:
    """The same, and of one run by itself."""

    @functools.wraps(function)
    def called(runs: AnyRun | Sequence[AnyRun], *arguments: P.args, **options: P.kwargs) -> R:
        return function([runs] if isinstance(runs, AnyRun) else runs, *arguments, **options)

    return called


compare = _of_one_or_more(judge.compare)


@_of_one_or_more
def write_report(
    runs: Sequence[AnyRun],
    comparison: str | Path | None = None,
    output: str | Path | None = None,
    videos: bool = True,
    title: str = "",
    wandb: bool = False,
) -> reports.Report:
    """Write a report on one run or several: report.html, report.md, report.json, figures and films beside.

    comparison: what `metarl.compare` saved, or a folder of several; None: the newest that fit. output: folder; None: a
    new one in `reports/`. videos: whether films are made. wandb: also send it to the W&B run of each run. UsageError
    for what cannot be reported on, RunError if the disk refuses.
    """
    folders = [run.directory if isinstance(run, Run) else run_dir(str(run)) for run in runs]
    for directory in folders:
        read_run_config(directory)
    compared, folder = (None if place is None else Path(place) for place in (comparison, output))
    return reports.report(folders, compared, folder, videos, title, wandb)
