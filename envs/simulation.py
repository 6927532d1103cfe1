"""What a batched env stands on: S simulations side by side, each of its own model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mujoco
import mujoco.batch
import numpy as np

from metarl.envs import mujoco_log
from metarl.envs.arrays import Array

SHARDS = 2
"""While one shard's policy and rewards are computed, another's physics runs; the same on every machine."""


STATE = ("qpos", "qvel", "act", "history", "qacc_warmstart", "ctrl", "time")
"""MjData fields that a simulation goes on from, of one that nothing else is done to than to control it."""


class Unsupported(ValueError):
    """A robot, or what its tasks differ in, that a simulator cannot simulate; the message says what to do."""


class Simulation(Protocol):
    """S simulations, whose arrays are NumPy's on the CPU and torch's on a device.

    `chosen` is [S] bool everywhere, an array of the simulations' own library.
    """

    xp: Any
    """The functions for its arrays: NumPy, or torch by array-api-compat."""
    num_sims: int

    def array(self, values: np.ndarray) -> Array:
        """Host values where the simulations' arrays are; floats in the simulations' precision, keys as int64."""
        ...

    def host(self, array: Array) -> np.ndarray:
        """An array of the simulations on the host."""
        ...

    def bind(self, name: str) -> Array:
        """[S, ...] an MjData field, live: what is written to it is simulated."""
        ...

    def live(self) -> list[Array]:
        """A device's: `STATE`, and what was bound; written back, the simulations are as they were."""
        ...

    def take(self, models: Sequence[mujoco.MjModel]) -> None:
        """Hold the models [K] that simulations can be of; `assign` comes next. ValueError for what cannot be mixed."""
        ...

    def assign(self, index: Array) -> None:
        """[S] int64, the place of each simulation's model among those taken."""
        ...

    def reset(self, chosen: Array) -> None:
        """Let the state be the model's default; derived fields are out of date until `forward`."""
        ...

    def forward(self, chosen: Array) -> None:
        """Compute the derived fields; what was flagged before is forgotten."""
        ...

    def step(self, chosen: Array, substeps: int) -> None:
        """Take so many simulation steps. Those not chosen may be stepped too, where nobody looks at them."""
        ...

    def faulted(self) -> Array:
        """[S] bool, simulations that were flagged as unsound since `forward` or since this was asked."""
        ...

    def overflows(self) -> dict[str, int]:
        """Simulation steps of single simulations in which contacts were left out for want of room, by reason."""
        ...

    def repeat(self, function: Callable[[Array], None]) -> Callable[[Array], None]:
        """The function of one array, for calls that always do the same with other values: a device records it once."""
        ...


def zeros(simulation: Simulation, shape: tuple[int, ...] = (), dtype: type = np.float64) -> Array:
    """Return zeros of a shape in every simulation, [S, *shape]."""
    return simulation.array(np.zeros((simulation.num_sims, *shape), dtype))


@dataclass(frozen=True)
class Simulator:
    """A way to simulate."""

    make: Callable[[mujoco.MjModel, int, int], Simulation]
    """(model, simulations, threads of the CPU)."""
    shards: int
    """Batches that are worth stepping at the same time."""


class CpuSimulation:
    """`mujoco.batch`: every simulation as `mj_step` computes it, on a thread pool."""

    xp = np

    def __init__(self, model: mujoco.MjModel, num_sims: int, threads: int) -> None:
        self.batch = mujoco.batch.Batch(model, num_sims, threads)
        self.num_sims = num_sims
        self._models: Sequence[mujoco.MjModel] = [model]
        self._warnings = np.zeros(num_sims, dtype=np.int64)

    def array(self, values: np.ndarray) -> np.ndarray:
        return values

    def host(self, array: np.ndarray) -> np.ndarray:
        return array

    def bind(self, name: str) -> np.ndarray:
        return self.batch.bind(name)

    def live(self) -> list[np.ndarray]:
        raise NotImplementedError(
            "mujoco.batch's derived fields cannot be written: on the CPU, reset what is to restart"
        )

    def take(self, models: Sequence[mujoco.MjModel]) -> None:
        self._models = models

    def assign(self, index: np.ndarray) -> None:
        self.batch.set_models([self._models[place] for place in index])

    def reset(self, chosen: np.ndarray) -> None:
        self.batch.reset(np.flatnonzero(chosen), stage=mujoco.mjtStage.mjSTAGE_NONE)

    def forward(self, chosen: np.ndarray) -> None:
        with mujoco_log.silent():  # the solver's warm start is as mj_forward leaves it
            self.batch.forward(np.flatnonzero(chosen))
        self._warnings = self._count_warnings()

    def step(self, chosen: np.ndarray, substeps: int) -> None:
        with mujoco_log.silent():  # of a simulation that is unstable; it is counted
            self.batch.step(None if chosen.all() else np.flatnonzero(chosen), nstep=substeps)

    def faulted(self) -> np.ndarray:
        before, self._warnings = self._warnings, self._count_warnings()
        return self._warnings > before

    def overflows(self) -> dict[str, int]:
        return {}  # MuJoCo's own warnings, which count as faults

    def repeat(self, function: Callable[[np.ndarray], None]) -> Callable[[np.ndarray], None]:
        return function

    def _count_warnings(self) -> np.ndarray:
        return self.batch.warning[:, :, 1].sum(axis=1)


CPU = Simulator(CpuSimulation, SHARDS)
