"""Curriculum: training tasks grow harder where the agent does well, and easier where it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.family import TaskFamily
from metarl.envs.task import Task

REVISIT = 0.5
"""Share of the tasks that are drawn from any level reached so far, so that easy tasks are not forgotten."""


class Curriculum:
    """A level of difficulty for each value of one parameter, such as each kind of ground.

    The family's training range of the difficulty is divided by its quantiles into equal levels; a group starts on the
    lowest. Within a level, tasks are drawn from the training split alone.
    """

    def __init__(self, family: TaskFamily):
        """Raise ValueError if the family has no rule."""
        if family.curriculum is None:
            raise ValueError(f"family {family.name!r} has no curriculum: nothing says what its difficulty is")
        self.family = family
        self.rule = family.curriculum
        self._difficulty = next(p for p in family.parameters if p.name == self.rule.difficulty)
        self._bounds = [
            self._difficulty.distribution.quantile(k / self.rule.levels) for k in range(1, self.rule.levels)
        ]  # between neighbouring levels
        self.levels: dict[float, int] = {}
        """The highest level reached, 0 to rule.levels - 1, of each group drawn so far."""

    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        """Draw training tasks: half of them on their group's level, half on any level up to it."""
        return [self._place(task, rng) for task in self.family.sample(num_tasks, rng, "train")]

    def _place(self, task: Task, rng: np.random.Generator) -> Task:
        level = self.levels.setdefault(task.values[self.rule.group], 0)
        if rng.random() < REVISIT:
            level = int(rng.integers(level + 1))
        within = (level / self.rule.levels, (level + 1) / self.rule.levels)
        difficulty = self._difficulty.sample(rng, "train", within)
        return dataclasses.replace(task, values={**task.values, self.rule.difficulty: difficulty})

    def update(self, tasks: Sequence[Task], scores: Array) -> None:
        """Move each group by at most one level, by the mean score [M] of its tasks on its level.

        Scores that are not finite, of tasks whose every episode was faulted, do not count.
        """
        groups = np.array([task.values[self.rule.group] for task in tasks])
        levels = np.searchsorted(self._bounds, [task.values[self.rule.difficulty] for task in tasks], side="right")
        for group, level in self.levels.items():
            counted = scores[(groups == group) & (levels == level) & np.isfinite(scores)]
            if counted.size == 0:
                continue
            if counted.mean() >= self.rule.promote_at:
                self.levels[group] = min(level + 1, self.rule.levels - 1)
            elif counted.mean() < self.rule.demote_at:
                self.levels[group] = max(level - 1, 0)

    def metrics(self) -> dict[str, float]:
        """Return each group's level as a share of the highest, by name."""
        top = max(self.rule.levels - 1, 1)
        return {self.rule.name(group): level / top for group, level in sorted(self.levels.items())}

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain types, for `load_state_dict`."""
        return {"levels": dict(self.levels)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of `state_dict`; ValueError for levels that do not exist."""
        levels = {float(group): int(level) for group, level in state["levels"].items()}
        if not all(0 <= level < self.rule.levels for level in levels.values()):
            raise ValueError(f"its levels are not all from 0 to {self.rule.levels - 1}")
        self.levels = levels
