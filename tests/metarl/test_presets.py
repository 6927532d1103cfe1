"""Every family has a preset, and every preset trains."""

from __future__ import annotations

import dataclasses
import math

import pytest

import metarl
from metarl.agents.registry import AGENTS
from metarl.config import PRESETS, load_config, preset_path
from metarl.envs.registry import FAMILIES
from metarl.runs.tracking import read_metrics

NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))
WITHOUT = {"robot"}
"""Families of which no preset can be known."""


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - WITHOUT))
def test_every_family_has_one(family: str):
    assert any(preset_path(agent, family) for agent in AGENTS)


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_updates_and_is_evaluated(name: str, tmp_path):
    config = load_config(PRESETS / f"{name}.yaml")
    config = dataclasses.replace(
        config,
        family=dataclasses.replace(config.family, horizon=6),
        training=dataclasses.replace(
            config.training, iterations=2, tasks=3, envs_per_task=2, threads=1, device="cpu", checkpoint_every=2
        ),
        evaluation=dataclasses.replace(
            config.evaluation, tasks=2, envs_per_task=1, adaptations=1, seeds=(1,), bootstrap_samples=20
        ),
        tracking=dataclasses.replace(config.tracking, wandb="disabled"),
    )
    run = metarl.train(config, name=name, runs_dir=tmp_path)
    lines = read_metrics(run.directory)
    assert len(lines) == 2 and run.evaluation is not None
    for line in lines:
        assert all(math.isfinite(value) for value in line.values()), line
        assert line["faults"] == 0 and line["env_steps"] > 0
