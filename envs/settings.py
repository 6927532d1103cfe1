"""Settings of every task family: its published variants.

Apart from the families, so that `metarl --help` need not import MuJoCo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TerrainKind = Literal[
    "flat", "slope", "stairs_up", "stairs_down", "rough", "waves", "obstacles", "stepping_stones", "gaps"
]


@dataclass(frozen=True)
class TerrainSettings:
    """The ground of a family on terrain."""

    kinds: tuple[TerrainKind, ...] = ("flat", "slope", "stairs_up", "stairs_down", "rough", "waves", "obstacles")
    """Kinds of ground in training and in its held-out tasks."""
    proportions: tuple[float, ...] = ()
    """How often each of the kinds is drawn, relative to the others. Empty: equally often."""
    ood_kinds: tuple[TerrainKind, ...] = ("stepping_stones", "gaps")
    """Kinds that are never trained on: those of the split `ood`."""
    difficulty_low: float = 0.0
    """Lowest difficulty, in [0, 1]."""
    difficulty_high: float = 1.0
    """Highest difficulty, in [0, 1]."""
    height_scan: bool = False
    """Whether heights of the ground around the robot are observed."""
    promote_at: float = 200.0
    """Curriculum: mean return from which on a kind of ground goes up a level."""
    demote_at: float = 50.0
    """Curriculum: mean return below which it goes down a level."""


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
class HalfCheetahTerrainSettings(TerrainSettings):
    """HalfCheetah running forwards on ground that it has to find out about: reward v - control cost."""

    ground_ahead: float = 80.0
    """Length of the ground ahead of the start, metres; an episode is cut a metre before its end."""
    ground_behind: float = 20.0
    """Length of the ground behind the start, metres."""
    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 200
    """Steps an episode."""


FamilySettings = (
    PointGoalSettings
    | HalfCheetahVelocitySettings
    | HalfCheetahDirectionSettings
    | HalfCheetahMassSettings
    | HalfCheetahTerrainSettings
)

FAMILY_SETTINGS: dict[str, type[FamilySettings]] = {
    "point_goal": PointGoalSettings,
    "half_cheetah_velocity": HalfCheetahVelocitySettings,
    "half_cheetah_direction": HalfCheetahDirectionSettings,
    "half_cheetah_mass": HalfCheetahMassSettings,
    "half_cheetah_terrain": HalfCheetahTerrainSettings,
}
"""Every family by name."""
