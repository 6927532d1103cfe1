"""How much adaptation can gain: the numbers, what is said of them, the study in its folder, the probe, the command."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from metarl.agents.registry import PAPERS, make_agent
from metarl.agents.sb3.settings import PpoSettings
from metarl.cli import app as cli
from metarl.config import EvaluationSettings, RunConfig, config_from_dict, config_to_dict, is_preset, read_run_config
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family
from metarl.envs.reveal import reveal, told_columns
from metarl.envs.robots.half_cheetah_settings import (
    HalfCheetahDisabledJointSettings,
    HalfCheetahMassSettings,
    HalfCheetahVelocitySettings,
)
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.errors import UsageError
from metarl.evaluation.comparison import Compared, Comparison, Trained
from metarl.evaluation.contrasts import interval_of_levels
from metarl.evaluation.headroom import headroom_of
from metarl.evaluation.results import AgentResult, Source
from metarl.evaluation.statistics import interquartile_mean, summarise
from metarl.headroom.arms import ARMS, CORE, SCHEDULES, Arm, config_of, core_arms, read_arm
from metarl.headroom.judging import unequal
from metarl.headroom.probe import actions, probe
from metarl.headroom.study import STUDY, Study, work
from metarl.reporting.headroom_report import in_time, table
from metarl.runs.entries import but_for_the_seed
from metarl.runs.interrupt import Stop
from metarl.runs.run import Run, build, start_run
from metarl.runs.run_lock import RunBusy, hold
from metarl.runs.tracking import read_metrics
from metarl.training.loop import Counters, iterate
from metarl.training.players import VecEnvPlayer
from metarl.training.world import TrainingWorld
from tests.metarl.test_robot import FAMILY, MODEL

TINY = ["training.tasks=3", "training.envs_per_task=2", "family.horizon=10", "evaluation.tasks=4"]
TINY += ["evaluation.bootstrap_samples=50", "evaluation.seeds=1", "tracking.wandb=disabled"]

RESULTS = Path(__file__).parents[2] / "results"
RECORDED = sorted(RESULTS.glob("*/study.json"))


def arm_of(name: str, recorded: dict) -> Arm:
    """The arm that a study recorded, by its name or, under a label, by what it is."""
    like = ((arm.agent, dict(arm.settings)) == (recorded["agent"], recorded["settings"]) for arm in ARMS.values())
    found = ARMS.get(name) or next(arm for arm, same in zip(ARMS.values(), like, strict=True) if same)
    return dataclasses.replace(found, name=name, budget=recorded.get("budget", found.budget))


def compared(label: str, returns: np.ndarray) -> Compared:
    """An agent with these returns [seed, shot, task]."""
    summary = summarise(returns, 200, np.random.default_rng(0))
    result = AgentResult(summary=summary, returns=returns, measures={}, recovery=None, faults=0, source=None)
    return Compared(label=label, result=result, explore=False, envs_per_task=1)


def comparison(**levels: tuple[float, float]) -> Comparison:
    """Agents whose returns are noise about a level in the first and in the last episode."""
    rng = np.random.default_rng(0)
    task = rng.normal(size=(3, 1, 40))
    agents = [
        compared(label, np.array(level)[None, :, None] + task + 0.1 * rng.normal(size=(3, 2, 40)))
        for label, level in levels.items()
    ]
    settings = EvaluationSettings(tasks=40, adaptations=1, bootstrap_samples=200)
    return Comparison(family="point_goal", family_settings={}, settings=settings, tasks=[], agents=agents)


def compared_below() -> Compared:
    """An agent that is surely worse than the randomised one."""
    return next(agent for agent in comparison(below=(5, 5)).agents)


class TestNumbers:
    def test_lead_and_recovered_shares_are_those_of_the_levels(self):
        own = comparison(randomised=(10, 10), oracle=(20, 20), memory=(12, 17), memory_reset=(9, 10))
        found = headroom_of(own, "oracle", "randomised", {"memory": "memory_reset"}, {"memory_reset"})
        assert found.lead.estimate == pytest.approx(10, abs=0.2) and found.lead.low < 10 < found.lead.high
        assert found.share.estimate == pytest.approx(0.5, abs=0.02)
        assert found.recovered["memory"].estimate == pytest.approx(0.7, abs=0.02)
        assert found.at_once["memory"].estimate == pytest.approx(0.2, abs=0.02)
        assert found.recovered["memory_reset"].estimate == pytest.approx(0.0, abs=0.02)
        assert found.verdict[0].startswith("adaptation can gain 50%") and "memory recovers 70%" in found.verdict[1]
        assert "memory reset before every action it recovers 0%" in found.verdict[2].replace("-0%", "0%")
        assert found.over_reset["memory"].estimate == pytest.approx(7, abs=0.1) and "not shown" not in found.verdict[2]

    def test_a_memory_that_adds_nothing_is_told(self):
        own = comparison(randomised=(10, 10), oracle=(20, 20), memory=(15, 15), memory_reset=(15, 15))
        found = headroom_of(own, "oracle", "randomised", {"memory": "memory_reset"}, {"memory_reset"})
        assert found.over_reset["memory"].low < 0 < found.over_reset["memory"].high
        assert "memory recovers 5" in found.verdict[1] and "is not shown to add any return" in found.verdict[2]

    def test_what_is_judged_from_the_randomised_runs_shares_their_training_seeds(self):
        """How good a seed became counts for both alike: one that changes nothing recovers surely nothing."""
        rng = np.random.default_rng(0)
        tasks, seeds = rng.normal(size=(3, 40)), np.array([-6.0, 0.0, 6.0])

        def agent(label: str, level: float, spread: float, folder: str) -> Compared:
            levels = level + spread * seeds
            returns = [own + np.stack([tasks, tasks], axis=1) for own in levels]  # [seed, shot, task] of each run
            whole, *results = (
                AgentResult(summary=summarise(own, 50, rng), returns=own, faults=0, source=Source("run", 1, 1))
                for own in (np.mean(returns, axis=0), *returns)
            )
            runs = [Trained.of(i, Path(f"/{folder}{i}"), own) for i, own in enumerate(results)]
            return Compared(label=label, result=whole, explore=False, envs_per_task=1, folder=runs[0].folder, runs=runs)

        agents = [agent("randomised", 10, 1, "r"), agent("oracle", 60, 0.1, "o")]
        agents += [agent("fine_tuned", 10, 1, "r"), agent("another", 10, 1, "a")]
        found = headroom_of(dataclasses.replace(comparison(x=(1, 1)), agents=agents), "oracle", "randomised")
        for shares in (found.recovered, found.at_once):
            assert (shares["fine_tuned"].low, shares["fine_tuned"].high) == (0, 0)
            assert shares["another"].low < -0.1 and shares["another"].high > 0.1

    def test_agents_below_the_randomised_policy_are_called_so(self):
        own = comparison(randomised=(10, 10), oracle=(20, 20), memory=(5, 6))
        found = headroom_of(own, "oracle", "randomised")
        assert "every agent is worse than the randomised policy; memory comes closest, with -40%" in found.verdict[1]

    def test_a_lead_larger_than_the_oracles_return_is_said_as_return(self):
        found = headroom_of(comparison(randomised=(-110, -110), oracle=(-10, -10)), "oracle", "randomised")
        assert re.match(r"adaptation can gain (99\.|100)\S* \[.*\] of return by knowing the task$", found.verdict[0])

    def test_the_lead_at_once_is_that_of_the_first_episode(self):
        """A fault begins after it: both policies lose by it, and who does as the randomised one recovers nothing."""
        found = headroom_of(comparison(randomised=(6, 3), oracle=(7, 5), same=(6, 3)), "oracle", "randomised")
        for shares in (found.at_once, found.recovered):
            assert shares["same"].low < 0 < shares["same"].high

    def test_who_is_shown_to_recover_comes_before_who_might(self):
        own = comparison(randomised=(10, 10), oracle=(20, 20), memory=(15, 15), unsure=(16, 16), teacher=(19, 19))
        agents = {agent.label: agent for agent in own.agents}
        spread = np.array([-9.0, 0.0, 9.0])[:, None, None, None] + agents["unsure"].result.returns
        source = Source("run", 1, 1)
        results = [dataclasses.replace(agents["unsure"].result, returns=own, source=source) for own in spread]
        runs = [Trained.of(k, None, result) for k, result in enumerate(results)]
        agents["unsure"] = dataclasses.replace(agents["unsure"], runs=runs)
        agents["teacher"] = dataclasses.replace(agents["teacher"], oracle=True)
        own = dataclasses.replace(own, agents=list(agents.values()))
        found = headroom_of(own, "oracle", "randomised")
        assert found.recovered["unsure"].estimate > found.recovered["memory"].estimate > 0.4
        assert re.match(r"memory recovers \d+% \[.*\] of it; unsure, with .*, is not shown to", found.verdict[1])
        assert found.recovered["teacher"] is not None and "teacher" not in " ".join(found.verdict)
        worse = dataclasses.replace(
            own, agents=[agents[label] for label in ("randomised", "oracle", "unsure")] + [compared_below()]
        )
        found = headroom_of(worse, "oracle", "randomised")
        assert found.verdict[1].startswith("no agent is shown to recover any of it; unsure comes closest")

    def test_returns_near_zero_are_no_shares(self):
        found = headroom_of(comparison(randomised=(-0.2, -0.2), oracle=(0.05, 0.05)), "oracle", "randomised")
        assert "of return" in found.verdict[0] and "%" not in found.verdict[0]

    def test_returns_below_zero_are_shares_of_their_size(self):
        found = headroom_of(comparison(randomised=(-30, -30), oracle=(-20, -20)), "oracle", "randomised")
        assert found.share.estimate == pytest.approx(0.5, abs=0.02) and found.recovered == {}

    @pytest.mark.parametrize(
        ("oracle", "said"),
        [
            (10.0, "adaptation can gain at most "),
            (8.0, "the oracle is worse than the randomised policy: its lead is -2"),
        ],
    )
    def test_without_a_lead_it_says_so_and_who_is_better_all_the_same(self, oracle: float, said: str):
        own = comparison(
            randomised=(10, 10), oracle=(oracle, oracle), memory=(12, 17), worse=(9, 9), memory_reset=(12, 12)
        )
        found = headroom_of(own, "oracle", "randomised", {"memory": "memory_reset"}, {"memory_reset"})
        assert said in found.verdict[0] and found.recovered["memory"] is None
        assert found.over_randomised["memory"].estimate == pytest.approx(7, abs=0.1)
        assert found.over_randomised["worse"].high < 0 and set(found.over_randomised) == {
            "memory",
            "worse",
            "memory_reset",
        }
        [better] = found.verdict[1:]
        assert re.match(
            r"memory has more return than the randomised policy, by (6\.9|7\.?)\d* \[[^]]*\]: it has", better
        )
        nobody = dataclasses.replace(own, agents=[a for a in own.agents if not a.label.startswith("memory")])
        assert len(headroom_of(nobody, "oracle", "randomised").verdict) == 1
        [cell] = [row[5] for row in table(own, found, {}).rows if row[0] == "oracle"]
        assert cell.startswith("lead ") and cell.endswith("worse") == (oracle < 10)

    def test_a_lead_that_is_not_shown_is_no_upper_bound(self):
        """One of 10 in the mean, with training seeds that differ by more, may be large: nothing is excluded."""
        own = comparison(randomised=(100, 100), oracle=(110, 110))
        agents = {agent.label: agent for agent in own.agents}
        source, result = Source("run", 1, 1), agents["oracle"].result
        spread = np.array([-9.0, 0.0, 9.0])[:, None, None, None] + result.returns
        results = [dataclasses.replace(result, returns=each, source=source) for each in spread]
        runs = [Trained.of(k, None, each) for k, each in enumerate(results)]
        unsure = dataclasses.replace(
            own, agents=[agents["randomised"], dataclasses.replace(agents["oracle"], runs=runs)]
        )
        found = headroom_of(unsure, "oracle", "randomised", moving="goal_y")
        assert found.lead.low < 0 < found.lead.high and found.share.high > 0.1
        assert found.verdict[0].startswith("no headroom is shown") and "cannot" not in found.verdict[0]
        assert "More seeds" in found.verdict[0] and "goal_y moves the oracle's actions most" in found.verdict[0]

    @pytest.mark.parametrize("path", sorted(RESULTS.glob("**/*headroom.json")), ids=lambda path: path.parent.name)
    def test_a_record_whose_oracle_is_worse_says_so(self, path: Path):
        headroom = json.loads(path.read_text())["headroom"]
        assert not headroom or ("worse" in headroom["verdict"][0]) == (headroom["lead"]["high"] < 0)

    def test_the_interval_of_one_training_seed_is_that_of_resampled_tasks(self):
        rng = np.random.default_rng(1)
        a, b = rng.normal(1, 1, size=(2, 1, 60))
        found = interval_of_levels([a, b], (0, 1), lambda x: x[..., 0] - x[..., 1], 4000, rng)
        draws = rng.integers(0, 60, (4000, 60))
        by_hand = interquartile_mean(a[0][draws]) - interquartile_mean(b[0][draws])
        np.testing.assert_allclose((found.low, found.high), np.quantile(by_hand, [0.025, 0.975]), atol=0.05)

    def test_more_training_seeds_that_differ_widen_it(self):
        rng = np.random.default_rng(2)
        task = rng.normal(size=(1, 1, 60))
        alike, apart = (task + np.array(offsets).reshape(-1, 1, 1) for offsets in ([0, 0, 0], [-1, 0, 1]))
        widths = []
        for own in (alike, apart):
            found = interval_of_levels([own, task], (0, 1), lambda x: x[..., 0] - x[..., 1], 300, rng)
            widths.append(found.high - found.low)
        assert widths[0] < 0.1 and widths[1] == pytest.approx(2 * 4.303 / np.sqrt(3), rel=0.2)  # Student's t, 2 d.o.f.


class TestArms:
    @pytest.mark.parametrize("name", ARMS)
    def test_each_has_the_env_steps_and_schedules_as_long_as_the_run(self, name: str):
        arm, base = ARMS[name], RunConfig(family=PointGoalSettings())
        configs = [config_of(arm, base, {}, budget, 100) for budget in (1e6, 4e6)]
        for config, budget in zip(configs, (1e6, 4e6), strict=True):
            t = config.training
            steps = t.iterations * t.tasks * t.envs_per_task * (t.adaptations + 1) * 100
            assert abs(steps - budget) <= steps / t.iterations
            config.validate()
        for setting in SCHEDULES:
            short, long = (getattr(config.agent, setting, 0) for config in configs)
            assert (short == long == 0) or long / short == pytest.approx(4, rel=0.1)

    def test_all_meet_the_study_s_family_and_evaluation(self):
        base = RunConfig(family=PointGoalSettings(goal_range=0.3), evaluation=EvaluationSettings(tasks=7))
        for arm in map(read_arm, CORE):
            config = config_of(arm, base, {"training.lives": True}, 1e5, 100)
            assert config.family == base.family and config.training.lives
            assert dataclasses.replace(config.evaluation, explore=True) == base.evaluation

    @pytest.mark.parametrize("also", ["none", "ood"])
    def test_those_of_a_study_that_names_none_have_as_many_env_steps_with_their_teachers(self, also, tmp_path: Path):
        evaluation = EvaluationSettings(split="ood" if also == "ood" else "held_out")
        base = RunConfig(family=PointGoalSettings(), evaluation=evaluation)
        study = Study(tmp_path, base, core_arms(1e6), {}, 1e6, (1,))
        assert [arm.name for arm in study.arms] == list(CORE) and study.also_split == also

        def steps(name: str) -> int:
            t = study.config(next(arm for arm in study.arms if arm.name == name), 1).training
            return t.iterations * t.tasks * t.envs_per_task * (t.adaptations + 1) * study.family.horizon

        spent = {arm.name: steps(arm.name) for arm in study.arms}
        for arm in study.arms:
            if teacher := study.teacher_of(arm):
                spent[arm.name] += steps(teacher)
        assert spent.pop("teacher") == pytest.approx(5e5, rel=0.05)
        assert list(spent.values()) == pytest.approx([1e6] * len(spent), rel=0.05)

    def test_an_arm_that_adapts_from_episodes_apart_still_does(self):
        base = RunConfig(family=HalfCheetahVelocitySettings())
        configs = [config_of(ARMS[name], base, {}, 1e5, 200) for name in ("pearl", "memory")]
        assert [config.evaluation.explore_to_adapt for config in configs] == [True, False]

    def test_where_tasks_change_all_arms_are_trained_on_whole_trials(self, tmp_path: Path):
        for changes, expected in ((0, 0), (1, 1)):
            base = RunConfig(
                family=HalfCheetahMassSettings(changes=changes), evaluation=EvaluationSettings(adaptations=1)
            )
            study = Study(tmp_path, base, [ARMS["oracle"], ARMS["memory"]], {}, 1e5, (1,))
            assert [study.config(arm, 1).training.adaptations for arm in study.arms] == [expected, 1]

    @pytest.mark.parametrize("changes", [0, 1])
    def test_where_tasks_change_all_arms_have_the_budget_and_play_whole_trials(self, changes: int, tmp_path: Path):
        family = HalfCheetahMassSettings(horizon=20, changes=changes, change_gap=(25, 35))
        base = RunConfig(family=family, evaluation=EvaluationSettings(adaptations=1))
        small = {"training.tasks": 2, "training.envs_per_task": 1}
        study = Study(tmp_path, base, [ARMS["oracle"], ARMS["memory"]], small, 400, (1,))
        for arm in study.arms:
            config = study.config(arm, 1)
            world, counters = TrainingWorld(Run(tmp_path, config, *build(config, "cpu"), 0, 0)), Counters()
            iterate(world, counters)
            assert config.training.iterations * counters.env_steps == 400, arm.name
            [player] = world._players
            if isinstance(player, VecEnvPlayer):  # `TaskVecEnv` is tested to meet in each what its task has then
                assert {episode.shot for episode in player.env.episodes} == {*range(1 + changes)}

    @pytest.mark.parametrize("name", PAPERS)
    def test_that_of_a_method_trains_what_the_method_s_name_does(self, name: str):
        base, agent = RunConfig(family=PointGoalSettings()), PAPERS[name].agent
        found, named = (config_of(arm, base, {}, 1e6, 100) for arm in (ARMS[name], Arm(name, name)))
        assert found == named and ARMS[name].remembers == (agent != "maml")

    @pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
    def test_each_is_what_studies_have_recorded(self, path: Path):
        for name, recorded in json.loads(path.read_text())["arms"].items():
            arm, settings = arm_of(name, recorded), {k: v for k, v in recorded.items() if k != "budget"}
            assert settings == {"agent": arm.agent, "settings": dict(arm.settings)}

    @pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
    def test_studies_that_are_kept_are_still_those_of_their_settings(self, path: Path):
        kept = json.loads(path.read_text())
        base = config_from_dict({"agent": {"name": "ppo"}, "family": kept["family"]}, saved=True)
        taught = kept["arms"].get("teacher", {})  # it is added, but where it has a budget of its own
        arms = [arm_of(name, own) for name, own in kept["arms"].items() if own is not taught or "budget" in own]
        study = Study(path.parent, base, arms, kept["given"], kept["budget"], (1,))
        assert study.recorded() == kept

    def test_memories_and_heads_are_recorded_as_settings(self):
        memories = {"lstm", "linear", "transformer", "snail", "external", "history", "stack"}
        settings = {name: {"agent.memory": name} for name in memories} | {"frames": {"agent.memory": "stack"}}
        settings |= {name: {"agent.head": name} for name in ("film", "hypernetwork")}
        found = {name: dict(arm.settings) for name, arm in ARMS.items() if arm.agent == "rl2" and arm.settings}
        assert found == settings and all(ARMS[name].remembers for name in settings)
        assert (ARMS["roa"].agent, dict(ARMS["roa"].settings)) == ("rma", {"agent.stages": "roa"})

    def test_an_arm_can_be_changed_and_named(self):
        arm = read_arm("memory:agent.hidden-size=32,agent.memory=lstm,label=lstm_32")
        assert arm.name == "lstm_32" and dict(arm.settings) == {"agent.hidden_size": 32, "agent.memory": "lstm"}

    def test_a_method_has_the_preset_of_its_agent(self):
        arms = {name: is_preset(ARMS[name].agent, "ant_goal") for name in ("fomaml", "lstm", "memory", "randomised")}
        assert arms == {"fomaml": True, "lstm": True, "memory": True, "randomised": False}

    def test_one_may_have_env_steps_of_its_own_and_the_record_says_so(self, tmp_path: Path):
        longer = read_arm("randomised:budget=4e6,label=longer")
        base = RunConfig(family=PointGoalSettings())
        iterations = [config_of(arm, base, {}, 1e6, 100).training.iterations for arm in (ARMS["randomised"], longer)]
        assert iterations[1] / iterations[0] == pytest.approx(4, rel=0.05)
        study = Study(tmp_path, base, [ARMS["randomised"], longer], {}, 1e6, (1,))
        study.record()
        recorded = json.loads((tmp_path / STUDY).read_text())
        assert recorded["arms"]["longer"]["budget"] == 4e6 and "budget" not in recorded["arms"]["randomised"]


class TestStudy:
    @pytest.fixture(scope="class")
    @classmethod
    def studied(cls, tmp_path_factory) -> tuple[Path, list[str]]:
        folder = tmp_path_factory.mktemp("studied")
        arguments = ["headroom", "point_goal", "--budget", "240", "--seeds", "1", "--runs-dir", str(folder)]
        arguments += ["--arms", "randomised", "fine_tuned", "memory:agent.hidden_size=8", "oracle"]
        arguments += ["distilled:agent.hidden_size=8,agent.distil_updates=1", *TINY]
        assert cli.main([*arguments, "--threads", "1"]) == 0
        return folder / "headroom_point_goal", arguments

    @pytest.mark.thorough
    def test_every_arm_is_trained_with_every_seed_and_judged_on_the_same_tasks(self, studied):
        folder, _ = studied
        runs = sorted(path.parent.name for path in folder.glob("*/config.yaml"))
        arms = ("distilled", "memory", "oracle", "randomised")
        assert runs == [f"{arm}_seed1" for arm in arms]
        steps = {name: read_metrics(folder / name)[-1]["env_steps"] for name in runs}
        assert max(steps.values()) <= 300 and min(steps.values()) >= 120  # an episode may end at its goal
        saved = json.loads((folder / "headroom.json").read_text())
        labels = [agent["label"] for agent in saved["agents"]]
        memory = ["memory", "memory_reset", "memory_reset_episode"]
        assert labels == ["randomised", "fine_tuned", *memory, "oracle", "distilled", "distilled_reset"]
        assert "returns" not in saved["agents"][0]
        assert [a["label"] for a in saved["agents"] if a["memory_gap"]] == ["memory", "distilled"]
        assert all(set(a["time_courses"][0]) >= {"rise", "seconds"} for a in saved["agents"])
        assert "curves" not in saved["agents"][0]["time_courses"][0]
        assert set(saved["training"]) == {"randomised", "memory", "oracle", "distilled"}
        both = steps["distilled_seed1"] + steps["oracle_seed1"]
        assert saved["training"]["distilled"]["env_steps"] == both > saved["training"]["memory"]["env_steps"]
        rows = (folder / "headroom.csv").read_text().splitlines()
        assert len(rows) == 9 and rows[0].startswith("label,agent,first,first_low")
        assert "memory_per_second,memory_per_second_low" in rows[0]
        gains = {row["label"]: float(row["gain"]) for row in csv.DictReader(rows)}
        assert gains == {agent["label"]: agent["summary"]["gain"][-1]["estimate"] for agent in saved["agents"]}
        assert any(gains.values())
        timed = {row["label"] for row in csv.DictReader((folder / "time.csv").read_text().splitlines())}
        assert timed == {agent["label"] for agent in saved["agents"]}
        assert (folder / "headroom.png").stat().st_size > 5000 and (folder / "time.png").stat().st_size > 5000
        assert not [note for note in saved["notes_on_the_study"] if "without a preset" in note]

    @pytest.mark.thorough
    def test_what_another_task_makes_them_forget_is_in_table_csv_and_figure(self, studied, capsys):
        folder, arguments = studied
        judged = folder / "judged"
        judged.rename(folder / "judged_before")
        capsys.readouterr()
        assert cli.main([*arguments, "evaluation.revisit=true", "--report"]) == 0
        said = capsys.readouterr().out
        assert "when the task changes" in said and "back on A" in said and "regained in" in said
        rows = {row["label"]: row for row in csv.DictReader((folder / "headroom.csv").open())}
        saved = {agent["label"]: agent for agent in json.loads((folder / "headroom.json").read_text())["agents"]}
        for label, row in rows.items():
            assert float(row["back_on_first_task"]) == saved[label]["forgetting"]["difference"]["estimate"]
        assert (folder / "revisit.png").stat().st_size > 5000
        shutil.rmtree(judged)
        (folder / "judged_before").rename(judged)

    @pytest.mark.thorough
    def test_again_it_trains_nothing_and_another_study_is_refused(self, studied, capsys):
        folder, arguments = studied
        before = {path: path.stat().st_mtime_ns for path in folder.glob("*/metrics.jsonl")}
        assert cli.main(arguments) == 0 and "4 runs, 4 done" in capsys.readouterr().out
        assert {path: path.stat().st_mtime_ns for path in folder.glob("*/metrics.jsonl")} == before
        capsys.readouterr()
        for switch in ((), ("--report",)):
            assert cli.main([*arguments, "family.goal_range=0.1", *switch]) == 2
            message = capsys.readouterr().err
            assert re.search(r"holds a study with another family.goal_range \(.+, here 0.1\); give the sett", message)
            assert cli.main([*arguments, "training.adaptations=3", *switch]) == 2
            assert "with another given.training.adaptations (not given, here 3); give" in capsys.readouterr().err

    @pytest.mark.thorough
    def test_a_setting_that_came_later_has_its_default_in_a_study_of_before(self, studied, capsys):
        folder, arguments = studied
        path = folder / "study.json"
        kept = path.read_bytes()
        before = json.loads(kept)
        del before["family"]["action_scale"]
        path.write_text(json.dumps(before))
        assert cli.main([*arguments, "--report"]) == 0
        capsys.readouterr()
        assert cli.main([*arguments, "--family.action-scale", "2", "--report"]) == 2
        assert "family.action_scale (1.0, here 2.0)" in capsys.readouterr().err
        path.write_bytes(kept)

    @pytest.mark.thorough
    def test_a_stop_leaves_the_run_to_be_gone_on_with(self, tmp_path: Path):
        arms = [read_arm("memory:agent.hidden_size=8")]
        settings = {"training.tasks": 3, "training.envs_per_task": 2, "training.checkpoint_every": 1}
        evaluation = EvaluationSettings(tasks=4, envs_per_task=1, seeds=(1,), bootstrap_samples=20)
        base = RunConfig(family=PointGoalSettings(horizon=10), evaluation=evaluation)
        base = dataclasses.replace(base, tracking=dataclasses.replace(base.tracking, wandb="disabled"))
        study = Study(tmp_path, base, arms, settings, 600, (1,))
        stop, said = Stop(), []

        def say(line: str) -> None:
            said.append(line)
            stop.requested = True

        assert not work(study, stop, say) and not study.standing()[0]
        assert said[1] == "memory_seed1: stopped at iteration 1; to be resumed"
        assert work(study, Stop(), said.append) and len(study.standing()[0]) == 1
        assert said[2].startswith("memory_seed1: resumed") and len(read_metrics(study.run_of("memory", 1))) == 5

    @pytest.mark.thorough
    def test_a_run_that_fails_is_named_and_the_others_go_on(self, tmp_path: Path, capsys):
        command = ["headroom", "point_goal", "--budget", "120", "--seeds", "1", "--runs-dir", str(tmp_path), *TINY]
        command += ["--threads", "1", "--arms", "oracle:agent.lr=1e30"]
        pupil = "distilled:agent.hidden_size=8,agent.distil_updates=1"
        assert cli.main([*command, pupil, "randomised"]) == 1
        said = capsys.readouterr().out
        folder = tmp_path / "headroom_point_goal"
        [why] = re.findall(r"^oracle_seed1: failed: (.*)$", said, re.MULTILINE)
        assert "distilled_seed1: failed: its teacher oracle_seed1 failed\n" in said
        assert re.search("^randomised_seed1: return", said, re.MULTILINE)
        assert "2 runs failed: oracle_seed1, distilled_seed1; start the same command again to try again" in said
        saved = json.loads((folder / "headroom.json").read_text())
        assert [agent["label"] for agent in saved["agents"]] == ["randomised"]
        assert f"note: oracle_seed1 failed and is missing: {why}" in saved["notes_on_the_study"]
        assert cli.main([*command, pupil, "randomised", "--report"]) == 0
        assert "oracle_seed1 failed and is missing" in capsys.readouterr().out
        shutil.rmtree(folder / "randomised_seed1")
        shutil.rmtree(folder / "judged")
        assert cli.main(command) == 1  # tried again
        said, error = capsys.readouterr()
        assert "oracle_seed1: failed: " in said and "1 runs, 0 done" in said
        assert "is finished, so there is nothing to judge: oracle_seed1 failed: " in error and error.count("\n") == 1

    @pytest.mark.thorough
    def test_a_fault_of_the_machine_is_no_failure_of_the_run(self, tmp_path: Path):
        settings = {"training.tasks": 3, "training.envs_per_task": 2}
        base = RunConfig(family=PointGoalSettings(horizon=10), evaluation=EvaluationSettings(tasks=4, seeds=(1,)))
        base = dataclasses.replace(base, tracking=dataclasses.replace(base.tracking, wandb="disabled"))
        study = Study(tmp_path, base, [ARMS["randomised"]], settings, 60, (1,), 1)
        directory = start_run(study.config(study.arms[0], 1), tmp_path, "randomised_seed1")
        with hold(directory), pytest.raises(RunBusy, match="randomised_seed1 is being trained by process"):
            work(study, Stop(), lambda line: None)
        assert not study.failures()

    @pytest.mark.thorough
    def test_a_begun_run_goes_on_elsewhere_with_the_command_s_settings_that_change_no_number(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        arms = [ARMS["oracle"], read_arm("distilled:agent.hidden_size=8,agent.distil_updates=1")]
        base = RunConfig(family=PointGoalSettings(horizon=10), evaluation=EvaluationSettings(tasks=4, seeds=(1,)))
        tracking = dataclasses.replace(base.tracking, wandb="disabled", project="one")
        base = dataclasses.replace(base, tracking=tracking)
        settings = {"training.tasks": 3, "training.envs_per_task": 2}
        (tmp_path / "runs").mkdir()
        monkeypatch.chdir(tmp_path)
        first = Study(Path("runs/s"), base, arms, {**settings, "training.checkpoint_every": 1}, 600, (1,), 1)
        first.record()
        stop = Stop()

        def say(line: str) -> None:
            stop.requested |= line.startswith("distilled_seed1: started")

        assert not work(first, stop, say)
        assert 0 < len(read_metrics(Path("runs/s/distilled_seed1"))) < 5
        monkeypatch.chdir(tmp_path / "runs")
        base = dataclasses.replace(base, tracking=dataclasses.replace(tracking, project="two"))
        again = Study(Path("s"), base, arms, {**settings, "training.checkpoint_every": 2}, 600, (1,), 2)
        again.record()
        assert work(again, Stop(), lambda line: None) and not again.standing()[1] and not again.failures()
        config = read_run_config(Path("s/distilled_seed1"))
        assert (config.training.threads, config.training.checkpoint_every, config.tracking.project) == (2, 2, "two")
        assert config_to_dict(config)["agent"]["teacher"] == str(tmp_path / "runs/s/oracle_seed1")
        other = Study(Path("s"), base, arms, {**settings, "training.adaptations": 2}, 600, (1,), 2)
        with pytest.raises(UsageError, match=r"another given.training.adaptations \(not given, here 2\); give"):
            other.record()
        record = json.loads(Path("s", STUDY).read_text())
        record["given"]["training.checkpoint_every"] = 1  # as older versions wrote it
        Path("s", STUDY).write_text(json.dumps(record))
        again.record()

    @pytest.mark.slow
    def test_it_can_be_stopped_and_two_processes_share_the_rest(self, tmp_path: Path):
        command = [sys.executable, "-m", "metarl", "headroom", "point_goal", "--budget", "3000", "--seeds", "1", "2"]
        command += ["--arms", "randomised", "memory:agent.hidden_size=8", "oracle", "--workers", "2", *TINY]
        first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        folder = tmp_path / "runs" / "headroom_point_goal"
        while first.poll() is None and not list(folder.glob("*/metrics.jsonl")):
            time.sleep(0.05)
        first.send_signal(signal.SIGINT)
        said, _ = first.communicate()
        assert first.returncode == 128 + signal.SIGTERM and "start the same command again to resume" in said
        again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert len(list(folder.glob("*/evaluation/*.json"))) == 6 and (folder / "headroom.json").is_file()
        assert all(again.stdout.count(f"{arm}_seed{k}: return") <= 1 for arm in ("memory", "oracle") for k in (1, 2))


class TestProbe:
    def test_it_is_zero_for_an_oracle_that_does_not_read_the_task_and_finds_the_parameter_that_it_reads(self):
        family = reveal(make_family(HalfCheetahDisabledJointSettings(horizon=12)))
        sizes = family.observation_size, family.action_size
        agent = make_agent(PpoSettings(), *sizes, torch.Generator().manual_seed(0), torch.device("cpu"))
        columns = told_columns(family)
        assert [k for places in columns.values() for k in places] == [
            i for i, name in enumerate(family.observation_names) if name.startswith("task_")
        ]
        first = agent.model.policy.mlp_extractor.policy_net[0].weight.data
        own = [k for places in columns.values() for k in places]
        first[:, own] = 0.0
        found = probe(agent, family, seed=1)
        assert found.whole < 1e-6 and set(found.by_parameter) == set(columns)
        name = next(iter(columns))
        first[:, columns[name]] = torch.arange(float(len(columns[name])))
        told = probe(agent, family, seed=1)
        assert told.whole > 0.01 and next(iter(told.by_parameter)) == name
        assert all(value < 1e-6 for other, value in told.by_parameter.items() if other != name)

    def test_faults_that_begin_later_are_told_too(self):
        settings = HalfCheetahDisabledJointSettings(faults=("dead",), fault_onset=(10, 20), horizon=60)
        family = reveal(make_family(settings))
        agent = make_agent(
            PpoSettings(hidden_sizes=(8,)),
            family.observation_size,
            family.action_size,
            torch.Generator().manual_seed(0),
            torch.device("cpu"),
        )
        found = probe(agent, family, seed=1)
        assert found.by_parameter["fault_kind"] > 1e-3 and found.by_parameter["fault_place"] > 1e-3

    def test_it_tells_what_the_oracle_met_beside_training(self):
        settings = HalfCheetahDisabledJointSettings(faults=("dead",), fault_held_out=(".*",), horizon=12)
        splits = ("train", "held_out")
        family = reveal(make_family(settings), splits=splits)
        sizes = family.observation_size, family.action_size
        agent = make_agent(PpoSettings(), *sizes, torch.Generator().manual_seed(0), torch.device("cpu"))
        found, trained = probe(agent, family, 1, splits=splits), probe(agent, family, 1)
        for name in ("fault_kind", "fault_place"):
            assert found.by_parameter[name] > 1e-3 and trained.by_parameter[name] < 1e-6

    def test_it_asks_for_the_mean_action_on_each_observation(self):
        family = reveal(make_family(PointGoalSettings()))
        sizes = family.observation_size, family.action_size
        agent = make_agent(PpoSettings(), *sizes, torch.Generator().manual_seed(0), torch.device("cpu"))
        seen = torch.randn(3, 5, family.observation_size)
        one = actions(agent, seen[1:2, 2:3])
        torch.testing.assert_close(actions(agent, seen)[1, 2], one[0, 0])

    def test_the_command_trains_an_oracle_and_names_the_parameters(self, tmp_path, capsys):
        arguments = ["headroom", "point_goal", "--probe", "--probe-budget", "200", "--runs-dir", str(tmp_path), *TINY]
        assert cli.main(arguments) == 0
        said = capsys.readouterr().out
        assert "told another task, the oracle's action moves by" in said and "goal_x:" in said
        assert (tmp_path / "headroom_point_goal" / "probe" / STUDY).is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "takes the name of one family"),
        (["half_cheetah_mas"], "unknown family 'half_cheetah_mas'; did you mean 'half_cheetah_mass'?"),
        (["point_goal", "--arms", "memry"], "unknown arm 'memry'; did you mean 'memory'?"),
        (["point_goal", "--arms", "memory:label="], "arm memory: label needs a value, as in memory:label=mine"),
        (["point_goal", "--seeds", "-1"], "--seeds is -1; it must be at least 0"),
        (["point_goal", "--family.fall-cost", "1"], "it is a setting of family ant_direction, ant_velocity, ant_crip"),
        (["point_goal", "--arms", "memory:agent.hiden_size=3"], "did you mean 'agent.hidden_size'?"),
        (["point_goal", "--arms", "distilled"], "arm distilled needs the runs of arm oracle; add it to --arms"),
        (["point_goal", "--arms", "memory", "memory"], "two arms are called 'memory'"),
        (["point_goal", "--arms", "memory:budget=0"], "arm memory: budget is 0"),
        (["point_goal", "--arms", "memory:budget=much"], "arm memory: budget"),
        (["point_goal", "--arms", "randomised", "fine_tuned:budget=5"], "judges the runs of randomised: it takes no"),
        (["point_goal", "--seeds", "1", "1"], "give each seed once"),
        (["point_goal", "--report", "--workers", "2"], "--report and --workers do not go together"),
        (["point_goal", "--report", "--probe"], "--probe and --report do not go together"),
        (["point_goal", "--seeds", "x"], "--seeds"),
        (["point_goal", "--budget", "0"], "--budget is 0"),
        (["point_goal", "training.iterations=3"], "is set by the study"),
        (["point_goal", "family.goal=1"], "unknown option --family.goal"),
        (["point_goal", "--report", "--name", "nothing"], "no run of the study in"),
    ],
)
def test_mistakes_are_named(arguments: list[str], said: str, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["headroom", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not os.listdir(tmp_path)


def test_arms_with_other_env_steps_than_the_budget_are_named(tmp_path: Path):
    arms = [read_arm(text) for text in ("randomised", "memory:budget=6e4", "oracle", "distilled")]
    study = Study(tmp_path, RunConfig(family=PointGoalSettings()), arms, {}, 8e3, (1,))
    steps = {"randomised": 64_000.0, "memory": 6.6e4, "oracle": 9_000.0, "distilled": 18_000.0}
    assert unequal(study, {name: {"env_steps": own} for name, own in steps.items()}) == [
        "randomised had 64,000 for 8,000"
    ]


def test_of_many_agents_the_best_are_drawn_against_seconds():
    many = {f"a{k}": (k, k) for k in range(10)}
    own = comparison(randomised=(-5, -5), oracle=(20, 20), **many, a9_reset=(3, 3), a8_reset=(3, 3))
    agents = [
        dataclasses.replace(agent, reset_memory="step" if "_reset" in agent.label else "never") for agent in own.agents
    ]
    own = dataclasses.replace(own, agents=agents)
    found = headroom_of(own, "oracle", "randomised")
    assert in_time(own, found) == ["randomised", "oracle", "a6", "a7", "a8", "a9", "a9_reset"]
    other = dataclasses.replace(agents[-1], label="a9_128_reset")  # of another agent, a9_128
    whole = dataclasses.replace(own, agents=[*agents, other])
    assert in_time(whole, found) == in_time(own, found)
    all_reset = dataclasses.replace(own, agents=[dataclasses.replace(a, reset_memory="step") for a in agents])
    assert in_time(all_reset, found) == ["randomised", "oracle"]
    few = dataclasses.replace(own, agents=agents[:5])
    assert in_time(few, None) == [agent.label for agent in agents[:5]]


def test_a_record_that_is_none_is_refused(tmp_path, capsys):
    (tmp_path / "headroom_point_goal").mkdir()
    for text in ("{", "[]", '{"family": 1}'):
        (tmp_path / "headroom_point_goal" / STUDY).write_text(text)
        assert cli.main(["headroom", "point_goal", "--runs-dir", str(tmp_path)]) == 2
        assert "is not a study's record" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_study_says_that_it_has_no_oracle_and_which_agents_have_no_preset(tmp_path, capsys):
    arguments = ["headroom", "ant_goal", "--budget", "120", "--seeds", "1", "--arms", "randomised", "fine_tuned", *TINY]
    assert cli.main([*arguments, "--runs-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "it needs the arms oracle and randomised" in said
    assert "agents without a preset for ant_goal have settings that nobody chose for it: randomised, fine_tuned" in said


def test_pupils_of_one_kind_of_teacher_are_one_agent(tmp_path):
    """Their teachers differ in the seed alone; another teacher makes another agent."""
    arms = [ARMS[name] for name in ("distilled", "oracle", "memory")]
    study = Study(tmp_path, RunConfig(family=PointGoalSettings()), arms, {}, 1e4, (1, 2))
    for seed in (1, 2):
        for arm in arms[1:]:
            start_run(study.config(arm, seed), tmp_path, f"{arm.name}_seed{seed}")
    pupils = [study.config(arms[0], seed) for seed in (1, 2)]
    other = dataclasses.replace(pupils[1].agent, teacher=str(study.run_of("memory", 2)))
    one, two, three = map(but_for_the_seed, [*pupils, dataclasses.replace(pupils[1], agent=other)])
    assert pupils[0].agent != pupils[1].agent and one == two and two != three


@pytest.mark.parametrize("label", ["lr/small", "a\\b", ".."])
def test_a_label_that_can_name_no_run_is_refused_before_any_is_trained(label):
    with pytest.raises(UsageError, match="arm memory: label is .*give the name of one folder, without a slash$"):
        read_arm(f"memory:label={label}")


def test_a_teacher_s_runs_come_before_those_it_teaches(tmp_path):
    arms = [ARMS[name] for name in ("distilled", "oracle")]
    study = Study(tmp_path, RunConfig(family=PointGoalSettings()), arms, {}, 1e4, (1, 2))
    assert [(arm.name, seed) for arm, seed in study.jobs] == [
        ("oracle", 1),
        ("distilled", 1),
        ("oracle", 2),
        ("distilled", 2),
    ]


@pytest.mark.parametrize("switch", [(), ("--report",), ("--probe",)])
@pytest.mark.parametrize(("name", "what"), [("config.yaml", "a run"), ("sweep.json", "a sweep")])
def test_the_folder_of_something_else_is_left_alone(name, what, switch, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/plain").mkdir(parents=True)
    (tmp_path / "runs/plain" / name).write_text("own")
    assert cli.main(["headroom", "point_goal", "--name", "plain", *switch]) == 2
    said = capsys.readouterr().err
    assert f"runs/plain is the folder of {what}; choose another --name, or another --runs-dir" in said
    assert os.listdir(tmp_path / "runs/plain") == [name] and (tmp_path / "runs/plain" / name).read_text() == "own"


def test_a_changed_file_that_a_robots_file_names_makes_another_study(tmp_path):
    (tmp_path / "robot.xml").write_text(MODEL.replace("<worldbody>", '<include file="own.xml"/><worldbody>'))
    (tmp_path / "own.xml").write_text("<mujoco><default><joint damping='1'/></default></mujoco>")
    (tmp_path / "family.yaml").write_text(FAMILY)
    robot = RobotSettings(model=str(tmp_path / "robot.xml"), file=str(tmp_path / "family.yaml"))

    def study() -> Study:
        return Study(tmp_path / "runs", RunConfig(family=robot), [ARMS["oracle"]], {}, 1e4, (1,))

    study().record()
    record = json.loads((tmp_path / "runs" / STUDY).read_text())
    (tmp_path / "own.xml").write_text("<mujoco><default><joint damping='2'/></default></mujoco>")
    with pytest.raises(UsageError, match=r"another own.xml, which family.model names, \(.*give the settings"):
        study().record()
    del record["parts"]  # as older versions wrote it
    (tmp_path / "runs" / STUDY).write_text(json.dumps(record))
    study().record()


def test_a_teacher_that_is_asked_for_teaches_in_the_oracle_s_place(tmp_path):
    """With budgets of its own and of its pupil, both have as many env steps as the others together."""
    arms = [ARMS["oracle"], read_arm("distilled:budget=5e3"), read_arm("teacher:budget=5e3")]
    study = Study(tmp_path, RunConfig(family=PointGoalSettings()), arms, {}, 1e4, (1,))
    teacher, pupil = study.config(arms[2], 1), study.config(arms[1], 1)
    assert config_to_dict(pupil)["agent"]["teacher"] == str(tmp_path / "teacher_seed1")
    assert 2 * teacher.training.iterations == pytest.approx(study.config(arms[0], 1).training.iterations, abs=1)
    assert [arm.name for arm, _ in study.jobs] == ["oracle", "teacher", "distilled"]
    study.record()
    study.recorded()
    with pytest.raises(UsageError, match="another teacher of distilled"):
        Study(tmp_path, RunConfig(family=PointGoalSettings()), arms[:2], {}, 1e4, (1,)).recorded()
    (tmp_path / STUDY).unlink()
    Study(tmp_path, RunConfig(family=PointGoalSettings()), arms[:2], {}, 1e4, (1,)).record()
    with pytest.raises(UsageError, match="another teacher of distilled"):
        study.record()


@pytest.mark.thorough
def test_a_trial_of_one_episode_has_one_return(tmp_path, capsys):
    arguments = ["headroom", "point_goal", "--budget", "120", "--seeds", "1", "--arms", "memory:agent.hidden_size=8"]
    arguments += ["evaluation.adaptations=0", "training.adaptations=0", "--runs-dir", str(tmp_path), *TINY]
    assert cli.main([*arguments, "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "return, first episode" not in said and "at last" not in said
    assert "memory_reset " in said and "memory_reset_episode" not in said  # nothing is reset between episodes
