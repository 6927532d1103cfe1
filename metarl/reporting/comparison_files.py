"""Files of a comparison: JSON, CSV and figures."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarl.config import RunConfig
from metarl.envs.family import TaskFamily
from metarl.errors import UsageError
from metarl.evaluation.comparison import Compared, Comparison
from metarl.evaluation.saved import COMPARISON
from metarl.files import folder_for, plain, write
from metarl.reporting import comparison_figures, time_table
from metarl.reporting.columns import ADAPTATION, RETURNS, csv_numbers, measure_column
from metarl.reporting.evaluation_files import disk_errors
from metarl.reporting.time_columns import TIME
from metarl.runs.entries import Entry, files_by_content, trained_with

CSV, TIME_CSV = "comparison.csv", "time.csv"
BULK = ("returns", "measures", "recovery", "curves", "trained", "folder")
"""What an agent of a comparison has of each task and each moment, and what names this machine's folders."""
LEFT_OUT = (
    "tasks, the returns and measures of each, curves against seconds, and the training configurations: the command "
    "gives them"
)


def make_folder_for(output: Path | str, entries: Sequence[Entry], config: RunConfig) -> None:
    """Make the folder for a comparison of these runs; UsageError if it holds another, or cannot be.

    config: has the settings of the evaluation, and those of the family whose tasks they are.
    """
    folder = folder_for(Path(output), COMPARISON, _folders, [entry.path for entry in entries])
    try:
        theirs = _judged_by(json.loads((folder / COMPARISON).read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # it holds no comparison
        return
    family, evaluation = trained_with(files_by_content(config))["family"], plain(dataclasses.asdict(config.evaluation))
    agents = [{"overrides": plain(entry.overrides), "folder": entry.path.resolve(), "runs": []} for entry in entries]
    ours = _judged_by({"evaluation": evaluation, "family_settings": family, "agents": agents})
    changed = [name for name, value in theirs.items() if name in ours and value != ours[name]]
    if changed:
        shown = ", ".join(f"{name} ({theirs[name]}, here {ours[name]})" for name in changed[:3])
        raise UsageError(
            f"--output {output} holds a comparison of the same runs with another {shown}; name another folder"
        )


def _judged_by(comparison: Any) -> dict[str, Any]:
    """Return what a comparison's numbers follow from besides the runs, from its JSON: its settings by dotted name, and
    those that single runs have of their own."""
    evaluation, family = comparison["evaluation"].items(), comparison["family_settings"].items()
    own = {
        f"{Path(run['folder']).name}:{name}={value}"
        for agent in comparison["agents"]
        for run in agent["runs"] or [agent]
        for name, value in agent["overrides"].items()
    }
    settings = {f"evaluation.{k}": v for k, v in evaluation} | {f"family.{k}": v for k, v in family}
    return settings | {"setting of a single run": ", ".join(sorted(own)) or "none"}


def _folders(comparison: Any) -> list[str]:
    """Return the folders of the runs that a comparison's JSON names."""
    return [run["folder"] for agent in comparison["agents"] for run in agent["runs"] or [agent]]


def save(comparison: Comparison, family: TaskFamily, folder: Path) -> dict[str, Path]:
    """Write JSON, CSV and figures, and print where; return the figures by name. RunError if the disk refuses."""
    text = json.dumps(comparison.to_dict(), indent=1, allow_nan=False) + "\n"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / COMPARISON, text.encode(), "--output")
        write(folder / CSV, csv_text(comparison).encode(), "--output")
        tables = [folder / CSV]
        if any(agent.result.courses for agent in comparison.agents):
            tables.append(folder / TIME_CSV)
            write(tables[-1], time_table.csv_text(comparison.agents).encode(), "--output")
        figures = comparison_figures.draw(comparison, family, folder)
    for path in (folder / COMPARISON, *tables, *figures.values()):
        print(f"saved {os.path.relpath(path)}")
    return figures


def without_bulk(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Return a comparison's plain types with its statistics, and without what happened on each task."""

    def slim(value: Any) -> Any:
        if isinstance(value, list):
            return [slim(part) for part in value]
        return {k: slim(v) for k, v in value.items() if k not in BULK} if isinstance(value, dict) else value

    kept = {name: value for name, value in comparison.items() if name != "tasks"}
    return kept | {"agents": slim(comparison["agents"]), "left_out": LEFT_OUT}


def csv_text(comparison: Comparison) -> str:
    """Return one row for each agent: the numbers of the tables, with the ends of intervals."""
    rows = [csv_row(agent) for agent in comparison.agents]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def csv_row(agent: Compared) -> dict[str, Any]:
    """Return an agent's numbers by column."""
    result, source = agent.result, agent.result.source
    names = [run.folder.name for run in agent.runs if run.folder]
    own = {
        "label": agent.label,
        "agent": agent.agent,
        "oracle": agent.oracle,
        "run": "+".join(names) or (source.run if source else ""),
        "training_seed": "+".join(str(run.seed) for run in agent.runs)
        or agent.trained.get("training", {}).get("seed", ""),
        "iteration": source.iteration if source else "",
        "env_steps": source.env_steps if source else "",
        "rounds": agent.adaptations,
        "episodes_per_round": agent.episodes_per_round,
        "reset_memory": agent.reset_memory,
        "tasks": result.summary.tasks_counted,
        **csv_numbers((*RETURNS, *ADAPTATION, *TIME), agent),
    }
    measured = csv_numbers([measure_column(name, "1") for name in result.measured], agent)
    return {**own, **{f"measure_{name}" if name in own else name: value for name, value in measured.items()}}
