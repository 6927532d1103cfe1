"""What Slurm starts on each node of a job, by way of submitit: metarl, and a way to end it before Slurm does.

Slurm signals all processes of a job: some time before its end with SIGUSR2, on which the first node ends the training
after the iteration at hand, with a checkpoint, and puts the job back into the queue; and with SIGTERM where it preempts
or cancels it, on which the training ends just so, and whether it comes back is Slurm's to say.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field
from types import FrameType

import submitit
from submitit.core.job_environment import JobEnvironment
from submitit.helpers import DelayedSubmission

from metarl.launching.launch import Work, port_of

POLL_S = 0.2
SPARE_S = 10
"""Of the grace, for putting the job back into the queue."""
PREEMPTION = signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]
"""What Slurm sends, as the job asked for, before it ends it."""


@dataclass
class NodeJob:
    """Runs a node's command until it ends; submitit's callable."""

    work: Work
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _told: bool = field(default=False, init=False)
    """Whether Slurm has asked for the job's end."""

    def __call__(self) -> None:
        environment = submitit.JobEnvironment()
        node, job = environment.global_rank, environment.job_id
        command = self.work.command(node, environment.hostnames[0], port_of(job), job)
        signal.signal(signal.SIGTERM, self._note)
        if node > 0:  # submitit hears the signal on the first node alone
            signal.signal(PREEMPTION, self._pass_on)
        print(f"node {node} of {self.work.nodes}: {shlex.join(command)}", flush=True)
        # torchrun waits as long for its ranks as Slurm waits for the job.
        patience = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(self._patience_s)}
        # Slurm's signals reach the ranks too, and torchrun passes the SIGTERM on: the second one must not kill them.
        self._process = subprocess.Popen(command, env={**os.environ, **patience}, preexec_fn=_ignore_signals)
        try:
            while (status := self._process.poll()) is None:
                time.sleep(POLL_S)
        finally:
            if self._process.poll() is None:
                self._process.kill()
        if status == 0:
            return
        if not self._told:
            raise RuntimeError(f"metarl ended with status {status}; what it said is above")
        # A job that ends by itself while it is being preempted is not put back into the queue.
        print("ended on Slurm's signal; it is Slurm's to end the job, or to put it back into the queue", flush=True)
        while True:
            time.sleep(POLL_S)

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit on the first node when the job is about to end: end the training, and run anew."""
        self._end()
        # Slurm signals scontrol too, which puts the job back: it inherits this, and lives to see it done.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return DelayedSubmission(NodeJob(self.work))

    @property
    def _patience_s(self) -> int:
        """How long the training may take to end."""
        return max(self.work.grace_s - SPARE_S, 1)

    def _end(self) -> None:
        """End the training after the iteration at hand; within a signal handler."""
        self._told = True
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        until = time.monotonic() + self._patience_s
        while not _ended(self._process.pid) and time.monotonic() < until:
            time.sleep(POLL_S)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._told = True

    def _pass_on(self, signum: int, frame: FrameType | None) -> None:
        self._told = True
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)


def _ended(pid: int) -> bool:
    """Whether a child has ended; leaves its status to whoever the signal interrupted in waiting for it."""
    with contextlib.suppress(ChildProcessError):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return True


def _ignore_signals() -> None:
    """In a child before its program: what is ignored stays so, but for a handler that the program sets itself."""
    for number in (PREEMPTION, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
