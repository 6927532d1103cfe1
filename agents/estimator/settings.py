"""Settings of the concurrent estimator."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.agents.teacher.settings import StudySettings


@dataclass(frozen=True, kw_only=True)
class EstimatorSettings(StudySettings):
    """A concurrent estimator (Ji 2022): named quantities are regressed from the past, and the policy observes them."""

    estimate: tuple[str, ...] = ()
    """Privileged values to estimate, by name or regular expression such as task_.*. Empty: all."""
