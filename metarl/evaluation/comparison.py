"""Comparison as data: several agents on the same tasks with the same seeds, as its JSON file keeps it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from metarl.config import SPLIT_NAMES, EvaluationSettings, ResetMemory, complete_family
from metarl.evaluation.records import Record, listed, mapping, optional, texts, whole
from metarl.evaluation.results import (
    AgentResult,
    EvaluationResult,
    Source,
    Values,
    provenance_of,
    require_tasks,
    settings_of,
    tasks_of,
    units_of,
)
from metarl.evaluation.statistics import Array, Interval, Summary
from metarl.evaluation.time_course import MemoryGap
from metarl.files import plain
from metarl.options import coerce


@dataclass(frozen=True, eq=False)
class Trained(Record):
    """One run of an agent that was trained with several seeds, and its result on the tasks of the comparison."""

    seed: int
    """Seed of its training."""
    folder: Path | None
    """Folder of the run, resolved; None in older files."""
    source: Source
    faults: int
    summary: Summary
    returns: Array
    """[seed, shot, task], as in `AgentResult`."""
    measures: Mapping[str, Array] = field(default_factory=dict)
    recovery: Array | None = None

    @classmethod
    def of(cls, seed: int, folder: Path | None, result: AgentResult) -> Trained:
        """Return the run with what is kept of its result."""
        assert result.source is not None
        parts = (result.source, result.faults, result.summary, result.returns, result.measures, result.recovery)
        return cls(seed, folder, *parts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON, with None for a number that is not finite."""
        return {
            "seed": self.seed,
            "folder": self.folder and str(self.folder),
            **asdict(self.source),
            "faults": self.faults,
            "summary": self.summary.to_dict(),
            "returns": plain(self.returns),
            "measures": plain(dict(self.measures)),
            "recovery": plain(self.recovery),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Trained:
        """Return the run that JSON holds."""
        own = mapping(data, "a run of an agent")
        result = AgentResult.from_dict(own)
        if result.source is None:
            raise KeyError("run")
        return cls.of(whole(own["seed"], "seed"), optional(own.get("folder"), Path), result)


@dataclass(frozen=True, eq=False, kw_only=True)
class Compared(Record):
    """An agent of a comparison: one run, or several that differ in the seed of their training alone."""

    label: str
    agent: str = ""
    """Name of the agent in the registry."""
    oracle: bool = False
    """Whether its observations tell it the task."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Settings that it was given for the comparison, by dotted name."""
    result: AgentResult
    """Result on the tasks; of several runs their mean, see `pooled`."""
    explore: bool
    """Whether it acted with the noise of exploration."""
    envs_per_task: int
    """Episodes of each task in a round."""
    reset_memory: ResetMemory = "never"
    """When it forgot what it knew of the task, see `EvaluationSettings`."""
    oracle_share: Interval | None = None
    """Share of the oracle's lead that adaptation recovers, see `share_interval`. None without an oracle, or if its lead
    is not shown."""
    memory_gap: MemoryGap | None = None
    """What its memory adds. None unless the comparison has the same runs with their memory reset at every action."""
    folder: Path | None = None
    """Folder of its run, or of its first run, resolved."""
    trained: Mapping[str, Any] = field(default_factory=dict)
    """Configuration that the run was trained with, without evaluation and tracking; identifies a run that was moved."""
    runs: Sequence[Trained] = ()
    """Its runs, if there are several."""

    @property
    def adaptations(self) -> int:
        """Rounds of adaptation of a trial."""
        return self.result.adaptations

    @property
    def episodes_per_round(self) -> int:
        """Episodes of a task that a round of adaptation reads."""
        return self.result.episodes_per_round or self.envs_per_task

    @property
    def members(self) -> Sequence[Trained]:
        """Its runs, also if there is one."""
        seed = self.trained.get("training", {}).get("seed", 0)
        return self.runs or (Trained.of(seed, self.folder, self.result),)

    def has_runs_of(self, other: Compared) -> bool:
        """Return whether it is of the same runs as another agent, judged in another way."""
        own, theirs = ([run.folder for run in agent.runs] or [agent.folder] for agent in (self, other))
        return None not in own and own == theirs

    @property
    def returns(self) -> Array:
        """Returns of its runs, [run, seed, shot, task]."""
        return np.stack([run.returns for run in self.runs] or [self.result.returns])

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON, with None for a number that is not finite."""
        return {
            "label": self.label,
            "agent": self.agent,
            "oracle": self.oracle,
            "overrides": plain(dict(self.overrides)),
            "folder": self.folder and str(self.folder),
            "trained": dict(self.trained),
            "explore": self.explore,
            "adaptations": self.adaptations,
            "envs_per_task": self.envs_per_task,
            "reset_memory": self.reset_memory,
            "oracle_share": plain(self.oracle_share and asdict(self.oracle_share)),
            "memory_gap": plain(self.memory_gap and asdict(self.memory_gap)),
            "runs": [run.to_dict() for run in self.runs],
            **self.result.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Any, settings: EvaluationSettings | None = None) -> Compared:
        """Return the agent that JSON holds; older files lack some of its fields.

        settings: of the evaluation, for what an older file does not say of each agent.
        """
        own, default = mapping(data, "an agent"), settings or EvaluationSettings()
        result = AgentResult.from_dict(own)
        if result.source is None:
            raise KeyError("run")
        runs = listed(own.get("runs") or (), "runs", Trained.from_dict)
        if any(run.returns.shape != result.returns.shape for run in runs):
            raise ValueError("a run of an agent with other rounds or tasks than the agent")
        trained = mapping(own.get("trained") or {}, "trained")
        for section in trained:
            mapping(trained[section], f"trained.{section}")
        share = optional(own.get("oracle_share"), Interval.from_dict)
        return cls(
            label=str(own["label"]),
            agent=str(own.get("agent", "")),
            oracle=bool(own.get("oracle")),
            overrides=mapping(own.get("overrides") or {}, "overrides"),
            result=result,
            explore=bool(own.get("explore", default.explore)),
            envs_per_task=whole(own.get("envs_per_task", default.envs_per_task), "envs_per_task"),
            reset_memory=coerce(own.get("reset_memory", default.reset_memory), ResetMemory, "reset_memory"),
            oracle_share=share if share and math.isfinite(share.high) else None,
            memory_gap=optional(own.get("memory_gap"), MemoryGap.from_dict),
            folder=optional(own.get("folder"), Path),
            trained=trained,
            runs=runs,
        )


@dataclass(frozen=True)
class Improvement:
    """Probability that agent `a` does better than agent `b` on a task, each after its last round."""

    a: str
    """Label of the first agent."""
    b: str
    """Label of the second agent."""
    interval: Interval
    tasks: int
    """Number of tasks that both have a return on."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON."""
        return {"a": self.a, "b": self.b, **asdict(self.interval), "tasks": self.tasks}

    @classmethod
    def from_dict(cls, data: Any) -> Improvement:
        """Return the probability that JSON holds."""
        own = mapping(data, "a probability of improvement")
        return cls(str(own["a"]), str(own["b"]), Interval.from_dict(own), whole(own["tasks"], "tasks"))


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison(Record):
    """Agents on the same tasks: the tasks, the settings, a result for each agent and remarks on them."""

    family: str
    """Name of the family of the tasks."""
    family_settings: Mapping[str, Any]
    """Settings of the family with its name, as a configuration has them."""
    settings: EvaluationSettings
    """Settings of the evaluation; `Compared` has those that an agent may have of its own."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Units of the measures, by name."""
    success: str = ""
    """Criterion of success in words; empty if the family does not define it."""
    tasks: Sequence[Sequence[Values]]
    """[seed][task] parameter values."""
    agents: Sequence[Compared]
    improvements: Sequence[Improvement] = ()
    """One for each pair of agents."""
    notes: Sequence[str] = ()
    """Sentences that a reader needs to compare the numbers."""
    warnings: Sequence[str] = ()
    """Sentences that speak against an agent or the comparison."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Command, commit, package versions and machine."""
    folder: Path | None = None
    """Folder that it was saved in; not part of the saved comparison."""
    figures: Mapping[str, Path] = field(default_factory=dict)
    """PNG files that were drawn, by name; not part of the saved comparison."""

    @classmethod
    def of(cls, result: EvaluationResult, label: str) -> Comparison:
        """Return an evaluation as a comparison of one agent, which notes and warnings are about."""
        own = {name: getattr(result, name) for name in ("family", "settings", "units", "success", "tasks")}
        config = result.provenance.get("config", {})
        agent = Compared(
            label=label,
            result=AgentResult.part_of(result),
            explore=result.settings.explore,
            envs_per_task=result.settings.envs_per_task,
            reset_memory=result.settings.reset_memory,
        )
        return cls(
            **own,
            family_settings=complete_family(config.get("family", {"name": result.family})),
            agents=[agent],
            notes=result.notes,
            warnings=result.warnings,
            provenance=result.provenance,
        )

    def values(self, name: str) -> Array:
        """Return the values of a parameter, [seed x task]."""
        return np.array([task[name] for drawn in self.tasks for task in drawn], dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON, with None for a number that is not finite."""
        return {
            "family": self.family,
            "family_settings": dict(self.family_settings),
            "split": self.settings.split,
            "evaluation": plain(asdict(self.settings)),
            "units": dict(self.units),
            "success": self.success,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "probability_of_improvement": [improvement.to_dict() for improvement in self.improvements],
            "tasks": [[dict(values) for values in drawn] for drawn in self.tasks],
            "agents": [agent.to_dict() for agent in self.agents],
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Comparison:
        """Return the comparison that JSON holds."""
        own = mapping(data, "a comparison")
        settings, tasks = settings_of(own["evaluation"]), tasks_of(own["tasks"])
        if own["split"] not in SPLIT_NAMES:
            raise ValueError(f"unknown split {own['split']!r}")
        agents = listed(own["agents"], "agents", lambda agent: Compared.from_dict(agent, settings))
        if not agents:
            raise ValueError("no agents")
        for agent in agents:
            require_tasks(agent.result, tasks)
        pairs = own.get("probability_of_improvement") or ()
        return cls(
            family=str(own["family"]),
            family_settings=complete_family(mapping(own["family_settings"], "family_settings")),
            settings=replace(settings, split=own["split"]),
            units=units_of(own),
            success=str(own.get("success") or ""),
            tasks=tasks,
            agents=agents,
            improvements=listed(pairs, "probability_of_improvement", Improvement.from_dict),
            notes=texts(own["notes"], "notes"),
            warnings=texts(own["warnings"], "warnings"),
            provenance=provenance_of(own["provenance"]),
        )
