"""Families whose tasks are met in a mirror, too: a trial on one side teaches the other.

Nothing is told: where each joint, action, parameter and element of an observation goes in a mirror is found from the
robot's geometry and by simulating it, and a robot or task without a mirror image is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from metarl.envs.family import TaskFamily
from metarl.envs.mirror.images import FEWEST, require
from metarl.envs.mirror.pairs import NOTHING, play, stages, visited
from metarl.envs.mirror.symmetry import Asymmetric, Symmetry, made
from metarl.envs.parameters import Parameter
from metarl.envs.reflection import Mirror, Reflection
from metarl.envs.reveal import privileged_names, told

COMPARED = 10**6
"""About so many observed numbers are compared."""
LIMIT_SEEN = 0.5
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
    tasks = list(stages(family, FEWEST + 1))
    pairs = play(family, symmetry, visited(family), [(task, symmetry.task(task)) for task in tasks], symmetry.drawn)
    apart = pairs.differences(symmetry)
    require(family, tasks, apart)
    names, count = privileged_names(family), told(family, tasks).shape[1]
    return dataclasses.replace(
        family,
        mirror=Mirror(
            *apart.mean(0).tolist(),
            actions=symmetry.actions,
            observation=_reflection(pairs.observations, family.observation_names),
            privileged=_reflection(pairs.privileged, names),
            told=_reflection(pairs.privileged[..., :count], names[:count]),
        ),
    )


def _reflection(pairs: np.ndarray, names: Sequence[str]) -> Reflection:
    """Return where each element is found in the mirror, from values [T, pairs, 2, starts, n]; Asymmetric if one is not.

    Elements i and j are images of each other, so both must fit.
    """
    thinned = pairs.shape[0] * pairs.shape[1] * pairs.shape[3] * len(names) // COMPARED + 1
    sides = (np.moveaxis(pairs, 2, 0)[side].reshape(-1, len(names)) for side in (0, 1))
    own, image = (values[::thinned].astype(np.float64) for values in sides)
    fits, spread = np.full((2, len(names), len(names)), np.inf), np.abs(image - image.mean(0)).mean(0)
    sizes, least = np.abs(own).mean(0), np.abs(image).mean(0)
    for i in range(len(names)):  # the size of a difference is at least the difference of the sizes
        able = np.flatnonzero(np.abs(sizes - least[i]) <= 2 * (LIMIT_SEEN * spread[i] + NOTHING))
        for k, sign in enumerate((1.0, -1.0)):
            fits[k, i, able] = np.abs(sign * own[:, able] - image[:, i : i + 1]).mean(0)
    fits += fits.transpose(0, 2, 1)
    places, signs = [], []
    for i, name in enumerate(names):
        order = np.r_[i, np.delete(np.arange(len(names)), i)]
        apart = fits[:, i, order].T.ravel()
        best = int((apart <= apart.min() + NOTHING).argmax())  # the first of equals
        if apart[best] > 2 * (LIMIT_SEEN * spread[i] + NOTHING):
            raise Asymmetric(f"{name}, which is observed, has no mirror image among what is observed")
        places.append(int(order[best // 2]))
        signs.append(1.0 - 2 * (best % 2))
    return made(places, signs)
