"""The policy on the prototype: the prototype as a set of steps, and the metric loss against hand-computed episodes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from metarl.agents.agent import Trial
from metarl.agents.prototype.core import KNOWN, PREVIOUS, STEPS, SUM, PrototypeCore
from metarl.agents.prototype.prototype import Prototype, distances_to_first
from metarl.agents.prototype.settings import PrototypeSettings
from metarl.agents.ranks import Ranks
from metarl.envs.registry import make_family
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from tests.agents.shots import ACTION, CPU, ENVS, HORIZON, OBSERVATION, TASKS, begun, make, rollout

EMBEDDED, SLOT = 4, 3
SETTINGS = PrototypeSettings(step_sizes=(5,), prototype_size=2, prior_steps=2.0)


def core() -> PrototypeCore:
    made = PrototypeCore(EMBEDDED, SETTINGS, SLOT)
    made.initialise(torch.Generator().manual_seed(0))
    return made


def episode(seed: int, length: int = 6, envs: int = 3) -> torch.Tensor:
    """Inputs of an episode, whose first has the flag of a start and whose last that of an end."""
    inputs = torch.randn(length, envs, EMBEDDED + SLOT + 2, generator=torch.Generator().manual_seed(seed))
    inputs[..., -2:] = 0.0
    inputs[0, :, -2], inputs[-1, :, -1] = 1.0, 1.0
    return inputs


def trial(shots: int = 2) -> Trial:
    return Trial([rollout(10 * k) for k in range(shots)], [begun(make("prototype"))] * shots)


class TestCore:
    def test_the_prototype_is_the_mean_over_steps_with_a_prior(self):
        own, inputs = core(), episode(1)
        features, after = own.sequence(inputs, own.initial(3))
        assert not features[0].any()  # nothing has been met
        embedded = [own.embeddings(inputs[t], own.slots(inputs[t - 1]), torch.ones(3, 1))[0] for t in range(1, 6)]
        torch.testing.assert_close(features[-1, :, :2], torch.stack(embedded).sum(dim=0) / (5 + 2.0))
        torch.testing.assert_close(features[-1, :, 2], torch.full((3,), 5 / 7))
        assert set(after) == {SUM, STEPS, PREVIOUS, KNOWN}

    def test_a_sequence_is_its_steps_in_turn(self):
        own, inputs = core(), torch.cat([episode(1), episode(2)])
        features, after = own.sequence(inputs, own.initial(3))
        memory = own.initial(3)
        for t, slot in enumerate(inputs):
            one, memory = own.step(slot, memory)
            torch.testing.assert_close(one, features[t])
        for name, state in after.items():
            torch.testing.assert_close(memory[name], state)

    def test_the_order_of_episodes_changes_nothing(self):
        own, a, b = core(), episode(1), episode(2, length=9)
        ways = [own.sequence(torch.cat(order), own.initial(3))[0][-1] for order in ((a, b), (b, a))]
        torch.testing.assert_close(*ways)

    def test_a_memory_that_was_emptied_within_an_episode_has_met_nothing(self):
        """No difference to a slot of zeros, which never was, whether slots are read one by one or at once."""
        own, inputs = core(), episode(1)[2:]
        one, memory = own.step(inputs[0], own.initial(3))
        assert not one.any() and not memory[STEPS].any() and not memory[SUM].any()
        features, after = own.sequence(inputs, own.initial(3))
        assert not features[0].any()
        embedded = own.embeddings(inputs[1], own.slots(inputs[0]), torch.ones(3, 1))[0]
        torch.testing.assert_close(features[1, :, :2], embedded / (1 + 2.0))
        torch.testing.assert_close(after[STEPS], torch.full((3, 1), 3.0))


def test_with_its_memory_reset_before_every_action_its_prototype_stays_empty():
    agent = make("prototype")
    empty = belief = begun(agent)
    shot = rollout(0)
    for observations, rewards in zip(shot.observations, shot.rewards, strict=True):
        _, after = agent.act(agent.forget(belief, empty), observations, None)
        assert not after.memory[STEPS].any() and not after.memory[SUM].any()
        belief = agent.observe(after, rewards, torch.zeros(TASKS, ENVS, dtype=torch.bool))


class TestMetricLoss:
    def test_distances_to_first_episodes_by_hand(self):
        first = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0]])  # two of class 0, one of class 1
        later = torch.tensor([[1.0, 2.0], [1.0, 0.0], [5.0, 4.0]])
        found = distances_to_first(torch.stack([first, later]), torch.tensor([0, 0, 1]))
        torch.testing.assert_close(found[0], torch.tensor([[4.0, 25.0], [0.0, 41.0], [32.0, 1.0]]))

    def test_an_episode_is_embedded_as_the_mean_of_its_steps(self):
        agent = make("prototype")
        sequence = agent.sequence(trial())
        found = agent.network.episodes(sequence)
        assert found.shape == (2, TASKS * ENVS, agent.settings.prototype_size)
        inputs = agent.network.embed(agent.network.normalise(sequence.inputs))
        slots = agent.network.encoder.slots(inputs)
        for k in range(2):
            first = k * (HORIZON + 1)  # the slot of the start
            steps = range(first + 1, first + HORIZON + 1)
            known = torch.ones(TASKS * ENVS, 1)
            embedded = [agent.network.encoder.embeddings(inputs[t], slots[t - 1], known)[0] for t in steps]
            torch.testing.assert_close(found[k], torch.stack(embedded).mean(dim=0))

    def test_it_needs_two_episodes_and_two_tasks(self):
        agent = make("prototype")
        count = TASKS * ENVS * HORIZON
        assert agent.auxiliary_loss(agent.sequence(trial(1)), count)[0] is None
        one = agent.sequence(trial()).of_envs(torch.arange(ENVS))
        assert agent.auxiliary_loss(one, count)[0] is None
        loss, found = agent.auxiliary_loss(agent.sequence(trial()), count)
        assert loss.item() == pytest.approx(agent.settings.metric_weight * found["metric_loss"])

    def test_a_task_that_was_drawn_several_times_is_one_class(self):
        agent, family = make("prototype"), make_family(PointGoalSettings())
        one, other = family.sample(2, np.random.default_rng(0))
        played = [dataclasses.replace(trial(), tasks=tasks) for tasks in ([one] * TASKS, [one, other] * (TASKS // 2))]
        losses = [agent.auxiliary_loss(agent.sequence(own), TASKS * ENVS * HORIZON)[0] for own in played]
        assert losses[0] is None and losses[1] is not None
        numbers = agent.sequence(played[1]).extra["task"].amax(dim=0)
        assert torch.equal(numbers, torch.tensor([0, 1]).repeat(TASKS // 2).repeat_interleave(ENVS))

    @pytest.mark.thorough
    def test_its_steps_tell_tasks_apart(self):
        """Rewards say which task it is: after a few updates the metric loss has learned to read them."""
        agent = make("prototype")
        played = trial()
        for shot in played.rollouts:
            shot.rewards[:] = torch.arange(float(TASKS)).view(1, -1, 1) + 0.1 * shot.rewards
        metrics = [agent.meta_update(played, torch.Generator().manual_seed(k)) for k in range(40)]
        assert metrics[-1]["metric_loss"] < 0.5 * metrics[0]["metric_loss"]
        assert metrics[-1]["metric_accuracy"] > 0.9


class Two(Ranks):
    size = 2


def test_what_it_cannot_do_is_refused():
    sizes = OBSERVATION, ACTION, torch.Generator(), CPU
    with pytest.raises(
        ValueError, match="prototype tells the tasks .* in one process, not in 2; train it without torchr"
    ):
        Prototype(PrototypeSettings(), *sizes, Two())
    with pytest.raises(ValueError, match=r"agent.chunk is 5, .*; set agent.chunk=0 or agent.metric_weight=0"):
        Prototype(PrototypeSettings(chunk=5), *sizes)
    Prototype(PrototypeSettings(chunk=5, metric_weight=0), *sizes)
