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
    """Kinds of ground of training tasks and of held-out tasks."""
    proportions: tuple[float, ...] = bounded((), above=0)
    """Relative frequency of each of the kinds. Empty: all are equally frequent."""
    ood_kinds: tuple[TerrainKind, ...] = ("stepping_stones", "gaps")
    """Kinds of ground of out-of-distribution tasks, never trained on."""
    difficulty_low: float = bounded(0.0, at_least=0, at_most=1)
    """Lowest difficulty, in [0, 1]."""
    difficulty_high: float = bounded(1.0, at_least=0, at_most=1)
    """Highest difficulty, in [0, 1]."""
    height_scan: bool = False
    """Observe the heights of the ground around the robot."""
    promote_at: float = unbounded(200.0)
    """Curriculum: mean return at which a kind of ground goes up a level."""
    demote_at: float = unbounded(50.0)
    """Curriculum: mean return below which it goes down a level."""


@dataclass(frozen=True, kw_only=True)
class RunwaySettings(TerrainSettings):
    """Ground of a robot that runs along x."""

    ground_ahead: float = bounded(80.0, above=0)
    """Length of the ground ahead of the start, metres; an episode is cut a metre before its end."""
    ground_behind: float = bounded(20.0, above=0)
    """Length of the ground behind the start, metres."""
