"""Running mean and standard deviation of an agent's inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarl.agents.ranks import ALONE, Ranks

INPUT_CLIP = 10.0
"""Bound on every normalised input of a network, and on normalised rewards."""


class Moments(nn.Module):
    """Running mean and variance over everything seen (Chan 1979), by component; 0 and 1 until then."""

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.empty((), dtype=torch.float64))
        self.register_buffer("mean", torch.empty(size))
        self.register_buffer("variance", torch.empty(size))
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.count.zero_()
        self.mean.zero_()
        self.variance.fill_(1.0)

    def update(self, values: Tensor, ranks: Ranks = ALONE) -> None:
        """Update by values [K, size] of every process, each with its own K."""
        added, mean, variance = self._of(values, ranks)
        if not added:
            return
        count = self.count + added
        delta = mean - self.mean
        squares = self.variance * self.count + variance * added
        self.mean += delta * (added / count)
        self.variance.copy_((squares + delta.square() * (self.count * added / count)) / count)
        self.count.copy_(count)

    def _of(self, values: Tensor, ranks: Ranks) -> tuple[int, Tensor, Tensor]:
        """Return count, mean [size] and variance [size] of the values of all processes.

        They come from sums of deviations from the mean so far, so that large means take no digits from small variances.
        """
        if ranks.size == 1 and not len(values):
            return 0, self.mean, self.variance
        if ranks.size == 1:
            return len(values), values.mean(dim=0), values.var(dim=0, correction=0)
        deviations = values.double() - self.mean
        counts = deviations.new_full((1, deviations.shape[1]), float(len(values)))
        sums = ranks.sum(torch.cat([counts, deviations.sum(0, keepdim=True), deviations.square().sum(0, keepdim=True)]))
        added = int(sums[0, 0])
        shift, squares = sums[1] / max(added, 1), sums[2] / max(added, 1)
        return added, (self.mean + shift).to(values.dtype), (squares - shift.square()).clamp(min=0).to(values.dtype)

    def standardise(self, values: Tensor) -> Tensor:
        """Return (values - mean) / std, for values [..., size]."""
        return (values - self.mean) / self.std

    @property
    def std(self) -> Tensor:
        """Return the standard deviation [size], never zero."""
        return (self.variance + 1e-8).sqrt()
