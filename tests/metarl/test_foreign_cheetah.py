"""Gymnasium's HalfCheetah as an environment of one's own, and half_cheetah_velocity: one physics, the same trials."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from metarl.agents.agent import Agent
from metarl.agents.registry import make_agent
from metarl.config import EvaluationSettings, RunConfig, TrainingSettings
from metarl.envs import mujoco_log
from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.foreign.settings import EnvSettings
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahVelocitySettings
from metarl.evaluation.evaluate import evaluate_agent
from metarl.runs.run import Run
from metarl.runs.trial import torch_stream
from metarl.training.loop import Counters, iterate
from metarl.training.world import TrainingWorld
from tests.small_agents import small_agent

THEIRS = """
import gymnasium
import numpy as np
import metarl

class Velocity(gymnasium.Wrapper):
    '''HalfCheetah-v5 with the reward of half_cheetah_velocity.'''
    def set_task(self, task):
        self.target = task["target_velocity"]
    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        cost = COST * np.square(action, dtype=np.float64).sum()
        return observation, -abs(info["x_velocity"] - self.target) - cost, terminated, truncated, info

def tasks():
    return metarl.GymTasks(
        make=lambda: Velocity(gymnasium.make("HalfCheetah-v5", frame_skip=FRAME_SKIP)),
        parameters=(metarl.quantity("target_velocity", 0, 2, "m/s"),),
    )
"""
HORIZON = 100
"""Steps of an episode that a policy is judged by."""


def theirs(folder: Path, horizon: int = HORIZON, cost: str = "0.05", frame_skip: str = "5") -> TaskFamily:
    """Gymnasium's HalfCheetah as a family; other costs and frame skips are faults."""
    file = folder / f"theirs_{cost}_{frame_skip}.py"
    file.write_text(THEIRS.replace("COST", cost).replace("FRAME_SKIP", frame_skip))
    return make_family(EnvSettings(f"{file}:tasks", horizon=horizon, processes=1))


def ours(horizon: int = HORIZON) -> TaskFamily:
    return make_family(HalfCheetahVelocitySettings(horizon=horizon))


def from_their_starts(family: TaskFamily) -> TaskFamily:
    """Our family, whose episodes start as Gymnasium's own resets do, from the seeds that their family draws."""
    with mujoco_log.silent():
        plain = gymnasium.make("HalfCheetah-v5").unwrapped

    def reset(model, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        starts = []
        for seed in rng.integers(2**31, size=count):
            plain.reset(seed=int(seed))
            starts.append((plain.data.qpos.copy(), plain.data.qvel.copy()))
        qpos, qvel = zip(*starts, strict=True)
        return np.stack(qpos), np.stack(qvel)

    return dataclasses.replace(family, reset=reset)


def test_the_same_actions_from_the_same_starts_do_the_same(tmp_path):
    """Over whole episodes of Gymnasium, observations to the bit, rewards to the precision of float32."""
    steps = 1000
    pair = theirs(tmp_path, steps), from_their_starts(ours(steps))
    envs = [BatchedEnv(family, 2, 1, threads=1) for family in pair]
    speeds = (0.5, 2.0)
    seen = []
    for family, env in zip(pair, envs, strict=True):
        env.set_tasks([family.task({"target_velocity": speed}) for speed in speeds])
        seen.append(env.reset([np.random.default_rng(m) for m in range(2)]))
    np.testing.assert_array_equal(*seen)
    rng, phase = np.random.default_rng(3), np.array([0, 1.5, 3, 3, 4.5, 6])
    ended, moved = [], 0.0
    for t in range(steps):
        action = (np.sin(0.5 * t + phase) + rng.normal(0, 0.3, (2, 1, 6))).astype(np.float32)
        own, other = (env.step(action) for env in envs)
        np.testing.assert_array_equal(own.observations, other.observations)
        np.testing.assert_allclose(own.rewards, other.rewards, rtol=1e-6, atol=1e-6)
        moved = max(moved, np.abs(own.observations).max())
        ended.append([step.truncated.all() for step in (own, other)])
    assert ended == [[False, False]] * (steps - 1) + [[True, True]] and moved > 1


def judged(agent: Agent, family: TaskFamily, **more) -> np.ndarray:
    """Returns by the evaluation that every agent has, [K, M]."""
    chosen = {"tasks": 40, "envs_per_task": 1, "adaptations": 0, "seeds": (1,), "bootstrap_samples": 20, **more}
    return evaluate_agent(agent, family, EvaluationSettings(train_gap=False, **chosen), threads=1).returns[0]


def new_run(name: str, **more) -> Run:
    """A run that has not been trained, on our family."""
    family, chosen = ours(), small_agent(name, **more)
    generator = torch_stream(1, "initialisation")
    agent = make_agent(chosen, family.observation_size, family.action_size, generator, torch.device("cpu"))
    training = TrainingSettings(tasks=20, envs_per_task=1, threads=1, adaptations=0)
    return Run(Path(), RunConfig(agent=chosen, family=family.settings, training=training), family, agent, 0, 0)


@pytest.fixture(scope="module")
def runner() -> Agent:
    """A policy that has learned in our family to run."""
    run = new_run("randomised", hidden_sizes=(32, 32), lr=2e-3, initial_std=0.3, discount=0.97)
    before = judged(run.agent, ours(), explore=False).mean()
    world, counters = TrainingWorld(run), Counters()
    for _ in range(12):
        iterate(world, counters)
    assert judged(run.agent, ours(), explore=False).mean() > before + 10
    return run.agent


@pytest.mark.thorough
def test_a_trained_policy_has_the_same_returns_from_the_same_starts(runner, tmp_path):
    own, other = (judged(runner, family) for family in (theirs(tmp_path), from_their_starts(ours())))
    np.testing.assert_allclose(own, other, rtol=1e-6)


@pytest.mark.parametrize("name", ["rl2", "maml"])
def test_a_trial_with_adaptation_is_the_same_from_the_same_starts(name, tmp_path):
    agent, trial = new_run(name).agent, {"tasks": 4, "adaptations": 2}
    own, other, faulty = (
        judged(agent, family, **trial)
        for family in (theirs(tmp_path), from_their_starts(ours()), theirs(tmp_path, cost="0.051"))
    )
    np.testing.assert_allclose(own, other, rtol=1e-5)  # rewards, which it reads, differ in the last digit of float32
    assert (np.abs(faulty - own) > 1e-2).all()


def difference(agent: Agent, family: TaskFamily, explore: bool) -> tuple[float, float]:
    """Mean over 40 tasks of what returns differ from ours by, 4 episodes a task, and half of its 99 % interval."""
    own, other = (judged(agent, each, explore=explore, envs_per_task=4)[0] for each in (ours(), family))
    apart = other - own
    return apart.mean(), 2.58 * apart.std(ddof=1) / np.sqrt(apart.size)


@pytest.mark.thorough
@pytest.mark.parametrize("explore", [False, True])
def test_a_trained_policy_has_returns_of_the_same_mean_from_starts_of_their_own(runner, explore, tmp_path):
    mean, half = difference(runner, theirs(tmp_path), explore)
    assert abs(mean) < half < 4  # of returns of about -85: narrow enough for the faults below


@pytest.mark.slow
@pytest.mark.parametrize(("explore", "fault"), [(False, {"frame_skip": "4"}), (True, {"cost": "0.1"})])
def test_another_frame_skip_or_control_cost_would_be_noticed(runner, explore, fault, tmp_path):
    mean, half = difference(runner, theirs(tmp_path, **fault), explore)
    assert abs(mean) > half
