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
    move_parts(link, pivot, factor)
    for geom in link.geoms:
        if geom.type in LONG and not np.isfinite(geom.fromto[0]):
            geom.size[1] *= factor


def scale_body(body: mujoco.MjsBody, pivot: Array, factor: float) -> None:
    """Multiply all lengths of a body and its distances to what it carries, from its pivot, [3] m, at its density.

    Inertias that are given follow: masses with the cube, moments with the fifth power. Meshes are not scaled.
    """
    move_parts(body, pivot, factor)
    for part in (*body.joints, *body.cameras, *body.lights):
        part.pos = moved(part, part.pos, pivot, factor)
    for part in (*body.geoms, *body.sites):
        part.size = np.array(part.size) * factor
    for geom in body.geoms:
        geom.mass *= factor**3
    body.ipos = factor * np.array(body.ipos) + (1 - factor) * pivot
    body.mass *= factor**3
    body.inertia = np.array(body.inertia) * factor**5
    body.fullinertia = np.array(body.fullinertia) * factor**5


def move_parts(body: mujoco.MjsBody, pivot: Array, factor: float) -> None:
    """Multiply the distances of a body's geoms, sites and carried bodies from its pivot, [3] m."""
    for part in (*body.geoms, *body.sites):
        if np.isfinite(part.fromto[0]):
            part.fromto = moved(part, np.array(part.fromto).reshape(2, 3), pivot, factor).ravel()
        else:
            part.pos = moved(part, part.pos, pivot, factor)
    for part in (*body.bodies, *body.frames):
        part.pos = moved(part, part.pos, pivot, factor)


def moved(part: Any, place: Array, pivot: Array, factor: float) -> Array:
    """Return a place of a body's part, [..., 3] m, at `factor` times its distance from the pivot.

    A part within a frame of the body moves with the frame, too.
    """
    return np.array(place) * factor + ((1 - factor) * pivot if part.frame is None else 0.0)
