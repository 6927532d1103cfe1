"""A check of the tasks that a file declares, before training: episodes at the ends of each parameter's range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from metarl.envs import mujoco_log
from metarl.envs.batch import BatchedEnv
from metarl.envs.declared.ends import Ends
from metarl.envs.family import TaskFamily
from metarl.envs.parameters import Choice, Parameter
from metarl.envs.sharded import ShardedEnv
from metarl.envs.state import in_pose
from metarl.envs.task import Task

SECONDS = 1.0
"""Length of the start of an episode that is simulated, with each kind of action."""
EPISODES = 2
"""Episodes of each task, with each kind of action."""
MOST = 12
"""Number of parameters up to which each is tried at the ends of its range."""
DRAWN = 8
"""Number of tasks that are drawn besides."""
NEUTRAL = 8
"""Number of episodes of the neutral robot that are to last."""

Fate = Literal["breaks", "ends"]


@dataclass(frozen=True)
class Amiss:
    """A task in which something goes wrong that does not with the neutral robot."""

    task: Task
    parameter: Parameter | None
    """The parameter that alone differs from neutral; None: the task was drawn."""
    fate: Fate
    """breaks: the simulation becomes unstable, with action 0 or random ones; ends: the episode ends, with action 0."""
    after: float
    """Time into the episode, s."""


@dataclass(frozen=True)
class Ended:
    """Episodes of the neutral robot that end for good with action 0."""

    count: int
    """Of `NEUTRAL` episodes."""
    after: float
    """Time into the first to end, s."""
    bounds: tuple[str, ...]
    """Keys of `termination` whose bounds it leaves."""
    touching: tuple[str, ...]
    """What of it must touch nothing and does: geom on geom."""


@mujoco_log.silent()
def neutral_end(family: TaskFamily, seed: int = 0) -> Ended | None:
    """Simulate the starts of episodes of the neutral robot with action 0; None if none ends for good."""
    env = BatchedEnv(family, 1, NEUTRAL, 1)
    env.reset([np.random.default_rng(seed)])
    after, first, ended = np.inf, 0, np.zeros(NEUTRAL, bool)
    for step in range(1, _steps(family) + 1):
        terminated = env.step(np.zeros((1, NEUTRAL, family.action_size))).terminated[0]
        if terminated.any() and not ended.any():
            after, first = step * family.dt, int(terminated.argmax())
        ended |= terminated
    if not ended.any():
        return None
    return Ended(int(ended.sum()), after, *_left(family, env.simulation.bind("qpos")[first]))


def _left(family: TaskFamily, qpos: np.ndarray) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the bounds that are left in a state, and the geoms that must touch nothing, each with what it touches.

    What a function of the user's own says is not asked again: it is named where no other bound is left.
    """
    if not isinstance(ends := family.terminate, Ends):
        return (), ()
    model = family.compile(family.neutral())
    data, state = in_pose(model, qpos)
    left = tuple(key for key, bound in ends.bounds.items() if key != "function" and bound(state)[0])
    pairs = [tuple(map(int, contact.geom)) for contact in data.contact]
    touching = [
        f"{model.geom(own).name} on {model.geom(other).name}"
        for pair in pairs
        for own, other in (pair, pair[::-1])
        if {model.geom(own).name, model.body(int(model.geom_bodyid[own])).name} & {*ends.bodies}
    ]
    function = ("function",) if "function" in ends.bounds else ()
    return left or function, tuple(dict.fromkeys(touching)) if "contact" in left else ()


def check_tasks(family: TaskFamily, seed: int = 0) -> tuple[int, list[Amiss]]:
    """Simulate the starts of episodes of the neutral task, of both ends of each range and of some tasks drawn.

    Returns the number of tasks besides the neutral one, and those in which something goes wrong: first the ends of
    ranges, then the tasks drawn, each in order. Nothing is if it goes wrong with the neutral robot too.
    """
    cases = _cases(family, seed)
    tasks = [family.neutral(), *(task for task, _ in cases)]
    rng = np.random.default_rng(seed)
    shape = (_steps(family), len(tasks), EPISODES, family.action_size)
    with mujoco_log.silent():
        still = _fates(family, tasks, np.zeros(shape), seed)
        moving = _fates(family, tasks, rng.uniform(-1.0, 1.0, shape), seed)
    breaks = np.minimum(still["breaks"], moving["breaks"])
    found: list[Amiss] = []
    fates: dict[Fate, np.ndarray] = {"breaks": breaks, "ends": still["ends"]}
    for fate, times in fates.items():
        if np.isinf(times[0]):
            found += [Amiss(*case, fate, float(t)) for case, t in zip(cases, times[1:], strict=True) if np.isfinite(t)]
    return len(cases), sorted(found, key=lambda amiss: (amiss.parameter is None, tasks.index(amiss.task)))


def _steps(family: TaskFamily) -> int:
    """Return the control steps of a start."""
    return min(family.horizon, max(1, round(SECONDS / family.dt)))


def _cases(family: TaskFamily, seed: int) -> list[tuple[Task, Parameter | None]]:
    """Return tasks, each with the parameter that alone differs from neutral."""
    cases: list[tuple[Task, Parameter | None]] = []
    if len(family.parameters) <= MOST:
        for p in family.parameters:
            ends = p.distribution.values if isinstance(p.distribution, Choice) else (p.distribution.low, _top(p))
            cases += [(family.task({p.name: value}), p) for value in dict.fromkeys(ends) if value != p.neutral]
    cases += [(task, None) for task in family.sample(DRAWN, np.random.default_rng(seed))]
    return cases


def _top(parameter: Parameter) -> float:
    """Return the largest value that is drawn: a range includes its lower end only."""
    return parameter.distribution.quantile(1 - 1e-9)


def _fates(family: TaskFamily, tasks: Sequence[Task], actions: np.ndarray, seed: int) -> dict[Fate, np.ndarray]:
    """Return the time at which each task's simulation breaks, and that at which its episode ends for good, [M] s.

    Infinite where it does not. actions: [steps, M, N, act].
    """
    env = ShardedEnv(family, len(tasks), EPISODES, 1)
    env.set_tasks(tasks)
    env.reset([np.random.default_rng(seed) for _ in tasks])
    breaks, ends = np.full(len(tasks), np.inf), np.full(len(tasks), np.inf)
    for step, action in enumerate(actions, start=1):
        result = env.step(action)
        for times, happened in ((breaks, result.faulted), (ends, result.terminated)):
            times[happened.any(1)] = np.minimum(times[happened.any(1)], step * family.dt)
    return {"breaks": breaks, "ends": ends}
