"""Every figure that metarl promises, beside its bar: `make benchmark`.

Every timing is a ratio of two things timed in turn in one run; figures are medians over rounds. Nothing else should
run meanwhile. The reference times of other programs were measured on two cores whose pure physics (HalfCheetah through
`mujoco.batch`) ran at 72.7k env steps/s; they are held against ours by way of that.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import gymnasium
import mujoco
import numpy as np
import torch

from benchmarks import inner_steps, memories, quadruped_speed, scaling, trials
from benchmarks.physics import Physics, seconds
from benchmarks.robot_loop import measure_all
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.registry import make_agent
from metarl.config import RunConfig, TrainingSettings
from metarl.envs import mujoco_log
from metarl.envs.batch import BatchedEnv
from metarl.envs.family_settings import FamilySettings
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahDirectionSettings, HalfCheetahVelocitySettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings, QuadrupedTerrainSettings
from metarl.envs.sharded import ShardedEnv
from metarl.provenance import provenance
from metarl.runs.run import Run
from metarl.runs.trial import run_trial, stream, streams, torch_stream
from metarl.training.loop import Counters, iterate
from metarl.training.world import TrainingWorld

TASKS, ENVS = 40, 20
GYMNASIUM_ENVS, GYMNASIUM_STEPS = 16, 500
FAMILY_STEPS = 10  # of every family, timed
ROUNDS = 5
REFERENCE_PHYSICS = 72.7e3  # env steps/s of the machine that the reference times come from
REFERENCE_ITERATION_S = 16.7  # pytorch-maml-rl, HalfCheetahDir, 40 tasks x 20 rollouts x H 100 x 2 shots, two workers
HELP = {
    "metarl --help": 0.5,
    "metarl train --help": 1.0,
    "metarl train --agent maml --family quadruped --help": 1.0,
}
"""Bar on the CPU time of each command, s."""
RESULT = Path("results/benchmark.json")


@dataclass
class Figure:
    """A measured figure and its bar."""

    name: str
    value: float
    bar: float
    unit: str = ""
    at_most: bool = False
    rounds: list[float] | None = None

    @property
    def reached(self) -> bool:
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    def line(self) -> str:
        sign = "<=" if self.at_most else ">="
        mark = "ok" if self.reached else "MISSED"
        return f"{self.name:<72} {self.value:8.2f} {self.unit:<3} bar {sign} {self.bar:<6g} {mark}"


def make_run(settings: FamilySettings, agent: MamlSettings) -> tuple[Run, ShardedEnv]:
    family = make_family(settings)
    learner = make_agent(
        agent,
        family.observation_size,
        family.action_size,
        torch_stream(1, "initialisation"),
        torch.device("cpu"),
    )
    config = RunConfig(agent=agent, family=settings, training=TrainingSettings(tasks=TASKS, envs_per_task=ENVS))
    return Run(Path(), config, family, learner, 0, 0), ShardedEnv(family, TASKS, ENVS)


def record_shot(run: Run, env: ShardedEnv) -> tuple[float, np.ndarray]:
    """Env steps/s of a shot with the policy in the loop, and its actions [T, M, N, act]."""
    results, rngs = [], streams(1, "benchmark", 0, TASKS)
    took = seconds(lambda: results.append(run_trial(env, run.agent, rngs, adaptations=0)))
    rollout = results[0].trial.rollouts[0]
    return float(rollout.valid.sum()) / took, rollout.actions.numpy()


def collection_ratios(settings: FamilySettings, agent: MamlSettings) -> tuple[list[float], Run, ShardedEnv]:
    """Rate with the policy in the loop over that of pure physics, by round."""
    run, env = make_run(settings, agent)
    tasks, batch = run.family.sample(TASKS, stream(1, "tasks")), BatchedEnv(run.family, TASKS, ENVS)
    env.set_tasks(tasks)
    batch.set_tasks(tasks)
    physics = Physics(batch, record_shot(run, env)[1])  # every shot has these actions
    return [record_shot(run, env)[0] / physics.rate() for _ in range(ROUNDS)], run, env


def collection() -> list[Figure]:
    ratios, run, env = collection_ratios(HalfCheetahVelocitySettings(), MamlSettings())
    against = {mode: against_gymnasium(mode, run, env) for mode in ("sync", "async")}
    best = min(against, key=lambda mode: median(against[mode]))
    name = f"collection with the policy / Gymnasium's {best} mode, the faster of its two"
    return [
        Figure("collection with the policy / pure physics (HalfCheetah 40 x 20)", median(ratios), 0.90, rounds=ratios),
        Figure(name, median(against[best]), 3.0, "x", rounds=against[best]),
    ]


def on_other_robots() -> list[Figure]:
    """Collection on the quadruped, with a policy whose noise leaves it standing."""
    agent = MamlSettings(initial_std=0.2, output_gain=0.01)
    flat, _, _ = collection_ratios(QuadrupedSettings(horizon=50), agent)
    rough, _, _ = collection_ratios(QuadrupedTerrainSettings(horizon=50, kinds=("rough",)), agent)
    name = "collection with the policy / pure physics (quadruped, {})"
    return [
        Figure(name.format("flat"), median(flat), 0.85, rounds=flat),
        Figure(name.format("rough ground"), median(rough), 0.80, rounds=rough),
    ]


def against_gymnasium(mode: str, run: Run, env: ShardedEnv) -> list[float]:
    """Our collection rate over that of Gymnasium's own HalfCheetah-v5 without a policy, timed in turn."""
    with warnings.catch_warnings(), mujoco_log.silent():  # of the mass that their model says
        warnings.simplefilter("ignore")
        envs = gymnasium.make_vec("HalfCheetah-v5", num_envs=GYMNASIUM_ENVS, vectorization_mode=mode)
    envs.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (GYMNASIUM_STEPS, GYMNASIUM_ENVS, 6)).astype(np.float32)
    ratios = []
    for _ in range(ROUNDS):
        theirs = actions.shape[0] * actions.shape[1] / seconds(lambda: [envs.step(action) for action in actions])
        ours = record_shot(run, env)[0]
        ratios.append(ours / theirs)
        print(f"env steps/s: ours {ours / 1e3:.1f}k, Gymnasium {mode} {theirs / 1e3:.1f}k", flush=True)
    envs.close()
    return ratios


def iteration(name: str, settings: FamilySettings, agent: MamlSettings, bar: float) -> tuple[Figure, list[float]]:
    """A whole iteration's rate over that of pure physics, and the ratio in each round."""
    run, env = make_run(settings, agent)
    world, counters, batch = TrainingWorld(run), Counters(), BatchedEnv(run.family, TASKS, ENVS)
    iterate(world, counters)
    tasks = run.family.sample(TASKS, stream(1, "tasks"))
    env.set_tasks(tasks)
    batch.set_tasks(tasks)
    physics, ratios = Physics(batch, record_shot(run, env)[1]), []
    for _ in range(ROUNDS):
        rate, before = physics.rate(), counters.env_steps
        took = seconds(lambda: iterate(world, counters))
        ratios.append((counters.env_steps - before) / took / rate)
    return Figure(
        f"whole {name} iteration / pure physics (H {run.family.horizon})", median(ratios), bar, rounds=ratios
    ), ratios


def iterations() -> list[Figure]:
    promp, _ = iteration("ProMP", HalfCheetahVelocitySettings(), MamlSettings(outer="promp"), 0.55)
    trpo, _ = iteration("MAML-TRPO", HalfCheetahVelocitySettings(), MamlSettings(outer="trpo"), 0.40)
    same_work, ratios = iteration(
        "MAML-TRPO", HalfCheetahDirectionSettings(horizon=100), MamlSettings(outer="trpo"), 0.0
    )
    reference = (
        2 * 100 * TASKS * ENVS / REFERENCE_PHYSICS / REFERENCE_ITERATION_S
    )  # pure physics / iteration, as ratios
    speedups = [ratio / reference for ratio in ratios]
    name = "MAML-TRPO iteration, HalfCheetahDir H 100: times faster than the fastest public"
    return [
        promp,
        trpo,
        dataclasses.replace(same_work, name=name, value=median(speedups), bar=3.0, unit="x", rounds=speedups),
    ]


def of_trials() -> list[Figure]:
    """RL2's presets, which play 20 tasks at a time, against physics.

    The quadruped's bar is 3 times what it was: 1.3k env steps/s, of 41k by fast physics.
    """
    bars = {"half_cheetah_mass": (0.25, 0.15), "quadruped": (0.0, 0.095)}
    figures = []
    for family, (collected, whole) in bars.items():
        found = trials.measure(family)
        for name, rounds, bar in (("collection", found.collection, collected), ("iteration", found.iteration, whole)):
            figures.append(
                Figure(f"RL2's {name}, 20 trials / pure physics ({family})", median(rounds), bar, rounds=rounds)
            )
    return figures


def family_costs(name: str) -> tuple[float, float]:
    """Compiling 40 fresh tasks over the steps alone of an iteration's two shots, and the KB of a task's model."""
    family = make_family(FAMILY_SETTINGS[name]())
    tasks, compiled = family.sample(TASKS, stream(1, "tasks")), []
    compiling = median(seconds(lambda: compiled.append([family.compile(t) for t in tasks])) for _ in range(3))
    env = ShardedEnv(family, TASKS, ENVS, at_once=1)
    env.set_tasks(tasks)
    env.reset(streams(1, "benchmark", 0, TASKS))
    shape = (FAMILY_STEPS, TASKS, ENVS, family.action_size)
    actions = stream(1, "actions").uniform(family.action_low, family.action_high, shape) / family.action_scale
    stepping = seconds(lambda: [env.step(action) for action in actions]) / FAMILY_STEPS
    share = compiling / (2 * family.horizon * stepping) if family.edits_model else 0.0
    size = max(mujoco.mj_sizeModel(model) for model in compiled[0]) / 1e3
    print(
        f"{name:<30} 40 tasks {compiling * 1e3:6.1f} ms, {share:6.2%} of the steps; {size:6.1f} KB a task", flush=True
    )
    return share, size


def families() -> list[Figure]:
    simulated = [name for name, settings in FAMILY_SETTINGS.items() if make_family(settings()).simulator is None]
    costs = {name: family_costs(name) for name in simulated}  # another author's environment has no model of MuJoCo's
    (share, dearest), (size, largest) = (max((cost[i], name) for name, cost in costs.items()) for i in range(2))
    return [
        Figure(
            f"compiling 40 tasks / steps of an iteration ({dearest}, the dearest)", 100 * share, 10, "%", at_most=True
        ),
        Figure(f"a task's model ({largest}, the largest)", size, 200, "KB", at_most=True),
    ]


def robot_loops() -> list[Figure]:
    """What a step of a robot's loop costs each agent, of HalfCheetah's control step."""
    name = "robot loop of {}: 99th percentile of act and observe / control step"
    return [Figure(name.format(loop.agent), 100 * loop.share, 10, "%", at_most=True) for loop in measure_all()]


def remembering() -> list[Figure]:
    """What choosing actions costs with each memory, of the physics of a step; a transformer's is stated."""
    name = "choosing actions with {} / physics of a step (HalfCheetah 40 x 20, one thread)"
    return [
        Figure(
            name.format(found.memory),
            median(found.ratios),
            3.0 if found.memory == "transformer" else 1.0,
            at_most=True,
            rounds=found.ratios,
        )
        for found in memories.measure_all()
    ]


def quadruped() -> list[Figure]:
    """How much cheaper the quadruped's fast physics is, and PPO there."""
    return [Figure(s.name, median(s.rounds), s.bar, rounds=s.rounds) for s in quadruped_speed.figures()]


def foreign_envs() -> list[Figure]:
    """What a family of somebody's own environments adds to their steps."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.foreign"]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    name = "an episode of Gymnasium environments / their vector env alone ({})"
    return [Figure(name.format(f["name"]), f["median"], f["bar"], at_most=True, rounds=f["rounds"]) for f in found]


def processes() -> list[Figure]:
    """Iterations of two processes, each with a thread and its tasks, against those of one."""
    name = "{}: iteration of one process alone / of two, each with as many tasks"
    return [
        Figure(name.format(found["agent"]), found["efficiency"], 0.85, rounds=found["rounds"])
        for found in scaling.measure()["agents"]
    ]


def memory() -> Figure:
    """Peak memory of a process that trains one iteration of 40 x 20 x 200."""
    out = subprocess.run([sys.executable, "-m", "benchmarks", "--memory"], capture_output=True, text=True, check=True)
    return Figure("peak memory of 40 x 20 x 200 HalfCheetah", float(out.stdout.split()[-1]), 2.0, "GB", at_most=True)


def help_texts() -> list[Figure]:
    """CPU time of each command that prints help, in a process of its own."""
    figures = []
    for command, bar in HELP.items():
        taken = []
        for _ in range(ROUNDS):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-m", *command.split()], capture_output=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        figures.append(Figure(f"{command}, CPU time", median(taken), bar, "s", at_most=True, rounds=taken))
    return figures


def adapting() -> list[Figure]:
    figures = []
    for samples, bar in ((20, 4.0), (200, 4.0), (2000, 1.5)):
        ratios = inner_steps.stacked_over_tasks(samples).ratios
        name = f"second-order meta-gradient of 40 tasks of {samples} samples, task by task / stacked"
        figures.append(Figure(name, median(ratios), bar, rounds=ratios))
    for paper in inner_steps.CHEAPER:
        ratios = [1 / ratio for ratio in inner_steps.inner_cost(paper).ratios]
        figures.append(
            Figure(f"inner step of {paper} / of maml, 2000 samples", median(ratios), 1 / 3, "", True, ratios)
        )
    peak = inner_steps.peak_bytes(first_order=False) / inner_steps.peak_bytes(first_order=True)
    return [*figures, Figure("peak memory of the meta-gradient, exact / first order", peak, 4.0, at_most=True)]


def one_iteration() -> None:
    run, _ = make_run(HalfCheetahVelocitySettings(), MamlSettings(outer="trpo"))
    iterate(TrainingWorld(run), Counters())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def main() -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if "--memory" in sys.argv:
        one_iteration()
        return
    began = time.perf_counter()
    figures = [*collection(), *iterations(), *of_trials(), *on_other_robots(), *families(), *robot_loops()]
    figures += [*quadruped(), *remembering(), *adapting(), *foreign_envs(), *processes(), memory(), *help_texts()]
    for figure in figures:
        print(figure.line())
    print(f"took {time.perf_counter() - began:.0f} s; written to {RESULT}")
    record = {"figures": [{**dataclasses.asdict(f), "reached": f.reached} for f in figures], **provenance()}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
