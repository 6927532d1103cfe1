"""The recorded presets learn what README says: `make test-slow`, one seed each."""

from __future__ import annotations

import pytest

from benchmarks.learning import BARS, train_seed, write_results
from metarl.config import PRESETS, load_config


@pytest.mark.slow
@pytest.mark.parametrize("preset", list(BARS))
def test_a_recorded_preset_reaches_its_bars(preset: str, tmp_path):
    config = load_config(PRESETS / f"{preset}.yaml")
    result = train_seed(config, preset, 4, tmp_path)  # a seed that nothing was tuned on
    assert write_results(preset, [result], config, tmp_path)
