"""Where a family's tasks and commands go in a mirror, by simulating what may be their images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from metarl.envs.family import TaskFamily
from metarl.envs.mirror.pairs import NOTHING, Visited, commands_at_start, play, stages, visited
from metarl.envs.mirror.symmetry import CLOSE, IDENTITY, Asymmetric, Symmetry, by_geometry
from metarl.envs.parameters import Parameter
from metarl.envs.reflection import STEPS
from metarl.envs.task import Task

LIMITS = (0.1, 0.2)
"""Most that motion and reward of a task and its mirror image may differ by, as shares of how far the robot moves and of
how much the reward varies: a built robot is not quite its own mirror image."""
CLEARLY = 1.5
"""An image is taken for the better one if others differ by so many times as much."""
TASKS, FEWEST = 64, 8
"""Most and fewest tasks whose mirror image is looked for; more than the fewest where a category's is not known yet. One
that no other clearly explains better stays what it is."""
FAR = 0.9
"""Quantile of a quantity that is varied alone."""
COMBINATIONS = 512
"""Most candidates for the mirror image of one task."""
NEGATIVE = (0.0, -1.0)

Candidate = tuple[Task, dict[str, np.ndarray]]
"""A task that may be another's mirror image, and signs of the memory at its start, by name."""


def symmetry_of(family: TaskFamily) -> Symmetry:
    """Find the mirror images of a family's joints, actions, parameters and commands; Asymmetric if they have none."""
    states = visited(family).some()
    symmetry, starting = by_geometry(family), commands_at_start(family)
    _pair_up(family, symmetry, states, starting)
    neutral = {p.name: p.neutral for p in family.parameters if p.categories_of()}
    missing = {(p.name, value) for p in family.parameters for value in p.categories_of()}
    for i, task in enumerate(stages(family, TASKS)):
        if i < FEWEST and neutral:  # directions are found without a fault, say, before the places of faults
            plain = Task(task.family, {**task.values, **neutral})
            _look(family, symmetry, states, plain, list(_candidates(family, symmetry, plain, starting, neutral)))
        if i < FEWEST or missing & task.values.items():
            candidates = list(itertools.islice(_candidates(family, symmetry, task, starting), COMBINATIONS + 1))
            if len(candidates) > COMBINATIONS:
                raise Asymmetric(
                    f"family {family.name!r} varies too much to find the mirror image of a task: more than "
                    f"{COMBINATIONS} candidates; vary fewer parameters that have two directions"
                )
            require(family, [task], _look(family, symmetry, states, task, candidates)[None])
        missing -= {(name, value) for name, known in symmetry.categories.items() for value in known}
    _require_known(family, symmetry, starting)
    return symmetry


def _require_known(family: TaskFamily, symmetry: Symmetry, starting: Mapping[str, np.ndarray]) -> None:
    """Raise Asymmetric if the image of a quantity of two directions, or of a command, is not known."""
    quantities = (p.name for p in family.parameters if not p.categories_of() and len(_images(p)) > 1)
    unknown = [name for name in quantities if name not in symmetry.images]
    unknown += [f"the {name}" for name, varies in starting.items() if varies.any() and name not in symmetry.drawn]
    if unknown:
        raise Asymmetric(
            f"what {', '.join(unknown[:3])}{', ...' if len(unknown) > 3 else ''} becomes in a mirror is not known: it "
            f"makes no clear difference to motion and reward within {STEPS} control steps of random actions"
        )


def _pair_up(family: TaskFamily, symmetry: Symmetry, states: Visited, starting: Mapping[str, np.ndarray]) -> None:
    """Find quantities that change places in a mirror, from tasks that are neutral but for one of them."""
    quantities, neutral = [p for p in family.parameters if not p.categories_of()], family.neutral()

    def only(p: Parameter, value: float) -> Task:
        return Task(family.name, {**neutral.values, p.name: value})

    for p in quantities:
        free = [q for q in quantities if q.name not in symmetry.partners]
        alike = [q for q in free if (q.unit, q.distribution) == (p.unit, p.distribution)]
        if p not in free or len(alike) == 1:
            continue
        value = p.distribution.quantile(FAR)
        candidates = [(q, only(q, a + sign * value)) for q in alike for a, sign in _images(q)]
        drawn = {name: np.ones(len(varies)) for name, varies in starting.items()}
        apart = play(family, symmetry, states, [(only(p, value), image) for _, image in candidates], drawn)
        motion = apart.differences(symmetry)[:, 0]  # what is rewarded depends on a command, whose image is not known
        best, other = motion.argmin(), candidates[int(motion.argmin())][0]
        rest = min((d for d, (q, _) in zip(motion, candidates, strict=True) if q is not other), default=np.inf)
        if other is not p and motion[best] <= LIMITS[0] and rest + NOTHING > CLEARLY * (motion[best] + NOTHING):
            symmetry.partners.update({p.name: other.name, other.name: p.name})


def _look(
    family: TaskFamily, symmetry: Symmetry, states: Visited, task: Task, candidates: Sequence[Candidate]
) -> np.ndarray:
    """Learn from a task which candidate is its mirror image, if any is; returns by how much the best differs, [2]."""
    drawn = {name: np.array([signs[name] for _, signs in candidates]) for name in candidates[0][1]}
    apart = play(family, symmetry, states, [(task, image) for image, _ in candidates], drawn).differences(symmetry)
    best = apart[_score(apart).argmin()]
    if (best <= LIMITS).all():
        _learn(family, symmetry, task, candidates, _score(apart))
    return best


def _score(apart: np.ndarray) -> np.ndarray:
    """Return one number, lower for a better image, from the differences [candidates, 2]."""
    return np.log(apart + NOTHING).sum(1)


def require(family: TaskFamily, tasks: Sequence[Task], apart: np.ndarray) -> None:
    """Raise Asymmetric if a task and its mirror image differ by too much; apart: as by `differences`, [tasks, 2]."""
    worst = (apart / LIMITS).max(1)
    if worst.max() > 1:
        place = int(worst.argmax())
        values = ", ".join(f"{name} {value:.4g}" for name, value in tasks[place].values.items())
        motion, reward = apart[place]
        raise Asymmetric(
            f"family {family.name!r} has no mirror image on the x-z plane: no task moves and earns as that of the one "
            f"with {values or 'no parameters'}; the nearest one's motion differs by {motion:.0%}, and its reward by "
            f"{reward:.0%} of their variation"
        )


def _learn(
    family: TaskFamily,
    symmetry: Symmetry,
    task: Task,
    candidates: Sequence[Candidate],
    score: np.ndarray,
) -> None:
    """Keep what the best image of a task has, where images that differ in it are clearly worse; score: [candidates]."""
    best, enough = int(score.argmin()), score.min() + math.log(CLEARLY)
    image, drawn = candidates[best]
    for p in family.parameters:
        value, there = task.values[symmetry.partners.get(p.name, p.name)], image.values[p.name]
        others = [d for d, (other, _) in zip(score, candidates, strict=True) if other.values[p.name] != there]
        if p.categories_of() and others and min(others) > enough:
            symmetry.categories.setdefault(p.name, {}).update({value: there, there: value})
        elif others and min(others) > enough:
            symmetry.images[p.name] = next(i for i in _images(p) if i[0] + i[1] * value == there)
    for name, signs in drawn.items():
        others = [d for d, (_, other) in zip(score, candidates, strict=True) if (other[name] != signs).any()]
        if min(others, default=np.inf) > enough:
            symmetry.drawn[name] = signs


def _images(p: Parameter) -> list[tuple[float, float]]:
    """Return what the mirror image of a quantity may be, as `Symmetry.images` has it."""
    low, high = p.distribution.low, p.distribution.high
    turns = p.unit == "rad" and abs(high - low - 2 * math.pi) < CLOSE
    two_sided = low < 0 < high and abs(low + high) < CLOSE * (high - low)
    return [IDENTITY, *([NEGATIVE] if two_sided else []), *([(low + high, -1.0)] if turns and low + high else [])]


def _candidates(
    family: TaskFamily, symmetry: Symmetry, task: Task, starting: Mapping[str, np.ndarray], kept: Collection[str] = ()
) -> Iterator[Candidate]:
    """Yield what may be a task's mirror image; kept: parameters whose value stays."""

    def images(p: Parameter) -> tuple[float, ...]:
        value = task.values[symmetry.partners.get(p.name, p.name)]
        if p.name in kept:
            return (value,)
        if p.categories_of():
            known = symmetry.categories.get(p.name, {})
            others = [c for c in p.categories_of() if c not in known and c != value]
            return (known[value],) if value in known else (value, *others)
        known = symmetry.images.get(p.name)
        return tuple(dict.fromkeys(a + sign * value for a, sign in ([known] if known else _images(p))))

    def signs(name: str, varies: np.ndarray) -> list[tuple[float, ...]]:
        known = symmetry.drawn.get(name)
        return list(itertools.product(*((1.0, -1.0)[: 1 + v] for v in varies))) if known is None else [tuple(known)]

    names = [p.name for p in family.parameters]
    of_memory = [signs(name, varies) for name, varies in starting.items()]
    for chosen in itertools.product(*map(images, family.parameters)):
        image = Task(task.family, dict(zip(names, chosen, strict=True)))
        for own in itertools.product(*of_memory):
            yield image, dict(zip(starting, map(np.array, own), strict=True))
