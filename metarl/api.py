"""The Python API of training: what `metarl train` does, as functions. `import metarl` offers them."""

from __future__ import annotations

from pathlib import Path

from metarl import training
from metarl.config import RunConfig, preset, read_run_config
from metarl.evaluation import evaluate
from metarl.run import Run, start_run


def train(config: RunConfig | None = None, name: str | None = None, runs_dir: str | Path = "runs") -> Run:
    """Meta-train in a new folder of `runs_dir`, then evaluate; without a configuration, the main job.

    UsageError (a ValueError) for values out of range; RunError if the disk refuses.
    """
    config = config or preset()
    return run_to_end(config, start_run(config, Path(runs_dir), name), resumed=False)


def resume(directory: str | Path) -> Run:
    """Go on with a run from its last checkpoint, up to `training.iterations` of its config.yaml, then evaluate."""
    return run_to_end(read_run_config(Path(directory)), Path(directory), resumed=True)


def run_to_end(config: RunConfig, directory: Path, resumed: bool) -> Run:
    """Train in a run's folder and evaluate what came of it, unless a SIGTERM ended the run before."""
    run = training.train(config, directory, resume=resumed)
    if run.iteration >= config.training.iterations:
        evaluate(run)
    return run
