"""Pure physics, which other times are held against: `mujoco.batch` alone."""

from __future__ import annotations

import time
from collections.abc import Callable

import mujoco
import mujoco.batch
import numpy as np

from metarl.envs.batch import BatchedEnv
from metarl.runs.trial import streams


def seconds(work: Callable[[], object]) -> float:
    """Return the time that a piece of work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Physics:
    """`mujoco.batch` alone, replaying the control signals that actions [T, M, N, act] make of an env's tasks.

    A simulation whose episode ended is not stepped on, as in collection.
    """

    def __init__(self, env: BatchedEnv, actions: np.ndarray) -> None:
        self._env, self._signals, self._running = env, [], []
        self._batch: mujoco.batch.Batch = env.simulation.batch  # pyright: ignore[reportAttributeAccessIssue]
        self._ctrl = env.simulation.bind("ctrl")
        self._reset()
        for action in actions:
            running = np.flatnonzero(env.active)
            if running.size == 0:
                break
            env.step(action)
            self._signals.append(self._ctrl.copy())
            self._running.append(running)
        self._steps = sum(running.size for running in self._running)

    def rate(self) -> float:
        """Return env steps/s."""
        self._reset()
        return self._steps / seconds(self._replay)

    def _reset(self) -> None:
        self._env.reset(streams(1, "benchmark", 0, self._env.num_tasks))

    def _replay(self) -> None:
        for signal, running in zip(self._signals, self._running, strict=True):
            self._ctrl[:] = signal
            every = running.size == self._env.simulation.num_sims
            self._batch.step(None if every else running, nstep=self._env.family.frame_skip)
