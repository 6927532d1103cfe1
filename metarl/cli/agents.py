"""`metarl agents`: list what may stand after --agent."""

from __future__ import annotations

import inspect
import textwrap

from metarl.agents.registry import AGENTS, PAPERS
from metarl.cli.arguments import Arguments
from metarl.cli.invocation import Invocation
from metarl.config import PRESETS
from metarl.errors import UsageError
from metarl.files import plain
from metarl.options import flag

HELP = """usage: metarl agents

List the agents, the published methods that are an agent with other settings, and the families that each has a preset
for. `metarl train --agent A --family F --help` lists every setting.
"""
INDENT = 20
"""Columns before what is said of a name."""
WIDTH = 119
"""Columns of a line."""


def run(arguments: list[str], invocation: Invocation) -> int:
    """Run the command."""
    given = Arguments.split(arguments)
    if given.help:
        print(HELP, end="")
        return 0
    for wrong in [*map(flag, given.options), *given.positionals]:
        raise UsageError(f"metarl agents takes no arguments, got {wrong}")
    print("agents")
    for name, entry in AGENTS.items():
        print(_entry(name, _first_sentence(entry.settings), f"presets: {', '.join(_presets(name)) or 'none'}"))
    print("\nmethods that are an agent with other settings, on any family")
    for name, paper in PAPERS.items():
        own = " ".join(f"agent.{setting}={_typed(value)}" for setting, value in paper.settings.items())
        presets = [f"presets: {', '.join(_presets(name))}"] if _presets(name) else []
        print(_entry(name, paper.words, f"{paper.agent} with {own}", *presets))
    return 0


def _entry(name: str, *lines: str) -> str:
    """Return a name, and lines beside it that are folded to the page."""
    beside = " " * INDENT
    whole = "\n".join(
        textwrap.fill(line, WIDTH, initial_indent=beside, subsequent_indent=beside, break_on_hyphens=False)
        for line in lines
    )
    return f"  {name}".ljust(INDENT) + whole[INDENT:]


def _first_sentence(settings: type) -> str:
    return inspect.cleandoc(settings.__doc__ or "").split("\n\n")[0].replace("\n", " ").removesuffix(".")


def _presets(agent: str) -> list[str]:
    """Return the families for which an agent has a preset."""
    others = [name for name in (*AGENTS, *PAPERS) if name.startswith(f"{agent}_")]
    stems = sorted(path.stem for path in PRESETS.glob(f"{agent}_*.yaml"))
    own = [stem for stem in stems if not any(stem.startswith(f"{other}_") for other in others)]
    return [stem.removeprefix(f"{agent}_") for stem in own]


def _typed(value: object) -> str:
    """Return a value as it is typed on the command line."""
    found = plain(value)
    if isinstance(found, list):
        return ",".join(map(str, found))
    return str(found).lower() if isinstance(found, bool) else str(found)
