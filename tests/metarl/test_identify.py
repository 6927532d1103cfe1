"""Identification: classes of tasks, what is played and judged, the command, the identifier on a robot."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import metarl
from metarl.agents.metric.calibration import Unknown
from metarl.agents.metric.few_shot import Episodes, Metric
from metarl.agents.metric.settings import MetricSettings
from metarl.cli import app as cli
from metarl.cli import identify_logs
from metarl.deployment.episode import LoggedEpisode
from metarl.deployment.logs import save_episode
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahDisabledJointSettings, HalfCheetahMassSettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings, QuadrupedTerrainSettings
from metarl.envs.robots.walkers_settings import HopperParametersSettings
from metarl.envs.sharded import ShardedEnv
from metarl.errors import UsageError
from metarl.identification import retrieval as module
from metarl.identification import study
from metarl.identification.answers import Asked, Calibration, Problem, averaged, calibrate
from metarl.identification.classes import TaskClass, Uses, classes_of, draw_tasks, uses_of
from metarl.identification.collect import marks_of, play
from metarl.identification.identifier import FILE, NONE, Identified, Identifier
from metarl.identification.judge import by_task, confusion, judge, open_error
from metarl.identification.settings import IdentifySettings
from metarl.runs.checkpoint import CheckpointError
from metarl.runs.trial import run_trial, streams
from tests.metarl.test_controller import make_run

FAULTY = HalfCheetahMassSettings(horizon=20, faults=("weak", "locked"), fault_severity=(0.8, 0.9))
CHEETAH = HalfCheetahDisabledJointSettings(horizon=20)
TINY = IdentifySettings(by=("fault_kind", "fault_place"), shots=4, tasks=4, episodes=2, draws=10, bootstrap_samples=20)
SMALL = MetricSettings(hidden_sizes=(8,), embedding_size=4, updates=3)


def labels(classes: list[TaskClass]) -> list[str]:
    return [own.label for own in classes]


class TestClasses:
    def test_two_parameters_make_every_combination(self):
        family = make_family(FAULTY)
        classes = classes_of(family, ["fault_kind", "fault_place"], 5)
        assert len(classes) == 12 and labels(classes)[0] == "weak bthigh" and labels(classes)[-1] == "locked ffoot"

    def test_a_task_without_a_fault_has_no_place(self):
        family = make_family(dataclasses.replace(FAULTY, fault_share=0.5))
        classes = classes_of(family, ["fault_kind", "fault_place"], 5)
        assert len(classes) == 13 and labels(classes)[0] == "none"
        (task,) = draw_tasks(family, classes[0], 1, np.random.default_rng(0))
        assert task.values["fault_kind"] == task.values["fault_place"] == 0
        for task in draw_tasks(family, classes[3], 20, np.random.default_rng(0)):
            assert 0.8 <= task.values["fault_severity"] <= 0.9

    def test_what_means_nothing_to_a_task_is_not_told_of_it(self):
        """A sound robot has no severity of its fault, and flat ground no difficulty."""
        family = make_family(dataclasses.replace(FAULTY, fault_share=0.5))
        both = labels(classes_of(family, ["fault_kind", "fault_severity"], 2))
        assert both[0] == "none" and len(both) == 5 and both[1] == "weak fault severity 0.8 to 0.85"
        for own in classes_of(family, ["fault_severity"], 2):
            assert all(task.values["fault_kind"] for task in draw_tasks(family, own, 20, np.random.default_rng(0)))
        ground = make_family(QuadrupedTerrainSettings(kinds=("flat", "slope", "rough")))
        found = classes_of(ground, ["terrain_kind", "terrain_difficulty"], 2)
        assert labels(found)[:2] == ["flat", "slope terrain difficulty 0 to 0.5"]
        for own in classes_of(ground, ["terrain_difficulty"], 2):
            assert all(task.values["terrain_kind"] for task in draw_tasks(ground, own, 20, np.random.default_rng(0)))

    def test_labels_have_as_many_digits_as_tell_the_classes_apart(self):
        family = make_family(QuadrupedSettings(motor_strength=(0.99, 1.01)))
        found = labels(classes_of(family, ["motor_strength"], 100))
        assert len(set(found)) == 100 and found[0] == "motor strength 0.99 to 0.9902"

    def test_what_cannot_fail_so_is_no_class(self):
        family = make_family(
            dataclasses.replace(FAULTY, faults=("weak", "sensor_lost"), fault_places=(".*foot", "pos.*"))
        )
        found = labels(classes_of(family, ["fault_kind", "fault_place"], 5))
        assert "sensor_lost positions" in found and "weak positions" not in found and "weak bfoot" in found

    def test_held_out_categories_are_classes_too(self):
        classes = classes_of(make_family(CHEETAH), ["disabled_joint"], 5)
        assert labels(classes) == [f"disabled joint {i}" for i in range(6)]

    @pytest.mark.parametrize("share", [1.0, 0.5])
    def test_faults_of_held_out_tasks_alone_are_classes_beside_the_sound_one(self, share):
        family = make_family(dataclasses.replace(FAULTY, fault_held_out=(".*",), fault_share=share))
        classes = classes_of(family, ["fault_kind", "fault_place"], 5)
        assert len(classes) == 13 and labels(classes)[:2] == ["none", "weak bthigh"]
        for own in classes:
            for task in draw_tasks(family, own, 5, np.random.default_rng(0)):
                assert bool(task.values["fault_kind"]) == bool(task.values["fault_place"]) == (own.label != "none")
        assert labels(classes_of(family, ["fault_kind"], 5)) == ["none", "weak", "locked"]

    def test_a_quantity_is_cut_into_classes_of_equal_probability(self):
        family = make_family(QuadrupedSettings(payload_mass=(0.0, 4.0)))
        classes = classes_of(family, ["payload_mass"], 4)
        assert labels(classes)[1] == "payload mass 1 kg to 2 kg"
        for k, own in enumerate(classes):
            drawn = draw_tasks(family, own, 30, np.random.default_rng(0))
            masses = [task.values["payload_mass"] for task in drawn]
            assert k <= min(masses) < max(masses) <= k + 1 and np.ptp(masses) > 0.5
            assert np.ptp([task.values["friction"] for task in drawn]) > 0.3  # all else varies

    @pytest.mark.parametrize("timed", [{"fault_onset": (0, 9)}, {"changes": 2, "changing": ("payload_mass",)}])
    def test_what_stays_the_same_while_other_things_change_is_told_apart(self, timed):
        settings = QuadrupedSettings(friction=(0.4, 1.2), faults=("weak",), **timed)
        family = make_family(settings)
        classes = classes_of(family, ["friction"], 4)
        assert len(classes) == 4
        for k, own in enumerate(classes):
            for task in draw_tasks(family, own, 10, np.random.default_rng(0)):
                frictions = {
                    stage.get("friction", task.values["friction"]) for stage in [c.values for c in task.changes]
                }
                assert all(0.4 + 0.2 * k <= x <= 0.6 + 0.2 * k for x in {*frictions, task.values["friction"]})

    @pytest.mark.parametrize(
        ("family", "by", "message"),
        [
            (
                CHEETAH,
                ["disabled_joints"],
                "--by is 'disabled_joints', which is no parameter .*did you mean 'disabled_j",
            ),
            (
                HalfCheetahMassSettings(changes=1),
                ["mass_scale"],
                "mass_scale of a task of half_cheetah_mass may change while it lasts.*give --family.changes 0$",
            ),
            (
                dataclasses.replace(FAULTY, fault_onset=(0, 9), fault_duration=(5, 5)),
                ["disabled_joint", "fault_place", "fault_kind"],
                "fault_kind and fault_place of a task .*give --family.fault-onset 0 0 --family.fault-duration 0 0$",
            ),
            (dataclasses.replace(FAULTY, faults=("weak",)), ["fault_kind"], "'fault_kind', which has a single value"),
        ],
    )
    def test_what_cannot_be_told_apart_is_refused(self, family, by, message):
        with pytest.raises(UsageError, match=message):
            classes_of(make_family(family), by, 5)

    def test_every_class_has_one_use(self):
        classes = [TaskClass(f"class {i}", {}, {}) for i in range(20)]
        for hold_out in ((), ("class 1.",)):
            uses = uses_of(classes, hold_out, np.random.default_rng(0))
            assert sorted([*uses.training, *uses.calibration, *uses.judged]) == list(range(20))
            assert len(uses.calibration) >= 2
        assert uses.judged == list(range(10, 20))
        signed = [*classes, *(TaskClass(f"x \N{MINUS SIGN}{i} m", {}, {}) for i in range(4))]
        for hold_out in (("x -0 m", "x -2 m", "x \N{MINUS SIGN}3 m"), ("x -[023] m",)):
            assert uses_of(signed, hold_out, np.random.default_rng(0)).judged == [20, 22, 23]
        assert uses_of(classes, (), np.random.default_rng(0)) == uses_of(classes, (), np.random.default_rng(0))

    @pytest.mark.parametrize(
        ("count", "hold_out", "message"),
        [
            (5, (), "there are 5 classes .*name a second parameter with --by, or raise --bins"),
            (8, ("clas 1",), "--hold-out is 'clas 1', which is none of the classes; did you mean 'class 1'"),
            (8, ("class 1",), "--hold-out leaves 1 classes to judge and 7 others"),
            (8, ("class [0-4]",), "--hold-out leaves 5 classes to judge and 3 others"),
        ],
    )
    def test_too_few_classes_are_refused(self, count, hold_out, message):
        classes = [TaskClass(f"class {i}", {}, {}) for i in range(count)]
        with pytest.raises(UsageError, match=message):
            uses_of(classes, hold_out, np.random.default_rng(0))


class TestEpisodes:
    def test_what_is_played_is_what_a_trial_observes(self):
        """Hopper falls: an episode ends with what was seen after its last step."""
        run = make_run("maml", HopperParametersSettings(horizon=40))
        tasks = run.family.sample(4, np.random.default_rng(0))
        episodes = play(run.agent, run.family, [tasks[:2], tasks[2:]], 3, 30, True, seed=1, threads=1, explore=True)
        assert episodes.classes.tolist() == [0] * 6 + [1] * 6
        assert episodes.tasks.tolist() == [m for m in range(4) for _ in range(3)]
        env = metarl.envs.sharded.ShardedEnv(run.family, 4, 3, 1)
        env.set_tasks(tasks)
        rngs = streams(1, "identification/episodes", 0, 4)
        rollout = run_trial(env, run.agent, rngs, 0).trial.rollouts[0]
        size = run.family.observation_size
        assert int(episodes.lengths.min()) < 30  # some fell
        for b, length in enumerate(episodes.lengths.tolist()):
            m, n = divmod(b, 3)
            whole = int(rollout.valid[:, m, n].sum())
            assert length == min(whole, 30)
            steps = episodes.steps[:length, b]
            torch.testing.assert_close(steps[:, :size], rollout.observations[:length, m, n])
            torch.testing.assert_close(steps[:, 2 * size : -1], rollout.actions[:length, m, n])
            torch.testing.assert_close(steps[:, -1], rollout.rewards[:length, m, n])
            if whole <= 30:
                reached = steps[-1, :size] + steps[-1, size : 2 * size]
                torch.testing.assert_close(reached, rollout.final_observations[m, n], rtol=1e-5, atol=1e-5)
            assert not episodes.steps[length:, b].any()

    def test_durations_go_as_far_as_an_episode(self):
        family = make_family(CHEETAH)  # 20 steps of .05 s
        assert marks_of(family, ()) == [5, 10, 20]
        assert marks_of(family, (0.1, 0.6)) == [2, 12, 20]
        with pytest.raises(UsageError, match="--seconds has 3, but an episode lasts 1 s"):
            marks_of(family, (0.1, 3.0))


class Placed(Metric):
    """A metric whose embeddings are given."""

    def __init__(self) -> None:
        super().__init__(MetricSettings(hidden_sizes=(4,), embedding_size=2), 1, 1)


def placed(per_class: int = 8, tasks: int = 4) -> Problem:
    """Four classes on a line, a unit apart, without any spread; class 3 lies where class 2 does."""
    labels = torch.arange(4).repeat_interleave(per_class)
    numbers = torch.arange(4 * per_class) // (per_class // tasks)
    episodes = Episodes(torch.zeros(1, len(labels), 3), torch.ones_like(labels), labels, numbers)
    embeddings = torch.stack([labels.clamp(max=2).float(), torch.zeros(len(labels))], dim=1)
    settings = IdentifySettings(ways=3, shots=2, draws=40, bootstrap_samples=50)
    generator = torch.Generator().manual_seed(0)
    return Problem(Placed(), episodes, [1], embeddings.expand(1, 2, -1, -1), settings, generator)


def scattered(classes: int = 60, tasks: int = 10, count: int = 3) -> Problem:
    """Classes at random, with tasks of a spread about each, and episodes of another about these."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(tasks * count)
    numbers = torch.arange(classes * tasks).repeat_interleave(count)
    places = 2 * torch.randn(classes, 4, generator=generator)[labels]
    places += 0.5 * torch.randn(classes * tasks, 4, generator=generator)[numbers]
    places += torch.randn(len(labels), 4, generator=generator)
    episodes = Episodes(torch.zeros(1, len(labels), 3), torch.ones_like(labels), labels, numbers)
    settings = IdentifySettings(ways=5, shots=5, draws=60, bootstrap_samples=20)
    counts = [1, 2, count]
    return Problem(Placed(), episodes, counts, averaged(episodes, places[None], counts), settings, generator)


class TestJudgement:
    USES = Uses(list(range(10)), list(range(10, 34)), list(range(34, 60)))

    def test_false_alarms_are_as_many_as_asked_for_whatever_is_known_and_read(self):
        """By the threshold of 5 ways and one episode: 0.1 % at 30 ways, and 0.4 % from two episodes at 2 ways."""
        problem = scattered()
        calibration = calibrate(problem, self.USES.calibration, self.USES.training, [1])
        for ways in (2, 30):
            row = problem.asked(self.USES.judged, ways, [*self.USES.calibration, *self.USES.training])
            for count, (asked,) in zip(problem.counts, row, strict=True):
                alarms = asked.known.novelties > calibration.at(1, ways, count)[1].threshold
                assert 0.01 < alarms.double().mean() < 0.1

    def test_it_is_judged_among_few_and_all_classes_and_from_several_episodes(self):
        problem = scattered()
        calibration = calibrate(problem, self.USES.calibration, self.USES.training, [1])
        found = judge(problem, self.USES, 5, calibration, 0.1, np.random.default_rng(0))
        assert list(found.several) == [1, 2, 3] and len(found.curve) == 1
        for one, more in itertools.pairwise(found.several.values()):
            assert more.accuracy.estimate > one.accuracy.estimate and more.auroc > one.auroc
        for at in found.several.values():
            assert at.among_all.accuracy.estimate < at.accuracy.estimate
            assert at.among_all.detected.estimate < at.detected.estimate
            assert max(at.open_error, at.among_all.open_error, at.calibration_error) < 0.2

    def test_what_is_between_calibrated_numbers_is_linear_in_steps_and_in_logarithms(self):
        fitted = np.zeros((2, 2, 2, 4))
        fitted[1, :, :, 0], fitted[:, 1, :, 1], fitted[:, :, 1, 2] = math.log(4), 1, 2
        calibration = Calibration([10, 20], [2, 8], [1, 4], fitted)
        assert calibration.at(15, 4, 2) == (pytest.approx(2), pytest.approx(Unknown(0.5, 1, 0)))
        assert calibration.at(99, 48, 9) == (pytest.approx(4), pytest.approx(Unknown(1, 2, 0)))

    def test_each_query_is_asked_with_its_class_and_without(self):
        problem = placed()
        asked = problem.asked([0, 1, 2], 2)[0][0]
        known, unknown = asked.known, asked.unknown
        assert len(known.right) == 2 * len(unknown.right) == 60 * 2 * 4
        assert known.hits.all() and (known.novelties == 0).all() and (unknown.novelties > 0).all()
        assert torch.equal(
            known.options.gather(1, known.right[:, None])[:, 0], problem.episodes.classes[known.episodes]
        )

    def test_the_confusion_is_between_classes_that_are_alike(self):
        problem = placed()
        unknown = calibrate(problem, [0, 1, 2], [], [1, 2]).at(1, 4, 1)[1]
        found = confusion(problem, [0, 1, 2, 3], list("abcd"), unknown, 0, 2.0)
        np.testing.assert_allclose(found.shares.sum(axis=1), 1.0)
        np.testing.assert_array_equal(found.shares[:2], np.eye(4, 5)[:2])
        assert (found.shares[2:, 2:4] > 0).any() and (found.shares[2:, [0, 1]] == 0).all()

    def test_an_interval_is_over_tasks(self):
        problem = placed()
        asked = torch.arange(32)
        values = (problem.episodes.tasks % 2).double()
        found = by_task(problem.episodes, asked, values, 200, np.random.default_rng(0))
        assert found.estimate == 0.5 and 0.2 < found.low < 0.5 < found.high < 0.8

    def test_several_episodes_are_averaged_over_a_task_in_a_circle(self):
        task = torch.tensor([0, 0, 0, 1])
        episodes = Episodes(torch.zeros(1, 4, 1), torch.ones(4), torch.zeros(4), task)
        embeddings = torch.tensor([1.0, 2.0, 6.0, 8.0]).reshape(1, 4, 1)
        found = averaged(episodes, embeddings, [1, 2, 3])
        np.testing.assert_allclose(found[:, 0, :, 0], [[1, 2, 6, 8], [1.5, 4, 3.5, 8], [3, 3, 3, 8]])


@pytest.fixture(scope="module")
def identified() -> tuple[study.Plan, metarl.identification.result.Identification, Identifier]:
    """An identification of faults with an untrained policy."""
    run = make_run("ppo", FAULTY)
    planned = study.plan(run, run.family, TINY)
    return planned, *study.identify(run, planned, TINY, SMALL, threads=1)


def logs(run, count: int, steps: int = 20) -> list[LoggedEpisode]:
    rng = np.random.default_rng(count)
    shapes = (steps + 1, run.family.observation_size), (steps, run.family.action_size), (steps,)
    parts = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    return [
        LoggedEpisode(f"{i}", parts[0] + i, parts[1], parts[2], np.zeros(len(parts[2]), bool)) for i in range(count)
    ]


def test_what_a_robot_reads_is_judged_with_none_of_these_as_an_answer():
    """Three of four known queries are told with 0.8 x 0.9 each, both unknown ones with 0.6: 0.5 |0.75 - 0.72| + ..."""
    sure, far = Unknown(0.0, 1.0, 0.0), math.log(0.8 / 0.2)
    near, none = -math.log(0.1 / 0.9), math.log(0.6 / 0.4)  # P(none) = 1 / (1 + exp(-novelty))
    known = torch.tensor([[near, near - far]] * 4)
    unknown = torch.tensor([[-none, -none - far]] * 2)
    right = torch.tensor([0, 0, 0, 1, -1, -1])
    asked = Asked(torch.arange(6), torch.cat([known, unknown]).double(), right, torch.zeros(6, 2))
    assert open_error(asked, 1.0, sure) == pytest.approx(0.5 * abs(0.75 - 0.8 * 0.9) + 0.5 * abs(1 - 0.6))


class TestIdentification:
    def test_it_is_judged_on_classes_that_it_never_met(self, identified):
        _, found, _ = identified
        assert not set(found.classes["judged"]) & {*found.classes["training"], *found.classes["calibration"]}
        assert [at.seconds for at in found.curve] == pytest.approx([0.25, 0.5, 1.0])
        assert found.confusion.shares.shape == (4, 5) and sum(found.reliability["share"]) == pytest.approx(1.0)
        for at in found.curve:
            for share in (at.accuracy, at.trained, at.false_alarms, at.detected):
                assert 0 <= share.low <= share.estimate <= share.high <= 1
            assert 0 <= at.calibration_error <= 1 and 0 <= at.open_error <= 1 and at.temperature > 0
        assert list(found.several) == [1, 2] and (found.ways, found.all_ways) == (5, 11)
        assert found.several[1].accuracy.estimate == found.curve[-1].accuracy.estimate

    def test_an_answer_depends_on_how_many_classes_are_known_and_episodes_are_read(self, identified):
        identifier, two = identified[2], logs(make_run("ppo", FAULTY), 2)
        for axis in (1, 2):  # ways, episodes: with more than the first calibrated number all are none of these
            fitted = np.zeros_like(identifier.calibration.fitted)
            np.moveaxis(fitted, axis, 0)[0, ..., 1] = 1e9
            np.moveaxis(fitted, axis, 0)[1:, ..., 1] = -1e9
            calibration = dataclasses.replace(identifier.calibration, fitted=fitted)
            own = Identifier(identifier.metric, identifier.policy, calibration, identifier.known)
            few = own.only(list(own.known)[:2])
            answers = [own.identify_logged(two[:1]), few.identify_logged(two[:1]), few.identify_logged(two)]
            assert [found.answer == NONE for found in answers] == ([True, False, False], [False, False, True])[axis - 1]

    def test_a_file_of_before_is_refused_with_what_to_do(self, identified, tmp_path):
        path = identified[2].save(tmp_path)
        state = torch.load(path, weights_only=True)
        own = state["state"]["identifier"]
        del own["ways"], own["counts"], own["fitted"]
        own |= {"temperatures": [1.0] * 3, "unknown": [[0.0, 1.0, 0.0]] * 3}
        torch.save(state, path)
        with pytest.raises(CheckpointError, match="is of an older metarl.*make it anew by metarl identify RUN --by"):
            Identifier.load(path)

    def test_it_is_repeated_by_its_seed(self, identified):
        run = make_run("ppo", FAULTY)
        found, _ = study.identify(run, identified[0], TINY, SMALL, threads=1)
        ours, theirs = (dict(x.to_dict(), provenance=None) for x in (found, identified[1]))
        assert ours == theirs

    def test_a_file_gives_the_identifier_back(self, identified, tmp_path):
        _, _, identifier = identified
        loaded = Identifier.load(identifier.save(tmp_path).parent)
        run = make_run("ppo", FAULTY)
        for episode in logs(run, 3):
            ours, theirs = (
                x.identify(episode.observations, episode.actions, episode.rewards) for x in (identifier, loaded)
            )
            assert ours == theirs and len(ours.probabilities) == 13
            assert sum(ours.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
            assert ours.answer in ours.probabilities

    def test_a_support_of_ones_own_needs_no_training(self, identified, tmp_path):
        _, _, identifier = identified
        own = Identifier.load(identifier.save(tmp_path).parent)
        run = make_run("ppo", FAULTY)
        episodes = logs(run, 3)
        far = [dataclasses.replace(e, actions=e.actions + 5) for e in episodes]
        own.support({"near": episodes[:2], "far": far[:1]})
        assert list(own.known) == ["near", "far"]
        for label, episode in (("near", episodes[:2]), ("far", far[:1])):
            shares = own.identify_logged(episode).probabilities
            assert max(("near", "far"), key=lambda name: shares[name]) == label
        own.support({"other": far}, keep=True)
        assert list(own.known) == ["near", "far", "other"] and list(own.only(["far", "near"]).known) == ["far", "near"]
        with pytest.raises(UsageError, match="knows no class 'fra'"):
            own.only(["fra"])
        own.known["x \N{MINUS SIGN}1 m to 0 m"] = own.known["far"]
        assert list(own.only(["x -1 m to 0 m", "far"]).known) == ["x \N{MINUS SIGN}1 m to 0 m", "far"]
        del own.known["x \N{MINUS SIGN}1 m to 0 m"]
        with pytest.raises(ValueError, match="class 'x' has no episode"):
            own.support({"x": []})
        with pytest.raises(ValueError, match="knows 1 classes; give it two at least"):
            own.only(["far"]).identify_logged(far)

    def test_an_episode_is_read_up_to_its_first_fall(self, identified):
        """What follows is a robot that was put back on its feet."""
        identifier, (episode,) = identified[2], logs(make_run("ppo", FAULTY), 1)
        terminated = np.zeros(len(episode.rewards), bool)
        terminated[[7, 12]] = True
        fallen = episode.observations[[8, 13]] + 1
        fell = dataclasses.replace(episode, terminated=terminated, fallen_observations=fallen)
        seen = np.concatenate([episode.observations[:8], fallen[:1]])
        assert identifier.identify_logged([fell]) == identifier.identify(seen, episode.actions[:8], episode.rewards[:8])
        unseen = identifier.identify_logged([dataclasses.replace(fell, fallen_observations=None)])
        assert unseen == identifier.identify(episode.observations[:8], episode.actions[:7], episode.rewards[:7])

    def test_the_order_of_a_support_changes_nothing(self):
        run = make_run("ppo", FAULTY)
        planned = study.plan(run, run.family, TINY)
        matching = dataclasses.replace(SMALL, head="matching")
        _, identifier = study.identify(run, planned, TINY, matching, threads=1)
        episodes = logs(run, 5)
        found = []
        for order in ([0, 1], [1, 0]):
            identifier.support({"a": [episodes[i] for i in order], "b": episodes[2:]})
            found.append(identifier.identify_logged([episodes[0]]).probabilities)
        assert found[0] == pytest.approx(found[1], abs=1e-6)

    def test_no_more_seconds_are_claimed_than_are_read(self, identified):
        _, _, identifier = identified
        (episode,) = logs(make_run("ppo", FAULTY), 1)
        last = identifier.calibration.marks[-1]
        longer = {
            name: np.concatenate([getattr(episode, name)] * 3)[: 3 * last + (name == "observations")]
            for name in ("observations", "actions", "rewards")
        }
        found = identifier.identify(**longer)
        assert found.seconds == pytest.approx(last * identifier.policy.dt)
        assert identifier.identify_logged([dataclasses.replace(episode, **longer)]).seconds == found.seconds

    def test_what_is_like_no_class_is_none_of_these(self, identified):
        _, _, identifier = identified
        run = make_run("ppo", FAULTY)
        (episode,) = logs(run, 1)
        wild = dataclasses.replace(episode, observations=1e3 * episode.observations, actions=1e3 * episode.actions)
        found = identifier.identify_logged([wild])
        assert found.answer == NONE and f"{NONE} after 1.00 s" in str(found)

    def test_wrong_shapes_are_named(self, identified):
        identifier = identified[2]
        (episode,) = logs(make_run("ppo", FAULTY), 1)
        with pytest.raises(ValueError, match=r"observations has shape \(20, 20\); it must be \(21, 20\)"):
            identifier.identify(episode.observations[:-1], episode.actions, episode.rewards)
        with pytest.raises(ValueError, match="actions has a number that is not finite"):
            identifier.identify(episode.observations, episode.actions * np.nan, episode.rewards)
        with pytest.raises(ValueError, match="for at least one step"):
            identifier.identify(episode.observations[:1], episode.actions[:0], episode.rewards[:0])

    def test_a_file_of_another_kind_is_one_error(self, identified, tmp_path):
        with pytest.raises(CheckpointError, match="no identifier .*; metarl identify RUN --by PARAMETER makes one"):
            Identifier.load(tmp_path)
        path = identified[2].save(tmp_path)
        state = torch.load(path, weights_only=True)
        del state["state"]["identifier"]["weights"]["encoder.mean"]
        torch.save(state, path)
        with pytest.raises(CheckpointError, match=f"{FILE} holds no identifier of metarl"):
            Identifier.load(path)


class TestRetrieval:
    def test_the_policy_of_the_same_task_is_the_adapted_one(self):
        """With the judged tasks themselves known, and told by where they reward, each is played by its own belief."""
        run = make_run("rl2", PointGoalSettings(horizon=12))
        goals = [(0.4, 0.0), (-0.4, 0.0), (0.0, 0.4), (0.0, -0.4)]
        tasks = [run.family.task({"goal_x": x, "goal_y": y}) for x, y in goals]
        metric = Placed()
        chosen = []

        def play(agent, family, flat, belief, explore, seed, threads):
            chosen.append(belief)
            return np.arange(4.0)

        metric.head.forward = lambda queries, support: torch.eye(4)[[2, 0, 3, 1]]
        metric.encoder.forward = lambda steps, lengths, until: torch.zeros(1, steps.shape[1], 2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_played", play)
            rng = np.random.default_rng(0)
            settings = (metric, torch.zeros(4, 1, 2), tasks, [tasks[:2], tasks[2:]], 12, False, 1, 1, 20, rng)
            found = module.retrieval(run.agent, run.family, *settings)
        library = module._second(run.agent, run.family, tasks, False, 1, "known", 1)[2]
        for name, state in chosen[0].memory.items():
            torch.testing.assert_close(state, library.memory[name][[2, 0, 3, 1]])
        assert list(found) == list(module.EPISODES) and found[module.EPISODES[2]].estimate == 1.5
        returns = module._played(run.agent, run.family, tasks, library, False, 1, 1)
        assert returns.shape == (4,) and np.isfinite(returns).all()

    def test_an_agent_that_adapts_is_compared_with_it(self, identified):
        returns = identified[1].retrieved
        assert list(returns) == list(module.EPISODES)
        assert all(own.low <= own.estimate <= own.high for own in returns.values())


class TestRobot:
    class Recorder:
        def doubts(self, digest, explored, adapted):
            return []

        def identify(self, observations, actions, rewards):
            return observations, actions, rewards

    def play(self, robot, seen: np.ndarray, steps: int) -> np.ndarray:
        actions = []
        for t in range(steps):
            actions.append(robot.act(seen[t]))
            robot.observe(float(t), False, False)
        return np.array(actions)

    @pytest.mark.parametrize("adaptations", [0, 2])
    def test_it_gives_the_episode_so_far_and_then_the_last(self, adaptations):
        run = make_run("maml", FAULTY)
        robot = run.start(adaptations=adaptations, explore="never")
        seen = np.random.default_rng(0).standard_normal((40, run.family.observation_size)).astype(np.float32)
        with pytest.raises(RuntimeError, match="identify\\(\\) needs an episode of at least one step"):
            robot.identify(self.Recorder())
        actions = self.play(robot, seen, 5)
        observations, taken, rewards = robot.identify(self.Recorder())  # what the last action led to is yet unseen
        np.testing.assert_array_equal(observations, seen[:5])
        np.testing.assert_array_equal(taken, actions[:4])
        np.testing.assert_array_equal(rewards, np.arange(4.0))
        robot.end_episode(seen[5])
        for _ in range(2):
            observations, taken, _ = robot.identify(self.Recorder())
            np.testing.assert_array_equal(observations, seen[:6])
            np.testing.assert_array_equal(taken, actions)
        self.play(robot, seen[10:], 2)
        np.testing.assert_array_equal(robot.identify(self.Recorder())[0], seen[10:12])
        robot.discard_episode()
        with pytest.raises(RuntimeError, match="at least one step"):
            robot.identify(self.Recorder())

    @pytest.mark.parametrize("adaptations", [0, 2])
    def test_an_episode_is_given_up_to_its_first_fall(self, adaptations):
        run = make_run("maml", FAULTY)
        robot = run.start(adaptations=adaptations, explore="never")
        seen = np.random.default_rng(0).standard_normal((40, run.family.observation_size)).astype(np.float32)
        actions = self.play(robot, seen, 5)
        last = robot.act(seen[5])
        robot.fall(-1.0, seen[30])
        self.play(robot, seen[10:], 3)
        for over in (False, True):
            observations, taken, rewards = robot.identify(self.Recorder())
            np.testing.assert_array_equal(observations, [*seen[:6], seen[30]])
            np.testing.assert_array_equal(taken, [*actions, last])
            np.testing.assert_array_equal(rewards, [*np.arange(5.0), -1.0])
            if not over:
                robot.end_episode(seen[13])
        self.play(robot, seen[10:], 2)
        np.testing.assert_array_equal(robot.identify(self.Recorder())[0], seen[10:12])

    def test_it_warns_of_another_policy_and_of_other_noise(self, identified, tmp_path):
        own = Identifier.load(identified[2].save(tmp_path).parent)  # without noise
        run = make_run("ppo", FAULTY)
        seen = np.random.default_rng(0).standard_normal((40, run.family.observation_size)).astype(np.float32)
        ours = own.policy.digest
        for explore, digest, message in (
            ("never", ours, ""),
            ("always", ours, "with episodes without exploration noise, and this one is played with"),
            ("never", "another", "was made with the policy of run at iteration 0, and this is another"),
        ):
            own.policy = dataclasses.replace(own.policy, digest=digest)
            robot = run.start(adaptations=0, explore=explore)
            self.play(robot, seen, 3)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                robot.identify(own)
            said = [str(w.message) for w in caught if "identifier" in str(w.message)]
            assert len(said) == bool(message) and all(re.search(message, text) for text in said)

    def test_it_warns_of_an_episode_after_others(self, identified):
        """Not of the first one, which it may be asked about when the policy has adapted to it already."""
        run = make_run("rl2", FAULTY)
        robot = run.start(adaptations=2, explore="never")
        seen = np.random.default_rng(0).standard_normal((40, run.family.observation_size)).astype(np.float32)
        for episode in range(2):
            self.play(robot, seen, 3)
            robot.end_episode(seen[3])
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                robot.identify(identified[2])
            assert any("this one was played after others" in str(w.message) for w in caught) == bool(episode)
        robot = run.start(adaptations=0, explore="never", belief=robot.shot_belief)
        self.play(robot, seen, 3)
        with pytest.warns(UserWarning, match="this one was played after others"):
            robot.identify(identified[2])

    def test_an_episode_longer_than_in_training_is_read_to_that_length(self):
        run = make_run("maml", FAULTY)
        robot = run.start(adaptations=0, explore="never")
        seen = np.random.default_rng(0).standard_normal((40, run.family.observation_size)).astype(np.float32)
        self.play(robot, seen, 30)
        robot.end_episode(seen[30])
        observations, actions, _ = robot.identify(self.Recorder())
        np.testing.assert_array_equal(observations, seen[:21])
        assert len(actions) == 20

    def test_it_answers_as_from_the_log(self, identified):
        run = make_run("ppo", FAULTY)
        robot = run.start(adaptations=0, explore="never")
        seen = np.random.default_rng(0).standard_normal((40, run.family.observation_size)).astype(np.float32)
        actions = self.play(robot, seen, 10)
        robot.end_episode(seen[10])
        found = robot.identify(identified[2])
        assert isinstance(found, Identified) and found.seconds == pytest.approx(0.5)
        assert found == identified[2].identify(seen[:11], actions, np.arange(10.0))


TRAIN = "train --agent ppo --family half_cheetah_mass --name r tracking.wandb=disabled training.iterations=1"
COMMAND = "identify r --by fault_kind fault_place --family.faults weak locked --tasks 4 --episodes 2 --draws 10"
COMMAND += " --shots 4 --bootstrap-samples 20 --metric.updates 3 --metric.hidden-sizes 8 --threads 1 --seconds 0.2 0.5"


@pytest.fixture(scope="module")
def once_trained(tmp_path_factory, tiny) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert cli.main([*TRAIN.split(), "--runs-dir", str(folder), *tiny, "agent.hidden_sizes=8"]) == 0
    return folder / "r"


@pytest.fixture
def trained(tmp_path, monkeypatch, once_trained) -> Path:
    """The working directory, with a run in it that a test may change."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(once_trained, tmp_path / "runs" / "r")
    return tmp_path


def test_an_answer_that_is_less_probable_than_none_of_these_says_so():
    doubtful, sure = {NONE: 0.43, "weak": 0.04, "dead": 0.03}, {NONE: 0.2, "weak": 0.8}
    assert (
        str(Identified("weak", doubtful, 5.0))
        == "weak, if of these, after 5.00 s (none of these 43%, weak 4%, dead 3%)"
    )
    assert str(Identified("weak", sure, 5.0)) == "weak after 5.00 s (weak 80%, none of these 20%)"
    assert str(Identified(NONE, doubtful, 5.0)).startswith("none of these after 5.00 s")


@pytest.mark.thorough
def test_the_command_saves_all_that_it_says(trained, capsys):
    capsys.readouterr()
    assert cli.main([*COMMAND.split(), "--metric.head", "matching"]) == 0
    out = capsys.readouterr().out
    folder = trained / "identifications/r_fault_kind_fault_place"
    assert {path.name for path in folder.iterdir()} == {
        *("identification.json", "accuracy.png", "confusion.png", "reliability.png", FILE)
    }
    assert "nearest known task" not in out  # it does not adapt
    assert "4 classes judged" in out and "5-way 4-shot" in out and "among 11 classes" in out
    assert all(f"saved identifications/{folder.name}/{path.name}" in out for path in folder.iterdir())
    run = metarl.load("r")
    saved = json.loads((folder / "identification.json").read_text())
    assert [round(at["seconds"], 2) for at in saved["curve"]] == [0.2, 0.5]
    assert saved["provenance"]["config"]["family"]["faults"] == ["weak", "locked"]
    assert saved["settings"]["metric"]["head"] == "matching"
    identifier = metarl.Identifier.load(folder)
    own = logs(run, 1, steps=10)[0]
    save_episode(trained / "log/a.npz", own.observations, own.actions, own.rewards, own.terminated, run.family)
    (read,) = metarl.load_episodes("log", run.family)
    assert identifier.identify_logged([read]) == identifier.identify(own.observations, own.actions, own.rewards)
    told = ["identify", "r", "--identifier", f"identifications/{folder.name}", "--rollouts", "log"]
    capsys.readouterr()
    assert cli.main(told) == 0
    assert capsys.readouterr().out == f"log/a.npz: {identifier.identify_logged([read])}\n"
    for name, shift in (("a", 0), ("b", 1), ("today", 0.01)):
        for k in range(2):
            kept = own.observations + 5 * shift, own.actions + 5 * shift, own.rewards, own.terminated
            save_episode(trained / f"logs/{name}/{k}.npz", *kept, run.family)
    shutil.copytree("log", "copy")
    support = ["--support", "worn knee:logs/a", "sound:logs/b"]
    assert cli.main([*told[:-1], "logs/today", *support]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "logs/today/0.npz",
        "logs/today/1.npz",
        "2 episodes together",
    ]
    assert all("worn knee" in line for line in lines)
    for more, message in (
        (["--only", "worn"], "the identifier knows no class 'worn'; it knows"),
        (["--only", "weak bthigh"], "told from 2 classes at least, and --support and --only leave weak bthigh"),
        (["--support", "x:nowhere", "y:logs/a"], "--support: nowhere is not a folder"),
        (["--suport", "x:logs/a"], "unknown option --suport; did you mean '--support'?"),
        (["--support", "logs/a"], "--support has 'logs/a'; give LABEL:DIR"),
        (["--support", "minari:a", "minari:b"], "--support has 'minari:a'; give LABEL:DIR"),
        (["--support", "x:log", "y:logs/a"], "is in the support of 'x' and among what is to be told; give other"),
        (["--support", "x:copy", "y:logs/a"], "is in the support of 'x' and among what is to be told; give other"),
        (["--support", "x:logs/a", "x:logs/b"], "--support has the class 'x' twice"),
        (["--tasks", "4"], "--tasks is of an identifier that is to be trained"),
        (["--checkpoint", "first"], "first"),
    ):
        assert cli.main([*told, *more]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert cli.main([*told, "--checkpoint", "best"]) == 0
    capsys.readouterr()
    assert cli.main([*told, "--help"]) == 0 and "--identifier DIR" in capsys.readouterr().out
    assert cli.main(told[:-2]) == 2 and "needs --rollouts DIR" in capsys.readouterr().err
    assert cli.main(COMMAND.split()) == 0  # again, beside it
    assert (trained / "identifications/r_fault_kind_fault_place_2" / FILE).is_file()
    capsys.readouterr()
    other = (
        COMMAND.replace("fault_kind fault_place", "fault_place fault_kind")
        + " --output identifications/r_fault_kind_fault_place_2"
    )
    assert cli.main(other.split()) == 2  # another identification is not overwritten
    assert "holds the identification of r by fault_kind, fault_place; name another folder" in capsys.readouterr().err


def test_logs_of_commands_and_of_adapted_policies_are_told_apart(capsys):
    run = make_run("rl2", QuadrupedSettings(horizon=20))
    env = ShardedEnv(run.family, 1, 1, threads=1)
    env.set_tasks([run.family.neutral()])
    trial = run_trial(env, run.agent, streams(1, "test", 0, 1), 1, explore=False).trial
    episodes = []
    for k, rollout in enumerate(trial.rollouts):
        steps = int(rollout.valid.sum())
        seen = torch.cat([rollout.observations[:steps, 0, 0], rollout.final_observations[0]]).numpy()
        actions, rewards = rollout.actions[:steps, 0, 0].numpy(), rollout.rewards[:steps, 0, 0].numpy()
        episodes.append(LoggedEpisode(str(k), seen, actions, rewards, rollout.terminated[:steps, 0, 0].numpy(), shot=k))
    assert not identify_logs._of_commands(episodes[:1], run.agent, run.family)
    sent = dataclasses.replace(episodes[0], actions=run.family.command(episodes[0].actions).astype(np.float32))
    assert identify_logs._of_commands([sent], run.agent, run.family)
    assert identify_logs._first_on_task(episodes, run.agent, "log") == episodes[:1]
    assert "1 episode of log is left out: the policy had adapted before" in capsys.readouterr().err
    with pytest.raises(UsageError, match="all episodes of log are of later shots"):
        identify_logs._first_on_task(episodes[1:], run.agent, "log")
    silent = [dataclasses.replace(episode, shot=None) for episode in episodes]
    assert identify_logs._first_on_task(silent, run.agent, "log") == silent[:1]
    assert "say no shot, so the first alone is taken" in capsys.readouterr().err
    assert identify_logs._first_on_task(silent[1:], run.agent, "log") == silent[1:]
    assert identify_logs._first_on_task(silent, make_run("maml").agent, "log") == silent  # one shot of two episodes
    assert capsys.readouterr().err == ""


def test_noisy_actions_of_motors_with_a_large_gain_are_no_commands():
    run = make_run("rl2", QuadrupedSettings(horizon=20))
    control = dataclasses.replace(run.family.control, gain=np.full(12, 30.0), offset=np.zeros(12))
    family = dataclasses.replace(run.family, control=control)
    env = ShardedEnv(run.family, 1, 1, threads=1)
    env.set_tasks([run.family.neutral()])
    rollout = run_trial(env, run.agent, streams(1, "test", 0, 1), 0).trial.rollouts[0]
    steps = int(rollout.valid.sum())
    seen = torch.cat([rollout.observations[:steps, 0, 0], rollout.final_observations[0]]).numpy()
    actions, rewards = rollout.actions[:steps, 0, 0].numpy(), rollout.rewards[:steps, 0, 0].numpy()
    own = LoggedEpisode("0", seen, actions, rewards, rollout.terminated[:steps, 0, 0].numpy(), shot=0)
    assert not identify_logs._of_commands([own], run.agent, family)
    sent = dataclasses.replace(own, actions=(30.0 * family.action_scale * actions).astype(np.float32))
    assert identify_logs._of_commands([sent], run.agent, family)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("identify", "metarl identify takes the folder of one run"),
        ("identify r", "metarl identify needs --by PARAMETER, what is to be told apart; half_cheetah_mass has mass"),
        ("identify r --by mas", "--by is 'mas', which is no parameter of half_cheetah_mass with these settings; did"),
        ("identify r --by mass_scale --bins 1", "--bins is 1; it must be at least 2"),
        ("identify r --by mass_scale --way 3", "unknown option --way; did you mean '--ways'?"),
        ("identify r --by mass_scale --metric.head proto", "--metric.head is 'proto'; did you mean 'prototypical'?"),
        ("identify r --by mass_scale --metric.lr 0", "metric.lr is 0; it must be greater than 0"),
        ("identify r --by mass_scale --family quadruped", "was not trained with the observations and actions of quad"),
        ("identify r --by mass_scale --bins 5", "there are 5 classes"),
        ("identify r --by mass_scale mass_scale", "--by has 'mass_scale' twice; name each parameter once"),
        ("identify r --by mass_scale --shots 19", "--shots is 19, but half of the 12 tasks of a class support, which"),
        ("identify r --by mass_scale --seconds 0.1 99", "--seconds has 99, but an episode lasts"),
    ],
)
def test_mistakes_are_one_line(arguments, message, trained, capsys):
    capsys.readouterr()
    assert cli.main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (trained / "identifications").exists()


def test_an_interrupt_leaves_nothing_behind(trained, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "train", interrupted)
    assert cli.main(COMMAND.split()) == 130
    assert not (trained / "identifications").exists()
