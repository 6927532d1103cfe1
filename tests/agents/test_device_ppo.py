"""PPO on a device computes what Stable-Baselines3 computes: advantages, updates, normalisers."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecNormalize

from metarl.agents.sb3.device_ppo import DevicePpo, RunningMoments
from metarl.agents.sb3.ppo import Ppo
from metarl.agents.sb3.settings import PpoSettings
from metarl.envs.registry import make_family
from metarl.envs.restarting import RestartingEnv
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from tests.envs.torch_simulation import TORCH

CPU = torch.device("cpu")
OBS, ACT, K, S = 5, 2, 6, 4


class Still:
    """Envs that nobody steps."""

    num_envs = S

    def step(self, actions):
        raise AssertionError("nobody steps them")

    def repeat(self, function):
        return function


def agent(**settings):
    options = {"minibatches": 1, "epochs": 3, "hidden_sizes": (8,), "lr": 1e-2} | settings
    return Ppo(PpoSettings(**options), OBS, ACT, torch.Generator().manual_seed(0), CPU)


def filled(ours):
    """A learner on the device whose buffers hold random steps."""
    policy, inputs, returns = ours.model.policy, ours.input_moments, ours.return_moments
    learner = DevicePpo(policy, ours.settings, inputs, returns, Still(), (OBS, ACT), K, CPU)
    generator, b = torch.Generator().manual_seed(1), learner._buffers
    for buffer in (b["observations"], b["actions"], b["rewards"]):
        buffer.copy_(torch.randn(buffer.shape, generator=generator))
    b["ended"].copy_(torch.rand(K, S, generator=generator) < 0.3)
    learner._observations.copy_(torch.randn(S, OBS, generator=generator))
    with torch.no_grad():
        for t in range(K):
            values, likelihoods, _ = ours.model.policy.evaluate_actions(b["observations"][t], b["actions"][t])
            b.write(t, values=values.flatten(), log_likelihoods=likelihoods)
    return learner


def sb3_buffer(policy, learner, settings):
    """The same steps in Stable-Baselines3's buffer, with its advantages."""
    seen, taken = (spaces.Box(-np.inf, np.inf, (size,), np.float32) for size in (OBS, ACT))
    buffer, b = RolloutBuffer(K, seen, taken, CPU, settings.gae_lambda, settings.discount, S), learner._buffers
    starts = np.ones(S)
    for t in range(K):
        seen, taken, earned = (b[name][t].numpy() for name in ("observations", "actions", "rewards"))
        buffer.add(seen, taken, earned, starts, b["values"][t], b["log_likelihoods"][t])
        starts = b["ended"][t].numpy().astype(float)
    with torch.no_grad():
        buffer.compute_returns_and_advantage(policy.predict_values(learner._observations), starts)
    return buffer


def test_advantages_and_returns_are_those_of_sb3():
    ours = agent()
    learner = filled(ours)
    data, theirs = learner._data(), sb3_buffer(ours.model.policy, learner, ours.settings)
    np.testing.assert_allclose(data.advantages.view(K, S).numpy(), theirs.advantages, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(data.returns.view(K, S).numpy(), theirs.returns, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"entropy_weight": 0.1, "max_gradient_norm": 0.01}, {"target_kl": 1e-3}])
def test_an_update_is_that_of_sb3(settings):
    ours = agent(**settings)
    learner, theirs = filled(ours), copy.deepcopy(ours.model)
    theirs.rollout_buffer = sb3_buffer(theirs.policy, learner, ours.settings)
    theirs.batch_size, theirs.lr_schedule = K * S, FloatSchedule(ours.settings.lr)
    theirs.set_logger(Logger(folder=None, output_formats=[]))
    before = [parameter.clone() for parameter in theirs.policy.parameters()]
    theirs.train()
    metrics = learner._update()
    pairs = list(zip(ours.model.policy.parameters(), theirs.policy.parameters(), strict=True))
    for mine, yours in pairs:
        torch.testing.assert_close(mine, yours, rtol=2e-4, atol=2e-6)
    assert max((mine - was).detach().abs().max().item() for (mine, _), was in zip(pairs, before, strict=True)) > 5e-3
    logged = theirs.logger.name_to_value
    for name in ("clip_fraction", "entropy_loss", "policy_gradient_loss", "value_loss", "explained_variance", "std"):
        assert float(metrics[name]) == pytest.approx(float(logged[f"train/{name}"]), rel=1e-3, abs=1e-5), name


def test_the_normaliser_is_that_of_sb3():
    theirs, rng = RunningMeanStd(shape=(3,)), np.random.default_rng(0)
    ours = RunningMoments(theirs, CPU)
    for _ in range(5):
        batch = rng.normal(2.0, 3.0, (7, 3)).astype(np.float32)
        theirs.update(batch)
        ours.update(torch.from_numpy(batch))
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-6)
    np.testing.assert_allclose(ours.var, theirs.var, rtol=1e-6)
    assert float(ours.count) == pytest.approx(theirs.count)
    given = RunningMeanStd(shape=(3,))
    ours.give(given)
    assert given.count == pytest.approx(theirs.count)
    seen = np.full((1, 3), 100.0, dtype=np.float32)
    wrapped = VecNormalize.__new__(VecNormalize)
    wrapped.clip_obs, wrapped.epsilon = 10.0, 1e-8
    np.testing.assert_allclose(ours.scaled(torch.from_numpy(seen)), wrapped._normalize_obs(seen, theirs), rtol=1e-6)


def trained(iterations):
    metrics, family = {}, make_family(PointGoalSettings(horizon=20))
    settings = PpoSettings(hidden_sizes=(32,), steps=10, lr=3e-3, minibatches=2, discount=0.9)
    ours = Ppo(settings, family.observation_size, family.action_size, torch.Generator().manual_seed(0), CPU)
    env, returns = RestartingEnv(family, 4, 4, TORCH), []
    env.set_tasks([family.task({"goal_x": 0.3, "goal_y": -0.2})] * 4)
    for k in range(iterations):
        env.use([np.random.default_rng([k, m]) for m in range(4)])
        metrics = ours.learn_on_device(env, 20, torch.Generator().manual_seed(k))
        returns.append(float(np.nanmean(env.first_episodes()[0])))
    return ours, returns, metrics


@pytest.mark.thorough
def test_it_learns_and_is_the_same_again():
    _, returns, metrics = trained(16)
    assert np.mean(returns[-4:]) > np.mean(returns[:4]) + 1
    assert {"approx_kl", "value_loss", "lr"} <= metrics.keys()
    again, same, _ = trained(3)
    assert returns[:3] == same
    assert again.updates == 3
    assert again.input_moments.count == pytest.approx(1e-4 + 3 * 16 * 21)
