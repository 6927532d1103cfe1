"""MAML for reinforcement learning (Finn 2017): inner steps batched over tasks, outer step by ProMP or TRPO.

With theta the meta-parameters, phi_0 = theta and phi_{k+1} = phi_k - alpha_k grad L_k(phi_k) for each task, where L_k
is the policy-gradient loss of shot k, the outer step lowers the loss of the last shot as a function of theta. Per-task
means are summed over tasks before differentiation, so that every task's inner gradient is its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from metarl.agents import numerics
from metarl.agents.agent import Deployable, Facts, Reading, Rollout, Trial
from metarl.agents.beliefs import NOT_SAVED
from metarl.agents.learning import MetaLearner
from metarl.agents.maml import baseline
from metarl.agents.maml.inner import Batch, InnerLoop, by_task
from metarl.agents.maml.outer import OuterLoop
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.policy import GaussianPolicy, Layers
from metarl.agents.ranks import ALONE, Ranks


@dataclass(frozen=True)
class MamlBelief:
    """The parameters that each task's policy has reached."""

    parameters: Tensor
    """[M, P] flat."""
    steps: int
    """Number of inner steps taken."""
    policy: GaussianPolicy = field(metadata=NOT_SAVED)
    """Architecture of the policies."""
    batches: tuple[Batch, ...] = field(default=(), metadata=NOT_SAVED)
    """Shots that were adapted from, one an inner step, which only an outer step needs."""

    @cached_property
    def layers(self) -> Layers:
        """The parameters as stacked layers."""
        return self.policy.layers(self.parameters)

    @cached_property
    def std(self) -> Tensor:
        """Standard deviations of the policies' actions, [M, 1, act]."""
        return self.layers.log_std.exp()


class MeanPolicy(nn.Module):
    """The mean of one task's policy: observation [1, obs] -> action [1, act]."""

    def __init__(self, policy: GaussianPolicy, moments: Moments | None, layers: Layers):
        super().__init__()
        self.policy, self.moments, self.layers = policy, moments, layers

    def forward(self, observation: Tensor) -> Tensor:
        if self.moments is not None:
            observation = self.moments.standardise(observation).clamp(-INPUT_CLIP, INPUT_CLIP)
        return self.policy(self.layers, observation.unsqueeze(0)).mean[0]


class Maml(MetaLearner):
    """Model-agnostic meta-learning of a Gaussian policy."""

    facts = Facts(needs_own_noise=True)

    def __init__(
        self,
        settings: MamlSettings,
        observation_size: int,
        action_size: int,
        generator: torch.Generator,
        device: torch.device,
        ranks: Ranks = ALONE,
    ):
        self.settings = settings
        self.ranks = ranks
        self.policy = GaussianPolicy(
            observation_size, action_size, settings.hidden_sizes, settings.activation, settings.min_std
        )
        self.device = device
        self.theta = self.policy.initial(settings.initial_std, settings.output_gain, generator).to(device)
        """Meta-parameters [P]."""
        self._optimiser = torch.optim.Adam([self.theta], lr=settings.promp_lr)
        self._moments = Moments(observation_size).to(device)
        self.inner = InnerLoop(settings, self.policy)
        self.outer = OuterLoop(self.inner, ranks)

    def begin(self, num_tasks: int, envs_per_task: int, generators: Sequence[torch.Generator]) -> MamlBelief:
        """Return the belief that every task's policy is the one of the meta-parameters."""
        return MamlBelief(self.theta.detach().expand(num_tasks, -1).clone(), 0, self.policy)

    def act(self, belief: MamlBelief, observations: Tensor, noise: Tensor | None) -> tuple[Tensor, MamlBelief]:
        actions = self.policy(belief.layers, self._normalise(observations.to(self.device))).mean
        if noise is not None:
            actions = actions + belief.std * noise.to(self.device)
        return actions, belief

    def adapt(self, belief: MamlBelief, rollout: Rollout, generators: Sequence[torch.Generator]) -> MamlBelief:
        """Take one inner step on the rollout."""
        batch = self.prepare(rollout, belief)
        adapted = torch.empty_like(belief.parameters)
        for chunk in self.inner.chunks(len(adapted)):
            phi = belief.parameters[chunk]
            adapted[chunk] = self.inner.step(phi, batch.tasks(chunk), belief.steps, create_graph=False).detach()
        return MamlBelief(adapted, belief.steps + 1, self.policy, (*belief.batches, batch))

    @torch.no_grad()
    def read(self, belief: MamlBelief, rollout: Rollout) -> Reading:
        steps, m, n = rollout.rewards.shape
        rollout = rollout.to(self.device)
        policy = self.policy(belief.layers, self._normalise(by_task(rollout.observations)))
        log_probs = numerics.gaussian_log_prob(*policy, by_task(rollout.actions))
        entropies = numerics.gaussian_entropy(policy.log_std).expand(m, steps * n)
        return Reading(belief, *(x.view(m, steps, n).transpose(0, 1) for x in (log_probs, entropies.contiguous())))

    def observation_moments(self, belief: MamlBelief) -> Moments | None:
        return self._moments if self.settings.normalise_input else None

    def deployable(self, belief: MamlBelief) -> Deployable:
        moments = copy.deepcopy(self.observation_moments(belief))
        layers = self.policy.layers(belief.parameters.cpu())
        module = MeanPolicy(self.policy, None if moments is None else moments.cpu(), layers)
        return Deployable(module, {"observation": torch.zeros(1, self.policy.observation_size)}, ("action",))

    def meta_update(self, trial: Trial, generator: torch.Generator) -> dict[str, float]:
        batches = [*trial.beliefs[-1].batches, self.prepare(trial.rollouts[-1], trial.beliefs[-1])]
        num_tasks = int(self.ranks.sum(torch.tensor(len(batches[0].weights), device=self.device)))
        if self.settings.outer == "promp":
            metrics = self.outer.promp_step(self.theta, self._optimiser, batches, num_tasks)
        else:
            parameters = [belief.parameters for belief in trial.beliefs]
            metrics = self.outer.trpo_step(self.theta, batches, num_tasks, parameters, generator)
        if self.settings.normalise_input:  # last: a trial is learned from with the inputs that it was collected with
            observations = torch.cat([r.observations[r.valid] for r in trial.rollouts])
            self._moments.update(observations.to(self.device), self.ranks)
        return {**metrics, "std": float(self.theta[-self.policy.action_size :].exp().mean())}

    def state_dict(self) -> dict[str, Any]:
        moments, optimiser = self._moments.state_dict(), self._optimiser.state_dict()
        return copy.deepcopy({"theta": self.theta.detach(), "optimiser": optimiser, "moments": moments})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        theta = state["theta"]
        if theta.shape != self.theta.shape:
            raise ValueError(
                f"the checkpoint's policy has {theta.numel()} parameters, this one {self.theta.numel()}: "
                "their layer sizes, observations or actions differ; use the config that the checkpoint was made with"
            )
        self.theta.copy_(theta)
        self._optimiser.load_state_dict(state["optimiser"])
        self._moments.load_state_dict(state["moments"])

    def prepare(self, rollout: Rollout, belief: MamlBelief) -> Batch:
        """Return a shot's steps by task, with advantages over the refitted baseline; belief: that collected it."""
        rollout = rollout.to(self.device)
        steps, m, n = rollout.rewards.shape
        s = self.settings
        ended = rollout.terminated | rollout.truncated | ~rollout.valid
        returns = numerics.discounted_returns(rollout.rewards, ended, s.discount)
        times = torch.arange(steps, device=self.device).repeat_interleave(n)  # [B]
        observations = by_task(rollout.observations)
        valid = by_task(rollout.valid)
        values = torch.empty(m, steps * n, dtype=torch.float64, device=self.device)
        final_values = torch.zeros(m, n, dtype=torch.float64, device=self.device)
        for chunk in self.inner.chunks(m):
            x = baseline.features(observations[chunk], times)
            coefficients = baseline.fit(x, by_task(returns)[chunk], valid[chunk], s.baseline_ridge)
            values[chunk] = (x @ coefficients.unsqueeze(-1)).squeeze(-1)
            if s.bootstrap_truncation:  # the time limit is the horizon: every episode that it cut took `steps` steps
                x = baseline.features(rollout.final_observations[chunk], torch.full((n,), steps, device=self.device))
                final_values[chunk] = (x @ coefficients.unsqueeze(-1)).squeeze(-1)
        by_time = values.view(m, steps, n).transpose(0, 1).to(rollout.rewards.dtype)  # [T, M, N]
        next_values = torch.cat([by_time[1:], torch.zeros_like(by_time[:1])])
        at_limit = final_values.to(by_time.dtype).expand_as(by_time)
        next_values = torch.where(rollout.truncated, at_limit, next_values * ~ended)
        advantages = numerics.gae(rollout.rewards, by_time, next_values, ended, s.discount, s.gae_lambda)
        weights = valid.double() / valid.sum(1, keepdim=True).clamp(min=1)
        normalised = numerics.normalise(by_task(advantages), weights, dim=1)
        dtype = self.theta.dtype
        observations, actions = self._normalise(observations), by_task(rollout.actions).to(dtype)
        with torch.no_grad():
            old = self.policy(belief.layers, observations)
        log_probs = numerics.gaussian_log_prob(*old, actions)
        return Batch(observations, actions, normalised.to(dtype), weights.to(dtype), *old, log_probs)

    def _normalise(self, observations: Tensor) -> Tensor:
        """Return the policy's inputs of observations [..., obs]."""
        if self.settings.normalise_input:
            observations = self._moments.standardise(observations).clamp(-INPUT_CLIP, INPUT_CLIP)
        return observations.to(self.theta.dtype)
