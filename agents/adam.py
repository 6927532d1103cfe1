"""Adam on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from metarl.agents.threads import single_torch_thread


class Adam(torch.optim.Adam):
    """Adam whose step is computed on one thread of a CPU.

    The fused step divides each tensor among torch's threads: with two of them, which wait passively for work, it takes
    0.68 ms on 50,000 parameters in 17 tensors and 0.11 ms with one, 1.04 and 0.27 ms on 430,000 in 18, and as long with
    either on 3M.
    """

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        with single_torch_thread():
            return super().step(closure)  # pyright: ignore[reportArgumentType]
