"""Write a sweep as a W&B sweep file: W&B chooses the points, its agents train them by `metarl sweep FILE --point`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarl.envs import strict_yaml
from metarl.errors import UsageError
from metarl.files import require_place, write
from metarl.sweeps.dimensions import Dimension, Levels
from metarl.sweeps.sweep import Sweep

METHODS = {"grid": "grid", "random": "random", "tpe": "bayes"}
METRIC = "sweep/objective"


def sweep_config(sweep: Sweep, same: Sequence[str]) -> dict[str, Any]:
    """Return the sweep configuration of W&B. same: options of the command by which its agents train a point."""
    config: dict[str, Any] = {
        "name": sweep.path.stem,
        "project": sweep.base.tracking.project,
        "program": "metarl",
        "command": ["${env}", "${program}", "sweep", str(sweep.path), *same, "--point", "${args_json}"],
        "method": METHODS[sweep.method],
        "metric": {"name": METRIC, "goal": "maximize"},
        "run_cap": sweep.trials,
        "parameters": {name: parameter(dimension) for name, dimension in sweep.dimensions.items()},
    }
    if sweep.base.tracking.entity:
        config["entity"] = sweep.base.tracking.entity
    if sweep.pruner.name == "successive_halving" and sweep.pruner.by == "objective":
        # W&B counts how often the metric was logged.
        config["early_terminate"] = {"type": "hyperband", "min_iter": 1, "eta": sweep.pruner.reduction}
    return config


def parameter(dimension: Dimension) -> dict[str, Any]:
    """Return a dimension in W&B's format."""
    if isinstance(dimension, Levels):
        return {"values": dimension.plain()}
    ends = {"min": dimension.low, "max": dimension.high}
    if dimension.log:
        kind = "q_log_uniform_values" if dimension.whole else "log_uniform_values"
        return {"distribution": kind, **({"q": 1} if dimension.whole else {}), **ends}
    return {"distribution": "int_uniform" if dimension.whole else "uniform", **ends}


def write_sweep(sweep: Sweep, path: Path, same: Sequence[str]) -> None:
    """Write the W&B sweep file. same: see `sweep_config`."""
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"--wandb-file is {str(path)!r}; name a file that ends with .yaml")
    if path.exists():
        raise UsageError(f"--wandb-file: {path} exists; name another, or move it")
    require_place(path, "--wandb-file")
    write(path, strict_yaml.to_yaml(sweep_config(sweep, same)).encode(), "--wandb-file")
