"""Settings of the families of Hopper and Walker2d."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.bounds import bounded
from metarl.envs.family_settings import DynamicsSettings, LimbSettings, LocomotionSettings, SurvivalSettings
from metarl.envs.terrain.settings import RunwaySettings


@dataclass(frozen=True, kw_only=True)
class WalkerSettings(LocomotionSettings, SurvivalSettings):
    """Settings of every Hopper and Walker2d."""

    control_cost: float = 0.001
    timestep: float = bounded(0.002, above=0)
    """Simulation step, s: 0.004 (rand_param_envs), 0.002 (Gymnasium); a control step is 4 of them."""


@dataclass(frozen=True, kw_only=True)
class RandomWalkerSettings(WalkerSettings):
    """Settings of the families of rand_param_envs."""

    exponent: float = bounded(3.0, above=0)
    """Masses and frictions are 1.5^U(-exponent, exponent) times the neutral ones, dampings 1.3^U."""
    timestep: float = 0.004


@dataclass(frozen=True)
class HopperParametersSettings(RandomWalkerSettings):
    """Hopper with random masses, damping and friction (rand_param_envs): reward v + survive - control cost."""


@dataclass(frozen=True)
class Walker2dParametersSettings(RandomWalkerSettings):
    """Walker2d with random masses, damping and friction (rand_param_envs): reward v + survive - control cost."""


@dataclass(frozen=True)
class Walker2dDynamicsSettings(WalkerSettings, DynamicsSettings):
    """Walker2d of unknown mass, damping, torque, friction (LDG): reward v + survive - control cost, as Walker2d-v5."""

    horizon: int = 1000


@dataclass(frozen=True)
class Walker2dLimbsSettings(WalkerSettings, LimbSettings):
    """Walker2d with legs of other lengths and thicknesses: reward v + survive - control cost."""


@dataclass(frozen=True)
class Walker2dTerrainSettings(WalkerSettings, RunwaySettings):
    """Walker2d running forwards on ground that it has to find out about: reward v + survive - control cost."""

    promote_at: float = 300.0
    demote_at: float = 150.0
    ground_ahead: float = 30.0
    ground_behind: float = 10.0
    horizon: int = 500
