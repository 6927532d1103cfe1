"""Functions of the user's own that a robot's file names; read without MuJoCo, as a run's configuration is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metarl.envs import code
from metarl.envs.strict_yaml import read_yaml


def functions_in(path: str | Path) -> dict[str, str]:
    """Return the functions that a file names, file.py:function each, with absolute paths by what it names them.

    Empty if it cannot be read.
    """
    try:
        named = [place["function"] for place in naming_functions(read_yaml(Path(path)))]
    except (OSError, ValueError):
        return {}
    return {name: code.placed(name, Path(path).parent) for name in named}


def naming_functions(data: Any) -> list[dict[str, Any]]:
    """Return the mappings anywhere in a file's content that name a function."""
    inside = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    own = [data] if isinstance(data, dict) and isinstance(data.get("function"), str) else []
    return own + [found for part in inside for found in naming_functions(part)]
