"""`metarl train`: meta-train an agent on a task family, or resume a run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.registry import PAPERS
from metarl.bounds import names_without_effect
from metarl.cli.arguments import Arguments
from metarl.cli.invocation import Invocation
from metarl.cli.selection import chosen_family, names_robot, option
from metarl.config import (
    CONFIG,
    RunConfig,
    TrainingSettings,
    changed_faults,
    code_of,
    hooks_of,
    is_preset,
    load_config,
    options,
    preset,
    read_run_config,
    require_faults,
)
from metarl.errors import UsageError
from metarl.options import flag
from metarl.runs.entries import run_dir

PLAIN_OPTIONS = ("agent", "family", "robot", "env", "config", "name", "runs_dir", "resume")
"""Options that are no settings."""

SIGTERM_STATUS = 128 + signal.SIGTERM
"""Exit status of a run that a SIGTERM stopped, the shell's for that signal: nobody takes the run for finished."""

STOPPED = "stopped"
"""Key of the run that a SIGTERM stopped, for the processes that torchrun starts again."""

GO_ON = ("training.iterations", *(f"training.{name}" for name in names_without_effect(TrainingSettings)))
GO_ON += ("evaluation.", "tracking.")
"""Settings that may change when a run is resumed: none changes what an iteration computes, but for the rounding that
comes with other threads or another device."""


@dataclass(frozen=True)
class TrainCommand(RunConfig):
    """Meta-train an agent on a task family, then adapt it to held-out tasks."""

    agent_name_: Annotated[str, option("NAME", name="agent", default="maml")] = ""
    """Agent, the learner; `metarl agents` lists them."""
    family_name_: Annotated[str, option("NAME", name="family", default="half_cheetah_velocity")] = ""
    """Task family; `metarl families` lists them. With --robot: the YAML file that declares the tasks."""
    robot: Annotated[str, option("MODEL")] = ""
    """Your own robot: MJCF, URDF, or file.py:function, which returns an MjSpec. The function's code is run."""
    env: Annotated[str, option("FILE.py:FUNCTION")] = ""
    """Your own Gymnasium environment: a function that returns its tasks, a metarl.GymTasks. Its code is run."""
    config: Annotated[str, option("FILE")] = ""
    """YAML file with the configuration, instead of --agent and --family. A function that it names is run."""
    name: Annotated[str, option("NAME", default="agent, family, seed and time")] = ""
    """Name of the run's folder."""
    runs_dir: Annotated[str, option("DIR", default="runs")] = "runs"
    """Folder of all runs."""
    resume: Annotated[str, option("RUN")] = ""
    """Run to resume from its last checkpoint."""


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    if "WORLD_SIZE" in os.environ:
        from metarl.training.launched import join

        invocation.launched = join()
    if invocation.launched is not None:
        invocation.launched.require_alike()
    with contextlib.ExitStack() as stack:
        ranks = invocation.launched
        if ranks is not None and not ranks.is_first:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        config, plain = parse(arguments)
        from metarl.training import loop as training

        ranks = ranks or ALONE
        opened = ranks.from_first(lambda: _open_run(config, plain, invocation))
        if isinstance(opened, int):
            return opened
        config, invocation.run_dir, resume = opened
        invocation.trains = True
        trained = training.train(config, invocation.run_dir, resume, ranks=ranks)
        print(f"run: {invocation.run_dir}")
        status = 0 if trained.iteration >= config.training.iterations else SIGTERM_STATUS
        ranks.from_first(lambda: _remember_stop(status, invocation))  # the others wait until it has evaluated
    return status


def parse(arguments: list[str]) -> tuple[RunConfig, dict[str, str]]:
    """Return the configuration that the arguments describe, and the values of the options that are no settings."""
    given = Arguments.split(arguments)
    plain = given.take(PLAIN_OPTIONS)
    if given.positionals:
        raise UsageError(f"metarl train takes options only, got {given.positionals[0]!r}; overrides look like a.b=c")
    start = _starting_config(plain)
    known = options(start)
    for name in given.options if "resume" in plain else ():
        if not name.startswith(GO_ON) and name in known:
            raise UsageError(f"{flag(name)} cannot change when a run is resumed; start a new run for it")
    sections = {f.name: getattr(start, f.name) for f in dataclasses.fields(RunConfig)}
    command = TrainCommand(agent_name_=start.agent_name, family_name_=start.family_name, **sections)
    paper = PAPERS.get(plain.get("agent", ""))
    about = f"{plain['agent']}: {paper.words}" if paper else ""
    command = given.parse(command, known, PLAIN_OPTIONS, "metarl train", about)
    config = RunConfig(**{name: getattr(command, name) for name in sections})
    config.validate()
    require_faults(changed_faults(config.family), config.family)
    return config, plain


def _starting_config(plain: Mapping[str, str]) -> RunConfig:
    """Return the configuration that overrides change: a run's, a file's, or a preset."""
    sources = [name for name in ("resume", "config") if name in plain]
    named = [name for name in ("agent", "family", "robot", "env") if name in plain]
    if sources and len(sources + named) > 1:
        first, second = (sources + named)[:2]
        raise UsageError(f"--{first} already says what --{second} says; give one of the two")
    if "resume" in plain:
        if "name" in plain:
            raise UsageError("--resume continues in the run's own folder; leave out --name")
        return read_run_config(run_dir(plain["resume"], Path(plain.get("runs_dir", "runs"))))
    if "config" in plain:
        return load_config(Path(plain["config"]))
    if "env" in plain or names_robot(plain):
        agent = {name: plain[name] for name in named if name == "agent"}
        family = "env" if "env" in plain else "robot"
        return dataclasses.replace(preset(**agent, family=family), family=chosen_family(plain))
    return preset(**{name: plain[name] for name in named})


def _open_run(
    config: RunConfig, plain: Mapping[str, str], invocation: Invocation
) -> tuple[RunConfig, Path, bool] | int:
    """Return the configuration and the folder of the run to train, and whether it is resumed; or the exit status, if it
    is finished or was stopped.

    Processes that torchrun restarts resume the run that the ones before them began.
    """
    from metarl.training.finished import finished_run, finished_words

    resume, runs_dir, launched = plain.get("resume"), Path(plain.get("runs_dir", "runs")), invocation.launched
    if launched is not None and launched.recall(STOPPED) is not None:
        return SIGTERM_STATUS
    begun = launched.recall("run") if launched is not None and not resume else None
    if resume:
        invocation.run_dir = run_dir(resume, runs_dir)
    elif begun is not None and (Path(begun) / CONFIG).is_file():
        invocation.run_dir = Path(begun)
        config = read_run_config(invocation.run_dir)
    else:
        if note := untuned(config, plain):
            print(f"note: {note}", flush=True)
        invocation.run_dir = new_run(config, runs_dir, plain.get("name"), ranks=launched or ALONE)
        if launched is not None:
            launched.remember("run", str(invocation.run_dir))
        return read_run_config(invocation.run_dir), invocation.run_dir, False  # of its own copy of the robot
    if (finished := finished_run(invocation.run_dir, config)) is not None:
        print(finished_words(finished))
        return 0
    return config, invocation.run_dir, True


def untuned(config: RunConfig, plain: Mapping[str, str]) -> str:
    """Return what holds for an agent without a preset for a family; empty if it has one, or a file is given."""
    if "config" in plain or is_preset(config.agent_name, config.family_name):
        return ""
    t, e = config.training, config.evaluation
    return (
        f"{config.agent_name} has no preset for {config.family_name}: what is not given is a default that nobody chose "
        f"for it. training.envs_per_task={t.envs_per_task}, training.adaptations={t.adaptations}, "
        f"evaluation.adaptations={e.adaptations}, evaluation.explore={str(e.explore).lower()}, ...; "
        "`metarl agents` lists the presets"
    )


def _remember_stop(status: int, invocation: Invocation) -> None:
    """Tell the processes that torchrun starts in place of these, as it takes the status for a failure."""
    if status and invocation.launched is not None:
        invocation.launched.remember(STOPPED, str(invocation.run_dir))


def new_run(
    config: RunConfig, runs_dir: Path, name: str | None, ranks: Ranks = ALONE, device: str | None = None
) -> Path:
    """Make the folder of a new run and return it; print first which of the user's code is run.

    ranks, device: see `metarl.runs.run.start_run`.
    """
    from metarl.runs.run import start_run

    for function in code_of(config).values():
        print(f"running the Python function {function}, which makes the {config.family_name}", flush=True)
    for function in hooks_of(config):
        print(f"running the Python function {function}, which the robot's file names", flush=True)
    return start_run(config, runs_dir, name, ranks, device)
