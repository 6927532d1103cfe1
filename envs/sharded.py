"""M tasks x N envs that step in shards, each at its own pace."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import Task, TaskFamily

SHARDS = 2
"""While one shard's policy and rewards are computed, another's physics runs; the same on every machine."""


class ShardedEnv:
    """Shards of consecutive tasks, each its own batch: none waits for another before the end of its trial."""

    def __init__(self, family: TaskFamily, num_tasks: int, envs_per_task: int, threads: int = 0):
        """threads: of the simulation, shared by the shards; 0 takes all cores."""
        if num_tasks < 1:
            raise ValueError(f"need at least 1 task, got {num_tasks}")
        threads = threads or len(os.sched_getaffinity(0))
        sizes = [len(part) for part in np.array_split(np.arange(num_tasks), min(SHARDS, num_tasks))]
        self.family = family
        self.num_tasks = num_tasks
        self.envs_per_task = envs_per_task
        self.workers = min(threads, len(sizes))
        """Shards that step at the same time."""
        self.shards = [BatchedEnv(family, size, envs_per_task, -(-threads // len(sizes))) for size in sizes]

    def deal(self, things: Sequence) -> list[Sequence]:
        """A sequence of one thing a task, as one a shard."""
        if len(things) != self.num_tasks:
            raise ValueError(f"this env holds {self.num_tasks} tasks, got {len(things)}")
        ends = np.cumsum([shard.num_tasks for shard in self.shards])
        return [things[end - shard.num_tasks : end] for end, shard in zip(ends, self.shards, strict=True)]

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Compile and take up one model a task."""
        for shard, own in zip(self.shards, self.deal(tasks), strict=True):
            shard.set_tasks(own)

    @property
    def tasks(self) -> list[Task]:
        """The task of each index."""
        return [task for shard in self.shards for task in shard.tasks]

    @property
    def num_faults(self) -> int:
        """Simulations that MuJoCo flagged since this env was made."""
        return sum(shard.num_faults for shard in self.shards)
