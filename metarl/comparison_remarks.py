"""What must be said of a comparison: one line a cause with the agents that it holds for, what matters most first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metarl.config import RunConfig
from metarl.envs.settings import FamilySettings
from metarl.run import Run
from metarl.statistics import plain
from metarl.wording import grouped

if TYPE_CHECKING:
    from metarl.comparison import Compared


def warnings_of(agents: Sequence[Compared], runs: Sequence[Run]) -> list[str]:
    """What speaks against an agent or the comparison; a gain of 0 does not: some agents do not adapt."""
    said: list[tuple[str, str]] = []
    for agent, run in zip(agents, runs, strict=True):
        trained, met = (
            (f.action_scale, *f.action_low, *f.action_high, f.frame_skip) for f in (run.family, agent.result.family)
        )
        if trained != met:
            text = (
                "trained with another action scale, other bounds or another control step than judged with: what its "
                "actions do has changed, and the comparison is unfair to it; train all agents with the same family.* "
                "settings"
            )
            said.append((agent.label, text))
    gaps = [(agent, agent.result.train_gap) for agent in agents]
    said += [(agent.label, text) for agent, gap in gaps if gap and gap.after.low > 0 for text in gap.warnings]
    for agent in agents:
        gain = agent.result.summary.gain[-1]
        if agent.result.settings.adaptations and gain.high < 0:
            lost = f"{-gain.estimate:.4g} [{-gain.high:.4g}, {-gain.low:.4g}]"
            said.append((agent.label, f"adaptation lowers the return by {lost}"))
    said += [(agent.label, text) for agent, gap in gaps if gap and gap.after.low <= 0 for text in gap.warnings]
    return grouped(said, len(agents))


def notes_of(agents: Sequence[Compared], runs: Sequence[Run], config: RunConfig, taken: Mapping[str, Any]) -> list[str]:
    """What a reader must know to compare the numbers."""
    counted = [(agent.label, agent.result.notes[0]) for agent in agents]
    further = [agent.result.notes[1:] for agent in agents]
    common = [note for note in further[0] if all(note in notes for notes in further)]
    notes = explore_notes([(agent.label, agent.result.settings.explore) for agent in agents]) + common
    trained: list[tuple[str, str]] = []
    for agent, run in zip(agents, runs, strict=True):
        if type(run.config.family) is not type(config.family):
            trained.append((agent.label, f"trained on another family, {run.config.family_name}"))
        elif different := _differences(run.config.family, config.family):
            trained.append((agent.label, f"trained with {', '.join(different)}"))
    own = [(a.label, note) for a, notes in zip(agents, further, strict=True) for note in notes if note not in common]
    notes += grouped([*trained, *own], len(agents))
    if taken:
        said = ", ".join(f"{name}={plain(value)}" for name, value in taken.items())
        notes.append(f"the tasks' family has settings of {agents[0].label}'s training: {said}")
    alike = len({text for _, text in counted}) == 1
    return notes + ([counted[0][1]] if alike else grouped(counted))


def explore_notes(agents: Sequence[tuple[str, bool]]) -> list[str]:
    """A note if some agents, each (label, whether it acts with noise), act with the noise of exploration, others not."""
    noisy, still = ([label for label, explores in agents if explores is wanted] for wanted in (True, False))
    if not (noisy and still):
        return []
    return [
        f"acting with the noise of exploration, which costs return: {', '.join(noisy)}; without it, by the mean of the "
        f"policy: {', '.join(still)}. metarl evaluate --no-explore (evaluation.explore=false) judges all by their mean, "
        "except where an agent adapts by its noise (policy gradients); --explore judges all with noise"
    ]


def _differences(theirs: FamilySettings, ours: FamilySettings) -> list[str]:
    """Settings that are other than those of the tasks, as `family.a=b (here c)`."""
    pairs = {
        f.name: (getattr(theirs, f.name), getattr(ours, f.name))
        for f in dataclasses.fields(ours)
        if not f.metadata.get("file")
    }
    return [f"family.{name}={a} (here {b})" for name, (a, b) in pairs.items() if a != b]
