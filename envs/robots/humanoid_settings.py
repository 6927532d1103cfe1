"""Settings of Humanoid's family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.envs.family_settings import LocomotionSettings, SurvivalSettings


@dataclass(frozen=True)
class HumanoidDirectionSettings(LocomotionSettings, SurvivalSettings):
    """Humanoid in a direction: reward 1.25 g v - control cost - contact cost + survive (PEARL, VariBAD)."""

    observation: Literal["gymnasium", "published", "posture"] = "gymnasium"
    """gymnasium: 348 elements as Humanoid-v5; published: 376, of which 28 more are constant; posture: 45."""
    control_cost: float = 0.1
    survive: float = 5.0
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-0.4, 0.4]."""
