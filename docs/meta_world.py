"""Meta-World's ML1 (reach) and ML10: manipulation tasks whose goals are hidden; ML10's test tasks are other skills.

pip install --no-deps metaworld && pip install scipy imageio
metarl env check docs/meta_world.py:ml1_reach
metarl train --agent rl2 --env docs/meta_world.py:ml10
"""

from __future__ import annotations

from typing import Any

import metaworld
import mujoco
import numpy as np
from metaworld.sawyer_xyz_env import SawyerMocapBase

import metarl

WELD = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)


def reset_mocap_welds(self: Any) -> None:
    """Weld the hand to the target of its motion. Meta-World 3.1.1 writes 11 numbers, and MuJoCo 3.17 has 12."""
    for weld in np.flatnonzero(self.model.eq_type == int(mujoco.mjtEq.mjEQ_WELD)):
        self.model.eq_data[weld, : len(WELD)] = WELD


SawyerMocapBase.reset_mocap_welds = reset_mocap_welds


def tasks_of(benchmark: metaworld.Benchmark) -> metarl.GymTasks:
    """Return the tasks of a benchmark. They are drawn by its seed: every process must get the same ones."""
    classes = {**benchmark.train_classes, **benchmark.test_classes}
    return metarl.GymTasks(
        make=lambda kind, render_mode=None: classes[kind](render_mode=render_mode),
        kind=lambda task: task.env_name,
        tasks={"train": benchmark.train_tasks, "held_out": benchmark.test_tasks},
        horizon=500,
        success=metarl.Info("success", reduce="max"),
    )


def ml1_reach() -> metarl.GymTasks:
    """ML1: reach places that differ."""
    return tasks_of(metaworld.ML1("reach-v3", seed=42))


def ml10() -> metarl.GymTasks:
    """ML10: ten skills to learn from, five others to adapt to."""
    return tasks_of(metaworld.ML10(seed=42))
