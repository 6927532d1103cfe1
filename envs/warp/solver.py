"""MuJoCo's Newton solver on mujoco-warp's data as one kernel: a CUDA warp solves a world until it has converged.

`mujoco_warp.solve` runs about ten kernels an iteration over all worlds until the slowest has converged, and carries
Jacobian and Hessian through global memory each time. Here 32 lanes keep one world's in shared memory (newton/*.cuh).
"""

# No `from __future__ import annotations`: Warp reads a kernel's annotations as types.
import functools
from pathlib import Path
from typing import Any

import mujoco
import mujoco_warp as mjw
import warp as wp
from mujoco_warp import DisableBit, EnableBit, IntegratorType, OverflowType

_PARTS = [Path(__file__).with_name("newton") / f"{part}.cuh" for part in ("world", "hessian", "line_search", "solve")]
_CONSTANTS = (
    *("NV", "NV_PAD", "NJMAX", "ELLIPTIC", "WARMSTART", "ITERATIONS", "LS_ITERATIONS"),
    *("ROWS", "MORE_THAN", "J_SHARED"),
)
_MAX_DOFS = 32  # a lane factors a row of the Hessian
_MAX_SHARED = 47 * 1024  # bytes of static shared memory that a CUDA block may use, without CUDA's own
_USUAL_SHARED = 9 * 1024  # bytes per world, so that more than twenty fit on a multiprocessor of an H100
_LANES = 32
_Vec5 = wp.types.vector(length=5, dtype=wp.float32)


def fits(m: mjw.Model, d: mjw.Data) -> str:
    """Return why the fused solver cannot solve this model, or "" where it can."""
    reasons = {
        "the solver is not Newton": m.opt.solver != mjw.SolverType.NEWTON,
        "the constraint Jacobian is sparse": m.is_sparse,
        f"{m.nv} dofs, more than {_MAX_DOFS}": m.nv > _MAX_DOFS,
        "it has no dof": m.nv == 0,
        "no constraint can be held (njmax is 0)": d.njmax == 0,
        "it has a flex": m.nflex > 0,
        "worlds may sleep": bool(m.opt.enableflags & EnableBit.SLEEP),
        "the integrator is discrete": m.opt.integrator == IntegratorType.DISCRETE,
        "noslip iterations are on": m.opt.noslip_iterations > 0,
    }
    for reason, holds in reasons.items():
        if holds:
            return reason
    fixed, row = _shared_bytes(m.nv, int(m.opt.cone == mjw.ConeType.ELLIPTIC), False)
    most = (_MAX_SHARED - fixed) // row
    return f"njmax is {d.njmax}, more than {most}" if d.njmax > most else ""


@wp.struct
class Problem:
    """The arrays of `mujoco_warp.Model` and `Data` that the solver reads and, from `qacc` on, writes."""

    M_row: wp.array[int]
    M_column: wp.array[int]
    tolerance: wp.array[float]
    ls_tolerance: wp.array[float]
    impratio_invsqrt: wp.array[float]
    ne: wp.array[int]
    nf: wp.array[int]
    nefc: wp.array[int]
    M: wp.array2d[float]
    qfrc_smooth: wp.array2d[float]
    qacc_smooth: wp.array2d[float]
    qacc_warmstart: wp.array2d[float]
    contact_dim: wp.array[int]
    contact_efc_address: wp.array2d[int]
    contact_friction: wp.array[_Vec5]  # pyright: ignore[reportInvalidTypeForm]
    efc_type: wp.array2d[int]
    efc_id: wp.array2d[int]
    efc_J: wp.array3d[float]  # noqa: N815
    efc_D: wp.array2d[float]  # noqa: N815
    efc_aref: wp.array2d[float]
    efc_frictionloss: wp.array2d[float]
    qacc: wp.array2d[float]
    qfrc_constraint: wp.array2d[float]
    efc_Ma: wp.array2d[float]  # noqa: N815
    efc_force: wp.array2d[float]
    efc_state: wp.array2d[int]
    solver_niter: wp.array[int]
    overflow: wp.array[int]


def solve(m: mjw.Model, d: mjw.Data) -> None:
    """Find the constraint forces and accelerations as `mujoco_warp.solve` does; call it where `fits` returns ""."""
    lanes = _LANES if d.qacc.device.is_cuda else 1
    for sizes in _sizes(m, d):
        wp.launch_tiled(_kernel(*sizes), dim=d.nworld, inputs=[_problem(m, d)], block_dim=lanes)


def _problem(m: mjw.Model, d: mjw.Data) -> Any:
    """Return the `Problem` of model and data: a field's name is that of `opt`, of data, of its contacts or its rows."""
    problem: Any = Problem()
    problem.M_row, problem.M_column = m.M_hinit_i, m.M_colind
    for name in problem._cls.vars:
        for source, prefix in ((m.opt, ""), (d, ""), (d.contact, "contact_"), (d.efc, "efc_")):
            field = name.removeprefix(prefix)
            if name.startswith(prefix) and hasattr(source, field):
                setattr(problem, name, getattr(source, field))
    return problem


def _sizes(m: mjw.Model, d: mjw.Data) -> list[tuple[int, ...]]:
    """Return what each kernel is compiled for, in the order of `_CONSTANTS`.

    One keeps J in shared memory and solves the worlds with few rows, so that many worlds find room on a
    multiprocessor; where njmax allows more rows, another reads J from global memory and solves the rest.
    """
    elliptic = int(m.opt.cone == mjw.ConeType.ELLIPTIC)
    warmstart = int(not m.opt.disableflags & DisableBit.WARMSTART)
    common = m.nv, d.efc.J.shape[2], d.njmax, elliptic, warmstart, m.opt.iterations, m.opt.ls_iterations
    fixed, row = _shared_bytes(m.nv, elliptic, True)
    few = min(d.njmax, max(_LANES, (_USUAL_SHARED - fixed) // row // 8 * 8))
    return [(*common, few, -1, 1)] + ([(*common, d.njmax, few, 0)] if few < d.njmax else [])


def _shared_bytes(nv: int, elliptic: int, holds_jacobian: bool) -> tuple[int, int]:
    """Return the bytes of newton/world.cuh's workspace without rows, and those of each row."""
    block = (nv + 6) // 7
    columns = -(-nv // block) * block
    stride = columns | 1
    return 4 * ((2 * columns + 1) * stride + 7 * nv + 4), 4 * (9 + 4 * elliptic + stride * holds_jacobian)


@functools.cache
def _kernel(*sizes: int) -> Any:
    """Return the kernel for these `_sizes`; Warp compiles it at its first launch."""

    @wp.func_native(_source(*sizes))
    def newton(world: int, lane: int, problem: Problem): ...  # pyright: ignore[reportGeneralTypeIssues]

    @wp.kernel(module="unique", enable_backward=False)
    def solve_newton(problem: Problem):  # pyright: ignore[reportGeneralTypeIssues]
        world, lane = wp.tid()  # pyright: ignore
        newton(world, lane, problem)

    return solve_newton


def _source(*sizes: int) -> str:
    """Return the solver's source with its constants."""
    known = {
        "TYPE_FRICTION_DOF": int(mujoco.mjtConstraint.mjCNSTR_FRICTION_DOF),
        "TYPE_CONTACT_ELLIPTIC": int(mujoco.mjtConstraint.mjCNSTR_CONTACT_ELLIPTIC),
        "OVERFLOW_ITERATIONS": int(OverflowType.ITERATIONS),
        "OVERFLOW_LS_ITERATIONS": int(OverflowType.LS_ITERATIONS),
    }
    constants = dict(zip(_CONSTANTS, sizes, strict=True)) | known
    head = [f"constexpr int {name} = {value};" for name, value in constants.items()]
    return "\n".join(head + [part.read_text() for part in _PARTS])
