"""The command line: `metarl train | evaluate | families | robot`.

torch, MuJoCo and W&B are imported by the commands that need them, after parsing, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metarl.arguments import Arguments, flag
from metarl.config import (
    EvaluationSettings,
    RunConfig,
    load_config,
    options,
    preset,
    read_run_config,
    settings_of,
)
from metarl.envs.settings import FAMILY_SETTINGS, RobotSettings
from metarl.errors import RunError, UsageError, describe, nearest, usage_errors

HELP = """usage: metarl COMMAND [OPTIONS]

  metarl train [--agent A] [--family F] [overrides]   meta-train; the published preset where there is one
  metarl train --config FILE [overrides]              meta-train what a file describes
  metarl train --robot MODEL --family FILE.yaml       meta-train your own robot on what the file declares
  metarl train --resume RUN                           go on with a run from its last checkpoint
  metarl evaluate RUN [overrides]                     adapt to tasks that training never saw
  metarl families [NAME]                              task families: parameters, units, ranges, settings
  metarl robot check MODEL [--family FILE.yaml]       what is inferred about your robot, and what is amiss

Overrides are dotted: --agent.inner-lr 0.05, --agent.inner_lr=0.05 and agent.inner_lr=0.05 are the same.
`metarl train --agent A --family F --help` lists every setting of the two.
"""

TRAIN_OPTIONS = ("agent", "family", "robot", "config", "name", "runs_dir", "resume")
EVALUATE_OPTIONS: dict[str, Any] = {"checkpoint": str, "device": Literal["auto", "cpu", "cuda"], "threads": int}

SIGTERM_STATUS = 128 + signal.SIGTERM
"""Exit status of a run that a SIGTERM ended: the shell's for that signal, so that nobody takes it for finished."""

GO_ON = ("training.iterations", "training.threads", "training.device", "training.checkpoint_every")
GO_ON += ("training.keep_checkpoints", "training.evaluate_every", "evaluation.", "tracking.")
"""Settings that may change when a run is gone on with: none changes what an iteration computes, but for the rounding
that comes with other threads or another device."""


@dataclass(frozen=True)
class TrainCommand(RunConfig):
    """Meta-train an agent on a task family, then adapt it to held-out tasks."""

    agent_name_: Annotated[str, tyro.conf.arg(name="agent", metavar="NAME")] = ""
    """The learner."""
    family_name_: Annotated[str, tyro.conf.arg(name="family", metavar="NAME")] = ""
    """The tasks; `metarl families` describes them. With --robot: the YAML file that declares them."""
    robot: Annotated[str, tyro.conf.arg(metavar="MODEL")] = ""
    """Your own robot: MJCF, URDF, or file.py:function that returns an MjSpec."""
    config: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    """YAML file with the configuration, instead of --agent and --family."""
    name: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    """Name of the run's folder. Empty: agent, family, seed and time."""
    runs_dir: Annotated[str, tyro.conf.arg(metavar="DIR")] = "runs"
    """Folder of all runs."""
    resume: Annotated[str, tyro.conf.arg(metavar="RUN")] = ""
    """Run to go on with, from its last checkpoint."""


@dataclass(frozen=True)
class EvaluateCommand:
    """Adapt a trained agent to tasks that training never saw; print and save returns, gain and intervals."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")] = ""
    """The run's folder."""
    checkpoint: str = "last"
    """last, best, or a checkpoint file."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Torch device of the agent; not given: the run's."""
    threads: int = 0
    """Threads of the simulation, 0 for all cores; not given: the run's."""
    evaluation: EvaluationSettings = dataclasses.field(default_factory=EvaluationSettings)
    """How; what is not given is as in the run's config."""


@dataclass
class Session:
    """What an error message can point to."""

    run_dir: Path | None = None

    def remedy(self) -> str:
        """How to go on, if there is something to go on from."""
        if self.run_dir is None or not any(self.run_dir.glob("checkpoints/*.pt")):
            return ""
        return f"; go on with: metarl train --resume {self.run_dir}"


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for a fault at run time, 2 for the caller's mistake."""
    arguments = sys.argv[1:] if arguments is None else arguments
    session = Session()
    try:
        return dispatch(arguments, session)
    except SystemExit as stop:  # tyro, after --help
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return _fail(130, f"interrupted{session.remedy()}")
    except UsageError as error:
        return _fail(2, f"error: {error}")
    except BrokenPipeError:  # `metarl families | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # no traceback on the terminal, whatever it is
        return _fail(1, f"error: {_fault(error, session)}")


def dispatch(arguments: list[str], session: Session) -> int:
    """Run the command that the first argument names."""
    commands: dict[str, Callable[[list[str], Session], int]] = {
        "train": train,
        "evaluate": evaluate,
        "families": families,
        "robot": robot,
    }
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        from metarl.provenance import VERSION

        print(VERSION)
        return 0
    if arguments[0] not in commands:
        raise UsageError(f"unknown command {arguments[0]!r}{nearest(arguments[0], commands)}")
    return commands[arguments[0]](arguments[1:], session)


def train(arguments: list[str], session: Session) -> int:
    """`metarl train`."""
    config, plain = parse_train(arguments)
    from metarl import run, training

    resume, runs_dir = plain.get("resume"), Path(plain.get("runs_dir", "runs"))
    if resume:
        session.run_dir = _run_dir(resume, runs_dir)
    else:
        session.run_dir = run.start_run(config, runs_dir, plain.get("name"))
    trained = training.train(config, session.run_dir, resume=bool(resume))
    print(f"run: {session.run_dir}")
    return 0 if trained.iteration >= config.training.iterations else SIGTERM_STATUS


def parse_train(arguments: list[str]) -> tuple[RunConfig, dict[str, str]]:
    """The configuration that the arguments of `metarl train` describe, and the options that are no settings."""
    given = Arguments.split(arguments)
    plain = given.take(TRAIN_OPTIONS)
    if given.positionals:
        raise UsageError(f"metarl train takes options only, got {given.positionals[0]!r}; overrides look like a.b=c")
    start = _starting_config(plain)
    for name in given.options if "resume" in plain else ():
        if not name.startswith(GO_ON) and name in options(start):
            raise UsageError(f"{flag(name)} cannot change when a run is gone on with; start a new run for it")
    sections = {f.name: getattr(start, f.name) for f in dataclasses.fields(RunConfig)}
    command = TrainCommand(agent_name_=start.agent_name, family_name_=start.family_name, **sections)
    command = given.parse(command, options(start), TRAIN_OPTIONS, "metarl train")
    config = RunConfig(**{name: getattr(command, name) for name in sections})
    config.validate()
    return config, plain


def evaluate(arguments: list[str], session: Session) -> int:
    """`metarl evaluate`."""
    given = Arguments.split(arguments)
    if given.help and not given.positionals:
        Arguments([], {}, help=True).parse(EvaluateCommand(), {}, (), "metarl evaluate")
    if len(given.positionals) != 1:
        got = f", got {' '.join(given.positionals)}" if given.positionals else ""
        raise UsageError(f"metarl evaluate takes the folder of one run (metarl evaluate runs/NAME){got}")
    directory = _run_dir(given.positionals[0], Path("runs"))
    config = read_run_config(directory)
    types = EVALUATE_OPTIONS | {k: t for k, t in options(config).items() if k.startswith("evaluation.")}
    training = config.training
    command = EvaluateCommand(
        str(directory), device=training.device, threads=training.threads, evaluation=config.evaluation
    )
    command = given.parse(command, types, (), "metarl evaluate")
    dataclasses.replace(
        config, evaluation=command.evaluation, training=dataclasses.replace(training, threads=command.threads)
    ).validate()

    from metarl import evaluation

    session.run_dir = directory
    evaluation.evaluate(directory, command.evaluation, command.checkpoint, command.device, command.threads)
    return 0


def families(arguments: list[str], session: Session) -> int:
    """`metarl families`."""
    given = Arguments.split(arguments)
    if given.help:
        print("usage: metarl families [NAME]\n\nTask families: parameters, units, ranges, splits, settings.")
        print("Your own: metarl families --robot MODEL --family FILE.yaml")
        return 0
    own = given.take(("robot", "family"))
    for name in given.options:
        raise UsageError(f"unknown option {flag(name)}; metarl families takes names only")
    names = given.positionals or ([] if own else list(FAMILY_SETTINGS))
    chosen = [settings_of("family", name)() for name in names] + ([_own_robot(own)] if own else [])

    from metarl.catalogue import show_families

    with usage_errors("family"):
        show_families(chosen)
    return 0


def robot(arguments: list[str], session: Session) -> int:
    """`metarl robot check`."""
    given = Arguments.split(arguments)
    if given.help:
        print("usage: metarl robot check MODEL [--family FILE.yaml]\n\nWhat is inferred about a robot (MJCF, URDF or")
        print("file.py:function that returns an MjSpec), and what its YAML file makes of it. 2 if it cannot be used.")
        return 0
    declaration = given.take(("family",)).get("family", "")
    for name in given.options:
        raise UsageError(f"unknown option {flag(name)}{nearest(flag(name), ['--family'])}")
    if len(given.positionals) != 2 or given.positionals[0] != "check":
        raise UsageError("metarl robot takes: check MODEL [--family FILE.yaml]")

    from metarl.robot_report import show_robot

    with usage_errors("robot"):
        return 0 if show_robot(given.positionals[1], declaration) else 2


def _starting_config(plain: Mapping[str, str]) -> RunConfig:
    """What the overrides start from: a run's config, a file's, or a preset."""
    sources = [name for name in ("resume", "config") if name in plain]
    named = [name for name in ("agent", "family", "robot") if name in plain]
    if sources and len(sources + named) > 1:
        first, second = (sources + named)[:2]
        raise UsageError(f"--{first} already says what --{second} says; give one of the two")
    if "resume" in plain:
        if "name" in plain:
            raise UsageError("--resume goes on in the run's own folder; leave out --name")
        return read_run_config(_run_dir(plain["resume"], Path(plain.get("runs_dir", "runs"))))
    if "config" in plain:
        return load_config(Path(plain["config"]))
    if "robot" in plain or plain.get("family", "").endswith((".yaml", ".yml")):
        agent = {name: plain[name] for name in named if name == "agent"}
        return dataclasses.replace(preset(**agent, family="robot"), family=_own_robot(plain))
    return preset(**{name: plain[name] for name in named})


def _own_robot(plain: Mapping[str, str]) -> RobotSettings:
    """The settings that --robot and --family name."""
    model, declaration = plain.get("robot", ""), plain.get("family", "")
    if not model:
        raise UsageError(f"--family {declaration} declares the tasks of a robot; name its model by --robot MODEL")
    if not declaration.endswith((".yaml", ".yml")):
        got = f", not {declaration!r}" if declaration else ""
        raise UsageError(
            f"--robot needs --family FILE.yaml, which declares what varies{got}; metarl robot check {model} shows how"
        )
    return RobotSettings(model, declaration)


def _run_dir(name: str, runs_dir: Path) -> Path:
    """A run's folder by its path or its bare name."""
    return runs_dir / name if not Path(name).exists() and (runs_dir / name).is_dir() else Path(name)


def _fail(status: int, message: str) -> int:
    print(message, file=sys.stderr, flush=True)
    return status


def _fault(error: Exception, session: Session) -> str:
    """What to say about a fault at run time; the unexpected ones leave their traceback in a file."""
    batch = sys.modules.get("metarl.envs.batch")  # cannot have raised anything if it was not imported
    expected = (RunError, OSError) if batch is None else (RunError, OSError, batch.SimulationFault)
    if isinstance(error, expected):
        return f"{describe(error)}{'' if isinstance(error, RunError) else session.remedy()}"
    text, said = (
        "".join(traceback.format_exception(error)),
        f"unexpected {type(error).__name__}: {describe(error)[:200]}",
    )
    for folder in filter(None, (session.run_dir, Path(tempfile.gettempdir()))):
        with contextlib.suppress(OSError):
            path = folder / "error.log"
            path.write_text(text, encoding="utf-8")
            return f"{said}; the traceback is in {path}{session.remedy()}"
    return said + session.remedy()
