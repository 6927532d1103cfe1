"""Several lives in an episode: what is simulated, what every agent reads and learns from, and what a user is told."""

from __future__ import annotations

import json
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from metarl.agents.registry import AGENTS
from metarl.agents.slots import SlotReader
from metarl.agents.trial_ppo.learner import TrialPpo
from metarl.cli import app as cli
from metarl.config import EvaluationSettings, read_run_config
from metarl.envs.registry import make_family
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.walkers_settings import HopperParametersSettings
from metarl.envs.sharded import ShardedEnv
from metarl.evaluation.evaluate import evaluate_agent
from metarl.runs.trial import Disturbance, TrialResult, run_trial, streams
from tests.agents.test_every_agent import make_in
from tests.envs.torch_simulation import TORCH
from tests.small_agents import small_options

HORIZON = 60
HOPPER = make_family(HopperParametersSettings(horizon=HORIZON))
"""It falls after 10 to 30 steps of noise."""


def noisy(name: str, family=HOPPER) -> tuple[ShardedEnv, Any]:
    """An env of three tasks and two envs, and an agent whose noise makes the robot fall."""
    env, agent = make_in(family, name)
    for module in ("network", "policy"):
        log_std = getattr(getattr(agent, module, None), "log_std", None)
        if isinstance(log_std, torch.nn.Parameter):
            log_std.data.fill_(0.5)
    return env, agent


def play(name: str, family=HOPPER, lives: bool = True, **options) -> tuple[Any, TrialResult]:
    env, agent = noisy(name, family)
    return agent, run_trial(env, agent, streams(1, "test", 0, 3), 1, lives=lives, **options)


class TestEpisodes:
    def test_it_lasts_for_the_whole_horizon_and_its_return_counts_all_lives(self):
        _, result = play("rl2")
        _, single = play("rl2", lives=False)
        for rollout, terms, one in zip(result.trial.rollouts, result.reward_terms, single.trial.rollouts, strict=True):
            falls = rollout.new_lives()
            assert rollout.valid.all() and (falls.sum(0) > 1).any() and not one.valid.all()
            assert torch.equal(falls[:-1], rollout.terminated[:-1]) and not falls[-1].any()
            assert (rollout.truncated[-1] ^ rollout.terminated[-1]).all() and not rollout.truncated[:-1].any()
            np.testing.assert_allclose(sum(terms.values()), rollout.episode_returns(), rtol=1e-4)
        first, one = result.trial.rollouts[0], single.trial.rollouts[0]
        assert torch.equal(first.actions[one.valid], one.actions[one.valid])  # the first life is the single one

    def test_every_life_starts_as_an_episode_does_and_every_step_is_mujocos(self):
        env, agent = noisy("rl2")
        rollout = run_trial(env, agent, streams(1, "test", 0, 3), 0, lives=True).trial.rollouts[0]
        seen, reached, falls = rollout.observations, rollout.next_observations, rollout.new_lives()
        starts = seen[1:][falls[:-1]]
        home = torch.tensor([1.25, *[0.0] * (seen.shape[-1] - 1)])
        assert (starts - home).abs().max() <= 5e-3 and len(starts.unique(dim=0)) == len(starts) > 6
        assert torch.equal(seen[1:][~falls[:-1]], reached[:-1][~falls[:-1]])
        height, pitch = reached[falls][:, :2].T
        assert ((height < 0.7) | (pitch.abs() > 0.2)).all()
        for task in range(3):  # from the observation, which lacks the place alone
            model = HOPPER.compile(env.tasks[task])
            data, ranges = mujoco.MjData(model), model.actuator_ctrlrange.T
            for t in range(HORIZON):
                data.qpos[:] = 0.0
                data.qpos[1:], data.qvel[:] = np.split(seen[t, task, 0].double().numpy(), [model.nq - 1])
                data.ctrl[:] = np.clip(rollout.actions[t, task, 0].numpy(), *ranges)
                mujoco.mj_step(model, data, HOPPER.frame_skip)
                after = np.concatenate([data.qpos[1:], np.clip(data.qvel, -10, 10)])
                if seen[t, task, 0].abs().max() < 10:  # velocities are clipped there
                    np.testing.assert_allclose(reached[t, task, 0], after, rtol=2e-3, atol=2e-3)

    def test_measures_run_on_and_falls_are_the_share_of_episodes_with_one(self):
        env, agent = noisy("rl2")
        measured = ShardedEnv(HOPPER, 3, 2, 1, measuring=True)
        measured.set_tasks(env.tasks)
        result = run_trial(measured, agent, streams(1, "test", 0, 3), 0, lives=True)
        rollout, own = result.trial.rollouts[0], result.measures[0]
        np.testing.assert_array_equal(own["falls"], rollout.terminated.any(0))
        np.testing.assert_allclose(own["distance"], own["speed"] * HORIZON * measured.shards[0].dt, rtol=1e-6)

    def test_an_end_that_is_no_fall_ends_the_episode(self):
        family = make_family(PointGoalSettings(horizon=8, goal_range=0.2))
        (_, many), (_, one) = (play("rl2", family, lives) for lives in (True, False))
        for ours, theirs in zip(many.trial.rollouts, one.trial.rollouts, strict=True):
            assert torch.equal(ours.actions, theirs.actions) and ours.next_observations is None

    def test_noise_on_observations_and_other_tasks_beside_it_leave_the_starts_as_they_are(self):
        env, agent = noisy("maml")
        alone = ShardedEnv(HOPPER, 1, 2, 1)
        alone.set_tasks(env.tasks[1:2])
        whole = run_trial(env, agent, streams(1, "test", 0, 3), 0, lives=True).trial.rollouts[0]
        single = run_trial(alone, agent, streams(1, "test", 0, 3)[1:2], 0, lives=True).trial.rollouts[0]
        torch.testing.assert_close(single.observations[:, 0], whole.observations[:, 1], rtol=1e-3, atol=1e-3)
        blurred = Disturbance(np.full(HOPPER.observation_size, 1e-9))
        noisy_ = run_trial(env, agent, streams(1, "test", 0, 3), 0, disturbance=blurred, lives=True).trial.rollouts[0]
        torch.testing.assert_close(noisy_.observations, whole.observations, rtol=1e-2, atol=1e-2)

    def test_where_the_arrays_are_not_numpys_it_is_the_same(self):
        env, agent = noisy("maml")
        torch_env = ShardedEnv(HOPPER, 3, 2, 1, simulator=TORCH)
        torch_env.set_tasks(env.tasks)
        silent = {"adaptations": 0, "explore": False, "lives": True}
        agent.theta[-3:] = 0.0
        ours, theirs = (
            run_trial(e, agent, streams(1, "test", 0, 3), **silent).trial.rollouts[0] for e in (env, torch_env)
        )
        assert ours.new_lives().any()
        torch.testing.assert_close(theirs.observations, ours.observations, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", AGENTS)
class TestEveryAgent:
    def test_it_reads_several_lives_as_it_played_them(self, name: str):
        agent, result = play(name)
        if agent.facts.informed or not isinstance(agent, SlotReader):
            pytest.skip("it reads slots in no order, or beside what it was told")
        rollout, before = result.trial.rollouts[1], result.trial.beliefs[1]
        reading = agent.read(before, rollout)
        assert rollout.new_lives().any()
        for ours, theirs in zip(reading.belief.memory.values(), result.belief.memory.values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)

    def test_it_learns_from_the_slots_that_it_acted_on(self, name: str):
        agent, result = play(name, explore=False)
        if not isinstance(agent, TrialPpo):
            pytest.skip("it does not learn from slots")
        falls = torch.stack([rollout.new_lives() for rollout in result.trial.rollouts])
        if not falls.any():
            pytest.skip("its mean does not fall")
        sequence = agent.sequence(result.trial)
        assert int((sequence.inputs[..., -2] > 0.5).sum()) == falls.sum() + 2 * falls[0, 0].numel()
        assert int((sequence.steps & ~sequence.transitions).sum()) == falls.sum()
        means, _ = agent.evaluate(sequence)
        torch.testing.assert_close(means[sequence.steps], sequence.actions[sequence.steps], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["maml", "rl2", "pearl", "recurrent_ppo"])
def test_it_trains_and_is_judged_by_one_setting(name: str, tmp_path, capsys):
    small = ["training.tasks=2", "training.envs_per_task=2", "training.iterations=1", "evaluation.tasks=2"]
    small += ["evaluation.seeds=1", "evaluation.envs_per_task=1", "evaluation.bootstrap_samples=20"]
    common = [*small, f"family.horizon={HORIZON}", *small_options(name), "tracking.wandb=disabled"]
    common += ["--runs-dir", str(tmp_path), "training.lives=true", "evaluation.lives=true"]
    argv = ["train", "--agent", name, "--family", "hopper_parameters", "--name", "run", *common]
    assert cli.main(argv) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    if name != "pearl":  # which plays more than one trial an iteration
        rounds = read_run_config(tmp_path / "run").training.adaptations + 1
        assert lines[-1]["env_steps"] == 2 * 2 * rounds * HORIZON
    (saved,) = (tmp_path / "run" / "evaluation").glob("held_out_*_lives*.json")
    notes = json.loads(saved.read_text())["notes"]
    assert any("returns count all lives" in note for note in notes)
    assert "other lives after a fall" in capsys.readouterr().out


def test_where_no_episode_ends_by_a_fall_a_note_says_so():
    family = make_family(PointGoalSettings(horizon=5))
    settings = EvaluationSettings(tasks=2, envs_per_task=1, seeds=(1,), bootstrap_samples=20, lives=True)
    result = evaluate_agent(make_in(family, "rl2")[1], family, settings, threads=1)
    assert "evaluation.lives=true has no effect: no episode of point_goal ends by a fall" in result.notes
    assert not any("returns count all lives" in note for note in result.notes)
