"""What figures of several agents share: who looks how, and ticks that can be read."""

import itertools
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metarl.config import RunConfig, config_to_dict
from metarl.envs.parameters import Parameter
from metarl.envs.registry import make_family
from metarl.envs.robots.half_cheetah_settings import HalfCheetahMassSettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings, QuadrupedTerrainSettings
from metarl.evaluation.statistics import Interval
from metarl.files import plain
from metarl.reporting.agent_figures import Shown, draw_parameter, ranges_to_mark, ranked
from metarl.reporting.figures import COLOURS, INK, NARROW, STYLE, WIDTH, balanced, styles, title_of
from metarl.reporting.films import value_captions


def test_agents_are_told_apart_and_an_oracle_takes_no_agents_colour() -> None:
    names = [(f"agent {i}", i in (1, 9)) for i in range(16)]
    looks = styles(names)
    assert [looks[name]["color"] for name, oracle in names if not oracle] == [*COLOURS, *COLOURS]
    assert len({repr(look) for look in looks.values()}) == 16
    assert {looks[name]["color"] for name, oracle in names if oracle} == {INK}
    assert styles([*names, ("agent 3", False)]) == looks


def agents_on(tasks: int) -> list[Shown]:
    returns = np.random.default_rng(0).normal(size=(1, 2, tasks))
    iqm = [Interval(0.0, -1.0, 1.0)] * 2
    return [Shown(name, returns, iqm, 1, look) for name, look in styles([("a", False), ("b", True)]).items()]


MASS = make_family(HalfCheetahMassSettings()).parameters[0]


@pytest.mark.parametrize("parameter", [MASS, None])
@pytest.mark.parametrize(
    "values",
    [
        [0.548152, 0.610128, 1.19093, 1.44682],  # each task has its own, two of them close
        [1.0, 1.01, 1.0, 1.01, 1.5, 1.5],  # three values, two of them close
        [0.0, 1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0],
        list(np.linspace(0.5, 2.0, 40)),
    ],
)
def test_ticks_do_not_run_into_each_other(values: list[float], parameter: Parameter | None) -> None:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(NARROW / 3, 2.5), layout="constrained")
        axes = figure.subplots()
        draw_parameter(axes, agents_on(len(values)), np.array(values), parameter, None, "mass scale")
        figure.draw_without_rendering()
        low, high = sorted(axes.get_xlim())
        shown = [
            label.get_window_extent()
            for at, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
            if low <= at <= high and label.get_text()
        ]
    assert shown and all(left.x1 < right.x0 for left, right in itertools.pairwise(shown))


def test_kinds_have_names_and_no_range() -> None:
    """Stairs lie between flat and rough ground by number, and are not in the range of a training on these."""
    settings = QuadrupedTerrainSettings(kinds=("flat", "rough"), ood_kinds=("stairs_up", "stairs_down"))
    family = make_family(settings)
    kind = next(p for p in family.parameters if p.name == "terrain_kind")
    assert value_captions(family, {"terrain_kind": 2.0, "payload_x": -0.1}) == [
        "payload x \N{MINUS SIGN}0.1 m",
        "terrain kind stairs up",
    ]
    judged = plain(config_to_dict(RunConfig(family=settings))["family"])
    marked = ranges_to_mark([{"family": judged}], judged, family, "ood")
    assert "terrain_kind" not in marked and "terrain_difficulty" in marked
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(NARROW / 3, 2.5), layout="constrained")
        axes = figure.subplots()
        draw_parameter(axes, agents_on(8), np.array([2.0, 3.0] * 4), kind, None, "terrain kind")
        figure.draw_without_rendering()
        assert [label.get_text() for label in axes.get_xticklabels()] == ["stairs up", "stairs down"]
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert boxes[0].x1 < boxes[1].x0 and axes.get_xlim() == (1.5, 3.5)


def test_each_value_with_a_name_has_its_own_point_and_no_line() -> None:
    """Twelve joints are no quantity: what fails beside another joint says nothing of that one."""
    family = make_family(QuadrupedSettings(faults=("weak",)))
    place = next(p for p in family.parameters if p.name == "fault_place")
    values = np.repeat(np.arange(12.0), 2)
    agents = agents_on(24)
    with matplotlib.rc_context(STYLE):
        axes = Figure().subplots()
        draw_parameter(axes, agents, values, place, None, "fault place")
    drawn = [(line, *(np.asarray(values) for values in line.get_data())) for line in axes.lines]
    drawn = [(line, x, y) for line, x, y in drawn if len(x)]
    assert all(line.get_linestyle() == "None" and len(x) == 1 for line, x, _ in drawn)
    for agent in agents:
        own = [
            (x[0], y[0])
            for line, x, y in drawn
            if line.get_color() == agent.style["color"] and line.get_marker() != "_"
        ]
        assert np.round([x for x, _ in own]).tolist() == list(range(12))
        expected = agent.after().mean(axis=0).reshape(12, 2).mean(axis=1)
        np.testing.assert_allclose([y for _, y in own], expected)


def test_the_parameter_that_returns_follow_comes_first() -> None:
    rng = np.random.default_rng(0)
    values = {"idle": rng.normal(size=40), "constant": np.ones(40), "mass": rng.normal(size=40)}
    [agent, _] = agents_on(40)
    moved = Shown(agent.label, values["mass"][None, None] ** 2, agent.iqm[:1], 1, agent.style)
    assert ranked(values, [moved]) == ["mass", "idle"]


def test_ranges_are_marked_that_all_agents_were_trained_in_and_are_judged_outside_of() -> None:
    def settings(low: float, high: float) -> dict[str, Any]:
        return plain(config_to_dict(RunConfig(family=QuadrupedSettings(payload_mass=(low, high))))["family"])

    light, heavy = settings(0.0, 3.0), settings(4.0, 6.0)
    family = make_family(QuadrupedSettings(payload_mass=(4.0, 6.0)))
    cases = (
        (({"family": light}, {"family": light}), "held_out", (0.0, 3.0)),  # judged under other loads
        (({"family": heavy}, {"family": heavy}), "held_out", None),  # judged where they were trained
        (({"family": heavy}, {}), "ood", (4.0, 6.0)),
        (({"family": light}, {"family": heavy}), "ood", None),  # of two ranges none is all agents'
    )
    for trained, split, expected in cases:
        payload = ranges_to_mark(trained, heavy, family, split).get("payload_mass")
        assert (payload and (payload.distribution.low, payload.distribution.high)) == expected


@pytest.mark.parametrize("width", [NARROW, WIDTH])
def test_a_title_is_no_wider_than_its_figure(width: float):
    figure = Figure(figsize=(width, 2))
    title_of(figure, f"quadruped: {'120 held-out tasks, WWW and other wide words, ' * 6}\nshort")
    drawn = figure._suptitle
    assert drawn is not None and drawn.get_text().count("\n") >= 3 and drawn.get_text().endswith("\nshort")
    assert drawn.get_window_extent(FigureCanvasAgg(figure).get_renderer()).x1 <= figure.bbox.width


@pytest.mark.parametrize(
    ("line", "expected"),
    {
        "walk: 120 tasks, 3 seeds, other lives after a fall": [
            "walk: 120 tasks, 3 seeds,",
            "other lives after a fall",
        ],
        "as long as a line": ["as long as a line"],
        "one part that is wider than the room, so that it is broken between words": [
            "one part that is wider than the room,",
            "so that it is broken between words",
        ],
        "one part without a comma that is wider than the room of the title": [
            "one part without a comma that is",
            "wider than the room of the title",
        ],
        "": [""],
    }.items(),
)
def test_a_long_line_is_broken_after_commas_into_lines_of_like_length(line, expected):
    assert balanced(line, 40) == expected
