"""Storage for the steps of many envs, allocated once and written one step at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Field = tuple[tuple[int, ...], torch.dtype]
"""(shape, dtype) of one step of one env."""


class Storage:
    """Named tensors [T, *envs, *shape] for T steps of all envs."""

    def __init__(self, steps: int, envs: tuple[int, ...], fields: Mapping[str, Field], device: torch.device) -> None:
        """envs: their axes, such as (M, N). All values are zero at first."""
        self._envs = envs
        self.tensors = {
            name: torch.zeros(steps, *envs, *shape, dtype=dtype, device=device)
            for name, (shape, dtype) in fields.items()
        }
        self._arrays = {name: x.numpy() for name, x in self.tensors.items()} if device.type == "cpu" else {}
        """The tensors as arrays, which are written with less overhead."""

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def write(self, step: int | Tensor, **values: Any) -> None:
        """Write one step [*envs, *shape] of some fields, given as tensors or NumPy arrays.

        step: its index; as a tensor [1] on the device, it can be recorded in a CUDA graph.
        """
        for name, value in values.items():
            if isinstance(step, Tensor):
                self.tensors[name].index_copy_(0, step, torch.as_tensor(value).unsqueeze(0))
            elif self._arrays:
                self._arrays[name][step] = value.numpy(force=True) if isinstance(value, Tensor) else value
            else:
                self.tensors[name][step] = torch.as_tensor(value)

    def flat(self) -> dict[str, Tensor]:
        """Return all steps of all envs along one axis, [T * envs, *shape]."""
        return {name: x.flatten(0, len(self._envs)) for name, x in self.tensors.items()}
