"""The Optuna study of a sweep: a journal file that any number of processes and machines share.

Each variant of the sweep is a trial of Optuna, which numbers the trials and keeps their values. Claims decide which
process trains which variant (`metarl.runs.claims`); a variant whose process died is claimed by the next one, which
continues from its checkpoint.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from metarl.errors import UsageError, describe
from metarl.evaluation.sweep_result import Variant, folder_name
from metarl.files import append
from metarl.runs import claims as sweep_claims
from metarl.runs.checkpoint import CheckpointStore, iteration_of
from metarl.runs.run import CHECKPOINTS
from metarl.sweeps.attempt import check_every
from metarl.sweeps.optuna_points import NumberedPoints, sampler_of, suggest
from metarl.sweeps.same_sweep import require_same
from metarl.sweeps.sweep import Sweep

JOURNAL = "journal.log"
CLAIMS = ".claims"


class Study:
    """The journal in a sweep's folder."""

    def __init__(self, sweep: Sweep, folder: Path, command: str = ""):
        """Join the folder's sweep, or begin it; UsageError if the folder holds another sweep.

        command: identifier of the command that this process works for; empty: it is one of its own.
        """
        self.sweep = sweep
        self.folder = folder
        self.command = command or uuid.uuid4().hex
        require_same(sweep, folder)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Optuna's lock by symbolic link spins where the journal's absolute path is another on the other machine.
        with self._alone():
            _mend(folder / JOURNAL)
            try:
                storage = JournalStorage(_Journal(folder / JOURNAL))
            except (ValueError, KeyError, AssertionError) as error:
                raise UsageError(f"{folder / JOURNAL} is damaged ({describe(error)}); move the folder away") from error
            self.study = optuna.create_study(
                study_name="sweep", storage=storage, direction="maximize", load_if_exists=True, pruner=_pruner(sweep)
            )

    def trials(self) -> list[FrozenTrial]:
        """Return every trial, by number."""
        return self.study.get_trials(deepcopy=False)

    @property
    def claims(self) -> Path:
        """Folder of the claims."""
        return self.folder / CLAIMS

    def directory(self, number: int) -> Path:
        """Return the run folder of a variant."""
        return self.folder / folder_name(number)

    def has_folder(self, variant: Variant) -> bool:
        """Return whether the run folder of a variant is there; the journal keeps its numbers without it."""
        return self.directory(variant.number).is_dir()

    def next(self) -> tuple[optuna.Trial, sweep_claims.Claim] | None:
        """Claim a variant that no process trains: one that was left, or a new one; None if there is none.

        Last come those at which processes died again and again: they may have been killed, or one may take its process
        with it, and then the others are done.
        """
        left = [frozen for frozen in self.trials() if frozen.state == TrialState.RUNNING]
        last = [frozen for frozen in left if self.deaths(frozen.number) >= sweep_claims.DEATHS]
        return self._left(frozen for frozen in left if frozen not in last) or self._new() or self._left(last)

    def deaths(self, number: int, command: str | None = None) -> int:
        """Return how many processes died at a variant's last checkpoint. command: count those of this one alone."""
        return sweep_claims.deaths(self.claims, number, self.iteration(number), command)

    def _left(self, trials: Iterable[FrozenTrial]) -> tuple[optuna.Trial, sweep_claims.Claim] | None:
        """Claim one of these variants, which were left; None if processes train them all."""
        for frozen in trials:
            if claim := self._claim(frozen.number):
                if self._open(frozen.number):
                    return optuna.Trial(self.study, frozen._trial_id), claim
                claim.release()  # it ended between the two looks
        return None

    def _new(self) -> tuple[optuna.Trial, sweep_claims.Claim] | None:
        """Claim a new variant; None if the sweep has as many as it is to have."""
        while True:
            with self._alone():
                if len(self.trials()) >= self.sweep.trials:
                    return None
                self.study.sampler = NumberedPoints(self.sweep)  # takes nothing from the generators of others
                trial = self.study.ask()
            if trial.number >= self.sweep.trials:  # two machines that do not see each other's locks
                self.fail(trial, "one more than the sweep has")
            elif claim := self._claim(trial.number):
                return trial, claim

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Return the point of a trial; values that were suggested before its process died stay."""
        self.study.sampler = sampler_of(self.sweep, trial.number)
        return suggest(trial, self.sweep)

    def finish(self, trial: optuna.Trial, value: float, attributes: Mapping[str, Any]) -> None:
        """Record the objective and the attributes of a trial."""
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
        """Return the iteration of a variant's last checkpoint; 0 without one."""
        return iteration_reached(self.directory(number))

    def holder(self, number: int) -> dict[str, Any] | None:
        """Return the record of the living process that trains a variant; None if there is none."""
        return sweep_claims.running(self.claims, number)

    def _claim(self, number: int) -> sweep_claims.Claim | None:
        return sweep_claims.claim(self.claims, number, self.iteration(number), self.command)

    def _open(self, number: int) -> bool:
        return self.trials()[number].state == TrialState.RUNNING

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Exclude the other processes of this machine; the kernel ends that with the process."""
        with append(self.folder / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def iteration_reached(directory: Path) -> int:
    """Return the iteration of the last checkpoint in a run folder; 0 without one."""
    paths = CheckpointStore(directory / CHECKPOINTS).paths()
    return iteration_of(paths[-1]) if paths else 0


class _Journal(JournalFileBackend):
    """A journal that goes on where another process left a line unfinished."""

    def __init__(self, path: Path):
        super().__init__(str(path), JournalFileOpenLock(str(path)))
        self._journal = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        _mend(self._journal)
        super().append_logs(logs)


def _mend(journal: Path) -> None:
    """Cut off a last line that a kill or a full disk left unfinished: a line appended to it would be lost with it."""
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
        first = max(p.warmup, check_every(sweep, sweep.base))
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=p.reduction)
    return optuna.pruners.NopPruner()
