"""Write and read logs of episodes: folders of .npz files with Minari's field names, or Minari datasets."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarl.agents.agent import Agent, Trial
from metarl.deployment.episode import LoggedEpisode
from metarl.deployment.episode_check import FIELDS, check_episode
from metarl.deployment.npz import read_arrays
from metarl.envs.arrays import Array
from metarl.envs.family import TaskFamily
from metarl.envs.task import Task
from metarl.errors import UsageError, describe
from metarl.files import make_folder, write

MINARI = "minari:"
"""Prefix of the name of a Minari dataset."""


def save_episode(
    path: Path | str,
    observations: Array,
    actions: Array,
    rewards: Array,
    terminated: Array,
    family: TaskFamily,
    log_probabilities: Array | None = None,
    shot: int | None = None,
    task: Task | None = None,
    fallen_observations: Array | None = None,
) -> None:
    """Write an episode of T steps as `metarl adapt` reads it. RunError if the disk refuses.

    Arguments are as in `LoggedEpisode`. path: .npz is added if it does not end so. task: is recorded, not read back.
    """
    truncations = np.zeros(len(rewards), dtype=bool)
    truncations[-1] = not terminated[-1]
    fields: dict[str, Any] = {
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        "terminations": terminated,
        "truncations": truncations,
        "dt": family.dt,
        "names": np.array(family.observation_names),
    }
    optional = {
        "log_probabilities": log_probabilities,
        "shot": shot,
        "task": None if task is None else task.to_json(),
        "fallen_observations": fallen_observations,
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **fields, **{k: v for k, v in optional.items() if v is not None})
    path = Path(path)
    path = path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")
    make_folder(path.parent, "--log-rollouts")
    write(path, buffer.getvalue(), "--log-rollouts")


def save_trial(folder: Path, agent: Agent, family: TaskFamily, trial: Trial, tasks: Sequence[Task], seed: int) -> None:
    """Write the episodes of an evaluation's trial; each subfolder can be given to `metarl adapt --rollouts`.

    A subfolder holds the episodes of one task, or of one env of a task if each env of the agent adapts by itself.
    Episodes whose simulation broke down are left out.
    """
    readings = [agent.read(*shot) for shot in zip(trial.beliefs, trial.rollouts, strict=True)]
    apart = agent.facts.belief_per_env
    for k, (rollout, reading) in enumerate(zip(trial.rollouts, readings, strict=True)):
        log_probabilities = reading.log_probabilities.cpu().numpy()
        data = {name: tensor.cpu().numpy() for name, tensor in vars(rollout).items() if tensor is not None}
        for m, n in np.argwhere(data["valid"].any(axis=0)):
            steps = int(data["valid"][:, m, n].sum())
            ended = data["terminated"][:steps, m, n]
            fallen = data["next_observations"][:steps, m, n][:-1][ended[:-1]] if ended[:-1].any() else None
            name = f"seed{seed}_task{m:03d}{f'_env{n:03d}' if apart else ''}"
            save_episode(
                folder / name / f"shot{k:02d}_episode{0 if apart else n:03d}.npz",
                np.concatenate([data["observations"][:steps, m, n], data["final_observations"][None, m, n]]),
                data["actions"][:steps, m, n],
                data["rewards"][:steps, m, n],
                ended,
                family,
                log_probabilities[:steps, m, n],
                k,
                tasks[m],
                fallen,
            )


def load_episodes(source: str, family: TaskFamily, option: str = "--rollouts") -> list[LoggedEpisode]:
    """Return the episodes in a folder of .npz files, sorted by name and its numbers, or in a Minari dataset.

    source: FOLDER, `minari:ID` or `minari:FOLDER`. UsageError names file, field and index of what does not fit the
    policy. option: that named the source, for messages.
    """
    if source.startswith(MINARI):
        return _load_minari(source.removeprefix(MINARI), family)
    folder = Path(source)
    if not folder.is_dir():
        raise UsageError(
            f"{option}: {folder} is {'a file' if folder.exists() else 'not a folder'}; name a folder of .npz files"
        )
    files = sorted(folder.glob("*.npz"), key=_counted)
    if not files:
        below = sorted(path.parent for path in folder.glob("*/*.npz"))
        hint = f"; did you mean {below[0]}?" if below else "; log one file for each episode there"
        raise UsageError(f"{option}: {folder} holds no .npz file{hint}")
    return [check_episode(read_arrays(file, FIELDS), str(file), family) for file in files]


def _counted(path: Path) -> list[tuple[int, str]]:
    """Return what sorts files by name with their numbers as numbers: episode_2 before episode_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def require_no_log(folder: Path, option: str = "--log-rollouts") -> None:
    """UsageError if a folder holds episodes already, of which some would stay among those of another evaluation."""
    if next(folder.glob("*/*.npz"), None) is not None:
        raise UsageError(f"{option}: {folder} holds episodes already; name a new folder, or delete those")


def _load_minari(name: str, family: TaskFamily) -> list[LoggedEpisode]:
    try:
        import minari
    except ImportError:
        raise UsageError(f"{MINARI}{name} needs Minari: pip install 'metarl-robotics[minari]'") from None
    try:
        data = Path(name, "data") if Path(name, "data").is_dir() else Path(name)
        dataset = minari.MinariDataset(data) if data.is_dir() else minari.load_dataset(name)
        loaded = list(dataset.iterate_episodes())
    except Exception as error:  # from any of the libraries that store it, which may be missing
        raise UsageError(f"the Minari dataset {name!r} cannot be read: {describe(error)[:200]}") from error
    if not loaded:
        raise UsageError(f"the Minari dataset {name!r} holds no episode")
    found = []
    for episode in loaded:
        source = f"{MINARI}{name} episode {episode.id}"
        found.append(check_episode({**vars(episode), **_minari_infos(episode, source)}, source, family, True))
    return found


def _minari_infos(episode: Any, source: str) -> dict[str, Any]:
    """Return the fields that a Minari dataset has no place for but among its infos, [T] or, with the reset's, [T + 1].

    UsageError for an episode of several shots.
    """
    infos, steps = episode.infos or {}, len(episode.rewards)
    found: dict[str, Any] = {}
    if "shot" in infos:
        shots = np.unique(infos["shot"])
        if len(shots) != 1:
            raise UsageError(f"{source}: infos has {len(shots)} numbers of a shot; an episode belongs to one")
        found["shot"] = shots[0]
    if "log_probabilities" in infos:
        logged = np.asarray(infos["log_probabilities"])
        found["log_probabilities"] = logged[1:] if logged.shape[:1] == (steps + 1,) else logged
    return found
