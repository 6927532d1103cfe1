"""A concurrent estimator (Ji 2022): a memory is regressed on privileged values, and the policy observes the estimate.

Policy and estimator learn at once, from what the policy meets with its own estimates. The critic is told the privileged
values. No gradient of PPO reaches the memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metarl.agents.agent import Trial
from metarl.agents.cores.core import Memory
from metarl.agents.estimator.settings import EstimatorSettings
from metarl.agents.teacher.learner import InformedPpo
from metarl.agents.teacher.network import InformedNetwork
from metarl.agents.trial_ppo.network import CoreMaker
from metarl.agents.trial_ppo.sequence import PRIVILEGED, TrialSequence
from metarl.patterns import matched

ESTIMATES = "estimates"
"""Name of the estimates among the extras of a sequence, [L, B, latent]."""


class EstimatorNetwork(InformedNetwork):
    """A policy that observes estimates, and a memory that makes them; the latent is the estimated values themselves."""

    def __init__(
        self,
        settings: EstimatorSettings,
        observation_size: int,
        action_size: int,
        privileged: Sequence[str],
        make_core: CoreMaker,
    ) -> None:
        """privileged: names of all privileged values."""
        self.places = chosen_places(settings.estimate, privileged)
        super().__init__(settings, observation_size, action_size, len(privileged), len(self.places), make_core)

    def encode(self, privileged: Tensor) -> Tensor:
        """Return the estimated values [..., latent] of all privileged ones [..., P], standardised."""
        return self.known(privileged)[..., self.places]

    def forward(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Return what the policy reads [L, B, features] of slots [L, B, input], and the memory after the last."""
        remembered, after = self.core.sequence(self.embed(self.normalise(inputs)), memory)
        return self.policy_inputs(inputs, self.regressor(remembered)), after


def chosen_places(patterns: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return the places of the names that patterns match, of all without any; ValueError for one that matches none."""
    chosen: list[str] = [] if patterns else list(names)
    for pattern in patterns:
        found = matched(pattern, names, "estimate:")
        if not found:
            known = ", ".join(names) or "none"
            raise ValueError(f"estimate has {pattern!r}, which is no privileged value of the family; they are {known}")
        chosen += found
    return [i for i, name in enumerate(names) if name in chosen]


class Estimator(InformedPpo[EstimatorSettings, EstimatorNetwork]):
    """The concurrent estimator behind the Learner protocol: see `metarl.agents.learning.Learner`."""

    label = "the estimator"
    settings: EstimatorSettings

    @property
    def remembers(self) -> bool:
        """PPO's steps act on what the memory gave before."""
        return False

    def make_network(self) -> EstimatorNetwork:
        """Return policy, critic and memory."""
        sizes = self.observation_size, self.action_size
        return EstimatorNetwork(self.settings, *sizes, self.privileged, self.make_core)

    def studied(self) -> list[nn.Parameter]:
        """Return the parameters of the memory and its estimates."""
        return list(self.network.student())

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters of policy and critic."""
        return list(self.network.teacher())

    @torch.no_grad()
    def sequence(self, trial: Trial) -> TrialSequence:
        """Return a trial as PPO learns from it, with the estimates that the policy observed."""
        sequence = super().sequence(trial)
        estimates = sequence.rewards.new_zeros(*sequence.rewards.shape, len(self.network.places))
        if estimates.numel():  # another rank may have all envs
            estimates = self.network.estimates(sequence.inputs, sequence.memory)
        return dataclasses.replace(sequence, extra={**sequence.extra, ESTIMATES: estimates})

    def evaluate(self, sequence: TrialSequence) -> tuple[Tensor, Tensor]:
        """Return action means [L, B, act] and values [L, B]."""
        network = self.network
        means = network.means(network.policy_inputs(sequence.inputs, sequence.extra[ESTIMATES]))
        return means, network.state_values(sequence.inputs, sequence.extra[PRIVILEGED], sequence.ending)

    def learn_besides(self, sequence: TrialSequence, generator: torch.Generator) -> dict[str, float]:
        """Regress the memory on the privileged values."""
        with torch.no_grad():
            targets = self.network.encode(sequence.extra[PRIVILEGED])
        return self.study(sequence, targets, lambda own: self.network.estimates(own.inputs, own.memory), generator)

    def update_input_moments(self, sequence: TrialSequence) -> None:
        """Update the normalisers of memory, policy and critic."""
        super().update_input_moments(sequence)
        steps = sequence.steps
        self.network.policy_moments.update(sequence.inputs[..., : self.observation_size][steps], self.ranks)
        self.network.privileged_moments.update(sequence.extra[PRIVILEGED][steps], self.ranks)
