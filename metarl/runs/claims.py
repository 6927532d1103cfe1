"""Claims on numbered runs that several processes share, so that no two train the same one, on any machine.

A claim is a file such as `0007.2` (run 7, second claim), made by a hard link: complete and exclusive, on shared
file systems too. Its process holds a lock on the file, which the kernel releases however the process dies. Other
machines may not see the lock: they use the file's time, which the process keeps updating.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

BEAT_S = 15.0
"""Time between two updates of the file's time."""
DEATHS = 3
"""Number of processes of one command that die at one iteration of a run before it counts as failed."""
STALE_S = 120.0
"""Age of the file's time at which a process on another machine counts as dead."""


def machine() -> str:
    """Return an identifier of this machine since its start: processes that share it see each other's locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return platform.node()


@dataclass
class Claim:
    """A process's claim on a run, from `claim` until `release` or the end of the process."""

    path: Path
    file: IO[str]

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            with contextlib.suppress(OSError):  # a server that is away for a while
                os.utime(self.path)

    def lost(self) -> bool:
        """Return whether another machine took this process for dead and claimed the run."""
        return self.path.with_suffix(f".{_generation(self.path) + 1}").exists()

    def release(self) -> None:
        """Give up the claim, so that any process can claim the run at once."""
        self._stop.set()
        with contextlib.suppress(OSError):
            os.utime(self.path, (0, 0))
        self.file.close()


def claim(folder: Path, number: int, iteration: int, command: str = "") -> Claim | None:
    """Claim a run; None if a living process has it.

    iteration: of its last checkpoint, 0 without one. command: identifier of the command that the process works for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = claims(folder, number)
    if held and _alive(held[-1]):
        return None
    target = folder / f"{number:04d}.{_generation(held[-1]) + 1 if held else 1}"
    draft = folder / f".{uuid.uuid4().hex}"
    record = {"host": platform.node(), "machine": machine(), "pid": os.getpid(), "iteration": iteration}
    record["command"] = command
    file = open(draft, "w", encoding="utf-8")  # noqa: SIM115 (open as long as the claim)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(record))
        file.flush()
        os.link(draft, target)
    except FileExistsError:
        file.close()
        return None
    finally:
        draft.unlink()
    return Claim(target, file)


def claims(folder: Path, number: int) -> list[Path]:
    """Return all claims on a run, oldest first."""
    return sorted(folder.glob(f"{number:04d}.*"), key=_generation)


def deaths(folder: Path, number: int, iteration: int, command: str | None = None) -> int:
    """Return how many processes died while a run was at an iteration. command: count those of this command alone."""
    past = [read(path) for path in claims(folder, number) if not _released(path) and not _alive(path)]
    return sum(own.get("iteration") == iteration and command in (None, own.get("command")) for own in past)


def running(folder: Path, number: int) -> dict[str, Any] | None:
    """Return the record of the living process that has a run; None if there is none."""
    held = claims(folder, number)
    return read(held[-1]) if held and _alive(held[-1]) else None


def read(path: Path) -> dict[str, Any]:
    """Return the record of a claim's process: host, machine, pid, iteration, command."""
    return json.loads(path.read_text(encoding="utf-8"))


def _generation(path: Path) -> int:
    return int(path.suffix[1:])


def _released(path: Path) -> bool:
    return path.stat().st_mtime == 0


def _alive(path: Path) -> bool:
    if _released(path):
        return False
    if read(path)["machine"] != machine():
        return _now(path.parent) - path.stat().st_mtime < STALE_S
    with open(path, encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two that ask do not block each other
        except BlockingIOError:
            return True
    return False


def _now(folder: Path) -> float:
    """Return the time of the machine that the files are on: clocks differ."""
    probe = folder / f".{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()
