"""`metarl robot check`: inspect your own robot before training."""

from __future__ import annotations

from metarl.cli.arguments import Arguments
from metarl.cli.invocation import Invocation
from metarl.errors import UsageError, nearest, usage_errors
from metarl.options import flag

HELP = """usage: metarl robot check MODEL [--family FILE.yaml]

Show what is inferred about your own robot, and simulate it twice for one second: with action 0 and with random actions.
Print what is wrong and how to mend it. The exit status is 2 if the robot cannot be used.

  MODEL              MJCF, URDF, or file.py:function, which returns an MjSpec. The function's code is run; an MJCF or
                     URDF file is read as data
  --family FILE.yaml file that declares what varies on it; what it makes of the robot is shown too
"""


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    given = Arguments.split(arguments)
    if given.help:
        print(HELP, end="")
        return 0
    declaration = given.take(("family",)).get("family", "")
    for name in given.options:
        raise UsageError(f"unknown option {flag(name)}{nearest(flag(name), ['--family'])}")
    if len(given.positionals) != 2 or given.positionals[0] != "check":
        raise UsageError("metarl robot takes: check MODEL [--family FILE.yaml]")

    from metarl.cli.check_report import show_check

    with usage_errors("robot"):
        return 0 if show_check(given.positionals[1], declaration) else 2
