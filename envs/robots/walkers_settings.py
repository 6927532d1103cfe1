"""Settings of the families of Hopper and Walker2d."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.envs.family_settings import FamilySettings
from metarl.envs.terrain.settings import TerrainSettings


@dataclass(frozen=True)
class HopperParametersSettings(FamilySettings):
    """Hopper with random masses, damping and friction (rand_param_envs): reward v + survive - control cost."""

    exponent: float = 3.0
    """Masses and frictions are 1.5^U(-exponent, exponent) times the neutral ones, dampings 1.3^U."""
    timestep: float = 0.004
    """Simulation step, s: 0.004 (rand_param_envs), 0.002 (Gymnasium); a control step is 4 of them."""
    control_cost: float = 0.001
    """Weight of the squared action, after clipping."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""


@dataclass(frozen=True)
class Walker2dParametersSettings(FamilySettings):
    """Walker2d with random masses, damping and friction (rand_param_envs): reward v + survive - control cost."""

    exponent: float = 3.0
    """Masses and frictions are 1.5^U(-exponent, exponent) times the neutral ones, dampings 1.3^U."""
    timestep: float = 0.004
    """Simulation step, s: 0.004 (rand_param_envs), 0.002 (Gymnasium); a control step is 4 of them."""
    control_cost: float = 0.001
    """Weight of the squared action, after clipping."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""


@dataclass(frozen=True)
class Walker2dLimbsSettings(FamilySettings):
    """Walker2d with legs of other lengths and thicknesses: reward v + survive - control cost."""

    limbs: Literal["each", "alike"] = "each"
    """each: every limb has its own length and thickness; alike: limbs of one kind have one."""
    length_range: float = 1.3
    """Lengths are logU(1 / length_range, length_range) times the neutral ones."""
    thickness_range: float = 1.3
    """Radii are logU(1 / thickness_range, thickness_range) times the neutral ones."""
    timestep: float = 0.002
    """Simulation step, s: 0.004 (rand_param_envs), 0.002 (Gymnasium); a control step is 4 of them."""
    control_cost: float = 0.001
    """Weight of the squared action, after clipping."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""


@dataclass(frozen=True)
class Walker2dTerrainSettings(TerrainSettings):
    """Walker2d running forwards on ground that it has to find out about: reward v + survive - control cost."""

    promote_at: float = 300.0
    """Curriculum: mean return from which on a kind of ground goes up a level."""
    demote_at: float = 150.0
    """Curriculum: mean return below which it goes down a level."""
    ground_ahead: float = 30.0
    """Length of the ground ahead of the start, metres; an episode is cut a metre before its end."""
    ground_behind: float = 10.0
    """Length of the ground behind the start, metres."""
    timestep: float = 0.002
    """Simulation step, s; a control step is 4 of them."""
    control_cost: float = 0.001
    """Weight of the squared action, after clipping."""
    survive: float = 1.0
    """Reward of every step of the episode."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to [-1, 1]."""
    horizon: int = 500
    """Steps an episode."""
