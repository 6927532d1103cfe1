"""Fisher-vector products through MAML's inner steps, for TRPO's natural gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metarl.agents import numerics
from metarl.agents.maml.inner import Batch, InnerLoop
from metarl.agents.ranks import Ranks


def fisher_product(
    inner: InnerLoop,
    ranks: Ranks,
    batches: list[Batch],
    num_tasks: int,
    parameters: list[Tensor],
    generator: torch.Generator,
) -> Callable[[Tensor], Tensor]:
    """Return v -> J'FJ v + damping v, as the mean over the tasks of all ranks, on a share of the states.

    Where old and new policies agree, the Hessian of the adapted policies' KL is J'FJ: F the Fisher matrix of the
    adapted policy, J = prod_k (I - alpha_k H_k) the Jacobian of the inner steps, H_k the Hessian of L_k, symmetric.
    """
    s = inner.settings
    steps = batches[0].weights.shape[1]
    share = max(1, round(s.trpo_fisher_share * steps))
    index = torch.randperm(steps, generator=generator)[:share].to(batches[0].weights.device)
    here = [b.steps(index) for b in batches]
    products = [
        ChunkProduct(inner, [b.tasks(c) for b in here], [p[c] for p in parameters])
        for c in inner.chunks(len(parameters[0]))
    ]

    def product(v: Tensor) -> Tensor:
        damping = s.trpo_damping * num_tasks * v if ranks.is_first else torch.zeros_like(v)
        return ranks.sum(sum((p(v) for p in products), damping)) / num_tasks

    return product


class ChunkProduct:
    """The function v -> J'FJ v, summed over a chunk of tasks."""

    def __init__(self, inner: InnerLoop, batches: list[Batch], parameters: list[Tensor]):
        self._factors: list[tuple[float, Tensor, Tensor]] = []
        if not inner.settings.first_order:
            for k, (batch, phi) in enumerate(zip(batches[:-1], parameters[:-1], strict=True)):
                phi = phi.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(inner.loss(phi, batch).sum(), phi, create_graph=True)
                self._factors.append((inner.lr(k), phi, gradient))
        query = batches[-1]
        self._phi = parameters[-1].detach().requires_grad_()
        new = inner.policy(inner.policy.layers(self._phi), query.observations)
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
