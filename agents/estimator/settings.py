"""Settings of the concurrent estimator."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.agents.teacher.settings import StudySettings


@dataclass(frozen=True, kw_only=True)
class EstimatorSettings(StudySettings):
    """A concurrent estimator (Ji 2022): named quantities are regressed from the past, and the policy observes them."""

    estimate: tuple[str, ...] = ()
    """Names of the privileged values to estimate; a name that ends in * stands for all that begin so. Empty: all."""
