"""Ways to play an iteration's tasks while an agent learns: as trials, as a VecEnv, or as envs on the agent's device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from metarl.agents.agent import Agent, Trial
from metarl.agents.learning import SlotMaker
from metarl.envs.family import TaskFamily
from metarl.envs.restarting import RestartingEnv
from metarl.envs.sharded import ShardedEnv
from metarl.envs.simulation import Simulator
from metarl.envs.task import Task
from metarl.evaluation.outcomes import mean_of_sound
from metarl.runs.simulators import unsupported
from metarl.runs.trial import run_trial

if TYPE_CHECKING:
    from metarl.envs.adapters.vec_env import TaskVecEnv

Rngs = Callable[[str], list[np.random.Generator]]
"""Returns one generator a task, from the stream of this name."""


class Size(NamedTuple):
    """Size of what is played in an iteration, in this process."""

    tasks: int
    envs_per_task: int
    shots: int
    """Episodes of a trial."""
    threads: int
    """Threads of the simulation."""
    lives: bool
    """See `TrainingSettings.lives`."""


class Played(NamedTuple):
    """Record of an iteration. K shots, M tasks."""

    returns: np.ndarray
    """[K, M] mean return over the task's sound episodes; NaN where it has none."""
    terms: dict[str, np.ndarray]
    """[episodes] each weighted reward term summed over an episode of the last shot, by name; NaN where flagged."""
    env_steps: int
    """Env steps that were taken, without those of flagged simulations."""


class Player(Protocol):
    """One way to play the tasks of an iteration, and the record of what was played."""

    @property
    def num_faults(self) -> int:
        """Number of simulations that broke down so far."""
        ...

    @property
    def num_overflows(self) -> int:
        """Number of simulation steps of single robots so far without room for a contact, on the gpu simulator."""
        ...

    def begin(self, tasks: Sequence[Task], rngs: Rngs) -> None:
        """Set the tasks of an iteration, and the generators that its episodes draw from."""
        ...

    def played(self) -> Played:
        """Return the record of the iteration. Of several plays of one shot, it has the returns of the first."""
        ...


def rounds_of(family: TaskFamily, size: Size) -> int:
    """Return how many episodes of an agent of single episodes follow on each other in the time of a task: those of a
    trial if tasks change while they last, so that all changes are met; otherwise every episode is like the first."""
    return size.shots if family.changing else 1


class TrialPlayer:
    """Plays trials."""

    def __init__(self, family: TaskFamily, size: Size, simulator: Simulator, agent: Agent) -> None:
        self._agent, self._size, self._family = agent, size, family
        with unsupported("training.simulator"):
            self.env = ShardedEnv(
                family,
                size.tasks,
                size.envs_per_task,
                size.threads,
                simulator=simulator,
                telling=agent.facts.informed,
            )
        self._rngs: Rngs = lambda name: []
        self._plays = self._env_steps = 0
        self._first: tuple[np.ndarray, dict[str, np.ndarray]] | None = None

    @property
    def num_faults(self) -> int:
        return self.env.num_faults

    @property
    def num_overflows(self) -> int:
        return sum(self.env.overflows.values())

    def begin(self, tasks: Sequence[Task], rngs: Rngs) -> None:
        with unsupported("training.simulator"):
            self.env.set_tasks(tasks)
        self._rngs, self._plays, self._env_steps, self._first = rngs, 0, 0, None

    def play(self) -> Trial:
        """Play a trial; each one of an iteration has its own randomness."""
        name = f"rollouts/{self._plays}" if self._plays else "rollouts"
        self._plays += 1
        result = run_trial(self.env, self._agent, self._rngs(name), self._size.shots - 1, lives=self._size.lives)
        rollouts = result.trial.rollouts
        self._env_steps += sum(int(rollout.valid.sum()) for rollout in rollouts)
        if self._first is None:
            returns = np.stack([rollout.episode_returns().nanmean(1).cpu().numpy() for rollout in rollouts])
            self._first = returns, {name: sums.ravel() for name, sums in result.reward_terms[-1].items()}
        return result.trial

    def played(self) -> Played:
        if self._first is None:
            nothing = np.full((self._size.shots, self._size.tasks), np.nan)
            return Played(nothing, {name: np.empty(0) for name in self._family.rewards}, 0)
        return Played(*self._first, self._env_steps)


class VecEnvPlayer:
    """Lends a VecEnv to Stable-Baselines3, which steps it itself."""

    num_overflows = 0

    def __init__(self, family: TaskFamily, size: Size, slots: SlotMaker | None) -> None:
        from metarl.envs.adapters.vec_env import TaskVecEnv  # Stable-Baselines3 takes a while to import

        shots, rounds = (size.shots, 1) if slots else (0, rounds_of(family, size))
        sizes = size.tasks, size.envs_per_task, size.threads
        self.env: TaskVecEnv = TaskVecEnv(family, *sizes, shots, slots, rounds, size.lives)

    @property
    def num_faults(self) -> int:
        return self.env.num_faults

    def begin(self, tasks: Sequence[Task], rngs: Rngs) -> None:
        self.env.set_tasks(tasks)
        self.env.use(rngs("rollouts"))

    def played(self) -> Played:
        env, first = self.env, {}
        shots, tasks = env.shots or env.rounds, env.num_envs // env.envs_per_task
        for episode in env.episodes:  # where envs end early: later episodes are a newer policy's
            first.setdefault((episode.env, episode.shot), episode)
        sound = [episode for episode in first.values() if not math.isnan(episode.total)]
        totals: list[list[list[float]]] = [[[] for _ in range(tasks)] for _ in range(shots)]
        for episode in sound:
            totals[episode.shot][episode.task].append(episode.total)
        returns = np.array([[np.mean(own) if own else math.nan for own in shot] for shot in totals])
        last = [episode.terms for episode in sound if episode.shot == shots - 1]
        terms = {name: np.array([own[name] for own in last], dtype=np.float64) for name in env.family.rewards}
        return Played(returns, terms, env.num_steps)


class DevicePlayer:
    """Lends envs on the agent's device to an agent that steps them itself."""

    def __init__(self, family: TaskFamily, size: Size, simulator: Simulator) -> None:
        rounds = rounds_of(family, size)
        self.env = RestartingEnv(family, size.tasks, size.envs_per_task, simulator, size.threads, rounds)

    @property
    def num_faults(self) -> int:
        return self.env.num_faults

    @property
    def num_overflows(self) -> int:
        return sum(self.env.overflows.values())

    def begin(self, tasks: Sequence[Task], rngs: Rngs) -> None:
        with unsupported("training.simulator"):
            self.env.set_tasks(tasks)
        self.env.use(rngs("rollouts"))

    def played(self) -> Played:
        self.env.batch.verify()
        returns, sums = self.env.first_episodes()
        terms = {name: values.ravel() for name, values in sums.items()}
        return Played(mean_of_sound(returns), terms, self.env.num_steps)
