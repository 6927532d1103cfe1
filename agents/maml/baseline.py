"""The linear feature baseline (Duan 2016), refitted for every task and every shot in one batched solve."""

from __future__ import annotations

import torch
from torch import Tensor

OBSERVATION_CLIP = 10.0
TIME_SCALE = 100.0  # steps


def scaled(times: Tensor, observations: Tensor) -> Tensor:
    """Return an input [M, B, 1] beside observations [M, B, obs]; times: steps since the shot began, [B] or [M, B]."""
    return (times.to(observations.dtype) / TIME_SCALE).unsqueeze(-1).expand(*observations.shape[:-1], 1)


def features(observations: Tensor, times: Tensor) -> Tensor:
    """[o, o^2, t, t^2, t^3, 1] in float64; o [M, B, obs] clipped to +-10, times as in `scaled` -> [M, B, 2 obs + 4]."""
    o = observations.double().clamp(-OBSERVATION_CLIP, OBSERVATION_CLIP)
    t = scaled(times, o)
    return torch.cat([o, o**2, t, t**2, t**3, torch.ones_like(t)], dim=-1)


def fit(x: Tensor, targets: Tensor, valid: Tensor, ridge: float, after: Tensor | None = None) -> Tensor:
    """Ridge regression of every task at once: (X'X + ridge I) w = X'y.

    x [M, B, F]; targets and valid [M, B] -> coefficients [M, F], float64. after [M, B, F]: what x is once a return is
    cut, discounted, 0 where it is not; the value there is added to the target: (X'(X - A) + ridge I) w = X'y.
    """
    masked = x * valid.unsqueeze(-1)
    gram = masked.mT @ (x if after is None else x - after)
    moment = (masked.mT @ targets.double().unsqueeze(-1)).squeeze(-1)
    gram.diagonal(dim1=-2, dim2=-1).add_(ridge)
    return torch.linalg.solve(gram, moment)
