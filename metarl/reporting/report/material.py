"""Contents of a report as data: runs, comparisons of agents, and which run each agent is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metarl.config import RunConfig, config_to_dict, files_of, recorded_config
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.errors import UsageError
from metarl.evaluation.comparison import Compared, Comparison
from metarl.evaluation.results import EvaluationResult
from metarl.runs.entries import files_by_content, trained_with

DISTURBING = ("observation_noise", "reward_scale", "simulator")
"""Settings of an evaluation that change what agents meet."""


@dataclass(frozen=True)
class ReportedAgent:
    """An agent of a comparison, and the runs of the report that it is."""

    agent: Compared
    runs: Mapping[str, int] = field(default_factory=dict)
    """Iteration at which each run was evaluated, by the run's label; several runs differ in the training seed alone."""
    evaluation: EvaluationResult | None = None
    """Evaluation that it comes from, if it is not from the file of a comparison."""

    @property
    def label(self) -> str:
        """Label of the agent in its comparison."""
        return self.agent.label

    @property
    def first_run(self) -> str:
        """Label of the first of its runs; empty if none of them is in the report."""
        return next(iter(self.runs), "")

    @property
    def as_trained(self) -> bool:
        """Whether it was evaluated without settings of its own."""
        return not self.agent.overrides and self.agent.reset_memory == "never"

    @property
    def key(self) -> str:
        """Name that no other agent of the report has: the label of a run for an agent evaluated as it was trained."""
        if self.first_run and self.as_trained:
            return self.first_run
        source = self.agent.result.source
        return f"{self.agent.folder or (source and source.run)}: {self.label}"

    @property
    def place(self) -> str:
        """Folder of its run, or the folder's name in older files."""
        source = self.agent.result.source
        return str(self.agent.folder or (source and source.run))

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON: what its file says, and the labels of its runs."""
        own = {"label": self.label, "report_runs": list(self.runs)}
        if self.evaluation is None:
            return self.agent.to_dict() | own
        return self.evaluation.to_dict() | own | {"oracle_share": None}


@dataclass(frozen=True)
class ReportedComparison:
    """Agents on the same tasks with the same seeds."""

    comparison: Comparison
    agents: tuple[ReportedAgent, ...]
    """Agents of the comparison, in its order."""
    sources: tuple[Path, ...]
    """Files that it was read from."""

    @property
    def family(self) -> str:
        """Name of the family of the tasks."""
        return self.comparison.family

    @property
    def split(self) -> str:
        """Split of the tasks."""
        return self.comparison.settings.split

    @property
    def conditions(self) -> tuple[str, str, str]:
        """Family and split of the tasks, and how trials are played; agents may differ in when they forget."""
        return self.family, self.split, self.comparison.settings.protocol

    @property
    def manner(self) -> dict[str, Any]:
        """What else returns depend on, by name: settings of the family, and disturbances of what agents are shown."""
        settings = self.comparison.settings
        family = {f"family.{name}": value for name, value in self.comparison.family_settings.items()}
        return family | {f"evaluation.{name}": getattr(settings, name) for name in DISTURBING}

    @property
    def circumstances(self) -> str:
        """Text that is the same for comparisons of equal conditions and manner."""
        return json.dumps([self.conditions, self.manner], sort_keys=True)

    @property
    def time(self) -> str:
        """Time at which it was made; empty if the file does not say."""
        return str(self.comparison.provenance.get("time", ""))

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters of the tasks."""
        return list(self.comparison.tasks[0][0])

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON."""
        agents = [agent.to_dict() for agent in self.agents]
        return self.comparison.to_dict() | {"agents": agents, "files": [str(path) for path in self.sources]}


@dataclass(frozen=True)
class ReportedRun:
    """A run as its folder has it."""

    label: str
    directory: Path
    config: RunConfig
    iteration: int
    """Iteration of the last checkpoint."""
    env_steps: int
    tracking: Mapping[str, Any]
    """Run id and step of W&B."""
    metrics: Sequence[Mapping[str, Any]]
    """One dict for each iteration."""
    evaluations: Sequence[ReportedComparison]
    """Newest evaluation in each of the circumstances with each number of rounds."""
    history: Sequence[Mapping[str, Any]]
    """Provenance of all its evaluations, oldest first."""
    problems: tuple[str, ...] = ()
    """Sentences about files that could not be used."""

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.directory.resolve().name

    @property
    def family(self) -> str:
        """Name of the family it was trained on; for your own robot, with its files."""
        files = [Path(file).name for file in files_of(self.config).values()]
        return f"{self.config.family_name} ({', '.join(files)})" if files else self.config.family_name

    @property
    def hours(self) -> float:
        """Hours of collection and updates."""
        return float(sum(seconds_of(line) for line in self.metrics)) / 3600


@dataclass
class Material:
    """Everything that a report shows."""

    runs: list[ReportedRun]
    comparisons: list[ReportedComparison]
    problems: list[str] = field(default_factory=list)
    """Sentences about what is missing, and about what a reader might take for granted."""


def one_agent(comparisons: Sequence[ReportedComparison]) -> dict[str, str]:
    """Return the label of the first run of each run that was evaluated as one agent with others.

    Only runs that are the same agent in every comparison are returned.
    """
    agents = [agent for own in comparisons for agent in own.agents]
    apart = {label for agent in agents if len(agent.runs) == 1 for label in agent.runs}
    groups = {frozenset(agent.runs) for agent in agents}
    together = [
        agent
        for agent in agents
        if len(agent.runs) > 1
        and not apart & agent.runs.keys()
        and not any(agent.runs.keys() & group for group in groups - {frozenset(agent.runs)})
    ]
    return {label: agent.first_run for agent in together for label in agent.runs}


def seconds_of(line: Mapping[str, Any]) -> float:
    """Return the seconds that an iteration took, without evaluations."""
    return (line.get("time/collect") or 0.0) + (line.get("time/update") or 0.0)


def family_of(comparison: Comparison, runs: Sequence[ReportedRun]) -> TaskFamily | None:
    """Return the family of the tasks; None if it can no longer be made, for example because its files are gone."""
    for run in runs:
        of_older_files, own = (trained_with(config)["family"] for config in (run.config, files_by_content(run.config)))
        if comparison.family_settings in (of_older_files, own):
            return _made(run.config)
    try:
        return _made(recorded_config({"family": dict(comparison.family_settings)}))
    except UsageError:
        return None


def _made(config: RunConfig) -> TaskFamily | None:
    try:
        return make_family(config.family)
    except (ValueError, OSError):
        return None


def config_differences(runs: Sequence[ReportedRun]) -> dict[str, list[Any]]:
    """Return the settings that differ between runs: one value for each run by dotted name, None where it has none.

    Files differ by their content: each run has its own copy of a robot.
    """
    flat = [
        {
            f"{section}.{name}": value
            for section, settings in config_to_dict(files_by_content(run.config, anywhere=True)).items()
            for name, value in settings.items()
        }
        for run in runs
    ]
    names = dict.fromkeys(name for settings in flat for name in settings)
    return {
        name: [settings.get(name) for settings in flat]
        for name in names
        if any(settings.get(name) != flat[0].get(name) or (name in settings) != (name in flat[0]) for settings in flat)
    }
