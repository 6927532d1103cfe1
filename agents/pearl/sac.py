"""Soft actor-critic (Haarnoja 2018) on a latent variable, for the transitions of several tasks at once.

The critics' loss trains the encoder too, through the latent variable that it is computed with; the policy's does not.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarl.agents.pearl.gaussians import kl_to_prior, posterior, squashed_log_prob
from metarl.agents.pearl.networks import ContextEncoder, QNetworks, SquashedPolicy
from metarl.agents.pearl.settings import PearlSettings


class Batch(NamedTuple):
    """Transitions of M tasks, B to learn from and S of context a task."""

    observations: Tensor
    """[M, B, obs], as the networks read them."""
    actions: Tensor
    """[M, B, act], from -1 to 1."""
    rewards: Tensor
    """[M, B]."""
    next_observations: Tensor
    """[M, B, obs], as the networks read them."""
    terminated: Tensor
    """[M, B] bool, True where nothing follows."""
    context: Tensor
    """[M, S, context], as the encoder reads them."""


def soft_targets(rewards: Tensor, terminated: Tensor, next_values: Tensor, discount: float) -> Tensor:
    """r + gamma (1 - terminated) V(s'), all of one shape."""
    return rewards + discount * (~terminated).to(rewards.dtype) * next_values


def soft_values(q_values: Tensor, log_probs: Tensor, temperature: Tensor) -> Tensor:
    """min_k Q_k(s, a) - alpha log pi(a | s), for Q values [2, B] and log-probabilities [B] -> [B]."""
    return q_values.amin(0) - temperature * log_probs


class Networks(nn.Module):
    """All that PEARL learns, and the targets of the Q networks."""

    def __init__(
        self, settings: PearlSettings, observation_size: int, action_size: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        latent, hidden = settings.latent_size, settings.hidden_sizes
        context = context_size(settings, observation_size, action_size)
        self.encoder = ContextEncoder(context, latent, settings.encoder_sizes, generator)
        self.policy = SquashedPolicy(settings, observation_size, action_size, generator)
        self.q = QNetworks(observation_size + action_size + latent, hidden, generator)
        self.q_target = copy.deepcopy(self.q).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(settings.temperature)))


def context_size(settings: PearlSettings, observation_size: int, action_size: int) -> int:
    """Return the number of inputs of the encoder: observation, action, reward and maybe the next observation."""
    return observation_size * (1 + settings.next_observation_in_context) + action_size + 1


class SoftActorCritic:
    """The networks, and the gradient steps that train them."""

    def __init__(self, networks: Networks, settings: PearlSettings, action_size: int) -> None:
        self.networks, self.settings, self.action_size = networks, settings, action_size
        self._policy_parameters = list(networks.policy.parameters())
        groups = {
            "critic": [*networks.encoder.parameters(), *networks.q.parameters()],
            "policy": self._policy_parameters,
            "temperature": [networks.log_temperature],
        }
        self._optimisers = {
            name: torch.optim.Adam(parameters, lr=settings.lr, fused=True) for name, parameters in groups.items()
        }

    def use_step_size(self, lr: float) -> None:
        """Take the next gradient steps with this step size."""
        for optimiser in self._optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = lr

    def step(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Take a gradient step on all networks; returns scalars by name. generator: on the CPU."""
        networks, device = self.networks, batch.context.device
        m, b = batch.rewards.shape

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(device)

        inferred = posterior(networks.encoder(batch.context))
        latents = inferred.mean + inferred.std * noise(m, self.settings.latent_size)
        latents = latents.unsqueeze(1).expand(m, b, -1).flatten(0, 1)  # [M B, latent]
        kl = kl_to_prior(inferred)
        critic_loss, values = self._critic_loss(batch, latents, noise(m * b, self.action_size))
        self._optimisers["critic"].zero_grad(set_to_none=True)
        (critic_loss + self.settings.kl_weight * kl.sum()).backward()
        self._optimisers["critic"].step()

        policy_loss, log_probs = self._policy_loss(batch, latents.detach(), noise(m * b, self.action_size))
        gradients = torch.autograd.grad(policy_loss, self._policy_parameters)
        for parameter, gradient in zip(self._policy_parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimisers["policy"].step()
        if self.settings.automatic_temperature:
            self._step_temperature(log_probs)
        with torch.no_grad():
            for target, source in zip(networks.q_target.parameters(), networks.q.parameters(), strict=True):
                target.lerp_(source, self.settings.target_rate)
        return {
            "critic_loss": critic_loss.detach(),
            "policy_loss": policy_loss.detach(),
            "kl": kl.detach().mean(),
            "q": values.mean(),
            "entropy": -log_probs.mean(),
            "temperature": networks.log_temperature.detach().exp(),
        }

    def _critic_loss(self, batch: Batch, latents: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the Q networks' mean squared errors, and their values [2, M B].

        latents: [M B, latent]. noise: [M B, act], of the next actions.
        """
        networks, settings = self.networks, self.settings
        with torch.no_grad():
            following = batch.next_observations.flatten(0, 1)
            mean, log_std = networks.policy(torch.cat([following, latents], -1))
            raw = mean + log_std.exp() * noise
            next_q = networks.q_target(torch.cat([following, torch.tanh(raw), latents], -1))
            next_values = soft_values(next_q, squashed_log_prob(mean, log_std, raw), networks.log_temperature.exp())
            rewards = settings.reward_scale * batch.rewards.flatten()
            targets = soft_targets(rewards, batch.terminated.flatten(), next_values, settings.discount)
        seen = torch.cat([batch.observations.flatten(0, 1), batch.actions.flatten(0, 1), latents], -1)
        values = networks.q(seen)
        return (values - targets).square().mean(-1).sum(), values.detach()

    def _policy_loss(self, batch: Batch, latents: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the policy's loss, and the log-probabilities [M B] of its actions, without their gradient.

        latents: [M B, latent]. noise: [M B, act].
        """
        networks, settings = self.networks, self.settings
        observations = batch.observations.flatten(0, 1)
        mean, log_std = networks.policy(torch.cat([observations, latents], -1))
        raw = mean + log_std.exp() * noise
        log_probs = squashed_log_prob(mean, log_std, raw)
        q_values = networks.q(torch.cat([observations, torch.tanh(raw), latents], -1))
        values = soft_values(q_values, log_probs, networks.log_temperature.detach().exp())
        penalty = mean.square().mean() + log_std.square().mean()
        return settings.policy_penalty * penalty - values.mean(), log_probs.detach()

    def _step_temperature(self, log_probs: Tensor) -> None:
        """Raise the temperature where the policy's entropy is below its target, and lower it otherwise."""
        missing = (log_probs + self.settings.target_entropy * self.action_size).mean()
        self.networks.log_temperature.grad = -missing
        self._optimisers["temperature"].step()

    def state_dict(self) -> dict[str, Any]:
        """Return networks and optimisers as plain types and tensors."""
        optimisers = {name: optimiser.state_dict() for name, optimiser in self._optimisers.items()}
        return copy.deepcopy({"networks": self.networks.state_dict(), "optimisers": optimisers})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; ValueError if the shapes differ."""
        theirs = state["networks"]
        for name, tensor in self.networks.state_dict().items():
            if name not in theirs or theirs[name].shape != tensor.shape:
                found = f"shape {tuple(theirs[name].shape)}" if name in theirs else "nothing"
                raise ValueError(
                    f"this PEARL state does not fit: {name} has shape {tuple(tensor.shape)} here, {found} in the "
                    "state; build the agent with the settings and the family it was saved with"
                )
        self.networks.load_state_dict(theirs)
        for name, optimiser in self._optimisers.items():
            optimiser.load_state_dict(copy.deepcopy(state["optimisers"][name]))
