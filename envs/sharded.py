"""M tasks x N envs as shards: batches of consecutive tasks, or of the tasks of one layout."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from metarl.envs.arrays import Array, namespace
from metarl.envs.batch import BatchedEnv, StepResult, own_simulator
from metarl.envs.family import TaskFamily
from metarl.envs.simulation import CPU, Simulator
from metarl.envs.task import Task

Thing = TypeVar("Thing")


class ShardedEnv:
    """Shards, each a batch that can be stepped at its own pace; all together can be stepped as one env."""

    def __init__(
        self,
        family: TaskFamily,
        num_tasks: int,
        envs_per_task: int,
        threads: int = 0,
        at_once: int | None = None,
        batch: type[BatchedEnv] = BatchedEnv,
        measuring: bool = False,
        simulator: Simulator = CPU,
        telling: bool = False,
    ):
        """threads: threads of the simulation; 0 takes all cores. at_once: shards that share them, and that tasks of one
        layout are divided into; None: as many as the simulator is fastest with. batch: class of a shard. measuring,
        telling: as of a batch."""
        if num_tasks < 1:
            raise ValueError(f"need at least 1 task, got {num_tasks}")
        threads, simulator = threads or len(os.sched_getaffinity(0)), own_simulator(family, simulator)
        at_once = simulator.shards_of(num_tasks, envs_per_task) if at_once is None else at_once
        self.family = family
        self.num_tasks = num_tasks
        self.envs_per_task = envs_per_task
        self.workers = min(threads, at_once)
        """Shards to step at the same time."""
        self._at_once = at_once
        self._batch = batch
        self._measuring, self._telling = measuring, telling
        self._simulator = simulator
        self._threads = -(-threads // at_once)
        self._layouts: list[tuple[dict[str, float], int]] = []
        self._past_faults = 0
        self._past_overflows: Counter[str] = Counter()
        self.shards: list[BatchedEnv] = []
        self.indices: list[Array] = []
        """Places of each shard's tasks among all tasks."""
        self.set_tasks([family.neutral()] * num_tasks)

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Compile one model per task and take it up. Reset every env before the next step."""
        if len(tasks) != self.num_tasks:
            raise ValueError(f"this env holds {self.num_tasks} tasks, got {len(tasks)}")
        self.tasks = [self.family.own(task) for task in tasks]
        layouts = [self.family.layout_of(task) for task in self.tasks]
        kinds = [layout for i, layout in enumerate(layouts) if layout not in layouts[:i]]
        self.indices = [np.flatnonzero([layout == kind for layout in layouts]) for kind in kinds]
        if len(kinds) == 1:
            self.indices = np.array_split(self.indices[0], min(self._at_once, self.num_tasks))
        needed = [(layouts[index[0]], len(index)) for index in self.indices]
        if needed != self._layouts:
            self._past_faults, self._past_overflows = self.num_faults, self._overflows()
            self._layouts = needed
            self.shards = [
                self._batch(
                    self.family,
                    len(index),
                    self.envs_per_task,
                    self._threads,
                    like=self.tasks[index[0]],
                    measuring=self._measuring,
                    simulator=self._simulator,
                    telling=self._telling,
                )
                for index in self.indices
            ]
        for shard, own in zip(self.shards, self.deal(self.tasks), strict=True):
            shard.set_tasks(own)

    def deal(self, things: Sequence[Thing]) -> list[list[Thing]]:
        """Split a sequence with one thing per task into one sequence per shard."""
        if len(things) != self.num_tasks:
            raise ValueError(f"this env holds {self.num_tasks} tasks, got {len(things)}")
        return [[things[i] for i in index] for index in self.indices]

    @property
    def order(self) -> Array:
        """Place of each task in the sequence of all shards' tasks, [M]."""
        return np.argsort(np.concatenate(self.indices))

    @property
    def num_faults(self) -> int:
        """Number of simulations that broke down since this env was made."""
        return self._past_faults + sum(shard.num_faults for shard in self.shards)

    @property
    def overflows(self) -> dict[str, int]:
        """Sum of `Simulation.overflows` since this env was made."""
        return dict(self._overflows())

    def _overflows(self) -> Counter[str]:
        return sum((Counter(shard.simulation.overflows()) for shard in self.shards), self._past_overflows)

    @property
    def active(self) -> Array:
        """Whether an episode is running, [M, N] bool."""
        return self._gather([shard.active for shard in self.shards])

    @property
    def term_sums(self) -> dict[str, Array]:
        """Each weighted reward term summed over the running episode, by name, [M, N]."""
        return {
            name: self._gather([s.term_sums[name].reshape(-1, self.envs_per_task) for s in self.shards])
            for name in self.family.rewards
        }

    def reset(
        self, rngs: Sequence[np.random.Generator], envs: Array | None = None, trials: Array | None = None
    ) -> Array:
        """Reset all shards, one after another, as `BatchedEnv.reset` does."""
        everything = np.ones((self.num_tasks, self.envs_per_task), dtype=bool)
        chosen = everything if envs is None else envs
        anew = ~everything if trials is None else trials
        jobs = zip(self.shards, self.deal(rngs), self.indices, strict=True)
        return self._gather([shard.reset(own, chosen[index], anew[index]) for shard, own, index in jobs])

    def revive(self, rngs: Sequence[np.random.Generator]) -> Array:
        """Place the robots anew that fell, as `BatchedEnv.revive` does, by one generator a task.

        Returns which, [M, N] bool.
        """
        fallen = []
        for shard, own in zip(self.shards, self.deal(rngs), strict=True):
            none = np.zeros((shard.num_tasks, shard.envs_per_task), dtype=bool)
            placed = shard.revive(lambda s, own=own: own[s // self.envs_per_task])
            fallen.append(none if placed is None else placed)
        return self._gather(fallen)

    @property
    def observations(self) -> Array:
        """Observations of all envs, [M, N, obs] float32."""
        return self._gather([shard.observations for shard in self.shards])

    def step(self, actions: Array) -> StepResult:
        """Step all shards, one after another, as `BatchedEnv.step` does."""
        results = [shard.step(actions[index]) for shard, index in zip(self.shards, self.indices, strict=True)]
        return StepResult(*(self._gather(parts) for parts in zip(*results, strict=True)))

    def _gather(self, parts: Sequence[Array]) -> Array:
        return namespace(parts[0]).concat(parts)[self.order]
