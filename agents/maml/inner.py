"""Inner steps of MAML, batched over tasks, and the losses after them as functions of the meta-parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents import numerics
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.policy import Gaussian, GaussianPolicy


class Batch(NamedTuple):
    """Data of one shot for the losses: B = T x N steps of M tasks."""

    observations: Tensor
    """[M, B, obs]."""
    actions: Tensor
    """[M, B, act]."""
    advantages: Tensor
    """[M, B], normalised by task."""
    weights: Tensor
    """[M, B], 1 / (valid steps of the task) where valid, else 0."""
    old_mean: Tensor
    """[M, B, act], mean of the policy that collected."""
    old_log_std: Tensor
    """[M, 1, act], log-std of the policy that collected."""
    old_log_probs: Tensor
    """[M, B], log-probabilities of the actions under the policy that collected."""

    @property
    def old(self) -> Gaussian:
        """The policy that collected."""
        return Gaussian(self.old_mean, self.old_log_std)

    def tasks(self, chunk: slice) -> Batch:
        """Return the steps of some of the tasks."""
        return Batch(*(x[chunk] for x in self))

    def steps(self, index: Tensor) -> Batch:
        """Return some of the steps, with weights that sum to 1 again."""
        share = Batch(*(x if x is self.old_log_std else x[:, index] for x in self))
        return share._replace(weights=share.weights / share.weights.sum(1, keepdim=True).clamp(min=1e-12))


@dataclass(frozen=True)
class InnerLoop:
    """Inner steps from the meta-parameters theta [P] to each task's phi [M, P]."""

    settings: MamlSettings
    """Settings of MAML."""
    policy: GaussianPolicy
    """Architecture of the policies."""

    def chunks(self, num_tasks: int) -> Iterator[slice]:
        """Return the ranges of tasks that are handled at once."""
        size = self.settings.tasks_per_chunk or num_tasks
        return (slice(i, min(i + size, num_tasks)) for i in range(0, num_tasks, size))

    def lr(self, k: int) -> float:
        """Return alpha_k, the step size of inner step k."""
        return self.settings.inner_lr * self.settings.inner_lr_decay**k

    def adapted(self, theta: Tensor, batches: list[Batch], create_graph: bool) -> list[Tensor]:
        """Return phi_0 = theta, phi_1, ... phi_K [M, P], the parameters after each inner step, functions of theta."""
        phis = [theta.expand(len(batches[0].weights), -1)]
        for k, batch in enumerate(batches[:-1]):
            phis.append(self.step(phis[-1], batch, k, create_graph))
        return phis

    def step(self, phi: Tensor, batch: Batch, k: int, create_graph: bool) -> Tensor:
        """Return phi - alpha_k grad L_k(phi), [M, P]; as a function of theta if create_graph."""
        lr = self.lr(k)
        second_order = create_graph and not self.settings.first_order
        if not create_graph:
            phi = phi.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(phi, batch).sum(), phi, create_graph=second_order)
        return phi - lr * gradient

    def loss(self, phi: Tensor, batch: Batch) -> Tensor:
        """Return -E[r A] with r = pi / pi_old, or -E[log pi A], [M]; of the same gradient where pi = pi_old."""
        log_prob = numerics.gaussian_log_prob(*self.policy(self.policy.layers(phi), batch.observations), batch.actions)
        if self.settings.inner_surrogate == "ratio":
            log_prob = torch.exp(log_prob - batch.old_log_probs)
        return -(batch.weights * log_prob * batch.advantages).sum(1)

    def surrogate(self, theta: Tensor, batches: list[Batch]) -> Tensor:
        """Return -E[pi / pi_old A] of the last shot after adaptation, summed over tasks."""
        query = batches[-1]
        phi = self.adapted(theta, batches, create_graph=True)[-1]
        likelihoods = ratio(self.policy(self.policy.layers(phi), query.observations), query)
        return -(query.weights * likelihoods * query.advantages).sum()

    def promp_losses(self, theta: Tensor, batches: list[Batch]) -> tuple[Tensor, Tensor]:
        """Return (clipped surrogate loss of the last shot, KL(old || new) of the earlier ones), sums over tasks."""
        phis = self.adapted(theta, batches, create_graph=True)
        new = [self.policy(self.policy.layers(phi), b.observations) for phi, b in zip(phis, batches, strict=True)]
        query = batches[-1]
        likelihoods = ratio(new[-1], query)
        surrogate = numerics.clipped_surrogate(likelihoods, query.advantages, self.settings.promp_clip)
        kl = sum(
            (b.weights * numerics.gaussian_kl(*b.old, *q)).sum() for b, q in zip(batches[:-1], new[:-1], strict=True)
        )
        return -(query.weights * surrogate).sum(), torch.as_tensor(kl)


def ratio(new: Gaussian, batch: Batch) -> Tensor:
    """Return pi_new / pi_old of the batch's actions, [M, B]."""
    return torch.exp(numerics.gaussian_log_prob(*new, batch.actions) - batch.old_log_probs)


def by_task(x: Tensor) -> Tensor:
    """Reshape [T, M, N, ...] to [M, T N, ...]."""
    return x.transpose(0, 1).reshape(x.shape[1], -1, *x.shape[3:])
