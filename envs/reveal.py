"""What only a simulator knows, encoded for a learner: an oracle observes it, and a teacher is trained with it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from metarl.envs.arrays import Array, like, namespace
from metarl.envs.family import TaskFamily
from metarl.envs.parameters import LogUniform, Parameter, Split
from metarl.envs.state import State
from metarl.envs.task import Task
from metarl.envs.terms import Element, ObservationTerm

TOLD = "task"
"""Name of the term with the encoded parameters: the first that an oracle is told, and the first privileged one."""


def reveal(
    family: TaskFamily, trained_on: TaskFamily | None = None, splits: Sequence[Split] = ("train",)
) -> TaskFamily:
    """Return the family with its encoded parameters and surroundings at the end of the observation; its tasks are the
    same.

    The values of a task that changes are the current ones. trained_on: family whose ranges and categories the encoding
    is of, as an oracle reads it; None: the family itself. splits: whose tasks the oracle meets in training.
    """
    known = {} if trained_on is None else {p.name: p for p in trained_on.parameters}
    as_trained = tuple(known.get(p.name, p) for p in family.parameters)
    added = {**_told_term(as_trained, splits, family.parameters), **family.surroundings}
    return dataclasses.replace(family, observation={**family.observation, **added})


def privileged(family: TaskFamily) -> Mapping[str, ObservationTerm]:
    """Return what only a simulator knows, as terms by name: the encoded parameters, the family's own terms, and what is
    around the robot."""
    return {**_told_term(family.parameters, ("train",)), **family.privileged, **family.surroundings}


def informed(family: TaskFamily) -> TaskFamily:
    """Return the family with its privileged values at the end of the observation; its tasks are the same."""
    added = {f"privileged {name}": term for name, term in privileged(family).items()}
    return dataclasses.replace(family, observation={**family.observation, **added})


def privileged_names(family: TaskFamily) -> tuple[str, ...]:
    """Return the name of each privileged value, in order."""
    return tuple(element.name for term in privileged(family).values() for element in term.elements)


def told(family: TaskFamily, tasks: Sequence[Task]) -> Array:
    """Return the encoded parameters of each task as it begins, in the mirror if it is met there, [M, P] float32."""
    values = {p.name: np.array([task.values[p.name] for task in tasks], dtype=np.float64) for p in family.parameters}
    columns = [encode(p, values[p.name]) for p in shown(family.parameters)]
    values = np.concatenate([np.zeros((len(tasks), 0)), *columns], axis=1).astype(np.float32)
    met_in_mirror = np.array([task.mirrored for task in tasks], dtype=bool)
    return family.mirror.told.where(met_in_mirror, values) if family.mirror else values


def told_as(family: TaskFamily) -> dict[str, str]:
    """Return what each value that `reveal` adds is, in words, by the value's name: first those of the parameters."""
    words = {}
    for parameter in shown(family.parameters):
        name, drawn = parameter.name, parameter.distribution
        if parameter.categories:
            texts = [f"1 if {name} is {category:g}, else 0" for category in parameter.categories_of()]
        else:
            scale = "in the logarithm" if isinstance(drawn, LogUniform) else "linearly"
            unit = "" if parameter.unit == "1" else f" {parameter.unit}"
            texts = [f"{name}, {drawn.low:g} to {drawn.high:g}{unit} mapped {scale} to -1 to 1"]
        words |= dict(zip([element.name for element in _elements(parameter)], texts, strict=True))
    around = [element for term in family.surroundings.values() for element in term.elements]
    return words | {element.name: f"what is around the robot, {element.unit}" for element in around}


def told_columns(family: TaskFamily) -> dict[str, list[int]]:
    """Return the places in the observation of what `reveal` added for each parameter; nothing where it added none."""
    if TOLD not in family.observation:
        return {}
    names = list(family.observation)
    before = names[: names.index(TOLD)]
    place, places = sum(len(family.observation[name].elements) for name in before), {}
    for parameter in shown(family.parameters):
        size = len(_elements(parameter))
        places[parameter.name] = list(range(place, place + size))
        place += size
    return places


def shown(parameters: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
    """Return the parameters that are encoded: all but those that say nothing about what to do."""
    return tuple(p for p in parameters if not p.nuisance)


def encode(
    parameter: Parameter, values: Array, splits: Sequence[Split] = ("train",), own: Parameter | None = None
) -> Array:
    """Return values [S] as a learner reads them, [S, size].

    own: parameter that the values are of, if it is not the one that the learner was trained with: another family may
    number the same categories otherwise. None: the same.

    A category is one-hot over those of all splits, but all zeros if no task of `splits` has it: a learner that never
    meets it has learnt nothing of its place. The training range of a quantity becomes [-1, 1], by its logarithm if
    that is uniform; values outside of it lie beyond.
    """
    xp, drawn = namespace(values), parameter.distribution
    if parameter.categories:
        met = parameter.categories_of(splits)
        shown = tuple(
            _value_in(own or parameter, parameter, c) if c in met else math.nan for c in parameter.categories_of()
        )
        return xp.astype(values[:, None] == like(_categories(shown), values), values.dtype)
    low, high = drawn.low, drawn.high
    if isinstance(drawn, LogUniform):
        low, high, values = np.log(low), np.log(high), xp.log(xp.clip(values, np.finfo(np.float32).tiny, None))
    return (2.0 * (values - low) / (high - low) - 1.0)[:, None]


def _value_in(own: Parameter, parameter: Parameter, category: float) -> float:
    """Return the value that stands in `own` for a category of a parameter; NaN if none does."""
    if own is parameter or not parameter.names:
        return category
    name = parameter.names[int(category)]
    return float(own.names.index(name)) if name in own.names else math.nan


@functools.cache
def _categories(values: tuple[float, ...]) -> np.ndarray:
    """Return categories as an array that lasts, as `like` needs it."""
    return np.array(values)


def _told_term(
    parameters: tuple[Parameter, ...], splits: Sequence[Split], own: tuple[Parameter, ...] | None = None
) -> dict[str, ObservationTerm]:
    """Return the term of the encoded parameters by its name; nothing if there are none.

    own: the family's own parameters, one for each, if the encoding is that of another family; None: the same.
    """
    pairs = [(p, q) for p, q in zip(parameters, own or parameters, strict=True) if not p.nuisance]
    elements = tuple(element for p, _ in pairs for element in _elements(p))

    def function(state: State) -> Array:
        return state.xp.concat([encode(p, state.task[p.name], splits, q) for p, q in pairs], axis=1)

    return {TOLD: ObservationTerm(function, elements)} if elements else {}


def _elements(parameter: Parameter) -> tuple[Element, ...]:
    """Return the name of each number that encodes a parameter."""
    names = [f"task_{parameter.name}"]
    if parameter.categories:
        labels = [parameter.names[int(c)] if parameter.names else f"{c:g}" for c in parameter.categories_of()]
        names = [f"task_{parameter.name}={label}" for label in labels]
    return tuple(Element(name, "1") for name in names)
