"""What is said at the start of training of a memory that reads less than a trial."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from metarl.agents.cores.registry import CORES
from metarl.cli import app as cli
from metarl.config import RunConfig, preset, with_settings
from metarl.runs.run import Run, build
from metarl.training.reach import WINDOWED, reach_note


def note_of(agent: str, **settings: Any) -> str:
    config = with_settings(preset(agent, "half_cheetah_mass"), {f"agent.{k}": v for k, v in settings.items()})
    return reach_note(made(config))


def made(config: RunConfig) -> Run:
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, device="cpu", adaptations=1))
    return Run(Path(), config, *build(config), 0, 0)


@pytest.mark.parametrize(
    ("agent", "reads"),
    [
        ("transformer", "transformer reads 126 slots back (6.3 s)"),
        ("snail", "snail reads 252 slots back (12.6 s)"),
    ],
)
def test_it_says_how_far_the_memory_reads_and_what_reads_all_of_the_trial(agent: str, reads: str):
    note = note_of(agent)
    assert note.startswith(f"agent.memory={reads}, and a trial has 402 (20 s): towards its end the beginning is")
    found = re.search(r"agent.attention_window=(\d+) or agent.memory_layers=(\d+) reads all of it$", note)
    assert found is not None
    window, layers = map(int, found.groups())
    assert not note_of(agent, attention_window=window) and not note_of(agent, memory_layers=layers)
    assert note_of(agent, attention_window=window - 1) and note_of(agent, memory_layers=layers - 1)


@pytest.mark.parametrize("agent", ["varibad", "estimator", "rma", "distilled"])
def test_every_agent_that_holds_such_a_memory_has_the_note(agent: str):
    assert "reads 126 slots back" in note_of(agent, memory="transformer")


@pytest.mark.parametrize("memory", [memory for memory in CORES if memory not in WINDOWED])
def test_nothing_is_said_of_other_memories(memory: str):
    assert not note_of("rl2", memory=memory)


@pytest.mark.parametrize("agent", ["maml", "ppo", "recurrent_ppo", "prototype"])
def test_nothing_is_said_of_agents_without_a_choice_of_memory(agent: str):
    assert not note_of(agent)


@pytest.mark.thorough
def test_training_says_it_once_at_its_start(tmp_path, capsys):
    options = ["training.iterations=2", "training.tasks=2", "training.envs_per_task=1", "family.horizon=10"]
    options += ["agent.attention_window=4", "evaluation.tasks=2", "evaluation.envs_per_task=1", "evaluation.seeds=1"]
    options += ["training.checkpoint_every=1", "training.threads=1", "tracking.wandb=disabled"]
    where = ["--runs-dir", str(tmp_path), "--name", "r"]
    assert cli.main(["train", "--agent", "transformer", "--family", "point_goal", *options, *where]) == 0
    said = capsys.readouterr().out
    assert said.count("note: agent.memory=transformer reads 6 slots back") == 1
    assert said.index("note: agent.memory") < said.index("iteration 1/2")
    assert cli.main(["train", "--resume", str(tmp_path / "r"), "training.iterations=3"]) == 0
    assert "note: agent.memory" not in capsys.readouterr().out
