"""Report of a headroom study: a table, what follows in words, and files of both with a figure."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from metarl.evaluation.comparison import Compared, Comparison
from metarl.evaluation.headroom import Headroom
from metarl.evaluation.statistics import Interval
from metarl.files import write
from metarl.reporting import time_table
from metarl.reporting.agent_figures import short
from metarl.reporting.columns import ABSENT, Agents, Table, brief_table, csv_numbers, interval_text, places_of
from metarl.reporting.comparison_figures import NARROW, timed_of, what
from metarl.reporting.comparison_files import without_bulk
from metarl.reporting.comparison_tables import heading, name_of
from metarl.reporting.evaluation_files import disk_errors
from metarl.reporting.figures import INK, QUIET, STYLE, save, title_of
from metarl.reporting.terminal import print_lines, print_table, print_title
from metarl.reporting.time_columns import AFTER_CHANGES, LOST, MEMORY, REGAINED, RETURN_AFTER_CHANGES, seconds_text
from metarl.reporting.time_figures import courses, revisits

JSON, CSV, PNG, REVISIT_PNG = "headroom.json", "headroom.csv", "headroom.png", "revisit.png"
TIME_CSV, TIME_PNG = "time.csv", "time.png"
MINUTE = 60.0
RESET = "_reset"
"""Ending of the label of an agent whose memory is reset before every action."""
TIMED = 8
"""Largest number of agents drawn against seconds without a choice."""
IN_TIME = (RETURN_AFTER_CHANGES, MEMORY, LOST, REGAINED)
"""Columns of the CSV file on what memory adds, after how many seconds, and what another task makes it forget."""

Cost = Mapping[str, Mapping[str, float]]
"""Env steps and seconds of training, by arm."""


def show(comparison: Comparison, found: Headroom | None, cost: Cost, notes: Sequence[str]) -> None:
    """Print the table, what follows, and warnings and notes."""
    console = Console(file=sys.stdout)
    print_title(heading(comparison), console)
    print_table(table(comparison, found, cost), console, left=1)
    agents = Agents.of(comparison.agents)
    changes = brief_table(
        "when the task changes", (AFTER_CHANGES, RETURN_AFTER_CHANGES, LOST, REGAINED), agents, name_of
    )
    if len(changes.columns) > 1:
        print_table(changes, console, left=1)
    warnings, remarks = (
        [f"{what}: {t}" for t in own] for what, own in (("warning", comparison.warnings), ("note", comparison.notes))
    )
    print_lines(lines(found, [*warnings, *notes, *remarks]), console)


def lines(found: Headroom | None, notes: Sequence[str]) -> list[str]:
    """Return what follows, and the notes, as lines."""
    if found is None:
        return ["no headroom yet: it needs the arms oracle and randomised", *notes]
    first, *rest = found.verdict
    return [f"verdict: {first}", *(f"  {sentence}" for sentence in rest), *notes]


def table(comparison: Comparison, found: Headroom | None, cost: Cost) -> Table:
    """Return a row for each agent: return in the first and in the last episode, gain, share of the lead, seconds, cost.

    Where a trial has one episode, that is both, and there is no gain.
    """
    places = places_of(agent.result.summary.iqm[-1] for agent in comparison.agents)
    shots = (0, -1) if any(len(agent.result.summary.iqm) > 1 for agent in comparison.agents) else (-1,)

    def row(agent: Compared) -> list[str]:
        summary = agent.result.summary
        intervals = [*(summary.iqm[k] for k in shots), *([summary.gain[-1]] if len(shots) > 1 else [])]
        returns = [interval_text(interval, places) for interval in intervals]
        own = cost.get(agent.label)
        steps = f"{own['env_steps'] / 1e6:.2f}M" if own else ""
        minutes = f"{own['training_s'] / MINUTE:.0f}" if own else ""
        return [agent.label, *returns, *(_share(agent, found, k) for k in shots), _seconds(agent), steps, minutes]

    several = (
        *("return, first episode\nIQM [95 %]", "last episode\nIQM [95 %]", "gain\nIQM [95 %]"),
        *("of the oracle's lead\nat once", "\nat last"),
    )
    alone = ("return\nIQM [95 %]", "of the\noracle's lead")
    columns = ("", *(several if len(shots) > 1 else alone), "memory\nis there in", "env steps", "training\nmin")
    return Table("headroom", columns, [row(agent) for agent in comparison.agents])


def _share(agent: Compared, found: Headroom | None, shot: int) -> str:
    if found is None or agent.label == found.randomised:
        return ""
    if agent.label == found.oracle:
        lead = interval_text(found.lead, places_of([found.lead]))
        return "" if shot == 0 else f"lead {lead}{', worse' if found.lead.high < 0 else ''}"
    share = (found.at_once if shot == 0 else found.recovered).get(agent.label)
    return ABSENT if share is None else f"{share.estimate:.2f} [{share.low:.2f}, {share.high:.2f}]"


def _seconds(agent: Compared) -> str:
    """Return the seconds until 90 % of what memory adds is there; empty for an agent without its forgetful self."""
    gap = agent.memory_gap
    if gap is None or gap.seconds is None:
        return "" if gap is None else ABSENT
    return seconds_text(gap.seconds)


def save_report(
    comparison: Comparison, found: Headroom | None, cost: Cost, notes: Sequence[str], folder: Path
) -> dict[str, Path]:
    """Write JSON, CSV and figures into a folder, print where, and return them by kind. RunError if the disk refuses."""
    import matplotlib

    paths = {"json": folder / JSON, "csv": folder / CSV, "figure": folder / PNG}
    timed = timed_of(comparison, in_time(comparison, found))
    if any(agent.course() for agent in timed):
        paths |= {"curves": folder / TIME_CSV, "time": folder / TIME_PNG}
    if any(agent.agent.result.forgetting for agent in timed):
        paths["revisit"] = folder / REVISIT_PNG
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        data = json.dumps(to_dict(comparison, found, cost, notes), indent=1, allow_nan=False) + "\n"
        write(paths["json"], data.encode())
        write(paths["csv"], _csv(comparison, found, cost).encode())
        if "curves" in paths:
            write(paths["curves"], time_table.csv_text(comparison.agents).encode())
        with matplotlib.rc_context(STYLE):
            draw(comparison, found, paths["figure"])
            if "time" in paths:
                courses(timed, comparison.units, what(comparison), paths["time"])
            if "revisit" in paths:
                revisits(timed, what(comparison), paths["revisit"])
    for path in paths.values():
        print(f"saved {os.path.relpath(path)}")
    return paths


def in_time(comparison: Comparison, found: Headroom | None) -> list[str]:
    """Return the labels of the agents that are drawn against seconds.

    Where all are too many: the oracle, the randomised policy, and those with the highest return in the last episode,
    with the best one's memory reset.
    """
    labels = [agent.label for agent in comparison.agents]
    if len(labels) <= TIMED:
        return labels
    remembering = [agent for agent in comparison.agents if agent.reset_memory == "never"]
    best = [a.label for a in sorted(remembering, key=lambda a: -a.result.summary.iqm[-1].estimate)]
    ends = [found.oracle, found.randomised] if found else []
    best = [label for label in best if label not in ends][: TIMED // 2]
    reset = [f"{label}{RESET}" for label in best[:1]]
    return [label for label in labels if label in (*ends, *best, *reset)]


def to_dict(comparison: Comparison, found: Headroom | None, cost: Cost, notes: Sequence[str]) -> dict[str, Any]:
    """Return plain types for JSON: the headroom and the statistics of each agent, without what it did on each task."""
    return {
        "headroom": found and found.to_dict(),
        "notes_on_the_study": list(notes),
        "training": {name: dict(values) for name, values in cost.items()},
        **without_bulk(comparison.to_dict()),
    }


def _csv(comparison: Comparison, found: Headroom | None, cost: Cost) -> str:
    buffer = io.StringIO()
    names = ("first", "last", "gain", "recovered_at_once", "recovered", "over_randomised")
    columns = ["label", "agent", *(f"{name}{end}" for name in names for end in ("", "_low", "_high"))]
    writer = csv.writer(buffer, lineterminator="\n")
    in_time = [f"{name}{end}" for column in IN_TIME for name in column.intervals for end in ("", "_low", "_high")]
    writer.writerow([*columns, *in_time, "mean_last", "env_steps", "training_s", "training_seeds"])
    for agent in comparison.agents:
        summary, own = agent.result.summary, cost.get(agent.label, {})
        leads = {found.oracle: found.lead, **found.over_randomised} if found else {}
        shares = [of.get(agent.label) for of in ((found.at_once, found.recovered, leads) if found else ({}, {}, {}))]
        intervals = [summary.iqm[0], summary.iqm[-1], summary.gain[-1], *shares]
        cells = [end for interval in intervals for end in _ends(interval)]
        cells += csv_numbers(IN_TIME, agent).values()
        rest = [summary.mean[-1].estimate, own.get("env_steps", ""), own.get("training_s", ""), len(agent.members)]
        writer.writerow([agent.label, agent.agent, *cells, *rest])
    return buffer.getvalue()


def _ends(interval: Interval | None) -> tuple[Any, Any, Any]:
    return ("", "", "") if interval is None else (interval.estimate, interval.low, interval.high)


def draw(comparison: Comparison, found: Headroom | None, path: Path) -> None:
    """Draw the IQM of each agent's last episode with its interval, and the lead of the oracle as a band."""
    from matplotlib.figure import Figure

    agents = list(reversed(comparison.agents))
    figure = Figure(figsize=(NARROW, 1.4 + 0.34 * len(agents)), layout="constrained")
    axes = figure.subplots()
    levels = {agent.label: agent.result.summary.iqm[-1] for agent in agents}
    if found is not None:
        ends = [levels[label].estimate for label in (found.randomised, found.oracle)]
        axes.axvspan(min(ends), max(ends), color=QUIET, alpha=0.18, linewidth=0)
    for y, agent in enumerate(agents):
        level, start = levels[agent.label], agent.result.summary.iqm[0]
        axes.plot([level.low, level.high], [y, y], color=INK, linewidth=1.6, solid_capstyle="butt")
        axes.plot(start.estimate, y, "o", color=INK, markersize=6, markerfacecolor="white", zorder=3)
        axes.plot(level.estimate, y, "o", color=INK, markersize=5, zorder=4)
    axes.set_yticks(range(len(agents)), [short(agent.label) for agent in agents], parse_math=False)
    axes.set_ylim(-0.7, len(agents) - 0.3)
    several = any(len(agent.result.summary.iqm) > 1 for agent in agents)
    axes.set_xlabel("return of an episode (filled: last, hollow: first)" if several else "return of the episode")
    lead = "" if found is None else "\nGrey: from the randomised policy to the oracle"
    title_of(figure, f"{what(comparison)}\nIQM over tasks and its 95 % interval{lead}")
    save(figure, path)
