"""VariBAD (Zintgraf 2020): a memory infers a posterior over the task, and the policy acts by it, uncertainty included.

PPO trains actor and critic on posteriors that are computed once an iteration: its gradient does not reach the memory,
and its minibatches need no recurrence. The evidence lower bound trains the memory with the decoders, on the trials of
the iteration at hand. `metarl.agents.slots` has the inputs and the belief.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from metarl.agents.agent import Deployable, Facts, Trial
from metarl.agents.cores.registry import make_core
from metarl.agents.ranks import ALONE, Ranks, sum_gradients
from metarl.agents.slots import SlotBelief
from metarl.agents.trial_ppo.critic import CriticPpo
from metarl.agents.trial_ppo.learner import ADAM_EPSILON
from metarl.agents.trial_ppo.network import CoreMaker
from metarl.agents.trial_ppo.sequence import TrialSequence
from metarl.agents.varibad.elbo import Draws, elbo, posteriors_after_shots, slots_read
from metarl.agents.varibad.network import VaribadNetwork, without_posterior
from metarl.agents.varibad.settings import VaribadSettings

POSTERIOR = "posterior"
"""Name of the mean and log-variance [L, B, 2 latent] among what is added to a sequence."""


class Varibad(CriticPpo[VaribadSettings, VaribadNetwork]):
    """VariBAD behind the Learner protocol: see `metarl.agents.learning.Learner`.

    The memory of its belief holds `posterior_mean` and `posterior_log_variance`, each [M, N, latent].
    """

    facts = Facts(belief_per_env=True, infers_one_task=True)
    label = "VariBAD"
    settings: VaribadSettings
    make_core: CoreMaker = staticmethod(make_core)

    def __init__(
        self,
        settings: VaribadSettings,
        observation_size: int,
        action_size: int,
        generator: torch.Generator,
        device: torch.device,
        ranks: Ranks = ALONE,
        privileged: Sequence[str] = (),
    ) -> None:
        super().__init__(settings, observation_size, action_size, generator, device, ranks, privileged)
        self.vae_optimiser = torch.optim.Adam(
            self.network.model_parameters(),
            lr=settings.vae_lr,
            eps=ADAM_EPSILON,
            fused=True if device.type == "cpu" else None,
        )

    @property
    def remembers(self) -> bool:
        """PPO's steps act on what the memory gave before."""
        return False

    def make_network(self) -> VaribadNetwork:
        """Return embeddings, encoder, decoders and heads."""
        return VaribadNetwork(self.settings, self.observation_size, self.action_size, self.make_core, self.told)

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters of actor and critic."""
        return self.network.policy_parameters()

    @torch.no_grad()
    def sequence(self, trial: Trial) -> TrialSequence:
        """Return a trial with the posterior after each of its slots."""
        sequence = super().sequence(trial)
        if not sequence.steps.shape[1]:  # cuDNN takes no empty batch
            posteriors = sequence.inputs.new_empty(*sequence.steps.shape, self.network.core.output_size)
        else:
            posteriors = self.network.posteriors(sequence.inputs, sequence.memory)
        return replace(sequence, extra={**sequence.extra, POSTERIOR: posteriors})

    def evaluate(self, sequence: TrialSequence) -> tuple[Tensor, Tensor]:
        """Return action means [L, B, act] and values [L, B] at the posteriors of the policy that collected."""
        network = self.network
        features = network.features(sequence.extra[POSTERIOR], network.normalise(sequence.inputs))
        return network.means(features), self.values(features, sequence)

    def learn_besides(self, sequence: TrialSequence, generator: torch.Generator) -> dict[str, float]:
        """Take gradient steps on the evidence lower bound; returns its terms, and the posterior after each shot."""
        own_envs = sequence.steps.shape[1]
        num_envs, first = self._places(own_envs)
        history = []
        for _ in range(self.settings.vae_updates):
            chosen = torch.randperm(num_envs, generator=generator, device=generator.device)[: self.settings.vae_batch]
            draws = Draws.make(self.settings, len(chosen), generator)
            places = (chosen - first).to(self.device)
            is_own = (places >= 0) & (places < own_envs)
            own = draws.of_envs(is_own.nonzero().squeeze(-1), self.device)
            history.append(self._vae_step(sequence.of_envs(places[is_own]), own, len(chosen)))
        rows = self.ranks.sum(torch.tensor([list(row.values()) for row in history], dtype=torch.float64)).mean(dim=0)
        return {**dict(zip(history[0], rows.tolist(), strict=True)), **self._spread(sequence, num_envs)}

    def _vae_step(self, sequence: TrialSequence, draws: Draws, count: int) -> dict[str, float]:
        """Take a gradient step on trials; returns this rank's summand of each metric.

        count: trials in all ranks.
        """
        parameters = self.network.model_parameters()
        self.vae_optimiser.zero_grad(set_to_none=True)
        terms = dict.fromkeys(("vae_loss", "reward_error", "state_error", "divergence"), 0.0)
        if sequence.steps.shape[1]:
            found = elbo(self.network, sequence, draws)
            loss = found.loss(self.settings).sum() / count
            loss.backward()
            sums = torch.stack(found).detach().sum(dim=1) / count
            terms = dict(zip(terms, (loss.item(), *sums.tolist()), strict=True))
        sum_gradients(parameters, self.ranks)
        norm = nn.utils.clip_grad_norm_(parameters, self.settings.max_gradient_norm)
        self.vae_optimiser.step()
        return {**terms, "vae_gradient_norm": norm.item() / self.ranks.size}

    def _spread(self, sequence: TrialSequence, count: int) -> dict[str, float]:
        """Return mean and standard deviation of the posterior after each shot, as means over trials and latents.

        The mean is that of its absolute value. count: trials in all ranks.
        """
        after = posteriors_after_shots(sequence.extra[POSTERIOR], sequence.inputs, slots_read(sequence.steps))
        own, shots = after.shape[:2]
        shares = self.ranks.sum(torch.tensor([own * shots, own], device=self.device)).tolist()
        mean, log_variance = after.chunk(2, dim=-1)  # [B, K, latent]
        rows = torch.stack([mean.abs(), (0.5 * log_variance).exp()]).mean(dim=-1).sum(dim=1).double()
        if not own:  # this rank has no trial that would say how many shots there are
            rows = rows.new_zeros(2, shares[0] // shares[1])
        means, stds = (self.ranks.sum(rows) / count).tolist()
        return {f"posterior_mean_{k}": x for k, x in enumerate(means, 1)} | {
            f"posterior_std_{k}": x for k, x in enumerate(stds, 1)
        }

    def _update_moments(self, sequence: TrialSequence) -> None:
        """Update the normaliser of the observation's change too."""
        super()._update_moments(sequence)
        observations = sequence.inputs[..., : self.observation_size]
        changes = (observations[1:] - observations[:-1])[sequence.transitions[:-1]]
        self.network.change_moments.update(changes, self.ranks)

    def deployable(self, belief: SlotBelief) -> Deployable:
        """Return the network with a slot's parts and the states of its core as arguments."""
        return super().deployable(replace(belief, memory=without_posterior(belief.memory)))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training continues from, as plain types and tensors."""
        return super().state_dict() | {"vae_optimiser": copy.deepcopy(self.vae_optimiser.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; raises ValueError if the shapes differ."""
        super().load_state_dict(state)
        self.vae_optimiser.load_state_dict(copy.deepcopy(state["vae_optimiser"]))
