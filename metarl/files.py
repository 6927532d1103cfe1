"""Make folders and write files in runs and reports: a file is written whole or not at all, and no link is followed."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import platform
import stat
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

from metarl.envs.text import CONTROL, shown
from metarl.errors import RunError, UsageError, describe

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE)
"""Errors that another time or another disk may not have, whatever place was asked for."""
MOST_NAME = 200
"""Longest name of a run, bytes: file systems allow 255, and files named after the run have longer names."""


def make_folder(folder: Path, option: str, exist_ok: bool = True) -> None:
    """Make a folder and those above it. UsageError if there cannot be one, RunError if the disk is full or fails; both
    name the option that chooses another place.

    FileExistsError if it exists and exist_ok is False.
    """
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if isinstance(error, FileExistsError) and not exist_ok and os.path.lexists(folder):
            raise
        kind = RunError if error.errno in DISK else UsageError
        raise kind(f"cannot make {folder}: {describe(error)}; choose another {option}") from error


def require_place(path: Path, option: str) -> None:
    """Make the folder of a file, and see that a file can be written there, before the work that ends with it.

    UsageError, or RunError if the disk is full or fails; both name the option that chooses another place.
    """
    make_folder(path.parent, option)
    if path.is_dir():
        raise UsageError(f"{option}: {path} is a folder; name a file")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        kind = RunError if error.errno in DISK else UsageError
        raise kind(f"cannot write {path}: {error.strerror}; choose another {option}") from error


def require_name(name: str, what: str = "--name") -> None:
    """UsageError unless a name, of a run or of an arm, can be that of a single folder. what: the name is, in words."""
    if len(os.fsencode(name)) > MOST_NAME:
        raise UsageError(f"{what} has {len(os.fsencode(name))} bytes; give one of at most {MOST_NAME}")
    if name in ("", ".", "..") or set(name) & {"/", "\\"} or CONTROL.search(name):
        others = ", and the folder of all runs with --runs-dir" if what == "--name" else ""
        raise UsageError(f"{what} is {shown(name)}; give the name of one folder, without a slash{others}")


def fresh_folder(folder: Path, option: str) -> Path:
    """Make a folder that did not exist, and return it: FOLDER, or the first of FOLDER_2, FOLDER_3, ... that is free.

    Two processes never get the same one. Errors are those of `make_folder`.
    """
    base, number = folder, 1
    while True:
        try:
            make_folder(folder, option, exist_ok=False)
        except FileExistsError:
            number += 1
            folder = base.with_name(f"{base.name}_{number}")
        else:
            return folder


def folder_for(folder: Path, name: str, held: Callable[[Any], Iterable[Any]], own: Iterable[Path | str]) -> Path:
    """Make a folder for what is said of some runs, and return it; UsageError if it holds what was said of others.

    Its files would be replaced, or stay beside the new ones. name: of the JSON file by which it holds something. held:
    returns from its content what `own` is for this time, folders of runs or names.
    """
    make_folder(folder, "--output")
    try:
        others = [str(entry) for entry in held(json.loads((folder / name).read_text(encoding="utf-8")))]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # it holds nothing of the kind
        return folder
    if {Path(entry).resolve() for entry in others} != {Path(entry).resolve() for entry in own}:
        what = name.partition(".")[0]
        raise UsageError(f"--output {folder} holds the {what} of {', '.join(others)}; name another folder")
    return folder


def write(path: Path, data: bytes | Iterable[bytes | memoryview], option: str = "--runs-dir") -> None:
    """Replace a file by `data` so that after a crash it holds either the old bytes or the new ones. data: the whole, or
    its parts in order.

    Where several processes write it at once, it holds what one of them wrote, whole. What a killed one leaves is called
    `.NAME.HOST.PROCESS.tmp`.

    RunError if the disk refuses; it names the option that chooses another place, if there is one.
    """
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
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
        remedy = f"make room or choose another {option}" if option else "make room"
        raise RunError(f"cannot write {path}: {reason}; what was saved before is untouched, {remedy}") from error


def append(path: Path) -> TextIO:
    """Open a text file to write at its end; RunError if the disk refuses, or if it is a link or no plain file.

    A link in somebody's run would lead anywhere.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)

    try:
        file = open(path, "a", encoding="utf-8", opener=opener)  # noqa: SIM115 (the caller's to close)
    except OSError as error:
        reason = error.strerror or str(error)
        reason = "it is a link, and is not followed; remove it" if path.is_symlink() else reason
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
