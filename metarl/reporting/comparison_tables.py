"""What is shown and kept of a comparison: tables, a JSON and a CSV file, figures."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from metarl.config import SPLIT_NAMES
from metarl.evaluation.evaluate import SHARES
from metarl.files import write
from metarl.reporting import comparison_figures
from metarl.reporting.agent_figures import short
from metarl.reporting.tables import (
    ABSENT,
    NO_GAIN,
    NO_LEAD,
    by_seed_text,
    disk_errors,
    interval_text,
    measure_name,
    places_of,
    share_text,
    show_lines,
    show_table,
    title,
)
from metarl.wording import number_of

if TYPE_CHECKING:
    from metarl.evaluation.comparison import Compared, Comparison

LABEL, PAIR_LABEL = 24, 34
"""Longest names of agents in tables, so that these fit on 100 columns."""
PAIRS = 10
"""Pairs of agents shown at most; the file has them all."""
JSON, CSV = "comparison.json", "comparison.csv"


def show(comparison: Comparison, console: Console | None = None) -> None:
    """Print the tables and the remarks: drawn on a terminal, plain columns elsewhere."""
    console = console or Console(file=sys.stdout)
    title(heading(comparison), console)
    for columns, cells, left in (
        (*return_table(comparison), 1),
        (*adaptation_table(comparison), 1),
        (*measure_table(comparison), 1),
        (*improvement_table(comparison), 2),
    ):
        if cells and len(columns) > 1:
            if not console.is_terminal:  # where it is drawn it has its own space
                console.print()
            show_table(columns, cells, console, left)
    show_lines(remarks(comparison), console)


def heading(comparison: Comparison) -> str:
    """One line: how many agents, on what."""
    settings = comparison.settings
    tasks = number_of(sum(map(len, comparison.tasks)), f"{SPLIT_NAMES[settings.split]} task")
    seeds = f"seed{'s' * (len(settings.seeds) != 1)} {', '.join(map(str, settings.seeds))}"
    same = "the same " * (len(comparison.agents) > 1)
    return f"{number_of(len(comparison.agents), 'agent')} on {same}{tasks} of {comparison.family.name} ({seeds})"


def return_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return before and after adaptation, and the gain."""
    places = places_of(agent.result.summary.iqm[-1] for agent in comparison.agents)
    cells, several = [], any(agent.runs for agent in comparison.agents)
    for agent in comparison.agents:
        summary, rounds = agent.result.summary, agent.result.settings.adaptations
        before, after = summary.iqm[0].estimate, interval_text(summary.iqm[-1], places)
        gain = interval_text(summary.gain[-1], places, "+") if rounds else ""
        runs = [str(agent.result.trained_agents)] if several else []
        cells.append([name_of(agent), *runs, str(rounds), f"{before:z.{places}f}", after, gain])
    return ["return (IQM [95 %])", *(["runs"] if several else []), "rounds", "before", "after", "gain"], cells


def adaptation_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Worst tasks, speed of adaptation, share of the oracle's lead, gap to training tasks; what no agent has is left
    out. A gap whose interval excludes 0 has a mark."""
    agents = comparison.agents
    places = places_of(agent.result.summary.iqm[-1] for agent in agents)

    def reach(agent: Compared) -> str:
        rounds = agent.result.summary.rounds_to_reach
        if rounds is None:
            return ABSENT if agent.result.settings.adaptations else ""
        return number_of(rounds.estimate * agent.result.settings.envs_per_task, "episode")

    def share(agent: Compared) -> str:
        if agent.oracle_share is None:
            return ABSENT if lacks_share(comparison, agent) else ""
        return share_text(agent.oracle_share)

    def recovered(agent: Compared) -> str:
        found = agent.result.recovered
        if found is None:
            return ""
        share, steps = found
        taken = "" if steps is None else f"{number_of(round(steps.estimate), 'step')}, "
        return taken + f"{100 * share.estimate:z.0f} %"

    def gap(agent: Compared) -> str:
        found = agent.result.train_gap
        return "" if found is None else interval_text(found.after, places, "+") + " !" * found.flagged

    columns = {
        "worst 5 %": lambda agent: f"{agent.result.summary.worst[-1].estimate:z.{places}f}",
        "90 % after": reach,
        "of the oracle's lead": share,
        "recovers in": recovered,
        "training tasks: gap": gap,
    }
    kept = {head: cell for head, cell in columns.items() if any(cell(agent) for agent in agents)}
    return ["adaptation", *kept], [[name_of(agent), *(cell(agent) for cell in kept.values())] for agent in agents]


def measure_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Means over tasks after the last round of what the family measures; energy is in the cost of transport."""
    units = comparison.family.measure_units
    names = [name for name in units if name != "energy" or "cost_of_transport" not in units]
    heads = [measure_name(name, units[name]).replace(", ", "\n") for name in names]

    def cell(agent: Compared, name: str) -> str:
        measured = agent.result.measured[name][-1]
        if measured is None:
            return ABSENT
        return f"{100 * measured.estimate:.0f}" if name in SHARES else f"{measured.estimate:.3g}"

    return ["after adaptation", *heads], [
        [name_of(agent), *(cell(agent, name) for name in names)] for agent in comparison.agents
    ]


def improvement_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """How likely an agent is to do better than another on a task."""
    cells = [
        [short(pair.a, PAIR_LABEL), short(pair.b, PAIR_LABEL), interval_text(pair.interval, 2)]
        for pair in comparison.improvements[:PAIRS]
    ]
    return ["on a task this agent", "is better than this one", "with probability"], cells


def remarks(comparison: Comparison) -> list[str]:
    """The lines below the tables: what the tables mean, warnings, notes."""
    lines = []
    if (left := len(comparison.improvements) - PAIRS) > 0:
        lines.append(f"{number_of(left, 'more pair')} in {JSON}")
    for agent in comparison.agents:
        if agent.runs:
            levels = by_seed_text([(run.seed, run.result.summary.iqm[-1]) for run in agent.runs])
            lines.append(f"{name_of(agent)} by training seed, after: {levels}")
    if any(a.result.settings.adaptations and a.result.summary.rounds_to_reach is None for a in comparison.agents):
        lines.append(f"90 % after: {ABSENT} where {NO_GAIN}")
    if any(a.oracle_share is None and lacks_share(comparison, a) for a in comparison.agents):
        lines.append(f"of the oracle's lead: {ABSENT} where {NO_LEAD}")
    if any(agent.result.train_gap for agent in comparison.agents):
        lines.append("gap: return on tasks of the agent's training - return here, after the last round; !: not 0")
    if text := comparison.family.success_text():
        lines.append(f"success: {text}")
    lines += [f"{short(a.label, LABEL)}: {a.label}" for a in comparison.agents if len(a.label) > LABEL]
    return lines + [f"warning: {w}" for w in comparison.warnings] + [f"note: {n}" for n in comparison.notes]


def lacks_share(comparison: Comparison, agent: Compared) -> bool:
    """Whether an agent would have a share of an oracle's lead if that were shown."""
    return bool(agent.result.settings.adaptations) and not agent.oracle and any(a.oracle for a in comparison.agents)


def name_of(agent: Compared) -> str:
    """An agent's label as tables have it."""
    return short(agent.label, LABEL)


def save(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Write JSON, CSV and figures, and say where; returns the figures by name. RunError if the disk refuses."""
    text = json.dumps(comparison.to_dict(), indent=1, allow_nan=False) + "\n"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / JSON, text.encode())
        write(folder / CSV, csv_text(comparison).encode())
        figures = comparison_figures.draw(comparison, folder)
    for path in (folder / JSON, folder / CSV, *figures.values()):
        print(f"saved {os.path.relpath(path)}")
    return figures


def csv_text(comparison: Comparison) -> str:
    """One row an agent: what the tables say, with the ends of intervals."""
    rows = [csv_row(agent) for agent in comparison.agents]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def csv_row(agent: Compared) -> dict[str, Any]:
    """An agent's numbers by column."""
    result, gap = agent.result, agent.result.train_gap
    summary, settings, source = result.summary, result.settings, result.source
    numbers: dict[str, Any] = {
        "label": agent.label,
        "agent": agent.agent,
        "oracle": agent.oracle,
        "run": "+".join(run.folder.name for run in agent.runs) or (source.run if source else ""),
        "training_seed": "+".join(str(run.seed) for run in agent.runs)
        or agent.trained.get("training", {}).get("seed", ""),
        "iteration": source.iteration if source else "",
        "env_steps": source.env_steps if source else "",
        "rounds": settings.adaptations,
        "episodes_per_round": settings.envs_per_task,
        "tasks": summary.tasks_counted,
    }
    intervals = {
        "return_before": summary.iqm[0],
        "return_after": summary.iqm[-1],
        "gain": summary.gain[-1],
        "worst_5_percent": summary.worst[-1],
        "rounds_to_90_percent": summary.rounds_to_reach,
        "oracle_share": agent.oracle_share,
        "recovered": result.recovered and result.recovered[0],
        "steps_to_recover": result.recovered and result.recovered[1],
        "train_gap": gap and gap.after,
        **{name: shots[-1] for name, shots in result.measured.items()},
    }
    for name, interval in intervals.items():
        ends: Sequence[Any] = ("", "", "") if interval is None else (interval.estimate, interval.low, interval.high)
        numbers |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
    return numbers
