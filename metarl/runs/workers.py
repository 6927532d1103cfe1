"""Worker processes of a command: waited for, and stopped with it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from metarl.errors import RunError
from metarl.runs.interrupt import Stop
from metarl.wording import number_of


def wait_for(processes: Sequence[subprocess.Popen[bytes]], stop: Stop) -> int:
    """Wait for worker processes and return the first exit status that is not 0; end them once a stop is requested.

    RunError if a signal killed one.
    """
    told = False
    statuses: list[int] = []
    for process in processes:
        while True:
            try:
                statuses.append(process.wait(timeout=0.2))
                break
            except subprocess.TimeoutExpired:
                if stop.requested and not told:
                    told = True
                    for other in processes:
                        other.terminate()
    killed = [-status for status in statuses if status < 0]
    if killed:
        raise RunError(
            f"{number_of(len(killed), 'worker')} ended by signal {killed[0]}; start the same command again to resume"
        )
    return next(filter(None, statuses), 0)
