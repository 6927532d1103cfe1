"""Stop a run between two iterations when the user or the machine asks for it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

STDERR = 2
"""File that a handler of signals may write to, which must not touch Python's buffers."""


@dataclass
class Stop:
    """A request to stop after the current iteration."""

    parent: int = 0
    """Process id; without that process as its parent this one stops, too. 0: none."""
    requested: bool = False
    """Whether a signal has asked for it."""
    number: int = 0
    """The signal that has."""

    def now(self) -> bool:
        """Return whether to stop: a signal has come, or the parent has ended."""
        return self.requested or (self.parent > 0 and os.getppid() != self.parent)


@contextlib.contextmanager
def stop_on_signals(*numbers: signal.Signals, parent: int = 0) -> Iterator[Stop]:
    """Within the block the first of these signals requests a stop; a second one does what it did before.

    The first Ctrl-C says so on the terminal. Outside the main thread, where Python sets no handlers, the signals keep
    their effect. parent: see `Stop`.
    """
    stop = Stop(parent)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def request(signum: int, frame: FrameType | None) -> None:
        stop.requested, stop.number = True, signum
        restore()
        if signum == signal.SIGINT:
            with contextlib.suppress(OSError):  # the same Ctrl-C may have ended who reads it
                os.write(STDERR, b"stopping after this iteration; Ctrl-C again stops at once\n")

    for number in numbers:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        restore()
