"""Envs that are reset as soon as their episode is over, for agents that step them without waiting for a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from metarl.envs.arrays import Array, write
from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.simulation import Simulator
from metarl.envs.task import Task

STARTS = 8
"""Least number of initial states drawn for each env in advance; an env that has used all of them begins again. As many
more are drawn as make them a multiple of the rounds."""


class Step(NamedTuple):
    """Outcome of a control step of S envs. The next step overwrites it."""

    observations: Array
    """[S, obs] float32, of the episode that continues or has just begun."""
    rewards: Array
    """[S] float32."""
    terminated: Array
    """[S] bool, True where the episode reached a terminal state."""
    cut: Array
    """[S] bool, True where the time limit or a simulation fault ended the episode."""
    last_observations: Array
    """[S, obs] float32, after the step and before any reset."""


class RestartingEnv:
    """Env m N + n is the n-th env of task m. An env whose episode is over is reset at once, on its own task."""

    def __init__(
        self,
        family: TaskFamily,
        num_tasks: int,
        envs_per_task: int,
        simulator: Simulator,
        threads: int = 0,
        rounds: int = 1,
    ):
        """rounds: episodes of an env that follow on each other in the time of its task, as those of `TaskVecEnv`."""
        if family.layout:
            raise ValueError(
                f"tasks of family {family.name!r} have several layouts, which cannot be simulated as one batch that "
                "never stops; use simulator cpu, or an agent that learns from trials, such as rl2"
            )
        self.family, self._rounds = family, rounds
        self.batch = BatchedEnv(family, num_tasks, envs_per_task, threads, simulator=simulator)
        self.num_envs = num_tasks * envs_per_task
        array = self.batch.simulation.array
        self._last = array(np.zeros((self.num_envs, family.observation_size), dtype=np.float32))
        self._cut, self._total = array(np.zeros(self.num_envs, dtype=bool)), array(np.zeros(self.num_envs))
        self._places = array(np.arange(1, rounds + 1, dtype=np.int64)[:, None])
        """Number of each round, [rounds, 1]."""
        each = (rounds, self.num_envs)
        self._over, self._flagged = (array(np.zeros(each, dtype=bool)) for _ in range(2))
        """Whether each env's first episode of each round is over, and whether its simulation was flagged."""
        self._first_total = array(np.zeros(each))
        self._first_terms = {name: array(np.zeros(self.num_envs)) for name in family.rewards}
        """Sums of the first episode of the last round, by name, [S]."""
        self._sound_steps = array(np.zeros(self.num_envs, dtype=np.int64))
        self._rngs: Sequence[np.random.Generator] = ()

    @property
    def trial_steps(self) -> int:
        """Steps in which every env completes its rounds."""
        return self._rounds * self.family.horizon

    @property
    def num_faults(self) -> int:
        """Number of simulations that were flagged since this env was made."""
        return self.batch.num_faults

    @property
    def overflows(self) -> dict[str, int]:
        """See `Simulation.overflows`."""
        return self.batch.simulation.overflows()

    @property
    def num_steps(self) -> int:
        """Number of env steps since the last reset, without those of episodes whose simulation was flagged."""
        return int(self.batch.simulation.host(self._sound_steps).sum())

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Set the task of each N envs. Every env must be reset before it is stepped."""
        self.batch.set_tasks(tasks)

    def use(self, rngs: Sequence[np.random.Generator]) -> None:
        """Draw initial states and noise from these generators, one a task."""
        self._rngs = rngs

    def reset(self) -> Array:
        """Start an episode in every env; returns the observations [S, obs] float32, which the next step overwrites."""
        self.batch.keep_starts(self._rngs, -(-STARTS // self._rounds) * self._rounds, self._rounds)
        for kept in (self._over, self._flagged, self._total, self._first_total, *self._first_terms.values()):
            kept[...] = 0
        self._sound_steps[...] = 0
        return self.batch.results.observations

    def repeat(self, function: Callable[[Array], None]) -> Callable[[Array], None]:
        """See `Simulation.repeat`; the function may call `step`."""
        return self.batch.simulation.repeat(function)

    def step(self, actions: Array) -> Step:
        """Take a control step with actions [S, act] and reset envs that are done; always the same operations."""
        batch, xp = self.batch, self.batch.simulation.xp
        batch.advance(actions)
        done = batch.results
        self._cut[...] = done.truncated | done.faulted
        ended = done.terminated | self._cut
        self._last[...] = done.observations
        self._total += done.rewards
        self._sound_steps += 1 - xp.where(done.faulted, batch.steps, 0)
        first = ended & (batch.episodes == self._places) & ~self._over  # [rounds, S]
        write(self._flagged, done.faulted, where=first)
        write(self._first_total, self._total, where=first)
        for name, sums in self._first_terms.items():
            write(sums, batch.terms[name], where=first[-1])
        self._over |= first
        write(self._total, 0, where=ended)
        batch.restart(self._rounds)
        return Step(done.observations, done.rewards, done.terminated, self._cut, self._last)

    def first_episodes(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the return of each env's first episode of each round, [rounds, M, N], and the sums of the weighted
        reward terms of that of the last round, [M, N] by name, on the host.

        NaN where it is not over yet, or the simulation was flagged.
        """
        batch, host = self.batch, self.batch.simulation.host
        shape = (batch.num_tasks, batch.envs_per_task)
        sound = host(self._over & ~self._flagged)
        returns = np.where(sound, host(self._first_total), np.nan).reshape(-1, *shape)
        terms = {name: np.where(sound[-1], host(sums), np.nan) for name, sums in self._first_terms.items()}
        return returns, {name: sums.reshape(shape) for name, sums in terms.items()}
