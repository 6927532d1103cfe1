"""Steps of somebody's own Gymnasium environment as a family, against the same environments in a vector env alone."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np

import metarl
from benchmarks.physics import seconds
from metarl.envs import mujoco_log
from metarl.envs.batch import BatchedEnv
from metarl.envs.foreign.settings import EnvSettings
from metarl.envs.registry import make_family

TASKS, ENVS, STEPS, ROUNDS = 40, 1, 100, 7  # as many as the preset has


class Velocity(gymnasium.Wrapper):
    """HalfCheetah that is to run at the task's velocity."""

    target = 1.0

    def set_task(self, task: dict[str, float]) -> None:
        """Take the task's velocity, m/s."""
        self.target = task["target_velocity"]

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, -abs(info["x_velocity"] - self.target), terminated, truncated, info


def make() -> gymnasium.Env:
    with mujoco_log.silent():  # of the mass that the model says
        return Velocity(gymnasium.make("HalfCheetah-v5"))


def tasks() -> metarl.GymTasks:
    """Return the tasks; the processes of the environments call it, too."""
    return metarl.GymTasks(
        make=make,
        parameters=(metarl.quantity("target_velocity", 0, 3, "m/s"),),
        horizon=STEPS,
        measures={"speed": metarl.Info("x_velocity", "m/s", "mean")},
    )


def overhead(processes: int) -> list[float]:
    """Return our time of an episode over that of the vector env, in each round. processes: 1, against a vector env
    in one process too; 0, one a core, or -1, one an env, against one with a process for each env."""
    family = make_family(EnvSettings(f"{__file__}:tasks", processes=processes))
    ours = BatchedEnv(family, TASKS, ENVS, measuring=True)
    kind = gymnasium.vector.SyncVectorEnv if processes == 1 else gymnasium.vector.AsyncVectorEnv
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = kind([make] * (TASKS * ENVS))
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, TASKS, ENVS, 6))
    flat = actions.reshape(STEPS, TASKS * ENVS, 6).astype(np.float32)
    ratios = []
    for _ in range(ROUNDS):
        ours.reset([np.random.default_rng(m) for m in range(TASKS)])
        theirs.reset(seed=0)
        alone = seconds(lambda: [theirs.step(action) for action in flat])
        ratios.append(seconds(lambda: [ours.step(action) for action in actions]) / alone)
    theirs.close()
    return ratios


if __name__ == "__main__":
    for processes in (1, 0, -1):
        found = overhead(processes)
        print(processes, round(float(np.median(found)), 3), [round(r, 3) for r in found])
