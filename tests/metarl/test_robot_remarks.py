"""What `metarl robot check` says of a robot that was simulated: what is amiss is named, with what to do."""

from __future__ import annotations

import copy
import dataclasses
import io
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from metarl.cli import app as cli
from metarl.cli.check_remarks import check_rows, remarks, some, start_text
from metarl.cli.check_report import show_check
from metarl.envs.own_robot import check_tasks
from metarl.envs.own_robot.check_run import Base, CheckRun, Second
from metarl.envs.own_robot.family import check_robot
from tests.envs.own_robot.families import declared
from tests.envs.own_robot.models import CASES, POSITION, arm, dog

CALM = Second(Base(0.37, 0.369, 0.01), 0.0004, {"hip1": 0.01, "hip2": 0.02}, (), (), {}, None)
CHECK = CheckRun(9.81, 0.0, 0.01, (), CALM, dataclasses.replace(CALM, moved={"hip1": 0.5, "hip2": 0.4}))


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    path = tmp_path_factory.mktemp("robot") / "dog.xml"
    path.write_text(dog())
    return check_robot(str(path))[0]


def changed(**zero) -> CheckRun:
    return dataclasses.replace(CHECK, zero=dataclasses.replace(CALM, **zero))


def at_random(**random) -> CheckRun:
    return dataclasses.replace(CHECK, random=dataclasses.replace(CHECK.random, **random))


def test_nothing_is_said_of_a_robot_that_stands(robot):
    assert remarks(robot, CHECK) == []
    assert start_text(CHECK) == "At home: on the ground, gravity 9.81 m/s^2."


SAID = {
    "falls": (changed(base=Base(0.37, 0.1, 0.2)), "with action 0 it falls: it comes down from 0.37 m to 0.1 m"),
    "tilts": (changed(base=Base(0.37, 0.3, 1.4)), "with action 0 it falls: it tilts by 1.4 rad"),
    "limp": (changed(moved={"hip1": 1.2, "hip2": 0.3}), "joints leave home, hip1 by 1.2 rad, hip2 by 0.3 rad; servos"),
    "saturated": (changed(saturated=("s1", "s2")), "with action 0 s1, s2 are already at the force limit: raise"),
    "sinks": (changed(sunk=0.3), "with action 0 it is 0.3 m in the ground"),
    "sinks at random": (at_random(sunk=0.05), "with random actions it is 0.05 m in the ground"),
    "breaks": (changed(broken=0.31, warnings={"BADQACC": 1}), "breaks after 0.31 s (an acceleration that is huge"),
    "warned": (at_random(warnings={"CONTACTFULL": 9}), "with random actions MuJoCo warns of too many contacts"),
    "stuck": (at_random(moved={"hip1": 0.0, "hip2": 1e-6}), "random actions move no joint: check control ranges"),
    "idle": (dataclasses.replace(CHECK, idle=("s2",)), "s2 moves no joint at home: check gear"),
    "hovers": (
        dataclasses.replace(CHECK, gap=0.12),
        "0.12 m above the ground: each episode starts with a fall; robot: {h",
    ),
    "weightless": (dataclasses.replace(CHECK, gravity=0.0), 'there is no gravity: write <option gravity="0 0 -9.81"/>'),
}


@pytest.mark.parametrize("case", SAID)
def test_what_is_amiss_is_said_with_what_to_do(case, robot):
    check, words = SAID[case]
    said = remarks(robot, check)
    assert len(said) == 1
    assert words in said[0]


def test_an_actuator_of_a_disabled_group_is_said_to_be_off(robot):
    off = dataclasses.replace(robot, model=copy.copy(robot.model))
    off.model.actuator_group[off.model.actuator("s2").id], off.model.opt.disableactuator = 2, 1 << 2
    (said,) = remarks(off, dataclasses.replace(CHECK, idle=("s2",)))
    assert "s2 moves no joint, as the model's options disable actuators of group 2: enable" in said


def test_the_height_that_is_proposed_stands_on_the_ground(tmp_path):
    path = tmp_path / "dog.xml"
    path.write_text(dog(base='pos="0 0 .6"'))
    output = shown(str(path))
    assert "At home: 0.23 m above the ground" in output
    assert "robot: {height: 0.37}" in output


@pytest.mark.parametrize(
    ("gap", "text"),
    [
        (0.0004, "0.4 mm above the ground"),
        (-0.003, "3 mm in the ground"),
        (0.25, "0.25 m above the ground"),
        (None, "At home: gravity"),
    ],
)
def test_where_it_starts(gap, text):
    assert text in start_text(dataclasses.replace(CHECK, gap=gap))


def test_rows_say_what_applies(robot):
    assert [row[0] for row in check_rows(robot, CHECK)] == [
        "base above the ground",
        "base tilts by",
        "deepest in the ground",
        "furthest from home",
        "held by joint limits",
        "at the force limit",
        "MuJoCo's warnings",
    ]
    assert check_rows(robot, CHECK)[3] == ("furthest from home", "hip2 by 0.02 rad", "hip1 by 0.5 rad")


def test_some_of_many_names():
    assert some([]) == "none"
    assert some(list("abcde")) == "a, b, c, d, e"
    assert some(list("abcdef")) == "a, b, c, d and 2 more"


def shown(model: str, width: int = 120, declaration: str = "") -> str:
    text = io.StringIO()
    show_check(model, declaration, console=Console(file=text, width=width))
    return text.getvalue()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"observation": ["joint_positions", "base_velocity"]}, "base_velocity in observation is not measured by"),
        ({"observation": ["base_velocity", "up", "base_height"]}, "base_velocity, base_height in observation are not"),
        ({"observation": [{"speed": {"term": "base_velocity"}}]}, "speed in observation is not measured by"),
        ({"observation": ["up"], "privileged": ["base_velocity"]}, ""),
        ({}, ""),
    ],
)
def test_what_no_robot_measures_is_remarked_on(keys, words, tmp_path):
    path = tmp_path / "dog.xml"
    path.write_text(dog())
    said = shown(str(path), 300, declared(tmp_path, reward={"alive": 1}, **keys))
    assert [line.count(words) for line in said.splitlines() if "own sensors" in line] == ([1] if words else [])
    assert not words or "have the robot estimate what the policy reads, or list it under privileged" in said


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["crawler", "humanoid", "pusher_v5", "muscle", "position", "mocap"])
def test_the_report_fits_its_width_and_its_starter_is_yaml(name, width, tmp_path):
    path = CASES[name].write(tmp_path)
    output = shown(str(path), width)
    starter = output[output.index("  reward:") : output.index("in my_family.yaml")]
    assert yaml.safe_load(starter)["distribution"][0]["range"] == [0.5, 1.5]
    report = output[output.index("At home") : output.index("The robot can be used")]
    assert max(map(len, report.splitlines())) <= width
    assert "with action 0" in report and "with random actions" in report


def test_a_robot_with_questions_is_not_simulated(tmp_path):
    path = tmp_path / "dog.xml"
    path.write_text(dog(rest=""))
    output = shown(str(path))
    assert "to do:" in output and "one second from home" not in output


def test_names_are_shown_as_they_are(tmp_path):
    path = tmp_path / "arm.xml"
    path.write_text(arm(POSITION.format('forcerange="-.1 .1"')).replace('"lift"', '"[red]lift[/red]"'))
    output = shown(str(path))
    report = output[output.index("At home") :]
    assert "[red]lift[/red] by" in report and "[red]lift[/red] is already at the force limit" in report


CART = """<mujoco><option timestep="0.002"/><worldbody><body name="chassis" pos="0 0 .1"><freejoint/>
  <geom name="box" type="box" size=".2 .12 .04" mass="4"/>
  <geom name="caster" type="sphere" size=".03" pos="-.15 0 -.07"/>
  <body name="lw" pos=".1 .15 0"><joint name="lw" axis="0 1 0"/>
    <geom name="lw" type="cylinder" size=".1 .02" euler="90 0 0" mass=".3"/></body>
  <body name="rw" pos=".1 -.15 0"><joint name="rw" axis="0 1 0"/>
    <geom name="rw" type="cylinder" size=".1 .02" euler="90 0 0" mass=".3"/></body></body></worldbody>
  <actuator><velocity name="lw" joint="lw" kv="1" ctrlrange="-10 10"/>
  <velocity name="rw" joint="rw" kv="1" ctrlrange="-10 10"/></actuator></mujoco>"""


def test_wheels_are_rewarded_for_driving_and_a_factor_is_told_from_a_value(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("cart.xml").write_text(CART)
    assert cli.main(["robot", "init", "cart.xml"]) == 0
    text = Path("cart.yaml").read_text()
    for word in ("home_cost", "air_time", "joint_positions", "sideways_velocity"):
        assert word not in text
    assert "note: " not in shown("cart.xml", declaration="cart.yaml")
    text = text.replace("  action_rate: 0.1\n", "  action_rate: 0.1\n  home_cost: 0.2\n")
    Path("cart.yaml").write_text(text.replace("quantity: mass, operation: scale", "quantity: mass, operation: set"))
    output = " ".join(shown("cart.xml", declaration="cart.yaml").split())
    assert "home_cost counts how far lw, rw have turned, and so punishes driving: leave it out" in output
    assert "mass is 4.11 kg in the model, and tasks set it to 0.8 kg to 1.3 kg: if a factor is meant, write" in output


TILTING = {"reward": {"alive": 1}, "termination": {"height": [0.25, 0.6], "tilt": 0.6}}
BALLAST = {"name": "ballast", "target": "torso", "quantity": "com_x", "operation": "add", "distribution": "uniform"}
GAIN = {"name": "gain", "target": ".*", "quantity": "kp", "operation": "scale", "distribution": "log_uniform"}
ADVICE = "narrow the range, or suit termination and home to it"


@pytest.mark.parametrize(
    ("distribution", "said"),
    [
        ([BALLAST | {"range": [0.0, 0.05]}, GAIN | {"range": [0.9, 1.1]}], []),
        (
            [BALLAST | {"range": [0.0, 0.5]}, GAIN | {"range": [0.9, 1.1]}],
            [
                "with action 0 an episode ends, as the neutral robot's does not, where ballast alone is 0.5 m (after ",
                ADVICE,
            ],
        ),
        (
            [GAIN | {"range": [1.0, 1e9]}],
            ["the simulation breaks where gain alone is 1e+09 (after ", "of 8 tasks drawn: "],
        ),
        ([GAIN | {"range": [1e8, 1e9], "neutral": 1.0}], ["the simulation breaks where gain alone is 1e+08 (after "]),
    ],
)
def test_what_goes_wrong_in_tasks_and_not_with_the_neutral_robot_is_said(distribution, said, tmp_path):
    (tmp_path / "dog.xml").write_text(dog())
    text = shown(str(tmp_path / "dog.xml"), 400, declared(tmp_path, *distribution, **TILTING))
    assert "tasks of training, at the ends of ranges and drawn, simulated for 1 s with action 0 and" in text
    notes = [line for line in text.splitlines() if "an episode ends" in line or "the simulation breaks" in line]
    assert len(notes) == bool(said)
    assert all(part in notes[0] for part in said)


def test_of_tasks_whose_parameters_are_many_some_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(check_tasks, "MOST", 0)
    (tmp_path / "dog.xml").write_text(dog())
    given = declared(tmp_path, GAIN | {"range": [1e8, 1e9], "neutral": 1.0}, **TILTING)
    text = shown(str(tmp_path / "dog.xml"), 400, given)
    assert "8 tasks of training" in text
    assert "the simulation breaks in 8 of 8 tasks drawn, as with gain " in text


def test_what_the_neutral_robot_does_too_is_no_fault_of_a_task(tmp_path):
    (tmp_path / "dog.xml").write_text(dog())
    falls = {"reward": {"alive": 1}, "termination": {"height": [0.3695, 0.6]}, "episode": {"drop": 0.2}}
    text = shown(str(tmp_path / "dog.xml"), 400, declared(tmp_path, BALLAST | {"range": [0.0, 0.5]}, **falls))
    assert "an episode ends" not in text


ENDING = {
    "touches": ({"contact": ["chassis"]}, "by termination.contact (caster on floor): suit termination"),
    "one geom": ({"contact": ["caster"]}, "by termination.contact (caster on floor): suit termination"),
    "sinks": ({"height": [0.1005, 0.3]}, "by termination.height: suit termination"),
    "own": ({"tilt": 1.0, "function": "ends.py:moves"}, "after 0.02 s, by termination.function: suit termination"),
}


@pytest.mark.parametrize("case", ENDING)
def test_a_neutral_robot_whose_episodes_end_with_action_0_is_remarked_on(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    termination, words = ENDING[case]
    (tmp_path / "cart.xml").write_text(CART.replace('pos="0 0 .1"', 'pos="0 0 .101"'))
    (tmp_path / "ends.py").write_text("def moves(state):\n    return abs(state.qvel).max(axis=1) > 0\n")
    said = shown("cart.xml", 400, declared(tmp_path, reward={"alive": 1}, termination=termination))
    assert "with action 0 8 of 8 episodes of the neutral robot end within 1 s, the first after " in said
    assert words in said


def test_nothing_is_said_of_a_neutral_robot_whose_episodes_last(tmp_path):
    (tmp_path / "cart.xml").write_text(CART)
    lasting = {"contact": ["box"], "tilt": 1.0, "height": [0.05, 0.2]}
    said = shown(str(tmp_path / "cart.xml"), 400, declared(tmp_path, reward={"alive": 1}, termination=lasting))
    assert "of the neutral robot end" not in said


@pytest.mark.parametrize(("bounds", "said"), [("-25 25", True), ("-3 3", False)])
def test_a_control_range_in_degrees_is_remarked_on(bounds, said, tmp_path):
    servo = f'<position name="lift" joint="lift" kp="200" ctrlrange="{bounds}"/>'
    (tmp_path / "arm.xml").write_text(arm(servo, rest="", angle="degree").replace('range="-2 2"', 'range="-25 25"'))
    words = "control range of lift spans 50 rad, 57 times the range of joint lift: degrees? MuJoCo reads ctrlrange in"
    assert (words in shown(str(tmp_path / "arm.xml"), 400)) == said
