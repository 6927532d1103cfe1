"""What only a simulator knows: what an oracle observes, and what a teacher is told."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.parameters import Choice, Law, LogUniform, Parameter, Uniform
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.reveal import encode, privileged_names, reveal, told, told_as, told_columns
from metarl.envs.robots.half_cheetah_settings import (
    HalfCheetahDirectionSettings,
    HalfCheetahDynamicsSettings,
    HalfCheetahMassSettings,
    HalfCheetahVelocitySettings,
)
from metarl.envs.robots.quadruped_settings import QuadrupedSettings, QuadrupedTerrainSettings
from metarl.envs.sharded import ShardedEnv
from metarl.runs.trial import streams

LAW = Law("nothing")


@pytest.mark.parametrize("name", list(FAMILY_SETTINGS))
def test_observations_are_the_familys_and_the_encoded_parameters(name: str):
    family = make_family(FAMILY_SETTINGS[name](horizon=3))
    tasks = family.sample(2, np.random.default_rng(0))
    seen = []
    for own in (family, reveal(family)):
        env = ShardedEnv(own, 2, 2, threads=1)
        env.set_tasks(tasks)
        env.reset(streams(1, "test", 0, 2))
        seen.append(env.step(np.full((2, 2, family.action_size), 0.1)).observations)
    size = family.observation_size
    np.testing.assert_array_equal(seen[0], seen[1][..., :size])
    encoded = told(family, tasks)
    np.testing.assert_array_equal(seen[1][:, 0, size : size + encoded.shape[1]], encoded)
    assert len(reveal(family).observation_names) == seen[1].shape[-1] == size + len(told_as(family))
    assert np.abs(told(family, family.sample(50, np.random.default_rng(1)))).max() <= 1


@pytest.mark.parametrize("name", list(FAMILY_SETTINGS))
def test_privileged_values_begin_with_the_encoded_parameters(name: str):
    family = make_family(FAMILY_SETTINGS[name](horizon=3))
    tasks = family.sample(2, np.random.default_rng(0))
    env = ShardedEnv(family, 2, 2, threads=1, telling=True)
    env.set_tasks(tasks)
    env.reset(streams(1, "test", 0, 2))
    first = [env.shards[0].privileged]
    env.step(np.full((2, 2, family.action_size), 0.1))
    first.append(env.shards[0].privileged)
    own = [tasks[i] for i in env.indices[0]]
    for values in first:
        assert values.shape[-1] == len(privileged_names(family)) and np.isfinite(values).all()
        for n in range(2):
            encoded = told(family, own)
            np.testing.assert_array_equal(values[:, n, : encoded.shape[1]], encoded)


def test_a_silent_env_computes_no_privileged_values():
    env = BatchedEnv(make_family(HalfCheetahMassSettings(horizon=3)), 2, 3, threads=1)
    assert env.privileged.shape == (2, 3, 0)


def test_a_quantity_is_scaled_to_its_training_range_and_a_category_is_one_hot():
    values = np.array([1.0, 2.0, 3.0, 5.0])
    linear = Parameter("x", "kg", Uniform(1.0, 3.0), LAW, neutral=2.0)
    np.testing.assert_allclose(encode(linear, values), [[-1], [0], [1], [3]])
    scale = Parameter("x", "1", LogUniform(0.25, 4.0), LAW, neutral=1.0)
    np.testing.assert_allclose(encode(scale, np.array([0.25, 0.5, 1.0, 4.0])), [[-1], [-0.5], [0], [1]], atol=1e-12)
    choice = Parameter("x", "1", Choice((3.0, 1.0, 2.0), (1.0, 2.0, 3.0)), LAW, neutral=1.0, held_out=Choice((5.0,)))
    met = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(encode(choice, values), met)
    met[3, 3] = 1  # by an oracle that meets held-out tasks in training
    np.testing.assert_array_equal(encode(choice, values, ("train", "held_out")), met)


def test_names_say_what_is_encoded():
    direction = told_as(make_family(HalfCheetahDirectionSettings()))
    assert direction == {
        "task_direction=-1": "1 if direction is -1, else 0",
        "task_direction=1": "1 if direction is 1, else 0",
    }
    [(name, words)] = told_as(make_family(HalfCheetahVelocitySettings(velocity_low=0.0, velocity_high=3.0))).items()
    assert (name, words) == ("task_target_velocity", "target_velocity, 0 to 3 m/s mapped linearly to -1 to 1")


def test_the_seed_of_a_ground_is_told_to_nobody_and_its_kind_by_name():
    family = make_family(QuadrupedTerrainSettings(kinds=("flat", "stairs_up")))
    names = reveal(family).observation_names
    assert any(p.name == "terrain_seed" for p in family.parameters)
    assert not any("seed" in name for name in names)
    assert [name for name in names if "kind" in name] == [
        "task_terrain_kind=flat [1]",
        "task_terrain_kind=stairs_up [1]",
        "task_terrain_kind=stepping_stones [1]",
        "task_terrain_kind=gaps [1]",
    ]  # also those of held-out tasks, told to an oracle that meets them


def test_an_oracle_reads_another_familys_tasks_by_the_ranges_that_it_was_trained_on():
    narrow, wide = (make_family(HalfCheetahVelocitySettings(velocity_high=high)) for high in (1.0, 3.0))
    [task] = [wide.task({"target_velocity": 2.0})]
    shown = []
    for family in (reveal(wide), reveal(wide, narrow)):
        env = BatchedEnv(family, 1, 1, threads=1)
        env.set_tasks([task])
        shown.append(env.reset(streams(1, "test", 0, 1))[0, 0, -1])
    np.testing.assert_allclose(shown, [2 * 2 / 3 - 1, 2 * 2 / 1 - 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("faults", "places"),
    [
        (("dead",), ("fthigh",)),
        (("weak", "dead"), (".*",)),
        (("reversed", "weak"), ("ffoot", "bshin")),
        (("saturated",), ("bfoot",)),  # a kind that the oracle never met has no place in what it reads
    ],
)
def test_an_oracle_reads_another_familys_categories_by_their_names(faults: tuple[Any, ...], places: tuple[str, ...]):
    """Each family numbers its kinds and places of faults from 1 on."""
    trained = make_family(HalfCheetahDynamicsSettings(faults=("dead", "weak", "reversed")))
    met = make_family(HalfCheetahDynamicsSettings(faults=faults, fault_places=places))
    read = reveal(met, trained)
    assert read.observation_names == reveal(trained).observation_names
    tasks = met.sample(20, np.random.default_rng(0))
    env = BatchedEnv(read, len(tasks), 1, 1)
    env.set_tasks(tasks)
    seen = dict(zip(read.observation_names, env.reset(streams(1, "test", 0, len(tasks)))[:, 0].T, strict=True))
    parameters = {p.name: p for p in met.parameters}
    for name in ("fault_kind", "fault_place"):
        columns = {
            n.partition("=")[2].removesuffix(" [1]"): v for n, v in seen.items() if n.startswith(f"task_{name}=")
        }
        for m, task in enumerate(tasks):
            category = parameters[name].names[int(task.values[name])]
            assert {n for n, values in columns.items() if values[m]} == {category} & set(columns)


def test_of_a_task_that_changes_it_is_the_value_at_the_time():
    family = make_family(HalfCheetahMassSettings(horizon=6, changes=1, change_gap=(2, 3)))
    [task] = family.sample(1, np.random.default_rng(0))
    env = BatchedEnv(reveal(family), 1, 1, threads=1, telling=True)
    env.set_tasks([task])
    seen, informed = [env.reset(streams(1, "test", 0, 1))[0, 0, -1]], [env.privileged[0, 0, 0]]
    for _ in range(6):
        seen.append(env.step(np.zeros((1, 1, family.action_size))).observations[0, 0, -1])
        informed.append(env.privileged[0, 0, 0])
    [change] = task.changes
    [name] = change.values
    [parameter] = family.parameters
    values = [task.values[name]] * (change.step + 1) + [change.values[name]] * (6 - change.step)
    expected = encode(parameter, np.array(values))[:, 0]
    np.testing.assert_allclose(seen, expected, rtol=1e-6)
    np.testing.assert_array_equal(seen, informed)
    assert len(set(seen)) == 2


def test_a_quadrupeds_contacts_and_the_ground_around_its_feet():
    """On flat ground, standing, each foot touches it: the ground lies a foot's radius below the foot's centre."""
    settings = QuadrupedTerrainSettings(kinds=("flat",), horizon=60, ood_kinds=())
    settings = dataclasses.replace(settings, payload_mass=(0.0, 2.0))
    family = make_family(settings)
    env = BatchedEnv(family, 2, 1, threads=1, telling=True)
    env.set_tasks(family.sample(2, np.random.default_rng(0)))
    env.reset(streams(1, "test", 0, 2))
    names = privileged_names(family)
    for _ in range(50):
        env.step(np.zeros((2, 1, family.action_size)))
    known = dict(zip(names, np.moveaxis(env.privileged[:, 0], -1, 0), strict=True))
    assert env.active.all()
    heights = np.array([known[name] for name in names if name.startswith("ground_") and "_at_" not in name])
    assert heights.shape == (20, 2)
    np.testing.assert_allclose(heights, -0.02, atol=5e-3)
    contacts = np.array([known[f"{leg}_contact"] for leg in ("FR", "FL", "RR", "RL")])
    np.testing.assert_array_equal(contacts, 1)
    np.testing.assert_allclose(known["true_base_vz"], 0, atol=0.1)


ON_TERRAIN = [name for name in FAMILY_SETTINGS if name.endswith("_terrain")]


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("name", ON_TERRAIN)
def test_an_oracle_sees_the_ground_under_and_ahead_of_it(name: str, scanned: bool):
    """The scan is what the setting height_scan shows to all; a teacher is told it too, and nobody is told it twice."""
    kinds = dict[str, Any](horizon=3, kinds=("stairs_up",), ood_kinds=(), difficulty_low=0.9)
    family, shown = (make_family(FAMILY_SETTINGS[name](**{**kinds, "height_scan": x})) for x in (scanned, True))
    oracle, tasks = reveal(family), family.sample(2, np.random.default_rng(0))
    seen = {}
    known = dict[str, np.ndarray]()
    for key, own in {"oracle": oracle, "shown": shown}.items():
        env = BatchedEnv(own, 2, 1, threads=1, telling=True)
        env.set_tasks(tasks)
        env.reset(streams(1, "test", 0, 2))
        env.simulation.bind("qpos")[:, 0] += 3.0  # x of the root: to where the stairs are
        seen[key] = dict(
            zip(own.observation_names, env.step(np.zeros((2, 1, own.action_size))).observations[:, 0].T, strict=True)
        )
        if key == "oracle":
            known = dict(zip(privileged_names(own), env.privileged[:, 0].T, strict=True))
    scan = {key: values for key, values in seen["shown"].items() if key.startswith("ground_at_")}
    assert len(scan) in (17, 187) and max(np.abs(values).max() for values in scan.values()) > 0.05
    for key, values in scan.items():
        np.testing.assert_array_equal(seen["oracle"][key], values)
        assert scanned == (key.removesuffix(" [m]") not in known)
    ahead = [key for key in seen["oracle"] if key.startswith("ground_")]
    assert len(ahead) == len(scan) + (20 if name == "quadruped_terrain" else 0)
    assert [name for name in told_as(family) if name.startswith("ground_")] == [
        key.removesuffix(" [m]") for key in ahead if not (scanned and key in scan)
    ]
    places = [place for own in told_columns(oracle).values() for place in own]
    assert [oracle.observation_names[place] for place in places] == [
        f"{name} [1]" for name in told_as(family) if name.startswith("task_")
    ]


def test_a_quadrupeds_joint_is_a_category():
    family = make_family(QuadrupedSettings(weak_joints=("FR_hip", "RL_calf")))
    weak = next(p for p in family.parameters if p.name == "weak_joint")
    assert weak.categories == (-1.0, 0.0, 11.0)
    assert {"task_weak_joint=-1", "task_weak_joint=0", "task_weak_joint=11"} <= set(told_as(family))
