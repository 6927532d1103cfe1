"""One trial of a sweep: its training, watched by the pruner, and what it came to."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from metarl.agents.ranks import ALONE, Ranks
from metarl.config import RunConfig
from metarl.evaluation.results import EvaluationResult
from metarl.files import write
from metarl.runs.run import Run
from metarl.sweeps.file import Sweep
from metarl.sweeps.tasks import Yardstick, training_ranges
from metarl.training.loop import train

RESULT = "sweep_result.json"
"""In a trial's folder: the tasks that it was judged on, and its returns."""
OBJECTIVE = "sweep/objective"
"""The metric that is maximised, in metrics.jsonl and in W&B."""


def look_every(sweep: Sweep, config: RunConfig) -> int:
    """Iterations between two looks of the pruner."""
    return sweep.pruner.every or max(1, config.training.iterations // 10)


@dataclass
class Watch:
    """Follows a trial's training: judges it for the pruner and at its end, and ends it early."""

    sweep: Sweep
    stick: Yardstick
    trial: optuna.Trial | None
    """None: of no journal."""
    stop: Callable[[], bool]
    pruned: bool = False
    last: EvaluationResult | None = None
    """Of the last iteration."""

    def __call__(self, run: Run, metrics: dict[str, float]) -> bool:
        config = run.config
        ended = run.iteration == config.training.iterations
        look = self.sweep.pruner.name != "none" and run.iteration % look_every(self.sweep, config) == 0 and not ended
        if ended or (look and self.sweep.pruner.by == "objective"):
            result = self.stick.judge(run.agent, run.family, config.evaluation, config.training.threads)
            metrics[OBJECTIVE] = self.stick.value(result)
            self.last = result if ended else None
            if ended and self.stick.agrees(config.evaluation):
                run.evaluation = result
        if look and self.trial is not None:
            by_training = metrics["return/after" if self.stick.measure == "return" else "gain"]
            value = metrics.get(OBJECTIVE, by_training)
            if np.isfinite(value):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a resumed trial reports some iterations again
                    self.trial.report(value, run.iteration)
                self.pruned = self.trial.should_prune()
        return self.pruned or (self.stop() and not ended)


@dataclass(frozen=True)
class Attempt:
    """How far a trial was brought."""

    iteration: int
    pruned: bool
    value: float | None
    """What is maximised; None if it did not end."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """For the sweep's journal."""


def attempt(config: RunConfig, directory: Path, resume: bool, watch: Watch, ranks: Ranks = ALONE) -> Attempt:
    """Train a trial in its folder, and judge it at its end. ranks: the processes that train it, which all call this."""
    run = train(config, directory, resume, watch, ranks)
    return ranks.from_first(functools.partial(_attempted, run, watch))


def _attempted(run: Run, watch: Watch) -> Attempt:
    config = run.config
    attributes = {"iteration": run.iteration, "env_steps": run.env_steps, "ranges": training_ranges(run.family)}
    ended = run.iteration >= config.training.iterations and run.evaluation is not None
    if not ended or watch.pruned:
        return Attempt(run.iteration, watch.pruned, None, attributes)
    result = watch.last
    if result is None and watch.stick.agrees(config.evaluation):  # trained before, by a process that died
        result = run.evaluation
    result = result or watch.stick.judge(run.agent, run.family, config.evaluation, config.training.threads)
    summary = result.summary
    attributes |= {"return": summary.mean[-1].estimate, "before": summary.mean[0].estimate}
    attributes |= {"gain": summary.gain_mean[-1].estimate}
    attributes |= {"return_interval": [summary.mean[-1].low, summary.mean[-1].high]}
    attributes |= {"gain_interval": [summary.gain_mean[-1].low, summary.gain_mean[-1].high]}
    write(run.directory / RESULT, json.dumps(judged(result)).encode())
    return Attempt(run.iteration, False, watch.stick.value(result), attributes)


def judged(result: EvaluationResult) -> dict[str, Any]:
    """The tasks of an evaluation and their returns before the first and after the last adaptation; NaN is null."""
    tasks = [dict(values) for of_seed in result.tasks for values in of_seed]
    before, after = (result.returns[:, shot].reshape(-1) for shot in (0, -1))
    plain = {"before": before, "after": after}
    return {"tasks": tasks, **{k: [float(r) if np.isfinite(r) else None for r in v] for k, v in plain.items()}}
