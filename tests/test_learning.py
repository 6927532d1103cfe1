"""The recorded presets learn what docs/results.md says: `make test-slow`, one seed each."""

from __future__ import annotations

import csv

import pytest

from benchmarks.learning import BARS, POINT_GOAL, train_seed, write_results
from metarl.cli import app as cli
from metarl.config import PRESETS, load_config


@pytest.mark.slow
@pytest.mark.parametrize("preset", list(BARS))
def test_a_recorded_preset_reaches_its_bars(preset: str, tmp_path):
    config = load_config(PRESETS / f"{preset}.yaml")
    result = train_seed(config, preset, 4, tmp_path)  # a seed that nothing was tuned on
    assert write_results(preset, [result], config, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("arm", POINT_GOAL)
def test_a_learner_finds_the_goal(arm: str, tmp_path):
    env_steps, at_least, settings = POINT_GOAL[arm]
    command = f"headroom point_goal --budget {env_steps} --seeds 4 --threads 1 --name study --runs-dir {tmp_path}"
    command += f" --arms {arm} tracking.wandb=disabled {' '.join(settings)}"
    assert cli.main(command.split()) == 0
    with open(tmp_path / "study" / "headroom.csv", encoding="utf-8") as file:
        reached = {row["label"]: float(row["mean_last"]) for row in csv.DictReader(file)}
    assert reached[arm] >= at_least
