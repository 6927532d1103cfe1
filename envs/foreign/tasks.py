"""What a user says of a Gymnasium environment, so that it is a family of tasks."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import gymnasium
import numpy as np

from metarl.envs.parameters import Choice, Law, LogUniform, Parameter, Split, Uniform, beyond

Reduction = Literal["mean", "sum", "last", "max"]
GIVEN = Law("given to the environment")
RESERVED = frozenset(("success", "reward", "gain", "return"))
"""Names of quantities of every family, which no measure may have."""


@dataclass(frozen=True)
class Info:
    """A number of the `info` that a step returns, by which an episode is judged besides its return."""

    key: str
    """Its key in `info`; where a step's info lacks it, it is 0."""
    unit: str = "1"
    """Its unit."""
    reduce: Reduction = "last"
    """How the steps' values become the episode's."""

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not isinstance(self.unit, str):
            raise ValueError(f"Info needs the key of a step's info, a text, and perhaps a unit; got {self!r}")
        if self.reduce not in get_args(Reduction):
            raise ValueError(f"Info({self.key!r}).reduce is {self.reduce!r}; choose mean, sum, last or max")


@dataclass(frozen=True)
class GymTasks:
    """A Gymnasium environment and its tasks, as `--env file.py:function` returns them.

    Its tasks are either draws of `parameters`, and a task is a dict of their values by name; or `tasks`, objects of any
    kind, each of which belongs to one split.
    """

    make: Callable[..., gymnasium.Env[Any, Any]]
    """Return a new environment; takes the kind of a task, if there are kinds. It is called in other processes, too."""
    parameters: tuple[Parameter, ...] = ()
    """What tasks differ in: `quantity(...)` and `category(...)`."""
    tasks: Mapping[Split, Sequence[Any]] = field(default_factory=dict)
    """Tasks by split: train, held_out and, where there are any, ood."""
    apply: Callable[[gymnasium.Env[Any, Any], Any], None] | None = None
    """(environment, task): gives a task to an environment before it is reset. None: by its method `set_task`, or, if it
    has none, by `reset(options=task)`."""
    kind: Callable[[Any], Hashable] | None = None
    """Return which environment a task needs, `make(kind)`. None: all tasks have the same one. Observations and actions
    of other sizes are padded with zeros, and the observation then says which of its elements are there."""
    horizon: int = 0
    """Steps an episode. 0: as the environment says (`spec.max_episode_steps`)."""
    dt: float = 0.0
    """Seconds a step. 0: as the environment says (`dt`, or `metadata["render_fps"]`)."""
    observe: tuple[str, ...] = ()
    """Keys of a dict of observations that an agent sees, in this order. Empty: all of them."""
    success: Info | None = None
    """A successful episode's value is at least 0.5. None: success is not defined."""
    measures: Mapping[str, Info] = field(default_factory=dict)
    """Quantities that an evaluation reports besides the return, by name."""
    action_scale: float = 1.0
    """Factor on the policy's action before it is clipped to the environment's bounds."""
    description: str = ""
    """The tasks in a line of text. Empty: the environment's name."""

    @functools.cached_property
    def listed(self) -> tuple[Any, ...]:
        """Tasks of all splits, one split after another; a task's place is its number."""
        return tuple(task for split in ("train", "held_out", "ood") for task in self.tasks.get(split, ()))

    def __post_init__(self) -> None:
        self._require_types()
        if bool(self.parameters) == bool(self.tasks):
            raise ValueError(
                "GymTasks needs either parameters=(metarl.quantity(...), ...), whose values are a task, or "
                f"tasks={{'train': [...], 'held_out': [...]}}; got {'both' if self.tasks else 'neither'}"
            )
        if self.tasks:
            wrong = [split for split in self.tasks if split not in ("train", "held_out", "ood")]
            if wrong or not self.tasks.get("train") or not self.tasks.get("held_out"):
                raise ValueError(
                    "GymTasks.tasks needs the splits train and held_out, with at least one task each, and may have "
                    f"ood; got {', '.join(f'{name}: {len(own)}' for name, own in self.tasks.items())}"
                )

    def _require_types(self) -> None:
        """Raise ValueError for a value that is not what it is to be."""
        if not isinstance(self.parameters, tuple | list) or not all(isinstance(p, Parameter) for p in self.parameters):
            raise ValueError(
                "GymTasks.parameters is to be a tuple of metarl.quantity(...) and metarl.category(...), with a comma "
                f"after the only one; got {self.parameters!r}"
            )
        if not isinstance(self.tasks, Mapping):
            raise ValueError(
                "GymTasks.tasks is to be {'train': [...], 'held_out': [...]}, the tasks by split; got a "
                f"{type(self.tasks).__name__}"
            )
        for name, info in {**self.measures, **({} if self.success is None else {"success": self.success})}.items():
            if not isinstance(info, Info):
                raise ValueError(f"GymTasks: {name} is {info!r}; write metarl.Info({info!r})")
        for name in ("make", "apply", "kind"):
            if not callable(given := getattr(self, name)) and not (given is None and name != "make"):
                raise ValueError(f"GymTasks.{name} is {given!r}; it is to be a function")
        if isinstance(self.observe, str):
            raise ValueError(f"GymTasks.observe is a text; write observe=({self.observe!r},)")
        for name, least in (("horizon", 0), ("dt", 0.0), ("action_scale", None)):
            given = getattr(self, name)
            whole = name == "horizon"
            number = isinstance(given, int | np.integer if whole else int | float | np.number)
            if not number or isinstance(given, bool) or not math.isfinite(given):
                raise ValueError(f"GymTasks.{name} is {given!r}; it is to be a {'whole' if whole else 'finite'} number")
            if given < least if least is not None else given <= 0:
                raise ValueError(
                    f"GymTasks.{name} is {given}; it must {'not be negative' if least == 0 else 'be above 0'}"
                )
        numbered = [name for name in self.measures if re.fullmatch(r"return_\d+", name)]
        if reserved := sorted({*numbered, *(RESERVED & {*self.measures})}):
            raise ValueError(
                f"GymTasks.measures has {', '.join(reserved)}, a name of metarl's own in tables and metrics; choose "
                "another name"
            )


def quantity(
    name: str,
    low: float,
    high: float,
    unit: str = "1",
    log: bool = False,
    ood: tuple[float, float] | None = None,
) -> Parameter:
    """Return a number between low and high that tasks differ in.

    log: whether its logarithm is uniform, and not itself. ood: range of tasks outside of training; None: above it, half
    as wide (for a logarithm, by its square root).
    """
    for key, given in {"low": low, "high": high}.items():
        if not isinstance(given, int | float | np.number):
            raise ValueError(f"quantity {name!r}: {key} is {given!r}; it is to be a number")
    drawn = LogUniform(low, high) if log else Uniform(low, high)
    if ood is not None:
        outside = LogUniform(*ood) if log else Uniform(*ood)
    else:
        outside = LogUniform(high, high * (high / low) ** 0.5) if log else beyond(low, high)
    return Parameter(name, unit, drawn, GIVEN, neutral=drawn.quantile(0.5), ood=outside)


def category(name: str, train: Sequence[str], held_out: Sequence[str] = (), ood: Sequence[str] = ()) -> Parameter:
    """Return a name, one of several, that tasks differ in; held_out: those of held-out tasks. Empty: the same ones."""
    names = (*train, *held_out, *ood)
    if len(set(names)) < len(names) or not train:
        raise ValueError(f"category {name!r} needs different names, at least one for training; got {list(names)}")
    places = {label: float(i) for i, label in enumerate(names)}

    def choice(labels: Sequence[str]) -> Choice | None:
        return Choice(tuple(places[label] for label in labels)) if labels else None

    drawn = choice(train)
    assert drawn is not None
    held, outside = choice(held_out), choice(ood)
    return Parameter(name, "1", drawn, GIVEN, 0.0, held_out=held, ood=outside, names=names)
