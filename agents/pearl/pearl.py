"""PEARL (Rakelly 2019): off-policy meta-learning by a posterior over what distinguishes tasks.

A context encoder turns each transition of a task into a Gaussian factor of the posterior; the order of the transitions
does not matter. The policy acts on a draw of the posterior for a whole shot, so that it explores as if that task were
the true one, and draws anew after each shot.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metarl.agents.agent import Deployable, Facts, Reading, Rollout, Trial
from metarl.agents.learning import MetaLearner, Trainer, World
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.pearl import gaussians
from metarl.agents.pearl.gaussians import Evidence, Posterior
from metarl.agents.pearl.networks import SquashedPolicy
from metarl.agents.pearl.sac import Batch, Networks, SoftActorCritic
from metarl.agents.pearl.settings import PearlSettings
from metarl.agents.pearl.task_replay import Columns, TaskReplay
from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.replay import columns_of
from metarl.agents.step_sizes import falling


@dataclass(frozen=True)
class PearlBelief:
    """The posterior of the latent variable of each task, and what the policy acts on. It does not grow with data."""

    evidence: Evidence
    """Natural parameters of the posterior, each [M, latent]."""
    latent: Tensor
    """[M, latent], the latent variable of the current shot."""

    @property
    def posterior(self) -> Posterior:
        """Mean and standard deviation of the posterior, each [M, latent]."""
        return gaussians.posterior(self.evidence)


class MeanPolicy(nn.Module):
    """The policy's mean for one latent variable: observation [1, obs] -> action [1, act]."""

    latent: Tensor

    def __init__(self, policy: SquashedPolicy, moments: Moments | None, latent: Tensor, bound: float) -> None:
        """latent: [1, latent]."""
        super().__init__()
        self.policy, self.moments, self.bound = policy, moments, bound
        self.register_buffer("latent", latent)

    def forward(self, observation: Tensor) -> Tensor:
        mean, _ = self.policy(torch.cat([standardised(observation, self.moments), self.latent], -1))
        return self.bound * torch.tanh(mean)


def standardised(observations: Tensor, moments: Moments | None) -> Tensor:
    """Return observations [..., obs] as the networks read them; without moments as they are."""
    if moments is None:
        return observations
    return moments.standardise(observations).clamp(-INPUT_CLIP, INPUT_CLIP)


class Pearl(MetaLearner):
    """Soft actor-critic on a latent variable that is inferred from a task's transitions."""

    facts = Facts(samples_belief=True, infers_one_task=True)

    def __init__(
        self,
        settings: PearlSettings,
        observation_size: int,
        action_size: int,
        generator: torch.Generator,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        if ranks.size > 1:
            raise ValueError(
                f"pearl keeps one replay buffer and learns in one process, not in {ranks.size}; train it without "
                "torchrun, or choose maml or rl2"
            )
        self.settings, self.device = settings, device
        self.observation_size, self.action_size = observation_size, action_size
        self.networks = Networks(settings, observation_size, action_size, generator).to(device)
        self._learner = SoftActorCritic(self.networks, settings, action_size)
        self._moments = Moments(observation_size).to(device)
        self._replay = TaskReplay(settings.replay_iterations, settings.context_iterations)
        self._iterations = 0

    def begin(self, num_tasks: int, envs_per_task: int, generators: Sequence[torch.Generator]) -> PearlBelief:
        """Return the belief without any data, and draws from the prior."""
        nothing = torch.zeros(num_tasks, self.settings.latent_size, device=self.device)
        return PearlBelief(Evidence(nothing, nothing.clone()), self._draws(generators))

    @torch.no_grad()
    def act(self, belief: PearlBelief, observations: Tensor, noise: Tensor | None) -> tuple[Tensor, PearlBelief]:
        mean, log_std = self._policy(belief, observations.to(self.device))
        raw = mean if noise is None else mean + log_std.exp() * noise.to(self.device)
        return self.settings.action_bound * torch.tanh(raw), belief

    @torch.no_grad()
    def adapt(self, belief: PearlBelief, rollout: Rollout, generators: Sequence[torch.Generator]) -> PearlBelief:
        """Multiply the posterior by the factors of a shot's transitions, and draw from it."""
        evidence = belief.evidence.plus(self._evidence(rollout.to(self.device)))
        mean, std = gaussians.posterior(evidence)
        if self.settings.posterior == "mean":
            return PearlBelief(evidence, mean)
        return PearlBelief(evidence, mean + std * self._draws(generators))

    @torch.no_grad()
    def read(self, belief: PearlBelief, rollout: Rollout) -> Reading:
        rollout, bound = rollout.to(self.device), self.settings.action_bound
        steps, _, n = rollout.rewards.shape
        mean, log_std = self._policy(belief, rollout.observations.transpose(0, 1).flatten(1, 2))
        mean, log_std = (x.unflatten(1, (steps, n)).transpose(0, 1) for x in (mean, log_std))
        raw = gaussians.unsquash(rollout.actions / bound)
        shift = self.action_size * math.log(bound)
        log_probs = gaussians.squashed_log_prob(mean, log_std, raw) - shift
        entropies = gaussians.squashed_entropy(mean, log_std) + shift
        return Reading(belief, log_probs, entropies, bound * torch.tanh(mean))

    def observation_moments(self, belief: PearlBelief) -> Moments | None:
        """Return the moments of the observations of training; None if observations are read as they are."""
        return self._moments if self.settings.normalise_input else None

    def deployable(self, belief: PearlBelief) -> Deployable:
        moments = copy.deepcopy(self.observation_moments(belief))
        policy, latent = copy.deepcopy(self.networks.policy).cpu(), belief.latent.cpu()
        module = MeanPolicy(policy, None if moments is None else moments.cpu(), latent, self.settings.action_bound)
        return Deployable(module, {"observation": torch.zeros(1, self.observation_size)}, ("action",))

    def trainer(self, world: World) -> Trainer:
        """Play a trial, store it, then take gradient steps on transitions of all tasks stored."""
        self._replay.open(world)
        return super().trainer(world)

    def meta_update(self, trial: Trial, generator: torch.Generator) -> dict[str, float]:
        """Store a trial's transitions, and take gradient steps on transitions of all tasks stored."""
        settings = self.settings
        self._learner.use_step_size(self.lr)
        self._iterations += 1
        steps = self._replay.add(trial)
        if steps == 0:  # every simulation broke down
            return {"updates": 0.0}
        spread = self._spread(trial)  # of the posteriors that the trial was played by
        if settings.normalise_input:
            observations = torch.cat([rollout.observations[rollout.valid] for rollout in trial.rollouts])
            self._moments.update(observations.to(self.device))
        updates = min(max(1, round(settings.updates_per_step * steps)), settings.max_updates)
        sizes = (settings.tasks_per_update, settings.batch_size, settings.context_size)
        sums: dict[str, Tensor] = {}
        for learned, context in self._replay.sample(updates, *sizes, generator):
            for name, value in self._learner.step(self._batch(learned, context), generator).items():
                sums[name] = sums[name] + value if name in sums else value
        means = {name: (value / updates).item() for name, value in sums.items()}
        return {**means, "updates": float(updates), "replay_steps": float(len(self._replay)), **spread}

    @property
    def lr(self) -> float:
        """Step size of the next iteration."""
        s = self.settings
        return falling(s.lr, s.lr_end, self._iterations, s.lr_decay_updates, s.lr_decay_from)

    def _policy(self, belief: PearlBelief, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-std before tanh, each [M, B, act], for observations [M, B, obs]."""
        m, b = observations.shape[:2]
        latents = belief.latent.unsqueeze(1).expand(m, b, -1)
        inputs = torch.cat([self._standardise(observations), latents], -1).flatten(0, 1)
        mean, log_std = self.networks.policy(inputs)
        return mean.unflatten(0, (m, b)), log_std.unflatten(0, (m, b))

    def _standardise(self, observations: Tensor) -> Tensor:
        return standardised(observations, self._moments if self.settings.normalise_input else None)

    def _draws(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Return standard normal numbers [M, latent], those of task m from generator m."""
        drawn = [torch.randn(self.settings.latent_size, generator=generator) for generator in generators]
        return torch.stack(drawn).to(self.device)

    def _context(self, columns: Columns) -> Tensor:
        """Return transitions [..., context] as the encoder reads them; columns: as `transitions` returns them."""
        names = ["next_observations"] if self.settings.next_observation_in_context else []
        parts = [self._standardise(columns[name]) for name in ("observations", *names)]
        return torch.cat(
            [*parts, columns["actions"] / self.settings.action_bound, columns["rewards"].unsqueeze(-1)], -1
        )

    def _evidence(self, rollout: Rollout) -> Evidence:
        """Return the evidence of a shot's valid transitions for each task."""
        valid = rollout.valid.transpose(0, 1).flatten(1)  # [M, T N]
        context = self._context(columns_of(rollout)).transpose(0, 1).flatten(1, 2)
        return self.networks.encoder(torch.where(valid.unsqueeze(-1), context, 0.0), valid)

    def _batch(self, learned: Columns, context: Columns) -> Batch:
        """Return transitions as the networks read them, on the agent's device."""
        learned, context = ({name: x.to(self.device) for name, x in part.items()} for part in (learned, context))
        return Batch(
            observations=self._standardise(learned["observations"]),
            actions=learned["actions"] / self.settings.action_bound,
            rewards=learned["rewards"],
            next_observations=self._standardise(learned["next_observations"]),
            terminated=learned["terminated"],
            context=self._context(context),
        )

    @torch.no_grad()
    def _spread(self, trial: Trial) -> dict[str, float]:
        """Return mean and standard deviation of the posterior after each shot, as means over tasks and latents.

        The mean is that of its absolute value.
        """
        last = self._evidence(trial.rollouts[-1].to(self.device))
        found = [belief.posterior for belief in trial.beliefs[1:]]
        found.append(gaussians.posterior(trial.beliefs[-1].evidence.plus(last)))
        metrics = {}
        for shot, (mean, std) in enumerate(found, 1):
            metrics[f"posterior_mean_{shot}"] = mean.abs().mean().item()
            metrics[f"posterior_std_{shot}"] = std.mean().item()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return networks, optimisers, moments and the names of the replay's files."""
        moments = copy.deepcopy(self._moments.state_dict())
        own = {"moments": moments, "replay": self._replay.state_dict(), "iterations": self._iterations}
        return {**self._learner.state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the replay's files are read by `trainer`."""
        self._learner.load_state_dict(state)
        self._moments.load_state_dict(state["moments"])
        self._replay.load_state_dict(state["replay"])
        self._iterations = state.get("iterations", 0)  # states of before it was counted have a constant step size
