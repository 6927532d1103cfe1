"""Functions that a user names as file.py:function or module:function: their code is run here and nowhere else."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metarl.envs.text import near

INSTALLED = (Path(__file__).parents[1], *(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")))
"""Folders of metarl's code, Python's and that of other packages."""


class Absent(AttributeError):
    """A module lacks the function."""


def is_function(name: str) -> bool:
    """Return whether it names a function, `module:function` or `file.py:function`, and not a file."""
    return ":" in name and not Path(name).exists()


def load(name: str) -> Any:
    """Return what module:function or file.py:function names, without writing bytecode beside it.

    A file may import its neighbours: its folder comes last on Python's path. Whatever the import raises is raised, and
    `Absent` if there is no such function.
    """
    if is_held(name):
        return _held[name]
    where, _, function = name.rpartition(":")
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        module = _imported(where)
        if not hasattr(module, function):
            own = (name for name, it in vars(module).items() if getattr(it, "__module__", "") == module.__name__)
            raise Absent(f"{where} has no function {function!r}{near(function, own)}")
        return getattr(module, function)
    finally:
        sys.dont_write_bytecode = writes


_held: dict[str, Callable[..., Any]] = {}
"""Functions that a program holds for `load`, by name."""


def hold(function: Callable[..., Any]) -> str:
    """Return a name by which this process alone can load the function."""
    name = f"object:{len(_held)}"
    _held[name] = function
    return name


def is_held(name: str) -> bool:
    """Return whether this process holds a function of the name."""
    return name in _held


def file_of(name: str) -> Path | None:
    """Return the file of file.py:function; None where it names a module."""
    where = Path(name.rpartition(":")[0])
    return where if where.suffix == ".py" else None


def placed(name: str, folder: Path) -> str:
    """Return file.py:function with the file's path made absolute; it is relative to the folder."""
    file = file_of(name)
    return name if file is None else f"{(folder / file).resolve()}:{name.rpartition(':')[2]}"


def digest(file: Path) -> str:
    """Return the SHA-256 of a file's content as text."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def failure(error: BaseException) -> str:
    """Return what was raised and where in the user's code, or where at all if it is not there, in a line."""
    if isinstance(error, Absent):
        return str(error)
    raised = "".join(traceback.format_exception_only(error)).strip()
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    at = [frame for frame in frames if not {*INSTALLED} & {*Path(frame.filename).parents}] or frames
    return f"{raised} ({Path(at[-1].filename).name}, line {at[-1].lineno}: {at[-1].line})" if at else raised


_modules: dict[tuple[Path, str], Any] = {}
"""Modules that were imported from files, by path and digest."""


def _imported(where: str) -> Any:
    if not where.endswith(".py"):
        sys.path.insert(0, os.getcwd())
        try:
            return importlib.import_module(where)
        finally:
            sys.path.remove(os.getcwd())
    path = Path(where).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no file {where}")
    key = (path, digest(path))
    if key not in _modules:
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        found = importlib.util.spec_from_file_location(path.stem, path)
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        named = sys.modules.setdefault(path.stem, module) is module  # dataclasses look their module up
        try:
            found.loader.exec_module(module)
        except BaseException:
            if named:
                del sys.modules[path.stem]
            raise
        _modules[key] = module
    return _modules[key]
