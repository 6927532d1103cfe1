"""Heads in which the context modulates or generates the policy, against policies that are written out by hand."""

from __future__ import annotations

import copy
import dataclasses
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.agents import registry as agents
from metarl.agents.rl2.rl2 import Rl2
from metarl.agents.rl2.settings import Rl2Settings
from metarl.agents.trial_ppo import heads
from metarl.agents.trial_ppo.heads import Film, Hypernetwork
from metarl.cli import app as cli
from metarl.envs.registry import make_family
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.sharded import ShardedEnv
from metarl.runs.trial import run_trial, streams
from tests.agents.test_rl2 import (
    ACTION,
    BANDIT,
    CPU,
    EARLY,
    OBSERVATION,
    SETTINGS,
    assert_same,
    bandit_returns,
    play,
)
from tests.small_agents import small_agent

CONTEXT, ROWS = 5, 7
HEADS = ("film", "hypernetwork")
TINY = ["family.horizon=10", "training.tasks=2", "training.envs_per_task=2", "training.threads=1"]
TINY += ["evaluation.tasks=2", "evaluation.seeds=1", "evaluation.bootstrap_samples=20"]
"""Options that make a run take a blink."""


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def drawn(head: nn.Module) -> Any:
    """The head with all parameters drawn anew, as after training."""
    with torch.no_grad():
        for k, parameter in enumerate(head.parameters()):
            parameter.copy_(0.5 * draw(*parameter.shape, seed=k))
    return head


def make_agent(head: str, seed: int = 0, **more: Any) -> Rl2:
    settings = dataclasses.replace(SETTINGS, head=head, generated_sizes=(6,), head_sizes=(8, 6), **more)
    agent = Rl2(settings, OBSERVATION, ACTION, torch.Generator().manual_seed(seed), CPU)
    drawn(agent.network.actor)
    return agent


class TestFilm:
    def plain(self, head: Film) -> nn.Sequential:
        return nn.Sequential(*(layer for linear in head.layers for layer in (linear, nn.Tanh())))

    def test_at_zero_context_it_is_the_plain_policy(self):
        head, observations = drawn(Film(CONTEXT, OBSERVATION, (6, 4))), draw(ROWS, OBSERVATION)
        features = torch.cat([torch.zeros(ROWS, CONTEXT), observations], dim=-1)
        torch.testing.assert_close(head(features), self.plain(head)(observations))
        other = torch.cat([draw(ROWS, CONTEXT), observations], dim=-1)
        assert not torch.allclose(head(other), head(features), atol=1e-2)

    def test_before_training_it_is_the_plain_policy_at_any_context(self):
        head, observations = Film(CONTEXT, OBSERVATION, (6, 4)), draw(ROWS, OBSERVATION)
        head.initialise(torch.Generator().manual_seed(0))
        features = torch.cat([draw(ROWS, CONTEXT), observations], dim=-1)
        torch.testing.assert_close(head(features), self.plain(head)(observations))

    def test_context_scales_and_shifts_each_layer(self):
        """One layer of two units, by hand: gamma = (c, 0), beta = (0, 2 c)."""
        head = Film(1, 1, (2,))
        [layer] = head.layers
        assert isinstance(layer, nn.Linear)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[1.0], [1.0]]))
            layer.bias.zero_()
            head.modulation.weight.copy_(torch.tensor([[1.0], [0.0], [0.0], [2.0]]))
        found = head(torch.tensor([[0.5, 0.2]]))
        torch.testing.assert_close(found, torch.tensor([[1.5 * 0.2, 0.2 + 2 * 0.5]]).tanh())


class TestHypernetwork:
    def by_hand(self, head: Hypernetwork, vector: Tensor, observation: Tensor) -> Tensor:
        """The mean of the policy whose parameters a flat vector has, for one observation."""
        x, at = observation, 0
        for k, (a, b) in enumerate(head.shapes):
            weight, bias = vector[at : at + a * b].view(a, b), vector[at + a * b : at + a * b + b]
            x, at = (x.tanh() if k else x) @ weight + bias, at + a * b + b
        assert at == len(vector)
        return x

    def test_its_first_policy_is_its_bias_policy_at_any_context(self):
        head = Hypernetwork(CONTEXT, (OBSERVATION, 6, 4, ACTION))
        head.initialise(torch.Generator().manual_seed(0))
        context, observations = 3 * draw(ROWS, CONTEXT), draw(ROWS, OBSERVATION, seed=1)
        expected = torch.stack([self.by_hand(head, head.generate.bias, o) for o in observations])
        torch.testing.assert_close(head(torch.cat([context, observations], dim=-1)), expected)
        first, second, last = head.generate.bias.split([6 * OBSERVATION + 6, 6 * 4 + 4, 4 * ACTION + ACTION])
        for piece, (a, b), gain in ((first, (OBSERVATION, 6), 2**0.5), (second, (6, 4), 2**0.5), (last, (4, 2), 0.01)):
            weight = piece[: a * b].view(a, b) / gain
            gram = weight.mT @ weight if a >= b else weight @ weight.mT
            torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=1e-4, atol=1e-5)
            assert not piece[a * b :].any()

    def test_each_row_is_a_policy_of_its_own(self):
        head = drawn(Hypernetwork(CONTEXT, (OBSERVATION, 6, ACTION)))
        context, observations = draw(2, ROWS, CONTEXT), draw(2, ROWS, OBSERVATION, seed=1)
        found = head(torch.cat([context, observations], dim=-1))
        vectors = context @ head.generate.weight.mT + head.generate.bias
        for i in np.ndindex(2, ROWS):
            torch.testing.assert_close(found[i], self.by_hand(head, vectors[i], observations[i]), rtol=1e-4, atol=1e-5)

    def test_in_pieces_it_gives_the_same_means_and_gradients(self, monkeypatch):
        results = []
        for most in (heads.MOST_WEIGHTS, 3 * 40):  # pieces of three rows
            monkeypatch.setattr(heads, "MOST_WEIGHTS", most)
            head = drawn(Hypernetwork(CONTEXT, (OBSERVATION, 6, ACTION)))
            assert sum(head.lengths) <= 40
            features = draw(2, ROWS, CONTEXT + OBSERVATION).requires_grad_()
            means = head(features)
            means.square().sum().backward()
            results.append([means, features.grad, head.generate.weight.grad])
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
class TestAgent:
    def test_training_reads_what_acting_read(self, head: str):
        """Acting by the mean, the actions of a trial are the means of the training pass; some episodes end early."""
        family = make_family(PointGoalSettings(horizon=20))
        env = ShardedEnv(family, num_tasks=3, envs_per_task=2, threads=1)
        env.set_tasks([family.task({"goal_x": x, "goal_y": 0.0}) for x in (0.0, 0.3, -0.3)])
        settings = dataclasses.replace(SETTINGS, head=head)
        agent = Rl2(settings, family.observation_size, family.action_size, torch.Generator().manual_seed(0), CPU)
        with torch.no_grad():  # a context that changes the policy, which hardly moves all the same
            for parameter in agent.network.actor.parameters():
                parameter.add_(0.002 * draw(*parameter.shape))
        trial = run_trial(env, agent, streams(1, "test", 0, 3), adaptations=2, explore=False).trial
        sequence = agent.sequence(trial)
        means, values = agent.evaluate(sequence)
        torch.testing.assert_close(means[sequence.steps], sequence.actions[sequence.steps], rtol=1e-4, atol=1e-6)
        assert values.shape == sequence.rewards.shape
        assert sequence.steps.sum(dim=0).min() < sequence.steps.sum(dim=0).max()

    def test_the_context_reaches_the_action(self, head: str):
        agent, observation = make_agent(head), draw(1, 1, OBSERVATION)
        actions = []
        for reward in (-3.0, 3.0):
            _, belief = agent.act(agent.begin(1, 1, ()), observation, None)
            belief = agent.observe(belief, torch.full((1, 1), reward), torch.zeros(1, 1, dtype=torch.bool))
            actions.append(agent.act(belief, observation, None)[0])
        assert not torch.allclose(*actions, atol=1e-3)

    def test_a_checkpoint_continues_identically(self, head: str):
        agent = make_agent(head)
        agent.meta_update(play(agent, EARLY)[0], torch.Generator().manual_seed(3))
        twin, file = make_agent(head, seed=9), io.BytesIO()
        torch.save(agent.state_dict(), file)
        file.seek(0)
        twin.load_state_dict(torch.load(file, weights_only=True))
        metrics = [a.meta_update(play(a, EARLY, 4)[0], torch.Generator().manual_seed(4)) for a in (agent, twin)]
        assert metrics[0] == metrics[1]
        assert_same(agent.state_dict(), twin.state_dict())
        with pytest.raises(ValueError, match="this RL2 state does not fit: "):
            Rl2(SETTINGS, OBSERVATION, ACTION, torch.Generator(), CPU).load_state_dict(
                copy.deepcopy(agent.state_dict())
            )

    def test_an_update_trains_every_parameter(self, head: str):
        agent = Rl2(
            dataclasses.replace(SETTINGS, head=head), OBSERVATION, ACTION, torch.Generator().manual_seed(0), CPU
        )
        before = copy.deepcopy(dict(agent.network.named_parameters()))
        for seed in (1, 2):
            agent.meta_update(play(agent, EARLY, seed)[0], torch.Generator().manual_seed(3))
        for name, parameter in agent.network.named_parameters():
            assert not torch.equal(parameter, before[name]), name

    def test_learns_to_adapt(self, head: str):
        settings = dataclasses.replace(BANDIT, head=head, generated_sizes=(16,))
        first, second = bandit_returns(Rl2(settings, 1, 1, torch.Generator().manual_seed(0), CPU))
        assert second > -0.6  # without memory at best -1
        assert second > first + 0.3

    @pytest.mark.thorough
    def test_in_onnx_runtime_it_acts_alike(self, head: str, tmp_path, monkeypatch):
        pytest.importorskip("onnxruntime")
        monkeypatch.chdir(tmp_path)
        train = ["train", "--agent", "rl2", "--family", "half_cheetah_mass", "--name", "r", *TINY]
        train += ["training.iterations=2", f"agent.head={head}", "agent.memory=lstm", "tracking.wandb=disabled"]
        assert cli.main(train) == 0
        assert cli.main(["export", "r"]) == 0  # it plays episodes in both, and refuses a difference above 1e-5
        assert (tmp_path / "runs/r/policy.onnx").stat().st_size > 1000


def test_a_head_that_the_policy_cannot_have_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for options, message in {
        ("agent.head=film", "agent.observation_skip=false"): "agent.observation_skip is false; set",
        ("agent.head=hypernetwork", "agent.observation_skip=false"): "agent.head is hypernetwork, a policy of",
        ("agent.head=film", "agent.head_sizes=[]"): "which scales hidden layers, but the policy has none",
        ("agent.head=hypernetwork", "agent.generated_sizes=1000"): "agent.generated_sizes[0] is 1000; it must be at",
    }.items():
        assert cli.main(["train", "--agent", "rl2", "--family", "point_goal", *options]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_plain_head_has_the_parameters_of_older_checkpoints():
    assert Rl2Settings().head == "plain"
    network = Rl2(SETTINGS, OBSERVATION, ACTION, torch.Generator(), CPU).network
    assert {"actor.0.weight", "mean.weight", "critic.0.weight", "value.weight"} <= set(network.state_dict())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("agent", ["rma", "estimator", "pearl"])
class TestOnALatent:
    """Heads of policies that read a latent: an encoding, estimates, a draw from a posterior."""

    def policy(self, agent: str, head: str) -> tuple[Any, int]:
        """The policy as a function of observations and latents, before training, and the size of the latent."""
        settings = small_agent(agent, head=head, generated_sizes=(8,))
        made: Any = agents.make_agent(
            settings, OBSERVATION, ACTION, torch.Generator().manual_seed(0), CPU, privileged=("task_mass", "contact")
        )
        if agent == "pearl":
            return lambda seen, latents: made.networks.policy(torch.cat([seen, latents], -1))[0], settings.latent_size
        return lambda seen, latents: made.network.means(made.network.policy_inputs(seen, latents)), (
            settings.latent_size if agent == "rma" else 2
        )

    def test_the_first_policy_is_the_same_at_any_latent_and_not_at_any_observation(self, agent: str, head: str):
        policy, size = self.policy(agent, head)
        seen, latents = draw(ROWS, OBSERVATION), 3 * draw(ROWS, size, seed=1)
        torch.testing.assert_close(policy(seen, latents), policy(seen, torch.zeros(ROWS, size)), rtol=1e-4, atol=1e-6)
        assert not torch.allclose(policy(seen + 1, latents), policy(seen, latents), rtol=1e-2, atol=0)
