"""`metarl headroom`: how much adaptation can gain on a family, and how much of it agents recover."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarl.cli.arguments import Arguments, meant_elsewhere, whole
from metarl.cli.invocation import Invocation
from metarl.cli.selection import FAMILY_OPTIONS, chosen_family
from metarl.config import EvaluationSettings, RunConfig, options, require_faults, with_settings
from metarl.errors import RunError, UsageError, nearest, usage_errors
from metarl.options import coerce, flag, value_of
from metarl.wording import number_of

if TYPE_CHECKING:
    from metarl.headroom.study import Study
    from metarl.runs.interrupt import Stop

HELP = """usage: metarl headroom FAMILY [--budget ENV_STEPS] [--seeds S...] [--arms ARM...] [--workers N] [overrides]
       metarl headroom --robot MODEL --family FILE.yaml ...
       metarl headroom --env FILE.py:FUNCTION ...
       metarl headroom FAMILY --probe [overrides]
       metarl headroom FAMILY --report

Train agents on a family with the same env steps and seeds, from a policy that is told nothing to an oracle that is told
the task; judge them on the same tasks, each that remembers with its memory reset too; and say how much adaptation can
gain at most (headroom: oracle - randomised) and what each agent recovers of it. A robot that falls is placed anew
(training.lives, evaluation.lives). The same command, started again here or on another machine that shares the folder,
joins or resumes the study. Ctrl-C stops it after the current iteration. A run that fails (it diverges, say) is left
out: the others are trained and judged, the exit status is 1, and the same command tries the run again from its last
checkpoint, or anew without its folder.

Each run that is judged leaves a small record in the folder judged/ of the study, and is not judged again with the same
settings. study.json and judged/ are enough for --report: copy the records of a study that ran on several machines into
one folder. A run whose record is there and whose own folder is not counts as done.

  --budget N         env steps of each run (3e6)
  --seeds S...       training seeds (1 2 3)
  --arms ARM...      arms to train ({core};
                     distilled and teacher with half of the budget each);
                     ARM:agent.SETTING=VALUE,budget=ENV_STEPS,label=NAME changes one. Others:
{others}
  --workers N        processes on this machine, each with one run at a time (1)
  --threads N        threads of each run (the CPU cores divided by the workers)
  --name NAME        name of the study's folder in RUNS_DIR (headroom_FAMILY)
  --runs-dir DIR     folder of all runs (runs)
  --report           judge the runs that are done, and train nothing
  --probe            before any study, in minutes: train an oracle for --probe-budget env steps (5e5), and say how far
                     telling it another task moves its actions, by parameter

Overrides are settings of all arms: family.SETTING, training.SETTING, evaluation.SETTING, tracking.SETTING.
"""
OPTIONS = ("budget", "workers", "threads", "name", "runs_dir", "probe_budget", "worker", *FAMILY_OPTIONS)
LISTED = ("seeds", "arms")
SWITCHES = ("--report", "--probe")
SECTIONS = ("family.", "training.", "evaluation.", "tracking.")
SET_BY_THE_STUDY = (
    "training.iterations",
    "training.seed",
    "training.threads",
    "training.reveal_task",
    "training.also_split",
)
"""Settings that the study sets itself."""
STOPPED = 128 + signal.SIGTERM
"""Exit status of a study that was stopped: nobody takes it for finished."""


@dataclass(frozen=True)
class Request:
    """The arguments of the command, checked."""

    base: RunConfig
    """Family, evaluation and tracking of all arms."""
    given: dict[str, Any]
    """Settings of all arms by dotted name."""
    arms: Sequence[str]
    seeds: Sequence[int]
    plain: dict[str, str]
    """Values of the other options, as typed."""
    switched: frozenset[str]
    """Switches that are given."""

    def number(self, name: str, default: int) -> int:
        """Return the value of an option that is a whole number."""
        return whole(self.plain[name], flag(name)) if name in self.plain else default


def parse(arguments: list[str]) -> Request | None:
    """Check the arguments; None after --help."""
    switched = frozenset(token for token in arguments if token in SWITCHES)
    given = Arguments.split(_joined([token for token in arguments if token not in SWITCHES]))
    if given.help:
        from metarl.headroom.arms import ARMS, CORE

        indent = " " * 21
        others = " ".join(name for name in ARMS if name not in CORE)
        others = textwrap.fill(others, 120, initial_indent=indent, subsequent_indent=indent)
        print(HELP.format(core=" ".join(CORE), others=others), end="")
        return None
    plain, lists = given.take(OPTIONS), given.take(LISTED)
    if len(switched) > 1 or (switched and "workers" in plain):
        both = " and ".join([*sorted(switched), *(["--workers"] if "workers" in plain else [])])
        raise UsageError(f"{both} do not go together: each switch does one thing, in one process; give one of them")
    names = given.positionals
    if len(names) + ("family" in plain) + ("env" in plain) != 1:
        got = f", got {' '.join(names)}" if names else ""
        raise UsageError(
            f"metarl headroom takes the name of one family (metarl headroom half_cheetah_mass){got}; for your own "
            "robot give --robot MODEL --family FILE.yaml, for your own environment --env FILE.py:FUNCTION"
        )
    family = chosen_family(plain if "family" in plain or "env" in plain else {**plain, "family": names[0]})
    evaluation = EvaluationSettings(envs_per_task=1, adaptations=1, explore=False, train_gap=False, lives=True)
    base = RunConfig(family=family, evaluation=evaluation)
    types = {name: kind for name, kind in options(base).items() if name.startswith(SECTIONS)}
    values: dict[str, Any] = {}
    for name, tokens in given.options.items():
        if name not in types:
            known = [flag(n) for n in (*OPTIONS, *LISTED, *types) if n != "worker"]
            hint = meant_elsewhere(name, list(types)) or nearest(flag(name), [*known, *SWITCHES])
            raise UsageError(f"unknown option {flag(name)}{hint}")
        if name in SET_BY_THE_STUDY:
            raise UsageError(f"{flag(name)} is set by the study; see --budget, --seeds, --threads and --arms")
        values[name] = value_of(name, tokens, types[name])
    base = with_settings(base, {name: value for name, value in values.items() if not name.startswith("training.")})
    require_faults(values, base.family, flag)
    base.validate()
    training = {name: value for name, value in values.items() if name.startswith("training.")}
    seeds = [whole(text, "--seeds", 0) for text in lists.get("seeds", "1 2 3").split()]
    return Request(base, training, lists.get("arms", "").split(), seeds, plain, switched)


def _joined(tokens: list[str]) -> list[str]:
    """Return the tokens with the values of --seeds and --arms joined by spaces."""
    result: list[str] = []
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        name, equals, value = token.partition("=")
        if name in ("--seeds", "--arms"):
            values = [value] if equals else []
            while not equals and rest and not rest[0].startswith("--") and not _is_setting(rest[0]):
                values.append(rest.pop(0))
            token = f"{name}={' '.join(values)}"
        result.append(token)
    return result


def _is_setting(token: str) -> bool:
    return token.startswith(SECTIONS) and "=" in token


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    request = parse(arguments)
    if request is None:
        return 0
    from metarl.headroom.judging import judge_and_save
    from metarl.headroom.study import work
    from metarl.provenance import cores
    from metarl.runs.interrupt import stop_on_signals

    workers = request.number("workers", 1)
    threads = request.number("threads", max(1, cores() // workers))
    study = _study(request, threads)
    if "--probe" in request.switched:
        return _probe(study, request)
    parent = request.number("worker", 0)
    if parent and parent != os.getppid():  # only a study starts workers
        raise UsageError(f"unknown option --worker{nearest('--worker', ['--workers'])}")
    if "--report" in request.switched:
        study.recorded()
    else:
        study.record()
        if not parent:
            study.forget_failures()
            done, left = study.standing()
            print(f"study {study.folder}: {len(done) + len(left)} runs, {len(done)} done", flush=True)
            if alone := [f"{arm.name}_seed{seed}" for arm, seed in done if study.by_record(arm.name, seed)]:
                print(f"judged records without their runs, not trained again: {', '.join(alone)}", flush=True)
        with stop_on_signals(signal.SIGINT, signal.SIGTERM, parent=parent) as stop:
            if workers > 1:
                if status := _several(arguments, workers, threads, stop):
                    return _stopped(status)
            elif not work(study, stop, lambda line: print(line, flush=True)):
                return STOPPED if parent else _stopped(STOPPED)
        if parent:
            return 0
        if left := [job for job in study.standing()[1] if not study.has_failed(*job)]:
            print(f"{len(left)} runs are still training elsewhere; when they end, start this command with --report")
            return _failed(study)
    judge_and_save(study, lambda line: print(line, flush=True))
    return 0 if "--report" in request.switched else _failed(study)


def _failed(study: Study) -> int:
    """Return the exit status of a study whose runs have ended: 1 if some failed, which it says."""
    failures = study.failures()
    if failures:
        number = number_of(len(failures), "run")
        print(f"{number} failed: {', '.join(failures)}; start the same command again to try again", flush=True)
    return int(bool(failures))


def _study(request: Request, threads: int) -> Study:
    from metarl.evaluation.compare import checked_family
    from metarl.headroom.arms import core_arms, read_arm
    from metarl.headroom.study import Study
    from metarl.runs.occupied import STUDY, require_unoccupied

    name = request.plain.get("name", f"headroom_{request.base.family_name}")
    folder = Path(request.plain.get("runs_dir", "runs")) / name
    require_unoccupied(folder, STUDY, "choose another --name, or another --runs-dir")
    budget = coerce(request.plain.get("budget", "3e6"), float, "--budget")
    arms = [read_arm(text) for text in request.arms] or core_arms(budget)
    base = request.base
    with usage_errors("family"):
        falls = checked_family(base).can_fall
    given = {"training.lives": falls, **request.given}
    evaluation = dataclasses.replace(base.evaluation, lives=base.evaluation.lives and falls)
    tracking = dataclasses.replace(base.tracking, group=base.tracking.group or name)
    base = dataclasses.replace(base, evaluation=evaluation, tracking=tracking)
    return Study(folder, base, arms, given, budget, request.seeds, threads)


def _several(arguments: list[str], workers: int, threads: int, stop: Stop) -> int:
    """Start worker processes, wait for them, and return the first exit status that is not 0."""
    from metarl.runs.workers import wait_for

    command = [sys.executable, "-m", "metarl", "headroom", *_without_workers(arguments), "--threads", str(threads)]
    command += ["--worker", str(os.getpid())]
    # A process group of their own: Ctrl-C reaches them once, as a SIGTERM from here.
    return wait_for([subprocess.Popen(command, start_new_session=True) for _ in range(workers)], stop)


def _without_workers(arguments: list[str]) -> list[str]:
    """Return the arguments without --workers, --threads and their values."""
    result, skip = [], False
    for token in arguments:
        name, equals, _ = token.partition("=")
        if skip:
            skip = False
        elif name in ("--workers", "--threads"):
            skip = not equals
        else:
            result.append(token)
    return result


def _stopped(status: int) -> int:
    if status == STOPPED:
        print("stopped; start the same command again to resume", flush=True)
    return status


def _probe(study: Study, request: Request) -> int:
    from metarl.headroom.probe import probe, words
    from metarl.headroom.study import probed_oracle

    budget = coerce(request.plain.get("probe_budget", "5e5"), float, "--probe-budget")
    oracle = probed_oracle(study, budget, lambda line: print(line, flush=True))
    if oracle is None:
        raise RunError("stopped; start the same command again to resume")
    met = oracle.config.training.splits
    for line in words(probe(oracle.agent, oracle.family, study.seeds[0], study.threads, met)):
        print(line)
    return 0
