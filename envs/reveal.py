"""Families whose observation includes the task's parameters, for an oracle."""

from __future__ import annotations

import dataclasses

from metarl.envs.family import TaskFamily
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
