"""`metarl robot`: a first file for your own robot, a check of it before training, and all that such a file can say."""

from __future__ import annotations

from pathlib import Path

from metarl.cli.arguments import Arguments
from metarl.cli.invocation import Invocation
from metarl.envs.own_robot.hooks import functions_in
from metarl.envs.text import typed
from metarl.errors import UsageError, nearest, usage_errors
from metarl.files import require_place, write
from metarl.options import flag

HELP = """usage: metarl robot init MODEL [--output FILE.yaml]
       metarl robot check MODEL [--family FILE.yaml]
       metarl robot terms [--markdown]
       metarl robot schema

init   Write a commented file for the robot: base, feet, joints, gains that carry it and a pose in which it stands,
       found by simulation; a walking reward, or reaching for an arm; ranges. Edit it, then check it.
check  Show what is inferred about your own robot, and simulate it twice for one second: with action 0 and with random
       actions. Print what is wrong and how to mend it. The exit status is 2 if the robot cannot be used.
terms  List the keys of a robot's file, its observation and reward terms, and the quantities that it can vary.
schema Print the JSON Schema of a robot's file, for editors.

  MODEL              MJCF, URDF, or file.py:function, which returns an MjSpec. The function's code is run; an MJCF or
                     URDF file is read as data
  --family FILE.yaml file that declares what varies on it; what it makes of the robot is shown too
  --output FILE.yaml file to write; otherwise it is named after the model. A file that exists is not overwritten
  --markdown         print the tables as in docs/robots.md
"""
OPTIONS = {"init": ("output",), "check": ("family",), "terms": ("markdown",), "schema": ()}
"""Options of each part."""


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    given, taken, switches = Arguments.plain(arguments, ("output", "family"), ("markdown",))
    if given.help:
        print(HELP, end="")
        return 0
    part = given.positionals[0] if given.positionals else ""
    if part not in OPTIONS:
        if part:
            raise UsageError(f"metarl robot has no part {part!r}{nearest(part, list(OPTIONS))}")
        raise UsageError(f"metarl robot takes: {', '.join(OPTIONS)}")
    for name in (*taken, *switches):
        if name not in OPTIONS[part]:
            raise UsageError(f"metarl robot {part} takes no {flag(name)}")
    takes_model = part in ("init", "check")
    if len(given.positionals) != 1 + takes_model:
        raise UsageError(f"metarl robot {part} takes {'a model: MODEL' if takes_model else 'no model'}")
    with usage_errors("robot"):
        if part == "check":
            from metarl.cli.check_report import show_check
            from metarl.trust import trust

            usable = show_check(given.positionals[1], taken.get("family", ""))
            for function in functions_in(taken.get("family", "")).values():
                trust(function)
            return 0 if usable else 2
        if part == "init":
            return _init(given.positionals[1], taken.get("output", ""))
    return _schema() if part == "schema" else _terms("markdown" in switches)


def _init(model: str, output: str) -> int:
    """Write a first file for a robot."""
    from metarl.cli.check_remarks import unsteady
    from metarl.envs.own_robot.first_file import first_file
    from metarl.envs.own_robot.support import support_of

    target = Path(output or f"{Path(model.split(':')[0]).stem}.yaml")
    if target.exists():
        raise UsageError(f"{target} exists; name another by --output FILE.yaml, or move it")
    require_place(target, "--output")
    text, found = first_file(model)
    write(target, text.encode(), "--output")
    print(f"wrote {target}")
    if not found.stands:
        why = list(unsteady(found.robot, support_of(found.robot))) or ["give robot: {pose: ...} another pose"]
        print(f"note: it does not stand by itself for two seconds with action 0; {'; '.join(why)}")
    if found.robot.mobility == "fixed" and found.reach is None:
        print(
            "note: its joints move no site and no body's origin, so its file has no goal; add a <site> to the model "
            "where it is to reach, and write goal: {effector: SITE}"
        )
    print(f"Check it with: metarl robot check {typed(model)} --family {typed(target)}")
    return 0


def _terms(markdown: bool) -> int:
    """Print all that a robot's file can say."""
    from metarl.envs.own_robot import reference

    if markdown:
        print(reference.markdown(), end="")
        return 0
    from metarl.reporting.catalogue import show_tables

    show_tables([(t.title, t.head, t.rows) for t in reference.reference()])
    return 0


def _schema() -> int:
    """Print the JSON Schema of a robot's file."""
    import json

    from metarl.envs.own_robot import reference

    print(json.dumps(reference.schema(), indent=1))
    return 0
