"""The recorded presets learn what docs/results.md says: `make test-slow`, one seed each."""

from __future__ import annotations

import csv

import pytest

from benchmarks.learning import BARS, LEARNED, train_seed, write_results
from metarl.cli import app as cli
from metarl.config import PRESETS, load_config
from metarl.headroom.arms import ARMS


@pytest.mark.slow
@pytest.mark.parametrize("preset", list(BARS))
def test_a_recorded_preset_reaches_its_bars(preset: str, tmp_path):
    config = load_config(PRESETS / f"{preset}.yaml")
    result = train_seed(config, preset, 4, tmp_path)  # a seed that nothing was tuned on
    assert write_results(preset, [result], config, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "arm"), LEARNED)
def test_an_arm_learns(family: str, arm: str, tmp_path):
    learned = LEARNED[family, arm]
    command = f"headroom {family} --budget {learned.env_steps} --seeds 4 --threads 1 --name study --runs-dir {tmp_path}"
    command += f" --arms {ARMS[arm].taught_by} {arm} tracking.wandb=disabled {' '.join(learned.settings)}"
    assert cli.main(command.split()) == 0
    with open(tmp_path / "study" / "headroom.csv", encoding="utf-8") as file:
        reached = {row["label"]: float(row["mean_last"]) for row in csv.DictReader(file)}
    assert reached[arm] >= learned.at_least
