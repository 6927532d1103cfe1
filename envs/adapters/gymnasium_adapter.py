"""Every family as a Gymnasium environment: single, and vectorised on the batch (not as copies of the single one).

import gymnasium, metarl
env = gymnasium.make("metarl/HalfCheetahVelocity-v0")
observation, info = env.reset(seed=0, options={"task": {"target_velocity": 1.5}})
envs = gymnasium.make_vec("metarl/HalfCheetahVelocity-v0", num_envs=16)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from metarl.envs.registry import FAMILY_SETTINGS

if TYPE_CHECKING:
    from metarl.envs.arrays import Array
    from metarl.envs.family import TaskFamily
    from metarl.envs.rendering import Renderer
    from metarl.envs.task import Task


def gymnasium_id(family: str) -> str:
    """`half_cheetah_velocity` -> `metarl/HalfCheetahVelocity-v0`."""
    return f"metarl/{''.join(word.capitalize() for word in family.split('_'))}-v0"


def register_families() -> None:
    """Register every family; imports neither MuJoCo nor the families."""
    for name in FAMILY_SETTINGS:
        gymnasium.register(
            gymnasium_id(name),
            entry_point="metarl.envs.adapters.gymnasium_adapter:FamilyEnv",
            vector_entry_point="metarl.envs.adapters.gymnasium_adapter:FamilyVectorEnv",
            kwargs={"family": name},
            disable_env_checker=True,  # the batch gives copies already, and the checker would step every env twice
        )


def _make(family: str, settings: Mapping[str, Any]) -> TaskFamily:
    from metarl.envs.registry import make_family

    return make_family(FAMILY_SETTINGS[family](**settings))


def spaces(family: TaskFamily) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    """Return (observation space, action space); actions within the latter are not clipped."""
    scale = family.action_scale
    return (
        gymnasium.spaces.Box(-np.inf, np.inf, (family.observation_size,), np.float32),
        gymnasium.spaces.Box(
            (family.action_low / scale).astype(np.float32), (family.action_high / scale).astype(np.float32)
        ),
    )


def _require_known(options: dict[str, Any] | None, *known: str) -> None:
    """Raise ValueError for an option of `reset` that would be ignored."""
    if unknown := set(options or ()) - {*known}:
        raise ValueError(
            "reset takes options={'task': {...}}, values of parameters by name"
            + (", or options={'tasks': [...]}, one for each env" if "tasks" in known else "")
            + f"; got {', '.join(sorted(map(repr, unknown)))}"
        )


def _task(family: TaskFamily, wanted: Task | Mapping[str, float]) -> Task:
    from metarl.envs.task import Task

    if isinstance(wanted, Task):
        return family.own(wanted)
    if not isinstance(wanted, Mapping):
        raise ValueError(f"a task is a Task or values by name, such as {dict(family.neutral().values)}; got {wanted!r}")
    return family.task(wanted)


def _generators(seed: int, count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(count)]


class FamilyEnv(gymnasium.Env):
    """One env of one task. The task stays the same over resets, until a reset names a seed or a task.

    `reset(options={"task": ...})` takes a `Task` or parameter values by name, and keeps it, whatever later seeds say.
    `reset(seed=...)` draws the task from the training split by the seed, unless a task was named before.
    `info["task"]` has the parameters' current values: of a fault, say, from the step on in which it comes.
    `info["fault"]` says whether the simulation broke, which ends the episode: it is not a fault of the robot.
    `render_mode="rgb_array"` renders offscreen, `width` x `height` pixels.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self, family: str, render_mode: str | None = None, width: int = 480, height: int = 360, **settings: Any
    ):
        from metarl.envs.sharded import ShardedEnv

        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}; it must be 'rgb_array' or None")
        self.render_mode = render_mode
        self._picture_size = (width, height)
        self._renderer: Renderer | None = None
        self._pictured: Task | None = None
        self.family = _make(family, settings)
        self.observation_space, self.action_space = spaces(self.family)
        self._env = ShardedEnv(self.family, 1, 1, threads=1, at_once=1)
        self.metadata = {**self.metadata, "render_fps": max(1, round(1 / self._env.shards[0].dt))}
        self._drawn = self._named = False
        self._rng = np.random.default_rng()

    @property
    def task(self) -> Task:
        """The current task."""
        return self._env.tasks[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._rng, task_rng = _generators(seed, 2)
        else:
            task_rng = self._rng
        _require_known(options, "task")
        if options and "task" in options:
            self._env.set_tasks([_task(self.family, options["task"])])
            self._drawn = self._named = True
        elif not self._named and (seed is not None or not self._drawn):
            self._env.set_tasks(self.family.sample(1, task_rng))
            self._drawn = True
        return self._env.reset([self._rng], None, np.ones((1, 1), dtype=bool))[0, 0], self._info()

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        if not self._env.active[0, 0]:
            raise gymnasium.error.ResetNeeded("the episode is over, or none was started; call reset() before step()")
        sums = {name: float(total[0, 0]) for name, total in self._env.term_sums.items()}
        step = self._env.step(np.asarray(action, dtype=np.float64)[None, None])
        terms = {f"reward/{name}": float(total[0, 0]) - sums[name] for name, total in self._env.term_sums.items()}
        faulted = bool(step.faulted[0, 0])
        return (
            step.observations[0, 0],
            float(step.rewards[0, 0]),
            bool(step.terminated[0, 0]),
            bool(step.truncated[0, 0]) or faulted,
            {**self._info(), **terms, "fault": faulted},
        )

    def render(self) -> Array | None:
        """Return a picture of the robot, [height, width, 3] uint8; None without a render mode.

        `RenderingUnavailable` says what to install or set where there is no renderer.
        """
        from metarl.envs.rendering import Renderer

        if self.render_mode is None:
            return None
        if not self._drawn:
            raise gymnasium.error.ResetNeeded("there is no task to be seen yet; call reset() before render()")
        if self._renderer is None or self._pictured != self.task:
            self.close()
            self._renderer = Renderer(self.family.picture(self.task), *self._picture_size)
            self._pictured = self.task
        return self._renderer.frame(self._env.shards[0].poses[0])

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _info(self) -> dict[str, Any]:
        return {"task": {name: float(value[0]) for name, value in self._env.shards[0].task_values.items()}}


class FamilyVectorEnv(VectorEnv):
    """num_envs tasks, one env each, in one batch; an episode that ends starts anew in the same step.

    `reset(options={"tasks": [...]})` names one task an env, `reset(options={"task": ...})` one for all;
    `reset(seed=...)` draws them from the training split. A list of seeds gives each env the task and the starts of one
    `FamilyEnv` with that seed; an env whose seed is None goes on.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, family: str, num_envs: int = 1, threads: int = 0, **settings: Any):
        from metarl.envs.sharded import ShardedEnv

        self.family = _make(family, settings)
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = spaces(self.family)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._env = ShardedEnv(self.family, num_envs, 1, threads, at_once=1)
        self._rngs = _generators(int(np.random.SeedSequence().generate_state(1)[0]), num_envs)
        self._drawn = self._named = False

    @property
    def tasks(self) -> list[Task]:
        """The task of each env."""
        return self._env.tasks

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        _require_known(options, "task", "tasks")
        super().reset(seed=seed if isinstance(seed, int) else None)
        drawn = self._draw(seed)
        options = options or {}
        if "tasks" in options or "task" in options:
            wanted = options["tasks"] if "tasks" in options else [options["task"]] * self.num_envs
            self._env.set_tasks([_task(self.family, task) for task in wanted])
            self._drawn = self._named = True
        elif not self._named and drawn:
            self._env.set_tasks(drawn)
            self._drawn = True
        return self._env.reset(self._rngs, None, np.ones((self.num_envs, 1), dtype=bool))[:, 0], {}

    def _draw(self, seed: int | Sequence[int | None] | None) -> Sequence[Task]:
        """Take up the seeds, and return the tasks of the envs by them; empty if each keeps its own."""
        if isinstance(seed, int | np.integer):
            *self._rngs, rng = _generators(int(seed), self.num_envs + 1)
            return self.family.sample(self.num_envs, rng)
        if seed is None:
            return [] if self._drawn else self.family.sample(self.num_envs, self._rngs[0])
        if len(seed) != self.num_envs:
            raise ValueError(f"reset takes one seed, or one for each of {self.num_envs} envs; got {len(seed)}")
        tasks: list[Task] = []
        for i, own in enumerate(seed):
            rng = self._rngs[i]
            if own is not None:
                self._rngs[i], rng = _generators(own, 2)
            tasks.append(self.tasks[i] if own is None and self._drawn else self.family.sample(1, rng)[0])
        return tasks

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        if not self._env.active.all():  # none ends for good: an episode that is over starts anew
            raise gymnasium.error.ResetNeeded("no episode was started; call reset() before step()")
        step = self._env.step(np.asarray(actions, dtype=np.float64)[:, None])
        observations, faulted = step.observations[:, 0], step.faulted[:, 0]
        terminated, truncated = step.terminated[:, 0], np.logical_or(step.truncated[:, 0], faulted)
        infos: dict[str, Any] = {"fault": faulted, "_fault": np.ones(self.num_envs, dtype=bool)}
        ended = np.logical_or(terminated, truncated)
        if ended.any():
            final = np.full(self.num_envs, None, dtype=object)
            for i in np.flatnonzero(ended):
                final[i] = observations[i]
            infos |= {"final_obs": final, "_final_obs": ended}
            fresh = self._env.reset(self._rngs, ended[:, None], ended[:, None])[:, 0]
            observations = np.where(ended[:, None], fresh, observations)
        return observations, step.rewards[:, 0].astype(np.float64), terminated, truncated, infos
