"""Checkpoints: plain types and tensors, written atomically, read without running code."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from metarl.errors import RunError, UsageError, describe
from metarl.files import write
from metarl.provenance import VERSION

FORMAT = 2
"""Raised whenever what a checkpoint holds changes its meaning: a checkpoint of another format is refused."""

BEST = "best.pt"


class CheckpointError(UsageError):
    """A file that is no checkpoint that this metarl can read."""


def save(path: Path, state: Mapping[str, Any], option: str = "--runs-dir") -> None:
    """Write a checkpoint; RunError names the path if the disk is full or read-only. option: see `write`."""
    # By way of memory: torch.save hides why a write to disk failed.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "metarl": VERSION, "state": dict(state)}, buffer)
    write(path, buffer.getvalue(), option)


def load(path: Path) -> dict[str, Any]:
    """The state that `save` wrote; CheckpointError names the file and the reason if it cannot be used."""
    if not path.exists():
        raise CheckpointError(f"no checkpoint {path}")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"checkpoint {path} is damaged: the checksum of {damaged} is wrong")
        # weights_only: a checkpoint from a stranger runs no code.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except zipfile.BadZipFile:
        raise CheckpointError(f"checkpoint {path} is cut short, or no checkpoint") from None
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
            raise CheckpointError(
                f"checkpoint {path} cannot be read: it is damaged, or holds more than tensors and plain values, which "
                "could run code and is never loaded"
            ) from error
        raise CheckpointError(f"checkpoint {path} cannot be read: {describe(error)[:200]}") from error
    if not isinstance(content, dict) or "format" not in content or "state" not in content:
        raise CheckpointError(f"checkpoint {path} was not written by metarl")
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"checkpoint {path} has format {content['format']} (metarl {content.get('metarl')}); "
            f"metarl {VERSION} reads format {FORMAT}, use the version that wrote it"
        )
    return content["state"]


class CheckpointStore:
    """The checkpoints of one run: the last `keep`, and the best."""

    def __init__(self, folder: Path, keep: int = 3):
        self.folder = folder
        self.keep = keep

    def path(self, iteration: int) -> Path:
        """Where the checkpoint after an iteration is."""
        return self.folder / f"iteration_{iteration:06d}.pt"

    def paths(self) -> list[Path]:
        """The checkpoints by iteration, oldest first, without the best."""
        return sorted(self.folder.glob("iteration_*.pt"))

    def save(self, state: Mapping[str, Any], iteration: int, best: bool = False) -> Path:
        """Write the checkpoint after an iteration, and only then remove what is too old."""
        path = self.path(iteration)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {self.folder}: {describe(error)}; choose another --runs-dir") from error
        save(path, state)
        if best:
            save(self.folder / BEST, state)
        # A later checkpoint was refused, or it would have been gone on from: it counts for nothing here.
        for old in [p for p in self.paths() if p <= path][: -self.keep]:
            old.unlink(missing_ok=True)
        return path

    def load(self, which: str | Path = "last") -> tuple[Path, dict[str, Any]]:
        """`last`, `best` or a file, as (path, state).

        For `last`, a checkpoint that cannot be used is refused by name on stderr, and the one before it is used.
        """
        if which == "best":
            return self.folder / BEST, load(self.folder / BEST)
        if which != "last":
            return Path(which), load(Path(which))
        reasons = []
        for path in reversed(self.paths()):
            try:
                state = load(path)
            except CheckpointError as error:
                print(f"warning: {error}; trying the one before it", file=sys.stderr)
                reasons.append(str(error))
                continue
            return path, state
        if reasons:
            raise CheckpointError(f"no checkpoint in {self.folder} can be used: {'; '.join(reasons)}")
        raise CheckpointError(f"no checkpoint in {self.folder}; the run ended before its first one, start it anew")
