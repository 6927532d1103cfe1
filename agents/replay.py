"""A replay buffer on disk: one file an iteration, beside the checkpoints, which name the files and do not copy them.

A segment is a NumPy file with one record a step; sampling maps it into memory and reads only the records drawn. The
file's name contains a digest of its content, so a file that a checkpoint names is never replaced by another.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarl.agents.agent import Rollout
from metarl.agents.learning import World

NAME = re.compile(r"segment_[0-9]{6,12}_[0-9a-f]{16}\.npy")
"""Name of a segment's file: its number, and a digest of its content."""
TASK = "task"
"""Name of the field with the index of the step's task in its iteration."""

DAMAGED = "a segment of the replay buffer, is damaged"
REMEDY = "restore the file, or start a new run"


class Segment(NamedTuple):
    """The steps of one iteration, in the order of their tasks."""

    name: str
    """Name of its file."""
    steps: np.ndarray
    """[steps] structured: one field a column; mapped from the file."""
    first: np.ndarray
    """[tasks] index of the first step of each task that has steps."""
    counts: np.ndarray
    """[tasks] number of steps of each."""


class Replay:
    """The last `capacity` iterations of experience."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"the replay buffer's capacity must be at least 1 iteration, got {capacity}")
        self.capacity = capacity
        self._number = 0
        self._names: list[str] = []
        self._segments: list[Segment] = []
        self._world: World | None = None

    def __len__(self) -> int:
        """Return the number of iterations stored."""
        return len(self._names)

    @property
    def segments(self) -> Sequence[Segment]:
        """Segments stored, oldest first."""
        return self._segments

    def open(self, world: World) -> None:
        """Keep the segments in the world's folder from now on, and map those that `load_state_dict` named.

        ValueError if one of them is missing or damaged.
        """
        self._world = world
        self._segments = [_mapped(world.folder / name) for name in self._names]
        for segment in self._segments:
            if _digest(segment.steps) not in segment.name:
                raise ValueError(f"{world.folder / segment.name}, {DAMAGED}; {REMEDY}")

    def add(self, columns: Mapping[str, Tensor], tasks: Tensor) -> None:
        """Write an iteration's steps as a segment, and drop the oldest one beyond the capacity.

        columns: one value [S, ...] a step by name. tasks: [S] index of each step's task, in any order.
        """
        if self._world is None:
            raise ValueError("open the replay buffer in a world before adding to it")
        if not len(tasks):  # every simulation was flagged
            return
        order = torch.argsort(tasks, stable=True)
        values = {TASK: tasks, **columns}
        arrays = {name: value[order.to(value.device)].cpu().numpy() for name, value in values.items()}
        steps = np.empty(len(order), dtype=[(name, x.dtype.str, x.shape[1:]) for name, x in arrays.items()])
        for name, array in arrays.items():
            steps[name] = array
        self._number += 1
        name = f"segment_{self._number:06d}_{_digest(steps)}.npy"
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(steps))
        self._world.write(name, (header.getvalue(), steps.view(np.uint8).data))
        self._names = [*self._names, name][-self.capacity :]
        self._segments = [*self._segments, _mapped(self._world.folder / name)][-self.capacity :]

    def sample(self, tasks: int, steps: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw tasks uniformly from all iterations, and steps uniformly from each task, both with replacement.

        Returns the columns by name, [tasks, steps, ...]. ValueError if nothing is stored.
        """
        ends = np.cumsum([len(segment.counts) for segment in self._segments])
        if not len(ends) or not ends[-1]:
            raise ValueError("the replay buffer holds no steps to sample from")
        chosen = torch.randint(int(ends[-1]), (tasks,), generator=generator).numpy()
        shares = torch.rand(tasks, steps, generator=generator, dtype=torch.float64).numpy()
        places = np.searchsorted(ends, chosen, side="right")
        drawn = np.empty((tasks, steps), dtype=self._segments[0].steps.dtype)
        for k in np.unique(places):
            segment, own = self._segments[k], places == k
            m = chosen[own] - (ends[k] - len(segment.counts))
            index = segment.first[m][:, None] + (shares[own] * segment.counts[m][:, None]).astype(np.int64)
            drawn[own] = segment.steps[index]
        return tensors_of(drawn)

    def state_dict(self) -> dict[str, Any]:
        """Return the names of the segments, which keep their files as long as a kept checkpoint contains them."""
        return {"number": self._number, "segments": list(self._names)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the files are read by `open`. ValueError for anything else."""
        names, number = state["segments"], state["number"]
        if type(number) is not int or not isinstance(names, list) or len(names) > number:
            raise ValueError("the state of the replay buffer is not one that it wrote")
        for name in names:
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise ValueError(f"the replay buffer's segment {name!r} is not named as it names them")
        self._number, self._names, self._segments = number, names[-self.capacity :], []


def tensors_of(steps: np.ndarray) -> dict[str, Tensor]:
    """Return the fields of steps [...] as tensors [..., *shape], copied to torch's memory: see `tanh.of_array`."""
    return {name: torch.from_numpy(np.ascontiguousarray(steps[name])).clone() for name in steps.dtype.names or ()}


def columns_of(rollout: Rollout) -> dict[str, Tensor]:
    """Return a rollout's steps as columns, [T, M, N, ...]; where `valid` is False they mean nothing.

    The columns are `observations`, `actions`, `rewards`, `terminated` and `next_observations`.
    """
    columns = {name: getattr(rollout, name) for name in ("observations", "actions", "rewards", "terminated")}
    if rollout.next_observations is not None:
        return {**columns, "next_observations": rollout.next_observations}
    following = torch.cat([rollout.observations[1:], rollout.final_observations[None]])
    is_last = torch.cat([~rollout.valid[1:], torch.ones_like(rollout.valid[:1])]).unsqueeze(-1)
    return {**columns, "next_observations": torch.where(is_last, rollout.final_observations, following)}


def transitions(rollout: Rollout) -> tuple[dict[str, Tensor], Tensor]:
    """Return a rollout's valid steps as columns for `Replay.add`, [S, ...], see `columns_of`; and their tasks."""
    valid = rollout.valid
    tasks = torch.arange(valid.shape[1], device=valid.device)[None, :, None].expand(valid.shape)
    return {name: value[valid] for name, value in columns_of(rollout).items()}, tasks[valid]


def _digest(steps: np.ndarray) -> str:
    found = hashlib.sha256(repr(steps.dtype.descr).encode())
    found.update(np.ascontiguousarray(steps).view(np.uint8).data)
    return found.hexdigest()[:16]


def _mapped(path: Path) -> Segment:
    """Map a segment's file into memory; ValueError if it is missing or no segment."""
    try:
        steps = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path}, a segment of the replay buffer, is missing; {REMEDY}") from None
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}, {DAMAGED}; {REMEDY}") from error
    if not isinstance(steps, np.ndarray) or steps.ndim != 1 or TASK not in (steps.dtype.names or ()):
        raise ValueError(f"{path}, {DAMAGED}; {REMEDY}")
    _, first, counts = np.unique(steps[TASK], return_index=True, return_counts=True)
    return Segment(path.name, steps, first, counts)
