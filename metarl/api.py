"""The Python API of training: what `metarl train` does, as functions. `import metarl` offers them."""

from __future__ import annotations

from pathlib import Path

from metarl import training
from metarl.config import RunConfig, preset, read_run_config
from metarl.entries import run_dir
from metarl.run import Run, finished_run, finished_words, start_run


def train(config: RunConfig | None = None, name: str | None = None, runs_dir: str | Path = "runs") -> Run:
    """Meta-train in a new folder of `runs_dir`, then evaluate; without a configuration, the main job.

    UsageError (a ValueError) for values out of range; RunError if the disk refuses.
    """
    config = config or preset()
    return training.train(config, start_run(config, Path(runs_dir), name))


def resume(directory: str | Path) -> Run:
    """Go on with a run from its last checkpoint, up to `training.iterations` of its config.yaml, then evaluate.

    directory: the run's folder, or its bare name where it is in `runs/`. A finished run is returned as it is.
    """
    directory = run_dir(str(directory))
    config = read_run_config(directory)
    if (run := finished_run(directory, config)) is not None:
        print(finished_words(run), flush=True)
        return run
    return training.train(config, directory, resume=True)
