"""The command line: finds the module of the command and turns what it raises into one line and an exit status.

Modules of commands import torch, MuJoCo and W&B after parsing, so that `--help` answers at once.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence

from metarl.cli.invocation import Invocation
from metarl.envs.text import CONTROL, shown
from metarl.errors import UsageError, describe, nearest, out_of_memory

HELP = """usage: metarl COMMAND [OPTIONS]

Train
  metarl train [--agent A] [--family F] [overrides]   meta-train an agent; from the published preset if there is one
  metarl train --config FILE [overrides]              meta-train with the configuration in a file
  metarl train --robot MODEL --family FILE.yaml       meta-train on your own robot; the file declares what varies
  metarl train --env FILE.py:FUNCTION                 meta-train on your own Gymnasium environment
  metarl train --resume RUN                           resume a run from its last checkpoint
  metarl sweep FILE.yaml [--workers N]                train variants of tasks and settings, and compare them
  metarl headroom FAMILY [--budget N] [--seeds S...]  train from no memory to an oracle: what can adaptation gain here?
  metarl launch slurm [OPTIONS] -- train|sweep ...    run either as a Slurm job, which resumes after preemption
  metarl agents                                       list the agents, and the published methods among them

Evaluate
  metarl evaluate RUN [overrides]                     adapt to held-out tasks and measure the gain
  metarl evaluate RUN RUN... [--family F]             compare agents on the same tasks
  metarl report RUN... [--comparison DIR]             write one page: figures, tables, films (HTML, Markdown, JSON)
  metarl render RUN [--task JSON] [--shot K]          film the policy before and after adaptation (MP4)
  metarl identify RUN --by PARAMETER                  learn to tell faults, grounds or loads apart by seconds of data
  metarl watch RUN [--belief FILE]                    show the policy live in MuJoCo's viewer

Deploy
  metarl adapt RUN --rollouts DIR                     adapt the policy to episodes logged on a robot
  metarl export RUN [--belief FILE]                   save the policy as ONNX, to run without metarl

Task families
  metarl families [NAME]                              list parameters, units, ranges and settings
  metarl families show NAME [overrides]               draw sampled robots and parameter ranges (PNG)
  metarl render --family F [overrides]                film a task with random actions
  metarl robot init MODEL                             write a first file for your own robot, to be edited
  metarl robot check MODEL [--family FILE.yaml]       inspect your own robot, and simulate it for two seconds
  metarl env check FILE.py:FUNCTION                   inspect your own Gymnasium environment, and play an episode

`families`, `families show`, `render` and `headroom` also take your own robot, --robot MODEL --family FILE.yaml, or
environment, --env FILE.py:FUNCTION.
Overrides are dotted: --agent.inner-lr 0.05, --agent.inner_lr=0.05 and agent.inner_lr=0.05 mean the same.
`metarl COMMAND --help` lists the options of a command; `metarl train --agent A --family F --help` every setting.
"""

COMMANDS = (
    "train",
    "evaluate",
    "report",
    "identify",
    "adapt",
    "export",
    "watch",
    "render",
    "agents",
    "families",
    "robot",
    "env",
    "sweep",
    "headroom",
    "launch",
)
"""Each is run by `run(arguments, invocation)` of the module of its name."""

INVALID_NAMES = (errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of the operating system for names that no file can have: the caller's mistake wherever they come up."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 1 for a fault at run time, 2 for the caller's mistake."""
    invocation = Invocation()
    status = _run(sys.argv[1:] if arguments is None else arguments, invocation)
    if invocation.launched is not None:
        invocation.launched.leave(status)
    return status


def _run(arguments: list[str], invocation: Invocation) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal cannot print is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        require_plain(arguments)
        return dispatch(arguments, invocation)
    except SystemExit as stop:  # tyro, after --help; the code of another's environment may leave, too
        if stop.code in (None, 0) and not {"-h", "--help"} & {*arguments}:
            return invocation.fail(1, "error: code that is not metarl's left the program (SystemExit)")
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return invocation.fail(130, f"interrupted{invocation.remedy()}")
    except UsageError as error:
        return invocation.fail(2, f"error: {error}")
    except BrokenPipeError:  # `metarl families | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # never a traceback on the terminal
        if isinstance(error, OSError) and error.errno in INVALID_NAMES:
            return invocation.fail(2, f"error: {describe(error)}")
        if out_of_memory(error):
            return invocation.fail(1, f"error: not enough memory ({describe(error)[:200]}); ask for less")
        if said := no_graphics():
            return invocation.fail(2, f"error: {said}")
        return invocation.fail(1, f"error: {invocation.describe_fault(error)}")


def no_graphics() -> str:
    """Return what to do if MuJoCo cannot be imported with the MUJOCO_GL that is set; empty if that is not the reason.

    MuJoCo reads it at its import, and each library that is missing fails in its own way.
    """
    named = os.environ.get("MUJOCO_GL")
    if not named or "mujoco" in sys.modules:
        return ""
    try:
        import mujoco  # noqa: F401
    except Exception as error:
        return (
            f"MUJOCO_GL is {named!r}, with which MuJoCo cannot be imported ({describe(error)}); unset it, or set it to "
            "egl (install libegl1 and a driver), osmesa (install libosmesa6) or glfw (where there is a display)"
        )
    return ""


def require_plain(arguments: Sequence[str]) -> None:
    """UsageError for an argument that is not UTF-8 or has a control character: no name may, and none can be printed."""
    for number, argument in enumerate(arguments, 1):
        if (found := CONTROL.search(argument)) is not None:
            what = "is not valid UTF-8" if "\ud800" <= found[0] <= "\udfff" else f"has {found[0]!a}"
            raise UsageError(f"argument {number}, {shown(argument)}, {what}; give it without control characters")


def dispatch(arguments: list[str], invocation: Invocation) -> int:
    """Run the command that the first argument names; UsageError for an unknown one."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        from metarl.provenance import VERSION

        print(VERSION)
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        raise UsageError(f"unknown command {command!r}{nearest(command, COMMANDS)}")
    if command != "train" and "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE") != "1":
        if os.environ.get("RANK") != "0":  # one process prints the message
            return 2
        raise UsageError(f"metarl {command} runs in one process; start it without torchrun, which is for metarl train")
    return importlib.import_module(f"metarl.cli.{command}").run(rest, invocation)
