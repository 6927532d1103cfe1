"""Logged episodes: files with Minari's field names, checked against a policy, and adaptation from them."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.agents.agent import Agent, Belief, Reading, Rollout, Trial
from metarl.envs.arrays import Array
from metarl.envs.family import TaskFamily
from metarl.envs.strict_yaml import read_file
from metarl.envs.task import Task
from metarl.envs.text import shown
from metarl.errors import UsageError, describe
from metarl.files import make_folder, write
from metarl.runs.run import Run
from metarl.runs.trial import AgentGenerators
from metarl.wording import number_of

MINARI = "minari:"
"""Prefix of the name of a Minari dataset."""
NEEDED = ("observations", "actions", "rewards", "terminations", "truncations")
FIELDS = (*NEEDED, "dt", "names", "log_probabilities", "shot")
"""Of an episode, which are read; a file may hold others."""
MOST_BYTES = 2**27
"""Of a file, and of a field of it, unpacked: a thousand times an episode's."""
LOG_PROBABILITY_TOLERANCE = 1e-2
"""Between a log-probability in a file and the policy's own: a ratio of 1 %, far above float32's rounding."""
MOST_SHOTS = 10**6
"""Numbers of shots are below this."""
MOST_DEVIATIONS = 5.0
"""Of the actions' chi-square statistic before they are taken for another policy's: one log in a million is wronged."""


@dataclass(frozen=True)
class Episode:
    """A logged episode of T steps that fits the policy."""

    source: str
    """The file, in messages."""
    observations: Array
    """[T + 1, obs] float32."""
    actions: Array
    """[T, act] float32, as the policy gave them, before they are scaled and clipped: no commands of motors."""
    rewards: Array
    """[T] float32."""
    terminated: bool
    """Whether the last step ended the episode for good, in which case nothing is expected of what would have come;
    otherwise it was cut. Where a log says both of its last step, as Gymnasium's time limit does if it meets the end, it
    ended."""
    log_probabilities: Array | None = None
    """[T] float32 of the actions, by the policy that acted; None: not logged."""
    shot: int | None = None
    """Which shot it is of; None: not said."""


@dataclass(frozen=True)
class Adapted:
    """What came of logged shots."""

    belief: Belief
    shots: list[list[Episode]]
    """That were adapted from."""
    left: int
    """Shots that were there and were left."""


def save_episode(
    path: Path,
    observations: Array,
    actions: Array,
    rewards: Array,
    terminated: bool,
    family: TaskFamily,
    log_probabilities: Array | None = None,
    shot: int | None = None,
    task: Task | None = None,
) -> None:
    """Write an episode of T steps as `metarl adapt` reads it; fields as in `Episode`. RunError if the disk refuses."""
    flags = np.zeros((2, len(rewards)), dtype=bool)
    flags[0 if terminated else 1, -1] = True
    fields: dict[str, Any] = {
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        "terminations": flags[0],
        "truncations": flags[1],
        "dt": family.dt,
        "names": np.array(family.observation_names),
    }
    optional = {"log_probabilities": log_probabilities, "shot": shot, "task": None if task is None else task.to_json()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **fields, **{k: v for k, v in optional.items() if v is not None})
    make_folder(path.parent, "--log-rollouts")
    write(path, buffer.getvalue(), "--log-rollouts")


def save_trial(folder: Path, agent: Agent, family: TaskFamily, trial: Trial, tasks: Sequence[Task], seed: int) -> None:
    """Write the episodes of an evaluation's trial, one folder a robot: each is what `metarl adapt --rollouts` takes.

    A robot is a task, or one env of it where the agent adapts by what each env remembers. Episodes that MuJoCo flagged
    are left out.
    """
    readings = [agent.read(*shot) for shot in zip(trial.beliefs, trial.rollouts, strict=True)]
    apart = agent.facts.belief_per_env
    for k, (rollout, reading) in enumerate(zip(trial.rollouts, readings, strict=True)):
        log_probabilities = reading.log_probabilities.cpu().numpy()
        data = {name: tensor.cpu().numpy() for name, tensor in vars(rollout).items()}
        for m, n in np.argwhere(data["valid"].any(axis=0)):
            steps = int(data["valid"][:, m, n].sum())
            robot = f"seed{seed}_task{m:03d}{f'_env{n:03d}' if apart else ''}"
            save_episode(
                folder / robot / f"shot{k:02d}_episode{0 if apart else n:03d}.npz",
                np.concatenate([data["observations"][:steps, m, n], data["final_observations"][None, m, n]]),
                data["actions"][:steps, m, n],
                data["rewards"][:steps, m, n],
                bool(data["terminated"][steps - 1, m, n]),
                family,
                log_probabilities[:steps, m, n],
                k,
                tasks[m],
            )


def load_episodes(source: str, family: TaskFamily) -> list[Episode]:
    """The episodes in a folder of .npz files, by name, or in a Minari dataset (`minari:ID`, `minari:FOLDER`).

    UsageError names file, field and index of what does not fit the policy.
    """
    if source.startswith(MINARI):
        return _load_minari(source.removeprefix(MINARI), family)
    folder = Path(source)
    if not folder.is_dir():
        raise UsageError(
            f"--rollouts: {folder} is {'a file' if folder.exists() else 'no folder'}; name a folder of .npz"
        )
    files = sorted(folder.glob("*.npz"))
    if not files:
        below = sorted(path.parent for path in folder.glob("*/*.npz"))
        hint = f"; did you mean {below[0]}?" if below else "; log one file an episode there"
        raise UsageError(f"--rollouts: {folder} holds no .npz file{hint}")
    return [check_episode(_read(file), str(file), family) for file in files]


def _read(file: Path) -> dict[str, Array]:
    """The arrays of an .npz file that are fields of an episode; no pickle is ever loaded.

    What a stranger's file says of itself is compared with what is there before anything is made of it.
    """
    try:
        data = read_file(file, MOST_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{file} {error}") from error
    if data.startswith(np.lib.format.MAGIC_PREFIX):
        raise UsageError(f"{file} is a single array, no .npz archive of fields; write it by numpy.savez")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    except Exception as error:  # of a damaged archive anything
        if data and not data.startswith(b"PK"):
            said = "no .npz file, or a pickle, which is not read; write it by numpy.savez"
        else:
            said = f"cut short, damaged, or no .npz file ({describe(error)[:100]}); log it anew"
        raise UsageError(f"{file} is {said}") from error
    return {name: _field(archive, member, name, file) for name, member in members.items() if name in FIELDS}


def _field(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, file: Path) -> Array:
    """An array of an archive, of at most `MOST_BYTES`, and of as many numbers as its header says."""
    if member.flag_bits & 1:
        raise UsageError(f"{file}: {name} is encrypted; write it by numpy.savez")
    if member.file_size > MOST_BYTES:
        raise UsageError(
            f"{file}: {name} has {member.file_size:,} bytes unpacked; an episode has at most {MOST_BYTES:,}"
        )
    try:
        with archive.open(member) as stream:
            data = stream.read(MOST_BYTES + 1)
        stream = io.BytesIO(data)
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(stream)
    except Exception as error:  # of a damaged member anything
        raise UsageError(f"{file}: {name} is damaged ({describe(error)[:100]}); log it anew") from error
    if dtype.hasobject:
        raise UsageError(
            f"{file}: {name} is an array of Python objects, which only a pickle can hold, and a pickle can run code: "
            "save plain numbers of one shape"
        )
    sizes = all(type(size) is int and 0 <= size <= MOST_BYTES for size in shape)  # True is an int, and no size
    count, room = math.prod(shape), len(data) - stream.tell()
    fits = sizes and dtype.itemsize and count * dtype.itemsize == room
    if not fits:
        raise UsageError(
            f"{file}: {name} is damaged: its header says shape {shown(shape)} of {shown(str(dtype))}, it holds {room} "
            "bytes; log it anew"
        )
    values = np.frombuffer(data, dtype, count, stream.tell())
    return values.reshape(shape, order="F" if fortran else "C")


def _load_minari(name: str, family: TaskFamily) -> list[Episode]:
    try:
        import minari
    except ImportError:
        raise UsageError(f"{MINARI}{name} needs Minari: pip install 'metarl-robotics[minari]'") from None
    try:
        data = Path(name, "data") if Path(name, "data").is_dir() else Path(name)
        dataset = minari.MinariDataset(data) if data.is_dir() else minari.load_dataset(name)
        loaded = list(dataset.iterate_episodes())
    except Exception as error:  # of whichever library stores it, one of which may be missing
        raise UsageError(f"the Minari dataset {name!r} cannot be read: {describe(error)[:200]}") from error
    if not loaded:
        raise UsageError(f"the Minari dataset {name!r} holds no episode")
    return [check_episode(vars(episode), f"{MINARI}{name} episode {episode.id}", family, True) for episode in loaded]


def check_episode(fields: Mapping[str, Any], source: str, family: TaskFamily, unnamed: bool = False) -> Episode:
    """The episode in the fields; UsageError names source, field and index of what does not fit the family.

    unnamed: whether `dt` and `names` may be missing, as in a Minari dataset.
    """
    for name in NEEDED if unnamed else (*NEEDED, "dt", "names"):
        if name not in fields:
            raise UsageError(f"{source} lacks the field {name}; it has {', '.join(fields) or 'none'}")
    observation_names = family.observation_names
    action_names = [f"action {i}" for i in range(family.action_size)]
    rewards = _numbers(fields, "rewards", source, (None,))
    steps = len(rewards)
    if not 1 <= steps <= family.horizon:
        raise UsageError(
            f"{source}: rewards has {steps} steps; an episode of this policy has 1 to {family.horizon}, "
            "as in training: log one file an episode"
        )
    observations = _numbers(fields, "observations", source, (steps + 1, len(observation_names)), observation_names)
    actions = _numbers(fields, "actions", source, (steps, len(action_names)), action_names)
    ends = {name: _numbers(fields, name, source, (steps,)) for name in ("terminations", "truncations")}
    for name, flags in ends.items():
        early = np.flatnonzero(flags[:-1])
        if early.size:
            raise UsageError(
                f"{source}: {name}[{early[0]}] is true, and the episode has {steps} steps; log one file an episode"
            )
    if not (ends["terminations"][-1] or ends["truncations"][-1]):
        raise UsageError(
            f"{source}: the episode has no end, neither terminations[{steps - 1}] nor truncations[{steps - 1}] is "
            "true; set the latter if it was stopped, or log it to its end"
        )
    if "dt" in fields:
        _check_dt(_numbers(fields, "dt", source, ()), source, family)
    if "names" in fields:
        _check_names(_texts(fields["names"], source), source, observation_names)
    given = "log_probabilities" in fields
    return Episode(
        source,
        observations,
        actions,
        rewards,
        bool(ends["terminations"][-1]),
        _numbers(fields, "log_probabilities", source, (steps,)) if given else None,
        _shot(_numbers(fields, "shot", source, ()), source) if "shot" in fields else None,
    )


def _shot(number: Array, source: str) -> int:
    """The number of a shot; UsageError if it is none."""
    if not float(number).is_integer() or not 0 <= number < MOST_SHOTS:
        raise UsageError(f"{source}: shot is {float(number):g}; it must be a whole number from 0 on")
    return int(number)


def _texts(names: Any, source: str) -> list[str]:
    """The field `names` as text: also as bytes, as HDF5 and older NumPy write it."""
    values = np.atleast_1d(names)
    if values.ndim != 1 or values.dtype.kind not in "US":
        raise UsageError(f"{source}: names is {values.dtype} of shape {values.shape}; it must be a list of text")
    try:
        return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in values.tolist()]
    except UnicodeDecodeError as error:
        raise UsageError(f"{source}: names holds bytes that are no UTF-8 ({error.reason}); write it as text") from error


def _numbers(
    fields: Mapping[str, Any], name: str, source: str, shape: tuple[int | None, ...], channels: Sequence[str] = ()
) -> Array:
    """A field as finite float32 of a shape, of which None is any; channels: names of the last axis."""
    raw = fields[name]
    values = np.asarray(raw) if isinstance(raw, np.ndarray | list | float | int | bool | np.generic) else None
    if values is None or values.dtype.kind not in "biuf":
        kind = type(raw).__name__ if values is None else values.dtype
        raise UsageError(f"{source}: {name} is {kind}; it must be an array of numbers")
    fits = len(values.shape) == len(shape) and all(b in (None, a) for a, b in zip(values.shape, shape, strict=True))
    if not fits:
        wanted = ", ".join("T" if size is None else str(size) for size in shape) + ("," if len(shape) == 1 else "")
        raise UsageError(f"{source}: {name} has shape {values.shape}; it must be ({wanted}){_why(name, shape)}")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        which = f" ({channels[index[-1]]})" if channels else ""
        place = f"[{', '.join(map(str, index))}]" if index else ""
        raise UsageError(
            f"{source}: {name}{place}{which} is {values[index]}; it must be a finite number: leave out the episode, or "
            "cut it before that step"
        )
    return values


def _why(name: str, shape: tuple[int | None, ...]) -> str:
    if name == "observations":
        return f": the policy reads {shape[1]} channels, before each of the {shape[0]} - 1 steps and after the last"
    return f": the policy has {shape[1]} actions, and rewards has {shape[0]} steps" if name == "actions" else ""


def _check_dt(dt: Array, source: str, family: TaskFamily) -> None:
    if not math.isclose(float(dt), family.dt, rel_tol=1e-3):
        raise UsageError(
            f"{source}: dt is {float(dt):.6g} s, the policy was trained at {family.dt:.6g} s: log and run it "
            "at that rate"
        )


def _check_names(names: Sequence[str], source: str, expected: Sequence[str]) -> None:
    if len(names) != len(expected):
        raise UsageError(
            f"{source}: names has {len(names)} entries; the policy reads {len(expected)}: {shown(list(expected), 200)}"
        )
    for i, (name, ours) in enumerate(zip(names, expected, strict=True)):
        if name != ours:
            raise UsageError(
                f"{source}: names[{i}] is {shown(name)}, the policy reads {ours!r} there: log the channels in its order"
            )


def adapt(run: Run, episodes: Sequence[Episode], adaptations: int, off_policy: bool = False) -> Adapted:
    """The belief after at most so many shots; off_policy: whether anybody's actions are taken as they are.

    UsageError for episodes that make no shots, and for actions that are not the policy's own where that matters.
    """
    agent = run.agent
    if not agent.facts.adapts:
        raise UsageError("this agent does not adapt: it acts on every task as it was trained; use it without a belief")
    shots = group(episodes, agent)
    used = shots[:adaptations]
    rngs = [np.random.default_rng(0)]  # as `Run.start` draws unless it is told otherwise
    belief = agent.begin(1, len(shots[0]), AgentGenerators(rngs, 0))
    for k, shot in enumerate(used):
        rollout = assemble(shot, run.family)
        reading = agent.read(belief, rollout)
        if not off_policy:
            _check_commands(shot, reading, agent, belief, run.family)
        if agent.facts.needs_own_noise and not off_policy:
            check_on_policy(shot, reading, run.family.action_size, k)
        belief = agent.adapt(reading.belief, rollout, AgentGenerators(rngs, k + 1))
    return Adapted(belief, used, len(shots) - len(used))


def group(episodes: Sequence[Episode], agent: Agent) -> list[list[Episode]]:
    """Episodes by shot. Where none says its shot, all are one; of an agent that adapts by memory, each is one."""
    apart = agent.facts.belief_per_env
    silent = [episode for episode in episodes if episode.shot is None]
    if len(silent) == len(episodes):
        return [[episode] for episode in episodes] if apart else [list(episodes)]
    if silent:
        raise UsageError(f"{silent[0].source} lacks the field shot, which other episodes have; number all, or none")
    numbers = sorted({episode.shot for episode in episodes if episode.shot is not None})
    if numbers != list(range(len(numbers))):
        raise UsageError(
            f"{episodes[0].source} and those beside it are of the shots {numbers}; number them from 0 without a gap"
        )
    shots = [[episode for episode in episodes if episode.shot == k] for k in numbers]
    for shot in shots if apart else ():
        if len(shot) > 1:
            raise UsageError(
                f"{shot[1].source} is of shot {shot[1].shot}, as {shot[0].source} is; this agent adapts by what it "
                "remembers from one episode to the next: number every episode as a shot of its own"
            )
    return shots


def assemble(shot: Sequence[Episode], family: TaskFamily) -> Rollout:
    """Episodes as a rollout of one task, [horizon, 1, N, ...]."""
    steps, n = family.horizon, len(shot)
    observations = np.zeros((steps, 1, n, family.observation_size), dtype=np.float32)
    actions = np.zeros((steps, 1, n, family.action_size), dtype=np.float32)
    rewards = np.zeros((steps, 1, n), dtype=np.float32)
    terminated, truncated, valid = (np.zeros((steps, 1, n), dtype=bool) for _ in range(3))
    final = np.zeros((1, n, family.observation_size), dtype=np.float32)
    for i, episode in enumerate(shot):
        length = len(episode.rewards)
        observations[:length, 0, i], final[0, i] = episode.observations[:-1], episode.observations[-1]
        actions[:length, 0, i], rewards[:length, 0, i], valid[:length, 0, i] = episode.actions, episode.rewards, True
        (terminated if episode.terminated else truncated)[length - 1, 0, i] = True
    return Rollout(*map(torch.from_numpy, (observations, actions, rewards, terminated, truncated, valid, final)))


def check_on_policy(shot: Sequence[Episode], reading: Reading, action_size: int, k: int) -> None:
    """UsageError unless a shot's actions can be the policy's own.

    Where they were logged, the actions' log-probabilities must be the policy's. The actions must not be clipped, and
    vary as its noise does.
    """
    ours = reading.log_probabilities[:, 0].cpu().double().numpy()
    for i, episode in enumerate(shot):
        if episode.log_probabilities is None:
            continue
        difference = np.abs(episode.log_probabilities - ours[: len(episode.rewards), i])
        worst = int(difference.argmax())
        if difference[worst] > LOG_PROBABILITY_TOLERANCE:
            raise _off_policy(
                f"{episode.source}: log_probabilities[{worst}] is {episode.log_probabilities[worst]:.4g}, by the "
                f"policy after {number_of(k, 'adaptation')} it is {ours[worst, i]:.4g}"
            )
    _check_clipping(shot)
    total, count = _chi_square(shot, reading, action_size)
    if abs(deviations(total, count)) > MOST_DEVIATIONS:
        less = "less" if total < count else "more"
        raise _off_policy(
            f"{shot[0].source} and the episodes of its shot: the actions vary {less} about the policy's mean "
            f"after {number_of(k, 'adaptation')} than its noise does, (action - mean)^2 / std^2 is "
            f"{total / count:.3g} on average, not 1, over {count} numbers"
        )


def _chi_square(shot: Sequence[Episode], reading: Reading, action_size: int) -> tuple[float, int]:
    """(sum of z^2, count n) over a shot's action elements a = mu + sigma z: of n degrees of freedom if they are the
    policy's own. It follows from log pi(a) + H = (d - |z|^2) / 2 for d dimensions.
    """
    ours, entropies = (x[:, 0].cpu().double().numpy() for x in (reading.log_probabilities, reading.entropies))
    squares = [
        action_size - 2 * (ours[:length, i] + entropies[:length, i])
        for i, length in enumerate(len(episode.rewards) for episode in shot)
    ]
    return max(float(sum(map(np.sum, squares))), 0.0), action_size * sum(map(len, squares))


def _check_commands(
    shot: Sequence[Episode], reading: Reading, agent: Agent, belief: Belief, family: TaskFamily
) -> None:
    """UsageError if the actions are none of the policy's, but are if they were commands, or are cut as commands are."""
    control, scale, size = family.control, family.action_scale, family.action_size
    meant = [replace(e, actions=(e.actions - control.offset) / control.gain / scale) for e in shot]
    actions = np.concatenate([episode.actions for episode in shot])
    ends = [(bound / scale, control.of(bound)) for bound in (family.action_low, family.action_high)]
    cut = any(((actions == c.astype(np.float32)).sum(axis=0)[~np.isclose(c, a)] > 2).any() for a, c in ends)
    if cut or (
        _deviates(shot, reading, size) and not _deviates(shot, agent.read(belief, assemble(meant, family)), size)
    ):
        raise UsageError(
            f"{shot[0].source} and the episodes of its shot: the actions are commands, control signals of the motors; "
            "log what act() returned, not what command() made of it, or insist by --off-policy"
        )


def _deviates(shot: Sequence[Episode], reading: Reading, action_size: int) -> bool:
    return abs(deviations(*_chi_square(shot, reading, action_size))) > MOST_DEVIATIONS


def _check_clipping(shot: Sequence[Episode]) -> None:
    """UsageError if the largest or the least value of an action recurs, which numbers from a density never do."""
    actions = np.concatenate([episode.actions for episode in shot])
    for extreme in (actions.max(axis=0), actions.min(axis=0)):
        times = (actions == extreme).sum(axis=0)
        worst = int(times.argmax())
        if times[worst] > 2:
            raise _off_policy(
                f"{shot[0].source} and the episodes of its shot: action {worst} is clipped, {times[worst]} of its "
                f"{len(actions)} values are {extreme[worst]:.6g}"
            )


def deviations(chi_square: float, degrees: int) -> float:
    """A chi-square statistic as standard deviations from its mean (Wilson and Hilferty 1931)."""
    variance = 2 / (9 * degrees)
    return ((chi_square / degrees) ** (1 / 3) - (1 - variance)) / math.sqrt(variance)


def _off_policy(found: str) -> UsageError:
    return UsageError(
        f"{found}. These are not this policy's own actions, as it gives them with its noise and before they are scaled "
        "and clipped. A policy gradient averages over what the policy itself would do: from other actions it is "
        "biased, and the step can make the policy worse. Log with this very policy (Run.start, metarl evaluate "
        "--log-rollouts), or insist by --off-policy"
    )
