"""Check the fields of a logged episode against a policy: shapes, finite numbers, channels, control step, end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metarl.deployment.episode import LoggedEpisode
from metarl.envs.arrays import Array
from metarl.envs.family import TaskFamily
from metarl.envs.text import shown
from metarl.errors import UsageError

NEEDED = ("observations", "actions", "rewards", "terminations", "truncations")
"""Fields that every episode has, as Minari names them."""
FIELDS = (*NEEDED, "dt", "names", "log_probabilities", "shot", "fallen_observations")
"""Fields that are read; a file may hold others."""
MOST_SHOTS = 10**6
"""Numbers of shots are below this."""


def check_episode(fields: Mapping[str, Any], source: str, family: TaskFamily, unnamed: bool = False) -> LoggedEpisode:
    """Return the episode in the fields, with observations as the policy reads them: clipped where the env clips them.

    UsageError names source, field and index of what does not fit the family. unnamed: whether `dt` and `names` may be
    missing, as in a Minari dataset.
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
            "as in training: log one file for each episode"
        )
    observations = _numbers(fields, "observations", source, (steps + 1, len(observation_names)), observation_names)
    actions = _numbers(fields, "actions", source, (steps, len(action_names)), action_names)
    ends = {name: _numbers(fields, name, source, (steps,)) for name in ("terminations", "truncations")}
    lives = "fallen_observations" in fields
    for name, flags in ends.items():
        early = np.flatnonzero(flags[:-1])
        if early.size and not (lives and name == "terminations"):
            hint = ", or add the field fallen_observations if the robot was placed anew and the episode went on"
            raise UsageError(
                f"{source}: {name}[{early[0]}] is true, but the episode has {steps} steps; log one file for each "
                f"episode{hint if name == 'terminations' else ''}"
            )
    if not (ends["terminations"][-1] or ends["truncations"][-1]):
        raise UsageError(
            f"{source}: the episode has no end: neither terminations[{steps - 1}] nor truncations[{steps - 1}] is "
            "true; set the latter if it was stopped, or log it to its end"
        )
    if "dt" in fields:
        _check_dt(_numbers(fields, "dt", source, ()), source, family)
    if "names" in fields:
        _check_names(_texts(fields["names"], source), source, observation_names)
    falls = int(np.count_nonzero(ends["terminations"][:-1]))
    shapes = {"log_probabilities": (steps,), "fallen_observations": (falls, len(observation_names))}
    given = {
        name: _numbers(fields, name, source, shape, observation_names if len(shape) == 2 else ())
        for name, shape in shapes.items()
        if name in fields
    }
    if lives:
        given["fallen_observations"] = family.clipped(given["fallen_observations"])
    return LoggedEpisode(
        source,
        family.clipped(observations),
        actions,
        rewards,
        ends["terminations"].astype(bool),
        shot=_shot(_numbers(fields, "shot", source, ()), source) if "shot" in fields else None,
        **given,
    )


def _shot(number: Array, source: str) -> int:
    """Return the number of a shot; UsageError if it is not a whole number from 0 on."""
    if not float(number).is_integer() or not 0 <= number < MOST_SHOTS:
        raise UsageError(f"{source}: shot is {float(number):g}; it must be a whole number from 0 on")
    return int(number)


def _texts(names: Any, source: str) -> list[str]:
    """Return the field `names` as text; HDF5 and older NumPy write it as bytes."""
    values = np.atleast_1d(names)
    if values.ndim != 1 or values.dtype.kind not in "US":
        raise UsageError(f"{source}: names is {values.dtype} of shape {values.shape}; it must be a list of text")
    try:
        return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in values.tolist()]
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{source}: names holds bytes that are not UTF-8 ({error.reason}); write it as text"
        ) from error


def _numbers(
    fields: Mapping[str, Any], name: str, source: str, shape: tuple[int | None, ...], channels: Sequence[str] = ()
) -> Array:
    """Return a field as finite float32. shape: expected, None for any size; channels: names of the last axis."""
    raw = fields[name]
    values = np.asarray(raw) if isinstance(raw, np.ndarray | list | float | int | bool | np.generic) else None
    if values is None or values.dtype.kind not in "biuf":
        kind = type(raw).__name__ if values is None else values.dtype
        raise UsageError(f"{source}: {name} is {kind}; it must be an array of numbers")
    fits = len(values.shape) == len(shape) and all(b in (None, a) for a, b in zip(values.shape, shape, strict=True))
    if not fits:
        wanted = ", ".join("T" if size is None else str(size) for size in shape) + ("," if len(shape) == 1 else "")
        raise UsageError(f"{source}: {name} has shape {values.shape}; it must be ({wanted}){_hint(name, shape)}")
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


def _hint(name: str, shape: tuple[int | None, ...]) -> str:
    """Return what the sizes of a field's shape stand for."""
    if name == "fallen_observations":
        return f": terminations has {shape[0]} falls before the last step, and the policy reads {shape[1]} channels"
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
