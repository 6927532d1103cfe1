"""Trials: one way to act, adapt and act again, for training, evaluation and every agent."""

from __future__ import annotations

import contextlib
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from metarl.agents.agent import Agent, Belief, Rollout, Trial
from metarl.agents.storage import Storage
from metarl.envs.arrays import Array
from metarl.envs.batch import BatchedEnv
from metarl.envs.noise import normal
from metarl.envs.sharded import ShardedEnv


def stream(seed: int, name: str, *indices: int) -> np.random.Generator:
    """The generator of a named use of randomness.

    It follows from its arguments alone, so a run that is resumed, or shared among machines, draws the same numbers.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()), *indices)))


def torch_stream(seed: int, name: str, *indices: int) -> torch.Generator:
    """`stream` for torch, on the CPU."""
    return torch.Generator().manual_seed(int(stream(seed, name, *indices).integers(2**63)))


def streams(seed: int, name: str, iteration: int, tasks: int | Iterable[int]) -> list[np.random.Generator]:
    """One generator a task, each by the task's global index. tasks: these indices, or how many there are from 0."""
    return [stream(seed, name, iteration, m) for m in (range(tasks) if isinstance(tasks, int) else tasks)]


@contextlib.contextmanager
def single_torch_thread() -> Iterator[None]:
    """Torch on one thread while simulations step: two pools that spin on the same cores fight."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Disturbance:
    """What stands between the world and the agent, in an evaluation that asks what the agent bears."""

    observation_std: np.ndarray | None = None
    """[obs] of the normal noise on each element of what is observed; None: none."""
    reward_scale: float = 1.0
    """Factor on the rewards that the agent is shown."""

    def observe(self, env: BatchedEnv, observation: Array, rngs: Sequence[np.random.Generator]) -> Array:
        """Observations [M, N, obs] as the agent sees them. rngs: one generator a task."""
        if self.observation_std is None:
            return observation
        noise = np.stack([rng.standard_normal(observation.shape[1:], dtype=np.float32) for rng in rngs])
        return observation + env.simulation.array((noise * self.observation_std).astype(np.float32))


UNDISTURBED = Disturbance()
NOISE_AHEAD = 32
"""Steps whose noise a device draws at once."""


class Shot(NamedTuple):
    """A collected shot."""

    rollout: Rollout
    """As the agent saw it."""
    belief: Belief
    """After the last action, before adaptation."""
    reward_terms: dict[str, np.ndarray]
    """[M, N] each weighted reward term summed over the episode, by name; NaN where MuJoCo flagged the simulation."""
    measures: dict[str, np.ndarray]
    """[M, N] each measure of the episode, by name; NaN there too. Empty unless the env is measuring."""
    returns: np.ndarray
    """[M, N] float32, of the rewards as they are; NaN there too."""


@torch.no_grad()
def collect(
    env: BatchedEnv,
    agent: Agent,
    belief: Belief,
    rngs: Sequence[np.random.Generator],
    explore: bool = True,
    stop: threading.Event | None = None,
    disturbance: Disturbance = UNDISTURBED,
) -> Shot:
    """One episode in every env. rngs: one generator a task, for the starts and the action noise.

    Disturbed or not, the starts and the action noise are the same; with noise or without, later shots start alike.

    stop: ends the shot at the next step once it is set; what comes back is then of no use.
    """
    horizon, m, n = env.family.horizon, env.num_tasks, env.envs_per_task
    xp, host = env.simulation.xp, env.simulation.host
    noise_rngs = [] if disturbance.observation_std is None else [rng.spawn(1)[0] for rng in rngs]
    observation = disturbance.observe(env, env.reset(rngs), noise_rngs)

    fields = Rollout.fields(env.family.observation_size, env.family.action_size)
    storage = Storage(horizon, (m, n), fields, tensor(observation).device)
    faulted = xp.zeros_like(env.active)
    noise = exploration(env, rngs)  # drawn even where it is not used: the next shot's starts come after it
    for t in range(horizon):
        if env.over or (stop is not None and stop.is_set()):
            break
        storage.write(t, valid=env.active)
        action, belief = agent.act(belief, tensor(observation), noise(t) if explore else None)
        storage.write(t, observations=observation, actions=action)
        taken = storage["actions"][t]
        step = env.step(taken.numpy() if xp is np else taken)
        storage.write(t, rewards=step.rewards, terminated=step.terminated, truncated=step.truncated)
        faulted |= step.faulted
        observation = disturbance.observe(env, step.observations, noise_rngs)
        shown = step.rewards * np.float32(disturbance.reward_scale)
        belief = agent.observe(belief, tensor(shown), tensor(~env.active))
    env.verify()
    for name in ("valid", "observations", "actions", "rewards"):  # a weight of 0 would not stop an infinity
        storage[name][:, tensor(faulted)] = 0
    rollout = Rollout(**storage.tensors, final_observations=tensor(xp.asarray(observation, copy=True)))
    returns = rollout.episode_returns().cpu().numpy()
    rollout.rewards *= disturbance.reward_scale
    flagged = host(faulted)
    terms = {name: np.where(flagged, np.nan, sums.reshape(m, n)) for name, sums in env.term_sums.items()}
    measures = {name: np.where(flagged, np.nan, values) for name, values in env.measures.items()}
    return Shot(rollout, belief, terms, measures, returns)


def tensor(array: Array) -> torch.Tensor:
    """An array of an env as a tensor that shares its memory."""
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else array


def exploration(env: BatchedEnv, rngs: Sequence[np.random.Generator]) -> Callable[[int], torch.Tensor]:
    """The standard normal noise [M, N, act] of each step of a shot. rngs: one generator a task.

    On the CPU the generators draw it; on a device each draws keys, and the noise follows from key and step.
    """
    horizon, n, size = env.family.horizon, env.envs_per_task, env.family.action_size
    if env.simulation.xp is np:
        drawn = torch.from_numpy(
            np.stack([rng.standard_normal((horizon, n, size), dtype=np.float32) for rng in rngs], 1)
        )  # [T, M, N, act]
        return lambda t: drawn[t]
    keys = env.simulation.array(np.concatenate([rng.integers(2**64, size=n, dtype=np.uint64) for rng in rngs]))
    ahead: list[torch.Tensor] = []

    def at(t: int) -> torch.Tensor:
        if t % NOISE_AHEAD == 0:
            steps = env.simulation.array(np.repeat(np.arange(t, t + NOISE_AHEAD), len(keys)))
            drawn = normal(keys.repeat(NOISE_AHEAD), steps, 0, size)
            ahead[:] = drawn.reshape(NOISE_AHEAD, env.num_tasks, n, size)
        return ahead[t % NOISE_AHEAD]

    return at


class TrialResult(NamedTuple):
    """A trial, the belief it ended with, and what its shots' rewards were made of."""

    trial: Trial
    belief: Belief
    reward_terms: list[dict[str, np.ndarray]]
    """One a shot, see `Shot`; so are the others."""
    measures: list[dict[str, np.ndarray]]
    returns: list[np.ndarray]


def run_trial(
    env: ShardedEnv,
    agent: Agent,
    rngs: Sequence[np.random.Generator],
    adaptations: int,
    explore: bool = True,
    disturbance: Disturbance = UNDISTURBED,
) -> TrialResult:
    """adaptations + 1 shots on the env's tasks, the belief adapted between them. rngs: one generator a task.

    Shards run their whole trials at once, where the simulator says so, each in a thread of its own; torch is on one.
    """
    stop = threading.Event()

    def work(shard: BatchedEnv, own: Sequence[np.random.Generator]) -> TrialResult:
        return _shard_trial(shard, agent, own, adaptations, explore, stop, disturbance)

    jobs = list(zip(env.shards, env.deal(rngs), strict=True))
    with single_torch_thread():
        parts = [work(*job) for job in jobs] if env.workers == 1 else _at_once(work, jobs, env.workers, stop)
    if len(parts) == 1:
        return parts[0]
    trials, order = [part.trial for part in parts], torch.from_numpy(env.order)
    rollouts = [Rollout.join(shards, order) for shards in zip(*(trial.rollouts for trial in trials), strict=True)]
    beliefs = [agent.join(shards, order) for shards in zip(*(trial.beliefs for trial in trials), strict=True)]

    def joined(of_shards: Iterable[list[dict[str, np.ndarray]]]) -> list[dict[str, np.ndarray]]:
        return [
            {name: np.concatenate([shot[name] for shot in shards])[env.order] for name in shards[0]}
            for shards in zip(*of_shards, strict=True)
        ]

    return TrialResult(
        Trial(rollouts, beliefs),
        agent.join([part.belief for part in parts], order),
        joined(part.reward_terms for part in parts),
        joined(part.measures for part in parts),
        [np.concatenate(shards)[env.order] for shards in zip(*(part.returns for part in parts), strict=True)],
    )


def _at_once(
    work: Callable[..., TrialResult], jobs: Sequence[tuple[Any, ...]], workers: int, stop: threading.Event
) -> list[TrialResult]:
    """What the work makes of each job, in threads; stop is set when one has failed, or at an interrupt."""
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(work, *job) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
        return [future.result() for future in futures]


def _shard_trial(
    env: BatchedEnv,
    agent: Agent,
    rngs: Sequence[np.random.Generator],
    adaptations: int,
    explore: bool,
    stop: threading.Event,
    disturbance: Disturbance,
) -> TrialResult:
    belief = agent.begin(env.num_tasks, env.envs_per_task)
    trial = Trial([], [])
    shots: list[Shot] = []
    for k in range(adaptations + 1):
        trial.beliefs.append(belief)
        shot = collect(env, agent, belief, rngs, explore, stop, disturbance)
        trial.rollouts.append(shot.rollout)
        shots.append(shot)
        belief = agent.adapt(shot.belief, shot.rollout) if k < adaptations else shot.belief
    parts = ([getattr(shot, name) for shot in shots] for name in ("reward_terms", "measures", "returns"))
    return TrialResult(trial, belief, *parts)
