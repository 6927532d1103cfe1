"""Walking robots of three to six legs: with four the quadruped, and nothing of a leg that is not there counts."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.registry import make_family
from metarl.envs.reveal import privileged_names
from metarl.envs.robots.quadruped_legs_settings import QuadrupedLegsSettings
from metarl.envs.robots.quadruped_robot import JOINTS, MORE_LEGS, TIMESTEP, build
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.sharded import ShardedEnv

SETTINGS = QuadrupedLegsSettings(horizon=60)
FAMILY = make_family(SETTINGS)
STEPS = 40
LEG_MASS = 0.591 + 0.92 + 0.135862 + 0.06 + 3 * 0.089
"""Hip, thigh, calf and foot with three rotors, kg: see `quadruped_robot`."""


def tasks_of(numbers, **values):
    return [FAMILY.task({"legs": n, **values}) for n in numbers]


def play(family, tasks, actions):
    """Observations [steps + 1, M, obs] and rewards [steps, M] of an episode, and the sums of its reward's terms."""
    env = ShardedEnv(family, len(tasks), 1, 1, measuring=True)
    env.set_tasks(tasks)
    observations, rewards = [env.reset([np.random.default_rng(7) for _ in tasks])], []
    for action in actions:
        step = env.step(np.broadcast_to(action, (len(tasks), 1, family.action_size)))
        observations.append(step.observations)
        rewards.append(step.rewards)
    return np.array(observations)[:, :, 0], np.array(rewards)[:, :, 0], env.term_sums


def told(family, task, actions) -> np.ndarray:
    """Privileged values after an episode's steps, [steps, P]."""
    env = BatchedEnv(family, 1, 1, 1, like=task, telling=True)
    env.set_tasks([task])
    env.reset([np.random.default_rng(7)])
    found = []
    for action in actions:
        env.step(action[None, None])
        found.append(env.privileged[0, 0])
    return np.array(found)


def actions_of(seed: int = 0, size: int = FAMILY.action_size) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (STEPS, size))


def columns(family, pattern: tuple[str, ...]) -> list[int]:
    return [i for i, name in enumerate(family.observation_names) if name.startswith(pattern)]


def test_with_four_legs_it_is_the_quadruped():
    """Observation, privileged values, reward and every term of it, to the bit."""
    plain = make_family(QuadrupedSettings(horizon=60, payload_mass=SETTINGS.payload_mass))
    values = {"payload_mass": 2.0, "friction": 0.5, "motor_strength": 0.8, "action_delay": 0.01}
    actions = actions_of()
    own = play(FAMILY, tasks_of([4], **values), actions)
    theirs = play(plain, [plain.task(values)], actions[:, : plain.action_size])
    shared = [FAMILY.observation_names.index(name) for name in plain.observation_names]
    np.testing.assert_array_equal(own[0][..., shared], theirs[0])
    np.testing.assert_array_equal(own[1], theirs[1])
    assert own[2].keys() == theirs[2].keys()
    for name, sums in own[2].items():
        np.testing.assert_array_equal(sums, theirs[2][name])


def test_privileged_values_are_the_quadrupeds():
    plain, actions = make_family(QuadrupedSettings(horizon=60, payload_mass=SETTINGS.payload_mass)), actions_of()
    own = told(FAMILY, FAMILY.task({"friction": 0.5}), actions)
    theirs = told(plain, plain.task({"friction": 0.5}), actions[:, : plain.action_size])
    names = [privileged_names(family) for family in (FAMILY, plain)]
    np.testing.assert_array_equal(own[:, [names[0].index(name) for name in names[1]]], theirs)
    contacts = [names[0].index(f"{leg}_contact") for leg in MORE_LEGS]
    assert own[:, contacts].any(0).tolist() == [True] * 4 + [False] * 2


@pytest.mark.parametrize("number", [3, 4, 5, 6])
def test_each_number_of_legs_stands_on_all_of_them(number: int):
    model = FAMILY.compile(tasks_of([number])[0])
    data = mujoco.MjData(model)
    assert model.nu == model.nq - 7 == model.nv - 6 == 3 * number
    assert mujoco.mj_getTotalmass(model) == pytest.approx(5.204 + number * LEG_MASS, rel=1e-6)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    for _ in range(round(2 / TIMESTEP)):
        mujoco.mj_step(model, data)
    assert data.xmat[1][8] > 0.95 and data.qpos[2] > 0.7 * model.key("home").qpos[2]
    touching = [data.sensor(f"{leg}_contact").data[0] > 0 for leg in MORE_LEGS[:number]]
    assert all(touching) and data.sensor("trunk_contact").data[0] == 0


@pytest.mark.parametrize("number", [3, 4, 5, 6])
def test_legs_are_mirror_images_and_one_alone_is_its_own(number: int):
    model = build(legs=MORE_LEGS[:number]).compile()
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    for right, left in (("FR", "FL"), ("RR", "RL"), ("MR", "ML")):
        if right not in MORE_LEGS[:number]:
            continue
        other = left if left in MORE_LEGS[:number] else right
        for part in ("hip", "thigh"):  # the published calves are all alike
            one, two = (model.body(f"{leg}_{part}").id for leg in (right, other))
            np.testing.assert_allclose(data.xipos[one] * (1, -1, 1), data.xipos[two], atol=1e-12)
            inertias = [
                data.ximat[i].reshape(3, 3) * model.body_inertia[i] @ data.ximat[i].reshape(3, 3).T for i in (one, two)
            ]
            flip = np.outer((1, -1, 1), (1, -1, 1))
            np.testing.assert_allclose(inertias[0] * flip, inertias[1], atol=1e-9)


@pytest.mark.parametrize("number", [3, 5])
def test_what_is_not_there_is_zero_and_moves_nothing(number: int):
    """Neither the robot nor its reward depends on actions of joints that it lacks."""
    actions, others = actions_of(), actions_of(1)
    others[:, : 3 * number] = actions[:, : 3 * number]
    one, two = (play(FAMILY, tasks_of([number]), each) for each in (actions, others))
    for a, b in zip(one[:2], two[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    missing = columns(FAMILY, MORE_LEGS[number:])
    assert len(missing) == (len(MORE_LEGS) - number) * (3 * len(("angle", "velocity", "action")) + len(("is_there",)))
    assert not one[0][..., missing].any()
    there = [FAMILY.observation_names.index(f"{leg}_is_there [1]") for leg in MORE_LEGS]
    assert (one[0][..., there] == (np.arange(len(MORE_LEGS)) < number)).all()
    moving = columns(FAMILY, MORE_LEGS[:number])
    assert (one[0][..., [i for i in moving if i not in there]].std(0) > 0).all()


def test_robots_of_all_numbers_play_together_as_alone():
    actions = actions_of()
    together = play(FAMILY, tasks_of([3, 4, 5, 6]), actions)
    for place, number in enumerate((3, 4, 5, 6)):
        alone = play(FAMILY, tasks_of([number]), actions)
        for a, b in zip(together[:2], alone[:2], strict=True):
            np.testing.assert_array_equal(a[:, place], b[:, 0])


def test_held_out_robots_have_a_number_of_legs_that_training_lacks():
    rng = np.random.default_rng(0)
    assert {task.values["legs"] for task in FAMILY.sample(40, rng)} == {3.0, 4.0, 6.0}
    assert {task.values["legs"] for task in FAMILY.sample(40, rng, "held_out")} == {5.0}


def test_a_leg_that_a_smaller_robot_lacks_can_fail():
    family = make_family(QuadrupedLegsSettings(horizon=20, faults=("weak",), fault_places=("ML_calf",)))
    drawn = family.sample(2, np.random.default_rng(0))
    tasks = [family.task({**task.values, "legs": n}) for n, task in zip((4, 6), drawn, strict=True)]
    play(family, tasks, actions_of()[:10])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (QuadrupedLegsSettings(weak_joints=(JOINTS[0],)), "weak_joints numbers the joints of four legs"),
        (QuadrupedLegsSettings(locked_joints=(JOINTS[0],)), "locked_joints numbers the joints of four legs"),
        (QuadrupedLegsSettings(changes=1, changing=("legs",)), "a body stays the same while a task lasts"),
    ],
)
def test_what_it_cannot_have_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_family(settings)


def test_another_number_of_legs_is_refused():
    with pytest.raises(ValueError, match="parameter 'legs' must be one of 3, 4, 5, 6, got 7"):
        FAMILY.compile(FAMILY.task({"legs": 7}))
