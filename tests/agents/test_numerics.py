"""Numerics against closed forms, identities and torch.distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from metarl.agents import numerics
from metarl.agents.maml import baseline

DOUBLE = torch.float64


def test_returns_of_a_constant_reward_are_the_geometric_sum():
    rewards, ended = torch.ones(6, 1, dtype=DOUBLE), torch.zeros(6, 1, dtype=torch.bool)
    expected = [(1 - 0.9**n) / (1 - 0.9) for n in range(6, 0, -1)]
    torch.testing.assert_close(
        numerics.discounted_returns(rewards, ended, 0.9)[:, 0], torch.tensor(expected, dtype=DOUBLE)
    )


def test_returns_do_not_cross_an_episode_end():
    rewards = torch.tensor([1.0, 2.0, 4.0, 8.0])
    ended = torch.tensor([False, True, False, True])
    assert numerics.discounted_returns(rewards, ended, 0.5).tolist() == [2.0, 2.0, 8.0, 8.0]


def random_episode(steps: int = 7) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    rewards, values, next_values = (torch.randn(steps, 3, generator=generator, dtype=DOUBLE) for _ in range(3))
    next_values[:-1] = values[1:]
    return rewards, values, next_values, torch.zeros(steps, 3, dtype=torch.bool)


def test_gae_with_lambda_0_is_the_one_step_error_and_with_lambda_1_return_minus_value():
    rewards, values, next_values, ended = random_episode()
    one_step = rewards + 0.9 * next_values - values
    torch.testing.assert_close(numerics.gae(rewards, values, next_values, ended, 0.9, 0.0), one_step)
    bootstrapped = rewards.clone()
    bootstrapped[-1] += 0.9 * next_values[-1]
    returns = numerics.discounted_returns(bootstrapped, ended, 0.9)
    torch.testing.assert_close(numerics.gae(rewards, values, next_values, ended, 0.9, 1.0), returns - values)


def test_gae_is_the_weighted_sum_of_one_step_errors():
    rewards, values, next_values, ended = random_episode()
    ended[3] = True
    errors = rewards + 0.9 * next_values - values
    expected = sum((0.9 * 0.8) ** k * errors[1 + k] for k in range(3))  # steps 1, 2, 3: the episode ends at 3
    torch.testing.assert_close(numerics.gae(rewards, values, next_values, ended, 0.9, 0.8)[1], expected)


def test_normalise_divides_by_the_standard_deviation_of_what_is_valid():
    x = torch.tensor([[1.0, 3.0, 5.0, 1000.0]], dtype=DOUBLE)
    weights = torch.tensor([[1.0, 1.0, 1.0, 0.0]], dtype=DOUBLE) / 3
    out = numerics.normalise(x, weights, dim=1)[0, :3]
    assert out.mean().item() == pytest.approx(0, abs=1e-9)
    assert out.std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_gaussians_equal_torch_distributions():
    generator = torch.Generator().manual_seed(1)
    mean_p, mean_q, actions = (torch.randn(5, 3, generator=generator, dtype=DOUBLE) for _ in range(3))
    log_p, log_q = (0.3 * torch.randn(1, 3, generator=generator, dtype=DOUBLE) for _ in range(2))
    p = Independent(Normal(mean_p, log_p.exp().expand(5, 3)), 1)
    q = Independent(Normal(mean_q, log_q.exp().expand(5, 3)), 1)
    torch.testing.assert_close(numerics.gaussian_log_prob(mean_p, log_p, actions), p.log_prob(actions))
    torch.testing.assert_close(numerics.gaussian_kl(mean_p, log_p, mean_q, log_q), kl_divergence(p, q))
    torch.testing.assert_close(numerics.gaussian_entropy(log_p).expand(5), p.entropy())


def test_clipped_surrogate_is_a_lower_bound_with_no_reward_for_leaving_the_range():
    ratio = torch.tensor([0.5, 1.0, 2.0, 0.5, 1.0, 2.0])
    advantages = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    out = numerics.clipped_surrogate(ratio, advantages, 0.2)
    torch.testing.assert_close(out, torch.tensor([0.5, 1.0, 1.2, -0.8, -1.0, -2.0]))


def test_conjugate_gradient_solves_in_as_many_steps_as_dimensions():
    generator = torch.Generator().manual_seed(2)
    root = torch.randn(8, 8, generator=generator, dtype=DOUBLE)
    a, b = root @ root.T + torch.eye(8, dtype=DOUBLE), torch.randn(8, generator=generator, dtype=DOUBLE)
    torch.testing.assert_close(numerics.conjugate_gradient(lambda v: a @ v, b, 8), torch.linalg.solve(a, b))


def test_line_search_takes_the_first_accepted_step():
    start, step = torch.zeros(1), torch.ones(1)
    found, k = numerics.backtracking_line_search(lambda x: bool(x < 0.6), start, step, 10)
    assert (k, found.item()) == (3, pytest.approx(0.8**3))
    found, k = numerics.backtracking_line_search(lambda x: False, start, step, 10)
    assert (k, found.item()) == (10, 0.0)


def test_a_baseline_with_what_comes_after_is_the_fixed_point_of_its_targets():
    """x' = x + 0.1 a with actions of mean 0 and reward x: cut after 12 steps or not, x is worth x / (1 - discount)."""
    generator, discount, steps, episodes = torch.Generator().manual_seed(3), 0.9, 12, 300
    moves = 0.1 * torch.randn(steps, episodes, generator=generator)
    x = torch.randn(1, episodes, generator=generator) + torch.cat([torch.zeros(1, episodes), moves.cumsum(0)])
    ended = torch.zeros(steps, episodes, dtype=torch.bool)
    ended[-1] = True
    returns = numerics.discounted_returns(x[:-1], ended, discount)
    to_limit = discount ** torch.arange(steps, 0, -1).double().repeat_interleave(episodes)
    own, last = (baseline.features(v.reshape(1, -1, 1), torch.zeros(v.numel())) for v in (x[:-1], x[-1]))
    after = to_limit[:, None] * last.repeat(1, steps, 1)
    valid = torch.ones(1, steps * episodes, dtype=torch.bool)
    left = sum(10 * (1 - discount**k) for k in range(1, steps + 1)) / steps  # up to the cut, on average over steps
    for then, slope in ((after, 10.0), (None, left)):
        w = baseline.fit(own, returns.reshape(1, -1), valid, 1e-5, then)
        assert float(w[0, 0]) == pytest.approx(slope, rel=0.1)


def test_baseline_is_ridge_regression_of_the_valid_steps_of_each_task():
    generator = torch.Generator().manual_seed(3)
    observations = 20 * torch.randn(3, 40, 2, generator=generator)
    times = torch.arange(40)
    x = baseline.features(observations, times)
    o, t = observations[1, 7].double().clamp(-10, 10), 0.07
    expected = torch.cat([o, o**2, torch.tensor([t, t**2, t**3, 1.0], dtype=DOUBLE)])
    torch.testing.assert_close(x[1, 7], expected)
    targets, valid = torch.randn(3, 40, generator=generator), torch.rand(3, 40, generator=generator) < 0.8
    w = baseline.fit(x, targets, valid, ridge=0.1)
    for m in range(3):
        design = torch.cat([x[m][valid[m]], math.sqrt(0.1) * torch.eye(8, dtype=DOUBLE)])
        target = torch.cat([targets[m][valid[m]].double(), torch.zeros(8, dtype=DOUBLE)])
        torch.testing.assert_close(w[m], torch.linalg.lstsq(design, target.unsqueeze(1), driver="gelsd").solution[:, 0])
