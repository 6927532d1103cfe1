"""Trials and the data that they are made of."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from metarl.agents.maml.maml import Maml
from metarl.agents.registry import make_agent
from metarl.envs.batch import SimulationFault
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahVelocitySettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.sharded import ShardedEnv
from metarl.envs.terms import RewardTerm
from metarl.runs.trial import run_trial, stream, streams
from tests.small_agents import small_agent

CPU = torch.device("cpu")


def make(family: TaskFamily, threads: int = 1):
    """An env of three tasks, two envs each, and MAML for it."""
    env = ShardedEnv(family, 3, 2, threads, at_once=2)
    env.set_tasks(family.sample(3, np.random.default_rng(0)))
    sizes = family.observation_size, family.action_size
    return env, make_agent(small_agent("maml"), *sizes, torch.Generator().manual_seed(0), CPU)


def test_observations_actions_and_rewards_are_aligned():
    family = make_family(PointGoalSettings(horizon=8, goal_range=5.0))
    env, agent = make(family)
    rollout = run_trial(env, agent, streams(1, "test", 0, 3), adaptations=0).trial.rollouts[0]
    reached = torch.cat([rollout.observations[1:], rollout.final_observations[None]])
    torch.testing.assert_close(reached, rollout.observations + rollout.actions.clamp(-0.1, 0.1))
    goals = torch.tensor([[t.values["goal_x"], t.values["goal_y"]] for t in env.tasks]).view(1, 3, 1, 2)
    torch.testing.assert_close(rollout.rewards, -(reached - goals).norm(dim=-1).float(), rtol=1e-5, atol=1e-5)
    assert rollout.valid.all() and rollout.truncated[-1].all() and not rollout.truncated[:-1].any()


def test_steps_after_the_end_of_an_episode_are_not_valid():
    family = make_family(PointGoalSettings(horizon=30))
    env, agent = make(family)
    env.set_tasks([family.task({"goal_x": x, "goal_y": 0.0}) for x in (0.0, 0.004, 0.5)])
    agent.theta[-2:] = -6.0  # nearly no noise: the first two tasks end at once or drift off
    rollout = run_trial(env, agent, streams(1, "test", 0, 3), adaptations=0).trial.rollouts[0]
    assert rollout.terminated.any()
    for m, n in rollout.terminated.any(0).nonzero().tolist():
        (end,) = rollout.terminated[:, m, n].nonzero().flatten().tolist()
        assert rollout.valid[: end + 1, m, n].all() and not rollout.valid[end + 1 :, m, n].any()
        assert not rollout.rewards[end + 1 :, m, n].any()


def test_a_flagged_episode_is_kept_out(monkeypatch):
    env, agent = make(make_family(HalfCheetahVelocitySettings(horizon=6)))
    shard = env.shards[1]
    step, calls = shard.step, []

    def sabotage(actions):
        calls.append(1)
        if len(calls) == 3:
            shard.simulation.batch.qvel[0, 0] = np.inf  # task 2, env 0
        return step(actions)

    monkeypatch.setattr(shard, "step", sabotage)
    result = run_trial(env, agent, streams(1, "test", 0, 3), adaptations=0)
    (rollout,), (terms,) = result.trial.rollouts, result.reward_terms
    assert not rollout.valid[:, 2, 0].any()
    assert rollout.valid.sum() == 5 * 6
    returns = rollout.episode_returns()
    assert returns.isnan().sum() == 1 and returns[2, 0].isnan()
    assert not rollout.observations[:, 2, 0].any() and not rollout.actions[:, 2, 0].any()
    assert rollout.observations.isfinite().all()
    for sums in terms.values():
        np.testing.assert_array_equal(np.isnan(sums), returns.isnan().numpy())


def test_reward_terms_sum_to_the_return():
    env, agent = make(make_family(HalfCheetahVelocitySettings(horizon=10)))
    result = run_trial(env, agent, streams(1, "test", 0, 3), adaptations=0)
    (rollout,), (terms,) = result.trial.rollouts, result.reward_terms
    np.testing.assert_allclose(sum(terms.values()), rollout.episode_returns().numpy(), rtol=1e-4)


def test_a_fault_in_one_shard_ends_the_other_and_is_told():
    family = make_family(HalfCheetahVelocitySettings(horizon=10**5))

    def broken(state):
        return np.where(state.task["target_velocity"] > 1.5, np.nan, 0.0)

    family = dataclasses.replace(family, rewards={"broken": RewardTerm(broken)})
    env, agent = make(family, threads=2)
    env.set_tasks([family.task({"target_velocity": v}) for v in (0.5, 0.6, 1.7)])
    with pytest.raises(SimulationFault, match="'broken'"):
        run_trial(env, agent, streams(1, "test", 0, 3), adaptations=0)
    assert env.shards[0].active.all()


def test_streams_differ_by_seed_name_iteration_and_task_and_by_nothing_else():
    draws = {
        key: stream(*key).random()
        for key in [(1, "a", 0), (2, "a", 0), (1, "b", 0), (1, "a", 1), (1, "a", 0, 1), (1, "a", 0, 2)]
    }
    assert len(set(draws.values())) == len(draws)
    assert stream(1, "a", 0).random() == draws[1, "a", 0]


def test_collection_leaves_torchs_threads_as_they_were():
    env, agent = make(make_family(PointGoalSettings(horizon=2)))
    assert isinstance(agent, Maml)
    before = torch.get_num_threads()
    run_trial(env, agent, streams(1, "test", 0, 3), adaptations=0)
    assert torch.get_num_threads() == before
