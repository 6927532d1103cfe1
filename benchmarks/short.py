"""A short training run of every preset, from scratch: does its return rise?

    python -m benchmarks.short [PRESET ...] [--env-steps 800000] [--jobs 2] [--results results]

writes results/short_runs.json (return after adaptation at the start and at the end of each run, and how much it rose
with a 95 % bootstrap interval over iterations) and results/short_runs.png (the curves). Presets that are named replace
their own entries and leave the others.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import metarl
from metarl.config import PRESETS, RunConfig, load_config
from metarl.envs.registry import make_family
from metarl.provenance import provenance
from metarl.reporting.figures import AFTER, STYLE
from metarl.runs.tracking import read_metrics
from metarl.runs.trial import stream

NAME = "short_runs"
MOST = 10
"""Tasks, and envs a task: more iterations of less data."""
SHARE = 0.15
"""Of the iterations that are counted as the start, and as the end."""
RESAMPLES = 2000
POINTS = 40
"""Of a curve, at most."""


def shortened(config: RunConfig, env_steps: int) -> RunConfig:
    """The preset with less data an iteration, ended after so many env steps, on one thread, with a small evaluation.

    Every iteration plays the same tasks: on fresh ones the luck of the draw hides what was learned.
    """
    t = config.training
    if t.tasks * t.envs_per_task > MOST**2:
        t = dataclasses.replace(t, tasks=min(t.tasks, MOST), envs_per_task=min(t.envs_per_task, MOST))
    a_trial = make_family(config.family).horizon * t.tasks * t.envs_per_task * (t.adaptations + 1)
    return dataclasses.replace(
        config,
        training=dataclasses.replace(
            t,
            iterations=max(20, env_steps // a_trial),
            distinct_tasks=t.tasks,
            threads=1,
            checkpoint_every=10**6,
        ),
        evaluation=dataclasses.replace(config.evaluation, tasks=10, seeds=(1,), bootstrap_samples=200),
        tracking=dataclasses.replace(config.tracking, wandb="disabled"),
    )


def rise(returns: np.ndarray) -> tuple[float, float, float, float, float]:
    """(start, end, rise, low, high): mean return at both ends of a run, and the interval of the difference."""
    count = max(2, math.ceil(SHARE * len(returns)))
    start, end = returns[:count], returns[-count:]
    rng = stream(0, "short/bootstrap")
    draws = rng.choice(end, (RESAMPLES, count)).mean(1) - rng.choice(start, (RESAMPLES, count)).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(start.mean()), float(end.mean()), float(end.mean() - start.mean()), float(low), float(high)


def run_preset(preset: str, env_steps: int) -> dict[str, Any]:
    """Train, and say what came of it."""
    config, began = shortened(load_config(PRESETS / f"{preset}.yaml"), env_steps), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = metarl.train(config, name=preset, runs_dir=Path(folder))
        metrics = read_metrics(run.directory)
    start, end, rose, low, high = rise(np.array([line["return/after"] for line in metrics]))
    assert run.evaluation is not None
    return {
        "env_steps": run.env_steps,
        "distinct_tasks": config.training.distinct_tasks,
        "seconds": round(time.perf_counter() - began, 1),
        "start": start,
        "end": end,
        "rise": rose,
        "low": low,
        "high": high,
        "rises": low > 0,
        "gain_on_held_out_tasks": dataclasses.asdict(run.evaluation.summary.gain[-1]),
        "curve": [[row["env_steps"], round(row["return/after"], 2)] for row in metrics[:: -(-len(metrics) // POINTS)]],
        **provenance(config),
    }


def draw(records: dict[str, dict[str, Any]], path: Path) -> None:
    """The curves, small."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = 4
    rows = -(-len(records) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 1.75 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(records) :]:
            axis.axis("off")
        for axis, (preset, record) in zip(axes, sorted(records.items()), strict=False):
            steps, returns = np.array(record["curve"]).T
            axis.plot(steps / 1e6, returns, color=AFTER, linewidth=1.2)
            axis.set_title(preset.replace("_", " ", 1), fontsize=8, loc="left")
            axis.tick_params(labelsize=7)
        figure.supxlabel("env steps of training (millions)", fontsize=9)
        figure.supylabel("return after adaptation, training tasks", fontsize=9)
        figure.savefig(path, dpi=100)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    presets = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    parser = argparse.ArgumentParser(description="A short training run of every preset.")
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=f"of {', '.join(presets)}; all if none is named")
    parser.add_argument("--env-steps", type=int, default=800_000)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one core")
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.presets) - set(presets)):
        parser.error(f"no preset {unknown[0]}; there are {', '.join(presets)}")
    file = options.results / f"{NAME}.json"
    records = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    wanted = options.presets or presets
    work = functools.partial(run_preset, env_steps=options.env_steps)
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for preset, record in zip(wanted, pool.map(work, wanted), strict=True):
            print(f"{preset}: {record['start']:.1f} -> {record['end']:.1f}, rise {record['rise']:.1f} ", end="")
            print(f"[{record['low']:.1f}, {record['high']:.1f}] in {record['seconds']:.0f} s", flush=True)
            records[preset] = record
            options.results.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(dict(sorted(records.items())), indent=1) + "\n", encoding="utf-8")
    draw(records, options.results / f"{NAME}.png")


if __name__ == "__main__":
    main()
