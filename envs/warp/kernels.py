"""Kernels that run on the device besides mujoco-warp's own."""
# Warp compiles these functions from their text, and says what the types in it mean.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportAssignmentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

import math

import mujoco
import mujoco_warp
import warp as wp

PLANE, CAPSULE = int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_CAPSULE)
HFIELD = int(mujoco.mjtGeom.mjGEOM_HFIELD)
KINDS = int(math.log2(max(mujoco_warp.OverflowType))) + 1
"""Bits of an overflow."""


@wp.func
def _sound(values: wp.array2d[float], w: int) -> bool:
    """Return whether no number of the row is bad by MuJoCo's rule."""
    for i in range(values.shape[1]):  # noqa: SIM110 (Warp knows loops alone)
        if not wp.abs(values[w, i]) <= wp.static(mujoco.mjMAXVAL):
            return False
    return True


@wp.kernel(enable_backward=False)
def watch(
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    qacc: wp.array2d[float],
    faulted: wp.array[bool],
    overflow: wp.array[int],
    counts: wp.array[wp.int64],
):
    """Flag worlds whose state MuJoCo calls bad (mj_checkPos, mj_checkVel, mj_checkAcc); count overflows by kind."""
    w = wp.tid()
    if not (_sound(qpos, w) and _sound(qvel, w) and _sound(qacc, w)):
        faulted[w] = True
    bits = overflow[w]
    if bits != 0:
        for kind in range(wp.static(KINDS)):
            if (bits >> kind) & 1 == 1:
                wp.atomic_add(counts, kind, wp.int64(1))
        overflow[w] = 0


@wp.kernel(enable_backward=False)
def restore(mask: wp.array[bool], index: wp.array[wp.int64], table: wp.array2d[float], state: wp.array2d[float]):
    """Reset the masked rows of the state to their model's values."""
    w, i = wp.tid()
    if mask[w]:
        state[w, i] = table[int(index[w]), i]


@wp.kernel(enable_backward=False)
def align(
    geom_type: wp.array[int],
    geom_xmat: wp.array2d[wp.mat33],
    count: wp.array[int],
    world: wp.array[int],
    geom: wp.array[wp.vec2i],
    frame: wp.array[wp.mat33],
):
    """Align the tangents of a plane's contact with a capsule with the capsule, however steep it is, as MuJoCo does.

    mujoco-warp uses fixed axes from 60 degrees on, which turns a pyramid of friction.
    """
    c = wp.tid()
    if c >= count[0]:
        return
    if geom_type[geom[c][0]] != wp.static(PLANE) or geom_type[geom[c][1]] != wp.static(CAPSULE):
        return
    normal = frame[c][0]
    turn = geom_xmat[world[c], geom[c][1]]
    axis = wp.vec3(turn[0, 2], turn[1, 2], turn[2, 2])
    along = axis - normal * wp.dot(normal, axis)
    length = wp.length(along)
    if length > 1e-6:
        along = along / length
        across = wp.cross(normal, along)
        frame[c] = wp.matrix_from_rows(normal, along, across)


@wp.kernel(enable_backward=False)
def deflate(
    geom_type: wp.array[int],
    geom_xmat: wp.array2d[wp.mat33],
    count: wp.array[int],
    world: wp.array[int],
    geom: wp.array[wp.vec2i],
    frame: wp.array[wp.mat33],
    includemargin: wp.array[float],
    dist: wp.array[float],
    pos: wp.array[wp.vec3],
):
    """Take the margin out of a heightfield's contacts, as MuJoCo does.

    mujoco-warp 3.17 raises the field by the margin and swells the other geom by half of it, and leaves both in the
    contact's distance and position, so that a robot hovers. Where the swollen shapes overlap deeply it also finds
    normals that point into the ground, which no field has: those contacts are moved out of the margin.
    """
    c = wp.tid()
    if c >= count[0]:
        return
    if geom_type[geom[c][0]] != wp.static(HFIELD):
        return
    margin = includemargin[c]
    turn = geom_xmat[world[c], geom[c][0]]
    up = wp.vec3(turn[0, 2], turn[1, 2], turn[2, 2])
    normal = frame[c][0]
    if margin > 0.0 and wp.dot(normal, up) < 0.0:
        dist[c] = 2.0 * margin
        return
    dist[c] = dist[c] + margin * (wp.dot(normal, up) + 0.5)
    pos[c] = pos[c] + margin * (0.25 * normal - 0.5 * up)
