"""Values of each task in bins of time: reward per second, success so far and mean measures, over a trial and after the
changes of its tasks.

Axes: T control steps of an episode, K shots, M tasks, N envs of a task, S evaluation seeds, R agents trained alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarl.envs.family import TaskFamily
from metarl.envs.task import Task
from metarl.evaluation.statistics import Array
from metarl.runs.trial import TrialResult

BIN_S = 0.1
"""Shortest bin, s."""
BINS = 40
"""Largest number of bins of an episode; longer episodes have longer bins."""
FEWEST = 8
"""Smallest number of bins after a change that says anything about adaptation to it."""
KEPT = 0.75
"""Share of the tasks whose time after a change is long enough to be counted."""
REWARD_RATE, SUCCESS, RUNNING = "reward_rate", "success", "running episodes"
"""Names of curves: reward per second, share of the episodes that are successful so far, share that is running."""
Steps = NDArray[np.int64]


@dataclass(frozen=True)
class Binned:
    """Values of each task in bins of time: episode after episode of a trial, or from a change on."""

    ends_s: Array
    """[bins] end of each bin, s from the start of an episode or from the change."""
    episodes: int
    """Episodes that the bins are those of, one after another; 1 after a change."""
    values: Mapping[str, Array]
    """[R, S, episodes x bins, M] by name of the curve; NaN where a task has no value."""
    change: int = 0
    """Number of the change that time is counted from, from 1 on; 0: the start of the trial."""
    changes_s: Sequence[tuple[float, float]] = ()
    """First and last second of the trial at which a task has its first change, its second, and so on."""
    memory: bool = True
    """Whether the agent remembers anything of the task from one action or episode to the next."""
    per_round: int = 1
    """Episodes side by side that the agent reads before the next: a robot plays them one after another."""

    @property
    def bins(self) -> int:
        """Number of bins of an episode."""
        return len(self.ends_s)

    @property
    def widths_s(self) -> Array:
        """[episodes x bins] length of each bin, s."""
        return np.tile(np.diff(self.ends_s, prepend=0.0), self.episodes)

    @property
    def starts_s(self) -> Array:
        """[episodes x bins] start of each bin, s from the start of the trial or from the change."""
        return np.cumsum(self.widths_s) - self.widths_s

    @property
    def robot_s(self) -> Array:
        """[episodes x bins] start of each bin of a round's first episode on one robot, which plays all of a round."""
        others = (self.per_round - 1) * self.ends_s[-1]
        return self.starts_s + np.repeat(np.arange(self.episodes) * others, self.bins)

    @staticmethod
    def pool(parts: Sequence[Binned]) -> Binned:
        """Return the values that several agents on the same tasks all have as those of R agents."""
        names = [name for name in parts[0].values if all(name in part.values for part in parts)]
        return replace(parts[0], values={name: np.concatenate([part.values[name] for part in parts]) for name in names})


def bin_ends(horizon: int, dt: float) -> Steps:
    """Return the control steps after which the bins of an episode end, [bins]. dt: control step, s."""
    width = max(round(BIN_S / dt), -(-horizon // BINS), 1)
    return np.minimum(np.arange(width, horizon + width, width), horizon)


class Recorded(NamedTuple):
    """What is kept of the trial of one evaluation seed."""

    rates: Array
    """Reward per second of each control step, [K T, M], see `step_rates`."""
    measured: Mapping[str, Array]
    """Success so far, mean measures and the share of running episodes in each bin by name, [K bins, M]."""


def recorded(result: TrialResult, family: TaskFamily, ends: Steps, seconds: float) -> Recorded:
    """Return what is kept of a trial whose marks are `ends`. seconds: what the rewards are divided by."""
    return Recorded(step_rates(result, seconds), _measured(result, family, ends))


def binned(
    trials: Sequence[Recorded],
    tasks: Sequence[Sequence[Task]],
    horizon: int,
    ends: Steps,
    dt: float,
    memory: bool = True,
    per_round: int = 1,
) -> list[Binned]:
    """Return the values over the trial, and after each change that leaves enough time in its episode.

    trials, tasks [S][M]: of each evaluation seed. ends: of `bin_ends`. dt: control step, s. memory, per_round: as in
    `Binned`.
    """
    steps = len(trials[0].rates)
    shots = steps // horizon
    curves = {REWARD_RATE: [_mean_in(trial.rates, ends, shots) for trial in trials]}
    curves |= {name: [trial.measured[name] for trial in trials] for name in trials[0].measured}
    values = {name: np.stack(own)[None] for name, own in curves.items()}
    changes_s = _change_seconds(tasks, steps, dt)
    whole = Binned(np.float64(dt) * ends, shots, values, changes_s=changes_s, memory=memory, per_round=per_round)
    widths = np.tile(np.diff(ends, prepend=0), shots)
    by_step = {name: [np.repeat(own, widths, axis=0) for own in each] for name, each in curves.items()}
    by_step[REWARD_RATE] = [trial.rates for trial in trials]
    return [whole, *(replace(own, memory=memory) for own in _after_changes(by_step, tasks, horizon, ends, dt))]


def step_rates(result: TrialResult, seconds: float) -> Array:
    """Return the reward per second of each control step of a trial, [K T, M]: the mean over a task's sound episodes.

    It is 0 where an episode is over, so that its integral is the return. seconds: what the rewards are divided by.
    """
    rates = []
    for rollout, returns in zip(result.trial.rollouts, result.returns, strict=True):
        rewards = (rollout.rewards * rollout.valid).cpu().numpy().astype(np.float64)  # [T, M, N], 0 where not sound
        sound = (~np.isnan(returns)).sum(axis=1)
        rates.append(rewards.sum(axis=2) / np.where(sound, sound, np.nan) / seconds)
    return np.concatenate(rates)


def _mean_in(values: Array, ends: Steps, shots: int) -> Array:
    """Return the mean over each bin of values [K T, M], [K bins, M]."""
    length = len(values) // shots
    starts = np.concatenate([shot * length + np.array([0, *ends[:-1]]) for shot in range(shots)])
    return np.add.reduceat(values, starts) / np.tile(np.diff(ends, prepend=0), shots)[:, None]


def _measured(result: TrialResult, family: TaskFamily, ends: Steps) -> dict[str, Array]:
    """Return success so far, mean measures and the share of running episodes within each bin by name, [K bins, M].

    A mean measure is that of the episodes that are still running. Their share is there where an early end is a fall.
    """
    found: dict[str, list[Array]] = {}
    widths = np.diff(ends, prepend=0)[:, None]
    for rollout, so_far, returns in zip(result.trial.rollouts, result.so_far, result.returns, strict=True):
        taken = rollout.valid.cpu().numpy().cumsum(axis=0)[ends - 1]  # [bins, M, N]
        steps = np.diff(taken, axis=0, prepend=0)
        if family.can_fall:
            sound = ~np.isnan(returns)
            count = sound.sum(axis=1)
            found.setdefault(RUNNING, []).append((steps * sound).sum(axis=2) / np.where(count, count, np.nan) / widths)
        for name, values in so_far.items():
            if name == SUCCESS:
                inside = values
            elif family.measures[name].reduce == "mean":
                total = np.diff(values * taken, axis=0, prepend=0.0)
                inside = np.divide(total, steps, out=np.full(total.shape, np.nan), where=steps > 0)
            else:
                continue
            sound = ~np.isnan(inside)
            count = sound.sum(axis=2)
            mean = np.where(sound, inside, 0.0).sum(axis=2) / np.where(count, count, np.nan)
            found.setdefault(name, []).append(mean)
    return {name: np.concatenate(shots) for name, shots in found.items()}


def _change_seconds(tasks: Sequence[Sequence[Task]], steps: int, dt: float) -> list[tuple[float, float]]:
    """Return the first and the last second of each change that some task has within so many steps of a trial."""
    columns = itertools.zip_longest(*([c.step for c in task.changes] for drawn in tasks for task in drawn))
    within = ([step for step in column if step is not None and step < steps] for column in columns)
    return [(min(own) * dt, max(own) * dt) for own in within if own]


def _after_changes(
    curves: Mapping[str, Sequence[Array]], tasks: Sequence[Sequence[Task]], horizon: int, ends: Steps, dt: float
) -> list[Binned]:
    """Return the values after each change, of the tasks whose episode goes on for long enough.

    curves: S times [K T, M] by name, the reward per second of each control step, and measures that are those of its bin
    of the trial. The time after a change ends with its episode, because a robot that starts from rest says
    nothing about the change, and at the next change. The time that is counted is as long as three quarters of the tasks
    have; the others are left out.
    """
    steps = len(curves[REWARD_RATE][0])
    places = [[_times_after(task, horizon, steps) for task in drawn] for drawn in tasks]
    result = []
    for number in range(max((len(own) for drawn in places for own in drawn), default=0)):
        none = (0, 0)
        column = [[own[number] if number < len(own) else none for own in drawn] for drawn in places]
        lengths = [length for drawn in column for _, length in drawn if length]
        bins = int(np.quantile(lengths, 1.0 - KEPT, method="lower")) // ends[0] if lengths else 0
        if bins < FEWEST:
            continue
        own_ends = ends[0] * np.arange(1, bins + 1)
        values = {name: np.full((1, len(tasks), bins, len(tasks[0])), np.nan) for name in curves}
        for s, drawn in enumerate(column):
            for m, (start, length) in enumerate(drawn):
                if length < own_ends[-1]:
                    continue
                for name, own in values.items():
                    taken = curves[name][s][start : start + own_ends[-1], m : m + 1]
                    own[0, s, :, m] = _mean_in(taken, own_ends, 1)[:, 0]
        result.append(Binned(own_ends * dt, 1, values, number + 1))
    return result


def _times_after(task: Task, horizon: int, steps: int) -> list[tuple[int, int]]:
    """Return (step of the trial, steps until its episode ends or the next change comes) of each change of a task.

    steps: of the trial; a change after its end has 0 steps.
    """
    starts = [change.step for change in task.changes]
    return [
        (start, min(start - start % horizon + horizon, after) - start if start < steps else 0)
        for start, after in itertools.pairwise([*starts, steps])
    ]
