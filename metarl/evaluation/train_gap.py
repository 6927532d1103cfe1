"""Gap to training tasks: how much better an agent does on tasks of its training than on the tasks evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from metarl.config import EvaluationSettings
from metarl.envs.family import TaskFamily
from metarl.envs.task import Task
from metarl.evaluation.contrasts import difference_interval
from metarl.evaluation.outcomes import run_trials
from metarl.evaluation.results import AgentResult, TrainGap
from metarl.evaluation.statistics import Array, interquartile_mean, task_interval
from metarl.runs.run import Run, distinct_tasks
from metarl.runs.trial import stream


def train_gap(
    run: Run,
    family: TaskFamily,
    settings: EvaluationSettings,
    returns: Array,
    threads: int = 0,
    progress: Callable[[str], None] | None = None,
) -> TrainGap | None:
    """Run a run's agent on as many training tasks as were evaluated, and return the gap between the returns.

    family, settings, returns [seed, shot, task]: of the evaluation. None if the tasks evaluated are training tasks,
    which those of its range are not if it was trained on a few of them alone.
    """
    trained_on, few = run.family, bool(run.config.training.distinct_tasks)
    own = trained_on.settings == family.settings
    drawn_alike = settings.split == "train" or (settings.split == "held_out" and not trained_on.disjoint_splits)
    if own and drawn_alike and not few:
        return None
    if progress:
        progress("evaluating on training tasks, for the gap")
    tasks = training_tasks(run, settings)
    there = run_trials(run.agent, trained_on, tasks, replace(settings, revisit=False), threads, "train_gap").returns
    return gap_of(there[None], returns[None], settings, own and settings.split != "ood")


def training_tasks(run: Run, settings: EvaluationSettings) -> list[list[Task]]:
    """Return as many tasks of the run's training as are evaluated, [seed][task], drawn with streams of their own."""
    rngs = [stream(seed, "train_gap/tasks") for seed in settings.seeds]
    if run.config.training.distinct_tasks:
        fixed = distinct_tasks(run)
        return [[fixed[i] for i in rng.integers(len(fixed), size=settings.tasks)] for rng in rngs]
    return [run.family.sample(settings.tasks, rng, "train") for rng in rngs]


def pooled_gap(results: Sequence[AgentResult], settings: EvaluationSettings) -> TrainGap | None:
    """Return the gap of agents trained alike with different seeds; None unless each of them has one."""
    gaps = [result.train_gap for result in results]
    found = [gap for gap in gaps if gap is not None]
    if len(found) < len(gaps):
        return None
    trained, here = np.stack([gap.returns for gap in found]), np.stack([result.returns for result in results])
    return gap_of(trained, here, settings, found[0].own)


def gap_of(trained: Array, here: Array, settings: EvaluationSettings, own: bool) -> TrainGap | None:
    """Return the gap of returns [R, S, K, M] on training tasks and on the tasks evaluated.

    None if fewer than two tasks of a seed have a return.
    """
    samples, rng = settings.bootstrap_samples, stream(settings.seeds[0], "train_gap/bootstrap")
    train = task_interval(trained[:, :, -1], interquartile_mean, samples, rng)
    before, after = (
        difference_interval(trained[:, :, k], here[:, :, k], interquartile_mean, samples, rng) for k in (0, -1)
    )
    if train is None or before is None or after is None:
        return None
    return TrainGap(trained.mean(axis=0), train, before, after, own)
