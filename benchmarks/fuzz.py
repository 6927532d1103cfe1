"""A fuzzer of the command line: `make fuzz`, or `python -m benchmarks.fuzz --inputs 1000 --seed 1`.

Each input is a command line with files, run in a process of its own with little memory and time. It must end with exit
code 0, 1 or 2, at once, with one line of bounded length where it is refused, no fault that was not expected, nothing
that a terminal obeys, and nothing written outside of its folder. The same seed makes the same inputs.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import re
import resource
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", WANDB_MODE="disabled")

# Before the forks, so that each input takes a blink.
import matplotlib.pyplot  # noqa: F401
import mujoco  # noqa: F401
import onnxruntime  # noqa: F401

from benchmarks.fuzz_inputs import MUTATIONS, PIPE, TINY, Case, Valid, corpus
from metarl.cli import app as cli
from metarl.envs.text import CONTROL
from metarl.errors import LONGEST

SECONDS = 20
"""Of processor time that an input may take; a machine that is busy makes it no slower."""
WALL_S = 120.0
"""After which an input counts as one that waits for something."""
MEMORY = 3 * 2**30
"""Bytes that an input may take beyond what the fuzzer takes."""
LINE = 2000
"""Letters of a line of what is printed where nothing is refused: a table's row is the longest."""
FAULT = re.compile(r"\bunexpected \w+: ")
"""How the command line begins to speak of a fault; YAML says `found unexpected end of stream` of a file that is cut."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
DEVICES = ("/dev/null", "/dev/shm", "/proc/self")
CHANGES = {
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.mkdir": (0,),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "shutil.rmtree": (0,),
}
ASKED = ("git", "uname")
"""Programs that say where a result comes from."""
RUNS = ("os.system", "os.exec", "os.posix_spawn", "pty.spawn")


@dataclass(frozen=True)
class Outcome:
    """What came of an input."""

    status: int
    """The exit code; negative: the signal that it died of."""
    seconds: float
    output: str
    errors: str
    outside: str
    """What it did that reached beyond its folder, a line each."""


def forked(work: Callable[[], int], folder: Path, limited: bool) -> Outcome:
    """Call `work` in a process of its own, in a folder that is its own."""
    began, logs = time.monotonic(), folder.parent
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            status = _child(work, folder, logs, limited)
        finally:
            os._exit(status)
    ended, status = 0, 0
    while not ended:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended and time.monotonic() - began > WALL_S:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.0 if ended else 0.005)
    output, errors, outside = (_read(logs / name) for name in ("output", "errors", "outside"))
    return Outcome(os.waitstatus_to_exitcode(status), time.monotonic() - began, output, errors, outside)


def _read(path: Path) -> str:
    return path.read_bytes()[: 2**24].decode("utf-8", "replace") if path.exists() else ""


def _child(work: Callable[[], int], folder: Path, logs: Path, limited: bool) -> int:
    os.chdir(folder)
    for number, name in ((1, "output"), (2, "errors")):
        os.dup2(os.open(logs / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    tempfile.tempdir = os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(
        logs / "tmp"
    )  # torch may make it when it is imported
    os.environ.update(HOME=str(logs / "tmp"), TMPDIR=str(logs / "tmp"))
    sys.dont_write_bytecode = True  # of what is imported here first
    if limited:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _watch(logs)
    status = work()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _watch(logs: Path) -> None:
    """Write down whatever reaches beyond the folder of the input."""
    report, inside = os.open(logs / "outside", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), str(logs.resolve()) + os.sep

    def check(event: str, path: Any) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            place = os.path.join(
                os.path.realpath(os.path.dirname(os.fsdecode(path)) or "."), os.path.basename(os.fsdecode(path))
            )
            if not place.startswith((inside, *DEVICES)):
                os.write(report, f"{event} {place}\n".encode("utf-8", "backslashreplace"))

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if event == "open" and (set(str(values[1])) & set("wax+") or (values[1] is None and values[2] & WRITES)):
            check(event, values[0])
        elif event in CHANGES:
            for at in CHANGES[event]:
                check(event, values[at])
        elif event.startswith(RUNS) or (event == "subprocess.Popen" and str(values[0]) not in ASKED):
            os.write(report, f"{event} {str(values)[:200]}\n".encode("utf-8", "backslashreplace"))

    sys.addaudithook(hook)


def make_valid(folder: Path) -> Valid:
    """Train and log the small run that inputs are made from."""
    train = [
        "train",
        "--family",
        "point_goal",
        "--runs-dir",
        ".",
        "--name",
        "run",
        "family.horizon=5",
        "agent.hidden_sizes=8",
        *TINY[1:],
    ]
    train += ["training.iterations=2", "training.checkpoint_every=1"]
    made = (
        train,
        ["evaluate", "run", "--log-rollouts", "all", "--no-train-gap"],
        ["adapt", "run", "--rollouts", "all/seed1_task000", "--output", "belief.pt"],
    )
    for arguments in made:
        outcome = forked(lambda arguments=arguments: cli.main(arguments), folder, limited=False)
        assert outcome.status == 0, outcome
    (folder / "all/seed1_task000").rename(folder / "log")
    shutil.rmtree(folder / "all")
    checkpoint = (folder / "run/checkpoints/iteration_000002.pt").read_bytes()
    return Valid(folder / "run", folder / "log", (folder / "belief.pt").read_bytes(), checkpoint)


def cases(valid: Valid, seed: int) -> Callable[[int], Case]:
    """The inputs by number: the corpus first, then mutations, each from a generator of its own."""
    known = corpus()

    def case(number: int) -> Case:
        if number < len(known):
            return known[number]
        rng = random.Random(f"{seed}/{number}")
        return rng.choice(MUTATIONS)(valid, rng)

    return case


def run_case(case: Case, valid: Valid, place: Path) -> Outcome:
    """Run an input in a new folder at that place."""
    shutil.rmtree(place, ignore_errors=True)
    folder = place / "in"
    (place / "tmp").mkdir(parents=True)
    shutil.copytree(valid.run.parent, folder)
    for name, data in case.files.items():
        path = folder / name
        path.unlink(missing_ok=True)
        if data == PIPE:
            os.mkfifo(path)
        else:
            path.write_bytes(data)
    return forked(lambda: cli.main(list(case.arguments)), folder, limited=True)


def judge(case: Case, outcome: Outcome) -> str:
    """What is unexpected about an outcome, in words; empty if nothing is."""
    asked = case.arguments[:2] == ["robot", "check"] and outcome.status == 2 and outcome.output and not outcome.errors
    lines = [line for line in outcome.errors.splitlines() if not line.startswith("warning: ")]
    both = outcome.output + outcome.errors
    if outcome.status < 0:
        return f"died of {signal.Signals(-outcome.status).name} after {outcome.seconds:.1f} s"
    if outcome.status not in (0, 1, 2):
        return f"exit code {outcome.status}"
    if "Traceback (most" in both or FAULT.search(outcome.errors):
        return "a fault that was not expected"
    if outcome.outside:
        return f"reached beyond its folder: {outcome.outside.splitlines()[0]}"
    if CONTROL.search(re.sub("\r\n?", "\n", both)):
        return "something that a terminal obeys"
    if outcome.status and not asked and (len(lines) != 1 or not lines[0].startswith("error: ")):
        return f"{len(lines)} lines in place of one error"
    if outcome.status == 0 and lines:
        return f"a line on stderr that is no warning: {lines[0][:200]}"
    if any(len(line) > LONGEST + len("warning: ") for line in outcome.errors.splitlines()):
        return "a line without bound on stderr"
    if any(len(line) > LINE for line in outcome.output.splitlines()):
        return "a line without bound on stdout"
    return ""


def fuzz(first: int, count: int, seed: int, keep: Path | None = None, say: Callable[[str], None] = print) -> int:
    """Run inputs by number; returns how many were unexpected. keep: folder for what belongs to these."""
    statuses: collections.Counter[tuple[str, int]] = collections.Counter()
    unexpected, slowest = 0, (0.0, "")
    with tempfile.TemporaryDirectory() as home:
        base = Path(home, "base", "in")
        (base.parent / "tmp").mkdir(parents=True)
        base.mkdir()
        valid = make_valid(base)
        make = cases(valid, seed)
        for number in range(first, first + count):
            case, place = make(number), Path(home, "case")
            outcome = run_case(case, valid, place)
            statuses[case.kind, outcome.status] += 1
            slowest = max(slowest, (outcome.seconds, f"{number}: {case.arguments!r:.80}"))
            if problem := judge(case, outcome):
                unexpected += 1
                say(f"input {number} ({case.kind}), metarl {' '.join(map(ascii, case.arguments)):.150}: {problem}")
                say(f"    {outcome.errors[-600:]!r}")
                if keep is not None:
                    shutil.copytree(place, keep / f"{number:05d}", dirs_exist_ok=True, ignore=_pipes)
    for kind in sorted({kind for kind, _ in statuses}):
        say(f"{kind}: " + ", ".join(f"{n} with {s}" for (k, s), n in sorted(statuses.items()) if k == kind))
    say(f"{count} inputs of seed {seed}: {unexpected} unexpected; the slowest took {slowest[0]:.1f} s ({slowest[1]})")
    return unexpected


def _pipes(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if stat.S_ISFIFO(os.lstat(os.path.join(folder, name)).st_mode)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the files of unexpected ones")
    given = parser.parse_args()
    sys.exit(fuzz(given.first, given.inputs, given.seed, given.keep) > 0)
