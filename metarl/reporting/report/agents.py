"""Sections of a report on the results: overview, the agents on each set of tasks, learning curves."""

from __future__ import annotations

from collections.abc import Sequence

from metarl.config import SPLIT_NAMES, EvaluationSettings
from metarl.envs.family import TaskFamily
from metarl.envs.text import shown
from metarl.evaluation.comparison import Comparison, Improvement
from metarl.reporting.agent_figures import is_named, ranked
from metarl.reporting.columns import ABSENT, PAGE, Agents, Table, interval_text, measure_column, page_table
from metarl.reporting.comparison_tables import by_seed_text
from metarl.reporting.report import figures
from metarl.reporting.report.figures import PARAMETERS, Looks, Picture
from metarl.reporting.report.heat_map import heat_map
from metarl.reporting.report.material import DISTURBING, Material, ReportedComparison, ReportedRun, family_of
from metarl.reporting.report.page import Block, Gallery, Remarks, Section, Text, file_name
from metarl.reporting.report.time_pictures import time_pictures
from metarl.reporting.time_columns import TIME
from metarl.runs.tracking import METRICS
from metarl.wording import number_of

HEAT_MAPS = 6
"""Largest number of agents with a heat map."""
PAIRS = 15
"""Largest number of pairs of agents in the table of improvements."""


def overview(material: Material) -> Section:
    """Return the section on the runs, with the warnings that a reader needs first."""
    several = len(material.comparisons) > 1
    said = [
        f"{title}: {text}" if several else text
        for title, own in zip(_titles(material), material.comparisons, strict=True)
        for text in own.comparison.warnings
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
            _duration(run.hours),
        )
        for run in material.runs
    ]
    columns = ("run", "agent", "trained on", "seed", "iterations", "env steps", "training time")
    blocks: list[Block] = [Table("Runs", columns, rows)]
    if warnings:
        blocks.insert(0, Remarks(warnings, "warning"))
    return Section("Overview", blocks)


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


def _titles(material: Material) -> list[str]:
    """Return the titles of the sections on each set of tasks, no two alike."""
    plain = [
        f"{own.family}, {SPLIT_NAMES[own.split]} tasks{own.comparison.settings.protocol}"
        for own in material.comparisons
    ]
    alike = [[other for other, also in zip(material.comparisons, plain, strict=True) if also == t] for t in plain]
    titles = [
        title + _apart(own, others) for title, own, others in zip(plain, material.comparisons, alike, strict=True)
    ]
    return [
        title + (f" ({titles[: i + 1].count(title)})" if titles.count(title) > 1 else "")
        for i, title in enumerate(titles)
    ]


def _apart(own: ReportedComparison, alike: Sequence[ReportedComparison]) -> str:
    """Return the settings that tell a set of tasks from those that are called the same; empty if there are none."""
    said = [
        {**other.manner, "evaluation.adaptations": max((a.agent.adaptations for a in other.agents), default=0)}
        for other in alike
    ]
    names = dict.fromkeys(name for each in said for name in each)
    differ = [name for name in names if any(each.get(name) != said[0].get(name) for each in said)]
    ours = said[[other is own for other in alike].index(True)]
    usual = {f"evaluation.{name}": getattr(EvaluationSettings(), name) for name in DISTURBING}
    parts = [f"{name}={shown(ours[name], 40)}" for name in differ if name in ours and ours[name] != usual.get(name)]
    return f", {', '.join(parts)}" if parts else ""


def agent_sections(material: Material, looks: Looks) -> list[Section]:
    """Return a section for each set of tasks: tables, figures and notes on the agents."""
    return [
        Section(title, _blocks(own, f"{i + 1}", family_of(own.comparison, material.runs), looks))
        for i, (title, own) in enumerate(zip(_titles(material), material.comparisons, strict=True))
    ]


def _blocks(own: ReportedComparison, key: str, family: TaskFamily | None, looks: Looks) -> list[Block]:
    """Return the blocks of a section on one set of tasks. key: in the names of its figures."""
    comparison = own.comparison
    seeds, tasks = comparison.settings.seeds, sum(map(len, comparison.tasks))
    where = ", ".join(map(str, own.sources))
    return [
        Text(
            f"{number_of(len(own.agents), 'agent')} on {'the same ' * (len(own.agents) > 1)}"
            f"{number_of(tasks, 'task')} (seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}). From {where}."
        ),
        return_table(comparison),
        *time_tables(comparison),
        *measure_tables(comparison),
        *([improvement_table(comparison.improvements)] if comparison.improvements else []),
        Gallery(_pictures(own, key, family, looks)),
        Remarks(_notes(own)),
    ]


def return_table(comparison: Comparison) -> Table:
    """Return the table of returns and adaptation, one row for each agent."""
    caption = "Return of an episode: IQM over tasks [95 % interval]"
    return page_table(caption, PAGE, Agents.of(comparison.agents))


def time_tables(comparison: Comparison) -> list[Table]:
    """Return the table on adaptation in time, one row for each agent; none if no agent has such numbers."""
    agents = Agents.of(comparison.agents)
    if not any(column.cell(agent, agents) for column in TIME for agent in agents.agents):
        return []
    return [page_table("Adaptation in time: mean reward per second over tasks [95 % interval]", TIME, agents)]


def measure_tables(comparison: Comparison) -> list[Table]:
    """Return the tables of the family's measures, before adaptation and after it."""
    agents = comparison.agents
    names = [name for name in comparison.units if any(agent.result.measured.get(name) for agent in agents)]
    if not names:
        return []
    wanted = [(0, "before adaptation")]
    wanted += [(-1, "after the last round of adaptation")] if any(agent.adaptations for agent in agents) else []
    return [
        page_table(
            f"Measures {when}: mean over tasks [95 % interval]",
            [measure_column(name, comparison.units[name], shot) for name in names],
            Agents.of(agents),
        )
        for shot, when in wanted
    ]


def improvement_table(pairs: Sequence[Improvement]) -> Table:
    """Return the table of the probability that one agent does better than another."""
    rows = [(pair.a, pair.b, interval_text(pair.interval, 2)) for pair in pairs[:PAIRS]]
    more = f"; {number_of(len(pairs) - PAIRS, 'more pair')} in report.json" if len(pairs) > PAIRS else ""
    return Table(
        f"Probability of improvement, paired by task [95 % interval]{more}",
        ("agent", "does better than", "probability"),
        rows,
    )


def _notes(own: ReportedComparison) -> list[str]:
    """Return the notes below the tables and figures."""
    comparison = own.comparison
    agents = Agents.of(comparison.agents)
    several = [agent for agent in comparison.agents if agent.runs]
    notes = [f"{agent.label} by training seed, after adaptation: {by_seed_text(agent)}" for agent in several]
    notes += [*comparison.notes, *([f"success: {comparison.success}"] if comparison.success else [])]
    explained = [column for column in PAGE if column.reason and column.has_absent(agents)]
    notes += [f"{column.heading}: {ABSENT} where {column.reason}" for column in explained]
    if len(own.parameters) > PARAMETERS:
        left = f"of {len(own.parameters)}"
        notes.append(f"the {PARAMETERS} parameters on which returns depend most are drawn {left}")
    if len(own.agents) > HEAT_MAPS:
        notes.append(f"heat maps are drawn of the first {HEAT_MAPS} agents")
    return notes


def _pictures(own: ReportedComparison, key: str, family: TaskFamily | None, looks: Looks) -> list[Picture]:
    """Return the figures of a section: adaptation curves, time courses, returns against parameters, heat maps."""
    agents = figures.shown_of(own, looks)
    pictures = []
    if any(agent.adaptations for agent in agents):
        pictures.append(figures.adaptation_curves(f"adaptation_{key}", own.comparison, agents))
    pictures += time_pictures(key, own, looks)
    named = {p.name for p in family.parameters if is_named(p)} if family else ()
    names = ranked({name: own.comparison.values(name) for name in own.parameters}, agents, named)
    for name in names[:PARAMETERS]:
        stem = f"parameter_{key}_{file_name(name)}"
        pictures.append(figures.by_parameter(stem, own.comparison, agents, name, family))
    if len(names) > 1:
        first, second = sorted(names[:2], key=own.parameters.index)
        maps = (
            heat_map(f"heat_map_{key}_{i + 1}", own.comparison, agents, agent, (first, second), family)
            for i, agent in enumerate(agents[:HEAT_MAPS])
        )
        pictures += [drawn for drawn in maps if drawn is not None]
    return pictures


def learning_section(runs: Sequence[ReportedRun], looks: Looks) -> Section:
    """Return the section of learning curves, a pair of figures for each family that was trained on."""
    by_family: dict[str, list[ReportedRun]] = {}
    for run in runs:
        by_family.setdefault(run.family, []).append(run)
    blocks: list[Block] = []
    for i, (family, own) in enumerate(by_family.items()):
        trained = [run for run in own if run.metrics]
        if trained:
            pictures = [
                figures.learning_curves(f"learning_{i + 1}_{axis}", family, trained, looks, axis == "hours")
                for axis in ("env_steps", "hours")
            ]
            blocks += [*([Text(f"{family}:")] if len(by_family) > 1 else []), Gallery(pictures)]
        for run in (run for run in own if not run.metrics):
            there = (run.directory / METRICS).exists()
            what = f"no iteration in {METRICS} that can be read" if there else f"no {METRICS}"
            blocks.append(Remarks([f"{run.label} has {what}, so no learning curve"]))
    return Section("Learning curves", blocks)
