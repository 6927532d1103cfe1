"""A third simulation: single `mj_step`s, fields as torch tensors, and a watch over what a device could not replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import array_api_compat.torch as torch_namespace
import mujoco
import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from metarl.envs import mujoco_log
from metarl.envs.simulation import STATE, Simulator

HOST = {"numpy", "item", "tolist", "cpu", "__array__", "__bool__", "__int__", "__float__", "__index__", "__contains__"}
"""Methods of a tensor that bring its values to the host, or another's from there."""
INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)
SENT = (torch.ops.aten.lift_fresh.default,)
"""A host's value that becomes a tensor."""


class Crossing(AssertionError):
    """A value that went between host and device, or an operation that is not the same at every step."""


class Watch:
    """Operations on tensors while a function runs: each with the shapes of its arguments, and their memory if it was
    there before."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, ...]] = []
        self._made: dict[int, torch.Tensor] = {}
        self._own = 0

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watch what runs inside; Crossing if a device could not replay it."""
        self.operations.clear()
        self._made.clear()
        with _Functions(self), _Operations(self):
            yield
        self._made.clear()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Look away from a verb of the simulation."""
        self._own += 1
        try:
            yield
        finally:
            self._own -= 1

    @property
    def looks(self) -> bool:
        return not self._own

    def note(self, function: Any, arguments: list[Any]) -> None:
        """An operation that is about to run."""
        tags = set(function.tags) & {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
        indices = [a for a in arguments if isinstance(a, torch.Tensor)]
        if function in INDEXING:
            tags = {"indexing by a mask" for index in indices if index.dtype == torch.bool and index is not indices[0]}
        if tags or function in SENT:
            raise Crossing(f"{function} of {[getattr(a, 'shape', a) for a in arguments]}: a device would wait for it")
        self.operations.append((str(function), *(self._known(a) for a in arguments)))

    def keep(self, results: list[Any], arguments: list[Any]) -> None:
        """What an operation made; a view of an argument is not made."""
        old = {_memory(a) for a in arguments if isinstance(a, torch.Tensor)}
        for result in results:
            if isinstance(result, torch.Tensor) and _memory(result) not in old:
                self._made[_memory(result)] = result

    def _known(self, argument: Any) -> Any:
        if not isinstance(argument, torch.Tensor):
            return argument if isinstance(argument, int | float | bool) else str(argument)
        there = None if _memory(argument) in self._made else argument.data_ptr()
        return tuple(argument.shape), argument.dtype, there


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _Functions(TorchFunctionMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._watch.looks and getattr(function, "__name__", "") in HOST:
            raise Crossing(f"Tensor.{function.__name__}: a value reaches the host")
        return function(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._watch.looks:
            return function(*args, **(kwargs or {}))
        arguments = tree_leaves((args, kwargs or {}))
        self._watch.note(function, arguments)
        result = function(*args, **(kwargs or {}))
        self._watch.keep(tree_leaves(result), arguments)
        return result


def verb(method: Callable[..., Any]) -> Callable[..., Any]:
    """A verb, which may do on the host what it likes."""

    def looked_away_from(self: TorchSimulation, *arguments: Any) -> Any:
        with self.watch.off():
            return method(self, *arguments)

    return looked_away_from


class TorchSimulation:
    """Each simulation an MjData of its own; fields are float64 tensors that are copied in and out around each verb.

    Of `repeat`, the first call places constants, the second records and the others must do what was recorded.
    """

    xp = torch_namespace

    def __init__(self, model: mujoco.MjModel, num_sims: int, threads: int) -> None:
        self.num_sims = num_sims
        self.watch = Watch()
        self.recorded = 0
        """Functions that were recorded."""
        self.replayed = 0
        """Calls that did what was recorded."""
        self._renewed = 0
        self._data = [mujoco.MjData(model) for _ in range(num_sims)]
        self._models: Sequence[mujoco.MjModel] = [model]
        self._index = [0] * num_sims
        self._fields: dict[str, torch.Tensor] = {}
        self._warnings = self._count_warnings()
        self._faulted = torch.zeros(num_sims, dtype=torch.bool)

    def array(self, values: np.ndarray) -> torch.Tensor:
        return torch.tensor(values.view(np.int64) if values.dtype == np.uint64 else values)

    def host(self, array: torch.Tensor) -> np.ndarray:
        return array.numpy().copy()

    def bind(self, name: str) -> torch.Tensor:
        if name not in self._fields:
            self._fields[name] = torch.tensor(np.array([getattr(data, name) for data in self._data]))
        return self._fields[name]

    def live(self) -> list[torch.Tensor]:
        return [self.bind(name) for name in {**dict.fromkeys(STATE), **self._fields}]

    def take(self, models: Sequence[mujoco.MjModel]) -> None:
        self._models = models

    @verb
    def assign(self, index: torch.Tensor) -> None:
        self._index = index.tolist()

    @verb
    def reset(self, chosen: torch.Tensor) -> None:
        self._each(chosen, mujoco.mj_resetData)

    @verb
    def forward(self, chosen: torch.Tensor) -> None:
        self._each(chosen, mujoco.mj_forward)
        self._warnings = self._count_warnings()

    @verb
    def step(self, chosen: torch.Tensor, substeps: int) -> None:
        self._each(chosen, lambda model, data: mujoco.mj_step(model, data, substeps))

    @verb
    def faulted(self) -> torch.Tensor:
        before, self._warnings = self._warnings, self._count_warnings()
        self._faulted.copy_(torch.from_numpy(self._warnings > before))
        return self._faulted

    def overflows(self) -> dict[str, int]:
        return {}

    def renew(self) -> None:
        self._renewed += 1

    def repeat(self, function: Callable[[torch.Tensor], None]) -> Callable[[torch.Tensor], None]:
        recording: list[tuple[Any, ...]] = []
        given: list[torch.Tensor] = []
        seen = [self._renewed]

        def call(values: torch.Tensor) -> None:
            if seen[0] != self._renewed:
                seen[0] = self._renewed
                recording.clear()
                given.clear()
            if not given:
                given.append(values.clone())
                function(given[0])
                return
            given[0].copy_(values)
            with self.watch.on():
                function(given[0])
            self._compare(recording)

        return call

    def _compare(self, recording: list[tuple[Any, ...]]) -> None:
        done = self.watch.operations
        if not recording:
            recording.extend(done)
            self.recorded += 1
            return
        for now, then in zip(done, recording, strict=False):
            if now != then:
                raise Crossing(f"{now}, where {then} was recorded")
        if len(done) != len(recording):
            raise Crossing(f"{len(done)} operations, where {len(recording)} were recorded")
        self.replayed += 1

    def _each(self, chosen: torch.Tensor, act: Callable[[mujoco.MjModel, mujoco.MjData], None]) -> None:
        with mujoco_log.silent():
            for sim in np.flatnonzero(chosen.numpy()):
                model, data = self._models[self._index[sim]], self._data[sim]
                for name, values in self._fields.items():
                    setattr(data, name, values[sim].numpy() if values.ndim > 1 else values[sim].item())
                act(model, data)
                for name, values in self._fields.items():
                    values[sim] = torch.as_tensor(getattr(data, name))

    def _count_warnings(self) -> np.ndarray:
        return np.array([data.warning.number.sum() for data in self._data])


TORCH = Simulator(TorchSimulation, 1)
