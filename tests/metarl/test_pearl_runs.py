"""Runs of PEARL: its replay is written once, and a run that was killed goes on as if it had not been."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import metarl
from metarl.agents.pearl.settings import PearlSettings
from metarl.config import EvaluationSettings, RunConfig, TrackingSettings, TrainingSettings, preset
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.runs.checkpoint import OWN_FILES, CheckpointStore, digest

ROOT = Path(__file__).parents[2]
AGENT = PearlSettings(
    hidden_sizes=(8,),
    encoder_sizes=(8,),
    tasks_per_update=3,
    batch_size=6,
    context_size=6,
    updates_per_step=0.02,
    action_bound=0.1,
)
TRAINING = TrainingSettings(
    iterations=4, tasks=3, envs_per_task=2, adaptations=1, threads=1, checkpoint_every=2, keep_checkpoints=1
)
EVALUATION = EvaluationSettings(tasks=3, envs_per_task=2, seeds=(1,), adaptations=1, bootstrap_samples=20)


def config(**training) -> RunConfig:
    return RunConfig(
        AGENT,
        PointGoalSettings(horizon=12),
        dataclasses.replace(TRAINING, **training),
        EVALUATION,
        TrackingSettings(wandb="disabled"),
    )


def record(run: Path):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{name: x for name, x in line.items() if not name.startswith(("time", "env_steps_per"))} for line in lines]


def agent_state(run: Path):
    return CheckpointStore(run / "checkpoints").load("last")[1]["agent"]


@pytest.mark.thorough
@pytest.mark.parametrize("distinct_tasks", [pytest.param(0, marks=pytest.mark.slow), 4])
def test_killed_and_resumed_it_goes_on_as_if_it_had_not_stopped(distinct_tasks: int, tmp_path):
    """SIGKILL after iteration 3, whose transitions are written and whose checkpoint is not."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.metarl.test_pearl_runs import config\n"
        "from metarl.runs.run import start_run\n"
        "from metarl.training import loop\n"
        "die = lambda run, metrics: run.iteration == 3 and os.kill(os.getpid(), signal.SIGKILL)\n"
        f"made = config(distinct_tasks={distinct_tasks})\n"
        "loop.train(made, start_run(made, Path(sys.argv[1]), 'killed'), on_iteration=die)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    killed = tmp_path / "killed"
    before = {file.name: file.stat().st_mtime_ns for file in (killed / OWN_FILES).iterdir()}
    named = agent_state(killed)["replay"]["segments"]
    assert len(before) == 3 and len(named) == 2 and set(named) < set(before)
    metarl.resume(killed)
    whole = metarl.train(config(distinct_tasks=distinct_tasks), "whole", tmp_path).directory
    assert record(whole) == record(killed) and digest(agent_state(whole)) == digest(agent_state(killed))
    assert {name: (killed / OWN_FILES / name).stat().st_mtime_ns for name in named} == {x: before[x] for x in named}
    assert set(os.listdir(killed / OWN_FILES)) == set(os.listdir(whole / OWN_FILES))


def test_a_checkpoint_does_not_hold_the_replay(tmp_path):
    run = metarl.train(config(envs_per_task=40), "run", tmp_path).directory
    [checkpoint] = (run / "checkpoints").glob("*4.pt")
    assert checkpoint.stat().st_size < sum(file.stat().st_size for file in (run / OWN_FILES).iterdir()) / 2
    lines = record(run)
    assert [line["agent/replay_steps"] for line in lines] == [
        sum(x["env_steps"] for x in lines[k : k + 1]) for k in range(4)
    ]


@pytest.mark.slow
def test_it_learns_to_find_the_goal(tmp_path):
    """In 32,000 env steps. An agent that does not know the goal, and stays where it is, has a return of -7.6."""
    goals = preset("pearl", "point_goal")
    made = dataclasses.replace(
        goals,
        agent=dataclasses.replace(goals.agent, updates_per_step=0.3),
        family=dataclasses.replace(goals.family, horizon=20),
        training=dataclasses.replace(goals.training, iterations=40, threads=1),
        tracking=TrackingSettings(wandb="disabled"),
    )
    run = metarl.train(made, "run", tmp_path)
    assert run.evaluation is not None
    before, after = (run.evaluation.scalars[f"evaluation/return_{k}"] for k in (0, 1))
    assert after > -7.0 and after > before + 1.5
