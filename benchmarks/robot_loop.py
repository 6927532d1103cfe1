"""How long a robot waits for its policy: `python -m benchmarks.robot_loop`.

Each step is what a robot's loop asks: act on an observation, then observe what came of it. The 99th percentile is the
machine's as much as the policy's: nothing else should run meanwhile.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metarl.agents.registry import AGENT_SETTINGS
from metarl.agents.rl2.papers import RL2_PAPERS
from metarl.agents.threads import single_torch_thread
from metarl.config import EvaluationSettings, RunConfig
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.runs.run import Run, build
from metarl.runs.trial import stream

STEPS = 4000
EPISODES = 4  # a shot of a gradient agent


@dataclass(frozen=True)
class Loop:
    """Times of a control loop's calls, in microseconds."""

    agent: str
    act: np.ndarray
    """[STEPS] of `act`."""
    observe: np.ndarray
    """[STEPS] of `observe`."""
    adapt: np.ndarray
    """Of each `end_episode` after which the agent had adapted."""
    dt_us: float
    """The robot's control step."""

    @property
    def share(self) -> float:
        """99th percentile of `act` and `observe` together, of the robot's control step."""
        return float(np.quantile(self.act + self.observe, 0.99) / self.dt_us)

    def line(self) -> str:
        figures = (np.median(self.act), np.quantile(self.act, 0.99), np.quantile(self.observe, 0.99))
        times = "".join(f"{figure:>14.0f}" for figure in figures)
        return f"{self.agent:<16}{times}{np.median(self.adapt) / 1e3:>14.1f}{self.share:>14.2%}"


def measure(name: str) -> Loop:
    """Time an agent's loop on HalfCheetah, on one torch thread, with noise, while it adapts.

    name: of an agent, or of a published method that is one with other settings.
    """
    settings = EvaluationSettings(envs_per_task=EPISODES, adaptations=STEPS)
    paper = RL2_PAPERS.get(name)
    agent = AGENT_SETTINGS[paper.agent](**paper.settings) if paper else AGENT_SETTINGS[name]()
    config = RunConfig(agent=agent, family=HalfCheetahMassSettings(), evaluation=settings)
    run = Run(Path(), config, *build(config, "cpu"), 0, 0)
    observations = stream(1, "observations").normal(size=(STEPS, run.family.observation_size))
    act, observe, adapt = [], [], []
    with single_torch_thread():
        robot = run.start()
        for observation in observations:
            began = time.perf_counter()
            robot.act(observation)
            acted = time.perf_counter()
            robot.observe(0.1, False, False)
            observed = time.perf_counter()
            act.append(acted - began)
            observe.append(observed - acted)
            if robot.episode_over and robot.end_episode(observation):
                adapt.append(time.perf_counter() - observed)
    return Loop(name, 1e6 * np.array(act), 1e6 * np.array(observe), 1e6 * np.array(adapt), 1e6 * run.family.dt)


def measure_all() -> list[Loop]:
    """The loop of every agent, with every memory and head."""
    return [measure(name) for name in (*AGENT_SETTINGS, *RL2_PAPERS)]


def main() -> None:
    loops = measure_all()
    heads = ("act, us", "act 99 %, us", "obs. 99 %, us", "adapt, ms", "99 % / step")
    print(f"{'agent':<16}{''.join(f'{head:>14}' for head in heads)}")
    for loop in loops:
        print(loop.line())
    print(f"HalfCheetah, {STEPS} steps each, control step {loops[0].dt_us / 1e3:.0f} ms")


if __name__ == "__main__":
    main()
