"""A job's script, and its submission, by submitit."""

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
    """submitit's, which can be made where there is no Slurm too: its script can be looked at."""

    @classmethod
    def affinity(cls) -> int:
        return 2

    def script(self) -> str:
        """The batch script."""
        return self._make_submission_file_text(self._submitit_command_str, "")


@dataclass(frozen=True)
class Submitted:
    """A job that waits or runs."""

    job: submitit.Job[Any]
    stdout: Path
    """Of the first node; of node K `_K_` stands in its name for `_0_`."""
    stderr: Path


def script(launch: Launch) -> str:
    """The batch script of a job."""
    return _slurm(launch).script()


def submit(launch: Launch, cluster: Literal["slurm", "local"] = "slurm") -> Submitted:
    """Submit a job; RunError with what sbatch said if it refuses. local: processes of this machine, without Slurm."""
    new = not launch.folder.exists()
    try:
        # submitit prints what sbatch says of a refusal, besides raising it.
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
    """Within the block nothing tells of a job that this process may be in; where Slurm is stays known."""
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
