"""Settings of VariBAD."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.agents.trial_ppo.settings import CriticBlock, HeadSettings
from metarl.bounds import bounded


@dataclass(frozen=True, kw_only=True)
class VaribadSettings(HeadSettings, CriticBlock):
    """VariBAD (Zintgraf 2020): a policy that reads a posterior over the task, which a variational autoencoder learns.

    PPO trains actor and critic, which have no memory; the evidence lower bound trains the memory, on the trials of the
    same iteration.
    """

    latent_size: int = bounded(5, at_least=1)
    """Size of the latent variable that describes the task."""
    decoder_sizes: tuple[int, ...] = bounded((64, 32), at_least=1, nonempty=True)
    """Widths of the hidden layers of each decoder."""
    state_weight: float = bounded(1.0, at_least=0)
    """Weight of the next observation's reconstruction beside the reward's. 0: only the reward is decoded, which is
    enough where the task changes the reward alone."""
    kl_weight: float = bounded(0.1, at_least=0)
    """Weight of the divergence from the previous posterior."""
    vae_lr: float = bounded(1e-3, above=0)
    """Step size of the Adam that trains memory, posterior and decoders."""
    vae_updates: int = bounded(5, at_least=1)
    """Gradient steps of the variational autoencoder an iteration."""
    vae_batch: int = bounded(20, at_least=1)
    """Trials in each of these steps; all of the iteration's if it has fewer."""
    elbo_terms: int = bounded(16, at_least=1)
    """Posteriors of each trial, drawn at random, from which the trial is reconstructed in each of these steps."""
    decoded_steps: int = bounded(100, at_least=1)
    """Steps of each trial, drawn at random from its past and future alike, that are reconstructed from each of these
    posteriors."""
