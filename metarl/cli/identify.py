"""`metarl identify`: learn to tell classes of tasks apart from seconds of data, and judge it on classes never met."""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metarl.agents.metric.settings import MetricSettings
from metarl.bounds import check
from metarl.cli import identify_logs
from metarl.cli.arguments import Arguments
from metarl.cli.invocation import Invocation
from metarl.cli.selection import AGENT_OPTIONS, one_run, option
from metarl.config import options
from metarl.envs.family_settings import FamilySettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahVelocitySettings
from metarl.errors import UsageError
from metarl.identification.settings import IdentifySettings
from metarl.options import flag
from metarl.runs.entries import Entry, family_settings

PLACE = "identifications"
"""Folder of identifications for which none is named."""
OPTIONS: dict[str, Any] = {"threads": int, "output": str, **AGENT_OPTIONS}
OPTIONS |= typing.get_type_hints(IdentifySettings)
OPTIONS |= {f"metric.{name}": kind for name, kind in typing.get_type_hints(MetricSettings).items()}


@dataclass(frozen=True, kw_only=True)
class IdentifyCommand(IdentifySettings):
    """Learn to tell apart classes of tasks, such as faults, kinds of ground or payloads, from seconds of data.

    A run's policy plays episodes of every class. An encoder learns from some classes to place episodes of one class
    together; others calibrate its probabilities, and the answer "none of these". Then it is judged on the rest, which
    it never met, from a few supporting episodes of each: accuracy against seconds, a confusion matrix, a reliability
    diagram. All are saved with the identifier, which `metarl.Identifier.load` reads: see docs/identify.md.

    With --identifier and --rollouts nothing is trained: an identifier that is there says which class logged episodes
    are of.

    Overrides are settings of the family and of the encoder: --family.faults weak locked, --metric.head matching.
    """

    run: Annotated[tyro.conf.Positional[str], option("RUN")] = ""
    """Folder of the run."""
    output: Annotated[str, option("DIR", default="a new one in identifications/")] = ""
    """Folder to save in."""
    identifier: Annotated[str, option("DIR", default="none")] = ""
    """Folder of an identification of this run, by which --rollouts are told apart."""
    rollouts: Annotated[str, option("DIR", default="none")] = ""
    """Episodes of one robot to tell apart: a folder of .npz files, as metarl adapt reads them, or minari:DATASET."""
    support: Annotated[tuple[str, ...], option("LABEL:DIR", default="the simulated episodes of all classes")] = ()
    """Logged episodes of each class that can be, which may be new: nothing is trained."""
    only: Annotated[tuple[str, ...], option("LABEL", default="all")] = ()
    """Classes that can be."""
    checkpoint: str = "last"
    """last, best, or a checkpoint file."""
    device: Annotated[Literal["auto", "cpu", "cuda"], option(default="the run's")] = "auto"
    """Torch device of the policy."""
    threads: Annotated[int, option(default="the run's")] = 0
    """Threads of the simulation; 0: all cores."""
    family_name_: Annotated[str, option("NAME", name="family", default="the run's")] = ""
    """Family, of the same robot, whose classes are told apart."""
    metric: MetricSettings = dataclasses.field(default_factory=MetricSettings)
    """Settings of the encoder and of its training."""
    family: FamilySettings = dataclasses.field(default_factory=HalfCheetahVelocitySettings)
    """Settings of the family; the default is the run's config."""


def _check(settings: Any, prefix: str) -> None:
    """Raise UsageError for a setting out of its bounds, by the name of its option."""
    try:
        check(settings, "")
    except ValueError as error:
        name, _, rest = str(error).removeprefix(".").partition(" ")
        raise UsageError(f"{flag(prefix + name)} {rest}") from None


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    given = Arguments.split(arguments)
    if identify_logs.asked_for(given) and not given.help:
        return identify_logs.run(given, IdentifyCommand(), (*OPTIONS, "family"), invocation)
    for name in identify_logs.OPTIONS:
        given.options.pop(name, None)
    family_name = given.take(("family",)).get("family")
    directory, config = one_run(given, IdentifyCommand(), "metarl identify")
    settings, _ = family_settings([Entry(directory, config)], family_name)
    command = IdentifyCommand(
        run=str(directory), family=settings, threads=config.training.threads, device=config.training.device
    )
    known = options(dataclasses.replace(config, family=settings))
    types = OPTIONS | {name: kind for name, kind in known.items() if name.startswith("family.")}
    command = given.parse(command, types, ("family",), "metarl identify")
    chosen = "explore" in given.options
    own = IdentifySettings(**{f.name: getattr(command, f.name) for f in dataclasses.fields(IdentifySettings)})
    _check(own, "")
    _check(command.metric, "metric.")
    if not 0 <= command.threads <= 1024:
        raise UsageError(f"--threads is {command.threads}; it must be from 0 to 1024")
    config = dataclasses.replace(config, family=command.family)
    config.validate()

    from metarl.evaluation.compare import checked_family
    from metarl.identification.study import identify, plan
    from metarl.reporting.identification_report import save_report, show
    from metarl.runs.run import load_run

    invocation.run_dir = directory
    loaded = load_run(directory, command.checkpoint, command.device)
    if not chosen:
        adapts = loaded.agent.facts.adapts and loaded.config.evaluation.adaptations > 0
        own = dataclasses.replace(own, explore=loaded.explores and adapts)
    planned = plan(loaded, checked_family(config), own)

    def say(line: str) -> None:
        print(line, flush=True)

    for use in ("training", "calibration", "judged"):
        labels = planned.labels(use)
        say(f"{len(labels)} classes {use if use == 'judged' else f'of {use}'}: {', '.join(labels)}")
    with _folder(command.output, directory.resolve().name, own.by) as folder:
        found, identifier = identify(loaded, planned, own, command.metric, command.threads, config, say)
        show(found)
        save_report(found, identifier, folder)
    return 0


@contextlib.contextmanager
def _folder(output: str, run: str, by: Sequence[str]) -> Iterator[Path]:
    """Make the folder before minutes of work, not after them; it goes again if nothing was saved in it."""
    from metarl.files import folder_for, fresh_folder
    from metarl.reporting.identification_report import JSON

    if output:
        place = folder_for(Path(output), JSON, lambda data: [_title(data["run"], data["by"])], [_title(run, by)])
    else:
        place = fresh_folder(Path(PLACE) / "_".join((run, *by)), "--output")
    try:
        yield place
    finally:
        with contextlib.suppress(OSError):  # a folder that holds something refuses
            place.rmdir()
            if not output:
                place.parent.rmdir()


def _title(run: str, by: Sequence[str]) -> str:
    return f"{run} by {', '.join(by)}"
