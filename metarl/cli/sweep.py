"""`metarl sweep`: train variants of a configuration, and report which does best, where and why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metarl.agents.ranks import Ranks, planned
from metarl.cli.arguments import Arguments, whole
from metarl.cli.invocation import Invocation
from metarl.envs.text import shown, typed
from metarl.errors import RunError, UsageError, nearest
from metarl.options import flag
from metarl.sweeps.file import load_sweep
from metarl.sweeps.sweep import Sweep

if TYPE_CHECKING:
    from metarl.runs.interrupt import Stop
    from metarl.sweeps.study import Study
    from metarl.sweeps.yardstick import Yardstick

HELP = """usage: metarl sweep FILE.yaml [--workers N] [--ranks K] [--trials N] [--threads N] [--runs-dir DIR]
       metarl sweep FILE.yaml --report [--threads N] [--runs-dir DIR]
       metarl sweep FILE.yaml --wandb-file OUT.yaml [--trials N] [--threads N] [--runs-dir DIR]
       metarl sweep FILE.yaml --point JSON [--threads N] [--runs-dir DIR]

Train variants of a configuration. Each trial is a run folder in runs/FILE/. The same command, started again here or on
another machine that shares the folder, joins or resumes the sweep. Ctrl-C stops it after the current iteration. If the
configuration names a Python function as the robot, its code is run.

  --workers N        worker processes on this machine (1)
  --ranks K          processes that train each variant together, through torchrun (1)
  --trials N         number of variants, instead of the file's; raise it later to continue the same sweep
  --threads N        threads of each variant (the CPU cores divided by the workers)
  --runs-dir DIR     folder of all runs (runs)
  --report           write tables, figures and best.yaml of the trials that have ended
  --wandb-file OUT   write a W&B sweep file, whose agents train with the same options, and train nothing
  --point JSON       train only the variant with these values, as W&B's agents do
"""
OPTIONS = ("workers", "ranks", "trials", "threads", "runs_dir", "wandb_file", "point")
NUMBERS = ("workers", "ranks", "trials", "threads")
SWITCHES = ("report",)
NO_WORK = {
    "report": "trains nothing",
    "wandb_file": "trains nothing",
    "point": "trains one variant, in one process",
}
"""Options that do not train the sweep, and what they do."""
OF_WORK = ("workers", "ranks")
"""Options that only the training of a sweep can follow."""
HIDDEN = ("worker",)
"""Options with which a sweep starts its worker processes."""
STOPPED = 128 + signal.SIGTERM
"""Exit status of a sweep that was stopped: nobody takes it for finished."""


@dataclass(frozen=True)
class Request:
    """The arguments of the command, checked."""

    sweep: Sweep
    folder: Path
    """Folder of the sweep."""
    number: dict[str, int]
    """Values of the given options that are whole numbers."""
    plain: dict[str, str]
    """Values of the given options, as typed."""
    switched: frozenset[str]
    """Switches that are given."""


def parse(arguments: list[str]) -> Request | None:
    """Check the arguments; None after --help."""
    given, plain, switched = Arguments.plain(arguments, OPTIONS, SWITCHES, HIDDEN)
    if given.help:
        print(HELP, end="")
        return None
    if len(given.positionals) != 1:
        got = f", got {' '.join(given.positionals)}" if given.positionals else ""
        raise UsageError(f"metarl sweep takes one file (metarl sweep sweep.yaml){got}")
    number = {name: whole(plain[name], flag(name)) for name in NUMBERS if name in plain}
    asked = [name for name in (*NO_WORK, *OF_WORK) if name in plain or name in switched]
    if len(asked) > 1 and asked[0] in NO_WORK:
        raise UsageError(f"{flag(asked[0])} {NO_WORK[asked[0]]}; leave out {flag(asked[1])}")
    path = Path(given.positionals[0])
    sweep = load_sweep(path, number.get("trials"))
    folder = Path(plain.get("runs_dir", "runs")) / path.stem
    return Request(sweep, folder, number, plain, switched)


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    request = parse(arguments)
    if request is None:
        return 0
    sweep, folder, number, plain = request.sweep, request.folder, request.number, request.plain
    if "wandb_file" in plain:
        from metarl.sweeps.wandb_sweep import write_sweep

        same = [
            token for name in ("trials", "threads", "runs_dir") if name in plain for token in (flag(name), plain[name])
        ]
        write_sweep(sweep, Path(plain["wandb_file"]), same)
        print(f"saved {plain['wandb_file']}; start it with: wandb sweep {typed(plain['wandb_file'])}")
        return 0
    if "point" in plain:
        return _point(sweep, folder, plain["point"], number.get("threads", 0))
    if "report" in request.switched:
        return _report(sweep, folder, number.get("threads", 0))
    parent, _, command = plain.get("worker", "").partition(".")
    if "worker" in plain and parent != str(os.getppid()):  # only a sweep starts workers
        raise UsageError(f"unknown option --worker{nearest('--worker', ['--workers'])}")
    return _work(sweep, folder, number, int(parent or 0), command or uuid.uuid4().hex)


def ranks_of(sweep: Sweep, ranks: int) -> Ranks:
    """Return the processes that train each variant, or one where the variants differ in how many can share them."""
    varied = {name for factor in sweep.factors for name in factor.settings}
    return planned(1 if "training.tasks" in varied else ranks)


def require_startable(sweep: Sweep, ranks: int) -> Yardstick:
    """Return how the variants are judged; UsageError for a sweep that cannot begin. ranks: see `ranks_of`."""
    from metarl.runs.run import build
    from metarl.sweeps.yardstick import yardstick

    stick = yardstick(sweep)
    if ranks > 1:
        build(sweep.base, "cpu", ranks_of(sweep, ranks))  # refused now, and not by each variant
    return stick


def _work(sweep: Sweep, folder: Path, number: dict[str, int], parent: int, command: str) -> int:
    """Run trials in this process or in several.

    parent: id of the process that this one works for; 0: none. command: identifier that they share.
    """
    from metarl.provenance import cores
    from metarl.runs.interrupt import stop_on_signals
    from metarl.sweeps.same_sweep import require_no_other
    from metarl.sweeps.study import Study
    from metarl.sweeps.worker import Worker

    workers, ranks = number.get("workers", 1), number.get("ranks", 1)
    require_no_other(sweep, folder)  # before the minutes that a large family takes
    stick = require_startable(sweep, ranks)
    with stop_on_signals(signal.SIGINT, signal.SIGTERM, parent=parent) as stop:
        study = Study(sweep, folder, command)
        threads = number.get("threads", sweep.base.training.threads or max(1, cores() // workers))
        if not parent:
            print(f"sweep {folder}: {sweep.method}, {_standing(study)}", flush=True)
        if workers > 1:
            status = _several(study, workers, ranks, threads, stop)
            if status:
                return _stopped(status)
        else:
            each = max(1, threads // ranks)
            worker = Worker(sweep, study, stick, each, stop, lambda line: print(line, flush=True), ranks)
            if not worker.run():
                return STOPPED if parent else _stopped(STOPPED)
    if parent:
        return 0
    left = [t for t in study.trials() if not t.state.is_finished()]
    if left or stop.requested:
        print(
            f"{len(left)} variants are still training elsewhere; when they end: metarl sweep {typed(sweep.path)} "
            "--report"
        )
        return 0
    return _report(sweep, folder, number.get("threads", 0))


def _stopped(status: int) -> int:
    if status == STOPPED:
        print("stopped; start the same command again to resume", flush=True)
    return status


def _several(study: Study, workers: int, ranks: int, threads: int, stop: Stop) -> int:
    """Start worker processes, wait for them, and return the first exit status that is not 0."""
    from metarl.runs.workers import wait_for

    sweep, folder = study.sweep, study.folder
    command = [sys.executable, "-m", "metarl", "sweep", str(sweep.path), "--runs-dir", str(folder.parent)]
    command += ["--trials", str(sweep.trials), "--threads", str(threads), "--ranks", str(ranks)]
    command += ["--worker", f"{os.getpid()}.{study.command}"]
    # A process group of their own: Ctrl-C reaches them once, as a SIGTERM from here.
    return wait_for([subprocess.Popen(command, start_new_session=True) for _ in range(workers)], stop)


def _standing(study: Study) -> str:
    trials = study.trials()
    ended = sum(t.state.is_finished() for t in trials)
    text = f"{study.sweep.trials} variants, {ended} ended"
    running = [r for t in trials if not t.state.is_finished() if (r := study.holder(t.number))]
    left = len(trials) - ended - len(running)
    if running:
        hosts = ", ".join(sorted({str(r["host"]) for r in running}))
        text += f", {len(running)} running ({hosts})"
    return text + (f", {left} to be resumed" if left else "")


def _report(sweep: Sweep, folder: Path, threads: int) -> int:
    from metarl.reporting import sweep_tables
    from metarl.sweeps.conclude import conclude
    from metarl.sweeps.study import JOURNAL, Study
    from metarl.sweeps.yardstick import yardstick

    if not (folder / JOURNAL).is_file():
        raise UsageError(f"no sweep in {folder}; start it with metarl sweep {typed(sweep.path)}")
    study = Study(sweep, folder)
    found = conclude(study, yardstick(sweep), lambda line: print(line, flush=True), threads)
    sweep_tables.show(found.result)
    gone = [v.name for v in found.result.variants if v.complete and not study.has_folder(v)]
    if gone:
        print(f"warning: the folders of {', '.join(gone)} are gone; returns of single tasks are drawn without them")
    print(sweep_tables.saved_line([found.report, found.table, *found.figures.values()]))
    print(f"best configuration: {found.best}; train it with: metarl train --config {typed(found.best)}")
    return 0


def _point(sweep: Sweep, folder: Path, text: str, threads: int) -> int:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        example = json.dumps(dict.fromkeys(list(sweep.dimensions)[:1], 0))
        raise UsageError(f"--point is {shown(text)}; give the factors' values as JSON, such as '{example}'")
    from metarl.sweeps.same_sweep import require_no_other
    from metarl.sweeps.worker import run_point

    require_no_other(sweep, folder)
    directory = run_point(sweep, folder, values, threads)
    if not (directory / "evaluation").is_dir():
        raise RunError(f"{directory} was stopped; resume it with: metarl train --resume {typed(directory)}")
    print(f"run: {directory}")
    return 0
