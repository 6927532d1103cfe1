"""Slack joints of motors: the rotor's way through its play, against MuJoCo's steps of a rotor between two stops."""

from __future__ import annotations

import math
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from metarl.envs.faults.play import crossed, inertia_of_rotor
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family
from metarl.envs.robots.ant_settings import AntDirectionSettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahDynamicsSettings
from metarl.envs.robots.walkers_settings import HopperParametersSettings
from metarl.envs.task import Change
from tests.envs.test_faults import SHIN, SOUND, by_hand, cheetah, env_of, fault, faulty, poses, random_actions

HALF, STEP, INERTIA = 0.1, 0.05, 0.1
STOPS = f'range="{-math.degrees(HALF)} {math.degrees(HALF)}" solreflimit="1e-4 10" solimplimit="0.9999 0.9999 0.001"'
ROTOR = f"""
<mujoco><option timestep="2e-5" gravity="0 0 0"/>
<worldbody><body><joint name="rotor" armature="{INERTIA}" limited="true" {STOPS}/><geom size="0.01" mass="1e-6"/></body>
</worldbody><actuator><motor joint="rotor"/></actuator></mujoco>"""


def crossing(torques: np.ndarray) -> np.ndarray:
    """Place, speed and share of a rotor of the cheetah's after each torque, [steps, 3]."""
    place, speed, result = np.zeros(1), np.zeros(1), []
    for torque in torques:
        place, speed, share = crossed(place, speed, np.array([torque / INERTIA]), np.array([HALF]), np.array([STEP]))
        result.append((place[0], speed[0], share[0]))
    return np.array(result)


def test_a_rotor_crosses_its_play_as_mujoco_moves_one_between_two_stops():
    model = mujoco.MjModel.from_xml_string(ROTOR)
    data, expected = mujoco.MjData(model), []
    torques = np.random.default_rng(0).uniform(-60, 60, 80) * np.random.default_rng(1).choice((0.1, 0.3, 1.0), 80)
    torques[10] = 0.0
    substeps = round(STEP / model.opt.timestep)
    for torque in torques:
        data.ctrl[:], pushing = torque, 0
        for _ in range(substeps):
            mujoco.mj_step(model, data)
            pushing += data.qfrc_constraint[0] * torque < -0.5 * torque**2
        expected.append((data.qpos[0], data.qvel[0], pushing / substeps))
    seen, expected = crossing(torques), np.array(expected)
    np.testing.assert_allclose(seen[:, 0], expected[:, 0], atol=0.03 * HALF)
    pulled = torques != 0
    np.testing.assert_allclose(seen[pulled, 2], expected[pulled, 2], atol=0.03)
    crossings = (seen[:, 2] > 0.01) & (seen[:, 2] < 0.99)
    assert crossings.sum() > 20 and (seen[:, 2] == 1).sum() > 10 and (seen[:, 2] == 0).sum() > 5


def test_a_rotor_without_play_always_drives():
    pulls = np.array([-3.0, 0.0, 2.0])
    place, speed, share = crossed(np.zeros(3), np.zeros(3), pulls, np.zeros(3), np.full(3, STEP))
    assert not place.any() and not speed.any() and share[0] == share[2] == 1


def test_a_slack_motor_drives_for_the_share_of_the_step_that_its_rotor_leaves():
    family = cheetah("slack")
    actions = random_actions(family, 40)
    env = env_of(family, faulty(family, "bshin"))
    shares = crossing(90.0 * np.clip(actions[:, SHIN], -1, 1))[:, 2]

    def late(t: int, ctrl: np.ndarray, data: mujoco.MjData) -> None:
        ctrl[SHIN] *= shares[t]

    sound = cheetah()
    expected = by_hand(env, sound.compile(sound.neutral()), actions, late)
    np.testing.assert_allclose(poses(env, actions), expected, atol=1e-9)
    assert (shares < 0.7).sum() > 5 and (shares == 1).sum() > 5
    time = math.sqrt(2 * 0.2 * INERTIA / 90)  # of a way across the whole play from rest, at the largest torque
    env.reset([np.random.default_rng(0)])
    for sign, share in [(1, 1 - time / STEP / math.sqrt(2)), (1, 1), (-1, 1 - time / STEP), (-1, 1), (0, 0), (-1, 1)]:
        env.step(np.full((1, 1, 6), float(sign)))
        assert env.simulation.batch.ctrl[0, SHIN] == pytest.approx(sign * share)


def test_a_rotor_is_in_the_middle_of_its_play_when_the_fault_begins_and_forgets_it_when_it_ends():
    family = cheetah("slack")
    task = family.task({**SOUND})
    changes = (Change(3, fault(family, "bshin")), Change(6, SOUND), Change(9, fault(family, "bshin")))
    env = env_of(family, family.own(type(task)(family.name, task.values, changes)))
    seen = []
    for _ in range(12):
        env.step(np.ones((1, 1, 6)))
        seen.append(env.simulation.batch.ctrl[0, SHIN])
    first = 1 - math.sqrt(0.2 * INERTIA / 90) / STEP
    assert seen == pytest.approx([1, 1, 1, first, 1, 1, 1, 1, 1, first, 1, 1])


def test_the_torque_and_the_inertia_are_the_tasks_own():
    family = make_family(HalfCheetahDynamicsSettings(faults=("slack",)))
    for scale in (0.5, 1.5):
        env = env_of(family, family.task({"torque_scale": scale, **fault(family, "bshin")}))
        env.step(np.ones((1, 1, 6)))
        model = env.simulation.batch.get_model(0)
        assert inertia_of_rotor(model, SHIN) == INERTIA
        share = 1 - math.sqrt(0.2 * INERTIA / (90 * scale)) / STEP
        assert env.simulation.batch.ctrl[0, SHIN] == pytest.approx(share)


@pytest.mark.parametrize("settings", [AntDirectionSettings, HopperParametersSettings])
def test_a_heavy_rotor_takes_steps_to_cross_its_play(settings):
    family = make_family(settings(faults=("slack",)))
    env = env_of(family, family.task(fault(family, family.control.joints[0])))
    highest = np.tile(np.asarray(family.action_high) / family.action_scale, (1, 1, 1))
    signals = []
    for sign in [1] * 8 + [-1] * 8:
        env.step(sign * highest)
        signals.append(env.simulation.batch.ctrl[0, 0])
    model, steps = env.simulation.batch.get_model(0), np.array(signals) / family.action_high[0]
    crossing = math.sqrt(0.4 * inertia_of_rotor(model, 0) / model.actuator_gear[0, 0]) / family.seconds(model)
    assert crossing > 1 and steps[8] == 0 and steps[7] == 1 and steps[15] == -1
    assert -steps[8:].sum() == pytest.approx(8 - crossing)


def test_a_motor_that_is_asked_for_more_than_it_has_crosses_and_drives_with_what_it_has(tmp_path: Path):
    (tmp_path / "robot.xml").write_text(
        """<mujoco>
        <worldbody><body><joint name="lift" axis="0 1 0" armature="0.02"/><geom size="0.1"/></body></worldbody>
        <actuator><motor joint="lift" gear="-2" ctrlrange="-10 10" forcerange="-2.5 2.5"/></actuator></mujoco>"""
    )
    (tmp_path / "family.yaml").write_text(
        "{observation: [joint_positions], reward: {alive: 1.0}, control: {dt: 0.04}, faults: {kinds: [slack]}}"
    )
    family = make_family(RobotSettings(str(tmp_path / "robot.xml"), str(tmp_path / "family.yaml")))
    env = env_of(family, family.task(fault(family, "lift")))
    share = 1 - math.sqrt(2 * HALF * 0.02 / 5.0) / 0.04
    for action, signal in [(-1.0, -2.5 * share), (-1.0, -2.5), (-0.1, -1.0)]:
        env.step(np.full((1, 1, 1), action))
        assert env.simulation.batch.ctrl[0, 0] == pytest.approx(signal)


def test_the_way_through_the_play_is_the_same_in_single_precision():
    generator = np.random.default_rng(0)
    place, speed, pull = (generator.uniform(-size, size, 400) for size in (HALF, 3.0, 900.0))
    half, step = np.full(400, HALF), np.full(400, STEP)
    single = crossed(*(torch.tensor(x, dtype=torch.float32) for x in (place, speed, pull, half, step)))
    for ours, exact, size in zip(single, crossed(place, speed, pull, half, step), (HALF, 3.0, 1.0), strict=True):
        assert ours.dtype == torch.float32
        np.testing.assert_allclose(ours.numpy(), exact, atol=1e-4 * size)
