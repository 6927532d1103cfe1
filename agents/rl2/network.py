"""The network by which RL2 reads trials."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.rl2.settings import Rl2Block
from metarl.agents.trial_ppo.heads import make_head
from metarl.agents.trial_ppo.network import CoreMaker, SlotNetwork, hidden_layers


class Rl2Network(SlotNetwork):
    """Embeddings, a core, a head for the actor as the settings choose it, and a plain one for the critic."""

    def __init__(
        self, settings: Rl2Block, observation_size: int, action_size: int, make_core: CoreMaker, told: int = 0
    ) -> None:
        """told: number of privileged values that the critic reads."""
        super().__init__(settings, observation_size, action_size, make_core)
        self.skip = settings.observation_skip
        seen = self.skip * observation_size
        self.actor, self.mean = make_head(settings, self.core.output_size, seen, action_size)
        self.privileged_moments = Moments(told) if told else None
        critic_widths = (self.core.output_size + seen + 1 + told, *settings.head_sizes)
        self.critic = hidden_layers(critic_widths)
        self.value = nn.Linear(critic_widths[-1], 1)
        self.log_std = nn.Parameter(torch.empty(action_size))

    def features(self, remembered: Tensor, normalised: Tensor) -> Tensor:
        """Return what the core remembers, with the observation beside it if the settings ask for it."""
        return torch.cat([remembered, normalised[..., : self.sizes[0]]], dim=-1) if self.skip else remembered

    def means(self, features: Tensor) -> Tensor:
        """Return the means of the actions, [..., act]."""
        return self.mean(self.actor(features))

    def initialise(self, initial_std: float, generator: torch.Generator) -> None:
        """As of every network that reads slots; nothing is known of the privileged values either."""
        super().initialise(initial_std, generator)
        if self.privileged_moments is not None:
            self.privileged_moments.reset()

    def values(self, features: Tensor, ending: Tensor, privileged: Tensor | None = None) -> Tensor:
        """Return values [L, B]. The critic, which only training uses, is told how near the trial's end is, [L, B].

        privileged: [L, B, P], for a critic that reads them.
        """
        parts = [features, ending.unsqueeze(-1)]
        if self.privileged_moments is not None and privileged is not None:
            parts.append(self.privileged_moments.standardise(privileged).clamp(-INPUT_CLIP, INPUT_CLIP))
        return self.value(self.critic(torch.cat(parts, dim=-1))).squeeze(-1)
