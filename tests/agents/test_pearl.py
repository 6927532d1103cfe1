"""PEARL: its Gaussians against torch.distributions, its losses by hand, and what its belief depends on."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution, kl_divergence

from metarl.agents.agent import Rollout, Trial
from metarl.agents.pearl import gaussians
from metarl.agents.pearl.gaussians import Evidence, Posterior
from metarl.agents.pearl.pearl import Pearl, PearlBelief
from metarl.agents.pearl.sac import Batch, soft_targets, soft_values
from metarl.agents.pearl.settings import PearlSettings
from metarl.agents.ranks import Ranks
from metarl.runs.trial import single_torch_thread

CPU = torch.device("cpu")
OBSERVATION, ACTION, TASKS, ENVS, HORIZON, LATENT = 3, 2, 4, 2, 6, 3
SETTINGS = PearlSettings(
    latent_size=LATENT, hidden_sizes=(16, 16), encoder_sizes=(16,), tasks_per_update=3, batch_size=5, context_size=4
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with single_torch_thread():
        yield


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def generators(seed: int = 0, tasks: int = TASKS) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 * seed + m) for m in range(tasks)]


def make(settings: PearlSettings = SETTINGS, seed: int = 0) -> Pearl:
    """An agent whose outputs depend on all of its inputs: first outputs near zero would hide a wrong one."""
    agent = Pearl(settings, OBSERVATION, ACTION, torch.Generator().manual_seed(seed), CPU)
    with torch.no_grad():
        for part in (agent.networks.policy, agent.networks.q, agent.networks.encoder):
            part.network.weights[-1].mul_(100)
    agent._moments.update(draw(50, OBSERVATION, seed=5) * 2 + 1)
    return agent


def rollout(seed: int = 0, bound: float = 1.0) -> Rollout:
    """A shot of random data; the second env of task 1 ends after two steps, and the first of task 2 was flagged."""
    shape = (HORIZON, TASKS, ENVS)
    valid = torch.ones(shape, dtype=torch.bool)
    valid[2:, 1, 1], valid[:, 2, 0] = False, False
    terminated = torch.zeros(shape, dtype=torch.bool)
    terminated[1, 1, 1] = True
    actions = bound * torch.tanh(draw(*shape, ACTION, seed=seed + 1))
    return Rollout(
        observations=draw(*shape, OBSERVATION, seed=seed),
        actions=actions,
        rewards=draw(*shape, seed=seed + 2),
        terminated=terminated,
        truncated=torch.zeros(shape, dtype=torch.bool),
        valid=valid,
        final_observations=draw(TASKS, ENVS, OBSERVATION, seed=seed + 3),
    )


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
        found = gaussians.posterior(gaussians.multiply(torch.tensor([[[0.0], [4.0]]]), torch.tensor([[[1 / 3], [1.0]]])))
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
        agent = make(dataclasses.replace(SETTINGS, reward_scale=5.0, temperature=0.2, discount=0.9))
        networks, seen = agent.networks, batch()
        with torch.no_grad():
            networks.q_target.network.weights[-1].zero_()
            networks.q_target.network.biases[-1].copy_(torch.tensor([2.0, 3.0]).view(2, 1, 1))
            networks.policy.network.weights[-1].zero_()
            networks.policy.network.biases[-1][..., ACTION:] = -1.0
        latents, noise = draw(15, LATENT, seed=7), draw(15, ACTION, seed=8)
        loss, _ = agent._learner._critic_loss(seen, latents, noise)
        squashed = TransformedDistribution(Independent(Normal(torch.zeros(15, ACTION), math.exp(-1)), 1), TanhTransform())
        log_probs = squashed.log_prob(torch.tanh(math.exp(-1) * noise))
        follows = (~seen.terminated).flatten().float()
        targets = 5.0 * seen.rewards.flatten() + 0.9 * follows * (2.0 - 0.2 * log_probs)
        inputs = torch.cat([seen.observations.flatten(0, 1), seen.actions.flatten(0, 1), latents], -1)
        q = networks.q(inputs)
        assert q.shape == (2, 15) and not torch.allclose(q[0], q[1])
        torch.testing.assert_close(loss, (q[0] - targets).square().mean() + (q[1] - targets).square().mean())

    def test_a_step_moves_the_targets_by_their_rate_and_the_encoder_by_the_critics_loss(self):
        agent = make(dataclasses.replace(SETTINGS, kl_weight=0.0))
        before = copy.deepcopy(agent.networks)
        agent._learner.step(batch(), torch.Generator().manual_seed(0))
        after = agent.networks
        for name in ("encoder", "policy", "q"):
            olds, news = getattr(before, name).parameters(), getattr(after, name).parameters()
            assert not any(torch.equal(old, new) for old, new in zip(olds, news, strict=True))
        for old, new, target in zip(
            before.q_target.parameters(), after.q.parameters(), after.q_target.parameters(), strict=True
        ):
            torch.testing.assert_close(target, old + 0.005 * (new - old))
        assert torch.equal(before.log_temperature, after.log_temperature)

    def test_the_kl_divergence_pulls_the_posterior_to_the_prior(self):
        agent, seen = make(dataclasses.replace(SETTINGS, kl_weight=1e4, lr=3e-3)), batch()
        kls = [agent._learner.step(seen, torch.Generator().manual_seed(k))["kl"].item() for k in range(100)]
        assert kls[-1] < 0.2 * kls[0]

    @pytest.mark.parametrize(("target", "sign"), [(-10.0, -1), (0.69, 1)])
    def test_an_automatic_temperature_follows_the_entropy(self, target: float, sign: int):
        """The entropy of an action's dimension is at most log 2 = 0.693, of a uniform one."""
        agent = make(dataclasses.replace(SETTINGS, automatic_temperature=True, target_entropy=target))
        agent._learner.step(batch(), torch.Generator().manual_seed(0))
        assert agent.networks.log_temperature.item() * sign > 0

    def test_the_policy_climbs_what_the_critics_say(self):
        """Critics for which the best action is as large as it can be."""
        agent = make(dataclasses.replace(SETTINGS, temperature=1e-3, lr=1e-2))
        seen = batch()
        latents = draw(15, LATENT)
        networks = agent.networks
        networks.q.forward = lambda inputs: inputs[:, OBSERVATION : OBSERVATION + ACTION].sum(-1).expand(2, -1)
        optimiser = torch.optim.Adam(networks.policy.parameters(), lr=1e-2)
        for k in range(200):
            loss, _ = agent._learner._policy_loss(seen, latents, draw(15, ACTION, seed=k))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        mean, _ = networks.policy(torch.cat([seen.observations.flatten(0, 1), latents], -1))
        assert torch.tanh(mean).min() > 0.7


class TestBelief:
    def test_what_is_drawn_for_a_task_follows_from_its_generator_alone(self):
        agent = make()
        whole = agent.begin(TASKS, ENVS, generators())
        alone = agent.begin(1, ENVS, generators()[2:3])
        assert torch.equal(whole.latent[2], alone.latent[0])
        shot = rollout()
        adapted = agent.adapt(whole, shot, generators(1))
        one = agent.adapt(alone, shot.slice_tasks(slice(2, 3)), generators(1)[2:3])
        torch.testing.assert_close(one.latent[0], adapted.latent[2])
        assert not torch.equal(adapted.latent, agent.adapt(whole, shot, generators(2)).latent)

    def test_it_begins_with_draws_from_the_prior(self):
        belief = make().begin(2000, 1, generators(tasks=2000))
        assert belief.latent.mean().abs() < 0.05 and belief.latent.std().item() == pytest.approx(1, abs=0.05)
        assert torch.equal(belief.posterior.mean, torch.zeros(2000, LATENT)) and (belief.posterior.std == 1).all()

    def test_shots_one_after_another_are_one_product(self):
        """Precisions and weighted means of both shots add up, each by the encoder on the shot's transitions."""
        agent, belief = make(), make().begin(TASKS, ENVS, generators())
        shots = [rollout(10), rollout(20)]
        for shot in shots:
            belief = agent.adapt(belief, shot, generators(1))
        task = 1  # of which the second env took two steps
        rows = []
        for shot in shots:
            for n, length in ((0, HORIZON), (1, 2)):
                parts = shot.observations, shot.actions, shot.rewards.unsqueeze(-1)
                rows.append(torch.cat([x[:length, task, n] for x in parts], -1))
        expected = agent.networks.encoder(torch.cat(rows)[None])
        torch.testing.assert_close(Evidence(*(x[task : task + 1] for x in belief.evidence)), expected)

    def test_its_spread_shrinks_with_every_shot(self):
        agent = make()
        belief = agent.begin(TASKS, ENVS, generators())
        precision = belief.evidence.precision
        for k in range(3):
            belief = agent.adapt(belief, rollout(10 * k), generators(k))
            assert (belief.evidence.precision > precision).all()
            precision = belief.evidence.precision

    def test_its_latent_variable_is_a_draw_from_the_posterior_or_its_mean(self):
        agent = make()
        begun, shot = agent.begin(TASKS, ENVS, generators()), rollout()
        drawn = torch.stack([agent.adapt(begun, shot, generators(k)).latent for k in range(300)])
        mean, std = agent.adapt(begun, shot, generators(1)).posterior
        torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=(0.25 * std.max()).item())
        torch.testing.assert_close(drawn.std(0), std, rtol=0.2, atol=0)
        settled = make(dataclasses.replace(SETTINGS, posterior="mean"))
        adapted = settled.adapt(begun, shot, generators(1))
        assert torch.equal(adapted.latent, adapted.posterior.mean)

    def test_invalid_steps_change_nothing(self):
        agent, shot, other = make(), rollout(), rollout()
        for name in ("observations", "actions", "rewards"):
            getattr(other, name)[~other.valid] = torch.nan
        begun = agent.begin(TASKS, ENVS, generators())
        first, second = (agent.adapt(begun, each, generators(1)) for each in (shot, other))
        torch.testing.assert_close(first.latent, second.latent, rtol=0, atol=0)

    @pytest.mark.parametrize("normalise", [False, True])
    def test_the_next_observation_is_read_if_it_is_asked_for(self, normalise: bool):
        settings = dataclasses.replace(SETTINGS, next_observation_in_context=True, normalise_input=normalise)
        shot = rollout()
        changed = dataclasses.replace(shot, final_observations=shot.final_observations + 1)
        for agent, same in ((make(dataclasses.replace(SETTINGS, normalise_input=normalise)), True), (make(settings), False)):
            begun = agent.begin(TASKS, ENVS, generators())
            first, second = (agent.adapt(begun, each, generators(1)).latent for each in (shot, changed))
            assert torch.equal(first, second) == same


@pytest.mark.parametrize("bound", [1.0, 0.1])
@pytest.mark.parametrize("normalise", [False, True])
class TestPolicy:
    def agent(self, bound: float, normalise: bool) -> tuple[Pearl, PearlBelief]:
        agent = make(dataclasses.replace(SETTINGS, action_bound=bound, normalise_input=normalise))
        return agent, agent.adapt(agent.begin(TASKS, ENVS, generators()), rollout(bound=bound), generators(1))

    def test_actions_are_squashed_and_scaled(self, bound: float, normalise: bool):
        agent, belief = self.agent(bound, normalise)
        seen, noise = draw(TASKS, ENVS, OBSERVATION), draw(TASKS, ENVS, ACTION, seed=1)
        inputs = agent._moments.standardise(seen).clamp(-10, 10) if normalise else seen
        inputs = torch.cat([inputs, belief.latent.unsqueeze(1).expand(-1, ENVS, -1)], -1).flatten(0, 1)
        with torch.no_grad():
            mean, log_std = (x.view(TASKS, ENVS, ACTION) for x in agent.networks.policy(inputs))
        torch.testing.assert_close(agent.act(belief, seen, None)[0], bound * torch.tanh(mean))
        torch.testing.assert_close(agent.act(belief, seen, noise)[0], bound * torch.tanh(mean + log_std.exp() * noise))

    def test_a_shot_that_was_played_elsewhere_is_read(self, bound: float, normalise: bool):
        """Log-densities of the scaled actions, and entropies, against torch.distributions and 20,000 draws."""
        agent, belief = self.agent(bound, normalise)
        shot = rollout(bound=bound)
        reading = agent.read(belief, shot)
        mean, log_std = agent._policy(belief, shot.observations[3])
        squashed = TransformedDistribution(Normal(mean.double(), log_std.double().exp()), TanhTransform())
        shift = ACTION * math.log(bound)
        expected = squashed.log_prob(shot.actions[3].double() / bound).sum(-1) - shift
        torch.testing.assert_close(reading.log_probabilities[3].double(), expected, rtol=1e-4, atol=1e-4)
        noise = draw(20_000, TASKS, ENVS, ACTION).double()
        actions = torch.tanh(mean + log_std.exp() * noise).clamp(-1 + 1e-15, 1 - 1e-15)
        entropies = shift - squashed.log_prob(actions).sum(-1).mean(0)
        torch.testing.assert_close(reading.entropies[3].double(), entropies, rtol=0, atol=0.05)
        assert reading.belief is belief

    def test_the_deployable_policy_is_the_mean_at_a_belief(self, bound: float, normalise: bool):
        agent, _ = self.agent(bound, normalise)
        belief = agent.begin(1, 1, generators(tasks=1))
        deployable, seen = agent.deployable(belief), draw(1, OBSERVATION)
        expected = agent.act(belief, seen.unsqueeze(0), None)[0][0]
        with torch.no_grad():
            torch.testing.assert_close(deployable.module(seen), expected)
        assert (agent.observation_moments(belief) is not None) == normalise


def test_several_processes_are_refused():
    class Two(Ranks):
        size = 2

    with pytest.raises(ValueError, match="^pearl keeps one replay buffer and learns in one process, not in 2; train it"):
        Pearl(SETTINGS, OBSERVATION, ACTION, torch.Generator(), CPU, Two())


def test_a_state_of_other_shapes_is_refused():
    other = make(dataclasses.replace(SETTINGS, latent_size=4))
    with pytest.raises(ValueError, match=r"encoder.network.weights.1 has shape \(1, 16, 6\) here, shape \(1, 16, 8\) in"):
        make().load_state_dict(other.state_dict())


class World(SimpleNamespace):
    """As much of a world as a replay buffer uses."""

    def write(self, name: str, parts: object) -> None:
        with (self.folder / name).open("wb") as file:
            for part in parts:
                file.write(part)


def trial(agent: Pearl, seed: int) -> Trial:
    belief, played = agent.begin(TASKS, ENVS, generators(seed)), Trial([], [])
    for shot in range(2):
        played.beliefs.append(belief)
        played.rollouts.append(rollout(10 * seed + shot))
        belief = agent.adapt(belief, played.rollouts[-1], generators(seed + 1))
    played.tasks = [SimpleNamespace(id=f"task {TASKS * seed + m}") for m in range(TASKS)]
    return played


def opened(folder, seed: int = 0) -> Pearl:
    agent = make(dataclasses.replace(SETTINGS, updates_per_step=0.1, normalise_input=True, automatic_temperature=True), seed)
    agent._replay.open(World(folder=folder))
    return agent


def test_metrics_say_how_the_posterior_goes(tmp_path):
    agent = opened(tmp_path)
    played = trial(agent, 0)
    metrics = agent.meta_update(played, torch.Generator().manual_seed(0))
    assert all(np.isfinite(value) for value in metrics.values())
    steps = 2 * (HORIZON * (TASKS * ENVS - 1) - 4)
    assert metrics["replay_steps"] == steps and metrics["updates"] == round(0.1 * steps)
    again = agent.adapt(agent.begin(TASKS, ENVS, generators()), played.rollouts[0], generators(1)).posterior
    assert {name for name in metrics if "posterior" in name} == {
        f"posterior_{part}_{shot}" for part in ("mean", "std") for shot in (1, 2)
    }
    assert metrics["posterior_std_1"] > metrics["posterior_std_2"] > 0
    fresh = make(agent.settings)
    first = fresh.adapt(fresh.begin(TASKS, ENVS, generators()), played.rollouts[0], generators(1)).posterior
    assert metrics["posterior_mean_1"] == pytest.approx(first.mean.square().mean().sqrt().item(), rel=1e-4)
    assert not torch.equal(first.mean, again.mean)  # it learned meanwhile


def test_a_state_goes_on_as_if_it_had_not_been_saved(tmp_path):
    agent, randomness = opened(tmp_path), torch.random.get_rng_state()
    agent.meta_update(trial(agent, 0), torch.Generator().manual_seed(0))
    twin = make(agent.settings, seed=9)
    twin.load_state_dict(copy.deepcopy(agent.state_dict()))
    twin._replay.open(World(folder=tmp_path))
    for seed in (1, 2):
        metrics = [x.meta_update(trial(x, seed), torch.Generator().manual_seed(seed)) for x in (agent, twin)]
        assert metrics[0] == metrics[1]
    for name, value in agent.networks.state_dict().items():
        assert torch.equal(value, twin.networks.state_dict()[name])
    assert torch.equal(torch.random.get_rng_state(), randomness)


def test_a_trial_without_a_sound_env_is_not_learned_from(tmp_path):
    agent = opened(tmp_path)
    played = trial(agent, 0)
    for shot in played.rollouts:
        shot.valid[:] = False
    before = copy.deepcopy(agent.networks.state_dict())
    assert agent.meta_update(played, torch.Generator()) == {"updates": 0.0}
    assert all(torch.equal(x, before[name]) for name, x in agent.networks.state_dict().items())
    assert not list(tmp_path.iterdir())
