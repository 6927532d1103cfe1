"""Check whether logged actions are the policy's own, as a policy gradient needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from metarl.agents.agent import Agent, Belief, Reading
from metarl.deployment.episode import LoggedEpisode, assemble
from metarl.envs.family import TaskFamily
from metarl.errors import UsageError
from metarl.wording import number_of

LOG_PROBABILITY_TOLERANCE = 1e-2
"""Largest difference of a logged log-probability from the policy's: a ratio of 1 %, far above float32's rounding."""
STILL = 2e-6
"""Largest mean square of actions about the policy's mean, in the variance of its noise, that is one of rounding."""
MOST_DEVIATIONS = 5.0
"""Largest deviation of the actions' chi-square statistic, in standard deviations: the policy's own actions exceed it in
one log of a million."""


def check_on_policy(shot: Sequence[LoggedEpisode], reading: Reading, action_size: int, k: int) -> None:
    """UsageError unless a shot's actions can be the policy's own.

    Logged log-probabilities must be those of the policy. The actions must not be clipped, and must vary about the
    policy's mean as its noise does. k: number of adaptations before the shot, for messages.
    """
    ours = reading.log_probabilities[:, 0].cpu().double().numpy()
    for i, episode in enumerate(shot):
        if episode.log_probabilities is None:
            continue
        difference = np.abs(episode.log_probabilities - ours[: len(episode.rewards), i])
        worst = int(difference.argmax())
        if difference[worst] > LOG_PROBABILITY_TOLERANCE:
            raise _off_policy(
                f"{episode.source}: log_probabilities[{worst}] is {episode.log_probabilities[worst]:.4g}, by the "
                f"policy after {number_of(k, 'adaptation')} it is {ours[worst, i]:.4g}"
            )
    _check_clipping(shot)
    total, count = _chi_square(shot, reading, action_size)
    if abs(deviations(total, count)) > MOST_DEVIATIONS:
        less = "less" if total < count else "more"
        raise _off_policy(
            f"{shot[0].source} and the episodes of its shot: the actions vary {less} about the policy's mean "
            f"after {number_of(k, 'adaptation')} than its noise does, (action - mean)^2 / std^2 is "
            f"{total / count:.3g} on average, not 1, over {count} numbers"
        )


def _chi_square(shot: Sequence[LoggedEpisode], reading: Reading, action_size: int) -> tuple[float, int]:
    """Return (sum of z^2, count n) over the elements of a shot's actions a = mu + sigma z.

    The sum is chi-square with n degrees of freedom if the actions are the policy's own. z^2 follows from
    log pi(a) + H = (d - |z|^2) / 2 for d dimensions.
    """
    ours, entropies = (x[:, 0].cpu().double().numpy() for x in (reading.log_probabilities, reading.entropies))
    squares = [
        action_size - 2 * (ours[:length, i] + entropies[:length, i])
        for i, length in enumerate(len(episode.rewards) for episode in shot)
    ]
    return max(float(sum(map(np.sum, squares))), 0.0), action_size * sum(map(len, squares))


def check_commands(
    shot: Sequence[LoggedEpisode], reading: Reading, agent: Agent, belief: Belief, family: TaskFamily
) -> None:
    """UsageError if the actions are motor commands: clipped as commands are, or the policy's own after conversion."""
    control, scale, size = family.control, family.action_scale, family.action_size
    meant = [replace(e, actions=(e.actions - control.offset) / control.gain / scale) for e in shot]
    actions = np.concatenate([episode.actions for episode in shot])
    ends = [(bound / scale, control.of(bound)) for bound in (family.action_low, family.action_high)]
    cut = any(((actions == c.astype(np.float32)).sum(axis=0)[~np.isclose(c, a)] > 2).any() for a, c in ends)
    there = agent.read(belief, assemble(meant, family))
    noisy = deviates(shot, reading, size) and not deviates(shot, there, size)
    still = _is_mean(meant, there, size) and not _is_mean(shot, reading, size)  # of a policy that acts without noise
    if cut or noisy or still:
        raise UsageError(
            f"{shot[0].source} and the episodes of its shot: the actions are motor commands; log what act() "
            "returned, not what command() made of it, or use them anyway with --off-policy"
        )


def _is_mean(shot: Sequence[LoggedEpisode], reading: Reading, action_size: int) -> bool:
    """Return whether the actions are the policy's mean."""
    total, count = _chi_square(shot, reading, action_size)
    return total < STILL * count


def deviates(shot: Sequence[LoggedEpisode], reading: Reading, action_size: int) -> bool:
    """Return whether the actions vary about the policy's mean otherwise than its noise does."""
    return abs(deviations(*_chi_square(shot, reading, action_size))) > MOST_DEVIATIONS


def _check_clipping(shot: Sequence[LoggedEpisode]) -> None:
    """UsageError if the extreme value of an action recurs, which samples of a normal distribution never do."""
    actions = np.concatenate([episode.actions for episode in shot])
    for extreme in (actions.max(axis=0), actions.min(axis=0)):
        times = (actions == extreme).sum(axis=0)
        worst = int(times.argmax())
        if times[worst] > 2:
            raise _off_policy(
                f"{shot[0].source} and the episodes of its shot: action {worst} is clipped, {times[worst]} of its "
                f"{len(actions)} values are {extreme[worst]:.6g}"
            )


def deviations(chi_square: float, degrees: int) -> float:
    """Return the distance of a chi-square statistic from its mean, in standard deviations (Wilson, Hilferty 1931)."""
    variance = 2 / (9 * degrees)
    return ((chi_square / degrees) ** (1 / 3) - (1 - variance)) / math.sqrt(variance)


def _off_policy(found: str) -> UsageError:
    return UsageError(
        f"{found}. These are not the actions of this policy, with its noise and before scaling and clipping. A policy "
        "gradient is an average over the policy's own actions: from other actions it is biased, and the step can make "
        "the policy worse. Log the episodes with this policy (Run.start, metarl evaluate --log-rollouts), or use them "
        "anyway with --off-policy"
    )
