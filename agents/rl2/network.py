"""The network by which RL2 reads trials."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarl.agents.rl2.settings import Rl2Block
from metarl.agents.trial_ppo.critic import CriticNetwork
from metarl.agents.trial_ppo.heads import make_head
from metarl.agents.trial_ppo.network import CoreMaker


class Rl2Network(CriticNetwork):
    """Embeddings, a core, a head for the actor as the settings choose it, and a plain one for the critic."""

    def __init__(
        self, settings: Rl2Block, observation_size: int, action_size: int, make_core: CoreMaker, told: int = 0
    ) -> None:
        """told: number of privileged values that the critic reads."""
        super().__init__(settings, observation_size, action_size, make_core)
        self.skip = settings.observation_skip
        seen = self.skip * observation_size
        self.actor, self.mean = make_head(settings, settings.head_sizes, self.core.output_size, seen, action_size)
        self.add_critic(self.core.output_size + seen, told, settings.head_sizes)
        self.log_std = nn.Parameter(torch.empty(action_size))

    def features(self, remembered: Tensor, normalised: Tensor) -> Tensor:
        """Return what the core remembers, with the observation beside it if the settings ask for it."""
        return torch.cat([remembered, normalised[..., : self.sizes[0]]], dim=-1) if self.skip else remembered

    def means(self, features: Tensor) -> Tensor:
        """Return the means of the actions, [..., act]."""
        return self.mean(self.actor(features))
