"""The data of a shot as the losses of inner and outer steps take it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.policy import Gaussian


class Batch(NamedTuple):
    """Data of one shot for the losses: B = T x N steps of M tasks, the envs of a step side by side."""

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
    rewards: Tensor
    """[M, B], discounted from the episode's start and divided by the standard deviation of the task's advantages."""
    values: Tensor
    """[M, B], the baseline in the same unit."""
    going_on: Tensor
    """[M, T, N], 1 where the step before is of the same episode, else 0."""
    spread: Tensor
    """[M], the standard deviation of the task's advantages."""
    credit: Tensor
    """[M], weight of the log-likelihood of this shot's actions in the outer loss (E-MAML); 0 for the last shot."""

    @property
    def old(self) -> Gaussian:
        """The policy that collected."""
        return Gaussian(self.old_mean, self.old_log_std)

    def tasks(self, chunk: slice) -> Batch:
        """Return the steps of some of the tasks."""
        return Batch(*(x[chunk] for x in self))

    def steps(self, index: Tensor) -> Batch:
        """Return some of the steps, with weights that sum to 1 again; they follow on each other no more."""
        kept = ("old_log_std", "going_on", "spread", "credit")
        share = Batch(**{name: x if name in kept else x[:, index] for name, x in self._asdict().items()})
        return share._replace(weights=share.weights / share.weights.sum(1, keepdim=True).clamp(min=1e-12))


def by_task(x: Tensor) -> Tensor:
    """Reshape [T, M, N, ...] to [M, T N, ...]."""
    return x.transpose(0, 1).reshape(x.shape[1], -1, *x.shape[3:])


def ratio(log_probs: Tensor, batch: Batch) -> Tensor:
    """Return pi / pi_old of the batch's actions, [M, B], given log pi."""
    return torch.exp(log_probs - batch.old_log_probs)
