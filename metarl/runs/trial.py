"""Trials: one way to act, adapt and act again, for training, evaluation and every agent."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
import torch

from metarl.agents import beliefs
from metarl.agents.agent import Agent, Belief, Rollout, Trial
from metarl.agents.storage import Storage
from metarl.agents.threads import single_torch_thread
from metarl.config import ResetMemory
from metarl.envs import mujoco_log
from metarl.envs.arrays import Array, none
from metarl.envs.batch import BatchedEnv
from metarl.envs.noise import normal
from metarl.envs.reveal import told
from metarl.envs.sharded import ShardedEnv
from metarl.envs.task import Task

AGENT = zlib.crc32(b"agent")
"""Key of the agent's own draws in a task's stream of randomness."""
LIVES = zlib.crc32(b"lives")
"""Key of the starts of an episode's later lives there."""
EXPLORING = zlib.crc32(b"exploring")
"""Key of the starts and the action noise of episodes that are played to adapt from, and not judged."""
_compiling = threading.Lock()
"""Held while a shard compiles the models of another visit: one shard at a time."""


def stream(seed: int, name: str, *indices: int) -> np.random.Generator:
    """Return the generator of a named use of randomness.

    It follows from its arguments alone, so a run that is resumed, or shared among machines, draws the same numbers.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()), *indices)))


def torch_stream(seed: int, name: str, *indices: int) -> torch.Generator:
    """Return the torch generator of a named use of randomness, on the CPU; see `stream`."""
    return torch.Generator().manual_seed(int(stream(seed, name, *indices).integers(2**63)))


def streams(seed: int, name: str, iteration: int, tasks: int | Iterable[int]) -> list[np.random.Generator]:
    """Return one generator a task, each by the task's global index; tasks: these indices, or their number from 0 on."""
    return [stream(seed, name, iteration, m) for m in (range(tasks) if isinstance(tasks, int) else tasks)]


def beside(rng: np.random.Generator, use: int, shots: int) -> np.random.SeedSequence:
    """Return the seeds of a use after a number of shots; they follow from a task's stream, and take nothing from it."""
    stem: Any = rng.bit_generator.seed_seq
    return np.random.SeedSequence(stem.entropy, spawn_key=(*stem.spawn_key, use, shots))


class AgentGenerators(Sequence[torch.Generator]):
    """Generators of an agent's own draws, one a task, as `Agent.begin` and `Agent.adapt` are given them.

    They follow from the task's stream and the number of shots so far, and take nothing from the stream: an agent that
    draws leaves starts and action noise as they are. Each is made when it is first asked for.
    """

    def __init__(self, rngs: Sequence[np.random.Generator], shots: int) -> None:
        """rngs: one generator a task. shots: number of shots so far."""
        self._rngs, self._shots = rngs, shots
        self._made: dict[int, torch.Generator] = {}

    def __len__(self) -> int:
        return len(self._rngs)

    @overload
    def __getitem__(self, index: int) -> torch.Generator: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[torch.Generator]: ...
    def __getitem__(self, index: int | slice) -> torch.Generator | Sequence[torch.Generator]:
        tasks = range(len(self))[index]
        if isinstance(tasks, range):
            return [self[task] for task in tasks]
        if tasks not in self._made:
            seed = beside(self._rngs[tasks], AGENT, self._shots)
            self._made[tasks] = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
        return self._made[tasks]


@dataclass(frozen=True)
class Disturbance:
    """A disturbance of what the agent observes, in an evaluation of how robust it is."""

    observation_std: np.ndarray | None = None
    """[obs], standard deviation of normal noise on each element of the observation; None: no noise."""
    reward_scale: float = 1.0
    """Factor on the rewards that the agent observes."""

    def observe(self, env: BatchedEnv, observation: Array, rngs: Sequence[np.random.Generator]) -> Array:
        """Return observations [M, N, obs] as the agent sees them; rngs: one generator a task."""
        noise = self.noise(env, rngs)
        return observation if noise is None else observation + noise

    def noise(self, env: BatchedEnv, rngs: Sequence[np.random.Generator]) -> Array | None:
        """Return the noise [M, N, obs] of one step; None if there is none. rngs: one generator a task."""
        if self.observation_std is None:
            return None
        shape = env.envs_per_task, env.family.observation_size
        noise = np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in rngs])
        return env.simulation.array((noise * self.observation_std).astype(np.float32))


UNDISTURBED = Disturbance()
NOISE_AHEAD = 32
"""Number of steps whose noise a device draws at once."""


class LifeRngs:
    """Generators of the starts of an episode's later lives, one for each env, made when it first falls.

    Like `AgentGenerators` they take nothing from the tasks' streams.
    """

    def __init__(self, rngs: Sequence[np.random.Generator], envs_per_task: int, shots: int) -> None:
        """rngs: one generator a task. shots: number of shots so far."""
        self._seeds = [seed for rng in rngs for seed in beside(rng, LIVES, shots).spawn(envs_per_task)]
        self._made: dict[int, np.random.Generator] = {}

    def __call__(self, env: int) -> np.random.Generator:
        """Return the generator of an env by its place m N + n."""
        if env not in self._made:
            self._made[env] = np.random.default_rng(self._seeds[env])
        return self._made[env]


class Shot(NamedTuple):
    """A collected shot."""

    rollout: Rollout
    """Data as the agent saw it."""
    belief: Belief
    """Belief after the last action, before adaptation."""
    reward_terms: dict[str, np.ndarray]
    """[M, N], each weighted reward term summed over the episode, by name; NaN where the simulation broke down."""
    measures: dict[str, np.ndarray]
    """[M, N], each measure of the episode, by name; NaN there too. Empty unless the env is measuring."""
    returns: np.ndarray
    """[M, N] float32, returns of the undisturbed rewards; NaN there too."""
    so_far: dict[str, np.ndarray]
    """[marks, M, N], each measure of the episode up to a mark, by name; NaN there too. See `collect`."""


@torch.no_grad()
def collect(
    env: BatchedEnv,
    agent: Agent,
    belief: Belief,
    rngs: Sequence[np.random.Generator],
    explore: bool = True,
    stop: threading.Event | None = None,
    disturbance: Disturbance = UNDISTURBED,
    begun: Belief | None = None,
    lives: bool = False,
    shots: int = 0,
    marks: Sequence[int] = (),
    again: bool = False,
) -> Shot:
    """Play one episode in every env. rngs: one generator a task, for the starts and the action noise.

    The starts and the action noise are the same with a disturbance and without, and later shots start alike whether or
    not the policy explores.

    stop: ends the shot at the next step once it is set; the result is then of no use. begun: belief about the tasks of
    which nothing is known, for an agent that forgets before every action (`Agent.forget`); None: it remembers.
    lives: whether a robot that falls is placed anew, see `training.lives`. shots: number of shots so far. marks:
    control steps, in ascending order, after which the measures of the episode so far are kept. again: whether it is the
    episode before, once more, in which the tasks change when they did.
    """
    horizon, m, n = env.family.horizon, env.num_tasks, env.envs_per_task
    xp, host = env.simulation.xp, env.simulation.host
    noise_rngs = [] if disturbance.observation_std is None else [rng.spawn(1)[0] for rng in rngs]
    observation = disturbance.observe(env, env.reset(rngs, again=again), noise_rngs)

    told = env.privileged.shape[-1]  # 0 but in the training of an informed agent
    lives = lives and env.family.can_fall
    fields = Rollout.fields(env.family.observation_size, env.family.action_size, told, lives)
    storage = Storage(horizon, (m, n), fields, tensor(observation).device)
    faulted = xp.zeros_like(env.active)
    placed_by = LifeRngs(rngs, n, shots) if lives else None
    noise = exploration(env, rngs)  # drawn even where it is not used: the next shot's starts come after it
    active, fallen = env.active, None
    kept: list[dict[str, np.ndarray]] = []
    for t in range(horizon):
        if none(active) or (stop is not None and stop.is_set()):
            break
        belief = belief if begun is None else agent.forget(belief, begun)
        if told:
            storage.write(t, privileged=env.privileged)
            belief = agent.inform(belief, storage["privileged"][t])
        action, belief = agent.act(belief, tensor(observation), noise(t) if explore else None)
        storage.write(t, valid=active, observations=observation, actions=action)
        taken = storage["actions"][t]
        step = env.step(taken.numpy() if xp is np else taken)
        storage.write(t, rewards=step.rewards, terminated=step.terminated, truncated=step.truncated)
        faulted |= step.faulted
        if t + 1 in marks:
            kept.append(env.measures)
        observation, blur = step.observations, disturbance.noise(env, noise_rngs)
        if placed_by is not None:
            storage.write(t, next_observations=observation if blur is None else observation + blur)
            fallen = env.revive(placed_by)
            observation = observation if fallen is None else env.observations
        observation = observation if blur is None else observation + blur
        active = env.active
        shown = step.rewards * np.float32(disturbance.reward_scale)
        belief = agent.observe(belief, tensor(shown), tensor(~active))
        belief = belief if fallen is None else agent.revive(belief, tensor(fallen))
    env.verify()
    for name in storage.tensors.keys() - {"terminated", "truncated"}:  # a weight of 0 would not stop an infinity
        storage[name][:, tensor(faulted)] = 0
    rollout = Rollout(**storage.tensors, final_observations=tensor(xp.asarray(observation, copy=True)))
    returns = rollout.episode_returns().cpu().numpy()
    rollout.rewards *= disturbance.reward_scale
    flagged = host(faulted)
    terms = {name: np.where(flagged, np.nan, sums.reshape(m, n)) for name, sums in env.term_sums.items()}
    measures = {name: np.where(flagged, np.nan, values) for name, values in env.measures.items()}
    kept += [measures] * (len(marks) - len(kept))  # marks after the end of every episode
    so_far = {name: np.where(flagged, np.nan, [mark[name] for mark in kept]) for name in (measures if marks else ())}
    return Shot(rollout, belief, terms, measures, returns, so_far)


def tensor(array: Array) -> torch.Tensor:
    """Return an env's array as a tensor that shares its memory."""
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else array


def exploration(env: BatchedEnv, rngs: Sequence[np.random.Generator]) -> Callable[[int], torch.Tensor]:
    """Return a function from the step to its standard normal noise [M, N, act]; rngs: one generator a task.

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
    """A trial, and the results of its shots."""

    trial: Trial
    """Shots, beliefs and tasks."""
    belief: Belief
    """Belief at the end of the trial."""
    reward_terms: list[dict[str, np.ndarray]]
    """Reward terms of each shot, see `Shot`."""
    measures: list[dict[str, np.ndarray]]
    """Measures of each shot."""
    returns: list[np.ndarray]
    """Returns of each shot."""
    so_far: Sequence[dict[str, np.ndarray]] = ()
    """Measures of each shot up to each mark."""


def run_trial(
    env: ShardedEnv,
    agent: Agent,
    rngs: Sequence[np.random.Generator],
    adaptations: int,
    explore: bool = True,
    disturbance: Disturbance = UNDISTURBED,
    reset_memory: ResetMemory = "never",
    lives: bool = False,
    visits: Sequence[Sequence[Task]] = (),
    marks: Sequence[int] = (),
    explore_to_adapt: bool = False,
) -> TrialResult:
    """Play adaptations + 1 shots on the env's tasks, and adapt the belief between them.

    visits: further tasks of each place, [visit][M], of the same layout as the env's own. The trial goes on with as many
    shots on each visit, with the belief kept and adapted between visits too; the agent is not told. The result has the
    shots of all visits, one visit after another, and the env keeps the tasks of the last one.

    Where the simulator allows it, shards run their whole trials at the same time, each in a thread of its own, with
    torch on one thread.

    rngs: one generator a task, for the starts and the action noise; the agent's own draws follow from its seed, see
    `AgentGenerators`. reset_memory: as in `EvaluationSettings`; an agent that forgets before every episode is not
    adapted, and its shots are otherwise played alike. lives: as in `EvaluationSettings`.
    marks: as in `collect`. explore_to_adapt: as in `EvaluationSettings`; the shots returned are those without noise.
    """
    stop, dealt = threading.Event(), [env.deal(tasks) for tasks in visits]
    settings = (adaptations, explore, stop, disturbance, reset_memory, lives, marks, explore_to_adapt)

    def work(shard: BatchedEnv, own: Sequence[np.random.Generator], visits: Sequence[Sequence[Task]]) -> TrialResult:
        return _shard_trial(shard, agent, own, visits, *settings)

    further = [[of_shards[i] for of_shards in dealt] for i in range(len(env.shards))]
    jobs = list(zip(env.shards, env.deal(rngs), further, strict=True))
    with single_torch_thread(), mujoco_log.silent():
        parts = [work(*job) for job in jobs] if env.workers == 1 else _at_once(work, jobs, env.workers, stop)
    if len(parts) == 1:
        return parts[0]
    trials, order = [part.trial for part in parts], torch.from_numpy(env.order)
    rollouts = [Rollout.join(shards, order) for shards in zip(*(trial.rollouts for trial in trials), strict=True)]
    started = [beliefs.join(shards, order) for shards in zip(*(trial.beliefs for trial in trials), strict=True)]

    def joined(of_shards: Iterable[Sequence[dict[str, np.ndarray]]], axis: int = 0) -> list[dict[str, np.ndarray]]:
        return [
            {name: np.concatenate([shot[name] for shot in shards], axis).take(env.order, axis) for name in shards[0]}
            for shards in zip(*of_shards, strict=True)
        ]

    return TrialResult(
        _trial(env, rollouts, started),
        beliefs.join([part.belief for part in parts], order),
        joined(part.reward_terms for part in parts),
        joined(part.measures for part in parts),
        [np.concatenate(shards)[env.order] for shards in zip(*(part.returns for part in parts), strict=True)],
        joined((part.so_far for part in parts), axis=1),
    )


def _at_once(
    work: Callable[..., TrialResult], jobs: Sequence[tuple[Any, ...]], workers: int, stop: threading.Event
) -> list[TrialResult]:
    """Return the result of each job, done in threads; stop is set when one has failed, or at an interrupt."""
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
    visits: Sequence[Sequence[Task]],
    adaptations: int,
    explore: bool,
    stop: threading.Event,
    disturbance: Disturbance,
    reset_memory: ResetMemory,
    lives: bool,
    marks: Sequence[int],
    explore_to_adapt: bool,
) -> TrialResult:
    def begin(shots: int) -> Belief:
        return agent.begin(env.num_tasks, env.envs_per_task, AgentGenerators(rngs, shots))

    belief = begin(0)
    trial = _trial(env, [], [])
    shots: list[Shot] = []
    last = (adaptations + 1) * (len(visits) + 1) - 1
    for k in range(last + 1):
        visit, shot_of_visit = divmod(k, adaptations + 1)
        if visit and shot_of_visit == 0:
            with _compiling:
                env.set_tasks(visits[visit - 1])
        trial.beliefs.append(belief)
        begun = belief if reset_memory == "step" else None
        shot = collect(env, agent, belief, rngs, explore, stop, disturbance, begun, lives, k, marks)
        trial.rollouts.append(shot.rollout)
        shots.append(shot)
        belief = shot.belief
        if k < last and reset_memory == "never":
            if explore_to_adapt and not explore:
                apart = [np.random.default_rng(beside(rng, EXPLORING, k)) for rng in rngs]
                shot = collect(
                    env, agent, trial.beliefs[-1], apart, True, stop, disturbance, None, lives, k, again=True
                )
            belief = agent.adapt(shot.belief, shot.rollout, AgentGenerators(rngs, k + 1))
        elif k < last:
            belief = begin(k + 1)
    parts = ([getattr(shot, name) for shot in shots] for name in ("reward_terms", "measures", "returns", "so_far"))
    return TrialResult(trial, belief, *parts)


def _trial(env: ShardedEnv | BatchedEnv, rollouts: list[Rollout], started: list[Belief]) -> Trial:
    """Return the trial on an env's tasks; started: the belief that each shot started from."""
    return Trial(rollouts, started, tuple(env.tasks), torch.from_numpy(told(env.family, env.tasks)))
