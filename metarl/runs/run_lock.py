"""Keep two processes from training the same run: the one that trains holds a lock on a file in the run's folder.

The kernel releases the lock however the process ends, so that nothing blocks the next one. A process that ends normally
also removes the file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from metarl.envs.text import typed
from metarl.errors import RunError, UsageError, describe

LOCK = ".lock"
"""File in the run's folder."""
UNKNOWN = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""Errors of file systems that do not support locks."""


class RunBusy(UsageError):
    """Another process is training the run."""


@contextlib.contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Within the block no other process trains in the run's folder; RunBusy names the process that already does.

    A file system without locks is a warning on stderr, and the run continues without one.
    """
    descriptor = _take(directory)
    try:
        yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):  # a disk that is gone: the kernel releases the lock all the same
                (directory / LOCK).unlink()
            os.close(descriptor)


def _take(directory: Path) -> int | None:
    """Return the descriptor of the locked file; None if the file system has no locks."""
    path = directory / LOCK
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RunError(f"cannot lock {directory}: {describe(error)}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(path, descriptor):
                break
            os.close(descriptor)  # its holder ended, and removed it, between the two calls
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise RunBusy(
                f"{directory} is being trained by {holder}; wait until it ends, or end it, then resume the run "
                f"with: metarl train --resume {typed(directory)}"
            ) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in UNKNOWN:
                raise RunError(f"cannot lock {directory}: {describe(error)}") from error
            with contextlib.suppress(OSError):
                path.unlink()
            print(
                f"warning: the file system of {directory} does not support locks ({error.strerror}): nothing keeps a "
                "second process from training this run at the same time; make sure that there is none",
                file=sys.stderr,
            )
            return None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps({"pid": os.getpid(), "host": platform.node()}).encode())
    return descriptor


def _is(path: Path, descriptor: int) -> bool:
    """Return whether the path still names the open file."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    """Return the process that holds the lock, in words, as the file states it."""
    try:
        record = json.loads(os.pread(descriptor, 1000, 0))
        pid, host = int(record["pid"]), str(record["host"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"
    return f"process {pid}" if host == platform.node() else f"process {pid} on {host}"
