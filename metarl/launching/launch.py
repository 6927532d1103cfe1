"""A job on a cluster: the command of each node, and the resources that are requested.

Nothing here imports torch, MuJoCo or submitit.
"""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metarl.envs.text import shown
from metarl.errors import UsageError
from metarl.launching.torchrun import Meeting, torchrun

PORTS = range(20000, 32000)
"""Ports below the ephemeral ones of common systems."""
TIME = re.compile(r"((?P<days>\d{1,4})-)?(?P<rest>\d{1,6}(:\d{1,2}){0,2})")
"""Slurm's formats: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]."""
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
"""File systems in memory, which no other node sees."""


@dataclass(frozen=True)
class Work:
    """The command that the nodes of a job run."""

    arguments: tuple[str, ...]
    """Arguments of metarl, the same at every start of the job: they resume the run."""
    nodes: int = 1
    ranks: int = 1
    """Number of processes on each node."""
    restarts: int = 3
    """Number of times that the ranks are started again after one of them died."""
    together: bool = True
    """Whether the ranks of all nodes train one run; otherwise each node works by itself."""
    grace_s: int = 120
    """Time from the signal that announces the end of the job until it is killed, s."""

    def command(self, node: int, host: str, port: int | str, job: str) -> list[str]:
        """Return the command of a node. node: from 0. host: the first node. port: on it, or a placeholder."""
        program = ["-m", "metarl", *self.arguments]
        if not self.together:
            return torchrun(program, 1)
        meeting = Meeting(host, port, job) if self.nodes > 1 else None
        return torchrun(program, self.ranks, self.nodes, node, meeting, self.restarts)


def port_of(job: str) -> int:
    """Return a port that is the same on all nodes of a job, and that two jobs on one node seldom share."""
    return PORTS[int(re.sub(r"\D", "", job) or "0") % len(PORTS)]


@dataclass(frozen=True)
class Launch:
    """A job: its command and its resources."""

    name: str
    work: Work
    folder: Path
    """Folder of its script and its logs, which all nodes see."""
    minutes: int
    """Time limit, minutes."""
    cpus: int
    """Cores of each node."""
    gpus: int = 0
    """GPUs of each node."""
    requeues: int = 100
    """Times that it is queued again after its time limit; those after a preemption are not counted."""
    options: dict[str, str] = field(default_factory=dict)
    """Options of sbatch, as they were given."""

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of submitit's Slurm executor."""
        return {
            "job_name": self.name,
            "time": self.minutes,
            "nodes": self.work.nodes,
            "ntasks_per_node": 1,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "signal_delay_s": self.work.grace_s,
            "srun_args": [f"--cpus-per-task={self.cpus}"],  # since Slurm 22.05 srun does not inherit sbatch's
            "additional_parameters": {"requeue": True},
            "wckey": None,
            **self.options,
        }

    def commands(self) -> list[str]:
        """Return each node's command, with the placeholders HOST, PORT and JOB for what is known at the start."""
        return [shlex.join(self.work.command(node, "HOST", "PORT", "JOB")) for node in range(self.work.nodes)]


def minutes_of(text: str) -> int:
    """Return a time in Slurm's format in minutes, rounded up; UsageError for another format."""
    match = TIME.fullmatch(text)
    parts = [int(part) for part in match["rest"].split(":")] if match else []
    days = int(match["days"] or 0) if match else 0
    from_hours = match is not None and (match["days"] is not None or len(parts) == 3)  # else from minutes
    hours, minutes, seconds = [*([] if from_hours else [0]), *parts, 0, 0, 0][:3]
    total_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total_s == 0:
        raise UsageError(
            f"--time is {shown(text)}; use Slurm's format: minutes, hours:minutes:seconds or days-hours:minutes:"
            "seconds, such as 4:00:00"
        )
    return math.ceil(total_s / 60)


def require_shared(folder: Path) -> None:
    """Raise UsageError for a folder that other nodes cannot see, or whose name Slurm would read as a pattern."""
    if "%" in str(folder):
        raise UsageError(
            f"--runs-dir is {folder}, and Slurm takes % for a pattern; choose another --runs-dir or --name"
        )
    if (kind := file_system(folder)) in IN_MEMORY:
        raise UsageError(
            f"--runs-dir is {folder}, in the memory of this machine ({kind}), which no node of the cluster sees; "
            "choose a folder on a file system that they share"
        )


def file_system(path: Path, table: Path = Path("/proc/self/mounts")) -> str:
    """Return the kind of the file system that a path is on, or will be; empty where the system does not tell."""
    try:
        mounts = [line.split() for line in table.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return ""
    kinds = {re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), at): kind for _, at, kind, *_ in mounts}
    return next((kinds[str(folder)] for folder in (path, *path.parents) if str(folder) in kinds), "")
