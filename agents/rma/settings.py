"""Settings of RMA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.agents.teacher.settings import StudySettings
from metarl.bounds import bounded


@dataclass(frozen=True, kw_only=True)
class RmaSettings(StudySettings):
    """RMA (Kumar 2021): a teacher reads an encoding of what a simulator knows, a student infers it from the past."""

    stages: Literal["rma", "roa"] = "rma"
    """rma: first the teacher alone, then the student, which plays and is corrected (Kumar 2021). roa: both at once,
    and the teacher's encoding is pulled towards what the student can infer (Fu 2022)."""
    latent_size: int = bounded(8, at_least=1)
    """Size of the encoding."""
    encoder_sizes: tuple[int, ...] = bounded((64, 32), at_least=1)
    """Widths of the hidden layers of the encoder."""
    teacher_updates: int = bounded(50, at_least=0)
    """Iterations of the teacher before the student's, for rma."""
    study_every: int = bounded(5, at_least=2)
    """Iterations from one that the student plays to the next, for roa; the teacher plays the others."""
    pull_weight: float = bounded(0.1, at_least=0)
    """Weight, at last, of the squared distance from the teacher's encoding to the student's, for roa."""
    pull_from: int = bounded(10, at_least=0)
    """Iterations before that weight rises from 0."""
    pull_updates: int = bounded(30, at_least=1)
    """Iterations over which it rises."""

    @property
    def before_study(self) -> int:
        """Number of iterations before the first that the student plays."""
        return self.teacher_updates if self.stages == "rma" else self.study_every - 1
