"""Simulators below a batched env: S simulations side by side, each of its own model."""

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
"""Number of shards: one's physics runs while the other's policy and rewards are computed. Equal on every machine."""
SHARDED = 128
"""Least number of tasks with one env each that are divided into shards. A step of few costs as much Python as one of
many, and only one thread runs Python at a time: two small shards take turns, and are slower than one that steps on all
threads. Tasks with several envs are always divided: by how much is part of their results, in the last digits."""


STATE = ("qpos", "qvel", "act", "history", "qacc_warmstart", "ctrl", "time")
"""MjData fields that are the whole state of a simulation which is only controlled."""


class Unsupported(ValueError):
    """A robot, or a difference between its tasks, that a simulator cannot simulate; the message says what to do."""


class Simulation(Protocol):
    """S simulations, whose arrays are NumPy's on the CPU and torch's on a device.

    `chosen` is [S] bool everywhere, an array of the simulations' own library.
    """

    xp: Any
    """Functions for its arrays: NumPy, or torch by array-api-compat."""
    num_sims: int

    def array(self, values: np.ndarray) -> Array:
        """Copy host values to where the simulations' arrays are; floats in their precision, keys as int64."""
        ...

    def host(self, array: Array) -> np.ndarray:
        """Copy an array of the simulations to the host."""
        ...

    def bind(self, name: str) -> Array:
        """Return an MjData field, [S, ...]; it is live, and values written to it are simulated."""
        ...

    def live(self) -> list[Array]:
        """Return live arrays, on a device, whose copies restore the simulations: `STATE` and the bound fields."""
        ...

    def take(self, models: Sequence[mujoco.MjModel]) -> None:
        """Hold the models [K] for `assign`; ValueError for models that cannot be mixed."""
        ...

    def assign(self, index: Array) -> None:
        """Give each simulation the model at its index among those taken, [S] int64."""
        ...

    def reset(self, chosen: Array) -> None:
        """Set the state to the model's default; derived fields are out of date until `forward`."""
        ...

    def forward(self, chosen: Array) -> None:
        """Compute the derived fields and clear the flags of unsound simulations."""
        ...

    def step(self, chosen: Array, substeps: int) -> None:
        """Take this number of simulation steps. Simulations that are not chosen may be stepped, too."""
        ...

    def faulted(self) -> Array:
        """Return which simulations were flagged as unsound since `forward` or the last call, [S] bool."""
        ...

    def overflows(self) -> dict[str, int]:
        """Return the number of simulation steps in which contacts were dropped for lack of memory, by reason."""
        ...

    def renew(self) -> None:
        """Forget what `repeat` recorded: its arrays are no longer used."""
        ...

    def repeat(self, function: Callable[[Array], None]) -> Callable[[Array], None]:
        """Wrap a function of one array whose calls differ in values alone, which a device records once."""
        ...


def zeros(simulation: Simulation, shape: tuple[int, ...] = (), dtype: type = np.float64) -> Array:
    """Return zeros of a shape in every simulation, [S, *shape]."""
    return simulation.array(np.zeros((simulation.num_sims, *shape), dtype))


@dataclass(frozen=True)
class Simulator:
    """A way to simulate."""

    make: Callable[[mujoco.MjModel, int, int], Simulation]
    """Return a simulation by (model, number of simulations, CPU threads)."""
    shards: int
    """Number of batches that are worth stepping at the same time."""
    sharded: int = 0
    """Least number of tasks with one env each that are worth more than one batch."""

    def shards_of(self, num_tasks: int, envs_per_task: int) -> int:
        """Return the number of batches that tasks of one layout are divided into."""
        return 1 if envs_per_task == 1 and num_tasks < self.sharded else self.shards


class CpuSimulation:
    """Simulations by `mujoco.batch` on a thread pool, each as `mj_step` computes it."""

    xp = np

    def __init__(self, model: mujoco.MjModel, num_sims: int, threads: int) -> None:
        self.batch = mujoco.batch.Batch(model, num_sims, threads)
        self.num_sims = num_sims
        self._models: Sequence[mujoco.MjModel] = [model]
        self._counts = self.batch.warning[:, :, 1]  # live
        self._warnings = self._count_warnings()

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
        with mujoco_log.silent():  # warnings about unstable simulations are counted
            everything = np.count_nonzero(chosen) == self.num_sims
            self.batch.step(None if everything else np.flatnonzero(chosen), nstep=substeps)

    def faulted(self) -> np.ndarray:
        before, self._warnings = self._warnings, self._count_warnings()
        return self._warnings > before

    def overflows(self) -> dict[str, int]:
        return {}  # MuJoCo's own warnings, which count as faults

    def renew(self) -> None:
        pass  # nothing is recorded

    def repeat(self, function: Callable[[np.ndarray], None]) -> Callable[[np.ndarray], None]:
        return function

    def _count_warnings(self) -> np.ndarray:
        return np.add.reduce(self._counts, axis=1)


CPU = Simulator(CpuSimulation, SHARDS, SHARDED)
