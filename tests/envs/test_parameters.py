"""Distributions and splits against closed forms and recorded draws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metarl.envs.parameters import (
    Choice,
    DiscRadius,
    Either,
    Law,
    LogUniform,
    Parameter,
    Uniform,
    beyond,
    outside,
    outside_scale,
)
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.robots.quadruped_settings import QuadrupedTerrainSettings

LEGS = Parameter("leg", "1", Choice((0.0, 1.0, 2.0)), Law("none"), neutral=-1.0, held_out=Choice((3.0,)))
RECORDED = {  # drawn before there was a third split: results that were recorded with them stay reproducible
    ("point_goal", "train"): [(0.4449049555696547, 0.12509546615183353), (0.18417993653565645, 0.39721380081027746)],
    ("point_goal", "held_out"): [(0.44490495580248535, 0.12509546638466418), (0.1841799367684871, 0.3972138010431081)],
    ("half_cheetah_velocity", "train"): [(1.8898099111393094,), (1.250190932303667,)],
    ("half_cheetah_velocity", "held_out"): [(1.8898099116049707,), (1.2501909327693284,)],
    ("half_cheetah_direction", "train"): [(1.0,), (1.0,)],
    ("half_cheetah_direction", "held_out"): [(1.0,), (1.0,)],
    ("half_cheetah_mass", "train"): [(1.852931966199467,), (1.1893645100676091,)],
    ("half_cheetah_mass", "held_out"): [(1.852931966797541,), (1.1893645104515025,)],
}


@pytest.mark.parametrize(("name", "split"), RECORDED)
def test_draws_are_those_that_were_recorded(name: str, split):
    tasks = make_family(FAMILY_SETTINGS[name]()).sample(2, np.random.default_rng(7), split)
    assert [tuple(task.values.values()) for task in tasks] == RECORDED[name, split]


def drawn(parameter: Parameter, split, count: int = 2000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([parameter.sample(rng, split) for _ in range(count)])


def test_held_out_values_may_be_training_values_only_if_that_is_said():
    both = {"law": Law("none"), "neutral": 0.0, "held_out": Choice((0.0, 1.0))}
    with pytest.raises(ValueError, match=r"held_out values \{0, 1\} overlap the training values \{0\}"):
        Parameter("kind", "1", Choice((0.0,)), **both)
    kind = Parameter("kind", "1", Choice((0.0,)), **both, overlaps=True)
    assert set(drawn(kind, "train")) == {0.0} and set(drawn(kind, "held_out")) == {0.0, 1.0}
    assert not kind.disjoint and LEGS.disjoint


def test_held_out_choices_are_their_own():
    assert set(drawn(LEGS, "train")) == {0.0, 1.0, 2.0}
    assert set(drawn(LEGS, "held_out")) == {3.0}
    assert LEGS.disjoint


def test_outside_is_below_and_above_alike():
    p = Parameter("x", "m", Uniform(-2, 2), Law("none"), neutral=0.0, ood=outside(2.0))
    values = drawn(p, "ood")
    assert abs((values < 0).mean() - 0.5) < 0.05
    assert ((np.abs(values) >= 2) & (np.abs(values) <= 3)).all() and np.abs(values).max() > 2.99


@pytest.mark.parametrize(
    ("distribution", "low", "high", "described"),
    [
        (beyond(1.0, 3.0), 3.0, 4.0, "U(3, 4)"),
        (outside_scale(4.0), 1 / 8, 8.0, "logU(0.125, 0.25) or logU(4, 8)"),
        (Either(Choice((1.0,)), Choice((5.0,))), 1.0, 5.0, "{1} or {5}"),
        (DiscRadius(3.0), 0.0, 3.0, "3 sqrt U(0, 1)"),
    ],
)
def test_ranges(distribution, low: float, high: float, described: str):
    assert distribution.low == pytest.approx(low) == distribution.quantile(0.0)
    assert distribution.high == pytest.approx(high) == pytest.approx(distribution.quantile(1 - 2**-40))
    assert distribution.describe() == described


def test_points_at_a_disc_radius_are_uniform_in_the_disc():
    radii = np.array([DiscRadius(3.0).quantile(u) for u in (np.arange(10_000) + 0.5) / 10_000])
    for share in (0.1, 0.5, 0.9):
        assert (radii < 3 * math.sqrt(share)).mean() == pytest.approx(share, abs=1e-3)  # area within the radius


@pytest.mark.parametrize(
    ("train", "other"),
    [
        (Uniform(0, 2), Uniform(1.5, 3)),
        (Uniform(0, 2), Either(Uniform(-1, 0), Uniform(1, 3))),
        (Choice((0.0, 1.0)), Choice((1.0, 2.0))),
        (Uniform(0, 2), Choice((1.0,))),
        (LogUniform(0.5, 2), LogUniform(0.1, 10)),
    ],
)
@pytest.mark.parametrize("split", ["held_out", "ood"])
def test_ranges_that_overlap_training_are_refused(train, other, split: str):
    with pytest.raises(ValueError, match=f"parameter 'x': {split} values .* overlap the training values .*move them"):
        Parameter("x", "m", train, Law("none"), neutral=1.0, **{split: other})


def test_an_ood_range_that_is_unphysical_is_refused():
    with pytest.raises(ValueError, match="'x' must be greater than 0"):
        Parameter("x", "kg", Uniform(1, 2), Law("none"), neutral=1.0, above=0.0, ood=Uniform(-1, 0.5))


def test_a_category_may_be_given_by_its_name():
    family = make_family(QuadrupedTerrainSettings())
    assert family.task({"terrain_kind": "stairs_up"}) == family.task({"terrain_kind": 2.0})
    with pytest.raises(ValueError, match="parameter 'terrain_kind' is 'stairs'; did you mean 'stairs_up'"):
        family.task({"terrain_kind": "stairs"})
    with pytest.raises(ValueError, match=r"parameter 'terrain_difficulty' must be a number \(1\), got 'flat'"):
        family.task({"terrain_difficulty": "flat"})
