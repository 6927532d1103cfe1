"""Trains a run, is killed at its n-th change of the run's folder, and goes on as a user would; for one n after another.

A program of its own, `kills.py FOLDER NUMBERS OVERRIDES...`, that forks: what it kills are processes. Changes are what
Python's audit events tell: files that are opened to be written, renamed or removed, folders that are made. NUMBERS:
such as 3,7; 0 stands for all.
"""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot  # noqa: F401  (before the forks)

import metarl.reporting.judge
import metarl.sweeps.worker  # noqa: F401
from metarl.cli import app as cli
from metarl.runs import checkpoint

KILLED = 99
CHANGES = ("os.rename", "os.remove", "os.mkdir")


def forked(work: Callable[[], int]) -> int:
    """The exit status of `work` in a process of its own, which prints nothing."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                status = work()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(n: int, folder: Path, arguments: list[str]) -> int:
    """Run `metarl train`, and end without a word in place of the n-th change in the folder."""
    count = 0

    def hook(event: str, values: tuple) -> None:
        nonlocal count
        writes = event == "open" and (set(str(values[1])) & set("wax+") or (values[1] is None and values[2] & 3))
        if (writes or event in CHANGES) and str(values[0]).startswith(str(folder)):
            count += 1
            if count == n:
                os._exit(KILLED)

    sys.addaudithook(hook)
    return cli.main(arguments)


def best_of(run: Path) -> list:
    """What the last checkpoint, and the best one, say that the best return is; and the latter's iteration."""
    store = checkpoint.CheckpointStore(run / "checkpoints")
    said = store.load("last")[1]["best_return"] if store.paths() else None
    best = store.load("best")[1] if store.has_best() else None
    return [said, best and best["best_return"], best and best["iteration"]]


def main(folder: Path, numbers: list[int], overrides: list[str]) -> None:
    for n in range(1, 1000) if numbers == [0] else numbers:
        run = folder / f"at_{n:03d}"
        train = ["train", "--runs-dir", str(folder), "--name", run.name, *overrides]
        status = forked(lambda n=n, run=run, train=train: killed_at(n, run, train))
        if status != KILLED:
            assert status == 0, status
            break
        before = best_of(run)
        if not (run / "config.yaml").exists():
            shutil.rmtree(run, ignore_errors=True)
            status = forked(lambda train=train: cli.main(train))
        else:
            status = forked(lambda run=run: cli.main(["train", "--resume", str(run)]))
        print(json.dumps({"run": str(run), "status": status, "before": before, "after": best_of(run)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), list(map(int, sys.argv[2].split(","))), sys.argv[3:])
