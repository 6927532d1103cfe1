"""`metarl render`: film a run's policy before and after adaptation, or a family without a policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from metarl.cli.arguments import Arguments
from metarl.cli.invocation import Invocation
from metarl.cli.selection import (
    AGENT_OPTIONS,
    FAMILY_OPTIONS,
    chosen_family,
    got_instead,
    one_run,
    option,
    output_file,
    parse_task,
)
from metarl.config import RunConfig, options
from metarl.envs.family_settings import FamilySettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahVelocitySettings
from metarl.errors import UsageError, usage_errors
from metarl.files import require_place
from metarl.options import flag

OPTIONS: dict[str, Any] = {"task": str, "seed": int, "output": str, "seconds": float}
RUN_OPTIONS: dict[str, Any] = {"shot": int, **AGENT_OPTIONS}
ACTION_OPTIONS: dict[str, Any] = {"actions": Literal["random", "zero"]}


@dataclass(frozen=True)
class RenderCommand:
    """Film a robot on one task: a run's policy before and after adaptation side by side, or a family without a policy.

    Give the folder of a run, or --family NAME; of your own robot, --robot MODEL --family FILE.yaml.
    """

    run: Annotated[tyro.conf.Positional[str], option("RUN")] = ""
    """Folder of the run."""
    task: Annotated[str, option("JSON", default="drawn from the split")] = ""
    """Parameter values of the task, such as '{"target_velocity": 1.5}'; those left out are neutral. Or its name,
    such as spot, in a family that names tasks."""
    split: Annotated[str, option("SPLIT", default="the run's evaluation.split; with --family, train")] = "train"
    """Split that the task is drawn from."""
    seed: Annotated[int, option(default="the run's first of evaluation.seeds; with --family, 1")] = 1
    """Seed of task, start and noise: those of the first task of an evaluation with this seed."""
    shot: Annotated[int, option(default="the run's evaluation.adaptations")] = 3
    """With RUN: number of adaptations before the second picture; 0 shows only the first."""
    output: Annotated[
        str, option("FILE.mp4", default="in the run's evaluation folder; with --family, the family's name")
    ] = ""
    """Film to write."""
    seconds: float = 10.0
    """Longest duration of the film, s."""
    checkpoint: str = "last"
    """With RUN: last, best, or a checkpoint file."""
    device: Annotated[Literal["auto", "cpu", "cuda"], option(default="the run's")] = "auto"
    """With RUN: torch device of the agent."""
    family_name_: Annotated[str, option("NAME", name="family")] = ""
    """Family to film without a policy. With --robot: the YAML file that declares it."""
    robot: Annotated[str, option("MODEL")] = ""
    """Your own robot: MJCF, URDF, or file.py:function, which returns an MjSpec. The function's code is run."""
    env: Annotated[str, option("FILE.py:FUNCTION")] = ""
    """Your own Gymnasium environment: a function that returns its tasks. Its code is run."""
    actions: Literal["random", "zero"] = "random"
    """With --family: the actions."""
    family: FamilySettings = dataclasses.field(default_factory=HalfCheetahVelocitySettings)
    """Settings of --family; with RUN, settings of the tasks that differ from those of its training."""


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    given = Arguments.split(arguments)
    chosen = given.take(FAMILY_OPTIONS)
    if not (given.help and not chosen) and len(given.positionals) != (0 if chosen else 1):
        raise UsageError(
            "metarl render takes the folder of one run (metarl render runs/NAME) or --family NAME"
            f"{got_instead(given.positionals, chosen) if given.positionals else ''}"
        )
    for name in given.options.keys() & {"split"} if "task" in given.options else ():
        raise UsageError(f"--task already says what {flag(name)} says; give one of the two")
    return _render_family(given, chosen) if chosen else _render_run(given, invocation)


def _render_run(given: Arguments, invocation: Invocation) -> int:
    directory, config = one_run(given, RenderCommand(), "metarl render")
    settings = config.evaluation
    known = options(config)
    types = OPTIONS | RUN_OPTIONS | {"split": known["evaluation.split"]}
    types |= {name: kind for name, kind in known.items() if name.startswith("family.")}
    command = RenderCommand(
        run=str(directory),
        split=settings.split,
        seed=settings.seeds[0],
        shot=settings.adaptations,
        device=config.training.device,
        family=config.family,
    )
    command = given.parse(command, types, (), "metarl render")
    output = output_file(command.output, ".mp4")

    from metarl.evaluation.compare import checked_family, family_for, require_fit
    from metarl.reporting import films
    from metarl.runs.run import load_run

    invocation.run_dir = directory
    loaded = load_run(directory, command.checkpoint, command.device)
    if command.family != config.family:
        asked = dataclasses.replace(config, family=command.family)
        met = family_for(loaded.config, checked_family(asked))
        require_fit(str(directory), loaded, met)
        loaded = dataclasses.replace(loaded, family=met)
    task = parse_task(loaded.family, command.task)
    if output:
        require_place(output, "--output")
    chosen = (task, command.split, command.seed, command.shot, output, command.seconds, config.training.threads)
    film = films.render_run(loaded, *chosen, altered(command.family, config.family))
    print(f"saved {film}\ntask: {film.task}")
    if command.shot and not loaded.agent.facts.adapts:
        print(f"the agent of {directory} does not adapt, so the film shows one episode")
    return 0


def altered(asked: FamilySettings, trained: FamilySettings) -> dict[str, Any]:
    """Return the settings of a family that differ from those of the training, by name."""
    theirs = {f.name: getattr(trained, f.name) for f in dataclasses.fields(trained)}
    return {name: value for name, own in theirs.items() if (value := getattr(asked, name)) != own}


def _render_family(given: Arguments, chosen: Mapping[str, str]) -> int:
    config = RunConfig(family=chosen_family(chosen))
    known = options(config)
    types = OPTIONS | ACTION_OPTIONS | {"split": known["evaluation.split"]}
    types |= {k: t for k, t in known.items() if k.startswith("family.")}
    command = RenderCommand(family_name_=config.family_name, family=config.family)
    command = given.parse(command, types, FAMILY_OPTIONS, "metarl render")
    output = output_file(command.output, ".mp4")

    from metarl.envs.registry import make_family
    from metarl.reporting import films

    with usage_errors("family"):
        family = make_family(command.family)
    task = parse_task(family, command.task)
    if output:
        require_place(output, "--output")
    film = films.render_family(family, task, command.split, command.seed, command.actions, output, command.seconds)
    print(f"saved {film}\ntask: {film.task}")
    return 0
