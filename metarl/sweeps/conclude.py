"""Conclude a sweep: compute its result, and write tables, figures and the best configuration into its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metarl.config import dump_yaml
from metarl.envs.registry import make_family
from metarl.errors import RunError
from metarl.evaluation.sweep_result import SweepResult, Variant
from metarl.files import write
from metarl.reporting import sweep_figures, sweep_tables
from metarl.sweeps.maps import axes_of, mapped, task_maps
from metarl.sweeps.results import best_of, result_of, variants_of
from metarl.sweeps.study import Study
from metarl.sweeps.yardstick import Yardstick

BEST, REPORT, TABLE = "best.yaml", "report.json", "trials.csv"


@dataclass(frozen=True)
class Conclusion:
    """The result of a sweep, and the files that it was saved in."""

    result: SweepResult
    best: Path
    """Best configuration."""
    report: Path
    """The result as JSON."""
    table: Path
    """One row a variant."""
    figures: dict[str, Path]


def conclude(study: Study, stick: Yardstick, say: Callable[[str], None] = print, threads: int = 0) -> Conclusion:
    """Compute the result of a sweep and save it in its folder; RunError if no variant is complete.

    The best agents are evaluated on a grid of tasks, once: the returns are kept in their folders.
    say: told before each evaluation. threads: of the evaluations; 0: as the configuration of each variant says.
    """
    folder, variants = study.folder, variants_of(study)
    ended = [variant for variant in variants if variant.complete]
    write(folder / TABLE, sweep_tables.csv_text(variants, list(study.sweep.dimensions)).encode())
    if not ended:
        failed = next((variant.attributes["error"] for variant in variants if "error" in variant.attributes), "")
        raise RunError(f"no variant of {folder} is complete, so there is no result{f': {failed}' if failed else ''}")
    best = best_of(ended)
    config = study.sweep.config(best.params)
    head = _head(folder.resolve().name, best, len(ended))
    write(folder / BEST, (head + dump_yaml(config)).encode())
    axes = axes_of(study, stick, make_family(config.family))
    present = [*filter(study.has_folder, mapped(study, axes, ended, best))]
    maps = task_maps(study, axes, present, say, threads)
    result = result_of(study, stick, variants, axes, maps)
    figures = sweep_figures.draw(result, folder)
    report = {**result.to_dict(), "figures": {name: path.name for name, path in figures.items()}}
    write(folder / REPORT, json.dumps(report, indent=1, allow_nan=False).encode())
    return Conclusion(result, folder / BEST, folder / REPORT, folder / TABLE, figures)


def _head(name: str, best: Variant, count: int) -> str:
    numbers = f"return {best.attributes['return']:.4g}, gain {best.attributes['gain']:.4g}"
    return f"# Best of {count} variants of {name}: {best.name}, {numbers}.\n"
