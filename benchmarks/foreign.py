"""Steps of somebody's own Gymnasium environment as a family, against the same environments in a vector env alone.

`python -m benchmarks.foreign` prints a JSON line for each comparison. It is a program of its own: the processes of the
environments import the program that starts them, and this one imports no torch.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median

import gymnasium
import numpy as np

from benchmarks import foreign_envs
from metarl.envs.batch import BatchedEnv
from metarl.envs.foreign.settings import EnvSettings
from metarl.envs.registry import make_family

CHUNK, ROUNDS = 5, 15
"""Steps that each of two takes in turn, and number of episodes."""


@dataclass(frozen=True)
class Comparison:
    """A family's environments, and the vector env that they are held against."""

    name: str
    env: str
    """Function of `foreign_envs`; its environments are made by make_<env>."""
    processes: int
    """Of the family: 1, 0 (one a core), or -1 (one an env)."""
    context: str
    """How the vector env starts its processes, one an env; empty: it has none."""
    count: int
    """Number of environments, one a task."""
    bar: float
    """Most that our time may be of the vector env's."""


COMPARISONS = (
    Comparison("HalfCheetah, one process", "cheetah", 1, "", 40, 1.10),
    Comparison("HalfCheetah, a process an env", "cheetah", -1, "forkserver", 16, 1.10),
    Comparison("HalfCheetah, a process an env / forked", "cheetah", -1, "fork", 16, 1.10),
    Comparison("HalfCheetah, a process a core / a forked one an env", "cheetah", 0, "fork", 40, 1.10),
    Comparison("Fetch's reach, one process", "reach", 1, "", 8, 1.10),
    Comparison("Fetch's reach, a process an env", "reach", -1, "forkserver", 8, 1.10),
)


def ratios(comparison: Comparison) -> list[float]:
    """Return our time of an episode, its reset too, over that of the vector env, in each round; they take turns."""
    count = comparison.count
    source = f"{foreign_envs.__file__}:{comparison.env}"
    ours = BatchedEnv(make_family(EnvSettings(source, processes=comparison.processes)), count, 1, measuring=True)
    makers = [getattr(foreign_envs, f"make_{comparison.env}")] * count
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = (
            gymnasium.vector.AsyncVectorEnv(makers, context=comparison.context)
            if comparison.context
            else gymnasium.vector.SyncVectorEnv(makers)
        )
    size = ours.family.action_size
    actions = np.random.default_rng(0).uniform(-1, 1, (foreign_envs.STEPS, count, 1, size)).astype(np.float32)
    found = []
    for _ in range(ROUNDS):
        rngs = [np.random.default_rng(m) for m in range(count)]
        own = seconds(lambda rngs=rngs: ours.reset(rngs))
        alone = seconds(lambda: theirs.reset(seed=0))
        for chunk in np.split(actions, foreign_envs.STEPS // CHUNK):
            own += seconds(lambda chunk=chunk: [ours.step(action) for action in chunk])
            alone += seconds(lambda chunk=chunk: [theirs.step(action[:, 0]) for action in chunk])
        found.append(own / alone)
    theirs.close()
    return found[1:]  # the first has made our environments


def seconds(work: Callable[[], object]) -> float:
    """Return the time that a piece of work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    for comparison in COMPARISONS:
        rounds = ratios(comparison)
        print(json.dumps({**asdict(comparison), "median": median(rounds), "rounds": rounds}), flush=True)


if __name__ == "__main__":
    main()
