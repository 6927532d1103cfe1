"""Every family has a preset, and every preset trains."""

from __future__ import annotations

import dataclasses
import math

import pytest

import metarl
from metarl.agents.distilled.settings import DistilledSettings
from metarl.agents.registry import AGENTS, PAPERS
from metarl.config import PRESETS, RunConfig, load_config, preset, preset_path
from metarl.envs.registry import FAMILIES
from metarl.runs.tracking import read_metrics
from tests.sampling import sampled

NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))
WITHOUT = {"robot"}
"""Families of which no preset can be known."""


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - WITHOUT))
def test_every_family_has_one(family: str):
    assert any(preset_path(agent, family) for agent in AGENTS)


@pytest.mark.parametrize("name", sampled(PAPERS, 4))
def test_a_method_is_its_agent_with_its_settings_on_every_family_that_has_a_preset_of_the_agent(name: str):
    paper = PAPERS[name]
    families = [family for family in FAMILIES if preset_path(paper.agent, family)]
    assert len(families) > 3
    for family in families:
        found, own = preset(name, family), preset(paper.agent, family)
        assert found.agent_name == paper.agent and dataclasses.replace(found, agent=own.agent) == own
        assert vars(found.agent) == {**vars(own.agent), **paper.settings}
        found.validate()


@pytest.mark.parametrize("name", [*NAMES, "the defaults of rma", "the defaults of distilled"])
def test_every_schedule_ends_within_the_run(name: str):
    """What is counted in iterations: a step size that falls, the teacher's time, the pull of ROA, imitation."""
    agent = name.split()[-1]
    config = preset(agent, "hopper_parameters") if agent in AGENTS else load_config(PRESETS / f"{name}.yaml")
    own, iterations = vars(config.agent), config.training.iterations
    assert own.get("lr_decay_from", 0) + own.get("lr_decay_updates", 0) <= iterations
    assert own.get("teacher_updates", 0) < iterations
    assert own.get("pull_from", 0) + own.get("pull_updates", 0) <= iterations / 2
    assert own.get("distil_updates", 0) + own.get("critic_updates", 0) < iterations


def small(config: RunConfig) -> RunConfig:
    """Return a configuration with tiny iterations."""
    return dataclasses.replace(
        config,
        family=dataclasses.replace(config.family, horizon=6),
        training=dataclasses.replace(
            config.training, iterations=1, tasks=3, envs_per_task=2, threads=1, device="cpu", checkpoint_every=1
        ),
        evaluation=dataclasses.replace(
            config.evaluation,
            tasks=2,
            envs_per_task=1,
            adaptations=1,
            seeds=(1,),
            bootstrap_samples=20,
            train_gap=False,
        ),
        tracking=dataclasses.replace(config.tracking, wandb="disabled"),
    )


@pytest.mark.parametrize("name", sampled(NAMES, 7))
def test_it_trains_updates_and_is_evaluated(name: str, tmp_path):
    config = small(load_config(PRESETS / f"{name}.yaml"))
    if isinstance(config.agent, DistilledSettings):
        oracle = small(preset("ppo", name.removeprefix("distilled_")))
        oracle = dataclasses.replace(oracle, training=dataclasses.replace(oracle.training, reveal_task=True))
        metarl.train(oracle, name="oracle", runs_dir=tmp_path)
        config = dataclasses.replace(config, agent=dataclasses.replace(config.agent, teacher=str(tmp_path / "oracle")))
    run = metarl.train(config, name=name, runs_dir=tmp_path)
    lines = read_metrics(run.directory)
    assert len(lines) == 1 and run.evaluation is not None
    for line in lines:
        assert all(math.isfinite(value) for value in line.values()), line
        assert line["faults"] == 0 and line["env_steps"] > 0
