"""PEARL's Gaussians, networks and losses: against torch.distributions, and by hand."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution, kl_divergence

from metarl.agents.pearl import gaussians
from metarl.agents.pearl.gaussians import Posterior
from metarl.agents.pearl.sac import Batch, Networks, SoftActorCritic, soft_targets, soft_values
from metarl.agents.pearl.settings import PearlSettings

OBSERVATION, ACTION, TASKS, LATENT = 3, 2, 4, 3
SETTINGS = PearlSettings(latent_size=LATENT, hidden_sizes=(16, 16), encoder_sizes=(16,))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make(settings: PearlSettings = SETTINGS) -> SoftActorCritic:
    """A learner whose outputs depend on all of its inputs: first outputs near zero would hide a wrong one."""
    networks = Networks(settings, OBSERVATION, ACTION, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for part in (networks.policy, networks.q, networks.encoder):
            part.network.weights[-1].mul_(100)
    return SoftActorCritic(networks, settings, ACTION)


class TestGaussians:
    def test_the_posterior_is_the_normalised_product_of_the_factors(self):
        """The logarithm of the product of the densities differs from that of the posterior by a constant."""
        means, variances = draw(2, 5, LATENT), draw(2, 5, LATENT, seed=1).exp()
        found = gaussians.posterior(gaussians.multiply(means, variances))
        points = draw(7, 2, LATENT, seed=2)
        product = Normal(means, variances.sqrt()).log_prob(points.unsqueeze(2)).sum(2)  # [7, 2, latent]
        constant = product - Normal(found.mean, found.std).log_prob(points)
        torch.testing.assert_close(constant, constant[:1].expand_as(constant), rtol=1e-4, atol=1e-4)

    def test_of_two_factors_it_is_the_mean_weighted_by_their_precisions(self):
        """N(0, 1/3) and N(4, 1): precisions 3 and 1, so the mean is 1 and the variance 1/4."""
        found = gaussians.posterior(
            gaussians.multiply(torch.tensor([[[0.0], [4.0]]]), torch.tensor([[[1 / 3], [1.0]]]))
        )
        torch.testing.assert_close(found, Posterior(torch.tensor([[1.0]]), torch.tensor([[0.5]])))

    def test_without_a_factor_it_is_the_prior(self):
        nothing = gaussians.multiply(draw(2, 3, 1), torch.ones(2, 3, 1), torch.tensor([[False] * 3, [True] * 3]))
        mean, std = gaussians.posterior(nothing)
        assert (mean[0], std[0]) == (0.0, 1.0) and std[1] < 0.6

    def test_kl_to_the_prior(self):
        mean, std = draw(4, LATENT), draw(4, LATENT, seed=1).exp()
        expected = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum(-1)
        torch.testing.assert_close(gaussians.kl_to_prior(Posterior(mean, std)), expected)

    def test_log_density_of_squashed_actions(self):
        mean, log_std, raw = draw(6, ACTION), draw(6, ACTION, seed=1), draw(6, ACTION, seed=2)
        inner = Independent(Normal(mean.double(), log_std.double().exp()), 1)
        expected = TransformedDistribution(inner, TanhTransform()).log_prob(torch.tanh(raw.double())).float()
        torch.testing.assert_close(gaussians.squashed_log_prob(mean, log_std, raw), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gaussians.unsquash(torch.tanh(raw)), raw, rtol=1e-4, atol=1e-4)

    def test_actions_at_the_edge_have_a_finite_density(self):
        raw = torch.tensor([[30.0], [-30.0]])
        found = gaussians.squashed_log_prob(torch.zeros(2, 1), torch.zeros(2, 1), raw)
        torch.testing.assert_close(found, torch.full((2,), -450 - 0.5 * math.log(2 * math.pi) - 2 * math.log(2) + 60))
        assert torch.isfinite(gaussians.unsquash(torch.tensor([1.0, -1.0]))).all()

    @pytest.mark.parametrize(("mean", "std"), [(0.0, 0.3), (0.7, 1.0), (-2.0, 0.5)])
    def test_entropy_of_squashed_actions_by_integration(self, mean: float, std: float):
        """-int p log p da on a fine grid of actions."""
        actions = torch.linspace(-1, 1, 400_003, dtype=torch.float64)[1:-1]
        squashed = TransformedDistribution(Normal(torch.tensor(mean).double(), std), TanhTransform())
        density = squashed.log_prob(actions).exp()
        expected = -torch.trapezoid(torch.xlogy(density, density), actions)
        found = gaussians.squashed_entropy(torch.tensor([mean]), torch.tensor([std]).log())
        assert found.item() == pytest.approx(expected.item(), abs=2e-3)


class TestEncoder:
    def test_the_order_of_the_transitions_does_not_matter(self):
        encoder = make().networks.encoder
        context = draw(TASKS, 9, OBSERVATION + ACTION + 1)
        shuffled = context[:, torch.randperm(9, generator=torch.Generator().manual_seed(0))]
        torch.testing.assert_close(encoder(shuffled), encoder(context))

    def test_only_valid_transitions_count(self):
        encoder, context = make().networks.encoder, draw(TASKS, 9, OBSERVATION + ACTION + 1)
        valid = torch.arange(9).expand(TASKS, 9) < 4
        torch.testing.assert_close(encoder(context, valid), encoder(context[:, :4]))

    def test_no_gradient_goes_from_one_task_to_another(self):
        context = draw(TASKS, 9, OBSERVATION + ACTION + 1).requires_grad_()
        posterior = gaussians.posterior(make().networks.encoder(context))
        (gradient,) = torch.autograd.grad(posterior.mean[1].sum() + posterior.std[1].sum(), context)
        assert torch.equal(gradient.flatten(1).any(1), torch.arange(TASKS) == 1)


def batch(seed: int = 0) -> Batch:
    m, b = 3, 5
    return Batch(
        observations=draw(m, b, OBSERVATION, seed=seed),
        actions=draw(m, b, ACTION, seed=seed + 1).tanh(),
        rewards=draw(m, b, seed=seed + 2),
        next_observations=draw(m, b, OBSERVATION, seed=seed + 3),
        terminated=draw(m, b, seed=seed + 4) > 0.5,
        context=draw(m, 4, OBSERVATION + ACTION + 1, seed=seed + 5),
    )


class TestSoftActorCritic:
    def test_targets_of_two_states_by_hand(self):
        """min(2, 3) + 0.2 * 0.5 = 2.1; 1 + 0.9 * 2.1 where the episode goes on, 1 where it ended."""
        values = soft_values(torch.tensor([[2.0, 2.0], [3.0, 3.0]]), torch.tensor([-0.5, -0.5]), torch.tensor(0.2))
        targets = soft_targets(torch.ones(2), torch.tensor([False, True]), values, 0.9)
        torch.testing.assert_close(targets, torch.tensor([2.89, 1.0]))

    def test_the_critics_loss_is_that_of_these_targets(self):
        """Target networks that say 2 and 3 everywhere, and a policy that is N(0, e^-1) before tanh."""
        learner = make(dataclasses.replace(SETTINGS, reward_scale=5.0, temperature=0.2, discount=0.9))
        networks, seen = learner.networks, batch()
        with torch.no_grad():
            networks.q_target.network.weights[-1].zero_()
            networks.q_target.network.biases[-1].copy_(torch.tensor([2.0, 3.0]).view(2, 1, 1))
            networks.policy.network.weights[-1].zero_()
            networks.policy.network.biases[-1][..., ACTION:] = -1.0
        latents, noise = draw(15, LATENT, seed=7), draw(15, ACTION, seed=8)
        loss, _ = learner._critic_loss(seen, latents, noise)
        squashed = TransformedDistribution(
            Independent(Normal(torch.zeros(15, ACTION), math.exp(-1)), 1), TanhTransform()
        )
        log_probs = squashed.log_prob(torch.tanh(math.exp(-1) * noise))
        follows = (~seen.terminated).flatten().float()
        targets = 5.0 * seen.rewards.flatten() + 0.9 * follows * (2.0 - 0.2 * log_probs)
        inputs = torch.cat([seen.observations.flatten(0, 1), seen.actions.flatten(0, 1), latents], -1)
        q = networks.q(inputs)
        assert q.shape == (2, 15) and not torch.allclose(q[0], q[1])
        torch.testing.assert_close(loss, (q[0] - targets).square().mean() + (q[1] - targets).square().mean())

    def test_a_step_moves_the_targets_by_their_rate_and_the_encoder_by_the_critics_loss(self):
        learner = make(dataclasses.replace(SETTINGS, kl_weight=0.0))
        before = copy.deepcopy(learner.networks)
        learner.step(batch(), torch.Generator().manual_seed(0))
        after = learner.networks
        for name in ("encoder", "policy", "q"):
            olds, news = getattr(before, name).parameters(), getattr(after, name).parameters()
            assert not any(torch.equal(old, new) for old, new in zip(olds, news, strict=True))
        for old, new, target in zip(
            before.q_target.parameters(), after.q.parameters(), after.q_target.parameters(), strict=True
        ):
            torch.testing.assert_close(target, old + 0.005 * (new - old))
        assert torch.equal(before.log_temperature, after.log_temperature)

    def test_the_kl_divergence_pulls_the_posterior_to_the_prior(self):
        learner, seen = make(dataclasses.replace(SETTINGS, kl_weight=1e4, lr=3e-3)), batch()
        kls = [learner.step(seen, torch.Generator().manual_seed(k))["kl"].item() for k in range(100)]
        assert kls[-1] < 0.2 * kls[0]

    @pytest.mark.parametrize(("target", "sign"), [(-10.0, -1), (0.69, 1)])
    def test_an_automatic_temperature_follows_the_entropy(self, target: float, sign: int):
        """The entropy of an action's dimension is at most log 2 = 0.693, of a uniform one."""
        learner = make(dataclasses.replace(SETTINGS, automatic_temperature=True, target_entropy=target))
        learner.step(batch(), torch.Generator().manual_seed(0))
        assert learner.networks.log_temperature.item() * sign > 0

    def test_the_policy_climbs_what_the_critics_say(self):
        """Critics for which the best action is as large as it can be."""
        learner = make(dataclasses.replace(SETTINGS, temperature=1e-3, lr=1e-2))
        seen = batch()
        latents = draw(15, LATENT)
        networks = learner.networks
        networks.q.forward = lambda inputs: inputs[:, OBSERVATION : OBSERVATION + ACTION].sum(-1).expand(2, -1)
        optimiser = torch.optim.Adam(networks.policy.parameters(), lr=1e-2)
        for k in range(200):
            loss, _ = learner._policy_loss(seen, latents, draw(15, ACTION, seed=k))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        mean, _ = networks.policy(torch.cat([seen.observations.flatten(0, 1), latents], -1))
        assert torch.tanh(mean).min() > 0.7
