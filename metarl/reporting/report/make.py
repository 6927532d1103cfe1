"""Make a report on runs: gather the material, compose the page, write the files."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metarl.files import folder_for, fresh_folder
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
    if output:
        folders = [run.directory for run in material.runs]
        folder = folder_for(output, JSON, lambda data: [run["folder"] for run in data["runs"]], folders)
    else:
        folder = _new_folder(material)
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


def _new_folder(material: Material) -> Path:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    runs = material.runs
    name = file_name(runs[0].name) if len(runs) == 1 else file_name(runs[0].config.family_name)
    return fresh_folder(Path("reports") / f"{name}_{stamp}", "--output")
