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

from metarl.reporting.comparison_files import without_bulk


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
