"""Task families as data: a base model, parameters, observation, reward terms, episode."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import mujoco
import numpy as np

from metarl.envs import mujoco_log
from metarl.envs.arrays import Array, like, namespace
from metarl.envs.control import Signals
from metarl.envs.parameters import SPLITS, Parameter, Split

# What MuJoCo warns of when a task's model is compiled: said once, by the check of a robot, and counted in simulation.
warnings.filterwarnings("ignore", category=UserWarning, module=r"metarl\.envs\.")

T = TypeVar("T")


@dataclass(frozen=True)
class Change:
    """What a task turns into while it lasts: a payload is dropped, a leg fails, the ground is another."""

    step: int
    """Control steps of the env's trial before it, episodes counted at their full length."""
    values: Mapping[str, float]
    """By name, of the parameters that change."""


@dataclass(frozen=True)
class Task:
    """One draw from a family: named parameter values and how they change, and nothing else."""

    family: str
    values: Mapping[str, float]
    changes: tuple[Change, ...] = ()
    """In order of their steps; none unless the family says so."""

    @property
    def id(self) -> str:
        """Name that is the same whenever family, values and changes are."""
        digest = hashlib.sha256(self.to_json().encode()).hexdigest()[:12]
        return f"{self.family}-{digest}"

    def to_json(self) -> str:
        """Canonical JSON; floats are written so that they are read back bit for bit."""
        data: dict[str, Any] = {"family": self.family, "values": _floats(self.values)}
        if self.changes:
            data["changes"] = [{"step": change.step, "values": _floats(change.values)} for change in self.changes]
        return json.dumps(data, sort_keys=True, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Task:
        """The task that `to_json` wrote; ValueError if the text is no task."""
        try:
            data = json.loads(text)
            changes = tuple(Change(int(c["step"]), _floats(c["values"])) for c in data.get("changes", ()))
            return Task(str(data["family"]), _floats(data["values"]), changes)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'not a task: {text[:80]!r}; expected {{"family": NAME, "values": {{PARAMETER: NUMBER}}}}'
            ) from error


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in values.items()}


class State:
    """What observation and reward functions read: live arrays over all S = M x N simulations.

    They are NumPy's on the CPU and torch's on a device; `xp` has the functions for them (`metarl.envs.arrays`).

    Any MjData field is an attribute (`state.qpos` is [S, nq]). Derived fields (`state.xpos`) are those of the last
    substep's start, as after `mj_step`; they are filled from the first call after they were first asked for.
    """

    previous: dict[str, Array]
    """The fields of `TaskFamily.previous` before the control step, [S, ...] by name."""
    action: Array
    """[S, act] the action that was applied: scaled, then clipped."""
    task: dict[str, Array]
    """[S] each parameter's value, by name."""
    steps: Array
    """[S] int64, control steps taken in the running episode."""
    keys: Array
    """[S] uint64 (on a device int64 of the same bits), what `metarl.envs.noise` makes an episode's randomness from;
    zero unless the family is `noisy`."""
    memory: dict[str, Array]
    """[S, ...] what the family declares as its memory, by name; zero when an episode starts."""
    models: Sequence[mujoco.MjModel]
    """[K] the tasks' own models, one for each stage of a task that changes."""
    task_index: Array
    """[S] int64, place of each simulation's model in `models`."""
    dt: float
    """Control step, s."""

    def __init__(
        self, bind: Callable[[str], Array], xp: Any = np, array: Callable[[np.ndarray], Array] = lambda values: values
    ):
        """bind: a field by name. xp: the functions for the fields. array: host values where the fields are."""
        self.xp = xp
        self._bind, self._array = bind, array
        self._kept: dict[Callable[..., Any], Any] = {}

    def take(self, models: Sequence[mujoco.MjModel]) -> None:
        """Hold new tasks' models, and make anew what was made of the old ones."""
        self.models = models
        if self.xp is np:
            self._kept.clear()  # it is made when it is asked for
        for make, kept in self._kept.items():
            self._kept[make] = renewed(kept, self._placed(make(models)))

    def once(self, make: Callable[[Sequence[mujoco.MjModel]], T]) -> T:
        """`make(models)`, made once a set of tasks: an array, or a (named) tuple or dataclass of arrays."""
        if make not in self._kept:
            self._kept[make] = self._placed(make(self.models))
        return self._kept[make]

    def _placed(self, made: Any) -> Any:
        """What was made of the models where the fields are."""
        return made if self.xp is np else _mapped(self._array, made)

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_"):
            raise AttributeError(name)
        view = self._bind(name)
        setattr(self, name, view)
        return view


def _mapped(change: Callable[..., Any], made: Any, *others: Any) -> Any:
    """The same structure with its arrays changed; others: structures of the same kind, whose arrays are handed on."""
    if dataclasses.is_dataclass(made) and not isinstance(made, type):
        parts = {
            f.name: _mapped(change, getattr(made, f.name), *(getattr(o, f.name) for o in others))
            for f in dataclasses.fields(made)
        }
        return dataclasses.replace(made, **parts)
    if isinstance(made, tuple):
        parts = [_mapped(change, *each) for each in zip(made, *others, strict=True)]
        return type(made)(*parts) if hasattr(made, "_fields") else tuple(parts)
    return change(made, *others) if hasattr(made, "shape") else made


def renewed(kept: Any, made: Any) -> Any:
    """New values in the old arrays, which a device's recording refers to; new arrays where a shape differs."""

    def renew(old: Array, new: Array) -> Array:
        if old.shape != new.shape:
            return new
        old[...] = new
        return old

    return _mapped(renew, kept, made)


StateFunction = Callable[[State], Array]


@dataclass(frozen=True)
class RewardTerm:
    """weight x function(state)."""

    function: StateFunction
    """[S] values of the term."""
    weight: float = 1.0


@dataclass(frozen=True)
class Measure:
    """What an episode is judged by besides its return. It is evaluated after each control step, in evaluations only."""

    function: StateFunction
    """[S] values of the step."""
    unit: str
    """Of the episode's value."""
    reduce: Literal["mean", "sum", "last"]
    """What becomes of the steps' values over the episode."""
    per: StateFunction | None = None
    """[S] values by whose sum over the episode a sum is divided, a distance for one; None: by nothing."""

    def __post_init__(self) -> None:
        if self.per is not None and self.reduce != "sum":
            raise ValueError(f"a measure that is divided must be a sum, got {self.reduce!r}")


@dataclass(frozen=True)
class Criterion:
    """Bounds of a measure, ends included, that an episode keeps to if it is a success."""

    measure: str
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Changes:
    """How often tasks change while they last, and in what."""

    parameters: tuple[str, ...]
    """Drawn anew at each change, from the task's split."""
    count: int
    """Changes a task."""
    gap: tuple[int, int]
    """Fewest and most control steps before each change, and between two."""

    @staticmethod
    def of(settings: Any, *parameters: str) -> Changes | None:
        """What a family's settings `changes` and `change_gap` ask for; None if they ask for none."""
        return Changes(parameters, settings.changes, settings.change_gap) if settings.changes else None

    def __post_init__(self) -> None:
        if self.count < 1 or len(self.gap) != 2 or not 1 <= self.gap[0] <= self.gap[1]:
            raise ValueError(
                f"changes: need at least 1 change and a gap of 1 <= low <= high steps, got {self.count} and {self.gap}"
            )


@dataclass(frozen=True)
class CurriculumRule:
    """How the difficulty of training follows the returns (`metarl.envs.curriculum`)."""

    group: str
    """Parameter whose values climb apart from each other: the kind of ground."""
    difficulty: str
    """Parameter that climbs."""
    promote_at: float
    """Mean return of an episode from which on a group goes up a level."""
    demote_at: float
    """Mean return of an episode below which it goes down a level."""
    levels: int = 10
    name: Callable[[float], str] = "{:g}".format
    """A group's name in the metrics."""

    def __post_init__(self) -> None:
        if self.levels < 1 or not self.demote_at <= self.promote_at:
            raise ValueError(
                f"a curriculum needs at least 1 level and demote_at <= promote_at, got {self.levels} levels, "
                f"demote_at {self.demote_at:g}, promote_at {self.promote_at:g}"
            )


@dataclass(frozen=True)
class TaskFamily:
    """A distribution of tasks on one robot."""

    name: str
    description: str
    base: Callable[..., mujoco.MjSpec]
    """A new specification of the neutral robot; takes the values of the `layout` parameters by name."""
    parameters: tuple[Parameter, ...]
    observe: StateFunction
    """[S, obs] observation."""
    observation_names: tuple[str, ...]
    """Name and unit of each observation element."""
    rewards: Mapping[str, RewardTerm]
    """Terms by name; the reward is their weighted sum."""
    reset: Callable[[mujoco.MjModel, np.random.Generator, int], tuple[Array, Array]]
    """(model, generator, N) -> qpos [N, nq], qvel [N, nv] at the start of N episodes."""
    action_low: Array
    """[act] lower clipping bound of the applied action."""
    action_high: Array
    """[act] upper clipping bound of the applied action."""
    horizon: int
    """Control steps an episode."""
    frame_skip: int
    """Simulation steps a control step."""
    control: Signals
    """[act] control signals that the applied action becomes; a model with fewer motors takes the first of them."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped."""
    initial: Mapping[str, Array] = field(default_factory=dict)
    """MjData fields, besides qpos and qvel, that an episode starts with: activations that hold the start, for one."""
    terminate: StateFunction | None = None
    """[S] bool, True where the episode ends for good; None: never."""
    truncate: StateFunction | None = None
    """[S] bool, True where the episode is cut short of its horizon, at the end of the ground for one; None: never."""
    actuate: Callable[[State], None] | None = None
    """What an action does besides its control signals, which are written already, before each control step."""
    layout: tuple[str, ...] = ()
    """Parameters that decide the model's layout (how many bodies, joints, motors); tasks of one share a batch."""
    changes: Changes | None = None
    """How tasks change while they last; None: they do not."""
    measures: Mapping[str, Measure] = field(default_factory=dict)
    """What an evaluation reports besides the return, by name."""
    success: tuple[Criterion, ...] = ()
    """What an episode must keep to, all of it; empty: the family does not say what a success is."""
    edit: Callable[[mujoco.MjSpec, Mapping[str, float]], None] | None = None
    """(specification, values): the edit that parameters of a `joint` law decide together; None: there is none."""
    curriculum: CurriculumRule | None = None
    """How training's difficulty follows the returns where a run asks for it; None: the family does not say."""
    settle: Callable[[mujoco.MjSpec], None] | None = None
    """Last edit of a task's robot, after those of its parameters; None: none."""
    previous: tuple[str, ...] = ()
    """MjData fields that are kept from before the control step, as `state.previous`."""
    memory: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes, without the S in front, of what is remembered over an episode, by name: `State.memory`."""
    begin: Callable[[State, Array], None] | None = None
    """(state, chosen [S] bool) -> None; fills the memory of those whose episode starts, before observation."""
    update: Callable[[State], None] | None = None
    """Brings the memory up to date after each control step, before rewards, termination and observation."""
    noisy: bool = False
    """Whether `State.keys` are drawn, one number an episode from the task's generator, after the start."""
    visual: Callable[[], mujoco.MjSpec] | None = None
    """The neutral robot with what only decorates it, for pictures; None: `base` has it all."""
    decorate: Callable[[mujoco.MjSpec, Mapping[str, float]], None] | None = None
    """(specification, values): adds to a picture what only the reward knows of the task, a goal for one."""
    settings: Any = field(default=None, compare=False)
    """The settings that the family was made from."""

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"family {self.name!r}: horizon must be at least 1 step, got {self.horizon}")
        if self.frame_skip < 1:
            raise ValueError(f"family {self.name!r}: frame_skip must be at least 1, got {self.frame_skip}")
        if not self.action_scale > 0:
            raise ValueError(f"family {self.name!r}: action_scale must be greater than 0, got {self.action_scale}")
        if len(self.control.names) != self.action_size:
            raise ValueError(
                f"family {self.name!r}: {self.action_size} actions, but control signals of {len(self.control.names)} "
                f"motors: {', '.join(self.control.names)}"
            )
        for criterion in self.success:
            if criterion.measure not in self.measures:
                raise ValueError(f"family {self.name!r}: success asks for {criterion.measure!r}, which is not measured")
        changing = self.changes.parameters if self.changes else ()
        self._require_names(changing)
        for name in changing:
            if name in self.layout:
                raise ValueError(f"family {self.name!r}: {name} decides the model's layout, it cannot change in a task")

    @property
    def observation_size(self) -> int:
        return len(self.observation_names)

    @property
    def action_size(self) -> int:
        return len(self.action_low)

    def applied(self, action: Array) -> Array:
        """[..., act] what the env applies of a policy's action: scaled, then clipped."""
        low, high = like(self.action_low, action), like(self.action_high, action)
        return namespace(action).clip(action * self.action_scale, low, high)

    def command(self, action: Array) -> Array:
        """[..., act] MuJoCo's control signals of a policy's action."""
        return self.control.of(self.applied(action))

    @property
    def dt(self) -> float:
        """Control step, s."""
        return self.frame_skip * self.base(**self.layout_of(self.neutral())).option.timestep

    @property
    def measure_units(self) -> dict[str, str]:
        """Unit of everything that an evaluation measures, by name; `success` is 1 or 0."""
        units = {name: measure.unit for name, measure in self.measures.items()}
        return {"success": "1", **units} if self.success else units

    def success_text(self) -> str:
        """What a success is, in words; empty if the family does not say."""

        def words(c: Criterion) -> str:
            unit = self.measures[c.measure].unit
            unit = "" if unit == "1" else f" {unit}"
            name = c.measure.replace("_", " ")
            if c.low == -math.inf:
                return f"{name} at most {c.high:g}{unit}" if c.high else f"no {name}"
            return f"{name} at least {c.low:g}{unit}" + (f" and at most {c.high:g}" if c.high < math.inf else "")

        return ", ".join(map(words, self.success))

    @property
    def disjoint_splits(self) -> bool:
        """False for a family of finitely many tasks, which are trained on and evaluated on alike."""
        return any(p.disjoint for p in self.parameters)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that tasks can be drawn from: `ood` only where a parameter says what lies outside."""
        return SPLITS if any(p.ood is not None for p in self.parameters) else SPLITS[:2]

    def sample(self, num_tasks: int, rng: np.random.Generator, split: Split = "train") -> list[Task]:
        """Draw tasks of a split from a generator; ValueError if the family lacks it."""
        self.require_split(split)
        return [self._draw(rng, split) for _ in range(num_tasks)]

    def _draw(self, rng: np.random.Generator, split: Split) -> Task:
        values = {p.name: p.check(p.sample(rng, split)) for p in self.parameters}
        changes, step = [], 0
        if self.changes:
            changing = [p for p in self.parameters if p.name in self.changes.parameters]
            for _ in range(self.changes.count):
                step += int(rng.integers(*self.changes.gap, endpoint=True))
                changes.append(Change(step, {p.name: p.check(p.sample(rng, split)) for p in changing}))
        return Task(self.name, values, tuple(changes))

    def require_split(self, split: str) -> None:
        """ValueError, with what to do, unless tasks can be drawn from the split."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
        if split not in self.splits:
            raise ValueError(
                f"family {self.name!r} has no split {split!r}, as none of its parameters says what lies outside of "
                f"training; choose {' or '.join(self.splits)}, or give a parameter an `ood` distribution"
            )

    def task(self, values: Mapping[str, float]) -> Task:
        """A task from values by name, neutral where none is named; ValueError if a name or value is wrong."""
        self._require_names(values)
        return Task(self.name, {p.name: p.check(values.get(p.name, p.neutral)) for p in self.parameters})

    def _require_names(self, wanted: Iterable[str]) -> None:
        names = [p.name for p in self.parameters]
        for name in wanted:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(
                    f"family {self.name!r} has no parameter {name!r}; {hint}its parameters are {', '.join(names)}"
                )

    def own(self, task: Task) -> Task:
        """The task, complete and checked; ValueError if it is another family's, or a name or value is wrong."""
        if task.family != self.name:
            raise ValueError(f"the task {dict(task.values)} is of family {task.family!r}, not of {self.name!r}")
        changes = sorted(task.changes, key=lambda change: change.step)
        if changes and changes[0].step < 1:
            raise ValueError(f"a change of a task comes after 1 step at the earliest, got step {changes[0].step}")
        owned = [Change(c.step, {k: self.task(c.values).values[k] for k in c.values}) for c in changes]
        for name in (name for change in owned for name in change.values if name in self.layout):
            raise ValueError(f"family {self.name!r}: {name} decides the model's layout, it cannot change in a task")
        return Task(self.name, self.task(task.values).values, tuple(owned))

    def stages(self, task: Task) -> list[Task]:
        """The task at its start and after each change, without changes of their own."""
        stages = [Task(self.name, task.values)]
        for change in task.changes:
            stages.append(Task(self.name, {**stages[-1].values, **change.values}))
        return stages

    def layout_of(self, task: Task) -> dict[str, float]:
        """The values that decide the layout of the task's model, by name."""
        return {name: task.values[name] for name in self.layout}

    def neutral(self) -> Task:
        """The task at which the family is its base model."""
        return self.task({})

    @property
    def edits_model(self) -> bool:
        """False if all tasks share one model and differ in the reward only."""
        return self.edit is not None or any(p.law.edit is not None for p in self.parameters)

    def spec(self, task: Task) -> mujoco.MjSpec:
        """What the task starts with: the base, edited by the law of each parameter."""
        own = self.own(task)
        return self._edited(self.base(**self.layout_of(own)), own.values)

    def _edited(self, spec: mujoco.MjSpec, values: Mapping[str, float]) -> mujoco.MjSpec:
        for parameter in self.parameters:
            if parameter.law.edit is not None:
                parameter.law.edit(spec, values[parameter.name])
        if self.edit is not None:
            self.edit(spec, values)
        if self.settle is not None:
            self.settle(spec)
        return spec

    def compile(self, task: Task) -> mujoco.MjModel:
        """The model that the task starts with, every derived constant made by MuJoCo's compiler."""
        with mujoco_log.silent():
            return self.spec(task).compile()

    def picture(self, task: Task) -> mujoco.MjSpec:
        """The specification of a picture of the task: `spec`, decorated. Its qpos means what the model's does."""
        spec = self.spec(task) if self.visual is None else self._edited(self.visual(), self.own(task).values)
        if self.decorate is not None:
            self.decorate(spec, self.own(task).values)
        return spec


def read_spec(path: str) -> mujoco.MjSpec:
    """An MJCF file without textures and materials: they are 96 % of a task's memory and 90 % of its compilation."""
    spec = mujoco.MjSpec.from_file(path)
    for geom in (spec.default.geom, *spec.geoms):
        geom.material = ""
    for element in (*spec.materials, *spec.textures):
        spec.delete(element)
    return spec


def compile_quietly(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """The compiled specification, without MuJoCo's warning of a `settotalmass` that its author gave it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "compiler attribute 'settotalmass'")
        return spec.compile()


def compile_neutral(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """Compile a robot that no task has edited yet, and clear `settotalmass`, by which its masses are scaled here.

    The compiler would scale every edited robot back to that mass. It scales before it derives dampings from ratios, so
    that scaling the compiled model is not the same.
    """
    model = compile_quietly(spec)
    spec.compiler.settotalmass = -1
    return model


def load_spec(path: str) -> mujoco.MjSpec:
    """An MJCF file as a specification whose masses and inertias are set body by body.

    `settotalmass` would scale every edited robot back to its neutral mass, and `inertiafromgeom` would overwrite
    inertias set by hand: the neutral values are compiled once, written into the bodies, and both are cleared.
    """
    spec = read_spec(path)
    neutral = compile_neutral(spec)
    spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_FALSE
    for body in spec.bodies[1:]:
        compiled = neutral.body(body.id)
        body.explicitinertial = True
        body.mass = compiled.mass[0]
        body.ipos = compiled.ipos
        body.iquat = compiled.iquat
        body.inertia = compiled.inertia
    return spec
