"""The command line: `metarl train | evaluate | report | sweep | launch | adapt | export | watch | render | ...`.

torch, MuJoCo and W&B are imported by the commands that need them, after parsing, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import importlib
import io
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from metarl.agents.ranks import ALONE, Ranks
from metarl.bounds import names_without_effect
from metarl.cli.arguments import Arguments
from metarl.config import (
    CONFIG,
    RunConfig,
    TrainingSettings,
    code_of,
    load_config,
    options,
    preset,
    read_run_config,
    settings_of,
)
from metarl.envs.family_settings import FamilySettings
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import FAMILY_SETTINGS
from metarl.envs.robots.half_cheetah_settings import HalfCheetahVelocitySettings
from metarl.envs.text import CONTROL, one_line, shown
from metarl.errors import LONGEST, RunError, UsageError, describe, nearest, out_of_memory, usage_errors
from metarl.options import coerce, flag
from metarl.runs.entries import run_dir

if TYPE_CHECKING:
    from metarl.envs.family import TaskFamily
    from metarl.envs.task import Task
    from metarl.training.launched import Launched

HELP = """usage: metarl COMMAND [OPTIONS]

  metarl train [--agent A] [--family F] [overrides]   meta-train; the published preset where there is one
  metarl train --config FILE [overrides]              meta-train what a file describes
  metarl train --robot MODEL --family FILE.yaml       meta-train your own robot on what the file declares
  metarl train --resume RUN                           go on with a run from its last checkpoint
  metarl evaluate RUN [overrides]                     adapt to tasks that training never saw
  metarl evaluate RUN RUN... [--family F]             compare agents on the same tasks: gain, success, energy, oracle
  metarl report RUN... [--comparison DIR]             one page: figures, tables, films, settings (HTML, Markdown, JSON)
  metarl adapt RUN --rollouts DIR                     adapt the policy to logged episodes of a robot
  metarl export RUN [--belief FILE]                   the policy as ONNX, for a robot without metarl
  metarl watch RUN [--belief FILE]                    the policy live in MuJoCo's viewer, parameters on sliders
  metarl render RUN [--task JSON] [--shot K]          film the policy before and after adaptation (MP4)
  metarl render --family F [overrides]                film a task without a policy (--robot MODEL: of your own robot)
  metarl families [NAME]                              task families: parameters, units, ranges, settings
  metarl families show NAME [overrides]               a picture of sampled robots and of the parameters' ranges (PNG)
  metarl families show --robot MODEL --family FILE.yaml                                      the same of your own robot
  metarl sweep FILE.yaml [--workers N]                train variants: task distributions, hyperparameters; what helps
  metarl launch slurm [OPTIONS] -- train|sweep ...    the same as a job of a Slurm cluster, gone on with when preempted
  metarl robot check MODEL [--family FILE.yaml]       what is inferred about your robot, and what is amiss

Overrides are dotted: --agent.inner-lr 0.05, --agent.inner_lr=0.05 and agent.inner_lr=0.05 are the same.
`metarl train --agent A --family F --help` lists every setting of the two.
"""

FAMILIES_HELP = """usage: metarl families [NAME]
       metarl families --robot MODEL --family FILE.yaml
       metarl families show NAME [--output FILE.png] [--seed S] [--family.SETTING VALUE]
       metarl families show --robot MODEL --family FILE.yaml [--output FILE.png] [--seed S]

Task families: parameters, units, ranges, splits, settings. `show` renders a contact sheet: sampled robots of every
split, and what their parameters range over; without --output it is NAME.png.
"""

TRAIN_OPTIONS = ("agent", "family", "robot", "config", "name", "runs_dir", "resume")
RENDER_OPTIONS: dict[str, Any] = {"task": str, "seed": int, "output": str, "seconds": float}
RENDER_RUN_OPTIONS: dict[str, Any] = {"shot": int, "checkpoint": str, "device": Literal["auto", "cpu", "cuda"]}
RENDER_FAMILY_OPTIONS: dict[str, Any] = {"actions": Literal["random", "zero"]}
SHOW_OPTIONS = ("output", "seed")
FAMILY_OPTIONS = ("robot", "family")

NO_NAMES = (errno.ENAMETOOLONG, errno.ELOOP)
"""What the system says of names that no file can have: the caller's mistake wherever it comes up."""

SIGTERM_STATUS = 128 + signal.SIGTERM
"""Exit status of a run that a SIGTERM ended: the shell's for that signal, so that nobody takes it for finished."""

GO_ON = ("training.iterations", *(f"training.{name}" for name in names_without_effect(TrainingSettings)))
GO_ON += ("evaluation.", "tracking.")
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
    """Your own robot: MJCF, URDF, or file.py:function that returns an MjSpec, whose code is run."""
    config: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    """YAML file with the configuration, instead of --agent and --family. A function that it names is run."""
    name: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    """Name of the run's folder. Empty: agent, family, seed and time."""
    runs_dir: Annotated[str, tyro.conf.arg(metavar="DIR")] = "runs"
    """Folder of all runs."""
    resume: Annotated[str, tyro.conf.arg(metavar="RUN")] = ""
    """Run to go on with, from its last checkpoint."""


@dataclass(frozen=True)
class RenderCommand:
    """Film a robot on one task: a run's policy before and after adaptation side by side, or a family without one."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")] = ""
    """The run's folder; without one, --family."""
    task: Annotated[str, tyro.conf.arg(metavar="JSON")] = ""
    """The task's parameter values, such as '{"target_velocity": 1.5}'; neutral where none is named. Empty: drawn."""
    split: Annotated[str, tyro.conf.arg(metavar="SPLIT")] = "train"
    """Split that the task is drawn from; not given: the run's evaluation.split, or train."""
    seed: int = 1
    """Draws task, start and noise: an evaluation's first task with this seed. Not given: the run's first."""
    shot: int = 3
    """Of RUN: adaptations before the second picture; 0 shows one. Not given: the run's evaluation.adaptations."""
    output: Annotated[str, tyro.conf.arg(metavar="FILE.mp4")] = ""
    """The film. Empty: in the run's evaluation folder, or here under the family's name."""
    seconds: float = 10.0
    """Length of the film at most, s."""
    checkpoint: str = "last"
    """Of RUN: last, best, or a checkpoint file."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Of RUN: torch device of the agent; not given: the run's."""
    family_name_: Annotated[str, tyro.conf.arg(name="family", metavar="NAME")] = ""
    """The family, where no run is given. With --robot: the YAML file that declares it."""
    robot: Annotated[str, tyro.conf.arg(metavar="MODEL")] = ""
    """Your own robot, where no run is given: MJCF, URDF, or file.py:function that returns an MjSpec."""
    actions: Literal["random", "zero"] = "random"
    """Of --family: what is done instead of a policy."""
    family: FamilySettings = dataclasses.field(default_factory=HalfCheetahVelocitySettings)
    """Settings of --family."""


@dataclass
class Session:
    """What an error message can point to."""

    run_dir: Path | None = None
    """Of the run that the command is about: where a traceback goes."""
    trains: bool = False
    """Whether the command trains the run, so that it can be gone on with."""
    launched: Launched | None = None
    """The processes that train it together; None if this one is alone."""

    def remedy(self) -> str:
        """How to go on, if there is something to go on from."""
        if not self.trains or self.run_dir is None or not any(self.run_dir.glob("checkpoints/*.pt")):
            return ""
        return f"; go on with: metarl train --resume {self.run_dir}"


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for a fault at run time, 2 for the caller's mistake."""
    session = Session()
    status = _run(sys.argv[1:] if arguments is None else arguments, session)
    if session.launched is not None:
        session.launched.leave(status)
    return status


def _run(arguments: list[str], session: Session) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that it cannot write ends nothing
            stream.reconfigure(errors="backslashreplace")
    try:
        require_plain(arguments)
        return dispatch(arguments, session)
    except SystemExit as stop:  # tyro, after --help
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return _fail(session, 130, f"interrupted{session.remedy()}")
    except UsageError as error:
        return _fail(session, 2, f"error: {error}")
    except BrokenPipeError:  # `metarl families | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # no traceback on the terminal, whatever it is
        if isinstance(error, OSError) and error.errno in NO_NAMES:
            return _fail(session, 2, f"error: {describe(error)}")
        if out_of_memory(error):
            return _fail(session, 1, f"error: not enough memory ({describe(error)[:200]}); ask for less")
        return _fail(session, 1, f"error: {_fault(error, session)}")


def require_plain(arguments: Sequence[str]) -> None:
    """UsageError for an argument that cannot be shown, nor be a name: not UTF-8, or with a control character."""
    for number, argument in enumerate(arguments, 1):
        if (found := CONTROL.search(argument)) is not None:
            what = "is not valid UTF-8" if "\ud800" <= found[0] <= "\udfff" else f"has {found[0]!a}"
            raise UsageError(f"argument {number}, {shown(argument)}, {what}; give it without control characters")


def dispatch(arguments: list[str], session: Session) -> int:
    """Run the command that the first argument names."""
    commands: dict[str, Callable[[list[str], Session], int]] = {
        "train": train,
        "evaluate": functools.partial(_command, "evaluate"),
        "report": functools.partial(_command, "report"),
        "adapt": functools.partial(_command, "adapt"),
        "export": functools.partial(_command, "export"),
        "watch": functools.partial(_command, "watch"),
        "render": render,
        "families": families,
        "robot": robot,
        "sweep": functools.partial(_command, "sweep"),
        "launch": functools.partial(_command, "launch"),
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
    if arguments[0] != "train" and "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE") != "1":
        if os.environ.get("RANK") != "0":  # one of them says it
            return 2
        raise UsageError(f"metarl {arguments[0]} runs in one process; torchrun is for metarl train, start it without")
    return commands[arguments[0]](arguments[1:], session)


def _command(name: str, arguments: list[str], session: Session) -> int:
    """Run a command that has a module of its own."""
    return importlib.import_module(f"metarl.cli.{name}").run(arguments, session)


def train(arguments: list[str], session: Session) -> int:
    """`metarl train`."""
    if "WORLD_SIZE" in os.environ:
        from metarl.training.launched import join

        session.launched = join()
    if session.launched is not None:
        session.launched.require_alike()
    with contextlib.ExitStack() as stack:
        ranks = session.launched
        if ranks is not None and not ranks.is_first:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        config, plain = parse_train(arguments)
        from metarl.training import loop as training

        ranks = ranks or ALONE
        opened = ranks.from_first(lambda: _open_run(config, plain, session))
        if opened is None:
            return 0
        config, session.run_dir, resume = opened
        session.trains = True
        trained = training.train(config, session.run_dir, resume, ranks=ranks)
        print(f"run: {session.run_dir}")
        ranks.from_first(lambda: None)  # the others wait until it has evaluated
    return 0 if trained.iteration >= config.training.iterations else SIGTERM_STATUS


def _open_run(config: RunConfig, plain: Mapping[str, str], session: Session) -> tuple[RunConfig, Path, bool] | None:
    """The configuration and the folder of the run to train, and whether to go on with it; None if it is finished.

    Processes that torchrun started in place of others go on with the run that those began.
    """
    from metarl.training.finished import finished_run, finished_words

    resume, runs_dir, launched = plain.get("resume"), Path(plain.get("runs_dir", "runs")), session.launched
    begun = launched.recall("run") if launched is not None and not resume else None
    if resume:
        session.run_dir = run_dir(resume, runs_dir)
    elif begun is not None and (Path(begun) / CONFIG).is_file():
        session.run_dir = Path(begun)
        config = read_run_config(session.run_dir)
    else:
        session.run_dir = new_run(config, runs_dir, plain.get("name"), ranks=launched or ALONE)
        if launched is not None:
            launched.remember("run", str(session.run_dir))
        return read_run_config(session.run_dir), session.run_dir, False  # of its own copy of the robot
    if (finished := finished_run(session.run_dir, config)) is not None:
        print(finished_words(finished))
        return None
    return config, session.run_dir, True


def new_run(
    config: RunConfig, runs_dir: Path, name: str | None, ranks: Ranks = ALONE, device: str | None = None
) -> Path:
    """Make the folder of a new run; says so if that runs code of the user's. ranks, device: see `start_run`."""
    from metarl.runs.run import start_run

    for function in code_of(config).values():
        print(f"{function} is run, as Python, to make the robot", flush=True)
    return start_run(config, runs_dir, name, ranks, device)


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


def render(arguments: list[str], session: Session) -> int:
    """`metarl render`."""
    given = Arguments.split(arguments)
    chosen = given.take(FAMILY_OPTIONS)
    if given.help and not chosen and not given.positionals:
        Arguments([], {}, help=True).parse(RenderCommand(), {}, (), "metarl render")
    if len(given.positionals) != (0 if chosen else 1):
        got = f", got {' '.join([*given.positionals, *(f'{flag(name)} {value}' for name, value in chosen.items())])}"
        raise UsageError(
            "metarl render takes the folder of one run (metarl render runs/NAME) or --family NAME"
            f"{got if given.positionals else ''}"
        )
    for option in given.options.keys() & {"split"} if "task" in given.options else ():
        raise UsageError(f"--task already says what {flag(option)} says; give one of the two")
    return _render_family(given, chosen) if chosen else _render_run(given, session)


def _render_run(given: Arguments, session: Session) -> int:
    directory = run_dir(given.positionals[0], Path("runs"))
    config = read_run_config(directory)
    settings = config.evaluation
    types = RENDER_OPTIONS | RENDER_RUN_OPTIONS | {"split": options(config)["evaluation.split"]}
    command = RenderCommand(
        run=str(directory),
        split=settings.split,
        seed=settings.seeds[0],
        shot=settings.adaptations,
        device=config.training.device,
        family=config.family,
    )
    command = given.parse(command, types, (), "metarl render")
    output = _file(command.output, ".mp4")
    _require_graphics()

    from metarl.reporting import films as render
    from metarl.runs import run

    session.run_dir = directory
    loaded = run.load_run(directory, command.checkpoint, command.device)
    task = parse_task(loaded.family, command.task)
    video = render.render_run(
        loaded, task, command.split, command.seed, command.shot, output, command.seconds, config.training.threads
    )
    print(f"saved {video}")
    if command.shot and not loaded.agent.facts.adapts:
        print(f"{directory} does not adapt, so that the film shows one episode")
    return 0


def _render_family(given: Arguments, chosen: Mapping[str, str]) -> int:
    config = RunConfig(family=_chosen_family(chosen))
    known = options(config)
    types = RENDER_OPTIONS | RENDER_FAMILY_OPTIONS | {"split": known["evaluation.split"]}
    types |= {k: t for k, t in known.items() if k.startswith("family.")}
    command = RenderCommand(family_name_=config.family_name, family=config.family)
    command = given.parse(command, types, FAMILY_OPTIONS, "metarl render")
    output = _file(command.output, ".mp4")
    _require_graphics()

    from metarl.envs.registry import make_family
    from metarl.reporting import films as render

    with usage_errors("family"):
        family = make_family(command.family)
    task = parse_task(family, command.task)
    video = render.render_family(family, task, command.split, command.seed, command.actions, output, command.seconds)
    print(f"saved {video}")
    return 0


def parse_task(family: TaskFamily, text: str) -> Task | None:
    """The task that JSON values by name describe; None if there are none."""
    if not text:
        return None
    example = json.dumps({p.name: p.neutral for p in family.parameters[:1]})
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise UsageError(f"--task is {shown(text)}; give the parameter values as JSON, such as '{example}'")
    with usage_errors("--task"):
        return family.task(values)


def families(arguments: list[str], session: Session) -> int:
    """`metarl families`, `metarl families show`."""
    given = Arguments.split(arguments)
    if given.help:
        print(FAMILIES_HELP, end="")
        return 0
    if given.positionals[:1] == ["show"]:
        return _show_family(given)
    own = given.take(FAMILY_OPTIONS)
    for name in given.options:
        raise UsageError(f"unknown option {flag(name)}; metarl families takes names only")
    names = given.positionals or ([] if own else list(FAMILY_SETTINGS))
    chosen = [settings_of("family", name)() for name in names] + ([_own_robot(own)] if own else [])

    from metarl.reporting.catalogue import show_families

    with usage_errors("family"):
        show_families(chosen)
    return 0


def _show_family(given: Arguments) -> int:
    names, chosen = given.positionals[1:], given.take(FAMILY_OPTIONS)
    if len(names) != (0 if chosen else 1):
        got = f", got {' '.join([*names, *(f'{flag(name)} {value}' for name, value in chosen.items())])}"
        raise UsageError(
            f"metarl families show takes the name of one family{got if names else ''}; of your own robot it takes "
            "--robot MODEL --family FILE.yaml"
        )
    plain = given.take(SHOW_OPTIONS)
    config = RunConfig(family=_chosen_family(chosen or {"family": names[0]}))
    types = {name: kind for name, kind in options(config).items() if name.startswith("family.")}
    command = given.parse(
        TrainCommand(family=config.family), types, (*SHOW_OPTIONS, *FAMILY_OPTIONS), "metarl families show"
    )
    output = _file(plain.get("output", ""), ".png") or Path(f"{config.family_name}.png")
    seed = coerce(plain.get("seed", 1), int, "--seed")
    if seed < 0:
        raise UsageError(f"--seed is {seed}; it must be at least 0")
    _require_graphics()

    from metarl.envs.registry import make_family
    from metarl.reporting import contact_sheet

    with usage_errors("family"):
        family = make_family(command.family)
    contact_sheet.draw(family, output, seed)
    print(f"saved {output}")
    return 0


def _file(name: str, suffix: str) -> Path | None:
    """A file to write, or None if it is not named."""
    if name and Path(name).suffix.lower() != suffix:
        raise UsageError(f"--output is {name!r}; name a file that ends with {suffix}")
    return Path(name) if name else None


def _require_graphics() -> None:
    """MuJoCo reads MUJOCO_GL as it is imported, and every library that cannot be used fails in a way of its own."""
    try:
        import mujoco  # noqa: F401
    except Exception as error:
        named = os.environ.get("MUJOCO_GL")
        if not named:
            raise
        raise UsageError(
            f"MUJOCO_GL is {named!r}, with which MuJoCo cannot be imported ({describe(error)}); unset it, or set it to "
            "egl (install libegl1 and a driver), osmesa (install libosmesa6) or glfw (where there is a display)"
        ) from error


def robot(arguments: list[str], session: Session) -> int:
    """`metarl robot check`."""
    given = Arguments.split(arguments)
    if given.help:
        print("usage: metarl robot check MODEL [--family FILE.yaml]\n\nWhat is inferred about a robot (MJCF, URDF or")
        print(
            "file.py:function that returns an MjSpec), what its YAML file makes of it, and what it does in a second of"
        )
        print("action 0 and in one of random actions. 2 if it cannot be used.")
        print("A function's code is run; an MJCF or URDF file is read as data.")
        return 0
    declaration = given.take(("family",)).get("family", "")
    for name in given.options:
        raise UsageError(f"unknown option {flag(name)}{nearest(flag(name), ['--family'])}")
    if len(given.positionals) != 2 or given.positionals[0] != "check":
        raise UsageError("metarl robot takes: check MODEL [--family FILE.yaml]")

    from metarl.cli.robot_report import show_robot

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
        return read_run_config(run_dir(plain["resume"], Path(plain.get("runs_dir", "runs"))))
    if "config" in plain:
        return load_config(Path(plain["config"]))
    if _names_robot(plain):
        agent = {name: plain[name] for name in named if name == "agent"}
        return dataclasses.replace(preset(**agent, family="robot"), family=_own_robot(plain))
    return preset(**{name: plain[name] for name in named})


def _chosen_family(plain: Mapping[str, str]) -> FamilySettings:
    """The settings that --family names, with --robot those of one's own robot."""
    return _own_robot(plain) if _names_robot(plain) else settings_of("family", plain["family"])()


def _names_robot(plain: Mapping[str, str]) -> bool:
    return "robot" in plain or plain.get("family", "").endswith((".yaml", ".yml"))


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


def _fail(session: Session, status: int, message: str) -> int:
    """Say a message, one line of bounded length whatever it is about; of processes that train together one says it."""
    if session.launched is not None:
        status, message = session.launched.failed(status, message)
    if message:
        print(one_line(message, LONGEST), file=sys.stderr, flush=True)
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
    from metarl.files import write

    for folder in filter(None, (session.run_dir, Path(tempfile.gettempdir()))):
        with contextlib.suppress(RunError):
            path = folder / "error.log"
            write(path, text.encode("utf-8", "replace"))
            return f"{said}; the traceback is in {path}{session.remedy()}"
    return said + session.remedy()
