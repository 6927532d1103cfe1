"""Adapt a policy to logged episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metarl.agents.agent import Agent, Belief
from metarl.deployment.episode import LoggedEpisode, assemble
from metarl.deployment.on_policy import check_commands, check_on_policy
from metarl.errors import UsageError
from metarl.runs.run import Run
from metarl.runs.trial import AgentGenerators


@dataclass(frozen=True)
class Adapted:
    """An agent's belief after logged shots."""

    belief: Belief
    shots: list[list[LoggedEpisode]]
    """Shots that were adapted from."""
    left: int
    """Number of shots that were not used."""


def adapt(run: Run, episodes: Sequence[LoggedEpisode], adaptations: int, off_policy: bool = False) -> Adapted:
    """Adapt a run's agent to the shots that the episodes make, at most `adaptations` of them.

    off_policy: whether to accept actions of another policy. UsageError for episodes that make no shots, and for actions
    of another policy if the agent needs its own.
    """
    agent = run.agent
    if not agent.facts.adapts:
        raise UsageError("this agent does not adapt: it acts the same on every task; use it without a belief")
    shots = group(episodes, agent)
    used = shots[:adaptations]
    rngs = [np.random.default_rng(0)]  # as `Run.start` draws by default
    belief = agent.begin(1, len(shots[0]), AgentGenerators(rngs, 0))
    for k, shot in enumerate(used):
        rollout = assemble(shot, run.family)
        reading = agent.read(belief, rollout)
        if not off_policy:
            check_commands(shot, reading, agent, belief, run.family)
        if agent.facts.needs_own_noise and not off_policy:
            check_on_policy(shot, reading, run.family.action_size, k)
        belief = agent.adapt(reading.belief, rollout, AgentGenerators(rngs, k + 1))
    return Adapted(belief, used, len(shots) - len(used))


def group(episodes: Sequence[LoggedEpisode], agent: Agent) -> list[list[LoggedEpisode]]:
    """Return the episodes of each shot.

    If no episode has a shot number, all of them are one shot; for an agent with a belief per env, each is one.
    """
    apart = agent.facts.belief_per_env
    silent = [episode for episode in episodes if episode.shot is None]
    if len(silent) == len(episodes):
        return [[episode] for episode in episodes] if apart else [list(episodes)]
    if silent:
        raise UsageError(
            f"{silent[0].source} lacks the field shot, which other episodes have; number all episodes or none"
        )
    numbers = sorted({episode.shot for episode in episodes if episode.shot is not None})
    if numbers != list(range(len(numbers))):
        raise UsageError(
            f"{episodes[0].source} and those beside it are of the shots {numbers}; number them from 0 without a gap"
        )
    shots = [[episode for episode in episodes if episode.shot == k] for k in numbers]
    for shot in shots if apart else ():
        if len(shot) > 1:
            raise UsageError(
                f"{shot[1].source} is of shot {shot[1].shot}, as {shot[0].source} is; this agent adapts by what it "
                "remembers from one episode to the next: number every episode as a shot of its own"
            )
    return shots
