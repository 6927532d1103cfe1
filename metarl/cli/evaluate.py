"""`metarl evaluate`: evaluate one run on held-out tasks, or compare several on the same tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metarl.cli.arguments import SHORT, Arguments, named
from metarl.cli.invocation import Invocation
from metarl.cli.selection import option
from metarl.config import EvaluationSettings, RunConfig, options
from metarl.envs.family_settings import FamilySettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahVelocitySettings
from metarl.errors import UsageError
from metarl.files import require_place
from metarl.options import flag
from metarl.runs.entries import Entry, family_settings, read_entries, require_apart

TYPES: dict[str, Any] = {"checkpoint": str, "device": Literal["auto", "cpu", "cuda"], "threads": int, "output": str}
TYPES |= {"log_rollouts": str}
SWITCHES = {
    "--no-train-gap": "--evaluation.train-gap=false",
    "--explore": "--evaluation.explore=true",
    "--no-explore": "--evaluation.explore=false",
}
"""Settings that short switches stand for."""


@dataclass(frozen=True)
class EvaluateCommand:
    """Adapt trained agents to held-out tasks; print and save returns, gain, measures and confidence intervals.

    One RUN is evaluated by itself. Several are compared on the same tasks. RUN:SETTING=VALUE,... overrides agent
    settings, evaluation.adaptations, evaluation.envs-per-task or evaluation.reset-memory for one of them, or gives it a
    label. Runs that differ only in training.seed count as one agent, with intervals over tasks and training seeds,
    unless labels keep them apart. A pattern stands for all runs that match it: 'runs/ppo_*:agent.adaptation=fine_tune'.
    RUN RUN:evaluation.reset-memory=step shows what an agent's memory is worth, and after how many seconds.

    Short options: --split, --shots (evaluation.adaptations), --episodes (evaluation.envs-per-task), --seeds,
    --reset-memory (never, episode or step: when agents forget the task), --lives (a robot that falls is placed anew
    and its episode goes on), --revisit (another task, then the first again: what is forgotten), --no-train-gap, and
    --explore or --no-explore: with or without exploration noise, for all agents (default: as in each run's config).
    """

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], option("RUN...")] = ()
    """Folders of runs."""
    checkpoint: str = "last"
    """last, best, or, with one RUN, a checkpoint file."""
    device: Annotated[Literal["auto", "cpu", "cuda"], option(default="each run's")] = "auto"
    """Torch device of the agents."""
    threads: Annotated[int, option(default="the first run's")] = 0
    """Threads of the simulation; 0: all cores."""
    output: Annotated[str, option("DIR", default="a new one in comparisons/")] = ""
    """Folder to save a comparison in."""
    log_rollouts: Annotated[str, option("DIR")] = ""
    """With one RUN: folder to log episodes in. Each of its subfolders is an input of `metarl adapt --rollouts`."""
    family_name_: Annotated[str, option("NAME", name="family", default="the first run's")] = ""
    """Family, of the same robot, whose tasks the agents are compared on."""
    evaluation: EvaluationSettings = dataclasses.field(default_factory=EvaluationSettings)
    """Settings of the evaluation; the default is the first run's config."""
    family: FamilySettings = dataclasses.field(default_factory=HalfCheetahVelocitySettings)
    """Settings of the family; the default is the first run's config."""


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    given = Arguments.split(long_names(arguments))
    family_name = given.take(("family",)).get("family")
    if given.help and not given.positionals:
        Arguments([], {}, help=True).parse(EvaluateCommand(), {}, (), "metarl evaluate")
    if not given.positionals:
        raise UsageError(
            "metarl evaluate takes the folder of a run (metarl evaluate runs/NAME), or those of several to compare"
        )
    if "evaluation.split" in given.options:
        given.options["evaluation.split"] = [v.replace("-", "_") for v in given.options["evaluation.split"]]
    entries = [entry for text in given.positionals for entry in read_entries(text)]
    require_apart(entries)
    if "evaluation.explore" not in given.options:
        entries = [entry.exploring_as_trained() for entry in entries]
    first = entries[0].trained  # what is overridden for one of them is not for the others
    settings, taken = family_settings(entries, family_name)
    own_family = family_name is None and not any(name.startswith("family.") for name in given.options)
    alone = own_family and len(entries) == 1 and not entries[0].overrides and not entries[0].name
    command = EvaluateCommand(
        threads=first.training.threads, evaluation=first.evaluation, family=settings, device=first.training.device
    )
    known = options(dataclasses.replace(first, family=settings))
    types = TYPES | {k: t for k, t in known.items() if k.startswith(("evaluation.", "family."))}
    explicit_device = "device" in given.options
    try:
        command = given.parse(command, types, ("family", *SHORT), "metarl evaluate")
        training = dataclasses.replace(first.training, threads=command.threads)
        config = dataclasses.replace(first, evaluation=command.evaluation, family=command.family, training=training)
        config.validate()
    except UsageError as error:
        raise UsageError(by_short_names(str(error), arguments)) from None
    if command.log_rollouts and not (alone and not command.output):
        raise UsageError("--log-rollouts takes one RUN on tasks of its own family; leave out overrides and --output")
    if command.log_rollouts and command.evaluation.reset_memory != "never":
        raise UsageError(
            f"--log-rollouts takes the episodes of a policy that remembers, and evaluation.reset_memory is "
            f"{command.evaluation.reset_memory}; leave it out"
        )
    if command.log_rollouts and command.evaluation.explores_apart:
        raise UsageError(
            "--log-rollouts takes the episodes that are adapted from, and with evaluation.explore_to_adapt those are "
            "not the ones that are judged; add evaluation.explore=true"
        )
    if alone and not command.output:
        _evaluate(entries[0].path, command, invocation)
    else:
        _compare(entries, config, taken, command, explicit_device)
    return 0


def _evaluate(directory: Path, command: EvaluateCommand, invocation: Invocation) -> None:
    from metarl.deployment.logs import require_no_log
    from metarl.reporting.judge import evaluate

    invocation.run_dir = directory
    log = Path(command.log_rollouts) if command.log_rollouts else None
    if log is not None:
        require_no_log(log)
        require_place(log / "task", "--log-rollouts")
    evaluate(directory, command.evaluation, command.checkpoint, command.device, command.threads, log)


def _compare(
    entries: Sequence[Entry], config: RunConfig, taken: dict[str, Any], command: EvaluateCommand, device: bool
) -> None:
    if command.checkpoint not in ("last", "best") and len(entries) > 1:
        raise UsageError(f"--checkpoint is {command.checkpoint!r}, a file of one run; for several it is last or best")

    from metarl.evaluation.compare import checked_family, compare_entries
    from metarl.reporting.comparison_files import make_folder_for
    from metarl.reporting.judge import conclude_comparison, say

    if command.output:
        make_folder_for(command.output, entries, config)  # before hours of evaluation, not after them
    asked, family = command.device if device else None, checked_family(config)
    comparison = compare_entries(entries, config, family, taken, command.checkpoint, asked, command.threads, say=say)
    conclude_comparison(comparison, family, command.output or None)


def long_names(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with short options spelled out; UsageError if one is given under its long name too."""
    result, spelled = [], {}
    for token in arguments:
        name, equals, value = token.partition("=")
        if token in SWITCHES:
            result.append(SWITCHES[token])
        elif name.startswith("--") and (short := name[2:].replace("-", "_")) in SHORT:
            result.append(flag(SHORT[short]) + equals + value)
        else:
            result.append(token)
        setting = named(result[-1].partition("=")[0].removeprefix("--"))
        is_option = name.startswith("--") or (equals and ":" not in name)  # a run, or RUN:SETTING=VALUE, is none
        if is_option and spelled.setdefault(setting, name) != name:
            raise UsageError(f"{spelled[setting]} and {name} are the same setting; give one of them")
    return result


def by_short_names(message: str, arguments: Sequence[str]) -> str:
    """Return an error message that names settings by the short options that were typed."""
    for short, setting in SHORT.items():
        if any(token.partition("=")[0] == flag(short) for token in arguments):
            message = message.replace(flag(setting), flag(short)).replace(setting, flag(short))
    return message
