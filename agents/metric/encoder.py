"""The encoder of episodes: features of short windows of steps, read as a set or in order, at several lengths at once.

Axes: T steps, B episodes, K lengths, D size of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from metarl.agents.metric.settings import MetricSettings
from metarl.agents.moments import INPUT_CLIP


def steps_of(observations: Tensor, actions: Tensor, rewards: Tensor | None) -> Tensor:
    """Return steps [T, ..., input]: observation, its change by the action, action, and the reward if it is read.

    observations: [T + 1, ..., obs]. actions: [T, ..., act]. rewards: [T, ...] or None.
    """
    parts = [observations[:-1], observations[1:] - observations[:-1], actions]
    return torch.cat(parts if rewards is None else [*parts, rewards.unsqueeze(-1)], dim=-1)


class EpisodeEncoder(nn.Module):
    """A function from the first steps of an episode to its embedding.

        h_t = f(x_{t-w+1}, ..., x_t)     z_n = W (1/n sum_{t<n} h_t) + b   (set)     z_n = W GRU(h_0, ..., h_{n-1}) + b

    with standardised steps x, a window of w steps and zeros before the first one.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: MetricSettings, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.settings = settings
        self.input_size = 2 * observation_size + action_size + settings.reward_input
        self.register_buffer("mean", torch.zeros(self.input_size))
        self.register_buffer("std", torch.ones(self.input_size))
        sizes = settings.hidden_sizes
        self.window = nn.Linear(settings.window * self.input_size, sizes[0])
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.recurrent = nn.GRU(sizes[-1], sizes[-1]) if settings.reader == "gru" else None
        self.output = nn.Linear(sizes[-1], settings.embedding_size)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw orthogonal weights, and set biases to zero."""
        for parameter in self.parameters():
            if parameter.dim() == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.orthogonal_(parameter, generator=generator)

    @torch.no_grad()
    def standardise_by(self, steps: Tensor, lengths: Tensor) -> None:
        """Take mean and standard deviation from the steps [T, B, input] of episodes of these lengths [B]."""
        taken = steps[_within(lengths, len(steps))]
        self.mean.copy_(taken.mean(dim=0))
        self.std.copy_(taken.std(dim=0).clamp(min=1e-4))

    def forward(self, steps: Tensor, lengths: Tensor, until: Sequence[int]) -> Tensor:
        """Return embeddings [K, B, D] of the first `until` steps of each episode, or of all if it has fewer.

        steps: [T, B, input]. lengths: [B], of the episodes, at least 1. until: K numbers of steps.
        """
        steps = steps[: max(until)]
        features = self.features(steps) * _within(lengths, len(steps)).unsqueeze(-1)
        last = [torch.minimum(lengths, lengths.new_tensor(n)).clamp(max=len(steps)) for n in until]
        ends = torch.stack(last).unsqueeze(-1)  # [K, B, 1]
        if self.recurrent is not None:
            read = self.recurrent(features)[0].take_along_dim(ends - 1, dim=0)
        else:
            read = features.cumsum(dim=0).take_along_dim(ends - 1, dim=0) / ends
        return self.output(read)

    def features(self, steps: Tensor) -> Tensor:
        """Return features [T, B, width] of steps [T, B, input]."""
        standard = ((steps - self.mean) / self.std).clamp(-INPUT_CLIP, INPUT_CLIP)
        before = standard.new_zeros(self.settings.window - 1, *standard.shape[1:])
        padded = torch.cat([before, standard])
        windows = torch.cat([padded[k : k + len(steps)] for k in range(self.settings.window)], dim=-1)
        x = functional.dropout(functional.silu(self.window(windows)), self.settings.dropout, self.training)
        for layer in self.hidden:
            x = functional.dropout(functional.silu(layer(x)), self.settings.dropout, self.training)
        return x


def _within(lengths: Tensor, steps: int) -> Tensor:
    """Return [T, B] bool, True at the steps that an episode has."""
    return torch.arange(steps, device=lengths.device).unsqueeze(-1) < lengths
