"""How processes that train together learn that one of them has failed, and end within seconds."""

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
"""Between two looks into the store."""
SILENT_S = 60.0
"""A process that gives no sign of life for so long is taken for gone."""
GRACE_S = 10.0
"""What a process has to end in order, once another has failed, before it is ended."""
HEARD_S = 2.0
"""Longest wait until the others have heard of a failure: its process, and the store with it, may be gone after that."""
MISSES = 3
"""Looks in vain, after which the store is gone."""
REMEDY = "go on from its last checkpoint with metarl train --resume"
FAILED = 1
"""Exit status where nothing else is said."""


@dataclass(frozen=True)
class Failure:
    """What the first process that failed leaves in the store."""

    rank: int
    status: int
    message: str


class Failures:
    """The note about the first failure, and the thread that looks for it."""

    def __init__(self, rank: int, size: int, store: Store) -> None:
        """store: a connection of its own, with keys of this attempt alone."""
        self._rank, self._size, self._store = rank, size, store
        self._nodes: Sequence[str] = [""] * size
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._signs: dict[int, tuple[bytes, float]] = {}
        self.known: Failure | None = None
        """The first failure, once this process knows of it."""
        self._sign(0)

    def watch(self, nodes: Sequence[str]) -> None:
        """Look for failures from now on. nodes: by rank, the torchrun that each belongs to: it shows what they say."""
        self._nodes = nodes
        if self._size > 1:
            self._thread.start()

    def report(self, status: int, message: str) -> tuple[int, str]:
        """A failure of this process: the status that it ends with and what it is to say, which may be nothing.

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
        """Look for no more failures."""
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
        """Whether this process says it: the one that failed, and the first of every other node."""
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
        """A process that is silent; the first watches all others, and they the first."""
        watched = range(1, self._size) if self._rank == 0 else range(1)
        now = time.monotonic()
        for rank, sign in zip(watched, self._store.multi_get([f"alive/{rank}" for rank in watched]), strict=True):
            seen, since = self._signs.get(rank, (None, now))
            if sign != seen:
                self._signs[rank] = (sign, now)
            elif now - since > SILENT_S:
                return rank
        return None
