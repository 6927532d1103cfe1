"""Tables, files and figures of an evaluation whose numbers are made up."""

import io
import json
import struct
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from metarl.config import EvaluationSettings
from metarl.envs.family_settings import FamilySettings
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahDirectionSettings, HalfCheetahVelocitySettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.errors import RunError
from metarl.evaluation.notes import remarked
from metarl.evaluation.results import EvaluationResult, Source
from metarl.evaluation.statistics import Interval, Summary, summarise
from metarl.reporting import columns, evaluation_files, evaluation_tables, figures

SETTINGS = EvaluationSettings(tasks=10, envs_per_task=2, adaptations=2, seeds=(1, 2), bootstrap_samples=200)
SOURCE = Source("some_run", 12, 3_400_000)
PROVENANCE = {"command": "metarl evaluate runs/some_run", "versions": {"mujoco": "3.17.0"}}


def made_up(family_settings: FamilySettings, settings: EvaluationSettings = SETTINGS) -> EvaluationResult:
    """Returns that rise by about 40 a round."""
    rng = np.random.default_rng(0)
    family = make_family(family_settings)
    tasks = [family.sample(settings.tasks, rng, "held_out") for _ in settings.seeds]
    rounds = 40.0 * np.arange(settings.adaptations + 1)
    start = rng.normal(-200.0, 20.0, (len(settings.seeds), 1, settings.tasks))
    returns = start + rounds[:, None] + rng.normal(0.0, 3.0, (len(settings.seeds), len(rounds), settings.tasks))
    summary = summarise(returns, settings.bootstrap_samples, rng)
    result = EvaluationResult(
        family=family.name,
        settings=settings,
        tasks=[[dict(task.values) for task in drawn] for drawn in tasks],
        returns=returns,
        faults=0,
        summary=summary,
        source=SOURCE,
        units=dict(family.measure_units),
        success=family.success_text(),
        provenance=PROVENANCE,
    )
    return remarked(result, family, adapts=True)


FAMILY = make_family(HalfCheetahVelocitySettings())
VELOCITY = made_up(HalfCheetahVelocitySettings())


def save(result: EvaluationResult, folder: Path) -> Path:
    return evaluation_files.save(result, FAMILY, folder)


def shown(result: EvaluationResult, **console: object) -> str:
    file = io.StringIO()
    evaluation_tables.show(result, Console(file=file, width=100, **console))  # type: ignore[arg-type]
    return file.getvalue()


def test_what_rounds_to_zero_has_no_minus_sign() -> None:
    nearly = Interval(-0.004, -0.04, 0.04)
    assert columns.interval_text(nearly, 1) == "0.0 [0.0, 0.0]"
    assert columns.interval_text(nearly, 1, "+") == "+0.0 [+0.0, +0.0]"
    assert columns.share_text(nearly) == "0 % [-4, 4]"


def test_plain_table_has_columns_that_line_up() -> None:
    summary = Summary(
        tasks_counted=20,
        tasks_left_out=0,
        iqm=[Interval(-150.04, -160.0, -140.0), Interval(-9.96, -12.0, -8.0)],
        mean=[Interval(-151.0, -161.0, -141.0), Interval(-10.0, -12.0, -8.0)],
        std=[20.0, 3.25],
        gain=[Interval(0.0, 0.0, 0.0), Interval(139.5, 130.0, 150.0)],
        gain_mean=[Interval(0.0, 0.0, 0.0), Interval(141.0, 130.0, 150.0)],
        trial_mean=Interval(-80.5, -85.0, -75.0),
        worst=[Interval(-190.0, -200.0, -180.0), Interval(-20.0, -22.0, -18.0)],
        rounds_to_reach=Interval(1.0, 1.0, 1.0),
    )
    text = shown(replace(VELOCITY, returns=VELOCITY.returns[:, :2], summary=summary))
    assert text.splitlines()[:9] == [
        "half_cheetah_velocity, held-out tasks, run some_run at iteration 12 (3,400,000 env steps)",
        "rounds       return: IQM [95 %]  return: mean ± std         gain: IQM [95 %]",
        "     0  -150.0 [-160.0, -140.0]       -151.0 ± 20.0",
        "     1      -10.0 [-12.0, -8.0]         -10.0 ± 3.2  +139.5 [+130.0, +150.0]",
        "mean over all rounds: -80.5 [-85.0, -75.0]",
        "worst 5 % of tasks: -20.0 [-22.0, -18.0]",
        "90 % of the gain after: 1 [1, 1] rounds, 2 episodes",
        "success: velocity error at most 0.5 m/s",
        "note: 20 tasks, 2 episodes a task and round; IQM: mean of the middle half of the tasks; ±: standard deviation "
        "between tasks; [ ]: 95 % bootstrap interval over tasks, stratified by seed, of this one trained agent",
    ]


def test_tasks_that_are_alike_are_no_sample_of_tasks() -> None:
    """One leg that fails is one task however often it is met; its interval says how the starts differ."""
    alike = [[{"target_velocity": 1.0 + (i == 0)} for i in range(5)] for _ in VELOCITY.tasks]
    said = shown(remarked(replace(VELOCITY, tasks=alike), FAMILY, adapts=True))
    assert f"the {5 * len(alike)} tasks are 2 different tasks, each met several times" in said
    assert "each met several times" not in shown(remarked(VELOCITY, FAMILY, adapts=True))


def test_a_terminal_shows_the_same_cells() -> None:
    text = shown(VELOCITY, force_terminal=True, color_system=None)
    rows = evaluation_tables.return_table(VELOCITY).rows
    assert len(rows) == 3 and all(cell in text for row in rows for cell in row)
    assert "warning" not in text


def test_a_gain_that_may_be_nothing_is_warned_of() -> None:
    flat = replace(VELOCITY.summary, gain=[Interval(0.0, 0.0, 0.0), Interval(9.0, 8.0, 10.0), Interval(1.0, -1.0, 2.0)])
    assert "warning: the gain after 2 rounds" in shown(remarked(replace(VELOCITY, summary=flat), FAMILY, adapts=True))


@pytest.mark.parametrize(
    ("seeds", "name"),
    [
        ((1, 2), "held_out_seeds1to2_iteration000012"),
        ((7,), "held_out_seeds7_iteration000012"),
        ((1, 9, 4), "held_out_seeds1_9_4_iteration000012"),
    ],
)
def test_file_name_says_split_seeds_and_iteration(tmp_path: Path, seeds: tuple[int, ...], name: str) -> None:
    path = save(made_up(HalfCheetahVelocitySettings(), replace(SETTINGS, seeds=seeds)), tmp_path / "new" / "evaluation")
    assert path == tmp_path / "new" / "evaluation" / f"{name}.json"
    assert path.with_suffix(".png").is_file()


def test_file_names_of_many_seeds_stay_short(tmp_path: Path) -> None:
    many = made_up(HalfCheetahVelocitySettings(), replace(SETTINGS, tasks=2, seeds=tuple(range(0, 600, 2))))
    assert len(save(many, tmp_path).name) < 60


def test_only_a_file_of_the_same_settings_is_replaced(tmp_path: Path) -> None:
    first = save(VELOCITY, tmp_path)
    assert save(VELOCITY, tmp_path) == first
    other_versions = replace(VELOCITY, provenance={"versions": {"mujoco": "3.18.0"}})
    second = save(other_versions, tmp_path)
    assert second.name == f"{first.stem}_2.json"
    assert json.loads(first.read_text())["provenance"]["versions"]["mujoco"] == "3.17.0"
    first.write_text('{"cut sho')
    assert save(VELOCITY, tmp_path).name == f"{first.stem}_3.json"
    assert first.read_text() == '{"cut sho'


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "evaluation").write_text("a file")
    with pytest.raises(RunError, match=r"cannot save in .*evaluation: .*make room, or allow writing"):
        save(VELOCITY, tmp_path / "evaluation")


def test_a_parameter_of_its_own_gets_a_second_panel(tmp_path: Path) -> None:
    sizes = {}
    for name, settings in [
        ("velocity", HalfCheetahVelocitySettings()),
        ("point", PointGoalSettings()),
        ("direction", HalfCheetahDirectionSettings()),
    ]:
        path = tmp_path / f"{name}.png"
        figures.adaptation_curve(made_up(settings), make_family(settings), path)
        sizes[name] = size(path)
    assert sizes["velocity"] == (1328, 560)
    assert sizes["point"] == sizes["direction"] == (1024, 560)


def test_a_flagged_task_and_a_single_round_are_drawn(tmp_path: Path) -> None:
    returns = VELOCITY.returns.copy()
    returns[0, 1, 3] = np.nan
    figures.adaptation_curve(replace(VELOCITY, returns=returns, source=None), FAMILY, tmp_path / "nan.png")
    figures.adaptation_curve(
        made_up(HalfCheetahVelocitySettings(), replace(SETTINGS, adaptations=0)), FAMILY, tmp_path / "0.png"
    )
    assert size(tmp_path / "nan.png") == (1328, 560)
    assert size(tmp_path / "0.png") == (1024, 560)


def test_learning_curve_shows_both_colours_and_survives_nulls(tmp_path: Path) -> None:
    lines = [
        {
            "iteration": i,
            "env_steps": 1000 * i,
            "return/before": -200.0 + i,
            "return/after": None if i == 7 else -200.0 + 5 * i,
        }
        for i in range(1, 20)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = evaluation_files.save_learning_curve(tmp_path, "point_goal")
    assert path == tmp_path / "evaluation" / "learning.png"
    assert path is not None
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    for colour in (figures.AFTER, figures.BEFORE):
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels - wanted).max(axis=-1) <= 2).sum() > 100


def test_a_run_without_metrics_has_no_learning_curve(tmp_path: Path) -> None:
    assert evaluation_files.save_learning_curve(tmp_path, "point_goal") is None
    (tmp_path / "metrics.jsonl").write_text("")
    assert evaluation_files.save_learning_curve(tmp_path, "point_goal") is None


def size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG, from its header."""
    return struct.unpack(">II", path.read_bytes()[16:24])  # type: ignore[return-value]
