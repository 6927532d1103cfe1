"""Judged records of a headroom study: the report needs no runs, and nothing is judged twice."""

from __future__ import annotations

import bz2
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.cli import app as cli
from metarl.config import EvaluationSettings, RunConfig
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.evaluation.binning import REWARD_RATE, SUCCESS, Binned
from metarl.evaluation.evaluate import draw_tasks
from metarl.evaluation.time_course import time_course
from metarl.headroom import judging
from metarl.headroom.arms import ARMS, read_arm
from metarl.headroom.packing import packed, packed_bins, read_bins, unpacked
from metarl.headroom.records import FOLDER, differences, read_record
from metarl.headroom.study import STUDY, Study, work
from metarl.runs.interrupt import Stop
from metarl.runs.run import start_run
from tests.metarl.test_robot import FAMILY, MODEL

pytestmark = pytest.mark.thorough

TINY = ["training.tasks=3", "training.envs_per_task=2", "family.horizon=10", "evaluation.tasks=4"]
TINY += ["evaluation.bootstrap_samples=50", "evaluation.seeds=1", "tracking.wandb=disabled", "--threads", "1"]
ARMS_GIVEN = ["randomised", "fine_tuned", "memory:agent.hidden_size=8", "oracle"]
ARMS_GIVEN += ["distilled:agent.hidden_size=8,agent.distil_updates=1"]
RUNS = ("randomised", "memory", "oracle", "distilled")


def command(runs_dir: Path, *more: str) -> list[str]:
    arguments = ["headroom", "point_goal", "--budget", "240", "--seeds", "1", "2", "--runs-dir", str(runs_dir)]
    given = {text.partition("=")[0] for text in more}
    return [*arguments, "--arms", *ARMS_GIVEN, *(text for text in TINY if text.partition("=")[0] not in given), *more]


def report(folder: Path) -> dict[str, Any]:
    """What the report's JSON says, without when and by which command it was made."""
    saved = json.loads((folder / "headroom.json").read_text())
    return {name: value for name, value in saved.items() if name != "provenance"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose runs are trained and judged."""
    runs_dir = tmp_path_factory.mktemp("whole")
    assert cli.main(command(runs_dir)) == 0
    return runs_dir / "headroom_point_goal"


@pytest.fixture
def study(whole: Path, tmp_path: Path) -> Path:
    """A copy of the study with its runs."""
    return Path(shutil.copytree(whole, tmp_path / "runs" / whole.name))


@pytest.fixture
def records(whole: Path, tmp_path: Path) -> Path:
    """A copy of the study without its runs."""
    folder = tmp_path / "records" / whole.name
    shutil.copytree(whole / FOLDER, folder / FOLDER)
    shutil.copy(whole / STUDY, folder)
    return folder


@pytest.fixture
def no_judging(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge_run(*arguments: Any) -> None:
        raise AssertionError(f"judged {arguments[1:3]}")

    monkeypatch.setattr(judging, "judge_run", judge_run)


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a record holds."""
    data = json.loads(bz2.decompress(path.read_bytes()))
    change(data)
    path.write_bytes(bz2.compress(json.dumps(data).encode()))


def test_the_report_of_records_is_that_of_the_runs(whole: Path, records: Path, no_judging: None, capsys):
    names = {path.name for path in (records / FOLDER).iterdir()}
    labels = ("randomised", "fine_tuned", "memory", "memory_reset", "memory_reset_episode", "oracle", "distilled")
    assert names == {f"{name}_seed{k}.json.bz2" for name in (*labels, "distilled_reset") for k in (1, 2)}
    assert cli.main(command(records.parent, "--report")) == 0
    assert report(records) == report(whole)
    assert (records / "headroom.csv").read_text() == (whole / "headroom.csv").read_text()
    assert "the oracle's action moves by" in "".join(report(records)["notes_on_the_study"])
    assert report(records)["training"].keys() == set(RUNS)
    assert "judged before: 16 runs" in capsys.readouterr().out


def test_a_run_is_judged_once(study: Path, no_judging: None):
    before = report(study)
    assert cli.main(command(study.parent)) == 0 and report(study) == before


def test_judged_anew_a_run_says_the_same(study: Path):
    before = report(study)
    shutil.rmtree(study / FOLDER)
    assert cli.main(command(study.parent, "--report")) == 0 and report(study) == before


def test_records_of_two_machines_are_joined(whole: Path, records: Path):
    shutil.copytree(whole / "memory_seed2", records / "memory_seed2")
    for name in ("memory", "memory_reset", "memory_reset_episode"):
        (records / FOLDER / f"{name}_seed2.json.bz2").unlink()
    assert cli.main(command(records.parent, "--report")) == 0
    assert report(records) == report(whole)


def test_a_run_that_is_there_by_its_record_alone_is_not_trained_again(records: Path, capsys):
    assert cli.main(command(records.parent)) == 0
    said = capsys.readouterr().out
    assert "8 runs, 8 done" in said
    assert "judged records without their runs, not trained again: randomised_seed1, memory_seed1, " in said
    assert not list(records.glob("*/config.yaml"))


def test_a_run_that_is_being_trained_here_is_reported_by_its_record(whole: Path, records: Path):
    """It was trained elsewhere too, and goes on here."""
    (records / "memory_seed1").mkdir()
    shutil.copy(whole / "memory_seed1" / "config.yaml", records / "memory_seed1")
    assert cli.main(command(records.parent, "--report")) == 0
    first, *rest = report(records)["notes_on_the_study"]
    assert first == "note: 1 of 8 runs are not done" and rest == report(whole)["notes_on_the_study"]
    assert report(records)["agents"] == report(whole)["agents"]


def test_other_settings_of_the_evaluation_judge_anew_where_the_run_is_and_are_refused_where_it_is_not(
    study: Path, capsys
):
    """Only the number of resamples may differ: intervals are computed from records."""
    shutil.rmtree(study / "memory_seed1")
    assert cli.main(command(study.parent, "--report", "evaluation.bootstrap_samples=60")) == 0
    assert "anew" not in capsys.readouterr().out
    assert cli.main(command(study.parent, "--report", "evaluation.tasks=5")) == 2
    caught = capsys.readouterr()
    assert "memory_seed1.json.bz2 was judged with another evaluation.tasks (4, here 5)" in caught.err
    assert "randomised_seed1.json.bz2 was made with another evaluation.tasks (4, here 5)" in caught.out


def test_a_run_that_is_trained_further_is_judged_anew(study: Path, capsys):
    file = next((study / "randomised_seed2" / "checkpoints").glob("iteration_*.pt"))
    edit(study / FOLDER / "randomised_seed2.json.bz2", lambda data: data["key"]["checkpoint"].update(sha256="0"))
    before = report(study)
    assert file.is_file() and cli.main(command(study.parent, "--report")) == 0
    said = capsys.readouterr().out
    assert 'randomised_seed2.json.bz2 was made with another sha256 ("0", here ' in said
    assert "judging 1 run ..." in said and report(study) == before


def test_a_record_of_another_study_is_refused_by_name(records: Path, capsys):
    path = records / FOLDER / "oracle_seed2.json.bz2"
    for change, said in (
        (lambda data: data["key"]["study"].update(budget=300.0), "another budget (300.0, here 240.0)"),
        (lambda data: data["key"]["study"]["family"].update(horizon=20), "another family.horizon (20, here 10)"),
        (lambda data: data["key"]["study"]["given"].update(x=1), "another given.x (1, here not given)"),
        (lambda data: data["key"]["study"]["arm"].update(agent="rl2"), 'another arm.agent ("rl2", here "ppo")'),
        (lambda data: data.update(seed=3), "is the record of oracle_seed3"),
    ):
        whole = path.read_bytes()
        edit(path, change)
        for switch in ((), ("--report",)):
            assert cli.main(command(records.parent, *switch)) == 2
            error = capsys.readouterr().err
            assert str(path) in error and said in error
        path.write_bytes(whole)


def test_records_fit_a_study_in_which_other_arms_have_other_budgets(records: Path, no_judging: None, capsys):
    """What trains alike is one run, whichever study asked for it; a pupil comes with its own teacher."""
    (records / STUDY).unlink()
    arms = [f"{text}{',' if ':' in text else ':'}budget=240" for text in ARMS_GIVEN if text != "fine_tuned"]
    arguments = ["headroom", "point_goal", "--budget", "960", "--seeds", "1", "2", "--runs-dir", str(records.parent)]
    assert cli.main([*arguments, "--arms", *arms, *TINY, "--report"]) == 0
    assert "judged before: 14 runs" in capsys.readouterr().out
    path = records / FOLDER / "oracle_seed2.json.bz2"
    edit(path, lambda data: data["cost"][0].update(env_steps=960))
    assert cli.main([*arguments, "--arms", *arms, *TINY, "--report"]) == 2
    assert "the record of a pupil whose teacher had 240 env steps, and that of oracle_seed2" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "text", "not_packed", "lacking", "bins", "format"])
def test_a_damaged_record_is_named_with_what_to_do(records: Path, capsys, damage: str):
    path = records / FOLDER / "memory_reset_seed1.json.bz2"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "text":
        path.write_bytes(bz2.compress(b"[1, 2"))
    elif damage == "not_packed":
        path.write_bytes(b"{}")
    elif damage == "lacking":
        edit(path, lambda data: data.pop("cost"))
    elif damage == "bins":
        edit(path, lambda data: data["outcome"]["binned"][0]["more"][0].pop())
    else:
        edit(path, lambda data: data.update(format=99))
    assert cli.main(command(records.parent, "--report")) == 2
    error = capsys.readouterr().err
    assert f"{path} is damaged, or no judged record: " in error and "remove it, and its run is judged anew" in error


def test_what_has_no_record_and_no_run_is_left_out_and_said(records: Path, capsys):
    (records / FOLDER / "memory_reset_seed2.json.bz2").unlink()
    (records / FOLDER / "distilled_seed2.json.bz2").unlink()
    assert cli.main(command(records.parent, "--report")) == 0
    notes = report(records)["notes_on_the_study"]
    assert notes[0] == "note: 1 of 8 runs are not done"
    assert "neither the run nor this record of it is here: memory_reset_seed2.json.bz2" in notes[1]


def test_a_pupil_whose_teacher_is_a_record_alone_waits_for_nothing(records: Path):
    (records / FOLDER / "distilled_seed2.json.bz2").unlink()
    base = RunConfig(family=PointGoalSettings(horizon=10))
    own = Study(records, base, [read_arm(text) for text in ARMS_GIVEN], {}, 240.0, (1, 2))
    said: list[str] = []
    assert work(own, Stop(), said.append)
    assert said == [
        "distilled_seed2: its teacher oracle_seed2 is here as a judged record alone; copy its run here to train it"
    ]


@pytest.mark.parametrize("changes", [0, 1])
def test_what_changes_in_time_and_what_is_lost_is_kept(changes: int, tmp_path: Path):
    """Changes of the tasks and recovery, or another task in between; training tasks: all that there can be."""
    evaluation = EvaluationSettings(
        tasks=3, envs_per_task=1, adaptations=1, seeds=(1,), bootstrap_samples=20, revisit=not changes, train_gap=True
    )
    base = RunConfig(family=HalfCheetahMassSettings(changes=changes, horizon=60), evaluation=evaluation)
    base = dataclasses.replace(base, tracking=dataclasses.replace(base.tracking, wandb="disabled"))
    settings = {"training.tasks": 2, "training.envs_per_task": 1}
    own = Study(tmp_path, base, [read_arm("memory:agent.hidden_size=8")], settings, 240.0, (1,))
    assert work(own, Stop(), lambda line: None)
    first, _ = judging.judge_and_save(own, lambda line: None)
    shutil.rmtree(tmp_path / "memory_seed1")
    again, _ = judging.judge_and_save(own, lambda line: None)
    one, two = first.agents[0], again.agents[0]
    assert one == two and one.result.train_gap
    assert (one.result.forgetting is None, one.result.recovery is None) == (bool(changes), not changes)
    assert {course.change for course in one.result.courses} >= {0} and one.result.courses == two.result.courses
    assert (first.notes, first.warnings) == (again.notes, again.warnings)


def test_runs_of_one_arm_that_differ_in_more_than_the_seed_are_refused(records: Path, capsys):
    edit(
        records / FOLDER / "memory_seed2.json.bz2",
        lambda data: data["key"]["checkpoint"]["trained"]["agent"].update(hidden_size=9),
    )
    assert cli.main(command(records.parent, "--report")) == 2
    error = capsys.readouterr().err
    assert "runs of memory with seeds 1 and 2 differ in more than the seed, in agent.hidden_size (8, here 9)" in error


def few_tasks(binned: Binned, count: int) -> Binned:
    """Return the values of the first tasks."""
    return dataclasses.replace(binned, values={name: own[..., :count] for name, own in binned.values.items()})


class TestPacking:
    def test_numbers_are_read_back_as_they_were(self):
        rng = np.random.default_rng(0)
        values = rng.normal(size=(2, 3, 4))
        values[0, 0, 0], values[1, 1, 1] = np.nan, np.inf
        for own, bits in ((values, 64), (values.astype(np.float32).astype(float), 32)):
            kept = json.loads(json.dumps(packed(own)))
            assert kept["bits"] == bits
            np.testing.assert_array_equal(unpacked(kept, "returns", 3), own)

    def test_rewards_in_time_give_the_same_seconds_and_levels(self):
        """Rounded are the rewards since the start, as finely as there is room for."""
        rng = np.random.default_rng(1)
        t = np.arange(80)[:, None] / 80
        rates = 4 * (1 - np.exp(-6 * t)) + rng.normal(size=120) + rng.normal(size=(80, 120))
        rates[:40, 7] = np.nan  # a task without a sound episode in its first round
        by_seed = np.moveaxis(rates.reshape(80, 3, 40), 1, 0)
        own = Binned(0.25 * np.arange(1, 41), 2, {REWARD_RATE: by_seed[None]}, changes_s=[(1.0, 2.0)])
        kept = packed_bins(own)
        back = read_bins(json.loads(json.dumps(kept)), 3, 40)
        assert len(bz2.compress(json.dumps(kept, separators=(",", ":")).encode())) < 12_000
        assert (back.episodes, back.changes_s, back.memory) == (2, [(1.0, 2.0)], True)
        np.testing.assert_array_equal(np.isnan(back.values[REWARD_RATE]), np.isnan(own.values[REWARD_RATE]))
        one, two = (time_course(values, 500, np.random.default_rng(0)) for values in (own, back))
        assert one is not None and two is not None and one.seconds == two.seconds
        for a, b in ((one.level, two.level), (one.rise, two.rise)):
            assert dataclasses.astuple(a) == pytest.approx(dataclasses.astuple(b), abs=1e-3)
        few = few_tasks(own, 7)
        error = read_bins(packed_bins(few), 3, 7).values[REWARD_RATE] - few.values[REWARD_RATE]
        assert np.nanmax(np.abs(error)) < 1e-3

    def test_success_and_errors_in_time_are_read_back_for_figures(self):
        rng = np.random.default_rng(2)
        rates = rng.normal(size=(1, 3, 40, 20))
        success = (rng.random((1, 3, 40, 20)) < np.linspace(0, 1, 40)[:, None]).astype(float)
        errors = 0.3 + 0.1 * rng.normal(size=(1, 3, 40, 20))
        errors[:, :, 25:, 4] = np.nan  # episodes that are over
        own = Binned(0.1 * np.arange(1, 41), 1, {REWARD_RATE: rates, SUCCESS: success, "velocity_error": errors})
        kept = json.loads(json.dumps(packed_bins(own)))
        back = read_bins(kept, 3, 20)
        assert list(back.values) == list(own.values)
        np.testing.assert_array_equal(np.isnan(back.values["velocity_error"]), np.isnan(errors))
        np.testing.assert_allclose(back.values["velocity_error"], errors, atol=0.1 / 2)
        np.testing.assert_allclose(back.values[SUCCESS], success, atol=1 / 4)
        with pytest.raises(
            ValueError, match=r"success in time has the shape \(3, 40, 20\), and \(3, 40, 19\) is needed"
        ):
            read_bins({**packed_bins(few_tasks(own, 19)), "curves": kept["curves"]}, 3, 19)
        del kept["curves"]  # as records of before have none
        pooled = Binned.pool([back, read_bins(kept, 3, 20)])
        assert list(pooled.values) == [REWARD_RATE] and pooled.values[REWARD_RATE].shape == (2, 3, 40, 20)

    def test_settings_of_another_version_are_left_out_and_given_ones_are_not(self):
        assert differences({"family": {"a": 1, "new": 2}}, {"family": {"a": 1, "old": 3}}) == []
        assert differences({"given": {"a": 1}}, {"given": {}}) == ["given.a (1, here not given)"]


@pytest.mark.slow
def test_a_record_of_the_usual_evaluation_is_small(tmp_path: Path):
    """40 tasks of each of three evaluation seeds, two episodes of 200 steps."""
    evaluation = EvaluationSettings(envs_per_task=1, adaptations=1, explore=False, train_gap=False)
    base = RunConfig(family=HalfCheetahMassSettings(), evaluation=evaluation)
    base = dataclasses.replace(base, tracking=dataclasses.replace(base.tracking, wandb="disabled"))
    settings = {"training.tasks": 2, "training.envs_per_task": 1, "training.iterations": 1}
    own = Study(tmp_path, base, [ARMS["randomised"]], settings, 800.0, (1,))
    start_run(own.config(own.arms[0], 1), tmp_path, "randomised_seed1")
    assert work(own, Stop(), lambda line: None)
    judging.judged(own, draw_tasks(own.family, evaluation), lambda line: None)
    path = tmp_path / FOLDER / "randomised_seed1.json.bz2"
    assert read_record(path) is not None and path.stat().st_size < 27_000


OWN_ENV = """
import numpy as np, metarl
from gymnasium import Env
from gymnasium.spaces import Box
class Line(Env):
    observation_space, action_space = Box(-np.inf, np.inf, (1,)), Box(-1.0, 1.0, (1,))
    def set_task(self, task): self.goal = task["place"]
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = 0.0
        return np.array([self.x], dtype=np.float32), {}
    def step(self, action):
        self.x += 0.2 * float(action[0])
        return np.array([self.x], dtype=np.float32), -abs(self.x - self.goal), False, False, {}
def tasks():
    return metarl.GymTasks(make=Line, parameters=(metarl.quantity("place", -1, 1, "m"),), horizon=12, dt=0.1)
"""


@pytest.mark.parametrize("kind", ["robot", "env"])
def test_files_of_ones_own_count_by_what_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, kind: str):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name, text in (("robot.xml", MODEL), ("family.yaml", FAMILY), ("line.py", OWN_ENV)):
        Path(name).write_text(text)
    files = ["--robot", "robot.xml", "--family", "family.yaml"] if kind == "robot" else ["--env", "line.py:tasks"]
    tiny = [text for text in TINY if kind == "robot" or "horizon" not in text]
    arguments = ["headroom", *files, "--name", "own", "--budget", "120", "--seeds", "1", "--arms", "oracle", *tiny]
    assert cli.main(arguments) == 0
    folder = tmp_path / "runs" / "own"
    before = report(folder)
    shutil.rmtree(folder / "oracle_seed1")
    assert cli.main([*arguments, "--report"]) == 0 and report(folder) == before
    (tmp_path / "elsewhere").mkdir()
    moved = [f"../{text}" if text in ("robot.xml", "family.yaml", "line.py:tasks") else text for text in arguments]
    study = json.loads((folder / "study.json").read_text())
    for name in {"model", "file", "source"} & study["family"].keys():  # as a path, as older versions wrote them
        study["family"][name] = study["family"][name].partition(" (")[0]
    with monkeypatch.context() as there:
        there.chdir(tmp_path / "elsewhere")
        for text in ((folder / "study.json").read_text(), json.dumps(study)):
            (folder / "study.json").write_text(text)
            assert cli.main([*moved, "--runs-dir", "../runs", "--report"]) == 0 and report(folder) == before
    file = Path("family.yaml" if kind == "robot" else "line.py")
    file.write_text(file.read_text() + "\n# changed\n")
    capsys.readouterr()
    assert cli.main([*arguments, "--report"]) == 2
    said = (
        "is a record of another study, with another family."
        if kind == "robot"
        else ("holds a study with another line.py, which family.source names, (")
    )
    assert said in capsys.readouterr().err
    if kind == "robot":
        study["family"]["file"] = "family.yaml (01234567)"
        (folder / "study.json").write_text(json.dumps(study))
        assert cli.main([*arguments, "--report"]) == 2
        assert 'another family.file ("family.yaml (01234567)", here "family.yaml (' in capsys.readouterr().err
