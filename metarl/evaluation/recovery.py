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
    rewards: Array, change: int, window: int = RECOVERY_WINDOW, share: float = REACHED
) -> float | None:
    """Return the steps from a change until the reward of a trial [T] is back at its level before the change.

    Infinite if it does not come back.

    s_t = mean of r over the `window` steps that end with t;  L = s at the last step before the change.
    The reward is back once s_t >= L - (1 - share) |L| after s had fallen below that; the absolute value makes it mean
    the same for rewards below 0. 0 if s never falls below. None with less than a window of steps before or after the
    change.
    """
    if change < window or len(rewards) - change < window:
        return None
    sums = np.cumsum([0.0, *rewards])
    smoothed = (sums[window:] - sums[:-window]) / window  # smoothed[i] ends with step i + window - 1
    level = smoothed[change - window]
    short = smoothed[change - window + 1 :] < level - (1.0 - share) * abs(level)  # of the steps from the change on
    if not short.any():
        return 0.0
    fell = int(short.argmax())
    back = np.flatnonzero(~short[fell:])
    return float(fell + back[0] + 1) if back.size else math.inf


def recovery_of(result: TrialResult, task: Task, index: int) -> float:
    """Return the mean control steps until the reward of a task's trial was back after its changes for the worse.

    The end of a fault is none of these.

    result: the trials. index: place of the task among them. The reward of a step is the mean over the task's running
    episodes; the episodes of a trial follow one another at full length. The first `RECOVERY_WINDOW` steps of each
    episode are left out, because the robot starts from rest whether the task changes or not. NaN if the recovery cannot
    be measured; see `TrialOutcome.recovery`.
    """
    rollouts = result.trial.rollouts
    rewards = np.concatenate([rollout.rewards[:, index].cpu().numpy() for rollout in rollouts])  # [K T, N]
    valid = np.concatenate([rollout.valid[:, index].cpu().numpy() for rollout in rollouts])
    horizon = len(rollouts[0].valid)
    running = np.asarray(valid.any(axis=1)) & (np.arange(len(valid)) % horizon >= RECOVERY_WINDOW)
    means = (rewards * valid).sum(axis=1)[running] / valid.sum(axis=1)[running]
    places = np.cumsum(running) - running  # of each step among those that are left
    changes = [change for change in task.changes if change.step < running.size]
    starts = [int(places[change.step]) for change in changes]
    steps = []
    for change, (start, end) in zip(changes, itertools.pairwise([*starts, len(means)]), strict=True):
        if change.values.get(KIND) == 0:
            continue
        if (taken := steps_to_recover(means[:end].astype(np.float64), start)) is not None:
            steps.append(taken)
    return float(np.mean(steps)) if steps else np.nan
