"""Match the agents of a comparison with the runs of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from metarl.config import CONFIG
from metarl.evaluation.comparison import Compared, Trained
from metarl.reporting.report.material import ReportedAgent, ReportedComparison, ReportedRun
from metarl.runs.entries import OF_THE_MACHINE, trained_with


def matched(found: ReportedComparison, runs: Sequence[ReportedRun]) -> ReportedComparison:
    """Return the comparison with the runs of the report that each agent is."""

    def agent_with_runs(agent: ReportedAgent) -> ReportedAgent:
        own = [(_run_of(agent.agent, member, runs), member.source.iteration) for member in agent.agent.members]
        return replace(agent, runs={run.label: iteration for run, iteration in own if run is not None})

    return replace(found, agents=tuple(agent_with_runs(agent) for agent in found.agents))


def _run_of(agent: Compared, member: Trained, runs: Sequence[ReportedRun]) -> ReportedRun | None:
    """Return the run that a member of an agent is, by its folder, or by its configuration if the folder is gone.

    Older files have no folder but its name. None if there is no such run, or if several fit.
    """
    folder = member.folder or agent.folder
    name = member.source.run
    if folder:
        here = [run for run in runs if run.directory.resolve() == folder]
        if here or (folder / CONFIG).exists():
            return here[0] if here else None
        found = [run for run in runs if _trained_alike(agent, member, run)]
        named = [run for run in found if run.name == name]
    else:
        found = [run for run in runs if run.name == name]
        named = [run for run in found if agent.label.startswith(f"{run.directory.resolve().parent.name}/{run.name}")]
    candidates = found if len(found) == 1 else named
    return candidates[0] if len(candidates) == 1 else None


def _trained_alike(agent: Compared, member: Trained, run: ReportedRun) -> bool:
    """Return whether a run has a member's configuration, in all settings that both know, and as many iterations."""
    if not agent.trained or member.source.iteration > run.iteration:
        return False
    ours = trained_with(run.config)
    theirs = {**agent.trained, "training": {**agent.trained.get("training", {}), "seed": member.seed}}
    return all(
        ours[section].get(name, value) == value
        for section, settings in theirs.items()
        for name, value in settings.items()
        if name == "seed" or name not in OF_THE_MACHINE
    )
