"""Fetch's arm of gymnasium-robotics reaches a place that it is not told: each task is another place.

pip install gymnasium-robotics
metarl env check docs/fetch_reach.py:reach
metarl train --agent rl2 --env docs/fetch_reach.py:reach
"""

from __future__ import annotations

from typing import Any

import gymnasium
import gymnasium_robotics
import numpy as np
from gymnasium_robotics.utils import mujoco_utils

import metarl

RANGE = 0.15  # m, of the place from where the hand begins, as gymnasium-robotics has it


def mend() -> None:
    """Let gymnasium-robotics 1.4.2 find joints: it asks for their types in a way that MuJoCo 3.17 answers with no."""

    def reads(field: str) -> Any:
        return lambda model, data, name: getattr(data.joint(name), field).copy()

    def writes(field: str) -> Any:
        return lambda model, data, name, value: getattr(data.joint(name), field).__setitem__(slice(None), value)

    for field in ("qpos", "qvel"):
        setattr(mujoco_utils, f"get_joint_{field}", reads(field))
        setattr(mujoco_utils, f"set_joint_{field}", writes(field))


mend()
gymnasium.register_envs(gymnasium_robotics)


class HiddenPlace(gymnasium.Wrapper):
    """The place is the task's, and `info` says how far the hand is from it, m."""

    def set_task(self, task: dict[str, float]) -> None:
        """Choose the place by its distances from where the hand begins, m."""
        offset = np.array([task["x"], task["y"], task["z"]])
        env = self.unwrapped
        env._sample_goal = lambda: env.initial_gripper_xpos[:3] + offset

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step; the dense reward is minus the distance."""
        observation, reward, terminated, truncated, info = super().step(action)
        distance = np.linalg.norm(observation["achieved_goal"] - observation["desired_goal"])
        return observation, reward, terminated, truncated, {**info, "distance": distance}


def reach() -> metarl.GymTasks:
    """Return the tasks: the agent sees the hand, but not the place."""
    return metarl.GymTasks(
        make=lambda render_mode=None: HiddenPlace(gymnasium.make("FetchReachDense-v4", render_mode=render_mode)),
        parameters=tuple(metarl.quantity(name, -RANGE, RANGE, "m") for name in "xyz"),
        observe=("observation",),
        success=metarl.Info("is_success"),
        measures={"distance": metarl.Info("distance", "m", "mean")},
        description="Fetch reaches a place that it is not told",
    )
