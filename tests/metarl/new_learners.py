"""Two learners that metarl does not know, each from its settings to its registration: all that a new one takes."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metarl.agents.agent import Deployable, Facts, Rollout, Trial
from metarl.agents.agent_settings import AgentSettings
from metarl.agents.learning import MetaLearner, Trainer, World
from metarl.agents.numerics import gaussian_log_prob
from metarl.agents.ranks import ALONE
from metarl.agents.registry import AgentEntry
from metarl.agents.replay import Replay, transitions


@dataclass(frozen=True)
class DriftSettings(AgentSettings):
    """REINFORCE for a linear policy that reads where actions were rewarded."""

    lr: float = 0.02
    """Step size."""
    std: float = 0.05
    """Standard deviation of the actions."""


@dataclass(frozen=True)
class DriftBelief:
    """A running estimate of where actions are rewarded."""

    drift: Tensor
    """[M, act], mean of actions weighted by how much better than the mean their rewards were."""


class Drift(MetaLearner):
    """A linear Gaussian policy that adapts by a running estimate; nothing is learned but its weights."""

    facts = Facts(needs_own_noise=True)

    def __init__(self, settings, observation_size, action_size, generator, device, ranks=ALONE) -> None:
        self.device, self.settings, self.sizes = device, settings, (observation_size, action_size)
        self.weights = 0.1 * torch.randn(sum(self.sizes), action_size, generator=generator)

    def log_std(self) -> Tensor:
        return torch.full(self.sizes[1:], math.log(self.settings.std))

    def begin(self, num_tasks: int, envs_per_task: int, generators: Sequence[torch.Generator] = ()) -> DriftBelief:
        return DriftBelief(torch.zeros(num_tasks, self.sizes[1]))

    def means(self, belief: DriftBelief, observations: Tensor, weights: Tensor) -> Tensor:
        drift = belief.drift.unsqueeze(1).expand(*observations.shape[:-1], -1)
        return torch.cat([observations, drift], dim=-1) @ weights

    def act(self, belief: DriftBelief, observations: Tensor, noise: Tensor | None) -> tuple[Tensor, DriftBelief]:
        means = self.means(belief, observations, self.weights)
        return means if noise is None else means + self.settings.std * noise, belief

    def adapt(self, belief: DriftBelief, rollout: Rollout, generators: Sequence[torch.Generator] = ()) -> DriftBelief:
        gains = rollout.rewards - rollout.rewards.mean(dim=(0, 2), keepdim=True)
        return DriftBelief(belief.drift + (gains.unsqueeze(-1) * rollout.actions).mean(dim=(0, 2)))

    def deployable(self, belief: DriftBelief) -> Deployable:
        policy = nn.Linear(*self.sizes)
        policy.weight.data = self.weights[: self.sizes[0]].mT.clone()
        policy.bias.data = (belief.drift @ self.weights[self.sizes[0] :])[0]
        return Deployable(nn.Sequential(policy), {"observation": torch.zeros(1, self.sizes[0])}, ("action",))

    def meta_update(self, trial: Trial, generator: torch.Generator) -> dict[str, float]:
        weights, loss = self.weights.requires_grad_(), torch.zeros(())
        for belief, rollout in zip(trial.beliefs, trial.rollouts, strict=True):
            returns = rollout.episode_returns()
            means = self.means(belief, rollout.observations, weights)
            likelihoods = gaussian_log_prob(means, self.log_std(), rollout.actions) * rollout.valid
            loss = loss - (likelihoods.sum(0) * (returns - returns.mean(1, keepdim=True))).mean()
        (gradient,) = torch.autograd.grad(loss, weights)
        self.weights = (weights - self.settings.lr * gradient / gradient.norm()).detach()
        return {"gradient_norm": float(gradient.norm())}

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights = state["weights"].view(self.weights.shape)


@dataclass(frozen=True)
class ImitatorSettings(AgentSettings):
    """Imitation of the better episodes of a replay buffer, whatever their task."""

    lr: float = 1e-2
    """Adam's step size."""
    std: float = 0.05
    """Standard deviation of the actions."""
    capacity: int = 3
    """Iterations in the replay buffer."""


@dataclass(frozen=True)
class NoBelief:
    """One policy for all tasks."""


class Imitator(MetaLearner):
    """A policy that is regressed on replayed actions, those of better episodes with more weight."""

    facts = Facts(adapts=False)

    def __init__(self, settings, observation_size, action_size, generator, device, ranks=ALONE) -> None:
        self.device, self.settings, self.observation_size = device, settings, observation_size
        self.policy = nn.Sequential(nn.Linear(observation_size, 8), nn.Tanh(), nn.Linear(8, action_size))
        with torch.no_grad():
            for parameter in self.policy.parameters():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        self.optimiser = torch.optim.Adam(self.policy.parameters(), lr=settings.lr)
        self.action_size = action_size
        self.replay = Replay(settings.capacity)

    def log_std(self) -> Tensor:
        return torch.full((self.action_size,), math.log(self.settings.std))

    def trainer(self, world: World) -> Trainer:
        self.replay.open(world)
        return super().trainer(world)

    def begin(self, num_tasks: int, envs_per_task: int, generators: Sequence[torch.Generator] = ()) -> NoBelief:
        return NoBelief()

    @torch.no_grad()
    def act(self, belief: NoBelief, observations: Tensor, noise: Tensor | None) -> tuple[Tensor, NoBelief]:
        means = self.policy(observations)
        return means if noise is None else means + self.settings.std * noise, belief

    def deployable(self, belief: NoBelief) -> Deployable:
        inputs = {"observation": torch.zeros(1, self.observation_size)}
        return Deployable(copy.deepcopy(self.policy), inputs, ("action",))

    def meta_update(self, trial: Trial, generator: torch.Generator) -> dict[str, float]:
        steps, tasks = transitions(trial.rollouts[-1])
        returns = trial.rollouts[-1].episode_returns()
        weights = torch.softmax(10 * returns, dim=1).expand(trial.rollouts[-1].valid.shape)
        self.replay.add({**steps, "weight": weights[trial.rollouts[-1].valid]}, tasks)
        loss = torch.zeros(())
        for _ in range(3):
            drawn = self.replay.sample(8, 16, generator)
            errors = (self.policy(drawn["observations"]) - drawn["actions"]).square().sum(-1)
            loss = (drawn["weight"] * errors).mean()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
        return {"loss": float(loss.detach()), "segments": float(len(self.replay))}

    def state_dict(self) -> dict[str, Any]:
        state = {"policy": self.policy.state_dict(), "optimiser": self.optimiser.state_dict()}
        return copy.deepcopy({**state, "replay": self.replay.state_dict()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))
        self.replay.load_state_dict(state["replay"])


NEW = {
    "drift": AgentEntry(DriftSettings, f"{__name__}:Drift"),
    "imitator": AgentEntry(ImitatorSettings, f"{__name__}:Imitator"),
}
