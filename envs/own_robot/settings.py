"""Settings of the family of your own robot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from metarl.bounds import Bounds
from metarl.envs.family_settings import FamilySettings

DECLARATIONS = (".yaml", ".yml")
"""Suffixes of files that declare the tasks of a robot."""
EXAMPLE = Path(__file__).parent / "crawler"
"""Path, without its endings, of the example robot that empty settings stand for."""


@dataclass(frozen=True)
class RobotSettings(FamilySettings):
    """Your own robot: a model, and a YAML file that declares what varies; --robot and --family name the two."""

    model: str = field(default="", metadata={"file": True})
    """MJCF or URDF file, or a function that returns an MjSpec: file.py:function. Empty: the example, a crawler."""
    file: str = field(default="", metadata={"file": True})
    """YAML file with task and distribution. Empty: the example's."""
    ranges: Mapping[str, tuple[float, ...]] = field(
        default_factory=dict, kw_only=True, hash=False, metadata={"before": {}}
    )
    """Ranges in place of the file's, by the name of the parameter or of the component of the commands: two ends, or all
    values of a choice. Held-out tasks are of such a range, too, whatever `splits.held_out` says."""
    observe: Literal["sensors", "state"] = field(default="sensors", kw_only=True, metadata={"before": "state"})
    """Terms that are observed where the file names none. sensors: what a robot measures, its last action and its
    commands; state: the height and the velocity of its base too, without action and commands."""
    hooks: tuple[str, ...] = field(default=(), kw_only=True, metadata={"before": ()})
    """SHA-256 of each file of your own functions that a run was trained with; one that has changed since is refused."""
    horizon: int = field(default=-1, kw_only=True, metadata={"bounds": Bounds(at_least=1, also=-1)})
    """Steps an episode. -1: as the YAML file says."""

    @property
    def files(self) -> tuple[str, str]:
        """Paths of model and declaration."""
        return self.model or f"{EXAMPLE}.xml", self.file or f"{EXAMPLE}.yaml"
