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
VARIED = "faults, strength, bodies, delay, a faster command"
"""What may change which action is right, for advice."""


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
    over_randomised: Mapping[str, Interval] = field(default_factory=dict)
    """IQM of each other agent's return in the last episode minus that of the randomised policy, by label."""
    over_reset: Mapping[str, Interval] = field(default_factory=dict)
    """The same minus that of the agent itself with its memory reset before every action, where it is judged so."""
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
    moving: str = "",
) -> Headroom:
    """Return the headroom that a comparison shows.

    oracle, randomised: labels. forgetful: label of the same agent with its memory reset before every action, by the
    label of an agent. reset: labels of all agents whose memory is reset. moving: parameter that moves the oracle's
    actions most, empty if that is not known.
    """
    agents = {agent.label: agent for agent in comparison.agents}
    settings = comparison.settings
    last, first = ({label: agent.returns[:, :, k] for label, agent in agents.items()} for k in (-1, 0))
    samples = settings.bootstrap_samples

    def draws() -> np.random.Generator:
        """The same for every statistic, so that a lead is shown to all agents or to none."""
        return stream(settings.seeds[0], "headroom")

    def is_randomised(label: str) -> bool:
        return agents[label].has_runs_of(agents[randomised])  # one that is fine-tuned, say

    def more(levels: Array) -> Array:
        return levels[..., 0] - levels[..., 1]

    def over(label: str, other: str, same_runs: bool, statistic: Any = more) -> Interval:
        found = interval_of_levels([last[label], last[other]], (0, int(not same_runs)), statistic, samples, draws())
        assert found is not None
        return found

    def recovered(label: str, shot: Mapping[str, Array]) -> Interval | None:
        return share_interval(shot[label], shot[randomised], shot[oracle], samples, draws(), is_randomised(label))

    lead = over(oracle, randomised, False)
    share = over(oracle, randomised, False, lambda levels: more(levels) / np.abs(levels[..., 0]))
    others = [label for label in agents if label not in (oracle, randomised)]
    pairs = [pair for pair in (forgetful or {}).items() if set(pair) <= agents.keys()]
    found = Headroom(
        oracle,
        randomised,
        lead,
        share,
        {label: recovered(label, last) for label in others},
        {label: recovered(label, first) for label in others},
        {label: over(label, randomised, is_randomised(label)) for label in others},
        {label: over(label, other, agents[label].has_runs_of(agents[other])) for label, other in pairs},
    )
    told = {label for label, agent in agents.items() if agent.oracle}
    return replace(found, verdict=verdict_of(found, forgetful or {}, told.union(reset), moving))


def verdict_of(found: Headroom, forgetful: Mapping[str, str], unranked: Collection[str], moving: str = "") -> list[str]:
    """Return what the numbers say, in sentences.

    forgetful, moving: see `headroom_of`. unranked: labels of the agents that do not adapt: told the task, or reset.
    """
    lead, share = found.lead, found.share
    is_share = max(abs(share.low), abs(share.high)) <= 1  # returns near 0, or below: a share of them says nothing
    gained = f"{_percent(share)} of the oracle's return" if is_share else f"{_more(lead)} of return"
    widen = f"widen what changes which action is right ({VARIED})"
    if moving:
        widen += f"; of what varies here, {moving} moves the oracle's actions most"
    if lead.low <= 0:
        if lead.high < 0:
            first = (
                f"the oracle is worse than the randomised policy: its lead is {gained}. It has not learned as much "
                "from the same env steps, and nothing follows about adaptation; train longer, or look at the oracle's "
                "learning curve first"
            )
        elif is_share and share.high < WORTHWHILE:
            first = (
                f"adaptation can gain at most {share.high:.0%} of the oracle's return by knowing the task: "
                f"{_percent(share)}. To gain more, {widen}"
            )
        else:
            first = (
                f"no headroom is shown: knowing the task gains {gained}, which may be nothing. More seeds narrow the "
                f"interval. If it stays at 0, train longer while the curves rise, or {widen}"
            )
        return [first, *_better_all_the_same(found, unranked)]
    small = f", which is little; to gain more, {widen}" if share.estimate < WORTHWHILE else ""
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
        adds = found.over_reset[label]
        nothing = f": its memory is not shown to add any return, {_more(adds)}" if adds.low <= 0 else ""
        sentences.append(f"with its memory reset before every action it recovers {_percent(without)}{nothing}")
    return sentences


def _better_all_the_same(found: Headroom, unranked: Collection[str]) -> list[str]:
    """Return who is better than the randomised policy where an oracle is not shown to be, in a sentence or none."""
    shown = {label: more for label, more in found.over_randomised.items() if label not in unranked and more.low > 0}
    if not shown:
        return []
    label = max(shown, key=lambda label: shown[label].estimate)
    most = f", the most of {len(shown)} agents that have more" if len(shown) > 1 else ""
    return [
        f"{label} has more return than the randomised policy, by {_more(shown[label])}{most}: it has learned more than "
        "the oracle, which is no bound here, or infers what the oracle is not told"
    ]


def _more(more: Interval) -> str:
    return f"{more.estimate:.4g} [{more.low:.4g}, {more.high:.4g}]"


def _percent(share: Interval) -> str:
    return f"{share.estimate:.0%} [{share.low:.0%}, {share.high:.0%}]"
