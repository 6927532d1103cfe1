"""An agent that draws from its belief: the same numbers in shards, beside other tasks, and on a controller."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.agent import Agent, Facts, Rollout
from metarl.agents.maml.maml import Maml
from metarl.agents.maml.settings import MamlSettings
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.reveal import reveal
from metarl.envs.robots.ant_settings import AntLegsSettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.sharded import ShardedEnv
from metarl.runs.controller import Controller
from metarl.runs.trial import AgentGenerators, TrialResult, run_trial, streams

POINT = make_family(PointGoalSettings(horizon=12))


@dataclass(frozen=True)
class Drawn:
    """A normal posterior of a constant action, and a draw from it: posterior sampling (Thompson 1933)."""

    mean: Tensor
    """[M, act]."""
    std: Tensor
    """[M, 1]."""
    action: Tensor
    """[M, act]."""


class Sampler:
    """Acts by a draw from its posterior, which narrows about the best action of every shot."""

    device = torch.device("cpu")
    facts = Facts(samples_belief=True)

    def __init__(self, action_size: int) -> None:
        self.action_size = action_size

    def drawn(self, mean: Tensor, std: Tensor, generators: Sequence[torch.Generator]) -> Drawn:
        noise = torch.stack([torch.randn(self.action_size, generator=generators[m]) for m in range(len(mean))])
        return Drawn(mean, std, mean + std * noise)

    def begin(self, num_tasks: int, envs_per_task: int, generators: Sequence[torch.Generator]) -> Drawn:
        return self.drawn(torch.zeros(num_tasks, self.action_size), torch.ones(num_tasks, 1), generators)

    def act(self, belief: Drawn, observations: Tensor, noise: Tensor | None) -> tuple[Tensor, Drawn]:
        actions = belief.action[:, None].expand(*observations.shape[:2], -1)
        return actions if noise is None else actions + 0.1 * noise, belief

    def observe(self, belief: Drawn, rewards: Tensor, ended: Tensor) -> Drawn:
        return belief

    def adapt(self, belief: Drawn, rollout: Rollout, generators: Sequence[torch.Generator]) -> Drawn:
        best = rollout.rewards.transpose(0, 1).flatten(1).argmax(1)  # [M], of the T N steps
        actions = rollout.actions.transpose(0, 1).flatten(1, 2)
        return self.drawn(actions[torch.arange(len(best)), best], belief.std / 2, generators)

    def observation_moments(self, belief: Drawn) -> None:
        return None


def sampler(family: TaskFamily) -> Any:
    return Sampler(family.action_size)


def played(
    family: TaskFamily,
    agent: Agent,
    places: Sequence[int],
    threads: int = 1,
    rngs: list[np.random.Generator] | None = None,
    envs: int = 2,
) -> TrialResult:
    """A trial on some of five tasks."""
    tasks = family.sample(5, np.random.default_rng(0))
    env = ShardedEnv(family, len(places), envs, threads)
    env.set_tasks([tasks[m] for m in places])
    return run_trial(env, agent, rngs or streams(1, "test", 0, places), adaptations=2)


@pytest.mark.parametrize("settings", [PointGoalSettings(horizon=8), AntLegsSettings(horizon=5)], ids=["one", "layouts"])
def test_draws_depend_on_neither_shards_nor_the_tasks_beside(settings):
    """Tasks of one layout in two shards, and of several layouts in a shard each; a rank has some of the tasks."""
    family = make_family(settings)
    agent = sampler(family)
    whole = played(family, agent, range(5))
    for threads in (2, 4):
        again = played(family, agent, range(5), threads)
        for ours, theirs in zip(
            (*again.trial.beliefs, again.belief), (*whole.trial.beliefs, whole.belief), strict=True
        ):
            assert torch.equal(ours.action, theirs.action)
    for places in ([0, 1, 2], [3, 4], [2]):
        part = played(family, agent, places)
        for ours, theirs in zip(part.trial.beliefs, whole.trial.beliefs, strict=True):
            assert torch.equal(ours.action, theirs.action[places])


def test_tasks_and_shots_draw_differently():
    result = played(POINT, sampler(POINT), range(5))
    noise = torch.stack([(b.action - b.mean) / b.std for b in result.trial.beliefs])
    assert noise.shape == (3, 5, 2)
    assert len(noise.flatten().round(decimals=4).unique()) == noise.numel()


def test_an_agent_that_draws_takes_nothing_from_starts_and_action_noise():
    states = []
    for agent in (sampler(POINT), Maml(MamlSettings(hidden_sizes=(4,)), 2, 2, torch.Generator(), torch.device("cpu"))):
        rngs = streams(1, "test", 0, 5)
        played(POINT, agent, range(5), rngs=rngs)
        states.append([rng.bit_generator.state["state"] for rng in rngs])
    assert states[0] == states[1]


def test_a_generator_follows_from_its_task_and_the_number_of_shots_alone():
    def numbers(rngs: list[np.random.Generator], shots: int) -> list[float]:
        generators = AgentGenerators(rngs, shots)
        assert len(generators) == len(rngs) and generators[0] is generators[0] and generators[-1] is generators[1]
        assert generators[:1] == [generators[0]]
        return [float(torch.rand((), generator=generator)) for generator in generators]

    used = streams(1, "test", 0, 2)
    for rng in used:
        rng.random(7)
        rng.spawn(2)
    assert numbers(used, 1) == numbers(streams(1, "test", 0, 2), 1)
    others = [
        streams(2, "test", 0, 2),
        streams(1, "other", 0, 2),
        streams(1, "test", 1, 2),
        streams(1, "test", 0, [2, 3]),
    ]
    keys = [numbers(used, 0), numbers(used, 1), *(numbers(rngs, 1) for rngs in others)]
    assert len({number for key in keys for number in key}) == 2 * len(keys)
    with pytest.raises(IndexError):
        AgentGenerators(used, 0)[2]


def test_on_a_robot_it_draws_as_in_evaluation():
    agent = sampler(POINT)
    expected = played(POINT, agent, [3], envs=1)
    env = ShardedEnv(POINT, 1, 1, 1)
    env.set_tasks(list(expected.trial.tasks))
    rngs = streams(1, "test", 0, [3])
    controller = Controller(agent, POINT, 2, 1, explore="always", rng=rngs[0])
    for rollout, belief in zip(expected.trial.rollouts, expected.trial.beliefs, strict=True):
        assert torch.equal(controller.belief.action, belief.action)
        observation, actions = env.reset(rngs)[0, 0], []
        while not controller.episode_over and env.active.any():
            actions.append(controller.act(observation))
            step = env.step(actions[-1][None, None])
            observation = step.observations[0, 0]
            controller.observe(float(step.rewards[0, 0]), bool(step.terminated[0, 0]), bool(step.truncated[0, 0]))
        controller.end_episode(observation)
        np.testing.assert_array_equal(np.array(actions), rollout.actions[rollout.valid[:, 0, 0], 0, 0].numpy())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_trial_says_which_tasks_it_was_of(threads):
    """And their parameters are what an oracle observes."""
    family = reveal(make_family(HalfCheetahMassSettings(horizon=3)))
    trial = played(family, sampler(family), range(5), threads).trial
    assert [dict(task.values) for task in trial.tasks] == [
        dict(task.values) for task in family.sample(5, np.random.default_rng(0))
    ]
    assert trial.parameters is not None
    told = trial.rollouts[0].observations[0, :, 0, -len(family.parameters) :]
    torch.testing.assert_close(trial.parameters, told, rtol=0, atol=0)
    assert len(trial.parameters.unique()) == trial.parameters.numel()
    assert dataclasses.replace(trial, rollouts=[]).tasks == trial.tasks
