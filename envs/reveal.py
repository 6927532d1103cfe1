"""A family whose observations carry the task's parameters: what an oracle sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from metarl.envs.family import Array, State, Task, TaskFamily


def reveal(family: TaskFamily) -> TaskFamily:
    """The family with the value of every parameter at the end of the observation; its tasks are the same.

    Of a task that changes, it is the value at the time.
    """
    names = tuple(p.name for p in family.parameters)

    def observe(state: State) -> Array:
        values = state.xp.stack([state.task[name] for name in names], axis=1)
        return state.xp.concat([family.observe(state), values], axis=1)

    shown = tuple(f"task_{p.name} [{p.unit}]" for p in family.parameters)
    return dataclasses.replace(family, observe=observe, observation_names=family.observation_names + shown)


def told(family: TaskFamily, tasks: Sequence[Task]) -> Array:
    """Return what `reveal` adds to the observation of each task as it begins, [M, P] float32."""
    values = [[task.values[p.name] for p in family.parameters] for task in tasks]
    return np.array(values, dtype=np.float32).reshape(len(tasks), len(family.parameters))
