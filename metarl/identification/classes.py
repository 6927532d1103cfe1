"""Classes of tasks: the values of a parameter, or of several together, that are to be told apart."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metarl.envs.family import TaskFamily
from metarl.envs.faults.where import KIND, PLACE, SEVERITY
from metarl.envs.parameters import Parameter, Split
from metarl.envs.task import Task
from metarl.errors import UsageError, nearest
from metarl.patterns import matched
from metarl.wording import typed_minus

TRIES = 500
"""Draws of a task before a class counts as impossible."""
LEAST = 2
"""Classes that training, calibration and judgement each need."""
MOST_CLASSES = 1000
IDLE = (
    (KIND, "none", (PLACE, SEVERITY)),
    ("terrain_kind", "flat", ("terrain_difficulty",)),
)
"""A parameter, the name of its category in which others mean nothing, and these others."""
DIGITS = 12
"""Most significant digits of the ends of a class in its label."""


@dataclass(frozen=True)
class TaskClass:
    """Tasks that share what is to be identified."""

    label: str
    values: Mapping[str, float]
    """Value of each category by parameter."""
    shares: Mapping[str, tuple[float, float]]
    """Part of the distribution of each quantity, as two quantiles, by parameter."""


@dataclass(frozen=True)
class Uses:
    """What each class is used for, as indices of a list of classes."""

    training: list[int]
    """The encoder learns to tell them apart."""
    calibration: list[int]
    """Probabilities and the answer "none of these" are fitted on them; the encoder never meets them."""
    judged: list[int]
    """Neither training nor calibration meets them."""


def classes_of(family: TaskFamily, by: Sequence[str], bins: int) -> list[TaskClass]:
    """Return the classes that parameters of a family make, each that the family can have. UsageError if there are few.

    A task without a fault has neither place nor severity of one, and flat ground no difficulty: they are one class.
    """
    if twice := [name for name in by if list(by).count(name) > 1]:
        raise UsageError(f"--by has {twice[0]!r} twice; name each parameter once")
    if changing := sorted(_changing(family) & set(by)):
        remedy = {"changes": "0", "fault_onset": "0 0", "fault_duration": "0 0", "fault_repeats": "0"}
        given = ((name, value, getattr(family.settings, name, 0)) for name, value in remedy.items())
        words = " ".join(f"--family.{name.replace('_', '-')} {value}" for name, value, own in given if np.any(own))
        raise UsageError(
            f"{' and '.join(changing)} of a task of {family.name} may change while it lasts, so an episode is of "
            "several classes; " + (f"give {words}" if words else _declared_remedy(family))
        )
    options = [_options(_parameter(family, name), bins) for name in by]
    if np.prod([len(own) for own in options]) > MOST_CLASSES:
        raise UsageError(f"--by {','.join(by)} makes more than {MOST_CLASSES} classes; name fewer parameters or --bins")
    found: dict[str, TaskClass] = {}
    for parts in itertools.product(*options):
        idle = _idle(family, {name: v for part in parts for name, v in part.values.items()})
        own = _together([part for part in parts if not idle & {*part.values, *part.shares}])
        if own.label not in found and _possible(family, own):
            found[own.label] = own
    return list(found.values())


def _changing(family: TaskFamily) -> set[str]:
    """Return the parameters of a family that change while a task lasts; a fault that begins or ends changes its own."""
    changes = set(family.changes.parameters) if family.changes else set()
    return changes | ({KIND, PLACE, SEVERITY} if family.faults is not None and family.faults.timed else set())


def _together(parts: Sequence[TaskClass]) -> TaskClass:
    """Return the class of tasks that are of all of these."""
    values = {name: v for part in parts for name, v in part.values.items()}
    shares = {name: v for part in parts for name, v in part.shares.items()}
    return TaskClass(" ".join(part.label for part in parts), values, shares)


def _idle(family: TaskFamily, values: Mapping[str, float]) -> set[str]:
    """Return the parameters that mean nothing to tasks with these values of categories."""
    named = {p.name: p.names for p in family.parameters if p.names}
    return {
        other
        for name, category, others in IDLE
        if name in values and name in named and named[name][round(values[name])] == category
        for other in others
    }


def _declared_remedy(family: TaskFamily) -> str:
    """Return what to do about tasks that change as the file of one's own robot says."""
    remedies = ["leave out `changes`"] if family.changes is not None else []
    if family.faults is not None and family.faults.timed:
        remedies.append("let its faults last from the start on (`onset: [0, 0]`, no `duration`, no `repeats`)")
    return f"in its file, {' and '.join(remedies)}"


def _parameter(family: TaskFamily, name: str) -> Parameter:
    known = {p.name: p for p in family.parameters if not p.nuisance}
    if name not in known:
        hint = nearest(name, known) if known else ""
        raise UsageError(f"--by is {name!r}, which is no parameter of {family.name} with these settings{hint}")
    return known[name]


def _options(parameter: Parameter, bins: int) -> list[TaskClass]:
    """Return the classes that one parameter makes."""
    name = parameter.name
    if parameter.continuous:
        ends = np.linspace(0.0, 1.0, bins + 1)
        quantile = parameter.distribution.quantile
        edges = [quantile(min(float(u), 1.0 - 1e-12)) for u in ends]
        labels = _ranges(parameter, edges)
        return [
            TaskClass(f"{name.replace('_', ' ')} {label}", {}, {name: (float(u), float(v))})
            for label, u, v in zip(labels, ends[:-1], ends[1:], strict=True)
        ]
    values = parameter.categories_of()
    if name == PLACE:
        values = tuple(value for value in values if value)  # a class without a fault is one of its kind
    if len(values) < 2:
        raise UsageError(f"--by is {name!r}, which has a single value here; give the family a range, or more kinds")
    named = parameter.names or ()
    words = [named[round(value)] if named else f"{name.replace('_', ' ')} {parameter.words(value)}" for value in values]
    return [TaskClass(label, {name: value}, {}) for label, value in zip(words, values, strict=True)]


def _ranges(parameter: Parameter, edges: Sequence[float]) -> list[str]:
    """Return the range between each two edges in words, with as many digits as tell them apart."""
    texts: list[str] = []
    for digits in range(3, DIGITS + 1):
        texts = [parameter.words(edge, digits) for edge in edges]
        if len(set(texts)) == len(texts):
            break
    return [f"{a} to {b}" for a, b in itertools.pairwise(texts)]


def _possible(family: TaskFamily, own: TaskClass) -> bool:
    """Return whether the family has tasks of the class: a part of a robot cannot have every kind of fault."""
    try:
        draw_tasks(family, own, 1, np.random.default_rng(0))
    except UsageError:
        return False
    return True


def draw_tasks(family: TaskFamily, own: TaskClass, count: int, rng: np.random.Generator) -> list[Task]:
    """Draw tasks of a class; UsageError if the family has none.

    All else is drawn as for training tasks, or as for held-out ones if training tasks lack a kind of fault.
    """
    return [_draw_task(family, own, rng) for _ in range(count)]


def _draw_task(family: TaskFamily, own: TaskClass, rng: np.random.Generator) -> Task:
    quantiles = {p.name: p.distribution.quantile for p in family.parameters if p.name in own.shares}
    reason, split = "", _split_with_faults(family)
    for _ in range(TRIES):
        drawn = dict(family.sample(1, rng, split)[0].values)
        values = drawn | dict(own.values)
        values |= {name: quantiles[name](float(rng.uniform(*share))) for name, share in own.shares.items()}
        if _idle(family, values) & {*own.values, *own.shares}:
            continue  # a place needs a fault, and so does a severity
        if values.get(KIND) == 0.0:
            neutral = next(p.neutral for p in family.parameters if p.name == SEVERITY)
            values |= {PLACE: 0.0, SEVERITY: neutral}
        elif drawn.get(KIND) == 0.0:
            continue  # its severity was not drawn
        try:
            return family.task(values)
        except ValueError as error:
            reason = str(error)
    raise UsageError(f"{family.name} has no task of the class {own.label!r}: {reason or 'none was drawn'}")


def _split_with_faults(family: TaskFamily) -> Split:
    """Return the split whose tasks have every kind of fault: that of training, unless it lacks one."""
    lacks = any(p.name == KIND and p.categories != p.categories_of() for p in family.parameters)
    return "held_out" if lacks else "train"


def uses_of(classes: Sequence[TaskClass], hold_out: Sequence[str], rng: np.random.Generator) -> Uses:
    """Divide the classes: those held out are judged; a quarter of the others calibrates, and the rest is trained on.

    hold_out: labels or regular expressions; empty: a third, drawn from the generator. UsageError if there are too few,
    and for a pattern that fits none.
    """
    labels, total = [own.label for own in classes], len(classes)
    if total < 3 * LEAST:
        raise UsageError(
            f"there are {total} classes ({', '.join(labels)[:200]}); training, calibration and judgement need "
            f"{LEAST} each: name a second parameter with --by, or raise --bins"
        )
    apart = {label for pattern in hold_out for label in _held_out(pattern, labels)}
    judged = [i for i, label in enumerate(labels) if label in apart]
    judged = judged or sorted(int(i) for i in rng.permutation(total)[: max(LEAST, total // 3)])
    left = [i for i in range(total) if i not in judged]
    if len(judged) < LEAST or len(left) < 2 * LEAST:
        raise UsageError(
            f"--hold-out leaves {len(judged)} classes to judge and {len(left)} others; it must be at least {LEAST} "
            f"and {2 * LEAST}"
        )
    mixed = [left[i] for i in rng.permutation(len(left))]
    count = max(LEAST, min(len(left) // 4, 8))
    return Uses(sorted(mixed[count:]), sorted(mixed[:count]), judged)


def _held_out(pattern: str, labels: Sequence[str]) -> list[str]:
    """Return the classes that a label or a regular expression stands for; UsageError if there are none."""
    try:
        found = matched(pattern, labels, "--hold-out:")
        typed = matched(pattern, map(typed_minus, labels), "--hold-out:")
    except ValueError as error:
        raise UsageError(str(error)) from None
    found = [label for label in labels if label in found or typed_minus(label) in typed]
    if not found:
        raise UsageError(f"--hold-out is {pattern!r}, which is none of the classes{nearest(pattern, labels)}")
    return found
