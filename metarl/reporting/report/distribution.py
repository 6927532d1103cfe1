"""Section of a report on the task distributions: parameters, ranges by split, sampled robots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metarl.envs.family import TaskFamily
from metarl.envs.registry import make_family
from metarl.errors import UsageError, describe
from metarl.reporting.catalogue import parameter_rows, splits
from metarl.reporting.columns import Table
from metarl.reporting.report.figures import Picture
from metarl.reporting.report.material import Material, family_of
from metarl.reporting.report.page import FIGURES, Block, Gallery, Remarks, Section, Text


def distribution_section(material: Material, folder: Path) -> Section:
    """Return the section with parameters, ranges and contact sheet of each family of runs or tasks."""
    from metarl.envs.rendering import RenderingUnavailable
    from metarl.reporting import contact_sheet

    families: dict[str, tuple[TaskFamily, list[str]]] = {}
    for run in material.runs:
        family = make_family(run.config.family)
        families.setdefault(_distribution(family), (family, []))[1].append(run.label)
    for own in material.comparisons:
        family = family_of(own.comparison, material.runs)
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
    return Section("Task distribution", blocks)


def _use(trained: Sequence[str]) -> str:
    """Return the role of a family in the report in words. trained: labels of the runs that were trained on it."""
    if not trained:
        return "the tasks of the evaluation"
    return f"{', '.join(trained)} {'were' if len(trained) > 1 else 'was'} trained on it"


def _distribution(family: TaskFamily) -> str:
    """Return a text that is equal for equal task distributions."""
    return repr((family.name, parameter_rows(family)))
