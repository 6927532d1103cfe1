"""Headroom of a distribution of tasks: what an oracle gains over a policy that is told nothing and remembers nothing,
and how much of that other agents recover."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from metarl.evaluation.comparison import Comparison
from metarl.evaluation.contrasts import interval_of_levels, share_interval
from metarl.evaluation.statistics import Array, Interval
from metarl.files import plain
from metarl.runs.trial import stream

WORTHWHILE = 0.05
"""Share of the oracle's return from which a headroom is called one that pays."""
WIDEN = "Widen what changes which action is right (faults, strength, bodies, delay, a faster command)"
"""Advice where adaptation can gain little."""


@dataclass(frozen=True)
class Headroom:
    """Lead of an oracle over a randomised policy on the same tasks, and what each agent recovers of it."""

    oracle: str
    """Label of the oracle."""
    randomised: str
    """Label of the policy that is trained on all tasks, is told nothing and remembers nothing."""
    lead: Interval
    """IQM of the oracle's return minus that of the randomised policy."""
    share: Interval
    """The lead as a share of the absolute value of the oracle's return."""
    recovered: Mapping[str, Interval | None] = field(default_factory=dict)
    """Share of the lead in the last episode that each other agent recovers, by label; None if no lead is shown."""
    at_once: Mapping[str, Interval | None] = field(default_factory=dict)
    """The same in the first episode, of the lead there."""
    verdict: Sequence[str] = ()
    """What follows, in sentences."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON."""
        return plain(asdict(self))


def headroom_of(
    comparison: Comparison,
    oracle: str,
    randomised: str,
    forgetful: Mapping[str, str] | None = None,
    reset: Collection[str] = (),
) -> Headroom:
    """Return the headroom that a comparison shows.

    oracle, randomised: labels. forgetful: label of the same agent with its memory reset before every action, by the
    label of an agent. reset: labels of all agents whose memory is reset.
    """
    agents = {agent.label: agent for agent in comparison.agents}
    settings = comparison.settings
    last, first = ({label: agent.returns[:, :, k] for label, agent in agents.items()} for k in (-1, 0))
    samples = settings.bootstrap_samples

    def draws() -> np.random.Generator:
        """The same for every statistic, so that a lead is shown to all agents or to none."""
        return stream(settings.seeds[0], "headroom")

    def between(statistic: Any) -> Interval:
        found = interval_of_levels([last[oracle], last[randomised]], (0, 1), statistic, samples, draws())
        assert found is not None
        return found

    def recovered(label: str, shot: Mapping[str, Array]) -> Interval | None:
        same = agents[label].has_runs_of(agents[randomised])  # one that is fine-tuned, say
        return share_interval(shot[label], shot[randomised], shot[oracle], samples, draws(), same)

    lead = between(lambda levels: levels[..., 0] - levels[..., 1])
    share = between(lambda levels: (levels[..., 0] - levels[..., 1]) / np.abs(levels[..., 0]))
    others = [label for label in agents if label not in (oracle, randomised)]
    found = Headroom(
        oracle,
        randomised,
        lead,
        share,
        {label: recovered(label, last) for label in others},
        {label: recovered(label, first) for label in others},
    )
    told = {label for label, agent in agents.items() if agent.oracle}
    return replace(found, verdict=verdict_of(found, forgetful or {}, told.union(reset)))


def verdict_of(found: Headroom, forgetful: Mapping[str, str], unranked: Collection[str]) -> list[str]:
    """Return what the numbers say, in sentences.

    forgetful: see `headroom_of`. unranked: labels of the agents that do not adapt: told the task, or reset.
    """
    lead, share = found.lead, found.share
    gained = f"{_percent(share)} of the oracle's return"
    if max(abs(share.low), abs(share.high)) > 1:  # returns near 0, or below: a share of them says nothing
        gained = f"{lead.estimate:.4g} [{lead.low:.4g}, {lead.high:.4g}] of return"
    if lead.high < 0:
        return [
            f"the oracle is worse than the randomised policy: its lead is {gained}. It has not learned as much from "
            "the same env steps, and nothing follows about adaptation; train longer, or look at the oracle's learning "
            "curve first"
        ]
    if lead.low <= 0:
        return [
            f"no headroom is shown: knowing the task gains {gained}, and adaptation cannot gain more by it on this "
            f"distribution. {WIDEN}, or train longer if the curves still rise"
        ]
    small = f", which is little. {WIDEN}" if share.estimate < WORTHWHILE else ""
    sentences = [f"adaptation can gain {gained} by knowing the task{small}"]
    ranked = {
        label: interval for label, interval in found.recovered.items() if interval is not None and label not in unranked
    }
    if not ranked:
        return sentences
    shown = [label for label, interval in ranked.items() if interval.low > 0]
    first = max(ranked, key=lambda label: ranked[label].estimate)
    label = max(shown or ranked, key=lambda label: ranked[label].estimate)
    own = _percent(ranked[label])
    if label != first:
        unsure = f"{first}, with {_percent(ranked[first])}, is not shown to recover any"
        sentences.append(f"{label} recovers {own} of it; {unsure}")
    elif shown:
        most = f", the most of {len(ranked)} agents" if len(ranked) > 1 else ""
        sentences.append(f"{label} recovers {own} of it{most}")
    elif all(interval.high < 0 for interval in ranked.values()):
        sentences.append(f"every agent is worse than the randomised policy; {label} comes closest, with {own}")
    else:
        sentences.append(f"no agent is shown to recover any of it; {label} comes closest, with {own}")
    if ranked[label].low > 1:
        sentences.append("more than all of it: it infers more than the oracle is told, or has learned more")
    without = found.recovered.get(forgetful.get(label, ""))
    if without is not None:
        sentences.append(f"with its memory reset before every action it recovers {_percent(without)}")
    return sentences


def _percent(share: Interval) -> str:
    return f"{share.estimate:.0%} [{share.low:.0%}, {share.high:.0%}]"
