"""Estimators of the policy gradient for inner steps: losses [M] whose derivatives of first and second order differ.

All have the same gradient in expectation where the policy is the one that collected, but for DiCE, which discounts each
step's term by its time, too, as its paper does: its steps are shorter (0.4 times at a discount of .99 and 200 steps).
Their second derivatives are those that the outer step goes through: of likelihood ratio and log-likelihood they neglect
how earlier actions change what later ones are worth, those of DiCE do not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from metarl.agents.maml.shots import Batch, ratio

Estimator = Callable[[Tensor, Batch, float], Tensor]
"""(log pi [M, B] of the actions, batch, lambda of Loaded DiCE) -> loss [M]."""


def likelihood_ratio(log_probs: Tensor, batch: Batch, lambda_: float) -> Tensor:
    """-E[pi / pi_old A], low-variance curvature (Rothfuss 2019, eq. 10)."""
    return -(batch.weights * ratio(log_probs, batch) * batch.advantages).sum(1)


def log_likelihood(log_probs: Tensor, batch: Batch, lambda_: float) -> Tensor:
    """-E[log pi A] (Finn 2017, eq. 4)."""
    return -(batch.weights * log_probs * batch.advantages).sum(1)


def dice(log_probs: Tensor, batch: Batch, lambda_: float) -> Tensor:
    """-E[sum_t box(a_1..a_t) gamma^t r_t + (1 - box(a_t)) gamma^t b_t] (Foerster 2018, eq. 8), box(x) = 1 in value.

    The expectation is over steps, as in the other losses.
    """
    every = magic_box(_dependence(log_probs, batch, 1.0))
    return -(batch.weights * (every * batch.rewards + (1 - magic_box(log_probs)) * batch.values)).sum(1)


def loaded_dice(log_probs: Tensor, batch: Batch, lambda_: float) -> Tensor:
    """-E[sum_t (box(w_t) - box(w_t - log pi_t)) A_t], w_t = lambda w_{t-1} + log pi_t (Farquhar 2019, eq. 13)."""
    w = _dependence(log_probs, batch, lambda_)
    return -(batch.weights * (magic_box(w) - magic_box(w - log_probs)) * batch.advantages).sum(1)


def magic_box(x: Tensor) -> Tensor:
    """exp(x - stop(x)): 1 in value, with the derivatives of exp(x) / exp(x) taken at a constant denominator."""
    return torch.exp(x - x.detach())


def _dependence(log_probs: Tensor, batch: Batch, lambda_: float) -> Tensor:
    """w_t = lambda w_{t-1} + log pi_t within each episode, [M, B]."""
    m, steps, n = batch.going_on.shape
    by_time = log_probs.view(m, steps, n)
    running, found = torch.zeros_like(by_time[:, 0]), []
    for t in range(steps):
        running = lambda_ * batch.going_on[:, t] * running + by_time[:, t]
        found.append(running)
    return torch.stack(found, 1).view(m, -1)


ESTIMATORS: dict[str, Estimator] = {
    "ratio": likelihood_ratio,
    "log_likelihood": log_likelihood,
    "dice": dice,
    "loaded_dice": loaded_dice,
}
"""Estimators by the name of `MamlSettings.inner_surrogate`."""
OF_EPISODES = ("dice", "loaded_dice")
"""Those that need the steps of whole episodes, in order."""
