"""One call of the command line: what its error messages can point to, and how they are printed."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metarl.envs.text import one_line, typed
from metarl.errors import LONGEST, RunError, describe
from metarl.files import write

if TYPE_CHECKING:
    from metarl.training.launched import Launched


@dataclass
class Invocation:
    """The run that a command works on, and the processes that it works in; commands fill it in."""

    run_dir: Path | None = None
    """The run's folder: a traceback is saved there."""
    trains: bool = False
    """Whether the command trains the run, so that it can be resumed."""
    launched: Launched | None = None
    """The processes that train it together; None: this one alone."""

    def fail(self, status: int, message: str) -> int:
        """Print a message as one line of bounded length on stderr, and return the exit status.

        Of processes that train together, one prints it.
        """
        if self.launched is not None:
            status, message = self.launched.failed(status, message)
        if message:
            print(one_line(message, LONGEST), file=sys.stderr, flush=True)
        return status

    def remedy(self) -> str:
        """Return how to resume the run; empty if there is no checkpoint to resume from."""
        if not self.trains or self.run_dir is None or not any(self.run_dir.glob("checkpoints/*.pt")):
            return ""
        return f"; resume it with: metarl train --resume {typed(self.run_dir)}"

    def describe_fault(self, error: Exception) -> str:
        """Return the message for a fault at run time; the traceback of an unexpected one is saved in a file."""
        batch = sys.modules.get("metarl.envs.batch")  # cannot have raised anything if it was not imported
        expected = (RunError, OSError) if batch is None else (RunError, OSError, batch.SimulationFault)
        if isinstance(error, expected):
            return f"{describe(error)}{'' if isinstance(error, RunError) else self.remedy()}"
        text = "".join(traceback.format_exception(error))
        message = f"unexpected {type(error).__name__}: {describe(error)[:200]}"
        for folder in filter(None, (self.run_dir, Path(tempfile.gettempdir()))):
            with contextlib.suppress(RunError):
                path = folder / "error.log"
                write(path, text.encode("utf-8", "replace"))
                return f"{message}; the traceback is in {path}{self.remedy()}"
        return message + self.remedy()
