"""Replay by task: transitions to learn from and transitions of context come from one and the same task.

A task that recurs (equal values and changes, see `training.distinct_tasks`) is one task, whose data of all iterations
stored is learned from. Its context is that of single trials: of the first shots of one, as many as the agent may have
seen when it acts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.agents.agent import Trial
from metarl.agents.learning import World
from metarl.agents.replay import TASK, Replay, Segment, tensors_of, transitions

SHOT = "shot"
"""Name of the field with the index of the step's shot in its trial."""
PLACES = 2**20
"""Number of trials of an iteration that can be told apart."""
AT_ONCE = 8
"""Number of gradient steps whose transitions are read at once."""

Columns = dict[str, Tensor]
"""Columns of `transitions` by name, [M, steps, ...]."""


class Drawn(NamedTuple):
    """Transitions for a gradient step, M tasks."""

    learned: Columns
    """Transitions to learn from, [M, B, ...]."""
    context: Columns
    """Transitions that the encoder reads, [M, S, ...]."""


class Parts(NamedTuple):
    """Where the steps are: a part is the data of a trial. P parts, in order of task and age; G tasks."""

    segment: np.ndarray
    """[P] index of the segment."""
    first: np.ndarray
    """[P] index of the first step in it."""
    before: np.ndarray
    """[P + 1] number of steps in all parts before."""
    by_shots: np.ndarray
    """[P, most shots] number of steps in the first 1, 2, ... shots; later columns repeat the last."""
    shots: np.ndarray
    """[P] number of shots."""
    group: np.ndarray
    """[G] first part of each task."""
    group_size: np.ndarray
    """[G] parts of each task."""
    recent: np.ndarray
    """[G] parts of each task, its last ones, that context is drawn from."""


class TaskReplay:
    """The last iterations of experience, by task."""

    def __init__(self, capacity: int, context_iterations: int) -> None:
        """capacity: iterations. context_iterations: newest iterations of a task that its context is drawn from."""
        self._replay, self._recent = Replay(capacity), context_iterations
        self._shot_ends: dict[str, np.ndarray] = {}
        self._parts = _parts([], [], context_iterations)

    def open(self, world: World) -> None:
        """Keep the data in the world's folder; see `Replay.open`."""
        self._replay.open(world)
        self._index()

    def add(self, trial: Trial) -> int:
        """Store the valid steps of a trial; returns their number."""
        keys = torch.tensor([trial_key(task.id, place) for place, task in enumerate(trial.tasks)])
        columns: list[Columns] = []
        for shot, rollout in enumerate(trial.rollouts):
            steps, tasks = transitions(rollout)
            columns.append({**steps, TASK: tasks, SHOT: torch.full_like(tasks, shot, dtype=torch.uint8)})
        whole = {name: torch.cat([part[name] for part in columns]) for name in columns[0]}
        tasks = keys[whole.pop(TASK).cpu()]
        self._replay.add(whole, tasks)
        self._index()
        return len(tasks)

    def _index(self) -> None:
        """Find where the steps of each task are; of a segment that is new, by reading it once."""
        segments, known = self._replay.segments, self._shot_ends
        self._shot_ends = {s.name: known[s.name] if s.name in known else _shot_ends(s) for s in segments}
        self._parts = _parts(segments, list(self._shot_ends.values()), self._recent)

    def sample(self, updates: int, tasks: int, steps: int, context: int, generator: torch.Generator) -> Iterator[Drawn]:
        """Draw transitions for gradient steps one after another, with replacement: tasks, then steps of each task.

        context: transitions of context of each task. ValueError if nothing is stored.
        """
        for begin in range(0, updates, AT_ONCE):
            count = min(AT_ONCE, updates - begin)
            drawn = self._draw(count * tasks, steps, context, generator)
            for u in range(count):
                own = slice(u * tasks, (u + 1) * tasks)
                yield Drawn(*({name: column[own] for name, column in part.items()} for part in drawn))

    def _draw(self, rows: int, steps: int, context: int, generator: torch.Generator) -> Drawn:
        """Draw this many tasks, and steps of each; columns [rows, steps or context, ...]."""
        parts = self._parts
        if not len(parts.group):
            raise ValueError("the replay buffer holds no steps to sample from")
        chosen = torch.randint(len(parts.group), (rows,), generator=generator).numpy()
        shares = torch.rand(rows, steps + context + 2, generator=generator, dtype=torch.float64).numpy()
        begin, size = parts.group[chosen], parts.group_size[chosen]
        low, high = parts.before[begin], parts.before[begin + size]
        place = low[:, None] + _floor(shares[:, :steps], (high - low)[:, None])
        part = np.searchsorted(parts.before, place, side="right") - 1
        index = parts.first[part] + place - parts.before[part]

        own = begin + size - 1 - _floor(shares[:, -1], parts.recent[chosen])
        earlier = np.maximum(parts.shots[own] - 1, 1)  # shots that a trial has before its last
        count = parts.by_shots[own, _floor(shares[:, -2], earlier)]
        count = np.where(count > 0, count, parts.by_shots[own, -1])  # all of these shots broke down
        context_index = parts.first[own][:, None] + _floor(shares[:, steps:-2], count[:, None])
        context_segment = np.broadcast_to(parts.segment[own][:, None], context_index.shape)
        segments = np.concatenate([parts.segment[part], context_segment], 1)
        read = self._read(segments, np.concatenate([index, context_index], 1))
        return Drawn(
            {name: column[:, :steps] for name, column in read.items()},
            {name: column[:, steps:] for name, column in read.items()},
        )

    def _read(self, segments: np.ndarray, index: np.ndarray) -> Columns:
        """Return the columns [R, S, ...] of the steps at these places [R, S], one segment after another."""
        stored = [segment.steps for segment in self._replay.segments]
        drawn = np.empty(segments.size, dtype=stored[0].dtype)
        flat, order = index.ravel(), np.argsort(segments, axis=None, kind="stable")
        ends = np.cumsum(np.bincount(segments.ravel(), minlength=len(stored)))
        for steps, begin, end in zip(stored, np.concatenate([[0], ends[:-1]]), ends, strict=True):
            places = order[begin:end]
            drawn[places] = steps[flat[places]]
        drawn = drawn.reshape(segments.shape)
        return tensors_of(drawn)

    def state_dict(self) -> dict[str, Any]:
        """See `Replay.state_dict`."""
        return self._replay.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Replay.load_state_dict`."""
        self._replay.load_state_dict(state)

    def __len__(self) -> int:
        """Return the number of steps stored."""
        return int(self._parts.before[-1])


def trial_key(name: str, place: int) -> int:
    """Return the whole number, 0 to 2^63 - 1, that stands for a trial in its iteration; `// PLACES` for its task.

    name: id of the task. place: number of the trial in its iteration, below PLACES.
    """
    digest = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1
    return digest // PLACES * PLACES + place


def _floor(shares: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return whole numbers from 0 to count - 1, for shares in [0, 1)."""
    return (shares * counts).astype(np.int64)


def _shot_ends(segment: Segment) -> np.ndarray:
    """Return the number of steps of each trial of a segment in the first 1, 2, ... shots, [trials, shots]."""
    shots = segment.steps[SHOT]
    counts = [np.add.reduceat(shots == shot, segment.first) for shot in range(int(shots.max()) + 1)]
    return np.cumsum(counts, axis=0).T


def _parts(segments: Sequence[Segment], shot_ends: Sequence[np.ndarray], recent: int) -> Parts:
    """Return where the steps of each trial are.

    shot_ends: those of each segment, as `_shot_ends` returns them. recent: newest iterations of a task for its context.
    """
    most = max((ends.shape[1] for ends in shot_ends), default=1)
    by_shots = [np.pad(ends, ((0, 0), (0, most - ends.shape[1])), mode="edge") for ends in shot_ends]
    places = [np.full(len(segment.first), place) for place, segment in enumerate(segments)]
    shots = [np.full(len(ends), ends.shape[1]) for ends in shot_ends]
    none = [np.empty(0, dtype=np.int64)]  # of nothing stored
    tasks = np.concatenate([none[0], *(segment.steps[TASK][segment.first] // PLACES for segment in segments)])
    order = np.argsort(tasks, kind="stable")
    counts = np.concatenate(none + [segment.counts for segment in segments])[order]
    segment = np.concatenate(none + places)[order]
    _, group, group_size = np.unique(tasks[order], return_index=True, return_counts=True)
    changed = np.diff(segment, prepend=-1) != 0
    changed[group] = True
    run = np.cumsum(changed)  # number of the (task, iteration) that a part is of
    ends = group + group_size
    begin = np.searchsorted(run, run[ends - 1] - recent + 1)
    return Parts(
        segment=segment,
        first=np.concatenate(none + [segment.first for segment in segments])[order],
        before=np.concatenate([[0], np.cumsum(counts)]),
        by_shots=np.concatenate([np.empty((0, most), dtype=np.int64), *by_shots])[order],
        shots=np.concatenate(none + shots)[order],
        group=group,
        group_size=group_size,
        recent=ends - np.maximum(begin, group),
    )
