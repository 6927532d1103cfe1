"""What is said at the start of training of agents that infer one task, where tasks change while a trial lasts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from metarl.agents.registry import AGENTS
from metarl.cli import app as cli
from metarl.config import preset, with_settings
from metarl.runs.run import Run, build
from metarl.training.changing import change_note
from tests.small_agents import small_options

ONE_TASK = ("pearl", "varibad", "prototype")
"""Agents with a posterior of one task or a mean over a whole trial."""
ALIKE = {"family.faults": ("weak",), "family.fault_onset": (0, 0)}
CHANGING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("quadruped", {"family.faults": ("weak",), "family.fault_onset": (100, 100)}),
    ("half_cheetah_mass", {"family.changes": 1}),
)


def note_of(agent: str, family: str, settings: dict[str, Any]) -> str:
    config = with_settings(preset(agent, family), settings)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, device="cpu"))
    return change_note(Run(Path(), config, *build(config), 0, 0))


@pytest.mark.parametrize(("family", "settings"), CHANGING)
@pytest.mark.parametrize("agent", ONE_TASK)
def test_it_says_that_what_was_before_a_change_still_counts_and_what_to_take(agent: str, family: str, settings):
    note = note_of(agent, family, settings)
    assert note.startswith(
        f"{agent} infers one task for a whole trial, but tasks of {family} change while a trial lasts"
    )
    assert "--agent rl2 and --agent distilled" in note


def test_a_critic_that_is_told_the_task_changes_nothing_of_it():
    settings = CHANGING[0][1] | {"agent.privileged_critic": True}
    assert note_of("varibad", "quadruped", settings) and not note_of("rl2", "quadruped", settings)


@pytest.mark.parametrize("agent", [agent for agent in AGENTS if agent not in ONE_TASK])
def test_nothing_is_said_of_agents_that_infer_no_such_task(agent: str):
    assert not note_of(agent, *CHANGING[1])


@pytest.mark.parametrize("agent", ONE_TASK)
def test_nothing_is_said_where_a_trial_is_of_one_task(agent: str):
    assert not note_of(agent, "half_cheetah_mass", {}) and not note_of(agent, "quadruped", ALIKE)


@pytest.mark.thorough
def test_training_says_it_once_at_its_start(tmp_path, tiny, capsys):
    options = [*tiny, *small_options("varibad"), "training.iterations=2", "training.checkpoint_every=1"]
    options += ["family.changes=1", "family.change_gap=5,5", "tracking.wandb=disabled"]
    where = ["--runs-dir", str(tmp_path), "--name", "r"]
    assert cli.main(["train", "--agent", "varibad", "--family", "half_cheetah_mass", *options, *where]) == 0
    said = capsys.readouterr().out
    assert said.count("note: varibad infers one task") == 1
    assert said.index("note: varibad") < said.index("iteration 1/2")
    assert cli.main(["train", "--resume", str(tmp_path / "r"), "training.iterations=3"]) == 0
    assert "note: varibad" not in capsys.readouterr().out
