"""The meta-gradient of implicit MAML (Rajeswaran 2019): through the fixed point of the inner steps, not the steps.

With phi_{k+1} = argmin_phi L_k(phi) + lambda / 2 |phi - phi_k|^2,

    d phi_{k+1} / d phi_k = (I + H_k / lambda)^{-1},   H_k the Hessian of L_k at phi_{k+1},

and, for a piece of theta that is not adapted, d phi_{k+1} / d theta = -(lambda I + H_k)^{-1} d grad L_k / d theta.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metarl.agents.maml.inner import InnerLoop
from metarl.agents.maml.shots import Batch


def implicit_gradient(
    inner: InnerLoop,
    theta: Tensor,
    batches: Sequence[Batch],
    loss: Callable[[Tensor, Sequence[Tensor], Sequence[Batch]], Tensor],
) -> Tensor:
    """Return the gradient [P + R] of a loss of theta and of the adapted parameters after each shot.

    loss: (theta, phis, batches) -> a number.
    """
    strength = inner.settings.implicit_strength
    phis = [phi.detach().requires_grad_() for phi in inner.adapted(theta.detach(), batches, create_graph=False)]
    at = theta.detach().requires_grad_()
    value = loss(at, phis, batches)
    gradient, *adjoints = torch.autograd.grad(value, [at, *phis], allow_unused=True, materialize_grads=True)
    for k in range(len(batches) - 2, -1, -1):
        phi = phis[k + 1]
        (slope,) = torch.autograd.grad(inner.loss(at, phi, batches[k]).sum(), phi, create_graph=True)

        def curved(v: Tensor, slope: Tensor = slope, phi: Tensor = phi) -> Tensor:
            return v + torch.autograd.grad(slope, phi, v, retain_graph=True)[0] / strength

        solved = conjugate_gradients(curved, adjoints[k + 1], inner.settings.implicit_cg_iterations)
        adjoints[k] = adjoints[k] + solved
        (shared,) = torch.autograd.grad(slope, at, -solved / strength, allow_unused=True, materialize_grads=True)
        gradient = gradient + shared
    (begun,) = torch.autograd.grad(inner.start(at, len(phis[0])), at, adjoints[0])
    return gradient + begun


def conjugate_gradients(matvec: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """Approximate x with A_m x_m = b_m for each task's own symmetric matrix, given as matvec on [M, A]; [M, A].

    A task whose residual is 1e-10 of b, or that meets a direction of no positive curvature, stops where it is.
    """
    x, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    squared = (residual**2).sum(1, keepdim=True)
    enough, going = 1e-20 * squared, torch.ones_like(squared, dtype=torch.bool)
    for _ in range(iterations):
        image = matvec(direction)
        curvature = (direction * image).sum(1, keepdim=True)
        going = going & (curvature > 0) & (squared > enough)
        step = torch.where(going, squared / curvature.clamp(min=1e-30), 0.0)
        x, residual = x + step * direction, residual - step * image
        squared, previous = (residual**2).sum(1, keepdim=True), squared
        direction = torch.where(going, residual + squared / previous.clamp(min=1e-30) * direction, direction)
    return x
