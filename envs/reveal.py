"""Families whose observation includes the task's parameters, for an oracle."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.family import TaskFamily
from metarl.envs.task import Task
from metarl.envs.terms import Element, ObservationTerm


def reveal(family: TaskFamily) -> TaskFamily:
    """Return the family with the value of every parameter at the end of the observation; its tasks are the same.

    The values of a task that changes are the current ones.
    """
    shown = ObservationTerm(
        lambda state: state.xp.stack([state.task[p.name] for p in family.parameters], axis=1),
        tuple(Element(f"task_{p.name}", p.unit) for p in family.parameters),
    )
    return dataclasses.replace(family, observation={**family.observation, "task": shown})


def told(family: TaskFamily, tasks: Sequence[Task]) -> Array:
    """Return what `reveal` adds to the observation of each task as it begins, [M, P] float32."""
    values = [[task.values[p.name] for p in family.parameters] for task in tasks]
    return np.array(values, dtype=np.float32).reshape(len(tasks), len(family.parameters))
