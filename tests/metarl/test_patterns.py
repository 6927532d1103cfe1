"""Patterns of names: one language, and what matches nothing names what there is, wherever it is given."""

from __future__ import annotations

import re

import numpy as np
import pytest

from metarl.agents.estimator.estimator import chosen_places
from metarl.envs.registry import make_family
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.errors import UsageError
from metarl.identification.classes import TaskClass, uses_of
from metarl.patterns import matched

LEGS = ["FR_calf", "FL_calf", "RR_hip", "arm [1]", "arm.1"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("FR_calf", ["FR_calf"]),
        (".*_calf", ["FR_calf", "FL_calf"]),
        ("F[RL]", []),
        ("arm [1]", ["arm [1]"]),
        ("arm.1", ["arm.1"]),
        (re.escape("arm [1]"), ["arm [1]"]),
    ],
)
def test_a_name_or_a_regular_expression_in_full(pattern, found):
    assert matched(pattern, LEGS, "legs") == found


@pytest.mark.parametrize("glob", ["*_calf", "F*_calf"])
def test_a_glob_is_an_error_that_names_what_there_is(glob):
    """Of shells: * alone repeats nothing, and F*_calf matches _calf, F_calf, FF_calf."""
    names = ["FR_calf", "FL_calf"]
    with pytest.raises(ValueError, match="FR_calf"):
        make_family(QuadrupedSettings(faults=("dead",), fault_places=(glob,)))
    with pytest.raises(ValueError, match="FR_calf"):
        chosen_places((glob,), names)
    with pytest.raises(UsageError, match="FR_calf|FL_calf"):
        uses_of([TaskClass(name, {}, {}) for name in [*names, *LEGS[2:], "a", "b"]], (glob,), np.random.default_rng(0))


def test_places_of_a_built_in_family_take_regular_expressions():
    family = make_family(QuadrupedSettings(faults=("dead",), fault_places=("F._calf",)))
    assert next(p for p in family.parameters if p.name == "fault_place").names == ("nowhere", "FR_calf", "FL_calf")
