"""VariBAD learns to reach goals that only rewards tell of, and its posterior what they tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch

from metarl.agents.agent import Trial
from metarl.agents.threads import single_torch_thread
from metarl.agents.varibad.elbo import posteriors_after_shots, slots_read
from metarl.agents.varibad.network import MEAN
from metarl.agents.varibad.settings import VaribadSettings
from metarl.agents.varibad.varibad import POSTERIOR, Varibad
from metarl.envs.registry import make_family
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.sharded import ShardedEnv
from metarl.runs.trial import run_trial, stream, streams, torch_stream

POINT = PointGoalSettings(horizon=8, goal_range=0.3, action_scale=0.1)
"""Goals are 0.23 m away on average: who stands still gets -1.84."""
LEARNING = VaribadSettings(
    hidden_size=32,
    head_sizes=(64,),
    decoder_sizes=(32,),
    initial_std=1.0,
    discount=0.7,
    lr=3e-3,
    epochs=8,
    minibatches=8,
    state_weight=0.0,
    vae_lr=5e-3,
    vae_updates=20,
    vae_batch=64,
    elbo_terms=4,
    decoded_steps=20,
)
LEARNERS = 128
"""Tasks an iteration."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are tiny, and threads that wait for a busy core cost more than they give."""
    with single_torch_thread():
        yield


class Learned(NamedTuple):
    """An agent that has learned on the point's family, and what its iterations said."""

    agent: Varibad
    env: ShardedEnv
    metrics: list[dict[str, float]]

    def trial(self, seed: int, explore: bool = True) -> Trial:
        """A trial of two episodes on tasks that training did not have."""
        self.env.set_tasks(self.env.family.sample(LEARNERS, stream(seed, "held out")))
        return run_trial(self.env, self.agent, streams(seed, "held out", 0, LEARNERS), 1, explore).trial


def learn(iterations: int) -> Learned:
    """2,048 env steps an iteration."""
    family = make_family(POINT)
    env = ShardedEnv(family, LEARNERS, envs_per_task=1, threads=1)
    generator = torch.Generator().manual_seed(0)
    agent = Varibad(LEARNING, family.observation_size, family.action_size, generator, torch.device("cpu"))
    metrics = []
    for i in range(iterations):
        env.set_tasks(family.sample(LEARNERS, stream(0, "tasks", i)))
        trial = run_trial(env, agent, streams(0, "episodes", i, LEARNERS), adaptations=1).trial
        metrics.append(agent.meta_update(trial, torch_stream(0, "update", i)))
    return Learned(agent, env, metrics)


@pytest.fixture(scope="module")
def learned() -> Learned:
    with single_torch_thread():
        return learn(30)


def mean_returns(trial: Trial) -> list[float]:
    return [rollout.episode_returns().mean().item() for rollout in trial.rollouts]


def test_it_learns_to_reach_an_unseen_goal(learned: Learned) -> None:
    """61,440 env steps; held-out goals, with the noise of training."""
    first, second = mean_returns(learned.trial(1))
    assert second > -1.45
    assert second > first + 0.1


def test_the_rewards_are_decoded_better_and_better(learned: Learned) -> None:
    """In units of the rewards' variance, past and future alike; what the random walk leaves open remains."""
    errors = [metrics["reward_error"] for metrics in learned.metrics]
    assert np.mean(errors[-5:]) < 0.75 * np.mean(errors[2:7])
    assert np.mean(errors[-5:]) < 0.25


def test_the_posterior_narrows_with_evidence(learned: Learned) -> None:
    """On average over held-out tasks: before the trial, after each step of its first episode, after both episodes."""
    trial = learned.trial(2)
    sequence = learned.agent.sequence(trial)
    stds = (0.5 * sequence.extra[POSTERIOR].chunk(2, dim=-1)[1]).exp().mean(dim=-1)  # [L, B]
    read = slots_read(sequence.steps)
    early, middle = (stds[t][read[t]].mean().item() for t in (0, 3))
    after = posteriors_after_shots(sequence.extra[POSTERIOR], sequence.inputs, read)
    first, second = (0.5 * after.chunk(2, dim=-1)[1]).exp().mean(dim=(0, 2)).tolist()
    assert 1.0 > early > 1.5 * middle > 1.5 * first > 1.5 * second


def test_a_linear_probe_finds_the_goal_of_held_out_tasks_in_the_posterior(learned: Learned) -> None:
    """From the mean after one episode; chance is a share of 0 of the goals' variance."""

    def known(seed: int) -> tuple[np.ndarray, np.ndarray]:
        trial = learned.trial(seed)
        mean = trial.beliefs[1].memory[MEAN][:, 0].numpy()
        goals = np.array([[task.values["goal_x"], task.values["goal_y"]] for task in trial.tasks])
        return np.column_stack([mean, np.ones(len(mean))]), goals

    fitted = [np.concatenate(parts) for parts in zip(*map(known, (3, 4, 5)), strict=True)]
    weights = np.linalg.lstsq(*fitted, rcond=None)[0]
    means, goals = known(6)
    explained = 1 - ((means @ weights - goals) ** 2).sum() / ((goals - goals.mean(axis=0)) ** 2).sum()
    assert explained > 0.4


@pytest.mark.slow
def test_it_learns_more_with_more() -> None:
    """204,800 env steps."""
    first, second = mean_returns(learn(100).trial(1, explore=False))
    assert second > -0.8
    assert second > first + 0.2
