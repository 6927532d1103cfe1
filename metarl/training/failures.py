"""Failures in processes that train together: the others notice within seconds, and end."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

LOOK_S = 0.5
"""Time between two looks into the store."""
SILENT_S = 60.0
"""Time without a sign of life after which a process counts as failed."""
GRACE_S = 10.0
"""Time in which a process can end by itself once another has failed; then it is ended."""
HEARD_S = 2.0
"""Longest time that a failed process waits for the others to notice: it may be the one that serves the store."""
MISSES = 3
"""Number of failed looks in a row after which the store counts as gone."""
REMEDY = "go on from its last checkpoint with metarl train --resume"
FAILED = 1
"""Exit status of an unspecified failure."""


@dataclass(frozen=True)
class Failure:
    """Note about the first failure, which its process leaves in the store."""

    rank: int
    status: int
    message: str


class Failures:
    """Reports failures of this process, and watches for those of others in a thread."""

    def __init__(self, rank: int, size: int, store: Store) -> None:
        """store: a connection of its own, with keys of this attempt alone."""
        self._rank, self._size, self._store = rank, size, store
        self._nodes: Sequence[str] = [""] * size
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._signs: dict[int, tuple[bytes, float]] = {}
        self.known: Failure | None = None
        """First failure; None until this process has noticed it."""
        self._sign(0)

    def watch(self, nodes: Sequence[str]) -> None:
        """Start to look for failures. nodes: the torchrun that started each process, by rank."""
        self._nodes = nodes
        if self._size > 1:
            self._thread.start()

    def report(self, status: int, message: str) -> tuple[int, str]:
        """Report a failure of this process; returns its exit status and the message that it is to print, maybe empty.

        Where another failed first, it is that one's failure; and one process on each machine says it.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, for the failure of another: it says less
        own = Failure(self._rank, status, message)
        try:
            with self._lock:
                first = self._leave_note(own)
                if first == own:
                    self._wait_until_heard()
                elif self.known is None:
                    self._store.add("heard", 1)
        except RuntimeError:  # the store is gone
            first = self.known or own
        self.known = first
        return first.status, first.message if self._says(first) else ""

    def close(self) -> None:
        """Stop looking for failures."""
        self._ended.set()
        if self._thread.is_alive():  # Python must not end while it is in the store's C++: that would abort
            self._thread.join(HEARD_S)

    def _leave_note(self, own: Failure) -> Failure:
        return Failure(**json.loads(self._store.compare_set("failure", "", json.dumps(asdict(own)))))

    def _wait_until_heard(self) -> None:
        deadline = time.monotonic() + HEARD_S
        while self._store.add("heard", 0) < self._size - 1 and time.monotonic() < deadline:
            time.sleep(0.02)

    def _says(self, failure: Failure) -> bool:
        """Return whether this process prints the message: the failed one does, and the first of every other node."""
        node = self._nodes[self._rank]
        there = self._nodes[failure.rank] == node
        return self._rank == (failure.rank if there else self._nodes.index(node))

    def _watch(self) -> None:
        looks = misses = 0
        while not self._ended.wait(LOOK_S) and self.known is None:
            looks += 1
            try:
                with self._lock:
                    self._sign(looks)
                    self._look()
                misses = 0
            except RuntimeError:
                misses += 1
            if misses == MISSES:
                self.known = Failure(self._rank, FAILED, f"error: the torchrun of this run has ended; {REMEDY}")
        if not self._ended.wait(GRACE_S) and self.known is not None:
            if self._says(self.known):
                print(self.known.message, file=sys.stderr, flush=True)
            os._exit(self.known.status)

    def _sign(self, count: int) -> None:
        """Give a sign of life."""
        self._store.set(f"alive/{self._rank}", str(count))

    def _look(self) -> None:
        if self._store.check(["failure"]):
            note = Failure(**json.loads(self._store.get("failure")))
        elif (silent := self._silent()) is not None:
            message = f"error: process {silent} of this run has given no sign of life for {SILENT_S:.0f} s; {REMEDY}"
            note = self._leave_note(Failure(self._rank, FAILED, message))
        else:
            return
        self._store.add("heard", 1)
        self.known = note

    def _silent(self) -> int | None:
        """Return the rank of a silent process, or None. The first process watches all others, and they watch it."""
        watched = range(1, self._size) if self._rank == 0 else range(1)
        now = time.monotonic()
        for rank, sign in zip(watched, self._store.multi_get([f"alive/{rank}" for rank in watched]), strict=True):
            seen, since = self._signs.get(rank, (None, now))
            if sign != seen:
                self._signs[rank] = (sign, now)
            elif now - since > SILENT_S:
                return rank
        return None
