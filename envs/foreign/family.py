"""A Gymnasium environment as a task family."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from metarl.envs import code
from metarl.envs.arrays import Array
from metarl.envs.control import Signals
from metarl.envs.family import TaskFamily
from metarl.envs.foreign.guard import Blueprint, give, kind_of, made, parts_of, task_given
from metarl.envs.foreign.settings import EnvSettings
from metarl.envs.foreign.simulation import simulator
from metarl.envs.foreign.tasks import GIVEN, GymTasks, Info
from metarl.envs.parameters import Choice, Parameter, Split
from metarl.envs.state import State
from metarl.envs.task import Task
from metarl.envs.terms import Criterion, Element, Measure, ObservationTerm, RewardTerm

SEEDS = 2**31
"""Number of seeds that an environment's episodes are drawn from."""


@dataclass(frozen=True)
class GymFamily(TaskFamily):
    """Tasks of a Gymnasium environment. A task's model is the values that the environment is given."""

    step_s: float = math.nan
    """Control step, s."""
    gym_tasks: GymTasks | None = field(default=None, compare=False)
    """What the user's function returned."""
    blueprint: Blueprint | None = None
    """How its environments are made."""
    kinds: tuple[float, ...] = ()
    """Number of the kind of each task of a list; empty where there is one kind."""

    @property
    def dt(self) -> float:
        return self.step_s

    @property
    def edits_model(self) -> bool:
        return True

    def compile(self, task: Task) -> Any:
        """Return what the environment is given of a task."""
        return dict(self.own(task).values)

    def pictured(self) -> GymFamily:
        """Return the family with environments that can be seen, in this process; ValueError if `make` refuses."""
        assert isinstance(self.settings, EnvSettings) and self.blueprint is not None and self.gym_tasks is not None
        kind = _kinds(self.gym_tasks)[0]
        try:
            env = made(self.gym_tasks, kind, pictured=True)
        except TypeError as error:
            raise ValueError(
                f"{self.settings.function}: a picture needs make(render_mode='rgb_array'), which it refuses ({error}); "
                "let it take render_mode=None and pass it on to the environment"
            ) from error
        mode = env.render_mode
        env.close()
        if mode != "rgb_array":
            raise ValueError(
                f"{self.settings.function}: a picture needs an environment with render_mode 'rgb_array', and "
                f"make(render_mode='rgb_array') returned one with {mode!r}"
            )
        alone = dataclasses.replace(self.settings, processes=1)
        return dataclasses.replace(self, simulator=simulator(dataclasses.replace(self.blueprint, pictured=True), alone))

    def seconds(self, model: Any) -> float:
        return self.step_s

    def task(self, values: Mapping[str, float]) -> Task:
        """Return the task with these values; the kind of one of a list follows from its number."""
        return self._of_its_kind(super().task(values))

    def _draw(self, rng: np.random.Generator, split: Split, named: Mapping[str, float]) -> Task:
        return self._of_its_kind(super()._draw(rng, split, named))

    def _of_its_kind(self, task: Task) -> Task:
        """Return a task of a list with the kind that it is of."""
        if not self.kinds:
            return task
        return dataclasses.replace(task, values={**task.values, "kind": self.kinds[int(task.values["task"])]})


def opened(family: GymFamily) -> gymnasium.Env[Any, Any]:
    """Return an environment of the neutral task, not reset; ValueError if it cannot be made."""
    tasks = family.gym_tasks
    assert tasks is not None
    task = task_given(tasks, family.neutral().values)
    env = _made(tasks, kind_of(tasks, task))
    options = give(tasks, env, task)
    return env if options is None else Given(env, options)


class Given(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment that takes its task by the options of a reset, which gets it by every reset without options."""

    def __init__(self, env: gymnasium.Env[Any, Any], task: Any):
        super().__init__(env)
        self._task = task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.env.reset(seed=seed, options=options or self._task)


def copy_source(settings: EnvSettings, folder: Path) -> EnvSettings:
    """Return the settings with the digest of the file, which stays where it is: a run's folder holds no code."""
    file = code.file_of(settings.function)
    return settings if file is None else dataclasses.replace(settings, digest=code.digest(file))


def foreign(settings: EnvSettings) -> TaskFamily:
    """Return the family that the user's function describes; ValueError says what is wrong, and what to do."""
    made_by_user = _called(settings)
    if isinstance(made_by_user, TaskFamily):
        horizon = made_by_user.horizon if settings.horizon == -1 else settings.horizon
        return dataclasses.replace(made_by_user, name="env", horizon=horizon, settings=settings)
    if isinstance(made_by_user, GymTasks):
        if settings.faults:
            raise ValueError(
                f"family.faults: {settings.function} is a Gymnasium environment, and metarl has no MuJoCo model of it "
                "to break; let its tasks have faults"
            )
        try:
            return _family(settings, made_by_user)
        except ValueError as error:
            raise ValueError(f"{settings.function}: {error}") from error
    raise ValueError(
        f"{settings.function} returned {type(made_by_user).__name__}; it must return a metarl.GymTasks, which says "
        "what the tasks of a Gymnasium environment are, or a TaskFamily"
    )


def _called(settings: EnvSettings) -> Any:
    """Call the user's function; ValueError if it cannot be, or its file is not the one that a run was trained with."""
    source = settings.function
    if source.startswith("object:") and not code.is_held(source):
        raise ValueError("the family was an object of the Python program that trained the run; only it can use the run")
    file = code.file_of(source)
    if file is None and not code.is_held(source):
        raise ValueError(
            f"family.source is {source!r}; name the function that returns a GymTasks or a TaskFamily, as "
            "--env file.py:function"
        )
    if file is not None and not file.is_file():
        raise ValueError(f"{source}: there is no file {file}")
    if file is not None and settings.digest and code.digest(file) != settings.digest:
        raise ValueError(
            f"{file} has changed since the run was trained (SHA-256 {settings.digest[:12]} then); restore it, or train "
            "a new run"
        )
    try:
        return code.load(source)()
    except (Exception, SystemExit) as error:
        raise ValueError(f"{source} failed: {code.failure(error)}") from error


def _family(settings: EnvSettings, tasks: GymTasks) -> GymFamily:
    kinds = _kinds(tasks)
    drawn = _parameters(tasks)
    envs = [_made(tasks, kind) for kind in kinds]
    try:
        sizes = [_sizes(env, tasks) for env in envs]
        first, (names, _, _) = envs[0], max(sizes, key=lambda size: len(size[0]))
        low, high = _widest([size[1] for size in sizes], np.minimum), _widest([size[2] for size in sizes], np.maximum)
        horizon = tasks.horizon or _horizon(first)
        dt, title = tasks.dt or _dt(first), first.spec.id if first.spec else type(first.unwrapped).__name__
    finally:
        for env in envs:
            env.close()
    masked = any((len(own), len(lower)) != (len(names), len(low)) for own, lower, _ in sizes)
    measures = {**tasks.measures, **({} if tasks.success is None else {"success": tasks.success})}
    infos = tuple(dict.fromkeys(info.key for info in measures.values()))
    blueprint = Blueprint(code.placed(settings.function, Path()), len(names), len(low), infos, masked, tuple(kinds))
    if masked:
        names = (*names, *(f"has {name}" for name in names), *(f"has action[{i}]" for i in range(len(low))))
    labels = tuple(f"action[{i}]" for i in range(len(low)))

    def no_model(**_: float) -> mujoco.MjSpec:
        raise ValueError(f"{settings.function} is a Gymnasium environment, and metarl has no MuJoCo model of it")

    def seeds(model: Any, rng: np.random.Generator, count: int) -> tuple[Array, ...]:
        return (rng.integers(SEEDS, size=count),)

    return GymFamily(
        name="env",
        description=tasks.description or f"{title} as {Path(settings.function).name} says",
        base=no_model,
        parameters=drawn,
        observation={"observation": ObservationTerm(_field("observation"), tuple(Element(n, "") for n in names))},
        rewards={"reward": RewardTerm(_field("reward"))},
        reset=seeds,
        starts=("seed",),
        action_low=low,
        action_high=high,
        action_scale=tasks.action_scale,
        horizon=horizon if settings.horizon == -1 else settings.horizon,
        frame_skip=1,
        control=_signals(labels),
        terminate=_flag("terminated"),
        truncate=_flag("truncated"),
        measures={name: _measure(info) for name, info in measures.items()},
        success=() if tasks.success is None else (Criterion("success", low=0.5),),
        simulator=simulator(blueprint, settings),
        settings=settings,
        step_s=dt,
        gym_tasks=tasks,
        blueprint=blueprint,
        kinds=_numbers(tasks),
    )


def _parameters(tasks: GymTasks) -> tuple[Parameter, ...]:
    """Return what tasks differ in: the user's parameters, or the number of a task and, of several kinds, its kind."""
    if not tasks.tasks:
        return tasks.parameters
    places, begin = {}, 0
    for split in ("train", "held_out", "ood"):
        own = range(begin, begin + len(tasks.tasks.get(split, ())))
        begin = own.stop
        if own:
            places[split] = Choice(tuple(map(float, own)))
    others = {"held_out": places["held_out"], "ood": places.get("ood")}
    number = Parameter("task", "1", places["train"], GIVEN, 0.0, nuisance=True, **others)
    numbers = _numbers(tasks)
    if not numbers:
        return (number,)
    chosen = {}
    for split, drawn in places.items():
        chosen[split] = Choice(tuple(sorted({numbers[int(value)] for value in drawn.values})))
    apart = not set(chosen["held_out"].values) & set(chosen["train"].values)
    held = chosen["held_out"] if apart else None
    outside = chosen.get("ood")
    outside = None if outside is None or set(outside.values) & set(chosen["train"].values) else outside
    drawn = chosen["train"] if apart else Choice(tuple(sorted({v for own in chosen.values() for v in own.values})))
    names = tuple(map(str, _kinds(tasks)))
    return (number, Parameter("kind", "1", drawn, GIVEN, chosen["train"].low, held_out=held, ood=outside, names=names))


def _kinds(tasks: GymTasks) -> list[Any]:
    """Return the environments that tasks need, in order; [None] if all need the same one."""
    if tasks.kind is None:
        return [None]
    if tasks.tasks:
        return list(dict.fromkeys(kind_of(tasks, task) for task in tasks.listed))
    named = [p for p in tasks.parameters if p.names]
    grid = [{p.name: p.neutral for p in tasks.parameters}]
    for p in named:
        grid = [{**values, p.name: float(i)} for values in grid for i in range(len(p.names))]
    return list(dict.fromkeys(kind_of(tasks, task_given(tasks, values)) for values in grid))


def _numbers(tasks: GymTasks) -> tuple[float, ...]:
    """Return the number of the kind of each task of a list; nothing where there are not several."""
    kinds = _kinds(tasks)
    if tasks.kind is None or not tasks.tasks or len(kinds) < 2:
        return ()
    places = {kind: float(i) for i, kind in enumerate(kinds)}
    return tuple(places[kind_of(tasks, task)] for task in tasks.listed)


def _made(tasks: GymTasks, kind: Any) -> gymnasium.Env[Any, Any]:
    of_kind = "" if tasks.kind is None else f"({kind!r})"
    try:
        env = made(tasks, kind)
    except Exception as error:
        raise ValueError(f"make{of_kind or '()'} failed: {code.failure(error)}") from error
    if not isinstance(env, gymnasium.Env):
        raise ValueError(f"make{of_kind or '()'} returned {type(env).__name__}; it must return a gymnasium.Env")
    return env


def _sizes(env: gymnasium.Env[Any, Any], tasks: GymTasks) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Return (names of the observation's elements, lower and upper bound of each action)."""
    for name in ("observation_space", "action_space"):
        if not isinstance(getattr(env, name, None), spaces.Space):
            raise ValueError(f"its environment has no {name}; set self.{name} in __init__, one of gymnasium.spaces")
    space, names = env.action_space, []
    if not isinstance(space, spaces.Box):
        raise ValueError(f"its actions are {space}; agents choose continuous actions, a gymnasium.spaces.Box")
    if 0 in space.shape:
        raise ValueError(f"its actions are {space}, which has no element: there is nothing to choose")
    for key, part in parts_of(env.observation_space, tasks.observe).items():
        try:
            size = spaces.flatdim(part)
        except (NotImplementedError, ValueError) as error:
            raise ValueError(f"its {key} is {part}, which has no fixed number of elements") from error
        names += [f"{key}[{i}]" for i in range(size)] if size > 1 else [key]
    return tuple(names), np.ravel(space.low).astype(np.float64), np.ravel(space.high).astype(np.float64)


def _widest(bounds: list[np.ndarray], wider: Callable[[Array, Array], Array]) -> np.ndarray:
    """Return the widest bound of each action over the kinds; one of fewer actions says nothing of the rest."""
    found = max(bounds, key=len).copy()
    for own in bounds:
        found[: len(own)] = wider(found[: len(own)], own)
    return found


def _horizon(env: gymnasium.Env[Any, Any]) -> int:
    steps = env.spec.max_episode_steps if env.spec else None
    if not steps:
        raise ValueError("nothing says how long an episode is; give GymTasks(horizon=...), control steps")
    return int(steps)


def _dt(env: gymnasium.Env[Any, Any]) -> float:
    dt, fps = getattr(env.unwrapped, "dt", None), env.metadata.get("render_fps")
    if isinstance(dt, float | int) and dt > 0:
        return float(dt)
    if not fps:
        raise ValueError("nothing says how long a step is; give GymTasks(dt=...), seconds")
    return 1.0 / float(fps)


def _signals(names: tuple[str, ...]) -> Signals:
    none, one = np.zeros(len(names)), np.ones(len(names))
    return Signals(
        names=names,
        joints=("",) * len(names),
        kinds=("action",) * len(names),
        units=("1",) * len(names),
        offset=none,
        gain=one,
        zero=none,
        size=one,
        ranges=np.tile((-np.inf, np.inf), (len(names), 1)),
        home={},
    )


def _field(name: str) -> Callable[[State], Array]:
    return lambda state: getattr(state, name)


def _flag(name: str) -> Callable[[State], Array]:
    return lambda state: getattr(state, name) != 0


def _measure(info: Info) -> Measure:
    return Measure(_field(f"info/{info.key}"), info.unit, cast(Any, info.reduce))
