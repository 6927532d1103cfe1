"""Ants of 3 to 6 legs: with four they are Gymnasium's, with others they stand and are padded alike."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest

from metarl.envs.registry import make_family
from metarl.envs.robots import ant
from metarl.envs.robots.ant_settings import AntLegsSettings
from metarl.envs.sharded import ShardedEnv

FAMILY = make_family(AntLegsSettings())
ANGLE = {1: 45, 2: 135, 3: 225, 4: 315}  # degrees from forwards, of Gymnasium's joints hip_1 to hip_4


def test_with_four_legs_it_is_gymnasiums_ant():
    ours, theirs = FAMILY.compile(FAMILY.neutral()), mujoco.MjModel.from_xml_path(ant.MODEL)
    assert (ours.nq, ours.nv, ours.nu) == (theirs.nq, theirs.nv, theirs.nu)
    np.testing.assert_allclose(ours.body_subtreemass[1], theirs.body_subtreemass[1])
    datas = []
    for model in (ours, theirs):
        data = mujoco.MjData(model)
        rng = np.random.default_rng(0)
        mujoco.mj_forward(model, data)
        directions = {}
        for leg in range(1, 5):
            out = data.xanchor[model.joint(f"ankle_{leg}").id] - data.xanchor[model.joint(f"hip_{leg}").id]
            directions[leg] = round(math.degrees(math.atan2(out[1], out[0]))) % 360
        assert directions == ANGLE
        for _ in range(100):
            torques = dict(zip(ant.JOINTS, rng.uniform(-1, 1, 8), strict=True))
            for actuator in range(model.nu):
                joint = model.joint(model.actuator_trnid[actuator, 0]).name
                turned = model is theirs and joint in ("ankle_2", "ankle_3")  # their axes point the other way
                data.ctrl[actuator] = -torques[joint] if turned else torques[joint]
            mujoco.mj_step(model, data)
        datas.append(data)
    np.testing.assert_allclose(datas[0].qpos[:7], datas[1].qpos[:7], atol=1e-6)
    np.testing.assert_allclose(np.abs(datas[0].qpos[7:]), np.abs(datas[1].qpos[7:]), atol=1e-6)


@pytest.mark.parametrize("legs", [3, 4, 5, 6])
def test_its_legs_are_alike_around_the_torso_and_it_stands_on_them(legs: int):
    model = FAMILY.compile(FAMILY.task({"legs": legs, "leg_length": 1.2}))
    assert model.nu == 2 * legs and model.nbody == 2 + 3 * legs
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    ankles = np.array([data.xanchor[model.joint(f"ankle_{i}").id] - data.xpos[1] for i in range(1, legs + 1)])
    # stub .2 sqrt 2, upper leg 1.2 times as long
    np.testing.assert_allclose(np.linalg.norm(ankles, axis=1), 0.2 * math.sqrt(2) * 2.2)
    np.testing.assert_allclose(ankles.sum(0), 0, atol=1e-9)
    data.qpos[7:] = np.tile((0.0, math.radians(50)), legs)
    for _ in range(400):
        mujoco.mj_step(model, data)
    assert 0.25 < data.qpos[2] < 1.0 and np.abs(data.qvel).max() < 0.5
    feet = {model.geom(int(g)).name for pair in data.contact.geom[: data.ncon] for g in pair} - {"floor"}
    assert feet == {f"lower_leg_{i}" for i in range(1, legs + 1)}


def test_observation_and_action_are_padded_with_a_mask():
    env = ShardedEnv(FAMILY, 4, 1, threads=1)
    env.set_tasks([FAMILY.task({"legs": legs}) for legs in (6, 3, 5, 4)])
    rngs = [np.random.default_rng(0) for _ in range(4)]
    env.reset(rngs)
    actions = np.random.default_rng(1).uniform(-1, 1, (4, 1, 12))
    names = list(FAMILY.observation_names)
    step = env.step(actions)
    for m, legs in enumerate((6, 3, 5, 4)):
        observation = dict(zip(names, step.observations[m, 0], strict=True))
        for leg in range(1, 7):
            there = leg <= legs
            assert observation[f"leg_{leg}_is_there [1]"] == there
            for joint in ("hip", "ankle"):
                assert (observation[f"{joint}_{leg} [rad]"] != 0) == there
                assert (observation[f"{joint}_{leg}_velocity [rad/s]"] != 0) == there
        np.testing.assert_allclose(
            env.term_sums["control"][m, 0], -0.5 * np.square(actions[m, 0, : 2 * legs]).sum(), rtol=1e-6
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (AntLegsSettings(legs=(2, 4)), r"family.legs\[0\] is 2; it must be at least 3"),
        (AntLegsSettings(held_out_legs=(4,)), r"held_out values \{4\} overlap the training values"),
    ],
)
def test_wrong_settings_are_refused(settings: AntLegsSettings, message: str):
    with pytest.raises(ValueError, match=message):
        make_family(settings)
