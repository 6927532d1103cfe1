"""Meta-training: draw tasks, run their trials, take an outer step, record; again."""

from __future__ import annotations

import contextlib
import functools
import math
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from metarl.agents.agent import REFUSED, TEACHER, Agent
from metarl.agents.ranks import ALONE, Ranks
from metarl.config import CONFIG, RunConfig, config_to_dict, read_run_config
from metarl.envs.reveal import told_as
from metarl.envs.task import Task
from metarl.envs.text import typed
from metarl.errors import RunError, UsageError, out_of_memory
from metarl.evaluation.evaluate import evaluate_agent
from metarl.evaluation.outcomes import mean_of_sound
from metarl.provenance import cores
from metarl.reporting.judge import conclude, evaluate
from metarl.runs.checkpoint import WHOLE_RANGE, Best, CheckpointError, CheckpointStore, best_of, digest, is_finite
from metarl.runs.interrupt import stop_on_signals
from metarl.runs.progress import Progress
from metarl.runs.run import (
    CHECKPOINTS,
    Run,
    build,
    distinct_tasks,
    make_curriculum,
    new_tasks,
    restore,
    restore_curriculum,
    save_config,
)
from metarl.runs.run_lock import hold
from metarl.runs.simulators import simulator_for
from metarl.runs.tracking import METRICS, Tracker, read_record
from metarl.runs.trial import stream
from metarl.runs.unstudied import unstudied
from metarl.training.changing import change_note
from metarl.training.reach import reach_note
from metarl.training.world import TrainingWorld


@dataclass
class Counters:
    """Progress of a run; with the agent, all that a checkpoint needs."""

    iteration: int = 0
    """Training iterations taken."""
    env_steps: int = 0
    """Env steps taken in training."""
    best_level: float = 0.0
    """Mean level of the tasks of the best checkpoint, see `level_of`."""
    best_return: float = -math.inf
    """Mean return after adaptation of the best checkpoint: the highest at a checkpoint on tasks of that level."""


CURRICULUM = "curriculum/"
"""Beginning of the names of the metrics that are levels of groups of tasks."""

REFUSALS = 20
"""Number of updates in a row that an agent refuses before the user is warned."""

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
    does `on_iteration` when it says so, and a Ctrl-C, which then raises KeyboardInterrupt. RunBusy (a UsageError) while
    another process trains in the folder. A new run that is refused before its first iteration is done, or too large for
    the memory, leaves no folder: nothing could be gone on with, and the name is free again.

    ranks: the processes that train it together, all of which call this. The first reads and writes the folder, calls
    `on_iteration` and evaluates.
    """
    with hold(run_dir) if ranks.is_first else contextlib.nullcontext():
        try:
            return _train(config, run_dir, resume, on_iteration, ranks)
        except (MemoryError, RuntimeError, UsageError) as error:
            refused = isinstance(error, UsageError) or out_of_memory(error)
            if ranks.is_first and not resume and refused and not _reached(run_dir):
                shutil.rmtree(run_dir, ignore_errors=True)
            raise


def _reached(run_dir: Path) -> int:
    """Return the last iteration in a run's record; 0 without a record."""
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
        restore(agent, family, config, path, state)
        counters = Counters(state["iteration"], state["env_steps"], *best_of(state))
        tracking_state = state["tracking"]
        if curriculum is not None and state.get("curriculum"):  # it may have been asked for at the resumption only
            restore_curriculum(curriculum, path, state)
    run = Run(run_dir, config, family, agent, counters.iteration, counters.env_steps, curriculum)
    world = TrainingWorld(run, ranks)
    simulator_for(config.evaluation.simulator, agent, "evaluation.simulator")  # refused now, not after training
    if not ranks.is_first:
        _iterations(world, counters, None, on_iteration)
        return run
    if resume:
        save_config(config, run_dir)  # what was changed for the rest of the run, once nothing speaks against it
        counters.best_level, counters.best_return = store.best(Best(counters.best_level, counters.best_return))
        store.tidy(counters.iteration)
    for note in filter(None, (reach_note(run), change_note(run))) if counters.iteration == 0 else ():
        print(f"note: {note}", flush=True)
    for note in world.mirror.notes if counters.iteration == 0 and world.mirror is not None else ():
        print(f"note: training.mirror: {note}", flush=True)
    if note := unstudied(config.agent, t.iterations, "training.iterations"):
        print(f"warning: {note}", file=sys.stderr, flush=True)
    with Tracker(config, run_dir, tracking_state, counters.iteration) as tracker:
        keeper = Keeper(run, counters, store, tracker)
        stopped = _iterations(world, counters, keeper, on_iteration)
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
    world: TrainingWorld, counters: Counters, keeper: Keeper | None, on_iteration: OnIteration | None
) -> bool:
    """Iterate until the run is complete or is to be stopped; returns whether it was stopped. keeper: None in all
    processes but the first."""
    run, ranks = world.run, world.ranks
    t, stopping, terminated = run.config.training, False, False
    numbers = [signal.SIGTERM]
    if ranks.size == 1 and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a sweep has its own
        numbers.append(signal.SIGINT)
    with keeper or contextlib.nullcontext(), stop_on_signals(*numbers) as stop:
        while counters.iteration < t.iterations and not stopping:
            metrics = iterate(world, counters)
            evaluating = t.evaluate_every > 0 and counters.iteration % t.evaluate_every == 0
            if evaluating or on_iteration is not None:
                stopping = ranks.from_first(functools.partial(_look, run, metrics, evaluating, on_iteration))
            if keeper is not None:
                keeper.record(metrics)
            terminated = ranks.any(stop.requested)
            stopping = stopping or terminated
            due = counters.iteration % t.checkpoint_every == 0 or counters.iteration == t.iterations
            if due or stopping:
                require_agreement(run.agent, counters.iteration, ranks)
                if keeper is not None:
                    keeper.save(metrics, due)
            if keeper is not None:
                keeper.show(metrics)
        if terminated and stop.number == signal.SIGINT:
            raise KeyboardInterrupt
        if terminated and keeper is not None:
            keeper.progress.line(f"stopped by SIGTERM; resume with metarl train --resume {typed(run.directory)}")
    return stopping


def _look(run: Run, metrics: dict[str, float], evaluating: bool, on_iteration: OnIteration | None) -> bool:
    """Evaluate if it is due and call `on_iteration`, in the first process; returns whether to end the run here."""
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
        """Record an iteration's metrics."""
        self.tracker.log(metrics)

    def show(self, metrics: dict[str, float]) -> None:
        """Show an iteration, once it is recorded and saved; warn if many updates in a row were refused."""
        self.progress.update(metrics)
        self._refused = self._refused + 1 if metrics.get(f"agent/{REFUSED}") else 0
        if self._refused == REFUSALS:
            self.progress.line(
                f"warning: the last {REFUSALS} updates were refused, as they would have made adapted policies "
                "worse: nothing is learned; start a new run with a smaller agent.inner_lr"
            )

    def save(self, metrics: dict[str, float], due: bool) -> None:
        """Write a checkpoint after the iteration with these metrics.

        due: whether an uninterrupted run writes it too. The best one is among those; that of a stop stands in for it
        where there is none yet.
        """
        counters, curriculum = self.counters, self.run.curriculum
        found = Best(level_of(metrics), metrics["return/after"])
        best = not metrics.get(f"agent/{TEACHER}") and found.is_above(Best(counters.best_level, counters.best_return))
        if best and due:
            counters.best_level, counters.best_return = found
        best = best and (due or not self.store.has_best())
        state = {**vars(counters), "agent": self.run.agent.state_dict(), "tracking": self.tracker.state()}
        state["curriculum"] = curriculum and curriculum.state_dict()
        if self.run.config.training.reveal_task:
            state["told"] = told_as(self.run.family)
        require_finite(state["agent"], counters.iteration)
        self.tracker.sync()
        self.store.save({**state, "config": config_to_dict(self.run.config)}, counters.iteration, best=best)


def begins_anew(store: CheckpointStore, run_dir: Path) -> bool:
    """Return whether a resumed run begins with its first iteration, as it ended before its first checkpoint.

    CheckpointError if it had checkpoints and they are missing.
    """
    if store.paths():
        return False
    reached = _reached(run_dir)
    if reached > read_run_config(run_dir).training.checkpoint_every or any(run_dir.glob("evaluation/*.json")):
        raise CheckpointError(
            f"no checkpoint in {store.folder}, though the run got to iteration {reached}; train it anew, in a folder "
            f"of its own, by: metarl train --config {typed(run_dir / CONFIG)}"
        )
    print(f"{run_dir} has no checkpoint yet: it begins with its first iteration", flush=True)
    return True


def iterate(world: TrainingWorld, counters: Counters) -> dict[str, float]:
    """Train for one iteration on fresh tasks and advance the counters; returns the iteration's metrics."""
    run, key = world.run, counters.iteration
    t = run.config.training
    rng = stream(t.seed, "tasks", key)
    began = time.perf_counter()
    tasks = run.curriculum.sample(t.tasks, rng) if run.curriculum else draw_tasks(run, rng)
    outcome = world.iterate(tasks, key)
    took = time.perf_counter() - began
    counters.iteration += 1
    if outcome.env_steps == 0:
        raise RunError(
            f"iteration {counters.iteration}: every simulation broke down, there is nothing to learn from; start a new "
            "run with smaller step sizes of the agent, or with narrower ranges of the family; mend an environment of "
            "your own whose error is above"
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
        **({"overflows": outcome.overflows} if outcome.overflows > 0 else {}),
        **{f"reward/{name}": value for name, value in outcome.terms.items()},
        "time/collect": outcome.collect_s,
        "time/update": outcome.update_s,
        **{f"{CURRICULUM}{name}": value for name, value in levels.items()},
        **{f"agent/{name}": value for name, value in outcome.metrics.items()},
    }


def level_of(metrics: Mapping[str, float]) -> float:
    """Return the mean level of an iteration's tasks, from 0 to 1; 1 without a curriculum, of the whole range.

    It is rounded, so that the order in which levels are added up does not decide which of two checkpoints is better.
    """
    levels = [value for name, value in metrics.items() if name.startswith(CURRICULUM)]
    return round(float(np.mean(levels or [WHOLE_RANGE])), 9)


def draw_tasks(run: Run, rng: np.random.Generator) -> list[Task]:
    """Return an iteration's training tasks: new ones, or tasks of the run's fixed set, each equally often."""
    t = run.config.training
    if not t.distinct_tasks:
        return new_tasks(run, t.tasks, rng)
    fixed = distinct_tasks(run)
    return [fixed[i] for i in np.resize(rng.permutation(len(fixed)), t.tasks)]


def require_agreement(agent: Agent, iteration: int, ranks: Ranks) -> None:
    """Raise RunError unless the agent is the same to the bit in all processes."""
    if ranks.size == 1:
        return
    own = digest(agent.state_dict())
    if ranks.any(own != ranks.from_first(lambda: own)):
        raise RunError(
            f"iteration {iteration}: the processes that train this run no longer have the same agent, and it is not "
            "saved; train on machines of one kind, with the same versions on each"
        )


def require_finite(state: Any, iteration: int) -> None:
    """Raise RunError if an agent's state is not finite: it must not replace good checkpoints."""
    if not is_finite(state):
        raise RunError(
            f"iteration {iteration}: the agent's parameters are no longer finite, and are not saved; start a new run "
            "with smaller step sizes"
        )
