"""Runs that are finished: trained, evaluated and drawn."""

from __future__ import annotations

from pathlib import Path

from metarl.config import RunConfig, read_run_config
from metarl.envs.text import typed
from metarl.reporting.evaluation_files import has_pictures
from metarl.runs.checkpoint import CheckpointError, CheckpointStore, iteration_of
from metarl.runs.run import CHECKPOINTS, Run, load_run


def finished_run(directory: Path, config: RunConfig) -> Run | None:
    """Return the run if it is trained, evaluated and has its pictures; None if there is something left to do.

    config: the run's own, with the settings that were changed for the resumption.
    """
    paths = CheckpointStore(directory / CHECKPOINTS).paths()
    if not paths or (iteration := iteration_of(paths[-1])) < config.training.iterations:
        return None
    if not any(directory.glob(f"evaluation/*_{paths[-1].stem.replace('_', '')}*.json")):  # it was killed before
        return None
    if not has_pictures(directory, read_run_config(directory).evaluation, iteration):
        return None
    try:
        run = load_run(directory, paths[-1], config.training.device)
    except CheckpointError:  # training says what is wrong with it, and may have an older one
        return None
    return run if run.iteration >= config.training.iterations else None


def finished_words(run: Run) -> str:
    """Return the message that a run is finished, and how to train it further."""
    return (
        f"{run.directory} is finished, at iteration {run.iteration}, and is left as it is; train it further by: metarl "
        f"train --resume {typed(run.directory)} training.iterations={2 * run.iteration}"
    )
