"""`metarl export`: a policy as a file for a robot."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metarl.cli import AGENT_OPTIONS, one_run
from metarl.cli.app import Session
from metarl.cli.arguments import Arguments
from metarl.errors import UsageError

OPTIONS: dict[str, Any] = {"format": Literal["onnx"], "belief": str, "output": str, **AGENT_OPTIONS}


@dataclass(frozen=True)
class ExportCommand:
    """Write a run's policy, adapted or not, as ONNX: the mean of its actions, a memory as state that goes in and out.

    The file holds the normaliser and, as metadata, names, units, ranges, control step and versions. It is checked in
    ONNX Runtime against the agent over recorded observations. docs/control_loop.py runs it.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")] = ""
    """The run's folder."""
    format: Literal["onnx"] = "onnx"
    """Of the file."""
    belief: Annotated[str, tyro.conf.arg(metavar="FILE.pt")] = ""
    """What `metarl adapt` saved. Empty: the policy before adaptation."""
    output: Annotated[str, tyro.conf.arg(metavar="FILE.onnx")] = ""
    """The file. Empty: policy.onnx in the run's folder, or under the belief's name."""
    checkpoint: str = "last"
    """last, best, or a checkpoint file."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Torch device of the agent; not given: the run's."""


def run(arguments: list[str], session: Session) -> int:
    """Run the command."""
    given = Arguments.split(arguments)
    directory, config = one_run(given, ExportCommand(), "metarl export")
    command = given.parse(ExportCommand(str(directory), device=config.training.device), OPTIONS, (), "metarl export")
    if command.output and Path(command.output).suffix.lower() != ".onnx":
        raise UsageError(f"--output is {command.output!r}; name a file that ends with .onnx")

    from metarl.deployment import export
    from metarl.runs.beliefs import load_belief
    from metarl.runs.run import load_run

    export.require_packages()
    session.run_dir = directory
    loaded = load_run(directory, command.checkpoint, command.device)
    belief = load_belief(Path(command.belief), loaded) if command.belief else None
    name = Path(command.belief).stem if command.belief else "policy"
    output = Path(command.output) if command.output else directory / f"{name}.onnx"
    written = export.export_run(loaded, output, belief, command.belief or None)
    if told := export.told(loaded):
        print(
            f"warning: {directory} is an oracle (training.reveal_task): the last {len(told)} of its "
            f"{loaded.family.observation_size} observations are the task's parameters, which the robot has to supply: "
            f"{', '.join(told)}",
            file=sys.stderr,
        )
    print(
        f"saved {written.path} ({written.size / 1000:.0f} KB); over {written.steps} recorded observations ONNX Runtime "
        f"gives torch's actions to {written.error:.1g}"
    )
    return 0
