"""A process that trains variants of a sweep until none is left."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna

from metarl.config import CONFIG, RunConfig, read_run_config
from metarl.errors import describe
from metarl.evaluation.sweep_result import folder_name
from metarl.files import append
from metarl.reporting.sweep_tables import point_text
from metarl.runs import claims as sweep_claims
from metarl.runs.failures import is_of_machine, keep_traceback
from metarl.runs.interrupt import Stop
from metarl.runs.progress import duration
from metarl.runs.run import start_run
from metarl.sweeps.attempt import Attempt, Watch, attempt
from metarl.sweeps.ranks import attempt_by_ranks
from metarl.sweeps.study import Study
from metarl.sweeps.sweep import Sweep
from metarl.sweeps.yardstick import Yardstick, yardstick
from metarl.training.loop import train

LOG = "output.log"
"""File in a variant's folder with the output of its training."""


@dataclass
class Worker:
    """One process that trains variants until none is left."""

    sweep: Sweep
    study: Study
    stick: Yardstick
    threads: int
    """Threads of each process that trains a variant; 0: as the variant's configuration says."""
    stop: Stop = field(default_factory=Stop)
    say: Callable[[str], None] = print
    ranks: int = 1
    """Processes that train each variant; several are started by torchrun."""

    def run(self) -> bool:
        """Train variants; return whether none was left. A fault of the machine, such as a full disk, is raised."""
        while not self.stop.now():
            found = self.study.next()
            if found is None:
                return True
            trial, claim = found
            try:
                self._train(trial, claim)
            finally:
                claim.release()
        return False

    def _train(self, trial: optuna.Trial, claim: sweep_claims.Claim) -> None:
        number, began = trial.number, time.monotonic()
        done = self.study.iteration(number)
        if self.study.deaths(number, self.study.command) >= sweep_claims.DEATHS:
            self._failed(trial, f"its process died {sweep_claims.DEATHS} times at iteration {done}, or right after it")
            return
        point = self.study.suggest(trial)
        self._say(number, point_text(point) + (f", resumed at iteration {done}" if done else ""))
        try:
            attempt = self._attempt(trial, point, claim)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            if is_of_machine(error):
                raise  # this variant is resumed later
            keep_traceback(error, self.study.directory(number))
            self._failed(trial, describe(error))
            return
        self._record(trial, claim, attempt, time.monotonic() - began)

    def _record(self, trial: optuna.Trial, claim: sweep_claims.Claim, attempt: Attempt, seconds: float) -> None:
        """Record how far a variant got, unless it was stopped; one without a finite objective has failed."""
        if attempt.value is None and not attempt.pruned:
            # A SIGTERM that training saw first is for the whole worker.
            self.stop.requested |= not claim.lost()
            self._say(trial.number, f"stopped at iteration {attempt.iteration}; to be resumed")
            return
        attributes = {**attempt.attributes, "seconds": seconds}
        if attempt.value is None:
            self.study.prune(trial, attributes)
            self._say(trial.number, f"pruned at iteration {attempt.iteration}, {duration(seconds)}")
            return
        if not math.isfinite(attempt.value):
            measure = f"the mean {self.stick.measure} over its tasks"
            self._failed(trial, f"its objective, {measure}, is {attempt.value:g} and no finite number")
            return
        self.study.finish(trial, attempt.value, attributes)
        numbers = f"return {attributes['return']:.4g}, gain {attributes['gain']:.4g}"
        self._say(trial.number, f"{numbers}, {duration(seconds)}")

    def _say(self, number: int, text: str) -> None:
        self.say(f"{folder_name(number)}: {text}")

    def _failed(self, trial: optuna.Trial, message: str) -> None:
        self.study.fail(trial, message)
        self._say(trial.number, f"failed: {message}")

    def _attempt(self, trial: optuna.Trial, point: Mapping[str, Any], claim: sweep_claims.Claim) -> Attempt:
        directory = self.study.directory(trial.number)
        resume = self.study.iteration(trial.number) > 0
        config = self._begun(directory, point)
        stop = functools.partial(self._stopping, claim)
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(append(directory / LOG))
            if self.ranks > 1:
                return attempt_by_ranks(self.sweep, trial.number, config, directory, self.ranks, stop, log)
            stack.enter_context(contextlib.redirect_stdout(log))
            stack.enter_context(contextlib.redirect_stderr(log))
            watch = Watch(self.sweep, self.stick, trial, stop)
            return attempt(config, directory, resume, watch)

    def _begun(self, directory: Path, point: Mapping[str, Any]) -> RunConfig:
        """Return the configuration of the variant's run folder, which is made if it does not exist."""
        if (directory / CONFIG).is_file():
            return with_threads(read_run_config(directory), self.threads)
        if directory.exists():  # its process died while making it
            shutil.rmtree(directory)
        start_run(variant_config(self.sweep, point, self.study.folder, self.threads), self.study.folder, directory.name)
        return read_run_config(directory)

    def _stopping(self, claim: sweep_claims.Claim) -> bool:
        return self.stop.now() or claim.lost()


def variant_config(sweep: Sweep, point: Mapping[str, Any], folder: Path, threads: int) -> RunConfig:
    """Return the configuration of a variant, in the W&B group named after the sweep's folder unless it has its own."""
    config = with_threads(sweep.config(point), threads)
    tracking = dataclasses.replace(config.tracking, group=config.tracking.group or folder.resolve().name)
    return dataclasses.replace(config, tracking=tracking)


def with_threads(config: RunConfig, threads: int) -> RunConfig:
    """Return a configuration with so many threads of training; 0: its own."""
    training = dataclasses.replace(config.training, threads=threads or config.training.threads)
    return dataclasses.replace(config, training=training)


def run_point(sweep: Sweep, folder: Path, values: Mapping[str, Any], threads: int) -> Path:
    """Train one variant without a journal, for another scheduler such as W&B; return its run folder.

    threads: of the training; 0: as the configuration says.
    """
    stick = yardstick(sweep)
    directory = start_run(variant_config(sweep, sweep.point(values), folder, threads), folder)
    train(read_run_config(directory), directory, on_iteration=Watch(sweep, stick, None, lambda: False))
    return directory
