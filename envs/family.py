"""Task families as data: a base model, parameters, observation, reward terms, episode."""

from __future__ import annotations

import difflib
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np

from metarl.envs.parameters import SPLITS, Parameter, Split

Array = np.ndarray


@dataclass(frozen=True)
class Task:
    """One draw from a family: named parameter values, and nothing else."""

    family: str
    values: Mapping[str, float]

    @property
    def id(self) -> str:
        """Name that is the same whenever family and values are."""
        digest = hashlib.sha256(self.to_json().encode()).hexdigest()[:12]
        return f"{self.family}-{digest}"

    def to_json(self) -> str:
        """Canonical JSON; floats are written so that they are read back bit for bit."""
        values = {name: float(value) for name, value in self.values.items()}
        return json.dumps({"family": self.family, "values": values}, sort_keys=True, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Task:
        """The task that `to_json` wrote; ValueError if the text is no task."""
        try:
            data = json.loads(text)
            return Task(str(data["family"]), {str(k): float(v) for k, v in data["values"].items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'not a task: {text[:80]!r}; expected {{"family": NAME, "values": {{PARAMETER: NUMBER}}}}'
            ) from error


class State:
    """What observation and reward functions read: live arrays over all S = M x N simulations.

    Any MjData field is an attribute (`state.qpos` is [S, nq]). Derived fields (`state.xpos`) are those of the last
    substep's start, as after `mj_step`; they are filled from the first call after they were first asked for.
    """

    previous_qpos: Array
    """[S, nq] generalised positions before the control step."""
    action: Array
    """[S, act] the action that was applied: scaled, then clipped."""
    task: dict[str, Array]
    """[S] each parameter's value, by name."""
    dt: float
    """Control step, s."""

    def __init__(self, bind: Callable[[str], Array]):
        self._bind = bind

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_"):
            raise AttributeError(name)
        view = self._bind(name)
        setattr(self, name, view)
        return view


StateFunction = Callable[[State], Array]


def drive_controls(state: State) -> None:
    """The default law of actuation: the action is MuJoCo's control signal."""
    state.ctrl[:] = state.action


@dataclass(frozen=True)
class RewardTerm:
    """weight x function(state)."""

    function: StateFunction
    """[S] values of the term."""
    weight: float = 1.0


@dataclass(frozen=True)
class TaskFamily:
    """A distribution of tasks on one robot."""

    name: str
    description: str
    base: Callable[[], mujoco.MjSpec]
    """A new specification of the neutral robot."""
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
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped."""
    terminate: StateFunction | None = None
    """[S] bool, True where the episode ends for good; None: never."""
    actuate: Callable[[State], None] = drive_controls
    """Writes the action into the simulation."""
    visual: Callable[[], mujoco.MjSpec] | None = None
    """The neutral robot with what only decorates it, for pictures; None: `base` has it all."""
    settings: Any = field(default=None, compare=False)
    """The settings that the family was made from."""

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ValueError(f"family {self.name!r}: horizon must be at least 1 step, got {self.horizon}")
        if self.frame_skip < 1:
            raise ValueError(f"family {self.name!r}: frame_skip must be at least 1, got {self.frame_skip}")
        if not self.action_scale > 0:
            raise ValueError(f"family {self.name!r}: action_scale must be greater than 0, got {self.action_scale}")

    @property
    def observation_size(self) -> int:
        return len(self.observation_names)

    @property
    def action_size(self) -> int:
        return len(self.action_low)

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
        return [
            Task(self.name, {p.name: p.check(p.sample(rng, split)) for p in self.parameters}) for _ in range(num_tasks)
        ]

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
        names = [p.name for p in self.parameters]
        for name in values:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(
                    f"family {self.name!r} has no parameter {name!r}; {hint}its parameters are {', '.join(names)}"
                )
        return Task(self.name, {p.name: p.check(values.get(p.name, p.neutral)) for p in self.parameters})

    def own(self, task: Task) -> Task:
        """The task, complete and checked; ValueError if it is another family's, or a name or value is wrong."""
        if task.family != self.name:
            raise ValueError(f"the task {dict(task.values)} is of family {task.family!r}, not of {self.name!r}")
        return self.task(task.values)

    def neutral(self) -> Task:
        """The task at which the family is its base model."""
        return self.task({})

    @property
    def edits_model(self) -> bool:
        """False if all tasks share one model and differ in the reward only."""
        return any(p.law.edit is not None for p in self.parameters)

    def compile(self, task: Task) -> mujoco.MjModel:
        """The task's own model, with every derived constant made by MuJoCo's compiler."""
        values, spec = self.own(task).values, self.base()
        for parameter in self.parameters:
            if parameter.law.edit is not None:
                parameter.law.edit(spec, values[parameter.name])
        return spec.compile()


def load_spec(path: str) -> mujoco.MjSpec:
    """An MJCF file as a specification whose masses and inertias are set body by body.

    `settotalmass` would scale every edited robot back to its neutral mass, and `inertiafromgeom` would overwrite
    inertias set by hand: the neutral values are compiled once, written into the bodies, and both are cleared.
    """
    spec = mujoco.MjSpec.from_file(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "compiler attribute 'settotalmass'")
        neutral = spec.compile()
    spec.compiler.settotalmass = -1
    spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_FALSE
    for body in spec.bodies[1:]:
        compiled = neutral.body(body.name)
        body.explicitinertial = True
        body.mass = compiled.mass[0]
        body.ipos = compiled.ipos
        body.iquat = compiled.iquat
        body.inertia = compiled.inertia
    return spec
