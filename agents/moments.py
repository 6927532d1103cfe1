"""Running mean and standard deviation of what an agent reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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

    def update(self, values: Tensor) -> None:
        """Take in values [K, size]."""
        if not len(values):
            return
        count = self.count + len(values)
        delta = values.mean(dim=0) - self.mean
        squares = self.variance * self.count + values.var(dim=0, correction=0) * len(values)
        self.mean += delta * (len(values) / count)
        self.variance.copy_((squares + delta.square() * (self.count * len(values) / count)) / count)
        self.count.copy_(count)

    def standardise(self, values: Tensor) -> Tensor:
        """(values - mean) / std, for values [..., size]."""
        return (values - self.mean) / self.std

    @property
    def std(self) -> Tensor:
        """Standard deviation [size], never zero."""
        return (self.variance + 1e-8).sqrt()
