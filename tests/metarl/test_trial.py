"""Trials and the data that they are made of."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from metarl.agents.learning import MetaLearner
from metarl.agents.maml.maml import Maml
from metarl.agents.registry import AGENT_SETTINGS, make_agent
from metarl.envs.batch import BatchedEnv, SimulationFault
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings, HalfCheetahVelocitySettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.sharded import ShardedEnv
from metarl.envs.terms import RewardTerm
from metarl.runs.trial import collect, run_trial, stream, streams
from tests.small_agents import small_agent

CPU = torch.device("cpu")


def make(family: TaskFamily, name: str = "maml", num_tasks: int = 3, envs: int = 2, threads: int = 1):
    env = ShardedEnv(family, num_tasks, envs, threads, at_once=2)
    env.set_tasks(family.sample(num_tasks, np.random.default_rng(0)))
    sizes = family.observation_size, family.action_size
    return env, make_agent(small_agent(name), *sizes, torch.Generator().manual_seed(0), CPU)


@pytest.mark.parametrize("name", list(AGENT_SETTINGS))
class TestEveryAgent:
    def test_a_trial_is_reproduced_by_its_generators(self, name: str):
        returns = []
        for _ in range(2):
            env, agent = make(make_family(HalfCheetahVelocitySettings(horizon=15)), name)
            trial = run_trial(env, agent, streams(1, "test", 0, 3), adaptations=2).trial
            returns.append(torch.stack([r.episode_returns() for r in trial.rollouts]))
        assert returns[0].shape == (3, 3, 2)
        torch.testing.assert_close(*returns, rtol=0, atol=0)

    def test_a_tasks_trial_does_not_depend_on_the_tasks_beside_it(self, name: str):
        family = make_family(HalfCheetahMassSettings(horizon=10))
        env, agent = make(family, name)
        together = run_trial(env, agent, streams(1, "test", 0, 3), adaptations=1).trial
        alone_env = ShardedEnv(family, 1, 2, 1)
        alone_env.set_tasks(env.tasks[1:2])
        alone = run_trial(alone_env, agent, streams(1, "test", 0, 3)[1:2], adaptations=1).trial
        torch.testing.assert_close(
            alone.rollouts[0].actions[:, 0], together.rollouts[0].actions[:, 1], rtol=1e-4, atol=1e-4
        )

    def test_the_model_is_the_same_for_the_whole_trial(self, name: str):
        env, agent = make(make_family(HalfCheetahMassSettings(horizon=5)), name)
        batches = [shard.simulation.batch for shard in env.shards]
        masses = [[batch.get_model(i).body_mass.copy() for i in range(batch.nsim)] for batch in batches]
        tasks = env.tasks
        run_trial(env, agent, streams(1, "test", 0, 3), adaptations=2)
        assert env.tasks == tasks
        for batch, before in zip(batches, masses, strict=True):
            for i, mass in enumerate(before):
                np.testing.assert_array_equal(batch.get_model(i).body_mass, mass)

    def test_without_exploration_the_actions_follow_from_the_observations(self, name: str):
        env, agent = make(make_family(PointGoalSettings(horizon=6)), name)
        rollout = run_trial(env, agent, streams(1, "test", 0, 3), adaptations=0, explore=False).trial.rollouts[0]
        torch.testing.assert_close(rollout.actions[:, :, 0], rollout.actions[:, :, 1])  # all start at the same place

    def test_with_noise_or_without_every_shot_starts_alike(self, name: str):
        env, agent = make(make_family(HalfCheetahMassSettings(horizon=4)), name)
        silent, noisy = (
            run_trial(env, agent, streams(1, "test", 0, 3), adaptations=2, explore=explore).trial.rollouts
            for explore in (False, True)
        )
        for ours, theirs in zip(silent, noisy, strict=True):
            torch.testing.assert_close(ours.observations[0], theirs.observations[0], rtol=0, atol=0)
        assert not torch.equal(silent[0].actions, noisy[0].actions)
        assert not torch.equal(silent[0].observations[0], silent[1].observations[0])

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_on_cuda_it_acts_adapts_and_learns_as_on_the_cpu(self, name: str):
        family = make_family(PointGoalSettings(horizon=6))
        actions = []
        for device in (CPU, torch.device("cuda")):
            env, _ = make(family, name)
            sizes = family.observation_size, family.action_size
            agent = make_agent(small_agent(name), *sizes, torch.Generator().manual_seed(0), device)
            trial = run_trial(env, agent, streams(1, "test", 0, 3), adaptations=1).trial
            if isinstance(agent, MetaLearner):
                metrics = agent.meta_update(trial, torch.Generator().manual_seed(0))
                assert all(np.isfinite(v) for v in metrics.values())
            trial = run_trial(env, agent, streams(1, "test", 1, 3), adaptations=1).trial
            actions.append(torch.stack([rollout.actions for rollout in trial.rollouts]))
        torch.testing.assert_close(*actions, rtol=1e-3, atol=1e-3)

    def test_an_update_changes_the_agent_and_reports_finite_numbers(self, name: str):
        env, agent = make(make_family(HalfCheetahVelocitySettings(horizon=12)), name)
        if not isinstance(agent, MetaLearner):
            pytest.skip("it learns from a VecEnv: tests/agents/test_sb3.py")
        trial = run_trial(env, agent, streams(1, "test", 0, 3), adaptations=1).trial
        before = torch.cat([p.flatten() for p in tensors(agent.state_dict())])
        metrics = agent.meta_update(trial, torch.Generator().manual_seed(0))
        after = torch.cat([p.flatten() for p in tensors(agent.state_dict())])
        assert before.shape != after.shape or not torch.equal(before, after)
        assert metrics and all(np.isfinite(v) for v in metrics.values())


def tensors(state) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state.double()]
    if isinstance(state, dict):
        return [t for v in state.values() for t in tensors(v)]
    return [t for v in state for t in tensors(v)] if isinstance(state, list | tuple) else []


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


@pytest.mark.parametrize("name", list(AGENT_SETTINGS))
def test_the_shards_trial_is_that_of_one_batch(name: str):
    family = make_family(HalfCheetahVelocitySettings(horizon=12))
    results = []
    for threads in (1, 2, 4):
        env, agent = make(family, name, threads=threads)
        assert [shard.num_tasks for shard in env.shards] == [2, 1] and env.workers == min(threads, 2)
        results.append(run_trial(env, agent, streams(1, "test", 0, 3), adaptations=2))
    assert len(env.tasks) == 3 and [task for shard in env.shards for task in shard.tasks] == env.tasks
    whole = BatchedEnv(family, 3, 2, 2)
    whole.set_tasks(env.tasks)
    belief, rngs = agent.begin(3, 2, ()), streams(1, "test", 0, 3)
    for k in range(3):
        for field in ("hidden", "parameters"):
            if hasattr(belief, field):
                torch.testing.assert_close(getattr(results[0].trial.beliefs[k], field), getattr(belief, field))
        shot = collect(whole, agent, belief, rngs)
        for result in results:
            rollout = result.trial.rollouts[k]
            for name_, data in vars(shot.rollout).items():
                torch.testing.assert_close(getattr(rollout, name_), data, rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(
                    getattr(rollout, name_), getattr(results[0].trial.rollouts[k], name_), rtol=0, atol=0
                )
            for term, sums in shot.reward_terms.items():
                np.testing.assert_allclose(result.reward_terms[k][term], sums, rtol=1e-4, atol=1e-4)
        belief = agent.adapt(shot.belief, shot.rollout, ())


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
