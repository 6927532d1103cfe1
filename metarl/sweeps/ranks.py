"""A trial that several processes train: a worker starts them by torchrun, and reads what they came to in their folder.

The worker holds the claim; the first of the processes looks at the journal for the pruner. A pipe is between the two:
once the worker has closed it, or is gone, they end after the iteration at hand, with a checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import optuna

from metarl.sweeps import claims as sweep_claims
from metarl.runs.checkpoint import CheckpointStore, iteration_of
from metarl.config import RunConfig, read_run_config
from metarl.envs.text import one_line
from metarl.errors import LONGEST, RunError, UsageError, describe
from metarl.files import write
from metarl.training.launched import LostRank, join
from metarl.runs.run import CHECKPOINTS
from metarl.runs.run_lock import RunBusy, hold
from metarl.sweeps.file import Sweep, load_sweep
from metarl.sweeps.tasks import yardstick
from metarl.sweeps.trial import Attempt, Watch, attempt
from metarl.launching.torchrun import torchrun

OUTCOME = ".outcome.json"
"""In a trial's folder: what its processes came to."""
POLL_S = 0.1
LEFT_S = 60.0
"""Longest wait for the processes of a worker that is gone."""
FAULTS = {"usage": UsageError, "run": RunError, "busy": RunBusy}
"""What processes may fail of, by what they write."""
MACHINE = "machine"
"""A full disk, for one: of which the next trial would fail too."""


def attempt_by_ranks(
    sweep: Sweep, number: int, config: RunConfig, directory: Path, ranks: int, stop: Callable[[], bool], log: TextIO
) -> Attempt:
    """Train a trial by so many processes until it ends, is pruned, or is to stop; raises what they failed of.

    RunError when they died again and again. config: of this attempt. log: what they print.
    """
    _outlive(directory)
    died, last = 0, -1
    while True:
        asked, outcome = _started(sweep, number, config, directory, ranks, stop, log)
        if outcome is not None and "failed" in outcome:
            _raise(outcome)
        if outcome is not None:
            return Attempt(**outcome)
        reached = _reached(directory)
        if asked:
            return Attempt(reached, False, None)
        died, last = (died + 1 if reached == last else 1), reached
        if died == sweep_claims.DEATHS:
            raise RunError(f"its processes died {sweep_claims.DEATHS} times at iteration {reached}, or right after it")


def _started(
    sweep: Sweep, number: int, config: RunConfig, directory: Path, ranks: int, stop: Callable[[], bool], log: TextIO
) -> tuple[bool, dict[str, Any] | None]:
    """Run the processes once: whether they were asked to stop, and what they wrote; None if they died."""
    (directory / OUTCOME).unlink(missing_ok=True)
    request = {
        "file": str(sweep.path.absolute()),
        "trials": sweep.trials,
        "number": number,
        "directory": str(directory.absolute()),
        "threads": config.training.threads,
    }
    command = torchrun(["-m", "metarl.sweeps.ranks", json.dumps(request)], ranks)
    asked = False
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,  # a Ctrl-C is for the worker
        preexec_fn=_ignore_sigterm,
    ) as process:
        assert process.stdin is not None
        while process.poll() is None:
            if not asked and stop():
                asked = True
                process.stdin.close()
            time.sleep(POLL_S)
    path = directory / OUTCOME
    outcome = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    path.unlink(missing_ok=True)
    return asked, outcome


def _ignore_sigterm() -> None:
    """One that is for a whole group of processes, as Slurm's, comes by torchrun once more: it must not kill.

    What trains sets a handler of its own, which ends it after the iteration at hand.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _outlive(directory: Path) -> None:
    """Wait until the processes of a worker that is gone have ended; RunBusy if they do not."""
    until = time.monotonic() + LEFT_S
    while True:
        try:
            with hold(directory):
                return
        except RunBusy:
            if time.monotonic() > until:
                raise
            time.sleep(POLL_S)


def _raise(outcome: dict[str, Any]) -> None:
    if outcome["failed"] == MACHINE:
        raise RunError(outcome["message"]) from OSError(outcome["message"])
    raise FAULTS[outcome["failed"]](outcome["message"])


def _reached(directory: Path) -> int:
    """Iteration of the last checkpoint; 0 without one."""
    paths = CheckpointStore(directory / CHECKPOINTS).paths()
    return iteration_of(paths[-1]) if paths else 0


def main(request: dict[str, Any]) -> int:
    """What each of the processes runs."""
    ranks, directory = join(), Path(request["directory"])
    if ranks is None:
        raise UsageError("metarl.sweeps.ranks is what a sweep starts by torchrun; start: metarl sweep FILE --ranks K")
    status = 0
    try:
        ranks.require_alike()
        with contextlib.ExitStack() as stack:
            if not ranks.is_first:
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            sweep = load_sweep(Path(request["file"]), request["trials"])
            config = read_run_config(directory)
            config = dataclasses.replace(
                config, training=dataclasses.replace(config.training, threads=request["threads"])
            )
            trial = _trial(sweep, directory.parent, request["number"]) if ranks.is_first else None
            watch = Watch(sweep, yardstick(sweep), trial, _left)
            found = attempt(config, directory, _reached(directory) > 0, watch, ranks)
            if ranks.is_first:
                write(directory / OUTCOME, json.dumps(dataclasses.asdict(found)).encode())
            ranks.from_first(lambda: None)
    except LostRank as error:  # the worker starts them anew
        status, _ = ranks.failed(1, describe(error))
    except Exception as error:
        status, message = ranks.failed(1, describe(error))
        if message:  # of this process, and not of another that failed first
            _record(error, message, directory)
    ranks.leave(status)
    return status


def _record(error: Exception, message: str, directory: Path) -> None:
    """Leave for the worker what this process failed of."""
    kinds = [name for name, cls in FAULTS.items() if isinstance(error, cls)]
    kind = MACHINE if isinstance(error, OSError) or isinstance(error.__cause__, OSError) else [*kinds, "run"][-1]
    kind = "busy" if isinstance(error, RunBusy) else kind
    with contextlib.suppress(RunError):
        if not kinds and kind != MACHINE:
            write(directory / "error.log", "".join(traceback.format_exception(error)).encode())
        write(directory / OUTCOME, json.dumps({"failed": kind, "message": one_line(message, LONGEST)}).encode())


def _trial(sweep: Sweep, folder: Path, number: int) -> optuna.Trial:
    from metarl.sweeps.sweep import Study

    study = Study(sweep, folder)
    return optuna.Trial(study.study, study.trials()[number]._trial_id)


def _left() -> bool:
    """Whether the worker has closed the pipe, or is gone."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
