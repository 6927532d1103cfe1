"""MuJoCo's Newton solver on mujoco-warp's data as one kernel: a CUDA warp solves a world until it has converged.

`mujoco_warp.solve` runs about ten kernels an iteration over all worlds until the slowest has converged, and carries
Jacobian and Hessian through global memory each time. Here 32 lanes keep one world's in shared memory (newton.cuh).
"""

# No `from __future__ import annotations`: Warp reads a kernel's annotations as types.
import functools
from pathlib import Path
from typing import Any

import mujoco
import mujoco_warp as mjw
import warp as wp
from mujoco_warp import DisableBit, EnableBit, IntegratorType, OverflowType

_SOURCE = Path(__file__).with_name("newton.cuh")
_MAX_DOFS = 32  # a lane factors a row of the Hessian
_MAX_SHARED = 48 * 1024  # bytes of static shared memory a CUDA block may have
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
    needed = _shared_bytes(m.nv, d.njmax, m.opt.cone == mjw.ConeType.ELLIPTIC)
    if needed > _MAX_SHARED:
        return f"{d.njmax} constraint rows (njmax) of {m.nv} dofs need {needed} bytes of shared memory of {_MAX_SHARED}"
    return ""


def solve(m: mjw.Model, d: mjw.Data) -> None:
    """Find the constraint forces and accelerations as `mujoco_warp.solve` does; call it where `fits` returns ""."""
    opt = m.opt
    kernel = _kernel(
        m.nv,
        d.efc.J.shape[2],
        d.njmax,
        opt.cone == mjw.ConeType.ELLIPTIC,
        not opt.disableflags & DisableBit.WARMSTART,
        opt.iterations,
        opt.ls_iterations,
    )
    model = [m.M_hinit_i, m.M_colind, opt.tolerance, opt.ls_tolerance, opt.impratio_invsqrt]
    contact = [d.contact.dim, d.contact.efc_address, d.contact.friction]
    rows = [d.efc.type, d.efc.id, d.efc.J, d.efc.D, d.efc.aref, d.efc.frictionloss]
    motion = [d.ne, d.nf, d.nefc, d.M, d.qfrc_smooth, d.qacc_smooth, d.qacc_warmstart]
    out = [d.qacc, d.qfrc_constraint, d.efc.Ma, d.efc.force, d.efc.state, d.solver_niter, d.overflow]
    wp.launch_tiled(kernel, dim=d.nworld, inputs=[*model, *motion, *contact, *rows], outputs=out, block_dim=_LANES)


def _layout(nv: int) -> tuple[int, int]:
    """Return columns of the padded Hessian and the stride of a row, as newton.cuh derives them."""
    block = (nv + 6) // 7
    columns = -(-nv // block) * block
    return columns, columns | 1


def _shared_bytes(nv: int, rows: int, elliptic: bool) -> int:
    columns, stride = _layout(nv)
    matrices = (rows + 2 * columns + 1) * stride
    cones = 4 * (rows if elliptic else 1)
    return 4 * (matrices + 7 * nv + 8 * rows + cones)


@functools.cache
def _kernel(
    nv: int, nv_pad: int, rows: int, elliptic: bool, warmstart: bool, iterations: int, ls_iterations: int
) -> Any:
    """Return the kernel for these sizes; Warp compiles it at its first launch."""
    constants = {
        "NV": nv,
        "NV_PAD": nv_pad,
        "ROWS": rows,
        "ELLIPTIC": int(elliptic),
        "WARMSTART": int(warmstart),
        "ITERATIONS": iterations,
        "LS_ITERATIONS": ls_iterations,
        "CONTACT_ELLIPTIC": int(mujoco.mjtConstraint.mjCNSTR_CONTACT_ELLIPTIC),
        "OVERFLOW_ITERATIONS": int(OverflowType.ITERATIONS),
        "OVERFLOW_LS_ITERATIONS": int(OverflowType.LS_ITERATIONS),
    }
    head = "".join(f"constexpr int {name} = {value};\n" for name, value in constants.items())

    @wp.func_native(head + _SOURCE.read_text())
    def newton(
        world: int,
        lane: int,
        M_row: wp.array[int],
        M_column: wp.array[int],
        tolerance: wp.array[float],
        ls_tolerance: wp.array[float],
        impratio_invsqrt: wp.array[float],
        ne: wp.array[int],
        nf: wp.array[int],
        nefc: wp.array[int],
        M: wp.array2d[float],
        qfrc_smooth: wp.array2d[float],
        qacc_smooth: wp.array2d[float],
        qacc_warmstart: wp.array2d[float],
        contact_dim: wp.array[int],
        contact_efc_address: wp.array2d[int],
        contact_friction: wp.array[_Vec5],
        efc_type: wp.array2d[int],
        efc_id: wp.array2d[int],
        efc_J: wp.array3d[float],
        efc_D: wp.array2d[float],
        efc_aref: wp.array2d[float],
        efc_frictionloss: wp.array2d[float],
        qacc: wp.array2d[float],
        qfrc_constraint: wp.array2d[float],
        efc_Ma: wp.array2d[float],
        efc_force: wp.array2d[float],
        efc_state: wp.array2d[int],
        solver_niter: wp.array[int],
        overflow: wp.array[int],
    ): ...

    @wp.kernel(module="unique", enable_backward=False)
    def solve_newton(
        M_row: wp.array[int],
        M_column: wp.array[int],
        tolerance: wp.array[float],
        ls_tolerance: wp.array[float],
        impratio_invsqrt: wp.array[float],
        ne: wp.array[int],
        nf: wp.array[int],
        nefc: wp.array[int],
        M: wp.array2d[float],
        qfrc_smooth: wp.array2d[float],
        qacc_smooth: wp.array2d[float],
        qacc_warmstart: wp.array2d[float],
        contact_dim: wp.array[int],
        contact_efc_address: wp.array2d[int],
        contact_friction: wp.array[_Vec5],
        efc_type: wp.array2d[int],
        efc_id: wp.array2d[int],
        efc_J: wp.array3d[float],
        efc_D: wp.array2d[float],
        efc_aref: wp.array2d[float],
        efc_frictionloss: wp.array2d[float],
        qacc: wp.array2d[float],
        qfrc_constraint: wp.array2d[float],
        efc_Ma: wp.array2d[float],
        efc_force: wp.array2d[float],
        efc_state: wp.array2d[int],
        solver_niter: wp.array[int],
        overflow: wp.array[int],
    ):
        world, lane = wp.tid()
        newton(
            world,
            lane,
            M_row,
            M_column,
            tolerance,
            ls_tolerance,
            impratio_invsqrt,
            ne,
            nf,
            nefc,
            M,
            qfrc_smooth,
            qacc_smooth,
            qacc_warmstart,
            contact_dim,
            contact_efc_address,
            contact_friction,
            efc_type,
            efc_id,
            efc_J,
            efc_D,
            efc_aref,
            efc_frictionloss,
            qacc,
            qfrc_constraint,
            efc_Ma,
            efc_force,
            efc_state,
            solver_niter,
            overflow,
        )

    return solve_newton
