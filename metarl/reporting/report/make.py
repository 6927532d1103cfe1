"""Make a report on runs: gather the material, compose the page, write the files."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metarl.errors import UsageError
from metarl.files import fresh_folder, make_folder
from metarl.provenance import provenance
from metarl.reporting.report.agents import agent_sections, learning_section, overview
from metarl.reporting.report.distribution import distribution_section
from metarl.reporting.report.figures import looks_of
from metarl.reporting.report.films import films_section
from metarl.reporting.report.material import Material
from metarl.reporting.report.origin import as_typed, origin_section, settings_section
from metarl.reporting.report.page import Page, Section, Text, file_name
from metarl.reporting.report.reading import gather
from metarl.reporting.report.write import JSON, Report, send, write_report
from metarl.wording import number_of


def report(
    directories: Sequence[Path],
    comparison: Path | None = None,
    output: Path | None = None,
    videos: bool = True,
    title: str = "",
    wandb: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Write a report on runs: report.html, report.md and report.json, with figures and films in folders beside them.

    comparison: see `gather`. output: folder; None for a new one in `reports/`. videos: whether films are made. wandb:
    also send the report to the W&B run of each run. say: called with a line before each step that takes long.
    UsageError for runs that cannot be reported on, RunError if the disk refuses.
    """
    material = gather(directories, comparison)
    record = provenance()
    made = {**record, "command": as_typed(record["command"])}
    folder = _of_these(output, material) if output else _new_folder(material)
    written = write_report(compose(material, made, title, videos, folder, say), material, folder)
    if wandb:
        for run in material.runs:
            send(run, written, say)
    return written


def compose(
    material: Material, made: Mapping[str, Any], title: str, videos: bool, folder: Path, say: Callable[[str], None]
) -> Page:
    """Return the page of a report. made: provenance of the report. folder: films and contact sheets are made there."""
    runs = material.runs
    names = ", ".join(run.label for run in runs)
    families = list(dict.fromkeys(run.family for run in runs))
    lead = f"{number_of(len(runs), 'run')} on {', '.join(families)}: {names}."
    say("drawing figures")
    looks = looks_of(runs, material.comparisons)
    sections = [overview(material), *agent_sections(material, looks), learning_section(runs, looks)]
    filmed = films_section(material, folder, say) if videos else [Text("Films were not asked for (--no-videos).")]
    sections.append(Section("Before and after adaptation", filmed))
    say("drawing the task distributions")
    sections += [distribution_section(material, folder), settings_section(runs), origin_section(runs, made)]
    return Page(title or f"Report: {names}", lead, sections, made)


def _of_these(folder: Path, material: Material) -> Path:
    """Make the folder, and return it; UsageError if it holds the report of other runs, whose files would stay."""
    make_folder(folder, "--output")
    try:
        held = [Path(run["folder"]) for run in json.loads((folder / JSON).read_text(encoding="utf-8"))["runs"]]
    except (OSError, ValueError, KeyError, TypeError):  # it holds no report
        return folder
    if {path.resolve() for path in held} != {run.directory.resolve() for run in material.runs}:
        raise UsageError(f"--output {folder} holds the report of {', '.join(map(str, held))}; name another folder")
    return folder


def _new_folder(material: Material) -> Path:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    runs = material.runs
    name = file_name(runs[0].name) if len(runs) == 1 else file_name(runs[0].config.family_name)
    return fresh_folder(Path("reports") / f"{name}_{stamp}", "--output")
