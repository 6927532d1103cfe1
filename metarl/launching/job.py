"""The callable that Slurm runs on each node of a job, through submitit: it runs metarl and ends it before Slurm does.

Slurm sends two signals to all processes of a job. SIGUSR2 comes a set time before the job's end: the first node ends
the training after the current iteration, with a checkpoint, and puts the job back into the queue. SIGTERM comes when
the job is preempted or cancelled: the training ends in the same way, and Slurm decides whether the job comes back.
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
"""Part of the grace period that is reserved for putting the job back into the queue, s."""
PREEMPTION = signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]
"""The signal that the job asks Slurm to send before the time limit."""


@dataclass
class NodeJob:
    """Runs a node's command until it ends."""

    work: Work
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _told: bool = field(default=False, init=False)
    """Whether Slurm has signalled that the job is to end."""

    def __call__(self) -> None:
        """Run the command; RuntimeError if it fails without a signal of Slurm."""
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
            raise RuntimeError(f"metarl ended with status {status}; its messages are in this job's logs")
        # A job that ends by itself while it is being preempted is not put back into the queue.
        print("ended on Slurm's signal; Slurm now ends the job or puts it back into the queue", flush=True)
        while True:
            time.sleep(POLL_S)

    def checkpoint(self) -> DelayedSubmission:
        """End the training and return the job to submit again; submitit calls this on the first node before the end."""
        self._end()
        # Slurm signals scontrol too, which puts the job back: it inherits this, so that it is not killed before it has.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return DelayedSubmission(NodeJob(self.work))

    @property
    def _patience_s(self) -> int:
        """Time that the training may take to end, s."""
        return max(self.work.grace_s - SPARE_S, 1)

    def _end(self) -> None:
        """End the training after the current iteration; runs within a signal handler."""
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
    """Return whether a child has ended, without collecting its status: the code that was interrupted waits for it."""
    with contextlib.suppress(ChildProcessError):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return True


def _ignore_signals() -> None:
    """Ignore Slurm's signals in a child; its program may set handlers of its own."""
    for number in (PREEMPTION, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
