"""S environments of another author as simulations: blocks of them in processes, by `gymnasium.vector`."""

from __future__ import annotations

import multiprocessing
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np

from metarl.envs.batch import SimulationFault
from metarl.envs.foreign.guard import FLAGS, BlockMaker, Blueprint, Start
from metarl.envs.foreign.settings import EnvSettings
from metarl.envs.simulation import Simulator

METHOD = "spawn" if sys.platform == "win32" else "forkserver"
"""How processes are started: not by a fork of this one, whose threads hold locks that a fork would never see freed."""
LOADED = ["metarl.envs.foreign.guard", "gymnasium.envs.mujoco"]
"""Modules that the server of forks imports once. Each process would import them for itself otherwise: it would start
later, and its steps would take more time, as processes that share no memory share no cache."""

AS_IT_IS: dict[str, Any] = {"copy": False, "autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED}
"""How a vector env returns what its environments do: without a copy, and without resets of its own."""


class EnvFailed(SimulationFault):
    """An environment cannot begin an episode, or its process is gone."""


class GymSimulation:
    """Environments in step; one that faults is made anew for its next episode."""

    xp = np

    def __init__(self, blueprint: Blueprint, settings: EnvSettings, num_sims: int, threads: int) -> None:
        """threads: processes, unless the settings say how many; one is this process."""
        self.num_sims = num_sims
        wanted = settings.processes or threads or len(os.sched_getaffinity(0))
        count = num_sims if settings.processes == -1 else min(wanted, num_sims)
        self._each = -(-num_sims // count)
        count = -(-num_sims // self._each)  # as few as hold them all
        self._blueprint, self._source = blueprint, blueprint.source
        makers = [BlockMaker(blueprint, self._each, os.getpid())] * count
        apart = count > 1 or settings.processes == -1
        self._vector = self._called(
            lambda: _apart(makers) if apart else gymnasium.vector.SyncVectorEnv(makers, **AS_IT_IS)
        )
        self._close = weakref.finalize(self, _closed, self._vector)
        self._fields = {"seed": np.zeros(num_sims), "ctrl": np.zeros((num_sims, blueprint.actions))}
        self._row = np.zeros((num_sims, blueprint.width))
        names, first = (*FLAGS, *(f"info/{key}" for key in blueprint.infos)), blueprint.observed
        self._fields |= {"observation": self._row[:, :first]}
        self._fields |= {name: self._row[:, first + i] for i, name in enumerate(names)}
        self._orders = np.zeros((count * self._each, 1 + blueprint.actions))
        self._models: Sequence[Any] = ()
        self._assigned = np.zeros(num_sims, dtype=np.int64)
        self._said: set[str] = set()

    def array(self, values: np.ndarray) -> np.ndarray:
        return values

    def host(self, array: np.ndarray) -> np.ndarray:
        return array

    def bind(self, name: str) -> np.ndarray:
        return self._fields[name]

    def live(self) -> list[np.ndarray]:
        raise NotImplementedError("an environment of another author cannot be copied: reset what is to restart")

    def take(self, models: Sequence[Any]) -> None:
        self._models = models

    def assign(self, index: np.ndarray) -> None:
        self._assigned[:] = index

    def reset(self, chosen: np.ndarray) -> None:
        self._fields["seed"][chosen] = 0

    def forward(self, chosen: np.ndarray) -> None:
        """Begin the episodes of the environments chosen, by their seeds, on their tasks."""
        starts: list[list[Start]] = [[] for _ in range(self._vector.num_envs)]
        for sim in np.flatnonzero(chosen):
            block, place = divmod(int(sim), self._each)
            values = self._models[self._assigned[sim]]
            starts[block].append(Start(place, int(self._fields["seed"][sim]), values))
        self._called(lambda: self._vector.set_attr("starts", starts))
        self._read(self._called(self._vector.reset)[0])

    def step(self, chosen: np.ndarray, substeps: int) -> None:
        orders = self._orders[: self.num_sims]
        orders[:, 0], orders[:, 1:] = chosen, self._fields["ctrl"]
        by_block = self._orders.reshape(self._vector.num_envs, self._each, -1)
        self._read(self._called(lambda: self._vector.step(by_block))[0])

    def faulted(self) -> np.ndarray:
        flagged = self._fields["fault"] != 0
        if flagged.any():
            for raised in self._called(lambda: self._vector.call("errors")):
                for line in raised:
                    if line not in self._said:
                        print(
                            f"{self._source}: the environment raised {line}; the episode counts as a fault", flush=True
                        )
                        self._said.add(line)
        return flagged

    def picture(self) -> np.ndarray:
        """Return what the first environment renders, [height, width, 3] uint8."""
        return self._called(lambda: self._vector.call("picture"))[0]

    def close(self) -> None:
        """Close the environments and end their processes; it is done too when nothing refers to them."""
        self._close()

    def overflows(self) -> dict[str, int]:
        return {}

    def renew(self) -> None:
        pass  # nothing is recorded

    def repeat(self, function: Callable[[np.ndarray], None]) -> Callable[[np.ndarray], None]:
        return function

    def _read(self, rows: np.ndarray) -> None:
        self._row[:] = rows.reshape(-1, self._row.shape[1])[: self.num_sims]

    def _called(self, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except (EOFError, BrokenPipeError, ConnectionError) as error:
            raise EnvFailed(
                f"{self._source}: a process of it ended without a word, as by a crash, for want of memory, or where a "
                "script trains outside of `if __name__ == '__main__':`; family.processes=1 runs it in this process, "
                "which shows more"
            ) from error
        except Exception as error:
            raise EnvFailed(f"{self._source}: {type(error).__name__}: {error}") from error


def _apart(makers: Sequence[BlockMaker]) -> gymnasium.vector.AsyncVectorEnv:
    """Return a vector env with a process for each block."""
    multiprocessing.set_forkserver_preload(LOADED)
    return gymnasium.vector.AsyncVectorEnv(makers, context=METHOD, **AS_IT_IS)


def _closed(vector: Any) -> None:
    vector.close(terminate=True) if isinstance(vector, gymnasium.vector.AsyncVectorEnv) else vector.close()


def simulator(blueprint: Blueprint, settings: EnvSettings) -> Simulator:
    """Return the simulator of a family of such environments."""
    return Simulator(lambda model, num_sims, threads: GymSimulation(blueprint, settings, num_sims, threads), shards=1)
