"""The recorded learners that adapt by gradients, on three families: `python -m benchmarks.gradients`.

Makes results/gradients.csv and results/gradients.png, one table and one figure, from the judged records in results/, in
a minute, and prints the table for docs/gradients.md. With `--train` it trains and judges all of them anew under runs/
first, which takes a night on two cores and resumes when it is started again, and tells of those.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from metarl.cli.app import main as metarl
from metarl.evaluation.statistics import Interval
from metarl.reporting.columns import interval_text
from metarl.reporting.figures import AFTER, BEFORE, INK, QUIET, STYLE, save, title_of
from metarl.reporting.headroom_report import JSON, RESET

ROUNDS = (0, 1, 3)
"""Rounds of adaptation after which the return is told."""
ARMS = (
    *("maml", "fomaml", "emaml", "reptile", "anil", "cavia", "cavia_film", "meta_sgd", "lstm_maml", "imaml"),
    *("dice_maml", "loaded_dice_maml", "value_maml", "prototype"),
)
LABELS = (*ARMS, f"prototype{RESET}")
"""Of the rows, in order."""


@dataclass(frozen=True)
class Study:
    """A headroom study of all arms on one family."""

    family: str
    name: str
    budget: str
    tasks: int
    """Judged with each of three seeds of tasks."""
    places: int
    """Decimal places of its returns."""
    published: tuple[float, float]
    """MAML's return after one and three gradient steps (Finn 2017)."""

    def arguments(self, runs: Path, rest: Sequence[str]) -> list[str]:
        """Return the arguments of `metarl headroom`."""
        judged = ("evaluation.envs_per_task=20", "evaluation.adaptations=3", f"evaluation.tasks={self.tasks}")
        where = ("--runs-dir", str(runs), "--name", self.name, "--threads", "1", "tracking.wandb=disabled")
        seeds = ("--budget", self.budget, "--seeds", "1", "2", "3", "--arms", *ARMS)
        return ["headroom", self.family, *seeds, *where, *judged, *rest]


STUDIES = (
    Study("point_goal", "point_goal_gradients", "4.8e6", 20, 1, (-11.7, -3.2)),
    Study("half_cheetah_velocity", "half_cheetah_velocity_gradients_20", "3.2e6", 12, 0, (-79, -61)),
    Study("half_cheetah_direction", "half_cheetah_direction_gradients_20", "3.2e6", 12, 0, (293, 316)),
)


@dataclass(frozen=True)
class Row:
    """What a learner reached on a family."""

    study: Study
    label: str
    iqm: dict[int, Interval]
    """IQM of the return by rounds of adaptation."""
    cost: dict[str, float]
    """Env steps and seconds of training."""
    seeds: int

    @property
    def values(self) -> list[Any]:
        """The cells of the CSV file."""
        ends = [x for k in ROUNDS for x in (self.iqm[k].estimate, self.iqm[k].low, self.iqm[k].high)]
        return [self.study.family, self.label, *ends, *self.cost.values(), self.seeds]


def rows_of(study: Study, runs: Path) -> list[Row]:
    """Return what the report of a study says of each agent."""
    report = json.loads((runs / study.name / JSON).read_text(encoding="utf-8"))
    found = []
    for agent in report["agents"]:
        iqm = {k: Interval(**agent["summary"]["iqm"][k]) for k in ROUNDS}
        own = report["training"].get(agent["label"], {"env_steps": 0, "training_s": 0})
        found.append(Row(study, agent["label"], iqm, own, len(agent["runs"])))
    return sorted(found, key=lambda row: LABELS.index(row.label))


def markdown(rows: Sequence[Row]) -> str:
    """Return the table, a line a learner."""
    labels = [label for label in LABELS if any(row.label == label for row in rows)]
    heads = [f"{study.family}: before | after 1 | after 3" for study in STUDIES]
    lines = [f"| | {' | '.join(heads)} |", f"|{'---|' * (1 + len(ROUNDS) * len(STUDIES))}"]
    for label in labels:
        cells = []
        for study in STUDIES:
            row = next((row for row in rows if row.label == label and row.study == study), None)
            told = None if row is None else [interval_text(row.iqm[k], study.places) for k in ROUNDS]
            cells += [text.replace("-", "−") for text in told or [""] * len(ROUNDS)]
        name = f"`{label}`" if not label.endswith(RESET) else "the same, its memory reset before every action"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw a panel a family: the IQM before adaptation, after one round and after three, with intervals."""
    styles = {0: (BEFORE, "white", "before"), 1: (AFTER, "white", "after 1 round"), 3: (AFTER, AFTER, "after 3")}
    labels = [label for label in reversed(LABELS) if any(row.label == label for row in rows)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 1.5 + 0.36 * len(labels)), layout="constrained")
        panels = figure.subplots(1, len(STUDIES), sharey=True)
        for axes, study in zip(panels, STUDIES, strict=True):
            for shade, value in zip((QUIET, INK), study.published, strict=True):
                axes.axvline(value, color=shade, linewidth=1, linestyle=(0, (4, 2)))
            for row in rows:
                if row.study != study:
                    continue
                for offset, k in zip((0.22, 0, -0.22), ROUNDS, strict=True):
                    colour, fill, _ = styles[k]
                    i, y = row.iqm[k], labels.index(row.label) + offset
                    axes.plot([i.low, i.high], [y, y], color=colour, linewidth=1.3, solid_capstyle="butt")
                    axes.plot(i.estimate, y, "o", color=colour, markerfacecolor=fill, markersize=4.5, zorder=3)
            axes.set_xlabel(f"{study.family}\nreturn of an episode, budget {float(study.budget) / 1e6:.1f}M env steps")
            axes.grid(visible=True, axis="both")
        panels[0].set_yticks(range(len(labels)), [label.replace(RESET, ",\nmemory reset") for label in labels])
        panels[0].set_ylim(-0.6, len(labels) - 0.4)
        keys = [
            panels[0].plot([], [], "o-", color=colour, markerfacecolor=fill, label=text)[0]
            for colour, fill, text in styles.values()
        ]
        keys += [
            panels[0].plot([], [], color=shade, linestyle=(0, (4, 2)), label=f"MAML 2017, published, after {k}")[0]
            for shade, k in ((QUIET, 1), (INK, 3))
        ]
        figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
        title_of(figure, "Rounds of 20 episodes on held-out tasks, three training seeds\nIQM and its 95 % interval")
        save(figure, path)


def main() -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", action="store_true", help="train and judge anew under runs/")
    parser.add_argument("--workers", default="1", help="processes that train (1)")
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    runs, rest = (
        (Path("runs"), ["--workers", arguments.workers]) if arguments.train else (arguments.results, ["--report"])
    )
    for study in STUDIES:
        if status := metarl(study.arguments(runs, rest)):
            return status
    rows = [row for study in STUDIES for row in rows_of(study, runs)]
    with (arguments.results / "gradients.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        ends = [f"after_{k}{end}" for k in ROUNDS for end in ("", "_low", "_high")]
        writer.writerow(["family", "label", *ends, "env_steps", "training_s", "training_seeds"])
        writer.writerows(row.values for row in rows)
    draw(rows, arguments.results / "gradients.png")
    print(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
