"""Environments of another author side by side in one process, with whatever goes wrong in them turned into a fault."""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import gymnasium
import numpy as np
from gymnasium import spaces

from metarl.envs import code, mujoco_log
from metarl.envs.foreign.tasks import GymTasks

FLAGS = ("reward", "terminated", "truncated", "fault")
"""What a row has between the observation and the values of `info`."""


class Start(NamedTuple):
    """An episode to begin."""

    place: int
    """Place of the environment in its block."""
    seed: int
    values: Mapping[str, float]
    """Values of the task."""


@dataclass(frozen=True)
class Blueprint:
    """What a process needs to make environments; it is sent to it."""

    source: str
    """file.py:function that returns the `GymTasks`."""
    observations: int
    """Elements of the longest observation."""
    actions: int
    """Elements of the longest action."""
    infos: tuple[str, ...]
    """Keys of `info` whose values a row ends with."""
    masked: bool
    """Whether a row says which elements of the observation and the action are there."""
    kinds: tuple[Hashable, ...]
    """Kinds of environments; (None,) if all tasks have the same one."""
    pictured: bool = False
    """Whether environments are made to be seen, `make(..., render_mode="rgb_array")`."""

    @property
    def observed(self) -> int:
        """Elements of a row's observation."""
        return self.observations + (self.observations + self.actions if self.masked else 0)

    @property
    def width(self) -> int:
        """Numbers of a row: observation, `FLAGS`, values of `info`."""
        return self.observed + len(FLAGS) + len(self.infos)


def task_given(tasks: GymTasks, values: Mapping[str, float]) -> Any:
    """Return a task as the environment is given it: one of `tasks`, or a dict of numbers and names."""
    if tasks.tasks:
        return tasks.listed[int(values["task"])]
    return {p.name: p.names[int(values[p.name])] if p.names else values[p.name] for p in tasks.parameters}


def kind_of(tasks: GymTasks, task: Any) -> Hashable:
    """Return the kind of environment that a task needs; ValueError if the user's function fails."""
    if tasks.kind is None:
        return None
    try:
        kind = tasks.kind(task)
        hash(kind)
    except (Exception, SystemExit) as error:
        raise ValueError(f"kind failed for the task {task}: {code.failure(error)}") from error
    return kind


def made(tasks: GymTasks, kind: Hashable, pictured: bool = False) -> gymnasium.Env[Any, Any]:
    """Return a new environment of a kind; pictured: with pictures, which its maker may not know how to ask for."""
    seen = {"render_mode": "rgb_array"} if pictured else {}
    with mujoco_log.silent():
        return tasks.make(**seen) if tasks.kind is None else tasks.make(kind, **seen)


def give(tasks: GymTasks, env: gymnasium.Env[Any, Any], task: Any) -> Any:
    """Give a task to an environment; returns the options of its next resets: the task, if it takes it by them alone."""
    own = env.get_wrapper_attr("set_task") if env.has_wrapper_attr("set_task") else None
    if tasks.apply is None and not callable(own):
        return task
    try:
        if tasks.apply is not None:
            tasks.apply(env, task)
        elif own is not None:
            own(task)
    except (Exception, SystemExit) as error:
        name = "set_task" if tasks.apply is None else "apply"
        raise ValueError(f"{name} failed for the task {task}: {code.failure(error)}") from error
    return None


def parts_of(space: spaces.Space[Any], observe: Sequence[str]) -> dict[str, spaces.Space[Any]]:
    """Return the parts of an observation space by name; ValueError for a space that is no dict but has keys named."""
    if isinstance(space, spaces.Dict):
        missing = [key for key in observe if key not in space.spaces]
        if missing:
            raise ValueError(f"observe names {missing[0]!r}, and the observation has {', '.join(space.spaces)}")
        return {key: space.spaces[key] for key in observe or space.spaces}
    if observe:
        raise ValueError(f"observe names {observe[0]!r}, but the observation is {space}, no dict")
    return {"observation": space}


class Opened:
    """An environment, and how its observations and actions lie in a row."""

    def __init__(self, env: gymnasium.Env[Any, Any], tasks: GymTasks, blueprint: Blueprint):
        self.env, self._infos = env, blueprint.infos
        action, parts = env.action_space, parts_of(env.observation_space, tasks.observe)
        assert isinstance(action, spaces.Box)
        self._shape, self._type, self._actions = action.shape, action.dtype, int(np.prod(action.shape))
        self._bounds = None if tasks.kind is None else (action.low, action.high)  # of one kind, the family clips
        self._of_dict = isinstance(env.observation_space, spaces.Dict)
        self._plain = isinstance(env.observation_space, spaces.Box)
        self._parts = parts
        self._seen = sum(map(spaces.flatdim, parts.values()))
        n = blueprint.observations
        self._there = (slice(n, n + self._seen), slice(2 * n, 2 * n + self._actions)) if blueprint.masked else ()
        self._first = blueprint.observed + len(FLAGS)

    def action(self, values: np.ndarray) -> np.ndarray:
        """Return the environment's action of the numbers [actions]."""
        own = values[: self._actions].reshape(self._shape)
        own = (np.rint(own) if np.issubdtype(self._type, np.integer) else own).astype(self._type)
        return own if self._bounds is None else np.clip(own, *self._bounds)

    def show(self, row: np.ndarray, observation: Any, info: Mapping[str, Any]) -> None:
        """Write an observation and the values of `info` to a row; ValueError for one that its space does not have."""
        if self._plain:
            seen = np.asarray(observation).ravel()
        else:
            whole = observation if self._of_dict else {"observation": observation}
            parts = (np.ravel(cast(Any, spaces.flatten(space, whole[key]))) for key, space in self._parts.items())
            seen = np.concatenate([*parts])
        if seen.size != self._seen:  # one number would fill the whole row
            raise ValueError(f"an observation has {seen.size} numbers, and the space of observations {self._seen}")
        row[: self._seen] = seen
        for there in self._there:
            row[there] = 1
        for place, key in enumerate(self._infos, self._first):
            row[place] = info.get(key, 0.0)

    def wrong(self, observation: Any, reward: Any, info: Any) -> str:
        """Return what of a step is no number, or none that is finite, in words; empty if nothing is."""
        infos = info if isinstance(info, Mapping) else {}
        named = {"the reward": reward, **{f"info[{key!r}]": infos.get(key, 0.0) for key in self._infos}}
        for name, value in named.items():
            if not isinstance(value, int | float | np.number | np.bool_):
                return f"{name} is {value!r}, a {type(value).__name__}; return a number"
            if not math.isfinite(value):
                return f"{name} is {value}"
        parts = observation if isinstance(observation, Mapping) else {"observation": observation}
        for name, value in parts.items():
            with contextlib.suppress(Exception):
                flat = np.asarray(value, dtype=np.float64).ravel()
                if len(bad := np.flatnonzero(~np.isfinite(flat))):
                    return f"{name}[{bad[0]}] is {flat[bad[0]]}"
        return ""


class Guarded:
    """One environment; an exception or a number that is not finite ends its episode as a fault."""

    def __init__(self, tasks: GymTasks, blueprint: Blueprint, row: np.ndarray):
        """row: where the results of steps are written, [width]; a fault leaves the last sound observation."""
        self._tasks, self._blueprint, self.row = tasks, blueprint, row
        self._envs: dict[Hashable, Opened] = {}
        self._kind: Hashable = None
        self._values: Mapping[str, float] | None = None
        self._options: Any = None
        self._next = np.zeros_like(row)
        self.error = ""
        """What was raised last, in a line."""

    def start(self, start: Start) -> None:
        """Begin an episode. An environment that fails is made anew once; then its error is raised."""
        try:
            self._start(start)
        except (Exception, SystemExit):
            self._drop()
            self._start(start)

    def _start(self, start: Start) -> None:
        task = task_given(self._tasks, start.values)
        self._kind = kind_of(self._tasks, task)
        if self._kind not in self._blueprint.kinds:
            known = ", ".join(map(repr, self._blueprint.kinds))
            raise ValueError(
                f"kind returned {self._kind!r} for the task {task}, and otherwise {known}: it is to follow from "
                "categories, or from the task of a list, and not from a quantity"
            )
        fresh = self._kind not in self._envs
        if fresh:
            env = made(self._tasks, self._kind, self._blueprint.pictured)
            self._envs[self._kind] = Opened(env, self._tasks, self._blueprint)
        opened = self._envs[self._kind]
        if fresh or self._values != start.values:
            self._options = give(self._tasks, opened.env, task)
        self._values = dict(start.values)
        observation, info = opened.env.reset(seed=start.seed, options=self._options)
        self.row[:] = self._next[:] = 0  # of the environment before, which may have been of another kind
        opened.show(self.row, observation, info)
        if not np.isfinite(self.row).all():
            raise ValueError(f"reset returned an observation that is not finite: {observation}")

    def step(self, action: np.ndarray) -> None:
        """Take a step with an action [actions]."""
        opened, flags, row = self._envs[self._kind], self._blueprint.observed, self._next
        observation = reward = info = None
        try:
            observation, reward, terminated, truncated, info = opened.env.step(opened.action(action))
            opened.show(row, observation, info)
            row[flags], row[flags + 1], row[flags + 2] = reward, terminated, truncated
            if not math.isfinite(row.dot(row)):  # quicker than all of isfinite
                raise FloatingPointError("a step returned a number that is not finite")
            self.row[:] = row
        except (Exception, SystemExit) as error:
            wrong = "" if reward is None else opened.wrong(observation, reward, info)
            self.error = f"ValueError: of what a step returned, {wrong}" if wrong else code.failure(error)
            self.row[flags : flags + len(FLAGS)] = 0, 0, 0, 1
            row[:] = 0
            self._drop()

    @property
    def over(self) -> bool:
        """Whether the episode has ended, by a fault or as the environment says."""
        flags = self._blueprint.observed
        return bool(self.row[flags + 1 : flags + len(FLAGS)].any())

    @property
    def given_by(self) -> Literal["apply", "set_task", "options"]:
        """How the environment is given its task."""
        return "options" if self._options is not None else "set_task" if self._tasks.apply is None else "apply"

    def picture(self) -> np.ndarray:
        """Return what the environment renders, [height, width, 3] uint8."""
        return np.asarray(self._envs[self._kind].env.render())

    def _drop(self) -> None:
        """Close the environment; the next episode gets a new one."""
        opened, self._values = self._envs.pop(self._kind, None), None
        if opened is not None:
            with contextlib.suppress(Exception):
                opened.env.close()

    def close(self) -> None:
        """Close every environment."""
        for opened in self._envs.values():
            opened.env.close()


class Block(gymnasium.Env[np.ndarray, np.ndarray]):
    """Environments of one process as one for `gymnasium.vector`: their rows are its observation.

    An action has a row for each environment: whether to step it, then its action. `reset` begins the episodes of
    `starts`, and leaves the other environments as they are.
    """

    def __init__(self, blueprint: Blueprint, count: int):
        self._blueprint, self._count = blueprint, count
        self.observation_space = spaces.Box(-np.inf, np.inf, (count, blueprint.width), np.float64)
        self.action_space = spaces.Box(-np.inf, np.inf, (count, 1 + blueprint.actions), np.float64)
        self.starts: Sequence[Start] = ()
        self._guarded: list[Guarded] = []
        self._rows = np.zeros((count, blueprint.width))

    @mujoco_log.silent()
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        if not self._guarded:  # not before: the vector env makes a first one that it never steps
            tasks = code.load(self._blueprint.source)()
            self._guarded = [Guarded(tasks, self._blueprint, row) for row in self._rows]
        for start in self.starts:
            self._guarded[start.place].start(start)
        self.starts = ()
        return self._rows, {}

    @mujoco_log.silent()
    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        for place in np.flatnonzero(action[:, 0]):
            self._guarded[place].step(action[place, 1:])
        return self._rows, 0.0, False, False, {}

    def errors(self) -> list[str]:
        """Return what was raised since this was last asked, a line each."""
        raised = [guarded.error for guarded in self._guarded if guarded.error]
        for guarded in self._guarded:
            guarded.error = ""
        return raised

    def picture(self) -> np.ndarray:
        """Return what the first environment renders, [height, width, 3] uint8."""
        return self._guarded[0].picture()

    def close(self) -> None:
        for guarded in self._guarded:
            guarded.close()


@dataclass(frozen=True)
class BlockMaker:
    """Makes a block, in another process or in this one."""

    blueprint: Blueprint
    count: int
    made_in: int
    """Process that this maker was made in."""

    def __call__(self) -> Block:
        if os.getpid() != self.made_in:  # Ctrl-C is for the process that trains: it finishes its iteration first
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            mujoco_log.silent().__enter__()  # for good: inside of it, each step's own costs nothing
        return Block(self.blueprint, self.count)
