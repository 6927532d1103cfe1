"""The time of what RL2 learns by: every memory alone, and one update by its parts.

    python -m benchmarks.updates [--threads 1 2] [--rounds 8] [--memory gru]

Prints milliseconds, the least of some rounds. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence

import torch

from metarl.agents.agent import Trial
from metarl.agents.cores.registry import CORES, make_core
from metarl.agents.cores.settings import MemorySettings
from metarl.agents.registry import make_agent
from metarl.agents.rl2.rl2 import Rl2
from metarl.agents.rl2.settings import Rl2Settings
from metarl.agents.threads import single_torch_thread
from metarl.config import PRESETS, load_config
from metarl.envs.registry import make_family
from metarl.envs.sharded import ShardedEnv
from metarl.runs.trial import run_trial, stream, streams, torch_stream

SLOTS, INPUT, WIDTH = 402, 66, 64  # of a trial of two episodes of 200 steps, as RL2 reads it on half_cheetah_mass
BATCHES = (10, 20, 40, 80)
PRESET = "rl2_half_cheetah_mass"


def least_ms(work: Callable[[], object], rounds: int) -> float:
    """Return the least time of the rounds, after one that is not counted."""
    work()
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return 1e3 * min(taken)


def memory_ms(memory: str, batch: int, rounds: int) -> tuple[float, float]:
    """Return the time in which a memory reads whole trials, and that of reading and back-propagation, one thread."""
    core = make_core(INPUT, MemorySettings(memory=memory, hidden_size=WIDTH))  # pyright: ignore[reportArgumentType]
    core.initialise(torch.Generator().manual_seed(0))
    inputs = torch.randn(SLOTS, batch, INPUT, generator=torch.Generator().manual_seed(1)).requires_grad_()
    first, gradients = core.initial(batch), torch.ones(SLOTS, batch, core.output_size)

    def learn() -> None:
        core.zero_grad()
        inputs.grad = None
        core.sequence(inputs, first)[0].backward(gradients)

    with single_torch_thread():
        return least_ms(torch.no_grad()(lambda: core.sequence(inputs, first)), rounds), least_ms(learn, rounds)


def recorded_trial(memory: str) -> tuple[Rl2, Trial]:
    """Return RL2 with a memory, and a trial that it played by the preset."""
    config = load_config(PRESETS / f"{PRESET}.yaml")
    assert isinstance(config.agent, Rl2Settings)
    family, tasks = make_family(config.family), config.training.tasks
    settings = dataclasses.replace(config.agent, memory=memory)
    sizes = family.observation_size, family.action_size
    agent = make_agent(settings, *sizes, torch_stream(1, "initialisation"), torch.device("cpu"))
    assert isinstance(agent, Rl2)
    env = ShardedEnv(family, tasks, config.training.envs_per_task, 1)
    env.set_tasks(family.sample(tasks, stream(1, "tasks")))
    with single_torch_thread():
        return agent, run_trial(env, agent, streams(1, "benchmark", 0, tasks), config.training.adaptations).trial


def update_ms(agent: Rl2, trial: Trial, rounds: int) -> dict[str, float]:
    """Return the time of an update's parts by name. The parts of a minibatch are those of one of many."""
    network, generator = agent.network, torch.Generator().manual_seed(0)
    whole = agent.sequence(trial).without_padding()
    data = agent.pieces(whole, agent.remembers)
    targets = agent._targets(whole, data)
    envs = torch.arange(data.steps.shape[1])[:: agent.settings.minibatches]
    part, goals = data.of_envs(envs), targets.of_envs(envs)
    count, ending = int(part.steps.sum()), part.ending
    embedded = network.embed(network.normalise(part.inputs)).detach().requires_grad_()
    features = network(part.inputs, part.memory)[0].detach().requires_grad_()

    def heads() -> None:
        (network.means(features).sum() + network.values(features, ending).sum()).backward()

    return {
        "layout": least_ms(lambda: agent.sequence(trial), rounds),
        "targets": least_ms(lambda: agent._targets(whole, data), rounds),
        "a minibatch, in all": least_ms(lambda: agent._step(part, goals, count), rounds),
        "- embeddings": least_ms(lambda: network.embed(network.normalise(part.inputs)).sum().backward(), rounds),
        "- memory": least_ms(lambda: network.core.sequence(embedded, part.memory)[0].sum().backward(), rounds),
        "- heads": least_ms(heads, rounds),
        "normalisers": least_ms(lambda: agent._update_moments(whole), rounds),
        "the update": least_ms(lambda: agent.meta_update(trial, generator), rounds),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="The time of what RL2 learns by.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of torch, for the update")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--memory", choices=list(CORES), default="gru", help="of the update")
    parser.add_argument("--memories", choices=list(CORES), nargs="*", default=list(CORES), help="that are timed alone")
    options = parser.parse_args(arguments)
    print(f"ms to read {SLOTS} slots, and to read and back-propagate; width {WIDTH}, one thread")
    print(f"{'envs':<16}" + "".join(f"{batch:>16}" for batch in BATCHES))
    for memory in options.memories:
        times = [memory_ms(memory, batch, options.rounds) for batch in BATCHES]
        print(f"{memory:<16}" + "".join(f"{reading:>8.1f}{both:>8.1f}" for reading, both in times), flush=True)
    agent, trial = recorded_trial(options.memory)
    columns = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        columns.append(update_ms(agent, trial, options.rounds))
    print(f"\nms of RL2's update on {PRESET} with {options.memory}")
    print(f"{'threads':<24}" + "".join(f"{threads:>8}" for threads in options.threads))
    for name in columns[0]:
        print(f"{name:<24}" + "".join(f"{column[name]:>8.1f}" for column in columns))


if __name__ == "__main__":
    main()
