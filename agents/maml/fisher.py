"""Fisher-vector products through MAML's inner steps, for TRPO's natural gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metarl.agents.maml.estimators import OF_EPISODES
from metarl.agents.maml.inner import InnerLoop
from metarl.agents.maml.shots import Batch
from metarl.agents.ranks import Ranks


def fisher_product(
    inner: InnerLoop,
    ranks: Ranks,
    theta: Tensor,
    batches: list[Batch],
    num_tasks: int,
    generator: torch.Generator,
) -> Callable[[Tensor], Tensor]:
    """Return v -> J'FJ v + damping v, as the mean over the tasks of all ranks, on a share of the states.

    Where old and new policies agree, this is the Hessian of the adapted policies' KL divergence: J is the Jacobian of
    their means and log-stds as functions of theta, through the inner steps, and F the Fisher matrix of a Gaussian.
    """
    s = inner.settings
    steps = batches[0].weights.shape[1]
    share = max(1, round(s.trpo_fisher_share * steps))
    index = torch.randperm(steps, generator=generator)[:share].to(theta.device)
    whole = s.inner_surrogate in OF_EPISODES
    here = [batch if whole else batch.steps(index) for batch in batches[:-1]] + [batches[-1].steps(index)]
    products = [ChunkProduct(inner, theta, [b.tasks(c) for b in here]) for c in inner.chunks(here[0].weights)]

    def product(v: Tensor) -> Tensor:
        damping = s.trpo_damping * num_tasks * v if ranks.is_first else torch.zeros_like(v)
        return ranks.sum(sum((p(v) for p in products), damping)) / num_tasks

    return product


class ChunkProduct:
    """The function v -> J'FJ v, summed over a chunk of tasks."""

    def __init__(self, inner: InnerLoop, theta: Tensor, batches: list[Batch]):
        self._theta = theta.detach().requires_grad_()
        phi = inner.adapted(self._theta, batches, create_graph=True)[-1]
        self._outputs = inner.acting(self._theta, phi, batches[-1].observations)
        mean, log_std = (x.detach() for x in self._outputs)
        weights = batches[-1].weights.unsqueeze(-1)
        # of N(mean, sigma^2): 1 / sigma^2 for the mean, 2 for log sigma, each step by its weight
        of_log_std = (2 * weights.sum(1, keepdim=True)).expand(-1, 1, mean.shape[-1])
        self._fisher = weights * torch.exp(-2 * log_std), of_log_std.sum_to_size(log_std.shape)
        self._dual = tuple(torch.zeros_like(x, requires_grad=True) for x in self._outputs)
        (self._transposed,) = torch.autograd.grad(self._outputs, self._theta, self._dual, create_graph=True)

    def __call__(self, v: Tensor) -> Tensor:
        # J v is the derivative of u -> J'u, which is linear in u.
        forward = torch.autograd.grad(self._transposed, self._dual, v, retain_graph=True)
        weighted = [f * x for f, x in zip(self._fisher, forward, strict=True)]
        return torch.autograd.grad(self._outputs, self._theta, weighted, retain_graph=True)[0]
