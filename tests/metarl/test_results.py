"""Results as data: what is saved is read back equal, older files are read, anything else is refused by name; and the
columns of tables are the same in the terminal, Markdown, HTML and CSV."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from metarl.config import RunConfig, config_to_dict
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.errors import UsageError
from metarl.evaluation.comparison import Compared, Comparison, Improvement, Trained
from metarl.evaluation.forgetting import Forgetting
from metarl.evaluation.notes import remarked
from metarl.evaluation.results import (
    AgentResult,
    EvaluationResult,
    Recovered,
    SimulatorShift,
    Source,
    TrainGap,
)
from metarl.evaluation.saved import read_comparison, read_evaluation
from metarl.evaluation.statistics import Interval, summarise
from metarl.evaluation.time_course import MemoryGap, TimeCourse
from metarl.reporting import columns, comparison_files, comparison_tables
from metarl.reporting.report.agents import measure_tables, return_table, time_tables
from metarl.reporting.report.page import Page, Section, html, markdown
from metarl.reporting.time_columns import TIME

FAMILY = make_family(HalfCheetahMassSettings())
SETTINGS = RunConfig().evaluation
SHOTS, TASKS = SETTINGS.adaptations + 1, SETTINGS.tasks
SHAPE = (len(SETTINGS.seeds), SHOTS, TASKS)
GAP = MemoryGap(Interval(1.0, 0.5, 1.5), Interval(0.3, 0.2, 0.4))


def agent_result(seed: int = 0, rise: float = 50.0) -> AgentResult:
    """Every field is there; a task of NaN, one that did not recover, and a measure without a value."""
    rng = np.random.default_rng(seed)
    returns = rng.normal(100.0, 20.0, SHAPE) + rise * np.arange(SHOTS)[:, None]
    returns[0, 1, 3] = np.nan
    recovery = rng.integers(0, 50, (SHAPE[0], TASKS)).astype(float)
    recovery[0, :2] = np.inf, np.nan
    interval = Interval(1.5, 0.5, 2.5)
    return AgentResult(
        returns=returns,
        faults=3,
        summary=summarise(returns[None], 50, rng),
        source=Source(f"run_{seed}", 9, 9000),
        trained_rounds=1,
        measures={"success": rng.random(SHAPE), "speed": rng.random(SHAPE)},
        measured={"success": [interval] * SHOTS, "speed": [*[None] * (SHOTS - 1), interval]},
        recovery=recovery,
        recovered=Recovered(Interval(0.9, 0.8, 1.0), Interval(28.0, 17.0, 46.0)),
        train_gap=TrainGap(returns + 3, interval, interval, interval, own=True),
        courses=[course(0), course(1)],
        forgetting=Forgetting(
            returns=np.concatenate([returns, returns], axis=1),
            before=interval,
            other=[interval] * SHOTS,
            back=[interval] * SHOTS,
            difference=Interval(-2.0, -3.0, -1.0),
            rounds=Interval(1.0, 1.0, np.inf),
            seconds=interval,
        ),
    )


def course(change: int) -> TimeCourse:
    """Of two bins an episode; the last has no value of a measure."""
    rate = np.arange(6.0 * SHOTS).reshape(3, 2 * SHOTS) / 3
    return TimeCourse(
        change=change,
        episodes=SHOTS,
        ends_s=np.array([0.25, 0.4]),
        changes_s=[(0.1, 0.3)],
        total=Interval(4.0, 3.5, 4.5),
        tasks=TASKS,
        curves={"reward_rate": rate, "success": np.where(np.arange(2 * SHOTS) > 4, np.nan, rate)},
        level=Interval(2.0, 1.0, 3.0),
        rise=Interval(1.0, 0.5, 1.5),
        seconds=Interval(0.4, 0.25, np.inf),
    )


def evaluation(**changed: Any) -> EvaluationResult:
    rng = np.random.default_rng(1)
    config = config_to_dict(RunConfig(family=HalfCheetahMassSettings()))
    result = EvaluationResult(
        **vars(agent_result()),
        family=FAMILY.name,
        settings=SETTINGS,
        tasks=[[dict(task.values) for task in FAMILY.sample(TASKS, rng, "held_out")] for _ in SETTINGS.seeds],
        units={"success": "1", "speed": "m/s"},
        success=FAMILY.success_text(),
        shift=SimulatorShift("gpu", "cpu", Interval(1.0, 0.0, 2.0), None),
        overflows=2,
        provenance={"command": "metarl evaluate runs/x", "time": "2026-11-26T12:00:00", "config": config},
    )
    return remarked(replace(result, **changed), FAMILY, adapts=True)


def comparison() -> Comparison:
    own, other, oracle = agent_result(1), agent_result(2, rise=0.0), agent_result(3)
    folder = Path("/runs/a").resolve()
    trained = {"agent": {"name": "maml"}, "family": {"name": FAMILY.name}, "training": {"seed": 1}}
    runs = [Trained.of(seed, folder.with_name(f"a_{seed}"), agent_result(seed)) for seed in (1, 2)]
    common = {"agent": "maml", "explore": True, "envs_per_task": 5, "trained": trained, "folder": folder}
    result = evaluation()
    return Comparison(
        family=result.family,
        family_settings=result.provenance["config"]["family"],
        settings=SETTINGS,
        units=result.units,
        success=result.success,
        tasks=result.tasks,
        agents=[
            Compared(label="a", result=own, runs=runs, oracle_share=Interval(0.5, 0.4, 0.6), memory_gap=GAP, **common),
            Compared(label="a:tuned", result=other, overrides={"agent.inner_lr": 0.3}, **common),
            Compared(label="told", result=oracle, oracle=True, **common),
        ],
        improvements=[Improvement("a", "a:tuned", Interval(0.7, 0.6, 0.8), 40)],
        notes=["a note"],
        warnings=["a warning"],
        provenance={"command": "metarl evaluate a b", "time": "2026-11-26T12:00:00"},
    )


class TestFiles:
    @pytest.mark.parametrize("made", [evaluation, comparison])
    def test_what_is_saved_is_read_back_equal(self, made):
        result = made()
        again = type(result).from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
        assert again == result and again.to_dict() == result.to_dict()
        assert type(result).from_dict(result.to_dict()) == result

    def test_numbers_and_types_survive(self):
        result = evaluation()
        again = EvaluationResult.from_dict(json.loads(json.dumps(result.to_dict())))
        np.testing.assert_array_equal(again.returns, result.returns)
        np.testing.assert_array_equal(again.measures["speed"], result.measures["speed"])
        assert again.settings == result.settings and again.summary == result.summary
        assert again.measured == result.measured and again.recovered == result.recovered
        assert again.source == result.source and again.shift == result.shift and again.tasks == result.tasks
        assert again.recovery is not None and result.recovery is not None
        finite = np.isfinite(result.recovery)
        np.testing.assert_array_equal(again.recovery[finite], result.recovery[finite])
        assert np.isnan(again.recovery[~finite]).all()
        both = Comparison.from_dict(json.loads(json.dumps(comparison().to_dict())))
        np.testing.assert_array_equal(both.agents[0].returns, comparison().agents[0].returns)
        assert both.agents[0].returns.shape == (2, *SHAPE) and both.agents[1].returns.shape == (1, *SHAPE)
        assert [member.seed for member in both.agents[0].members] == [1, 2]
        assert both.agents[1].members[0].folder == both.agents[1].folder

    @pytest.mark.parametrize(
        "changed",
        [{"faults": 4}, {"overflows": 3}, {"family": "b"}, {"settings": replace(SETTINGS, tasks=39)}, {"source": None}],
    )
    def test_results_that_are_saved_differently_are_not_equal(self, changed):
        assert evaluation(**changed) != evaluation()
        assert evaluation(returns=evaluation().returns + 1e-9) != evaluation()

    def test_files_of_an_older_version_are_read(self):
        """Before worst tasks, recovery, gap and measures were saved, and before the folder of a run was."""
        data = evaluation().to_dict()
        for name in ("measures", "measured", "recovery", "recovered", "train_gap", "simulator_shift", "overflows"):
            del data[name]
        del data["time_courses"], data["forgetting"], data["evaluation"]["revisit"]
        for name in ("worst", "rounds_to_reach"):
            del data["summary"][name]
        del data["units"], data["success"], data["trained_rounds"], data["evaluation"]["simulator"]
        old = EvaluationResult.from_dict(data)
        assert old.summary.worst == [] and old.summary.rounds_to_reach is None and old.settings == SETTINGS
        data = comparison().to_dict()
        for agent in data["agents"]:
            for name in ("folder", "trained", "runs", "explore", "envs_per_task", "overrides", "memory_gap"):
                del agent[name]
        read = Comparison.from_dict(data)
        assert read.agents[0].folder is None and read.agents[0].envs_per_task == SETTINGS.envs_per_task
        assert "—" not in "".join(return_table(read).rows[0])

    def test_numbers_that_older_files_should_not_have_are_left_out(self):
        """Rounds to a level without a gain; a share of a lead that is not shown."""
        data = comparison().to_dict()
        data["agents"][1]["summary"]["rounds_to_reach"] = {"estimate": 1.0, "low": 1.0, "high": None}
        data["agents"][1]["oracle_share"] = {"estimate": 3.0, "low": -1.0, "high": None}
        read = Comparison.from_dict(data).agents[1]
        assert read.result.summary.gain[-1].low <= 0
        assert read.result.summary.rounds_to_reach is None and read.oracle_share is None

    @pytest.mark.parametrize(
        ("place", "value", "said"),
        [
            (("returns",), [[1.0]], "returns of shape (1, 1): 3 axes are needed"),
            (("returns",), [[[1.0]]], f"returns of shape (1, 1, 1) and a summary of {SHOTS} shots"),
            (("summary", "gain", 1), None, "an interval is None: a mapping is needed"),
            (("faults",), 1.5, "faults is 1.5: a whole number is needed"),
            (("evaluation", "tasks"), "many", "evaluation.tasks is 'many'"),
            (("tasks", 0, 0), {"mass_scale": "x"}, "parameter mass_scale is 'x': a number is needed"),
            (("tasks", 0), [], "tasks: as many are needed for each seed"),
            (("notes",), "a note", "notes is 'a note': a list is needed"),
            (("summary",), {}, "it has no 'gain'"),
        ],
    )
    def test_a_wrong_part_is_named_with_the_file_and_the_remedy(self, place, value, said, tmp_path):
        data = evaluation().to_dict()
        box: Any = data
        for key in place[:-1]:
            box = box[key]
        box[place[-1]] = value
        (tmp_path / "e.json").write_text(json.dumps(data))
        with pytest.raises(UsageError) as caught:
            read_evaluation(tmp_path / "e.json")
        message = str(caught.value)
        assert message.startswith(f"{tmp_path}/e.json is not an evaluation of metarl: ") and said in message, message
        assert message.endswith("; make it again with metarl evaluate RUN")

    def test_an_evaluation_is_no_comparison(self, tmp_path):
        (tmp_path / "e.json").write_text(json.dumps(evaluation().to_dict()))
        with pytest.raises(
            UsageError, match=r"e\.json is not a comparison of metarl: it has no 'split'; make it again"
        ):
            read_comparison(tmp_path / "e.json")


class TestColumns:
    """One list of columns, shown by each renderer."""

    COMPARISON = comparison()

    def test_page_and_terminal_show_the_same_quantities(self):
        everywhere = [column.heading for column in (*columns.RETURNS, *columns.ADAPTATION)]
        assert {column.heading for column in columns.PAGE} == set(everywhere) and len(set(everywhere)) == len(
            everywhere
        )
        table = return_table(self.COMPARISON)
        assert list(table.columns) == ["agent", *(column.heading for column in columns.PAGE)]
        file = io.StringIO()
        comparison_tables.show(self.COMPARISON, Console(file=file, width=100))
        for column in (*columns.RETURNS, *columns.ADAPTATION, *TIME):
            assert column.brief in file.getvalue()

    def test_markdown_and_html_have_every_cell(self):
        tables = [return_table(self.COMPARISON), *time_tables(self.COMPARISON), *measure_tables(self.COMPARISON)]
        made = {"metarl": "1", "commit": None, "time": "today", "command": "metarl report"}
        page = Page("title", "lead", [Section("agents", tables)], made)
        plain, web = markdown(page).replace("\\", ""), html(page).replace("&#39;", "'")
        for table in tables:
            for cell in (*table.columns, *(cell for row in table.rows for cell in row)):
                assert f" {cell} |" in plain and f">{cell}<" in web

    def test_the_csv_file_has_the_interval_of_every_column(self):
        row = comparison_files.csv_row(self.COMPARISON.agents[0])
        measured = replace(self.COMPARISON.agents[0].result, measured={"gain": [Interval(7.0, 6.0, 8.0)] * SHOTS})
        other = comparison_files.csv_row(replace(self.COMPARISON.agents[0], result=measured))
        assert other["gain"] == row["gain"] and other["measure_gain"] == 7.0
        for column in (*columns.PAGE, *TIME):
            for name, interval_of in column.intervals.items():
                interval = interval_of(self.COMPARISON.agents[0])
                assert interval is not None
                assert [row[f"{name}{end}"] for end in ("", "_low", "_high")] == list(vars(interval).values())
        assert row["success"] == 1.5 and row["speed_high"] == 2.5

    def test_a_column_that_no_agent_has_is_left_out(self):
        agents = [
            replace(agent, runs=[], oracle=False, oracle_share=None, result=replace(agent.result, recovered=None))
            for agent in self.COMPARISON.agents
        ]
        shown = return_table(replace(self.COMPARISON, agents=agents)).columns
        for column in (columns.SEEDS, columns.SHARE, columns.RECOVERY):
            assert column.heading not in shown
        assert columns.GAIN.heading in shown

    def test_what_is_absent_has_a_reason(self):
        agents = columns.Agents.of(self.COMPARISON.agents)
        assert [agent.label for agent in agents.agents if columns.REACH.cell(agent, agents) == "—"] == ["a:tuned"]
        assert columns.SHARE.has_absent(agents) and not columns.GAP.has_absent(agents)
        assert columns.SHARE.cell(self.COMPARISON.agents[2], agents) == ""  # an oracle has no share of its own lead
