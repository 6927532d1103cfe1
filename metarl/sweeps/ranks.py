"""Train a variant of a sweep in several processes: a worker starts torchrun, and reads their result from a file.

The worker holds the claim; the first of the processes reads the journal for the pruner. A pipe connects the two: once
the worker has closed it, or has ended, the processes end after the current iteration, with a checkpoint.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from metarl.config import RunConfig
from metarl.errors import RunError, UsageError
from metarl.launching.torchrun import torchrun
from metarl.runs import claims as sweep_claims
from metarl.runs.run_lock import RunBusy, hold
from metarl.sweeps.attempt import Attempt
from metarl.sweeps.study import iteration_reached
from metarl.sweeps.sweep import Sweep

POLL_S = 0.1
LEFT_S = 60.0
"""Longest wait for the processes of a worker that has ended."""
FAULTS = {"usage": UsageError, "run": RunError, "busy": RunBusy}
"""Errors of the processes, by the word that they write to the file."""
MACHINE = "machine"
"""Word for a fault of the machine, such as a full disk, which the next variant would meet too."""


def outcome_file(directory: Path) -> Path:
    """Return the file with the result of a variant's processes: beside its folder, which goes if it is refused."""
    return directory.with_name(f".{directory.name}_outcome.json")


def attempt_by_ranks(
    sweep: Sweep, number: int, config: RunConfig, directory: Path, ranks: int, stop: Callable[[], bool], log: TextIO
) -> Attempt:
    """Train a variant in `ranks` processes until it ends, is pruned, or is asked to stop; raise their error.

    RunError when they died again and again. stop: whether to stop. log: takes their output.
    """
    _outlive(directory)
    died, last = 0, -1
    while True:
        asked, outcome = _started(sweep, number, config, directory, ranks, stop, log)
        if outcome is not None and "failed" in outcome:
            _raise(outcome)
        if outcome is not None:
            return Attempt.from_dict(outcome)
        reached = iteration_reached(directory)
        if asked:
            return Attempt(reached, False, None)
        died, last = (died + 1 if reached == last else 1), reached
        if died == sweep_claims.DEATHS:
            raise RunError(f"its processes died {sweep_claims.DEATHS} times at iteration {reached}, or right after it")


def _started(
    sweep: Sweep, number: int, config: RunConfig, directory: Path, ranks: int, stop: Callable[[], bool], log: TextIO
) -> tuple[bool, dict[str, Any] | None]:
    """Run the processes once; return whether they were asked to stop, and their result, None if they died."""
    path = outcome_file(directory)
    path.unlink(missing_ok=True)
    request = {
        "file": str(sweep.path.absolute()),
        "trials": sweep.trials,
        "number": number,
        "directory": str(directory.absolute()),
        "threads": config.training.threads,
    }
    command = torchrun(["-m", "metarl.sweeps.in_ranks", json.dumps(request)], ranks)
    asked = False
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C is meant for the worker
        preexec_fn=_ignore_sigterm,
    ) as process:
        assert process.stdin is not None
        while process.poll() is None:
            if not asked and stop():
                asked = True
                process.stdin.close()
            time.sleep(POLL_S)
    outcome = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    path.unlink(missing_ok=True)
    return asked, outcome


def _ignore_sigterm() -> None:
    """Ignore SIGTERM: Slurm sends it to all processes, and torchrun passes it on, so the second must not kill.

    Training sets a handler of its own, which ends it after the current iteration.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _outlive(directory: Path) -> None:
    """Wait until the processes of a worker that has ended have ended too; RunBusy if they do not."""
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
