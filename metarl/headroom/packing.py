"""Outcome of an evaluation as it is kept in a judged record: small, and read back as it was put in.

Axes: S evaluation seeds, K shots, M tasks.
"""

from __future__ import annotations

import bz2
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from metarl.evaluation.binning import REWARD_RATE, Binned
from metarl.evaluation.forgetting import Revisit
from metarl.evaluation.outcomes import TrialOutcome
from metarl.evaluation.records import array, listed, mapping, number, optional, whole
from metarl.evaluation.results import EvaluationResult
from metarl.evaluation.statistics import Array

PARTS = 16
"""Smallest number of grid steps in the standard deviation between tasks of the reward in a bin."""
FINEST = 2.0**-20
"""Smallest grid that rewards are rounded to, as a share of the largest one."""
ROOM = 8_000
"""Packed bytes that the rewards in time may take; where they need more at the coarsest grid, they take it."""
ROOM_OF_CURVE = 6_000
"""The same of another curve."""


def packed_outcome(result: EvaluationResult) -> dict[str, Any]:
    """Return what the statistics of an evaluation are computed from, for JSON.

    Returns and steps to recover are kept as they are, measures as float32, and the reward in time as in `packed_bins`.
    """
    revisit = result.revisit
    return {
        "returns": packed(result.returns),
        "measures": {name: packed(as_float32(values)) for name, values in result.measures.items()},
        "recovery": None if result.recovery is None else packed(result.recovery),
        "faults": result.faults,
        "overflows": result.overflows,
        "episodes_per_round": result.episodes_per_round,
        "binned": [packed_bins(own, ROOM // len(result.binned)) for own in result.binned],
        "revisit": revisit and {"returns": packed(revisit.returns[0]), "back": packed_bins(revisit.back, ROOM)},
    }


def read_outcome(data: Any) -> TrialOutcome:
    """Return the outcome that JSON holds; ValueError, TypeError or KeyError if it is none."""
    own = mapping(data, "outcome")
    returns = unpacked(own["returns"], "returns", 3)
    seeds, _, tasks = returns.shape
    measures = mapping(own["measures"], "measures")
    per_round = whole(own.get("episodes_per_round", 0), "episodes_per_round")
    outcome = TrialOutcome(
        returns,
        {name: unpacked(values, f"measures.{name}", 3) for name, values in measures.items()},
        optional(own["recovery"], lambda values: unpacked(values, "recovery", 2)),
        whole(own["faults"], "faults"),
        whole(own["overflows"], "overflows"),
        listed(own["binned"], "binned", lambda part: read_bins(part, seeds, tasks, per_round)),
        optional(own["revisit"], lambda part: _read_revisit(part, seeds, tasks, per_round)),
        per_round,
    )
    if not outcome.binned or any(values.shape != returns.shape for values in outcome.measures.values()):
        raise ValueError("a measure has other tasks than the returns, or there is no reward in time")
    return outcome


def _read_revisit(data: Any, seeds: int, tasks: int, per_round: int) -> Revisit:
    own = mapping(data, "revisit")
    return Revisit(
        unpacked(own["returns"], "revisit.returns", 3)[None], read_bins(own["back"], seeds, tasks, per_round)
    )


def packed(values: Array) -> dict[str, Any]:
    """Return an array for JSON, with no more digits than tell a number from the others of its precision.

    The precision is float32 where that has every number.
    """
    short = values.astype(np.float32)
    bits = 32 if np.array_equal(short, values, equal_nan=True) else 64

    def digits(part: Any) -> Any:
        return [digits(own) for own in part] if np.ndim(part) else float(str(part))

    return {"bits": bits, "values": digits(short if bits == 32 else values.astype(np.float64))}


def as_float32(values: Array) -> Array:
    """Return an array with each number rounded to one that float32 has."""
    return values.astype(np.float32).astype(np.float64)


def unpacked(data: Any, name: str, axes: int) -> Array:
    """Return the array that JSON holds, float64; ValueError, TypeError or KeyError if it is none with so many axes."""
    own = mapping(data, name)
    found = array(own["values"], name, axes)
    return as_float32(found) if whole(own["bits"], "bits") == 32 else found


def packed_bins(binned: Binned, room: int = ROOM) -> dict[str, Any]:
    """Return the values of each task of one run in bins of time, for JSON.

    Curves other than the reward are for figures, and for whether a rise is one of falling, see `packed_curve`. What is
    rounded of the reward, to the finest grid that leaves no more than `room` bytes when packed, is the sum of rewards
    since the start over the tasks up to each one: so errors add up neither over time nor over tasks. Kept is how much
    more of a task's reward there is in a bin than in the one before.
    """
    rates = binned.values[REWARD_RATE][0]  # [S, bins, M]
    rewards = np.where(np.isnan(rates), np.nan, np.nan_to_num(rates) * binned.widths_s[:, None])
    return {
        "change": binned.change,
        "episodes": binned.episodes,
        "memory": binned.memory,
        "ends_s": binned.ends_s.tolist(),
        "changes_s": [list(pair) for pair in binned.changes_s],
        **_rounded(rewards, 1 / PARTS, room, _sums),
        "curves": {name: packed_curve(own[0]) for name, own in binned.values.items() if name != REWARD_RATE},
    }


def packed_curve(values: Array) -> dict[str, Any]:
    """Return values [S, bins, M] for JSON, rounded to the finest grid that leaves no more than `ROOM_OF_CURVE` bytes.

    It is no coarser than the standard deviation between tasks: so the mean over 100 tasks is within some hundredths of
    that deviation. Kept is how much a value is above the one of the bin before.
    """
    return _rounded(values, 1.0, ROOM_OF_CURVE, lambda known, grid: np.rint(known / grid))


def _rounded(values: Array, coarsest: float, room: int, steps: Callable[[Array, float], Array]) -> dict[str, Any]:
    """Return values [S, bins, M] as JSON that `_restored` reads: each in steps of a grid above the bin before.

    The grid is the finest that leaves no more than `room` packed bytes, and the coarsest at most a share of the
    standard deviation between tasks. steps: of values (0 where there is none) and a grid, the steps of each bin. NaN:
    there is no value.
    """
    there = ~np.isnan(values)
    known, spread = np.where(there, values, 0.0), np.ma.array(values, mask=~there).std(axis=2).mean()
    finest = float(np.abs(known).max()) * FINEST
    wanted = max(float(np.ma.filled(spread, 0.0)) * coarsest, finest)
    grid = 2.0 ** math.floor(math.log2(wanted)) if wanted > 0 else 1.0

    def on(grid: float) -> list[Any]:
        return np.diff(steps(known, grid), axis=1, prepend=0.0).astype(np.int64).tolist()

    more = on(grid)
    while grid / 2 >= finest > 0 and _size(finer := on(grid / 2)) <= room:
        grid, more = grid / 2, finer
    return {"grid": grid, "more": more, "there": None if there.all() else there.astype(int).tolist()}


def _restored(own: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Array:
    """Return the values [S, bins, M] that `_rounded` made; ValueError if they have another shape."""
    steps = array(own["more"], name, 3).cumsum(axis=1)
    there = optional(own["there"], lambda value: array(value, "there", 3))
    if steps.shape != shape or (there is not None and there.shape != shape):
        raise ValueError(f"{name} in time has the shape {steps.shape}, and {shape} is needed")
    found = steps * number(own["grid"], "grid")
    if there is not None:
        found[there == 0] = np.nan
    return found


def _sums(rewards: Array, grid: float) -> Array:
    """Return rewards [S, bins, M] in steps of a grid, as `packed_bins` says."""
    sums = np.rint(np.cumsum(np.cumsum(rewards, axis=1), axis=2) / grid)
    return np.diff(np.diff(sums, axis=2, prepend=0.0), axis=1, prepend=0.0)


def _size(more: list[Any]) -> int:
    return len(bz2.compress(json.dumps(more).encode()))


def read_bins(data: Any, seeds: int, tasks: int, per_round: int = 1) -> Binned:
    """Return the values in bins of time that JSON holds, of so many evaluation seeds and tasks of each.

    per_round: as in `Binned`; 0 of records that do not say.
    """
    own = mapping(data, "values in time")
    ends = array(own["ends_s"], "ends_s", 1)
    binned = Binned(
        ends,
        whole(own["episodes"], "episodes"),
        {},
        whole(own["change"], "change"),
        listed(own["changes_s"], "changes_s", _pair),
        bool(own["memory"]),
    )
    shape = (seeds, len(binned.widths_s), tasks)
    rates = _restored(own, "reward", shape) / binned.widths_s[:, None]
    curves = mapping(own.get("curves", {}), "curves")  # records of before have none
    values: Mapping[str, Array] = {
        REWARD_RATE: rates[None],
        **{name: _restored(mapping(curve, name), name, shape)[None] for name, curve in curves.items()},
    }
    return replace(binned, values=values, per_round=max(per_round, 1))


def _pair(value: Any) -> tuple[float, float]:
    low, high = listed(value, "changes_s", lambda end: number(end, "changes_s"))
    return low, high
