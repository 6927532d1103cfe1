"""Settings of the point's family."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.bounds import bounded
from metarl.envs.family_settings import FamilySettings


@dataclass(frozen=True)
class PointGoalSettings(FamilySettings):
    """Point goal (2D navigation): reach a goal on the plane that only the reward tells of (MAML 2017)."""

    goal_range: float = bounded(0.5, above=0)
    """Goals are uniform in the square [-goal_range, goal_range]^2, metres."""
    action_scale: float = bounded(1.0, above=0)
    """Factor on the policy's action before it is clipped to 0.1 m a step."""
    horizon: int = 100
