"""What a folder holds: a run, a sweep or a headroom study, each of which is alone in its folder."""

from __future__ import annotations

from pathlib import Path

from metarl.config import CONFIG
from metarl.errors import UsageError

SWEEP = "sweep.json"
"""File with the fingerprint of a folder's sweep."""
STUDY = "study.json"
"""File in a study's folder that says what is trained."""
HELD = {SWEEP: "a sweep", STUDY: "a headroom study", CONFIG: "a run"}
"""What a folder is that has a file."""


def held(folder: Path) -> str:
    """Return what a folder is, in words; empty: none of these."""
    return next((what for name, what in HELD.items() if (folder / name).exists()), "")


def require_unoccupied(folder: Path, name: str, remedy: str) -> None:
    """UsageError if a folder is that of something else, whose files those of this would lie among.

    name: the file, of `HELD`, by which the folder is that of this, whatever else it holds. remedy: in words.
    """
    if not (folder / name).exists() and (what := held(folder)):
        raise UsageError(f"{folder} is the folder of {what}; {remedy}")
