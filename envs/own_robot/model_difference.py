"""Whether two compiled models are one robot: what a copy of a robot is held against."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from metarl.envs.arrays import Array

PLACES = ("paths", "mesh_pathadr", "hfield_pathadr", "tex_pathadr", "skin_pathadr", "npaths", "nbuffer", "signature")
"""Where a model's files are, which a copy changes."""
UNSTABLE = (
    "mesh_",
    "bvh_",
    "oct_",
    "stat.",
    "geom_aabb",
    "body_iquat",
    "body_sameframe",
    "geom_sameframe",
    "body_simple",
)
"""What turns with principal axes, which a rounding may swap: compared as inertias and vertices in the body's axes."""
DERIVED = ("invweight0", "M0", "dof_length", "acc0", "length0", "lengthrange", "rbound")
"""What follows from the rest, and may be ill-conditioned."""
SIZES = {
    mujoco.mjtGeom.mjGEOM_PLANE: 3,
    mujoco.mjtGeom.mjGEOM_SPHERE: 1,
    mujoco.mjtGeom.mjGEOM_CAPSULE: 2,
    mujoco.mjtGeom.mjGEOM_CYLINDER: 2,
    mujoco.mjtGeom.mjGEOM_ELLIPSOID: 3,
    mujoco.mjtGeom.mjGEOM_BOX: 3,
}
"""How many numbers make the size of a shape; the rest is left over from defaults."""
OWNERS = {"body": "body", "jnt": "joint", "geom": "geom", "site": "site", "actuator": "actuator", "key": "key"}
"""What the rows of an array are of, by the array's prefix."""


def difference(model: mujoco.MjModel, other: mujoco.MjModel, tolerance: float = 0.0) -> str | None:
    """The first thing that differs, in words; None if nothing does.

    tolerance: relative; 0 asks for equal bits of every array.
    """
    if model.names != other.names:
        return "names of its elements differ"
    theirs = dict(_arrays(other, exact=not tolerance))
    for name, ours in _arrays(model, exact=not tolerance):
        there = theirs[name]
        if ours.shape != there.shape:
            return f"{name} has the shape {list(there.shape)} and not {list(ours.shape)}"
        apart = _apart(ours, there, tolerance)
        if apart.any():
            row = int(np.argwhere(apart)[0][0])
            return f"{name}{_owner(model, name, row)} is {_shown(there, row)} and not {_shown(ours, row)}"
    return None


def _arrays(model: mujoco.MjModel, exact: bool) -> Iterator[tuple[str, Array]]:
    """Every array of a model by name, [rows, ...]."""
    for prefix, part in (("", model), ("opt.", model.opt), ("stat.", model.stat)):
        for name in dir(part):
            if name.startswith("_") or name in PLACES:
                continue
            value = getattr(part, name)
            if not isinstance(value, np.ndarray | int | float):
                continue
            named, value = f"{prefix}{name}", np.atleast_1d(value)
            if exact:
                yield named, value
            elif not named.startswith(UNSTABLE) and not named.endswith(DERIVED):
                if named == "geom_quat":
                    value = value[model.geom_type != mujoco.mjtGeom.mjGEOM_MESH]
                elif named in ("geom_size", "site_size"):
                    used = [SIZES.get(kind, 0) for kind in getattr(model, named.replace("size", "type"))]
                    value = value * (np.arange(3) < np.reshape(used, (-1, 1)))
                elif named == "body_inertia":
                    named, value = "body_inertia in the body's axes", _inertias(model)
                yield named, value
    if not exact:
        for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_MESH):
            yield f"vertices of geom {geom}, {model.geom(geom).name!r},", _vertices(model, int(geom))


def _inertias(model: mujoco.MjModel) -> Array:
    """[nbody, 3, 3] about the centres of mass, in the bodies' axes."""
    turns = np.array([_matrix(quat) for quat in model.body_iquat])
    return np.einsum("bij,bj,bkj->bik", turns, model.body_inertia, turns)


def _vertices(model: mujoco.MjModel, geom: int) -> Array:
    """[n, 3] of a mesh geom, in its body's axes."""
    mesh = model.mesh(model.geom_dataid[geom])
    first = int(mesh.vertadr[0])
    return (
        model.mesh_vert[first : first + int(mesh.vertnum[0])] @ _matrix(model.geom_quat[geom]).T + model.geom_pos[geom]
    )


def _matrix(quat: Array) -> Array:
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, quat)
    return turn.reshape(3, 3)


def _apart(ours: Array, theirs: Array, tolerance: float) -> Array:
    """[rows, ...] where they are not the same."""
    if not tolerance or ours.dtype.kind not in "f" or not ours.size:
        return ~((ours == theirs) | ((ours != ours) & (theirs != theirs)))
    largest = float(np.max(np.abs(ours), initial=0.0, where=np.isfinite(ours)))
    return ~np.isclose(ours, theirs, rtol=tolerance, atol=0.1 * tolerance * largest, equal_nan=True)


def _owner(model: mujoco.MjModel, name: str, row: int) -> str:
    kind = OWNERS.get(name.partition("_")[0])
    return f" of {kind} {getattr(model, kind)(row).name!r}" if kind and name != "geom_quat" else ""


def _shown(values: Array, row: int) -> str:
    """A row in a few words."""
    flat = np.atleast_1d(values[row]).ravel()
    return ", ".join(f"{x:.6g}" for x in flat[:4].tolist()) + (", ..." if len(flat) > 4 else "")
