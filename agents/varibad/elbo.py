"""The evidence lower bound of VariBAD: from each posterior of a trial, the whole trial is reconstructed.

Axes: L slots, B envs, E posteriors of an env that are drawn, D of its steps that are drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.moments import INPUT_CLIP
from metarl.agents.numerics import gaussian_kl
from metarl.agents.trial_ppo.sequence import TrialSequence, front
from metarl.agents.varibad.network import VaribadNetwork
from metarl.agents.varibad.settings import VaribadSettings


class Draws(NamedTuple):
    """Random numbers of one gradient step."""

    terms: Tensor
    """[E, B] in [0, 1): places of the posteriors among a trial's slots."""
    steps: Tensor
    """[D, B] in [0, 1): places of the steps among a trial's steps."""
    noise: Tensor
    """[E, B, latent], standard normal."""

    @classmethod
    def make(cls, settings: VaribadSettings, envs: int, generator: torch.Generator) -> Draws:
        """Draw the numbers for B = envs trials."""
        shapes = (settings.elbo_terms, envs), (settings.decoded_steps, envs)
        terms, steps = (torch.rand(shape, generator=generator, device=generator.device) for shape in shapes)
        noise = torch.randn(*terms.shape, settings.latent_size, generator=generator, device=generator.device)
        return cls(terms, steps, noise)

    def of_envs(self, envs: Tensor, device: torch.device) -> Draws:
        """Return the numbers of some envs [K], on a device."""
        return Draws(*(numbers[:, envs.to(numbers.device)].to(device) for numbers in self))


class Elbo(NamedTuple):
    """Terms of the bound for each trial, each [B] and a mean over the trial's steps."""

    reward_error: Tensor
    """Squared error of the standardised reward."""
    state_error: Tensor
    """Squared error of the standardised change of the observation, a mean over its elements."""
    divergence: Tensor
    """KL divergence of a posterior from the one before it, a mean over all slots, by the number of steps."""

    def loss(self, settings: VaribadSettings) -> Tensor:
        """Return the negative bound of each trial a step, [B]: that of Gaussian likelihoods of unit variance.

        - (1 / H) E_t [ sum_i log p(r_i, s_i+1 | s_i, a_i, z_t) - w KL(q_t || q_t-1) ] for the H steps i of a trial, and
        z_t drawn from q_t (Zintgraf 2020, eq. 9), up to a constant; w is `kl_weight`.
        """
        errors = self.reward_error + settings.state_weight * self.state_error
        return 0.5 * errors + settings.kl_weight * self.divergence


def elbo(network: VaribadNetwork, sequence: TrialSequence, draws: Draws) -> Elbo:
    """Return the terms of the bound for trials, by these draws."""
    posteriors = network.posteriors(sequence.inputs, sequence.memory)
    read = slots_read(sequence.steps)
    counts = sequence.steps.sum(dim=0)
    latents = sampled_latents(posteriors, places(draws.terms, read.sum(dim=0)), draws.noise)
    whole = sequence.transitions
    chosen = front(whole).gather(0, places(draws.steps, whole.sum(dim=0)))  # [D, B] slots
    reward_error, state_error = reconstruction_errors(network, sequence, chosen, latents)
    divergences = (divergences_from_previous(posteriors) * read).sum(dim=0) / read.sum(dim=0)
    return Elbo(reward_error, state_error, divergences / counts)


def slots_read(steps: Tensor) -> Tensor:
    """Return which slots [L, B] a trial has: up to the one after its last step, where its last episode ended."""
    follows = torch.cat([torch.ones_like(steps[:1]), steps[:-1]])
    return follows.flip(0).cummax(dim=0).values.flip(0)


def places(shares: Tensor, counts: Tensor) -> Tensor:
    """Return indices [K, B] below counts [B], for shares [K, B] in [0, 1)."""
    return torch.minimum((shares * counts).long(), counts - 1)


def sampled_latents(posteriors: Tensor, terms: Tensor, noise: Tensor) -> Tensor:
    """Return draws [E, B, latent] from the posteriors [L, B, 2 latent] at the slots `terms` [E, B]."""
    mean, log_variance = posteriors.take_along_dim(terms.unsqueeze(-1), dim=0).chunk(2, dim=-1)
    return mean + (0.5 * log_variance).exp() * noise


def divergences_from_previous(posteriors: Tensor) -> Tensor:
    """Return KL(q_t || q_t-1) of each slot's posterior from the one before it, [L, B]; q_-1 is N(0, I)."""
    mean, log_variance = posteriors.chunk(2, dim=-1)
    before = torch.cat([torch.zeros_like(posteriors[:1]), posteriors[:-1]])
    mean_before, log_variance_before = before.chunk(2, dim=-1)
    return gaussian_kl(mean, 0.5 * log_variance, mean_before, 0.5 * log_variance_before)


def reconstruction_errors(
    network: VaribadNetwork, sequence: TrialSequence, chosen: Tensor, latents: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the mean squared errors [B] of rewards and of observations' changes.

    chosen: [D, B] slots of the steps that are reconstructed. latents: [E, B, latent], from each of which they are.
    """
    wide = chosen.unsqueeze(-1)
    size, moments = network.sizes[0], network.observation_moments
    observations, following = (sequence.inputs[..., :size].take_along_dim(slots, dim=0) for slots in (wide, wide + 1))
    seen, after = (moments.standardise(x).clamp(-INPUT_CLIP, INPUT_CLIP) for x in (observations, following))
    actions = sequence.actions.take_along_dim(wide, dim=0).clamp(-INPUT_CLIP, INPUT_CLIP)
    rewards = network.reward_moments.standardise(sequence.rewards.gather(0, chosen).unsqueeze(-1))
    predicted = network.decode_reward(torch.cat([seen, actions, after], dim=-1), latents)
    reward_error = (predicted - rewards.clamp(-INPUT_CLIP, INPUT_CLIP)).square().mean(dim=(0, 1, 3))
    if network.decode_change is None:
        return reward_error, torch.zeros_like(reward_error)
    changes = network.change_moments.standardise(following - observations).clamp(-INPUT_CLIP, INPUT_CLIP)
    predicted = network.decode_change(torch.cat([seen, actions], dim=-1), latents)
    return reward_error, (predicted - changes).square().mean(dim=(0, 1, 3))


def posteriors_after_shots(posteriors: Tensor, inputs: Tensor, read: Tensor) -> Tensor:
    """Return the posteriors [B, K, 2 latent] after each of the K shots, of posteriors [L, B, 2 latent] in all slots.

    inputs: [L, B, input] slots, whose last element says that an episode is over. read: as from `slots_read`. K is 0
    where B is.
    """
    ends = (inputs[..., -1] > 0.5) & read
    after = posteriors.transpose(0, 1)[ends.T]
    shots = len(after) // max(ends.shape[1], 1)
    return after.reshape(ends.shape[1], shots, posteriors.shape[-1])
