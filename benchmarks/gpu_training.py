"""The recorded training on a GPU: a run's returns against env steps and minutes.

    python -m benchmarks.gpu_training RUN NAME [--results results]

writes results/<name>.json (the configuration, the curve and the last evaluation) and .png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

from metarl.config import config_to_dict, read_run_config
from metarl.reporting.figures import AFTER, STYLE
from metarl.runs.tracking import read_metrics

KEPT = ("summary", "measured", "notes", "metarl", "provenance")
"""Of the evaluation."""


def curve(metrics: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Env steps in millions, minutes in collecting and updating, and the return, of each iteration."""
    minutes, spent = [], 0.0
    for row in metrics:
        spent += row["time/collect"] + row["time/update"]
        minutes.append(round(spent / 60, 4))
    return {
        "env_steps": [row["env_steps"] for row in metrics],
        "minutes": minutes,
        "return": [round(row["return/after"], 4) for row in metrics],
    }


def draw(found: dict[str, list[float]], title: str, path: Path) -> None:
    """The return against env steps, and against minutes."""
    matplotlib.use("Agg")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
        for axis, name, label, scale in (
            (axes[0], "env_steps", "env steps, millions", 1e-6),
            (axes[1], "minutes", "minutes of training", 1.0),
        ):
            axis.plot([scale * x for x in found[name]], found["return"], color=AFTER)
            axis.set_xlabel(label)
            axis.set_xlim(left=0)
        axes[0].set_ylabel("return of an episode")
        figure.suptitle(title)
        figure.savefig(path, dpi=120)
        plt.close(figure)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Keep a training on a GPU in results/.")
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--card", required=True, help="what it ran on")
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    config, found = read_run_config(arguments.run), curve(read_metrics(arguments.run))
    worlds = config.training.tasks * config.training.envs_per_task
    paths = sorted(arguments.run.glob("evaluation/*.json"))
    evaluation = json.loads(paths[-1].read_text(encoding="utf-8")) if paths else {}
    record = {
        "card": arguments.card,
        "worlds": worlds,
        "curve": found,
        "evaluation": {name: evaluation[name] for name in KEPT if name in evaluation},
        "config": config_to_dict(config),
    }
    path = arguments.results / f"{arguments.name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    title = f"{config.agent_name} on {config.family_name}, {worlds:,} robots on one {arguments.card}"
    draw(found, title, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
