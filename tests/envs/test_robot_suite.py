"""Every robot of `models.CASES` and every quantity: what acts is what the model file says, and what a value says.

The reference is MuJoCo itself: the model file as MuJoCo reads it, stepped by `mj_step` under the same control signals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from metarl.agents.registry import make_agent
from metarl.agents.sb3.settings import PpoSettings
from metarl.envs.arrays import Array
from metarl.envs.family import TaskFamily
from metarl.envs.own_robot.family import check_robot
from metarl.envs.own_robot.quantities import QUANTITIES
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family
from metarl.runs.controller import Controller
from tests.envs.own_robot.models import ASKED, CASES, Case
from tests.envs.own_robot.probes import (
    BALL,
    EQUALITY,
    FREE,
    MUSCLE,
    PROBES,
    SCALAR,
    TOGETHER,
    Probe,
    Run,
    declare,
    driven_dofs,
    entry,
    family_of,
    heaviest,
    inertia,
    moves,
    play,
    reference_copy,
    reference_of,
    run_of,
)
from tests.sampling import sampled

SAME = 1e-9
"""Of what is compiled, and of where a second leads: masses that are taken apart into geoms differ by 1e-16."""
COMMANDS = ("command_x", "command_y", "command_yaw")
ELSEWHERE = {"action_delay", "goal_x", "goal_y", "goal_z", "sensor_noise", "push_velocity"}
ELSEWHERE |= {"goal_roll", "goal_pitch", "goal_yaw", "payload_x", "payload_y", "payload_z", "python"}
"""Quantities that tests/envs/test_robot_task.py and test_robot_parameters.py are about."""
pytestmark = pytest.mark.filterwarnings("ignore:compiler attribute 'settotalmass'")


ACTUATOR = [
    *("gaintype", "biastype", "dyntype", "trntype", "gainprm", "biasprm", "dynprm", "gear", "ctrlrange", "ctrllimited"),
    *("forcerange", "forcelimited", "actrange", "actlimited", "lengthrange", "acc0", "cranklength", "actearly"),
]
JOINT = ["type", "range", "limited", "stiffness", "actfrcrange", "actfrclimited", "axis", "solref", "solimp", "margin"]
JOINT += ["actgravcomp", "pos"]
FIELDS = {
    "jnt": JOINT,
    "dof": ["damping", "armature", "frictionloss", "solref", "solimp"],
    "actuator": ACTUATOR,
    "eq": ["type", "data", "active0", "solref", "solimp"],
    "tendon": ["range", "limited", "stiffness", "damping", "frictionloss", "lengthspring", "length0", "armature"],
    "key": ["qpos", "qvel", "act", "ctrl", "mpos", "mquat"],
    "pair": ["dim", "solref", "solimp", "margin", "gap", "friction"],
    "exclude": ["signature"],
}


def assert_same_robot(model: mujoco.MjModel, reference: mujoco.MjModel) -> None:
    """What the model file says is what is simulated: by kind in the order of the file, bodies by name."""
    for kind, attributes in FIELDS.items():
        for attribute in attributes:
            ours, theirs = (acting(m, f"{kind}_{attribute}") for m in (model, reference))
            assert ours.shape == theirs.shape, f"{kind}_{attribute}: {ours.shape}, in the model file {theirs.shape}"
            np.testing.assert_allclose(ours, theirs, SAME, SAME, err_msg=f"{kind}_{attribute}")
    for attribute in ("timestep", "gravity", "integrator", "cone", "impratio", "density", "viscosity", "wind"):
        np.testing.assert_array_equal(getattr(model.opt, attribute), getattr(reference.opt, attribute), attribute)
    assert model.opt.disableflags == reference.opt.disableflags
    assert_same_bodies(model, reference)


def acting(model: mujoco.MjModel, name: str) -> Array:
    """An array of the model, with what does not act or is derived while it is simulated as numbers that mean the same.

    A range without a limit is none. A muscle whose peak force is -1 has scale / acc0.
    """
    values = np.array(getattr(model, name), dtype=float)
    if name.endswith("range") and hasattr(model, name.replace("range", "limited")):
        values[getattr(model, name.replace("range", "limited")) == 0] = 0
    if name in ("actuator_gainprm", "actuator_biasprm"):
        auto = (model.actuator_gaintype == MUSCLE) & (values[:, 2] < 0)
        values[auto, 2] = values[auto, 3] / model.actuator_acc0[auto]
    return values


def assert_same_bodies(model: mujoco.MjModel, reference: mujoco.MjModel) -> None:
    for b in range(1, reference.nbody):
        name = reference.body(b).name
        ours = model.body(name or b).id
        for attribute in ("mass", "ipos", "pos", "quat", "gravcomp"):
            here, there = getattr(model, f"body_{attribute}")[ours], getattr(reference, f"body_{attribute}")[b]
            np.testing.assert_allclose(here, there, SAME, SAME, err_msg=f"{attribute} of body {name!r}")
        here, there = inertia(model.body(ours)), inertia(reference.body(b))
        np.testing.assert_allclose(here, there, SAME, SAME, err_msg=f"inertia of body {name!r}")


def contacts(model: mujoco.MjModel, data: mujoco.MjData) -> list[tuple]:
    """A row a contact: bodies, condim, place, and depth and all that decides its force.

    Bodies that a file does not name are without a name here, whatever metarl calls them.
    """
    rows = []
    for c in data.contact:
        bodies = sorted(re.sub(r"^body\d+$", "", model.body(model.geom_bodyid[g]).name) for g in c.geom)
        solver = (*c.friction, *c.solref, *c.solreffriction, *c.solimp, c.includemargin)
        rows.append((bodies, c.dim, np.round(c.pos, 6).tolist(), np.array((c.dist, *solver))))
    return sorted(rows, key=lambda row: row[:3])


def assert_same_contacts(ours: list[tuple], theirs: list[tuple], where: str) -> None:
    assert [row[:2] for row in ours] == [row[:2] for row in theirs], f"{where}: bodies and condim"
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a[3], b[3], SAME, SAME, err_msg=f"{where}: contact of {a[0]}")


def assert_same_second(run: Run, reference: mujoco.MjModel) -> None:
    """From the run's start, under its control signals, plain MuJoCo goes where it went, contact by contact."""
    data, models = run.state(reference, 0), (run.model, reference)
    states = [run.state(m, 0) for m in models]
    for t, ctrl in enumerate(run.ctrl, start=1):
        data.ctrl[:] = ctrl
        mujoco.mj_step(reference, data, nstep=run.family.frame_skip)
        for name, path in (("qpos", run.qpos), ("qvel", run.qvel), ("act", run.act)):
            unit = max(1.0, float(np.abs(path[t]).max(initial=0)))
            ours, theirs = path[t] / unit, getattr(data, name) / unit
            np.testing.assert_allclose(ours, theirs, SAME, SAME, err_msg=f"{name} after {t} steps")
        rows = []
        for m, d in zip(models, states, strict=True):
            d.qpos[:] = run.qpos[t]
            mujoco.mj_fwdPosition(m, d)
            rows.append(contacts(m, d))
        assert_same_contacts(rows[0], rows[1], f"after {t} steps")


@pytest.mark.parametrize("name", sampled(CASES, 6))
def test_the_model_is_the_files(name):
    assert_same_robot(run_of(name).model, reference_of(name))


@pytest.mark.parametrize("name", sampled(CASES, 6))
def test_a_second_is_plain_mujocos(name):
    assert_same_second(run_of(name), reference_of(name))


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("name", sampled(CASES, 6))
def test_command_is_what_the_simulation_is_told(name, scale):
    actions = 1.5 * run_of(name).actions[:5]  # beyond the range, too
    run = play(run_of(name).family if scale == 1 else family_of(name, control={"action_scale": scale}), actions)
    sizes = run.family.observation_size, run.family.action_size
    agent = make_agent(PpoSettings(hidden_sizes=(4,)), *sizes, torch.Generator(), torch.device("cpu"))
    controller = Controller(agent, run.family, 0, 1)
    for action, ctrl in zip(run.actions, run.ctrl, strict=True):
        np.testing.assert_allclose(controller.command(action), ctrl, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", sampled(CASES, 6))
def test_what_no_action_reaches_and_nothing_observes_stays_at_home(name):
    """A joint that an actuator drives is observed, or it is held where it is while others move."""
    run = run_of(name)
    names, model = run.family.observation_names, run.model
    for j in (int(model.dof_jntid[dof]) for dof in driven_dofs(model)):
        joint = model.joint(j).name
        if model.jnt_type[j] not in SCALAR or any(n.startswith(joint) for n in names):
            continue
        moved = np.abs(run.qpos[:, model.jnt_qposadr[j]] - run.qpos[0, model.jnt_qposadr[j]]).max()
        assert moved < 0.05, f"{joint} is driven, unobserved, and moves by {moved:.3g}"


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.home])
def test_home_is_where_the_model_or_the_file_says(name):
    run = run_of(name)
    for joint, value in CASES[name].home.items():
        assert run.qpos[0, run.model.joint(joint).qposadr[0]] == pytest.approx(value, abs=1e-9)
    base = run.model.jnt_qposadr[0]
    if run.model.jnt_type[0] == FREE:
        np.testing.assert_allclose(np.linalg.norm(run.qpos[0, base + 3 : base + 7]), 1)


@pytest.mark.parametrize("noise", [0.02, 0.4])
@pytest.mark.parametrize("name", sampled(CASES, 6))
def test_every_start_is_one_that_the_robot_can_be_in(name, noise):
    family = family_of(name, episode={"position_noise": noise, "velocity_noise": 0.05})
    model = family.compile(family.neutral())
    qpos, qvel = family.reset(model, np.random.default_rng(0), 50)
    assert np.isfinite(qpos).all() and np.isfinite(qvel).all()
    for j in np.flatnonzero(model.jnt_limited):
        if model.jnt_type[j] != BALL:
            (low, high), values = model.jnt_range[j], qpos[:, model.jnt_qposadr[j]]
            assert low - 1e-6 <= values.min() and values.max() <= high + 1e-6, model.joint(j).name
    data, deepest = mujoco.MjData(model), 0.0
    for start in qpos:
        data.qpos[:] = start
        mujoco.mj_fwdPosition(model, data)
        for c in data.contact:
            deepest = max(deepest, -c.dist)
        coupled = [i for i in range(data.nefc) if data.efc_type[i] == EQUALITY]
        np.testing.assert_allclose(data.efc_pos[coupled], 0, atol=1e-6, err_msg="equality constraints")
    places = data.geom_xpos[model.geom_bodyid > 0]
    size = float(np.ptp(places, axis=0).max() + 2 * np.max(model.geom_rbound)) if len(places) else 0.0
    assert noise > 0.02 or deepest <= max(2e-3, 0.03 * size), f"{deepest:.3g} m inside something"


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.holds])
def test_action_zero_holds_home(name):
    family = run_of(name).family
    run = play(family, np.zeros((round(1.0 / family.dt), family.action_size)))
    model = run.model
    for j in range(model.njnt):
        if model.jnt_type[j] in SCALAR:
            path = run.qpos[:, model.jnt_qposadr[j]]
            gone = np.abs(path - path[0]).max()
            assert gone <= CASES[name].holds, f"{model.joint(j).name} leaves home by {gone:.3g}"


@pytest.mark.parametrize("name", ASKED)
def test_what_cannot_be_right_is_asked_or_refused(name, tmp_path):
    case, message = ASKED[name]
    path = case.write(tmp_path)
    heavy = case.reference(path)
    file = declare(case, path, entry("mass", heavy.body(heaviest(heavy)).name, "scale", 0.5, 2))
    try:
        robot, _ = check_robot(str(path), file)
        said = robot.questions
    except ValueError as error:
        said = [str(error)]
    assert any(re.search(message, text) for text in said), said
    with pytest.raises(ValueError, match=message) as caught:
        make_family(RobotSettings(str(path), file))
    assert len(str(caught.value)) < 2000


def test_keyframes_that_are_not_home_are_mentioned(tmp_path):
    path = CASES["keyframes"].write(tmp_path)
    robot, _ = check_robot(str(path))
    said = " ".join([*robot.questions, *(f"{f.subject} {f.value}" for f in robot.findings)])
    assert "stand" in said and "sit" in said


def test_a_force_above_the_urdfs_effort_acts_or_is_refused(tmp_path):
    """`force: 20` on joints whose effort is 8 and 5: no action saturates below 1."""
    case = Case(CASES["urdf_motor"].text, {"actuators": {"kind": "motor", "force": 20}})
    path = case.write(tmp_path)
    file = declare(case, path, entry("mass", "fore", "scale", 0.5, 2))
    try:
        family = make_family(RobotSettings(str(path), file))
    except ValueError as error:
        refusal = str(error)
        assert re.search("effort|force", refusal)
        return
    model = family.compile(family.neutral())
    run = play(family, np.ones((1, 2)))
    data = mujoco.MjData(model)
    data.ctrl[:] = run.ctrl[0]
    mujoco.mj_forward(model, data)
    full = data.qfrc_actuator.copy()
    data.ctrl[:] = 0.9 * run.ctrl[0]
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.qfrc_actuator, 0.9 * full)


def test_every_quantity_has_a_probe():
    assert {*PROBES, *COMMANDS, *ELSEWHERE} == set(QUANTITIES)
    assert sorted(quantity for group in TOGETHER for quantity in group) == sorted(PROBES)


@pytest.mark.parametrize("quantity", PROBES)
def test_every_quantity_acts_somewhere(quantity):
    """No probe is made so that it never probes."""
    assert any((probe := PROBES[quantity](name)) and probe.effect for name in CASES)


@pytest.mark.parametrize("name", sampled(CASES, 6))
def test_every_quantity_does_what_it_says(name):
    """At its neutral value the robot is the file's; at both ends of a range what acts differs as the value says."""
    run_of(name)
    probes = {quantity: probe for quantity in PROBES if (probe := PROBES[quantity](name))}
    faults = []
    for quantity, probe in probes.items():
        if probe.effect is None and not isinstance(family_or_refusal(name, probe), str):
            faults.append(f"{quantity}: is not refused")
    for group in TOGETHER:
        acting = [probes[quantity] for quantity in group if quantity in probes and probes[quantity].effect]
        for family, members in families(name, acting, faults):
            faults += [said for check in checks(name, family, members) if (said := fault(*check))]
    assert not faults, "\n".join(faults)


def family_or_refusal(name: str, *probes: Probe) -> TaskFamily | str:
    """The family that varies all of them, or why it is refused."""
    try:
        return family_of(name, *(probe.entry for probe in probes))
    except ValueError as error:
        return str(error)


def families(name: str, group: list[Probe], faults: list[str]) -> Iterator[tuple[TaskFamily, list[Probe]]]:
    """One family that varies all; or one for each that can be varied, and what is said of the others."""
    if not group:
        return
    together = family_or_refusal(name, *group)
    if not isinstance(together, str):
        yield together, group
        return
    for probe in group:
        alone, quantity = family_or_refusal(name, probe), probe.entry["quantity"]
        if not isinstance(alone, str):
            yield alone, [probe]
        elif probe.entry["name"] not in alone or not (probe.refusable or quantity in CASES[name].refused):
            faults.append(f"{quantity}: refused: {alone}")


Check = tuple[str, Callable[..., None], tuple[Any, ...]]


def checks(name: str, family: TaskFamily, probes: list[Probe]) -> Iterator[Check]:
    """What is said of a check that fails, the check and what it takes."""
    neutral = family.compile(family.neutral())
    yield "at neutral values", assert_edits_nothing, (run_of(name), neutral)
    for probe in probes:
        yield probe.entry["quantity"], assert_acts, (name, family, probe)


def fault(what: str, check: Callable[..., None], given: tuple[Any, ...]) -> str:
    """What is wrong; empty if nothing is."""
    try:
        check(*given)
    except AssertionError as error:
        return f"{what}: {' '.join(str(error).split())[:300]}"
    return ""


def assert_acts(name: str, family: TaskFamily, probe: Probe) -> None:
    assert probe.effect is not None
    parameter = probe.entry["name"]
    now = probe.effect(family.compile(family.neutral()))
    np.testing.assert_allclose(now, probe.effect(reference_copy(name)), SAME, SAME, err_msg="at the neutral value")
    for value in probe.entry["range"]:
        task = family.task({parameter: value})
        model = family.compile(task)
        assert_same_bodies(family.picture(task).compile(), model)
        seen = probe.effect(model)
        wanted = probe.expected(now, value)
        np.testing.assert_allclose(seen, wanted, rtol=1e-6, atol=1e-9, err_msg=f"at {value:g}, neutral {now}")
        if value != family.neutral().values[parameter]:
            assert not np.allclose(seen, now, rtol=1e-9, atol=1e-12), f"{value:g} changes nothing"


def assert_edits_nothing(run: Run, neutral: mujoco.MjModel) -> None:
    """A family's neutral task is the robot that no parameter edits: in every number, or else in how it moves."""
    if not alike(neutral, run.model):
        assert_same_second(run, neutral)


def alike(a: mujoco.MjModel, b: mujoco.MjModel) -> bool:
    """Whether all arrays are the same but for rounding."""
    arrays = [name for name in dir(a) if isinstance(getattr(a, name), np.ndarray) and name != "_sizes"]
    assert len(arrays) > 300
    pairs = ((getattr(a, name), getattr(b, name)) for name in arrays)
    return all(x.shape == y.shape and (np.array_equal(x, y) or np.allclose(x, y, 1e-12, 1e-15)) for x, y in pairs)


@pytest.mark.parametrize("name", sampled(CASES, 6))
def test_a_command_edits_nothing(name):
    for quantity in COMMANDS:
        terms = {"track_velocity": 1, "track_yaw": 1} if quantity == "command_yaw" else {"track_velocity": 1}
        said = entry(quantity, None, None, 0.2, 0.8)
        if not moves(reference_of(name)):
            with pytest.raises(ValueError, match=r"track_velocity|fixed|varied_"):
                family_of(name, said, reward=terms)
            continue
        family = family_of(name, said, reward=terms)
        assert not family.edits_model
        assert_edits_nothing(run_of(name), family.compile(family.task({f"varied_{quantity}": 0.8})))
