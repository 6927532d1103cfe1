"""Training that meets tasks in a mirror, too: which, what agents learn from, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from metarl.cli import app as cli
from metarl.config import RunConfig, preset, with_settings
from metarl.envs.batch import BatchedEnv
from metarl.envs.registry import make_family
from metarl.evaluation.compare import family_for
from metarl.runs.run import Run, build
from metarl.runs.tracking import read_metrics
from metarl.training.world import TrainingWorld
from tests.small_agents import small_options

TINY = {"training.iterations": 2, "training.tasks": 4, "training.envs_per_task": 2, "training.threads": 1}
QUICK = {"evaluation.tasks": 2, "evaluation.envs_per_task": 1, "tracking.wandb": "disabled", "training.device": "cpu"}


def asked(agent: str, family: str, **settings: object) -> RunConfig:
    return with_settings(preset(agent, family), {**TINY, **QUICK, "training.mirror": True, **settings})


def made(config: RunConfig) -> Run:
    return Run(Path(), config, *build(config), 0, 0)


def test_each_task_is_met_as_it_is_or_in_a_mirror_by_seed_and_iteration():
    run = made(asked("rl2", "point_goal", **{"training.tasks": 40}))
    world, tasks = TrainingWorld(run), run.family.sample(40, np.random.default_rng(0))

    def sides(key: int) -> list[bool]:
        world.begin(tasks, key)
        met = world._players[0].env.tasks  # pyright: ignore[reportAttributeAccessIssue]
        assert [dataclasses.replace(task, mirrored=False) for task in met] == tasks
        return [task.mirrored for task in met]

    assert sides(0) == sides(0) != sides(1)
    assert 10 < sum(sides(0)) < 30


@pytest.mark.thorough
@pytest.mark.parametrize("agent", ["ppo", "rl2", "maml", "rma"])
def test_agents_of_each_kind_of_training_learn_from_both_sides(agent: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "--agent", agent, "--family", "point_goal", *small_options(agent), "family.horizon=12"]
    returns = []
    for name in ("true", "false"):
        told = [f"{key}={value}" for key, value in {**TINY, **QUICK, "training.mirror": name}.items()]
        assert cli.main([*words, "--name", name, *told]) == 0
        returns.append([line["return/before"] for line in read_metrics(Path("runs") / name)])
    assert np.isfinite(returns).all() and returns[0] != returns[1]


@pytest.mark.thorough
def test_an_oracle_of_both_sides_is_judged_with_the_categories_that_it_met():
    config = asked("ppo", "ant_crippled", **{"training.reveal_task": True})
    run, family = made(config), make_family(config.family)
    task = family.task({"crippled_leg": 3})
    for seen in (run.family, family_for(config, family)):
        assert seen.observation_names == run.family.observation_names
        (observation,) = BatchedEnv(seen, 1, 1, 1, like=task).reset([np.random.default_rng(0)])
        np.testing.assert_array_equal(observation[0, -4:], [0, 0, 0, 1])


def test_what_has_no_mirror_image_is_the_users_mistake_and_leaves_no_run(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["train", "--agent", "rl2", "--family", "half_cheetah_mass", "--name", "none", "training.mirror=true"]
    assert cli.main([*words, "tracking.wandb=disabled"]) == 2
    assert "training.mirror: the robot moves in the mirror's plane alone" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "none").exists()


@pytest.mark.thorough
def test_a_teacher_that_met_one_side_cannot_teach_both(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = [*(f"{key}={value}" for key, value in {**TINY, **QUICK}.items()), "family.horizon=12"]
    ant = ["--family", "ant_crippled", *tiny]
    assert cli.main(["train", "--agent", "ppo", *ant, "--name", "oracle", "training.reveal_task=true"]) == 0
    pupil = ["train", "--agent", "distilled", *ant, "agent.hidden_size=8", "agent.distil_updates=1"]
    assert cli.main([*pupil, "agent.teacher=runs/oracle", "training.mirror=true"]) == 2
    assert "an oracle that met no task in a mirror, and this run does" in capsys.readouterr().err
