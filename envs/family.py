"""Task families as data: a base model, parameters, observation and reward terms, episode."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import mujoco
import numpy as np

from metarl.envs import mujoco_log, terms
from metarl.envs.arrays import Array, like, namespace
from metarl.envs.control import Signals
from metarl.envs.parameters import SPLITS, Parameter, Split
from metarl.envs.reflection import Mirror
from metarl.envs.simulation import Simulator
from metarl.envs.state import State, StateFunction
from metarl.envs.task import Change, Changes, CurriculumRule, Task
from metarl.envs.terms import FALLS, Criterion, Element, Measure, ObservationTerm, RewardTerm
from metarl.envs.text import near


class FaultModel(Protocol):
    """Faults that the family's tasks may have, as their parameters say."""

    @property
    def timed(self) -> bool:
        """Whether faults begin or end while a task lasts."""
        ...

    @property
    def onset(self) -> tuple[int, int]:
        """Fewest and most control steps of a trial before a fault begins."""
        ...

    @property
    def words(self) -> tuple[str, ...]:
        """Lines that say which faults there are, what they do, where and when."""
        ...

    @property
    def idle(self) -> frozenset[str]:
        """Names of the parameters without effect on any task."""
        ...

    @property
    def errors(self) -> Mapping[int, str]:
        """Names of faults that add an error of the severity's sign to an element of the observation, by element."""
        ...

    @property
    def severity(self) -> Parameter:
        """Parameter of the severity."""
        ...

    def with_parameters(self, parameters: Sequence[Parameter]) -> FaultModel:
        """Return the faults as drawn from those of the parameters that are theirs."""
        ...

    def typical(self) -> Mapping[str, float]:
        """Return the values of a fault that training tasks may have, or held-out ones if no training task has any."""
        ...

    def complete(self, task: Task, rng: np.random.Generator, split: Split) -> Task:
        """Return a drawn task of the split with the place and the time of its fault."""
        ...

    def shown(self, task: Task) -> Mapping[str, float]:
        """Return a task's values with those of its first fault, even if that begins later."""
        ...

    def check(self, values: Mapping[str, float]) -> None:
        """Raise ValueError if a task's values name no fault."""
        ...

    def said(self, values: Mapping[str, float]) -> tuple[str, frozenset[str]]:
        """Return the fault of a task's values in words, and the names of the parameters that it is of."""
        ...

    def mark(self, spec: mujoco.MjSpec, values: Mapping[str, float]) -> None:
        """Colour what fails by a task's values, for a picture."""
        ...

    def misread(self, seen: State, observation: Array) -> None:
        """Write what faulty sensors report to an observation, [S, obs]; seen: the state by `TaskFamily.seen`."""
        ...


@dataclass(frozen=True)
class TaskFamily:
    """A distribution of tasks on one robot."""

    name: str
    """Name of the family."""
    description: str
    """The task in a line of text."""
    base: Callable[..., mujoco.MjSpec]
    """Return a new specification of the neutral robot; takes the values of the `layout` parameters by name."""
    parameters: tuple[Parameter, ...]
    """Quantities that tasks differ in."""
    observation: Mapping[str, ObservationTerm]
    """Terms by name; the observation is their values one after another."""
    rewards: Mapping[str, RewardTerm]
    """Terms by name; the reward is their weighted sum."""
    reset: Callable[[mujoco.MjModel, np.random.Generator, int], tuple[Array, ...]]
    """(model, generator, N) -> the fields `starts`, [N, ...] each, at the start of N episodes."""
    action_low: Array
    """Lower clipping bound of the applied action, [act]."""
    action_high: Array
    """Upper clipping bound of the applied action, [act]."""
    horizon: int
    """Control steps per episode."""
    frame_skip: int
    """Simulation steps per control step."""
    control: Signals
    """Control signals that the applied action becomes, [act]; a model with fewer motors takes the first of them."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped."""
    privileged: Mapping[str, ObservationTerm] = field(default_factory=dict)
    """Terms by name that only a simulator knows, besides the parameters: a teacher is trained with their values."""
    surroundings: Mapping[str, ObservationTerm] = field(default_factory=dict)
    """Terms by name of what is around the robot, as the ground ahead of it: an oracle observes them, and a teacher is
    trained with them, unless the observation has them."""
    starts: tuple[str, ...] = ("qpos", "qvel")
    """Fields of the simulations that are drawn at the start of an episode."""
    simulator: Simulator | None = None
    """What simulates it, whatever else there is; None: any simulator of MuJoCo models."""
    initial: Mapping[str, Array] = field(default_factory=dict)
    """MjData fields, besides qpos and qvel, that an episode starts with, such as activations that hold the start."""
    view: Callable[[State], State] | None = None
    """Return the state that terms, measures, `terminate` and `truncate` are functions of; None: the state itself."""
    noise_factor: str | float = 0.0
    """Number, or parameter, that the noise of the observation's terms is multiplied by; 0: there is no noise."""
    terminate: StateFunction | None = None
    """Return True where the episode ends for good, [S] bool; None: nowhere."""
    truncate: StateFunction | None = None
    """Return True where the episode is cut before its horizon, [S] bool, as at the end of the ground; None: nowhere."""
    actuate: Callable[[State], None] | None = None
    """Apply effects of the action besides its control signals, which are written already."""
    held: Callable[[mujoco.MjModel], Mapping[str, Array]] | None = None
    """Return `initial` for a model whose activations or histories of signals have other sizes; None: it stays."""
    drive: StateFunction | None = None
    """Return the control signals, [S, nu], before each simulation step, as a model of the actuators that MuJoCo lacks
    does; None: those of the action, all control step long."""
    layout: tuple[str, ...] = ()
    """Parameters that decide the model's layout (how many bodies, joints, motors); tasks of a layout share a batch."""
    changes: Changes | None = None
    """How tasks change while they last, besides by faults; None: they do not."""
    faults: FaultModel | None = None
    """Faults that tasks may have (`metarl.envs.faults`); None: there are none."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Joints that can fail together, by the name of the group, as those of a leg."""
    encoders: Mapping[str, str] = field(default_factory=dict)
    """Element of the observation that shows a joint's position, by the joint's name, where the names differ."""
    measures: Mapping[str, Measure] = field(default_factory=dict)
    """Quantities that an evaluation reports besides the return, by name."""
    success: tuple[Criterion, ...] = ()
    """Criteria that a successful episode meets, all of them; empty: success is not defined."""
    edit: Callable[[mujoco.MjSpec, Mapping[str, float]], None] | None = None
    """(specification, values): the edit that parameters of a `joint` law decide together; None: there is none."""
    curriculum: CurriculumRule | None = None
    """How the difficulty of training follows the returns where a run asks for it; None: there is no curriculum."""
    settle: Callable[[mujoco.MjSpec], None] | None = None
    """Last edit of a task's robot, after those of its parameters; None: there is none."""
    previous: tuple[str, ...] = ()
    """MjData fields whose values before the control step are kept, as `state.previous`."""
    memory: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes, without the leading S, of arrays that last an episode, by name: `State.memory`."""
    begin: Callable[[State, Array], None] | None = None
    """(state, chosen [S] bool): fills the memory where an episode starts, before the first observation."""
    update: Callable[[State], None] | None = None
    """Update the memory after each control step, before rewards, termination and observation."""
    noisy: bool = False
    """Whether `State.keys` are drawn, one number per episode from the task's generator, after the start."""
    visual: Callable[[], mujoco.MjSpec] | None = None
    """Return the neutral robot with decorations, for pictures; None: `base` has them all."""
    named: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Tasks by name, such as published robots, as the parameters that they set; with any, split `ood` is these in turn,
    and its other parameters are drawn as for held-out tasks."""
    decorate: Callable[[mujoco.MjSpec, Mapping[str, float]], None] | None = None
    """(specification, values): adds to a picture the parts of the task that only the reward depends on, as a goal."""
    mirror: Mirror | None = None
    """What the robot is told and tells in a mirror (`metarl.envs.mirror.mirrored`); None: no task is met in one."""
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
        if self.noise_factor:
            self._require_names((self.noise_factor,) if isinstance(self.noise_factor, str) else ())
            if not self.noisy:
                raise ValueError(f"family {self.name!r}: observations with noise need noisy=True")
        for criterion in self.success:
            if criterion.measure not in self.measures:
                raise ValueError(f"family {self.name!r}: success asks for {criterion.measure!r}, which is not measured")
        names = [p.name for p in self.parameters]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"family {self.name!r}: two parameters have the name {twice[0]!r}; give each its own")
        changing = self.changes.parameters if self.changes else ()
        self._require_names((*changing, *(parameter for values in self.named.values() for parameter in values)))
        for name in changing:
            if name in self.layout:
                raise ValueError(f"family {self.name!r}: {name} decides the model's layout, it cannot change in a task")

    @property
    def elements(self) -> tuple[Element, ...]:
        """Name and unit of each element of the observation."""
        return tuple(element for term in self.observation.values() for element in term.elements)

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Each element of the observation as text, `name [unit]`."""
        return tuple(map(str, self.elements))

    @property
    def observation_size(self) -> int:
        """Number of elements of the observation."""
        return len(self.elements)

    @property
    def action_size(self) -> int:
        """Number of elements of the action."""
        return len(self.action_low)

    def seen(self, state: State) -> State:
        """Return the state that observations, rewards, measures and ends of episodes are computed from."""
        return state if self.view is None else self.view(state)

    @property
    def can_fall(self) -> bool:
        """Whether episodes end by a fall, and not, for example, at a goal."""
        return self.terminate is not None and FALLS in self.measures

    def observe(self, seen: State) -> Array:
        """Return the observation with its noise and its faults, [S, obs]; seen: the state by `seen`."""
        observation = terms.observe(self.observation, seen)
        if self.noise_factor:
            factor = seen.task[self.noise_factor] if isinstance(self.noise_factor, str) else self.noise_factor
            terms.add_noise(observation, self._deviations, factor, seen)
        if self.faults is not None:
            self.faults.misread(seen, observation)
        if self._scales_and_bounds is not None:
            scales, bounds = (like(values, observation) for values in self._scales_and_bounds)
            observation *= scales
            observation = seen.xp.minimum(seen.xp.maximum(observation, -bounds), bounds)
        return observation

    @property
    def observation_bounds(self) -> np.ndarray | None:
        """Largest absolute value of each element of the observation, [obs]; None if none has any."""
        bounds = None if self._scales_and_bounds is None else self._scales_and_bounds[1]
        return bounds if bounds is not None and np.isfinite(bounds).any() else None

    def clipped(self, observation: np.ndarray) -> np.ndarray:
        """Return an observation [..., obs] that a robot sensed, clipped as the env clips what the policy reads."""
        bounds = self.observation_bounds
        if bounds is None:
            return observation
        own = bounds.astype(observation.dtype)
        return np.clip(observation, -own, own)

    @functools.cached_property
    def _scales_and_bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        return terms.scales_and_bounds(self.observation)

    @functools.cached_property
    def _deviations(self) -> np.ndarray:
        return terms.deviations(self.observation)

    def applied(self, action: Array) -> Array:
        """Scale and clip a policy's action, [..., act]."""
        xp, low, high = namespace(action), like(self.action_low, action), like(self.action_high, action)
        return xp.minimum(xp.maximum(action * self.action_scale, low), high)  # less overhead than clip

    def command(self, action: Array) -> Array:
        """Return MuJoCo's control signals for a policy's action, [..., act]."""
        return self.control.of(self.applied(action))

    @property
    def dt(self) -> float:
        """Control step, s."""
        return self.frame_skip * self.base(**self.layout_of(self.neutral())).option.timestep

    def seconds(self, model: mujoco.MjModel) -> float:
        """Return the control step of a task's model, s."""
        return self.frame_skip * model.opt.timestep

    @property
    def measure_units(self) -> dict[str, str]:
        """Unit of each quantity that an evaluation measures, by name; `success` is 1 or 0."""
        units = {name: measure.unit for name, measure in self.measures.items()}
        return {"success": "1", **units} if self.success else units

    def success_text(self) -> str:
        """Describe a success in words; empty if the family does not define it."""

        def words(c: Criterion) -> str:
            unit = self.measures[c.measure].unit
            unit = "" if unit == "1" else f" {unit}"
            name = c.measure.replace("_", " ")
            if c.low == -math.inf:
                return f"{name} at most {c.high:g}{unit}" if c.high else f"no {name}"
            return f"{name} at least {c.low:g}{unit}" + (f" and at most {c.high:g}" if c.high < math.inf else "")

        return ", ".join(map(words, self.success))

    @property
    def changing(self) -> bool:
        """Whether tasks change while they last."""
        return self.changes is not None or (self.faults is not None and self.faults.timed)

    @property
    def onsets(self) -> dict[str, tuple[int, int]]:
        """Fewest and most control steps of a trial before a fault begins and a task first changes, by what it is."""
        changes = {"change": self.changes.gap} if self.changes else {}
        return changes | ({"fault": self.faults.onset} if self.faults else {})

    @property
    def disjoint_splits(self) -> bool:
        """Whether training and held-out tasks differ; not so in a family of a few tasks that both draw from."""
        idle = self.faults.idle if self.faults else ()
        return any(p.disjoint for p in self.parameters if p.name not in idle)

    @property
    def splits(self) -> tuple[Split, ...]:
        """Splits that tasks can be drawn from; `ood` is one if a parameter has values outside of training."""
        return SPLITS if self.named or any(p.ood is not None for p in self.parameters) else SPLITS[:2]

    def sample(self, num_tasks: int, rng: np.random.Generator, split: Split = "train") -> list[Task]:
        """Draw tasks of a split from a generator; ValueError if the family lacks it."""
        self.require_split(split)
        named = list(self.named.values()) if split == "ood" and self.named else [{}]
        return [self._draw(rng, split, named[i % len(named)]) for i in range(num_tasks)]

    def _draw(self, rng: np.random.Generator, split: Split, named: Mapping[str, float]) -> Task:
        values = {p.name: p.check(p.sample(rng, split)) for p in self.parameters} | dict(named)
        changes, step = [], 0
        if self.changes:
            changing = [p for p in self.parameters if p.name in self.changes.parameters]
            for _ in range(self.changes.count):
                step += int(rng.integers(*self.changes.gap, endpoint=True))
                changes.append(Change(step, {p.name: p.check(p.sample(rng, split)) for p in changing}))
        task = Task(self.name, values, tuple(changes))
        return task if self.faults is None else self.faults.complete(task, rng, split)

    def require_split(self, split: str) -> None:
        """Raise ValueError unless tasks can be drawn from the split."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
        if split not in self.splits:
            raise ValueError(
                f"family {self.name!r} has no split {split!r}, as none of its parameters has values outside of "
                f"training; choose {' or '.join(self.splits)}, or give a parameter an `ood` distribution"
            )

    def task(self, values: Mapping[str, float]) -> Task:
        """Return a task with these values, and neutral ones elsewhere; ValueError if a name or value is wrong."""
        self._require_names(values)
        task = Task(self.name, {p.name: p.check(values.get(p.name, p.neutral)) for p in self.parameters})
        if self.faults is not None:
            self.faults.check(task.values)
        return task

    def task_named(self, name: str) -> Task:
        """Return a named task, neutral in what its name does not set; ValueError if there is none of the name."""
        if name not in self.named:
            raise ValueError(f"family {self.name!r} has no task named {name!r}{near(name, self.named)}")
        return self.task(self.named[name])

    def name_of(self, values: Mapping[str, float]) -> str:
        """Return the name of the task with these values; empty if they are no named task's."""
        return next((name for name, own in self.named.items() if own.items() <= values.items()), "")

    def _require_names(self, wanted: Iterable[str]) -> None:
        names = [p.name for p in self.parameters]
        for name in wanted:
            if name not in names:
                raise ValueError(f"family {self.name!r} has no parameter {name!r}{near(name, names)}")

    def own(self, task: Task) -> Task:
        """Complete and check a task; ValueError if it is another family's, or a name or value is wrong."""
        if task.family != self.name:
            raise ValueError(f"the task {dict(task.values)} is of family {task.family!r}, not of {self.name!r}")
        changes = sorted(task.changes, key=lambda change: change.step)
        if changes and changes[0].step < 1:
            raise ValueError(f"a change of a task comes after 1 step at the earliest, got step {changes[0].step}")
        owned = [Change(c.step, {k: self.task(c.values).values[k] for k in c.values}) for c in changes]
        for name in (name for change in owned for name in change.values if name in self.layout):
            raise ValueError(f"family {self.name!r}: {name} decides the model's layout, it cannot change in a task")
        return dataclasses.replace(task, values=self.task(task.values).values, changes=tuple(owned))

    def stages(self, task: Task) -> list[Task]:
        """Return the task at its start and after each change, as tasks that do not change."""
        stages = [Task(self.name, task.values)]
        for change in task.changes:
            stages.append(Task(self.name, {**stages[-1].values, **change.values}))
        return stages

    def shown(self, task: Task) -> dict[str, float]:
        """Return a task's values for records: those at its start, and its first fault's if that begins later."""
        return dict(task.values if self.faults is None else self.faults.shown(task))

    def layout_of(self, task: Task) -> dict[str, float]:
        """Return the values that decide the layout of the task's model, by name."""
        return {name: task.values[name] for name in self.layout}

    def neutral(self) -> Task:
        """Return the task whose model is the base model."""
        return self.task({})

    @property
    def edits_model(self) -> bool:
        """Whether tasks have models of their own; otherwise they differ in the reward only."""
        return self.edit is not None or any(p.law.edit is not None for p in self.parameters)

    def spec(self, task: Task) -> mujoco.MjSpec:
        """Return the specification that the task starts with: the base, edited by the law of each parameter."""
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
        """Compile the model that the task starts with."""
        with mujoco_log.silent():
            return self.spec(task).compile()

    def picture(self, task: Task) -> mujoco.MjSpec:
        """Return the specification for a picture of the task: `spec` with decorations, and the same qpos."""
        spec = self.spec(task) if self.visual is None else self._edited(self.visual(), self.own(task).values)
        if self.decorate is not None:
            self.decorate(spec, self.own(task).values)
        if self.faults is not None:
            self.faults.mark(spec, self.own(task).values)
        return spec
