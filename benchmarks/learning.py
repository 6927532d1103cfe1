"""The recorded learning runs: presets trained from scratch with several seeds, judged on held-out tasks.

    python -m benchmarks.learning maml_point_goal [--seeds 1 2 3] [--threads 1] [--jobs 2] [--results results]

writes results/<preset>.json (per-seed and pooled returns with 95 % intervals, bars, times, provenance),
results/<preset>.csv (the learning curves) and results/<preset>.png.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import metarl
from metarl.config import PRESETS, RunConfig, load_config
from metarl.evaluation.results import EvaluationResult
from metarl.evaluation.statistics import Summary, summarise
from metarl.provenance import provenance
from metarl.reporting.figures import AFTER, BEFORE, STYLE
from metarl.runs.tracking import read_metrics
from metarl.runs.trial import stream

CURVE_POINTS = 100
"""Rows of a seed's learning curve in the CSV file; each is a mean over its share of the iterations."""


@dataclass(frozen=True)
class Bar:
    """A level to reach on held-out tasks: `of` is a shot's number, `gain` (last shot - first) or `trial` (mean)."""

    of: int | str
    at_least: float

    def measured(self, summary: Summary) -> float:
        """The mean that the bar is held against."""
        if self.of == "trial":
            return summary.trial_mean.estimate
        if isinstance(self.of, int):
            return summary.mean[self.of].estimate
        return summary.gain_mean[int(self.of.removeprefix("gain_"))].estimate


BARS: dict[str, tuple[Bar, ...]] = {
    "maml_point_goal": (Bar(1, -14.0), Bar(3, -5.0)),
    "maml_half_cheetah_velocity": (Bar(1, -100.0), Bar("gain_1", 45.0)),
    "rl2_half_cheetah_mass": (Bar("trial", 1070.0),),
    "prototype_point_goal": (Bar(0, -10.0), Bar(1, -6.0)),
}
"""What each recorded run must reach."""


@dataclass(frozen=True)
class Learned:
    """What an arm of `metarl headroom` must have learned."""

    env_steps: float
    """The arm's budget."""
    at_least: float
    """Mean return that its last episode on held-out tasks must reach."""
    settings: tuple[str, ...] = ()
    """Settings of the command."""


GRADIENTS = ("evaluation.envs_per_task=20", "evaluation.adaptations=3", "evaluation.tasks=20")
"""Evaluation of learners that adapt by gradients: three rounds of twenty episodes each."""
BY_GRADIENTS: dict[str, float] = {
    "maml": -12.0,
    "fomaml": -11.5,
    "anil": -12.0,
    "cavia": -12.0,
    "cavia_film": -12.0,
    "meta_sgd": -12.0,
    "lstm_maml": -12.5,
    "loaded_dice_maml": -13.5,
    "value_maml": -19.0,
    "reptile": -23.0,
    "emaml": -23.0,
    "dice_maml": -26.0,
    "imaml": -28.0,
}
"""Least return of each on `point_goal`, a little below the worst of three training seeds in
results/point_goal_gradients."""
BY_MEMORY: dict[str, dict[str, float]] = {
    "point_goal": {
        "oracle": -1.0,
        "student": -12.0,
        "linear": -16.0,
        "estimator": -19.0,
        "transformer": -20.0,
        "recurrent_ppo": -27.0,
        "varibad": -28.0,
        "film": -31.0,
        "lstm": -31.0,
        "external": -31.0,
        "memory": -33.0,
        "history": -34.0,
        "hypernetwork": -35.0,
        "frames": -36.0,
        "snail": -37.0,
    },
    "half_cheetah_mass": {
        "distilled": 1050.0,
        "film": 930.0,
        "external": 920.0,
        "lstm": 890.0,
        "snail": 870.0,
        "memory": 870.0,
        "transformer": 870.0,
        "oracle": 870.0,
        "estimator": 860.0,
        "randomised": 790.0,
        "hypernetwork": 830.0,
        "history": 760.0,
        "varibad": 770.0,
        "frames": 740.0,
        "linear": 730.0,
        "roa": 720.0,
        "student": 610.0,
        "recurrent_ppo": 550.0,
    },
}
"""Least return, after 1M env steps, of learners that remember or infer and of what they are held against, by family: a
little below the worst of three training seeds, and recurrent_ppo's on `point_goal` below that of a fourth, -24.3. See
results/point_goal_1m and results/half_cheetah_mass_1m."""
LEARNED: dict[tuple[str, str], Learned] = {
    **{("point_goal", arm): Learned(4.8e6, level, GRADIENTS) for arm, level in BY_GRADIENTS.items()},
    **{(family, arm): Learned(1e6, level) for family, levels in BY_MEMORY.items() for arm, level in levels.items()},
    ("point_goal", "roa"): Learned(3e6, -30.0),
    ("point_goal", "distilled"): Learned(2.4e6, -22.0),
    ("point_goal", "pearl"): Learned(1.6e5, -34.0),
    ("half_cheetah_mass", "pearl"): Learned(3e5, 1080.0),
}
"""What arms learn, by family and name. An agent that stays where `point_goal` starts has about -39."""


@dataclass(frozen=True)
class SeedResult:
    """One seed's run."""

    seed: int
    training_s: float
    """Wall-clock time of all iterations."""
    env_steps: int
    evaluation: EvaluationResult
    curve: list[dict[str, float]]

    def record(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "seed": self.seed,
            "training_s": round(self.training_s, 1),
            "env_steps": self.env_steps,
            **self.evaluation.summary.to_dict(),
        }


def train_seed(config: RunConfig, preset: str, seed: int, runs: Path, threads: int = 0) -> SeedResult:
    """Train and evaluate one seed; the run's folder is kept in `runs`."""
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed, threads=threads))
    name = f"{preset}_seed{seed}"
    # A run that is there already goes on from its checkpoint; one that ended is only evaluated.
    run = metarl.resume(runs / name) if (runs / name).exists() else metarl.train(config, name=name, runs_dir=runs)
    evaluation = run.evaluation or metarl.evaluate(run, threads=threads)
    metrics = read_metrics(run.directory)
    took = sum(line["time/collect"] + line["time/update"] for line in metrics)
    return SeedResult(seed, took, run.env_steps, evaluation, thin(metrics))


def thin(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """At most CURVE_POINTS rows: env steps, and returns averaged over the row's iterations."""
    rows = []
    for part in np.array_split(np.arange(len(metrics)), min(CURVE_POINTS, len(metrics))):
        lines = [metrics[i] for i in part]
        row = {key: float(np.mean([line[key] for line in lines])) for key in ("return/before", "return/after")}
        rows.append({"env_steps": lines[-1]["env_steps"], **row})
    return rows


def pooled(results: Sequence[SeedResult], samples: int) -> Summary:
    """The mean over the training seeds, with intervals over tasks and training seeds."""
    returns = np.stack([result.evaluation.returns for result in results])
    return summarise(returns, samples, stream(0, "learning/bootstrap"))


def write_results(preset: str, results: Sequence[SeedResult], config: RunConfig, folder: Path) -> bool:
    """Write JSON, CSV and PNG; returns whether every seed's mean reached every bar."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = pooled(results, config.evaluation.bootstrap_samples)
    bars = []
    for bar in BARS.get(preset, ()):
        by_seed = [bar.measured(r.evaluation.summary) for r in results]
        reached = min(by_seed) >= bar.at_least
        bars.append(
            {**dataclasses.asdict(bar), "measured": bar.measured(summary), "by_seed": by_seed, "reached": reached}
        )
        print(f"{preset}: {bar.of} = {bar.measured(summary):.1f}, seeds {np.round(by_seed, 1)}, bar >= {bar.at_least}")
    record = {
        "preset": preset,
        "bars": bars,
        "pooled": summary.to_dict(),
        "seeds": [r.record() for r in results],
        **provenance(config),
    }
    (folder / f"{preset}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    with open(folder / f"{preset}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["seed", "env_steps", "return/before", "return/after"])
        writer.writeheader()
        writer.writerows(
            {"seed": r.seed, **{k: round(v, 2) for k, v in row.items()}} for r in results for row in r.curve
        )
    draw(preset, results, folder / f"{preset}.png")
    return all(bar["reached"] for bar in bars)


def draw(preset: str, results: Sequence[SeedResult], path: Path) -> None:
    """Learning curves of all seeds, and the adaptation curve of each."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.3, 3.4), layout="constrained")
        learning, adaptation = figure.subplots(1, 2, width_ratios=[2, 1])
        for i, result in enumerate(results):
            steps = [row["env_steps"] / 1e6 for row in result.curve]
            for key, label, colour in (("after", "after adaptation", AFTER), ("before", "before", BEFORE)):
                returns = [row[f"return/{key}"] for row in result.curve]
                learning.plot(steps, returns, color=colour, linewidth=1.2, alpha=0.8, label=None if i else label)
            means = result.evaluation.summary.mean
            adaptation.plot(
                range(len(means)), [m.estimate for m in means], color=AFTER, marker="o", markersize=4, linewidth=1.4
            )
        learning.set(xlabel="env steps of training (millions)", ylabel="return of an episode")
        learning.legend(loc="lower right", frameon=False)
        learning.set_title(f"training tasks, {len(results)} seeds", fontsize=9.5, loc="left")
        adaptation.set(xlabel="rounds of adaptation")
        adaptation.set_xticks(range(len(results[0].evaluation.summary.mean)))
        adaptation.set_title("held-out tasks, mean", fontsize=9.5, loc="left")
        figure.suptitle(preset, x=0.01, ha="left", fontsize=10)
        figure.savefig(path, dpi=120)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="The recorded learning runs.")
    parser.add_argument("preset", choices=sorted(path.stem for path in PRESETS.glob("*.yaml")))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=0, help="threads of a run; 0: all cores")
    parser.add_argument("--jobs", type=int, default=1, help="seeds that run at a time")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    config = load_config(PRESETS / f"{arguments.preset}.yaml")
    work = functools.partial(train_seed, config, arguments.preset, runs=arguments.runs, threads=arguments.threads)
    if arguments.jobs == 1:
        results = [work(seed) for seed in arguments.seeds]
    else:  # fresh processes: torch's threads do not survive a fork
        with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
            results = list(pool.map(work, arguments.seeds))
    write_results(arguments.preset, results, config, arguments.results)


if __name__ == "__main__":
    main()
