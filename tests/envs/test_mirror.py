"""Tasks that are met in a mirror: to the agent they are the tasks on the other side, as MuJoCo simulates those."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.mirror.images import symmetry_of
from metarl.envs.mirror.mirrored import closed, mirrored
from metarl.envs.mirror.symmetry import Asymmetric
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.reveal import informed, privileged_names, reveal, told
from metarl.envs.robots.ant_settings import AntCrippledSettings, AntGoalSettings, AntLimbsSettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.quadruped_robot import JOINTS
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.simulation import CPU, Simulator
from metarl.envs.task import Task
from tests.envs.torch_simulation import TORCH

STEPS = 30
ANT = make_family(AntCrippledSettings())
SYMMETRY = symmetry_of(ANT)
CLOSED = closed(ANT, SYMMETRY)
MIRRORED = mirrored(CLOSED, SYMMETRY)
OTHER_LEG = (3, 2, 1, 0)
"""Leg on the other side of the x-z plane, counted from 0."""
SIZES = [(limb, size) for limb in ("hip", "ankle") for size in ("length", "thickness")]
DOG = QuadrupedSettings(faults=("dead",), sensor_noise=(0.0, 1.0))


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


def test_what_is_told_is_the_task_in_the_mirror():
    tasks = [dataclasses.replace(ANT.task({"crippled_leg": leg}), mirrored=side) for leg in (0, 1) for side in (0, 1)]
    expected = np.eye(4)[[0, 3, 1, 2]]
    np.testing.assert_array_equal(told(MIRRORED, tasks), expected)
    env = playing(MIRRORED, tasks, telling=True)
    np.testing.assert_array_equal(env.privileged[:, 0], expected)
    family = mirrored(informed(CLOSED), SYMMETRY)
    seen, _ = observed(playing(family, tasks), actions_of(8)[:3])
    np.testing.assert_array_equal(seen[..., -4:], np.broadcast_to(expected, (3, 4, 4)))


def test_an_oracle_reads_the_categories_that_training_met_in_a_mirror_alone():
    seen = reveal(CLOSED), reveal(ANT)
    shown = [playing(family, [ANT.task({"crippled_leg": 3})]).observations[0, 0, -4:] for family in seen]
    np.testing.assert_array_equal(shown, [[0, 0, 0, 1], [0, 0, 0, 0]])


def test_a_task_in_the_mirror_is_another_one_and_is_read_back():
    task = dataclasses.replace(ANT.task({"crippled_leg": 0}), mirrored=True)
    assert task.id != ANT.task({"crippled_leg": 0}).id and Task.from_json(task.to_json()) == task
    assert "mirrored" not in ANT.task({}).to_json() and ANT.own(task).mirrored


def test_of_each_element_of_the_quadruped_the_image_is_that_of_its_name(dog):
    """The mirror is found by simulation; the names say what it must be: FR for FL, RR for RL, and the sign of a vector
    along y, of one of rotation along x and z, and of a hip."""
    swap = str.maketrans({"R": "L", "L": "R"})

    def image(name: str) -> str:
        leg = name.removeprefix("true_").partition(" ")[0]
        return name[0] + name[1].translate(swap) + name[2:] if leg[:2] in ("FR", "FL", "RR", "RL") else name

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
                expected, sign = name.replace(joint, joint[0] + joint[1].translate(swap) + joint[2:]), 1
            elif name.startswith("task_"):
                expected, sign = name, -1 if name == "task_payload_y" else 1
            else:
                expected, sign = image(name), -1 if turns(name) and "contact" not in name else 1
            assert (names[reflection.places[i]], reflection.signs[i]) == (expected, sign), name
    left = [JOINTS.index(joint[0] + joint[1].translate(swap) + joint[2:]) for joint in JOINTS]
    np.testing.assert_array_equal(dog.mirror.actions.places, left)
    np.testing.assert_array_equal(dog.mirror.actions.signs, [-1 if "hip" in joint else 1 for joint in JOINTS])


def test_a_robot_that_is_nearly_its_own_image_says_by_how_much(dog):
    """The Go1's trunk has its centre of mass 2 mm off the middle."""
    assert MIRRORED.mirror is not None and not MIRRORED.mirror.note
    assert max(MIRRORED.mirror.motion_apart, MIRRORED.mirror.reward_apart) < 1e-4
    assert 1e-4 < dog.mirror.motion_apart < 0.1
    note = dataclasses.replace(dog.mirror, motion_apart=0.03, reward_apart=0.002).note
    assert "motion differs from the image's by 3%, and its reward by 0%" in note


def test_where_an_angle_goes_is_found():
    family = in_mirrors(make_family(AntGoalSettings()))
    task = family.task({"goal_angle": 1.0, "goal_radius": 2.0})
    own, image = told(family, [task, dataclasses.replace(task, mirrored=True)])
    expected = told(family, [family.task({"goal_angle": 2 * np.pi - 1.0, "goal_radius": 2.0})])[0]
    np.testing.assert_allclose(image, expected, atol=1e-6)
    assert abs(own[0] - image[0]) > 0.1


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
    [
        (lambda: with_gear(1.5), "no mirror image"),
        (lambda: with_joint_moved(0.02), "'hip_1' has no partner"),
        (lambda: make_family(QuadrupedSettings(weak_joints=("FR_calf",))), "no task moves and earns"),
        (lambda: make_family(FAMILY_SETTINGS["half_cheetah_mass"]()), "in the mirror's plane alone"),
        (lambda: make_family(FAMILY_SETTINGS["quadruped_terrain"]()), "ground is drawn from a seed"),
        (lambda: make_family(FAMILY_SETTINGS["ant_legs"]()), "different joints"),
    ],
)
def test_what_has_no_mirror_image_is_refused(family, reason: str):
    with pytest.raises(Asymmetric, match=reason):
        in_mirrors(family())


def test_a_point_goes_to_the_other_side():
    family = in_mirrors(make_family(PointGoalSettings()))
    assert family.mirror is not None
    np.testing.assert_array_equal(family.mirror.actions.signs, [1, -1])
    np.testing.assert_array_equal(family.mirror.told.signs, [1, -1])
