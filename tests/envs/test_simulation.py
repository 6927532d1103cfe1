"""Every family on a third simulation, whose arrays are torch's: the same episodes as on `mujoco.batch`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from metarl.envs.arrays import like
from metarl.envs.batch import BatchedEnv, SimulationFault
from metarl.envs.family import TaskFamily
from metarl.envs.family_settings import FamilySettings
from metarl.envs.faults.settings import FaultKind
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.reveal import informed, reveal
from metarl.envs.robots.ant_settings import AntCrippledSettings, AntDirectionSettings, AntGoalSettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahTerrainSettings, HalfCheetahVelocitySettings
from metarl.envs.robots.humanoid_settings import HumanoidDirectionSettings
from metarl.envs.robots.quadruped_robot import JOINTS
from metarl.envs.robots.quadruped_settings import QuadrupedSettings, QuadrupedTerrainSettings
from metarl.envs.robots.walkers_settings import Walker2dTerrainSettings
from metarl.envs.simulation import CPU, Simulator
from metarl.envs.state import State
from metarl.envs.task import Task
from metarl.envs.terms import RewardTerm
from tests.envs.own_robot.families import family_of, written
from tests.envs.own_robot.models import FLOOR, dog
from tests.envs.torch_simulation import TORCH, Crossing, TorchSimulation, Watch
from tests.sampling import sampled

STEPS, HORIZON = 36, 15
TASKS, ENVS = 2, 2
EXACT = ("active", "terminated", "truncated", "faulted")
NOISY = {"quadruped with everything"}
"""Whose observations have normal noise: logarithms, sines and cosines in single precision, other in the last bits."""
EVERYTHING = QuadrupedSettings(
    kp=(20.0, 50.0),
    action_delay=(0.0, 0.04),
    sensor_noise=(0.5, 1.0),
    weak_joints=JOINTS,
    locked_joints=("FR_calf", "RL_thigh"),
    slope=(-0.2, 0.2),
    changes=2,
    change_gap=(4, 9),
    changing=("friction", "payload_mass"),
)
COMING_AND_GOING: dict[str, Any] = {"fault_onset": (3, 6), "fault_duration": (4, 9), "fault_repeats": 1}
"""Settings of faults that begin and end within a trial."""
SENSED: tuple[FaultKind, ...] = (
    *("reversed", "dead_band", "slack", "sensor_lost"),
    *("encoder_offset", "encoder_scale", "encoder_drift", "encoder_frozen"),
)
"""Faults by functions of the state, those of servos apart."""
OTHERS: dict[str, Callable[[], TaskFamily]] = {
    "quadruped with everything": lambda: make_family(EVERYTHING),
    "quadruped that is pushed": lambda: make_family(QuadrupedSettings(push_velocity=(0.5, 1.0), push_interval=0.1)),
    "quadruped told its command": lambda: make_family(QuadrupedSettings(command="task")),
    "quadruped that sees rough ground": lambda: make_family(
        QuadrupedTerrainSettings(kinds=("rough",), height_scan=True)
    ),
    "cheetah that sees stairs": lambda: make_family(HalfCheetahTerrainSettings(kinds=("stairs_up",), height_scan=True)),
    "ant that is crippled anew": lambda: make_family(AntCrippledSettings(changes=2, change_gap=(4, 9))),
    "ant in any direction": lambda: make_family(AntDirectionSettings(directions="2d")),
    "ant that feels contact": lambda: make_family(AntGoalSettings(observe_contact=True)),
    "humanoid as published": lambda: make_family(HumanoidDirectionSettings(observation="published")),
    "walker told of its feet": lambda: informed(make_family(Walker2dTerrainSettings(privileged_feet=True))),
    "oracle": lambda: reveal(make_family(HalfCheetahVelocitySettings())),
}
TERMS = (
    *("forward_velocity", "height", "upright", "track_velocity", "track_yaw", "velocity_error", "alive"),
    *("control_cost", "joint_velocity_cost", "home_cost"),
)
PARTS = ("base_height", "up", "base_velocity", "base_angular_velocity", "joint_positions", "joint_velocities")
COMMANDS = [
    {"name": kind, "quantity": kind, "distribution": "uniform", "range": [-0.4, 0.9]}
    for kind in ("command_x", "command_y", "command_yaw")
]
SLOPE = {"name": "hill", "quantity": "slope", "operation": "set", "distribution": "uniform", "range": [-0.3, 0.3]}
SLIDES = '<joint name="x" type="slide" axis="1 0 0"/><joint name="z" type="slide" axis="0 0 1"/>'
GUIDES = f'{SLIDES}<joint name="turn" axis="0 1 0"/>'
UNEVEN = (
    '<geom name="field" type="hfield" hfield="f" quat="0.8 0 0 0.6"/>'
    '<geom name="table" type="box" size=".5 .5 .02" pos=".6 .2 .1" euler="0 .1 .3"/>'
)
FIELD = '<asset><hfield name="f" nrow="5" ncol="5" size="2 2 .2 .1" elevation="{}"/></asset>'.format(
    " ".join(str((3 * i % 7) / 7) for i in range(25))
)
ROBOTS: dict[str, tuple[str, dict[str, Any]]] = {
    "dog on slopes": (dog(), {"distribution": [*COMMANDS, SLOPE], "termination": {"height": [0.1, 2.0], "tilt": 1.0}}),
    "dog whose forwards is backwards": (dog(), {"robot": {"forward": "-x"}}),
    "dog on uneven ground": (dog(UNEVEN).replace("</worldbody>", f"</worldbody>{FIELD}"), {"robot": {"height": 0.9}}),
    "dog on guides": (dog(FLOOR, root=GUIDES), {"observation": [*PARTS, "guide_positions", "guide_velocities"]}),
}


def own(folder: Path, name: str) -> TaskFamily:
    text, keys = ROBOTS[name]
    said = {
        "reward": dict.fromkeys(TERMS, 1.0),
        "observation": [*PARTS, "last_action", "foot_heights", "command"],
        **keys,
    }
    entries = said.pop("distribution", COMMANDS)
    return family_of(folder, written(folder, text), *entries, **said)


def tasks_of(family: TaskFamily) -> list[Task]:
    """Two tasks of one layout."""
    tasks = family.sample(TASKS, np.random.default_rng(5))
    shared = {name: tasks[0].values[name] for name in family.layout}
    return [dataclasses.replace(task, values={**task.values, **shared}) for task in tasks]


def played(family: TaskFamily, simulator: Simulator) -> tuple[dict[str, np.ndarray], BatchedEnv]:
    """All that two trials of the same tasks are seen to be, [T, ...] each; some envs are reset alone in between."""
    tasks = tasks_of(family)
    env = BatchedEnv(family, TASKS, ENVS, 1, like=tasks[0], measuring=True, simulator=simulator)
    env.set_tasks(tasks)
    rngs = [np.random.default_rng(m) for m in range(TASKS)]
    rng = np.random.default_rng(9)
    some = np.array([[True, False], [True, True]])
    host, place = env.simulation.host, env.simulation.array
    seen: dict[str, list[np.ndarray]] = {"starts": [host(env.reset(rngs))]}
    for t in range(STEPS):
        if t == 7:
            seen["starts"].append(host(env.reset(rngs, some)))
        if t == 12:
            seen["starts"].append(host(env.reset(rngs, ~some, trials=~some)))
        if t == 26:
            env.set_tasks(tasks[::-1])
            seen["starts"].append(host(env.reset(rngs)))
        actions = rng.uniform(family.action_low, family.action_high, (TASKS, ENVS, family.action_size))
        step = env.step(place(1.3 * actions / family.action_scale))
        now = {**{name: host(value) for name, value in step._asdict().items()}, "active": host(env.active)}
        now |= {f"measure {name}": value for name, value in env.measures.items()}
        now |= {f"term {name}": value for name, value in env.term_sums.items()} | {"qpos": env.poses}
        for name, value in now.items():
            seen.setdefault(name, []).append(np.copy(value))  # on the CPU some are live
    return {name: np.stack(values) for name, values in seen.items()}, env


def compare(family: TaskFamily, noisy: bool = False) -> None:
    """Flags are equal, and numbers but for how the libraries round sums, roots and transcendental functions."""
    family = dataclasses.replace(family, horizon=HORIZON)
    (expected, _), (seen, env) = played(family, CPU), played(family, TORCH)
    assert seen.keys() == expected.keys() and not expected["active"].all()
    for name, values in expected.items():
        assert (seen[name].shape, seen[name].dtype) == (values.shape, values.dtype), name
        if name in EXACT:
            np.testing.assert_array_equal(seen[name], values, err_msg=name)
        elif name in ("starts", "observations") and noisy:
            np.testing.assert_allclose(seen[name], values, rtol=2e-5, atol=1e-5, err_msg=name)
        else:
            relative = 1e-12 if values.dtype == np.float64 else float(np.finfo(np.float32).eps)
            np.testing.assert_allclose(seen[name], values, rtol=relative, atol=1e-12, err_msg=name)
    assert isinstance(env.simulation, TorchSimulation)
    assert env.simulation.recorded == 1 and env.simulation.replayed == STEPS - 2


@pytest.mark.parametrize("name", sampled([name for name in FAMILY_SETTINGS if name != "env"], 3))
def test_every_family_is_the_same_in_torch_and_replays_what_was_recorded(name: str):
    compare(make_family(FAMILY_SETTINGS[name]()))


@pytest.mark.parametrize("name", sampled(OTHERS, 3))
def test_what_settings_add_is_the_same_in_torch(name: str):
    compare(OTHERS[name](), name in NOISY)


@pytest.mark.parametrize("kind", SENSED)
def test_every_fault_of_signals_and_sensors_is_the_same_in_torch(kind: FaultKind):
    compare(make_family(HalfCheetahVelocitySettings(faults=(kind,), **COMING_AND_GOING)))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("settings", "kind"),
    [(QuadrupedSettings, "stuck"), (QuadrupedSettings, "slack"), (RobotSettings, "encoder_frozen")],
)
def test_faults_of_other_robots_are_the_same_in_torch(settings: type[FamilySettings], kind: FaultKind):
    compare(make_family(settings(faults=(kind,), **COMING_AND_GOING)))


@pytest.mark.thorough
@pytest.mark.parametrize("name", list(ROBOTS))
def test_ones_own_robot_is_the_same_in_torch(name: str, tmp_path):
    compare(own(tmp_path, name))


def test_what_is_recorded_once_serves_other_tasks_and_is_recorded_anew_for_other_changes():
    family = OTHERS["ant that is crippled anew"]()
    plain = [dataclasses.replace(task, changes=()) for task in tasks_of(family)]
    env = BatchedEnv(family, TASKS, ENVS, 1, simulator=TORCH)
    assert isinstance(env.simulation, TorchSimulation)
    for tasks, recorded in ((plain, 1), (plain[::-1], 1), (tasks_of(family), 2), (tasks_of(family)[::-1], 2)):
        env.set_tasks(tasks)
        env.reset([np.random.default_rng(m) for m in range(TASKS)])
        for _ in range(3):
            env.step(torch.zeros(TASKS, ENVS, family.action_size, dtype=torch.float64))
        assert env.simulation.recorded == recorded


def test_a_simulation_that_mujoco_flags_ends_alone_in_torch_too():
    env = BatchedEnv(make_family(HalfCheetahVelocitySettings()), TASKS, ENVS, 1, simulator=TORCH)
    still = torch.zeros(TASKS, ENVS, 6, dtype=torch.float64)
    for faults in (1, 2):
        env.reset([np.random.default_rng(m) for m in range(TASKS)])
        assert env.active.all() and not env.step(still).faulted.any()
        env.simulation.bind("qvel")[2, 3] = torch.inf
        step = env.step(still)
        assert step.faulted.tolist() == [[False, False], [True, False]] and env.num_faults == faults
        assert step.observations.isfinite().all() and step.rewards[1, 0] == 0
        assert env.active.tolist() == [[True, True], [False, True]] and not env.step(still).faulted.any()


def with_term(function: Callable[[State], Any], weight: float) -> TaskFamily:
    return dataclasses.replace(
        make_family(HalfCheetahVelocitySettings()), rewards={"term": RewardTerm(function, weight)}
    )


def test_flags_and_counts_are_weighed_in_the_precision_of_the_simulation():
    for function in (lambda state: state.qpos[:, 0] > -1e9, lambda state: state.steps):
        env = BatchedEnv(with_term(function, 0.1), 1, 1, 1, simulator=TORCH)
        env.reset([np.random.default_rng(0)])
        env.step(torch.zeros(1, 1, 6, dtype=torch.float64))
        assert env.term_sums["term"].tolist() == [0.1]


def test_a_reward_that_is_nan_is_found_when_somebody_looks():
    env = BatchedEnv(with_term(lambda state: state.xp.log(state.qpos[:, 0] - 1e9), 1.0), 1, 1, 1, simulator=TORCH)
    env.reset([np.random.default_rng(0)])
    env.verify()
    env.step(torch.zeros(1, 1, 6, dtype=torch.float64))
    with pytest.raises(SimulationFault, match="reward term 'term' of family 'half_cheetah_velocity' is nan at step 1"):
        env.verify()


def zero_some(x: torch.Tensor) -> None:
    x[x > 0] = 0


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[0].item(),
        lambda x: bool((x > 0).any()),
        lambda x: x.numpy(),
        lambda x: x.tolist(),
        lambda x: np.exp(x),
        lambda x: x[x > 0],
        zero_some,
        lambda x: torch.nonzero(x),
        lambda x: x[[0, 1]],
        lambda x: x + like(np.ones(3), x),
    ],
)
def test_what_a_device_would_wait_for_is_noticed(function: Callable[[torch.Tensor], Any]):
    x = torch.arange(3.0)
    with pytest.raises(Crossing), Watch().on():
        function(x)


def test_constants_are_copied_once_and_read_again():
    x, kept = torch.arange(3.0), np.arange(3.0)
    add = TorchSimulation(mujoco.MjModel.from_xml_string("<mujoco/>"), 1, 1).repeat(
        lambda given: x.add_(given * like(kept, given))
    )
    for i in range(4):
        add(torch.full((3,), float(i)))
    assert x.tolist() == [0.0, 7.0, 14.0]


@pytest.mark.parametrize("sizes", [(3, 3, 3), (3, 3, 2)])
def test_other_memory_and_other_shapes_are_noticed(sizes: tuple[int, ...]):
    there = torch.arange(3.0)
    given = [torch.zeros(3), *(there[:size] if size < 3 else torch.zeros(3) for size in sizes[1:])]
    which = iter(given)
    add = TorchSimulation(mujoco.MjModel.from_xml_string("<mujoco/>"), 1, 1).repeat(lambda x: next(which) + x.sum())
    add(there)
    add(there)
    with pytest.raises(Crossing, match="was recorded"):
        add(there)
