"""PPO in fewer calls, against Stable-Baselines3's own PPO on the same envs and the same data."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from metarl.agents.arithmetic import subnormals, subnormals_kept
from metarl.agents.sb3 import gradient as passes
from metarl.agents.sb3 import lean_ppo
from metarl.agents.sb3.device_ppo import Minibatch, ppo_loss
from metarl.agents.sb3.gradient import fill_gradients
from metarl.agents.sb3.ppo import Ppo
from metarl.agents.sb3.settings import PpoSettings
from metarl.envs.adapters.vec_env import TaskVecEnv
from metarl.envs.registry import make_family
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.runs.trial import streams

CPU = torch.device("cpu")
POINT = make_family(PointGoalSettings(horizon=12))
SMALL = PpoSettings(hidden_sizes=(8, 6), steps=5, lr=3e-3, minibatches=3)  # episodes end within rollouts
CASES = {
    "tanh": SMALL,
    "elu": dataclasses.replace(SMALL, activation="elu", entropy_weight=0.01, value_weight=1.0),
    "relu": dataclasses.replace(SMALL, activation="relu", max_gradient_norm=0.01),
    "stopped": dataclasses.replace(SMALL, target_kl=1e-3),
    "as it is": dataclasses.replace(SMALL, normalise_input=False, normalise_reward=False),
}


def agent(settings: PpoSettings) -> Ppo:
    """From weights whose statistics are well conditioned: from seed 0, `relu` explains a variance of -4.0, whose
    rounding differs by 1.4e-4 of it from CPU to CPU."""
    sizes = POINT.observation_size, POINT.action_size
    return Ppo(settings, *sizes, torch.Generator().manual_seed(1), CPU)


def trained(settings: PpoSettings, own: bool) -> tuple[Ppo, list[dict[str, float]], list[float]]:
    """The agent after three iterations, its metrics and the episodes' returns; own: False for SB3's PPO itself."""
    ours, env = agent(settings), TaskVecEnv(POINT, 3, 2, threads=1)
    if not own:
        ours.model.__class__ = PPO
    env.set_tasks(POINT.sample(3, np.random.default_rng(0)))
    env.use(streams(1, "test", 0, 3))
    metrics, returns = [], []
    for key in range(3):
        metrics.append(ours.learn(env, 30, torch.Generator().manual_seed(key)))
        returns += [episode.total for episode in env.episodes]
    return ours, metrics, returns


@pytest.mark.parametrize("case", CASES)
def test_it_learns_what_sb3_learns(case: str):
    (ours, mine, earned), (theirs, yours, expected) = (trained(CASES[case], own) for own in (True, False))
    start = list(agent(CASES[case]).model.policy.parameters())
    pairs = zip(ours.model.policy.parameters(), theirs.model.policy.parameters(), start, strict=True)
    for parameter, other, before in pairs:
        torch.testing.assert_close(parameter, other, rtol=0, atol=1e-5)
        assert (other - before).abs().max() > 1e-3
    np.testing.assert_allclose(earned, expected, atol=1e-4)
    for one, other in zip(mine, yours, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    for moments, same in ((ours.input_moments, theirs.input_moments), (ours.return_moments, theirs.return_moments)):
        np.testing.assert_allclose(moments.mean, same.mean, atol=1e-6)
        assert moments.count == same.count
    assert ours.model.num_timesteps == theirs.model.num_timesteps == 3 * 30 * 6


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
def test_the_gradient_is_that_of_autograd(activation):
    settings = dataclasses.replace(SMALL, activation=activation, entropy_weight=0.1, value_weight=0.7, clip=0.05)
    policy, g = agent(settings).model.policy, torch.Generator().manual_seed(1)
    count, sizes = 50, (POINT.observation_size, POINT.action_size)
    observations, actions = (torch.randn(count, size, generator=g) for size in sizes)
    values, likelihoods, advantages, returns = torch.randn(4, count, generator=g)
    minibatch = Minibatch(observations, actions, values, likelihoods - 3.0, advantages, returns)
    expected, theirs = ppo_loss(policy, minibatch, settings)
    gradients = torch.autograd.grad(expected, list(policy.parameters()))
    loss, metrics = fill_gradients(policy, minibatch, settings)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(metrics, theirs)
    assert 0 < float(metrics["clip_fraction"]) < 1
    for parameter, gradient in zip(policy.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
        assert gradient.abs().max() > 0


def test_a_minibatch_of_one_step_has_a_gradient():
    """The last minibatch, where steps do not divide evenly; its advantage has no standard deviation."""
    policy, one = agent(SMALL).model.policy, torch.ones(1)
    minibatch = Minibatch(torch.ones(1, POINT.observation_size), torch.ones(1, POINT.action_size), *[one] * 4)
    loss, _ = fill_gradients(policy, minibatch, SMALL)
    assert all(torch.isfinite(parameter.grad).all() for parameter in policy.parameters()) and torch.isfinite(loss)


@pytest.fixture
def any_batch_is_worth_a_thread(monkeypatch):
    """Torch's number of threads, which a test may set, is what it was afterwards."""
    monkeypatch.setattr(lean_ppo, "WORTH_A_THREAD", 0)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("any_batch_is_worth_a_thread")
def test_the_critic_may_learn_in_a_thread_of_its_own(monkeypatch):
    settings, threads = dataclasses.replace(SMALL, epochs=2), set[int]()
    fill = lean_ppo.fill_gradients

    def watched(policy, minibatch, s, critic_thread):
        if critic_thread:
            threads.add(critic_thread.submit(threading.get_ident).result())
            assert not critic_thread.submit(subnormals_kept).result()  # as in the thread that starts it
            assert critic_thread.submit(torch.get_num_threads).result() == torch.get_num_threads() == 1
        return fill(policy, minibatch, s, critic_thread)

    monkeypatch.setattr(lean_ppo, "fill_gradients", watched)
    learned = []
    for count in (1, 2):
        torch.set_num_threads(count)
        with subnormals(kept=False):
            learned.append(trained(settings, own=True))
        assert torch.get_num_threads() == count
        assert bool(threads) == (count == 2)
    (alone, metrics, returns), (apart, same_metrics, same_returns) = learned
    assert threading.get_ident() not in threads
    assert metrics == same_metrics and returns == same_returns
    for one, other in zip(alone.model.policy.parameters(), apart.model.policy.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("any_batch_is_worth_a_thread")
def test_a_fault_in_the_critics_thread_is_raised(monkeypatch):
    def broken(values, minibatch):
        raise ValueError("no critic")

    monkeypatch.setattr(passes, "critic_loss", broken)
    torch.set_num_threads(2)
    with pytest.raises(ValueError, match="no critic"):
        trained(SMALL, own=True)
    assert torch.get_num_threads() == 2
