"""Shift between simulators: how much an agent's returns differ between the one it was trained on and another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from metarl.agents.agent import Agent
from metarl.config import EvaluationSettings
from metarl.envs.family import TaskFamily
from metarl.envs.task import Task
from metarl.evaluation.outcomes import run_trials
from metarl.evaluation.results import SimulatorShift
from metarl.evaluation.statistics import Array, mean, task_interval
from metarl.runs.simulators import simulator_name
from metarl.runs.trial import stream


def simulator_shift(
    agent: Agent,
    family: TaskFamily,
    trained: str,
    settings: EvaluationSettings,
    tasks: list[list[Task]],
    returns: Array,
    threads: int = 0,
    progress: Callable[[str], None] | None = None,
) -> SimulatorShift | None:
    """Run the agent on the simulator of its training too, and return the difference; None if both are the same.

    Without `settings.simulator_shift` nothing is run, and the difference is left open. trained: setting of the
    simulator in the agent's training. returns: [seed, shot, task] as evaluated.
    """
    trained, evaluated = simulator_name(trained, agent), simulator_name(settings.simulator, agent)
    if trained == evaluated:
        return None
    if not settings.simulator_shift:
        return SimulatorShift(trained, evaluated, None, None)
    if progress:
        progress(f"evaluating on the {trained} simulator, for the shift")
    elsewhere = replace(settings, simulator=trained, revisit=False)
    there = run_trials(agent, family, tasks, elsewhere, threads).returns
    rng = stream(settings.seeds[0], "simulator_shift/bootstrap")
    before, after = (
        task_interval((there - returns)[None, :, k], mean, settings.bootstrap_samples, rng) for k in (0, -1)
    )
    return SimulatorShift(trained, evaluated, before, after)
