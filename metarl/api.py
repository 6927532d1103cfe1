"""The Python API of training: what `metarl train` does, as functions. `import metarl` offers them."""

from __future__ import annotations

from pathlib import Path

from metarl import training
from metarl.config import RunConfig, preset, read_run_config
from metarl.run import Run, start_run


def train(config: RunConfig | None = None, name: str | None = None, runs_dir: str | Path = "runs") -> Run:
    """Meta-train in a new folder of `runs_dir`, then evaluate; without a configuration, the main job.

    UsageError (a ValueError) for values out of range; RunError if the disk refuses.
    """
    config = config or preset()
    return training.train(config, start_run(config, Path(runs_dir), name))


def resume(directory: str | Path) -> Run:
    """Go on with a run from its last checkpoint, up to `training.iterations` of its config.yaml, then evaluate."""
    return training.train(read_run_config(Path(directory)), Path(directory), resume=True)
