"""Randomness by counter: distribution, independence, reproducibility, and a published SplitMix64 sequence."""

from __future__ import annotations

import numpy as np
import pytest

from metarl.envs import noise

KEYS = np.random.default_rng(0).integers(2**64, size=2000, dtype=np.uint64)


def test_the_finaliser_gives_the_published_sequence_of_seed_0():
    golden = np.uint64(0x9E3779B97F4A7C15)
    state = np.arange(1, 4, dtype=np.uint64) * golden
    assert noise._mix(state).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_uniform_is_uniform():
    u = np.sort(noise.uniform(KEYS, 3, 0, 20).ravel())
    assert u[0] >= 0 and u[-1] < 1
    gap = np.abs(u - (np.arange(u.size) + 0.5) / u.size).max()
    assert gap < 1.95 / np.sqrt(u.size)  # Kolmogorov and Smirnov, at 0.1 %


def test_normal_has_the_moments_and_tails_of_the_normal_distribution():
    z = noise.normal(KEYS, 5, 1, 33).astype(np.float64)
    assert z.shape == (2000, 33) and np.isfinite(z).all()
    error = 5 / np.sqrt(z.size)
    assert abs(z.mean()) < error and abs((z**2).mean() - 1) < np.sqrt(2) * error
    assert abs((z**3).mean()) < np.sqrt(15) * error and abs((z**4).mean() - 3) < np.sqrt(96) * error
    assert np.abs(np.corrcoef(z.T) - np.eye(33)).max() < 5 / np.sqrt(2000)


@pytest.mark.parametrize("draw", [noise.uniform, noise.normal])
def test_steps_streams_and_keys_are_independent(draw):
    a = draw(KEYS, 7, 0, 8).ravel()
    steps = np.full(len(KEYS), 8)
    for b in (draw(KEYS, steps, 0, 8), draw(KEYS, 7, 1, 8), draw(KEYS + np.uint64(1), 7, 0, 8)):
        assert abs(np.corrcoef(a, b.ravel())[0, 1]) < 5 / np.sqrt(a.size)


@pytest.mark.parametrize("draw", [noise.uniform, noise.normal])
def test_a_value_follows_from_its_own_key_and_step_alone(draw):
    steps = np.arange(len(KEYS))
    together = draw(KEYS, steps, 2, 5)
    order = np.random.default_rng(1).permutation(len(KEYS))
    np.testing.assert_array_equal(draw(KEYS[order], steps[order], 2, 5), together[order])
    np.testing.assert_array_equal(draw(KEYS[4:5], 4, 2, 5)[0], together[4])
    np.testing.assert_array_equal(draw(KEYS, steps, 2, 2), together[:, :2])
