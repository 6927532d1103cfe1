"""RL2 (Duan 2016): a network with a memory reads whole trials, learns to adapt in its memory, and is trained with PPO.

`metarl.agents.slots` has its inputs and its belief, `metarl.agents.cores` its memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from metarl.agents.agent import Facts, Trial
from metarl.agents.cores.registry import make_core
from metarl.agents.learning import Trainer, World
from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.rl2.network import Rl2Network
from metarl.agents.rl2.settings import Rl2Settings
from metarl.agents.trial_ppo.learner import TrialPpo
from metarl.agents.trial_ppo.network import CoreMaker
from metarl.agents.trial_ppo.sequence import PRIVILEGED, TrialSequence, with_privileged


class Rl2(TrialPpo[Rl2Settings, Rl2Network]):
    """RL2 behind the Learner protocol: see `metarl.agents.learning.Learner`."""

    label = "RL2"
    settings: Rl2Settings
    make_core: CoreMaker = staticmethod(make_core)

    def __init__(
        self,
        settings: Rl2Settings,
        observation_size: int,
        action_size: int,
        generator: torch.Generator,
        device: torch.device,
        ranks: Ranks = ALONE,
        privileged: Sequence[str] = (),
    ) -> None:
        """privileged: names of the privileged values."""
        self.facts = Facts(belief_per_env=True, informed=settings.privileged_critic)
        self.told = len(privileged) if settings.privileged_critic else 0
        super().__init__(settings, observation_size, action_size, generator, device, ranks)

    def make_network(self) -> Rl2Network:
        """Return embeddings, core and heads."""
        return Rl2Network(self.settings, self.observation_size, self.action_size, self.make_core, self.told)

    def trainer(self, world: World) -> Trainer:
        """Play a trial, then learn from it. ValueError if the critic is to read what there is none of."""
        if self.settings.privileged_critic and not self.told:
            raise ValueError(
                "privileged_critic is true, and the family has neither parameters nor privileged terms; leave it out"
            )
        return super().trainer(world)

    def sequence(self, trial: Trial) -> TrialSequence:
        """Return a trial as PPO learns from it, with its privileged values if the critic reads them."""
        sequence = super().sequence(trial)
        return with_privileged(sequence, trial, self.label, self.device) if self.told else sequence

    def evaluate(self, sequence: TrialSequence) -> tuple[Tensor, Tensor]:
        """Return action means [L, B, act] and values [L, B]."""
        features, _ = self.network(sequence.inputs, sequence.memory)
        values = self.network.values(features, sequence.ending, sequence.extra.get(PRIVILEGED))
        return self.network.means(features), values

    def update_input_moments(self, sequence: TrialSequence) -> None:
        """Update the normalisers of what the network reads, from the steps of a trial."""
        super().update_input_moments(sequence)
        if self.network.privileged_moments is not None:
            self.network.privileged_moments.update(sequence.extra[PRIVILEGED][sequence.steps], self.ranks)
