"""Settings of families on terrain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.bounds import bounded, unbounded
from metarl.envs.family_settings import FamilySettings

TerrainKind = Literal[
    "flat", "slope", "stairs_up", "stairs_down", "rough", "waves", "obstacles", "stepping_stones", "gaps"
]


@dataclass(frozen=True, kw_only=True)
class TerrainSettings(FamilySettings):
    """Ground of a family on terrain."""

    kinds: tuple[TerrainKind, ...] = ("flat", "slope", "stairs_up", "stairs_down", "rough", "waves", "obstacles")
    """Kinds of ground in training and in its held-out tasks."""
    proportions: tuple[float, ...] = bounded((), above=0)
    """How often each of the kinds is drawn, relative to the others. Empty: equally often."""
    ood_kinds: tuple[TerrainKind, ...] = ("stepping_stones", "gaps")
    """Kinds that are never trained on: those of the split `ood`."""
    difficulty_low: float = bounded(0.0, at_least=0, at_most=1)
    """Lowest difficulty, in [0, 1]."""
    difficulty_high: float = bounded(1.0, at_least=0, at_most=1)
    """Highest difficulty, in [0, 1]."""
    height_scan: bool = False
    """Whether heights of the ground around the robot are observed."""
    promote_at: float = unbounded(200.0)
    """Curriculum: mean return from which on a kind of ground goes up a level."""
    demote_at: float = unbounded(50.0)
    """Curriculum: mean return below which it goes down a level."""


@dataclass(frozen=True, kw_only=True)
class RunwaySettings(TerrainSettings):
    """Ground of a robot that runs along x."""

    ground_ahead: float = bounded(80.0, above=0)
    """Length of the ground ahead of the start, metres; an episode is cut a metre before its end."""
    ground_behind: float = bounded(20.0, above=0)
    """Length of the ground behind the start, metres."""
