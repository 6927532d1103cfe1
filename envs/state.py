"""The state of all simulations, as observation and reward functions read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import mujoco
import numpy as np

from metarl.envs.arrays import Array

T = TypeVar("T")


class State:
    """Live arrays over all S = M x N simulations.

    They are NumPy's on the CPU and torch's on a device; `xp` has the functions for them (`metarl.envs.arrays`).

    Any MjData field is an attribute (`state.qpos` is [S, nq]). Derived fields (`state.xpos`) are those of the last
    substep's start, as after `mj_step`; they are filled from the first call after they were first asked for.
    """

    previous: dict[str, Array]
    """The fields of `TaskFamily.previous` before the control step, [S, ...] by name."""
    action: Array
    """The action that was applied, scaled and then clipped, [S, act]."""
    task: dict[str, Array]
    """Each parameter's value by name, [S]."""
    steps: Array
    """Control steps taken in the running episode, [S] int64."""
    keys: Array
    """Keys from which `metarl.envs.noise` computes an episode's randomness, [S] uint64 (on a device int64 of the same
    bits); zero unless the family is `noisy`."""
    memory: dict[str, Array]
    """The family's memory by name, [S, ...]; zero when an episode starts."""
    models: Sequence[mujoco.MjModel]
    """The tasks' own models, [K]: one for each stage of a task that changes."""
    task_index: Array
    """Place of each simulation's model in `models`, [S] int64."""
    dt: float
    """Control step, s."""

    def __init__(
        self, bind: Callable[[str], Array], xp: Any = np, array: Callable[[np.ndarray], Array] = lambda values: values
    ):
        """bind: returns a field by name. xp: functions for the fields. array: puts host values where the fields are."""
        self.xp = xp
        self._bind, self._array = bind, array
        self._kept: dict[Callable[..., Any], Any] = {}

    def take(self, models: Sequence[mujoco.MjModel]) -> None:
        """Hold new tasks' models, and compute again whatever `once` computed from the old ones."""
        self.models = models
        if self.xp is np:
            self._kept.clear()  # it is computed when it is asked for
        for make, kept in self._kept.items():
            self._kept[make] = renewed(kept, self._placed(make(models)))

    def once(self, make: Callable[[Sequence[mujoco.MjModel]], T]) -> T:
        """Return `make(models)`, computed once per set of tasks: an array, or a (named) tuple or dataclass of them."""
        if make not in self._kept:
            self._kept[make] = self._placed(make(self.models))
        return self._kept[make]

    def _placed(self, made: Any) -> Any:
        """Return arrays computed from the models, where the fields are."""
        return made if self.xp is np else _mapped(self._array, made)

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_"):
            raise AttributeError(name)
        view = self._bind(name)
        setattr(self, name, view)
        return view


StateFunction = Callable[[State], Array]


def _mapped(change: Callable[..., Any], made: Any, *others: Any) -> Any:
    """Return the same structure with `change` applied to its arrays; others: structures whose arrays it gets, too."""
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
    """Write new values into the old arrays, which a device's recording refers to; return new arrays of new shapes."""

    def renew(old: Array, new: Array) -> Array:
        if old.shape != new.shape:
            return new
        old[...] = new
        return old

    return _mapped(renew, kept, made)


def in_pose(model: mujoco.MjModel, qpos: Array) -> tuple[mujoco.MjData, State]:
    """Return the data of a model at rest in a pose, and its state as functions read it, of one simulation."""
    data = mujoco.MjData(model)
    data.qpos = qpos
    mujoco.mj_forward(model, data)
    state = State(lambda name: np.array(getattr(data, name))[None])
    state.take([model])
    state.task_index = np.zeros(1, dtype=np.int64)
    return data, state
