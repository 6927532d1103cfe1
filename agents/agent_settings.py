"""Settings of agents, in general.

Settings stand beside the agents that they configure, in modules that do not import torch, so that `metarl --help`
answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AgentSettings:
    """Settings of an agent."""
