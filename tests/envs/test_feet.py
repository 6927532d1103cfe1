"""What teachers are told of the feet of Gymnasium's robots, against plain MuJoCo."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.family_settings import LocomotionSettings
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.reveal import privileged_names, reveal
from metarl.envs.sharded import ShardedEnv
from metarl.runs.trial import streams

ROBOTS = {name: made for name, made in FAMILY_SETTINGS.items() if issubclass(made, LocomotionSettings)}
ANT = ("left_ankle_geom", "right_ankle_geom", "third_ankle_geom", "fourth_ankle_geom")
SOLES = {
    "half_cheetah": ("bfoot", "ffoot"),
    "ant": ANT,
    "ant_legs": ("lower_leg_1", "lower_leg_2", "lower_leg_3", "lower_leg_4"),
    "hopper": ("foot_geom",),
    "walker2d": ("foot_geom", "foot_left_geom"),
    "humanoid": ("right_foot", "left_foot"),
}
"""Geoms of the feet by the beginning of a family's name; the longest that fits holds."""


def soles(name: str) -> tuple[str, ...]:
    return SOLES[max((start for start in SOLES if name.startswith(start)), key=len)]


def family_of(name: str, **settings: Any) -> TaskFamily:
    return make_family(ROBOTS[name](horizon=100, **settings))


def contact_columns(family: TaskFamily) -> list[int]:
    return [i for i, name in enumerate(privileged_names(family)) if name.endswith("_contact")]


def touching(model: mujoco.MjModel, data: mujoco.MjData, ctrl: np.ndarray, steps: int, geoms: tuple[str, ...]):
    """Play a control step, and return which of these geoms touch something at the start of its last substep."""
    data.ctrl = ctrl
    for _ in range(steps - 1):
        mujoco.mj_step(model, data)
    mujoco.mj_forward(model, data)
    met = {model.geom(int(g)).name for contact in data.contact for g in contact.geom}
    mujoco.mj_step(model, data)
    return [geom in met for geom in geoms]


@pytest.mark.parametrize("name", list(ROBOTS))
def test_a_foot_is_told_to_touch_whenever_it_does(name: str):
    family = family_of(name, privileged_feet=True)
    plain = family.compile(family.neutral())
    env = BatchedEnv(family, 1, 1, 1, telling=True)
    rng, columns, geoms = np.random.default_rng(0), contact_columns(family), soles(name)
    env.reset([np.random.default_rng(0)])
    data, told = mujoco.MjData(plain), []
    data.qpos[:], data.qvel[:] = env.simulation.batch.qpos[0], env.simulation.batch.qvel[0]
    for _ in range(60):
        result = env.step(rng.uniform(-1, 1, (1, 1, family.action_size)))
        expected = touching(plain, data, env.simulation.batch.ctrl[0], family.frame_skip, geoms)
        told.append(env.privileged[0, 0, columns[: len(geoms)]].tolist())
        assert told[-1] == expected
        if result.terminated.any() or result.truncated.any():
            break
    assert {True, False} == {bool(value) for row in told for value in row}
    assert len(columns) == len(geoms) or name == "ant_legs"
    assert not env.privileged[0, 0, columns[len(geoms) :]].any(), "legs that are not there touch nothing"


@pytest.mark.parametrize("name", list(ROBOTS))
def test_nothing_else_changes(name: str):
    """The robot moves the same to the bit, and an oracle on level ground observes the same."""
    seen, oracles = [], []
    for on in (False, True):
        family = family_of(name, privileged_feet=on)
        assert bool(contact_columns(family)) == on
        env = ShardedEnv(family, 2, 2, threads=1)
        env.set_tasks(family.sample(2, np.random.default_rng(1)))
        env.reset(streams(1, "test", 0, 2))
        rng = np.random.default_rng(2)
        steps = [env.step(rng.uniform(-1, 1, (2, 2, family.action_size))) for _ in range(5)]
        seen.append((steps[-1].observations.copy(), steps[-1].rewards.copy()))
        oracles.append([element for element in reveal(family).observation_names if not element.startswith("ground_")])
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    np.testing.assert_array_equal(seen[0][1], seen[1][1])
    assert oracles[0] == oracles[1]


@pytest.mark.parametrize("name", [name for name in ROBOTS if "terrain" in name])
def test_on_uneven_ground_its_height_around_each_foot_is_told(name: str):
    """Rays from above find the ground where MuJoCo has it."""
    family = family_of(name, privileged_feet=True)
    task = family.task({"terrain_kind": 3, "terrain_difficulty": 0.8, "terrain_seed": 5})
    env = BatchedEnv(family, 1, 1, 1, telling=True)
    env.set_tasks([task])
    env.reset([np.random.default_rng(0)])
    for _ in range(30):
        env.step(np.full((1, 1, family.action_size), 0.3))
    model = family.compile(task)
    data, batch = mujoco.MjData(model), env.simulation.batch
    below = [i for i, n in enumerate(privileged_names(family)) if n.startswith("ground_below_")]
    assert len(below) == len(soles(name))
    told = env.privileged[0, 0, below]
    (ground,) = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_HFIELD)
    mujoco.mj_kinematics(model, data)
    for geom, value in zip(soles(name), told, strict=True):
        x, y, z = batch.geom_xpos[0, model.geom(geom).id]
        fallen = mujoco.mj_rayHfield(model, data, ground, np.array([x, y, 50.0]), np.array([0.0, 0.0, -1.0]), None)
        assert fallen > 0 and value == pytest.approx(50.0 - fallen - z, abs=1e-3)
