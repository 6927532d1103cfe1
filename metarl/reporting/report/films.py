"""Section of a report with a film of each run, before and after adaptation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from metarl.config import SPLIT_NAMES, EvaluationSettings
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.task import Task
from metarl.errors import RunError, UsageError
from metarl.reporting.report.material import Material, ReportedRun, one_agent
from metarl.reporting.report.page import VIDEOS, Block, Film, Remarks, Text, file_name
from metarl.runs.trial import stream
from metarl.wording import number_of

FILM_BYTES = 1_000_000
"""Largest film that is embedded in the page."""
FILM_S = 10.0
"""Longest film, s."""


def films_section(material: Material, folder: Path, say: Callable[[str], None]) -> list[Block]:
    """Return a film of each run, on the same task for all runs of a family; one sentence if nothing can be rendered.

    Of runs that differ in the training seed alone, the first is filmed. folder: of the report.
    """
    from metarl.envs.rendering import RenderingUnavailable, open_context

    try:
        open_context(16, 16).free()
    except RenderingUnavailable as error:
        return [Remarks([f"no films: {error}"], "warning")]
    leader = one_agent(material.comparisons)
    runs = [run for run in material.runs if leader.get(run.label, run.label) == run.label]
    blocks: list[Block] = []
    if len(runs) < len(material.runs):
        blocks.append(Text("Of runs that differ in the training seed alone the first is filmed."))
    first: dict[str, ReportedRun] = {}
    names: list[str] = []
    for run in runs:
        say(f"filming {run.label}")
        names.append(unlike(file_name(run.label), names))
        try:
            blocks.append(_film(run, first.setdefault(run.family, run), folder / VIDEOS / f"{names[-1]}.mp4"))
        except (UsageError, RunError, RenderingUnavailable) as error:
            blocks.append(Remarks([f"no film of {run.label}: {error}"], "warning"))
    return blocks


def unlike(name: str, taken: Sequence[str]) -> str:
    """Return the name, with a number if it is taken: names of runs may differ in what no file is called."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def _film(run: ReportedRun, first: ReportedRun, path: Path) -> Block:
    """Return the film of a run, or a sentence if the film is too large for the page.

    first: first run of the same family, whose settings say which task is filmed. path: file to write.
    """
    from metarl.reporting import films
    from metarl.runs.run import load_run

    asked = first.config.evaluation
    family, own = make_family(first.config.family), make_family(run.config.family)
    task = _first_task(family, asked)
    draws_it = asked.split in own.splits and _first_task(own, asked) == task
    loaded = load_run(run.directory)
    rounds = run.config.evaluation.adaptations if loaded.agent.facts.adapts else 0
    chosen = (None if draws_it else task, asked.split, asked.seeds[0], rounds, path)
    video = films.render_run(loaded, *chosen, FILM_S)
    if video.size > FILM_BYTES:
        video = films.render_run(loaded, *chosen, FILM_S * 0.8 * FILM_BYTES / video.size)
    if video.size > FILM_BYTES:
        return Remarks([f"the film of {run.label} is larger than 1 MB, and is only in {path}"])
    values = ", ".join(films.name_captions(family, task) + films.value_captions(family, task.values))
    cut = f" The first {video.seconds:.0f} s of an episode." if video.seconds < video.episode_s else ""
    shown = (
        f"left before adaptation, right after {number_of(rounds, 'round')} of it" if rounds else "without adaptation"
    )
    caption = (
        f"{run.label}, iteration {run.iteration}, on one of the {SPLIT_NAMES[asked.split]} tasks of {family.name} "
        f"(seed {asked.seeds[0]}: {values}): {shown}.{cut} One episode of one task shows no interval."
    )
    label = f"Film of {run.label} on {family.name}: {shown}"
    return Film(path.stem, label, caption, path.read_bytes(), films.poster(path))


def _first_task(family: TaskFamily, settings: EvaluationSettings) -> Task:
    """Return the first task that an evaluation with these settings meets."""
    return family.sample(1, stream(settings.seeds[0], "evaluation/tasks"), settings.split)[0]
