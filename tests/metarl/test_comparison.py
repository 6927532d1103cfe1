"""Several agents on the same tasks: what is refused, what is shown and kept, and that the numbers are evaluation's."""

import csv
import dataclasses
import io
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import metarl
from metarl.agents.maml.settings import MamlSettings
from metarl.agents.sb3.settings import PpoSettings
from metarl.cli import app as cli
from metarl.config import (
    EvaluationSettings,
    RunConfig,
    TrackingSettings,
    TrainingSettings,
    config_to_dict,
    preset,
    read_run_config,
)
from metarl.envs.family_settings import FamilySettings
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family
from metarl.envs.robots.ant_settings import AntGoalSettings
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.errors import UsageError
from metarl.evaluation.compare import improvements_of, with_oracle_shares
from metarl.evaluation.comparison import Compared, Comparison
from metarl.evaluation.contrasts import difference_interval
from metarl.evaluation.remarks import trained_elsewhere
from metarl.evaluation.results import AgentResult, Source, TrainGap
from metarl.evaluation.saved import read_comparison
from metarl.evaluation.statistics import Interval, interquartile_mean, mean, summarise, task_interval
from metarl.reporting import comparison_files, comparison_tables
from metarl.reporting.columns import REACH, Agents
from metarl.reporting.judge import evaluate
from metarl.reporting.report.agents import return_table
from metarl.reporting.report.material import ReportedRun, config_differences
from metarl.reporting.report.reading import gather
from metarl.runs.entries import Entry, by_agent, family_settings, labels, read_entries
from metarl.runs.run import load_run, save_config, start_run
from metarl.training.loop import train
from metarl.wording import number_of
from tests.metarl.test_control import arm

SMALL = EvaluationSettings(tasks=3, envs_per_task=2, adaptations=1, seeds=(1, 2), bootstrap_samples=50)
QUIET = TrackingSettings(wandb="disabled")


def made_up(
    names: Sequence[str], oracle: int | None = None, rounds: Sequence[int] = (), settings: FamilySettings | None = None
) -> Comparison:
    """Agents that are 10 apart from each other, and gain 20 a round; the training tasks of the last go 30 better."""
    family, rng = make_family(settings or HalfCheetahMassSettings()), np.random.default_rng(0)
    evaluation = EvaluationSettings(tasks=20, envs_per_task=5, adaptations=3, seeds=(1, 2), bootstrap_samples=200)
    tasks = [family.sample(evaluation.tasks, rng, "held_out") for _ in evaluation.seeds]
    first = family.parameters[0].name
    hard = np.array([[task.values[first] for task in drawn] for drawn in tasks])[:, None]
    agents = []
    for i, name in enumerate(names):
        own = replace(evaluation, adaptations=rounds[i] if rounds else 3)
        shots = own.adaptations + 1
        rise = 60 * (1 - np.exp(-np.arange(shots)))[:, None] * (i != oracle)
        returns = 100.0 + 10 * i + rise + 8 * hard + rng.normal(0, 4, (2, shots, 20)) + 80 * (i == oracle)
        training = returns + rng.normal(0, 4, returns.shape) + 30 * (i == len(names) - 1)
        values = {unit: np.abs(rng.normal(0.5, 0.1, returns.shape)) for unit in family.measure_units}
        measured = {k: [task_interval(v[:, s], mean, 50, rng) for s in range(shots)] for k, v in values.items()}
        before, after = (
            difference_interval(training[:, s], returns[:, s], interquartile_mean, 200, rng) for s in (0, -1)
        )
        gap = TrainGap(training, Interval(0, 0, 0), before, after, own=True)
        result = AgentResult(
            returns=returns,
            faults=0,
            summary=summarise(returns, 200, rng),
            source=Source(name, 9, 9000),
            measures=values,
            measured=measured,
            train_gap=gap,
        )
        agents.append(
            Compared(label=name, agent="maml", oracle=i == oracle, result=result, explore=True, envs_per_task=5)
        )
    agents = with_oracle_shares(agents, evaluation)
    return Comparison(
        family=family.name,
        family_settings=config_to_dict(RunConfig(family=settings or HalfCheetahMassSettings()))["family"],
        settings=evaluation,
        units=dict(family.measure_units),
        success=family.success_text(),
        tasks=[[dict(task.values) for task in drawn] for drawn in tasks],
        agents=tuple(agents),
        improvements=tuple(improvements_of(agents, evaluation)),
        notes=("a note",),
        warnings=("a warning",),
    )


def shown(comparison: Comparison, terminal: bool = False) -> str:
    file = io.StringIO()
    comparison_tables.show(comparison, Console(file=file, width=100, force_terminal=terminal, no_color=True))
    return re.sub(r"\x1b\[\d*m", "", file.getvalue())


class TestWhatIsShown:
    COMPARISON = made_up(["first", "a_run_of_the_name_that_runs_get_1_20261121-100330", "oracle"], oracle=2)

    def test_tables_fit_on_100_columns_and_name_every_agent(self):
        for terminal in (False, True):
            text = shown(self.COMPARISON, terminal)
            tables = text.split("gap: return")[0]
            assert max(map(len, tables.splitlines())) <= 100
            for label in ("first", "a_run_of_th…61121-100330", "oracle"):
                assert tables.count(label) >= 3

    def test_episodes_are_those_that_an_agent_s_memory_has_met(self):
        """The first one's rounds read five episodes of a task; each env of the second has a memory of its own."""
        shared, apart, _ = self.COMPARISON.agents
        apart = replace(apart, result=replace(apart.result, episodes_per_round=1))
        apart = Compared.from_dict(json.loads(json.dumps(apart.to_dict())))
        both = replace(self.COMPARISON, agents=(shared, apart))
        rows = list(csv.DictReader(io.StringIO(comparison_files.csv_text(both))))
        assert [row["episodes_per_round"] for row in rows] == ["5", "1"]
        rounds = [agent.result.summary.rounds_to_reach.estimate for agent in both.agents]
        table = Agents.of(both.agents)
        for agent, each, reached in zip(both.agents, (5, 1), rounds, strict=True):
            assert REACH.cell(agent, table).endswith(f"rounds, {number_of(each * reached, 'episode')}")

    def test_a_row_says_what_the_file_does(self):
        agent = self.COMPARISON.agents[0]
        text = shown(self.COMPARISON)
        summary = agent.result.summary
        assert f"{summary.iqm[0].estimate:.1f}" in text and f"{summary.gain[-1].estimate:+.1f}" in text
        saved = json.loads(json.dumps(self.COMPARISON.to_dict(), allow_nan=False))
        assert saved["agents"][0]["summary"]["iqm"][0]["estimate"] == summary.iqm[0].estimate
        row = next(csv.DictReader(io.StringIO(comparison_files.csv_text(self.COMPARISON))))
        assert float(row["return_before"]) == summary.iqm[0].estimate
        assert float(row["gain_low"]) == summary.gain[-1].low
        assert float(row["speed"]) == pytest.approx(0.5, abs=0.1)

    def test_gap_to_training_tasks_is_marked_and_explained_where_it_is_there(self):
        lines = [line for line in shown(self.COMPARISON).splitlines() if line.endswith("!")]
        assert len(lines) == 1 and lines[0].startswith("oracle")
        gaps = [agent.result.train_gap for agent in self.COMPARISON.agents]
        assert [gap.flagged for gap in gaps] == [False, False, True]
        [warning] = gaps[2].warnings
        assert "Train on more tasks or on wider ranges" in warning

    def test_share_of_the_oracles_lead(self):
        """It leads by 100 over the first agent before adaptation, which gains 60 (1 - e^-3) = 57."""
        share = self.COMPARISON.agents[0].oracle_share
        assert share.estimate == pytest.approx(0.57, abs=0.03) and share.low <= share.estimate <= share.high
        assert self.COMPARISON.agents[2].oracle_share is None

    def test_what_is_not_shown_is_a_dash_that_is_explained_once(self):
        """The oracle's returns do not rise; without its lead there is no share of it either."""
        agents = list(self.COMPARISON.agents)
        assert agents[2].result.summary.rounds_to_reach is None
        agents[0] = replace(agents[0], oracle_share=None)
        text = shown(replace(self.COMPARISON, agents=agents))
        assert text.count("90 % after: — where the interval of the gain does not lie above 0") == 1
        assert text.count("of the oracle's lead: — where the interval of the oracle's lead") == 1
        table = text[text.index("adaptation  ") :].split("\n\n")[0].splitlines()
        assert [line.count("—") for line in table[1:4]] == [1, 0, 1], table

    def test_pairs_are_compared_once(self):
        pairs = [(pair.a, pair.b, pair.interval.estimate) for pair in self.COMPARISON.improvements]
        assert len(pairs) == 3 and pairs[1][:2] == ("first", "oracle")
        assert pairs[1][2] == 0.0 and all(pair[2] <= 0.5 for pair in pairs)

    def test_files_are_written_and_figures_are_of_readme_width(self, tmp_path: Path, capsys):
        family = make_family(HalfCheetahMassSettings())
        figures = comparison_files.save(made_up(["a", "b"], rounds=(1, 30)), family, tmp_path / "new")
        assert set(figures) == {"curves", "parameters", "improvement"}
        for path in figures.values():
            head = path.read_bytes()[:24]
            assert head.startswith(b"\x89PNG") and int.from_bytes(head[16:20], "big") in (1024, 1328)
        assert json.loads((tmp_path / "new" / "comparison.json").read_text())["split"] == "held_out"
        assert capsys.readouterr().out.count("saved") == 5


def test_labels_tell_runs_apart():
    config = RunConfig()
    one, two = Entry(Path("/x/seed1/run"), config), Entry(Path("/x/seed2/run"), config)
    tuned = Entry(Path("/x/seed1/run"), config, {"agent.first_order": True, "evaluation.adaptations": 9})
    assert labels([[one]]) == ["run"]
    assert labels([[one], [two], [tuned]]) == ["seed1/run", "seed2/run", "run:first_order=true,adaptations=9"]
    assert labels([[one], [one]]) == ["seed1/run", "seed1/run (2)"]
    named = replace(one, name="mine")
    assert labels([[named], [two]]) == ["mine", "run"]
    with pytest.raises(UsageError, match="the label 'mine' is given to 2 agents"):
        labels([[named], [replace(two, name="mine")]])


@pytest.mark.parametrize(
    ("folders", "label"),
    [
        (("rl2_seed1", "rl2_seed2", "rl2_seed3"), "rl2"),
        (("rl2_seed_1", "rl2_seed_2"), "rl2"),
        (("rl2", "rl2_2", "rl2_3"), "rl2"),
        (("rl2_64_1", "rl2_64_2"), "rl2_64"),
        (("s1", "s2"), "s1"),
        (("seed1_rl2", "seed2_rl2"), "seed1_rl2"),
        (("glass_9", "glass_10"), "glass"),
        (("maml_ant-s10", "maml_ant-s11"), "maml_ant"),
        (("one", "two"), "one"),
    ],
)
def test_an_agent_of_several_runs_is_called_by_what_their_names_begin_with(folders, label):
    entries = [Entry(Path("/x") / folder, RunConfig()) for folder in folders]
    assert labels([entries]) == [label]
    again = [Entry(Path("/x") / f"{folder}_again", RunConfig()) for folder in folders]
    assert len(set(labels([entries, again]))) == 2


def test_runs_that_differ_in_the_seed_of_training_alone_are_one_agent():
    def entry(seed: int, name: str = "", **training: object) -> Entry:
        config = RunConfig(training=TrainingSettings(seed=seed, **training))
        return Entry(Path(f"/x/{seed}"), config, name=name)

    first, second, longer = entry(1), entry(2, threads=3, checkpoint_every=7), entry(3, iterations=999)
    tuned = replace(entry(2), overrides={"evaluation.adaptations": 9})
    again, apart = entry(1), entry(4, name="mine")
    chunked = replace(entry(5), config=replace(entry(5).config, agent=MamlSettings(tasks_per_chunk=3)))
    entries = [first, longer, second, tuned, again, apart, chunked]
    assert by_agent(entries) == [[first, second, chunked], [longer], [tuned], [again], [apart]]


def test_runs_of_ones_own_robot_are_one_agent_if_their_copies_of_it_are_alike(tmp_path):
    def entry(seed: int, text: str) -> Entry:
        folder = tmp_path / f"run_{seed}"
        folder.mkdir(exist_ok=True)
        (folder / "walker.xml").write_text(text)
        robot = RobotSettings(model=str(folder / "walker.xml"), file=str(folder / "walker.yaml"))
        return Entry(folder, RunConfig(family=robot, training=TrainingSettings(seed=seed)))

    one, two, other = entry(1, "<mujoco/>"), entry(2, "<mujoco/>"), entry(3, "<mujoco> </mujoco>")
    assert by_agent([one, two, other]) == [[one, two], [other]]


def test_runs_of_ones_own_robot_are_one_agent_wherever_their_code_lies(tmp_path):
    def entry(seed: int, function: str) -> Entry:
        folder = tmp_path / f"run_{seed}"
        folder.mkdir()
        (folder / "walker.yaml").write_text(f"reward: {{own: {{function: '{function}', weight: 1}}}}")
        robot = RobotSettings(file=str(folder / "walker.yaml"), hooks=("0" * 64,))
        return Entry(folder, RunConfig(family=robot, training=TrainingSettings(seed=seed)))

    one, two = entry(1, "/one/checkout/own.py:sway"), entry(2, "/another/own.py:sway")
    other = entry(3, "/one/checkout/own.py:heel")
    assert by_agent([one, two, other]) == [[one, two], [other]]
    assert trained_elsewhere(one.config, two.config) == ""
    assert "file" in trained_elsewhere(one.config, other.config)


def small_run(folder: Path, config: RunConfig) -> Path:
    directory = start_run(dataclasses.replace(config, evaluation=SMALL, tracking=QUIET), folder.parent, folder.name)
    train(dataclasses.replace(config, evaluation=SMALL, tracking=QUIET), directory)
    return directory


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of small runs on point goals: MAML, PPO, an oracle; and one of an untrained quadruped's config."""
    folder = tmp_path_factory.mktemp("runs")
    training = TrainingSettings(iterations=1, tasks=2, envs_per_task=2, threads=1, checkpoint_every=1, device="cpu")
    family = PointGoalSettings(horizon=5)
    maml = RunConfig(MamlSettings(hidden_sizes=(8,)), family, training)
    ppo = RunConfig(PpoSettings(hidden_sizes=(8,)), family, training)
    configs = {
        "maml": maml,
        "ppo": ppo,
        "oracle": replace(ppo, training=replace(training, reveal_task=True)),
    }
    return {name: small_run(folder / name, config) for name, config in configs.items()}


@pytest.fixture(scope="module")
def seeds(runs: dict[str, Path]) -> list[Path]:
    """Folders of the PPO run and two with other training seeds."""
    config = read_run_config(runs["ppo"])
    others = [
        small_run(runs["ppo"].with_name(f"ppo_{seed}"), replace(config, training=replace(config.training, seed=seed)))
        for seed in (5, 6)
    ]
    return [runs["ppo"], *others]


@pytest.mark.thorough
def test_agents_meet_the_same_tasks_and_get_the_numbers_of_their_own_evaluation(runs, tmp_path, capsys):
    comparison = metarl.compare(
        [
            runs["maml"],
            f"{runs['ppo']}:agent.adaptation=fine_tune,evaluation.adaptations=2,label=tuned",
            runs["oracle"],
        ],
        output=tmp_path / "out",
        threads=1,
    )
    assert [a.label for a in comparison.agents] == ["maml", "tuned", "oracle"]
    assert [a.result.returns.shape for a in comparison.agents] == [(2, 2, 3), (2, 3, 3), (2, 2, 3)]
    alone = evaluate(runs["maml"], threads=1)
    np.testing.assert_array_equal(comparison.agents[0].result.returns, alone.returns)
    assert comparison.tasks == alone.tasks
    assert read_comparison(tmp_path / "out" / "comparison.json") == comparison
    assert comparison.agents[0].result.train_gap.after == alone.train_gap.after
    assert [a.oracle for a in comparison.agents] == [False, False, True]
    saved = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [a["overrides"] for a in saved["agents"]][1] == {
        "agent.adaptation": "fine_tune",
        "evaluation.adaptations": 2,
    }
    assert saved["tasks"] == alone.tasks
    assert saved["agents"][0]["returns"] == alone.returns.tolist()
    assert saved["agents"][0]["measures"].keys() == {"success", "final_goal_distance", "goal_reached"}
    assert saved["provenance"]["versions"]["mujoco"]
    assert "tuned: 2 rounds of adaptation are more than the 1" in " ".join(saved["notes"])
    assert len(saved["probability_of_improvement"]) == 3
    printed = capsys.readouterr().out
    assert "3 agents on the same 6 held-out tasks of point_goal (seeds 1, 2)" in printed


@pytest.mark.parametrize("again", ["", "/."])
def test_a_run_that_is_given_twice_alike_is_refused(runs, again, capsys):
    assert cli.main(["evaluate", str(runs["maml"]), str(runs["maml"]) + again]) == 2
    assert "is given twice; give it once, or with settings or a label" in capsys.readouterr().err
    with pytest.raises(UsageError, match="is given twice"):
        metarl.compare([runs["maml"], f"{runs['maml']}{again}"])


def test_a_run_given_twice_does_as_well_as_itself(runs, tmp_path):
    run = load_run(runs["maml"])
    twice = metarl.compare([run, runs["maml"]], output=tmp_path, threads=1, train_gap=False, adaptations=0)
    [pair] = twice.improvements
    assert (pair.interval.estimate, pair.interval.low, pair.interval.high) == (0.5, 0.5, 0.5)
    assert twice.agents[0].result.train_gap is None


def test_a_run_is_compared_with_itself_at_more_inner_steps(runs, tmp_path):
    """Before adaptation they are one agent, after it two; the more steps are those that the run would take itself."""
    entries = [runs["maml"], f"{runs['maml']}:agent.inner_steps=3,label=three"]
    one, three = metarl.compare(entries, output=tmp_path, threads=1, train_gap=False).agents
    np.testing.assert_array_equal(one.result.returns[:, 0], three.result.returns[:, 0])
    assert not np.array_equal(one.result.returns[:, 1], three.result.returns[:, 1])
    longer = shutil.copytree(runs["maml"], tmp_path / "longer")
    config = read_run_config(longer)
    save_config(replace(config, agent=replace(config.agent, inner_steps=3)), longer)
    np.testing.assert_array_equal(evaluate(longer, threads=1).returns, three.result.returns)


@pytest.mark.thorough
def test_several_training_seeds_are_one_agent_with_the_mean_of_their_numbers(
    runs, seeds, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    status, printed = evaluated([*seeds, runs["oracle"], "--threads", 1, "--output", "out"], capsys)
    assert status == 0, printed
    saved = json.loads(Path("out/comparison.json").read_text())
    pooled, oracle = saved["agents"]
    assert (pooled["label"], oracle["label"], oracle["runs"]) == ("ppo", "oracle", [])
    assert [run["seed"] for run in pooled["runs"]] == [1, 5, 6]
    assert [run["folder"] for run in pooled["runs"]] == [str(path) for path in seeds]
    alone = [evaluate(path, threads=1) for path in seeds]
    for result, run in zip(alone, pooled["runs"], strict=True):
        assert run["returns"] == result.returns.tolist()
    np.testing.assert_allclose(pooled["returns"], np.mean([result.returns for result in alone], axis=0))
    level = np.mean([result.summary.iqm[-1].estimate for result in alone])
    assert pooled["summary"]["iqm"][-1]["estimate"] == pytest.approx(level)
    gap = np.mean([result.train_gap.after.estimate for result in alone])
    assert pooled["train_gap"]["after"]["estimate"] == pytest.approx(gap)
    lead = [np.sign(result.returns[:, -1] - np.array(oracle["returns"])[:, -1]) for result in alone]
    [pair] = saved["probability_of_improvement"]
    assert (pair["a"], pair["estimate"]) == ("ppo", pytest.approx(0.5 + 0.5 * np.mean(lead)))
    shown = " ".join(printed.split())
    assert "2 agents on the same 6 held-out tasks" in shown and "ppo (ppo_5): evaluating seed 1" in shown
    by_seed = ", ".join(f"{s}: {r.summary.iqm[-1].estimate:.2f}" for s, r in zip((1, 5, 6), alone, strict=True))
    assert f"ppo by training seed, after: {by_seed}" in shown
    assert "and over 3 training seeds (Student's t)" in shown
    rows = list(csv.DictReader(io.StringIO(Path("out/comparison.csv").read_text())))
    assert [(row["run"], row["training_seed"]) for row in rows] == [("ppo+ppo_5+ppo_6", "1+5+6"), ("oracle", "1")]


@pytest.mark.thorough
def test_a_report_knows_the_runs_of_several_training_seeds(runs, seeds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metarl.compare([*seeds, runs["oracle"]], threads=1, train_gap=False, output="comparisons/new")
    for comparison in (None, Path("comparisons")):
        material = gather([*seeds, runs["oracle"]], comparison)
        [compared] = material.comparisons
        iterations = [dict(agent.runs) for agent in compared.agents]
        assert iterations == [{"ppo": 1, "ppo_5": 1, "ppo_6": 1}, {"oracle": 1}]
        assert material.problems == []
    material = gather([seeds[1], runs["oracle"]])
    assert all(len(agent.agent.members) == 1 for own in material.comparisons for agent in own.agents)
    material = gather([seeds[1], runs["oracle"]], Path("comparisons"))
    assert any("2 of the 3 runs of ppo" in problem for problem in material.problems)
    assert any("shown one by one" in problem for problem in gather(seeds[1:]).problems)
    moved = tmp_path / "elsewhere"
    shutil.copytree(runs["ppo"].parent, moved)
    data = json.loads(Path("comparisons/new/comparison.json").read_text().replace(str(runs["ppo"].parent), "/gone"))
    Path("comparisons/new/comparison.json").write_text(json.dumps(data))
    material = gather([moved / path.name for path in seeds], Path("comparisons"))
    assert list(material.comparisons[0].agents[0].runs) == ["ppo", "ppo_5", "ppo_6"]
    table = return_table(material.comparisons[0].comparison)
    column = table.columns.index("training seeds")
    assert [row[column] for row in table.rows] == ["3", "1"]


def test_a_label_may_have_commas_and_equals_signs(tmp_path):
    save_config(RunConfig(), tmp_path)
    for label in ("a, b", "ü, 2=3", "lr=0.1, batch=64", "a,2=3"):
        [entry] = read_entries(f"{tmp_path}:label={label},agent.inner_lr=0.5")
        assert entry.name == label and entry.overrides == {"agent.inner_lr": 0.5}
    [entry] = read_entries(f"{tmp_path}:agent.inner-lr=0.5,label=lr=0.1, batch=64")
    assert entry.name == "lr=0.1, batch=64" and entry.overrides == {"agent.inner_lr": 0.5}
    said = "'batch' cannot be set for one run.*; if it is part of the label, write a space after the comma: 'label=lr="
    with pytest.raises(UsageError, match=said + "0.1, batch=64'"):
        read_entries(f"{tmp_path}:label=lr=0.1,batch=64")


def test_a_pattern_stands_for_the_runs_that_fit_it(seeds, tmp_path, monkeypatch):
    monkeypatch.chdir(seeds[0].parent.parent)
    folder = seeds[0].parent.name
    for text, root in ((f"{folder}/ppo_*", folder), ("ppo_[0-9]", folder)):
        entries = read_entries(f"{text}:label=tuned,agent.adaptation=fine_tune", Path(folder))
        assert [entry.path for entry in entries] == [Path(root) / "ppo_5", Path(root) / "ppo_6"]
        assert {(entry.name, entry.overrides["agent.adaptation"]) for entry in entries} == {("tuned", "fine_tune")}
    bracketed = tmp_path / "a[2]"
    bracketed.mkdir()
    save_config(RunConfig(), bracketed)
    assert [entry.path for entry in read_entries(f"{bracketed}:label=x")] == [bracketed]
    for number in ("10", "9"):
        (tmp_path / f"s{number}").mkdir()
        save_config(RunConfig(), tmp_path / f"s{number}")
    assert [entry.path.name for entry in read_entries(f"{tmp_path}/s*")] == ["s9", "s10"]


@pytest.mark.thorough
def test_labels_keep_training_seeds_apart(seeds, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    named = [f"{path}:label={path.name}" for path in seeds]
    status, printed = evaluated([*named, "--threads", 1, "--no-train-gap", "--output", "out"], capsys)
    assert status == 0 and "3 agents on the same" in printed and "training seeds" not in printed, printed


def evaluated(arguments: Sequence[object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = cli.main(["evaluate", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.err if status else captured.out


def test_command_takes_short_options_and_a_family_of_the_same_robot(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [runs["maml"], "--family", "point_goal", "family.goal_range=2", "--split", "held-out", "--shots", 0]
    status, printed = evaluated([*arguments, "--episodes", 1, "--seeds", 7, 8, "--no-train-gap"], capsys)
    assert status == 0, printed
    [folder] = (tmp_path / "comparisons").iterdir()
    assert folder.name.startswith("point_goal_held_out_")
    saved = json.loads((folder / "comparison.json").read_text())
    assert (saved["evaluation"]["adaptations"], saved["evaluation"]["seeds"]) == (0, [7, 8])
    assert saved["family_settings"]["goal_range"] == 2.0 and saved["family_settings"]["horizon"] == 5
    assert saved["agents"][0]["train_gap"] is None
    assert any("trained with family.goal_range=0.5 (here 2.0)" in note for note in saved["notes"])


def test_an_agent_whose_actions_would_do_something_else_is_warned_of(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [runs["maml"], "--family", "point_goal", "family.action_scale=0.7", "--shots", 0, "--no-train-gap"]
    status, printed = evaluated(arguments, capsys)
    assert status == 0 and "trained with another action scale" in " ".join(printed.split()), printed
    [folder] = (tmp_path / "comparisons").iterdir()
    [warning] = json.loads((folder / "comparison.json").read_text())["warnings"]
    assert "train all agents with the same family.* settings" in warning


@pytest.mark.thorough
def test_an_own_robot_with_stronger_motors_than_it_was_trained_with_is_warned_of(tmp_path, monkeypatch, capsys):
    """An action of 1 is 4 N m to one and 8 N m to the other, in the same bounds of actions."""
    monkeypatch.chdir(tmp_path)
    training = TrainingSettings(iterations=1, tasks=2, envs_per_task=2, threads=1, checkpoint_every=1, device="cpu")
    robot = arm(tmp_path, "added motor", horizon=5)
    run = small_run(tmp_path / "runs" / "weak", RunConfig(MamlSettings(hidden_sizes=(8,)), robot, training))
    stronger = Path(robot.file).read_text().replace("force: 4", "force: 8")
    (tmp_path / "strong.yaml").write_text(stronger)
    warnings = []
    for file in (robot.file, "strong.yaml"):
        arguments = [run, f"family.file={file}", f"family.model={robot.model}", "--shots", 0, "--no-train-gap"]
        status, printed = evaluated([*arguments, "--output", f"compared_{Path(file).stem}"], capsys)
        assert status == 0, printed
        warnings.append(json.loads(Path(f"compared_{Path(file).stem}/comparison.json").read_text())["warnings"])
    assert warnings[0] == [] and "other control signals of an action" in warnings[1][0]


def test_where_nothing_can_be_saved_is_told_before_anything_is_judged(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    status, printed = evaluated([runs["ppo"], "--no-train-gap", "--output", "file/out"], capsys)
    assert status == 2 and "evaluating" not in printed and "choose another --output" in printed, printed


@pytest.mark.thorough
def test_another_comparison_is_not_overwritten(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = ("--no-train-gap", "--shots", 0, "--output", "out")
    assert evaluated([runs["ppo"], *few], capsys)[0] == 0
    assert evaluated([f"{runs['ppo']}:label=again", *few], capsys)[0] == 0
    before = Path("out/comparison.json").read_bytes()
    status, printed = evaluated([runs["ppo"], runs["maml"], *few], capsys)
    assert status == 2 and f"--output out holds the comparison of {runs['ppo']}; name another folder" in printed
    with pytest.raises(UsageError, match="out holds the comparison of"):
        metarl.compare([runs["maml"]], output="out", threads=1, train_gap=False, adaptations=0)
    for other, shown in (
        (("--split", "ood", "--shots", 0), r"evaluation\.split \(held_out, here ood\)"),
        (("--shots", 0, "family.goal_range=0.2"), r"family\.goal_range \(0\.5, here 0\.2\)"),
        (("--shots", 0), r"setting of a single run \(none, here ppo:evaluation\.envs_per_task=3\)"),
    ):
        run = f"{runs['ppo']}:evaluation.envs-per-task=3" if "single" in shown else runs["ppo"]
        status, printed = evaluated([run, "--no-train-gap", "--output", "out", *other], capsys)
        assert status == 2 and re.search(f"out holds a comparison of the same runs with another {shown}", printed)
    assert Path("out/comparison.json").read_bytes() == before


@pytest.mark.thorough
def test_a_gap_to_training_tasks_that_was_measured_is_kept_by_an_evaluation_without_one(runs, tmp_path, capsys):
    run = shutil.copytree(runs["maml"], tmp_path / "maml", ignore=shutil.ignore_patterns("evaluation"))
    saved = []
    for switch in ("evaluation.train_gap=true", "--no-train-gap", "evaluation.train_gap=true"):
        assert evaluated([run, "--shots", 0, switch], capsys)[0] == 0
        [path] = (run / "evaluation").glob("held_out*_iteration*.json")
        saved.append(json.loads(path.read_text()))
    assert saved[0]["train_gap"]["returns"] and saved[0]["train_gap"] == saved[1]["train_gap"] == saved[2]["train_gap"]
    assert [own["evaluation"]["train_gap"] for own in saved] == [True, True, True]


def test_a_robot_differs_by_what_its_files_hold_and_not_by_where_a_run_keeps_them(tmp_path):
    runs = []
    for name, mass in (("a", 1), ("b", 1), ("heavy", 2)):
        (tmp_path / name / "robot").mkdir(parents=True)
        robot = RobotSettings(*(str(tmp_path / name / "robot" / f"walker.{kind}") for kind in ("xml", "yaml")))
        Path(robot.model).write_text(f"mass {mass}")
        Path(robot.file).write_text("tasks")
        runs.append(ReportedRun(name, tmp_path / name, RunConfig(family=robot), 1, 9, {}, *[()] * 3))
    a, b, heavy = (run.config for run in runs)
    assert trained_elsewhere(a, b) == ""
    assert re.fullmatch(
        r"trained with family.model=walker.xml \([0-9a-f]{8}\) \(here walker.xml \([0-9a-f]{8}\)\)",
        trained_elsewhere(heavy, a),
    )
    assert config_differences(runs[:2]) == {} and [*config_differences(runs)] == ["family.model"]
    moved = [dataclasses.replace(a, family=RobotSettings("gone/walker.xml", "gone/walker.yaml")), b]
    assert trained_elsewhere(*moved) != ""


@pytest.mark.thorough
def test_what_is_set_for_the_first_run_alone_is_not_for_the_others(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own = f"{runs['maml']}:evaluation.adaptations=2,evaluation.envs-per-task=3,evaluation.reset-memory=step,label=other"
    found = []
    for place, entries in enumerate(([own, runs["maml"]], [runs["maml"], own])):
        status, printed = evaluated([*entries, "--no-train-gap", "--output", f"c{place}"], capsys)
        assert status == 0, printed
        agents = json.loads(Path(f"c{place}/comparison.json").read_text())["agents"]
        found.append({a["label"]: (a["adaptations"], a["envs_per_task"], a["reset_memory"]) for a in agents})
    config = read_run_config(runs["maml"]).evaluation
    expected = {"other": (2, 3, "step"), "maml": (config.adaptations, config.envs_per_task, "never")}
    assert found == [expected, expected] and expected["maml"][:2] != (2, 3)
    compared = metarl.compare([own, runs["maml"]], output="c2", threads=1, train_gap=False)
    assert {a.label: (a.adaptations, a.envs_per_task, a.reset_memory) for a in compared.agents} == expected


@pytest.mark.thorough
def test_who_acts_with_noise_is_said_once_with_the_remedy(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own = [f"{runs['ppo']}:evaluation.explore={value},label={value}" for value in ("true", "false")]
    status, printed = evaluated([runs["ppo"], *own, "--shots", 1, "--no-train-gap", "--output", "a"], capsys)
    assert status == 0, printed
    notes = json.loads(Path("a/comparison.json").read_text())["notes"]
    [noise] = [note for note in notes if "noise" in note]
    assert notes[0] == noise and "costs return: ppo, true; without it, by the mean of the policy: false." in noise
    assert "--no-explore (evaluation.explore=false)" in noise
    for switch, explores in (("--no-explore", False), ("--explore", True)):
        status, printed = evaluated(
            [runs["ppo"], runs["oracle"], switch, "--no-train-gap", "--output", f"to{switch}"], capsys
        )
        saved = json.loads(Path(f"to{switch}", "comparison.json").read_text())
        assert status == 0 and [agent["explore"] for agent in saved["agents"]] == [explores, explores]
        assert not any("noise" in note for note in saved["notes"])


def test_one_run_is_evaluated_in_its_own_folder(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, printed = evaluated([runs["maml"], "--split", "ood", "--threads", 1], capsys)
    assert status == 0 and not (tmp_path / "comparisons").exists()
    saved = json.loads(next((runs["maml"] / "evaluation").glob("ood_*.json")).read_text())
    assert saved["train_gap"]["own"] is False and "training tasks: " in printed


@pytest.fixture(scope="module")
def other_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with a config and no checkpoint, of other robots."""
    folder = tmp_path_factory.mktemp("others")
    for name, family in (("ant", AntGoalSettings()), ("quadruped", QuadrupedSettings(horizon=5))):
        (folder / name).mkdir()
        save_config(RunConfig(MamlSettings(), family, evaluation=SMALL), folder / name)
    return {path.name: path for path in folder.iterdir()}


MISTAKES = {
    "{maml} absent": "no run folder absent",
    "{maml} absent_*:label=x": r"no run matches 'absent_\*'",
    "{maml} {ant}": r"maml was trained on point_goal, .*ant on ant_goal; name the family .* --family point_goal",
    "{maml} --family ant_velocity": r"maml was trained on point_goal and cannot act in ant_velocity: it observes 2 "
    r"elements, there are 27 there \(no x \[m\], y \[m\], besides torso_z \[m\]",
    "{maml} {ppo} --split out": "--split is 'out'; did you mean 'held_out'",
    "{maml} --family half_cheetah_direction --split ood": "family 'half_cheetah_direction' has no split 'ood'",
    "{maml} {ppo} --shots -1": "--shots is -1; it must be at least 0",
    "{maml} {ppo} --shots many": "--shots is 'many'",
    "{maml}:evaluation.adaptations=-1": "evaluation.adaptations is -1; it must be at least 0",
    "{maml}:agent.inner_lrr=1": "'agent.inner_lrr' cannot be set for one run; did you mean 'agent.inner_lr'",
    "{maml}:agent.first_order=perhaps": "--agent.first-order is 'perhaps'",
    "{maml}:agent.inner_lr=-1 {ppo}": "agent.inner_lr is -1; it must be greater than 0",
    "{maml}:label=x {ppo}:label=x": "the label 'x' is given to 2 agents",
    "{maml} {ppo} --checkpoint file.pt": "a file of one run",
    "{maml} {ppo} evaluation.reward_scale=0": "evaluation.reward_scale is 0; it must be greater than 0",
    "{maml} {ppo} evaluation.observation_noise=-1": "evaluation.observation_noise is -1",
    "{maml} {ppo} --familly x": "unknown option --familly; did you mean '--family'",
    "{maml} --family nowhere": "unknown family 'nowhere'",
    "{quadruped} {quadruped}:label=again": "no checkpoint in",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistakes_are_told_in_one_line(arguments, runs, other_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, message = evaluated(arguments.format(**runs, **other_runs).split(), capsys)
    assert status == 2 and message.startswith("error: ") and message.count("\n") == 1
    assert re.search(MISTAKES[arguments], message), message
    assert not list(tmp_path.iterdir())


def test_another_family_has_the_settings_that_the_run_chose(other_runs):
    [entry] = read_entries(str(other_runs["quadruped"]))
    settings, taken = family_settings([entry], "quadruped_terrain")
    assert (settings.horizon, taken) == (5, {"horizon": 5})


def test_a_run_that_adapts_from_episodes_apart_does_so_beside_others():
    pearl, memory = (preset(agent, "half_cheetah_velocity") for agent in ("pearl", "rl2"))
    apart, usual = (Entry(Path(c.agent_name), c).exploring_as_trained().own_evaluation for c in (pearl, memory))
    assert apart == {"explore": False, "explore_to_adapt": True} and usual == {"explore": False}
