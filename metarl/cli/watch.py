"""`metarl watch`: a policy live in MuJoCo's viewer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metarl.cli import AGENT_OPTIONS, one_run
from metarl.cli.app import Session, parse_task
from metarl.cli.arguments import Arguments
from metarl.config import options
from metarl.errors import UsageError, usage_errors

OPTIONS: dict[str, Any] = {"belief": str, "task": str, "seed": int, **AGENT_OPTIONS}


@dataclass(frozen=True)
class WatchCommand:
    """Watch a run's policy live in MuJoCo's viewer. Sliders (under Control) are the task's parameters.

    Enter plays the rest of a shot unseen and adapts, Home begins anew, Space pauses.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")] = ""
    """The run's folder."""
    belief: Annotated[str, tyro.conf.arg(metavar="FILE.pt")] = ""
    """What `metarl adapt` saved. Empty: nothing is known of the task at first."""
    task: Annotated[str, tyro.conf.arg(metavar="JSON")] = ""
    """The first task's parameter values, such as '{"target_velocity": 1.5}'. Empty: drawn."""
    split: Annotated[str, tyro.conf.arg(metavar="SPLIT")] = "held_out"
    """Split that the first task is drawn from; not given: the run's evaluation.split."""
    seed: int = 1
    """Draws task, starts and noise; not given: the run's first of evaluation."""
    checkpoint: str = "last"
    """last, best, or a checkpoint file."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Torch device of the agent; not given: the run's."""


def run(arguments: list[str], session: Session) -> int:
    """Run the command."""
    given = Arguments.split(arguments)
    directory, config = one_run(given, WatchCommand(), "metarl watch")
    settings = config.evaluation
    command = WatchCommand(str(directory), split=settings.split, seed=settings.seeds[0], device=config.training.device)
    types = OPTIONS | {"split": options(config)["evaluation.split"]}
    command = given.parse(command, types, (), "metarl watch")
    if command.seed < 0:
        raise UsageError(f"--seed is {command.seed}; it must be at least 0")

    from metarl.deployment import watch
    from metarl.runs.beliefs import load_belief
    from metarl.runs.run import load_run
    from metarl.runs.trial import stream

    watch.require_display()
    session.run_dir = directory
    loaded = load_run(directory, command.checkpoint, command.device)
    belief = load_belief(Path(command.belief), loaded) if command.belief else None
    task = parse_task(loaded.family, command.task)
    if task is None:
        with usage_errors("--split"):
            drawn = loaded.family.sample(1, stream(command.seed, "evaluation/tasks"), command.split)  # pyright: ignore[reportArgumentType]
        task = drawn[0]
    watch.watch_run(loaded, task, belief, command.seed)
    return 0
