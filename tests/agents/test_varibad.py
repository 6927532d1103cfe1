"""VariBAD: its posterior is that of acting, and its bound is the published one."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from metarl.agents.agent import Trial
from metarl.agents.cores.registry import CORES
from metarl.agents.ranks import Ranks
from metarl.agents.threads import single_torch_thread
from metarl.agents.trial_ppo.sequence import TrialSequence
from metarl.agents.varibad.elbo import Draws, elbo, places, posteriors_after_shots, slots_read
from metarl.agents.varibad.network import LOG_VARIANCE, MEAN, Decoder
from metarl.agents.varibad.settings import VaribadSettings
from metarl.agents.varibad.varibad import POSTERIOR, Varibad
from metarl.envs.registry import make_family
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.sharded import ShardedEnv
from metarl.runs.trial import run_trial, streams
from tests.agents.test_rl2 import ACTION, EARLY, ENVS, FULL, HORIZON, OBSERVATION, TASKS, assert_same, play

CPU = torch.device("cpu")
SETTINGS = VaribadSettings(
    hidden_size=8,
    head_sizes=(8,),
    observation_embedding=4,
    action_embedding=4,
    reward_embedding=4,
    latent_size=3,
    decoder_sizes=(6, 5),
    vae_updates=2,
    elbo_terms=4,
    decoded_steps=7,
)
SMALL_MEMORY: dict[str, Any] = {"history_length": 4, "attention_window": 4}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are tiny, and threads that wait for a busy core cost more than they give."""
    with single_torch_thread():
        yield


def make_agent(settings: VaribadSettings = SETTINGS, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    agent = Varibad(settings, OBSERVATION, ACTION, generator, CPU)
    network: Any = agent.network
    with torch.no_grad():  # a policy that hardly depends on its input would hide a wrong input
        network.mean.weight.normal_(generator=generator)
        for name in ("observation", "reward", "return", "change"):
            moments = network.get_submodule(f"{name}_moments")
            moments.update(torch.randn(50, len(moments.mean), generator=generator) * 2.0 + 1.0)
    return agent


def update(agent: Any, trial: Trial, seed: int = 3) -> dict[str, float]:
    return agent.meta_update(trial, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("lengths", [[FULL, FULL], EARLY], ids=["full", "early"])
def test_training_reads_the_posteriors_of_acting(lengths: list[Tensor]) -> None:
    agent = make_agent()
    trial, hidden = play(agent, lengths)
    sequence = agent.sequence(trial)
    after = posteriors_after_shots(sequence.extra[POSTERIOR], sequence.inputs, slots_read(sequence.steps))
    started = trial.beliefs[1].memory
    acting = torch.cat([started[MEAN], started[LOG_VARIANCE]], dim=-1).flatten(0, 1)
    torch.testing.assert_close(after[:, 0], acting, rtol=1e-5, atol=1e-6)
    last = agent.network.core.posterior(hidden[-1]).flatten(0, 1)
    torch.testing.assert_close(after[:, 1], last, rtol=1e-5, atol=1e-6)
    assert after.shape == (TASKS * ENVS, 2, 6)


def test_nothing_is_known_at_first() -> None:
    memory = make_agent().begin(TASKS, ENVS, ()).memory
    for name in (MEAN, LOG_VARIANCE):  # N(0, I)
        assert torch.equal(memory[name], torch.zeros(TASKS, ENVS, 3))


@pytest.mark.parametrize("lengths", [[FULL, FULL], EARLY], ids=["full", "early"])
def test_the_slots_of_a_trial_are_its_steps_and_its_episodes_ends(lengths: list[Tensor]) -> None:
    sequence = make_agent().sequence(play(make_agent(), lengths)[0])
    expected = sum(lengths).flatten() + len(lengths)
    slots = torch.arange(len(sequence.steps)).unsqueeze(1)
    assert torch.equal(slots_read(sequence.steps), slots < expected)


def test_places_are_every_one_of_them_and_no_other() -> None:
    shares = ((torch.arange(60) + 0.5) / 60).unsqueeze(1).expand(60, 3)
    found = places(shares, torch.tensor([1, 4, 60]))
    assert [x.unique().tolist() for x in found.T] == [[0], [0, 1, 2, 3], list(range(60))]
    last = torch.full((1, 1), 1 - 2**-24)
    assert places(last, torch.tensor([100_003])).item() == 100_002


@pytest.mark.parametrize("choice", [*({"memory": name} for name in CORES), {"head": "film"}, {"head": "hypernetwork"}])
def test_actions_of_training_are_those_of_a_real_env(choice: dict[str, str]) -> None:
    """Acting by the mean, the actions of a trial are the means of the training pass; some episodes end early."""
    family = make_family(PointGoalSettings(horizon=20))
    env = ShardedEnv(family, num_tasks=3, envs_per_task=2, threads=1)
    env.set_tasks([family.task({"goal_x": x, "goal_y": 0.0}) for x in (0.0, 0.3, -0.3)])
    settings: VaribadSettings = dataclasses.replace(SETTINGS, **SMALL_MEMORY, **choice)
    agent = Varibad(settings, family.observation_size, family.action_size, torch.Generator().manual_seed(0), CPU)
    for name, parameter in agent.network.named_parameters():
        if "modulation" in name or "generate.weight" in name:  # zero at first, which would hide a wrong context
            nn.init.normal_(parameter, std=0.01, generator=torch.Generator().manual_seed(1))
    trial = run_trial(env, agent, streams(1, "test", 0, 3), adaptations=2, explore=False).trial
    sequence = agent.sequence(trial)
    means, _ = agent.evaluate(sequence)
    torch.testing.assert_close(means[sequence.steps], sequence.actions[sequence.steps], rtol=1e-4, atol=1e-6)
    assert sequence.steps.sum(dim=0).min() < sequence.steps.sum(dim=0).max()
    assert np.isfinite(list(update(agent, trial).values())).all()


def test_every_parameter_has_one_learner() -> None:
    network = make_agent().network
    policy, model = network.policy_parameters(), network.model_parameters()
    assert sorted(map(id, [*policy, *model])) == sorted(map(id, network.parameters()))


def test_ppos_gradient_reaches_the_policy_alone_and_the_bounds_the_rest() -> None:
    agent = make_agent()
    network, sequence = agent.network, agent.sequence(play(agent, EARLY)[0])
    means, values = agent.evaluate(sequence)
    (means.sum() + values.sum()).backward()
    assert all(p.grad is not None for p in network.policy_parameters() if p is not network.log_std)
    assert all(p.grad is None for p in network.model_parameters())
    network.zero_grad()
    elbo(network, sequence, draw(sequence)).loss(SETTINGS).sum().backward()
    assert all(p.grad is None for p in network.policy_parameters())
    assert all(p.grad.abs().max() > 0 for p in network.model_parameters())


def draw(sequence: TrialSequence, settings: VaribadSettings = SETTINGS) -> Draws:
    return Draws.make(settings, sequence.steps.shape[1], torch.Generator().manual_seed(7))


def decoded(decoder: Decoder, step: Tensor, latent: Tensor) -> Tensor:
    """The decoder as a plain network on both of its inputs at once."""
    weight = torch.cat([decoder.of_step.weight, decoder.of_latent.weight], dim=1)
    x = torch.tanh(functional.linear(torch.cat([step, latent]), weight, decoder.of_step.bias))
    return decoder.output(decoder.hidden(x))


@pytest.mark.parametrize("lengths", [[FULL, FULL], EARLY], ids=["full", "early"])
@torch.no_grad()
def test_the_bound_is_that_of_a_loop_over_steps_with_torchs_distributions(lengths: list[Tensor]) -> None:
    agent = make_agent()
    trial, _ = play(agent, lengths)
    sequence, network = agent.sequence(trial), agent.network
    draws = draw(sequence)
    found = elbo(network, sequence, draws).loss(SETTINGS)
    for env in range(TASKS * ENVS):
        m, n = divmod(env, ENVS)
        counts = [int(length[m, n]) for length in lengths]
        steps = [transition(trial, k, t, m, n) for k, count in enumerate(counts) for t in range(count)]
        slots = sum(counts) + len(counts)
        posteriors = [
            Normal(mean, (0.5 * log_variance).exp())
            for mean, log_variance in (row.chunk(2) for row in sequence.extra[POSTERIOR][:slots, env])
        ]
        before = [Normal(torch.zeros(3), torch.ones(3)), *posteriors]
        divergence = sum(kl_divergence(q, p).sum() for q, p in zip(posteriors, before, strict=False)) / slots
        likelihoods = []
        for e in range(SETTINGS.elbo_terms):
            posterior = posteriors[int(draws.terms[e, env] * slots)]
            latent = posterior.mean + posterior.stddev * draws.noise[e, env]
            for d in range(SETTINGS.decoded_steps):
                likelihoods.append(likelihood(network, steps[int(draws.steps[d, env] * len(steps))], latent))
        expected = SETTINGS.kl_weight * divergence / len(steps) - torch.stack(likelihoods).mean()
        torch.testing.assert_close(found[env], expected, rtol=1e-4, atol=1e-5)


def transition(trial: Trial, k: int, t: int, m: int, n: int) -> tuple[Tensor, ...]:
    """Observation, action, reward and next observation of a step, from the rollout."""
    rollout = trial.rollouts[k]
    is_last = t + 1 == HORIZON or not rollout.valid[t + 1, m, n]
    following = rollout.final_observations[m, n] if is_last else rollout.observations[t + 1, m, n]
    return rollout.observations[t, m, n], rollout.actions[t, m, n], rollout.rewards[t, m, n], following


def likelihood(network: Any, step: tuple[Tensor, ...], latent: Tensor) -> Tensor:
    """Gaussian log-likelihood of a reward, and of a next observation by its elements' mean, without the constants."""
    observation, action, reward, following = step
    standard = network.observation_moments.standardise
    seen, after = standard(observation), standard(following)
    reward = network.reward_moments.standardise(reward.unsqueeze(0))
    change = network.change_moments.standardise(following - observation)
    of_reward = Normal(decoded(network.decode_reward, torch.cat([seen, action, after]), latent), 1.0)
    of_change = Normal(decoded(network.decode_change, torch.cat([seen, action]), latent), 1.0)
    constant = 0.5 * math.log(2 * math.pi)
    parts = (of_reward.log_prob(reward) + constant).sum(), (of_change.log_prob(change) + constant).mean()
    return parts[0] + SETTINGS.state_weight * parts[1]


def test_without_a_state_decoder_the_reward_alone_is_decoded() -> None:
    agent = make_agent(dataclasses.replace(SETTINGS, state_weight=0.0))
    assert agent.network.decode_change is None
    metrics = update(agent, play(agent, EARLY)[0])
    assert metrics["state_error"] == 0.0 and metrics["reward_error"] > 0.0


def test_metrics_say_what_is_known_after_each_shot() -> None:
    agent = make_agent()
    trial, _ = play(agent, EARLY)
    posterior = trial.beliefs[1].memory
    metrics = update(agent, trial)
    assert metrics["posterior_mean_1"] == pytest.approx(posterior[MEAN].abs().mean().item(), rel=1e-5)
    std = (0.5 * posterior[LOG_VARIANCE]).exp().mean().item()
    assert metrics["posterior_std_1"] == pytest.approx(std, rel=1e-5)
    assert {"posterior_mean_2", "posterior_std_2"} <= set(metrics) and "posterior_std_3" not in metrics
    assert np.isfinite(list(metrics.values())).all()


class Half(Ranks):
    """The first of two processes; the other has the same trials, so that sums are double."""

    size = 2

    def sum(self, tensor: Tensor) -> Tensor:
        return 2 * tensor


class Idle(Ranks):
    """A process that has no sound trial; what the other sums is given."""

    size = 2

    def __init__(self, shares: tuple[int, int], rows: Tensor) -> None:
        self.others = [torch.tensor(shares), rows]

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor + self.others.pop(0)


def test_a_process_without_trials_has_the_metrics_of_the_others() -> None:
    agent = make_agent()
    sequence = agent.sequence(play(agent, EARLY)[0])
    trials = TASKS * ENVS
    alone = agent._spread(sequence, trials)
    agent.ranks = Half()
    assert agent._spread(sequence, 2 * trials) == alone
    rows = torch.tensor(list(alone.values()), dtype=torch.float64).view(2, 2) * trials
    agent.ranks = Idle((2 * trials, trials), rows)
    found = agent._spread(sequence.of_envs(torch.tensor([], dtype=torch.int64)), trials)
    assert found == pytest.approx(alone)


def test_flagged_env_changes_nothing() -> None:
    agent = make_agent()
    trial, _ = play(agent, EARLY)
    trial.rollouts[1].valid[:, 1, 0] = False
    others = copy.deepcopy(trial)
    for rollout in others.rollouts:
        for name in ("observations", "actions", "rewards"):
            getattr(rollout, name)[:, 1, 0] = torch.nan
        rollout.final_observations[1, 0] = torch.nan
    twin = copy.deepcopy(agent)
    metrics = update(agent, trial)
    assert metrics == update(twin, others)
    assert metrics["trials"] == TASKS * ENVS - 1
    assert_same(agent.state_dict(), twin.state_dict())


def test_trial_without_a_sound_env_is_skipped() -> None:
    agent = make_agent()
    trial, _ = play(agent, [FULL, FULL])
    for rollout in trial.rollouts:
        rollout.valid[:] = False
    before = copy.deepcopy(agent.state_dict())
    assert update(agent, trial) == {"trials": 0.0}
    assert_same(agent.state_dict(), before)


def test_state_round_trip_continues_identically() -> None:
    agent = make_agent()
    update(agent, play(agent, EARLY)[0])
    twin = make_agent(seed=9)
    twin.load_state_dict(copy.deepcopy(agent.state_dict()))
    for seed in (4, 5):
        metrics = [update(a, play(a, EARLY, seed)[0], seed) for a in (agent, twin)]
        assert metrics[0] == metrics[1]
    assert_same(agent.state_dict(), twin.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"latent_size": 4}, r"posterior\.weight has shape \(6, 8\)"), ({"decoder_sizes": (6,)}, "decode_reward")],
)
def test_state_of_other_shapes_is_refused(change: dict[str, Any], message: str) -> None:
    other = make_agent(dataclasses.replace(SETTINGS, **change))
    with pytest.raises(ValueError, match=f"this VariBAD state does not fit: .*{message}"):
        make_agent().load_state_dict(other.state_dict())
