"""MuJoCo's log: by itself it prints every warning, and appends it to MUJOCO_LOG.TXT where the program was started."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import mujoco

_lock = threading.Lock()
_silent = 0
"""Blocks of `silent` that are running: the log is one for all threads."""
_before = (True, True)
"""What they found: whether there was a console, and whether a file."""


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Neither print nor write what MuJoCo logs meanwhile. Errors are raised as ever, and warnings are counted."""
    global _silent, _before
    with _lock:
        if _silent == 0:
            config = mujoco.MjLogConfig.get()
            _before = (config.logto_console, config.logto_file)
            _log_to(False, False)
        _silent += 1
    try:
        yield
    finally:
        with _lock:
            _silent -= 1
            if _silent == 0:
                _log_to(*_before)


def _log_to(console: bool, file: bool) -> None:
    config = mujoco.MjLogConfig.get()
    config.logto_console, config.logto_file = console, file
    config.set()
