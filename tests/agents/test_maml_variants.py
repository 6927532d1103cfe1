"""What varies MAML, against central differences, closed forms, other ways to compute the same, and the definitions."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents import numerics
from metarl.agents.agent import Trial
from metarl.agents.maml.adapted import Adapted
from metarl.agents.maml.estimators import ESTIMATORS
from metarl.agents.maml.implicit import conjugate_gradients
from metarl.agents.maml.inner import InnerLoop
from metarl.agents.maml.maml import Maml
from metarl.agents.maml.papers import MAML_PAPERS
from metarl.agents.maml.preparation import exploration_credit
from metarl.agents.maml.rules import preprocessed
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.maml.shots import Batch
from metarl.agents.policy import GaussianPolicy
from metarl.agents.ranks import ALONE
from metarl.agents.registry import make_agent
from metarl.envs.registry import make_family
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.sharded import ShardedEnv
from metarl.runs.trial import run_trial, streams
from tests.agents.test_maml import SMALL, central_differences, in_double, make_trial, meta_gradient, relative_error
from tests.agents.test_maml import make_agent as small_maml

CPU = torch.device("cpu")


def changed(**settings) -> MamlSettings:
    return dataclasses.replace(SMALL, **settings)


def surrogate(agent: Maml, batches: list, theta: Tensor) -> Tensor:
    return agent.inner.surrogate(theta, agent.inner.adapted(theta, batches, create_graph=True), batches)


EXACT = {
    "meta-sgd": {"inner_rule": "parameter"},
    "a step size a layer": {"inner_rule": "layer"},
    "anil": {"adapted": ("head",)},
    "cavia": {"adapted": ("context",), "context_parameters": 3, "inner_lr": 1.0},
    "cavia by film": {"adapted": ("context",), "context_parameters": 3, "context_as": "film", "inner_lr": 1.0},
    "context beside all": {"context_parameters": 2},
    "film beside all": {"context_parameters": 2, "context_as": "film"},
    "bias and log-std": {"adapted": ("layer1.bias", "log_std")},
    "several steps on a shot": {"inner_steps": 3},
    "meta-sgd on a context": {"adapted": ("context",), "context_parameters": 3, "inner_rule": "parameter"},
    "proximal": {"implicit_strength": 0.7, "inner_steps": 2},
    "clipped": {"inner_clip": 0.3, "inner_lr": 1.0, "inner_steps": 2},
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("adaptations", [1, 2])
def test_the_meta_gradient_equals_central_differences(name: str, adaptations: int):
    """In all of theta: initial weights, shared weights, step sizes."""
    agent, batches = in_double(changed(**EXACT[name]), adaptations)
    theta = agent.theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(surrogate(agent, batches, theta), theta)

    def loss(at: Tensor) -> Tensor:
        return surrogate(agent, batches, at.requires_grad_()).detach()

    assert relative_error(gradient, central_differences(loss, agent.theta)) < 1e-6
    rule = gradient[agent.inner.size :]
    assert len(rule) == agent.inner.rule.size and bool((rule != 0).any()) == bool(len(rule))


def test_the_meta_gradient_of_the_learnt_rule_equals_central_differences():
    """In the weights of the LSTM. No derivative is taken through what it reads, so of one inner step alone."""
    agent, batches = in_double(changed(inner_rule="lstm", inner_rule_size=3), 1)
    size = agent.inner.size
    theta = agent.theta.clone()
    theta[size:] += 0.3 * torch.randn(len(theta) - size, generator=torch.Generator().manual_seed(2), dtype=theta.dtype)

    def loss(rule: Tensor) -> Tensor:
        return surrogate(agent, batches, torch.cat([theta[:size], rule]).requires_grad_()).detach()

    at = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(surrogate(agent, batches, at), at)
    assert relative_error(gradient[size:], central_differences(loss, theta[size:])) < 1e-6


def test_the_learnt_rule_begins_as_gradient_descent_and_is_one_for_all_parameters():
    agent, batches = in_double(changed(inner_rule="lstm"), 1)
    plain, _ = in_double(SMALL, 1)
    reached = agent.inner.adapted(agent.theta, batches, create_graph=False)[-1]
    wanted = plain.inner.adapted(agent.theta[: agent.inner.size], batches, create_graph=False)[-1]
    way = reached - agent.theta[: agent.inner.size]
    assert relative_error(way, wanted - agent.theta[: agent.inner.size]) < 0.2
    order = torch.randperm(agent.inner.size, generator=torch.Generator().manual_seed(0))
    phi, gradient = torch.randn(2, 3, agent.inner.size, dtype=torch.float64)
    rule, loss = agent.theta[agent.inner.size :], torch.ones(3, dtype=torch.float64)
    state = agent.inner.rule.start(3, phi)
    straight, _ = agent.inner.rule(rule, phi, gradient, loss, 0, state)
    shuffled, _ = agent.inner.rule(rule, phi[:, order], gradient[:, order], loss, 0, state)
    torch.testing.assert_close(straight[:, order], shuffled)


def test_preprocessing_keeps_sign_and_size():
    x = torch.tensor([1.0, -math.e, 0.0, 1e-6, -1e-6], dtype=torch.float64)
    wanted = [[0.0, 1.0], [0.1, -1.0], [-1.0, 0.0], [-1.0, math.exp(10) * 1e-6], [-1.0, -math.exp(10) * 1e-6]]
    torch.testing.assert_close(preprocessed(x), torch.tensor(wanted, dtype=torch.float64))


class TestAdapted:
    POLICY = GaussianPolicy(3, 2, (5, 4), "tanh", 1e-6, 2)

    def test_pieces_are_taken_and_put_back(self):
        parts = Adapted(self.POLICY, ("head", "context"))
        size = sum(self.POLICY.pieces.values())
        theta, whole = torch.randn(size), torch.randn(4, size)
        phi = parts.take(whole)
        assert parts.size == 4 * 2 + 2 + 2 == phi.shape[1]
        put = parts.whole(theta, phi)
        torch.testing.assert_close(parts.take(put), phi, rtol=0, atol=0)
        assert [name for name, own in zip(self.POLICY.pieces, parts.chosen, strict=True) if own] == [
            "layer3.weight",
            "layer3.bias",
            "context",
        ]
        named = dict(zip(self.POLICY.pieces, put.split(list(self.POLICY.pieces.values()), dim=1), strict=True))
        shared = dict(zip(self.POLICY.pieces, theta.split(list(self.POLICY.pieces.values())), strict=True))
        torch.testing.assert_close(named["layer1.weight"], shared["layer1.weight"].expand(4, -1))
        seen = torch.randn(4, 6, 3)
        for ours, theirs in zip(
            self.POLICY(parts.layers(theta, phi), seen), self.POLICY(self.POLICY.layers(put), seen), strict=True
        ):
            torch.testing.assert_close(ours.expand_as(theirs), theirs)

    def test_a_context_is_as_more_inputs(self):
        theta, seen = torch.randn(sum(self.POLICY.pieces.values())), torch.randn(1, 6, 3)
        pieces = dict(zip(self.POLICY.pieces, theta.split(list(self.POLICY.pieces.values())), strict=True))
        first = torch.cat([pieces["layer1.weight"].view(3, 5), pieces["context.weight"].view(2, 5)])
        wider = GaussianPolicy(5, 2, (5, 4), "tanh", 1e-6)
        rest = [pieces[name] for name in list(pieces)[1:-2]]
        more = torch.cat([seen, pieces["context"].expand(1, 6, 2)], -1)
        wanted = wider(wider.layers(torch.cat([first.flatten(), *rest])[None]), more).mean
        torch.testing.assert_close(self.POLICY(self.POLICY.layers(theta[None]), seen).mean, wanted)

    def test_a_film_context_scales_and_shifts_the_last_hidden_layer(self):
        """Against the layers by hand, for two contexts and weights of their own; at zeros it changes nothing."""
        policy = dataclasses.replace(self.POLICY, context_as="film")
        size = sum(policy.pieces.values())
        theta, seen = torch.randn(2, size, dtype=torch.float64), torch.randn(2, 6, 3, dtype=torch.float64)
        for m in range(2):
            w1, b1, w2, b2, w3, b3, _, made_of, context = theta[m].split(list(policy.pieces.values()))
            hidden = torch.tanh(torch.tanh(seen[m] @ w1.view(3, 5) + b1) @ w2.view(5, 4) + b2)
            scale, shift = (context @ made_of.view(2, 8)).split(4)
            wanted = (hidden * (1 + scale) + shift) @ w3.view(4, 2) + b3
            torch.testing.assert_close(policy(policy.layers(theta), seen).mean[m], wanted)
        theta[:, -2:] = 0
        plain = GaussianPolicy(3, 2, (5, 4), "tanh", 1e-6)
        without = theta[:, : sum(plain.pieces.values())]
        torch.testing.assert_close(policy(policy.layers(theta), seen).mean, plain(plain.layers(without), seen).mean)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"adapted": ("hed",)}, "agent.adapted has 'hed'; its names are all, head, layer1.weight, layer1.bias"),
            ({"adapted": ()}, "agent.adapted is empty"),
            ({"adapted": ("context",)}, "there is none; set agent.context_parameters"),
            ({"adapted": ("head",), "context_parameters": 2}, "agent.adapted names no context; add it"),
            ({"context_as": "film"}, "agent.context_as is film, but there is no context"),
            ({"first_order": True, "implicit_strength": 1.0}, "set one of them"),
            ({"inner_rule": "layer", "implicit_strength": 1.0}, "agent.inner_rule=layer would never be learned"),
            ({"inner_rule": "lstm", "implicit_strength": 1.0}, "agent.inner_rule=lstm would never be learned"),
            ({"inner_kl": 0.01, "inner_kl_target": 0.01}, "agent.inner_kl=0.01 shortens every inner step that reaches"),
            ({"outer": "reptile", "adapted": ("head",), "inner_rule": "lstm"}, "agent.adapted and agent.inner_rule"),
            ({"outer": "reptile", "context_parameters": 3}, "leave agent.context_parameters as they are"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, settings: dict, message: str):
        with pytest.raises(ValueError, match=message):
            small_maml(changed(**settings))


@pytest.mark.parametrize(("adapted", "changes"), [(("head",), {"layer3"}), (("log_std",), {"log_std"})])
def test_what_is_not_adapted_stays_as_it_is(adapted: tuple[str, ...], changes: set[str]):
    agent = small_maml(changed(adapted=adapted))
    trial = make_trial(agent)
    belief = agent.adapt(trial.beliefs[0], trial.rollouts[0], ())
    moved = (belief.parameters - trial.beliefs[0].parameters).abs().amax(0)
    pieces = dict(zip(agent.policy.pieces, moved.split(list(agent.policy.pieces.values())), strict=True))
    assert {name.split(".")[0] for name, way in pieces.items() if way.max() > 0} == changes


@pytest.mark.parametrize(
    ("adapted", "of_inputs", "by_film"),
    [
        (("all",), 0, 0),
        (("context",), 0, 2),
        (("context.weight", "context", "head"), 0, 2),
        (("layer1.bias", "layer3.weight", "context"), 0, 0),
        (("layer2.weight", "context"), 0, 1),
    ],
)
def test_a_context_belongs_to_the_first_layer_and_to_the_last_by_film(
    adapted: tuple[str, ...], of_inputs: int, by_film: int
):
    assert Adapted(TestAdapted.POLICY, adapted).frozen == of_inputs
    assert Adapted(dataclasses.replace(TestAdapted.POLICY, context_as="film"), adapted).frozen == by_film


@pytest.mark.parametrize(
    ("adapted", "context_parameters", "frozen"),
    [
        (("all",), 0, 0),
        (("layer2.bias",), 0, 1),
        (("layer2.weight", "head"), 0, 1),
        (("head",), 0, 2),
        (("log_std",), 0, 2),
        (("context",), 3, 2),
        (("layer2.weight", "context"), 3, 1),
    ],
)
@pytest.mark.parametrize("inner_kl", [0.0, 1e-4])
def test_inner_steps_are_those_of_the_whole_policy(
    adapted: tuple[str, ...], context_parameters: int, frozen: int, inner_kl: float
):
    """What the layers below the adapted ones return is computed once a shot: all steps are as through all layers."""
    context = {"context_parameters": context_parameters, "context_as": "film"} if context_parameters else {}
    settings = changed(adapted=adapted, inner_steps=2, inner_lr=0.5, inner_kl=inner_kl, **context)
    agent = small_maml(settings, dtype=torch.float64)
    trial = make_trial(agent, 2)
    assert agent.inner.parts.frozen == frozen
    whole = trial.beliefs[0].parameters
    chosen = torch.cat(
        [torch.full((n,), own) for n, own in zip(agent.policy.pieces.values(), agent.inner.parts.chosen, strict=True)]
    )
    for shot in range(2):
        batch = agent.prepare(trial.rollouts[shot], trial.beliefs[shot])
        for _ in range(2):
            at = whole.detach().requires_grad_()
            before = agent.policy(agent.policy.layers(at), batch.observations)
            ratio = torch.exp(numerics.gaussian_log_prob(*before, batch.actions) - batch.old_log_probs)
            (slope,) = torch.autograd.grad(-(batch.weights * ratio * batch.advantages).sum(), at)
            step, share = -0.5 * slope * chosen, torch.ones(3, 1, dtype=torch.float64)
            for _ in range(8 if inner_kl else 0):
                after = agent.policy(agent.policy.layers(at + share * step), batch.observations)
                kl = (batch.weights * numerics.gaussian_kl(*before, *after)).sum(1, keepdim=True)
                share = torch.where(kl > inner_kl, share * 0.99 * (inner_kl / kl).sqrt(), share).detach()
            assert not inner_kl or bool((share < 1).all())
            whole = (at + share * step).detach()
        torch.testing.assert_close(trial.beliefs[shot + 1].parameters, whole)


def test_a_policy_of_another_layout_with_as_many_numbers_is_refused():
    film = small_maml(changed(hidden_sizes=(12, 6), context_parameters=4, context_as="film"))
    inputs = small_maml(changed(hidden_sizes=(12, 6), context_parameters=4))
    assert film.theta.shape == inputs.theta.shape
    for own, other in ((film, inputs), (inputs, film)):
        own.load_state_dict(own.state_dict())
        with pytest.raises(ValueError, match="contexts, observations, actions"):
            own.load_state_dict(other.state_dict())
    before = {name: value for name, value in inputs.state_dict().items() if name != "layout"}
    inputs.load_state_dict(before)  # of a version that knew no other
    with pytest.raises(ValueError, match="contexts, observations, actions"):
        film.load_state_dict(before)


def test_a_context_begins_at_0_in_every_trial():
    agent = small_maml(changed(adapted=("context",), context_parameters=3, inner_lr=1.0))
    for k in range(2):
        belief = agent.begin(3, 4, ())
        assert bool((belief.parameters[:, -3:] == 0).all())
        trial = make_trial(agent)
        assert bool((trial.beliefs[1].parameters[:, -3:] != 0).all())
        agent.meta_update(trial, torch.Generator().manual_seed(k))


@pytest.mark.thorough
@pytest.mark.parametrize("adapted", [("all",), ("head",)])
def test_implicit_gradients_equal_those_through_a_long_way_to_the_fixed_point(adapted: tuple[str, ...]):
    """Rajeswaran 2019, theorem 1: inner steps that converge, then both are the derivative of their fixed point."""
    settings = changed(
        adapted=adapted,
        implicit_strength=10.0,
        inner_steps=300,
        inner_lr=0.06,
        implicit_cg_iterations=80,
        tasks_per_chunk=0,
    )
    agent, batches = in_double(settings, 2)
    theta = agent.theta.clone().requires_grad_()
    (unrolled,) = torch.autograd.grad(surrogate(agent, batches, theta), theta)
    assert relative_error(meta_gradient(agent, batches), unrolled) < 1e-6


def test_conjugate_gradients_solve_each_tasks_own_system():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(4, 6, 6, generator=generator, dtype=torch.float64)
    matrices = root @ root.mT + 0.1 * torch.eye(6, dtype=torch.float64)
    b = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    b[2] = 0
    found = conjugate_gradients(lambda v: (matrices @ v.unsqueeze(-1)).squeeze(-1), b, 20)
    torch.testing.assert_close(found, torch.linalg.solve(matrices, b.unsqueeze(-1)).squeeze(-1))


def test_reptile_at_one_step_is_joint_training():
    """Nichol 2018, section 2: with one inner step, its way is that of the gradient of the mean loss."""
    agent = small_maml(changed(outer="reptile", reptile_lr=0.5), dtype=torch.float64)
    trial = make_trial(agent, adaptations=0)
    batch, begun = agent.prepare(trial.rollouts[0], trial.beliefs[0]), agent.theta.clone()
    theta = begun.clone().requires_grad_()
    loss = agent.inner.loss(theta, theta.expand(3, -1), batch).mean()
    (gradient,) = torch.autograd.grad(loss, theta)
    agent.meta_update(trial, torch.Generator())
    torch.testing.assert_close(agent.theta, begun - 0.5 * agent.settings.inner_lr * gradient)


def test_reptile_goes_a_part_of_the_way_to_the_mean_of_what_is_reached():
    agent = small_maml(changed(outer="reptile", reptile_lr=0.25, inner_steps=2), dtype=torch.float64)
    trial, begun = make_trial(agent), agent.theta.clone()
    reached = agent.adapt(trial.beliefs[1], trial.rollouts[1], ()).parameters
    agent.meta_update(trial, torch.Generator())
    torch.testing.assert_close(agent.theta, begun + 0.25 * (reached.mean(0) - begun))


def bandit(actions: Tensor, mean: float, rewards: Tensor, advantages: Tensor | None = None) -> Batch:
    """Steps of one env a task, actions [M, T, 1] from N(mean, 1), as a shot."""
    m, steps, _ = actions.shape
    old = torch.full_like(actions, mean)
    log_std = torch.zeros(m, 1, 1, dtype=actions.dtype)
    going_on = torch.ones(m, steps, 1, dtype=actions.dtype)
    going_on[:, 0] = 0
    return Batch(
        observations=torch.zeros_like(actions),
        actions=actions,
        advantages=rewards if advantages is None else advantages,
        weights=torch.full_like(rewards, 1 / steps),
        old_mean=old,
        old_log_std=log_std,
        old_log_probs=numerics.gaussian_log_prob(old, log_std, actions),
        rewards=rewards,
        values=torch.zeros_like(rewards),
        going_on=going_on,
        spread=torch.ones(m, dtype=actions.dtype),
        credit=torch.zeros(m, dtype=actions.dtype),
    )


def mean_and_error(x: Tensor) -> tuple[float, float]:
    return float(x.mean()), float(x.std() / math.sqrt(len(x)))


def derivatives(name: str, mean: float, batch: Batch, lambda_: float = 1.0) -> tuple[Tensor, Tensor]:
    """First and second derivative [M] of each task's estimated return by the mean of its policy."""
    m, steps, _ = batch.actions.shape
    mu = torch.full((m, 1, 1), mean, dtype=batch.actions.dtype, requires_grad=True)
    log_probs = numerics.gaussian_log_prob(mu.expand_as(batch.actions), batch.old_log_std, batch.actions)
    loss = ESTIMATORS[name](log_probs, batch, lambda_)
    (first,) = torch.autograd.grad(-steps * loss.sum(), mu, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), mu)
    return first.detach().flatten(), second.flatten()


MEAN = 0.7
SAMPLES = 200_000


@pytest.mark.parametrize("name", ["ratio", "dice", "loaded_dice"])
def test_second_derivatives_on_one_step_agree_with_the_closed_form(name: str):
    """r(a) = a^3, a ~ N(mu, 1): J = mu^3 + 3 mu, J' = 3 mu^2 + 3, J'' = 6 mu. Within four standard errors."""
    actions = MEAN + torch.randn(SAMPLES, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = bandit(actions, MEAN, actions.squeeze(-1) ** 3)
    for found, wanted in zip(derivatives(name, MEAN, batch), (3 * MEAN**2 + 3, 6 * MEAN), strict=True):
        estimate, error = mean_and_error(found)
        print(f"{name}: {estimate:.3f}, standard error {error:.3f}; exact {wanted:.3f}")
        assert abs(estimate - wanted) < 4 * error and error < 0.1


@pytest.mark.parametrize(
    ("name", "lambda_", "second"),
    [("dice", 1.0, 2.0), *(("loaded_dice", x, 2 * x) for x in (1.0, 0.5, 0.0)), ("ratio", 1.0, 0.0)],
)
def test_second_derivatives_on_two_steps(name: str, lambda_: float, second: float):
    """r = a_0 a_1 at the end: J = mu^2, J' = 2 mu, J'' = 2, all of it by both actions together.

    DiCE has it, with the whole dependence; Loaded DiCE as much as the dependence counts; the ratio of single steps not.
    """
    actions = MEAN + torch.randn(SAMPLES, 2, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rewards = torch.zeros(SAMPLES, 2, dtype=torch.float64)
    rewards[:, 1] = actions.prod(1).squeeze(-1)
    togo = rewards[:, 1:].expand(-1, 2)
    for found, wanted in zip(
        derivatives(name, MEAN, bandit(actions, MEAN, rewards, togo), lambda_), (2 * MEAN, second), strict=True
    ):
        estimate, error = mean_and_error(found)
        print(f"{name}, lambda {lambda_}: {estimate:.3f}, standard error {error:.3f}; exact {wanted:.3f}")
        assert abs(estimate - wanted) < 4 * error and error < 0.05


def test_dice_equals_central_differences_of_importance_weighting():
    """Where the policy is the one that collected, its Hessian is that of sum_t gamma^t r_t prod pi / pi_old."""
    agent = small_maml(changed(inner_surrogate="dice", discount=0.9), dtype=torch.float64)
    trial = make_trial(agent)
    batch = agent.prepare(trial.rollouts[0], trial.beliefs[0])
    size = agent.inner.size
    v = torch.randn(3, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    v /= v.norm(dim=1, keepdim=True)

    def weighted(phi: Tensor) -> Tensor:
        new = agent.policy(agent.policy.layers(phi), batch.observations)
        log_ratio = numerics.gaussian_log_prob(*new, batch.actions) - batch.old_log_probs
        whole = torch.exp(log_ratio.view(3, -1, 4).cumsum(1)).view(3, -1)
        every = whole * batch.rewards + (1 - torch.exp(log_ratio)) * batch.values
        return -(batch.weights * every).sum(1)

    def slope(loss, phi: Tensor, create_graph: bool = False) -> Tensor:
        return torch.autograd.grad(loss(phi).sum(), phi, create_graph=create_graph)[0]

    phi = agent.theta.expand(3, -1).clone().requires_grad_()
    first = slope(lambda x: agent.inner.loss(agent.theta, x, batch), phi, create_graph=True)
    torch.testing.assert_close(first, slope(weighted, phi))
    (second,) = torch.autograd.grad((first * v).sum(), phi)
    eps = 1e-5
    wanted = sum(sign * slope(weighted, (phi + sign * eps * v).detach().requires_grad_()) for sign in (1, -1)) / (
        2 * eps
    )
    assert relative_error(second, torch.as_tensor(wanted)) < 1e-6


def test_all_estimators_have_one_gradient_where_the_policy_is_the_one_that_collected():
    """But DiCE, which discounts from the start of the episode: it has the others' without discount."""
    gradients = {}
    for name in ESTIMATORS:
        agent = small_maml(changed(inner_surrogate=name, discount=1.0), dtype=torch.float64)
        trial = make_trial(agent)
        batch = agent.prepare(trial.rollouts[0], trial.beliefs[0])
        phi = agent.theta.expand(3, -1).clone().requires_grad_()
        (gradients[name],) = torch.autograd.grad(agent.inner.loss(agent.theta, phi, batch).sum(), phi)
    for name in ("log_likelihood", "loaded_dice"):
        torch.testing.assert_close(gradients[name], gradients["ratio"])
    # Advantages are normalised for the others: a constant more or less in each, which is 0 in expectation.
    cosine = torch.nn.functional.cosine_similarity(gradients["dice"], gradients["ratio"])
    assert bool((cosine > 0.7).all())


def test_exploration_credit_has_the_closed_form_on_a_bandit_of_two_steps():
    """a_0 ~ N(mu, 1), phi = mu + alpha a_0 (a_0 - mu) by a gradient step on r = a_0, then r = a_1 ~ N(phi, 1).

    What a_0 does for the return after adaptation is d/dm E[alpha a_0 (a_0 - mu)] at m = mu, a_0 ~ N(m, 1): alpha mu.
    """
    alpha, tasks = 0.4, 200_000
    generator = torch.Generator().manual_seed(0)
    policy = GaussianPolicy(1, 1, (1,), "tanh", 1e-6)
    inner = InnerLoop(MamlSettings(adapted=("layer2.bias",), inner_lr=alpha, exploration_credit=1.0), policy)
    theta = torch.zeros(inner.size, dtype=torch.float64)
    bias = list(policy.pieces).index("layer2.bias")
    place = sum(list(policy.pieces.values())[:bias])
    theta[place] = MEAN
    before = MEAN + torch.randn(tasks, 1, 1, generator=generator, dtype=torch.float64)
    support = bandit(before, MEAN, before.squeeze(-1))
    phi = inner.adapted(theta, [support, support], create_graph=False)[-1]
    torch.testing.assert_close(phi, MEAN + alpha * (before * (before - MEAN)).squeeze(-1))
    after = phi.unsqueeze(-1) + torch.randn(tasks, 1, 1, generator=generator, dtype=torch.float64)
    query = bandit(after, MEAN, after.squeeze(-1))
    support = support._replace(credit=exploration_credit(query, tasks, ALONE))
    at = theta.clone().requires_grad_()
    term = inner._credit(at, [inner.start(at, tasks), phi], [support, query]) / tasks
    (gradient,) = torch.autograd.grad(-term, at)
    each = (support.credit.unsqueeze(-1) * (before - MEAN).squeeze(-1)).squeeze(-1)
    estimate, error = mean_and_error(each)
    assert float(gradient[place]) == pytest.approx(estimate)
    assert abs(estimate - alpha * MEAN) < 4 * error and error < 0.01, (estimate, error)


class TestLengthOfTheInnerStep:
    def test_the_divergence_keeps_its_bound_for_each_task(self):
        free, bound = small_maml(changed(inner_lr=3.0)), 0.02
        bounded = small_maml(changed(inner_lr=3.0, inner_kl=bound))
        trial = make_trial(free)
        batch = free.prepare(trial.rollouts[0], trial.beliefs[0])
        phi = free.inner.start(free.theta, 3)
        kls = []
        for agent in (free, bounded):
            way, _ = agent.inner.step(agent.theta, phi, batch, 0, (), create_graph=False)
            kls.append(agent.inner.kl(agent.theta, phi, way.points[-1], batch))
        assert bool((kls[0] > bound).all()) and bool((kls[1] <= bound).all()) and bool((kls[1] > 0.8 * bound).all())
        metrics = bounded.meta_update(make_trial(bounded), torch.Generator().manual_seed(0))
        assert metrics["inner_shortened"] == 1 and 0 < metrics["inner_kl"] <= bound

    @pytest.mark.parametrize("steps", [1, 5])
    def test_the_metrics_are_of_each_inner_step(self, steps: int):
        def metrics_of(**settings: float) -> dict[str, float]:
            agent = small_maml(changed(inner_steps=steps, inner_lr=0.5, **settings), dtype=torch.float64)
            return agent.meta_update(make_trial(agent), torch.Generator().manual_seed(0))

        agent = small_maml(changed(inner_steps=steps, inner_lr=0.5), dtype=torch.float64)
        trial = make_trial(agent)
        batch, phi, kls = agent.prepare(trial.rollouts[0], trial.beliefs[0]), agent.theta.expand(3, -1), []
        single = dataclasses.replace(agent.inner, settings=dataclasses.replace(agent.settings, inner_steps=1))
        for _ in range(steps):
            way, _ = single.step(agent.theta, phi, batch, 0, (), create_graph=False)
            kls.append(agent.inner.kl(agent.theta, phi, way.points[-1], batch))
            phi = way.points[-1]
        longest, least = float(torch.stack(kls).max()), float(torch.stack(kls).min())
        free = metrics_of()
        assert free["inner_kl"] == pytest.approx(float(torch.stack(kls).mean())) and "inner_shortened" not in free
        loose = metrics_of(inner_kl=1.01 * longest)
        assert loose["inner_shortened"] == 0 and loose["inner_kl"] == free["inner_kl"]
        tight = metrics_of(inner_kl=0.1 * least)
        assert tight["inner_shortened"] == 1 and 0 < tight["inner_kl"] <= 0.1 * least

    def test_a_long_gradient_is_scaled_down(self):
        agent, short = small_maml(SMALL), small_maml(changed(inner_clip=1e-3))
        trial = make_trial(agent)
        belief = short.adapt(short.begin(3, 4, ()), trial.rollouts[0], ())
        way = (belief.parameters - short.begin(3, 4, ()).parameters).norm(dim=1)
        torch.testing.assert_close(way, torch.full_like(way, 1e-3 * short.settings.inner_lr), rtol=1e-2, atol=0)

    def test_step_sizes_stay_where_no_step_moved_and_within_their_range(self):
        agent = small_maml(changed(inner_kl_target=1e6))
        trial = make_trial(agent)
        nothing = [dataclasses.replace(r, rewards=torch.zeros_like(r.rewards)) for r in trial.rollouts]
        beliefs = trial.beliefs[:1]
        for rollout in nothing[:-1]:
            beliefs.append(agent.adapt(beliefs[-1], rollout, ()))
        still = dataclasses.replace(trial, rollouts=nothing, beliefs=beliefs)
        metrics = agent.meta_update(still, torch.Generator().manual_seed(0))
        assert metrics["inner_kl"] == 0 and metrics["inner_scale"] == 1
        for k in range(60):
            metrics = agent.meta_update(trial, torch.Generator().manual_seed(k))
        assert metrics["inner_scale"] == pytest.approx(min(1.1**60, 100))

    @pytest.mark.parametrize(("target", "factor"), [(1.0, 1.1), (1e-9, 1 / 1.1)])
    def test_step_sizes_move_towards_their_target(self, target: float, factor: float):
        agent = small_maml(changed(inner_kl_target=target))
        metrics = agent.meta_update(make_trial(agent), torch.Generator().manual_seed(0))
        assert metrics["inner_scale"] == pytest.approx(factor) == float(agent.theta[-1])
        ways = []
        for scale in (1.0, 0.5):
            agent.theta[-1] = scale
            trial = make_trial(agent)
            ways.append(trial.beliefs[1].parameters - trial.beliefs[0].parameters)
        torch.testing.assert_close(ways[1], 0.5 * ways[0])


@pytest.mark.parametrize("baseline", ["value", "adapted_value"])
class TestValueNetwork:
    @pytest.mark.thorough
    def test_it_learns_the_returns_of_all_tasks(self, baseline):
        agent = small_maml(changed(baseline=baseline, value_lr=1e-2))
        trial = make_trial(agent)
        errors = [agent.meta_update(trial, torch.Generator().manual_seed(0))["value_error"] for _ in range(12)]
        assert errors[-1] < 0.8 * errors[0]

    @pytest.mark.thorough
    def test_adaptation_lowers_the_error_on_the_shot(self, baseline):
        agent = small_maml(changed(baseline=baseline))
        for _ in range(3):
            agent.meta_update(make_trial(agent), torch.Generator().manual_seed(0))
        trial = make_trial(agent)
        shot = agent._preparation.returns(trial.rollouts[0], torch.float32)
        value = agent._value
        meta = value._errors(value.parameters[None], shot)
        own = value._errors(value._adapted(value.parameters, shot, create_graph=False), shot)
        assert bool((own < meta).all()) if baseline == "adapted_value" else torch.equal(own, meta)

    def test_before_anything_is_learned_it_does_not_follow_the_size_of_the_returns(self, baseline):
        agent = small_maml(changed(baseline=baseline, activation="relu"))
        shot = agent._preparation.returns(make_trial(agent).rollouts[0], torch.float32)
        shot = shot._replace(returns=-5000 + 100 * shot.returns)
        found = agent._value.fitted(shot)(shot.observations, shot.times)
        assert bool((found.abs() < 10).all())  # standard deviations, of 1 so far

    @pytest.mark.thorough
    def test_it_comes_back(self, baseline):
        first, second = small_maml(changed(baseline=baseline)), small_maml(changed(baseline=baseline))
        first.meta_update(make_trial(first), torch.Generator().manual_seed(0))
        second.load_state_dict(first.state_dict())
        for agent in (first, second):
            agent.meta_update(make_trial(agent), torch.Generator().manual_seed(1))
        torch.testing.assert_close(first.theta, second.theta, rtol=0, atol=0)
        torch.testing.assert_close(first._value.parameters, second._value.parameters, rtol=0, atol=0)
        with pytest.raises(ValueError, match="baselines differ"):
            small_maml(SMALL).load_state_dict(first.state_dict())


@pytest.mark.parametrize("outer", ["promp", "trpo"])
@pytest.mark.parametrize("paper", [p for p in MAML_PAPERS if p not in ("reptile", "promp")])
def test_every_paper_lowers_its_loss_by_either_outer_step(paper: str, outer):
    settings = {"hidden_sizes": (5, 4), "tasks_per_chunk": 2, **MAML_PAPERS[paper].settings, "outer": outer}
    agent = small_maml(MamlSettings(**settings))
    metrics = agent.meta_update(make_trial(agent), torch.Generator().manual_seed(0))
    assert metrics["loss_after"] < metrics["loss_before"] and math.isfinite(metrics["gradient_norm"])


LEARNS_SLOWLY = ("reptile", "imaml")
SHORT = ("anil", "cavia", "cavia_film", "meta_sgd")
"""One of each way in which less than MAML adapts, or more is learnt; the others are slow."""


@pytest.mark.parametrize(
    "paper",
    [pytest.param(p, marks=[] if p in SHORT else pytest.mark.slow) for p in MAML_PAPERS if p not in LEARNS_SLOWLY],
)
def test_papers_learn_to_adapt_on_point_goal(paper: str):
    """The gain of one adaptation within 30 iterations of 400 episodes each, in which Reptile and iMAML learn nothing;
    benchmarks/learning.py has the levels that they and the others reach by the preset."""
    family = make_family(PointGoalSettings(horizon=40))
    base = {"initial_std": 0.2, "promp_lr": 3e-3, "output_gain": 0.01, **MAML_PAPERS[paper].settings}
    agent = make_agent(MamlSettings(**base), 2, 2, torch.Generator().manual_seed(0), CPU)
    env = ShardedEnv(family, 20, 10, 1)

    def trial(k: int) -> Trial:
        env.set_tasks(family.sample(20, np.random.default_rng(k)))
        return run_trial(env, agent, streams(0, "test", k, 20), 1).trial

    for k in range(30):
        agent.meta_update(trial(k), torch.Generator().manual_seed(k))
    before, after = (r.episode_returns().mean().item() for r in trial(1000).rollouts)
    assert after - before > 3.0
