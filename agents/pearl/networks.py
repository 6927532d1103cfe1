"""Networks of PEARL: stacked multilayer perceptrons, so that both Q networks are one pass."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarl.agents.pearl.gaussians import Evidence, multiply
from metarl.agents.pearl.settings import PearlSettings
from metarl.agents.startup import blank
from metarl.agents.trial_ppo.heads import make_head
from metarl.agents.trial_ppo.network import Head

FIRST_OUTPUTS = 3e-3
"""Bound on the last layer's first weights, and biases: outputs start near zero."""
LOG_STD = (-20.0, 2.0)
"""Range of the policy's log-std."""


class StackedMlp(nn.Module):
    """Perceptrons of equal sizes with ReLU, side by side: inputs [K or 1, B, in] -> outputs [K, B, out]."""

    def __init__(self, count: int, sizes: Sequence[int], generator: torch.Generator) -> None:
        """count: K. sizes: of the input, the hidden layers and the output."""
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        layers = list(itertools.pairwise(sizes))
        for place, (i, o) in enumerate(layers):
            limit = FIRST_OUTPUTS if place == len(layers) - 1 else 1.0 / math.sqrt(i)
            weight = (2.0 * torch.rand(count, i, o, generator=generator) - 1.0) * limit
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(count, 1, o)))

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs.expand(len(self.weights[0]), *inputs.shape[1:])
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if place < len(self.weights) - 1:
                x = functional.relu(x, inplace=True)
        return x


class ContextEncoder(nn.Module):
    """The network from a transition to a Gaussian factor of the posterior (Rakelly 2019, section 4)."""

    def __init__(self, input_size: int, latent_size: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.network = StackedMlp(1, (input_size, *hidden, 2 * latent_size), generator)

    def forward(self, transitions: Tensor, valid: Tensor | None = None) -> Evidence:
        """Return the evidence of transitions [M, S, input], in any order; valid: [M, S] bool, those that count."""
        means, spreads = self.network(transitions.flatten(0, 1)[None])[0].chunk(2, dim=-1)
        shape = transitions.shape[:2]
        return multiply(means.unflatten(0, shape), functional.softplus(spreads).unflatten(0, shape), valid)


class SquashedPolicy(nn.Module):
    """The network from observations and latent variables to the Gaussian before tanh, with a head as settings choose.

    A plain one is a perceptron with ReLU; see `metarl.agents.trial_ppo.heads` for the others.
    """

    def __init__(
        self, settings: PearlSettings, observation_size: int, action_size: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.sizes = observation_size, settings.latent_size
        self.head: nn.Sequential | None = None
        if settings.head == "plain":
            self.network = StackedMlp(1, (sum(self.sizes), *settings.hidden_sizes, 2 * action_size), generator)
            return
        sizes = settings.latent_size, observation_size, 2 * action_size
        head, outputs = blank(lambda: nn.Sequential(*make_head(settings, settings.hidden_sizes, *sizes)))
        assert isinstance(head, Head)
        head.initialise(generator)
        if isinstance(outputs, nn.Linear):
            nn.init.uniform_(outputs.weight, -FIRST_OUTPUTS, FIRST_OUTPUTS, generator=generator)
            nn.init.zeros_(outputs.bias)
        self.head = nn.Sequential(head, outputs)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-std, each [B, act], for inputs [B, obs + latent]."""
        if self.head is None:
            found = self.network(inputs.unsqueeze(0))[0]
        else:
            observations, latents = inputs.split(self.sizes, dim=-1)
            found = self.head(torch.cat([latents, observations], dim=-1))
        mean, log_std = found.chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD)


class QNetworks(nn.Module):
    """Two networks from observation, action and latent variable to the soft value of the action."""

    def __init__(self, input_size: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.network = StackedMlp(2, (input_size, *hidden, 1), generator)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [2, B] for inputs [B, obs + act + latent]."""
        return self.network(inputs.unsqueeze(0)).squeeze(-1)
