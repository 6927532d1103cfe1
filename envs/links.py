"""Lengths of links: bodies made of spheres, capsules and cylinders."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from metarl.envs.arrays import Array

LONG = (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_CYLINDER)
"""Shapes with a half-length, the second number of their size."""
ROUND = (mujoco.mjtGeom.mjGEOM_SPHERE, *LONG)
"""Shapes of a link that has a length."""


def stretch_along(axis: Array, factor: float) -> Array:
    """Return the map [3, 3] that multiplies lengths along a unit vector, [3], and leaves those across."""
    return np.eye(3) + (factor - 1) * np.outer(axis, axis)


def stretched(mass: float, inertia: Array, stretch: Array) -> tuple[float, Array]:
    """Return mass and inertia, [3, 3] about the centre of mass, of a body whose material is stretched at its density.

    stretch: symmetric map A of places, [3, 3]. With the second moment S = tr(I) / 2 - I of the mass, it is
    S' = det(A) A S A^T.
    """
    moment = np.trace(inertia) / 2 * np.eye(3) - inertia
    grown = float(np.linalg.det(stretch))
    moment = grown * stretch @ moment @ stretch
    return mass * grown, np.trace(moment) * np.eye(3) - moment


def scale_link(link: mujoco.MjsBody, pivot: Array, factor: float) -> None:
    """Multiply the distances of a link's parts from its pivot, [3] m, and the lengths of its capsules and cylinders."""
    kept = (1 - factor) * pivot

    def moved(part: Any, place: Array) -> Array:
        """Scale a place; a part within a frame of the link moves with the frame, too."""
        return np.array(place) * factor + (kept if part.frame is None else 0.0)

    for geom in link.geoms:
        if np.isfinite(geom.fromto[0]):
            geom.fromto = moved(geom, np.array(geom.fromto).reshape(2, 3)).ravel()
        else:
            geom.pos = moved(geom, geom.pos)
            if geom.type in LONG:
                geom.size[1] *= factor
    for part in (*link.bodies, *link.sites, *link.frames):
        part.pos = moved(part, part.pos)
