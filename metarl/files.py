"""Files that are written into a run or a report, whose folder may be somebody else's: whole or not at all, and nowhere
else, as no link that lies there is followed."""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from metarl.errors import RunError, describe


def write(path: Path, data: bytes | Iterable[bytes | memoryview], option: str = "--runs-dir") -> None:
    """Replace a file by `data` so that after a crash it holds either the old bytes or the new ones. data: the whole, or
    its parts in order.

    RunError if the disk refuses; it names the option that chooses another place.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:  # a new file: somebody's link of that name is not followed
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise RunError(
            f"cannot write {path}: {reason}; what was saved before is untouched, make room or choose another {option}"
        ) from error


def append(path: Path) -> TextIO:
    """Open a text file to write at its end; RunError if the disk refuses, or if it is a link or no plain file.

    A link in somebody's run would lead anywhere.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)

    try:
        file = open(path, "a", encoding="utf-8", opener=opener)  # noqa: SIM115 (the caller's to close)
    except OSError as error:
        reason = "it is a link, and is not followed; remove it" if path.is_symlink() else describe(error)
        raise RunError(f"cannot write {path}: {reason}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise RunError(f"cannot write {path}: it is no plain file; remove it")
    return file


def plain(value: Any) -> Any:
    """Nested lists, mappings and arrays as plain types for JSON, with None for what is no finite number."""
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    if hasattr(value, "tolist"):  # NumPy's
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
