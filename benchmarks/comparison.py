"""The recorded comparisons: what `metarl evaluate RUN RUN...` saved, without its bulk, in results/.

    python -m benchmarks.comparison comparisons/mass half_cheetah_mass [--results results]

writes results/<name>_comparison.json (settings, statistics, notes, provenance), .csv (tables) and .png (curves).
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

BULK = ("returns", "measures", "recovery", "trained", "folder")
"""What an agent has of each task, and what names this machine's folders."""
LEFT_OUT = "tasks, the returns and measures of each, and the training configurations: the command gives them again"


def without_bulk(comparison: dict[str, Any]) -> dict[str, Any]:
    """A comparison's JSON with what is said about the tasks, and not what happened on each."""

    def slim(agent: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in agent.items() if name not in BULK}
        if gap := kept.get("train_gap"):
            kept["train_gap"] = {name: value for name, value in gap.items() if name not in BULK}
        if "runs" in agent:
            kept["runs"] = [slim(run) for run in agent["runs"]]
        return kept

    kept = {name: value for name, value in comparison.items() if name != "tasks"}
    return kept | {"agents": [slim(agent) for agent in comparison["agents"]], "left_out": LEFT_OUT}


def keep(folder: Path, base: Path) -> dict[str, Any]:
    """Write base.json, base.csv and base.png from a comparison's folder; returns what the JSON holds."""
    saved = without_bulk(json.loads((folder / "comparison.json").read_text(encoding="utf-8")))
    base.with_suffix(".json").write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    for name, suffix in (("comparison.csv", ".csv"), ("curves.png", ".png")):
        shutil.copyfile(folder / name, base.with_suffix(suffix))
    return saved


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Keep a comparison in results/.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    keep(arguments.folder, arguments.results / f"{arguments.name}_comparison")


if __name__ == "__main__":
    main()
