"""Environments that `benchmarks.foreign` times; their processes import this file, so it imports little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium

import metarl
from metarl.envs import code, mujoco_log

STEPS = 50
"""Steps of an episode: as many as Fetch's arm has."""
TARGETS = (metarl.quantity("target_velocity", 0, 3, "m/s"),)


class Velocity(gymnasium.Wrapper[Any, Any, Any, Any]):
    """HalfCheetah that is to run at the task's velocity."""

    target = 1.0

    def set_task(self, task: dict[str, float]) -> None:
        """Take the task's velocity, m/s."""
        self.target = task["target_velocity"]

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, -abs(info["x_velocity"] - self.target), terminated, truncated, info


def make_cheetah() -> gymnasium.Env[Any, Any]:
    with mujoco_log.silent():  # of the mass that the model says
        return Velocity(gymnasium.make("HalfCheetah-v5"))


def make_reach() -> gymnasium.Env[Any, Any]:
    return reach().make()


def cheetah() -> metarl.GymTasks:
    """Return tasks of HalfCheetah; its step takes about 0.05 ms."""
    speed = metarl.Info("x_velocity", "m/s", "mean")
    return metarl.GymTasks(make_cheetah, TARGETS, horizon=STEPS, measures={"speed": speed})


def reach() -> metarl.GymTasks:
    """Return the tasks of docs/ for Fetch's arm; its step takes about 0.5 ms."""
    return code.load(f"{Path(__file__).parents[1] / 'docs' / 'fetch_reach.py'}:reach")()
