"""Settings of every task family: its published variants.

Apart from the families, so that `metarl --help` need not import MuJoCo.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class PointGoalSettings:
    """Point goal (2D navigation): reach a goal on the plane that only the reward tells of (MAML 2017)."""

    goal_range: float = 0.5
    """Goals are uniform in the square [-goal_range, goal_range]^2, metres."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to 0.1 m a step."""
    horizon: int = 100
    """Steps an episode."""


@dataclass(frozen=True)
class HalfCheetahVelocitySettings:
    """HalfCheetah running at a target velocity: reward -|v - v*| - control cost."""

    velocity_low: float = 0.0
    """Lowest target velocity, m/s."""
    velocity_high: float = 2.0
    """Highest target velocity, m/s: 2 (MAML), 3 (PEARL, VariBAD), 7 (RoML)."""
    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]: 0.1 in MAML's and ProMP's code."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class HalfCheetahDirectionSettings:
    """HalfCheetah running forwards or backwards: reward g v - control cost."""

    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]: 0.1 in MAML's and ProMP's code."""
    horizon: int = 200
    """Steps an episode: 200 (MAML, PEARL, VariBAD), 100 (ProMP)."""


@dataclass(frozen=True)
class HalfCheetahMassSettings:
    """HalfCheetah with scaled body masses (RoML): reward v - control cost + torso height."""

    mass_exponent: float = 1.0
    """Every body's mass is multiplied by m = 2^U(-mass_exponent, mass_exponent)."""
    inertia: Literal["published", "consistent"] = "published"
    """published: inertias stay neutral while masses and radii change (RoML); consistent: inertias scale with mass."""
    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""


@dataclass(frozen=True)
class RobotSettings:
    """Your own robot: a model, and a YAML file that declares what varies; --robot and --family name the two."""

    model: str = field(default="", metadata={"file": True})
    """MJCF or URDF file, or a function that returns an MjSpec: file.py:function. Empty: the example, a crawler."""
    file: str = field(default="", metadata={"file": True})
    """YAML file with task and distribution. Empty: the example's."""
    horizon: int = -1
    """Steps an episode. -1: as the YAML file says."""


FamilySettings = (
    PointGoalSettings
    | HalfCheetahVelocitySettings
    | HalfCheetahDirectionSettings
    | HalfCheetahMassSettings
    | RobotSettings
)

FAMILY_SETTINGS: dict[str, type[FamilySettings]] = {
    "point_goal": PointGoalSettings,
    "half_cheetah_velocity": HalfCheetahVelocitySettings,
    "half_cheetah_direction": HalfCheetahDirectionSettings,
    "half_cheetah_mass": HalfCheetahMassSettings,
    "robot": RobotSettings,
}
"""Every family by name."""
