"""Comparison of two compiled models, by which a copy of a robot is checked."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from metarl.envs.arrays import Array

PLACES = ("paths", "mesh_pathadr", "hfield_pathadr", "tex_pathadr", "skin_pathadr", "npaths", "nbuffer", "signature")
"""Arrays of the paths of files, which a copy changes."""
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
"""Arrays that depend on principal axes, which rounding may swap: inertias and vertices are compared instead."""
DERIVED = ("invweight0", "M0", "dof_length", "acc0", "length0", "lengthrange", "rbound")
"""Arrays that follow from the others and may be ill-conditioned."""
SIZES = {
    mujoco.mjtGeom.mjGEOM_PLANE: 3,
    mujoco.mjtGeom.mjGEOM_SPHERE: 1,
    mujoco.mjtGeom.mjGEOM_CAPSULE: 2,
    mujoco.mjtGeom.mjGEOM_CYLINDER: 2,
    mujoco.mjtGeom.mjGEOM_ELLIPSOID: 3,
    mujoco.mjtGeom.mjGEOM_BOX: 3,
}
"""Number of sizes of each shape; the rest come from defaults and mean nothing."""
OWNERS = {"body": "body", "jnt": "joint", "geom": "geom", "site": "site", "actuator": "actuator", "key": "key"}
"""Kind of element of an array's rows, by the array's prefix."""


def difference(model: mujoco.MjModel, other: mujoco.MjModel, tolerance: float = 0.0) -> str | None:
    """Describe the first difference in words; None if there is none.

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
    """Yield every array of a model by name, [rows, ...]."""
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
    """Return inertias about the centres of mass in the bodies' axes, [nbody, 3, 3]."""
    turns = np.array([_matrix(quat) for quat in model.body_iquat])
    return np.einsum("bij,bj,bkj->bik", turns, model.body_inertia, turns)


def _vertices(model: mujoco.MjModel, geom: int) -> Array:
    """Return the vertices of a mesh geom in its body's axes, [n, 3]."""
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
    """Return where two arrays differ, [rows, ...] bool."""
    if not tolerance or ours.dtype.kind not in "f" or not ours.size:
        return ~((ours == theirs) | ((ours != ours) & (theirs != theirs)))
    largest = float(np.max(np.abs(ours), initial=0.0, where=np.isfinite(ours)))
    return ~np.isclose(ours, theirs, rtol=tolerance, atol=0.1 * tolerance * largest, equal_nan=True)


def _owner(model: mujoco.MjModel, name: str, row: int) -> str:
    kind = OWNERS.get(name.partition("_")[0])
    return f" of {kind} {getattr(model, kind)(row).name!r}" if kind and name != "geom_quat" else ""


def _shown(values: Array, row: int) -> str:
    """Describe a row briefly."""
    flat = np.atleast_1d(values[row]).ravel()
    return ", ".join(f"{x:.6g}" for x in flat[:4].tolist()) + (", ..." if len(flat) > 4 else "")
