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

from collections.abc import Callable, Sequence
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
"""Action bound in trials: Stable-Baselines3 needs a finite one. The batch clips; policies read unclipped actions."""


class Episode(NamedTuple):
    """A finished episode of one env."""

    env: int
    """Index of the env."""
    task: int
    """Index of its task."""
    shot: int
    """Index of the episode in its trial."""
    steps: int
    """Control steps."""
    total: float
    """Return; NaN if the simulation broke down."""
    terms: dict[str, float]
    """Each weighted reward term summed over the episode, by name."""


class TaskVecEnv(VecEnv):
    """Env m N + n is the n-th env of task m. An env that is done is reset at once, on the same task.

    As Stable-Baselines3 expects, `infos[i]` of an env that is done has `terminal_observation`, its last observation;
    `TimeLimit.truncated`, True if the time limit ended the episode and not a terminal state; and `episode` with return
    `r` and length `l`. A simulation that broke down counts as truncated at its last finite observation.

    shots: if greater than 0, an env's episode is a trial of that many episodes of its family, and the env is done when
    the trial is over. Its observations are then slots(observations [S, obs], previous actions [S, act], previous
    rewards [S], episode starts [S] bool, episode ends [S] bool), [S, input] float32. Between two episodes there is one
    more step: it shows the final observation and the last reward with the end flag set, and its action has no effect.
    With `lives`, a robot that falls within a trial is placed anew while the episode's time lasts: that slot has the
    start flag of the new life and the action and reward before it. ValueError if `slots` is missing.

    rounds: where shots is 0, so many episodes of an env follow on each other in the time of its task, which may change
    in each of them; then the task begins anew.
    """

    def __init__(
        self,
        family: TaskFamily,
        num_tasks: int,
        envs_per_task: int,
        threads: int = 0,
        shots: int = 0,
        slots: Callable[..., Array] | None = None,
        rounds: int = 1,
        lives: bool = False,
    ):
        if shots and slots is None:
            raise ValueError(
                f"a trial of {shots} shots needs slots, the function that makes observations from the parts of a step; "
                "pass that of your agent"
            )
        self.family = family
        self.envs_per_task = envs_per_task
        self.shots, self.rounds = shots, rounds
        self._lives = lives and family.can_fall and shots > 0
        self._slot_maker = slots if shots else None
        self.episodes: list[Episode] = []
        """Episodes finished since the last reset of all envs."""
        self.num_steps = 0
        """Env steps since then, without those of episodes whose simulation was flagged."""
        self._env = ShardedEnv(family, num_tasks, envs_per_task, threads, at_once=1)
        observation_space, action_space = spaces(family)
        num_envs = num_tasks * envs_per_task
        self.num_envs = num_envs
        self._actions = np.zeros((num_envs, family.action_size), dtype=np.float32)
        if shots:
            seen = self._slots(np.zeros((num_envs, family.observation_size), dtype=np.float32))
            observation_space = gymnasium.spaces.Box(-np.inf, np.inf, seen.shape[1:], np.float32)
            action_space = gymnasium.spaces.Box(-UNBOUNDED, UNBOUNDED, action_space.shape, np.float32)
        super().__init__(num_envs, observation_space, action_space)
        self._shot, self._steps, self._trial_steps = (np.zeros(num_envs, dtype=np.int64) for _ in range(3))
        self._returns, self._trial_returns = np.zeros(num_envs), np.zeros(num_envs)
        self._between = np.zeros(num_envs, dtype=bool)
        """[S] True between two episodes of a trial."""
        self.seed(int(np.random.SeedSequence().generate_state(1)[0]))

    @property
    def trial_steps(self) -> int:
        """Steps in which every env completes its rounds, or a trial with the steps between its episodes."""
        return self.shots * (self.family.horizon + 1) - 1 if self.shots else self.rounds * self.family.horizon

    @property
    def tasks(self) -> list[Task]:
        """Tasks, [M]."""
        return self._env.tasks

    @property
    def num_faults(self) -> int:
        """Number of simulations that broke down since this env was made."""
        return self._env.num_faults

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Set the task of each N envs. Every env must be reset before it is stepped."""
        self._env.set_tasks(tasks)

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Seed the initial states and the noise of the next episodes."""
        sequence = np.random.SeedSequence(seed)
        self.use(list(map(np.random.default_rng, sequence.spawn(self._env.num_tasks))))
        return [seed] * self.num_envs

    def use(self, rngs: Sequence[np.random.Generator]) -> None:
        """Draw initial states and noise from these generators, one a task."""
        self._rngs = rngs

    def reset(self) -> Array:
        self.episodes.clear()
        self.num_steps = 0
        self._between[:] = False
        everything = np.ones(self.num_envs, dtype=bool)
        return self._slots(self._restart(everything, everything, everything), start=everything)

    def step_async(self, actions: Array) -> None:
        self._actions = np.array(actions, dtype=np.float32)

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        between, m, n = self._between.copy(), self._env.num_tasks, self.envs_per_task
        result = StepResult(*map(self._flat, self._env.step(self._actions.reshape(m, n, -1))))
        observations, rewards = result.observations, result.rewards
        ended = np.logical_or.reduce((result.terminated, result.truncated, result.faulted))
        fallen = self._flat(self._env.revive(self._rngs)) if self._lives and result.terminated.any() else None
        if fallen is not None:
            ended, observations = ended & ~fallen, self._flat(self._env.observations)
        self._steps += ~between
        self.num_steps += int(np.count_nonzero(~between))
        self._trial_steps += 1
        self._returns += rewards
        self._trial_returns += rewards
        if ended.any():
            self._record(np.flatnonzero(ended), result.faulted)
        done = ended & (self._shot + 1 >= self.shots)
        self._between = ended & ~done
        slots = self._slots(observations, end=self._between, rewards=rewards, life=fallen)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done):
            infos[i] = {
                "terminal_observation": slots[i].copy(),
                "TimeLimit.truncated": bool(~result.terminated[i]) and not self.shots,
                "episode": {"r": float(self._trial_returns[i]), "l": int(self._trial_steps[i])},
            }
        again = done | between
        if again.any():
            over = done if self.shots else done & (self._shot + 1 >= self.rounds)
            fresh = self._slots(self._restart(again, done, over), start=again)
            slots = np.where(again[:, None], fresh, slots)
        return slots, rewards, done, infos

    def _restart(self, envs: Array, done: Array, trials: Array) -> Array:
        """Start the next episode of `envs`, the first in the time of their tasks in those of `trials`.

        done: where the policy's episode was over. Returns all observations.
        """
        self._shot = np.where(trials, 0, self._shot + envs)
        for counter in (self._steps, self._returns):
            counter[envs] = 0
        for counter in (self._trial_steps, self._trial_returns):
            counter[done] = 0
        shape = (self._env.num_tasks, self.envs_per_task)
        return self._flat(self._env.reset(self._rngs, envs.reshape(shape), trials.reshape(shape)))

    def _slots(
        self,
        observations: Array,
        start: Array | None = None,
        end: Array | None = None,
        rewards: Array | None = None,
        life: Array | None = None,
    ) -> Array:
        """Return the input of the policy: observations or, in trials, slots. rewards: None for 0. life: [S] where a new
        life has begun, of which the action before is kept."""
        if self._slot_maker is None:
            return observations
        none = np.zeros(self.num_envs, dtype=bool)
        started, over = (none if flags is None else flags for flags in (start, end))
        earned = np.zeros(self.num_envs, dtype=np.float32) if rewards is None else rewards
        actions = np.where(started[:, None], np.float32(0), self._actions)
        begun = started if life is None else started | life
        return self._slot_maker(observations, actions, earned, begun, over)

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
        """Do nothing: there is nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of this env once for each index; no env has a renderer."""
        value = None if attr_name == "render_mode" else getattr(self, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Raise NotImplementedError: all envs are one batch."""
        raise NotImplementedError(f"the envs are one batch and have no attribute {attr_name!r} each")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Raise NotImplementedError: all envs are one batch."""
        raise NotImplementedError(f"the envs are one batch and have no method {method_name!r} each; see set_tasks")

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]
