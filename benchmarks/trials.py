"""What training on trials, by the presets of RL2, costs beside physics: `python -m benchmarks.trials`.

A preset plays 20 tasks with one env each. Its rates, of collection and of whole iterations, are held against the rate
of physics alone on the same tasks with 40 envs each, in turn in one run. Nothing else should run meanwhile.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.physics import Physics, seconds
from metarl.config import preset
from metarl.envs.batch import BatchedEnv
from metarl.envs.sharded import ShardedEnv
from metarl.runs.run import Run, build
from metarl.runs.trial import run_trial, stream, streams
from metarl.training.loop import Counters, iterate
from metarl.training.world import TrainingWorld

FAMILIES = ("half_cheetah_mass", "quadruped")
PHYSICS_ENVS = 40  # of each task, 800 in all
ROUNDS = 7


@dataclass(frozen=True)
class Shares:
    """Rates of training over that of physics, by round."""

    family: str
    collection: list[float]
    """Of playing trials, tasks set."""
    iteration: list[float]
    """Of a whole iteration: tasks, trials and update."""
    physics: float
    """Env steps/s of physics, a median."""


def measure(family: str, rounds: int = ROUNDS) -> Shares:
    """Return the shares of RL2's preset on a family."""
    config = preset("rl2", family)
    made, agent = build(config, "cpu")
    t = config.training
    tasks = made.sample(t.tasks, stream(1, "tasks"))
    env, batch = ShardedEnv(made, t.tasks, t.envs_per_task), BatchedEnv(made, t.tasks, PHYSICS_ENVS)
    env.set_tasks(tasks)
    batch.set_tasks(tasks)
    rngs = [streams(1, "benchmark", k, t.tasks) for k in range(rounds + 1)]
    first = run_trial(env, agent, rngs[rounds], t.adaptations).trial.rollouts[0]
    physics = Physics(batch, np.repeat(first.actions.numpy(), PHYSICS_ENVS, axis=2))
    world, counters = TrainingWorld(Run(Path(), config, made, agent, 0, 0)), Counters()
    iterate(world, counters)
    rates, collection, iteration = [], [], []
    for k in range(rounds):
        rates.append(physics.rate())
        played = []
        took = seconds(lambda own=rngs[k], played=played: played.append(run_trial(env, agent, own, t.adaptations)))
        steps = sum(int(rollout.valid.sum()) for rollout in played[0].trial.rollouts)
        collection.append(steps / took / rates[-1])
        before = counters.env_steps
        took = seconds(lambda: iterate(world, counters))
        iteration.append((counters.env_steps - before) / took / rates[-1])
    return Shares(family, collection, iteration, median(rates))


def main() -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    for family in FAMILIES:
        found = measure(family)
        print(
            f"{family:<20} physics {found.physics / 1e3:6.1f}k env steps/s; collection {median(found.collection):.3f}, "
            f"whole iteration {median(found.iteration):.3f} of it",
            flush=True,
        )


if __name__ == "__main__":
    main()
