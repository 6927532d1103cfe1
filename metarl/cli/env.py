"""`metarl env`: a check of your own Gymnasium environment before training."""

from __future__ import annotations

from metarl.cli.arguments import Arguments
from metarl.cli.invocation import Invocation
from metarl.errors import UsageError, nearest, usage_errors

HELP = """usage: metarl env check FILE.py:FUNCTION

Show what is inferred about your own Gymnasium environment: tasks, observations, actions, length and time of a step.
Run Gymnasium's own checker on it, play an episode with random actions on a training task and on a held-out one, and
time its steps. The exit status is 2 if it cannot be used.

The function's code is run. It returns a metarl.GymTasks, or a TaskFamily. Runs that name the file are trusted from now
on, on this machine, until the file is edited.
"""


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    given, _, _ = Arguments.plain(arguments, ())
    if given.help:
        print(HELP, end="")
        return 0
    part = given.positionals[0] if given.positionals else ""
    if part != "check":
        raise UsageError(
            f"metarl env has no part {part!r}{nearest(part, ['check'])}" if part else "metarl env takes: check"
        )
    if len(given.positionals) != 2:
        raise UsageError("metarl env check takes a function: FILE.py:FUNCTION")
    from metarl.cli.env_report import show_env
    from metarl.trust import trust

    with usage_errors("env"):
        show_env(given.positionals[1])
        trust(given.positionals[1])
    return 0
