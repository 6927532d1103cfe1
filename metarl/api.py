"""The Python API: the commands as functions, which `import metarl` offers.

A run is the result of `metarl.load`, a folder, or the name of a folder in `runs/`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from metarl.config import RunConfig, preset, read_run_config
from metarl.envs import code
from metarl.envs.family import TaskFamily
from metarl.envs.foreign.settings import EnvSettings
from metarl.errors import UsageError
from metarl.reporting import judge
from metarl.reporting.report import make as reports
from metarl.runs.entries import run_dir
from metarl.runs.run import Run, start_run
from metarl.training import loop as training
from metarl.training.finished import finished_run, finished_words

P = ParamSpec("P")
R = TypeVar("R")
AnyRun = Run | Path | str


def train(
    config: RunConfig | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    env: Callable[[], Any] | TaskFamily | str | None = None,
) -> Run:
    """Meta-train in a new folder of `runs_dir`, evaluate, and return the run.

    config: None is the preset of maml on half_cheetah_velocity, with `env` that of rl2 on env. name: None makes it of
    agent, family, seed and time. env: your own tasks instead of the configuration's family: a function of a file that
    returns a `GymTasks` or a `TaskFamily`, or its name, file.py:function; or a `TaskFamily`, whose run no other program
    can evaluate. If the configuration's family is `env`, the other settings of it (horizon, processes) hold.

    UsageError (a ValueError) for values out of range; RunError if the disk refuses.
    """
    if env is not None:
        config = config or preset("rl2", "env")
        given = config.family if isinstance(config.family, EnvSettings) else EnvSettings()
        config = dataclasses.replace(config, family=dataclasses.replace(given, source=_source(env), digest=""))
    config = config or preset()
    directory = start_run(config, Path(runs_dir), name)
    return training.train(read_run_config(directory), directory)


def _source(env: Callable[[], Any] | TaskFamily | str) -> str:
    """Return the name of the function that makes your own family; UsageError for one that no file has by name."""
    if isinstance(env, str):
        return env
    if isinstance(env, TaskFamily):
        return code.hold(lambda: env)
    file, function = inspect.getsourcefile(env), env.__qualname__
    if file is None or not function.isidentifier():
        raise UsageError(
            f"env is the function {function}, which other processes cannot find; define it by its name in a file, "
            "outside of classes and other functions"
        )
    return f"{file}:{function}"


def resume(directory: str | Path) -> Run:
    """Resume a run from its last checkpoint, up to `training.iterations` of its config.yaml, then evaluate.

    directory: the run's folder, or its name if it is in `runs/`. A finished run is returned unchanged.
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
    """Return the function so that it also takes a single run."""

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
    """Write a report on one run or several: report.html, report.md, report.json, figures and films.

    comparison: folder that `metarl.compare` saved, or a folder of several; None: the newest that fit. output: folder;
    None: a new one in `reports/`. videos: whether to make films. wandb: whether to send the report to the W&B run of
    each run. UsageError for runs that cannot be reported on, RunError if the disk refuses.
    """
    folders = [run.directory if isinstance(run, Run) else run_dir(str(run)) for run in runs]
    for directory in folders:
        read_run_config(directory)
    compared, folder = (None if place is None else Path(place) for place in (comparison, output))
    return reports.report(folders, compared, folder, videos, title, wandb)
