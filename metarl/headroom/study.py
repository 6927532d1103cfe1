"""A headroom study in its folder: what is trained, by any number of processes, and what is there already."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import signal
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from metarl.bounds import lacking, names_without_effect
from metarl.config import (
    CONFIG,
    RunConfig,
    TrainingSettings,
    config_to_dict,
    file_settings,
    files_of,
    map_files,
    read_run_config,
    with_settings,
)
from metarl.envs.family import TaskFamily
from metarl.errors import RunError, UsageError, describe, usage_errors
from metarl.evaluation.compare import checked_family
from metarl.files import append, make_folder, plain, write
from metarl.headroom.arms import ARMS, MEMORY, ORACLE, TEACHER, Arm, config_of
from metarl.headroom.records import JudgedRecord, differences, path_of, read_record
from metarl.reporting.headroom_report import RESET
from metarl.runs import claims
from metarl.runs.entries import content, files_by_content
from metarl.runs.failures import is_of_machine, keep_traceback
from metarl.runs.interrupt import Stop, stop_on_signals
from metarl.runs.occupied import STUDY
from metarl.runs.parts import parts_by_content
from metarl.runs.progress import duration
from metarl.runs.run import Run, load_run, start_run
from metarl.runs.tracking import read_metrics
from metarl.training.finished import finished_run
from metarl.training.loop import train
from metarl.wording import number_of

LOG = "output.log"
"""File in a run's folder with the output of its training."""
FAILED = "failed"
"""Subfolder of a study's folder with the messages of the runs that failed in the last command, one file for each."""
WAIT_S = 5.0
"""Time between two looks at whether another process has trained a teacher."""
UNCOUNTED = tuple(f"training.{name}" for name in names_without_effect(TrainingSettings))
"""Settings of all arms that change no number: they may be others when a study is gone on with."""
RESET_EPISODE = "_reset_episode"
"""The same, before every episode."""


@dataclass(frozen=True)
class Study:
    """What is trained and judged, and where."""

    folder: Path
    """Folder of all runs of the study."""
    base: RunConfig
    """Configuration with the family, the evaluation and the tracking of all arms."""
    arms: Sequence[Arm]
    """The teacher is added to them where one is needed that is not the oracle."""
    given: Mapping[str, Any]
    """Settings by dotted name that all arms are given."""
    budget: float
    """Env steps of each run, but of those whose arm has its own."""
    seeds: Sequence[int]
    """Training seeds."""
    threads: int = 1
    """Threads of each run."""

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two arms are called {name!r}; give one a label: --arms {name} {name}:...,label=NAME")
        if TEACHER in map(self.teacher_of, self.arms) and TEACHER not in names:
            object.__setattr__(self, "arms", (*self.arms, ARMS[TEACHER]))
            names.append(TEACHER)
        for arm in self.arms:
            for other in filter(None, (self.teacher_of(arm), arm.judged_from)):
                if other not in names:
                    raise UsageError(f"arm {arm.name} needs the runs of arm {other}; add it to --arms")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise UsageError(f"--seeds is {' '.join(map(str, self.seeds))}; give each seed once, none below 0")
        if self.budget < 1:
            raise UsageError(f"--budget is {self.budget:g}; it is the number of env steps of each run, at least 1")

    @functools.cached_property
    def family(self) -> TaskFamily:
        """The family that all arms meet; UsageError if its settings are wrong."""
        return checked_family(self.base)

    @property
    def jobs(self) -> list[tuple[Arm, int]]:
        """Arm and seed of each run: teachers before those that they teach, all arms of a seed before the next seed."""
        trained = [arm for arm in self.arms if not arm.judged_from]
        return [(arm, seed) for seed in self.seeds for arm in sorted(trained, key=lambda arm: bool(arm.taught_by))]

    def teacher_of(self, arm: Arm) -> str:
        """Return the arm that teaches an arm; empty: none.

        An oracle that met the tasks to be judged on must not, and need not where `teacher` is an arm with a budget of
        its own.
        """
        apart = self.also_split != "none" or any(own.name == TEACHER for own in self.arms)
        return TEACHER if arm.taught_by == ORACLE and apart else arm.taught_by

    def run_of(self, arm: str, seed: int) -> Path:
        """Return the folder of a run."""
        return self.folder / f"{arm}_seed{seed}"

    def config(self, arm: Arm, seed: int) -> RunConfig:
        """Return the configuration of a run."""
        if self.family.changing and "training.adaptations" in arm.settings:  # what comes late is met in whole trials
            whole = {"training.adaptations": self.base.evaluation.adaptations}
            arm = replace(arm, settings={**arm.settings, **whole})
        config = config_of(arm, self.base, self.given, self.budget, self.family.horizon)
        teacher = self.teacher_of(arm)
        taught = {"agent.teacher": str(self.run_of(teacher, seed).absolute())} if teacher else {}
        also = {"training.also_split": self.also_split} if arm.name == ORACLE else {}
        return with_settings(config, {**taught, **also, "training.seed": seed, "training.threads": self.threads})

    def config_of_begun(self, arm: Arm, seed: int) -> RunConfig:
        """Return the configuration of a run that was begun, to go on with.

        It is the run's own, but for what the study says now of settings that change no number, and of where its teacher
        is.
        """
        own, now = read_run_config(self.run_of(arm.name, seed)), self.config(arm, seed)
        sections = {
            name: replace(getattr(own, name), **_free(getattr(now, name))) for name in ("training", "agent", "tracking")
        }
        return replace(own, **sections)

    @functools.cached_property
    def also_split(self) -> str:
        """Split that the oracle meets in training too: that of the evaluation, if it has what training lacks.

        What can be reached with a leg that fails in no other training task is known to an oracle that met it.
        """
        split = self.base.evaluation.split
        unmet = any(set(p.categories_of([split])) - set(p.categories) for p in self.family.parameters)
        return split if split == "ood" or unmet else "none"

    def record(self) -> None:
        """Write down what is trained; UsageError if the folder holds another study."""
        for arm in self.arms:
            with usage_errors(f"arm {arm.name}"):
                self.config(arm, self.seeds[0]).validate()
        whole = self._what()
        whole["arms"] = self.recorded().get("arms", {}) | whole["arms"]
        self.require_records()
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / STUDY, (json.dumps(whole, indent=1) + "\n").encode())

    def recorded(self) -> dict[str, Any]:
        """Return what the folder says is trained, nothing if it says nothing; UsageError if that is another study.

        A setting of the family that it does not name came with a later version of metarl: it has the value that such a
        run had before, or its default.
        """
        path, own, kind = self.folder / STUDY, self._what(), type(self.base.family)
        defaults = config_to_dict(replace(self.base, family=kind()))["family"]
        if not path.is_file():
            return {}
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            arms, family, parts = own.pop("arms"), own.pop("family"), own.pop("parts")
            then = lacking(kind, before["family"], saved=True)
            theirs = plain(defaults | then) | before["family"]
            theirs |= {name: family[name] for name in self._files_by_path(before["family"], family)}
            differ = differences(theirs, family, "family") + differences(before.get("parts", {}), parts)
            differ += differences({name: before[name] for name in own} | _counted(before), own)
            differ += [f"arm {name}" for name in arms if before["arms"].get(name, arms[name]) != arms[name]]
            added, left_out = TEACHER not in before["arms"], TEACHER not in arms
            if added != left_out and (added or "budget" in before["arms"][TEACHER]):
                pupils = [arm.name for arm in self.arms if arm.taught_by == ORACLE and arm.name in before["arms"]]
                differ += [f"teacher of {name}" for name in pupils]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(f"{path} is not a study's record; choose another folder with --name") from None
        if differ:
            raise UsageError(
                f"{self.folder} holds a study with another {', another '.join(differ)}; give the settings that it was "
                "started with, or choose another folder with --name"
            )
        return before

    def _what(self) -> dict[str, Any]:
        """Return what is trained, as plain values."""
        return {
            "family": plain(config_to_dict(files_by_content(self.base))["family"]),
            "parts": self._parts,
            "budget": self.budget,
            **_counted({"given": plain(dict(self.given))}),
            "arms": {arm.name: _said_of(arm) for arm in self.arms},
        }

    @functools.cached_property
    def _parts(self) -> dict[str, str]:
        """What the files hold that the family's files name; older records lack it."""
        return parts_by_content(files_of(self.base))

    def _files_by_path(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
        """Return the settings whose files a record names by their path, as older versions did, and are called so still.

        Which files they were, the judged records say.
        """
        names = [name for name in file_settings(self.base.family) if "(" not in before.get(name, "")]
        return [name for name in names if now[name].partition(" (")[0] == Path(before.get(name, "")).name]

    def failures(self) -> dict[str, str]:
        """Return the message of each run that failed since the study was last started, by the run's name."""
        found = {}
        for arm, seed in self.jobs:
            with contextlib.suppress(FileNotFoundError):
                found[self.run_of(arm.name, seed).name] = self._failure(arm, seed).read_text(encoding="utf-8")
        return found

    def has_failed(self, arm: Arm, seed: int) -> bool:
        """Return whether a run failed since the study was last started."""
        return self._failure(arm, seed).is_file()

    def fail(self, arm: Arm, seed: int, message: str) -> None:
        """Record that a run failed, and why; RunError if the disk refuses."""
        make_folder(self.folder / FAILED, "--runs-dir")
        write(self._failure(arm, seed), message.encode())

    def forget_failures(self) -> None:
        """Let the runs that failed be tried again."""
        for arm, seed in self.jobs:
            self._failure(arm, seed).unlink(missing_ok=True)

    def _failure(self, arm: Arm, seed: int) -> Path:
        return self.folder / FAILED / f"{self.run_of(arm.name, seed).name}.txt"

    def standing(self) -> tuple[list[tuple[Arm, int]], list[tuple[Arm, int]]]:
        """Return the jobs that are done, and those that are left."""
        done = [job for job in self.jobs if self.is_done(job[0].name, job[1])]
        return done, [job for job in self.jobs if job not in done]

    def has_run(self, arm: str, seed: int) -> bool:
        """Return whether the folder of a run is here, trained or not."""
        return (self.run_of(arm, seed) / CONFIG).is_file()

    def by_record(self, arm: str, seed: int) -> bool:
        """Return whether a run is here by its judged record alone: it was trained elsewhere, and is not again."""
        return path_of(self.folder, arm, seed).is_file() and not self.has_run(arm, seed)

    def is_done(self, arm: str, seed: int) -> bool:
        """Return whether a run is trained and evaluated, here or elsewhere."""
        if not self.has_run(arm, seed):
            return self.by_record(arm, seed)
        directory, record = self.run_of(arm, seed), read_record(path_of(self.folder, arm, seed))
        if record is not None and not record.differences_of_run(directory):
            return True  # only finished runs are judged
        return finished_run(directory, read_run_config(directory)) is not None

    def ways(self) -> list[Way]:
        """Return in which ways the agents are judged: those that remember with their memory reset too."""
        found = []
        for arm in self.arms:
            found.append(Way(arm.name, arm, dict(arm.settings) if arm.judged_from else {}))
            if arm.remembers:
                found.append(Way(arm.name + RESET, arm, {"evaluation.reset_memory": "step"}))
            if arm.name == MEMORY and self.base.evaluation.adaptations:  # a trial of one episode is as if not reset
                found.append(Way(arm.name + RESET_EPISODE, arm, {"evaluation.reset_memory": "episode"}))
        return found

    def key_of(self, arm: Arm) -> dict[str, Any]:
        """Return what the study says of an arm, in its judged records; files count by what they hold."""
        what = self._what() | {"family": plain(config_to_dict(map_files(self.base, _held))["family"])}
        return {**what, "arm": what.pop("arms")[arm.name]}

    def record_of(self, way: Way, seed: int) -> JudgedRecord | None:
        """Return the judged record of a run, None if there is none; UsageError if it is damaged or another study's."""
        path = path_of(self.folder, way.label, seed)
        record = read_record(path)
        if record is None:
            return None
        if (record.label, record.seed) != (way.label, seed):
            raise UsageError(f"{path} is the record of {record.label}_seed{record.seed}; give it its own name back")
        if differ := differences(_with_its_budget(record.key.study), _with_its_budget(self.key_of(way.arm))):
            raise UsageError(
                f"{path} is a record of another study, with another {', another '.join(differ)}; remove it, give the "
                "settings that it was made with, or choose another folder with --name"
            )
        self._require_its_teacher(record, way.arm, path)
        return record

    def _require_its_teacher(self, record: JudgedRecord, arm: Arm, path: Path) -> None:
        """Raise UsageError for a record of a pupil beside that of another teacher."""
        teacher = "" if arm.judged_from else self.teacher_of(arm)
        theirs = read_record(path_of(self.folder, teacher, record.seed)) if teacher and len(record.cost) > 1 else None
        if theirs is not None and theirs.cost[0].env_steps != record.cost[1].env_steps:
            raise UsageError(
                f"{path} is the record of a pupil whose teacher had {record.cost[1].env_steps:,} env steps, and that "
                f"of {teacher}_seed{record.seed} beside it has {theirs.cost[0].env_steps:,}; copy that of its own"
            )

    def require_records(self) -> None:
        """Raise UsageError if a judged record is damaged or another study's."""
        for way in self.ways():
            for seed in self.seeds:
                self.record_of(way, seed)


def _free(settings: Any) -> dict[str, Any]:
    """Return the settings of a section that a run need not have been begun with: they change no number, or only say
    where another run is."""
    free = ("changes_no_number", "other_run")
    return {f.name: getattr(settings, f.name) for f in fields(settings) if any(map(f.metadata.get, free))}


def _counted(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a study says it was given, but for what changes no number, which older versions wrote down too."""
    return {"given": {name: value for name, value in said["given"].items() if name not in UNCOUNTED}}


def _with_its_budget(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a study says of an arm with the arm's own budget: that of others is nothing to its runs."""
    arm = dict(said.get("arm") or {})
    said = {**said, **(_counted(said) if isinstance(said.get("given"), Mapping) else {})}
    return {**said, "budget": arm.pop("budget", said.get("budget")), "arm": arm}


def _said_of(arm: Arm) -> dict[str, Any]:
    """Return what a study's record says of an arm."""
    own = {"budget": arm.budget} if arm.budget else {}
    return {"agent": arm.agent, "settings": plain(dict(arm.settings)), **own}


def _held(file: str) -> str:
    """Return what a file of a family holds, as a digest; of `FILE.py:FUNCTION` with the function's name."""
    path, code, function = file.partition(".py:")
    return f"{content(path + '.py')}:{function}" if code else content(file)


@dataclass(frozen=True)
class Way:
    """One way in which the runs of an arm are judged."""

    label: str
    """Name in tables."""
    arm: Arm
    overrides: dict[str, Any]
    """Settings of the agent and of the evaluation by dotted name."""

    @property
    def runs(self) -> str:
        """Arm whose runs they are."""
        return self.arm.judged_from or self.arm.name


def work(study: Study, stop: Stop, say: Callable[[str], None]) -> bool:
    """Train runs until none is left that no other process has; return whether it was not stopped before.

    A run whose teacher another process trains is waited for. A run that is here by its judged record alone is done. A
    run that diverges or is refused is recorded as failed, as are those that it was to teach, and the others go on; a
    fault of the machine, such as a full disk, is raised.
    """
    untaught = set()
    while True:
        trained = waits = False
        for arm, seed in study.jobs:
            if stop.now():
                return False
            if study.is_done(arm.name, seed) or study.has_failed(arm, seed):
                continue
            teacher = study.teacher_of(arm)
            if teacher and study.by_record(teacher, seed):
                name, other = (study.run_of(run, seed).name for run in (arm.name, teacher))
                if name not in untaught:
                    say(f"{name}: its teacher {other} is here as a judged record alone; copy its run here to train it")
                untaught.add(name)
                continue
            if teacher and not study.is_done(teacher, seed):
                if (other := study.run_of(teacher, seed).name) in study.failures():
                    _fail(study, arm, seed, f"its teacher {other} failed", say)
                else:
                    waits = True
                continue
            number = zlib.crc32(study.run_of(arm.name, seed).name.encode())  # whatever other arms a command names
            claim = claims.claim(study.folder / "claims", number, 0)
            if claim is None:
                continue
            try:
                if not (study.is_done(arm.name, seed) or study.has_failed(arm, seed)):  # it ended between the two looks
                    _try(study, arm, seed, stop, claim, say)
                trained = True
            finally:
                claim.release()
        if not trained and not waits:
            return not stop.now()
        if not trained:
            time.sleep(WAIT_S)


def _try(study: Study, arm: Arm, seed: int, stop: Stop, claim: claims.Claim, say: Callable[[str], None]) -> None:
    """Train a run; record its failure, unless that is the machine's."""
    try:
        _train(study, arm, seed, stop, claim, say)
    except Exception as error:
        if is_of_machine(error):
            raise  # this run is resumed later
        keep_traceback(error, study.run_of(arm.name, seed))
        _fail(study, arm, seed, describe(error), say)


def _fail(study: Study, arm: Arm, seed: int, message: str, say: Callable[[str], None]) -> None:
    study.fail(arm, seed, message)
    say(f"{study.run_of(arm.name, seed).name}: failed: {message}")


def _train(study: Study, arm: Arm, seed: int, stop: Stop, claim: claims.Claim, say: Callable[[str], None]) -> None:
    """Train a run, or go on with it, with its output in a file of its folder.

    It is left to the process that has claimed it since, as one that was not heard of for long enough.
    """
    directory, began = study.run_of(arm.name, seed), time.monotonic()
    resume = (directory / CONFIG).is_file()
    if not resume:
        if directory.exists():  # its process died while making it
            shutil.rmtree(directory)
        start_run(study.config(arm, seed), study.folder, directory.name)
    config = study.config_of_begun(arm, seed)
    say(f"{directory.name}: {'resumed' if resume else 'started'}, {number_of(config.training.iterations, 'iteration')}")
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(append(directory / LOG))
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        run = train(config, directory, resume, on_iteration=lambda run, metrics: stop.now() or claim.lost())
    if claim.lost() and not stop.now():
        say(f"{directory.name}: another process has taken it over at iteration {run.iteration}")
    elif run.iteration < config.training.iterations:
        stop.requested = True  # a SIGTERM that training saw first
        say(f"{directory.name}: stopped at iteration {run.iteration}; to be resumed")
    else:
        last = read_metrics(directory)[-1]
        say(f"{directory.name}: return {last['return/after']:.4g} in training, {duration(time.monotonic() - began)}")


def probed_oracle(study: Study, budget: float, say: Callable[[str], None]) -> Run | None:
    """Return an oracle that is trained a little, in a folder of its own; None if it was stopped.

    RunError if its training failed.
    """
    short = replace(study, folder=study.folder / "probe", arms=(ARMS[ORACLE],), budget=budget, seeds=study.seeds[:1])
    short.record()
    short.forget_failures()
    with stop_on_signals(signal.SIGINT, signal.SIGTERM) as stop:
        if not work(short, stop, say):
            return None
    for name, message in short.failures().items():
        raise RunError(f"{name} failed: {message}")
    return load_run(short.run_of(ORACLE, short.seeds[0]))
