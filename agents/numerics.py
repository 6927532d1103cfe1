"""Pure numerics of policy-gradient learners. Time is the leading axis; other axes are free."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def discounted_returns(rewards: Tensor, ended: Tensor, discount: float) -> Tensor:
    """R_t = r_t + gamma (1 - ended_t) R_{t+1}; rewards and ended [T, ...] -> [T, ...]."""
    return gae(rewards, torch.zeros_like(rewards), torch.zeros_like(rewards), ended, discount, 1.0)


def gae(rewards: Tensor, values: Tensor, next_values: Tensor, ended: Tensor, discount: float, lambda_: float) -> Tensor:
    """Generalised advantage estimation (Schulman 2016, eq. 16), all arguments [T, ...].

    delta_t = r_t + gamma next_V_t - V_t,   A_t = delta_t + gamma lambda (1 - ended_t) A_{t+1}

    next_values is the value of the state that step t led to: 0 where the episode terminated there, the value of the
    last observation where it was truncated and the caller bootstraps.
    """
    deltas = rewards + discount * next_values - values
    carry = (discount * lambda_) * (~ended).to(deltas.dtype)
    advantages = torch.empty_like(deltas)
    running = torch.zeros_like(deltas[0])
    for t in range(len(deltas) - 1, -1, -1):
        running = deltas[t] + carry[t] * running
        advantages[t] = running
    return advantages


def spread(x: Tensor, weights: Tensor, dim: int) -> Tensor:
    """Standard deviation along `dim`, which is kept, under weights that sum to 1 there; a little more than 0."""
    mean = (weights * x).sum(dim, keepdim=True)
    return (weights * (x - mean) ** 2).sum(dim, keepdim=True).sqrt() + 1e-8


def normalise(x: Tensor, weights: Tensor, dim: int) -> Tensor:
    """(x - mean) / standard deviation along `dim`, under weights that sum to 1 there."""
    return (x - (weights * x).sum(dim, keepdim=True)) / spread(x, weights, dim)


def gaussian_log_prob(mean: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
    """log N(a; mu, diag sigma^2), summed over the action's dimensions; [..., act] -> [...]."""
    z = (actions - mean) * torch.exp(-log_std)
    return -0.5 * (z * z).sum(-1) - log_std.sum(-1) - 0.5 * math.log(2 * math.pi) * mean.shape[-1]


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """Entropy of N(., diag sigma^2): sum_i log sigma_i + (1 + log 2 pi) / 2; [..., act] -> [...]."""
    return log_std.sum(-1) + 0.5 * (1 + math.log(2 * math.pi)) * log_std.shape[-1]


def gaussian_kl(mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor) -> Tensor:
    """KL(p || q) of diagonal Gaussians, summed over the action's dimensions; [..., act] -> [...].

    sum_i log sigma_q - log sigma_p + (sigma_p^2 + (mu_p - mu_q)^2) / (2 sigma_q^2) - 1/2
    """
    ratio = torch.exp(2 * (log_std_p - log_std_q))
    distance = (mean_p - mean_q) ** 2 * torch.exp(-2 * log_std_q)
    return (log_std_q - log_std_p + 0.5 * (ratio + distance - 1)).sum(-1)


def clipped_surrogate(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """min(r A, clip(r, 1 - c, 1 + c) A) (Schulman 2017, eq. 7)."""
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor], b: Tensor, iterations: int, tolerance: float = 1e-10
) -> Tensor:
    """Approximate x with A x = b for a symmetric positive definite A given as matvec (Hestenes and Stiefel 1952)."""
    x = torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    squared = residual @ residual
    for _ in range(iterations):
        if squared <= tolerance * (b @ b):
            break
        image = matvec(direction)
        step = squared / (direction @ image)
        x += step * direction
        residual -= step * image
        squared, previous = residual @ residual, squared
        direction = residual + (squared / previous) * direction
    return x


def backtracking_line_search(
    accept: Callable[[Tensor], bool], start: Tensor, step: Tensor, backtracks: int, factor: float = 0.8
) -> tuple[Tensor, int]:
    """The first start + factor^k step, k < backtracks, that is accepted, and k; start and `backtracks` if none is."""
    for k in range(backtracks):
        candidate = start + factor**k * step
        if accept(candidate):
            return candidate, k
    return start, backtracks
