"""Settings of Ant's families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.bounds import bounded
from metarl.envs.family_settings import (
    ChangeSettings,
    LimbSettings,
    LocomotionSettings,
    SurvivalSettings,
    TargetVelocitySettings,
)
from metarl.envs.terrain.settings import RunwaySettings

FEWEST_LEGS, MOST_LEGS = 3, 6


@dataclass(frozen=True, kw_only=True)
class AntSettings(LocomotionSettings):
    """Settings of every Ant."""

    control_cost: float = 0.5
    contact_cost: float = bounded(0.0005, at_least=0)
    """Weight of the squared contact forces, each element clipped to [-1, 1]."""


@dataclass(frozen=True)
class AntDirectionSettings(AntSettings, SurvivalSettings):
    """Ant in a direction: reward g v - control cost - contact cost + survive (ProMP, PEARL)."""

    directions: Literal["1d", "2d"] = "1d"
    """1d: forwards or backwards; 2d: any direction on the plane."""


@dataclass(frozen=True)
class AntGoalSettings(AntSettings):
    """Ant to a goal on the plane: reward -distance - control cost - contact cost (ProMP, PEARL, VariBAD)."""

    goal_radius: float = bounded(3.0, above=0)
    """Goals are uniform in the disc of this radius around the start, m."""
    observe_contact: bool = True
    """Observe the clipped contact forces of every body: 113 observations as published, otherwise 29."""
    control_cost: float = 0.1


@dataclass(frozen=True)
class AntVelocitySettings(AntSettings, SurvivalSettings, TargetVelocitySettings):
    """Ant at a target velocity: reward 1 - |v - v*| - control cost - contact cost + survive (MAML 2017)."""

    control_cost: float = 0.005
    survive: float = 0.05


@dataclass(frozen=True)
class AntCrippledSettings(AntSettings, SurvivalSettings, ChangeSettings):
    """Ant with one leg that fails (Nagabandi 2019): reward v - control cost - contact cost + survive."""


@dataclass(frozen=True)
class AntLimbsSettings(AntSettings, SurvivalSettings, LimbSettings):
    """Ant with legs of other lengths and thicknesses: reward v - control cost - contact cost + survive."""


@dataclass(frozen=True)
class AntLegsSettings(AntSettings, SurvivalSettings):
    """Ant of 3 to 6 legs, one policy for all: reward v - control cost - contact cost + survive."""

    legs: tuple[int, ...] = bounded((3, 4, 6), at_least=FEWEST_LEGS, at_most=MOST_LEGS, nonempty=True)
    """Numbers of legs in training."""
    held_out_legs: tuple[int, ...] = bounded((5,), at_least=FEWEST_LEGS, at_most=MOST_LEGS)
    """Numbers of legs of held-out tasks. Empty: those of training."""
    length_range: float = bounded(1.3, above=1)
    """Lengths of the legs are logU(1 / length_range, length_range) times the neutral ones."""


@dataclass(frozen=True)
class AntTerrainSettings(AntSettings, SurvivalSettings, RunwaySettings):
    """Ant running forwards on ground that it has to find out about: reward v - control - contact cost + survive."""

    promote_at: float = 300.0
    demote_at: float = 200.0
    ground_ahead: float = 14.0
    ground_behind: float = 4.0
    ground_beside: float = bounded(5.0, above=0)
    """Width of the ground on either side of the start, metres."""
