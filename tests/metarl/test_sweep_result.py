"""The result of a sweep: JSON and back, its tables and figures, best configuration, effects of the factors."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from metarl.evaluation.statistics import Interval
from metarl.evaluation.sweep_result import (
    Effect,
    GeneralisationCurve,
    Level,
    SweepResult,
    TaskAxis,
    TaskMap,
    TaskReturns,
    Variant,
)
from metarl.reporting import sweep_figures, sweep_tables
from metarl.sweeps.attempt import Attempt
from metarl.sweeps.effects import rank_correlation, without_others
from metarl.sweeps.results import best_of

INTERVAL = Interval(1.5, 1.0, 2.0)
ATTRIBUTES = {"return": 3.0, "return_interval": [2.0, 4.0], "gain": 1.0, "before": 2.0, "iteration": 7}
KINDS = (("flat",), ("flat", "rough"))


def a_result() -> SweepResult:
    """A sweep of two terrains and a learning rate; the second variant failed."""
    axes = (
        TaskAxis("kind", "1", False, (0.0, 4.0), (-0.5, 0.5, 1.5), ("flat", "rough")),
        TaskAxis("friction", "1", True, (0.5, 2.0), (0.25, 1.0, 4.0)),
    )
    tasks = [{"kind": kind, "friction": friction} for kind in (0.0, 4.0) for friction in (0.5, 2.0)]
    returns = ([1.0, 2.0, np.nan, 4.0], [3.0, 3.0, 3.0, 3.5])
    grid = tuple(axis.cells for axis in axes)
    ranges = {"kind": (0.0,), "friction": (0.5, 1.0)}
    rates = [0.1, 0.2, 0.4]
    variants = [
        Variant(0, "complete", {"family.kinds": KINDS[0], "agent.inner_lr": rates[0]}, 3.0, ATTRIBUTES),
        Variant(1, "failed", {"family.kinds": KINDS[1], "agent.inner_lr": rates[1]}, None, {"error": "no"}),
        Variant(2, "complete", {"family.kinds": KINDS[1], "agent.inner_lr": rates[2]}, 1.0, ATTRIBUTES),
    ]
    levels = (Level("flat", 1, None, 3.0), Level("flat, rough", 1, None, 1.0))
    return SweepResult(
        name="s",
        settings={
            "base": {"agent": {"name": "maml"}},
            "method": "grid",
            "objective": {"measure": "return"},
            "factors": {
                "family.kinds": [list(kinds) for kinds in KINDS],
                "agent.inner_lr": {"low": 0.1, "high": 1.0, "log": True, "whole": False},
            },
        },
        split="wide",
        ranges={"friction": (0.25, 4.0)},
        best=0,
        variants=tuple(variants),
        effects=(
            Effect("family.kinds", levels, None, 0.25, True),
            Effect("agent.inner_lr", (Level("0.1 to 0.4", 2, INTERVAL, 1.5),), Interval(-0.5, -1.0, 0.0), None, False),
        ),
        generalisation=(GeneralisationCurve("all", (-0.5, 0.0), (INTERVAL, INTERVAL), (INTERVAL, INTERVAL)),),
        maps=(TaskMap.of(tasks, *returns, trial=0, parameters=("kind", "friction"), grid=grid, ranges=ranges),),
        provenance={"metarl": "1"},
        axes=axes,
    )


def test_a_result_is_read_back_from_json_as_it_was():
    result = a_result()
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert SweepResult.from_dict(data) == result
    assert data["best"] == {"trial": 0, "params": {"family.kinds": ["flat"], "agent.inner_lr": 0.1}, "objective": 3.0}


def test_a_report_that_was_saved_without_axes_and_files_is_read():
    data = json.loads(json.dumps(a_result().to_dict()))
    del data["axes"]
    assert SweepResult.from_dict({**data, "figures": {"effects": "effects.png"}}) == dataclasses.replace(
        a_result(), axes=()
    )


def test_returns_and_attempts_are_read_back_as_they_were():
    returns = TaskReturns.of([{"x": 1.0}, {"x": 2.0}], [1.0, np.nan], np.array([2.0, 3.0]))
    assert returns.before == (1.0, None)
    assert TaskReturns.from_dict(json.loads(json.dumps(returns.to_dict()))) == returns
    np.testing.assert_array_equal(returns.arrays, [[1.0, np.nan], [2.0, 3.0]])
    attempt = Attempt(3, False, 1.5, {"ranges": {"x": [0.0, 1.0]}})
    assert Attempt.from_dict(json.loads(json.dumps(attempt.to_dict()))) == attempt


@pytest.mark.parametrize("parameters", [2, 1, 0])
def test_figures_are_drawn_from_a_result_that_was_read_back(parameters, tmp_path):
    result = a_result()
    [found] = result.maps
    if parameters == 1:
        rows = {name: value[:1] for name, value in (("parameters", found.parameters), ("grid", found.grid))}
        returns = {"tasks": found.tasks[:2], "before": found.before[:2], "after": found.after[:2]}
        result = dataclasses.replace(
            result, axes=result.axes[:1], maps=(dataclasses.replace(found, **rows, **returns),)
        )
    if parameters == 0:
        result = dataclasses.replace(result, axes=())
    read = SweepResult.from_dict(json.loads(json.dumps(result.to_dict())))
    figures = sweep_figures.draw(read, tmp_path)
    assert set(figures) == {"effects", "generalisation"} | ({"heat_map"} if parameters else set())
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in figures.values())


def test_tables_name_the_best_variant_and_every_level(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    sweep_tables.show(a_result(), console)
    said = console.file.getvalue().splitlines()
    assert said[:3] == [
        "3 variants: 2 complete, 1 failed",
        "best: trial_0000, family.kinds=[flat], agent.inner_lr=0.1",
        "      return 3 [2, 4], gain 1",
    ]
    cells = [line.split() for line in said[3:7]]
    assert cells[0] == ["factor", "level", "return:", "IQM", "[95", "%]", "variants", "importance"]
    assert cells[1:] == [
        ["family.kinds", "flat", "3", "1", "0.25"],
        ["flat,", "rough", "1", "1"],
        ["agent.inner_lr", "0.1", "to", "0.4", "1.5", "[1,", "2]", "2"],
    ]
    assert said[7:] == [
        "family.kinds: adjusted for the other factors",
        "agent.inner_lr: not adjusted for the other factors",
    ]
    lines = list(csv.DictReader(io.StringIO(sweep_tables.csv_text(a_result().variants, ["family.kinds"]))))
    assert [line["state"] for line in lines] == ["complete", "failed", "complete"]
    assert lines[2]["family.kinds"] == '["flat", "rough"]' and lines[1]["error"] == "no"
    files = [tmp_path / name for name in ("report.json", "heat_map_0001.png", "heat_map_0002.png")]
    assert sweep_tables.saved_line(files) == f"saved report.json, 2 more heat maps in {tmp_path}"


def test_rank_correlation_against_the_closed_form():
    rng = np.random.default_rng(0)
    x, y = rng.permutation(9).astype(float), rng.permutation(9).astype(float)
    assert rank_correlation(x**3, y) == pytest.approx(1 - 6 * np.sum((x - y) ** 2) / (9 * 80))  # without ties
    tied = np.array([1, 1, 2, 3.0])  # ranks .5 .5 2 3, against 0 1 2 3: 4.5 / sqrt(4.5 * 5)
    assert rank_correlation(tied, np.arange(4.0)) == pytest.approx(4.5 / np.sqrt(22.5))
    assert rank_correlation(np.ones(4), np.arange(4.0)) == 0


def test_the_best_of_several_seeds_is_the_best_on_average():
    scores = {(0.1, 1): 9.0, (0.1, 2): 0.0, (0.2, 1): 5.0, (0.2, 2): 6.0, (0.3, 1): 99.0}  # the last: one seed only
    table = [
        Variant(i, "complete", {"agent.inner_lr": lr, "training.seed": seed}, score, {})
        for i, ((lr, seed), score) in enumerate(scores.items())
    ]
    assert best_of(table).number == 3


def test_a_whole_grid_takes_the_other_factors_out():
    """y = a_i + b_j: a block's own level is gone, what is left is a_i + mean(b), exactly."""
    a, b = {0.1: 1.0, 0.2: 4.0}, {1: 0.0, 2: 30.0, 3: 60.0}
    table = [Variant(0, "complete", {"lr": i, "seed": j}, a[i] + b[j], {}) for i in a for j in b]
    y = np.array([row.objective for row in table])
    assert without_others("lr", table, y) == pytest.approx([31.0] * 3 + [34.0] * 3)
    assert without_others("seed", table, y) == pytest.approx([2.5, 32.5, 62.5] * 2)
    assert without_others("lr", table[1:], y[1:]) is None  # not whole
    twice = [dataclasses.replace(table[0], number=k) for k in range(2)]
    assert without_others("lr", twice, y[:2]) is None and without_others("seed", twice, y[:2]) is None  # one point
