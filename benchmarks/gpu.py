"""What simulation and learning on a GPU cost, in one command and one JSON.

    python -m benchmarks.gpu [--output results/gpu.json] [--only physics env iteration inner cpu] [--small]

Each figure is written as soon as it is there. Without a GPU everything runs, small, on Warp's CPU device, and the JSON
says "not run": no figure of it is a GPU's. Bars: what the project asks of one H100 or H200.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.agents.agent import Rollout, Trial
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.registry import make_agent
from metarl.agents.rl2.settings import Rl2Settings
from metarl.agents.sb3.settings import PpoSettings
from metarl.config import EvaluationSettings, RunConfig, TrackingSettings, TrainingSettings
from metarl.envs.arrays import Array
from metarl.envs.batch import BatchedEnv
from metarl.envs.registry import make_family
from metarl.envs.robots.ant_settings import AntDirectionSettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings, HalfCheetahVelocitySettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings, QuadrupedTerrainSettings
from metarl.envs.warp.simulation import simulator
from metarl.provenance import provenance
from metarl.runs.run import Run, build
from metarl.runs.trial import stream, tensor
from metarl.training.loop import Counters, iterate
from metarl.training.world import TrainingWorld

BARS = {
    "env/half_cheetah": 3.0e6,
    "physics/quadruped": 1.2e6,
    "ppo/quadruped": 5.0e5,
    "ppo/quadruped_terrain": 4.0e5,
    "iteration/maml_promp": 1.0,
    "kernels": 0.9,
}
"""Env steps/s; for `iteration/` seconds; for `kernels` the share of the control step."""
FAMILIES = {
    "half_cheetah": HalfCheetahMassSettings(),
    "ant": AntDirectionSettings(),
    "quadruped": QuadrupedSettings(),
    "quadruped_terrain": QuadrupedTerrainSettings(),
}
QUADRUPED_PPO = PpoSettings(
    hidden_sizes=(256, 128),
    activation="elu",
    steps=25,
    lr=5e-4,
    entropy_weight=0.003,
    value_weight=1.0,
    max_gradient_norm=1.0,
)
"""As the preset, with updates that never end early: 5 passes of 4 minibatches."""
WORLDS = (1024, 4096, 16384, 32768, 65536, 131072, 262144)
TASKS = 64
"""Tasks of a batch, of one heightfield each on terrain."""
STEPS, WARM = 40, 12
"""Control steps that are timed, and taken before."""
SPREAD = {"quadruped": 0.2, "quadruped_terrain": 0.2}
"""Half-width of the random actions: quadrupeds stand, the others thrash."""


@functools.cache
def device() -> torch.device:
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Until the device has done all that it was asked for."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def seconds(function: Callable[[], Any]) -> float:
    """Of one call, the device's work included."""
    wait()
    began = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - began


def used_memory() -> float:
    """GiB of the card that are taken, whoever took them."""
    free, total = torch.cuda.mem_get_info() if device().type == "cuda" else (0, 0)
    return round((total - free) / 2**30, 2)


def make_env(name: str, worlds: int) -> BatchedEnv:
    """An env of TASKS training tasks, reset."""
    family, tasks = make_family(FAMILIES[name]), min(TASKS, worlds)
    env = BatchedEnv(family, tasks, worlds // tasks, simulator=simulator(str(device())))
    env.set_tasks(family.sample(tasks, np.random.default_rng(0), "train"))
    env.reset([stream(0, "gpu", m) for m in range(tasks)])
    return env


def physics(name: str, worlds: int) -> dict[str, Any]:
    """Control steps of physics alone under random controls: nothing is observed or rewarded."""
    env = make_env(name, worlds)
    simulation, family = env.simulation, env.family
    ctrl, chosen = simulation.bind("ctrl"), simulation.array(np.ones(worlds, dtype=bool))
    spread = SPREAD.get(name, 1.0)

    def control(signals: torch.Tensor) -> None:
        ctrl.copy_(signals)
        simulation.step(chosen, family.frame_skip)

    step = simulation.repeat(control)
    draws = [_controls(env, spread) for _ in range(4)]

    def run(steps: int) -> None:
        for t in range(steps):
            step(draws[t % 4])

    run(WARM)
    took = statistics.median(seconds(lambda: run(STEPS)) for _ in range(3)) / STEPS
    return {"worlds": worlds, "ms": 1e3 * took, "env_steps_per_s": worlds / took, "memory_gib": used_memory()}


def _controls(env: BatchedEnv, spread: float) -> torch.Tensor:
    actions = torch.empty(env.simulation.num_sims, env.family.action_size, device=device()).uniform_(-spread, spread)
    return env.family.control.of(env.family.applied(actions))


def whole_env(name: str, worlds: int) -> dict[str, Any]:
    """Control steps with a 64x64 policy of its own for every task, as MAML collects: act, step, keep."""
    env = make_env(name, worlds)
    family = env.family
    agent = make_agent(
        MamlSettings(hidden_sizes=(64, 64)),
        family.observation_size,
        family.action_size,
        torch.Generator().manual_seed(0),
        device(),
    )
    belief = agent.begin(env.num_tasks, env.envs_per_task, ())
    noise = torch.randn(env.num_tasks, env.envs_per_task, family.action_size, device=device())
    state: dict[str, Array] = {"seen": tensor(env.reset([stream(0, "gpu", m) for m in range(env.num_tasks)]))}
    kept = torch.zeros(STEPS, *state["seen"].shape, device=device())

    @torch.no_grad()
    def run(steps: int) -> None:
        for t in range(steps):
            actions, _ = agent.act(belief, state["seen"], noise)
            kept[t] = state["seen"]
            state["seen"] = tensor(env.step(actions).observations)

    run(WARM)
    took = statistics.median(seconds(lambda: run(STEPS)) for _ in range(3)) / STEPS
    share = kernel_share(lambda: run(10)) if device().type == "cuda" else None
    overflows = env.simulation.overflows() if hasattr(env.simulation, "overflows") else {}
    return {
        "worlds": worlds,
        "ms": 1e3 * took,
        "env_steps_per_s": worlds / took,
        "kernels": share,
        "memory_gib": used_memory(),
        "overflows": overflows,
        "active": float(env.active.float().mean()),
    }


def kernel_share(function: Callable[[], Any]) -> float:
    """Share of the time from its first kernel to its last in which a kernel or a copy runs."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as record:
        function()
        wait()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in record.events() or ()
        if str(event.device_type) == "DeviceType.CUDA"
    )
    busy, end = 0.0, spans[0][0]
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return busy / (end - spans[0][0])


def make_run(agent: Any, family: Any, small: bool, **training: Any) -> Run:
    """A run of the benchmark, not in any folder."""
    if small:
        training |= {"tasks": 4, "envs_per_task": 2}
        family = dataclasses.replace(family, horizon=20)
    config = RunConfig(
        agent,
        family,
        TrainingSettings(device="cuda" if device().type == "cuda" else "cpu", **training),
        EvaluationSettings(),
        TrackingSettings(wandb="disabled"),
    )
    built, learner = build(config)
    return Run(Path(), config, built, learner, 0, 0)


def iterations(run: Run, count: int) -> dict[str, Any]:
    """Whole training iterations: of each the seconds in collecting, adapting and updating."""
    adapt, adapting = run.agent.adapt, []

    def timed(*arguments: Any) -> Any:
        result: list[Any] = []
        adapting.append(seconds(lambda: result.append(adapt(*arguments))))
        return result[0]

    run.agent.adapt = timed  # pyright: ignore[reportAttributeAccessIssue]
    world, counters, rows = TrainingWorld(run), Counters(), []
    if device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(count + 1):  # the first records and compiles
        adapting.clear()
        metrics: dict[str, Any] = {}
        before = counters.env_steps
        took = seconds(lambda found=metrics: found.update(iterate(world, counters)))
        adapted = sum(adapting)
        rows.append(
            {
                "seconds": took,
                "collect": metrics["time/collect"] - adapted,
                "adapt": adapted,
                "update": metrics["time/update"],
                "tasks": took - metrics["time/collect"] - metrics["time/update"],
                "env_steps_per_s": (counters.env_steps - before) / took,
            }
        )
    found = {name: statistics.median(row[name] for row in rows[1:]) for name in rows[0]}
    t = run.config.training
    peak = torch.cuda.max_memory_allocated() / 2**30 if device().type == "cuda" else 0.0
    return found | {
        "first_seconds": rows[0]["seconds"],
        "tasks_x_envs": [t.tasks, t.envs_per_task],
        "horizon": run.family.horizon,
        "torch_peak_gib": round(peak, 2),
        "memory_gib": used_memory(),
    }


def learners(small: bool, name: str = "gpu") -> dict[str, Callable[[], dict[str, Any]]]:
    """The iterations that are timed, by name; name: of the simulator."""
    cheetah = dataclasses.replace(HalfCheetahVelocitySettings(), horizon=200)
    flat, rough = (dataclasses.replace(FAMILIES[family], horizon=250) for family in ("quadruped", "quadruped_terrain"))
    rl2 = {"tasks": 64, "envs_per_task": 64, "distinct_tasks": 64}
    ppo = {"tasks": 64, "envs_per_task": 256, "distinct_tasks": 64, "adaptations": 0}
    asked = {
        "maml_promp": (MamlSettings(outer="promp", tasks_per_chunk=0), cheetah, {}, 3),
        "maml_trpo": (MamlSettings(outer="trpo", tasks_per_chunk=0), cheetah, {}, 3),
        "rl2": (Rl2Settings(minibatches=4), flat, rl2, 2),
        "ppo_quadruped": (QUADRUPED_PPO, flat, ppo, 2),
        "ppo_quadruped_terrain": (QUADRUPED_PPO, rough, ppo, 2),
    }
    return {
        key: functools.partial(timed_run, agent, family, small, count, {**training, "simulator": name})
        for key, (agent, family, training, count) in asked.items()
    }


def timed_run(agent: Any, family: Any, small: bool, count: int, training: dict[str, Any]) -> dict[str, Any]:
    """`iterations` of a run that is made when it is asked for."""
    return iterations(make_run(agent, family, small, **training), count)


def inner_loop(num_tasks: int) -> dict[str, Any]:
    """A second-order inner step of so many tasks, 64x64 policies and 2,000 steps each: adapt, and ProMP's gradient."""
    sizes, steps, envs = (20, 6), 100, 20
    generator = torch.Generator().manual_seed(0)
    agent: Any = make_agent(
        MamlSettings(hidden_sizes=(64, 64), promp_epochs=1, tasks_per_chunk=0), *sizes, generator, device()
    )
    shape = (steps, num_tasks, envs)
    begin = agent.begin(num_tasks, envs, ())

    def rollout() -> Rollout:
        def draw(*size: int) -> torch.Tensor:
            return torch.randn(*shape, *size, device=device())

        truncated = torch.zeros(shape, dtype=torch.bool, device=device())
        truncated[-1] = True
        final = torch.randn(num_tasks, envs, sizes[0], device=device())
        ones = torch.ones(shape, dtype=torch.bool, device=device())
        return Rollout(draw(sizes[0]), draw(sizes[1]), draw(), ~ones, truncated, ones, final)

    support, query = rollout(), rollout()
    adapted: list[Any] = []
    adapt = statistics.median(seconds(lambda: adapted.append(agent.adapt(begin, support, ()))) for _ in range(3))
    trial = Trial([support, query], [begin, adapted[-1]])
    batches = [*adapted[-1].batches, agent.prepare(query, adapted[-1])]

    def gradient() -> None:
        agent.outer.meta_gradient(agent.theta, batches, num_tasks, agent.inner.promp_loss)

    gradient()
    took = statistics.median(seconds(gradient) for _ in range(3))
    update = statistics.median(seconds(lambda: agent.meta_update(trial, generator)) for _ in range(3))
    found = {"tasks": num_tasks, "adapt_s": adapt, "second_order_gradient_s": took, "update_s": update}
    if device().type == "cuda":
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as record:
            gradient()
            wait()
        found["kernels_of_the_gradient"] = sum(
            str(event.device_type) == "DeviceType.CUDA" for event in record.events() or ()
        )
    return found | {"memory_gib": used_memory()}


def measurements(small: bool) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """(kind, name, what measures it), the most asked for first."""
    first, rest = WORLDS[2], [worlds for worlds in WORLDS if worlds != WORLDS[2]]
    sizes = {name: [64] if small else [first] for name in FAMILIES}
    for name, counts in sizes.items():
        for worlds in counts:
            yield "physics", f"physics/{name}/{worlds}", functools.partial(physics, name, worlds)
            yield "env", f"env/{name}/{worlds}", functools.partial(whole_env, name, worlds)
    for name, measure in learners(small).items():
        yield "iteration", f"iteration/{name}", measure
    for tasks in (4,) if small else (10, 1000):
        yield "inner", f"inner_loop/{tasks}", functools.partial(inner_loop, tasks)
    for name, measure in learners(small, "cpu").items():
        if name in ("maml_promp", "rl2"):
            yield "cpu", f"cpu/iteration/{name}", measure
    for name in () if small else FAMILIES:
        for worlds in rest:
            yield "scaling", f"physics/{name}/{worlds}", functools.partial(physics, name, worlds)
    for name in () if small else ("half_cheetah", "quadruped"):
        yield "scaling", f"env/{name}/32768", functools.partial(whole_env, name, 32768)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure simulation and learning on the GPU.")
    parser.add_argument("--output", type=Path, default=Path("results/gpu.json"))
    parser.add_argument("--only", nargs="*", default=["physics", "env", "iteration", "inner", "cpu", "scaling"])
    parser.add_argument("--names", nargs="*", default=[], help="only measurements whose name has one of these in it")
    parser.add_argument("--minutes", type=float, default=8.0, help="no measurement is begun after so many")
    arguments = parser.parse_args()
    gpu = device().type == "cuda"
    card = torch.cuda.get_device_name(0) if gpu else None
    record: dict[str, Any] = {"card": card or "not run", "provenance": provenance(), "bars": BARS, "figures": {}}
    began = time.perf_counter()
    for kind, name, measure in measurements(small=not gpu):
        if kind not in arguments.only or (arguments.names and not any(part in name for part in arguments.names)):
            continue
        if time.perf_counter() - began > 60 * arguments.minutes:
            record["figures"][name] = {"left_out": "the time was over"}
            continue
        try:
            figure = measure()
        except (RuntimeError, MemoryError) as error:  # of memory that has ended, above all
            figure = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
        if gpu:
            torch.cuda.empty_cache()
        record["figures"][name] = figure
        print(name, json.dumps(figure), f"[{time.perf_counter() - began:.0f} s]", flush=True)
        record["seconds"] = time.perf_counter() - began
        if not gpu:
            record["figures"][name] = "not run"
        arguments.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
