"""Settings of memories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metarl.agents.agent_settings import AgentSettings
from metarl.bounds import bounded


@dataclass(frozen=True, kw_only=True)
class MemorySettings(AgentSettings):
    """Settings of agents that hold a memory."""

    memory: Literal["gru", "lstm"] = "gru"
    """gru (Cho 2014), or lstm (Hochreiter 1997), which is faster on a CPU."""
    hidden_size: int = bounded(64, at_least=1)
    """Width of the memory, and of its features."""
