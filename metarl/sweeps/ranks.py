"""A trial that several processes train: a worker starts them by torchrun, and reads what they came to in their folder.

The worker holds the claim; the first of the processes looks at the journal for the pruner. A pipe is between the two:
once the worker has closed it, or is gone, they end after the iteration at hand, with a checkpoint.
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
from metarl.runs.checkpoint import CheckpointStore, iteration_of
from metarl.runs.run import CHECKPOINTS
from metarl.runs.run_lock import RunBusy, hold
from metarl.sweeps import claims as sweep_claims
from metarl.sweeps.file import Sweep
from metarl.sweeps.trial import Attempt

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
        reached = iteration_reached(directory)
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
    command = torchrun(["-m", "metarl.sweeps.in_ranks", json.dumps(request)], ranks)
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


def iteration_reached(directory: Path) -> int:
    """Iteration of the last checkpoint; 0 without one."""
    paths = CheckpointStore(directory / CHECKPOINTS).paths()
    return iteration_of(paths[-1]) if paths else 0
