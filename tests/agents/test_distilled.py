"""A policy that is distilled from an oracle, and goes on by PPO."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.agent import Facts
from metarl.agents.distilled.distilled import CRITIC, Distilled
from metarl.agents.distilled.settings import DistilledSettings
from metarl.agents.learning import MetaLearner
from metarl.agents.registry import make_agent
from metarl.cli import app as cli
from metarl.envs.registry import make_family
from metarl.envs.reveal import privileged_names, reveal
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.sharded import ShardedEnv
from metarl.runs.tracking import read_metrics
from metarl.runs.trial import run_trial, stream, streams
from tests.agents.test_rma import TINY, generator, parameters, same
from tests.small_agents import small_agent

CPU = torch.device("cpu")
FAMILY = make_family(PointGoalSettings(horizon=20))
TASKS, SHOWN = 20, 4
"""The student observes position and encoded goal, as many numbers as its teacher; what it has to find out about is in
the test of a linear task."""


class Walker(MetaLearner):
    """The best policy: straight to the goal. It observes the position and, at the end, the goal."""

    facts = Facts(adapts=False)
    device = CPU

    def begin(self, num_tasks, envs_per_task, generators):
        return None

    def log_std(self) -> Tensor:
        return torch.zeros(2)

    def act(self, belief, observations: Tensor, noise):
        low = torch.tensor([p.distribution.low for p in FAMILY.parameters])
        high = torch.tensor([p.distribution.high for p in FAMILY.parameters])
        goal = low + (observations[..., -2:] + 1) / 2 * (high - low)
        return (goal - observations[..., :2]).clamp(-0.1, 0.1), belief


class Lesson:
    """A distilled agent and the env that it plays in."""

    def __init__(self, **settings) -> None:
        family = reveal(FAMILY)
        names = privileged_names(family)
        given = {"hidden_size": 16, "head_sizes": (32,), "initial_std": 0.03, "lr": 3e-4, **settings}
        self.agent = Distilled(DistilledSettings(**given), SHOWN, 2, generator(), CPU, privileged=names)
        self.agent.teacher, self.agent.told = Walker(), (0, 1)
        self.env = ShardedEnv(family, TASKS, 1, threads=1, telling=True)
        self.played = 0

    def iterate(self) -> tuple[float, dict[str, float]]:
        """The mean return of a trial on new tasks, and the metrics of the update on it."""
        self.env.set_tasks(self.env.family.sample(TASKS, stream(1, "tasks", self.played)))
        trial = run_trial(self.env, self.agent, streams(1, "test", self.played, TASKS), adaptations=0).trial
        metrics = self.agent.meta_update(trial, generator(self.played))
        self.played += 1
        return float(trial.rollouts[0].episode_returns().mean()), metrics


@pytest.mark.thorough
def test_fine_tuning_keeps_what_was_distilled():
    """The student learns the walk by imitation; the critic learns to judge it; PPO goes on from that return."""
    lesson = Lesson(distil_updates=25, critic_updates=15)
    agent = lesson.agent
    distilled = [lesson.iterate() for _ in range(25)]
    untrained, learned = distilled[0][0], np.mean([value for value, _ in distilled[-3:]])
    assert learned > untrained / 2 and not agent.distilling and agent.warming
    before = {name: value.clone() for name, value in agent.network.state_dict().items()}
    variances = [lesson.iterate()[1]["explained_variance"] for _ in range(15)]
    changed = {name for name, value in agent.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith((*CRITIC, "return_moments")) for name in changed)
    assert np.mean(variances[:3]) < 0 < np.mean(variances[-5:])
    tuned = [lesson.iterate()[0] for _ in range(8)]
    assert not agent.warming and min(tuned) > 1.4 * learned  # returns are negative


class Loud(Walker):
    """The same, with noise of its own size on each axis."""

    size = torch.tensor([0.07, 0.002])

    def act(self, belief, observations: Tensor, noise):
        means, belief = super().act(belief, observations, None)
        return means if noise is None else means + self.size * noise, belief


class School:
    """What a distilled agent asks for before its first iteration."""

    def oracle(self, run: str):
        return Loud(), (0, 1)

    def trials(self):
        return None


@pytest.mark.parametrize(("updates", "expected"), [(0, Loud.size), (3, torch.full((2,), 0.03))])
def test_it_begins_with_the_noise_of_its_teacher(updates: int, expected: Tensor):
    agent = Lesson(distil_updates=5, teacher="somewhere").agent
    agent.updates = updates  # resumed, it keeps its own
    agent.trainer(School())
    torch.testing.assert_close(agent.log_std().exp(), expected)


ORACLES = ["randomised", "ppo", "rl2", "varibad", "maml", "pearl", "rma", "transformer"]


@pytest.mark.parametrize("name", ORACLES)
def test_any_oracle_says_what_it_would_have_done(name: str):
    """The labels are what the oracle does when it is asked step by step on what the student met, over two episodes, and
    an oracle that remembers has read what the student did."""
    lesson = Lesson(distil_updates=5)
    agent, size = lesson.agent, SHOWN + 2
    teacher = make_agent(small_agent(name), size, 2, generator(3), CPU)
    agent.teacher = teacher
    trial = run_trial(lesson.env, agent, streams(1, "test", 0, TASKS), adaptations=1).trial
    labels = agent.labels(trial, generator(5))
    draws = generator(5)
    belief, expected = teacher.begin(TASKS, 1, agent._generators(TASKS, draws)), []
    rollout = trial.rollouts[-1]
    for rollout in trial.rollouts:
        assert rollout.privileged is not None
        seen = torch.cat([rollout.observations, rollout.privileged[..., :2]], dim=-1)
        for t, observations in enumerate(seen):
            own, before = rollout.valid[t].unsqueeze(-1), belief
            action, belief = teacher.act(belief, observations, None)
            expected.append(action[:, 0])
            if teacher.facts.belief_per_env:
                taken = torch.where(own, rollout.actions[t], before.previous_action)
                belief = replace(belief, previous_action=taken)
            belief = teacher.observe(belief, rollout.rewards[t], rollout.terminated[t] | rollout.truncated[t])
        count = rollout.valid.sum(dim=0)[:, 0] - 1
        last = torch.cat([rollout.final_observations, rollout.privileged[count, range(TASKS), :, :2]], dim=-1)
        whole = replace(rollout, observations=seen, final_observations=last)
        belief = teacher.adapt(belief, whole, agent._generators(TASKS, draws))
    valid = torch.cat([rollout.valid for rollout in trial.rollouts])[..., 0]
    steps, said = agent.sequence(trial).steps, torch.stack(expected)
    assert 0 < int(valid.sum()) < valid.numel()  # some walkers arrive
    for env in range(TASKS):
        torch.testing.assert_close(labels[steps[:, env], env], said[valid[:, env], env])
    fresh = teacher.begin(TASKS, 1, agent._generators(TASKS, generator(5)))
    assert rollout.privileged is not None
    at_last = torch.cat([rollout.observations[-1], rollout.privileged[-1, ..., :2]], dim=-1)
    remembers = not torch.allclose(teacher.act(fresh, at_last, None)[0][:, 0], expected[-1], atol=1e-6)
    assert remembers == (name != "randomised")


def test_imitation_leaves_the_critic_and_the_spread_as_they_are():
    lesson = Lesson(distil_updates=5)
    network = lesson.agent.network
    critic = [value for name, value in network.named_parameters() if name.startswith(CRITIC)]
    before, studied = parameters([*critic, network.log_std]), parameters(lesson.agent.studied())
    lesson.iterate()
    assert all(same(before, parameters([*critic, network.log_std])))
    assert not any(same(studied, parameters(lesson.agent.studied())))
    assert len(studied) + len(before) == len(list(network.parameters()))


@pytest.fixture
def oracle(tmp_path):
    """A run of an oracle on point_goal."""
    common = ["--runs-dir", str(tmp_path), "--family", "point_goal", *TINY, "training.iterations=1"]
    common += ["tracking.wandb=disabled", "training.device=cpu"]
    assert cli.main(["train", "--agent", "ppo", "--name", "oracle", *common, "training.reveal_task=true"]) == 0
    assert cli.main(["train", "--agent", "ppo", "--name", "plain", *common]) == 0
    return tmp_path / "oracle"


@pytest.mark.thorough
def test_one_command_distils_and_fine_tunes(oracle, tmp_path, capsys):
    def train(*arguments: str) -> int:
        own = ["agent.distil_updates=2", "agent.critic_updates=1", "agent.head_sizes=8", "agent.hidden_size=8"]
        common = ["--runs-dir", str(tmp_path), "--agent", "distilled", *TINY, *own, "tracking.wandb=disabled"]
        return cli.main(["train", *common, "training.checkpoint_every=1", *arguments])

    given = ["--family", "point_goal", f"agent.teacher={oracle}"]
    assert train(*given, "--name", "whole", "training.iterations=5") == 0
    lines = read_metrics(tmp_path / "whole")
    assert ["agent/student_loss" in line for line in lines] == [True, True, False, False, False]
    assert ["agent/policy_loss" in line for line in lines] == [False, False, True, True, True]
    assert train(*given, "--name", "parts", "training.iterations=3") == 0
    shutil.rmtree(oracle)  # what was learned from it stays
    assert cli.main(["train", "--resume", str(tmp_path / "parts"), "training.iterations=5"]) == 0
    losses = [[line.get("agent/policy_loss") for line in read_metrics(tmp_path / run)] for run in ("whole", "parts")]
    assert losses[0] == losses[1]
    assert cli.main(["evaluate", str(tmp_path / "parts")]) == 0
    capsys.readouterr()
    refused = {
        "": "agent: teacher is empty: give the folder of an oracle's run on this family",
        str(tmp_path / "plain"): "which is no oracle: it was trained without training.reveal_task=true",
        str(oracle): f"no run folder {oracle}",
    }
    for k, (teacher, message) in enumerate(refused.items()):
        name = ["--family", "point_goal", "--name", f"refused_{k}"]
        assert train(*name, f"agent.teacher={teacher}", "training.iterations=1") == 2
        assert message in capsys.readouterr().err


@pytest.mark.thorough
def test_an_oracle_of_other_tasks_is_refused(oracle, tmp_path, capsys):
    command = ["train", "--runs-dir", str(tmp_path), "--agent", "distilled", "--family", "half_cheetah_mass", *TINY]
    assert cli.main([*command, "training.iterations=1", f"agent.teacher={oracle}", "tracking.wandb=disabled"]) == 2
    assert "an oracle on point_goal whose observations or parameters are not those of" in capsys.readouterr().err
