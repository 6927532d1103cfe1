"""Meta-training: draw tasks, run their trials, take an outer step, record; again."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.checkpoint import CheckpointStore
from metarl.config import RunConfig, config_to_dict
from metarl.envs.sharded import ShardedEnv
from metarl.errors import RunError
from metarl.evaluation import evaluate, evaluate_agent
from metarl.interrupt import stop_on_sigterm
from metarl.progress import Progress
from metarl.provenance import cores
from metarl.run import CHECKPOINTS, Run, build, make_curriculum, restore, save_config
from metarl.tracking import Tracker
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


def train(config: RunConfig, run_dir: Path, resume: bool = False) -> Run:
    """Meta-train in a run folder, from its last checkpoint if `resume`, then evaluate; returns the run as it ended.

    All randomness of an iteration follows from (seed, iteration), so what a resumed run computes is what an
    uninterrupted one does. A SIGTERM ends the run after the iteration at hand, with a checkpoint and no evaluation.
    """
    family, agent = build(config)
    t = config.training
    torch.set_num_threads(t.threads or cores())
    store = CheckpointStore(run_dir / CHECKPOINTS, keep=t.keep_checkpoints)
    counters, tracking_state, curriculum = Counters(), None, make_curriculum(config, family)
    if resume:
        path, state = store.load("last")
        restore(agent, config, path, state)
        save_config(config, run_dir)  # what was changed for the rest of the run, once nothing speaks against it
        counters = Counters(state["iteration"], state["env_steps"], state["best_return"])
        tracking_state = state["tracking"]
        if curriculum is not None and state.get("curriculum"):  # it may have been asked for at the resumption only
            curriculum.load_state_dict(state["curriculum"])
    run = Run(run_dir, config, family, agent, counters.iteration, counters.env_steps, curriculum)
    env = ShardedEnv(family, t.tasks, t.envs_per_task, t.threads)
    with Tracker(config, run_dir, tracking_state, counters.iteration) as tracker:
        with Progress(total=t.iterations, start=counters.iteration) as progress, stop_on_sigterm() as stop:
            stopping = False
            while counters.iteration < t.iterations and not stopping:
                metrics = iterate(run, env, counters)
                if t.evaluate_every and counters.iteration % t.evaluate_every == 0:
                    metrics |= evaluate_agent(agent, family, config.evaluation, t.threads).scalars
                tracker.log(metrics)
                progress.update(metrics)
                stopping = stop.requested
                if counters.iteration % t.checkpoint_every == 0 or counters.iteration == t.iterations or stopping:
                    best = metrics["return/after"] > counters.best_return
                    counters.best_return = max(counters.best_return, metrics["return/after"])
                    state = {**vars(counters), "agent": agent.state_dict(), "tracking": tracker.state()}
                    state["curriculum"] = curriculum and curriculum.state_dict()
                    require_finite(state["agent"], counters.iteration)
                    store.save({**state, "config": config_to_dict(config)}, counters.iteration, best=best)
            if stopping:
                progress.line(f"stopped by SIGTERM; go on with metarl train --resume {run_dir}")
        if counters.iteration >= t.iterations and not stopping:
            run.evaluation = evaluate(run, train_gap=False)
            figures = {f"evaluation/{name}": path for name, path in run.evaluation.figures.items()}
            tracker.conclude({"env_steps": counters.env_steps, **run.evaluation.scalars}, figures)
    return run


def iterate(run: Run, env: ShardedEnv, counters: Counters) -> dict[str, float]:
    """One outer step on fresh tasks; advances the counters and returns the iteration's metrics."""
    t = run.config.training
    began, faults_before = time.perf_counter(), env.num_faults
    key = counters.iteration
    rng = stream(t.seed, "tasks", key)
    env.set_tasks(run.curriculum.sample(t.tasks, rng) if run.curriculum else run.family.sample(t.tasks, rng, "train"))
    result = run_trial(env, run.agent, streams(t.seed, "rollouts", key, t.tasks), t.adaptations)
    collected = time.perf_counter()
    agent_metrics = run.agent.meta_update(result.trial, torch_stream(t.seed, "update", key))
    ended = time.perf_counter()
    rollouts = result.trial.rollouts
    steps = sum(int(rollout.valid.sum()) for rollout in rollouts)
    counters.iteration += 1
    if steps == 0:
        raise RunError(
            f"iteration {counters.iteration}: MuJoCo flagged every simulation, there is nothing to learn from; start a "
            "new run with smaller step sizes of the agent, or with narrower ranges of the family"
        )
    counters.env_steps += steps
    run.iteration, run.env_steps = counters.iteration, counters.env_steps
    levels = run.curriculum.metrics() if run.curriculum else {}  # of the tasks at hand
    if run.curriculum:
        run.curriculum.update(env.tasks, rollouts[-1].episode_returns().nanmean(1).numpy())
    before, after = (float(rollouts[k].episode_returns().nanmean()) for k in (0, -1))
    return {
        "iteration": counters.iteration,
        "env_steps": counters.env_steps,
        "env_steps_per_s": steps / (ended - began),
        "return/before": before,
        "return/after": after,
        "gain": after - before,
        "faults": env.num_faults - faults_before,
        **{f"reward/{name}": float(np.nanmean(sums)) for name, sums in result.reward_terms[-1].items()},
        "time/collect": collected - began,
        "time/update": ended - collected,
        **{f"curriculum/{name}": value for name, value in levels.items()},
        **{f"agent/{name}": value for name, value in agent_metrics.items()},
    }


def require_finite(state: Any, iteration: int) -> None:
    """RunError if a tensor of an agent's state is not finite, so that good checkpoints are not rotated out for it."""
    if isinstance(state, torch.Tensor) and not state.isfinite().all():
        raise RunError(
            f"iteration {iteration}: the agent's parameters are no longer finite, and are not saved; start a new run "
            "with smaller step sizes"
        )
    for part in state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ():
        require_finite(part, iteration)
