"""Lengths of links: bodies made of spheres, capsules and cylinders."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from metarl.envs.arrays import Array
from metarl.envs.control import ON_JOINT

LONG = (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_CYLINDER)
"""Shapes with a half-length, the second number of their size."""
ROUND = (mujoco.mjtGeom.mjGEOM_SPHERE, *LONG)
"""Shapes of a link that has a length."""
ACROSS = float(np.cos(np.pi / 3))
"""Cosine of the angle to its link from which a shape lies across it."""
SAME = 1e-9
"""Largest difference of equal lengths, m."""


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


def direction_of(model: mujoco.MjModel, link: int, pivot: Array) -> Array | None:
    """Return the unit vector, [3], from a link's pivot, [3] m, to the farthest of the bodies that it carries and its
    mass; None if none is elsewhere."""
    carried = np.flatnonzero(model.body_parentid == link)
    ends = [model.body_ipos[link], *(model.body_pos[body] for body in carried if body != link)]
    farthest = max((np.asarray(end) - pivot for end in ends), key=lambda end: float(np.linalg.norm(end)))
    length = float(np.linalg.norm(farthest))
    return farthest / length if length > 0 else None


def goes_on_in(model: mujoco.MjModel, link: int, pivot: Array) -> str:
    """Return the name of a body fixed to a link that holds the link's end and as much of its length as there is before
    it, or "".

    Such a body would move with the link's end, and keep its own length. pivot: of the link, [3] m in its frame.
    """
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    start = data.xpos[link] + data.xmat[link].reshape(3, 3) @ pivot
    rigid = {
        child: [b for b in _carried(model, child) if model.body_weldid[b] == model.body_weldid[link]]
        for child in np.flatnonzero(model.body_parentid == link).tolist()
        if child != link and model.body_weldid[child] == model.body_weldid[link]
    }
    if not rigid:
        return ""
    whole = [link, *(body for own in rigid.values() for body in own)]
    places = np.concatenate([data.geom_xpos[np.isin(model.geom_bodyid, whole)], _borne(model, data, whole)]) - start
    longest = places[np.argmax(np.linalg.norm(places, axis=1))] if len(places) else np.zeros(3)
    along = longest / max(float(np.linalg.norm(longest)), SAME)

    def end(bodies: list[int]) -> float:
        """Return how far along the link its shapes, or the bodies that it bears, reach in these bodies."""
        ends = [(place - start) @ along for place in _borne(model, data, bodies)]
        for geom in np.flatnonzero(np.isin(model.geom_bodyid, bodies)):
            turn = data.geom_xmat[geom].reshape(3, 3)
            centre = data.geom_xpos[geom] + turn @ model.geom_aabb[geom, :3]
            ends.append((centre - start) @ along + np.abs(along @ turn) @ model.geom_aabb[geom, 3:])
        return float(max(ends, default=0.0))

    own = end([link])
    for child, bodies in rigid.items():
        before, beyond = float((data.xpos[child] - start) @ along), end(bodies)
        if beyond > own + SAME and beyond - before >= before - SAME:
            return model.body(child).name
    return ""


def _borne(model: mujoco.MjModel, data: mujoco.MjData, bodies: list[int]) -> Array:
    """Return the places of the bodies that move on some, [N, 3] m."""
    on = np.isin(model.body_parentid, bodies) & ~np.isin(np.arange(model.nbody), bodies)
    on &= model.body_weldid != model.body_weldid[bodies[0]]
    return data.xpos[on]


def _carried(model: mujoco.MjModel, body: int) -> list[int]:
    """Return a body and all that it carries."""
    carried = [body]
    for each in range(body + 1, model.nbody):
        if model.body_parentid[each] in carried:
            carried.append(each)
    return carried


def stretch_given(body: mujoco.MjsBody, fixed: Array, by: Array) -> None:
    """Stretch the material of a body whose inertia is given by the map [3, 3], about a place that stays, [3] m."""
    body.mass, about = stretched(float(body.mass), _inertia_of(body), by)
    body.ipos, body.iquat = fixed + by @ (np.array(body.ipos) - fixed), (1, 0, 0, 0)
    body.inertia, body.fullinertia = np.zeros(3), about[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]


def _inertia_of(body: mujoco.MjsBody) -> Array:
    """Return the inertia that a body is given, [3, 3] kg m^2, about its centre of mass in its frame's directions."""
    if np.isfinite(body.fullinertia[0]):
        xx, yy, zz, xy, xz, yz = body.fullinertia
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, body.iquat)
    turn = turn.reshape(3, 3)
    return turn @ np.diag(body.inertia) @ turn.T


def spans(model: mujoco.MjModel) -> bool:
    """Return whether a tendon or an actuator of the model has a length between places, which sizes of parts decide."""
    return bool(model.ntendon) or not set(map(int, ON_JOINT)).issuperset(model.actuator_trntype.tolist())


def given_lengths(before: mujoco.MjModel, after: mujoco.MjModel, pose: Array) -> str:
    """Return which length of a tendon or a transmission changed that the model gives by number; empty if none did.

    before, after: of an edit of sizes. pose: at which they are compared.
    """
    (tendons, drives), (other_tendons, other_drives) = (_lengths(model, pose) for model in (before, after))
    for t in np.flatnonzero(~np.isclose(tendons, other_tendons, rtol=0, atol=SAME)).tolist():
        tied = (before.eq_type == int(mujoco.mjtEq.mjEQ_TENDON)) & ((before.eq_obj1id == t) | (before.eq_obj2id == t))
        if before.tendon_limited[t] or before.tendon_stiffness[t] or tied.any():
            return (
                f"tendon {before.tendon(t).name!r} passes through what changes, and its length is given by a limit, a "
                "spring or an equality, which would not follow"
            )
    for i in np.flatnonzero(~np.isclose(drives, other_drives, rtol=0, atol=SAME)).tolist():
        if _by_length(before, i):
            return (
                f"the force of actuator {before.actuator(i).name!r} depends on a length in what changes, and its "
                "numbers would not follow"
            )
    return ""


def _lengths(model: mujoco.MjModel, pose: Array) -> tuple[Array, Array]:
    """Return the lengths of tendons and of actuators' transmissions at a pose."""
    data = mujoco.MjData(model)
    data.qpos = pose
    mujoco.mj_fwdPosition(model, data)
    return data.ten_length.copy(), data.actuator_length.copy()


def _by_length(model: mujoco.MjModel, i: int) -> bool:
    """Return whether the force of an actuator depends on the length of its transmission."""
    if model.actuator_gaintype[i] == mujoco.mjtGain.mjGAIN_MUSCLE:
        return True
    if model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_SLIDERCRANK:
        return True  # its rod has a length
    return bool(model.actuator_gainprm[i, 1] or model.actuator_biasprm[i, 1])


def shapes_across(model: mujoco.MjModel, link: int, along: Array | None) -> tuple[bool, ...]:
    """Return which geoms of a link are capsules or cylinders across it, as a motor may be. along: unit vector, [3]."""
    geoms = range(model.body_geomadr[link], model.body_geomadr[link] + model.body_geomnum[link])
    return tuple(
        int(model.geom_type[g]) in map(int, LONG) and along is not None and _is_across(model.geom_quat[g], along)
        for g in geoms
    )


def _is_across(quat: Array, along: Array) -> bool:
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, quat)
    return bool(abs(turn.reshape(3, 3)[:, 2] @ along) < ACROSS)


def scale_link(link: mujoco.MjsBody, pivot: Array, factor: float, across: tuple[bool, ...]) -> None:
    """Multiply the distances of a link's parts from its pivot, [3] m, and the lengths of its capsules and cylinders.

    across: whether each geom lies across the link, and keeps its length.
    """
    move_parts(link, pivot, factor)
    for geom, keeps in zip(link.geoms, across, strict=True):
        if np.isfinite(geom.fromto[0]):
            ends = np.array(geom.fromto).reshape(2, 3)
            if keeps:
                geom.fromto = (ends.mean(axis=0) + (ends - ends.mean(axis=0)) / factor).ravel()
        elif geom.type in LONG and not keeps:
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
