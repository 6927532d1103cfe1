"""Options that several commands share: which run, which policy of it, which family, which task, which output file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from metarl.cli.arguments import Arguments
from metarl.config import RunConfig, read_run_config, settings_of
from metarl.envs.family_settings import FamilySettings
from metarl.envs.foreign.settings import EnvSettings
from metarl.envs.own_robot.declared_ranges import declared_in
from metarl.envs.own_robot.settings import DECLARATIONS, RobotSettings
from metarl.envs.text import shown, typed
from metarl.errors import UsageError, usage_errors
from metarl.runs.entries import run_dir

if TYPE_CHECKING:
    from metarl.envs.family import TaskFamily
    from metarl.envs.task import Task

AGENT_OPTIONS: dict[str, Any] = {"checkpoint": str, "device": Literal["auto", "cpu", "cuda"]}
"""Types of the options that choose a checkpoint of a run and the agent's device."""
FAMILY_OPTIONS = ("robot", "env", "family")
"""Options that choose a family."""


def option(metavar: str | None = None, default: str = "", name: str | None = None) -> Any:
    """Return how --help shows an option whose default is not a plain value.

    default: the default in words; empty where the docstring says it, or where there is none.
    """
    return tyro.conf.arg(name=name, metavar=metavar, help_behavior_hint=f"(default: {default})" if default else "")


def one_run(given: Arguments, blank: Any, command: str) -> tuple[Path, RunConfig]:
    """Return the folder and the configuration of the one run that is given.

    blank: the command's dataclass with its defaults, whose help --help prints without a run. UsageError for no run, or
    for several.
    """
    if given.help and not given.positionals:
        Arguments([], {}, help=True).parse(blank, {}, (), command)
    if len(given.positionals) != 1:
        got = f", got {' '.join(given.positionals)}" if given.positionals else ""
        raise UsageError(f"{command} takes the folder of one run ({command} runs/NAME){got}")
    directory = run_dir(given.positionals[0])
    return directory, read_run_config(directory)


def chosen_family(plain: Mapping[str, str]) -> FamilySettings:
    """Return the settings of the family that --family names; with --robot, your own robot's; with --env, your own's."""
    if "env" in plain:
        for other in ("robot", "family"):
            if other in plain:
                raise UsageError(f"--env already says what --{other} says; give one of the two")
        return EnvSettings(plain["env"])
    return own_robot(plain) if names_robot(plain) else settings_of("family", plain["family"])()


def names_robot(plain: Mapping[str, str]) -> bool:
    """Return whether the options name your own robot or a file that declares its tasks."""
    return "robot" in plain or plain.get("family", "").endswith(DECLARATIONS)


def own_robot(plain: Mapping[str, str]) -> RobotSettings:
    """Return the settings of your own robot, which --robot and --family name.

    UsageError if one is missing, or the file of --family cannot be read.
    """
    model, declaration = plain.get("robot", ""), plain.get("family", "")
    if not model:
        raise UsageError(f"--family {declaration} declares the tasks of a robot; name its model with --robot MODEL")
    if not declaration.endswith(DECLARATIONS):
        got = f", not {declaration!r}" if declaration else ""
        raise UsageError(
            f"--robot needs --family FILE.yaml, which declares what varies{got}; metarl robot check {typed(model)} "
            "shows how"
        )
    with usage_errors("family"):
        declared_in(declaration)
    return RobotSettings(model, declaration)


def got_instead(names: list[str], options: Mapping[str, str]) -> str:
    """Return what was given where a command takes something else, for its message."""
    return f", got {' '.join([*names, *(f'--{name} {value}' for name, value in options.items())])}"


def parse_task(family: TaskFamily, text: str) -> Task | None:
    """Return the task of a name, or with the parameter values of a JSON object; None for an empty text."""
    if not text:
        return None
    if family.named and not text.lstrip().startswith("{"):
        with usage_errors("--task"):
            return family.task_named(text)
    example = json.dumps({p.name: p.neutral for p in family.parameters[:1]})
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise UsageError(f"--task is {shown(text)}; give the parameter values as JSON, such as '{example}'")
    with usage_errors("--task"):
        return family.task(values)


def output_file(name: str, suffix: str) -> Path | None:
    """Return the file that --output names; None for an empty name. UsageError for another suffix."""
    if name and Path(name).suffix.lower() != suffix:
        raise UsageError(f"--output is {name!r}; name a file that ends with {suffix}")
    return Path(name) if name else None


def require_seed(seed: int) -> None:
    """UsageError for a negative seed."""
    if seed < 0:
        raise UsageError(f"--seed is {seed}; it must be at least 0")
