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

_PATH = Path(__file__).with_name("newton.cuh")
_CONSTANTS = ("NV", "NV_PAD", "ROWS", "ELLIPTIC", "WARMSTART", "ITERATIONS", "LS_ITERATIONS")
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


@wp.struct
class Problem:
    """The arrays of `mujoco_warp.Model` and `Data` that newton.cuh reads and, from `qacc` on, writes."""

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
    wp.launch_tiled(_kernel(*_sizes(m, d)), dim=d.nworld, inputs=[_problem(m, d)], block_dim=_LANES)


def _problem(m: mjw.Model, d: mjw.Data) -> Any:
    problem: Any = Problem()
    problem.M_row, problem.M_column = m.M_hinit_i, m.M_colind
    for name in problem._cls.vars:
        for source, prefix in ((m.opt, ""), (d, ""), (d.contact, "contact_"), (d.efc, "efc_")):
            field = name.removeprefix(prefix)
            if name.startswith(prefix) and hasattr(source, field):
                setattr(problem, name, getattr(source, field))
    return problem


def _sizes(m: mjw.Model, d: mjw.Data) -> tuple[int, ...]:
    """Return what the kernel is compiled for, in the order of `_CONSTANTS`."""
    elliptic = m.opt.cone == mjw.ConeType.ELLIPTIC
    warmstart = not m.opt.disableflags & DisableBit.WARMSTART
    return m.nv, d.efc.J.shape[2], d.njmax, int(elliptic), int(warmstart), m.opt.iterations, m.opt.ls_iterations


def _layout(nv: int) -> tuple[int, int]:
    """Return columns of the padded Hessian and the stride of a row, as newton.cuh derives them."""
    block = (nv + 6) // 7
    columns = -(-nv // block) * block
    return columns, columns | 1


def _shared_bytes(nv: int, rows: int, elliptic: bool) -> int:
    columns, stride = _layout(nv)
    matrices = (rows + 2 * columns + 1) * stride
    cones = 4 * (rows if elliptic else 1)
    return 4 * (matrices + 7 * nv + 9 * rows + cones)


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
        "CONTACT_ELLIPTIC": int(mujoco.mjtConstraint.mjCNSTR_CONTACT_ELLIPTIC),
        "OVERFLOW_ITERATIONS": int(OverflowType.ITERATIONS),
        "OVERFLOW_LS_ITERATIONS": int(OverflowType.LS_ITERATIONS),
    }
    constants = dict(zip(_CONSTANTS, sizes, strict=True)) | known
    return "".join(f"constexpr int {name} = {value};\n" for name, value in constants.items()) + _PATH.read_text()
