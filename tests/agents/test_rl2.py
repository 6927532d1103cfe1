"""RL2: what the network reads while acting is what it is trained on, and whole trials are one sequence."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.agents.agent import Rollout, Trial
from metarl.agents.moments import Moments
from metarl.agents.numerics import gaussian_log_prob
from metarl.agents.rl2.rl2 import Rl2
from metarl.agents.rl2.settings import Rl2Settings
from metarl.agents.threads import single_torch_thread
from metarl.agents.trial_ppo.learner import value_loss
from metarl.agents.trial_ppo.sequence import discounted_sums, trial_gae
from metarl.envs.registry import make_family
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.sharded import ShardedEnv
from metarl.runs.trial import run_trial, streams

CPU = torch.device("cpu")
OBSERVATION, ACTION, TASKS, ENVS, HORIZON = 3, 2, 2, 3, 5
SETTINGS = Rl2Settings(hidden_size=8, head_sizes=(8,), observation_embedding=4, action_embedding=4, reward_embedding=4)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are tiny, and threads that wait for a busy core cost more than they give."""
    with single_torch_thread():
        yield


def make_agent(settings: Rl2Settings = SETTINGS, seed: int = 0) -> Rl2:
    generator = torch.Generator().manual_seed(seed)
    agent = Rl2(settings, OBSERVATION, ACTION, generator, CPU)
    network = agent.network
    assert isinstance(network.mean, nn.Linear)
    with torch.no_grad():  # a policy that hardly depends on its input would hide a wrong input
        network.mean.weight.normal_(generator=generator)
        for moments in (network.observation_moments, network.reward_moments, network.return_moments):
            moments.update(torch.randn(50, len(moments.mean), generator=generator) * 2.0 + 1.0)
    return agent


def play(agent: Rl2, lengths: list[Tensor], seed: int = 1) -> tuple[Trial, list[Tensor]]:
    """A trial of random observations and rewards, whose episodes last `lengths` [M, N]; hidden states of every slot."""
    generator = torch.Generator().manual_seed(seed)
    shape = (HORIZON, TASKS, ENVS)
    belief, trial, hidden = agent.begin(TASKS, ENVS, ()), Trial([], []), []
    for length in lengths:
        trial.beliefs.append(belief)
        valid = torch.arange(HORIZON).view(-1, 1, 1) < length
        ends = torch.arange(HORIZON).view(-1, 1, 1) == length - 1
        observations = torch.randn(*shape, OBSERVATION, generator=generator)
        rewards = torch.randn(shape, generator=generator) * valid
        noise = torch.randn(*shape, ACTION, generator=generator)
        actions = torch.zeros(*shape, ACTION)
        for t in range(HORIZON):
            actions[t], belief = agent.act(belief, observations[t], noise[t])
            hidden.append(belief.memory["hidden"])
            belief = agent.observe(belief, rewards[t], t >= length - 1)
        rollout = Rollout(
            observations=observations * valid.unsqueeze(-1),
            actions=actions * valid.unsqueeze(-1),
            rewards=rewards,
            terminated=ends,
            truncated=torch.zeros_like(ends),
            valid=valid,
            final_observations=torch.randn(TASKS, ENVS, OBSERVATION, generator=generator),
        )
        trial.rollouts.append(rollout)
        belief = agent.adapt(belief, rollout, ())
        hidden.append(belief.memory["hidden"])
    return trial, hidden


FULL = torch.full((TASKS, ENVS), HORIZON)
EARLY = [torch.tensor([[5, 2, 1], [4, 5, 3]]), torch.tensor([[1, 5, 2], [5, 5, 4]])]


@pytest.mark.parametrize("lengths", [[FULL, FULL], EARLY], ids=["full", "early"])
def test_training_reads_what_acting_read(lengths: list[Tensor]) -> None:
    agent = make_agent()
    trial, hidden = play(agent, lengths)
    sequence = agent.sequence(trial)
    network = agent.network
    states, _ = network.core.sequence(network.embed(network.normalise(sequence.inputs)), sequence.memory)
    for env in range(TASKS * ENVS):
        m, n = divmod(env, ENVS)
        slot = 0
        for shot, length in enumerate(lengths):
            for t in [*range(int(length[m, n])), HORIZON]:
                acting = hidden[shot * (HORIZON + 1) + t][m, n]
                torch.testing.assert_close(states[slot, env], acting, rtol=1e-5, atol=1e-6)
                assert sequence.steps[slot, env] == (t < HORIZON)
                if t < HORIZON:
                    torch.testing.assert_close(sequence.actions[slot, env], trial.rollouts[shot].actions[t, m, n])
                    assert sequence.rewards[slot, env] == trial.rollouts[shot].rewards[t, m, n]
                slot += 1
        assert not sequence.steps[slot:, env].any()


def test_log_probabilities_are_those_of_collection() -> None:
    """With the noise that was drawn: log N(mean + std z) is the density of z, less the log-std."""
    agent = make_agent()
    generator = torch.Generator().manual_seed(1)
    trial, _ = play(agent, EARLY)
    sequence = agent.sequence(trial)
    targets = agent._targets(sequence, sequence)
    expected = []
    for rollout in trial.rollouts:  # the draws of `play`, in its order
        torch.randn(HORIZON, TASKS, ENVS, OBSERVATION, generator=generator)
        torch.randn(HORIZON, TASKS, ENVS, generator=generator)
        noise = torch.randn(HORIZON, TASKS, ENVS, ACTION, generator=generator)
        torch.randn(TASKS, ENVS, OBSERVATION, generator=generator)
        log_std = agent.network.log_std.detach()
        density = gaussian_log_prob(torch.zeros_like(noise), torch.zeros(ACTION), noise) - log_std.sum()
        expected.append(density[rollout.valid])
    found = targets.log_likelihoods[sequence.steps]
    torch.testing.assert_close(found.sort().values, torch.cat(expected).sort().values, rtol=1e-4, atol=1e-4)


def test_training_reads_what_acting_read_of_a_real_env() -> None:
    """Acting by the mean, the actions of a trial are the means of the training pass; some episodes end early."""
    family = make_family(PointGoalSettings(horizon=20))
    env = ShardedEnv(family, num_tasks=3, envs_per_task=2, threads=1)
    env.set_tasks([family.task({"goal_x": x, "goal_y": 0.0}) for x in (0.0, 0.3, -0.3)])
    agent = Rl2(SETTINGS, family.observation_size, family.action_size, torch.Generator().manual_seed(0), CPU)
    trial = run_trial(env, agent, streams(1, "test", 0, 3), adaptations=2, explore=False).trial
    sequence = agent.sequence(trial)
    means, _ = agent.evaluate(sequence)
    torch.testing.assert_close(means[sequence.steps], sequence.actions[sequence.steps], rtol=1e-4, atol=1e-6)
    taken = sequence.steps.sum(dim=0)
    assert taken.tolist() == [int(n) for n in sum(r.valid.sum(dim=0) for r in trial.rollouts).flatten()]
    assert taken.min() < taken.max()


def test_an_env_that_ended_reads_nothing() -> None:
    agent = make_agent()
    belief = agent.begin(TASKS, ENVS, ())
    observations = torch.randn(TASKS, ENVS, OBSERVATION, generator=torch.Generator().manual_seed(0))
    actions, belief = agent.act(belief, observations, None)
    ended = torch.tensor([[True, False, False], [False, False, True]])
    before = agent.observe(belief, torch.ones(TASKS, ENVS), ended)
    _, after = agent.act(before, observations, None)
    after = agent.observe(after, torch.zeros(TASKS, ENVS), ended)
    fields = [
        {**b.memory, **{n: getattr(b, n) for n in ("previous_action", "previous_reward")}} for b in (before, after)
    ]
    for was, now in zip(*(states.values() for states in fields), strict=True):
        torch.testing.assert_close(now[ended], was[ended], rtol=0, atol=0)
        assert not torch.equal(now[~ended], was[~ended])
    torch.testing.assert_close(after.previous_action[ended], actions[ended], rtol=0, atol=0)


def test_gradient_crosses_the_episode_boundary() -> None:
    agent = make_agent()
    trial, _ = play(agent, [FULL, FULL])
    sequence = agent.sequence(trial)
    inputs = sequence.inputs.clone().requires_grad_()
    means, values = agent.evaluate(dataclasses.replace(sequence, inputs=inputs))
    second = HORIZON + 1
    (means[second:].sum() + values[second:].sum()).backward()
    gradient = inputs.grad
    assert gradient is not None
    assert (gradient[:second].abs().amax(dim=(0, 2)) > 0).all()


def test_credit_crosses_the_episode_boundary_and_ends_with_the_trial() -> None:
    """Closed form: values 0, lambda 1, a reward in the second episode's last step only."""
    steps = torch.tensor([[1, 1], [1, 0], [0, 1], [1, 1], [1, 0]], dtype=torch.bool)
    rewards = torch.tensor([[0.0, 0.0], [0.0, 9.0], [9.0, 0.0], [0.0, 1.0], [1.0, 9.0]])
    advantages = trial_gae(rewards, torch.zeros(5, 2), steps, discount=0.5, lambda_=1.0)
    expected = torch.tensor([[0.125, 0.25], [0.25, 0.0], [0.0, 0.5], [0.5, 1.0], [1.0, 0.0]])
    torch.testing.assert_close(advantages, expected)
    # lambda 0: r + discount V' - V, V' = 0 after the trial's last step
    values = torch.tensor([[1.0, 1.0], [2.0, 7.0], [7.0, 2.0], [3.0, 3.0], [4.0, 7.0]])
    advantages = trial_gae(rewards, values, steps, discount=0.5, lambda_=0.0)
    expected = torch.tensor([[0.0, 0.0], [-0.5, 0.0], [0.0, -0.5], [-1.0, -2.0], [-3.0, 0.0]])
    torch.testing.assert_close(advantages, expected)


def test_discounted_sums_closed_form() -> None:
    steps = torch.tensor([[True], [False], [True], [True]])
    sums = discounted_sums(torch.tensor([[1.0], [9.0], [2.0], [4.0]]), steps, discount=0.5)
    torch.testing.assert_close(sums, torch.tensor([1.0, 2.5, 5.25]))


def test_moments_of_parts_are_those_of_the_whole() -> None:
    values = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) * 5.0 + 2.0
    moments = Moments(3)
    for part in values.split([1, 29, 70]):
        moments.update(part)
    torch.testing.assert_close(moments.mean, values.mean(dim=0))
    torch.testing.assert_close(moments.variance, values.var(dim=0, correction=0))


def test_value_loss_closed_form() -> None:
    """Huber: e^2 / 2 up to 1, |e| - 1/2 beyond; clipping holds the second value at 0.2, .8 from its target."""
    old, new, target = torch.zeros(2), torch.tensor([3.0, 0.9]), torch.tensor([1.0, 1.0])
    assert value_loss(new, old, target, clip=0.0).mean().item() == pytest.approx((1.5 + 0.005) / 2)
    assert value_loss(new, old, target, clip=0.2).mean().item() == pytest.approx((1.5 + 0.32) / 2)


def test_rewards_that_are_not_normalised_are_not_clipped() -> None:
    agent = make_agent(dataclasses.replace(SETTINGS, normalise_reward=False, discount=1.0, gae_lambda=1.0))
    trial, _ = play(agent, EARLY)
    for rollout in trial.rollouts:
        rollout.rewards.mul_(1000.0)
    sequence = agent.sequence(trial).without_padding()
    returns = agent._targets(sequence, sequence).returns
    torch.testing.assert_close(returns[0], sequence.rewards.sum(dim=0), rtol=1e-5, atol=1e-2)


def test_critic_is_told_how_near_the_end_is() -> None:
    """Slots count down over both episodes; one that ends early jumps to its end slot."""
    agent = make_agent()
    ending = agent.sequence(play(agent, EARLY)[0]).ending
    left = ending.log() / torch.tensor(agent.settings.discount).log()
    torch.testing.assert_close(left[:8, 0], torch.tensor([10.0, 9, 8, 7, 6, 5, 5, 0]))
    torch.testing.assert_close(left[:8, 2], torch.tensor([10.0, 5, 5, 4, 0, 9, 8, 7]))


def test_flagged_env_changes_nothing() -> None:
    agent = make_agent()
    trial, _ = play(agent, EARLY)
    trial.rollouts[1].valid[:, 1, 0] = False
    others = copy.deepcopy(trial)

    def spoil(name: str, values: Tensor) -> Tensor:
        if values.dtype == torch.float32:
            (values[1, 0] if name == "final_observations" else values[:, 1, 0]).fill_(torch.nan)
        return values

    others.rollouts = [rollout.map(spoil) for rollout in others.rollouts]
    twin = copy.deepcopy(agent)
    metrics = agent.meta_update(trial, torch.Generator().manual_seed(3))
    assert metrics == twin.meta_update(others, torch.Generator().manual_seed(3))
    assert metrics["trials"] == TASKS * ENVS - 1
    assert_same(agent.state_dict(), twin.state_dict())


def test_trial_without_a_sound_env_is_skipped() -> None:
    agent = make_agent()
    trial, _ = play(agent, [FULL, FULL])
    for rollout in trial.rollouts:
        rollout.valid[:] = False
    before = copy.deepcopy(agent.state_dict())
    assert agent.meta_update(trial, torch.Generator().manual_seed(3)) == {"trials": 0.0}
    assert_same(agent.state_dict(), before)


def test_acting_leaves_the_agent_as_it_was() -> None:
    """The belief is a value: two trials in turn, or interleaved, give the same actions."""
    agent = make_agent()
    attributes, state = dict(vars(agent)), copy.deepcopy(agent.state_dict())
    first, _ = play(agent, EARLY)
    again, _ = play(agent, EARLY)
    assert torch.equal(first.rollouts[1].actions, again.rollouts[1].actions)
    assert vars(agent) == attributes
    assert_same(agent.state_dict(), state)


def test_state_round_trip_continues_identically() -> None:
    agent = make_agent()
    agent.meta_update(play(agent, EARLY)[0], torch.Generator().manual_seed(3))
    twin = make_agent(seed=9)
    twin.load_state_dict(copy.deepcopy(agent.state_dict()))
    for seed in (4, 5):
        metrics = [a.meta_update(play(a, EARLY, seed)[0], torch.Generator().manual_seed(seed)) for a in (agent, twin)]
        assert metrics[0] == metrics[1]
    assert_same(agent.state_dict(), twin.state_dict())


def test_step_size_falls_linearly_and_then_stays() -> None:
    agent = make_agent(dataclasses.replace(SETTINGS, lr=4e-3, lr_decay_updates=2, lr_end=2e-3))
    trial, _ = play(agent, EARLY)
    rates = [agent.meta_update(trial, torch.Generator().manual_seed(3))["lr"] for _ in range(4)]
    assert rates == pytest.approx([4e-3, 3e-3, 2e-3, 2e-3])


def test_state_of_other_shapes_is_refused() -> None:
    agent = make_agent()
    other = make_agent(dataclasses.replace(SETTINGS, hidden_size=16))
    with pytest.raises(ValueError, match=r"gru\.weight_ih_l0 has shape \(24, 14\) here, shape \(48, 14\) in the state"):
        agent.load_state_dict(other.state_dict())


@pytest.mark.parametrize("skip", [True, False])
def test_heads_may_be_linear(skip: bool) -> None:
    agent = make_agent(dataclasses.replace(SETTINGS, head_sizes=(), observation_skip=skip))
    metrics = agent.meta_update(play(agent, EARLY)[0], torch.Generator().manual_seed(3))
    assert all(np.isfinite(value) for value in metrics.values())


def test_global_generator_is_untouched() -> None:
    state = torch.random.get_rng_state()
    agent = make_agent()
    agent.meta_update(play(agent, EARLY)[0], torch.Generator().manual_seed(3))
    assert torch.equal(torch.random.get_rng_state(), state)


BANDIT = dataclasses.replace(
    SETTINGS, hidden_size=16, head_sizes=(16,), lr=3e-3, epochs=4, clip=0.2, initial_std=0.5, normalise_reward=False
)
"""Settings that learn `bandit_returns`."""


def test_learns_to_adapt() -> None:
    first, second = bandit_returns(Rl2(BANDIT, 1, 1, torch.Generator().manual_seed(0), CPU))
    assert second > -0.6  # without memory at best -1
    assert second > first + 0.3


def bandit_returns(agent: Rl2) -> Tensor:
    """Mean returns of both episodes after 60 updates on a two-armed bandit of one step an episode.

    Only the first episode's reward tells the better arm.
    """
    rng = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    returns = []
    for _ in range(60):
        arm = torch.from_numpy(rng.choice([-1.0, 1.0], (64, 1))).float()
        belief, trial = agent.begin(64, 1, ()), Trial([], [])
        for _ in range(2):
            trial.beliefs.append(belief)
            observations = torch.zeros(64, 1, 1)
            actions, belief = agent.act(belief, observations, torch.randn(64, 1, 1, generator=generator))
            rewards = -(actions.squeeze(-1) - arm).abs()
            ended = torch.ones(64, 1, dtype=torch.bool)
            belief = agent.observe(belief, rewards, ended)
            rollout = Rollout(
                observations[None], actions[None], rewards[None], ended[None], ~ended[None], ended[None], observations
            )
            trial.rollouts.append(rollout)
            belief = agent.adapt(belief, rollout, ())
        agent.meta_update(trial, generator)
        returns.append([rollout.episode_returns().mean().item() for rollout in trial.rollouts])
    return torch.tensor(returns[-5:]).mean(dim=0)


def assert_same(a: object, b: object) -> None:
    """Equal bit for bit, through containers."""
    if isinstance(a, Tensor):
        assert isinstance(b, Tensor)
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert isinstance(b, list)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b
