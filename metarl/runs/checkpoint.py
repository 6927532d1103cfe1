"""Checkpoints: plain types and tensors, written atomically, read without running code."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from metarl.envs.strict_yaml import read_file
from metarl.envs.text import one_line, shown, typed
from metarl.errors import LONGEST, UsageError, describe
from metarl.files import make_folder, write
from metarl.provenance import VERSION

FORMAT = 2
"""Version of the format; a checkpoint of another version is refused."""

BEST = "best.pt"
OWN_FILES = "agent_files"
"""Folder beside the checkpoints for the agent's own files: see `metarl.agents.learning.World.folder`."""
MOST_BYTES = 2**32
"""Largest size of a checkpoint that is read."""
MOST_VALUES = 1_000_000
"""Largest number of values in a checkpoint; a tensor counts as one."""
MOST_LEVELS = 30
"""Largest depth of nested lists and mappings in a checkpoint."""
SHARED = 8
"""Largest ratio of the bytes of all tensors to the bytes of the file: networks may share layers."""


class CheckpointError(UsageError):
    """The file is no checkpoint that this version of metarl can read."""


def save(path: Path, state: Mapping[str, Any], option: str = "--runs-dir") -> None:
    """Write a checkpoint; RunError names the path if the disk is full or read-only. option: see `write`."""
    # By way of memory: torch.save hides why a write to disk failed.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "metarl": VERSION, "state": dict(state)}, buffer)
    write(path, buffer.getvalue(), option)


def load(path: Path) -> dict[str, Any]:
    """Return the state that `save` wrote; CheckpointError names the file and the reason if it cannot be used.

    A stranger's file runs no code, and takes no more memory than its own size, a few times over.
    """
    try:
        data = read_file(path, MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"no checkpoint {path}") from None
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"checkpoint {path} {error}") from error
    _require_whole(path, data)
    try:
        # weights_only: a checkpoint from a stranger runs no code.
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged pickle anything
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
            raise CheckpointError(
                f"checkpoint {path} cannot be read: it is damaged, or holds more than tensors and plain values, which "
                "could run code and is never loaded"
            ) from error
        raise CheckpointError(f"checkpoint {path} cannot be read: {describe(error)[:200]}") from error
    _require_plain(path, content, len(data))
    if not isinstance(content, dict) or "format" not in content or not isinstance(content.get("state"), dict):
        raise CheckpointError(f"checkpoint {path} was not written by metarl")
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"checkpoint {path} has format {shown(content['format'])} (metarl {shown(content.get('metarl'))}); "
            f"metarl {VERSION} reads format {FORMAT}, use the version that wrote it"
        )
    return content["state"]


def _require_whole(path: Path, data: bytes) -> None:
    """Raise CheckpointError unless the bytes are an archive as torch writes it: right checksums, no compression.

    So its content is no larger than the file, and cannot exhaust the memory.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            packed = any(m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1 for m in members)
            if packed or sum(m.file_size for m in members) > len(data):
                raise CheckpointError(f"checkpoint {path} is packed as no checkpoint is; it is not read")
            damaged = archive.testzip()  # torch.load does not compare the checksums
    except CheckpointError:
        raise
    except Exception as error:  # of a damaged archive anything
        raise CheckpointError(f"checkpoint {path} is cut short, or no checkpoint") from error
    if damaged is not None:
        raise CheckpointError(f"checkpoint {path} is damaged: the checksum of {shown(damaged)} is wrong")


def _require_plain(path: Path, content: Any, size: int) -> None:
    """Raise CheckpointError unless the content is a tree no larger than its file: references can make it endless.

    size: bytes of the file.
    """
    values, numbers, level = 0, 0, [content]
    for _ in range(MOST_LEVELS):
        tensors = [value for value in level if isinstance(value, torch.Tensor)]
        if any(tensor.layout != torch.strided or tensor.is_meta for tensor in tensors):
            raise CheckpointError(f"checkpoint {path} holds a tensor of a kind that metarl does not write")
        values, numbers = values + len(level), numbers + sum(tensor.nbytes for tensor in tensors)
        boxes = [value for value in level if isinstance(value, dict | list | tuple | set)]
        if values + sum(map(len, boxes)) > MOST_VALUES or numbers > SHARED * size:
            break
        level = [part for box in boxes for part in ([*box, *box.values()] if isinstance(box, dict) else box)]
        if not level:
            return
    raise CheckpointError(f"checkpoint {path} says that it holds more than its bytes can; metarl writes none such")


def is_finite(state: Any) -> bool:
    """Return whether every number in plain types and tensors is finite."""
    if isinstance(state, torch.Tensor):
        return bool(state.isfinite().all())
    if isinstance(state, float):
        return math.isfinite(state)
    return all(
        map(is_finite, state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ())
    )


def digest(state: Any) -> str:
    """Return a digest of plain types and tensors in their order; any changed bit changes it."""
    found = hashlib.sha256()

    def take(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            found.update(part.detach().cpu().contiguous().numpy().tobytes())
        elif isinstance(part, dict | list | tuple):
            for item in part.items() if isinstance(part, dict) else part:
                take(item)
        else:
            found.update(repr(part).encode())

    take(state)
    return found.hexdigest()


def iteration_of(path: Path) -> int:
    """Return the iteration in a checkpoint's file name; 0 if there is none."""
    digits = path.stem.removeprefix("iteration_")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else 0


def strings_in(state: Any) -> set[str]:
    """Return every string in plain types, keys of mappings left out."""
    if isinstance(state, str):
        return {state}
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return set().union(*map(strings_in, parts))


WHOLE_RANGE = 1.0
"""Level of tasks that are drawn from the whole range, without a curriculum."""


class Best(NamedTuple):
    """How good an iteration was. Returns of one level compare; a return on easier tasks says nothing about harder."""

    level: float
    """Mean level of difficulty of its tasks, from 0 to 1."""
    mean_return: float
    """Mean return after adaptation; NaN if every simulation broke down."""

    def is_above(self, other: Best) -> bool:
        """Return whether it is better: of a higher level, or of the same with a higher return. NaN never is."""
        return not math.isnan(self.mean_return) and self > other


def best_of(state: Mapping[str, Any]) -> Best:
    """Return what a checkpoint says of the best one. Those of before told the return alone; under a curriculum the
    level is then the lowest, so that the next checkpoint of a higher level becomes the best."""
    before = 0.0 if state.get("curriculum") else WHOLE_RANGE
    return Best(state.get("best_level", before), state["best_return"])


class CheckpointStore:
    """Keeps the last `keep` checkpoints of a run, the best one, and the agent's files that they name."""

    def __init__(self, folder: Path, keep: int = 3):
        self.folder = folder
        self.keep = keep
        self._named: dict[Path, set[str]] = {}
        """Strings in the checkpoints that were written or read so far."""

    def path(self, iteration: int) -> Path:
        """Return the path of the checkpoint after an iteration."""
        return self.folder / f"iteration_{iteration:06d}.pt"

    def paths(self) -> list[Path]:
        """Return the checkpoints by iteration, oldest first, without the best one."""
        return sorted(filter(iteration_of, self.folder.glob("iteration_*.pt")), key=iteration_of)

    def save(self, state: Mapping[str, Any], iteration: int, best: bool = False) -> Path:
        """Write the checkpoint after an iteration, then `tidy`."""
        path = self.path(iteration)
        make_folder(self.folder, "--runs-dir")
        for written in [self.folder / BEST, path] if best else [path]:
            # The best first: a kill between the two leaves a best one that is ahead, and none that is stale.
            save(written, state)
            self._named[written] = strings_in(state)
        self.tidy(iteration)
        return path

    def tidy(self, iteration: int) -> None:
        """Remove the checkpoints that are too old after an iteration, and what a killed process left of its writes.

        Nobody else may train the run. After a resumption too: a process may have been killed before it did so.
        """
        # A later checkpoint was refused, or it would have been gone on from: it counts for nothing here.
        old = [path for path in self.paths() if iteration_of(path) <= iteration][: -self.keep]
        for path in [*old, *self.folder.glob(".*.tmp")]:
            path.unlink(missing_ok=True)
        self._remove_unnamed()

    def _remove_unnamed(self) -> None:
        """Remove the agent's files that no kept checkpoint names; none while one of the checkpoints cannot be read."""
        files = self.folder.parent / OWN_FILES
        if not files.is_dir():
            return
        named: set[str] = set()
        for path in [*self.paths(), *([self.folder / BEST] if self.has_best() else [])]:
            if path not in self._named:
                try:
                    self._named[path] = strings_in(load(path))
                except CheckpointError:
                    return
            named |= self._named[path]
        for file in files.iterdir():
            if file.name not in named and not file.is_dir():
                file.unlink(missing_ok=True)

    def best(self, said: Best) -> Best:
        """Return how good the best checkpoint is; said: by the checkpoint that is resumed from.

        It is ahead of that where a kill came between the two. Where the best one is gone, damaged or another, there is
        none, which is said on stderr: the next checkpoint becomes it.
        """
        try:
            there = said.mean_return > -math.inf or self.has_best()
            found = best_of({"best_return": None, **load(self.folder / BEST)}) if there else said
            if all(isinstance(value, float) for value in found) and found >= said:
                return found
            reason = f"{self.folder / BEST} is not the best that there was"
        except CheckpointError as error:
            reason = str(error)
        print(f"warning: {one_line(reason, LONGEST)}; the next checkpoint becomes the best", file=sys.stderr)
        return Best(0.0, -math.inf)

    def has_best(self) -> bool:
        """Return whether there is a best checkpoint."""
        return (self.folder / BEST).exists()

    def load(self, which: str | Path = "last") -> tuple[Path, dict[str, Any]]:
        """Load `last`, `best` or a file; returns (path, state).

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
                print(f"warning: {one_line(str(error), LONGEST)}; trying the one before it", file=sys.stderr)
                reasons.append(str(error))
                continue
            return path, state
        if reasons:
            raise CheckpointError(f"no checkpoint in {self.folder} can be used: {'; '.join(reasons)}")
        raise CheckpointError(
            f"no checkpoint in {self.folder}; the run ended before its first one, start it anew by: metarl train "
            f"--resume {typed(self.folder.parent)}"
        )
