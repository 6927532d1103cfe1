"""Families whose tasks are met in a mirror, too: a trial on one side teaches the other.

Nothing is told: where each joint, action, parameter and element of an observation goes in a mirror is found from the
robot's geometry and by simulating it, and a robot or task without a mirror image is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from metarl.envs.family import TaskFamily
from metarl.envs.mirror.images import FEWEST, TASKS, require
from metarl.envs.mirror.pairs import NOTHING, Pairs, play, stages, visited
from metarl.envs.mirror.symmetry import IDENTITY, Asymmetric, Symmetry, made
from metarl.envs.parameters import Parameter
from metarl.envs.reflection import STEPS, Mirror, Reflection
from metarl.envs.reveal import TOLD, privileged, shown
from metarl.envs.task import Task
from metarl.envs.terms import ObservationTerm

COMPARED = 10**6
"""About so many observed numbers are compared."""
LIMIT_SEEN = 0.1
"""Most that an element of what is observed may differ by from its image, as a share of its mean deviation."""


def closed(family: TaskFamily, symmetry: Symmetry) -> TaskFamily:
    """Return the family whose training categories, as learners read them, include their mirror images."""

    def with_images(p: Parameter) -> Parameter:
        images = symmetry.categories.get(p.name, {})
        added = {images[value] for value in p.categories if value in images} - set(p.categories)
        return dataclasses.replace(p, mirrored=tuple(sorted(added)))

    return dataclasses.replace(family, parameters=tuple(map(with_images, family.parameters)))


def mirrored(family: TaskFamily, symmetry: Symmetry) -> TaskFamily:
    """Return a family, `closed` before, whose tasks may be met in a mirror (`Task.mirrored`); Asymmetric if they have
    no image.

    Its observations and privileged values are those that the mirror image of the simulated robot has, and its actions
    are those of the image, so that a trial is to the agent one of the mirrored task.
    """
    tasks, terms = _of_every_category(family), family.observation.values()
    images, steps = [(task, symmetry.task(task)) for task in tasks], max(STEPS, *(term.history + 1 for term in terms))
    pairs = play(family, symmetry, visited(family), images, symmetry.drawn, steps)
    apart = Pairs(*(values[:STEPS] for values in pairs)).differences(symmetry)
    require(family, tasks, apart)
    parameters, known = _told(family, symmetry), privileged(family)
    observation, still = _reflection(family.observation, pairs.observations, parameters)
    told, still_told = _reflection(known, pairs.privileged, parameters)
    _require_errors(family, symmetry, observation)
    unmet = [p.name for p in family.parameters if set(p.mirrored).intersection(p.categories_of(("held_out", "ood")))]
    return dataclasses.replace(
        family,
        mirror=Mirror(
            *apart.mean(0).tolist(),
            never_varied=still + still_told,
            unmet=tuple(unmet),
            actions=symmetry.actions,
            observation=observation,
            privileged=told,
            told=parameters,
        ),
    )


def _require_errors(family: TaskFamily, symmetry: Symmetry, observation: Reflection) -> None:
    """Raise Asymmetric if a fault of a sensor is of the other sign in the mirror, and its task is not.

    A comparison of tasks need not have met it, and does not see how an error grows.
    """
    if family.faults is None:
        return
    names = [element.name for term in family.observation.values() for element in term.elements]
    sign = symmetry.images.get(family.faults.severity.name, IDENTITY)[1]
    for element, kind in family.faults.errors.items():
        if observation.signs[element] != sign:
            raise Asymmetric(
                f"{names[element]}, which is observed, is of the other sign in the mirror, and so is the fault {kind} "
                "there, which no task of the family has; leave that fault out, or training.mirror"
            )


def _of_every_category(family: TaskFamily) -> list[Task]:
    """Draw a few tasks, and further ones with categories that these lack."""
    tasks, missing = [], {(p.name, value) for p in family.parameters for value in p.categories_of()}
    for i, task in enumerate(stages(family, TASKS + 1)):
        if i < FEWEST or missing & task.values.items():
            tasks.append(task)
            missing -= task.values.items()
    return tasks


def _told(family: TaskFamily, symmetry: Symmetry) -> Reflection:
    """Return where each number that encodes a parameter is found in the mirror."""
    encoded = shown(family.parameters)
    sizes = [max(1, len(p.categories_of())) for p in encoded]
    first = dict(zip((p.name for p in encoded), np.cumsum([0, *sizes]).tolist(), strict=False))
    places, signs = [], []
    for p in encoded:
        values, images = list(p.categories_of()), symmetry.categories.get(p.name, {})
        places += [first[p.name] + values.index(images.get(value, value)) for value in values]
        signs += [1.0] * len(values)
        if not values:
            places.append(first[symmetry.partners.get(p.name, p.name)])
            signs.append(symmetry.images.get(p.name, IDENTITY)[1])
    return made(places, signs)


def _reflection(
    terms: Mapping[str, ObservationTerm], pairs: np.ndarray, parameters: Reflection
) -> tuple[Reflection, tuple[str, ...]]:
    """Return where each element of the terms is found in the mirror, and the names of those that never varied, which
    stay as they are; Asymmetric if an element is not found.

    pairs: values [T, pairs, 2, starts, n]. parameters: of the encoded parameters, which these terms may have.
    """
    owner = [name for name, term in terms.items() for _ in term.elements]
    names = [element.name for term in terms.values() for element in term.elements]
    encoded = np.array([name in (TOLD, f"privileged {TOLD}") for name in owner], dtype=bool)
    places, signs = np.arange(len(names)), np.ones(len(names))
    if encoded.any():
        begin = int(encoded.argmax())
        places[encoded], signs[encoded] = begin + parameters.places, parameters.signs
    others = np.flatnonzero(~encoded)
    if not len(others):
        return made(places, signs), ()
    found = _fit(pairs[..., others], [names[i] for i in others])
    places[others], signs[others] = others[found.places], found.signs
    still = np.ptp(pairs[..., others], axis=(0, 1, 2, 3)) == 0
    return made(places, signs), tuple(names[i] for i in others[still])


def _fit(pairs: np.ndarray, names: Sequence[str]) -> Reflection:
    """Return where each element is found in the mirror; elements i and j are images of each other: both must fit."""
    thinned = pairs.shape[0] * pairs.shape[1] * pairs.shape[3] * len(names) // COMPARED + 1
    own, image = np.moveaxis(pairs, 2, 0).astype(np.float64)  # [T, pairs, starts, n] each
    few, there = (values.reshape(-1, len(names))[::thinned] for values in (own, image))
    fits, spread = np.full((2, len(names), len(names)), np.inf), np.abs(there - there.mean(0)).mean(0)
    sizes, least = np.abs(few).mean(0), np.abs(there).mean(0)
    for i in range(len(names)):  # the size of a difference is at least the difference of the sizes
        able = np.flatnonzero(np.abs(sizes - least[i]) <= spread[i] + NOTHING)
        for k, sign in enumerate((1.0, -1.0)):
            fits[k, i, able] = np.abs(sign * few[:, able] - there[:, i : i + 1]).mean(0)
    fits += fits.transpose(0, 2, 1)
    places, signs = [], []
    for i, name in enumerate(names):
        order = np.r_[i, np.delete(np.arange(len(names)), i)]
        apart = fits[:, i, order].T.ravel()
        best = int((apart <= apart.min() + NOTHING).argmax())  # the first of equals
        place, sign = int(order[best // 2]), 1.0 - 2 * (best % 2)
        differs = np.median(np.abs(sign * own[..., place] - image[..., i]).mean(0), axis=1).max()
        if not np.isfinite(apart[best]) or differs > LIMIT_SEEN * spread[i] + NOTHING:
            raise Asymmetric(f"{name}, which is observed, has no mirror image among what is observed")
        places.append(place)
        signs.append(sign)
    return made(places, signs)
