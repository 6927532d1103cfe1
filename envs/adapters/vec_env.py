"""Any family as one Stable-Baselines3 `VecEnv`: M tasks x N envs in one batch, not copies of a single env.

from stable_baselines3 import PPO
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.envs.adapters.vec_env import TaskVecEnv
env = TaskVecEnv(make_family(HalfCheetahMassSettings()), num_tasks=40, envs_per_task=4)
env.set_tasks(env.family.sample(40, numpy.random.default_rng(0)))
PPO("MlpPolicy", env).learn(100_000)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from metarl.envs.adapters.gymnasium_adapter import spaces
from metarl.envs.arrays import Array
from metarl.envs.batch import StepResult
from metarl.envs.family import TaskFamily
from metarl.envs.sharded import ShardedEnv
from metarl.envs.task import Task

UNBOUNDED = 1e6
"""Bound of the actions that are observed: none, but SB3 wants one. The batch clips, and what is read is as it was."""


class Episode(NamedTuple):
    """What an env has played."""

    env: int
    task: int
    """Place of its task."""
    shot: int
    """Its place in the trial."""
    steps: int
    total: float
    """Return; NaN if MuJoCo flagged the simulation."""
    terms: dict[str, float]
    """Each weighted reward term summed over the episode, by name."""


class TaskVecEnv(VecEnv):
    """Env m N + n is the n-th of task m. An env that is done starts anew at once, on the same task.

    As Stable-Baselines3 expects, `infos[i]` of an env that is done has `terminal_observation`, what it saw last, and
    `TimeLimit.truncated`, True where the time limit ended it and not its state; and `episode` with return `r` and
    length `l`. A simulation that MuJoCo flagged counts as truncated at its last sound observation.

    shots: above 0, an env's episode is a whole trial of so many episodes of its family, and it is done when the trial
    is over. What it observes is then the slot that RL2 reads: observation, previous action and reward, flags for an
    episode's start and end. Between two episodes comes one slot with the final observation and the last reward;
    the action after it moves nothing.
    """

    def __init__(self, family: TaskFamily, num_tasks: int, envs_per_task: int, threads: int = 0, shots: int = 0):
        self.family = family
        self.envs_per_task = envs_per_task
        self.shots = shots
        self.episodes: list[Episode] = []
        """All that were played since the last reset of all envs."""
        self.num_steps = 0
        """Env steps since then, those of a flagged simulation's episode not counted."""
        self._env = ShardedEnv(family, num_tasks, envs_per_task, threads, at_once=1)
        observation_space, action_space = spaces(family)
        if shots:
            size = family.observation_size + family.action_size + 3
            observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
            action_space = gymnasium.spaces.Box(-UNBOUNDED, UNBOUNDED, action_space.shape, np.float32)
        num_envs = num_tasks * envs_per_task
        super().__init__(num_envs, observation_space, action_space)
        self._actions = np.zeros((num_envs, family.action_size), dtype=np.float32)
        self._shot, self._steps, self._trial_steps = (np.zeros(num_envs, dtype=np.int64) for _ in range(3))
        self._returns, self._trial_returns = np.zeros(num_envs), np.zeros(num_envs)
        self._between = np.zeros(num_envs, dtype=bool)
        """[S] an episode of the trial is over and the next has not begun."""
        self.seed(int(np.random.SeedSequence().generate_state(1)[0]))

    @property
    def trial_steps(self) -> int:
        """Steps that every env has come to an end by: of an episode, or of a trial with the slots between."""
        return self.shots * (self.family.horizon + 1) - 1 if self.shots else self.family.horizon

    @property
    def tasks(self) -> list[Task]:
        """[M] the tasks."""
        return self._env.tasks

    @property
    def num_faults(self) -> int:
        """Simulations that MuJoCo flagged since this env was made."""
        return self._env.num_faults

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Take up one task for each N envs. All envs must be reset before they are stepped."""
        self._env.set_tasks(tasks)

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Starts and noise of the next episodes follow from the seed."""
        sequence = np.random.SeedSequence(seed)
        self.use(list(map(np.random.default_rng, sequence.spawn(self._env.num_tasks))))
        return [seed] * self.num_envs

    def use(self, rngs: Sequence[np.random.Generator]) -> None:
        """Draw starts and noise from these generators, one a task."""
        self._rngs = rngs

    def reset(self) -> Array:
        self.episodes.clear()
        self.num_steps = 0
        self._between[:] = False
        everything = np.ones(self.num_envs, dtype=bool)
        return self._slots(self._restart(everything, everything), start=everything)

    def step_async(self, actions: Array) -> None:
        self._actions = np.array(actions, dtype=np.float32)

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        between, m, n = self._between.copy(), self._env.num_tasks, self.envs_per_task
        result = StepResult(*map(self._flat, self._env.step(self._actions.reshape(m, n, -1))))
        observations, rewards = result.observations, result.rewards
        ended = np.logical_or.reduce((result.terminated, result.truncated, result.faulted))
        self._steps += ~between
        self.num_steps += int(np.count_nonzero(~between))
        self._trial_steps += 1
        self._returns += rewards
        self._trial_returns += rewards
        if ended.any():
            self._record(np.flatnonzero(ended), result.faulted)
        done = ended & (self._shot + 1 >= self.shots)
        self._between = ended & ~done
        slots = self._slots(observations, end=self._between, rewards=rewards)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done):
            infos[i] = {
                "terminal_observation": slots[i].copy(),
                "TimeLimit.truncated": bool(~result.terminated[i]) and not self.shots,
                "episode": {"r": float(self._trial_returns[i]), "l": int(self._trial_steps[i])},
            }
        again = done | between
        if again.any():
            fresh = self._slots(self._restart(again, done), start=again)
            slots = np.where(again[:, None], fresh, slots)
        return slots, rewards, done, infos

    def _restart(self, envs: Array, trials: Array) -> Array:
        """Start the next episode of `envs`, the first of a trial in those of `trials`; returns all observations."""
        self._shot = np.where(trials, 0, self._shot + envs)
        for counter in (self._steps, self._returns):
            counter[envs] = 0
        for counter in (self._trial_steps, self._trial_returns):
            counter[trials] = 0
        shape = (self._env.num_tasks, self.envs_per_task)
        return self._flat(self._env.reset(self._rngs, envs.reshape(shape), trials.reshape(shape)))

    def _slots(
        self, observations: Array, start: Array | None = None, end: Array | None = None, rewards: Array | None = None
    ) -> Array:
        """What the policy reads: the observations, or with shots the slots of RL2."""
        if not self.shots:
            return observations
        none = np.zeros(self.num_envs, dtype=bool)
        started, over, earned = (none if x is None else x for x in (start, end, rewards))
        actions = np.where(started[:, None], 0.0, self._actions)
        return np.concatenate([observations, actions, np.stack([earned, started, over], 1)], axis=1, dtype=np.float32)

    def _record(self, ids: Array, faulted: Array) -> None:
        terms = {name: self._flat(sums) for name, sums in self._env.term_sums.items()}
        self.num_steps -= int(self._steps[faulted].sum())
        for i in ids:
            total = float("nan") if faulted[i] else float(self._returns[i])
            own = {name: float("nan") if faulted[i] else float(sums[i]) for name, sums in terms.items()}
            task, shot = int(i) // self.envs_per_task, int(self._shot[i])
            self.episodes.append(Episode(int(i), task, shot, int(self._steps[i]), total, own))

    def _flat(self, array: Array) -> Array:
        """[M, N, ...] -> [S, ...]."""
        return array.reshape(self.num_envs, *array.shape[2:])

    def close(self) -> None:
        """There is nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of this env, once for each that is asked for; an env has no renderer."""
        value = None if attr_name == "render_mode" else getattr(self, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not offered: all envs are one batch."""
        raise NotImplementedError(f"the envs are one batch and have no attribute {attr_name!r} each")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Not offered: all envs are one batch."""
        raise NotImplementedError(f"the envs are one batch and have no method {method_name!r} each; see set_tasks")

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]
