"""What a run says while it runs."""

from __future__ import annotations

import io

from rich.console import Console

from metarl.runs.progress import Progress, duration

METRICS = {
    "iteration": 3,
    "env_steps": 1_250_000,
    "env_steps_per_s": 43_210.0,
    "return/before": -170.04,
    "return/after": -123.4,
    "faults": 0,
}


def test_a_plain_line_an_iteration_where_there_is_no_terminal():
    file = io.StringIO()
    with Progress(total=10, start=2, console=Console(file=file)) as progress:
        progress.update(METRICS)
    assert file.getvalue().startswith("iteration 3/10  1.25M env steps  43.21k/s  return -170.0 -> -123.4  0:0")
    assert file.getvalue().endswith("left\n") and "broke down" not in file.getvalue()


def test_flagged_simulations_are_told():
    assert "2 simulations broke down" in Progress(10, console=Console(file=io.StringIO())).describe(
        METRICS | {"faults": 2}
    )


def test_a_live_table_on_a_terminal():
    file = io.StringIO()
    with Progress(total=10, console=Console(file=file, force_terminal=True, width=150)) as progress:
        progress.update(METRICS)
    assert "iteration 3/10" in file.getvalue() and "return -170.0 -> -123.4" in file.getvalue()


def test_durations():
    assert [duration(s) for s in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]
