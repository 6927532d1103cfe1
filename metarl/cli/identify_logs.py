"""`metarl identify RUN --identifier DIR --rollouts DIR`: tell which class logged episodes are of."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metarl.cli.arguments import Arguments
from metarl.cli.invocation import Invocation
from metarl.cli.selection import one_run
from metarl.errors import UsageError, nearest, usage_errors
from metarl.options import flag
from metarl.wording import number_of

if TYPE_CHECKING:
    from metarl.agents.agent import Agent
    from metarl.deployment.episode import LoggedEpisode
    from metarl.envs.family import TaskFamily
    from metarl.identification.identifier import Identifier

OPTIONS = ("identifier", "rollouts", "support", "only")
"""Options of the command that tells logged episodes apart; the first two are needed."""
CHECKPOINT = "checkpoint"
"""The one besides that it shares with the command that trains an identifier."""
SAME_DT = 1e-9
"""Largest difference of two control steps that count as the same, s."""
FARTHER = 9.0
"""Actions are motor commands if they are so many times as far from the policy's, squared, as what they would mean."""
FEWEST = 2
"""Number of classes that an episode is told from, at least."""


def asked_for(given: Arguments) -> bool:
    """Return whether logged episodes are to be told apart, by an identifier that is there."""
    return any(name in given.options for name in OPTIONS)


def run(given: Arguments, blank: object, training: Collection[str], invocation: Invocation) -> int:
    """Run the command. blank: as of `one_run`. training: options of an identifier that is to be trained."""
    directory, config = one_run(given, blank, "metarl identify")
    for name in given.options.keys() - {*OPTIONS, CHECKPOINT}:
        if name in training or name.startswith("family."):
            raise UsageError(
                f"{flag(name)} is of an identifier that is to be trained; with --identifier and --rollouts there are "
                f"{', '.join(map(flag, OPTIONS[2:]))} and {flag(CHECKPOINT)} besides"
            )
        raise UsageError(f"unknown option {flag(name)}{nearest(flag(name), map(flag, OPTIONS))}")
    for name in OPTIONS[:2]:
        if len(given.options.get(name, ())) != 1:
            raise UsageError(f"metarl identify needs {flag(name)} DIR, one folder, to tell logged episodes apart")
    [folder], [source] = (given.options[name] for name in OPTIONS[:2])

    from metarl.deployment.logs import load_episodes
    from metarl.evaluation.compare import checked_family
    from metarl.identification.identifier import Identifier
    from metarl.runs.beliefs import digest_of
    from metarl.runs.run import load_run

    invocation.run_dir = directory
    family, identifier = checked_family(config), Identifier.load(folder)
    _require_same_policy(identifier, family, directory, folder)
    agent = load_run(directory, given.options.get(CHECKPOINT, ["last"])[-1], device="cpu").agent
    for doubt in identifier.doubts(digest_of(agent)):
        _warn(doubt)
    longer = dataclasses.replace(family, horizon=max(family.horizon, identifier.calibration.marks[-1]))

    def loaded(folder: str, option: str) -> Sequence[LoggedEpisode]:
        own = _first_on_task(load_episodes(folder, longer, option), agent, folder)
        if _of_commands(own, agent, longer):
            _warn(f"the actions of {folder} look like motor commands; log what act() returned, not what command() made")
        return own

    episodes = loaded(source, "--rollouts")
    with usage_errors("--support"):
        if "support" in given.options:
            labelled = _labelled(given.options["support"])
            support = {label: loaded(own, "--support") for label, own in labelled}
            for label, own in support.items():
                if twice := [episode.source for episode in own if any(_alike(episode, other) for other in episodes)]:
                    raise UsageError(
                        f"{twice[0]} is in the support of {label!r} and among what is to be told; give other episodes"
                    )
            identifier.support(support)
    if "only" in given.options:
        identifier = identifier.only(given.options["only"])
    if len(identifier.known) < FEWEST:
        left = ", ".join(identifier.known) or "none"
        raise UsageError(f"an episode is told from {FEWEST} classes at least, and --support and --only leave {left}")
    with usage_errors("--rollouts"):
        for episode in episodes if len(episodes) > 1 else ():
            print(f"{episode.source}: {identifier.identify_logged([episode])}", flush=True)
        together = f"{number_of(len(episodes), 'episode')} together" if len(episodes) > 1 else episodes[0].source
        print(f"{together}: {identifier.identify_logged(episodes)}")
    return 0


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def _alike(one: LoggedEpisode, other: LoggedEpisode) -> bool:
    """Return whether two logs are of one episode, under whatever names."""
    return np.array_equal(one.observations, other.observations) and np.array_equal(one.actions, other.actions)


def _first_on_task(episodes: Sequence[LoggedEpisode], agent: Agent, folder: str) -> Sequence[LoggedEpisode]:
    """Return the episodes before any adaptation, which the identifier was made with, and say what is left out.

    UsageError if there is none. Several of an agent with a memory that say no shot are shots of one task, as for
    `metarl adapt`.
    """
    if agent.facts.adapts and agent.facts.belief_per_env and all(episode.shot is None for episode in episodes):
        if len(episodes) > 1:
            _warn(
                f"the episodes of {folder} say no shot, so the first alone is taken: in the others an agent with a "
                "memory has adapted. Log shot=0 with each that began on a task (in Minari among its infos)"
            )
        return episodes[:1]
    first = [episode for episode in episodes if not (agent.facts.adapts and episode.shot)]
    if not first:
        raise UsageError(
            f"all episodes of {folder} are of later shots: the policy had adapted, and the identifier was made with "
            "first episodes on a task; give those of shot 0"
        )
    if left := len(episodes) - len(first):
        _warn(
            f"{number_of(left, 'episode')} of {folder} {'is' if left == 1 else 'are'} left out: the policy had adapted "
            "before, and the identifier was made with first episodes on a task"
        )
    return first


def _of_commands(episodes: Sequence[LoggedEpisode], agent: Agent, family: TaskFamily) -> bool:
    """Return whether the actions of an episode are motor commands: far from the policy's own, and near to them once
    they are converted."""
    from metarl.deployment.episode import assemble
    from metarl.deployment.on_policy import deviates
    from metarl.runs.trial import AgentGenerators

    for episode in episodes:
        belief = agent.begin(1, 1, AgentGenerators([np.random.default_rng(0)], 0))
        reading = agent.read(belief, assemble([episode], family))
        if not deviates([episode], reading, family.action_size):  # they vary as the policy's noise does
            continue
        means = reading.means[: len(episode.rewards), 0, 0].cpu().numpy()
        meant = (episode.actions - family.control.offset) / family.control.gain / family.action_scale
        apart, converted = (float(np.square(actions - means).mean()) for actions in (episode.actions, meant))
        if apart > FARTHER * converted and not np.isclose(apart, 0):
            return True
    return False


def _require_same_policy(identifier: Identifier, family: TaskFamily, directory: Path, folder: str) -> None:
    """Raise UsageError if the identifier reads other observations or actions than those of a run."""
    ours = identifier.policy
    if list(ours.observation_names) != list(family.observation_names) or ours.action_size != family.action_size:
        raise UsageError(
            f"--identifier {folder} reads the {len(ours.observation_names)} observations and {ours.action_size} "
            f"actions of a policy on {ours.family}, and {directory} has others; name the run that it was made with"
        )
    if abs(ours.dt - family.dt) > SAME_DT:
        raise UsageError(
            f"--identifier {folder} reads control steps of {ours.dt:g} s, and those of {directory} are of "
            f"{family.dt:g} s; name the run that it was made with"
        )


def _labelled(texts: list[str]) -> list[tuple[str, str]]:
    """Return label and folder of each LABEL:DIR; UsageError for another text, and for a label that is given twice."""
    from metarl.deployment.logs import MINARI

    found = [(label, folder) for label, _, folder in (text.partition(":") for text in texts)]
    labels = [label for label, _ in found]
    for text, (label, folder) in zip(texts, found, strict=True):
        if not label or not folder or f"{label}:" == MINARI:
            raise UsageError(
                f"--support has {text!r}; give LABEL:DIR, a folder of logged episodes for each class, or "
                f"LABEL:{MINARI}DATASET"
            )
        if labels.count(label) > 1:
            raise UsageError(f"--support has the class {label!r} twice; put its episodes into one folder")
    return found
