"""Settings of Ant's families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.envs.family_settings import FamilySettings
from metarl.envs.terrain.settings import TerrainSettings


@dataclass(frozen=True)
class AntDirectionSettings(FamilySettings):
    """Ant in a direction: reward g v - control cost - contact cost + survive (ProMP, PEARL)."""

    directions: Literal["1d", "2d"] = "1d"
    """1d: forwards or backwards; 2d: any direction on the plane."""
    control_cost: float = 0.5
    """Weight of the squared action, after clipping."""
    contact_cost: float = 0.0005
    """Weight of the squared contact forces, each element clipped to [-1, 1]."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""


@dataclass(frozen=True)
class AntGoalSettings(FamilySettings):
    """Ant to a goal on the plane: reward -distance - control cost - contact cost (ProMP, PEARL, VariBAD)."""

    goal_radius: float = 3.0
    """Goals are uniform in the disc of this radius around the start, m."""
    observe_contact: bool = True
    """Observe the clipped contact forces of every body: 113 observations as published, otherwise 29."""
    control_cost: float = 0.1
    """Weight of the squared action, after clipping."""
    contact_cost: float = 0.0005
    """Weight of the squared contact forces, each element clipped to [-1, 1]."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""


@dataclass(frozen=True)
class AntVelocitySettings(FamilySettings):
    """Ant at a target velocity: reward 1 - |v - v*| - control cost - contact cost + survive (MAML 2017)."""

    velocity_low: float = 0.0
    """Lowest target velocity, m/s."""
    velocity_high: float = 3.0
    """Highest target velocity, m/s."""
    control_cost: float = 0.005
    """Weight of the squared action, after clipping."""
    contact_cost: float = 0.0005
    """Weight of the squared contact forces, each element clipped to [-1, 1]."""
    survive: float = 0.05
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""


@dataclass(frozen=True)
class AntCrippledSettings(FamilySettings):
    """Ant with one leg that fails (Nagabandi 2019): reward v - control cost - contact cost + survive."""

    control_cost: float = 0.5
    """Weight of the squared action, after clipping."""
    contact_cost: float = 0.0005
    """Weight of the squared contact forces, each element clipped to [-1, 1]."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    changes: int = 0
    """Times that another leg fails instead while a task lasts. 0: never."""
    change_gap: tuple[int, int] = (100, 300)
    """Fewest and most control steps before each change, and between two."""


@dataclass(frozen=True)
class AntLimbsSettings(FamilySettings):
    """Ant with legs of other lengths and thicknesses: reward v - control cost - contact cost + survive."""

    limbs: Literal["each", "alike"] = "each"
    """each: every limb has its own length and thickness; alike: limbs of one kind have one."""
    length_range: float = 1.3
    """Lengths are logU(1 / length_range, length_range) times the neutral ones."""
    thickness_range: float = 1.3
    """Radii are logU(1 / thickness_range, thickness_range) times the neutral ones."""
    control_cost: float = 0.5
    """Weight of the squared action, after clipping."""
    contact_cost: float = 0.0005
    """Weight of the squared contact forces, each element clipped to [-1, 1]."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""


@dataclass(frozen=True)
class AntLegsSettings(FamilySettings):
    """Ant of 3 to 6 legs, one policy for all: reward v - control cost - contact cost + survive."""

    legs: tuple[int, ...] = (3, 4, 6)
    """Numbers of legs in training."""
    held_out_legs: tuple[int, ...] = (5,)
    """Numbers of legs of held-out tasks. Empty: those of training."""
    length_range: float = 1.3
    """Lengths of the legs are logU(1 / length_range, length_range) times the neutral ones."""
    control_cost: float = 0.5
    """Weight of the squared action, after clipping."""
    contact_cost: float = 0.0005
    """Weight of the squared contact forces, each element clipped to [-1, 1]."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""


@dataclass(frozen=True)
class AntTerrainSettings(TerrainSettings):
    """Ant running forwards on ground that it has to find out about: reward v - control - contact cost + survive."""

    promote_at: float = 300.0
    """Curriculum: mean return from which on a kind of ground goes up a level."""
    demote_at: float = 200.0
    """Curriculum: mean return below which it goes down a level."""
    ground_ahead: float = 14.0
    """Length of the ground ahead of the start, metres; an episode is cut a metre before its end."""
    ground_behind: float = 4.0
    """Length of the ground behind the start, metres."""
    ground_beside: float = 5.0
    """Width of the ground on either side of the start, metres."""
    control_cost: float = 0.5
    """Weight of the squared action, after clipping."""
    contact_cost: float = 0.0005
    """Weight of the squared contact forces, each element clipped to [-1, 1]."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
