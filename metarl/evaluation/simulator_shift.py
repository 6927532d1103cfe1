"""How much the returns of an agent differ between the simulator that it was trained on and another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from metarl.agents.agent import Agent
from metarl.config import EvaluationSettings
from metarl.envs.family import TaskFamily
from metarl.envs.task import Task
from metarl.evaluation.outcomes import run_trials
from metarl.evaluation.statistics import Array, Interval, mean, task_interval
from metarl.files import plain
from metarl.runs.simulators import simulator_name
from metarl.runs.trial import stream


@dataclass(frozen=True)
class SimulatorShift:
    """Returns on the trained simulator - returns on the evaluated one, on the same tasks.

    The first round's starts are the same; the agent's noise differs between the two, and so do later starts.
    """

    trained: str
    """Simulator of training: cpu or gpu."""
    evaluated: str
    before: Interval | None
    """Mean over tasks, before adaptation; None if it was not measured."""
    after: Interval | None
    """The same after the last round."""

    @property
    def note(self) -> str:
        """What a reader must know."""
        where = f"trained on the {self.trained} simulator and evaluated on the {self.evaluated} one"
        if self.before is None or self.after is None:
            return (
                f"{where}, which simulates contacts a little differently; evaluation.simulator_shift=true measures it"
            )
        parts = [
            f"{interval.estimate:+.4g} [{interval.low:.4g}, {interval.high:.4g}] {when}"
            for interval, when in ((self.before, "before adaptation"), (self.after, "after the last round"))
        ]
        return f"{where}: on the former, the return on the same tasks differs by {' and '.join(parts)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON; NaN is None."""
        return plain(asdict(self))


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
    """The shift to what was evaluated; None where both simulators are the same.

    trained: the simulator setting of the agent's training. returns: [seed, shot, task] as evaluated.
    """
    trained, evaluated = simulator_name(trained, agent), simulator_name(settings.simulator, agent)
    if trained == evaluated:
        return None
    if not settings.simulator_shift:
        return SimulatorShift(trained, evaluated, None, None)
    if progress:
        progress(f"evaluating on the {trained} simulator, for the shift")
    there = run_trials(agent, family, tasks, replace(settings, simulator=trained), threads).returns
    rng = stream(settings.seeds[0], "simulator_shift/bootstrap")
    before, after = (
        task_interval((there - returns)[None, :, k], mean, settings.bootstrap_samples, rng) for k in (0, -1)
    )
    return SimulatorShift(trained, evaluated, before, after)
