"""MAML for reinforcement learning (Finn 2017): inner steps batched over tasks, outer step by ProMP or TRPO.

With theta the meta-parameters, phi_0 = theta and phi_{k+1} = phi_k - alpha_k grad L_k(phi_k) for each task, where L_k
is the policy-gradient loss of shot k, the outer step lowers the loss of the last shot as a function of theta. Per-task
means are summed over tasks before differentiation, so that every task's inner gradient is its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarl.agents import numerics
from metarl.agents.agent import REFUSED, Deployable, Facts, Reading, Rollout, Trial
from metarl.agents.beliefs import NOT_SAVED
from metarl.agents.learning import MetaLearner
from metarl.agents.maml import baseline
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.policy import Gaussian, GaussianPolicy, Layers
from metarl.agents.ranks import ALONE, Ranks

STEP_SIZE_FACTOR = 1.2  # of ProMP's step size, down where its way was too long and up where it was not
STEP_SIZE_RANGE = 100.0  # how far that step size may get from its first value, either way
PROMP_BACKTRACKS = 6  # halvings of ProMP's way before it is given up


class Batch(NamedTuple):
    """One shot as the losses read it: B = T x N steps of M tasks."""

    observations: Tensor
    """[M, B, obs]."""
    actions: Tensor
    """[M, B, act]."""
    advantages: Tensor
    """[M, B], normalised by task."""
    weights: Tensor
    """[M, B], 1 / (valid steps of the task) where valid, else 0."""
    old_mean: Tensor
    """[M, B, act], of the policy that collected."""
    old_log_std: Tensor
    """[M, 1, act], of the policy that collected."""
    old_log_probs: Tensor
    """[M, B], of the actions under the policy that collected."""

    @property
    def old(self) -> Gaussian:
        """The policy that collected."""
        return Gaussian(self.old_mean, self.old_log_std)

    def tasks(self, chunk: slice) -> Batch:
        return Batch(*(x[chunk] for x in self))

    def steps(self, index: Tensor) -> Batch:
        """A share of the steps, their weights summing to 1 again."""
        share = Batch(*(x if x is self.old_log_std else x[:, index] for x in self))
        return share._replace(weights=share.weights / share.weights.sum(1, keepdim=True).clamp(min=1e-12))


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
    """One task's policy, its mean: observation [1, obs] -> action [1, act]."""

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

    def begin(self, num_tasks: int, envs_per_task: int, generators: Sequence[torch.Generator]) -> MamlBelief:
        """Return the belief that every task's policy is the one of the meta-parameters."""
        return MamlBelief(self.theta.detach().expand(num_tasks, -1).clone(), 0, self.policy)

    def act(self, belief: MamlBelief, observations: Tensor, noise: Tensor | None) -> tuple[Tensor, MamlBelief]:
        actions = self.policy(belief.layers, self._normalise(observations.to(self.device))).mean
        if noise is not None:
            actions = actions + belief.std * noise.to(self.device)
        return actions, belief

    def observe(self, belief: MamlBelief, rewards: Tensor, ended: Tensor) -> MamlBelief:
        return belief

    def adapt(self, belief: MamlBelief, rollout: Rollout, generators: Sequence[torch.Generator]) -> MamlBelief:
        """Take one inner step on the rollout."""
        batch = self.prepare(rollout, belief)
        adapted = torch.empty_like(belief.parameters)
        for chunk in self._chunks(len(adapted)):
            phi = belief.parameters[chunk]
            adapted[chunk] = self._inner_step(phi, batch.tasks(chunk), belief.steps, create_graph=False).detach()
        return MamlBelief(adapted, belief.steps + 1, self.policy, (*belief.batches, batch))

    @torch.no_grad()
    def read(self, belief: MamlBelief, rollout: Rollout) -> Reading:
        steps, m, n = rollout.rewards.shape
        rollout = rollout.to(self.device)
        policy = self.policy(belief.layers, self._normalise(_by_task(rollout.observations)))
        log_probs = numerics.gaussian_log_prob(*policy, _by_task(rollout.actions))
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
            metrics = self._promp_step(batches, num_tasks)
        else:
            parameters = [belief.parameters for belief in trial.beliefs]
            metrics = self._trpo_step(batches, num_tasks, parameters, generator)
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
        """Advantages over the refitted baseline, and the steps laid flat by task; belief: what collected."""
        rollout = rollout.to(self.device)
        steps, m, n = rollout.rewards.shape
        s = self.settings
        ended = rollout.terminated | rollout.truncated | ~rollout.valid
        returns = numerics.discounted_returns(rollout.rewards, ended, s.discount)
        times = torch.arange(steps, device=self.device).repeat_interleave(n)  # [B]
        observations = _by_task(rollout.observations)
        valid = _by_task(rollout.valid)
        values = torch.empty(m, steps * n, dtype=torch.float64, device=self.device)
        final_values = torch.zeros(m, n, dtype=torch.float64, device=self.device)
        for chunk in self._chunks(m):
            x = baseline.features(observations[chunk], times)
            coefficients = baseline.fit(x, _by_task(returns)[chunk], valid[chunk], s.baseline_ridge)
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
        normalised = numerics.normalise(_by_task(advantages), weights, dim=1)
        dtype = self.theta.dtype
        observations, actions = self._normalise(observations), _by_task(rollout.actions).to(dtype)
        with torch.no_grad():
            old = self.policy(belief.layers, observations)
        log_probs = numerics.gaussian_log_prob(*old, actions)
        return Batch(observations, actions, normalised.to(dtype), weights.to(dtype), *old, log_probs)

    def adapted(self, theta: Tensor, batches: list[Batch], create_graph: bool) -> list[Tensor]:
        """phi_0 = theta, phi_1, ... phi_K [M, P]: the parameters after each inner step, as functions of theta."""
        phis = [theta.expand(len(batches[0].weights), -1)]
        for k, batch in enumerate(batches[:-1]):
            phis.append(self._inner_step(phis[-1], batch, k, create_graph))
        return phis

    def _normalise(self, observations: Tensor) -> Tensor:
        """What the policy reads of observations [..., obs]."""
        if self.settings.normalise_input:
            observations = self._moments.standardise(observations).clamp(-INPUT_CLIP, INPUT_CLIP)
        return observations.to(self.theta.dtype)

    def _chunks(self, num_tasks: int) -> Iterator[slice]:
        size = self.settings.tasks_per_chunk or num_tasks
        return (slice(i, min(i + size, num_tasks)) for i in range(0, num_tasks, size))

    def _inner_step(self, phi: Tensor, batch: Batch, k: int, create_graph: bool) -> Tensor:
        """phi - alpha_k grad L_k(phi), [M, P]; as a function of theta if create_graph."""
        lr = self.settings.inner_lr * self.settings.inner_lr_decay**k
        second_order = create_graph and not self.settings.first_order
        if not create_graph:
            phi = phi.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self._inner_loss(phi, batch).sum(), phi, create_graph=second_order)
        return phi - lr * gradient

    def _inner_loss(self, phi: Tensor, batch: Batch) -> Tensor:
        """-E[r A] with r = pi / pi_old, or -E[log pi A]; where pi = pi_old both have the policy gradient; [M]."""
        log_prob = numerics.gaussian_log_prob(*self.policy(self.policy.layers(phi), batch.observations), batch.actions)
        if self.settings.inner_surrogate == "ratio":
            log_prob = torch.exp(log_prob - batch.old_log_probs)
        return -(batch.weights * log_prob * batch.advantages).sum(1)

    def _promp_step(self, batches: list[Batch], num_tasks: int) -> dict[str, float]:
        """ProMP (Rothfuss 2019): epochs of Adam on the clipped surrogate plus a KL penalty on the inner policies.

        Of the way that they went, as far is kept as lowers the surrogate loss with the adapted policies' KL in bounds,
        and Adam's step size follows: it shrinks where the way was too long, and grows where it was not.
        """
        s, start = self.settings, self.theta.clone()

        def loss(theta: Tensor, here: list[Batch]) -> Tensor:
            surrogate, inner_kl = self.promp_losses(theta, here)
            return surrogate + s.promp_inner_kl * inner_kl

        norms = []
        for _ in range(s.promp_epochs):
            gradient = self._meta_gradient(batches, num_tasks, loss)
            norms.append(float(gradient.norm()))
            if not math.isfinite(norms[-1]):  # too far already: likelihood ratios overflow
                break
            self.theta.grad = gradient
            self._optimiser.step()
        group, way = self._optimiser.param_groups[0], self.theta - start
        theta, metrics = self._search(batches, num_tasks, start, way, s.promp_kl, PROMP_BACKTRACKS, factor=0.5)
        self.theta.copy_(theta)
        group["lr"] *= 1 / STEP_SIZE_FACTOR if metrics["backtracks"] else STEP_SIZE_FACTOR
        group["lr"] = min(max(group["lr"], s.promp_lr / STEP_SIZE_RANGE), s.promp_lr * STEP_SIZE_RANGE)
        return {**metrics, "gradient_norm": norms[0], "lr": group["lr"]}

    def _search(
        self,
        batches: list[Batch],
        num_tasks: int,
        start: Tensor,
        step: Tensor,
        bound: float,
        backtracks: int,
        factor: float,
    ) -> tuple[Tensor, dict[str, float]]:
        """The longest share of a step that lowers the loss of the adapted policies and keeps their KL within a bound.

        Returns the parameters reached, `start` if no share does it, and metrics.
        """
        loss, _ = self._loss_and_kl(start, batches, num_tasks)
        reached = {}

        def accept(theta: Tensor) -> bool:
            reached["loss_after"], reached["kl"] = self._loss_and_kl(theta, batches, num_tasks)
            return reached["loss_after"] < loss and reached["kl"] <= bound

        theta, taken = numerics.backtracking_line_search(accept, start, step, backtracks, factor)
        if taken == backtracks:
            reached = {"loss_after": loss, "kl": 0.0}
        return theta, {"loss_before": loss, **reached, "backtracks": float(taken), REFUSED: float(taken == backtracks)}

    def promp_losses(self, theta: Tensor, batches: list[Batch]) -> tuple[Tensor, Tensor]:
        """(clipped surrogate loss of the last shot, KL(old || new) of the earlier ones), each summed over tasks."""
        phis = self.adapted(theta, batches, create_graph=True)
        new = [self.policy(self.policy.layers(phi), b.observations) for phi, b in zip(phis, batches, strict=True)]
        query = batches[-1]
        ratio = _ratio(new[-1], query)
        surrogate = numerics.clipped_surrogate(ratio, query.advantages, self.settings.promp_clip)
        kl = sum(
            (b.weights * numerics.gaussian_kl(*b.old, *q)).sum() for b, q in zip(batches[:-1], new[:-1], strict=True)
        )
        return -(query.weights * surrogate).sum(), torch.as_tensor(kl)

    def _trpo_step(
        self, batches: list[Batch], num_tasks: int, parameters: list[Tensor], generator: torch.Generator
    ) -> dict[str, float]:
        """TRPO on the adapted policies: natural gradient by conjugate gradient, then a backtracking line search."""
        s = self.settings
        gradient = self._meta_gradient(batches, num_tasks, self.surrogate)
        fisher = self._fisher(batches, num_tasks, parameters, generator)
        direction = numerics.conjugate_gradient(fisher, gradient, s.trpo_cg_iterations)
        curvature = (direction @ fisher(direction)).clamp(min=1e-12)
        step = -direction * torch.sqrt(2 * s.trpo_kl / curvature)
        theta, metrics = self._search(batches, num_tasks, self.theta, step, s.trpo_kl, s.trpo_backtracks, factor=0.8)
        self.theta.copy_(theta)
        return {**metrics, "gradient_norm": float(gradient.norm())}

    def _meta_gradient(
        self, batches: list[Batch], num_tasks: int, loss: Callable[[Tensor, list[Batch]], Tensor]
    ) -> Tensor:
        """Gradient through the inner steps of a loss [sum over tasks], as the mean over the tasks of all ranks, [P]."""
        gradient = torch.zeros_like(self.theta)
        for chunk in self._chunks(len(batches[0].weights)):
            theta = self.theta.detach().requires_grad_()
            value = loss(theta, [b.tasks(chunk) for b in batches]) / num_tasks
            gradient += torch.autograd.grad(value, theta)[0]
        return self.ranks.sum(gradient)

    def surrogate(self, theta: Tensor, batches: list[Batch]) -> Tensor:
        """-E[pi / pi_old A] of the last shot after adaptation, summed over tasks."""
        query = batches[-1]
        phi = self.adapted(theta, batches, create_graph=True)[-1]
        ratio = _ratio(self.policy(self.policy.layers(phi), query.observations), query)
        return -(query.weights * ratio * query.advantages).sum()

    def _loss_and_kl(self, theta: Tensor, batches: list[Batch], num_tasks: int) -> tuple[float, float]:
        """Of the adapted policies, as means over the tasks of all ranks."""
        loss, kl = 0.0, 0.0
        for chunk in self._chunks(len(batches[0].weights)):
            here = [b.tasks(chunk) for b in batches]
            query = here[-1]
            phi = self.adapted(theta, here, create_graph=False)[-1]
            with torch.no_grad():
                after = self.policy(self.policy.layers(phi), query.observations)
            ratio = _ratio(after, query)
            loss -= (query.weights * ratio * query.advantages).sum().item() / num_tasks
            kl += (query.weights * numerics.gaussian_kl(*query.old, *after)).sum().item() / num_tasks
        loss, kl = self.ranks.sum(torch.tensor([loss, kl], dtype=torch.float64)).tolist()
        return loss, kl

    def _fisher(
        self, batches: list[Batch], num_tasks: int, parameters: list[Tensor], generator: torch.Generator
    ) -> Callable[[Tensor], Tensor]:
        """v -> J'FJ v + damping v, mean over the tasks of all ranks, on a share of the states.

        Where old and new policies agree, the Hessian of the adapted policies' KL is J'FJ: F the Fisher matrix of the
        adapted policy, J = prod_k (I - alpha_k H_k) the Jacobian of the inner steps, H_k the Hessian of L_k, symmetric.
        """
        s = self.settings
        steps = batches[0].weights.shape[1]
        share = max(1, round(s.trpo_fisher_share * steps))
        index = torch.randperm(steps, generator=generator)[:share].to(self.device)
        here = [b.steps(index) for b in batches]
        products = [
            _ChunkProduct(self, [b.tasks(c) for b in here], [p[c] for p in parameters])
            for c in self._chunks(len(parameters[0]))
        ]

        def product(v: Tensor) -> Tensor:
            damping = s.trpo_damping * num_tasks * v if self.ranks.is_first else torch.zeros_like(v)
            return self.ranks.sum(sum((p(v) for p in products), damping)) / num_tasks

        return product


class _ChunkProduct:
    """J'FJ v, summed over a chunk of tasks."""

    def __init__(self, agent: Maml, batches: list[Batch], parameters: list[Tensor]):
        s = agent.settings
        self._factors: list[tuple[float, Tensor, Tensor]] = []
        if not s.first_order:
            for k, (batch, phi) in enumerate(zip(batches[:-1], parameters[:-1], strict=True)):
                phi = phi.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(agent._inner_loss(phi, batch).sum(), phi, create_graph=True)
                self._factors.append((s.inner_lr * s.inner_lr_decay**k, phi, gradient))
        query = batches[-1]
        self._phi = parameters[-1].detach().requires_grad_()
        new = agent.policy(agent.policy.layers(self._phi), query.observations)
        kl = (query.weights * numerics.gaussian_kl(new.mean.detach(), new.log_std.detach(), *new)).sum()
        (self._kl_gradient,) = torch.autograd.grad(kl, self._phi, create_graph=True)

    def __call__(self, v: Tensor) -> Tensor:
        u = v.expand_as(self._phi)
        for lr, phi, gradient in self._factors:
            u = u - lr * torch.autograd.grad(gradient, phi, u, retain_graph=True)[0]
        u = torch.autograd.grad(self._kl_gradient, self._phi, u, retain_graph=True)[0]
        for lr, phi, gradient in reversed(self._factors):
            u = u - lr * torch.autograd.grad(gradient, phi, u, retain_graph=True)[0]
        return u.sum(0)


def _ratio(new: Gaussian, batch: Batch) -> Tensor:
    """pi_new / pi_old of the batch's actions, [M, B]."""
    return torch.exp(numerics.gaussian_log_prob(*new, batch.actions) - batch.old_log_probs)


def _by_task(x: Tensor) -> Tensor:
    """[T, M, N, ...] -> [M, T N, ...]."""
    return x.transpose(0, 1).reshape(x.shape[1], -1, *x.shape[3:])
