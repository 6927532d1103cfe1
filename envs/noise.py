"""Randomness by counter: pure functions of (key, step, stream), so that it does not matter in what order, or beside
which other simulations, a simulation is stepped.

Each (key, step, stream) starts a SplitMix64 sequence of its own (Steele, Lea and Flood, OOPSLA 2014). Words of 64 bits
are uint64 in NumPy, and int64 of the same bits in torch, which multiplies and adds them alike.
"""

from __future__ import annotations

import functools

import numpy as np

from metarl.envs.arrays import Array, like, namespace

GOLDEN = 0x9E3779B97F4A7C15


def _mix(z: Array) -> Array:
    """SplitMix64's finaliser, in place."""
    z ^= _right(z, 30)
    z *= _word(0xBF58476D1CE4E5B9, z)
    z ^= _right(z, 27)
    z *= _word(0x94D049BB133111EB, z)
    z ^= _right(z, 31)
    return z


def _word(value: int, words: Array) -> np.uint64 | int:
    """The word of those 64 bits, as an operand beside words."""
    if isinstance(words, np.ndarray):
        return np.uint64(value)
    return value - 2**64 if value >= 2**63 else value


def _right(words: Array, places: int) -> Array:
    """Words shifted to the right, zeros from the left: torch shifts the sign in, which the mask takes away."""
    if isinstance(words, np.ndarray):
        return words >> np.uint64(places)
    return (words >> places) & (2 ** (64 - places) - 1)


def _golden(times: int, words: Array) -> np.uint64 | int:
    return _word(GOLDEN * times % 2**64, words)


@functools.cache
def _sequence(size: int) -> np.ndarray:
    """[size] int64, the bits that SplitMix64 adds to its seed for each word in turn."""
    return (np.arange(1, size + 1, dtype=np.uint64) * np.uint64(GOLDEN)).view(np.int64)


def words(keys: Array, step: Array | int, stream: int, size: int) -> Array:
    """[S, size] words, every bit as likely 0 as 1. keys [S] words, step [S] or one for all."""
    if isinstance(step, int):
        steps = _golden(step + 1, keys)
    else:
        steps = (namespace(keys).astype(step, keys.dtype) + 1) * _golden(1, keys)
    seeds = _mix(_mix(keys + _golden(stream + 1, keys)) + steps)
    sequence = like(_sequence(size), keys)
    return _mix(seeds[:, None] + (sequence.view(np.uint64) if isinstance(keys, np.ndarray) else sequence))


def uniform(keys: Array, step: Array | int, stream: int, size: int) -> Array:
    """[S, size] float64 of U(0, 1), on a grid of 2^-53."""
    xp = namespace(keys)
    return xp.astype(_right(words(keys, step, stream, size), 11), xp.float64) * 2.0**-53


def normal(keys: Array, step: Array | int, stream: int, size: int) -> Array:
    """[S, size] float32 of N(0, 1), two a word by Box and Muller; none is beyond 6.7."""
    xp, halves = namespace(keys), _halves(words(keys, step, stream, (size + 1) // 2))  # [S, size or size + 1]
    radius, angle = halves[:, ::2], halves[:, 1::2]
    radius += 1.0
    radius *= 2.0**-32
    radius[...] = xp.sqrt(-2.0 * xp.log(radius))
    angle *= 2 * np.pi * 2.0**-32
    cosine = xp.cos(angle)
    angle[...] = radius * xp.sin(angle)
    radius *= cosine
    return halves[:, :size]


def _halves(words: Array) -> Array:
    """[S, 2 n] float32, the lower and the upper 32 bits of words [S, n] as numbers from 0."""
    xp = namespace(words)
    if isinstance(words, np.ndarray):
        return xp.astype(words.view(np.uint32), xp.float32)
    return xp.astype(xp.astype(words.view(xp.int32), xp.int64) & (2**32 - 1), xp.float32)
