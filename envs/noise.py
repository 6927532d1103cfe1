"""Counter-based random numbers: pure functions of (key, step, stream), so that a simulation's numbers do not depend on
the order in which simulations are stepped, nor on which others are stepped beside it.

Each (key, step, stream) starts a SplitMix64 sequence of its own (Steele, Lea and Flood, OOPSLA 2014). Words of 64 bits
are uint64 in NumPy, and int64 of the same bits in torch, which multiplies and adds them alike.
"""

from __future__ import annotations

import functools

import numpy as np

from metarl.envs.arrays import Array, like, namespace

GOLDEN = 0x9E3779B97F4A7C15
COMMANDS, PUSHES, SENSORS, STANDING = range(4)
"""Streams of an episode's randomness."""


def _mix(z: Array) -> Array:
    """SplitMix64's finaliser, in place."""
    z ^= _right(z, 30)
    z *= _word(0xBF58476D1CE4E5B9, z)
    z ^= _right(z, 27)
    z *= _word(0x94D049BB133111EB, z)
    z ^= _right(z, 31)
    return z


def _word(value: int, words: Array) -> np.uint64 | int:
    """Return the word of those 64 bits, as an operand for words."""
    if isinstance(words, np.ndarray):
        return np.uint64(value)
    return value - 2**64 if value >= 2**63 else value


def _right(words: Array, places: int) -> Array:
    """Shift words to the right, with zeros from the left; torch shifts the sign in, which the mask clears."""
    if isinstance(words, np.ndarray):
        return words >> np.uint64(places)
    return (words >> places) & (2 ** (64 - places) - 1)


def _golden(times: int, words: Array) -> np.uint64 | int:
    return _word(GOLDEN * times % 2**64, words)


@functools.cache
def _sequence(size: int) -> np.ndarray:
    """Return the bits that SplitMix64 adds to its seed for each word in turn, [size] int64."""
    return (np.arange(1, size + 1, dtype=np.uint64) * np.uint64(GOLDEN)).view(np.int64)


def words(keys: Array, step: Array | int, stream: int, size: int) -> Array:
    """Return random words, [S, size]. keys: [S] words. step: [S], or one for all."""
    if isinstance(step, int):
        steps = _golden(step + 1, keys)
    else:
        steps = (namespace(keys).astype(step, keys.dtype) + 1) * _golden(1, keys)
    seeds = _mix(_mix(keys + _golden(stream + 1, keys)) + steps)
    sequence = like(_sequence(size), keys)
    return _mix(seeds[:, None] + (sequence.view(np.uint64) if isinstance(keys, np.ndarray) else sequence))


def uniform(keys: Array, step: Array | int, stream: int, size: int) -> Array:
    """Draw from U(0, 1) on a grid of 2^-53, [S, size] float64."""
    xp = namespace(keys)
    return xp.astype(_right(words(keys, step, stream, size), 11), xp.float64) * 2.0**-53


def normal(keys: Array, step: Array | int, stream: int, size: int) -> Array:
    """Draw from N(0, 1), two per word by Box and Muller and none beyond 6.7, [S, size] float32."""
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
    """Return the lower and the upper 32 bits of words [S, n] as numbers of at least 0, [S, 2 n] float32."""
    xp = namespace(words)
    if isinstance(words, np.ndarray):
        return xp.astype(words.view(np.uint32), xp.float32)
    return xp.astype(xp.astype(words.view(xp.int32), xp.int64) & (2**32 - 1), xp.float32)
