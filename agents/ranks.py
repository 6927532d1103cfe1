"""Processes that train one agent together: each has its share of the tasks, and sums run over all processes.

`Ranks` itself is one process alone, whose sums are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")


class Ranks:
    """One of the processes that train together. Every method but `own` is called by all of them, in the same order."""

    rank = 0
    """Number of this process, from 0."""
    size = 1
    """Number of the processes."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that logs, writes and evaluates."""
        return self.rank == 0

    def own(self, count: int) -> range:
        """Return this process's places among 0 to count - 1: consecutive ones; earlier ranks may have one more."""
        share, more = divmod(count, self.size)
        start = self.rank * share + min(self.rank, more)
        return range(start, start + share + (self.rank < more))

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of the processes' tensors of one shape, the same to the bit in each, maybe in place."""
        return tensor

    def any(self, flag: bool) -> bool:
        """Return whether the flag is True in any process."""
        return flag

    def from_first(self, make: Callable[[], T]) -> T:
        """Return the result of `make`, which only the first process calls, however long it takes."""
        return make()

    def share_of_cores(self, cores: int) -> int:
        """Return the number of cores that are this process's own, of those that it shares with others."""
        return cores

    def cuda_device(self) -> torch.device:
        """Return the CUDA device of this process."""
        import torch

        return torch.device("cuda")


ALONE = Ranks()


def planned(size: int) -> Ranks:
    """Return so many processes of which there is none yet: a stand-in that says what they would refuse."""
    ranks = Ranks()
    ranks.size = size
    return ranks


def sum_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Sum the parameters' gradients over the processes, as one tensor; a parameter that has none here counts as 0.

    One that has none in any process keeps none, as in one process: an optimiser passes it over.
    """
    if ranks.size == 1:
        return
    import torch

    parameters = list(parameters)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    there = grads[0].new_tensor([p.grad is not None for p in parameters])
    summed = ranks.sum(torch.cat([*(grad.flatten() for grad in grads), there]))
    *totals, anywhere = summed.split([*(p.numel() for p in parameters), len(parameters)])
    for parameter, own, has in zip(parameters, totals, anywhere.tolist(), strict=True):
        parameter.grad = own.view_as(parameter).clone() if has else None


def mean_and_std(values: Tensor, ranks: Ranks, correction: int = 0) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of all elements of the processes' values, as scalars of their type."""
    if ranks.size == 1:
        return values.mean(), values.std(correction=correction)
    import torch

    wide = values.double()
    count, total = ranks.sum(torch.stack([wide.new_tensor(wide.numel()), wide.sum()]))
    mean = total / count
    squares = ranks.sum((wide - mean).square().sum())
    return mean.to(values.dtype), (squares / (count - correction)).sqrt().to(values.dtype)
