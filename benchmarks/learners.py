"""Every learner on one family, with the same env steps and seeds, judged on the same tasks, and with its memory reset.

    python -m benchmarks.learners half_cheetah_mass [--arms rl2 ppo] [--seeds 1 2 3] [--env-steps 5.7e6] [--jobs 2]

trains what is not trained yet in runs/learners (a run that was stopped goes on), compares all runs that are there, and
writes results/<family>_learners.json (settings, statistics, env steps and seconds of training), .csv and .png.
`--judge` trains nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import metarl
from benchmarks.comparison import keep
from metarl.agents.cores.registry import CORES
from metarl.config import RunConfig, preset
from metarl.envs.registry import make_family
from metarl.runs.tracking import read_metrics

ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("ppo", {}),
    "oracle": ("ppo", {"training.reveal_task": True}),
    "recurrent_ppo": ("recurrent_ppo", {}),
    "maml": ("maml", {}),
    "varibad": ("varibad", {}),
    "pearl": ("pearl", {}),
    "rma": ("rma", {}),
    "roa": ("rma", {"agent.stages": "roa"}),
    "estimator": ("estimator", {}),
    "distilled": ("distilled", {}),
    "rl2": ("rl2", {}),
    "rl2_film": ("rl2", {"agent.head": "film"}),
    "rl2_hypernetwork": ("rl2", {"agent.head": "hypernetwork"}),
    **{f"rl2_{memory}": ("rl2", {"agent.memory": memory}) for memory in CORES if memory != "gru"},
}
"""Agent and overrides of each arm."""
TAUGHT = ("distilled",)
"""Arms whose teacher is the oracle of the same seed. Its env steps come on top of theirs."""
WITHOUT_MEMORY = ("ppo", "oracle", "maml")
"""Arms that are not judged a second time, with their memory reset at every step."""


def config_of(arm: str, family: str, env_steps: float, seed: int, runs: Path) -> RunConfig:
    """The preset of an arm's agent, with as many iterations as give the env steps, on one thread."""
    agent, overrides = ARMS[arm]
    if arm in TAUGHT:
        overrides = overrides | {"agent.teacher": str(runs / name_of(family, "oracle", seed))}
    config = preset(agent, family)
    for name, value in overrides.items():
        section, setting = name.split(".")
        changed = dataclasses.replace(getattr(config, section), **{setting: value})
        config = dataclasses.replace(config, **{section: changed})
    t = config.training
    a_trial = make_family(config.family).horizon * t.tasks * t.envs_per_task * (t.adaptations + 1)
    iterations = max(1, round(env_steps / a_trial))
    if getattr(config.agent, "lr_decay_updates", 0):
        config = dataclasses.replace(config, agent=dataclasses.replace(config.agent, lr_decay_updates=iterations))  # pyright: ignore[reportCallIssue]
    training = dataclasses.replace(t, iterations=iterations, seed=seed, threads=1)
    return dataclasses.replace(config, training=training)


def name_of(family: str, arm: str, seed: int) -> str:
    """The run's name."""
    return f"{family}_{arm}_{seed}"


def train(job: tuple[str, int], family: str, env_steps: float, runs: Path) -> None:
    """Train an arm with a seed, or go on with it."""
    arm, seed = job
    name = name_of(family, arm, seed)
    if (runs / name).exists():
        metarl.resume(runs / name)
    else:
        metarl.train(config_of(arm, family, env_steps, seed, runs), name=name, runs_dir=runs)


def cost(runs: Sequence[Path]) -> dict[str, float]:
    """Env steps of a run, and seconds of its iterations, as means over the seeds."""
    lines = [read_metrics(run) for run in runs]
    seconds = [sum(line["time/collect"] + line["time/update"] for line in of_run) for of_run in lines]
    return {
        "env_steps": sum(of_run[-1]["env_steps"] for of_run in lines) / len(lines),
        "training_s": round(sum(seconds) / len(seconds), 1),
    }


def judge(family: str, arms: Sequence[str], runs: Path, results: Path) -> Mapping[str, Any]:
    """Compare the arms that have runs, and keep the comparison in results."""
    there = {arm: sorted(runs.glob(f"{family}_{arm}_[0-9]*")) for arm in arms}
    there = {arm: found for arm, found in there.items() if found}
    entries = [f"{runs}/{family}_{arm}_[0-9]*:label={arm}" for arm in there]
    entries += [
        f"{runs}/{family}_{arm}_[0-9]*:label={arm}_reset,evaluation.reset_memory=step"
        for arm in there
        if arm not in WITHOUT_MEMORY
    ]
    folder = runs.parent / "comparisons" / f"{family}_learners"
    metarl.compare(entries, output=folder)
    saved = keep(folder, results / f"{family}_learners")
    saved["training"] = {arm: cost(found) for arm, found in there.items()}
    (results / f"{family}_learners.json").write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    return saved["training"]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Every learner on one family.")
    parser.add_argument("family")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--env-steps", type=float, default=5.7e6)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one thread")
    parser.add_argument("--judge", action="store_true", help="train nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs/learners"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    if not arguments.judge:
        work = functools.partial(train, family=arguments.family, env_steps=arguments.env_steps, runs=arguments.runs)
        jobs = [(arm, seed) for seed in arguments.seeds for arm in arguments.arms]
        stages = [[job for job in jobs if job[0] not in TAUGHT], [job for job in jobs if job[0] in TAUGHT]]
        with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
            for stage in stages:
                list(pool.map(work, stage))
    for arm, found in judge(arguments.family, arguments.arms, arguments.runs, arguments.results).items():
        print(f"{arm:<20} {found['env_steps'] / 1e6:6.2f}M env steps, {found['training_s']:8.0f} s of training")


if __name__ == "__main__":
    main()
