"""Program that torchrun starts to train a variant of a sweep: `python -m metarl.sweeps.in_ranks REQUEST`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import optuna

from metarl.config import read_run_config
from metarl.envs.text import one_line
from metarl.errors import LONGEST, RunError, UsageError, describe
from metarl.files import write
from metarl.runs.run_lock import RunBusy
from metarl.sweeps.attempt import Watch, attempt
from metarl.sweeps.file import load_sweep
from metarl.sweeps.ranks import FAULTS, MACHINE, outcome_file
from metarl.sweeps.study import Study, iteration_reached
from metarl.sweeps.sweep import Sweep
from metarl.sweeps.yardstick import yardstick
from metarl.training.launched import LostRank, join


def main(request: dict[str, Any]) -> NoReturn:
    """Train the variant in this process, together with the others, and end the process."""
    ranks, directory = join(), Path(request["directory"])
    if ranks is None:
        raise UsageError(
            "metarl.sweeps.in_ranks is started by a sweep, through torchrun; start: metarl sweep FILE --ranks K"
        )
    status = 0
    try:
        ranks.require_alike()
        with contextlib.ExitStack() as stack:
            if not ranks.is_first:
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            sweep = load_sweep(Path(request["file"]), request["trials"])
            config = read_run_config(directory)
            config = dataclasses.replace(
                config, training=dataclasses.replace(config.training, threads=request["threads"])
            )
            trial = _trial(sweep, directory.parent, request["number"]) if ranks.is_first else None
            watch = Watch(sweep, yardstick(sweep), trial, _left)
            found = attempt(config, directory, iteration_reached(directory) > 0, watch, ranks)
            if ranks.is_first:
                write(outcome_file(directory), json.dumps(found.to_dict()).encode())
            ranks.from_first(lambda: None)
    except LostRank as error:  # the worker starts them anew
        status, _ = ranks.failed(1, describe(error))
    except Exception as error:
        status, message = ranks.failed(1, describe(error))
        if message:  # of this process, and not of another that failed first
            _record(error, message, directory)
    ranks.leave(status)


def _record(error: Exception, message: str, directory: Path) -> None:
    """Write for the worker why this process failed."""
    kinds = [name for name, cls in FAULTS.items() if isinstance(error, cls)]
    kind = MACHINE if isinstance(error, OSError) or isinstance(error.__cause__, OSError) else [*kinds, "run"][-1]
    kind = "busy" if isinstance(error, RunBusy) else kind
    with contextlib.suppress(RunError):
        if not kinds and kind != MACHINE:
            write(directory / "error.log", "".join(traceback.format_exception(error)).encode())
        write(outcome_file(directory), json.dumps({"failed": kind, "message": one_line(message, LONGEST)}).encode())


def _trial(sweep: Sweep, folder: Path, number: int) -> optuna.Trial:
    study = Study(sweep, folder)
    return optuna.Trial(study.study, study.trials()[number]._trial_id)


def _left() -> bool:
    """Return whether the worker has closed the pipe, or has ended."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
