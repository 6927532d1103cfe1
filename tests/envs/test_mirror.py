"""Tasks that are met in a mirror: to the agent they are the tasks on the other side, as MuJoCo simulates those."""

from __future__ import annotations

import dataclasses
import functools

import mujoco
import numpy as np
import pytest

import metarl
from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.mirror.images import symmetry_of
from metarl.envs.mirror.mirrored import closed, mirrored
from metarl.envs.mirror.symmetry import Asymmetric
from metarl.envs.parameters import Law, Parameter, Uniform
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.reveal import informed, privileged_names, reveal, told
from metarl.envs.robots.ant_settings import AntCrippledSettings, AntGoalSettings, AntLimbsSettings, AntVelocitySettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.quadruped_robot import JOINTS
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.simulation import CPU, Simulator
from metarl.envs.task import Task
from tests.envs.torch_simulation import TORCH
from tests.sampling import sampled

STEPS = 30
ANT = make_family(AntCrippledSettings())
SYMMETRY = symmetry_of(ANT)
CLOSED = closed(ANT, SYMMETRY)
MIRRORED = mirrored(CLOSED, SYMMETRY)
OTHER_LEG = (3, 2, 1, 0)
"""Leg on the other side of the x-z plane, counted from 0."""
SIZES = [(limb, size) for limb in ("hip", "ankle") for size in ("length", "thickness")]
DOG = QuadrupedSettings(faults=("weak", "dead"), fault_share=0.5)


@pytest.fixture(scope="module")
def dog():
    return in_mirrors(make_family(DOG))


def in_mirrors(family: TaskFamily) -> TaskFamily:
    symmetry = symmetry_of(family)
    return mirrored(closed(family, symmetry), symmetry)


def in_mirror(values: np.ndarray) -> np.ndarray:
    """Positions of the ant's four legs, [..., 8] hip and ankle in turn, or actions on them, in the mirror."""
    legs = values.reshape(*values.shape[:-1], 4, 2)[..., OTHER_LEG, :]
    return (legs * [-1, 1]).reshape(values.shape)


def side(joint: str) -> str:
    """The joint, or what is named for it, on the other side."""
    return joint[0] + {"R": "L", "L": "R"}[joint[1]] + joint[2:]


def playing(family, tasks, simulator: Simulator = CPU, telling: bool = False) -> BatchedEnv:
    env = BatchedEnv(family, len(tasks), 1, 1, telling=telling, simulator=simulator)
    env.set_tasks(tasks)
    env.reset([np.random.default_rng(7) for _ in tasks])
    return env


def observed(env: BatchedEnv, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Observations [steps, M, obs] and rewards [steps, M]; actions: [steps, act], the same for all."""
    shape, seen, earned = (env.num_tasks, 1, actions.shape[-1]), [], []
    for action in actions:
        step = env.step(env.simulation.array(np.broadcast_to(action, shape).copy()))
        seen.append(env.simulation.host(step.observations)[:, 0].copy())
        earned.append(env.simulation.host(step.rewards)[:, 0].copy())
    return np.array(seen), np.array(earned)


def actions_of(size: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (STEPS, size))


@pytest.mark.parametrize("leg", [0, 1, 2])
def test_in_the_mirror_the_ant_is_the_one_whose_other_leg_is_crippled(leg: int):
    """MuJoCo alone, on the robot with the other leg off, from the start in the mirror by the formulas of a free joint:
    place (x, -y, z), quaternion (w, -x, y, -z), velocity (x, -y, z), angular velocity (-x, y, -z)."""
    env = playing(MIRRORED, [dataclasses.replace(ANT.task({"crippled_leg": leg}), mirrored=True)])
    model = ANT.compile(ANT.task({"crippled_leg": OTHER_LEG[leg]}))
    data, actions = mujoco.MjData(model), actions_of(8)
    (qpos,), (qvel,) = env.poses, env.simulation.bind("qvel")
    data.qpos = [*qpos[:7] * [1, -1, 1, 1, -1, 1, -1], *in_mirror(qpos[7:])]
    data.qvel = [*qvel[:6] * [1, -1, 1, -1, 1, -1], *in_mirror(qvel[6:])]
    expected = []
    for action in actions:
        data.ctrl = action * ANT.action_scale
        mujoco.mj_step(model, data, ANT.frame_skip)
        expected.append([*data.qpos[2:], *data.qvel])
    seen, _ = observed(env, actions)
    np.testing.assert_allclose(seen[:, 0], expected, atol=2e-4, rtol=1e-4)
    assert np.abs(seen[:, 0, 1:]).max() > 1


def test_tasks_that_are_not_mirrored_are_as_before_to_the_bit():
    tasks, actions = [ANT.task({"crippled_leg": leg}) for leg in range(3)], actions_of(8)
    for values, before in zip(
        observed(playing(MIRRORED, tasks), actions), observed(playing(ANT, tasks), actions), strict=True
    ):
        np.testing.assert_array_equal(values, before)


@pytest.mark.thorough
def test_what_is_told_is_the_task_in_the_mirror():
    tasks = [dataclasses.replace(ANT.task({"crippled_leg": leg}), mirrored=side) for leg in (0, 1) for side in (0, 1)]
    expected = np.eye(4)[[0, 3, 1, 2]]
    np.testing.assert_array_equal(told(MIRRORED, tasks), expected)
    env = playing(MIRRORED, tasks, telling=True)
    np.testing.assert_array_equal(env.privileged[:, 0], expected)
    family = mirrored(informed(CLOSED), SYMMETRY)
    seen, _ = observed(playing(family, tasks), actions_of(8)[:3])
    np.testing.assert_array_equal(seen[..., -4:], np.broadcast_to(expected, (3, 4, 4)))


def test_held_out_values_that_are_met_in_the_mirror_are_said():
    assert MIRRORED.mirror is not None and MIRRORED.mirror.unmet == ("crippled_leg",)
    assert any("have values of crippled_leg that are held out" in note for note in MIRRORED.mirror.notes)
    everywhere = in_mirrors(make_family(PointGoalSettings()))
    assert everywhere.mirror is not None and not any("held out" in note for note in everywhere.mirror.notes)


def test_an_oracle_reads_the_categories_that_training_met_in_a_mirror_alone():
    seen = reveal(CLOSED), reveal(ANT)
    shown = [playing(family, [ANT.task({"crippled_leg": 3})]).observations[0, 0, -4:] for family in seen]
    np.testing.assert_array_equal(shown, [[0, 0, 0, 1], [0, 0, 0, 0]])


def test_a_task_in_the_mirror_is_another_one_and_is_read_back():
    task = dataclasses.replace(ANT.task({"crippled_leg": 0}), mirrored=True)
    assert task.id != ANT.task({"crippled_leg": 0}).id and Task.from_json(task.to_json()) == task
    assert "mirrored" not in ANT.task({}).to_json() and ANT.own(task).mirrored


@pytest.mark.thorough
def test_of_each_element_of_the_quadruped_the_image_is_that_of_its_name(dog):
    """The mirror is found by simulation; the names say what it must be: FR for FL, RR for RL, and the sign of a vector
    along y, of one of rotation along x and z, and of a hip."""

    def image(name: str) -> str:
        return side(name) if name[:2] in ("FR", "FL", "RR", "RL") else name

    def turns(name: str) -> bool:
        plain = name.removeprefix("true_").partition(" ")[0]
        return "hip" in plain or plain in ("base_vy", "base_wx", "base_wz", "gravity_y", "command_vy", "command_wz")

    of = dog.mirror.observation, dog.mirror.privileged
    for reflection, names in zip(of, (dog.observation_names, privileged_names(dog)), strict=True):
        names = list(names)
        assert len(names) == len(reflection.places) > 10
        for i, name in enumerate(names):
            if name.startswith("task_fault_place="):
                joint = name.partition("=")[2]
                expected, sign = name.replace(joint, side(joint)), 1
            elif name.startswith("task_"):
                expected, sign = name, -1 if name == "task_payload_y" else 1
            else:
                expected, sign = image(name), -1 if turns(name) and "contact" not in name else 1
            assert (names[reflection.places[i]], reflection.signs[i]) == (expected, sign), name
    np.testing.assert_array_equal(dog.mirror.actions.places, [JOINTS.index(side(joint)) for joint in JOINTS])
    np.testing.assert_array_equal(dog.mirror.actions.signs, [-1 if "hip" in joint else 1 for joint in JOINTS])


def test_a_robot_that_is_nearly_its_own_image_says_by_how_much(dog):
    """The Go1's trunk has its centre of mass 2 mm off the middle."""
    assert MIRRORED.mirror is not None and not any("nearly its own" in note for note in MIRRORED.mirror.notes)
    assert max(MIRRORED.mirror.motion_apart, MIRRORED.mirror.reward_apart) < 1e-4
    assert 1e-4 < dog.mirror.motion_apart < 0.1
    far = dataclasses.replace(dog.mirror, motion_apart=0.03, reward_apart=0.002, never_varied=("a", "b"))
    assert "motion differs from the image's by 3%, and its reward by 0%" in far.notes[0]
    assert far.notes[1].startswith("a and 1 more did not vary")


@pytest.mark.thorough
def test_where_an_angle_goes_is_found():
    family = in_mirrors(make_family(AntGoalSettings()))
    task = family.task({"goal_angle": 1.0, "goal_radius": 2.0})
    own, image = told(family, [task, dataclasses.replace(task, mirrored=True)])
    expected = told(family, [family.task({"goal_angle": 2 * np.pi - 1.0, "goal_radius": 2.0})])[0]
    np.testing.assert_allclose(image, expected, atol=1e-6)
    assert abs(own[0] - image[0]) > 0.1


@pytest.mark.thorough
def test_limbs_of_two_sides_change_places():
    family = make_family(AntLimbsSettings(limbs="each"))
    expected = {f"{limb}_{i}_{size}": f"{limb}_{5 - i}_{size}" for i in (1, 2, 3, 4) for limb, size in SIZES}
    symmetry = symmetry_of(family)
    assert symmetry.partners == expected
    assert mirrored(closed(family, symmetry), symmetry).mirror.motion_apart < 1e-4


def test_on_torch_s_arrays_it_is_the_same_and_is_replayed():
    tasks = [dataclasses.replace(ANT.task({"crippled_leg": leg}), mirrored=side) for leg in (0, 1) for side in (0, 1)]
    expected, seen = (observed(playing(MIRRORED, tasks, simulator), actions_of(8)) for simulator in (CPU, TORCH))
    for values, others in zip(seen, expected, strict=True):
        np.testing.assert_allclose(values, others, rtol=1e-6, atol=1e-9)


def goes(family: TaskFamily, element: str) -> str:
    """The element that another is in the mirror, with its sign."""
    assert family.mirror is not None
    names = [e.name for e in family.elements]
    i, reflection = names.index(element), family.mirror.observation
    return ("-" if reflection.signs[i] < 0 else "") + names[reflection.places[i]]


def walker(y: float = 0.0, home: float = 0.0) -> mujoco.MjSpec:
    """A trunk on four legs of a hip about x and a leg about y; home: angle of the right front hip at home, rad."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(10, 10, 0.1))
    trunk = spec.worldbody.add_body(name="trunk", pos=(0, y, 0.32))
    trunk.add_freejoint(name="root")
    trunk.add_geom(name="trunk", type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.12, 0.06, 0.03), mass=2)
    for name, x, side in (("FR", 0.1, -0.08), ("FL", 0.1, 0.08), ("RR", -0.1, -0.08), ("RL", -0.1, 0.08)):
        hip = trunk.add_body(name=f"{name}_hip", pos=(x, side, 0))
        hip.add_geom(name=f"{name}_hip", size=(0.02, 0, 0), mass=0.1)
        leg = hip.add_body(name=f"{name}_leg")
        long = {"type": mujoco.mjtGeom.mjGEOM_CAPSULE, "size": (0.02, 0, 0), "fromto": (0, 0, 0, 0, 0, -0.28)}
        leg.add_geom(name=f"{name}_leg", mass=0.2, **long)
        for body, axis in ((hip, (1, 0, 0)), (leg, (0, 1, 0))):
            body.add_joint(name=body.name, axis=axis, range=(-0.8, 0.8), limited=True, damping=[0.1, 0, 0])
            motor = spec.add_actuator(name=body.name, target=body.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            motor.ctrlrange, motor.ctrllimited = (-3, 3), True
    spec.add_key(name="home", qpos=[0, y, 0.32, 1, 0, 0, 0, home, *[0] * 7])
    return spec


def own(*entries: dict, y: float = 0.0, home: float = 0.0, **said) -> TaskFamily:
    mass = {"name": "mass", "quantity": "mass", "target": "trunk", "operation": "scale", "range": (0.7, 1.5)}
    drawn = [{"distribution": "uniform", **entry} for entry in (mass, *entries)]
    robot = functools.partial(walker, y, home)
    return metarl.declare_robot(
        robot,
        {"reward": {"forward_velocity": {"weight": 1}}, "robot": {"keyframe": "home"}, "distribution": drawn} | said,
    )


def payload_y(low: float, high: float) -> list[dict]:
    on = {"target": "trunk", "operation": "set"}
    return [
        {"name": "load", "quantity": "payload", "range": (0.2, 1.0), **on},
        {"name": "load_y", "quantity": "payload_y", "range": (low, high), **on},
    ]


@pytest.mark.thorough
def test_a_history_is_mirrored_as_far_as_it_reaches():
    seen = {"joint_positions": {"history": 3, "noise": 0.006}, "last_action": {"history": 9}}
    family = in_mirrors(own(observation=seen))
    assert goes(family, "FR_hip - home 2 steps ago") == "-FL_hip - home 2 steps ago"
    assert goes(family, "action FR_hip 8 steps ago") == "-action FL_hip 8 steps ago"
    assert goes(family, "action RL_leg 8 steps ago") == "action RR_leg 8 steps ago"
    assert family.mirror is not None and not family.mirror.never_varied


def test_the_place_of_a_fault_that_is_told_is_the_one_on_the_other_side(dog):
    """Whichever places were drawn where the mirror was looked for."""
    tasks = [dog.task({"fault_kind": "dead", "fault_place": joint, "fault_severity": 0.7}) for joint in JOINTS]
    other = [dog.task({**t.values, "fault_place": side(j)}) for t, j in zip(tasks, JOINTS, strict=True)]
    met = [dataclasses.replace(task, mirrored=True) for task in tasks]
    np.testing.assert_array_equal(told(dog, met), told(dog, other))
    privileged = [playing(dog, each, telling=True).privileged[:, 0] for each in (met, other)]
    count = told(dog, met).shape[1]
    np.testing.assert_array_equal(privileged[0][:, :count], privileged[1][:, :count])


UNSEEN = Parameter("unseen", "m", Uniform(-1.0, 1.0), Law("of nothing"), neutral=0.0)


STILL = {"payload_mass": (0.0, 0.0), "friction": (0.8, 0.8), "motor_strength": (1.0, 1.0), "action_delay": (0.0, 0.0)}


def with_gear(number: float):
    """The ant with one motor of another strength."""

    def base() -> mujoco.MjSpec:
        spec = ANT.base()
        spec.actuators[0].gear[0] *= number
        return spec

    return dataclasses.replace(ANT, base=base)


def with_joint_moved(by: float):
    def base() -> mujoco.MjSpec:
        spec = ANT.base()
        spec.joint("hip_1").pos[0] += by
        return spec

    return dataclasses.replace(ANT, base=base)


@pytest.mark.parametrize(
    ("family", "reason"),
    sampled(
        [
            (lambda: with_gear(1.5), "no mirror image"),
            (lambda: with_joint_moved(0.02), "'hip_1' has no partner"),
            (lambda: make_family(QuadrupedSettings(weak_joints=("FR_calf",))), "no task moves and earns"),
            (lambda: make_family(FAMILY_SETTINGS["half_cheetah_mass"]()), "in the mirror's plane alone"),
            (lambda: make_family(FAMILY_SETTINGS["quadruped_terrain"]()), "ground is drawn from a seed"),
            (lambda: make_family(FAMILY_SETTINGS["ant_legs"]()), "different joints"),
            (
                lambda: make_family(AntVelocitySettings(faults=("encoder_offset",))),
                "hip_., which is observed, has no mirror",
            ),
            (
                lambda: make_family(QuadrupedSettings(faults=("weak", "encoder_drift"), **STILL)),
                "_hip, which is observed, is of the other sign in the mirror, and so is the fault encoder_drift",
            ),
            (lambda: own(*payload_y(-0.02, 0.05)), "has no mirror image"),
            (lambda: own(y=0.5), "'root' has no partner .* starts with its middle on that plane"),
            (lambda: own(home=0.1), "FR_hip - home, which is observed, has no mirror image"),
            (
                lambda: dataclasses.replace(own(), parameters=(*own().parameters, UNSEEN)),
                "what unseen becomes in a mirror is not",
            ),
        ],
        3,
    ),
)
def test_what_has_no_mirror_image_is_refused(family, reason: str):
    with pytest.raises(Asymmetric, match=reason):
        in_mirrors(family())


def test_a_point_goes_to_the_other_side():
    family = in_mirrors(make_family(PointGoalSettings()))
    assert family.mirror is not None
    np.testing.assert_array_equal(family.mirror.actions.signs, [1, -1])
    np.testing.assert_array_equal(family.mirror.told.signs, [1, -1])
