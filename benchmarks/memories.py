"""Time of choosing actions with each memory against that of physics: `python -m benchmarks.memories`.

RL2 with each memory, at its default settings, chooses the actions of 800 HalfCheetahs; the physics of one control step
of as many is timed in turn with it. Both have one thread, as each shard of a collection has. Training reads whole
trials instead: its time, forward and backward, is printed beside.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import mujoco
import numpy as np
import torch

from metarl.agents.cores.registry import CORES
from metarl.agents.registry import make_agent
from metarl.agents.rl2.rl2 import Rl2
from metarl.agents.rl2.settings import Rl2Settings
from metarl.agents.threads import single_torch_thread
from metarl.envs.batch import BatchedEnv
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.runs.trial import stream, streams, torch_stream

TASKS, ENVS = 40, 20
STEPS = 5  # a round
ROUNDS = 7
TRIAL, TRIALS = 402, 20  # slots of a trial of two episodes, and trials of a meta-update of the presets
CPU = torch.device("cpu")


@dataclass(frozen=True)
class MemoryTimes:
    """Times of a memory."""

    memory: str
    act_ms: list[float]
    """Of choosing the actions of a step, by round."""
    physics_ms: list[float]
    """Of the physics of a step, by round."""
    train_ms: float
    """Of reading 20 trials of 402 slots forward and backward, the least of a few."""
    numbers: int
    """What an env's memory holds."""

    @property
    def ratios(self) -> list[float]:
        """Time of choosing actions over that of physics, by round."""
        return [act / physics for act, physics in zip(self.act_ms, self.physics_ms, strict=True)]

    def line(self) -> str:
        figures = f"{median(self.act_ms):>12.2f}{median(self.physics_ms):>14.2f}{median(self.ratios):>10.2f}"
        return f"{self.memory:<14}{figures}{self.train_ms:>12.0f}{self.numbers:>12}"


def milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began)


class Physics:
    """HalfCheetahs that move by random torques."""

    def __init__(self) -> None:
        self.family = make_family(HalfCheetahMassSettings())
        env = BatchedEnv(self.family, TASKS, ENVS, threads=1)
        env.set_tasks(self.family.sample(TASKS, stream(1, "tasks")))
        env.reset(streams(1, "benchmark", 0, TASKS))
        self._batch: mujoco.batch.Batch = env.simulation.batch  # pyright: ignore[reportAttributeAccessIssue]
        self._ctrl = env.simulation.bind("ctrl")
        self._torques = np.random.default_rng(1).uniform(-1, 1, (STEPS, *self._ctrl.shape))

    def steps(self) -> None:
        for torques in self._torques:
            self._ctrl[:] = torques
            self._batch.step(nstep=self.family.frame_skip)


def agent_with(memory: str, physics: Physics) -> Rl2:
    settings = Rl2Settings(memory=memory)  # pyright: ignore[reportArgumentType]
    sizes = physics.family.observation_size, physics.family.action_size
    agent = make_agent(settings, *sizes, torch_stream(1, "initialisation"), CPU)
    assert isinstance(agent, Rl2)
    return agent


def training_ms(agent: Rl2) -> float:
    """Time of the memory alone in a pass of PPO over the trials of a meta-update."""
    size = sum(module.out_features for module in (agent.network.embed_observation, agent.network.embed_action)) + 2
    shape = (TRIAL, TRIALS, size + agent.network.embed_reward.out_features)
    inputs = torch.from_numpy(stream(1, "inputs").uniform(size=shape).astype(np.float32))
    before = agent.core.initial(TRIALS)

    def read() -> None:
        agent.core.sequence(inputs, before)[0].square().mean().backward()

    return min(milliseconds(read) for _ in range(4))


def measure(memory: str, physics: Physics) -> MemoryTimes:
    agent = agent_with(memory, physics)
    sizes = {"observations": physics.family.observation_size, "noise": physics.family.action_size}
    observations, noise = (
        torch.from_numpy(stream(1, name).normal(size=(STEPS, TASKS, ENVS, size)).astype(np.float32))
        for name, size in sizes.items()
    )
    beliefs = [agent.begin(TASKS, ENVS, ())]

    def act() -> None:
        for seen, drawn in zip(observations, noise, strict=True):
            beliefs[0] = agent.act(beliefs[0], seen, drawn)[1]

    with single_torch_thread():
        act()
        physics.steps()
        times = [(milliseconds(act) / STEPS, milliseconds(physics.steps) / STEPS) for _ in range(ROUNDS)]
        train = training_ms(agent)
    numbers = sum(state[0, 0].numel() for state in beliefs[0].memory.values())
    return MemoryTimes(memory, [x for x, _ in times], [x for _, x in times], train, numbers)


def measure_all() -> list[MemoryTimes]:
    """The times of every memory."""
    physics = Physics()
    return [measure(memory, physics) for memory in CORES]


def main() -> None:
    print(f"{'memory':<14}{'act, ms':>12}{'physics, ms':>14}{'ratio':>10}{'train, ms':>12}{'numbers':>12}")
    physics = Physics()
    for memory in CORES:
        print(measure(memory, physics).line(), flush=True)
    print(f"{TASKS * ENVS} HalfCheetahs, one thread; training: {TRIAL} slots of {TRIALS} trials, forward and backward")


if __name__ == "__main__":
    main()
