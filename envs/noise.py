"""Randomness by counter: pure functions of (key, step, stream), so that it does not matter in what order, or beside
which other simulations, a simulation is stepped.

Each (key, step, stream) starts a SplitMix64 sequence of its own (Steele, Lea and Flood, OOPSLA 2014).
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

GOLDEN = 0x9E3779B97F4A7C15


def _mix(z: Array) -> Array:
    """SplitMix64's finaliser, in place; uint64."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def _golden(times: int) -> np.uint64:
    return np.uint64(GOLDEN * times % 2**64)


def words(keys: Array, step: Array | int, stream: int, size: int) -> Array:
    """[S, size] uint64, every bit as likely 0 as 1. keys [S] uint64, step [S] or one for all."""
    steps = np.broadcast_to(np.asarray(step), keys.shape).astype(np.uint64)
    seeds = _mix(keys + _golden(stream + 1))
    seeds = _mix(seeds + (steps + np.uint64(1)) * _golden(1))
    return _mix(seeds[:, None] + np.arange(1, size + 1, dtype=np.uint64) * _golden(1))


def uniform(keys: Array, step: Array | int, stream: int, size: int) -> Array:
    """[S, size] float64 of U(0, 1), on a grid of 2^-53."""
    return (words(keys, step, stream, size) >> np.uint64(11)) * 2.0**-53


def normal(keys: Array, step: Array | int, stream: int, size: int) -> Array:
    """[S, size] float32 of N(0, 1), two a word by Box and Muller; none is beyond 6.7."""
    halves = words(keys, step, stream, (size + 1) // 2).view(np.uint32).astype(np.float32)  # [S, size or size + 1]
    radius, angle = halves[:, ::2], halves[:, 1::2]
    radius += np.float32(1)
    radius *= np.float32(2.0**-32)
    np.sqrt(np.float32(-2) * np.log(radius), out=radius)
    angle *= np.float32(2 * np.pi * 2.0**-32)
    cosine = np.cos(angle)
    np.sin(angle, out=angle)
    angle *= radius
    radius *= cosine
    return halves[:, :size]
