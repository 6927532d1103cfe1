"""The gradient of PPO's loss, with the passes through the networks written out.

Autograd computes the same from `metarl.agents.sb3.device_ppo.ppo_loss`; here activations and their slopes overwrite
what they are computed from, which saves a CPU passes over memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metarl.agents.sb3.device_ppo import Minibatch, loss_of
from metarl.agents.sb3.settings import PpoSettings
from metarl.agents.tanh import tanh_

Activation = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.Tanh: (tanh_, lambda y: y.square_().neg_().add_(1)),
    nn.ReLU: (torch.relu_, lambda y: y.sign_()),
    nn.ELU: (nn.functional.elu_, lambda y: y.clamp_(max=0).add_(1)),
}
"""By module: the function y = f(x), in place of x, and its slope f'(x) as a function of y, in place of y."""


def fill_gradients(policy: Any, minibatch: Minibatch, s: PpoSettings) -> tuple[Tensor, dict[str, Tensor]]:
    """Set the parameters' `grad` to the gradient of PPO's loss; returns what `ppo_loss` does."""
    activation, networks = ACTIVATIONS[policy.activation_fn], policy.mlp_extractor
    actor = _linears((*networks.policy_net, policy.action_net))
    critic = _linears((*networks.value_net, policy.value_net))
    with torch.no_grad():
        acted, judged = (
            _forward(network, activation, minibatch.observations[:, : network[0].in_features])
            for network in (actor, critic)
        )
    means, values, log_std = acted.pop().requires_grad_(), judged.pop().requires_grad_(), policy.log_std
    loss, metrics = loss_of(means, values.squeeze(-1), log_std, minibatch, s)
    of_means, of_values, log_std.grad = torch.autograd.grad(loss, (means, values, log_std))
    with torch.no_grad():
        _backward(actor, activation, acted, of_means)
        _backward(critic, activation, judged, of_values)
    return loss.detach(), metrics


def _linears(modules: Iterable[nn.Module]) -> list[nn.Linear]:
    return [module for module in modules if isinstance(module, nn.Linear)]


def _forward(layers: Sequence[nn.Linear], activation: Activation, x: Tensor) -> list[Tensor]:
    """Return the inputs of the layers and the output, [B, ...] each."""
    seen, (function, _) = [x], activation
    for layer in layers[:-1]:
        seen.append(function(nn.functional.linear(seen[-1], layer.weight, layer.bias)))
    return [*seen, nn.functional.linear(seen[-1], layers[-1].weight, layers[-1].bias)]


def _backward(layers: Sequence[nn.Linear], activation: Activation, seen: list[Tensor], gradient: Tensor) -> None:
    """Set the gradients of the layers' parameters from that of their output; overwrites what the layers have seen."""
    for k in reversed(range(len(layers))):
        layer = layers[k]
        layer.weight.grad, layer.bias.grad = gradient.T @ seen[k], gradient.sum(0)
        if k:
            gradient = (gradient @ layer.weight).mul_(activation[1](seen[k]))
