"""Settings of HalfCheetah's families."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.bounds import bounded
from metarl.envs.family_settings import (
    ChangeSettings,
    DynamicsSettings,
    LimbSettings,
    LocomotionSettings,
    TargetVelocitySettings,
)
from metarl.envs.terrain.settings import RunwaySettings


@dataclass(frozen=True)
class HalfCheetahVelocitySettings(LocomotionSettings, TargetVelocitySettings):
    """HalfCheetah running at a target velocity: reward -|v - v*| - control cost."""

    velocity_high: float = 2.0
    """Highest target velocity, m/s: 2 (MAML), 3 (PEARL, VariBAD), 7 (RoML)."""


@dataclass(frozen=True)
class HalfCheetahDirectionSettings(LocomotionSettings):
    """HalfCheetah running forwards or backwards: reward g v - control cost."""

    horizon: int = 200
    """Steps an episode: 200 (MAML, PEARL, VariBAD), 100 (ProMP)."""


@dataclass(frozen=True)
class HalfCheetahMassSettings(LocomotionSettings, ChangeSettings):
    """HalfCheetah with scaled body masses (RoML): reward v - control cost + torso height."""

    mass_exponent: float = bounded(1.0, above=0)
    """Every body's mass is multiplied by m = 2^U(-mass_exponent, mass_exponent)."""
    inertia: Literal["published", "consistent"] = "published"
    """published: inertias stay neutral while masses and radii change (RoML); consistent: inertias scale with mass."""


@dataclass(frozen=True)
class HalfCheetahDynamicsSettings(LocomotionSettings, DynamicsSettings):
    """HalfCheetah of unknown mass, damping, torque and friction (LDG): reward v - control cost, as HalfCheetah-v5."""

    control_cost: float = 0.1
    horizon: int = 1000


@dataclass(frozen=True)
class HalfCheetahDisabledJointSettings(LocomotionSettings, ChangeSettings):
    """HalfCheetah with one motor that fails (Nagabandi 2019): reward v - control cost."""


@dataclass(frozen=True)
class HalfCheetahBodySettings(LocomotionSettings):
    """HalfCheetah with body parts of other sizes, gym-extensions has .75 and 1.25: reward v - control cost."""

    size_range: float = bounded(0.25, above=0, below=1)
    """Radius and length of each part are U(1 - size_range, 1 + size_range) times the neutral ones."""


@dataclass(frozen=True)
class HalfCheetahLimbsSettings(LocomotionSettings, LimbSettings):
    """HalfCheetah with legs of other lengths and thicknesses: reward v - control cost."""


@dataclass(frozen=True)
class HalfCheetahTerrainSettings(LocomotionSettings, RunwaySettings):
    """HalfCheetah running forwards on ground that it has to find out about: reward v - control cost."""
