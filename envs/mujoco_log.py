"""MuJoCo's log: by itself it prints every warning, and appends it to MUJOCO_LOG.TXT where the program was started."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator

import mujoco

# MuJoCo's warnings about a compiled model: the check of a robot prints them once, and simulation counts them.
warnings.filterwarnings("ignore", category=UserWarning, module=r"metarl\.envs\.")

_lock = threading.Lock()
_silent = 0
"""Number of `silent` blocks that are running; all threads share one log."""
_before = (True, True)
"""Settings before the first of them: whether MuJoCo logged to the console, and whether to a file."""


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep MuJoCo from logging to the console or a file. Errors are still raised, and warnings are still counted."""
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
