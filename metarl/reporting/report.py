"""`metarl report`: what runs came to, as one HTML page, Markdown and JSON."""

from __future__ import annotations

import datetime
import itertools
import json
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.config import SPLIT_NAMES, EvaluationSettings, config_to_dict, dump_yaml
from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.envs.task import Task
from metarl.errors import UsageError, describe
from metarl.evaluation.statistics import REACHED, WORST, Interval
from metarl.files import fresh_folder, make_folder, plain, write
from metarl.provenance import provenance
from metarl.reporting import report_figures
from metarl.reporting.agent_figures import ranked
from metarl.reporting.catalogue import parameter_rows, splits
from metarl.reporting.report_data import (
    Judged,
    Judgement,
    Material,
    ReportedRun,
    config_differences,
    family_of,
    gather,
    one_agent,
)
from metarl.reporting.report_figures import PARAMETERS, Picture
from metarl.reporting.report_page import (
    FIGURES,
    VIDEOS,
    Block,
    Code,
    Film,
    Gallery,
    Page,
    Remarks,
    Section,
    Table,
    Text,
    html,
    markdown,
    outline,
)
from metarl.reporting.tables import (
    ABSENT,
    NO_GAIN,
    NO_LEAD,
    by_seed_text,
    interval_text,
    measure_name,
    measure_text,
    places_of,
    share_text,
)
from metarl.runs.tracking import WandbRun
from metarl.runs.trial import stream
from metarl.wording import number_of

FILM_BYTES = 1_000_000
"""Largest film that is embedded."""
FILM_S = 10.0
"""Length of a film at most, s."""
HEAT_MAPS = 6
"""Agents with a heat map at most."""
PAIRS = 15
"""Pairs of agents in the table of improvements at most."""
WAY, LEAD = f"{100 * REACHED:g} % of the way after", "share of the oracle's lead"
"""Columns whose numbers may not be there."""
Looks = Mapping[str, dict[str, Any]]
"""How agents are drawn, see `report_figures.looks_of`."""


@dataclass(frozen=True)
class Report:
    """A report that was written."""

    folder: Path
    html: Path
    figures: Mapping[str, Path]
    """PNG files by name."""
    films: Mapping[str, Path]
    """MP4 files by name."""


def report(
    directories: Sequence[Path],
    comparison: Path | None = None,
    output: Path | None = None,
    videos: bool = True,
    title: str = "",
    wandb: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Write a report on runs: report.html, report.md and report.json, figures and films in folders beside.

    comparison: see `gather`. output: folder; None: a new one in `reports/`. videos: whether films are made. wandb: also
    send it to the W&B run of each run. say: called with a line for each step that takes long. UsageError for what
    cannot be reported on, RunError if the disk refuses.
    """
    material = gather(directories, comparison)
    record = provenance()
    made = {**record, "command": _command(record["command"])}
    folder = output or _new_folder(material)
    page = compose(material, made, title, videos, folder, say)
    written = _write(page, material, folder)
    if wandb:
        for run in material.runs:
            _send(run, written, say)
    return written


def compose(
    material: Material, made: Mapping[str, Any], title: str, videos: bool, folder: Path, say: Callable[[str], None]
) -> Page:
    """The page. folder: films are made there."""
    runs = material.runs
    names = ", ".join(run.label for run in runs)
    families = list(dict.fromkeys(run.family for run in runs))
    lead = f"{number_of(len(runs), 'run')} on {', '.join(families)}: {names}."
    say("drawing figures")
    looks = report_figures.looks_of(runs, material.judgements)
    sections = [_overview(material), *_judged_sections(material, looks), *_learning_sections(runs, looks)]
    filmed = _films(material, folder, say) if videos else [Text("Films were not asked for (--no-videos).")]
    sections.append(Section("Before and after adaptation", filmed))
    say("drawing the task distributions")
    sections += [*_distribution_sections(material, folder), _settings_section(runs), _provenance_section(runs, made)]
    return Page(title or f"Report: {names}", lead, sections, made)


def _overview(material: Material) -> Section:
    """What was run, and what a reader must know first."""
    several = len(material.judgements) > 1
    said = [
        f"{title}: {text}" if several else text
        for title, judgement in zip(_titles(material), material.judgements, strict=True)
        for text in judgement.warnings
    ]
    warnings = list(dict.fromkeys([*said, *material.problems]))
    rows = [
        (
            run.label,
            run.config.agent_name + (" (oracle: it is told the task)" if run.config.training.reveal_task else ""),
            run.family,
            str(run.config.training.seed),
            f"{run.iteration} of {run.config.training.iterations}",
            f"{run.env_steps:,}",
            _hours(run.hours),
        )
        for run in material.runs
    ]
    columns = ("run", "agent", "trained on", "seed", "iterations", "env steps", "training time")
    blocks: list[Block] = [Table("Runs", columns, rows)]
    if warnings:
        blocks.insert(0, Remarks(warnings, "warning"))
    return Section("Overview", blocks)


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


def _titles(material: Material) -> list[str]:
    """Of the sections of each set of tasks."""
    titles = [f"{j.family}, {SPLIT_NAMES[j.split]} tasks" for j in material.judgements]
    return [
        title + (f" ({titles[: i + 1].count(title)})" if titles.count(title) > 1 else "")
        for i, title in enumerate(titles)
    ]


def _judged_sections(material: Material, looks: Looks) -> list[Section]:
    """A section for each set of tasks."""
    return [
        Section(title, _judged(judgement, f"{i + 1}", family_of(judgement, material.runs), looks))
        for i, (title, judgement) in enumerate(zip(_titles(material), material.judgements, strict=True))
    ]


def _judged(judgement: Judgement, key: str, family: TaskFamily | None, looks: Looks) -> list[Block]:
    seeds, tasks = judgement.settings["seeds"], sum(map(len, judgement.tasks))
    where = ", ".join(map(str, judgement.sources))
    blocks: list[Block] = [
        Text(
            f"{number_of(len(judgement.agents), 'agent')} on {'the same ' * (len(judgement.agents) > 1)}"
            f"{number_of(tasks, 'task')} (seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}). From {where}."
        )
    ]
    blocks.append(_return_table(judgement))
    blocks += _measure_tables(judgement)
    if judgement.improvements:
        blocks.append(_improvement_table(judgement))
    blocks.append(Gallery(_judged_pictures(judgement, key, family, looks)))
    notes = []
    for agent in judgement.agents:
        if len(agent.members) > 1:
            levels = by_seed_text([(member.data.get("seed"), member.iqm[-1]) for member in agent.members])
            notes.append(f"{agent.label} by training seed, after adaptation: {levels}")
    notes += list(judgement.notes) + ([f"success: {judgement.success}"] if judgement.success else [])
    if any(agent.adaptations and agent.rounds_to_reach is None for agent in judgement.agents):
        notes.append(f"{WAY}: {ABSENT} where {NO_GAIN}")
    if any(a.oracle for a in judgement.agents) and any(
        a.adaptations and not a.oracle and a.oracle_share is None for a in judgement.agents
    ):
        notes.append(f"{LEAD}: {ABSENT} where {NO_LEAD}")
    left = len(judgement.names) - PARAMETERS
    if left > 0:
        notes.append(f"the {PARAMETERS} parameters on which returns depend most are drawn of {len(judgement.names)}")
    if len(judgement.agents) > HEAT_MAPS:
        notes.append(f"heat maps are drawn of the first {HEAT_MAPS} agents")
    blocks.append(Remarks(notes))
    return blocks


def _return_table(judgement: Judgement) -> Table:
    agents = judgement.agents
    places = places_of(agent.iqm[-1] for agent in agents)

    def interval(found: Interval | None, sign: str = "") -> str:
        return interval_text(found, places, sign) if found else ""

    def gap(agent: Judged) -> str:
        return interval(agent.gap, "+") + " ⚑ not 0" * agent.flagged

    def recovered(agent: Judged) -> str:
        found = agent.recovered
        if found is None:
            return ""
        share, steps = found
        return f"{measure_text('success', share)} % of tasks" + (
            f", in {interval_text(steps, 0)} steps" if steps else ""
        )

    several = any(len(agent.members) > 1 for agent in agents)
    columns: dict[str, Callable[[Judged], str]] = {
        "training seeds": lambda agent: str(len(agent.members)) if several else "",
        "rounds": lambda agent: str(agent.adaptations),
        "before adaptation": lambda agent: interval(agent.iqm[0]),
        "after adaptation": lambda agent: interval(agent.iqm[-1]) if agent.adaptations else "",
        "gain": lambda agent: interval(agent.gain[-1], "+") if agent.adaptations else "",
        "training tasks − these": gap,  # where a narrow window does not hide it
        f"worst {100 * WORST:g} % of tasks": lambda agent: interval(agent.worst[-1]) if agent.worst else "",
        WAY: lambda agent: _reach(agent),
        LEAD: lambda agent: _share(agent, any(other.oracle for other in agents)),
        "recovery after a change": recovered,
    }
    kept = {head: cell for head, cell in columns.items() if any(cell(agent) for agent in agents)}
    rows = [(_whose(agent), *(cell(agent) or ABSENT for cell in kept.values())) for agent in agents]
    return Table("Return of an episode: IQM over tasks [95 % interval]", ("agent", *kept), rows)


def _whose(agent: Judged) -> str:
    return agent.label + (" (oracle)" if agent.oracle else "")


def _reach(agent: Judged) -> str:
    reach = agent.rounds_to_reach
    if reach is None:
        return ABSENT if agent.adaptations else ""
    low, high = (f"{end:g}" if math.isfinite(end) else "never" for end in (reach.low, reach.high))
    episodes = reach.estimate * agent.envs_per_task
    return f"{reach.estimate:g} [{low}, {high}] rounds, {number_of(episodes, 'episode')}"


def _share(agent: Judged, there: bool) -> str:
    """Of the oracle's lead. there: whether there is an oracle."""
    if agent.oracle_share is None:
        return ABSENT if there and agent.adaptations and not agent.oracle else ""
    return share_text(agent.oracle_share)


def _measure_tables(judgement: Judgement) -> list[Table]:
    """What the family measures, one table before adaptation and one after."""
    agents = judgement.agents
    names = [name for name in judgement.units if any(agent.measured(name) for agent in agents)]
    heads = [measure_name(name, judgement.units[name]) for name in names]

    def row(agent: Judged, shot: int) -> tuple[str, ...]:
        shots = (agent.measured(name) for name in names)
        cells = (measure_text(name, found[shot]) if found else ABSENT for name, found in zip(names, shots, strict=True))
        return (_whose(agent), *cells)

    if not names:
        return []
    wanted = [(0, "before adaptation")]
    wanted += [(-1, "after the last round of adaptation")] if any(agent.adaptations for agent in agents) else []
    return [
        Table(f"Measures {when}: mean over tasks [95 % interval]", ("agent", *heads), [row(a, shot) for a in agents])
        for shot, when in wanted
    ]


def _improvement_table(judgement: Judgement) -> Table:
    pairs = judgement.improvements
    rows = [
        (str(p["a"]), str(p["b"]), interval_text(Interval(p["estimate"], p["low"], p["high"]), 2))
        for p in pairs[:PAIRS]
    ]
    more = f"; {number_of(len(pairs) - PAIRS, 'more pair')} in report.json" if len(pairs) > PAIRS else ""
    return Table(
        f"Probability of improvement, paired by task [95 % interval]{more}",
        ("agent", "does better than", "probability"),
        rows,
    )


def _judged_pictures(judgement: Judgement, key: str, family: TaskFamily | None, looks: Looks) -> list[Picture]:
    agents = report_figures.shown_of(judgement, looks)
    pictures = []
    if any(agent.adaptations for agent in agents):
        pictures.append(report_figures.adaptation_curves(f"adaptation_{key}", judgement, agents))
    names = ranked({name: judgement.values(name) for name in judgement.names}, agents)
    for name in names[:PARAMETERS]:
        stem = f"parameter_{key}_{_slug(name)}"
        pictures.append(report_figures.by_parameter(stem, judgement, agents, name, family))
    if len(names) > 1:
        pair = (
            (names[0], names[1]) if judgement.names.index(names[0]) < judgement.names.index(names[1]) else names[1::-1]
        )
        maps = (
            report_figures.heat_map(f"heat_map_{key}_{i + 1}", judgement, agents, agent, (pair[0], pair[1]), family)
            for i, agent in enumerate(agents[:HEAT_MAPS])
        )
        pictures += [drawn for drawn in maps if drawn is not None]
    return pictures


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "x"


def _learning_sections(runs: Sequence[ReportedRun], looks: Looks) -> list[Section]:
    """Learning curves, one pair of figures for each family that was trained on."""
    by_family: dict[str, list[ReportedRun]] = {}
    for run in runs:
        by_family.setdefault(run.family, []).append(run)
    blocks: list[Block] = []
    for i, (family, own) in enumerate(by_family.items()):
        trained = [run for run in own if run.metrics]
        if trained:
            pictures = [
                report_figures.learning_curves(f"learning_{i + 1}_{axis}", family, trained, looks, axis == "hours")
                for axis in ("env_steps", "hours")
            ]
            blocks += [*([Text(f"{family}:")] if len(by_family) > 1 else []), Gallery(pictures)]
        blocks += [
            Remarks([f"{run.label} has no metrics.jsonl, so no learning curve"]) for run in own if not run.metrics
        ]
    return [Section("Learning curves", blocks)]


def _films(material: Material, folder: Path, say: Callable[[str], None]) -> list[Block]:
    """A film a run, of several training seeds of the first: the same task for all runs of a family; a sentence instead
    where nothing renders."""
    from metarl.envs.rendering import RenderingUnavailable, open_context
    from metarl.reporting import films as render
    from metarl.runs.run import load_run

    try:
        open_context(16, 16).free()
    except RenderingUnavailable as error:
        return [Remarks([f"no films: {error}"], "warning")]
    leader = one_agent(material.judgements)
    runs = [run for run in material.runs if leader.get(run.label, run.label) == run.label]
    blocks: list[Block] = []
    if len(runs) < len(material.runs):
        blocks.append(Text("Of runs that differ in the training seed alone the first is filmed."))
    first: dict[str, ReportedRun] = {}
    for run in runs:
        settings = first.setdefault(run.family, run)
        asked = settings.config.evaluation
        family = make_family(settings.config.family)
        task = _first_task(family, asked)
        own = make_family(run.config.family)
        draws_it = asked.split in own.splits and _first_task(own, asked) == task
        say(f"filming {run.label}")
        path = folder / VIDEOS / f"{_slug(run.label)}.mp4"
        loaded = load_run(run.directory)
        rounds = run.config.evaluation.adaptations if loaded.agent.facts.adapts else 0
        video, seconds = None, FILM_S
        for _ in range(2):
            video = render.render_run(
                loaded,
                None if draws_it else task,
                asked.split,
                asked.seeds[0],
                rounds,
                path,
                seconds,
            )
            if video.size <= FILM_BYTES:
                break
            seconds *= 0.8 * FILM_BYTES / video.size
        if video is None or video.size > FILM_BYTES:
            blocks.append(Remarks([f"the film of {run.label} is larger than 1 MB, and is only in {path}"]))
            continue
        values = ", ".join(render.value_captions(family, task.values))
        cut = f" The first {video.seconds:.0f} s of an episode." if video.seconds < video.episode_s else ""
        shown = (
            f"left before adaptation, right after {number_of(rounds, 'round')} of it"
            if rounds
            else "without adaptation"
        )
        caption = (
            f"{run.label}, iteration {run.iteration}, on one of the {SPLIT_NAMES[asked.split]} tasks of {family.name} "
            f"(seed {asked.seeds[0]}: {values}): {shown}.{cut} One episode of one task shows no interval."
        )
        label = f"Film of {run.label} on {family.name}: {shown}"
        blocks.append(Film(_slug(run.label), label, caption, path.read_bytes(), render.poster(path)))
    return blocks


def _first_task(family: TaskFamily, settings: EvaluationSettings) -> Task:
    """The first task that an evaluation with these settings meets."""
    return family.sample(1, stream(settings.seeds[0], "evaluation/tasks"), settings.split)[0]


def _distribution_sections(material: Material, folder: Path) -> list[Section]:
    """The families of the runs and of the tasks: parameters, ranges, contact sheet."""
    from metarl.envs.rendering import RenderingUnavailable
    from metarl.reporting import contact_sheet

    families: dict[str, tuple[TaskFamily, list[str]]] = {}
    for run in material.runs:
        family = make_family(run.config.family)
        families.setdefault(_distribution(family), (family, []))[1].append(run.label)
    for judgement in material.judgements:
        family = family_of(judgement, material.runs)
        if family is not None and _distribution(family) not in families:
            families[_distribution(family)] = (family, [])
    blocks: list[Block] = []
    columns = ("parameter", "unit", "tasks", "neutral", "law")
    for i, (family, whose) in enumerate(families.values()):
        rows = [tuple(cell.replace("\n", "; ") for cell in row) for row in parameter_rows(family)]
        blocks += [
            Text(f"{family.name} ({_use(whose)}): {family.description}"),
            Table(f"Parameters of {family.name}; {splits(family)}", columns, rows),
        ]
        try:
            path = folder / FIGURES / f"contact_sheet_{i + 1}.png"
            contact_sheet.draw(family, path, narrow=True)
        except (UsageError, RenderingUnavailable) as error:
            blocks.append(Remarks([f"no contact sheet: {describe(error)}"], "warning"))
            continue
        caption = f"Task distribution of {family.name}: sampled robots, and the range of each parameter by split."
        parameters = ", ".join(p.name.replace("_", " ") for p in family.parameters)
        alt = (
            f"Contact sheet of {family.name}: robots of sampled tasks, and dots for the sampled values of {parameters}."
        )
        blocks.append(Gallery([Picture(path.stem, alt, caption, path.read_bytes())]))
    return [Section("Task distribution", blocks)]


def _use(trained: Sequence[str]) -> str:
    """What a family is in a report. trained: labels of the runs that were trained on it."""
    if not trained:
        return "the tasks of the evaluation"
    return f"{', '.join(trained)} {'were' if len(trained) > 1 else 'was'} trained on it"


def _distribution(family: TaskFamily) -> str:
    """What tells task distributions apart."""
    return repr((family.name, parameter_rows(family)))


def _settings_section(runs: Sequence[ReportedRun]) -> Section:
    differences = {
        name: values
        for name, values in config_differences(runs).items()
        if len({_value(value) for value in values if value is not None}) > 1
    }
    blocks: list[Block] = []
    if len(runs) > 1 and differences:
        rows = [(name, *map(_value, values)) for name, values in differences.items()]
        blocks.append(Table("Settings that differ", ("setting", *(run.label for run in runs)), rows))
    elif len(runs) > 1:
        blocks.append(Text("The runs have the same settings."))
    if len({run.config.agent_name for run in runs}) > 1:
        blocks.append(Text("What only one kind of agent has is in the complete configurations."))
    blocks += [Code(f"Complete configuration of {run.label}", dump_yaml(run.config).strip(), True) for run in runs]
    return Section("Settings", blocks)


def _value(value: Any) -> str:
    if value is None:
        return ABSENT
    return str(value).lower() if isinstance(value, bool) else str(value) if value != "" else '""'


def _provenance_section(runs: Sequence[ReportedRun], made: Mapping[str, Any]) -> Section:
    """Commands, versions, seeds, commits and machines."""
    blocks: list[Block] = []
    for run in runs:
        commands = list(dict.fromkeys(_command(str(record.get("command", ""))) for record in run.history))
        if commands:
            blocks.append(Code(f"Commands that trained or evaluated {run.label}:", "\n".join(commands)))
        again = f"metarl train --config {shlex.quote(str(run.directory / 'config.yaml'))}"
        blocks.append(Code(f"Repeats the training of {run.label}:", again))
    records = [(run.label, run.history[-1]) for run in runs if run.history] + [("this report", made)]
    rows = [
        (
            name,
            str(record.get("time", ABSENT)),
            str(record.get("commit") or "no checkout"),
            _machine(record.get("machine") or {}),
            ", ".join(f"{k} {v}" for k, v in {"metarl": record.get("metarl"), **record.get("versions", {})}.items()),
        )
        for name, record in records
    ]
    blocks.append(
        Table("Each run's last evaluation, and this report", ("run", "time", "commit", "machine", "versions"), rows)
    )
    seeds = [
        (
            run.label,
            str(run.config.training.seed),
            ", ".join(
                map(str, run.evaluations[0].settings["seeds"] if run.evaluations else run.config.evaluation.seeds)
            ),
        )
        for run in runs
    ]
    blocks.append(Table("Seeds", ("run", "training", "evaluation"), seeds))
    return Section("How it was made", blocks)


def _command(text: str) -> str:
    """A command as one types it."""
    return re.sub(r"^(__main__\.py|metarl)\b", "metarl", text)


def _machine(machine: Mapping[str, Any]) -> str:
    kept = [str(machine[key]) for key in ("processor", "platform") if machine.get(key)]
    cores, python = machine.get("cores"), machine.get("python")
    return ", ".join([*kept, *([number_of(cores, "core")] if cores else []), *([f"Python {python}"] if python else [])])


def _write(page: Page, material: Material, folder: Path) -> Report:
    """Files first, the pages that name them last."""
    figures = {p.name: folder / FIGURES / f"{p.name}.png" for p in page.pictures}
    films = {film.name: folder / VIDEOS / f"{film.name}.mp4" for film in page.films}
    data = {
        "title": page.title,
        "made": page.made,
        "runs": [_run_dict(run) for run in material.runs],
        "evaluations": [judgement.to_dict() for judgement in material.judgements],
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
            (folder / "report.json", (json.dumps(plain(data), indent=1, allow_nan=False) + "\n").encode()),
            (folder / "report.html", html(page).encode()),
        ),
    ):
        _put(path, content)
    return Report(folder, folder / "report.html", figures, films)


def _put(path: Path, content: bytes) -> None:
    make_folder(path.parent, "--output")
    write(path, content, "--output")


def _run_dict(run: ReportedRun) -> dict[str, Any]:
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


def _send(run: ReportedRun, written: Report, say: Callable[[str], None]) -> None:
    """Log the report to the W&B run of a run; what W&B raises is a warning."""
    run_id = run.tracking.get("wandb_id")
    if not run_id or run.config.tracking.wandb == "disabled":
        say(f"{run.label} has no W&B run; its report is in {written.folder} only")
        return
    record = WandbRun(run.config, run.directory, str(run_id))
    record.report(int(run.tracking.get("wandb_step", 0)), written.html, written.figures, written.films)
    record.finish()


def _new_folder(material: Material) -> Path:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    runs = material.runs
    name = _slug(runs[0].name) if len(runs) == 1 else _slug(runs[0].config.family_name)
    return fresh_folder(Path("reports") / f"{name}_{stamp}", "--output")
