"""Weak scaling: does an iteration of twice the tasks on twice the processes take as long as before?

    python -m benchmarks.scaling [--ranks 2] [--rounds 11]
    python -m benchmarks.scaling --noise PRESET [--iterations 0 8]

launches that many processes on this machine, each with one thread and as many tasks as the others. In each round the
first works alone on its tasks, while the others sleep; then all work at the same time, each on a run of its own,
without a sum; then together on one run. The ratio of the first time to the third is the efficiency, that of the first
to the second what the machine's cores leave of it before anything is summed. Writes results/scaling.json, with what is
summed in an iteration and how long that takes. Nothing else should run meanwhile.

--noise says how many tasks a meta-gradient of MAML is worth averaging over, after so many iterations of a preset: the
trace of the covariance of a task's gradient over the square of their mean (McCandlish 2018, B_simple).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from metarl.agents.agent_settings import AgentSettings
from metarl.agents.maml.maml import Maml
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.rl2.settings import Rl2Settings
from metarl.config import PRESETS, RunConfig, TrainingSettings, load_config
from metarl.envs.robots.half_cheetah_settings import HalfCheetahVelocitySettings
from metarl.envs.sharded import ShardedEnv
from metarl.provenance import provenance
from metarl.runs.run import Run, build
from metarl.runs.trial import run_trial, stream, streams
from metarl.training.launched import Launched
from metarl.training.loop import Counters, iterate
from metarl.training.world import TrainingWorld

TASKS, ENVS, HORIZON = 10, 10, 100  # tasks: of each process
AGENTS: dict[str, AgentSettings] = {
    "ProMP": MamlSettings(outer="promp"),
    "MAML-TRPO": MamlSettings(outer="trpo"),
    "RL2": Rl2Settings(),
}
SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)  # float32 numbers in a sum that is timed by itself
REPEATS = 20
RESULT = Path("results/scaling.json")


class Metered(Launched):
    """Counts what is summed."""

    def __init__(self) -> None:
        super().__init__(os.environ)
        self.reset()

    def reset(self) -> None:
        self.sums, self.bytes, self.seconds = 0, 0, 0.0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        began = time.perf_counter()
        result = super().sum(tensor)
        self.seconds += time.perf_counter() - began
        self.sums += 1
        self.bytes += tensor.nbytes
        return result


@dataclass
class Scaling:
    """Of an agent, medians over the rounds."""

    agent: str
    parameters: int
    efficiency: float
    """Time of an iteration alone over that of one together, each process with the same number of tasks."""
    rounds: list[float]
    apart: float
    """Time of an iteration alone over that of one beside the other processes' own, until the last has ended."""
    apart_rounds: list[float]
    alone_s: float
    together_s: float
    sums: int
    """In an iteration, by each process."""
    megabytes: float
    """That these sums are of."""
    sums_s: float
    """Seconds in these sums, in the first process: waiting for the slower ones is most of it."""


def world_of(settings: AgentSettings, ranks: Ranks) -> TrainingWorld:
    """The world of a run of `TASKS` tasks for each process."""
    training = TrainingSettings(tasks=TASKS * ranks.size, envs_per_task=ENVS, threads=1)
    config = RunConfig(agent=settings, family=HalfCheetahVelocitySettings(horizon=HORIZON), training=training)
    family, agent = build(config, "cpu", ranks)
    return TrainingWorld(Run(Path(), config, family, agent, 0, 0), ranks)


def scaling(name: str, ranks: Metered, rounds: int) -> Scaling:
    settings = AGENTS[name]
    alone, apart, together = world_of(settings, ALONE), world_of(settings, ALONE), world_of(settings, ranks)
    counters = Counters(), Counters(), Counters()
    times: list[tuple[float, float, float]] = []
    for number in range(rounds + 1):  # the first warms up
        began = time.perf_counter()
        ranks.from_first(lambda: iterate(alone, counters[0]))
        beside = time.perf_counter()
        iterate(apart, counters[1])
        ranks.sum(torch.zeros(1))  # all have ended
        joint = time.perf_counter()
        ranks.reset()
        iterate(together, counters[2])
        if number:
            times.append((beside - began, joint - beside, time.perf_counter() - joint))
    state = together.run.agent.state_dict()
    parameters = state["theta"].numel() if "theta" in state else sum(map(torch.numel, state["network"].values()))
    ratios = [own / joint for own, _, joint in times]
    apart_ratios = [own / beside for own, beside, _ in times]
    return Scaling(
        agent=name,
        parameters=parameters,
        efficiency=median(ratios),
        rounds=ratios,
        apart=median(apart_ratios),
        apart_rounds=apart_ratios,
        alone_s=median(own for own, _, _ in times),
        together_s=median(joint for _, _, joint in times),
        sums=ranks.sums,
        megabytes=ranks.bytes / 1e6,
        sums_s=ranks.seconds,
    )


def sum_times(ranks: Metered) -> dict[str, float]:
    """Milliseconds of a sum of so many float32 numbers."""
    found = {}
    for size in SIZES:
        numbers, times = torch.ones(size), []
        for _ in range(REPEATS):
            ranks.sum(torch.zeros(1))  # all are here
            began = time.perf_counter()
            ranks.sum(numbers)
            times.append(time.perf_counter() - began)
        found[str(size)] = 1e3 * median(times)
    return found


def work(rounds: int, file: Path) -> None:
    """What each process does; the first writes what was measured."""
    torch.set_num_threads(1)
    ranks = Metered()
    found = {"agents": [asdict(scaling(name, ranks, rounds)) for name in AGENTS], "sum_ms": sum_times(ranks)}
    if ranks.is_first:
        file.write_text(json.dumps({"ranks": ranks.size, **found}))
    ranks.leave(0)


def measure(ranks: int = 2, rounds: int = 11) -> dict:
    """Launch the processes; returns what they measured, which is also in `RESULT`."""
    RESULT.parent.mkdir(exist_ok=True)
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "-m", "benchmarks.scaling"]
    subprocess.run([*launch, "--rounds", str(rounds), "--file", str(RESULT)], check=True)
    record = {**json.loads(RESULT.read_text()), **provenance()}
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    return record


def noise(preset: str, iterations: list[int]) -> None:
    """Print the noise scale of a preset's meta-gradient, in tasks, from twice as many tasks as it trains on."""
    config = load_config(PRESETS / f"{preset}.yaml")
    family, agent = build(config, "cpu")
    assert isinstance(agent, Maml), "the noise scale is of MAML's presets"
    run, counters, t = Run(Path(), config, family, agent, 0, 0), Counters(), config.training
    world, env = TrainingWorld(run), ShardedEnv(family, t.tasks, t.envs_per_task, t.threads)
    for end in iterations:
        while counters.iteration < end:
            iterate(world, counters)
        gradients = []
        for half in range(2):
            env.set_tasks(family.sample(t.tasks, stream(t.seed, "noise/tasks", end, half)))
            rngs = streams(t.seed, f"noise/{half}", end, t.tasks)
            trial = run_trial(env, agent, rngs, t.adaptations).trial
            batches = [agent.prepare(*shot) for shot in zip(trial.rollouts, trial.beliefs, strict=True)]
            for m in range(t.tasks):
                own = [batch.tasks(slice(m, m + 1)) for batch in batches]
                gradients.append(agent.outer.meta_gradient(agent.theta, own, 1, agent.inner.surrogate).double())
        found = torch.stack(gradients)
        trace = found.var(0).sum()
        square = found.mean(0).square().sum() - trace / len(found)  # the mean's own noise taken out
        print(f"{preset}, iteration {end}: the noise is that of {trace / square:.1f} tasks", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--noise", metavar="PRESET")
    parser.add_argument("--iterations", type=int, nargs="+", default=[0, 8])
    given = parser.parse_args()
    if given.noise is not None:
        noise(given.noise, given.iterations)
        return
    if given.file is not None:
        work(given.rounds, given.file)
        return
    record = measure(given.ranks, given.rounds)
    for found in (Scaling(**entry) for entry in record["agents"]):
        print(
            f"{found.agent:<10} {found.parameters:7d} parameters: alone {found.alone_s:6.2f} s, together "
            f"{found.together_s:6.2f} s, efficiency {found.efficiency:.2f} (without sums {found.apart:.2f}); "
            f"{found.sums} sums of {found.megabytes:.2f} MB in all, {found.sums_s:.2f} s in them"
        )
    for size, ms in record["sum_ms"].items():
        print(f"a sum of {int(size):>8,} float32 numbers: {ms:8.3f} ms")


if __name__ == "__main__":
    main()
