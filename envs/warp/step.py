"""`mujoco_warp.forward` and `mujoco_warp.step`, with the fused constraint solver where it fits the model.

The order is that of mujoco_warp 3.17's forward.py. A model that the solver does not fit takes mujoco_warp's own way.
Both can be recorded as a CUDA graph: nothing is read on the host.
"""

from typing import Any

import mujoco_warp as mjw
import warp as wp
from mujoco_warp import DisableBit, EnableBit, IntegratorType

from metarl.envs.warp import solver as warp_solver


def forward(m: mjw.Model, d: mjw.Data) -> None:
    """Compute accelerations, constraint forces and sensors of the state: `mujoco_warp.forward`."""
    if warp_solver.fits(m, d):
        mjw.forward(m, d)
        return
    mjw.fwd_position(m, d, factorize=False)
    d.sensordata.zero_()
    mjw.sensor_pos(m, d)
    energy = bool(m.opt.enableflags & EnableBit.ENERGY)
    if not energy:
        d.energy.zero_()
    elif m.sensor_e_potential == 0:
        mjw.energy_pos(m, d)

    mjw.fwd_velocity(m, d)
    mjw.sensor_vel(m, d)
    if energy and m.sensor_e_kinetic == 0:
        mjw.energy_vel(m, d)

    if not m.opt.disableflags & DisableBit.ACTUATION and m.callback.control:
        m.callback.control(m, d)
    mjw.fwd_actuation(m, d)
    mjw.fwd_acceleration(m, d, factorize=True)

    warp_solver.solve(m, d)
    sensed = not m.opt.disableflags & DisableBit.SENSOR and m.sensor_rne_postconstraint
    if m.opt.run_rne_postconstraint or sensed:
        mjw.rne_postconstraint(m, d)
    mjw.sensor_acc(m, d, skip_rne_postconstraint=True)


def step(m: mjw.Model, d: mjw.Data) -> None:
    """Advance by one time step: `mujoco_warp.step`."""
    if warp_solver.fits(m, d):
        mjw.step(m, d)
        return
    forward(m, d)
    if m.opt.integrator == IntegratorType.EULER:
        mjw.euler(m, d)
    elif m.opt.integrator == IntegratorType.RK4:
        rungekutta4(m, d)
    else:
        mjw.implicit(m, d)


def rungekutta4(m: mjw.Model, d: mjw.Data) -> None:
    """Advance from the `forward` that came before by Runge-Kutta's three further stages: `mujoco_warp.rungekutta4`."""
    # Its stages are mujoco_warp's own; only the forward between them is exchanged, which no public function allows.
    from mujoco_warp._src.forward import _advance, _rk_accumulate, _rk_perturb_state

    start: list[Any] = [wp.clone(state) for state in (d.qpos, d.qvel, d.act)]
    sums: list[Any] = [wp.zeros_like(rate) for rate in (d.qvel, d.qacc, d.act_dot)]
    _rk_accumulate(m, d, 1 / 6, *sums)
    for time, weight in ((0.5, 1 / 3), (0.5, 1 / 3), (1.0, 1 / 6)):
        _rk_perturb_state(m, d, time, *start)
        forward(m, d)
        _rk_accumulate(m, d, weight, *sums)
    wp.copy(d.qpos, start[0])
    wp.copy(d.qvel, start[1])
    if m.na:
        wp.copy(d.act, start[2])
        wp.copy(d.act_dot, sums[2])
    _advance(m, d, sums[1], sums[0])
