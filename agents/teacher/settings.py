"""Settings of agents that are trained with privileged values."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.agents.trial_ppo.settings import HeadSettings
from metarl.bounds import bounded


@dataclass(frozen=True, kw_only=True)
class StudySettings(HeadSettings):
    """Settings of agents whose memory is regressed on what a simulator knows."""

    study_lr: float = bounded(1e-3, above=0)
    """Adam's step size of the regression."""
    study_epochs: int = bounded(10, at_least=1)
    """Passes of the regression over the data of an iteration."""
