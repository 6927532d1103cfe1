"""A value network as baseline, learnt over all tasks, as it is or after gradient steps on a shot's returns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarl.agents.maml.baseline import scaled
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.moments import Moments
from metarl.agents.policy import GaussianPolicy
from metarl.agents.ranks import Ranks


class Returns(NamedTuple):
    """A shot as the value network learns from it."""

    observations: Tensor
    """[M, B, obs], as the policy reads them."""
    times: Tensor
    """[B], steps since the start of the shot."""
    returns: Tensor
    """[M, B]."""
    weights: Tensor
    """[M, B], 1 / (valid steps of the task) where valid, else 0."""

    def tasks(self, chunk: slice) -> Returns:
        """Return the steps of some of the tasks."""
        return Returns(self.observations[chunk], self.times, self.returns[chunk], self.weights[chunk])


class ValueNetwork:
    """V(o, t) = mean + std f(o, t), with the mean and standard deviation of the returns so far."""

    def __init__(self, settings: MamlSettings, observation_size: int, generator: torch.Generator, device: torch.device):
        self.settings = settings
        self._network = GaussianPolicy(observation_size + 1, 1, settings.hidden_sizes, settings.activation, 1.0)
        self.parameters = self._network.initial(1.0, 0.1, generator).to(device)
        """[V], flat."""
        self._optimiser = torch.optim.Adam([self.parameters], lr=settings.value_lr)
        self._returns = Moments(1).to(device)

    def fitted(self, shot: Returns) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the baseline of a shot: observations [M, B, obs] and times [B] -> values [M, B]."""
        if not self._returns.count:  # gradient steps on raw returns run away
            return self.now
        parameters = self._adapted(self.parameters, shot, create_graph=False).detach()
        return lambda observations, times: self._values(parameters, observations, times)

    def now(self, observations: Tensor, times: Tensor) -> Tensor:
        """Return the values [M, B] of observations [M, B, obs] before gradient steps on any shot."""
        return self._values(self.parameters.detach().unsqueeze(0), observations, times)

    def _values(self, parameters: Tensor, observations: Tensor, times: Tensor) -> Tensor:
        mean, std = self._returns.mean, self._returns.variance.sqrt()
        return mean + std * self._of(parameters, observations, times)

    def learn(self, shots: Sequence[Returns], chunks: Callable[[Tensor], Iterator[slice]], ranks: Ranks) -> float:
        """Take Adam's steps on the squared error of the shots, after adaptation if it is adapted; the last mean error.

        Errors are in units of the returns' variance.
        """
        valid = torch.cat([shot.returns[shot.weights > 0] for shot in shots])
        self._returns.update(valid.unsqueeze(-1).to(self.parameters.dtype), ranks)
        error = 0.0
        for _ in range(self.settings.value_epochs):
            gradient, total = torch.zeros_like(self.parameters), torch.zeros(2, device=self.parameters.device)
            for shot in shots:
                for chunk in chunks(shot.weights):
                    at, here = self.parameters.detach().requires_grad_(), shot.tasks(chunk)
                    loss = self._errors(self._adapted(at, here, create_graph=True), here).sum()
                    gradient += torch.autograd.grad(loss, at)[0]
                    total += torch.stack([loss.detach(), torch.ones_like(loss) * len(here.weights)])
            total = ranks.sum(total)
            self.parameters.grad = ranks.sum(gradient) / total[1]
            self._optimiser.step()
            error = float(total[0] / total[1])
        return error

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training continues from."""
        state = {"parameters": self.parameters, "returns": self._returns.state_dict()}
        return copy.deepcopy({**state, "optimiser": self._optimiser.state_dict()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.parameters.copy_(state["parameters"])
        self._returns.load_state_dict(state["returns"])
        self._optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))

    def _adapted(self, parameters: Tensor, shot: Returns, create_graph: bool) -> Tensor:
        """Return each task's parameters [M, V], or [1, V] if they are not adapted."""
        if self.settings.baseline != "adapted_value":
            return parameters.unsqueeze(0)
        own = parameters.expand(len(shot.weights), -1)
        for _ in range(self.settings.value_inner_steps):
            own = own if create_graph else own.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self._errors(own, shot).sum(), own, create_graph=create_graph)
            own = own - self.settings.value_inner_lr * slope
        return own

    def _errors(self, parameters: Tensor, shot: Returns) -> Tensor:
        """Return half the mean squared error [M], in units of the returns' variance."""
        wanted = self._returns.standardise(shot.returns.unsqueeze(-1)).squeeze(-1).to(parameters.dtype)
        found = self._of(parameters, shot.observations, shot.times)
        return 0.5 * (shot.weights * (found - wanted) ** 2).sum(1)

    def _of(self, parameters: Tensor, observations: Tensor, times: Tensor) -> Tensor:
        """Return f [M, B]."""
        inputs = torch.cat([observations, scaled(times, observations)], -1)
        return self._network(self._network.layers(parameters), inputs).mean.squeeze(-1)
