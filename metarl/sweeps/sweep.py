"""Sweeps: trials of one file, shared by any number of processes and machines through Optuna's journal.

Optuna numbers the trials and keeps their values; who runs which is decided by claims (`metarl.sweeps.claims`). A trial
whose process died is claimed by the next and gone on with from its checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from metarl.config import CONFIG, RunConfig, config_from_dict, read_run_config
from metarl.errors import RunError, UsageError, describe
from metarl.files import append, make_folder, write
from metarl.runs.checkpoint import CheckpointStore, iteration_of
from metarl.runs.interrupt import Stop
from metarl.runs.progress import duration
from metarl.runs.run import CHECKPOINTS, start_run
from metarl.runs.run_lock import RunBusy
from metarl.runs.trial import stream
from metarl.sweeps import claims as sweep_claims
from metarl.sweeps.file import Levels, Sweep, essentials
from metarl.sweeps.ranks import attempt_by_ranks
from metarl.sweeps.tasks import Yardstick, yardstick
from metarl.sweeps.trial import Attempt, Watch, attempt, look_every
from metarl.training.loop import train

JOURNAL = "journal.log"
SPEC = "sweep.json"
"""What the sweep of a folder is: another file is refused."""
CLAIMS = ".claims"
LOG = "output.log"
"""In a trial's folder: what its training printed."""


class Points(optuna.samplers.BaseSampler):
    """Values that follow from a trial's number alone: the grid's, or random ones. No number, no point twice."""

    def __init__(self, sweep: Sweep):
        self._sweep = sweep
        self._grid = list(sweep.grid()) if sweep.method == "grid" else []

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        dimension = self._sweep.dimensions[param_name]
        if self._grid and isinstance(dimension, Levels):
            return dimension.labels[dimension.values.index(self._grid[trial.number][param_name])]
        place = list(self._sweep.dimensions).index(param_name)
        seed = int(stream(self._sweep.seed, "sweep/random", trial.number, place).integers(2**31))
        return optuna.samplers.RandomSampler(seed).sample_independent(study, trial, param_name, param_distribution)


class Study:
    """The journal of a sweep's folder."""

    def __init__(self, sweep: Sweep, folder: Path):
        """Join the folder's sweep, or begin it; UsageError if another sweep's trials are in it."""
        self.sweep = sweep
        self.folder = folder
        _agree(sweep, folder)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Optuna's lock by symbolic link spins where the journal's absolute path is another on the other machine.
        backend = JournalFileBackend(str(folder / JOURNAL), JournalFileOpenLock(str(folder / JOURNAL)))
        with self._alone():
            _mend(folder / JOURNAL)
            try:
                storage = JournalStorage(backend)
            except (ValueError, KeyError, AssertionError) as error:
                raise UsageError(f"{folder / JOURNAL} is damaged ({describe(error)}); move the folder away") from error
            self.study = optuna.create_study(
                study_name="sweep", storage=storage, direction="maximize", load_if_exists=True, pruner=_pruner(sweep)
            )

    def trials(self) -> list[FrozenTrial]:
        """Every trial, by number."""
        return self.study.get_trials(deepcopy=False)

    @property
    def claims(self) -> Path:
        """The folder of the claims."""
        return self.folder / CLAIMS

    def directory(self, number: int) -> Path:
        """A trial's run folder."""
        return self.folder / f"trial_{number:04d}"

    def next(self) -> tuple[optuna.Trial, sweep_claims.Claim] | None:
        """A trial that nobody runs, claimed: one that was left, or a new one; None if there is none."""
        while True:
            for frozen in self.trials():
                if frozen.state == TrialState.RUNNING and (claim := self._claim(frozen.number)):
                    if self._open(frozen.number):
                        return optuna.Trial(self.study, frozen._trial_id), claim
                    claim.release()  # it ended between the two looks
            with self._alone():
                if len(self.trials()) >= self.sweep.trials:
                    return None
                self.study.sampler = Points(self.sweep)  # takes nothing from the generators of others
                trial = self.study.ask()
            if trial.number >= self.sweep.trials:  # two machines that do not see each other's locks
                self.fail(trial, "one more than the sweep has")
            elif claim := self._claim(trial.number):
                return trial, claim

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """The trial's point; what was suggested before its process died stays."""
        if self.sweep.method == "tpe":
            seed = int(stream(self.sweep.seed, "sweep/tpe", trial.number).integers(2**31))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        else:
            self.study.sampler = Points(self.sweep)
        for name, dimension in self.sweep.dimensions.items():
            if isinstance(dimension, Levels):
                trial.suggest_categorical(name, dimension.labels)
            elif dimension.whole:
                trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
            else:
                trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
        return self.sweep.point(trial.params)

    def finish(self, trial: optuna.Trial, value: float, attributes: Mapping[str, Any]) -> None:
        """Record what a trial came to."""
        for name, attribute in attributes.items():
            trial.set_user_attr(name, attribute)
        self.study.tell(trial.number, value, skip_if_finished=True)

    def fail(self, trial: optuna.Trial, message: str) -> None:
        """Record that a trial failed, and why."""
        trial.set_user_attr("error", message)
        self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def prune(self, trial: optuna.Trial, attributes: Mapping[str, Any]) -> None:
        """Record that a trial was ended early."""
        for name, attribute in attributes.items():
            trial.set_user_attr(name, attribute)
        self.study.tell(trial.number, state=TrialState.PRUNED, skip_if_finished=True)

    def iteration(self, number: int) -> int:
        """Iteration of a trial's last checkpoint; 0 without one."""
        paths = CheckpointStore(self.directory(number) / CHECKPOINTS).paths()
        return iteration_of(paths[-1]) if paths else 0

    def holder(self, number: int) -> dict[str, Any] | None:
        """The record of the living process that runs a trial; None if there is none."""
        return sweep_claims.running(self.claims, number)

    def _claim(self, number: int) -> sweep_claims.Claim | None:
        return sweep_claims.claim(self.claims, number, self.iteration(number))

    def _open(self, number: int) -> bool:
        return self.trials()[number].state == TrialState.RUNNING

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process of this machine is in here; the kernel ends it with the process."""
        with append(self.folder / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _agree(sweep: Sweep, folder: Path) -> None:
    """Say what the folder's sweep is, or UsageError if it is another."""
    spec = json.loads(json.dumps(sweep.fingerprint()))
    path = folder / SPEC
    if not path.exists():
        make_folder(folder, "--runs-dir")
        draft = folder / f".{os.getpid()}.{SPEC}"
        write(draft, json.dumps(spec, indent=1).encode())
        with contextlib.suppress(FileExistsError):  # another process was first
            os.link(draft, path)
        draft.unlink()
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
        theirs["base"] = json.loads(
            json.dumps(essentials(config_from_dict(theirs["base"])))
        )  # newer settings at defaults
        theirs.setdefault("files", spec["files"])  # of an older metarl
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read ({describe(error)}); move the folder away") from error
    changed = list(_differences(theirs, spec))
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UsageError(
            f"{folder} holds trials of another sweep: {'; '.join(changed[:3])}{more}. Put that back, or give the new "
            f"sweep another file name"
        )


def _differences(theirs: Any, ours: Any, name: str = "") -> Iterator[str]:
    if (
        isinstance(theirs, Mapping)
        and isinstance(ours, Mapping)
        and (name != "factors" or theirs.keys() == ours.keys())
    ):
        for key in dict.fromkeys([*theirs, *ours]):
            yield from _differences(theirs.get(key), ours.get(key), f"{name}.{key}" if name else str(key))
    elif theirs != ours and isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        yield f"its factors were {', '.join(theirs)}, now {', '.join(ours)}"
    elif theirs != ours:
        yield f"{name} was {theirs}, is {ours}"


def _mend(journal: Path) -> None:
    """Cut off a last line that a kill or a full disk left unfinished: what is appended to it would be lost with it."""
    if not journal.exists():
        return
    lock = JournalFileOpenLock(str(journal))
    lock.acquire()
    try:
        data = journal.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(journal, data.rfind(b"\n") + 1)
    finally:
        lock.release()


def _pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    p = sweep.pruner
    if p.name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=p.startup_trials, n_warmup_steps=p.warmup)
    if p.name == "successive_halving":
        first = max(p.warmup, look_every(sweep, sweep.base))
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=p.reduction)
    return optuna.pruners.NopPruner()


@dataclass
class Worker:
    """One process that runs trials until none is left."""

    sweep: Sweep
    study: Study
    stick: Yardstick
    threads: int
    """Of each trial's processes; 0: as its configuration says."""
    stop: Stop = field(default_factory=Stop)
    say: Callable[[str], None] = print
    ranks: int = 1
    """Processes that train each trial; several are started by torchrun."""

    def run(self) -> bool:
        """Run trials; whether there was nothing left to do. A fault of the machine, a full disk for one, is raised."""
        while not self.stop.now():
            found = self.study.next()
            if found is None:
                return True
            trial, claim = found
            try:
                self._trial(trial, claim)
            finally:
                claim.release()
        return False

    def _trial(self, trial: optuna.Trial, claim: sweep_claims.Claim) -> None:
        number, began = trial.number, time.monotonic()
        done = self.study.iteration(number)
        if sweep_claims.deaths(self.study.claims, number, done) >= sweep_claims.DEATHS:
            self._failed(trial, f"its process died {sweep_claims.DEATHS} times at iteration {done}, or right after it")
            return
        point = self.study.suggest(trial)
        self.say(f"trial {number}: {words(point)}" + (f", gone on with from iteration {done}" if done else ""))
        directory = self.study.directory(number)
        try:
            attempt = self._attempt(trial, point, claim)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            if isinstance(error, OSError | RunBusy) or isinstance(error.__cause__, OSError):
                raise  # the next trial would fail of it too; this one is gone on with
            if not isinstance(error, UsageError | RunError):
                with contextlib.suppress(RunError):
                    write(directory / "error.log", "".join(traceback.format_exception(error)).encode())
            self._failed(trial, describe(error))
            return
        took = duration(time.monotonic() - began)
        if attempt.value is None and not attempt.pruned:
            # A SIGTERM that training saw first is for the whole worker.
            self.stop.requested |= not claim.lost()
            self.say(f"trial {number}: stopped at iteration {attempt.iteration}, to be gone on with")
            return
        attributes = {**attempt.attributes, "seconds": time.monotonic() - began}
        if attempt.value is None:
            self.study.prune(trial, attributes)
            self.say(f"trial {number}: pruned at iteration {attempt.iteration}, {took}")
            return
        self.study.finish(trial, attempt.value, attributes)
        self.say(f"trial {number}: return {attributes['return']:.4g}, gain {attributes['gain']:.4g}, {took}")

    def _failed(self, trial: optuna.Trial, message: str) -> None:
        self.study.fail(trial, message)
        self.say(f"trial {trial.number}: failed: {message}")

    def _attempt(self, trial: optuna.Trial, point: Mapping[str, Any], claim: sweep_claims.Claim) -> Attempt:
        number = trial.number
        directory = self.study.directory(number)
        resume = self.study.iteration(number) > 0
        if (directory / CONFIG).is_file():
            config = self._threads(read_run_config(directory))
        else:
            if directory.exists():  # its process died while it made it
                shutil.rmtree(directory)
            config = self._threads(self.sweep.config(point))
            if not config.tracking.group:
                tracking = dataclasses.replace(config.tracking, group=self.study.folder.resolve().name)
                config = dataclasses.replace(config, tracking=tracking)
            start_run(config, self.study.folder, directory.name)
            config = read_run_config(directory)
        stop = functools.partial(self._stopping, claim)
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(append(directory / LOG))
            if self.ranks > 1:
                return attempt_by_ranks(self.sweep, number, config, directory, self.ranks, stop, log)
            stack.enter_context(contextlib.redirect_stdout(log))
            stack.enter_context(contextlib.redirect_stderr(log))
            watch = Watch(self.sweep, self.stick, trial, stop)
            return attempt(config, directory, resume, watch)

    def _stopping(self, claim: sweep_claims.Claim) -> bool:
        return self.stop.now() or claim.lost()

    def _threads(self, config: RunConfig) -> RunConfig:
        threads = self.threads or config.training.threads
        return dataclasses.replace(config, training=dataclasses.replace(config.training, threads=threads))


def words(point: Mapping[str, Any]) -> str:
    """A point as text."""
    return ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in point.items())


def run_point(sweep: Sweep, folder: Path, values: Mapping[str, Any]) -> Path:
    """Train one point outside of any journal, for another scheduler such as W&B; returns its run folder."""
    stick = yardstick(sweep)
    config = sweep.config(sweep.point(values))
    directory = start_run(config, folder)
    train(read_run_config(directory), directory, on_iteration=Watch(sweep, stick, None, lambda: False))
    return directory
