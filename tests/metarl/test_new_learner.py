"""A learner that metarl does not know is registered by one line, and does what the others do."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import metarl
from metarl.agents.registry import AGENTS
from metarl.cli.app import main
from metarl.config import EvaluationSettings, RunConfig, TrackingSettings, TrainingSettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.runs.checkpoint import OWN_FILES, CheckpointStore, digest, strings_in
from tests.metarl.new_learners import NEW

ROOT = Path(__file__).parents[2]
TRAINING = TrainingSettings(iterations=4, tasks=3, envs_per_task=4, threads=1, checkpoint_every=2, keep_checkpoints=1)
EVALUATION = EvaluationSettings(tasks=3, envs_per_task=2, seeds=(1,), adaptations=1, bootstrap_samples=20)


def register(names=NEW):
    AGENTS.update({name: NEW[name] for name in names})


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for name in NEW:
        monkeypatch.setitem(AGENTS, name, None)  # it is taken out again after the test
    register()


def config(name, **training):
    return RunConfig(
        NEW[name].settings(),
        PointGoalSettings(horizon=12),
        dataclasses.replace(TRAINING, **training),
        EVALUATION,
        TrackingSettings(wandb="disabled"),
    )


def record(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{name: x for name, x in line.items() if not name.startswith(("time", "env_steps_per"))} for line in lines]


def agent_state(run, which="last"):
    return CheckpointStore(run / "checkpoints").load(which)[1]["agent"]


def require_same_run(first, second):
    assert record(first) == record(second)
    assert digest(agent_state(first)) == digest(agent_state(second))


@pytest.fixture(params=NEW)
def trained(request, tmp_path):
    return metarl.train(config(request.param), "whole", tmp_path)


@pytest.mark.thorough
def test_it_trains_and_is_evaluated_and_compared(trained, tmp_path):
    lines = record(trained.directory)
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["env_steps"] == 2 * 3 * 4 * 12  # shots, tasks, envs, steps
    name = trained.config.agent_name
    assert np.isfinite([line["agent/gradient_norm" if name == "drift" else "agent/loss"] for line in lines]).all()
    again = metarl.evaluate(metarl.load(trained.directory))
    assert again.scalars == trained.evaluation.scalars and np.isfinite(list(again.scalars.values())).all()
    other = metarl.train(config("drift" if name == "imitator" else "imitator"), "other", tmp_path)
    compared = metarl.compare([trained, other], output=tmp_path / "comparison")
    assert len(compared.agents) == 2 and len(compared.improvements) == 1
    assert main(["evaluate", str(trained.directory), str(other.directory), "--output", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "improvement.png").exists()


@pytest.mark.thorough
def test_it_learns(tmp_path):
    run = metarl.train(config("drift", iterations=40, envs_per_task=20, tasks=8), "run", tmp_path)
    after = [line["return/after"] for line in record(run.directory)]
    assert np.mean(after[-5:]) > np.mean(after[:5]) + 0.3


@pytest.mark.thorough
def test_resumed_it_goes_on_as_if_it_had_not_stopped(trained, tmp_path):
    name = trained.config.agent_name
    stopped = metarl.train(config(name, iterations=2), "stopped", tmp_path).directory
    assert main(["train", "--resume", str(stopped), "training.iterations=4"]) == 0
    require_same_run(trained.directory, stopped)


@pytest.mark.thorough
def test_killed_between_a_segment_and_its_checkpoint_it_loses_nothing_that_a_checkpoint_names(tmp_path):
    """SIGKILL after iteration 3, whose segment is written and whose checkpoint is not."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.metarl.test_new_learner import config, register\n"
        "from metarl.runs.run import start_run\n"
        "from metarl.training import loop\n"
        "register()\n"
        "die = lambda run, metrics: run.iteration == 3 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "made = config('imitator')\n"
        "loop.train(made, start_run(made, Path(sys.argv[1]), 'killed'), on_iteration=die)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    killed = tmp_path / "killed"
    left = set(os.listdir(killed / OWN_FILES))
    assert len(left) == 3 and set(agent_state(killed)["replay"]["segments"]) == {f for f in left if "_000003_" not in f}
    metarl.resume(killed)
    require_same_run(metarl.train(config("imitator"), "whole", tmp_path).directory, killed)


@pytest.mark.thorough
def test_segments_go_with_the_last_checkpoint_that_names_them(tmp_path, capsys):
    run = metarl.train(config("imitator", iterations=9), "run", tmp_path).directory
    named = strings_in([agent_state(run), agent_state(run, "best")])
    kept = set(os.listdir(run / OWN_FILES))
    assert kept == {name for name in named if name.startswith("segment_")}
    assert len(agent_state(run)["replay"]["segments"]) == 3 <= len(kept) < 9
    (run / OWN_FILES / agent_state(run)["replay"]["segments"][0]).unlink()
    assert main(["train", "--resume", str(run), "training.iterations=10"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "a segment of the replay buffer, is missing; restore the file, or start a new run" in said
    assert len(record(run)) == 9 and metarl.load(run).config.training.iterations == 9  # it left everything as it was


def test_it_is_exported_and_acts_on_a_robot(trained, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "policy.onnx"
    assert main(["export", str(trained.directory), "--output", str(path)]) == 0
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    robot = metarl.load(trained.directory).start(explore="never")
    rng = np.random.default_rng(0)
    for _ in range(12):
        observation = rng.normal(size=2).astype(np.float32)
        action = robot.act(observation)
        [expected] = session.run(["action"], {"observation": observation[None]})
        assert action.shape == (2,)
        np.testing.assert_allclose(action, expected[0], rtol=1e-5, atol=1e-6)
        robot.observe(0.5, False, False)
    robot = metarl.load(trained.directory).start()
    while robot.learning:
        for reward in rng.normal(size=12):
            robot.act(rng.normal(size=2))
            robot.observe(reward, False, False)
        robot.end_episode()
    assert robot.adapted == int(trained.agent.facts.adapts)
