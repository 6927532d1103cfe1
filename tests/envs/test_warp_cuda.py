"""What only a CUDA device can show of mujoco-warp: recorded graphs. Nothing here runs without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.robots.ant_settings import AntCrippledSettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.envs.simulation import Simulator
from metarl.envs.warp.simulation import WarpSimulation, simulator

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
WORLDS, STEPS = 4, 30


def cheetahs(device: str, deterministic: bool = False) -> tuple[TaskFamily, WarpSimulation]:
    family = make_family(HalfCheetahMassSettings())
    models = [family.compile(family.task({"mass_scale": 0.8 + 0.1 * k})) for k in range(WORLDS)]
    simulation = WarpSimulation(models[0], WORLDS, 1, device, deterministic)
    simulation.take(models)
    simulation.assign(simulation.array(np.arange(WORLDS)))
    every = simulation.array(np.ones(WORLDS, dtype=bool))
    simulation.reset(every)
    simulation.forward(every)
    return family, simulation


def played(simulation: WarpSimulation, recorded: bool, seed: int = 0) -> np.ndarray:
    """qpos after steps with random controls, by a recorded function or by the function itself."""
    every = simulation.array(np.ones(WORLDS, dtype=bool))

    def step(signals: torch.Tensor) -> None:
        simulation.bind("ctrl").copy_(0.1 * signals)
        simulation.step(every, 5)

    call, rng = simulation.repeat(step) if recorded else step, np.random.default_rng(seed)
    for _ in range(STEPS):
        call(simulation.array(rng.uniform(-1, 1, (WORLDS, 6))))
    return simulation.host(simulation.bind("qpos")).copy()


def test_a_recording_computes_what_the_function_does_and_what_the_cpu_device_does():
    results = [played(cheetahs(device)[1], recorded) for device, recorded in (("cuda:0", True), ("cuda:0", False))]
    own = played(cheetahs("cpu")[1], recorded=False)
    assert np.abs(results[0] - results[1]).max() < 1e-4
    assert np.abs(results[0] - own).max() < 1e-4


def test_a_recording_is_made_anew_for_other_arrays_and_kept_for_other_values():
    family, simulation = cheetahs("cuda:0")
    every = simulation.array(np.ones(WORLDS, dtype=bool))
    call: Any = simulation.repeat(lambda signals: simulation.step(every, 1))
    nothing = simulation.array(np.zeros((WORLDS, 1)))
    for _ in range(3):
        call(nothing)
    graph = call._graph
    heavy = [family.compile(family.task({"mass_scale": 1.5}))] * WORLDS
    for _ in range(3):
        simulation.take(heavy)
        simulation.assign(simulation.array(np.arange(WORLDS)))
        call(nothing)
    assert graph is not None and call._graph is graph
    simulation.take(heavy[:2])
    simulation.assign(simulation.array(np.arange(WORLDS) % 2))
    for _ in range(3):
        call(nothing)
    assert call._graph is not None and call._graph is not graph


@pytest.mark.parametrize("settings", [HalfCheetahMassSettings(), AntCrippledSettings(changes=1, change_gap=(3, 6))])
def test_control_steps_of_a_batched_env_are_recorded_and_are_those_of_the_cpu_device(settings):
    family = make_family(settings)
    tasks = family.sample(3, np.random.default_rng(4))

    def episode(device: Simulator) -> list[np.ndarray]:
        env = BatchedEnv(family, 3, 2, simulator=device)
        env.set_tasks(tasks)
        seen = [env.simulation.host(env.reset([np.random.default_rng(m) for m in range(3)])).copy()]
        rng = np.random.default_rng(5)
        for _ in range(10):
            actions = 0.1 * rng.uniform(-1, 1, (3, 2, family.action_size))
            seen.append(env.simulation.host(env.step(env.simulation.array(actions)).observations).copy())
        return seen

    errors = [
        np.abs(ours - theirs).max(axis=-1)
        for ours, theirs in zip(episode(simulator("cuda:0")), episode(simulator("cpu")), strict=True)
    ]
    assert max(error.max() for error in errors[:5]) < 1e-3
    assert np.quantile(errors[-1], 0.8) < 1e-3  # a contact may begin one step apart in one env of the six


def test_a_deterministic_run_repeats_bit_for_bit():
    first, second = (played(cheetahs("cuda:0", deterministic=True)[1], recorded=True) for _ in range(2))
    assert np.array_equal(first, second)
