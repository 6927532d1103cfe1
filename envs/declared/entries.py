"""What a declared task says: its observation, reward, commands and pushes."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ObservationEntry:
    """One term of an observation."""

    term: str = field(metadata={"default": "its own name"})
    """Name of its kind."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the kind."""
    noise: float = 0.0
    """Standard deviation of normal noise on each element, in its unit."""
    scale: float = 1.0
    """Factor on each element, after its noise."""
    clip: float = math.inf
    """Largest absolute value of an element, after its scale; not given: any."""
    history: int = 1
    """Control steps whose values are observed, with the present one."""
    names: tuple[str, ...] = ()
    """Names of its elements; not given: the kind's own."""


@dataclass(frozen=True)
class RewardEntry:
    """One term of a reward."""

    term: str = field(metadata={"default": "its own name"})
    """Name of its kind."""
    weight: float
    """Factor on it, for a control step or a second (`rewards_per`); a cost is subtracted."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the kind."""


def said_of(entry: type) -> dict[str, Any]:
    """Return the type of what a file says of a term of any kind, by name: its entry's fields without `settings`."""
    return {name: kind for name, kind in typing.get_type_hints(entry).items() if name != "settings"}


@dataclass(frozen=True)
class CommandEntry:
    """Velocities that the robot is asked for."""

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Lowest and highest value by component, drawn in each episode."""
    every: float = 0.0
    """Seconds after which they are drawn anew within an episode; 0: never."""
    standing: float = 0.0
    """Share of draws that ask it to stand."""


@dataclass(frozen=True)
class PushEntry:
    """Pushes of the base."""

    velocity: float
    """Horizontal velocity that a push adds, m/s."""
    every: float
    """Seconds between pushes."""


@dataclass(frozen=True)
class TaskEntries:
    """What a robot is told, asked for and rewarded for."""

    observation: Mapping[str, ObservationEntry]
    """Terms of the observation by name, in order."""
    rewards: Mapping[str, RewardEntry]
    """Terms of the reward by name."""
    privileged: Mapping[str, ObservationEntry] = field(default_factory=dict)
    """Terms that only a simulator knows, which a teacher is trained with, without noise."""
    rewards_per_second: bool = False
    """Whether weights are per second, not per control step."""
    commands: CommandEntry = field(default_factory=CommandEntry)
    """Velocities that are asked for."""
    pushes: PushEntry | None = None
    """Pushes of the base; None: there are none."""
