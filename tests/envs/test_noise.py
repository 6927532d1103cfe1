"""Randomness by counter: distribution, independence, reproducibility, and a published SplitMix64 sequence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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


SIZES = [(0, 0, 1), (7, 1, 5), (np.arange(2000), 2, 48), (np.arange(2000) + 2**40, 2, 3)]


def in_torch(keys: np.ndarray, step: np.ndarray | int) -> tuple[torch.Tensor, torch.Tensor | int]:
    return torch.from_numpy(keys.view(np.int64)), step if isinstance(step, int) else torch.from_numpy(step)


@pytest.mark.parametrize(("step", "stream", "size"), SIZES)
def test_torch_draws_the_same_bits(step, stream: int, size: int):
    expected = noise.words(KEYS, step, stream, size)
    drawn = noise.words(*in_torch(KEYS, step), stream, size)
    assert drawn.dtype == torch.int64 and expected.dtype == np.uint64
    np.testing.assert_array_equal(drawn.numpy().view(np.uint64), expected)


@pytest.mark.parametrize(("step", "stream", "size"), SIZES)
def test_torch_makes_the_same_numbers_of_them(step, stream: int, size: int):
    uniform, normal = (draw(*in_torch(KEYS, step), stream, size) for draw in (noise.uniform, noise.normal))
    assert (uniform.dtype, normal.dtype) == (torch.float64, torch.float32)
    np.testing.assert_array_equal(uniform.numpy(), noise.uniform(KEYS, step, stream, size))
    # cosines, sines and logarithms in single precision: each is rounded, and an angle's rounding grows with its size
    np.testing.assert_allclose(normal.numpy(), noise.normal(KEYS, step, stream, size), rtol=1e-5, atol=2e-6)
