"""Gaussians that PEARL uses: the posterior of the latent variable, and the policy behind tanh.

Pure functions; the last axis is that of the latent variable, or of the action.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

MIN_VARIANCE = 1e-7
"""Smallest variance of a factor of the posterior."""
EDGE = 1e-6
"""Distance from +-1 at which a squashed action is held before tanh is inverted."""
NODES = 32
"""Nodes of the Gauss-Hermite quadrature of an entropy."""


class Evidence(NamedTuple):
    """Natural parameters of a product of Gaussian factors: those of the factors, summed. Zero without any factor."""

    precision: Tensor
    """[M, latent], sum of 1 / variance."""
    weighted_mean: Tensor
    """[M, latent], sum of mean / variance."""

    def plus(self, other: Evidence) -> Evidence:
        """Return the evidence of the factors of both."""
        return Evidence(self.precision + other.precision, self.weighted_mean + other.weighted_mean)


class Posterior(NamedTuple):
    """Diagonal Gaussian of the latent variable of each task."""

    mean: Tensor
    """[M, latent]."""
    std: Tensor
    """[M, latent]."""


def multiply(means: Tensor, variances: Tensor, valid: Tensor | None = None) -> Evidence:
    """Return the evidence of factors [M, S, latent], S a task; valid: [M, S] bool, the factors that count."""
    precisions = 1.0 / variances.clamp(min=MIN_VARIANCE)
    if valid is not None:
        precisions = precisions * valid.unsqueeze(-1)
    return Evidence(precisions.sum(1), (precisions * means).sum(1))


def posterior(evidence: Evidence) -> Posterior:
    """Return the normalised product of the factors (Rakelly 2019, eq. 2); the prior N(0, 1) where there are none."""
    some = evidence.precision > 0
    precision = torch.where(some, evidence.precision, 1.0)
    return Posterior(evidence.weighted_mean / precision, precision.rsqrt())


def kl_to_prior(distribution: Posterior) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) = sum (mu^2 + sigma^2 - 1) / 2 - log sigma; [M, latent] -> [M]."""
    mean, std = distribution
    return (0.5 * (mean.square() + std.square() - 1.0) - std.log()).sum(-1)


def log_slope(raw: Tensor) -> Tensor:
    """log(1 - tanh(u)^2) = 2 (log 2 - u - log(1 + e^{-2u})), which does not round to log 0; any shape."""
    return 2.0 * (math.log(2.0) - raw - functional.softplus(-2.0 * raw))


def squashed_log_prob(mean: Tensor, log_std: Tensor, raw: Tensor) -> Tensor:
    """Log-density of tanh(u), for u ~ N(mean, diag std^2); raw u [..., act] -> [...].

    log p(tanh u) = sum log N(u_i) - log(1 - tanh(u_i)^2)
    """
    z = (raw - mean) * torch.exp(-log_std)
    return (-0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi) - log_slope(raw)).sum(-1)


def squashed_entropy(mean: Tensor, log_std: Tensor) -> Tensor:
    """Entropy of tanh(u), for u ~ N(mean, diag std^2); [..., act] -> [...].

    sum_i log sigma_i + (1 + log 2 pi) / 2 + E log(1 - tanh(u_i)^2), the expectation by Gauss-Hermite quadrature
    """
    nodes, weights = (torch.from_numpy(x).to(mean) for x in np.polynomial.hermite_e.hermegauss(NODES))
    slopes = log_slope(mean.unsqueeze(-1) + log_std.exp().unsqueeze(-1) * nodes) @ (weights / weights.sum())
    return (log_std + 0.5 * (1 + math.log(2 * math.pi)) + slopes).sum(-1)


def unsquash(squashed: Tensor) -> Tensor:
    """Return u with tanh(u) = squashed, held `EDGE` away from +-1; any shape."""
    return torch.atanh(squashed.clamp(-1.0 + EDGE, 1.0 - EDGE))
