"""What an iteration of training plays: trials, or envs that an agent steps itself."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from metarl.agents.agent import DeviceLearner, MetaLearner, Rollout, Sb3Learner
from metarl.agents.ranks import ALONE, Ranks
from metarl.envs.restarting import RestartingEnv
from metarl.envs.sharded import ShardedEnv
from metarl.envs.simulation import CPU, Simulator
from metarl.envs.task import Task
from metarl.errors import UsageError, usage_errors
from metarl.evaluation.outcomes import mean_of_sound, total_of_sound
from metarl.provenance import cores
from metarl.runs.run import Run
from metarl.runs.simulators import simulator_for, unsupported
from metarl.runs.trial import run_trial, streams, torch_stream


class Outcome(NamedTuple):
    """What an iteration's envs and agent have done. K shots, M tasks."""

    returns: np.ndarray
    """[K, M] mean over the task's sound episodes; NaN where it has none."""
    terms: dict[str, float]
    """Each weighted reward term summed over an episode, by name: mean over the last shot."""
    env_steps: int
    faults: int
    """Simulations that MuJoCo flagged."""
    collect_s: float
    update_s: float
    metrics: dict[str, float]
    """The agent's own."""
    overflows: int = 0
    """Simulation steps of single robots in which the gpu simulator had no room for a contact."""


class TrialSampler:
    """Plays trials for an agent that learns from them, of each process its share of the tasks."""

    def __init__(self, run: Run, ranks: Ranks = ALONE) -> None:
        t = run.config.training
        self.run, self.ranks = run, ranks
        self.own = ranks.own(t.tasks)
        """Places of this process's tasks among all."""
        threads, simulator = t.threads or ranks.share_of_cores(cores()), simulator_for(t.simulator, run.agent)
        with unsupported("training.simulator"):
            self.env = ShardedEnv(run.family, len(self.own), t.envs_per_task, threads, simulator=simulator)

    def iterate(self, agent: MetaLearner, tasks: Sequence[Task], key: int) -> Outcome:
        """A trial on the tasks, and an outer step on it."""
        t, before = self.run.config.training, self._counts()
        began = time.perf_counter()
        with unsupported("training.simulator"):
            self.env.set_tasks([tasks[m] for m in self.own])
        result = run_trial(self.env, agent, streams(t.seed, "rollouts", key, self.own), t.adaptations)
        collected = time.perf_counter()
        metrics = agent.meta_update(result.trial, torch_stream(t.seed, "update", key))
        ended = time.perf_counter()
        rollouts = result.trial.rollouts
        steps = sum(int(rollout.valid.sum()) for rollout in rollouts)
        counts = steps, *(now - then for now, then in zip(self._counts(), before, strict=True))
        terms, (steps, faults, lost) = self._summed(result.reward_terms[-1], counts)
        collect_s, update_s = collected - began, ended - collected
        return Outcome(self._returns(rollouts), terms, steps, faults, collect_s, update_s, metrics, lost)

    def _counts(self) -> tuple[int, int]:
        """Faults and overflows so far."""
        return self.env.num_faults, sum(self.env.overflows.values())

    def _returns(self, rollouts: Sequence[Rollout]) -> np.ndarray:
        """[K, M] of the tasks of all processes: to the returns of each the others add 0."""
        own = torch.stack([rollout.episode_returns().nanmean(1) for rollout in rollouts])
        returns = own.new_zeros(len(own), self.run.config.training.tasks)
        returns[:, self.own.start : self.own.stop] = own
        return self.ranks.sum(returns).cpu().numpy()

    def _summed(self, terms: dict[str, np.ndarray], counts: Sequence[int]) -> tuple[dict[str, float], list[int]]:
        """Means of the reward terms over the sound episodes, and counts, of all processes."""
        parts = [total_of_sound(sums.ravel()) for sums in terms.values()]
        rows = [[float(total), float(count)] for total, count in parts] + [[float(count), 0.0] for count in counts]
        sums = self.ranks.sum(torch.tensor(rows, dtype=torch.float64)).tolist()
        means = [total / count if count else math.nan for total, count in sums[: len(parts)]]
        return dict(zip(terms, means, strict=True)), [int(count) for count, _ in sums[len(parts) :]]


class VecEnvSampler:
    """Lends its envs to an agent that steps them itself."""

    def __init__(self, run: Run, reads_trials: bool) -> None:
        from metarl.envs.adapters.vec_env import TaskVecEnv

        t = run.config.training
        self.run = run
        self.env = TaskVecEnv(
            run.family, t.tasks, t.envs_per_task, t.threads, shots=t.adaptations + 1 if reads_trials else 0
        )

    def iterate(self, agent: Sb3Learner, tasks: Sequence[Task], key: int) -> Outcome:
        """An episode, or a trial, in every env, with the agent's updates meanwhile."""
        t, faults_before = self.run.config.training, self.env.num_faults
        self.env.set_tasks(tasks)
        self.env.use(streams(t.seed, "rollouts", key, t.tasks))
        metrics = agent.learn(self.env, self.env.trial_steps, torch_stream(t.seed, "update", key))
        shots, first = max(self.env.shots, 1), {}
        for episode in self.env.episodes:  # of envs that fall early, the first counts: later ones are a newer policy's
            first.setdefault((episode.env, episode.shot), episode)
        episodes = list(first.values())
        totals: list[list[list[float]]] = [[[] for _ in range(t.tasks)] for _ in range(shots)]
        for episode in episodes:
            if not math.isnan(episode.total):
                totals[episode.shot][episode.task].append(episode.total)
        returns = np.array([[np.mean(own) if own else math.nan for own in shot] for shot in totals])
        last = [episode.terms for episode in episodes if episode.shot == shots - 1 and not math.isnan(episode.total)]
        terms = {
            name: float(np.mean([own[name] for own in last])) if last else math.nan for name in self.run.family.rewards
        }
        collect_s, update_s = metrics.pop("time/collect"), metrics.pop("time/update")
        faults = self.env.num_faults - faults_before
        return Outcome(returns, terms, self.env.num_steps, faults, collect_s, update_s, metrics)


class DeviceSampler:
    """Lends envs on the agent's device, which start anew by themselves, to an agent that steps them itself."""

    def __init__(self, run: Run, simulator: Simulator) -> None:
        t = run.config.training
        with usage_errors("training.simulator"):
            self.env = RestartingEnv(run.family, t.tasks, t.envs_per_task, simulator, t.threads)
        self.run = run

    def iterate(self, agent: DeviceLearner, tasks: Sequence[Task], key: int) -> Outcome:
        """An episode in every env, with the agent's updates meanwhile."""
        t, env, faults_before, lost_before = self.run.config.training, self.env, self.env.num_faults, self.env.overflows
        began = time.perf_counter()
        with unsupported("training.simulator"):
            env.set_tasks(tasks)
        first = env.reset(streams(t.seed, "rollouts", key, t.tasks))
        started = time.perf_counter() - began
        metrics = agent.learn_on_device(env, first, self.run.family.horizon, torch_stream(t.seed, "update", key))
        env.batch.verify()
        returns, sums = env.first_episodes()
        terms = {name: float(mean_of_sound(values.ravel())) for name, values in sums.items()}
        collect_s, update_s = started + metrics.pop("time/collect"), metrics.pop("time/update")
        faults, lost = env.num_faults - faults_before, sum(env.overflows.values()) - sum(lost_before.values())
        means = mean_of_sound(returns)[None]
        return Outcome(means, terms, env.num_steps, faults, collect_s, update_s, metrics, lost)


Sampler = TrialSampler | VecEnvSampler | DeviceSampler


def make_sampler(run: Run, ranks: Ranks = ALONE) -> Sampler:
    """What plays for the run's agent; UsageError if the simulator is none for it."""
    if not isinstance(run.agent, Sb3Learner):
        return TrialSampler(run, ranks)
    simulator = simulator_for(run.config.training.simulator, run.agent)
    if simulator is CPU:
        return VecEnvSampler(run, run.agent.reads_trials)
    if isinstance(run.agent, DeviceLearner):
        return DeviceSampler(run, simulator)
    raise UsageError(
        f"training.simulator: {run.config.agent_name} steps its envs on the host, through Stable-Baselines3; use "
        "training.simulator=cpu, or rl2, which learns from the same trials"
    )
