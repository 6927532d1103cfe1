"""Printing of a comparison: tables of returns, adaptation, measures and pairs of agents, and remarks."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from metarl.config import SPLIT_NAMES
from metarl.evaluation.comparison import Compared, Comparison, Improvement
from metarl.evaluation.saved import COMPARISON
from metarl.reporting.agent_figures import short
from metarl.reporting.columns import (
    ABSENT,
    ADAPTATION,
    RETURNS,
    Agents,
    Column,
    Table,
    brief_table,
    interval_text,
    measure_column,
    places_of,
)
from metarl.reporting.terminal import print_lines, print_table, print_title
from metarl.reporting.time_columns import TIME
from metarl.wording import number_of

LABEL, PAIR_LABEL = 24, 34
"""Longest names of agents in tables, so that these fit on 100 columns."""
PAIRS = 10
"""Largest number of pairs of agents that are shown; the file has them all."""


def show(comparison: Comparison, console: Console | None = None) -> None:
    """Print the tables and the remarks: drawn on a terminal, plain columns elsewhere."""
    console = console or Console(file=sys.stdout)
    print_title(heading(comparison), console)
    for table, left in (
        *((table, 1) for table in agent_tables(comparison)),
        (improvement_table(comparison.improvements[:PAIRS]), 2),
    ):
        if table.rows and len(table.columns) > 1:
            if not console.is_terminal:  # a drawn table has space around it
                console.print()
            print_table(table, console, left)
    print_lines(remarks(comparison), console)


def heading(comparison: Comparison) -> str:
    """Return one line with the number of agents, the tasks and the seeds."""
    settings = comparison.settings
    tasks = number_of(sum(map(len, comparison.tasks)), f"{SPLIT_NAMES[settings.split]} task")
    seeds = f"seed{'s' * (len(settings.seeds) != 1)} {', '.join(map(str, settings.seeds))}"
    same = "the same " * (len(comparison.agents) > 1)
    agents = number_of(len(comparison.agents), "agent")
    return f"{agents} on {same}{tasks} of {comparison.family} ({seeds}){settings.protocol}"


def agent_tables(comparison: Comparison) -> list[Table]:
    """Return the tables with a row for each agent: returns, adaptation, adaptation in time, measures afterwards."""
    agents = Agents.of(comparison.agents)
    return [
        brief_table("return (IQM [95 %])", RETURNS, agents, name_of),
        brief_table("adaptation", ADAPTATION, agents, name_of),
        brief_table("in time", TIME, agents, name_of),
        brief_table("after adaptation", measure_columns(comparison), agents, name_of),
    ]


def measure_columns(comparison: Comparison) -> list[Column]:
    """Return the columns of the measures; energy is left out where the cost of transport has it."""
    units = comparison.units
    names = [name for name in units if name != "energy" or "cost_of_transport" not in units]
    return [measure_column(name, units[name]) for name in names]


def improvement_table(pairs: Sequence[Improvement]) -> Table:
    """Return the table of the probability that one agent does better than another on a task."""
    cells = [[short(pair.a, PAIR_LABEL), short(pair.b, PAIR_LABEL), interval_text(pair.interval, 2)] for pair in pairs]
    return Table("", ("on a task this agent", "is better than this one", "with probability"), cells)


def remarks(comparison: Comparison) -> list[str]:
    """Return the lines below the tables: explanations of cells, warnings, notes."""
    lines, agents = [], Agents.of(comparison.agents)
    if (left := len(comparison.improvements) - PAIRS) > 0:
        lines.append(f"{number_of(left, 'more pair')} in {COMPARISON}")
    for agent in comparison.agents:
        if agent.runs:
            lines.append(f"{name_of(agent)} by training seed, after: {by_seed_text(agent)}")
    lines += [f"{c.brief}: {ABSENT} where {c.reason}" for c in ADAPTATION if c.has_absent(agents)]
    if any(agent.result.train_gap for agent in comparison.agents):
        lines.append("gap: return on tasks of the agent's training - return here, after the last round; !: not 0")
    if comparison.success:
        lines.append(f"success: {comparison.success}")
    lines += [f"{short(a.label, LABEL)}: {a.label}" for a in comparison.agents if len(a.label) > LABEL]
    return lines + [f"warning: {w}" for w in comparison.warnings] + [f"note: {n}" for n in comparison.notes]


def by_seed_text(agent: Compared) -> str:
    """Return the return after adaptation of each training seed, such as `1: 12.3, 2: 12.9`."""
    levels = [(member.seed, member.summary.iqm[-1]) for member in agent.members]
    places = places_of(level for _, level in levels)
    return ", ".join(f"{seed}: {level.estimate:z.{places}f}" for seed, level in levels)


def name_of(agent: Compared) -> str:
    """Return the label of an agent, shortened for tables."""
    return short(agent.label, LABEL)
