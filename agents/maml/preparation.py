"""From a rollout to the data of MAML's losses: returns, baseline, advantages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.agents import numerics
from metarl.agents.agent import Rollout
from metarl.agents.maml import baseline
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.maml.shots import Batch, by_task
from metarl.agents.maml.value import Returns, ValueNetwork
from metarl.agents.moments import INPUT_CLIP, Moments
from metarl.agents.policy import GaussianPolicy, Layers
from metarl.agents.ranks import Ranks


@dataclass(frozen=True)
class Preparation:
    """What a shot is prepared with."""

    settings: MamlSettings
    """Settings of MAML."""
    policy: GaussianPolicy
    """Architecture of the policies."""
    moments: Moments
    """Moments of the observations."""
    value: ValueNetwork | None
    """Network that is the baseline; None: one that is linear in features of observation and time."""
    chunks: Callable[[Tensor], Iterator[slice]]
    """Ranges of tasks that are handled at once, for data [M, B, ...]."""

    def inputs(self, observations: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the policy's inputs of observations [..., obs]."""
        if self.settings.normalise_input:
            observations = self.moments.standardise(observations).clamp(-INPUT_CLIP, INPUT_CLIP)
        return observations.to(dtype)

    def batch(self, rollout: Rollout, layers: Layers, frozen: int, dtype: torch.dtype) -> tuple[Batch, Tensor]:
        """Return a shot's steps by task, with advantages over the baseline, and outputs of the first frozen layers.

        layers: of the policies that collected.
        """
        steps, m, n = rollout.rewards.shape
        s = self.settings
        ended = _ended(rollout)
        shot = self.returns(rollout, dtype)
        values, final_values = self._values(rollout, shot)
        by_time = values.view(m, steps, n).transpose(0, 1).to(rollout.rewards.dtype)  # [T, M, N]
        next_values = torch.cat([by_time[1:], torch.zeros_like(by_time[:1])])
        at_limit = final_values.to(by_time.dtype).expand_as(by_time)
        next_values = torch.where(rollout.truncated, at_limit, next_values * ~ended)
        advantages = numerics.gae(rollout.rewards, by_time, next_values, ended, s.discount, s.gae_lambda)
        valid = by_task(rollout.valid)
        weights = valid.double() / valid.sum(1, keepdim=True).clamp(min=1)
        spread = numerics.spread(by_task(advantages), weights, dim=1)
        normalised = numerics.normalise(by_task(advantages), weights, dim=1)
        going_on = rollout.valid & torch.cat([torch.zeros_like(ended[:1]), ~ended[:-1]])
        discounts = _discounts(going_on, s.discount)
        limits = torch.where(rollout.truncated, s.discount * at_limit, 0.0)
        rewards = by_task(discounts * (rollout.rewards + limits)) / spread
        observations, actions = shot.observations, by_task(rollout.actions).to(dtype)
        with torch.no_grad():
            features = self.policy.hidden(layers, observations, 0, frozen)
            old = self.policy(layers, features, frozen)
        batch = Batch(
            observations,
            actions,
            normalised.to(dtype),
            weights.to(dtype),
            *old,
            numerics.gaussian_log_prob(*old, actions),
            rewards.to(dtype),
            (by_task(discounts * by_time) / spread).to(dtype),
            going_on.transpose(0, 1).to(dtype),
            spread.squeeze(1).to(dtype),
            torch.zeros(m, dtype=dtype, device=rollout.rewards.device),
        )
        return batch, features

    def _values(self, rollout: Rollout, shot: Returns) -> tuple[Tensor, Tensor]:
        """Return the baseline of each step, [M, B], and of the last observations [M, N], 0 if it is not asked for."""
        steps, m, n = rollout.rewards.shape
        raw = by_task(rollout.observations)
        values = torch.empty(m, steps * n, dtype=torch.float64, device=rollout.rewards.device)
        final_values = torch.zeros(m, n, dtype=torch.float64, device=rollout.rewards.device)
        bootstrap = self.settings.bootstrap_truncation
        to_limit = self._to_limit(rollout) if bootstrap and self.value is None else None
        for chunk in self.chunks(shot.weights):
            final = rollout.final_observations[chunk]
            if self.value is None:
                x, valid = baseline.features(raw[chunk], shot.times), shot.weights[chunk] > 0
                at_end = after = None
                if to_limit is not None:
                    at_end = baseline.features(final, shot.times[:n])  # [M, N, F]
                    after = to_limit[chunk].unsqueeze(-1) * at_end.repeat(1, steps, 1)
                w = baseline.fit(x, shot.returns[chunk], valid, self.settings.baseline_ridge, after).unsqueeze(-1)
                values[chunk] = (x @ w).squeeze(-1)
                if at_end is not None:
                    final_values[chunk] = (at_end @ w).squeeze(-1)
            else:
                fitted = self.value.fitted(shot.tasks(chunk))
                values[chunk] = fitted(shot.observations[chunk], shot.times).double()
                if bootstrap:
                    inputs = self.inputs(final, shot.observations.dtype)
                    final_values[chunk] = fitted(inputs, shot.times[:n]).double()
        return values, final_values

    def returns(self, rollout: Rollout, dtype: torch.dtype) -> Returns:
        """Return a shot as a baseline is fitted to it; a linear one adds the values at limits itself."""
        steps, _, n = rollout.rewards.shape
        returns = by_task(numerics.discounted_returns(rollout.rewards, _ended(rollout), self.settings.discount))
        times = torch.arange(steps, device=rollout.rewards.device).repeat_interleave(n)  # [B]
        if self.settings.bootstrap_truncation:
            times = torch.zeros_like(times)
            if self.value is not None:
                at_limit = self.value.now(self.inputs(rollout.final_observations, dtype), times[:n])
                returns = returns + self._to_limit(rollout) * at_limit.repeat(1, steps)
        valid = by_task(rollout.valid)
        weights = valid.to(dtype) / valid.sum(1, keepdim=True).clamp(min=1)
        return Returns(self.inputs(by_task(rollout.observations), dtype), times, returns, weights)

    def _to_limit(self, rollout: Rollout) -> Tensor:
        """Return discount^k of the k steps from each one to the end of its life if that is a limit, else 0, [M, B]."""
        discount = self.settings.discount
        limits = torch.where(rollout.truncated, discount, torch.zeros_like(rollout.rewards))
        return by_task(numerics.discounted_returns(limits, _ended(rollout), discount))


def _ended(rollout: Rollout) -> Tensor:
    """Return where an episode, or a life of it, is over after the step, [T, M, N] bool."""
    return rollout.terminated | rollout.truncated | ~rollout.valid


def _discounts(going_on: Tensor, discount: float) -> Tensor:
    """Return discount^t with t counted from the start of each episode, or of each of its lives; [T, M, N]."""
    running, found = torch.ones(going_on.shape[1:], device=going_on.device), []
    for on in going_on:
        running = torch.where(on, running * discount, 1.0)
        found.append(running)
    return torch.stack(found)


def exploration_credit(query: Batch, num_tasks: int, ranks: Ranks) -> Tensor:
    """Return what the likelihood of a task's actions before adaptation is credited with (Stadie 2018), [M].

    It is the mean return of the task's episodes after adaptation, discounted, less that of the other tasks (of all
    ranks, num_tasks together), in the unit of the surrogate loss, which is a mean over steps of normalised advantages.
    """
    per_step = query.weights.amax(1)
    episodes = (query.weights.view(query.going_on.shape) > 0).any(1).sum(1)  # [M]
    returns = query.spread * ((query.weights > 0) * query.rewards).sum(1) / episodes.clamp(min=1)
    others = (ranks.sum(returns.sum()) - returns) / max(num_tasks - 1, 1)
    return (returns - others) * per_step * episodes / query.spread
