"""Networks whose policy reads the observation and a latent, which either privileged values or a memory give."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metarl.agents.cores.core import Memory
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.teacher.settings import StudySettings
from metarl.agents.trial_ppo.heads import make_head
from metarl.agents.trial_ppo.network import CoreMaker, SlotNetwork, hidden_layers


class InformedNetwork(SlotNetwork):
    """A policy of observation and latent, a critic of observation and privileged values, and a memory.

    The memory's estimate of the latent is all that the policy reads of the past. Memory and policy each have a
    normaliser of their own: the policy's stays as it is while the memory learns from other data. A subclass says what
    the latent of privileged values is.
    """

    def __init__(
        self,
        settings: StudySettings,
        observation_size: int,
        action_size: int,
        privileged_size: int,
        latent_size: int,
        make_core: CoreMaker,
    ) -> None:
        super().__init__(settings, observation_size, action_size, make_core)
        self.policy_moments = Moments(observation_size)
        self.privileged_moments = Moments(privileged_size)
        self.regressor = nn.Linear(self.core.output_size, latent_size)
        self.plain = settings.head == "plain"
        sizes = latent_size, observation_size, action_size
        self.actor, self.mean = make_head(settings, settings.head_sizes, *sizes)
        critic_widths = (observation_size + privileged_size + 1, *settings.head_sizes)
        self.critic = hidden_layers(critic_widths)
        self.value = nn.Linear(critic_widths[-1], 1)
        self.log_std = nn.Parameter(torch.empty(action_size))

    def initialise(self, initial_std: float, generator: torch.Generator) -> None:
        """As of every network that reads slots; nothing is known of the policy's inputs either."""
        super().initialise(initial_std, generator)
        self.policy_moments.reset()
        self.privileged_moments.reset()

    def encode(self, privileged: Tensor) -> Tensor:
        """Return the latent [..., latent] of privileged values [..., P]."""
        raise NotImplementedError

    def known(self, privileged: Tensor) -> Tensor:
        """Return privileged values [..., P] standardised and clipped."""
        return self.privileged_moments.standardise(privileged).clamp(-INPUT_CLIP, INPUT_CLIP)

    def estimates(self, inputs: Tensor, memory: Memory) -> Tensor:
        """Return the memory's estimate of the latent [L, B, latent] at every slot [L, B, input]."""
        remembered, _ = self.core.sequence(self.embed(self.normalise(inputs)), memory)
        return self.regressor(remembered)

    def step(self, inputs: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Return what the policy reads [B, features] of one slot [B, input], and the memory after it."""
        remembered, after = self.core.step(self.embed(self.normalise(inputs)), memory)
        return self.policy_inputs(inputs, self.regressor(remembered)), after

    def policy_inputs(self, inputs: Tensor, latents: Tensor) -> Tensor:
        """Return what the policy reads [..., obs + latent]; inputs [..., obs + ...] begin with the observation.

        Other heads than a plain one read the latent first.
        """
        parts = self._observation(inputs), latents
        return torch.cat(parts if self.plain else parts[::-1], dim=-1)

    def means(self, features: Tensor) -> Tensor:
        """Return the means of the actions, [..., act]."""
        return self.mean(self.actor(features))

    def state_values(self, inputs: Tensor, privileged: Tensor, ending: Tensor) -> Tensor:
        """Return values [L, B] of slots [L, B, input] whose privileged values [L, B, P] the critic is told."""
        parts = [self._observation(inputs), self.known(privileged), ending.unsqueeze(-1)]
        return self.value(self.critic(torch.cat(parts, dim=-1))).squeeze(-1)

    def student(self) -> Sequence[nn.Parameter]:
        """Return the parameters of the memory and of its estimate."""
        modules = (self.embed_observation, self.embed_action, self.embed_reward, self.core, self.regressor)
        return [parameter for module in modules for parameter in module.parameters()]

    def teacher(self) -> Sequence[nn.Parameter]:
        """Return all other parameters."""
        student = set(map(id, self.student()))
        return [parameter for parameter in self.parameters() if id(parameter) not in student]

    def _observation(self, inputs: Tensor) -> Tensor:
        observation = inputs[..., : self.sizes[0]]
        if not self.standardises:
            return observation
        return self.policy_moments.standardise(observation).clamp(-INPUT_CLIP, INPUT_CLIP)
