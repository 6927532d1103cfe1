"""Comparison: several agents on the same tasks with the same seeds, baselines and oracles among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from metarl.config import EvaluationSettings, RunConfig, config_to_dict
from metarl.envs.family import TaskFamily
from metarl.envs.task import Task
from metarl.evaluation.evaluate import EvaluationResult
from metarl.evaluation.statistics import Array, Interval
from metarl.files import plain


@dataclass(frozen=True)
class Trained:
    """One of the runs of an agent that was trained with several seeds."""

    seed: int
    """Of the training."""
    folder: Path
    """Of the run, resolved."""
    result: EvaluationResult

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; what is not finite is None."""
        result = self.result.to_dict()
        kept = ("run", "iteration", "env_steps", "faults", "summary", "returns", "measures", "recovery")
        return {"seed": self.seed, "folder": str(self.folder), **{name: result[name] for name in kept}}


@dataclass(frozen=True)
class Compared:
    """An agent of a comparison."""

    label: str
    agent: str
    """Its name in the registry."""
    oracle: bool
    """Whether its observations tell it the task."""
    overrides: Mapping[str, Any]
    """Settings of its own, by dotted name."""
    result: EvaluationResult
    """Of several training seeds: `pooled`."""
    oracle_share: Interval | None = None
    """Share of the gap between itself before adaptation and the oracle that adaptation recovers; None: no oracle, or
    one whose lead is not shown, see `share_interval`."""
    folder: Path | None = None
    """Of its run, resolved; of several the first's."""
    trained: Mapping[str, Any] = field(default_factory=dict)
    """Configuration that the run was trained with, without evaluation and tracking: tells the run apart if it moves."""
    runs: tuple[Trained, ...] = ()
    """Its runs, if they are several that differ in the seed of their training alone."""

    @property
    def returns(self) -> Array:
        """[run, seed, shot, task]"""
        return np.stack([run.result.returns for run in self.runs] or [self.result.returns])

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; what is not finite is None."""
        result = self.result.to_dict()
        kept = ("summary", "measured", "recovered", "train_gap", "faults", "returns", "measures", "recovery")
        kept += ("run", "iteration", "env_steps", "trained_rounds")
        settings = self.result.settings
        return {
            "label": self.label,
            "agent": self.agent,
            "oracle": self.oracle,
            "overrides": plain(dict(self.overrides)),
            "folder": self.folder and str(self.folder),
            "trained": dict(self.trained),
            "explore": settings.explore,
            "adaptations": settings.adaptations,
            "envs_per_task": settings.envs_per_task,
            "oracle_share": plain(self.oracle_share and asdict(self.oracle_share)),
            "runs": [run.to_dict() for run in self.runs],
            **{name: result[name] for name in kept},
        }


@dataclass(frozen=True)
class Improvement:
    """Probability that agent `a` does better than agent `b` on a task, each after its last round."""

    a: str
    b: str
    interval: Interval
    tasks: int

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {"a": self.a, "b": self.b, **asdict(self.interval), "tasks": self.tasks}


@dataclass(frozen=True)
class Comparison:
    """What agents did on the same tasks."""

    family: TaskFamily
    """Whose tasks they are, as an agent that is told nothing observes them."""
    config: RunConfig
    """With the settings of that family and of the evaluation; agent and training are the first run's."""
    tasks: list[list[Task]]
    """[seed][task]"""
    agents: list[Compared]
    improvements: list[Improvement]
    """Of each pair of agents, once."""
    notes: list[str]
    warnings: list[str]
    provenance: Mapping[str, Any]
    folder: Path | None = None
    """Where it is saved."""
    figures: Mapping[str, Path] = field(default_factory=dict)
    """PNG files that were drawn, by name."""

    @property
    def settings(self) -> EvaluationSettings:
        """Of the evaluation; an agent's own are in its result."""
        return self.config.evaluation

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; what is not finite is None."""
        return {
            "family": self.family.name,
            "family_settings": config_to_dict(self.config)["family"],
            "split": self.settings.split,
            "evaluation": plain(asdict(self.settings)),
            "units": self.family.measure_units,
            "success": self.family.success_text(),
            "notes": self.notes,
            "warnings": self.warnings,
            "probability_of_improvement": [improvement.to_dict() for improvement in self.improvements],
            "tasks": [[dict(task.values) for task in tasks] for tasks in self.tasks],
            "agents": [agent.to_dict() for agent in self.agents],
            "provenance": dict(self.provenance),
        }
