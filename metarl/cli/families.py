"""`metarl families`: describe task families, or draw one."""

from __future__ import annotations

from pathlib import Path

from metarl.cli.arguments import Arguments
from metarl.cli.invocation import Invocation
from metarl.cli.selection import (
    FAMILY_OPTIONS,
    chosen_family,
    got_instead,
    output_file,
    own_robot,
    require_seed,
)
from metarl.cli.train import TrainCommand
from metarl.config import RunConfig, files_of, options, settings_of
from metarl.envs.registry import FAMILY_SETTINGS
from metarl.errors import UsageError, usage_errors
from metarl.files import require_place
from metarl.options import coerce, flag

HELP = """usage: metarl families [NAME...]
       metarl families --robot MODEL --family FILE.yaml
       metarl families show NAME [--output FILE.png] [--seed S] [--family.SETTING VALUE]
       metarl families show --robot MODEL --family FILE.yaml [--output FILE.png] [--seed S]

List task families: parameters, units, ranges, splits and settings. `show` draws a contact sheet instead: robots sampled
from every split, and the range of each parameter; and says what the faults of the tasks are, if they have any.

  --robot MODEL      your own robot: MJCF, URDF, or file.py:function, which returns an MjSpec
  --family FILE.yaml file that declares what varies on it
  --output FILE.png  picture to write (NAME.png, or of your own robot FILE_tasks.png)
  --seed S           seed of the sampled tasks (1)
"""
SHOW_OPTIONS = ("output", "seed")


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    given = Arguments.split(arguments)
    if given.help:
        print(HELP, end="")
        return 0
    if given.positionals[:1] == ["show"]:
        return _show(given)
    own = given.take(FAMILY_OPTIONS)
    for name in given.options:
        other = "; metarl families show NAME takes settings" if name.startswith("family.") else ""
        raise UsageError(f"unknown option {flag(name)}; metarl families takes names only{other}")
    names = given.positionals or ([] if own else list(FAMILY_SETTINGS))
    chosen = [settings_of("family", name)() for name in names] + (
        [chosen_family(own) if "env" in own else own_robot(own)] if own else []
    )

    from metarl.reporting.catalogue import show_families

    with usage_errors("family"):
        show_families(chosen)
    return 0


def _show(given: Arguments) -> int:
    """Draw the contact sheet of a family."""
    names, chosen = given.positionals[1:], given.take(FAMILY_OPTIONS)
    if len(names) != (0 if chosen else 1):
        raise UsageError(
            f"metarl families show takes the name of one family{got_instead(names, chosen) if names else ''}; for your "
            "own robot give --robot MODEL --family FILE.yaml, for your own environment --env FILE.py:FUNCTION"
        )
    plain = given.take(SHOW_OPTIONS)
    config = RunConfig(family=chosen_family(chosen or {"family": names[0]}))
    types = {name: kind for name, kind in options(config).items() if name.startswith("family.")}
    command = given.parse(
        TrainCommand(family=config.family), types, (*SHOW_OPTIONS, *FAMILY_OPTIONS), "metarl families show"
    )
    output = output_file(plain.get("output", ""), ".png") or Path(_picture(config))
    seed = coerce(plain.get("seed", 1), int, "--seed")
    require_seed(seed)

    from metarl.envs.registry import make_family
    from metarl.reporting import contact_sheet
    from metarl.reporting.catalogue import fault_lines

    with usage_errors("family"):
        family = make_family(command.family)
    require_place(output, "--output")
    for line in fault_lines(family):
        print(line)
    contact_sheet.draw(family, output, seed)
    print(f"saved {output}")
    return 0


def _picture(config: RunConfig) -> str:
    """Return the name of a family's picture; your own robot's is called after the file that declares its tasks."""
    files = [*files_of(config).values()]
    return f"{Path(files[-1].partition('.py:')[0]).stem}_tasks.png" if files else f"{config.family_name}.png"
