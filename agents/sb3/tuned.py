"""Policies that PPO has tuned, one a task, as tensors with a task axis."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import Tensor, nn

ADAM = ("step", "exp_avg", "exp_avg_sq")
"""State of Adam for each parameter."""
MOMENTS = ("mean", "var", "count")
"""Parts of a normaliser."""
ACTOR = ("mlp_extractor.policy_net.", "action_net.")
"""Prefixes of the actor's parameters in Stable-Baselines3's policies."""

Stacked = Mapping[str, Mapping[str, Tensor]]
"""Tensors [M, ...] by kind and name: `policy`, `step`, `exp_avg` and `exp_avg_sq` by parameter, `inputs` and `returns`
by moment."""


@dataclass(frozen=True)
class Tuned:
    """A policy that PPO has taken steps with on one task."""

    policy: ActorCriticPolicy
    """The policy with its optimiser."""
    inputs: RunningMeanStd
    """Normaliser of what the policy reads."""
    returns: RunningMeanStd
    """Normaliser by whose spread rewards are scaled."""


@dataclass(frozen=True)
class Actors:
    """The actors of M policies as one."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    """Weights [M, in, out] and biases [M, 1, out] of each layer."""
    log_std: Tensor
    """[M, 1, act]."""
    mean: Tensor
    """[M, 1, obs] of the normalisers."""
    var: Tensor
    """[M, 1, obs] of the normalisers."""


@dataclass(frozen=True)
class PpoBelief:
    """The policy of each task."""

    shots: int = 0
    """Number of shots that were learned from; all tasks act by the same policy before the first."""
    tuned: Stacked = field(default_factory=dict)
    """The policies; empty if the agent does not adapt."""

    @cached_property
    def actors(self) -> Actors:
        """The policies' actors, stacked."""
        policy, inputs = self.tuned["policy"], self.tuned["inputs"]
        names = [name.removesuffix(".weight") for name in policy if name.startswith(ACTOR) and name.endswith(".weight")]
        layers = ((policy[f"{name}.weight"].mT.contiguous(), policy[f"{name}.bias"][:, None]) for name in names)
        return Actors(tuple(layers), policy["log_std"][:, None], inputs["mean"][:, None], inputs["var"][:, None])


def stacked(tuned: Sequence[Tuned]) -> Stacked:
    """Return the policies, their optimisers and normalisers as tensors [M, ...] on the policies' device."""
    device = tuned[0].policy.log_std.device
    states = [own.policy.state_dict() for own in tuned]
    parts = {"policy": {name: torch.stack([state[name] for state in states]) for name in states[0]}}
    for kind in ADAM:
        parts[kind] = {
            name: torch.stack([_adam(own.policy, name, kind) for own in tuned])
            for name, _ in tuned[0].policy.named_parameters()
        }
    for kind in ("inputs", "returns"):
        parts[kind] = {
            name: torch.stack(
                [torch.as_tensor(getattr(getattr(own, kind), name), dtype=torch.float64) for own in tuned]
            )
            for name in MOMENTS
        }
    return {kind: {name: x.detach().to(device) for name, x in part.items()} for kind, part in parts.items()}


def _adam(policy: ActorCriticPolicy, name: str, kind: str) -> Tensor:
    """Return a part of Adam's state for a parameter; before its first step zeros, from which it starts."""
    parameter = policy.get_parameter(name)
    kept = policy.optimizer.state.get(parameter)
    if kept:
        return kept[kind]
    return torch.zeros(()) if kind == "step" else torch.zeros_like(parameter)


def expanded(part: Stacked, num_tasks: int) -> Stacked:
    """Return one policy [1, ...] as that of every task [M, ...], without a copy."""
    return {
        kind: {name: x.expand(num_tasks, *x.shape[1:]) for name, x in tensors.items()} for kind, tensors in part.items()
    }


def of_task(part: Stacked, task: int, blank: ActorCriticPolicy) -> Tuned:
    """Return the policy of one task, on its own; blank: a policy of the same layers."""
    policy = copy.deepcopy(blank)
    policy.load_state_dict({name: x[task] for name, x in part["policy"].items()})
    optimiser = policy.optimizer.state_dict()
    for i, (name, _) in enumerate(policy.named_parameters()):
        kept = {kind: part[kind][name][task].clone() for kind in ADAM}
        optimiser["state"][i] = kept | {"step": kept["step"].cpu()}  # Adam keeps it on the host
    policy.optimizer.load_state_dict(optimiser)
    return Tuned(policy, _moments(part["inputs"], task), _moments(part["returns"], task))


def _moments(part: Mapping[str, Tensor], task: int) -> RunningMeanStd:
    moments = RunningMeanStd(shape=part["mean"].shape[1:])
    moments.mean, moments.var = (part[name][task].cpu().numpy().copy() for name in ("mean", "var"))
    moments.count = float(part["count"][task])
    return moments


def actor(policy: Any) -> nn.Sequential:
    """Return the network from the observation to the mean of the action."""
    return nn.Sequential(*policy.mlp_extractor.policy_net, policy.action_net)
