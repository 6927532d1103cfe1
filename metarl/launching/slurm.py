"""Write a job's batch script and submit it, through submitit."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env

from metarl.errors import RunError, describe
from metarl.launching.job import NodeJob
from metarl.launching.launch import Launch


class SlurmExecutor(submitit.SlurmExecutor):
    """submitit's executor, which can also be made without Slurm, to look at its script."""

    @classmethod
    def affinity(cls) -> int:
        """Return submitit's score of a usable Slurm executor."""
        return 2

    def script(self) -> str:
        """Return the batch script."""
        return self._make_submission_file_text(self._submitit_command_str, "")


@dataclass(frozen=True)
class Submitted:
    """A submitted job."""

    job: submitit.Job[Any]
    stdout: Path
    """Log of the first node; the name of node K has `_K_` in place of `_0_`."""
    stderr: Path


def script(launch: Launch) -> str:
    """Return the batch script of a job."""
    return _slurm(launch).script()


def submit(launch: Launch, cluster: Literal["slurm", "local"] = "slurm") -> Submitted:
    """Submit a job; RunError with sbatch's message if it refuses. cluster: local runs it here, without Slurm."""
    new = not launch.folder.exists()
    try:
        # submitit prints sbatch's message, too, and not only raises it.
        with _outside_of_a_job(), contextlib.redirect_stderr(io.StringIO()):
            executor = _slurm(launch) if cluster == "slurm" else _local(launch)
            job = executor.submit(NodeJob(launch.work))
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        if new:
            shutil.rmtree(launch.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            launch.folder.parent.rmdir()
        raise RunError(f"the job was not submitted: {describe(error)}") from error
    return Submitted(job, job.paths.stdout, job.paths.stderr)


@contextlib.contextmanager
def _outside_of_a_job() -> Iterator[None]:
    """Within the block, hide the environment of a job that this process may run in, but keep Slurm's configuration."""
    known = {name: os.environ[name] for name in ("SLURM_CONF", "SLURM_CONF_SERVER") if name in os.environ}
    with clean_env():
        os.environ.update(known)
        yield


def _slurm(launch: Launch) -> SlurmExecutor:
    executor = SlurmExecutor(launch.folder, max_num_timeout=launch.requeues)
    executor.update_parameters(**launch.parameters())
    return executor


def _local(launch: Launch) -> submitit.LocalExecutor:
    executor = submitit.LocalExecutor(launch.folder, max_num_timeout=launch.requeues)
    executor.update_parameters(timeout_min=launch.minutes, signal_delay_s=launch.work.grace_s)
    return executor
