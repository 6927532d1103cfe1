"""The world that an agent is trained in: it sets the tasks of each iteration and records its outcome."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch

from metarl.agents.agent import Agent, Trial
from metarl.agents.arithmetic import matmul_precision, subnormals
from metarl.agents.learning import DeviceEnv, SlotMaker
from metarl.agents.ranks import ALONE, Ranks
from metarl.agents.threads import single_torch_thread
from metarl.envs.family import TaskFamily
from metarl.envs.mirror.images import symmetry_of
from metarl.envs.mirror.mirrored import closed, mirrored
from metarl.envs.reflection import Mirror
from metarl.envs.reveal import informed, privileged_names, reveal, told_as
from metarl.envs.simulation import CPU
from metarl.envs.task import Task
from metarl.errors import UsageError, usage_errors
from metarl.evaluation.outcomes import total_of_sound
from metarl.files import make_folder, write
from metarl.provenance import cores
from metarl.runs.checkpoint import OWN_FILES
from metarl.runs.run import Run, load_run
from metarl.runs.simulators import simulator_for
from metarl.runs.trial import stream, streams, torch_stream
from metarl.training.players import DevicePlayer, Player, Size, TrialPlayer, VecEnvPlayer

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

P = TypeVar("P", bound=Player)


class Outcome(NamedTuple):
    """The outcome of a training iteration over all processes. K shots, M tasks."""

    returns: np.ndarray
    """[K, M] mean return over the task's sound episodes; NaN where it has none."""
    terms: dict[str, float]
    """Each weighted reward term summed over an episode, by name: mean over the last shot."""
    env_steps: int
    """Env steps that were taken, without those of flagged simulations."""
    faults: int
    """Number of simulations that broke down."""
    overflows: int
    """Number of simulation steps of single robots without room for a contact, on the gpu simulator."""
    collect_s: float
    """Seconds of collecting data."""
    update_s: float
    """Seconds of everything else."""
    metrics: dict[str, float]
    """The agent's metrics by name."""


class TrainingWorld:
    """The world in which a run's agent learns: see `metarl.agents.learning.World`.

    Each process has its share of the tasks.
    """

    def __init__(self, run: Run, ranks: Ranks = ALONE) -> None:
        """UsageError if the simulator cannot be used, or not by this agent."""
        t = run.config.training
        self.run, self.ranks = run, ranks
        self.folder = run.directory / OWN_FILES
        self.own = ranks.own(t.tasks)
        """Indices of this process's tasks among all."""
        self._simulator = simulator_for(t.simulator, run.agent)
        self.on_device = self._simulator is not CPU
        threads = t.threads or ranks.share_of_cores(cores())
        self._size = Size(len(self.own), t.envs_per_task, t.adaptations + 1, threads, t.lives)
        self._players: list[Player] = []
        with usage_errors("training.mirror"):
            self._symmetry = symmetry_of(run.family) if t.mirror else None
        self._family = run.family if self._symmetry is None else closed(run.family, self._symmetry)
        self.mirror: Mirror | None = None
        """How training meets tasks in a mirror; None: it does not."""
        self._collect_s = 0.0
        with usage_errors("agent"):
            self._train = run.agent.trainer(self)

    def trials(self) -> Callable[[], Trial]:
        player = self._added(TrialPlayer(self._met(self._family), self._size, self._simulator, self.run.agent))

        def play() -> Trial:
            with self.collecting():
                return player.play()

        return play

    def vec_env(self, slots: SlotMaker | None = None) -> tuple[VecEnv, int]:
        if self.on_device:
            raise UsageError(
                f"training.simulator: {self.run.config.agent_name} steps its envs on the host, through "
                "Stable-Baselines3; use training.simulator=cpu, or an agent that learns from trials, such as rl2"
            )
        env = self._added(VecEnvPlayer(self._seen(), self._size, slots)).env
        return env, env.trial_steps

    def device_env(self) -> tuple[DeviceEnv, int]:
        if not self.on_device:
            raise UsageError(
                f"training.simulator: {self.run.config.agent_name} steps its envs on its device; use "
                "training.simulator=gpu"
            )
        with usage_errors("training.simulator"):
            env = self._added(DevicePlayer(self._seen(), self._size, self._simulator)).env
        return env, env.trial_steps

    def oracle(self, run: str) -> tuple[Agent, tuple[int, ...]]:
        own, teacher = self._family, load_run(run, device=str(self.run.agent.device))
        if not teacher.config.training.reveal_task:
            raise ValueError(f"teacher is {run}, which is no oracle: it was trained without training.reveal_task=true")
        if self._symmetry is not None and not teacher.config.training.mirror:
            raise ValueError(
                f"teacher is {run}, an oracle that met no task in a mirror, and this run does; train the oracle with "
                "training.mirror=true, or this run without"
            )
        theirs, names = teacher.family, reveal(own).observation_names
        if theirs.observation_names != names or told_as(theirs) != told_as(own) or theirs.name != own.name:
            raise ValueError(
                f"teacher is {run}, an oracle on {theirs.name} whose observations or parameters are not those of this "
                f"run's {own.name}; train an oracle with the same settings of the family"
            )
        privileged = privileged_names(own)
        return teacher.agent, tuple(privileged.index(name) for name in told_as(own))

    def _seen(self) -> TaskFamily:
        """Return the family as an agent observes it that steps its envs itself."""
        return self._met(informed(self._family) if self.run.agent.facts.informed else self._family)

    def _met(self, family: TaskFamily) -> TaskFamily:
        """Return the family as training meets it: in a mirror, too, if the run asks for that."""
        if self._symmetry is None:
            return family
        with usage_errors("training.mirror"):
            family = mirrored(family, self._symmetry)
        self.mirror = family.mirror
        return family

    def _added(self, player: P) -> P:
        self._players.append(player)
        return player

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            with subnormals(kept=True), contextlib.nullcontext() if self.on_device else single_torch_thread():
                yield
        finally:
            self._collect_s += time.perf_counter() - began

    def write(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        make_folder(self.folder, "--runs-dir")
        write(self.folder / name, parts)

    def iterate(self, tasks: Sequence[Task], key: int) -> Outcome:
        """Train the agent on these tasks of all processes. key: of the iteration's randomness."""
        before = self._counts()
        began, self._collect_s = time.perf_counter(), 0.0
        with self.collecting():
            self.begin(tasks, key)
        t = self.run.config.training
        with matmul_precision(t.matmul_precision), subnormals(kept=False):
            metrics = self._train(torch_stream(t.seed, "update", key))
        update_s = time.perf_counter() - began - self._collect_s
        records = [player.played() for player in self._players]
        counts = sum(record.env_steps for record in records), *np.subtract(self._counts(), before).tolist()
        terms, (steps, faults, overflows) = self._summed(records[0].terms, counts)
        returns = self._returns(records[0].returns)
        return Outcome(returns, terms, steps, faults, overflows, self._collect_s, update_s, metrics)

    def begin(self, tasks: Sequence[Task], key: int) -> None:
        """Set the tasks of an iteration. UsageError for tasks that the simulator cannot simulate."""
        seed = self.run.config.training.seed
        if self.run.config.training.mirror:
            sides = stream(seed, "mirror", key).random(len(tasks)) < 0.5
            tasks = [dataclasses.replace(task, mirrored=bool(side)) for task, side in zip(tasks, sides, strict=True)]
        for player in self._players:
            player.begin([tasks[m] for m in self.own], lambda name: streams(seed, name, key, self.own))

    def _counts(self) -> tuple[int, int]:
        """Return the faults and the overflows so far."""
        players = self._players
        return sum(player.num_faults for player in players), sum(player.num_overflows for player in players)

    def _returns(self, own: np.ndarray) -> np.ndarray:
        """Return the returns [K, M] of the tasks of all processes; each adds 0 to those of the others."""
        returns = torch.zeros(len(own), self.run.config.training.tasks, dtype=torch.from_numpy(own).dtype)
        returns[:, self.own.start : self.own.stop] = torch.from_numpy(own)
        return self.ranks.sum(returns).numpy()

    def _summed(self, terms: Mapping[str, np.ndarray], counts: Iterable[int]) -> tuple[dict[str, float], list[int]]:
        """Return the means of the reward terms over the sound episodes, and the counts, of all processes."""
        parts = [total_of_sound(sums) for sums in terms.values()]
        rows = [[float(total), float(count)] for total, count in parts] + [[float(count), 0.0] for count in counts]
        sums = self.ranks.sum(torch.tensor(rows, dtype=torch.float64)).tolist()
        means = [total / count if count else math.nan for total, count in sums[: len(parts)]]
        return dict(zip(terms, means, strict=True)), [int(count) for count, _ in sums[len(parts) :]]
