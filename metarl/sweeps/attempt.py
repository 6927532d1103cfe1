"""Train one variant of a sweep and judge it, watched by the pruner."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from metarl.agents.ranks import ALONE, Ranks
from metarl.config import RunConfig
from metarl.evaluation.results import EvaluationResult
from metarl.evaluation.sweep_result import TaskReturns
from metarl.files import write
from metarl.runs.run import Run
from metarl.sweeps.sweep import Sweep
from metarl.sweeps.task_axes import training_ranges
from metarl.sweeps.yardstick import Yardstick
from metarl.training.loop import train

RESULT = "sweep_result.json"
"""File in a variant's folder with the tasks that it was judged on, and its returns."""
OBJECTIVE = "sweep/objective"
"""The metric that is maximised, in metrics.jsonl and in W&B."""


def check_every(sweep: Sweep, config: RunConfig) -> int:
    """Return the number of iterations between two checks of the pruner."""
    return sweep.pruner.every or max(1, config.training.iterations // 10)


@dataclass
class Watch:
    """Callback of a variant's training: judges it for the pruner and at its end, and ends it early."""

    sweep: Sweep
    stick: Yardstick
    trial: optuna.Trial | None
    """Optuna's record of the variant; None if there is no journal."""
    stop: Callable[[], bool]
    pruned: bool = False
    last: EvaluationResult | None = None
    """Evaluation after the last iteration."""

    def __call__(self, run: Run, metrics: dict[str, float]) -> bool:
        config = run.config
        ended = run.iteration == config.training.iterations
        due = self.sweep.pruner.name != "none" and run.iteration % check_every(self.sweep, config) == 0 and not ended
        if ended or (due and self.sweep.pruner.by == "objective"):
            result = self.stick.judge(run.agent, run.family, config.evaluation, config.training.threads)
            metrics[OBJECTIVE] = self.stick.value(result)
            self.last = result if ended else None
            if ended and self.stick.agrees(config.evaluation):
                run.evaluation = result
        if due and self.trial is not None:
            by_training = metrics["return/after" if self.stick.measure == "return" else "gain"]
            value = metrics.get(OBJECTIVE, by_training)
            if np.isfinite(value):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a resumed variant reports some iterations again
                    self.trial.report(value, run.iteration)
                self.pruned = bool(self.trial.should_prune())  # a pruner answers with NumPy's
        return self.pruned or (self.stop() and not ended)


@dataclass(frozen=True)
class Attempt:
    """How far the training of a variant got."""

    iteration: int
    pruned: bool
    value: float | None
    """The objective; None if the training did not end."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """Entries for the sweep's journal."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Attempt:
        """Return the attempt that `to_dict` described."""
        return cls(**data)


def attempt(config: RunConfig, directory: Path, resume: bool, watch: Watch, ranks: Ranks = ALONE) -> Attempt:
    """Train a variant in its folder, judge it at its end, and save its returns there.

    ranks: the processes that train it, all of which call this.
    """
    run = train(config, directory, resume, watch, ranks)
    return ranks.from_first(functools.partial(_judged_and_saved, run, watch))


def _judged_and_saved(run: Run, watch: Watch) -> Attempt:
    result = _final_evaluation(run, watch)
    if result is not None:
        write(run.directory / RESULT, json.dumps(task_returns(result).to_dict()).encode())
    return _attempt(run, watch, result)


def _final_evaluation(run: Run, watch: Watch) -> EvaluationResult | None:
    """Return the evaluation that the objective is computed from; None if the training did not end."""
    config = run.config
    if watch.pruned or run.iteration < config.training.iterations or run.evaluation is None:
        return None
    if watch.last is not None:
        return watch.last
    if watch.stick.agrees(config.evaluation):  # trained before, by a process that died
        return run.evaluation
    return watch.stick.judge(run.agent, run.family, config.evaluation, config.training.threads)


def _attempt(run: Run, watch: Watch, result: EvaluationResult | None) -> Attempt:
    attributes = {"iteration": run.iteration, "env_steps": run.env_steps, "ranges": training_ranges(run.family)}
    if result is None:
        return Attempt(run.iteration, watch.pruned, None, attributes)
    summary = result.summary
    attributes |= {"return": summary.mean[-1].estimate, "before": summary.mean[0].estimate}
    attributes |= {"gain": summary.gain_mean[-1].estimate}
    attributes |= {"return_interval": [summary.mean[-1].low, summary.mean[-1].high]}
    attributes |= {"gain_interval": [summary.gain_mean[-1].low, summary.gain_mean[-1].high]}
    return Attempt(run.iteration, False, watch.stick.value(result), attributes)


def task_returns(result: EvaluationResult) -> TaskReturns:
    """Return the tasks of an evaluation with their returns before the first and after the last adaptation."""
    tasks = [values for of_seed in result.tasks for values in of_seed]
    return TaskReturns.of(tasks, *(result.returns[:, shot].reshape(-1) for shot in (0, -1)))
