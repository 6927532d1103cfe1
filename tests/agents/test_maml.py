"""MAML against central differences, a plain loop over tasks, and its own definition."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from metarl.agents import numerics
from metarl.agents.agent import Trial
from metarl.agents.maml.fisher import fisher_product
from metarl.agents.maml.maml import Maml
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.ranks import ALONE
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahVelocitySettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.sharded import ShardedEnv
from metarl.runs.trial import run_trial, streams, torch_stream
from metarl.training.loop import require_finite

CPU = torch.device("cpu")
SMALL = MamlSettings(hidden_sizes=(5, 4), tasks_per_chunk=2)


def make_agent(settings: MamlSettings, observation_size: int = 2, dtype: torch.dtype = torch.float32) -> Maml:
    action_size = 2 if observation_size == 2 else 6
    agent = Maml(settings, observation_size, action_size, torch.Generator().manual_seed(0), CPU)
    agent.theta = agent.theta.to(dtype)
    return agent


def make_trial(agent: Maml, adaptations: int = 1, num_tasks: int = 3, family=None) -> Trial:
    family = family or make_family(PointGoalSettings(horizon=12))
    env = ShardedEnv(family, num_tasks, 4, 1)
    env.set_tasks(family.sample(num_tasks, np.random.default_rng(0)))
    return run_trial(env, agent, streams(0, "test", 0, num_tasks), adaptations).trial


def in_double(settings: MamlSettings, adaptations: int) -> tuple[Maml, list]:
    """An agent in float64 and a trial's batches."""
    agent = make_agent(settings, dtype=torch.float64)
    trial = make_trial(agent, adaptations)
    batches = [agent.prepare(*shot) for shot in zip(trial.rollouts, trial.beliefs, strict=True)]
    # Other parameters than those of collection, so that ratios are not 1 and the clip and the KL matter.
    agent.theta = agent.theta + 0.05 * torch.randn(
        agent.theta.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return agent, batches


def surrogate_loss(agent: Maml, theta: torch.Tensor, batches: list) -> torch.Tensor:
    return agent.inner.surrogate(theta, agent.inner.adapted(theta, batches, create_graph=True), batches)


def meta_gradient(agent: Maml, batches: list) -> torch.Tensor:
    return agent.outer.meta_gradient(agent.theta, batches, 1, agent.inner.surrogate)


def central_differences(function, x: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    gradient = torch.zeros_like(x)
    for i in range(len(x)):
        shift = torch.zeros_like(x)
        shift[i] = eps
        gradient[i] = (function(x + shift) - function(x - shift)) / (2 * eps)
    return gradient


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("adaptations", [1, 2])
@pytest.mark.parametrize("surrogate", ["ratio", "log_likelihood"])
class TestMetaGradient:
    def test_equals_central_differences(self, adaptations: int, surrogate):
        agent, batches = in_double(dataclasses.replace(SMALL, inner_surrogate=surrogate), adaptations)

        def loss(theta: torch.Tensor) -> torch.Tensor:
            return surrogate_loss(agent, theta.requires_grad_(), batches).detach()

        gradient = meta_gradient(agent, batches)
        assert relative_error(gradient, central_differences(loss, agent.theta)) < 1e-6

    def test_promp_losses_equal_central_differences(self, adaptations: int, surrogate):
        settings = dataclasses.replace(SMALL, inner_surrogate=surrogate, promp_inner_kl=0.3)
        agent, batches = in_double(settings, adaptations)

        def loss(theta: torch.Tensor) -> torch.Tensor:
            theta = theta.requires_grad_()
            return agent.inner.promp_loss(theta, agent.inner.adapted(theta, batches, create_graph=True), batches)

        theta = agent.theta.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(theta), theta)
        assert relative_error(gradient, central_differences(lambda x: loss(x).detach(), agent.theta)) < 1e-6

    def test_stacked_equals_a_loop_over_tasks_in_plain_torch(self, adaptations: int, surrogate):
        agent, batches = in_double(dataclasses.replace(SMALL, inner_surrogate=surrogate), adaptations)
        stacked = meta_gradient(agent, batches)
        plain = torch.zeros_like(stacked)
        for m in range(3):
            plain += plain_meta_gradient(agent, [b.tasks(slice(m, m + 1)) for b in batches], surrogate)
        assert relative_error(stacked, plain) < 1e-10

    def test_first_order_is_the_gradient_at_the_adapted_parameters(self, adaptations: int, surrogate):
        settings = dataclasses.replace(SMALL, inner_surrogate=surrogate)
        agent, batches = in_double(dataclasses.replace(settings, first_order=True), adaptations)
        gradient = meta_gradient(agent, batches)
        query = batches[-1]
        phi = agent.inner.adapted(agent.theta, batches, create_graph=False)[-1].detach().requires_grad_()
        new = agent.policy(agent.policy.layers(phi), query.observations)
        ratio = torch.exp(numerics.gaussian_log_prob(*new, query.actions) - query.old_log_probs)
        (at_adapted,) = torch.autograd.grad(-(query.weights * ratio * query.advantages).sum(), phi)
        torch.testing.assert_close(gradient, at_adapted.sum(0))
        exact, batches = in_double(settings, adaptations)
        second = meta_gradient(exact, batches)
        assert relative_error(gradient, second) > 1e-3

    def test_fisher_vector_product_is_the_hessian_of_the_adapted_policies_kl(self, adaptations: int, surrogate):
        settings = dataclasses.replace(SMALL, trpo_fisher_share=1.0, trpo_damping=0.0, inner_surrogate=surrogate)
        agent, batches = in_double(settings, adaptations)
        phis = agent.inner.adapted(agent.theta, batches, create_graph=False)
        product = fisher_product(
            agent.inner, ALONE, agent.theta, batches, len(phis[0]), torch.Generator().manual_seed(0)
        )
        query = batches[-1]
        before = agent.policy(agent.policy.layers(phis[-1].detach()), query.observations)

        def kl_gradient(theta: torch.Tensor) -> torch.Tensor:
            theta = theta.detach().requires_grad_()
            phi = agent.inner.adapted(theta, batches, create_graph=True)[-1]
            after = agent.policy(agent.policy.layers(phi), query.observations)
            kl = (query.weights * numerics.gaussian_kl(*before, *after)).sum() / len(query.weights)
            return torch.autograd.grad(kl, theta)[0]

        v = torch.randn(agent.theta.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        v /= v.norm()
        eps = 1e-5
        expected = (kl_gradient(agent.theta + eps * v) - kl_gradient(agent.theta - eps * v)) / (2 * eps)
        assert relative_error(product(v), expected) < 1e-6


def plain_meta_gradient(agent: Maml, batches: list, surrogate: str) -> torch.Tensor:
    """One task's meta-gradient with separate weight matrices, torch.distributions and no shared code."""
    theta = agent.theta.clone().requires_grad_()

    def log_prob(flat: torch.Tensor, batch) -> torch.Tensor:
        x, at = batch.observations[0], 0
        for layer, (i, o) in enumerate(agent.policy.shapes):
            weight, bias = flat[at : at + i * o].reshape(i, o), flat[at + i * o : at + i * o + o]
            at += i * o + o
            x = x @ weight + bias
            x = torch.tanh(x) if layer < len(agent.policy.shapes) - 1 else x
        return torch.distributions.Normal(x, flat[at:].exp()).log_prob(batch.actions[0]).sum(-1)

    def old_log_prob(batch) -> torch.Tensor:
        return (
            torch.distributions.Normal(batch.old_mean[0], batch.old_log_std[0].exp()).log_prob(batch.actions[0]).sum(-1)
        )

    phi = theta
    for batch in batches[:-1]:
        lp = log_prob(phi, batch)
        lp = torch.exp(lp - old_log_prob(batch)) if surrogate == "ratio" else lp
        loss = -(lp * batch.advantages[0]).mean()
        phi = phi - agent.settings.inner_lr * torch.autograd.grad(loss, phi, create_graph=True)[0]
    query = batches[-1]
    loss = -(torch.exp(log_prob(phi, query) - old_log_prob(query)) * query.advantages[0]).mean()
    return torch.autograd.grad(loss, theta)[0]


def test_the_number_of_tasks_does_not_change_a_tasks_inner_step():
    agent = make_agent(SMALL)
    trial = make_trial(agent, num_tasks=3)
    together = agent.adapt(trial.beliefs[0], trial.rollouts[0], ())
    alone = agent.adapt(agent.begin(1, 4, ()), trial.rollouts[0].slice_tasks(slice(1, 2)), ())
    torch.testing.assert_close(together.parameters[1], alone.parameters[0])


def test_meta_update_reproduces_the_adaptation_of_collection():
    agent = make_agent(SMALL)
    trial = make_trial(agent, adaptations=2)
    batches = [agent.prepare(*shot) for shot in zip(trial.rollouts, trial.beliefs, strict=True)]
    for phi, belief in zip(agent.inner.adapted(agent.theta, batches, create_graph=False), trial.beliefs, strict=True):
        torch.testing.assert_close(phi.detach(), belief.parameters)


@pytest.mark.parametrize("outer", ["promp", "trpo"])
def test_chunks_change_nothing(outer):
    thetas = []
    for chunk in (0, 1, 2):
        agent = make_agent(dataclasses.replace(SMALL, outer=outer, tasks_per_chunk=chunk), dtype=torch.float64)
        if outer == "promp":
            agent._optimiser = torch.optim.Adam([agent.theta], lr=1e-3)
        agent.meta_update(make_trial(agent), torch.Generator().manual_seed(0))
        thetas.append(agent.theta)
    # Conjugate gradient magnifies the order of summation.
    tolerance = {"rtol": 1e-8, "atol": 1e-10} if outer == "promp" else {"rtol": 1e-3, "atol": 1e-5}
    torch.testing.assert_close(thetas[0], thetas[1], **tolerance)
    torch.testing.assert_close(thetas[0], thetas[2], **tolerance)


def test_trpo_keeps_its_bound_and_lowers_the_loss():
    family = make_family(HalfCheetahVelocitySettings(horizon=20))
    agent = make_agent(dataclasses.replace(SMALL, outer="trpo"), observation_size=17)
    trial = make_trial(agent, family=family)
    metrics = agent.meta_update(trial, torch.Generator().manual_seed(0))
    assert metrics["loss_after"] < metrics["loss_before"]
    assert 0 < metrics["kl"] <= agent.settings.trpo_kl


def test_promp_lowers_the_loss_within_its_bound_and_lengthens_its_step():
    agent = make_agent(SMALL)
    metrics = agent.meta_update(make_trial(agent), torch.Generator().manual_seed(0))
    assert metrics["loss_after"] < metrics["loss_before"] and metrics["backtracks"] == 0
    assert 0 < metrics["kl"] <= agent.settings.promp_kl
    assert metrics["lr"] == pytest.approx(1e-3 * 1.2)


@pytest.mark.parametrize("change", [{"promp_kl": 1e-12}, {"promp_lr": 30.0}])
def test_promp_goes_back_from_where_it_went_too_far(change: dict[str, float]):
    agent = make_agent(dataclasses.replace(SMALL, **change))
    before = agent.theta.clone()
    metrics = agent.meta_update(make_trial(agent), torch.Generator().manual_seed(0))
    assert metrics["backtracks"] == 6 and metrics["kl"] == 0 and torch.equal(agent.theta, before)
    assert metrics["refused"] == 1 and metrics["lr"] == pytest.approx(agent.settings.promp_lr / 1.2)


def test_likelihood_ratios_that_overflow_leave_no_trace():
    """So long an inner step that the gradient is not finite: the step is refused, and Adam's moments stay finite."""
    agent = make_agent(dataclasses.replace(SMALL, inner_lr=1e4))
    before = agent.theta.clone()
    metrics = agent.meta_update(make_trial(agent), torch.Generator().manual_seed(0))
    assert not math.isfinite(metrics["gradient_norm"])
    assert metrics["refused"] == 1 and torch.equal(agent.theta, before)
    require_finite(agent.state_dict(), 1)


def test_the_policy_reads_standardised_observations_of_the_trials_before():
    family = make_family(HalfCheetahVelocitySettings(horizon=20))
    agent = make_agent(SMALL, observation_size=17)
    first = make_trial(agent, family=family)
    seen = first.rollouts[0].observations.transpose(0, 1).flatten(1, 2)
    torch.testing.assert_close(agent.prepare(first.rollouts[0], first.beliefs[0]).observations, seen.clamp(-10, 10))
    agent.meta_update(first, torch.Generator().manual_seed(0))
    everything = torch.cat([r.observations.flatten(0, 2) for r in first.rollouts])
    wanted = ((seen - everything.mean(0)) / everything.std(0, correction=0)).clamp(-10, 10)
    batch = agent.prepare(first.rollouts[0], agent.begin(3, 4, ()))
    torch.testing.assert_close(batch.observations, wanted, rtol=1e-3, atol=1e-3)
    acted, _ = agent.act(agent.begin(3, 4, ()), first.rollouts[0].observations[5], None)
    torch.testing.assert_close(acted, batch.old_mean.view(3, 20, 4, 6)[:, 5])
    copy = make_agent(SMALL, observation_size=17)
    copy.load_state_dict(agent.state_dict())
    torch.testing.assert_close(copy.act(copy.begin(3, 4, ()), first.rollouts[0].observations[5], None)[0], acted)


def test_flagged_and_early_ended_episodes_are_not_learned_from():
    agent = make_agent(SMALL)
    rollout = make_trial(agent, adaptations=0).rollouts[0]
    rollout.valid[:, 0, 1] = False  # flagged
    rollout.valid[6:, 1, 2] = False  # over after six steps
    rollout.terminated[5, 1, 2] = True
    rollout.truncated[-1, 1, 2] = False
    garbage = rollout.map(lambda _, values: values.clone())
    for x in (garbage.observations, garbage.actions, garbage.rewards):
        x[~rollout.valid] = 3.0
    adapted = [agent.adapt(agent.begin(3, 4, ()), r, ()).parameters for r in (rollout, garbage)]
    torch.testing.assert_close(*adapted)


@pytest.mark.parametrize("bootstrap", [False, True])
def test_advantages_bootstrap_at_a_time_limit_only_where_asked(bootstrap: bool):
    settings = dataclasses.replace(SMALL, bootstrap_truncation=bootstrap, gae_lambda=0.0, discount=1.0)
    agent = make_agent(settings)
    rollout = make_trial(agent, adaptations=0).rollouts[0]
    rollout.rewards[:] = 1.0
    rollout.terminated[:] = False
    rollout.truncated[:] = False
    rollout.truncated[-1] = True
    rollout.valid[:] = True
    rollout.observations[:] = torch.randn(rollout.observations.shape, generator=torch.Generator().manual_seed(0))
    first = agent.prepare(rollout, agent.begin(3, 4, ())).advantages
    rollout.final_observations -= 9.0  # felt only where the value at the limit counts
    second = agent.prepare(rollout, agent.begin(3, 4, ())).advantages
    assert torch.equal(first, second) != bootstrap


@pytest.mark.parametrize("baseline", ["linear", "value"])
def test_the_value_at_a_time_limit_is_that_of_a_process_that_goes_on(baseline):
    """A reward of 1 for ever is worth 1 / (1 - discount), at the limit as before it, and no step is better than it."""
    settings = dataclasses.replace(
        SMALL, bootstrap_truncation=True, baseline=baseline, discount=0.9, value_lr=0.01, value_epochs=40
    )
    agent = make_agent(settings)
    rollout = make_trial(agent, adaptations=0).rollouts[0]
    rollout.rewards[:] = 1.0
    rollout.terminated[:], rollout.truncated[:], rollout.valid[:] = False, False, True
    rollout.truncated[-1] = True
    preparation = agent._preparation
    for _ in range(30 if baseline == "value" else 0):
        preparation.value.learn([preparation.returns(rollout, torch.float32)], agent.inner.chunks, ALONE)
    values, at_limit = preparation._values(rollout, preparation.returns(rollout, torch.float32))
    np.testing.assert_allclose(values, 10.0, rtol=0.15)
    np.testing.assert_allclose(at_limit, 10.0, rtol=0.15)


def test_an_episode_that_ended_early_does_not_move_the_time_limit_of_the_others():
    """Advantages follow the order of the envs, whichever comes first."""
    agent = make_agent(dataclasses.replace(SMALL, bootstrap_truncation=True))
    rollout = make_trial(agent, adaptations=0).rollouts[0]
    generator = torch.Generator().manual_seed(0)
    rollout.rewards[:] = torch.randn(rollout.rewards.shape, generator=generator)
    rollout.observations[:] = torch.randn(rollout.observations.shape, generator=generator)
    rollout.terminated[:], rollout.truncated[:], rollout.valid[:] = False, False, True
    rollout.terminated[3, :, 0] = True
    rollout.valid[4:, :, 0] = False
    rollout.rewards[4:, :, 0] = 0.0
    rollout.truncated[-1, :, 1:] = True
    flipped = rollout.map(lambda name, values: values.flip(1 if name == "final_observations" else 2))
    advantages = [agent.prepare(r, agent.begin(3, 4, ())).advantages.view(3, 12, 4) for r in (rollout, flipped)]
    torch.testing.assert_close(advantages[0], advantages[1].flip(2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("baseline", ["linear", "value"])
def test_the_value_at_a_limit_is_that_of_the_time_at_which_the_episode_was_cut(baseline):
    """An env of one's own may cut an episode before the horizon; what it holds after that step counts as nothing."""
    settings = dataclasses.replace(SMALL, bootstrap_truncation=True, baseline=baseline)
    agent = make_agent(settings)
    rollout = make_trial(agent, adaptations=0).rollouts[0]
    generator = torch.Generator().manual_seed(0)
    rollout.rewards[:] = torch.randn(rollout.rewards.shape, generator=generator)
    rollout.observations[:] = torch.randn(rollout.observations.shape, generator=generator)
    rollout.terminated[:], rollout.truncated[:] = False, False
    rollout.valid[:] = False
    rollout.valid[:6] = True
    rollout.rewards[6:] = 0.0
    rollout.truncated[5] = True
    shorter = rollout.map(lambda name, values: values if name == "final_observations" else values[:6])
    whole, short = (agent.prepare(r, agent.begin(3, 4, ())).advantages.view(3, -1, 4) for r in (rollout, shorter))
    torch.testing.assert_close(whole[:, :6], short, rtol=1e-4, atol=1e-4)


def test_state_comes_back_and_training_goes_on_identically():
    first, second = make_agent(SMALL), make_agent(SMALL)
    for k in range(2):
        first.meta_update(make_trial(first), torch_stream(1, "update", k))
    second.load_state_dict(first.state_dict())
    for agent in (first, second):
        agent.meta_update(make_trial(agent), torch_stream(1, "update", 2))
    torch.testing.assert_close(first.theta, second.theta, rtol=0, atol=0)


def test_a_state_of_another_architecture_is_refused():
    with pytest.raises(ValueError, match="the checkpoint's policy has .* parameters, this one"):
        make_agent(SMALL).load_state_dict(make_agent(dataclasses.replace(SMALL, hidden_sizes=(6,))).state_dict())


@pytest.mark.parametrize("outer", [pytest.param("promp", marks=pytest.mark.slow), "trpo"])
def test_learns_to_adapt_on_point_goal(outer):
    """A few iterations are enough for the step to help; the published level is the slow runs' matter."""
    family = make_family(PointGoalSettings(horizon=40))
    agent = Maml(MamlSettings(outer=outer, initial_std=0.2, promp_lr=3e-3), 2, 2, torch.Generator().manual_seed(0), CPU)
    env = ShardedEnv(family, 20, 10, 1)

    def trial(k: int) -> Trial:
        env.set_tasks(family.sample(20, np.random.default_rng(k)))
        return run_trial(env, agent, streams(0, "test", k, 20), 1).trial

    def gain(t: Trial) -> float:
        before, after = (r.episode_returns().mean().item() for r in t.rollouts)
        return after - before

    untrained = gain(trial(1000))
    for k in range(25):
        agent.meta_update(trial(k), torch.Generator().manual_seed(k))
    assert gain(trial(1000)) > untrained + 3.0


def test_a_small_output_gain_starts_all_policies_near_zero():
    agents = [make_agent(dataclasses.replace(SMALL, output_gain=gain)) for gain in (1.0, 0.01)]
    observations = 10 * torch.randn(1, 50, 2, generator=torch.Generator().manual_seed(0))
    means = [a.policy(a.policy.layers(a.theta[None]), observations).mean for a in agents]
    torch.testing.assert_close(means[1], 0.01 * means[0])
