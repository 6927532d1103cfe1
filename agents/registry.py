"""Every agent by name."""

from __future__ import annotations

import torch

from metarl.agents.agent import Agent
from metarl.agents.maml import Maml
from metarl.agents.ppo import Ppo
from metarl.agents.recurrent_ppo import RecurrentPpo
from metarl.agents.rl2 import Rl2
from metarl.agents.settings import AgentSettings, MamlSettings, PpoSettings, RecurrentPpoSettings, Rl2Settings

AGENTS = {
    MamlSettings: Maml,
    Rl2Settings: Rl2,
    PpoSettings: Ppo,
    RecurrentPpoSettings: RecurrentPpo,
}


def make_agent(
    settings: AgentSettings,
    observation_size: int,
    action_size: int,
    generator: torch.Generator,
    device: torch.device,
) -> Agent:
    """The agent that the settings describe, its initial parameters drawn from the generator."""
    return AGENTS[type(settings)](settings, observation_size, action_size, generator, device)
