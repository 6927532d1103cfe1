"""Heads of a policy: how what is known of the task, the context, decides what the policy does with an observation.

    plain         the context is an input of the policy, beside the observation
    film          the context scales and shifts the hidden layers of a policy of the observation (Perez 2018)
    hypernetwork  the context generates the weights of a policy of the observation (Beck 2022, 2023)

A head reads features [..., context + observation], the two side by side.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metarl.agents.tanh import tanh
from metarl.agents.trial_ppo.network import HIDDEN_GAIN, MEAN_GAIN, Head, hidden_layers
from metarl.agents.trial_ppo.settings import HeadChoice

MOST_WEIGHTS = 2**25
"""Number of generated weights that are kept for the backward pass at once; where there are more, they are generated
again."""


def make_head(
    settings: HeadChoice, widths: tuple[int, ...], context_size: int, observation_size: int, action_size: int
) -> tuple[nn.Module, nn.Module]:
    """Return (actor, mean), such that mean(actor(features)) is the mean of the action [..., act].

    widths: of the hidden layers. observation_size: 0 for a policy that does not read the observation, which only a
    plain head allows.
    """
    if settings.head == "plain":
        sizes = (context_size + observation_size, *widths)
        return hidden_layers(sizes), nn.Linear(sizes[-1], action_size)
    if observation_size == 0:
        raise ValueError(
            f"agent.head is {settings.head}, a policy of the observation, but agent.observation_skip is false; set "
            "agent.observation_skip=true or agent.head=plain"
        )
    if settings.head == "hypernetwork":
        policy_sizes = (observation_size, *settings.generated_sizes, action_size)
        return Hypernetwork(context_size, policy_sizes), nn.Identity()
    if not widths:
        raise ValueError(
            "agent.head is film, which scales hidden layers, but the policy has none (agent.head_sizes, of pearl "
            "agent.hidden_sizes, is []); give it a width, or set agent.head=plain"
        )
    return Film(context_size, observation_size, widths), nn.Linear(widths[-1], action_size)


class Film(Head):
    """Hidden layers of a policy of the observation, each scaled and shifted by a linear function of the context.

    h = tanh((1 + gamma(c)) (W x + b) + beta(c)), where gamma and beta have no bias: a context of 0, and any context
    before training, leaves the layers as they are.
    """

    def __init__(self, context_size: int, observation_size: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes, self.widths = (context_size, observation_size), widths
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((observation_size, *widths)))
        self.modulation = nn.Linear(context_size, 2 * sum(widths), bias=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw orthogonal weights of the layers; all else is zero."""
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.orthogonal_(layer.weight, HIDDEN_GAIN, generator=generator)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.modulation.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Return the output of the last hidden layer, [..., width]."""
        context, x = features.split(self.sizes, dim=-1)
        scales, shifts = (part.split(self.widths, dim=-1) for part in self.modulation(context).chunk(2, dim=-1))
        for layer, scale, shift in zip(self.layers, scales, shifts, strict=True):
            x = tanh((1 + scale) * layer(x) + shift)
        return x


class Hypernetwork(Head):
    """A linear function from the context to all weights and biases of a policy, which has tanh between its layers.

    Its own weights are zero at first and its bias is an initial policy (Bias-HyperInit): the first policy is the same
    for every context, and training starts as that of an ordinary one.
    """

    def __init__(self, context_size: int, policy_sizes: tuple[int, ...]) -> None:
        """policy_sizes: of the policy's observation, hidden layers and action."""
        super().__init__()
        self.sizes = (context_size, policy_sizes[0])
        self.shapes = tuple(pairwise(policy_sizes))
        """(in, out) of each layer of the policy."""
        self.lengths = [n for a, b in self.shapes for n in (a * b, b)]
        """Lengths of weights and bias of each layer in turn."""
        self.generate = nn.Linear(context_size, sum(self.lengths))

    def initialise(self, generator: torch.Generator) -> None:
        """Set the weights to zero and draw the bias as an ordinary policy: orthogonal weights and zero biases."""
        nn.init.zeros_(self.generate.weight)
        pieces = self.generate.bias.data.split(self.lengths)
        gains = [HIDDEN_GAIN] * (len(self.shapes) - 1) + [MEAN_GAIN]
        for (a, b), gain, weight, bias in zip(self.shapes, gains, pieces[::2], pieces[1::2], strict=True):
            nn.init.orthogonal_(weight.view(a, b), gain, generator=generator)
            nn.init.zeros_(bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return the means of the actions, [..., act]."""
        rows = features.reshape(-1, features.shape[-1])
        most = max(MOST_WEIGHTS // sum(self.lengths), 1)
        if not torch.is_grad_enabled() or len(rows) <= most:
            means = self._means(rows)
        else:
            means = torch.cat([checkpoint(self._means, part, use_reentrant=False) for part in rows.split(most)])
        return means.reshape(*features.shape[:-1], -1)

    def _means(self, rows: Tensor) -> Tensor:
        """Return the means [R, act] of rows [R, context + observation], each by a policy of its own."""
        context, x = rows.split(self.sizes, dim=-1)
        pieces = self.generate(context).split(self.lengths, dim=-1)
        x = x.unsqueeze(1)  # [R, 1, in]
        for k, ((a, b), weight, bias) in enumerate(zip(self.shapes, pieces[::2], pieces[1::2], strict=True)):
            x = torch.baddbmm(bias.unsqueeze(1), tanh(x) if k else x, weight.view(-1, a, b))
        return x.squeeze(1)
