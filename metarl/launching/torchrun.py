"""The command that trains one run in several processes: torchrun, which starts them again when one dies.

Nothing here imports torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Meeting:
    """The address at which the processes of several nodes find each other."""

    host: str
    """The first node."""
    port: int | str
    """Port on the host; as text, a placeholder."""
    job: str
    """Name that is unique to these nodes."""


def torchrun(
    program: Sequence[str],
    ranks: int,
    nodes: int = 1,
    node: int = 0,
    meeting: Meeting | None = None,
    restarts: int = 0,
) -> list[str]:
    """Return the command that runs Python with these arguments in `ranks` processes on each of `nodes` nodes.

    A single process needs no torchrun. node: number of this node, from 0. meeting: required for several nodes.
    restarts: number of times that all ranks are started again after one of them died.
    """
    if ranks * nodes == 1:
        return [sys.executable, *program]
    run = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", f"--max-restarts={restarts}"]
    if meeting is None:
        return [*run, "--standalone", *program]
    # State which node is the host: torchrun would guess it from the node's names, and a node may have several.
    run += [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={meeting.host}:{meeting.port}"]
    return [*run, f"--rdzv-id={meeting.job}", f"--rdzv-conf=is_host={str(node == 0).lower()}", *program]
