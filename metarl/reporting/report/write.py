"""Write a report: page, Markdown, JSON, figures and films; and send it to W&B."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.config import config_to_dict
from metarl.files import make_folder, plain, write
from metarl.reporting.report.material import Material, ReportedRun, config_differences
from metarl.reporting.report.page import FIGURES, VIDEOS, Page, html, markdown, outline
from metarl.runs.tracking import WandbRun

JSON = "report.json"


@dataclass(frozen=True)
class Report:
    """Files of a report that was written."""

    folder: Path
    html: Path
    figures: Mapping[str, Path]
    """PNG files by name."""
    films: Mapping[str, Path]
    """MP4 files by name."""


def write_report(page: Page, material: Material, folder: Path) -> Report:
    """Write the figures, then the page, Markdown and JSON that name them, and return all files."""
    figures = {p.name: folder / FIGURES / f"{p.name}.png" for p in page.pictures}
    films = {film.name: folder / VIDEOS / f"{film.name}.mp4" for film in page.films}
    data = {
        "title": page.title,
        "made": page.made,
        "runs": [run_dict(run) for run in material.runs],
        "evaluations": [own.to_dict() for own in material.comparisons],
        "config_differences": config_differences(material.runs),
        "problems": material.problems,
        "figures": [{"file": f"{FIGURES}/{p.name}.png", "alt": p.alt, "caption": p.caption} for p in page.pictures],
        "films": [{"file": f"{VIDEOS}/{film.name}.mp4", "caption": film.caption} for film in page.films],
        "sections": outline(page),
    }
    for path, content in itertools.chain(
        ((figures[p.name], p.png) for p in page.pictures),
        (
            (folder / "report.md", markdown(page).encode()),
            (folder / JSON, (json.dumps(plain(data), indent=1, allow_nan=False) + "\n").encode()),
            (folder / "report.html", html(page).encode()),
        ),
    ):
        _put(path, content)
    return Report(folder, folder / "report.html", figures, films)


def _put(path: Path, content: bytes) -> None:
    make_folder(path.parent, "--output")
    write(path, content, "--output")


def run_dict(run: ReportedRun) -> dict[str, Any]:
    """Return a run as plain types for JSON."""
    return {
        "label": run.label,
        "folder": str(run.directory),
        "agent": run.config.agent_name,
        "family": run.config.family_name,
        "iteration": run.iteration,
        "env_steps": run.env_steps,
        "hours": run.hours,
        "config": config_to_dict(run.config),
        "provenance": list(run.history),
        "learning": {
            key: [line.get(key) for line in run.metrics]
            for key in ("iteration", "env_steps", "return/before", "return/after", "time/collect", "time/update")
        },
    }


def send(run: ReportedRun, written: Report, say: Callable[[str], None]) -> None:
    """Send the report to the W&B run of a run. say: called with a line if there is none; errors of W&B are warnings."""
    run_id = run.tracking.get("wandb_id")
    if not run_id or run.config.tracking.wandb == "disabled":
        say(f"{run.label} has no W&B run; its report is in {written.folder} only")
        return
    record = WandbRun(run.config, run.directory, str(run_id))
    record.report(int(run.tracking.get("wandb_step", 0)), run.env_steps, written.html, written.figures, written.films)
    record.finish()
