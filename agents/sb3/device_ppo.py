"""PPO on the device of the envs: Stable-Baselines3's PPO, with rollouts and updates that never leave the device.

It trains the policy, the optimiser and the normalisers of `metarl.agents.sb3.ppo.Ppo`; its steps are those of
Stable-Baselines3 2.9 (OnPolicyAlgorithm.collect_rollouts, VecNormalize, PPO.train).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from stable_baselines3.common.running_mean_std import RunningMeanStd
from torch import Tensor, nn

from metarl.agents import numerics
from metarl.agents.learning import DeviceEnv
from metarl.agents.moments import INPUT_CLIP
from metarl.agents.recording import Recorded
from metarl.agents.sb3.learner import EPSILON, standardise
from metarl.agents.sb3.settings import PpoSettings
from metarl.agents.storage import Field, Storage

METRICS = ("approx_kl", "clip_fraction", "entropy_loss", "loss", "policy_gradient_loss", "value_loss")
"""Metrics of a minibatch."""


class RunningMoments:
    """Stable-Baselines3's RunningMeanStd on a device, in double precision."""

    def __init__(self, like: RunningMeanStd, device: torch.device) -> None:
        self.mean, self.var = (
            torch.as_tensor(x, dtype=torch.float64).to(device).clone() for x in (like.mean, like.var)
        )
        self.count = torch.tensor(float(like.count), dtype=torch.float64, device=device)

    def take(self, moments: RunningMeanStd) -> None:
        """Copy these moments to this object."""
        for here, there in ((self.mean, moments.mean), (self.var, moments.var), (self.count, moments.count)):
            here.copy_(torch.as_tensor(there, dtype=torch.float64))

    def give(self, moments: RunningMeanStd) -> None:
        """Copy the moments of this object to these."""
        moments.mean, moments.var = self.mean.cpu().numpy().copy(), self.var.cpu().numpy().copy()
        moments.count = float(self.count)

    def update(self, values: Tensor) -> None:
        """Update the moments with values [S, size] or [S] (Chan 1979)."""
        values = values.double()
        delta = values.mean(0) - self.mean
        total = self.count + len(values)
        squares = self.var * self.count + values.var(0, correction=0) * len(values)
        self.var.copy_((squares + delta.square() * self.count * len(values) / total) / total)
        self.mean.add_(delta * len(values) / total)
        self.count.copy_(total)

    def scaled(self, values: Tensor) -> Tensor:
        """Return (values - mean) / std, clipped."""
        return standardise(values, self)


class Minibatch(NamedTuple):
    """B steps for an update of PPO."""

    observations: Tensor
    """Standardised observations, [B, obs]."""
    actions: Tensor
    """Actions, [B, act]."""
    values: Tensor
    """Values of the critic that collected, [B]."""
    log_likelihoods: Tensor
    """Log-likelihoods of the actions under the policy that collected, [B]."""
    advantages: Tensor
    """Advantages, [B]."""
    returns: Tensor
    """Targets of the critic, [B]."""


def fields(observation_size: int, action_size: int) -> dict[str, Field]:
    """Return what is stored of a step of an env.

    `observations` are standardised; `values` and `log_likelihoods` are those of the policy that collected; `rewards`
    are scaled, and at a time limit include the discounted value of the last observation; `ended` is True where the
    episode was over after the step.
    """
    vectors: dict[str, Field] = {"observations": ((observation_size,), torch.float32)}
    vectors["actions"] = ((action_size,), torch.float32)
    scalars = dict.fromkeys(("log_likelihoods", "values", "rewards"), ((), torch.float32))
    return {**vectors, **scalars, "ended": ((), torch.bool)}


class DevicePpo:
    """Collects rollouts from envs on a device, and updates the policy there.

    policy: Stable-Baselines3's ActorCriticPolicy with its optimiser.
    """

    def __init__(
        self,
        policy: Any,
        settings: PpoSettings,
        inputs: RunningMeanStd,
        returns: RunningMeanStd,
        env: DeviceEnv,
        sizes: tuple[int, int],
        between: int,
        device: torch.device,
    ) -> None:
        """inputs, returns: the normalisers of the agent. sizes: of observation and action. between: steps of every env
        between two updates."""
        self.env, self.between = env, between
        self._policy, self._settings, self._device = policy, settings, device
        self._own = inputs, returns
        self._inputs, self._returns = RunningMoments(inputs, device), RunningMoments(returns, device)
        self._buffers = Storage(between, (env.num_envs,), fields(*sizes), device)
        self._observations = torch.zeros(env.num_envs, sizes[0], device=device)
        """Standardised observations that the policy acts on next, [S, obs]."""
        self._discounted = torch.zeros(env.num_envs, dtype=torch.float64, device=device)
        """Discounted sum of rewards so far, [S]; rewards are divided by its standard deviation."""
        self._noise = torch.zeros(between, env.num_envs, sizes[1], device=device)
        """Standard normal noise, [K, S, act], drawn in advance: a recorded graph draws nothing."""
        self._collect = env.repeat(self._collect_step)
        self._steps = torch.arange(between, device=device)
        self._whole = Minibatch(*self._data())
        self._share = min(-(-len(self._whole.values) // settings.minibatches), len(self._whole.values))
        self._gradients = [torch.zeros_like(parameter) for parameter in policy.parameters()]
        self._metrics = torch.zeros(len(METRICS), device=device)
        """Metrics of the current minibatch, in the order of METRICS."""
        self._learn = Recorded(self._learn_from, device)

    def learn(
        self, updates: int, lr: float, collecting: Callable[[], AbstractContextManager[None]]
    ) -> dict[str, float]:
        """Reset the envs, then alternate K steps of every env with an update; returns metrics by name.

        collecting: the context in which rollouts are collected.
        """
        for ours, theirs in zip((self._inputs, self._returns), self._own, strict=True):
            ours.take(theirs)
        for group in self._policy.optimizer.param_groups:
            group["lr"] = lr
        self._discounted.zero_()
        with collecting(), torch.no_grad():
            self._see(self.env.reset())
        metrics = {}
        for _ in range(updates):
            with collecting(), torch.no_grad():
                self._noise.normal_()
                for t in self._steps.split(1):
                    self._collect(t)
                self._wait()
            metrics = self._update()
            self._wait()
        for ours, theirs in zip((self._inputs, self._returns), self._own, strict=True):
            ours.give(theirs)
        return {name: float(value) for name, value in metrics.items()}

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _see(self, observations: Tensor) -> None:
        """Update the normaliser with the observations that the policy acts on next, then standardise them."""
        if self._settings.normalise_input:
            self._inputs.update(observations)
        self._observations.copy_(self._standardised(observations))

    def _standardised(self, observations: Tensor) -> Tensor:
        return self._inputs.scaled(observations) if self._settings.normalise_input else observations

    def _collect_step(self, step: Tensor) -> None:
        """Take one step of every env and store it at `step` [1]; always the same operations."""
        s, policy = self._settings, self._policy
        seen = self._observations.clone()
        means, values = evaluate(policy, seen)
        actions = means + policy.log_std.exp() * self._noise.index_select(0, step).squeeze(0)
        likelihoods = numerics.gaussian_log_prob(means, policy.log_std, actions)
        after = self.env.step(actions)
        ended = after.terminated | after.cut
        rewards = after.rewards
        if s.normalise_reward:
            self._discounted.mul_(s.discount).add_(rewards)
            self._returns.update(self._discounted)
            scaled = rewards / (self._returns.var + EPSILON).sqrt()
            rewards = scaled.clamp(-INPUT_CLIP, INPUT_CLIP).float()
            self._discounted.mul_(~ended)
        if s.normalise_input:
            self._inputs.update(after.observations)
        _, last = evaluate(policy, self._standardised(after.last_observations))
        rewards = rewards + s.discount * torch.where(after.cut, last, 0.0)
        self._observations.copy_(self._standardised(after.observations))
        taken = {"log_likelihoods": likelihoods, "values": values, "rewards": rewards, "ended": ended}
        self._buffers.write(step, observations=seen, actions=actions, **taken)

    @torch.no_grad()
    def _data(self) -> Minibatch:
        """Return the collected steps, with advantages, as one batch."""
        s, b, flat = self._settings, self._buffers, self._buffers.flat()
        _, after = evaluate(self._policy, self._observations)
        following = torch.cat([b["values"][1:], after.unsqueeze(0)]) * ~b["ended"]
        advantages = numerics.gae(b["rewards"], b["values"], following, b["ended"], s.discount, s.gae_lambda).flatten()
        returns = advantages + flat["values"]
        likelihoods = flat["log_likelihoods"]
        return Minibatch(flat["observations"], flat["actions"], flat["values"], likelihoods, advantages, returns)

    def _update(self) -> dict[str, Any]:
        """Take PPO's passes over the data; returns metrics as tensors or floats."""
        s, policy, data = self._settings, self._policy, self._whole
        for kept, value in zip(data, self._data(), strict=True):
            kept.copy_(value)
        for parameter, gradient in zip(policy.parameters(), self._gradients, strict=True):
            parameter.grad = gradient
        history = []
        for _ in range(s.epochs):
            order = torch.randperm(len(data.values), device=self._device)
            for start in range(0, len(order), self._share):
                self._learn(order[max(0, min(start, len(order) - self._share)) :][: self._share])
                history.append(self._metrics.clone())
                if s.target_kl and float(self._metrics[0]) > 1.5 * s.target_kl:
                    break
                policy.optimizer.step()
            else:
                continue
            break
        means = dict(zip(METRICS, torch.stack(history).mean(0), strict=True))
        residual = (data.returns - data.values).var(correction=0)
        return means | {
            "explained_variance": 1 - residual / data.returns.var(correction=0),
            "std": policy.log_std.detach().exp().mean(),
        }

    def _learn_from(self, chosen: Tensor) -> None:
        """Compute the clipped gradient of PPO's loss on the steps `chosen` [B]; always the same operations."""
        loss, metrics = ppo_loss(self._policy, Minibatch(*(x[chosen] for x in self._whole)), self._settings)
        for kept, gradient in zip(self._gradients, torch.autograd.grad(loss, self._policy.parameters()), strict=True):
            kept.copy_(gradient)
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(x) for x in self._gradients]))
        scale = (self._settings.max_gradient_norm / (norm + 1e-6)).clamp(max=1.0)
        for gradient in self._gradients:
            gradient.mul_(scale)
        self._metrics.copy_(torch.stack([metrics[name] for name in METRICS]))


def evaluate(policy: Any, observations: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean actions [B, act] and the values [B] of standardised observations [B, obs]."""
    latent_actor, latent_critic = policy.mlp_extractor(observations)
    return policy.action_net(latent_actor), policy.value_net(latent_critic).squeeze(-1)


def ppo_loss(policy: Any, minibatch: Minibatch, s: PpoSettings) -> tuple[Tensor, dict[str, Tensor]]:
    """Return PPO's loss (Schulman 2017) as Stable-Baselines3 computes it, and the metrics that it logs."""
    means, values = evaluate(policy, minibatch.observations)
    loss, metrics = actor_loss(means, policy.log_std, minibatch, s)
    return with_critic(loss, metrics, critic_loss(values, minibatch), s)


def actor_loss(
    means: Tensor, log_std: Tensor, minibatch: Minibatch, s: PpoSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what mean actions [B, act] add to PPO's loss, and the metrics that follow from them."""
    advantages = minibatch.advantages
    if len(advantages) > 1:  # one step alone has no standard deviation
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    log_ratio = numerics.gaussian_log_prob(means, log_std, minibatch.actions) - minibatch.log_likelihoods
    ratio = log_ratio.exp()
    policy_loss = -numerics.clipped_surrogate(ratio, advantages, s.clip).mean()
    entropy_loss = -numerics.gaussian_entropy(log_std)
    metrics = {
        "approx_kl": ((ratio - 1) - log_ratio).mean(),
        "clip_fraction": ((ratio - 1).abs() > s.clip).float().mean(),
        "entropy_loss": entropy_loss,
        "policy_gradient_loss": policy_loss,
    }
    return policy_loss + s.entropy_weight * entropy_loss, metrics


def critic_loss(values: Tensor, minibatch: Minibatch) -> Tensor:
    """Return the loss of values [B], before its weight."""
    return nn.functional.mse_loss(minibatch.returns, values)


def with_critic(
    loss: Tensor, metrics: dict[str, Tensor], value_loss: Tensor, s: PpoSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return PPO's loss and its metrics from what actor and critic add to it."""
    loss = loss + s.value_weight * value_loss
    metrics = {**metrics, "loss": loss, "value_loss": value_loss}
    return loss, {name: value.detach() for name, value in metrics.items()}
