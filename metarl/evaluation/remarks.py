"""Notes and warnings on a comparison: one line for each cause with the agents concerned, the most important first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from metarl.config import EvaluationSettings, RunConfig
from metarl.envs.family import TaskFamily
from metarl.envs.family_settings import FamilySettings
from metarl.evaluation.comparison import Compared
from metarl.evaluation.judged import Judged
from metarl.evaluation.notes import later_warnings
from metarl.files import plain
from metarl.runs.entries import files_by_content
from metarl.wording import grouped


def unfair_to(trained_on: TaskFamily, met: TaskFamily) -> str:
    """Return why it is unfair to an agent to meet another family than it was trained on; empty if it is not."""
    trained, here = (
        (f.action_scale, *f.action_low, *f.action_high, *f.control.offset, *f.control.gain, f.frame_skip)
        for f in (trained_on, met)
    )
    if trained == here:
        return ""
    return (
        "trained with another action scale, other bounds, other control signals of an action or another "
        "control step than it is evaluated with: its actions have other effects here, and the comparison is "
        "unfair to it; train all agents with the same family.* settings"
    )


def trained_elsewhere(own: RunConfig, config: RunConfig) -> str:
    """Return in what the family that a run was trained on differs from that of the tasks; empty if in nothing.

    own: the run's configuration. config: has the family of the tasks.
    """
    if type(own.family) is not type(config.family):
        return f"trained on another family, {own.family_name}"
    different = _differences(
        files_by_content(own, anywhere=True).family, files_by_content(config, anywhere=True).family
    )
    return f"trained with {', '.join(different)}" if different else ""


def warnings_of(
    agents: Sequence[Compared],
    firsts: Sequence[Judged],
    settings: EvaluationSettings,
    changing: bool,
    checkpoint: str = "last",
) -> list[str]:
    """Return what speaks against an agent or the comparison; a gain of 0 does not, as some agents do not adapt.

    firsts: first run of each agent. settings: of the evaluation. changing: whether tasks change while they last, so
    that a gain is not one of adaptation alone. checkpoint: the one that was loaded; if it is the last, the runs of an
    agent are to be of the same iteration.
    """
    said = [(agent.label, own.unfair) for agent, own in zip(agents, firsts, strict=True) if own.unfair]
    for agent in agents:
        iterations = sorted({run.source.iteration for run in agent.runs})
        if len(iterations) > 1 and checkpoint == "last":
            text = (
                f"its runs were trained for different numbers of iterations ({', '.join(map(str, iterations))}), so "
                "the intervals over training seeds are of different agents; go on with the shorter ones (metarl train "
                "--resume RUN)"
            )
            said.append((agent.label, text))
    gaps = [(agent, agent.result.train_gap) for agent in agents]
    said += [(agent.label, text) for agent, gap in gaps if gap and gap.after.low > 0 for text in gap.warnings]
    for agent, own in zip(agents, firsts, strict=True):
        if changing or not own.adapts or not agent.adaptations or agent.reset_memory != "never":
            continue
        gain = agent.result.summary.gain[-1]
        if gain.high < 0:
            lost = f"{-gain.estimate:.4g} [{-gain.high:.4g}, {-gain.low:.4g}]"
            said.append((agent.label, f"adaptation lowers the return by {lost}"))
        later = later_warnings(agent.returns, agent.result.summary, settings)
        said += [(agent.label, text) for text in later]
    said += [(agent.label, text) for agent, gap in gaps if gap and gap.after.low <= 0 for text in gap.warnings]
    return grouped(said, len(agents))


def notes_of(
    agents: Sequence[Compared], notes: Sequence[Sequence[str]], elsewhere: Sequence[str], taken: Mapping[str, Any]
) -> list[str]:
    """Return the sentences that a reader needs to compare the numbers.

    notes: those on each agent's own evaluation. elsewhere: of the first run of each agent, see `trained_elsewhere`.
    taken: as in `compare_entries`.
    """
    trained = [(agent.label, text) for agent, text in zip(agents, elsewhere, strict=True) if text]
    said = ", ".join(f"{name}={plain(value)}" for name, value in taken.items())
    of_all = [f"the tasks' family has settings of {agents[0].label}'s training: {said}"] if taken else []
    by_agent = [(agent.label, agent.explore, own) for agent, own in zip(agents, notes, strict=True)]
    return joined_notes(by_agent, trained, of_all)


def joined_notes(
    agents: Sequence[tuple[str, bool, Sequence[str]]],
    own: Sequence[tuple[str, str]] = (),
    of_all: Sequence[str] = (),
) -> list[str]:
    """Return the notes on several evaluations on the same tasks as notes on all of them.

    agents: (label, whether it acts with noise, notes) of each evaluation. own: further notes (label, note). of_all:
    further notes on all. The first note of an evaluation, on the number of tasks and the meaning of the numbers, comes
    last.
    """
    counted = [(label, note) for label, _, notes in agents for note in notes[:1]]
    further = [(label, note) for label, _, notes in agents for note in notes[1:]]
    common = [note for note in agents[0][2][1:] if all(note in notes for _, _, notes in agents)]
    apart = [(label, note) for label, note in further if note not in common]
    alike = len({text for _, text in counted}) == 1
    return [
        *explore_notes([(label, explores) for label, explores, _ in agents]),
        *common,
        *grouped([*own, *apart], len(agents)),
        *of_all,
        *([counted[0][1]] if alike else grouped(counted)),
    ]


def explore_notes(agents: Sequence[tuple[str, bool]]) -> list[str]:
    """Return a note if some agents act with noise and others without. agents: (label, whether it acts with noise)."""
    noisy, still = ([label for label, explores in agents if explores is wanted] for wanted in (True, False))
    if not (noisy and still):
        return []
    return [
        f"acting with the noise of exploration, which costs return: {', '.join(noisy)}; without it, by the mean of the "
        f"policy: {', '.join(still)}. metarl evaluate --no-explore (evaluation.explore=false) judges all by their "
        "mean, except where an agent adapts by its noise (policy gradients); --explore judges all with noise"
    ]


def _differences(theirs: FamilySettings, ours: FamilySettings) -> list[str]:
    """Return the settings that differ from those of the tasks, as `family.a=b (here c)`."""
    pairs = {f.name: (getattr(theirs, f.name), getattr(ours, f.name)) for f in dataclasses.fields(ours)}
    return [f"family.{name}={a} (here {b})" for name, (a, b) in pairs.items() if a != b]
