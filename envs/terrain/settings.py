"""Settings of families on terrain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.envs.family_settings import FamilySettings

TerrainKind = Literal[
    "flat", "slope", "stairs_up", "stairs_down", "rough", "waves", "obstacles", "stepping_stones", "gaps"
]


@dataclass(frozen=True)
class TerrainSettings(FamilySettings):
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
