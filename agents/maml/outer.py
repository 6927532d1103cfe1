"""Outer steps of MAML: ProMP (Rothfuss 2019), TRPO (Schulman 2015) on the adapted policies, Reptile (Nichol 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.agents import numerics
from metarl.agents.agent import REFUSED
from metarl.agents.maml.fisher import fisher_product
from metarl.agents.maml.implicit import implicit_gradient
from metarl.agents.maml.inner import InnerLoop
from metarl.agents.maml.shots import Batch, ratio
from metarl.agents.ranks import Ranks

Loss = Callable[[Tensor, Sequence[Tensor], Sequence[Batch]], Tensor]
"""(theta, adapted parameters after each shot, batches) -> sum over tasks."""

STEP_SIZE_FACTOR = 1.2
"""Factor on ProMP's step size, down if its way was too long and up if it was not."""
STEP_SIZE_RANGE = 100.0
"""Largest factor between that step size and its first value, either way."""
PROMP_BACKTRACKS = 6
"""Number of halvings of ProMP's way before it is given up."""


@dataclass(frozen=True)
class OuterLoop:
    """Steps of the meta-parameters theta [P + R], in place."""

    inner: InnerLoop
    """Inner steps, through which the gradient goes."""
    ranks: Ranks
    """Processes whose tasks are averaged over."""

    def promp_step(
        self, theta: Tensor, optimiser: torch.optim.Adam, batches: list[Batch], num_tasks: int
    ) -> dict[str, float]:
        """Take ProMP's epochs (Rothfuss 2019) of Adam on the clipped surrogate plus a KL penalty, in place.

        The way they went is then shortened until it lowers the surrogate loss with the adapted policies' KL in bounds.
        Adam's step size follows: it shrinks if the way was too long, and grows if it was not.
        """
        s, start = self.inner.settings, theta.clone()
        norms = []
        for _ in range(s.promp_epochs):
            gradient = self.meta_gradient(theta, batches, num_tasks, self.inner.promp_loss)
            norms.append(float(gradient.norm()))
            if not math.isfinite(norms[-1]):  # too far already: likelihood ratios overflow
                break
            theta.grad = gradient
            optimiser.step()
        group, way = optimiser.param_groups[0], theta - start
        reached, metrics = self._search(batches, num_tasks, start, way, s.promp_kl, PROMP_BACKTRACKS, factor=0.5)
        theta.copy_(reached)
        group["lr"] *= 1 / STEP_SIZE_FACTOR if metrics["backtracks"] else STEP_SIZE_FACTOR
        group["lr"] = min(max(group["lr"], s.promp_lr / STEP_SIZE_RANGE), s.promp_lr * STEP_SIZE_RANGE)
        return {**metrics, "gradient_norm": norms[0], "lr": group["lr"]}

    def trpo_step(
        self, theta: Tensor, batches: list[Batch], num_tasks: int, generator: torch.Generator
    ) -> dict[str, float]:
        """Take a TRPO step on the adapted policies, in place: natural gradient, then a backtracking line search."""
        s = self.inner.settings
        gradient = self.meta_gradient(theta, batches, num_tasks, self.inner.surrogate)
        fisher = fisher_product(self.inner, self.ranks, theta, batches, num_tasks, generator)
        direction = numerics.conjugate_gradient(fisher, gradient, s.trpo_cg_iterations)
        curvature = (direction @ fisher(direction)).clamp(min=1e-12)
        step = -direction * torch.sqrt(2 * s.trpo_kl / curvature)
        reached, metrics = self._search(batches, num_tasks, theta, step, s.trpo_kl, s.trpo_backtracks, factor=0.8)
        theta.copy_(reached)
        return {**metrics, "gradient_norm": float(gradient.norm())}

    def reptile_step(self, theta: Tensor, batches: list[Batch], num_tasks: int) -> dict[str, float]:
        """Move theta a part of the way to the mean of what the tasks' inner steps on all shots reach, in place."""
        way = torch.zeros_like(theta)
        for chunk in self.inner.chunks(batches[0].weights):
            here = [b.tasks(chunk) for b in batches]
            begun = self.inner.start(theta, len(here[0].weights))
            reached = self.inner.adapted(theta, [*here, here[-1]], create_graph=False)[-1]
            moved = self.inner.parts.whole(torch.zeros_like(theta[: self.inner.size]), reached - begun)
            way[: self.inner.size] += moved.sum(0) / num_tasks
        way = self.ranks.sum(way)
        loss, _ = self._loss_and_kl(theta, batches, num_tasks)
        theta += self.inner.settings.reptile_lr * way
        after, kl = self._loss_and_kl(theta, batches, num_tasks)
        return {"loss_before": loss, "loss_after": after, "kl": kl, "gradient_norm": float(way.norm())}

    def meta_gradient(self, theta: Tensor, batches: list[Batch], num_tasks: int, loss: Loss) -> Tensor:
        """Return the gradient [P + R] through the inner steps of a loss, as the mean over the tasks of all ranks."""
        gradient = torch.zeros_like(theta)
        for chunk in self.inner.chunks(batches[0].weights):
            here = [b.tasks(chunk) for b in batches]
            if self.inner.settings.implicit_strength:
                gradient += implicit_gradient(self.inner, theta, here, loss) / num_tasks
                continue
            at = theta.detach().requires_grad_()
            value = loss(at, self.inner.adapted(at, here, create_graph=True), here) / num_tasks
            gradient += torch.autograd.grad(value, at)[0]
        return self.ranks.sum(gradient)

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
        """Find the longest share of a step that lowers the adapted policies' loss and keeps their KL within a bound.

        E-MAML's term is in the gradient alone: what its noise asks for has to make adaptation better all the same.
        Returns the parameters there, which are `start` if no share does it, and metrics.
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

    def _loss_and_kl(self, theta: Tensor, batches: list[Batch], num_tasks: int) -> tuple[float, float]:
        """Return the adapted policies' loss and KL, as means over the tasks of all ranks."""
        loss, kl = 0.0, 0.0
        for chunk in self.inner.chunks(batches[0].weights):
            here = [b.tasks(chunk) for b in batches]
            query = here[-1]
            phi = self.inner.adapted(theta, here, create_graph=False)[-1]
            with torch.no_grad():
                after = self.inner.acting(theta, phi, query.observations)
                likelihoods = ratio(numerics.gaussian_log_prob(*after, query.actions), query)
            loss -= (query.weights * likelihoods * query.advantages).sum().item() / num_tasks
            kl += (query.weights * numerics.gaussian_kl(*query.old, *after)).sum().item() / num_tasks
        loss, kl = self.ranks.sum(torch.tensor([loss, kl], dtype=torch.float64)).tolist()
        return loss, kl
