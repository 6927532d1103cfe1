"""mujoco-warp on Warp's CPU device against C MuJoCo. Errors are the largest of any element of qpos, m or rad.

They are those of single precision, and grow with what a robot does: with controls in their whole range HalfCheetah is
4e-5 apart after 100 steps and 1e-3 at worst, where C MuJoCo itself departs by 2e-5 from a start 6e-8 aside. A contact
that begins within rounding of a step's end, 2e-7 m, is found a step apart by the two: 1e-4 to 3e-3 then, in about one
world of thirty.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import mujoco
import mujoco_warp
import numpy as np
import pytest
import torch

import metarl
from metarl.envs.batch import BatchedEnv
from metarl.envs.control import in_steps
from metarl.envs.family import TaskFamily
from metarl.envs.family_settings import FamilySettings
from metarl.envs.faults.settings import FaultKind
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family
from metarl.envs.robots.ant_settings import AntCrippledSettings, AntLegsSettings, AntLimbsSettings, AntTerrainSettings
from metarl.envs.robots.half_cheetah_settings import (
    HalfCheetahBodySettings,
    HalfCheetahDisabledJointSettings,
    HalfCheetahDynamicsSettings,
    HalfCheetahLimbsSettings,
    HalfCheetahMassSettings,
    HalfCheetahTerrainSettings,
)
from metarl.envs.robots.humanoid_settings import HumanoidDirectionSettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.quadruped_body_settings import QuadrupedBodySettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings, QuadrupedTerrainSettings
from metarl.envs.robots.walkers_settings import (
    HopperParametersSettings,
    Walker2dDynamicsSettings,
    Walker2dLimbsSettings,
    Walker2dParametersSettings,
)
from metarl.envs.simulation import CPU, Simulation, Unsupported
from metarl.envs.task import Task
from metarl.envs.warp.capacity import most_contacts
from metarl.envs.warp.models import FLAGS, PER_WORLD, mixed, raw
from metarl.envs.warp.simulation import WarpSimulation, simulator
from tests.sampling import sampled

WARP = simulator("cpu")
STEPS = 100
SHARE, STARTS, KEPT = 0.1, 5, 0.8
"""Of the controls' range; starts that a task is tried from until no contact begins in rounding; tasks that need one."""
AGREEMENT = 1e-5
QUADRUPED = QuadrupedSettings(
    physics="exact",
    kp=(20.0, 50.0),
    kd=(0.3, 1.0),
    joint_damping=(0.01, 0.1),
    joint_friction=(0.0, 0.5),
    armature=(0.8, 1.2),
    com_x=(-0.05, 0.05),
    com_y=(-0.05, 0.05),
    com_z=(-0.05, 0.05),
    weak_joints=("FR_calf",),
    locked_joints=("FL_thigh",),
    slope=(0.0, 0.3),
)
FLAT: dict[str, tuple[FamilySettings, ...]] = {
    "point": (PointGoalSettings(),),
    "cheetah": (HalfCheetahMassSettings(), HalfCheetahDisabledJointSettings(), HalfCheetahDynamicsSettings()),
    "cheetah by its shape": (HalfCheetahBodySettings(), HalfCheetahLimbsSettings()),
    "ant": (AntCrippledSettings(), AntLimbsSettings()),
    "ant with other legs": (AntLegsSettings(),),
    "humanoid": (HumanoidDirectionSettings(),),
    "hopper": (HopperParametersSettings(),),
    "walker": (Walker2dParametersSettings(), Walker2dLimbsSettings(), Walker2dDynamicsSettings(timestep=0.004)),
    "quadruped": (QUADRUPED,),
    "quadruped's body": (QuadrupedBodySettings(physics="exact"),),
    "own robot": (RobotSettings(),),
}
"""Every parameter that edits a model, those of one robot in one simulation; other families differ in the reward."""
TERRAIN = {
    "cheetah on terrain": (HalfCheetahTerrainSettings(),),
    "quadruped on terrain": (QuadrupedTerrainSettings(physics="exact"),),
}
EDITING: tuple[FaultKind, ...] = ("dead", "weak", "stuck", "saturated", "locked", "short_leg")
"""Faults that edit the model."""
Case = tuple[TaskFamily, Task]


def name_of(settings: FamilySettings) -> str:
    return type(settings).__name__.removesuffix("Settings")


def one_each(settings: Sequence[FamilySettings]) -> dict[str, Case]:
    """Tasks of one layout, each with one parameter away from neutral; and by family one of none and one of all away."""
    rng, cases = np.random.default_rng(3), {}
    for family in map(make_family, settings):
        away = {}
        for parameter in family.parameters:
            if parameter.name in family.layout or (parameter.law.edit is None and family.edit is None):
                continue
            drawn = (parameter.sample(rng, "train") for _ in range(100))
            away[parameter.name] = next(value for value in drawn if value != parameter.neutral)
        values = {"none": {}, **{name: {name: value} for name, value in away.items()}, "all": away}
        cases |= {f"{family.name}: {name}": (family, family.task(of)) for name, of in values.items()}
    return cases


def alike(cases: dict[str, Case]) -> list[list[str]]:
    """Names of tasks whose models have as many pairs: a robot of one's own gets them with another friction."""
    pairs = {name: family.compile(task).npair for name, (family, task) in cases.items()}
    return [[name for name in cases if pairs[name] == count] for count in sorted(set(pairs.values()))]


def both(models: Sequence[mujoco.MjModel]) -> tuple[WarpSimulation, Simulation]:
    """One simulation of each model, by mujoco-warp and by C MuJoCo."""
    pair = []
    for make in (WARP.make, CPU.make):
        simulation = make(models[0], len(models), 1)
        simulation.take(models)
        simulation.assign(simulation.array(np.arange(len(models))))
        simulation.reset(simulation.array(np.ones(len(models), dtype=bool)))
        pair.append(simulation)
    return pair[0], pair[1]


def start(families: Sequence[TaskFamily], models: Sequence[mujoco.MjModel], *simulations: Simulation, seed: int = 1):
    """The same start of an episode in all of them, of numbers that single precision has."""
    rng = np.random.default_rng(seed)
    starts = [family.reset(model, rng, 1) for family, model in zip(families, models, strict=True)]
    for field, values in zip(("qpos", "qvel"), zip(*starts, strict=True), strict=True):
        for simulation in simulations:
            simulation.bind(field)[...] = simulation.array(np.concatenate(values).astype(np.float32).astype(float))
    for simulation in simulations:
        simulation.forward(simulation.array(np.ones(len(models), dtype=bool)))


def controls(model: mujoco.MjModel, worlds: int) -> Callable[[int], np.ndarray]:
    """Random control signals within a share of their range, held for 5 simulation steps."""
    rng = np.random.default_rng(2)
    low, high = np.where(model.actuator_ctrllimited[:, None], model.actuator_ctrlrange, (-1.0, 1.0)).T
    held = [rng.uniform(low, high, (worlds, model.nu)) for _ in range(STEPS // 5)]
    return lambda i: ((low + high) / 2 + SHARE * (held[i // 5] - (low + high) / 2)).astype(np.float32).astype(float)


def departures(cases: Sequence[Case], seed: int = 1) -> np.ndarray:
    """[STEPS, worlds] errors of qpos."""
    models = [family.compile(task) for family, task in cases]
    warp, c = both(models)
    start([family for family, _ in cases], models, warp, c, seed=seed)
    every, signals = np.ones(len(models), dtype=bool), controls(models[0], len(models))
    errors = np.zeros((STEPS, len(models)))
    for i in range(STEPS):
        for simulation in (warp, c):
            simulation.bind("ctrl")[...] = simulation.array(signals(i))
            simulation.step(simulation.array(every), 1)
        errors[i] = np.abs(warp.host(warp.bind("qpos")) - c.bind("qpos")).max(axis=1)
    assert not warp.overflows()
    return errors


LIKE_HOPPER = ("walker", "humanoid", "cheetah")
"""Robots whose laws others have too: their test is one of the slow ones."""
QUICK = ("point", "cheetah by its shape")


def marks(robot: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if robot in LIKE_HOPPER else [pytest.mark.thorough] if robot not in QUICK else []


@pytest.mark.parametrize("robot", [pytest.param(name, marks=marks(name)) for name in FLAT])
def test_every_parameter_of_every_flat_family_agrees_with_mujoco_over_a_hundred_steps(robot: str):
    cases = one_each(FLAT[robot])
    for names in alike(cases):
        left, apart, found = names, 0, {}
        for seed in range(STARTS):
            errors = departures([cases[name] for name in left], seed=seed).max(axis=0)
            found = dict(zip(left, errors.tolist(), strict=True))
            left = [name for name, error in found.items() if error >= AGREEMENT]
            apart = apart or len(left)
            if not left:
                break
        assert not left, found
        assert apart <= max(1, (1 - KEPT) * len(names)), found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "place", "kinds"),
    [
        (QuadrupedSettings(physics="exact"), "FR_calf", (*EDITING, "delay")),
        (HalfCheetahMassSettings(), "bshin", (*EDITING, "delay")),
        (AntCrippledSettings(), "hip_1", EDITING),
    ],
)
def test_every_fault_that_edits_a_model_agrees_with_mujoco(settings: FamilySettings, place: str, kinds: tuple):
    """A delay within Runge and Kutta's stages does not: the two read the old signals at other moments of a step."""
    family = make_family(dataclasses.replace(settings, faults=kinds, fault_places=(place,)))
    faults = (
        {"fault_kind": float(k), "fault_place": float(k > 0), "fault_severity": 0.5} for k in range(len(kinds) + 1)
    )
    cases = [(family, family.task(each)) for each in faults]
    errors = np.min([departures(cases, seed=seed).max(axis=0) for seed in range(3)], axis=0)
    assert errors.max() < AGREEMENT


@pytest.mark.parametrize("robot", sampled([*FLAT, *TERRAIN], 4))
def test_the_rows_of_the_worlds_are_what_put_model_makes_of_each_model(robot: str):
    cases = one_each({**FLAT, **TERRAIN}[robot])
    models = [family.compile(task) for family, task in (cases[name] for name in alike(cases)[-1])]
    mix = mixed(models)
    simulation = both(models)[0]
    simulation.assign(simulation.array(np.arange(len(models))[::-1].copy()))
    for world, model in enumerate(mix.models[::-1]):
        model.opt.solver = raw(model, "opt.solver")
        made = mujoco_warp.put_model(model)
        for name in PER_WORLD:
            row, own = row_of(simulation._model, name, world), row_of(made, name, 0)
            if name == "geom_dataid" and mix.grounds:
                ground = model.geom_type == mujoco.mjtGeom.mjGEOM_HFIELD
                assert (row[ground] == len(models) - 1 - world).all()
                row[ground] = own[ground]
            assert np.array_equal(row, own), (name, world)
        for flag in FLAGS:
            assert getattr(simulation._model, flag) >= getattr(made, flag), flag


def row_of(model: mujoco_warp.Model, name: str, world: int) -> np.ndarray:
    """A world's values of a field, as kernels read them."""
    values = (getattr(model.opt, name[4:]) if name.startswith("opt.") else getattr(model, name)).numpy()
    return values[world % len(values)]


@pytest.mark.thorough
def test_grounds_are_each_worlds_own_and_hold_robots_up_as_mujocos_do():
    family = make_family(QuadrupedTerrainSettings())
    tasks = [terrain(family, kind, 0.6, seed) for seed, kind in enumerate((0, 1, 2, 4, 5))]  # the first is a plane
    errors = departures([(family, task) for task in tasks])
    assert errors[:5].max() < AGREEMENT  # in the air
    assert errors[-1].max() < 0.05  # m or rad, half a second later, on ground that is felt as other prisms


@pytest.mark.parametrize("kind", [0, 2, 4])
def test_a_margin_is_no_part_of_a_contacts_distance_on_uneven_ground(kind: int):
    """The ant's geoms have one. mujoco-warp alone finds them 3 cm too deep: contact forces then lift it."""
    family = make_family(AntTerrainSettings())
    model = family.compile(terrain(family, kind, 0.7, 0.3))
    rough = family.compile(terrain(family, 4, 0.7, 0.3))
    ours, theirs, rng = WARP.make(model, 2, 1), mujoco.MjData(model), np.random.default_rng(0)
    ours.take([model, rough])
    ours.assign(ours.array(np.arange(2)))
    both_worlds = ours.array(np.ones(2, dtype=bool))
    ours.reset(both_worlds)
    met, errors, deeper = 0, [], []
    for step in range(300):
        if step % 5 == 0:
            theirs.ctrl[:] = rng.uniform(-1, 1, model.nu)
        mujoco.mj_step(model, theirs)
        if step % 10 == 9:
            for name in ("qpos", "qvel", "ctrl"):
                ours.bind(name)[...] = ours.array(np.tile(getattr(theirs, name), (2, 1)))
            ours.forward(both_worlds)
            mujoco.mj_forward(model, theirs)
            errors.append(np.abs(ours.bind("qacc")[0].numpy() - theirs.qacc).max() / np.abs(theirs.qacc).max())
            contact, count = ours._data.contact, int(ours._data.nacon.numpy()[0])
            own = contact.dist.numpy()[:count][contact.worldid.numpy()[:count] == 0]
            if theirs.ncon and len(own):
                met += 1
                deeper.append(abs(own.min() - theirs.contact.dist.min()))
    assert met > 5 and np.median(deeper) < 1e-4 and max(deeper) < 2e-3
    assert np.quantile(errors, 0.8) < 0.1


def terrain(family: TaskFamily, kind: float, difficulty: float, seed: float) -> Task:
    return family.task({"terrain_kind": kind, "terrain_difficulty": difficulty, "terrain_seed": seed})


FIELDS = (
    *("xpos", "xquat", "xmat", "xipos", "geom_xpos", "geom_xmat", "subtree_com", "cinert", "cvel", "qacc"),
    *("sensordata", "actuator_force", "actuator_velocity", "qfrc_actuator", "time"),
)


@pytest.mark.thorough
@pytest.mark.parametrize("settings", [AntLimbsSettings(), QUADRUPED], ids=name_of)
def test_fields_have_mujocos_shapes_and_are_those_of_the_last_steps_start(settings: FamilySettings):
    family = make_family(settings)
    models = [family.compile(task) for task in family.sample(3, np.random.default_rng(0))]
    warp, c = both(models)
    fields = (*FIELDS, "cfrc_ext") if warp._model.sensor_rne_postconstraint else FIELDS
    for simulation in (warp, c):
        for name in fields:
            simulation.bind(name)
    start([family] * len(models), models, warp, c)
    signals = controls(models[0], len(models))
    for i in range(0, 40, 4):
        for simulation in (warp, c):
            simulation.bind("ctrl")[...] = simulation.array(signals(i))
            simulation.step(simulation.array(np.ones(len(models), dtype=bool)), 4)
    for name in fields:
        ours, theirs = warp.host(warp.bind(name)), c.bind(name)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max(initial=0) < 1e-3 * max(1, np.abs(theirs).max(initial=0)), name


def test_contact_forces_are_computed_where_they_are_asked_for_without_a_sensor():
    family = make_family(QUADRUPED)
    model = family.compile(family.neutral())
    warp, data = both([model])[0], mujoco.MjData(model)
    forces = warp.bind("cfrc_ext")
    data.qpos[2] -= 0.03
    mujoco.mj_forward(model, data)
    mujoco.mj_rnePostConstraint(model, data)
    warp.bind("qpos")[0, 2] -= 0.03
    warp.forward(chosen(warp, 0))
    assert np.abs(data.cfrc_ext).max() > 10
    assert np.allclose(forces[0].numpy(), data.cfrc_ext, atol=1e-3 * np.abs(data.cfrc_ext).max())


def cheetahs(worlds: int = 3) -> tuple[TaskFamily, list[mujoco.MjModel]]:
    family = make_family(HalfCheetahMassSettings())
    return family, [family.compile(family.task({"mass_scale": 0.8 + 0.2 * k})) for k in range(worlds)]


def chosen(simulation: Simulation, *worlds: int) -> torch.Tensor:
    mask = np.zeros(simulation.num_sims, dtype=bool)
    mask[list(worlds)] = True
    return simulation.array(mask)


def run(simulation: Simulation, steps: int) -> np.ndarray:
    """qpos after steps without control."""
    simulation.step(chosen(simulation, *range(simulation.num_sims)), steps)
    return simulation.host(simulation.bind("qpos")).copy()


def test_arrays_are_shared_with_warp_in_single_precision_and_keys_keep_their_bits():
    _, models = cheetahs()
    simulation = both(models)[0]
    qpos = simulation.bind("qpos")
    qpos[1, 2] = 0.25
    assert simulation._data.qpos.numpy()[1, 2] == 0.25
    assert simulation.bind("qpos") is qpos
    keys = np.array([2**64 - 1, 5], dtype=np.uint64)
    assert np.array_equal(simulation.host(simulation.array(keys)).view(np.uint64), keys)
    assert simulation.array(np.zeros(2)).dtype == torch.float32
    assert simulation.array(np.zeros(2, dtype=bool)).dtype == torch.bool


def test_a_field_that_mujoco_warp_lacks_is_refused_by_name():
    simulation = both(cheetahs()[1])[0]
    for name in ("ncon", "contact", "qM", "naconmax"):
        with pytest.raises(ValueError, match=f"no field '{name}' .* use simulator cpu"):
            simulation.bind(name)


def test_a_faulted_world_is_flagged_harms_no_other_and_is_as_new_after_a_reset():
    family, models = cheetahs()
    sound, broken = both(models)[0], both(models)[0]
    for simulation in (sound, broken):
        start([family] * len(models), models, simulation)
    broken.bind("qvel")[1, 4] = float("nan")
    broken.bind("qfrc_applied")[1, 4] = float("inf")
    before = run(sound, 20), run(broken, 20)
    assert broken.host(broken.faulted()).tolist() == [False, True, False]
    assert not broken.faulted().any()
    assert np.array_equal(before[0][[0, 2]], before[1][[0, 2]])
    assert np.isfinite(before[1]).all()
    broken.bind("qpos")[2, 0] = 1e11
    run(broken, 1)
    assert broken.host(broken.faulted()).tolist() == [False, False, True]
    for simulation in (sound, broken):
        simulation.reset(chosen(simulation, 0, 1, 2))
        start([family] * len(models), models, simulation)
    assert np.array_equal(run(sound, 20), run(broken, 20))


def test_reset_and_forward_of_some_worlds_leave_the_others_as_they_were():
    family = make_family(dataclasses.replace(QUADRUPED, action_delay=(0.01, 0.02)))
    models = [family.compile(task) for task in family.sample(3, np.random.default_rng(0))]
    once, again = both(models)[0], both(models)[0]
    for simulation in (once, again):
        for name in ("xpos", "qfrc_actuator"):
            simulation.bind(name)
        start([family] * len(models), models, simulation)
        simulation.bind("ctrl")[...] = 0.3
        run(simulation, 10)
    seen = [again.host(again.bind(name)).copy() for name in ("xpos", "qfrc_actuator", "qacc_warmstart", "history")]
    again.reset(chosen(again, 1))
    again.forward(chosen(again, 1))
    for name, before in zip(("xpos", "qfrc_actuator", "qacc_warmstart", "history"), seen, strict=True):
        assert np.array_equal(again.host(again.bind(name))[[0, 2]], before[[0, 2]]), name
    fresh = mujoco.MjData(models[1])
    assert np.allclose(again.host(again.bind("history"))[1], fresh.history, atol=1e-6)
    assert np.allclose(again.host(again.bind("qpos"))[1], models[1].qpos0, atol=1e-6)
    assert again.host(again.bind("time"))[1] == 0
    assert np.array_equal(run(once, 10)[[0, 2]], run(again, 10)[[0, 2]])


def test_new_tasks_are_written_where_the_old_ones_were_and_bound_fields_stay():
    family, models = cheetahs()
    simulation = WARP.make(family.compile(family.neutral()), 3, 1)
    qpos = simulation.bind("qpos")
    simulation.take(models)
    recorded, rows = simulation._recorded, simulation._model.body_mass
    simulation.take(models[::-1])
    simulation.assign(simulation.array(np.array([2, 2, 0])))
    assert (simulation._recorded, simulation._model.body_mass) == (recorded, rows)
    assert np.allclose(rows.numpy(), [models[0].body_mass, models[0].body_mass, models[2].body_mass])
    simulation.take([family.compile(family.neutral())] * 3)  # of which none differs
    assert simulation._recorded == recorded
    simulation.take(models[:2])
    assert simulation._recorded > recorded
    qpos[:] = 7
    assert (simulation._data.qpos.numpy() == 7).all()


def test_what_cannot_vary_is_refused_by_name_with_what_to_do():
    models = cheetahs()[1]
    models[1].geom_contype[2] = 2
    message = "cannot vary geom_contype from task to task .task 1 differs in geom 'head'.*; use simulator cpu, or"
    with pytest.raises(ValueError, match=message):
        mixed(models)
    models = cheetahs()[1]
    models[2].opt.integrator = mujoco.mjtIntegrator.mjINT_RK4
    with pytest.raises(ValueError, match=r"cannot vary opt.integrator .*task 2 has 1, task 0 has 0"):
        mixed(models)
    legs = make_family(AntLegsSettings())
    others = [legs.compile(legs.task({"legs": count})) for count in (4.0, 6.0)]
    with pytest.raises(ValueError, match=r"cannot vary \w+ from task to task"):
        mixed(others)


ARM = """
<mujoco><option timestep=".005"/><worldbody>
<body pos="0 0 1"><joint name="a" axis="0 1 0" damping="1" stiffness="5" {joint}/>
<geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/><body pos=".3 0 0"><joint name="b" axis="0 1 0" damping="1"/>
<geom type="capsule" fromto="0 0 0 .3 0 0" size=".02"/></body></body></worldbody>
<tendon><fixed name="t"><joint joint="a" coef="1"/><joint joint="b" coef="-1"/></fixed></tendon>
<actuator><motor name="m" {actuator}/></actuator>{sensor}</mujoco>"""


def arms(*actuators: str, joint: str = "", sensor: str = "") -> list[mujoco.MjModel]:
    return [mujoco.MjModel.from_xml_string(ARM.format(actuator=own, joint=joint, sensor=sensor)) for own in actuators]


def apart(models: list[mujoco.MjModel], steps: int, field: str, begin: float = 0.0) -> float:
    """The largest difference of a field over steps of random signals. begin: time of the first step, s."""
    pair, rng = both(models), np.random.default_rng(0)
    every, worst = np.ones(len(models), dtype=bool), 0.0
    for simulation in pair:
        simulation.bind("time")[...] = simulation.array(np.full(len(models), np.float32(begin), dtype=float))
        simulation.forward(simulation.array(every))
    for _ in range(steps):
        signal = rng.uniform(-1, 1, (len(models), 1)).astype(np.float32).astype(float)
        for simulation in pair:
            simulation.bind("ctrl")[...] = simulation.array(signal)
            simulation.step(simulation.array(every), 1)
        here, there = (simulation.host(simulation.bind(field)) for simulation in pair)
        worst = max(worst, float(np.abs(here - there).max()))
    return worst


def test_rotors_that_actuators_have_are_felt_at_joints_and_tendons_alone_or_in_some_tasks():
    """An arm with its rotor is ten times as hard to start as without."""
    for target in ('joint="a"', 'tendon="t"'):
        with_rotor = f'{target} gear="3" armature=".02"'
        assert apart(arms(with_rotor), 60, "qvel") < 1e-4
        assert apart(arms(with_rotor, f'{target} gear="3"', f'{target} gear="3" armature=".05"'), 60, "qvel") < 1e-4
    models = arms('joint="a" gear="3" armature=".02"', 'joint="a" gear="3"')
    assert np.abs(mixed(models).table("dof_armature")[:, 0] - [0.18, 0.0]).max() < 1e-9


def test_a_delay_is_as_many_steps_late_in_a_long_episode_as_at_first():
    """Single precision has 2 microseconds of time after 16 s, and no sum of steps is a whole number of them."""
    motors = [f'joint="a" delay="{in_steps(0.005 * k, 0.005)!r}" nsample="8"' for k in (1, 2, 3, 4)]
    assert apart(arms(*motors), 40, "actuator_force") < 1e-5
    assert apart(arms(*motors), 80, "actuator_force", begin=15.9) < 1e-5
    between = [f'joint="a" delay="{0.005 * k!r}" nsample="8" interp="linear"' for k in (1.5, 2.25)]
    assert apart(arms(*between), 40, "actuator_force") < 1e-2


@pytest.mark.parametrize(
    ("joint", "actuator", "sensor", "said"),
    [
        ('range="-5 5" limited="true" margin=".1"', 'joint="a"', "", "margin of jnt 'a'"),
        ("", 'joint="a"', '<sensor><jointvel name="s" joint="a" interval=".01" nsample="4"/></sensor>', "sensor 's'"),
    ],
)
def test_what_mujoco_warp_does_otherwise_is_refused_by_name(joint: str, actuator: str, sensor: str, said: str):
    with pytest.raises(Unsupported, match=f"{said}.*; use simulator cpu, or"):
        mixed(arms(actuator, joint=joint, sensor=sensor))


def test_lost_contacts_are_counted_by_reason():
    family, models = cheetahs(2)
    simulation = both(models)[0]
    simulation._data.njmax = 3  # as if there were room for less than a robot that lies
    start([family] * len(models), models, simulation)
    run(simulation, 60)
    assert 0 < simulation.overflows()["NEFC"] <= 120
    assert set(simulation.overflows()) == {"NEFC"}


def test_there_is_room_for_the_contacts_of_a_robot_that_falls_from_high():
    model = mujoco.MjModel.from_xml_string(BOX)
    data, most = mujoco.MjData(model), 0
    for _ in range(600):
        mujoco.mj_step(model, data)
        most = max(most, data.ncon)
    contacts, rows = most_contacts([model])
    assert contacts >= most >= 4 and rows >= 4 * most


BOX = """<mujoco><worldbody><geom type="plane" size="0 0 1"/><body pos="0 0 1"><freejoint/>
  <geom type="box" size=".1 .1 .03" mass="1"/></body></worldbody></mujoco>"""


def test_episodes_of_a_batched_env_are_those_of_the_cpu():
    family = make_family(HalfCheetahMassSettings())
    tasks = family.sample(3, np.random.default_rng(4))
    envs = [BatchedEnv(family, 3, 2, 1, simulator=each) for each in (WARP, CPU)]
    rng, worst = np.random.default_rng(5), 0.0
    for env in envs:
        env.set_tasks(tasks)
    first = [env.reset([np.random.default_rng(m) for m in range(3)]) for env in envs]
    assert np.allclose(envs[0].simulation.host(first[0]), first[1], atol=1e-5)
    for _ in range(20):
        actions = 0.1 * rng.uniform(-1, 1, (3, 2, family.action_size))
        ours, theirs = (env.step(env.simulation.array(actions)) for env in envs)
        for name in ("observations", "rewards"):
            worst = max(worst, np.abs(getattr(ours, name).numpy() - getattr(theirs, name)).max())
        assert np.array_equal(ours.terminated.numpy(), theirs.terminated)
    assert worst < 1e-3  # observations hold rad/s, rewards the change of a place over 0.05 s


SLED = """<mujoco><option timestep="0.005"/><worldbody><geom name="floor" type="plane" size="5 5 .1"/>
  <body name="sled" pos="0 0 .05"><freejoint/><geom name="sole" type="box" size=".1 .1 .05" mass="3"/>
    <body name="arm" pos="0 0 .05"><joint name="lift" axis="0 1 0" damping="1"/>
      <geom name="arm" type="capsule" size=".02" fromto="0 0 0 0 0 .2" mass=".2" contype="0" conaffinity="0"/></body>
  </body></worldbody><actuator><motor name="lift" joint="lift" ctrlrange="-1 1"/></actuator></mujoco>"""


def test_a_friction_that_is_the_models_own_is_simulated_beside_others(tmp_path: Path):
    """Each world slides as far as MuJoCo's robot of that friction, the neutral one as the user's own model."""
    frictions = (0.4, 1.0, 1.6)
    grip = {"name": "grip", "target": "sole", "quantity": "friction", "operation": "set"}
    (tmp_path / "sled.xml").write_text(SLED)
    family = metarl.declare_robot(
        tmp_path / "sled.xml",
        {"reward": {"alive": 1}, "distribution": [{**grip, "distribution": "choice", "range": list(frictions)}]},
    )
    models = [family.compile(family.task({"grip": value})) for value in frictions]
    warp, _ = both(models)
    slid = []
    speed = np.zeros((3, models[0].nv))
    speed[:, 0] = 2.0
    warp.bind("qvel")[:] = warp.array(speed)
    for value in frictions:
        text = SLED if value == 1.0 else SLED.replace('size="5 5 .1"', f'size="5 5 .1" friction="{value}" priority="1"')
        model = mujoco.MjModel.from_xml_string(text)
        data = mujoco.MjData(model)
        data.qvel[0] = 2.0
        mujoco.mj_step(model, data, STEPS)
        slid.append(data.qpos[0])
    warp.forward(chosen(warp, 0, 1, 2))
    warp.step(chosen(warp, 0, 1, 2), STEPS)
    assert slid[0] > slid[1] > slid[2] > 0.05
    np.testing.assert_allclose(warp.host(warp.bind("qpos"))[:, 0], slid, rtol=1e-2)


def test_without_its_packages_the_error_says_what_to_install():
    code = "import sys; sys.modules['mujoco_warp'] = None; import metarl.envs.warp.simulation"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().splitlines()[-1].endswith("pip install metarl-robotics[gpu]")
