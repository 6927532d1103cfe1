"""`metarl export`: save a policy as an ONNX file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metarl.cli.arguments import Arguments
from metarl.cli.invocation import Invocation
from metarl.cli.selection import AGENT_OPTIONS, one_run, option, output_file
from metarl.files import require_place

OPTIONS: dict[str, Any] = {"format": Literal["onnx"], "belief": str, "output": str, **AGENT_OPTIONS}


@dataclass(frozen=True)
class ExportCommand:
    """Save a run's policy, adapted or not, as ONNX. It returns mean actions; a memory is an input and an output.

    The file includes the observation normaliser and, as metadata, names, units, ranges, control step and versions. It
    is checked against the agent in ONNX Runtime on recorded observations. docs/control_loop.py runs it.
    """

    run: Annotated[tyro.conf.Positional[str], option("RUN")] = ""
    """Folder of the run."""
    format: Literal["onnx"] = "onnx"
    """File format."""
    belief: Annotated[str, option("FILE.pt")] = ""
    """Belief that `metarl adapt` saved. Without it, the policy before adaptation is exported."""
    output: Annotated[
        str, option("FILE.onnx", default="policy.onnx in the run's folder; with --belief or --checkpoint, by its name")
    ] = ""
    """File to write."""
    checkpoint: str = "last"
    """last, best, or a checkpoint file."""
    device: Annotated[Literal["auto", "cpu", "cuda"], option(default="the run's")] = "auto"
    """Torch device of the agent."""


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    given = Arguments.split(arguments)
    directory, config = one_run(given, ExportCommand(), "metarl export")
    command = given.parse(ExportCommand(str(directory), device=config.training.device), OPTIONS, (), "metarl export")
    given_output = output_file(command.output, ".onnx")

    from metarl.deployment import export
    from metarl.runs.beliefs import load_belief
    from metarl.runs.run import load_run

    export.require_packages()
    invocation.run_dir = directory
    loaded = load_run(directory, command.checkpoint, command.device)
    belief = load_belief(Path(command.belief), loaded) if command.belief else None
    of_checkpoint = "policy" if command.checkpoint == "last" else f"policy_{Path(command.checkpoint).stem}"
    name = Path(command.belief).stem if command.belief else of_checkpoint
    output = given_output or directory / f"{name}.onnx"
    require_place(output, "--output")
    written = export.export_run(loaded, output, belief, command.belief or None)
    if told := export.told(loaded):
        print(
            f"warning: {directory} is an oracle (training.reveal_task): the last {len(told)} of its "
            f"{loaded.family.observation_size} observations are what an oracle is told, which you have to supply: "
            f"{', '.join(told)}",
            file=sys.stderr,
        )
    print(
        f"saved {written.path} ({written.size / 1000:.0f} KB); on {written.steps} recorded observations the actions of "
        f"ONNX Runtime differ from torch's by at most {written.error:.1g}"
    )
    return 0
