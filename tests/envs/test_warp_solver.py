"""The fused constraint solver against MuJoCo's own in double precision, beside mujoco_warp's as the yardstick."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import mujoco_warp as mjw
import numpy as np
import pytest
import warp as wp

from metarl.envs.robots.half_cheetah_settings import HalfCheetahVelocitySettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.warp import solver as warp_solver
from metarl.envs.warp import step as warp_step
from tests.envs.solver_problems import (
    MORE_ROBOTS,
    NJMAX,
    NUM_WORLDS,
    ROBOTS,
    SCENE,
    SCENES,
    Exact,
    States,
    chain,
    family,
    on_warp,
    scene,
    visited,
)

OUTPUTS = ("qacc", "qfrc_constraint", "solver_niter", "overflow", "efc.Ma", "efc.force", "efc.state")


def outputs(d: mjw.Data) -> dict[str, np.ndarray]:
    """Copies of what a solver writes; rows that are none are zero."""
    arrays = {name: getattr(d.efc if "." in name else d, name.rpartition(".")[2]).numpy().copy() for name in OUTPUTS}
    for name in ("efc.force", "efc.state"):
        arrays[name][:, NJMAX:] = 0
        arrays[name][np.arange(arrays[name].shape[1]) >= d.nefc.numpy()[:, None]] = 0
    return arrays


def both(m: mjw.Model, d: mjw.Data) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What mujoco_warp's solver and the fused one write for the same states."""
    assert warp_solver.fits(m, d) == ""
    mjw.forward(m, d)
    theirs = outputs(d)
    for array in (d.qacc, d.qfrc_constraint, d.efc.Ma, d.efc.force):
        array.fill_(np.nan)
    d.efc.state.fill_(-1)
    d.overflow.zero_()
    warp_solver.solve(m, d)
    return theirs, outputs(d)


def measured(model: mujoco.MjModel, states: States, m: mjw.Model, d: mjw.Data) -> dict[str, np.ndarray]:
    """Errors, costs and iterations of both solvers in the worlds whose contacts MuJoCo finds too: arrays [2, W]."""
    solved, rows = both(m, d), []
    for world in range(NUM_WORLDS):
        exact = Exact(model, states, d, world)
        if exact.same:
            found = [one["qacc"][world] for one in solved]
            niter = [one["solver_niter"][world] for one in solved]
            rows.append((*map(exact.error, found), *map(exact.excess, found), *niter))
    assert len(rows) > NUM_WORLDS / 2
    return dict(zip(("error", "excess", "niter"), np.array(rows).T.reshape(3, 2, -1), strict=True))


def assert_as_good(model: mujoco.MjModel) -> None:
    """The fused solver is as near to MuJoCo's solution as mujoco_warp's, and takes no more iterations."""
    states = visited(model)
    found = measured(model, states, *on_warp(model, states))
    (theirs, ours), (their_excess, our_excess) = found["error"], found["excess"]
    assert np.median(ours) <= 2 * np.median(theirs) + 2e-7
    assert ours.max() <= 2 * theirs.max() + 1e-5
    assert our_excess.max() <= 2 * their_excess.max() + 1e-8
    assert found["niter"][1].mean() <= found["niter"][0].mean() + 0.1


@pytest.mark.parametrize("name", SCENES)
def test_solves_contacts_limits_friction_and_equalities(name):
    model = scene(*SCENES[name])
    assert_as_good(model)


@pytest.mark.parametrize("name", ROBOTS)
def test_solves_robots(name):
    assert_as_good(ROBOTS[name]())


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE_ROBOTS)
def test_solves_more_robots(name):
    assert_as_good(MORE_ROBOTS[name]())


@pytest.mark.slow
@pytest.mark.parametrize("dofs", [2, 8, 31, 32])
def test_solves_any_number_of_dofs_to_its_most(dofs):
    assert_as_good(chain(dofs))


@pytest.mark.parametrize("cone", ["pyramidal", "elliptic"])
def test_writes_what_mujoco_warp_writes(cone):
    model = scene(cone, 3)
    m, d = on_warp(model, visited(model))
    theirs, ours = both(m, d)
    for name in ("qacc", "qfrc_constraint", "efc.Ma", "efc.force"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-4 * np.abs(theirs[name]).max())
    assert (ours["efc.state"] == theirs["efc.state"]).mean() > 0.999
    assert set(ours["efc.state"].flat) >= {0, 1} | ({4} if cone == "elliptic" else set())
    assert (ours["solver_niter"] >= 1).all()
    assert not ours["overflow"].any()
    jacobian = d.efc.J.numpy()[:, :NJMAX, : model.nv]
    force = np.einsum("wri,wr->wi", jacobian, ours["efc.force"])
    np.testing.assert_allclose(ours["qfrc_constraint"], force, atol=1e-5 * np.abs(force).max())


def test_flags_iterations_that_came_to_their_end():
    model = scene("elliptic", 3)
    m, d = on_warp(model, visited(model), iterations=1, ls_iterations=1)
    theirs, ours = both(m, d)
    assert set(ours["solver_niter"]) == {1}
    for flag in (mjw.OverflowType.ITERATIONS, mjw.OverflowType.LS_ITERATIONS):
        flagged = (theirs["overflow"] & flag) > 0, (ours["overflow"] & flag) > 0
        assert flagged[0].any()
        assert (flagged[0] == flagged[1]).mean() > 0.9
    m, d = on_warp(model, visited(model), iterations=0)
    assert not both(m, d)[1]["solver_niter"].any()


@pytest.mark.parametrize("cone", ["pyramidal", "elliptic"])
def test_starts_from_the_better_of_warm_start_and_smooth_acceleration(cone):
    model = scene(cone, 3)
    states = visited(model)
    near = both(*on_warp(model, states))[1]
    cold = both(*on_warp(model, states, disableflags=int(mjw.DisableBit.WARMSTART)))[1]
    states.warmstart[:] = 1e5
    far = both(*on_warp(model, states))[1]
    assert near["solver_niter"].mean() < cold["solver_niter"].mean()
    np.testing.assert_array_equal(far["qacc"], cold["qacc"])
    np.testing.assert_allclose(far["qacc"], near["qacc"], rtol=1e-3, atol=1e-4 * np.abs(near["qacc"]).max())


def test_leaves_worlds_without_constraint_alone():
    model = family(HalfCheetahVelocitySettings)()
    states = visited(model)
    states.qpos[:, 1] = 5
    states.qpos[:, 2:] = 0
    m, d = on_warp(model, states)
    ours = both(m, d)[1]
    assert not d.nefc.numpy().any()
    assert not ours["solver_niter"].any()
    assert not ours["qfrc_constraint"].any()
    np.testing.assert_array_equal(ours["qacc"], d.qacc_smooth.numpy())


@pytest.mark.parametrize("cone", ["pyramidal", "elliptic"])
def test_solves_the_rows_that_njmax_holds(cone):
    model = scene(cone, 3)
    m, d = on_warp(model, visited(model), njmax=24)
    ours = both(m, d)[1]
    assert (d.nefc.numpy() > 24).any()
    assert np.isfinite(ours["qacc"]).all()


def test_solves_worlds_that_differ():
    model = family(QuadrupedSettings, physics="exact")()
    rng, names = (
        np.random.default_rng(1),
        ("body_mass", "body_inertia", "geom_friction", "dof_frictionloss", "dof_armature"),
    )
    states = visited(model)
    m, d = on_warp(model, states)
    factors = rng.uniform(0.5, 2, NUM_WORLDS).astype(np.float32)
    for name in names:
        field = getattr(m, name)
        values = np.concatenate([getattr(m, name).numpy()] * NUM_WORLDS)
        values *= factors.reshape(-1, *[1] * (values.ndim - 1))
        setattr(m, name, wp.array(values, dtype=field.dtype))
    theirs, ours = both(m, d)
    assert np.abs(ours["qacc"] - theirs["qacc"]).max() < 1e-4 * np.abs(theirs["qacc"]).max()
    for world in range(0, NUM_WORLDS, 5):
        own = family(QuadrupedSettings, physics="exact")()
        for name in names:
            getattr(own, name)[:] *= factors[world]
        exact = Exact(own, states, d, world)
        assert not exact.same or exact.error(ours["qacc"][world]) < 1e-4


def test_says_what_it_does_not_solve():
    def reason(model: mujoco.MjModel, **sizes: int) -> str:
        return warp_solver.fits(mjw.put_model(model), mjw.make_data(model, **({"njmax": NJMAX} | sizes)))

    model = scene("elliptic", 3)
    assert reason(model) == ""
    assert reason(model, njmax=500) == ""
    assert "njmax is 1000, more than" in reason(model, njmax=1000)
    model.opt.noslip_iterations = 2
    assert "noslip" in reason(model)
    model.opt.noslip_iterations, model.opt.solver = 0, mujoco.mjtSolver.mjSOL_CG
    assert "not Newton" in reason(model)
    model.opt.solver, model.opt.jacobian = mujoco.mjtSolver.mjSOL_NEWTON, mujoco.mjtJacobian.mjJAC_SPARSE
    assert "sparse" in reason(model)
    body = '<body pos="0 {0} 1"><freejoint/><geom size=".1"/></body>'
    many = (
        '<mujoco><option jacobian="dense"/><worldbody>'
        + "".join(body.format(i) for i in range(6))
        + "</worldbody></mujoco>"
    )
    assert "36 dofs, more than 32" in reason(mujoco.MjModel.from_xml_string(many))


def trajectory(model: mujoco.MjModel, step: Callable, steps: int = 100) -> np.ndarray:
    """qpos of NUM_WORLDS worlds under their own random controls: [step, world, nq]."""
    states = visited(model)
    m, d = on_warp(model, states)
    ctrl, path = random_controls(model, steps), []
    for controls in ctrl:
        d.ctrl.assign(controls)
        step(m, d)
        path.append(d.qpos.numpy().copy())
    return np.array(path)


def random_controls(model: mujoco.MjModel, steps: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.uniform(-1, 1, (steps, NUM_WORLDS, model.nu)).astype(np.float32)


def exact_trajectory(model: mujoco.MjModel, steps: int = 100) -> np.ndarray:
    states, ctrl, path = visited(model), random_controls(model, steps), np.zeros((steps, NUM_WORLDS, model.nq))
    for world in range(NUM_WORLDS):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:], data.qacc_warmstart[:] = (
            states.qpos[world],
            states.qvel[world],
            states.warmstart[world],
        )
        for step in range(steps):
            data.ctrl[:] = ctrl[step, world]
            mujoco.mj_step(model, data)
            path[step, world] = data.qpos
    return path


def assert_follows(model: mujoco.MjModel) -> None:
    """Worlds that mujoco_warp keeps within 1e-5 of MuJoCo's path for 100 steps stay there."""
    exact = exact_trajectory(model)
    theirs, ours = (np.abs(trajectory(model, step) - exact).max((0, 2)) for step in (mjw.step, warp_step.step))
    near = theirs < 1e-5
    assert near.any()
    assert np.quantile(ours[near], 0.75) < 1e-5
    assert np.median(ours) <= 3 * np.median(theirs)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ROBOTS)
def test_steps_on_the_path_of_mujoco(name):
    assert_follows(ROBOTS[name]())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ant", "hopper"])
def test_steps_by_runge_kutta_on_the_path_of_mujoco(name):
    assert_follows(MORE_ROBOTS[name]())


def test_runge_kutta_advances_activations():
    xml = SCENE.format(cone="pyramidal", condim=1)
    activated = '<general joint="hip" dyntype="filter" dynprm=".05" gainprm="2"/></actuator>'
    model = mujoco.MjModel.from_xml_string(xml.replace("</actuator>", activated))
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_RK4
    ends = []
    for step in (mjw.step, warp_step.step):
        m, d = on_warp(model, visited(model))
        for _ in range(5):
            step(m, d)
        ends.append((d.act.numpy().copy(), d.qpos.numpy().copy(), d.qvel.numpy().copy(), d.time.numpy().copy()))
    assert np.abs(ends[0][0]).min() > 1e-3
    for theirs, ours in zip(*ends, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_forward_fills_sensors_and_energy():
    model = scene("elliptic", 3)
    model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_ENERGY
    m, d = on_warp(model, visited(model))
    mjw.forward(m, d)
    theirs = d.sensordata.numpy().copy(), d.energy.numpy().copy()
    d.sensordata.fill_(np.nan)
    d.energy.fill_(np.nan)
    warp_step.forward(m, d)
    assert theirs[1].all()
    np.testing.assert_allclose(d.energy.numpy(), theirs[1], rtol=1e-6)
    np.testing.assert_allclose(d.sensordata.numpy(), theirs[0], rtol=1e-3, atol=1e-3)


def test_steps_by_mujoco_warp_where_the_solver_does_not_fit():
    model = family(HalfCheetahVelocitySettings)()
    model.opt.solver = mujoco.mjtSolver.mjSOL_CG
    np.testing.assert_array_equal(trajectory(model, warp_step.step, 5), trajectory(model, mjw.step, 5))
