"""Every agent by name."""

from __future__ import annotations

from typing import Any

import torch

from metarl.agents.learning import Learner
from metarl.agents.maml.maml import Maml
from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.rl2.rl2 import Rl2
from metarl.agents.sb3.ppo import Ppo
from metarl.agents.sb3.recurrent_ppo import RecurrentPpo
from metarl.agents.settings import (
    AGENT_SETTINGS,
    AgentSettings,
    MamlSettings,
    PpoSettings,
    RecurrentPpoSettings,
    Rl2Settings,
)

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
    ranks: Ranks = ALONE,
) -> Learner:
    """The agent that the settings describe, its initial parameters drawn from the generator.

    ranks: the processes that it learns in. ValueError for several of an agent that learns in one.
    """
    make: Any = AGENTS[type(settings)]
    if isinstance(settings, MamlSettings | Rl2Settings):
        return make(settings, observation_size, action_size, generator, device, ranks)
    if ranks.size > 1:
        name = next(name for name, own in AGENT_SETTINGS.items() if own is type(settings))
        raise ValueError(
            f"{name} is Stable-Baselines3's and learns in one process, not in {ranks.size}; train it without torchrun, "
            "or choose maml or rl2"
        )
    return make(settings, observation_size, action_size, generator, device)
