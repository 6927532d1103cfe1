"""A critic that may read what a simulator knows, beside a policy that does not (Pinto 2018): only training needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from metarl.agents.agent import Trial
from metarl.agents.learning import NOTHING_TOLD, Trainer, World
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.trial_ppo.learner import TrialPpo
from metarl.agents.trial_ppo.network import HiddenLayers, SlotNetwork, hidden_layers
from metarl.agents.trial_ppo.sequence import PRIVILEGED, TrialSequence, with_privileged
from metarl.agents.trial_ppo.settings import CriticBlock


class CriticNetwork(SlotNetwork):
    """A slot network whose critic reads the heads' inputs and, if it is told any, privileged values."""

    critic: HiddenLayers
    value: nn.Linear
    privileged_moments: Moments | None

    def add_critic(self, features: int, told: int, widths: Sequence[int]) -> None:
        """features: width of the heads' inputs. told: number of privileged values. widths: of the hidden layers."""
        self.privileged_moments = Moments(told) if told else None
        whole = (features + 1 + told, *widths)
        self.critic = hidden_layers(whole)
        self.value = nn.Linear(whole[-1], 1)

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

    def learn_privileged(self, sequence: TrialSequence, ranks: Ranks) -> None:
        """Update the normaliser of the privileged values, if the critic reads any, from the steps of a trial."""
        if self.privileged_moments is not None:
            self.privileged_moments.update(sequence.extra[PRIVILEGED][sequence.steps], ranks)


Settings = TypeVar("Settings", bound=CriticBlock)
Network = TypeVar("Network", bound=CriticNetwork)


class CriticPpo(TrialPpo[Settings, Network]):
    """Base class of agents whose critic reads privileged values if `privileged_critic` says so."""

    def __init__(
        self,
        settings: Settings,
        observation_size: int,
        action_size: int,
        generator: torch.Generator,
        device: torch.device,
        ranks: Ranks = ALONE,
        privileged: Sequence[str] = (),
    ) -> None:
        """privileged: names of the privileged values."""
        self.facts = replace(type(self).facts, informed=settings.privileged_critic)
        self.told = len(privileged) if settings.privileged_critic else 0
        super().__init__(settings, observation_size, action_size, generator, device, ranks)

    def trainer(self, world: World) -> Trainer:
        """Play a trial, then learn from it. ValueError if the critic is to read what there is none of."""
        if self.settings.privileged_critic and not self.told:
            raise ValueError(NOTHING_TOLD)
        return super().trainer(world)

    def sequence(self, trial: Trial) -> TrialSequence:
        """Return a trial as PPO learns from it, with its privileged values if the critic reads them."""
        sequence = super().sequence(trial)
        return with_privileged(sequence, trial, self.label, self.device) if self.told else sequence

    def evaluate(self, sequence: TrialSequence) -> tuple[Tensor, Tensor]:
        """Return action means [L, B, act] and values [L, B]."""
        features, _ = self.network(sequence.inputs, sequence.memory)
        return self.network.means(features), self.values(features, sequence)

    def values(self, features: Tensor, sequence: TrialSequence) -> Tensor:
        """Return values [L, B] of the heads' inputs [L, B, features]."""
        return self.network.values(features, sequence.ending, sequence.extra.get(PRIVILEGED))

    def update_input_moments(self, sequence: TrialSequence) -> None:
        """Update the normalisers of what the network reads, from the steps of a trial."""
        super().update_input_moments(sequence)
        self.network.learn_privileged(sequence, self.ranks)
