"""Published methods that are an agent with other settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Paper:
    """A published method, as settings of an agent."""

    agent: str
    """Agent whose settings they are."""
    settings: Mapping[str, Any]
    """What differs from the agent's own settings, by name."""
    words: str
    """What it is, in words, and its source."""
