"""MuJoCo's log: by itself it prints every warning, and appends it to MUJOCO_LOG.TXT where the program was started."""

from __future__ import annotations

import contextlib
import threading
import warnings

import mujoco

# MuJoCo's warnings about a compiled model: the check of a robot prints them once, and simulation counts them.
warnings.filterwarnings("ignore", category=UserWarning, module=r"metarl\.envs\.")

_lock = threading.Lock()
_silent = 0
"""Number of `silent` blocks that are running; all threads share one log."""
_before = (True, True)
"""Settings before the first of them: whether MuJoCo logged to the console, and whether to a file."""


class _Silence(contextlib.ContextDecorator):
    """A block in which MuJoCo does not log; one inside another costs next to nothing."""

    def __enter__(self) -> None:
        global _silent, _before
        with _lock:
            if _silent == 0:
                config = mujoco.MjLogConfig.get()
                _before = (config.logto_console, config.logto_file)
                _log_to(False, False)
            _silent += 1

    def __exit__(self, *_: object) -> None:
        global _silent
        with _lock:
            _silent -= 1
            if _silent == 0:
                _log_to(*_before)


_silence = _Silence()


def silent() -> _Silence:
    """Keep MuJoCo from logging to the console or a file, in a block or a decorated function.

    Errors are still raised, and warnings are still counted.
    """
    return _silence


def _log_to(console: bool, file: bool) -> None:
    config = mujoco.MjLogConfig.get()
    config.logto_console, config.logto_file = console, file
    config.set()
