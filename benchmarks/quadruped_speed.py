"""How much faster the quadruped is simulated and learned on than by exact physics and Stable-Baselines3's own PPO.

    python -m benchmarks.quadruped_speed [--cpu]

--cpu: CPU seconds of one thread in place of seconds: for a machine that does other work.

PPO's bar is 1.8 times its share of exact physics at 7a2ffcc, before PPO or the quadruped were made faster: 0.45 (8.4k
env steps/s of 18.6k on an AMD EPYC with AVX-512; medians of six rounds, in turn with today's 16.6k).
Stable-Baselines3's own PPO is no such measure: its envs, and what is around it, have become faster too.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import numpy as np
from stable_baselines3 import PPO

from metarl.agents.sb3.ppo import Ppo
from metarl.config import preset
from metarl.envs.batch import BatchedEnv
from metarl.envs.registry import make_family
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.runs.run import Run, build
from metarl.runs.trial import stream, streams
from metarl.training.loop import Counters, iterate
from metarl.training.world import TrainingWorld

Physics = Literal["fast", "exact"]
Clock = Callable[[], float]
TASKS, ENVS, STEPS, ROUNDS = 40, 4, 60, 5


class Speed(NamedTuple):
    """A measured ratio and its bar."""

    name: str
    """What is measured, in words."""
    rounds: list[float]
    """Ratio in each round."""
    bar: float
    """Least median that is promised."""


class RandomTargets:
    """The quadruped's physics under random joint targets."""

    def __init__(self, physics: Physics, threads: int, clock: Clock) -> None:
        family = make_family(QuadrupedSettings(physics=physics))
        self._env, self._clock = BatchedEnv(family, TASKS, ENVS, threads), clock
        self._env.set_tasks(family.sample(TASKS, stream(1, "tasks")))
        self._ctrl = self._env.simulation.bind("ctrl")
        self._signals = 0.25 * stream(1, "actions").standard_normal((STEPS, *self._ctrl.shape))

    def rate(self) -> float:
        """Simulate the start of episodes; returns env steps per second of the clock."""
        env = self._env
        env.reset(streams(1, "benchmark", 0, TASKS))
        chosen, began = np.ones(env.simulation.num_sims, dtype=bool), self._clock()
        for signal in self._signals:
            self._ctrl[:] = signal
            env.simulation.step(chosen, env.family.frame_skip)
        return STEPS * env.simulation.num_sims / (self._clock() - began)


class Training:
    """PPO's training on the quadruped, by its preset."""

    def __init__(self, physics: Physics, own: bool, threads: int, clock: Clock) -> None:
        """own: False for Stable-Baselines3's PPO itself, as it comes."""
        config = preset("ppo", "quadruped")
        settings = dataclasses.replace(config.training, threads=threads)
        family = dataclasses.replace(config.family, physics=physics)
        config = dataclasses.replace(config, family=family, training=settings)
        made, agent = build(config, device="cpu")
        assert isinstance(agent, Ppo)
        if not own:
            agent.model.__class__ = PPO
        self._world, self._counters, self._clock = (
            TrainingWorld(Run(Path(), config, made, agent, 0, 0)),
            Counters(),
            clock,
        )
        iterate(self._world, self._counters)

    def rate(self) -> float:
        """Train an iteration; returns env steps per second of the clock."""
        before, began = self._counters.env_steps, self._clock()
        iterate(self._world, self._counters)
        return (self._counters.env_steps - before) / (self._clock() - began)


def figures(threads: int = 0, clock: Clock = time.perf_counter) -> list[Speed]:
    """Return the ratios; threads: 0 takes all cores."""
    exact, fast = (RandomTargets(physics, threads, clock) for physics in ("exact", "fast"))
    physics = [fast.rate() / exact.rate() for _ in range(ROUNDS)]
    plain, ours = Training("exact", False, threads, clock), Training("fast", True, threads, clock)
    rounds = [(plain.rate(), ours.rate(), exact.rate()) for _ in range(ROUNDS)]
    return [
        Speed("quadruped: fast physics / exact physics, random targets", physics, 1.8),
        Speed("quadruped: whole PPO iteration / SB3's own on exact physics", [b / a for a, b, _ in rounds], 0.0),
        Speed("quadruped: whole PPO iteration / pure exact physics", [b / pure for _, b, pure in rounds], 0.81),
    ]


def main() -> None:
    """The command line."""
    given = {"threads": 1, "clock": time.process_time} if "--cpu" in sys.argv else {}
    for speed in figures(**given):
        rounds = ", ".join(f"{x:.2f}" for x in speed.rounds)
        print(f"{speed.name:<64} {median(speed.rounds):5.2f} (bar {speed.bar:g}; {rounds})")


if __name__ == "__main__":
    main()
