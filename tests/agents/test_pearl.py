"""PEARL: its Gaussians against torch.distributions, its losses by hand, and what its belief depends on."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from metarl.agents.agent import Rollout, Trial
from metarl.agents.pearl.gaussians import Evidence
from metarl.agents.pearl.pearl import Pearl, PearlBelief
from metarl.agents.pearl.settings import PearlSettings
from metarl.agents.ranks import Ranks
from metarl.agents.threads import single_torch_thread

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
        for agent, same in (
            (make(dataclasses.replace(SETTINGS, normalise_input=normalise)), True),
            (make(settings), False),
        ):
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

    with pytest.raises(
        ValueError, match="^pearl keeps one replay buffer and learns in one process, not in 2; train it"
    ):
        Pearl(SETTINGS, OBSERVATION, ACTION, torch.Generator(), CPU, Two())


def test_a_state_of_other_shapes_is_refused():
    other = make(dataclasses.replace(SETTINGS, latent_size=4))
    with pytest.raises(
        ValueError, match=r"encoder.network.weights.1 has shape \(1, 16, 6\) here, shape \(1, 16, 8\) in"
    ):
        make().load_state_dict(other.state_dict())


class World(SimpleNamespace):
    """As much of a world as a replay buffer uses."""

    def write(self, name: str, parts: Iterable[bytes]) -> None:
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


def opened(folder, seed: int = 0, **settings: float) -> Pearl:
    own = {"updates_per_step": 0.1, "normalise_input": True, "automatic_temperature": True, **settings}
    agent = make(dataclasses.replace(SETTINGS, **own), seed)
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
    assert metrics["posterior_mean_1"] == pytest.approx(first.mean.abs().mean().item(), rel=1e-4)
    whole = opened(tmp_path / "again")._spread(played)  # of the encoder that the trial was played by
    assert {name: metrics[name] for name in whole} == pytest.approx(whole)
    assert not torch.equal(first.mean, again.mean)  # it learned meanwhile


def test_a_state_goes_on_as_if_it_had_not_been_saved(tmp_path):
    falling = {"lr_decay_updates": 4, "lr_end": 1e-5}
    agent, randomness = opened(tmp_path, **falling), torch.random.get_rng_state()
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


def test_the_step_size_stays_and_then_falls(tmp_path):
    agent = opened(tmp_path, lr=1e-3, lr_decay_from=1, lr_decay_updates=4, lr_end=1e-9)
    used, moved = [], []
    for seed in range(6):
        before = torch.cat([p.detach().flatten() for p in agent.networks.parameters() if p.requires_grad])
        agent.meta_update(trial(agent, seed), torch.Generator().manual_seed(seed))
        after = torch.cat([p.detach().flatten() for p in agent.networks.parameters() if p.requires_grad])
        used += [{group["lr"] for o in agent._learner._optimisers.values() for group in o.param_groups}]
        moved += [(after - before).abs().max().item()]
    assert [lr for [lr] in used] == pytest.approx([1e-3, 1e-3, 7.5e-4, 5e-4, 2.5e-4, 0], abs=2e-9)
    assert min(moved[:5]) > 1e-4 and moved[5] < 1e-7  # Adam's steps are of the step size, whatever the gradient


def test_a_state_of_before_iterations_were_counted_is_read(tmp_path):
    state = opened(tmp_path).state_dict()
    del state["iterations"]
    agent = make()
    agent.load_state_dict(state)
    assert agent.lr == SETTINGS.lr


def test_a_trial_without_a_sound_env_is_not_learned_from(tmp_path):
    agent = opened(tmp_path)
    played = trial(agent, 0)
    for shot in played.rollouts:
        shot.valid[:] = False
    before = copy.deepcopy(agent.networks.state_dict())
    assert agent.meta_update(played, torch.Generator()) == {"updates": 0.0}
    assert all(torch.equal(x, before[name]) for name, x in agent.networks.state_dict().items())
    assert not list(tmp_path.iterdir())


def test_it_learns_to_adapt(tmp_path):
    """A bandit of one step an episode, whose better action is -1 or 1: only the first shot's rewards tell which."""
    settings = dataclasses.replace(
        SETTINGS, tasks_per_update=8, batch_size=8, updates_per_step=0.1, lr=1e-2, discount=0.0, temperature=0.1
    )
    agent = Pearl(settings, 1, 1, torch.Generator().manual_seed(0), CPU)
    agent._replay.open(World(folder=tmp_path))
    rng, generator, returns = np.random.default_rng(0), torch.Generator().manual_seed(0), []
    for iteration in range(22):
        arms = torch.from_numpy(rng.choice([-1.0, 1.0], (32, 1))).float()
        belief = agent.begin(32, 4, generators(iteration, 32))
        played = Trial([], [], [SimpleNamespace(id=f"{iteration} {m}") for m in range(32)])
        for shot in range(2):
            played.beliefs.append(belief)
            seen, ended = torch.zeros(1, 32, 4, 1), torch.ones(1, 32, 4, dtype=torch.bool)
            actions, _ = agent.act(belief, seen[0], torch.randn(32, 4, 1, generator=generator))
            rewards = -(actions.squeeze(-1) - arms).abs()
            played.rollouts.append(Rollout(seen, actions[None], rewards[None], ended, ~ended, ended, seen[0]))
            belief = agent.adapt(belief, played.rollouts[-1], generators(1000 + 2 * iteration + shot, 32))
        agent.meta_update(played, generator)
        returns.append([rollout.episode_returns().mean().item() for rollout in played.rollouts])
    first, second = np.mean(returns[-3:], axis=0)
    assert second > -0.4  # without adaptation at best -1
    assert second > first + 0.5
