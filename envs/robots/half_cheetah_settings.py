"""Settings of HalfCheetah's families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.envs.family_settings import FamilySettings
from metarl.envs.terrain.settings import TerrainSettings


@dataclass(frozen=True)
class HalfCheetahVelocitySettings(FamilySettings):
    """HalfCheetah running at a target velocity: reward -|v - v*| - control cost."""

    velocity_low: float = 0.0
    """Lowest target velocity, m/s."""
    velocity_high: float = 2.0
    """Highest target velocity, m/s: 2 (MAML), 3 (PEARL, VariBAD), 7 (RoML)."""
    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]: 0.1 in MAML's and ProMP's code."""


@dataclass(frozen=True)
class HalfCheetahDirectionSettings(FamilySettings):
    """HalfCheetah running forwards or backwards: reward g v - control cost."""

    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]: 0.1 in MAML's and ProMP's code."""
    horizon: int = 200
    """Steps an episode: 200 (MAML, PEARL, VariBAD), 100 (ProMP)."""


@dataclass(frozen=True)
class HalfCheetahMassSettings(FamilySettings):
    """HalfCheetah with scaled body masses (RoML): reward v - control cost + torso height."""

    mass_exponent: float = 1.0
    """Every body's mass is multiplied by m = 2^U(-mass_exponent, mass_exponent)."""
    inertia: Literal["published", "consistent"] = "published"
    """published: inertias stay neutral while masses and radii change (RoML); consistent: inertias scale with mass."""
    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    changes: int = 0
    """Times that the mass becomes another while a task lasts. 0: never."""
    change_gap: tuple[int, int] = (100, 300)
    """Fewest and most control steps before each change, and between two."""


@dataclass(frozen=True)
class HalfCheetahDisabledJointSettings(FamilySettings):
    """HalfCheetah with one motor that fails (Nagabandi 2019): reward v - control cost."""

    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    changes: int = 0
    """Times that another motor fails instead while a task lasts. 0: never."""
    change_gap: tuple[int, int] = (100, 300)
    """Fewest and most control steps before each change, and between two."""


@dataclass(frozen=True)
class HalfCheetahBodySettings(FamilySettings):
    """HalfCheetah with body parts of other sizes, gym-extensions has .75 and 1.25: reward v - control cost."""

    size_range: float = 0.25
    """Radius and length of each part are U(1 - size_range, 1 + size_range) times the neutral ones."""
    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""


@dataclass(frozen=True)
class HalfCheetahLimbsSettings(FamilySettings):
    """HalfCheetah with legs of other lengths and thicknesses: reward v - control cost."""

    limbs: Literal["each", "alike"] = "each"
    """each: every limb has its own length and thickness; alike: limbs of one kind have one."""
    length_range: float = 1.3
    """Lengths are logU(1 / length_range, length_range) times the neutral ones."""
    thickness_range: float = 1.3
    """Radii are logU(1 / thickness_range, thickness_range) times the neutral ones."""
    control_cost: float = 0.05
    """Weight of the squared action, after clipping."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""


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
