"""Settings of the family of a Gymnasium environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from metarl.bounds import Bounds
from metarl.envs.family_settings import FamilySettings

EXAMPLE = f"{Path(__file__).with_name('example.py')}:pendulum"
"""Function that an empty source stands for."""


@dataclass(frozen=True)
class EnvSettings(FamilySettings):
    """Your own Gymnasium environment, or a family that your own code makes; --env names it."""

    source: str = field(default="", metadata={"file": True})
    """Function that returns a GymTasks or a TaskFamily: file.py:function. Its code is run. Empty: the example, a
    pendulum."""
    digest: str = field(default="", kw_only=True)
    """SHA-256 of the file that a run was trained with; a file that has changed since is refused. Empty: any."""
    horizon: int = field(default=-1, kw_only=True, metadata={"bounds": Bounds(at_least=1, also=-1)})
    """Steps an episode. -1: as the function says."""
    processes: int = field(
        default=0, kw_only=True, metadata={"bounds": Bounds(at_least=-1, at_most=4096), "changes_no_number": True}
    )
    """Processes that step the environments, each a part of them. 0: as many as threads; 1: in metarl's own process; -1:
    one for each environment, for those that wait for something."""

    @property
    def function(self) -> str:
        """The function, or the example's."""
        return self.source or EXAMPLE
