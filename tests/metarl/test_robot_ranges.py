"""Ranges in place of those that the file of one's own robot declares: in settings, on the command line, in sweeps."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from metarl.cli import app as cli
from metarl.cli.arguments import Arguments
from metarl.cli.evaluate import long_names
from metarl.config import (
    RunConfig,
    complete_family,
    config_from_dict,
    config_to_dict,
    dump_yaml,
    load_config,
    options,
    preset,
    read_run_config,
    with_settings,
)
from metarl.envs.batch import BatchedEnv
from metarl.envs.own_robot.declared_ranges import ranges_of
from metarl.envs.own_robot.settings import EXAMPLE, RobotSettings
from metarl.envs.parameters import LogUniform, Uniform
from metarl.envs.registry import make_family
from metarl.errors import UsageError
from metarl.headroom.records import differences
from metarl.options import value_of
from metarl.reporting.agent_figures import ranges_to_mark
from metarl.runs.entries import Entry, family_settings
from metarl.sweeps.file import load_sweep
from metarl.sweeps.yardstick import yardstick

FILE = """
reward: {velocity_error: 1, alive: 1}
commands: {forward_velocity: [0, 0.5]}
distribution:
  - {name: trunk_mass, target: trunk, quantity: mass, operation: scale, distribution: log_uniform, range: [0.6, 1.6],
     splits: {held_out: [0.5, 0.6], ood: [1.6, 2.2]}}
  - {name: motor-strength, target: .*, quantity: strength, operation: scale, distribution: uniform, range: [0.7, 1.1]}
  - {name: friction, target: .*_shin_geom, quantity: friction, operation: set, distribution: choice, range: [0.4, 0.8]}
"""
SMALL = "training.iterations=1 training.tasks=2 training.threads=1 evaluation.tasks=2 evaluation.bootstrap_samples=20"


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("robot.xml").write_text(Path(f"{EXAMPLE}.xml").read_text())
    Path("robot.yaml").write_text(FILE)
    return tmp_path


def settings(**ranges: tuple[float, ...]) -> RobotSettings:
    return RobotSettings("robot.xml", "robot.yaml", ranges={name.replace("__", "-"): r for name, r in ranges.items()})


def drawn(ranges: RobotSettings, split="train") -> dict[str, np.ndarray]:
    tasks = make_family(ranges).sample(300, np.random.default_rng(0), split)
    return {name: np.array([task.values[name] for task in tasks]) for name in tasks[0].values}


def test_tasks_of_a_parameter_are_of_its_range_and_others_are_as_the_file_says(own):
    before, after = drawn(settings()), drawn(settings(trunk_mass=(0.9, 1.0)))
    assert 0.6 <= before["trunk_mass"].min() < 0.7 and 1.5 < before["trunk_mass"].max() <= 1.6
    assert 0.9 <= after["trunk_mass"].min() < 0.91 and 0.99 < after["trunk_mass"].max() <= 1.0
    assert {name: values.tolist() for name, values in before.items() if name != "trunk_mass"} == {
        name: values.tolist() for name, values in after.items() if name != "trunk_mass"
    }
    assert set(drawn(settings(friction=(0.3, 0.5, 0.7)))["friction"]) == {0.3, 0.5, 0.7}


def test_held_out_tasks_are_of_the_new_range_and_none_is_a_training_task(own):
    assert drawn(settings(), "held_out")["trunk_mass"].max() < 0.6
    held_out = drawn(settings(trunk_mass=(0.9, 1.0)), "held_out")["trunk_mass"]
    assert 0.9 <= held_out.min() < 0.91 and 0.99 < held_out.max() <= 1.0
    assert not set(held_out) & set(drawn(settings(trunk_mass=(0.9, 1.0)))["trunk_mass"])


def test_out_of_distribution_tasks_stay_unless_the_new_range_reaches_them(own):
    apart, reached = (make_family(settings(trunk_mass=ends)) for ends in ((0.9, 1.5), (0.9, 1.7)))
    assert apart.parameters[0].ood == LogUniform(1.6, 2.2)
    assert reached.parameters[0].ood is None and reached.parameters[0].distribution == LogUniform(0.9, 1.7)


def test_a_component_of_the_commands_has_its_range(own):
    family = make_family(settings(forward_velocity=(0.3, 0.3)))
    assert family.settings == settings(forward_velocity=(0.3, 0.3))

    def commanded(of: RobotSettings) -> set[float]:
        env = BatchedEnv(make_family(of), 8, 1, threads=1)
        env.set_tasks(env.family.sample(8, np.random.default_rng(0)))
        seen = env.reset([np.random.default_rng(i) for i in range(8)])
        names = [e.name for term in env.family.observation.values() for e in term.elements]
        return set(np.round(seen[..., next(i for i, name in enumerate(names) if "command" in name)].ravel(), 6))

    assert commanded(settings(forward_velocity=(0.3, 0.3))) == {np.float32(0.3)}
    assert len(commanded(settings())) == 8


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"trunk_mas": (1, 2)}, "family.ranges.trunk_mas: the robot's file declares no range of that name"),
        (
            {"trunk_mass": (2, 1)},
            "family.ranges.trunk_mass is [2, 1]: 'trunk_mass', range: the range (2, 1) is reversed",
        ),
        ({"trunk_mass": (1,)}, "family.ranges.trunk_mass is [1]: 'trunk_mass', range: log_uniform takes two ends"),
        ({"forward_velocity": (1, 0)}, "family.ranges.forward_velocity is [1, 0]; it must be two numbers, the first"),
        ({"yaw_rate": (0, 1)}, "family.ranges.yaw_rate: the robot's file declares no range of that name"),
        ({"friction": ()}, "family.ranges.friction is []: "),
        ({"friction": ("0.4",)}, "family.ranges.friction is ('0.4',); it must be a list of finite numbers"),
        ({"trunk_mass": 1}, "family.ranges.trunk_mass is 1; it must be a list of finite numbers"),
        ({"forward_velocity": (0, float("inf"))}, "family.ranges.forward_velocity is (0, inf); it must be a list"),
    ],
)
def test_a_wrong_range_is_named(own, ranges, message):
    with pytest.raises(ValueError, match="family.ranges") as error:
        make_family(settings(**ranges))
    assert str(error.value).startswith(message)


def test_they_are_settings_by_name_and_are_saved(own):
    config = dataclasses.replace(preset("rl2", "robot"), family=settings())
    known = {name: kind for name, kind in options(config).items() if name.startswith("family.ranges")}
    pair = tuple[float, float]
    assert known == {
        "family.ranges.trunk_mass": pair,
        "family.ranges.motor-strength": pair,
        "family.ranges.friction": tuple[float, ...],
        "family.ranges.forward_velocity": pair,
    }
    one = with_settings(config, {"family.ranges.trunk_mass": (0.9, 1.0)})
    both = with_settings(one, {"family.ranges.motor-strength": (1.0, 1.1)})
    both.validate()
    assert both.family == settings(trunk_mass=(0.9, 1.0), motor__strength=(1.0, 1.1))
    assert config_from_dict(config_to_dict(both)) == both
    older = config_to_dict(config)
    del older["family"]["ranges"]
    assert config_from_dict(older, saved=True) == config
    with pytest.raises(UsageError, match="family.ranges.trunk_mass is 3, a whole number; it must be a list"):
        config_from_dict({"family": {"name": "robot", "ranges": {"trunk_mass": 3}}})


@pytest.mark.thorough
def test_a_run_is_trained_on_them_and_judged_on_others(own, capsys):
    robot = "--robot robot.xml --family robot.yaml --agent rl2"
    ranges = "--family.ranges.trunk_mass 0.9 1.1 family.ranges.motor-strength=0.8,1.2"
    train = f"train {robot} {ranges} {SMALL} tracking.wandb=disabled --name a"
    assert cli.main(train.split()) == 0
    config = read_run_config(Path("runs/a"))
    assert dict(config.family.ranges) == {"trunk_mass": (0.9, 1.1), "motor-strength": (0.8, 1.2)}
    [parameter] = [p for p in make_family(config.family).parameters if p.name == "motor-strength"]
    assert parameter.distribution == Uniform(0.8, 1.2)
    capsys.readouterr()
    assert (
        cli.main(["evaluate", "runs/a", "--family.ranges.trunk_mass", "1.2", "1.3", "--no-train-gap", "--output", "c"])
        == 0
    )
    assert "trained with family.ranges" in capsys.readouterr().out
    saved = yaml.safe_load(Path("c/comparison.json").read_text())["family_settings"]["ranges"]
    assert saved == {"trunk_mass": [1.2, 1.3], "motor-strength": [0.8, 1.2]}


@pytest.mark.parametrize("command", ["train --agent rl2", "families show", "headroom --budget 1e4"])
def test_an_unknown_name_is_answered_with_those_of_the_file(own, command, capsys):
    robot = "--robot robot.xml --family robot.yaml"
    assert cli.main(f"{command} {robot} --family.ranges.trunk_mas 1 2".split()) == 2
    message = capsys.readouterr().err
    assert "unknown option --family.ranges.trunk_mas; did you mean '--family.ranges.trunk_mass'?" in message
    assert cli.main(f"{command} {robot} --family.ranges.motor_strength 1 2".split()) == 2
    assert "did you mean '--family.ranges.motor-strength'" in capsys.readouterr().err
    assert cli.main(f"{command} {robot} --family.ranges.xyz 1 2".split()) == 2
    assert "the robot's file has --family.ranges." in capsys.readouterr().err


def test_another_family_has_none(capsys):
    assert cli.main(["train", "--family", "quadruped", "--family.ranges.payload", "1", "2"]) == 2
    assert "; it is a setting of family robot" in capsys.readouterr().err


def test_help_says_how_they_are_given(own, capsys):
    assert cli.main(["train", "--robot", "robot.xml", "--family", "robot.yaml", "--help"]) == 0
    text = " ".join(re.sub("[│|]", " ", capsys.readouterr().out).split())
    assert "--family.ranges.NAME LOW HIGH Ranges in place of the file's" in text
    assert "NAME is one of forward_velocity, trunk_mass, motor-strength, friction." in text


@pytest.mark.parametrize("name", ["com shift", "a.b", "a:b", "motor-strength", "µ"])
@pytest.mark.parametrize(
    "spelling", ["--family.ranges.{} -1e-2 0.5", "--family.ranges.{}=-1e-2,0.5", "family.ranges.{}=-0.01,.5"]
)
def test_any_name_of_the_file_can_be_typed_as_it_is(name, spelling):
    tokens = spelling.format("NAME").split()
    given = Arguments.split([token.replace("NAME", name) for token in tokens])
    [(option, values)] = given.options.items()
    assert option == f"family.ranges.{name}" and not given.positionals
    assert value_of(option, values, tuple[float, float]) == (-0.01, 0.5)


def test_names_that_differ_in_a_dash_are_two(own):
    tokens = ["runs/a", "--family.ranges.a-b", "0", "1", "--family.ranges.a_b", "0", "1"]
    assert long_names(tokens) == tokens


def test_a_number_that_yaml_reads_as_text_is_one(own):
    Path("robot.yaml").write_text(FILE.replace("[0.7, 1.1]", "[7e-1, 1.1]"))
    assert make_family(settings()).parameters[1].distribution == Uniform(0.7, 1.1)
    assert ranges_of(settings())["motor-strength"].values == (0.7, 1.1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read robot.yaml: No such file or directory"),
        ("a: [", "robot.yaml is not valid YAML"),
        ("faults: {kinds: [weak]}", "unknown option --family.ranges.trunk_mass; the robot's file declares no range"),
    ],
)
def test_a_file_without_ranges_is_what_is_wrong(own, content, message, capsys):
    Path("robot.yaml").unlink() if content is None else Path("robot.yaml").write_text(content)
    assert (
        cli.main(["train", "--robot", "robot.xml", "--family", "robot.yaml", "--family.ranges.trunk_mass", "1", "2"])
        == 2
    )
    assert message in capsys.readouterr().err


def test_another_file_has_its_own_ranges(own):
    config = dataclasses.replace(preset("rl2", "robot"), family=settings(trunk_mass=(0.9, 1.0)))
    entry = Entry(Path("runs/a"), config, "", {}, None)
    other, taken = family_settings([entry], "other.yaml")
    assert other == RobotSettings("robot.xml", "other.yaml") and taken == {}


def test_studies_and_records_with_other_ranges_are_others():
    one, two = {"name": "robot", "ranges": {"a": [0, 1]}}, {"name": "robot", "ranges": {"b": [0, 1]}}
    assert differences(one, two, "family") == [
        "family.ranges.a ([0, 1], here not given)",
        "family.ranges.b (not given, here [0, 1])",
    ]
    older = config_to_dict(RunConfig(family=RobotSettings()))["family"]
    del older["ranges"]
    assert complete_family(older)["ranges"] == {}
    assert complete_family({"name": "elsewhere", "x": 1}) == {"name": "elsewhere", "x": 1}


@pytest.mark.parametrize("split", ["held_out", "ood"])
def test_the_range_of_training_is_marked_where_tasks_are_of_another(own, split):
    judged = settings(trunk_mass=(1.2, 1.3))
    trained = [{"family": {"name": "robot", "file": "robot.yaml", "ranges": {"trunk_mass": [0.9, 1.0]}}}]
    said = {"name": "robot", "file": "robot.yaml (c962264d)", "ranges": {"trunk_mass": [1.2, 1.3]}}
    marked = ranges_to_mark(trained, said, make_family(judged), split)
    assert marked["trunk_mass"].distribution == LogUniform(0.9, 1.0)
    assert marked["motor-strength"].distribution == Uniform(0.7, 1.1)
    copied = {**said, "file": "/runs (old)/a/robot/robot.yaml"}  # as an evaluation of one run names it
    assert ranges_to_mark(trained, copied, make_family(judged), split).keys() == marked.keys()
    assert ranges_to_mark(trained, {**said, "file": "other.yaml (c962264d)"}, make_family(judged), split) == {}
    same = ranges_to_mark([{"family": {**said, "file": "robot.yaml"}}], said, make_family(judged), split)
    assert {name: p.distribution for name, p in same.items() if name == "trunk_mass"} == (
        {"trunk_mass": LogUniform(1.2, 1.3)} if split == "ood" else {}
    )


def test_settings_with_them_have_a_hash(own):
    assert hash(settings(trunk_mass=(0.9, 1.0))) == hash(settings())
    assert settings(trunk_mass=(0.9, 1.0)) != settings()


SWEEP = """
base: {agent: rl2, family: robot, family.model: robot.xml, family.file: robot.yaml, family.ranges.friction: [0.5]}
factors:
  family.ranges.trunk_mass: {width: [0.2, 0.4]}
  family.ranges.motor-strength: {center: [1], width: [0.2]}
  family.ranges.forward_velocity: [[0, 0.2], [0, 0.4]]
"""


def test_a_sweep_varies_them_from_another_folder(own, monkeypatch):
    Path("sweep.yaml").write_text(SWEEP)
    monkeypatch.chdir(own.parent)
    sweep = load_sweep(own / "sweep.yaml")
    points = list(sweep.grid())
    first, last = (dict(sweep.config(p).family.ranges) for p in (points[0], points[-1]))
    assert len(points) == 4
    assert first["trunk_mass"] == pytest.approx((1.0, 1.2)) and last["trunk_mass"] == pytest.approx((0.9, 1.3))
    assert first["motor-strength"] == pytest.approx((0.9, 1.1))
    assert (first["forward_velocity"], last["forward_velocity"]) == ((0.0, 0.2), (0.0, 0.4))
    assert first["friction"] == (0.5,)
    wide = yardstick(sweep).wide["trunk_mass"]
    assert (wide.low, wide.high) == (pytest.approx(0.9), pytest.approx(2.2))  # of all variants, and beyond
    assert all(sweep.point(p) == p for p in points)


def test_a_sweep_of_files_varies_their_ranges_too(own):
    text = SWEEP.replace("family.file: robot.yaml, ", "") + "  family.file: [robot.yaml]\n"
    Path("sweep.yaml").write_text(text)
    assert len(list(load_sweep(own / "sweep.yaml").grid())) == 4
    Path("sweep.yaml").write_text(text.replace("trunk_mass", "trunk_mas"))
    with pytest.raises(
        UsageError, match=r"unknown factor 'family.ranges.trunk_mas'; did you mean 'family.ranges.trunk_m"
    ):
        load_sweep(own / "sweep.yaml")


def test_the_best_configuration_is_a_file_with_its_ranges(own):
    config = dataclasses.replace(preset("rl2", "robot"), family=settings(trunk_mass=(0.9, 1.0)))
    Path("best.yaml").write_text(dump_yaml(config))
    assert load_config(Path("best.yaml")) == config


@pytest.mark.parametrize("place", ["base", "file"])
def test_a_range_that_is_no_pair_has_no_centre(own, place):
    base = "family.ranges.trunk_mass: [1]" if place == "base" else "training.tasks: 2"
    if place == "file":
        Path("robot.yaml").write_text(FILE.replace("[0.6, 1.6]", "[0.6]"))
    Path("sweep.yaml").write_text(
        f"base: {{agent: rl2, family: robot, family.model: robot.xml, family.file: robot.yaml, {base}}}\n"
        "factors: {family.ranges.trunk_mass: {width: [0.2, 1]}}\n"
    )
    with pytest.raises(UsageError, match=r"trunk_mass: the base's range is \[\S+\]; it must be two numbers"):
        load_sweep(own / "sweep.yaml")
