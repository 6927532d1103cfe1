"""The command that trains one run in several processes: torch's own launcher, which starts them again where they die.

Nothing here imports torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Meeting:
    """Where the processes of several nodes find each other."""

    host: str
    """The first node."""
    port: int | str
    """On it; as text, what stands for it."""
    job: str
    """Name that only these nodes use."""


def torchrun(
    program: Sequence[str],
    ranks: int,
    nodes: int = 1,
    node: int = 0,
    meeting: Meeting | None = None,
    restarts: int = 0,
) -> list[str]:
    """What runs Python with these arguments on one node: in `ranks` processes there, of `nodes` times as many in all.

    One process in all needs no torchrun. node: number of this one, from 0. meeting: of several nodes. restarts: of all
    ranks, after one of them died.
    """
    if ranks * nodes == 1:
        return [sys.executable, *program]
    run = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", f"--max-restarts={restarts}"]
    if meeting is None:
        return [*run, "--standalone", *program]
    # Which node is the host is said: torchrun would guess it from the node's names, of which it may have several.
    run += [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={meeting.host}:{meeting.port}"]
    return [*run, f"--rdzv-id={meeting.job}", f"--rdzv-conf=is_host={str(node == 0).lower()}", *program]
