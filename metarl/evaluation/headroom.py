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
    """Share of the lead that each other agent recovers by its last episode, by label; None if no lead is shown."""
    at_once: Mapping[str, Interval | None] = field(default_factory=dict)
    """The same in the first episode."""
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
    rng = stream(settings.seeds[0], "headroom")
    last, first = ({label: agent.returns[:, :, k] for label, agent in agents.items()} for k in (-1, 0))
    samples = settings.bootstrap_samples

    def between(statistic: Any) -> Interval:
        found = interval_of_levels([last[oracle], last[randomised]], (0, 1), statistic, samples, rng)
        assert found is not None
        return found

    def recovered(returns: Array) -> Interval | None:
        return share_interval(returns, last[randomised], last[oracle], samples, rng, same_agents=False)

    lead = between(lambda levels: levels[..., 0] - levels[..., 1])
    share = between(lambda levels: (levels[..., 0] - levels[..., 1]) / np.abs(levels[..., 0]))
    others = [label for label in agents if label not in (oracle, randomised)]
    found = Headroom(
        oracle,
        randomised,
        lead,
        share,
        {label: recovered(last[label]) for label in others},
        {label: recovered(first[label]) for label in others},
    )
    return replace(found, verdict=verdict_of(found, forgetful or {}, reset))


def verdict_of(found: Headroom, forgetful: Mapping[str, str], reset: Collection[str]) -> list[str]:
    """Return what the numbers say, in sentences. forgetful, reset: see `headroom_of`."""
    lead, share = found.lead, found.share
    if lead.high < 0:
        return [
            f"the oracle is worse than the randomised policy, by {_percent(_turned(share))} of its return: "
            "it has not learned as much from the same env steps, and nothing follows about adaptation; train longer, "
            "or look at the oracle's learning curve first"
        ]
    if lead.low <= 0:
        most = max(share.high, 0.0)
        return [
            f"no headroom is shown: knowing the task gains {_percent(share)} of the oracle's return, at most "
            f"{most:.0%}; an agent that adapts cannot gain more on this distribution. {WIDEN}, or train longer if the "
            "curves still rise"
        ]
    small = f", which is little. {WIDEN}" if share.estimate < WORTHWHILE else ""
    most = f"{_percent(share)} of the oracle's return"
    if share.estimate > 1:  # returns below 0: a share of the oracle's says nothing
        most = f"{lead.estimate:.4g} [{lead.low:.4g}, {lead.high:.4g}] of return"
    sentences = [f"adaptation can gain at most {most}{small}"]
    ranked = [
        (label, interval) for label, interval in found.recovered.items() if interval is not None and label not in reset
    ]
    if not ranked:
        return sentences
    label, best = max(ranked, key=lambda pair: pair[1].estimate)
    if best.low > 0:
        sentences.append(f"{label} recovers {_percent(best)} of it, the most of {len(ranked)} agents")
    elif best.high < 0:
        sentences.append(
            f"every agent is worse than the randomised policy; {label} comes closest, with {_percent(best)}"
        )
    else:
        sentences.append(f"no agent is shown to recover any of it; {label} comes closest, with {_percent(best)}")
    without = found.recovered.get(forgetful.get(label, ""))
    if without is not None:
        sentences.append(f"with its memory reset before every action it recovers {_percent(without)}")
    return sentences


def _percent(share: Interval) -> str:
    return f"{share.estimate:.0%} [{share.low:.0%}, {share.high:.0%}]"


def _turned(share: Interval) -> Interval:
    return Interval(-share.estimate, -share.high, -share.low)
