"""Kernels that run on the device besides mujoco-warp's own."""
# Warp compiles these functions from their text, and says what the types in it mean.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportReturnType=false

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


@wp.func
def _aligned(old: wp.mat33, axis: wp.vec3) -> wp.mat33:
    """Return a contact's frame with its tangents along an axis; the old one where the axis is along the normal."""
    normal = old[0]
    along = axis - normal * wp.dot(normal, axis)
    length = wp.length(along)
    if length > 1e-6:
        along = along / length
        return wp.matrix_from_rows(normal, along, wp.cross(normal, along))
    return old


@wp.kernel(enable_backward=False)
def correct(
    geom_type: wp.array[int],
    geom_xmat: wp.array2d[wp.mat33],
    count: wp.array[int],
    world: wp.array[int],
    geom: wp.array[wp.vec2i],
    includemargin: wp.array[float],
    frame: wp.array[wp.mat33],
    dist: wp.array[float],
    pos: wp.array[wp.vec3],
):
    """Correct contacts in which mujoco-warp 3.17 differs from MuJoCo.

    Of a plane with a capsule, the tangents are along the capsule, however steep it is; mujoco-warp uses fixed axes from
    60 degrees on, which turns a pyramid of friction. Of a heightfield, the margin is no part of distance and position;
    mujoco-warp raises the field by it and swells the other geom by half of it, so that a robot hovers. Where the shapes
    so swollen overlap deeply it also finds normals that point into the ground, which no field has: those contacts are
    moved out of the margin.
    """
    c = wp.tid()
    if c >= count[0]:
        return
    first = geom_type[geom[c][0]]
    if first == wp.static(PLANE) and geom_type[geom[c][1]] == wp.static(CAPSULE):
        turn = geom_xmat[world[c], geom[c][1]]
        frame[c] = _aligned(frame[c], wp.vec3(turn[0, 2], turn[1, 2], turn[2, 2]))
    if first == wp.static(HFIELD):
        turn = geom_xmat[world[c], geom[c][0]]
        up = wp.vec3(turn[0, 2], turn[1, 2], turn[2, 2])
        normal = frame[c][0]
        margin = includemargin[c]
        if margin > 0.0 and wp.dot(normal, up) < 0.0:
            dist[c] = 2.0 * margin
        else:
            dist[c] = dist[c] + margin * (wp.dot(normal, up) + 0.5)
            pos[c] = pos[c] + margin * (0.25 * normal - 0.5 * up)
