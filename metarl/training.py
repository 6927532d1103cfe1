"""Meta-training: draw tasks, run their trials, take an outer step, record; again."""

from __future__ import annotations

import contextlib
import functools
import math
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from metarl.agents.agent import REFUSED, Agent, MetaLearner, Rollout, Sb3Learner
from metarl.agents.ranks import ALONE, Ranks
from metarl.checkpoint import CheckpointError, CheckpointStore, digest, is_finite
from metarl.config import CONFIG, RunConfig, config_to_dict, read_run_config
from metarl.envs.family import Task
from metarl.envs.sharded import ShardedEnv
from metarl.errors import RunError, out_of_memory
from metarl.evaluation import conclude, evaluate, evaluate_agent
from metarl.interrupt import stop_on_sigterm
from metarl.outcomes import mean_of_sound, total_of_sound
from metarl.progress import Progress
from metarl.provenance import cores
from metarl.run import (
    CHECKPOINTS,
    Run,
    build,
    distinct_tasks,
    make_curriculum,
    restore,
    restore_curriculum,
    save_config,
)
from metarl.run_lock import hold
from metarl.tracking import METRICS, Tracker, read_record
from metarl.trial import run_trial, stream, streams, torch_stream


@dataclass
class Counters:
    """Where a run stands; with the agent, all that a checkpoint needs."""

    iteration: int = 0
    """Outer steps taken."""
    env_steps: int = 0
    """Env steps taken in training."""
    best_return: float = -math.inf
    """Highest mean return after adaptation at a checkpoint."""


REFUSALS = 20
"""Updates in a row that an agent refuses until the user is told."""

OnIteration = Callable[[Run, dict[str, float]], bool]
"""(run, metrics of the iteration) -> whether to end the run here; may add to the metrics before they are recorded, and
set `run.evaluation` after the last iteration, where it has evaluated the run as its settings say."""


def train(
    config: RunConfig,
    run_dir: Path,
    resume: bool = False,
    on_iteration: OnIteration | None = None,
    ranks: Ranks = ALONE,
) -> Run:
    """Meta-train in a run folder, from its last checkpoint if `resume`, then evaluate; returns the run as it ended.

    All randomness of an iteration follows from (seed, iteration), so what a resumed run computes is what an
    uninterrupted one does. A SIGTERM ends the run after the iteration at hand, with a checkpoint and no evaluation; so
    does `on_iteration` when it says so. RunBusy (a UsageError) while another process trains in the folder. A new run
    that is too large for the memory leaves no folder: nothing could be gone on with, and the name is free again.

    ranks: the processes that train it together, all of which call this. The first reads and writes the folder, calls
    `on_iteration` and evaluates.
    """
    with hold(run_dir) if ranks.is_first else contextlib.nullcontext():
        try:
            return _train(config, run_dir, resume, on_iteration, ranks)
        except (MemoryError, RuntimeError) as error:
            if ranks.is_first and not resume and out_of_memory(error) and not _reached(run_dir):
                shutil.rmtree(run_dir, ignore_errors=True)
            raise


def _reached(run_dir: Path) -> int:
    """The last iteration in a run's record; 0 without one."""
    path = run_dir / METRICS
    return max(read_record(path).lines, default=0) if path.exists() else 0


def _train(config: RunConfig, run_dir: Path, resume: bool, on_iteration: OnIteration | None, ranks: Ranks) -> Run:
    family, agent = build(config, ranks=ranks)
    t = config.training
    torch.set_num_threads(t.threads or ranks.share_of_cores(cores()))
    store = CheckpointStore(run_dir / CHECKPOINTS, keep=t.keep_checkpoints)
    counters, tracking_state, curriculum = Counters(), None, make_curriculum(config, family)
    last = ranks.from_first(lambda: store.load("last") if resume and not begins_anew(store, run_dir) else None)
    if last is not None:
        path, state = last
        restore(agent, config, path, state)
        counters = Counters(state["iteration"], state["env_steps"], state["best_return"])
        tracking_state = state["tracking"]
        if curriculum is not None and state.get("curriculum"):  # it may have been asked for at the resumption only
            restore_curriculum(curriculum, path, state)
    run = Run(run_dir, config, family, agent, counters.iteration, counters.env_steps, curriculum)
    sampler = make_sampler(run, ranks)
    if not ranks.is_first:
        _iterations(run, sampler, counters, ranks, None, on_iteration)
        return run
    if resume:
        save_config(config, run_dir)  # what was changed for the rest of the run, once nothing speaks against it
        counters.best_return = store.best_return(counters.best_return)
    with Tracker(config, run_dir, tracking_state, counters.iteration) as tracker:
        keeper = Keeper(run, counters, store, tracker)
        stopped = _iterations(run, sampler, counters, ranks, keeper, on_iteration)
        found, run.evaluation = run.evaluation, None
        if counters.iteration >= t.iterations and not stopped:
            if found is None:
                run.evaluation = evaluate(run, train_gap=False)
            else:
                settings = replace(config.evaluation, train_gap=False)
                run.evaluation = conclude(run, replace(config, evaluation=settings), found, t.threads)
            figures = {f"evaluation/{name}": path for name, path in run.evaluation.figures.items()}
            tracker.conclude({"env_steps": counters.env_steps, **run.evaluation.scalars}, figures)
    return run


def _iterations(
    run: Run,
    sampler: TrialSampler | VecEnvSampler,
    counters: Counters,
    ranks: Ranks,
    keeper: Keeper | None,
    on_iteration: OnIteration | None,
) -> bool:
    """Iterate until the run is at its end or is to be stopped; returns whether it was. keeper: of the first process."""
    t, stopping, terminated = run.config.training, False, False
    with keeper or contextlib.nullcontext(), stop_on_sigterm() as stop:
        while counters.iteration < t.iterations and not stopping:
            metrics = iterate(run, sampler, counters)
            evaluating = t.evaluate_every > 0 and counters.iteration % t.evaluate_every == 0
            if evaluating or on_iteration is not None:
                stopping = ranks.from_first(functools.partial(_look, run, metrics, evaluating, on_iteration))
            if keeper is not None:
                keeper.record(metrics)
            terminated = ranks.any(stop.requested)
            stopping = stopping or terminated
            if counters.iteration % t.checkpoint_every == 0 or counters.iteration == t.iterations or stopping:
                require_agreement(run.agent, counters.iteration, ranks)
                if keeper is not None:
                    keeper.save(metrics)
        if terminated and keeper is not None:
            keeper.progress.line(f"stopped by SIGTERM; go on with metarl train --resume {run.directory}")
    return stopping


def _look(run: Run, metrics: dict[str, float], evaluating: bool, on_iteration: OnIteration | None) -> bool:
    """Add to an iteration's metrics what one process alone finds out; returns whether to end the run here."""
    if evaluating:
        metrics |= evaluate_agent(run.agent, run.family, run.config.evaluation, run.config.training.threads).scalars
    return on_iteration is not None and on_iteration(run, metrics)


class Keeper:
    """Shows and records a run's iterations, and keeps its checkpoints."""

    def __init__(self, run: Run, counters: Counters, store: CheckpointStore, tracker: Tracker) -> None:
        self.run, self.counters, self.store, self.tracker = run, counters, store, tracker
        self.progress = Progress(total=run.config.training.iterations, start=counters.iteration)
        self._refused = 0

    def __enter__(self) -> Self:
        self.progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.progress.__exit__(kind, error, traceback)

    def record(self, metrics: dict[str, float]) -> None:
        """An iteration's metrics; a warning if nothing has been learned for long."""
        self.tracker.log(metrics)
        self.progress.update(metrics)
        self._refused = self._refused + 1 if metrics.get(f"agent/{REFUSED}") else 0
        if self._refused == REFUSALS:
            self.progress.line(
                f"warning: the last {REFUSALS} updates were refused, as they would have made adapted policies "
                "worse: nothing is learned; start a new run with a smaller agent.inner_lr"
            )

    def save(self, metrics: dict[str, float]) -> None:
        """A checkpoint after the iteration of these metrics."""
        counters, curriculum = self.counters, self.run.curriculum
        best = metrics["return/after"] > counters.best_return
        counters.best_return = max(counters.best_return, metrics["return/after"])
        state = {**vars(counters), "agent": self.run.agent.state_dict(), "tracking": self.tracker.state()}
        state["curriculum"] = curriculum and curriculum.state_dict()
        require_finite(state["agent"], counters.iteration)
        self.tracker.sync()
        self.store.save({**state, "config": config_to_dict(self.run.config)}, counters.iteration, best=best)


def begins_anew(store: CheckpointStore, run_dir: Path) -> bool:
    """Whether a run was ended before its first checkpoint, so that it is gone on with from its first iteration.

    CheckpointError if it had checkpoints, and they are gone.
    """
    if store.paths():
        return False
    reached = _reached(run_dir)
    if reached > read_run_config(run_dir).training.checkpoint_every or any(run_dir.glob("evaluation/*.json")):
        raise CheckpointError(
            f"no checkpoint in {store.folder}, though the run got to iteration {reached}; train it anew, in a folder "
            f"of its own, by: metarl train --config {shlex.quote(str(run_dir / CONFIG))}"
        )
    print(f"{run_dir} has no checkpoint yet: it begins with its first iteration", flush=True)
    return True


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


class TrialSampler:
    """Plays trials for an agent that learns from them, of each process its share of the tasks."""

    def __init__(self, run: Run, ranks: Ranks = ALONE) -> None:
        t = run.config.training
        self.run, self.ranks = run, ranks
        self.own = ranks.own(t.tasks)
        """Places of this process's tasks among all."""
        threads = t.threads or ranks.share_of_cores(cores())
        self.env = ShardedEnv(run.family, len(self.own), t.envs_per_task, threads)

    def iterate(self, agent: MetaLearner, tasks: Sequence[Task], key: int) -> Outcome:
        """A trial on the tasks, and an outer step on it."""
        t, faults_before = self.run.config.training, self.env.num_faults
        began = time.perf_counter()
        self.env.set_tasks([tasks[m] for m in self.own])
        result = run_trial(self.env, agent, streams(t.seed, "rollouts", key, self.own), t.adaptations)
        collected = time.perf_counter()
        metrics = agent.meta_update(result.trial, torch_stream(t.seed, "update", key))
        ended = time.perf_counter()
        rollouts = result.trial.rollouts
        steps = sum(int(rollout.valid.sum()) for rollout in rollouts)
        terms, steps, faults = self._summed(result.reward_terms[-1], steps, self.env.num_faults - faults_before)
        return Outcome(self._returns(rollouts), terms, steps, faults, collected - began, ended - collected, metrics)

    def _returns(self, rollouts: Sequence[Rollout]) -> np.ndarray:
        """[K, M] of the tasks of all processes: to the returns of each the others add 0."""
        own = torch.stack([rollout.episode_returns().nanmean(1) for rollout in rollouts])
        returns = own.new_zeros(len(own), self.run.config.training.tasks)
        returns[:, self.own.start : self.own.stop] = own
        return self.ranks.sum(returns).numpy()

    def _summed(self, terms: dict[str, np.ndarray], steps: int, faults: int) -> tuple[dict[str, float], int, int]:
        """Means of the reward terms over the sound episodes, env steps and faults, of all processes."""
        parts = [total_of_sound(sums.ravel()) for sums in terms.values()]
        sums = [[float(total), float(count)] for total, count in parts]
        *sums, (steps, faults) = self.ranks.sum(torch.tensor([*sums, [steps, faults]], dtype=torch.float64)).tolist()
        means = [total / count if count else math.nan for total, count in sums]
        return dict(zip(terms, means, strict=True)), int(steps), int(faults)


class VecEnvSampler:
    """Lends its envs to an agent that steps them itself."""

    def __init__(self, run: Run, reads_trials: bool) -> None:
        from metarl.envs.vec_env import TaskVecEnv

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


def make_sampler(run: Run, ranks: Ranks = ALONE) -> TrialSampler | VecEnvSampler:
    """What plays for the run's agent."""
    return VecEnvSampler(run, run.agent.reads_trials) if isinstance(run.agent, Sb3Learner) else TrialSampler(run, ranks)


def iterate(run: Run, sampler: Any, counters: Counters) -> dict[str, float]:
    """One iteration on fresh tasks; advances the counters and returns the iteration's metrics."""
    t, key = run.config.training, counters.iteration
    rng = stream(t.seed, "tasks", key)
    began = time.perf_counter()
    tasks = run.curriculum.sample(t.tasks, rng) if run.curriculum else draw_tasks(run, rng)
    outcome = sampler.iterate(run.agent, tasks, key)
    took = time.perf_counter() - began
    counters.iteration += 1
    if outcome.env_steps == 0:
        raise RunError(
            f"iteration {counters.iteration}: MuJoCo flagged every simulation, there is nothing to learn from; start a "
            "new run with smaller step sizes of the agent, or with narrower ranges of the family"
        )
    counters.env_steps += outcome.env_steps
    run.iteration, run.env_steps = counters.iteration, counters.env_steps
    levels = run.curriculum.metrics() if run.curriculum else {}  # of the tasks at hand
    if run.curriculum:
        run.curriculum.update(tasks, outcome.returns[-1])
    before, after = (float(mean_of_sound(outcome.returns[k])) for k in (0, -1))
    return {
        "iteration": counters.iteration,
        "env_steps": counters.env_steps,
        "env_steps_per_s": outcome.env_steps / took,
        "return/before": before,
        "return/after": after,
        "gain": after - before,
        "faults": outcome.faults,
        **{f"reward/{name}": value for name, value in outcome.terms.items()},
        "time/collect": outcome.collect_s,
        "time/update": outcome.update_s,
        **{f"curriculum/{name}": value for name, value in levels.items()},
        **{f"agent/{name}": value for name, value in outcome.metrics.items()},
    }


def draw_tasks(run: Run, rng: np.random.Generator) -> list[Task]:
    """An iteration's training tasks: fresh ones, or of the run's fixed set, each of which comes equally often."""
    t = run.config.training
    if not t.distinct_tasks:
        return run.family.sample(t.tasks, rng, "train")
    fixed = distinct_tasks(run)
    return [fixed[i] for i in np.resize(rng.permutation(len(fixed)), t.tasks)]


def require_agreement(agent: Agent, iteration: int, ranks: Ranks) -> None:
    """RunError if the agent is not the same to the bit in all processes, as it is where they compute alike."""
    if ranks.size == 1:
        return
    own = digest(agent.state_dict())
    if ranks.any(own != ranks.from_first(lambda: own)):
        raise RunError(
            f"iteration {iteration}: the processes that train this run no longer have the same agent, and it is not "
            "saved; train on machines of one kind, with the same versions on each"
        )


def require_finite(state: Any, iteration: int) -> None:
    """RunError if an agent's state is not finite, so that good checkpoints are not rotated out for it."""
    if not is_finite(state):
        raise RunError(
            f"iteration {iteration}: the agent's parameters are no longer finite, and are not saved; start a new run "
            "with smaller step sizes"
        )
