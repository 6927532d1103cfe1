"""A run that was judged on the tasks of a comparison, and what the comparison needs to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.evaluation.results import EvaluationResult


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One run on the tasks of a comparison."""

    result: EvaluationResult
    """Its evaluation, with its source."""
    agent: str
    """Name of the agent in the registry."""
    adapts: bool
    """Whether the agent learns from a shot."""
    overrides: Mapping[str, Any]
    """Settings that it was given for the comparison, by dotted name."""
    folder: Path
    """Folder of the run, resolved; it need not exist any more."""
    trained: Mapping[str, Any]
    """What the run was trained with, see `trained_with`."""
    elsewhere: str = ""
    """In what the family of its training differs from that of the tasks; empty if in nothing."""
    unfair: str = ""
    """Why the comparison is unfair to it; empty if it is not."""

    @property
    def seed(self) -> int:
        """Seed of its training."""
        return self.trained["training"]["seed"]

    @property
    def oracle(self) -> bool:
        """Whether its observations tell it the task."""
        return self.trained["training"]["reveal_task"]
