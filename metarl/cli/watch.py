"""`metarl watch`: show a policy live in MuJoCo's viewer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metarl.cli.arguments import Arguments
from metarl.cli.invocation import Invocation
from metarl.cli.selection import AGENT_OPTIONS, one_run, option, parse_task, require_seed
from metarl.config import options
from metarl.errors import usage_errors

OPTIONS: dict[str, Any] = {"belief": str, "task": str, "seed": int, **AGENT_OPTIONS}


@dataclass(frozen=True)
class WatchCommand:
    """Show a run's policy live in MuJoCo's viewer. The sliders under Control set the task's parameters.

    Keys: Enter plays the rest of the shot without drawing it and adapts, Home starts again, Space pauses.
    """

    run: Annotated[tyro.conf.Positional[str], option("RUN")] = ""
    """Folder of the run."""
    belief: Annotated[str, option("FILE.pt")] = ""
    """Belief that `metarl adapt` saved. Without it, the policy starts unadapted."""
    task: Annotated[str, option("JSON", default="drawn from the split")] = ""
    """Parameter values of the first task, such as '{"target_velocity": 1.5}'; those left out are neutral. Or its name,
    such as spot, in a family that names tasks."""
    split: Annotated[str, option("SPLIT", default="the run's evaluation.split")] = "held_out"
    """Split that the first task is drawn from."""
    seed: Annotated[int, option(default="the run's first of evaluation.seeds")] = 1
    """Seed of task, starts and noise."""
    checkpoint: str = "last"
    """last, best, or a checkpoint file."""
    device: Annotated[Literal["auto", "cpu", "cuda"], option(default="the run's")] = "auto"
    """Torch device of the agent."""


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    given = Arguments.split(arguments)
    directory, config = one_run(given, WatchCommand(), "metarl watch")
    settings = config.evaluation
    command = WatchCommand(str(directory), split=settings.split, seed=settings.seeds[0], device=config.training.device)
    types = OPTIONS | {"split": options(config)["evaluation.split"]}
    command = given.parse(command, types, (), "metarl watch")
    require_seed(command.seed)

    from metarl.deployment import watch
    from metarl.runs.beliefs import load_belief
    from metarl.runs.run import load_run
    from metarl.runs.trial import stream

    watch.require_display()
    invocation.run_dir = directory
    loaded = load_run(directory, command.checkpoint, command.device)
    belief = load_belief(Path(command.belief), loaded) if command.belief else None
    task = parse_task(loaded.family, command.task)
    if task is None:
        with usage_errors("--split"):
            drawn = loaded.family.sample(1, stream(command.seed, "evaluation/tasks"), command.split)  # pyright: ignore[reportArgumentType]
        task = drawn[0]
    watch.watch_run(loaded, task, belief, command.seed)
    return 0
