"""Ending a run between two iterations when the machine asks for it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopFlag:
    """Whether a SIGTERM has come."""

    requested: bool = False


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[StopFlag]:
    """Within the block a SIGTERM sets the flag instead of killing the process; a second one kills it."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield flag
        return
    previous = signal.getsignal(signal.SIGTERM)

    def request_stop(signum: int, frame: FrameType | None) -> None:
        flag.requested = True
        signal.signal(signal.SIGTERM, previous)

    signal.signal(signal.SIGTERM, request_stop)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGTERM, previous)
