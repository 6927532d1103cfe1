"""Check that a folder holds the results of this sweep and of no other."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metarl.config import config_from_dict
from metarl.errors import UsageError, describe
from metarl.files import make_folder, write
from metarl.runs.occupied import SWEEP, require_unoccupied
from metarl.sweeps.sweep import Sweep, essentials


def require_same(sweep: Sweep, folder: Path) -> None:
    """Write the sweep's fingerprint into its folder; UsageError if another sweep, or something else, is there."""
    path = folder / SWEEP
    if not path.exists():
        require_no_other(sweep, folder)
        make_folder(folder, "--runs-dir")
        draft = folder / f".{os.getpid()}.{SWEEP}"
        write(draft, json.dumps(sweep.fingerprint(), indent=1).encode())
        with contextlib.suppress(FileExistsError):  # another process was first
            os.link(draft, path)
        draft.unlink()
    require_no_other(sweep, folder)


def require_no_other(sweep: Sweep, folder: Path) -> None:
    """UsageError if the folder, which may be empty or absent, is that of another sweep, or of something else."""
    remedy = "give the sweep's file another name, or choose another --runs-dir"
    require_unoccupied(folder, SWEEP, remedy)
    path = folder / SWEEP
    if not path.exists():
        return
    spec = json.loads(json.dumps(sweep.fingerprint()))
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
        base = essentials(config_from_dict(theirs["base"], saved=True))  # adds settings that are newer than the folder
        theirs["base"] = json.loads(json.dumps(base))
        for name in ("files", "parts"):  # older versions left out all, those of levels, or those that files name
            theirs[name] = spec[name] | theirs.get(name, {})
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read ({describe(error)}); move the folder away") from error
    changed = list(_differences(theirs, spec))
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UsageError(
            f"{folder} holds the results of another sweep: {'; '.join(changed[:3])}{more}. Undo the change, or give "
            f"the new sweep another file name"
        )


def _differences(theirs: Any, ours: Any, name: str = "") -> Iterator[str]:
    nested = isinstance(theirs, Mapping) and isinstance(ours, Mapping)
    if nested and (name != "factors" or theirs.keys() == ours.keys()):
        for key in dict.fromkeys([*theirs, *ours]):
            yield from _differences(theirs.get(key), ours.get(key), f"{name}.{key}" if name else str(key))
    elif theirs != ours and name.startswith("files."):
        yield f"the file of family.{name.removeprefix('files.')} has another content"
    elif theirs != ours and name.startswith("parts."):
        yield f"the file {name.removeprefix('parts.')} has another content"
    elif nested and theirs != ours:
        yield f"its factors were {', '.join(theirs)}, now they are {', '.join(ours)}"
    elif theirs != ours:
        yield f"{name} was {theirs}, is {ours}"
