"""The example of a Gymnasium environment that an empty `family.source` stands for: a pendulum of unknown mass."""

from __future__ import annotations

from typing import Any

import gymnasium

from metarl.envs.foreign.tasks import GymTasks, Info, quantity

UPRIGHT = 0.95
"""Cosine of the angle from which the pendulum counts as upright, 18 degrees."""


class Upright(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Tells in `info` whether the pendulum is upright."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {**info, "upright": observation[0] > UPRIGHT}


def set_pendulum(env: gymnasium.Env[Any, Any], task: dict[str, float]) -> None:
    """Set mass, kg, and length, m, of Gymnasium's pendulum."""
    pendulum: Any = env.unwrapped
    pendulum.m, pendulum.l = task["mass"], task["length"]


def pendulum() -> GymTasks:
    """Swing a pendulum up that has another mass and length in each task."""
    return GymTasks(
        make=lambda render_mode=None: Upright(gymnasium.make("Pendulum-v1", render_mode=render_mode)),
        parameters=(quantity("mass", 0.5, 2.0, "kg", log=True), quantity("length", 0.7, 1.4, "m", log=True)),
        apply=set_pendulum,
        success=Info("upright"),
        description="swing up a pendulum whose mass and length are not told",
    )
