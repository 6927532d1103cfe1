"""Functions of tensors that a GPU replays as a recorded graph, so that the host need not launch each kernel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Recorded:
    """A function of tensors that always runs the same operations, writes its results in place and returns None.

    On a GPU the first call runs as it is, the second records it as a CUDA graph, and from then on the graph runs: the
    arguments are copied into tensors of its own. Elsewhere it is the function.
    """

    def __init__(self, function: Callable[..., None], device: torch.device) -> None:
        self._function, self._device = function, device
        self._calls = 0
        self._arguments: list[Tensor] = []
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *arguments: Tensor) -> None:
        self._calls += 1
        if self._device.type != "cuda" or self._calls == 1:
            self._function(*arguments)
            return
        if self._graph is None:
            self._arguments = [argument.detach().clone() for argument in arguments]
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._function(*self._arguments)
        for own, argument in zip(self._arguments, arguments, strict=True):
            own.copy_(argument)
        self._graph.replay()
