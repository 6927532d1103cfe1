"""Warnings about the material of a report: missing evaluations, old checkpoints, agents that are not comparable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from metarl.config import SPLIT_NAMES
from metarl.envs.text import typed
from metarl.reporting.report.material import Material, ReportedComparison, ReportedRun, config_differences
from metarl.runs.entries import but_for_the_seed


def problems_of(material: Material) -> list[str]:
    """Return a sentence for each problem."""
    return [
        *(problem for run in material.runs for problem in run.problems),
        *(problem for run in material.runs for problem in _of_run(run, material.comparisons)),
        *(problem for found in material.comparisons for problem in _strangers(found)),
        *_different_families(material.runs),
        *_different_settings(material.runs),
        *_different_tasks(material.comparisons),
        *_training_seeds(material),
    ]


def _of_run(run: ReportedRun, comparisons: Sequence[ReportedComparison]) -> Iterator[str]:
    """Yield a sentence if the run has no evaluation, and one for each other checkpoint that was evaluated."""
    evaluated = [agent.runs[run.label] for own in comparisons for agent in own.agents if run.label in agent.runs]
    if not evaluated:
        yield (
            f"{run.label} has no evaluation, so nothing is said about it on tasks that it never saw; make one: "
            f"metarl evaluate {typed(run.directory)}"
        )
    for iteration in sorted({*evaluated} - {run.iteration}):
        meaning = (
            "the numbers are of the earlier one, the films of the later"
            if iteration < run.iteration
            else "the run in this folder is not the one that was evaluated"
        )
        yield (
            f"{run.label} was evaluated at iteration {iteration}, its last checkpoint is of iteration "
            f"{run.iteration}: {meaning}"
        )


def _strangers(found: ReportedComparison) -> Iterator[str]:
    """Yield a sentence if agents of the comparison are of runs that are not in the report."""
    strangers = [f"{agent.label} ({agent.place})" for agent in found.agents if not agent.runs]
    for agent in found.agents:
        members = agent.agent.members
        if 0 < len(agent.runs) < len(members):
            strangers.append(f"{len(members) - len(agent.runs)} of the {len(members)} runs of {agent.label}")
    if strangers:
        yield (
            f"{', '.join(map(str, found.sources))} also has agents whose runs are not in this report; they are "
            f"in its tables and figures alone: {', '.join(strangers)}"
        )


def _different_families(runs: Sequence[ReportedRun]) -> Iterator[str]:
    families = {run.family for run in runs}
    if len(families) > 1:
        yield (
            f"the runs were trained on different families ({', '.join(sorted(families))}): returns of different "
            "families are not comparable, and each family has its own tables and figures"
        )


def _different_settings(runs: Sequence[ReportedRun]) -> Iterator[str]:
    """Yield a sentence for each family that runs were trained on with several settings."""
    for family in dict.fromkeys(run.family for run in runs):
        differ = config_differences([run for run in runs if run.family == family])
        names = [name for name in differ if name.startswith("family.")]
        if names:
            yield (
                f"the runs on {family} were trained with different settings of it ({', '.join(names)}): their returns "
                "in training, and on tasks of their own settings, are not comparable"
            )


def _different_tasks(comparisons: Sequence[ReportedComparison]) -> Iterator[str]:
    """Yield a sentence for each family and split that has several sets of tasks."""
    for family, split, protocol in dict.fromkeys(own.conditions for own in comparisons):
        alike = [own for own in comparisons if own.conditions == (family, split, protocol)]
        if len(alike) > 1:
            whose = "; ".join(", ".join(agent.label for agent in own.agents) for own in alike)
            yield (
                f"agents met different {SPLIT_NAMES[split]} tasks of {family}, or other settings of the family or of "
                f"the evaluation ({whose}): they are in tables of their own; metarl evaluate RUN RUN... puts them on "
                "the same tasks"
            )


def _training_seeds(material: Material) -> Iterator[str]:
    """Yield a sentence on what intervals leave out, unless agents of several training seeds are put together."""
    if any(len(agent.agent.members) > 1 for own in material.comparisons for agent in own.agents):
        return
    runs = material.runs
    if one_by_one := [run.label for run in runs if len(_seeds_alike(run, runs)) > 1]:
        yield (
            f"{', '.join(one_by_one)}: training seeds of the same agent are shown one by one, each with intervals over "
            "tasks alone; metarl evaluate RUN RUN... puts them together"
        )
    else:
        yield (
            "each agent was trained with one seed: intervals are over tasks, and do not show how much the numbers "
            "would change with another training seed"
        )


def _seeds_alike(run: ReportedRun, runs: Sequence[ReportedRun]) -> set[int]:
    """Return the training seeds of the runs that differ from a run in the seed alone."""
    own = but_for_the_seed(run.config)
    return {other.config.training.seed for other in runs if but_for_the_seed(other.config) == own}
