"""Recovery after a change of the task during a trial: how many control steps pass until the reward is back."""

from __future__ import annotations

import itertools
import math

import numpy as np

from metarl.envs.faults.where import KIND
from metarl.envs.task import Task
from metarl.evaluation.statistics import REACHED, Array
from metarl.runs.trial import TrialResult

RECOVERY_WINDOW = 20
"""Control steps over which the reward around a change is averaged."""


def steps_to_recover(
    rewards: Array, change: int, fallen: Array | None = None, window: int = RECOVERY_WINDOW, share: float = REACHED
) -> float | None:
    """Return the steps from a change until the reward of a trial [T] is back at its level before the change.

    Infinite if it does not come back.

    s_t = mean of r over the `window` steps that end with t;  L = s at the last step before the change.
    The reward is back once s_t >= L - (1 - share) |L| after s had fallen below that; the absolute value makes it mean
    the same for rewards below 0. 0 if s never falls below. None with less than a window of steps before or after the
    change. fallen: share of the robots that have fallen since the change, [T], each of which counts as L - |L|.
    """
    if change < window or len(rewards) - change < window:
        return None
    level = float(np.mean(rewards[change - window : change]))
    if fallen is not None:
        rewards = rewards + fallen * (level - abs(level) - rewards)
    sums = np.cumsum([0.0, *rewards])
    smoothed = (sums[window:] - sums[:-window]) / window  # smoothed[i] ends with step i + window - 1
    short = smoothed[change - window + 1 :] < level - (1.0 - share) * abs(level)  # of the steps from the change on
    if not short.any():
        return 0.0
    fell = int(short.argmax())
    back = np.flatnonzero(~short[fell:])
    return float(fell + back[0] + 1) if back.size else math.inf


def recovery_of(result: TrialResult, task: Task, index: int, falls: bool) -> float:
    """Return the mean control steps until the reward of a task's trial was back after its changes for the worse.

    The end of a fault is none of these.

    result: the trials. index: place of the task among them. falls: whether an early end is a fall, and not, for
    example, one at a goal. The reward of a step is the mean over the task's running episodes, and those that ended in a
    fall since the change, see `steps_to_recover`; the episodes of a trial follow one another at full length. The first
    `RECOVERY_WINDOW` steps of each episode are left out, because the robot starts from rest whether the task changes or
    not. NaN if the recovery cannot be measured; see `TrialOutcome.recovery`.
    """
    rollouts = result.trial.rollouts
    horizon = len(rollouts[0].valid)

    def of_task(name: str) -> np.ndarray:
        return np.concatenate([getattr(rollout, name)[:, index].cpu().numpy() for rollout in rollouts])  # [K T, N]

    rewards, valid, terminated = of_task("rewards").astype(np.float64), of_task("valid"), of_task("terminated")
    later = np.arange(len(valid)) % horizon >= RECOVERY_WINDOW
    changes = [change for change in task.changes if change.step < len(valid)]
    bounds = itertools.pairwise([*(change.step for change in changes), len(valid)])
    steps = []
    for change, (begin, end) in zip(changes, bounds, strict=True):
        if change.values.get(KIND) == 0 or not valid[begin].any():
            continue
        since = falls & (np.arange(len(valid)) >= begin)
        fallen = _fallen(terminated & since[:, None], valid, horizon)
        running, over = valid.sum(axis=1), fallen.sum(axis=1)
        counted = later & (running + over > 0)
        means = (rewards * valid).sum(axis=1) / np.maximum(running, 1)
        start, stop = (int(counted[:step].sum()) for step in (begin, end))
        chosen = np.flatnonzero(counted)[:stop]
        shares = over[chosen] / (running + over)[chosen]
        if (taken := steps_to_recover(means[chosen], start, shares)) is not None:
            steps.append(taken)
    return float(np.mean(steps)) if steps else np.nan


def _fallen(terminated: np.ndarray, valid: np.ndarray, horizon: int) -> np.ndarray:
    """Return [K T, N] bool, True at the steps of an episode after the one that ended it.

    Lives go on, and an episode whose simulation broke down, in which no step is valid, is left out.
    """
    by_episode = (-1, horizon, terminated.shape[1])
    ended = terminated.reshape(by_episode).cumsum(axis=1) > 0
    sound = valid.reshape(by_episode).any(axis=1, keepdims=True)
    return (ended & sound).reshape(terminated.shape) & ~valid
