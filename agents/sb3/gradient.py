"""Passes through PPO's networks, written out, and the gradient of its loss by them.

The modules and autograd compute the same from `metarl.agents.sb3.device_ppo.ppo_loss`; here activations and their
slopes overwrite what they are computed from, which saves a CPU passes over memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Any

import torch
from torch import Tensor, nn

from metarl.agents.sb3.device_ppo import Minibatch, actor_loss, critic_loss, with_critic
from metarl.agents.sb3.settings import PpoSettings
from metarl.agents.tanh import tanh_

Activation = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.Tanh: (tanh_, lambda y: y.square_().neg_().add_(1)),
    nn.ReLU: (torch.relu_, lambda y: y.sign_()),
    nn.ELU: (lambda x: torch.maximum(x, x.clamp(max=0).exp_().sub_(1), out=x), lambda y: y.clamp_(max=0).add_(1)),
}
"""By module: the function y = f(x), in place of x, and its slope f'(x) as a function of y, in place of y."""


def means_of(policy: Any, observations: Tensor) -> Tensor:
    """Return the actor's mean actions [B, act] at standardised observations [B, obs], without autograd's record."""
    actor = _actor(policy)
    return _forward(actor, ACTIVATIONS[policy.activation_fn], observations[:, : actor[0].in_features])[-1]


def values_of(policy: Any, observations: Tensor) -> Tensor:
    """Return the critic's values [B] of standardised observations [B, obs], without autograd's record."""
    return _forward(_critic(policy), ACTIVATIONS[policy.activation_fn], observations)[-1].squeeze(-1)


def fill_gradients(
    policy: Any, minibatch: Minibatch, s: PpoSettings, critic_thread: Executor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Set the parameters' `grad` to the gradient of PPO's loss; returns what `ppo_loss` does.

    critic_thread: computes the critic's gradient meanwhile; None: this thread does, after the actor's.
    """
    activation, actor, critic = ACTIVATIONS[policy.activation_fn], _actor(policy), _critic(policy)

    def fill_critic() -> Tensor:
        seen = _forward(critic, activation, minibatch.observations)
        values = seen.pop().requires_grad_()
        loss = critic_loss(values.squeeze(-1), minibatch)
        _backward(critic, activation, seen, *torch.autograd.grad(s.value_weight * loss, values))
        return loss.detach()

    of_critic = critic_thread.submit(fill_critic) if critic_thread else None
    seen, log_std = _forward(actor, activation, minibatch.observations[:, : actor[0].in_features]), policy.log_std
    means = seen.pop().requires_grad_()
    loss, metrics = actor_loss(means, log_std, minibatch, s)
    of_means, log_std.grad = torch.autograd.grad(loss, (means, log_std))
    _backward(actor, activation, seen, of_means)
    value_loss = of_critic.result() if of_critic else fill_critic()
    return with_critic(loss.detach(), metrics, value_loss, s)


def _actor(policy: Any) -> list[nn.Linear]:
    return _linears((*policy.mlp_extractor.policy_net, policy.action_net))


def _critic(policy: Any) -> list[nn.Linear]:
    return _linears((*policy.mlp_extractor.value_net, policy.value_net))


def _linears(modules: Iterable[nn.Module]) -> list[nn.Linear]:
    return [module for module in modules if isinstance(module, nn.Linear)]


@torch.no_grad()
def _forward(layers: Sequence[nn.Linear], activation: Activation, x: Tensor) -> list[Tensor]:
    """Return the inputs of the layers and the output, [B, ...] each."""
    seen, (function, _) = [x], activation
    for layer in layers[:-1]:
        seen.append(function(nn.functional.linear(seen[-1], layer.weight, layer.bias)))
    return [*seen, nn.functional.linear(seen[-1], layers[-1].weight, layers[-1].bias)]


@torch.no_grad()
def _backward(layers: Sequence[nn.Linear], activation: Activation, seen: list[Tensor], gradient: Tensor) -> None:
    """Set the gradients of the layers' parameters from that of their output; overwrites what the layers have seen."""
    for k in reversed(range(len(layers))):
        layer = layers[k]
        layer.weight.grad, layer.bias.grad = gradient.T @ seen[k], gradient.sum(0)
        if k:
            gradient = (gradient @ layer.weight).mul_(activation[1](seen[k]))
