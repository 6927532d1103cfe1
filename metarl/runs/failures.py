"""Failures of runs that a command trains one after another: whose they are, and what is kept of them."""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path

from metarl.errors import RunError, UsageError
from metarl.files import write
from metarl.runs.run_lock import RunBusy

ERROR_LOG = "error.log"
"""File in the folder of a run that failed by no mistake of the user, with the traceback."""


def is_of_machine(error: Exception) -> bool:
    """Return whether the machine failed, such as by a full disk: the next run would fail for the same reason."""
    return isinstance(error, OSError | RunBusy) or isinstance(error.__cause__, OSError)


def keep_traceback(error: Exception, directory: Path) -> None:
    """Write the traceback of an error that is not the user's into a run's folder, if there is one."""
    if not isinstance(error, UsageError | RunError):
        with contextlib.suppress(RunError):
            write(directory / ERROR_LOG, "".join(traceback.format_exception(error)).encode())
