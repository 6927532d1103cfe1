"""One's own robot from the command line: checked, trained on, kept in the run's folder, evaluated, resumed."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from pathlib import Path

import pytest

from metarl.cli import app as cli
from metarl.cli import train as train_command
from metarl.config import load_config, preset, read_run_config
from metarl.envs.own_robot.settings import RobotSettings
from metarl.reporting import contact_sheet

MODEL = """<mujoco model="biped"><worldbody>
  <body name="hull" pos="0 0 0.45"><freejoint/><geom type="box" size=".1 .1 .1" mass="3"/>
    <body name="l" pos="0 .08 -.1"><joint name="lh" axis="0 1 0" range="-40 40"/>
      <geom type="capsule" size=".03" fromto="0 0 0 0 0 -.3"/></body>
    <body name="r" pos="0 -.08 -.1"><joint name="rh" axis="0 1 0" range="-40 40"/>
      <geom type="capsule" size=".03" fromto="0 0 0 0 0 -.3"/></body>
  </body></worldbody></mujoco>"""
FAMILY = """
robot: {actuators: {kind: position, kp: 40, kd: 1}}
reward: {forward_velocity: 1, control_cost: 0.05}
distribution:
  - {name: leg, target: "[lr]", quantity: link_length, operation: scale, distribution: uniform, range: [0.8, 1],
     splits: {ood: [0.6, 0.8]}}
"""


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "robot.xml").write_text(MODEL)
    (tmp_path / "family.yaml").write_text(FAMILY)
    return tmp_path


def test_check_reports_and_asks(own, capsys):
    assert cli.main(["robot", "check", "robot.xml"]) == 2
    output = capsys.readouterr().out
    assert "to do: the model has no actuators" in output and "{actuators: {kind: position, kp: " in output
    for word in (
        "hull",
        "free joint",
        "lh, rh",
        "lh [-0.698, 0.698]",
        "l, r (lowest leaf bodies at home)",
        "base at 0.45 m",
    ):
        assert word in output
    assert cli.main(["robot", "check", "robot.xml", "--family", "family.yaml"]) == 0
    output = capsys.readouterr().out
    assert "U(0.8, 1)" in output and "scale link_length of l, r" in output
    assert "metarl train --robot robot.xml --family family.yaml" in output


def test_check_of_a_usable_robot_shows_what_to_declare(own, capsys):
    actuators = '<actuator><motor joint="lh" ctrlrange="-1 1"/><motor joint="rh" ctrlrange="-1 1"/></actuator></mujoco>'
    (own / "robot.xml").write_text(MODEL.replace("</mujoco>", actuators))
    assert cli.main(["robot", "check", "robot.xml"]) == 0
    output = capsys.readouterr().out
    starter = output[output.index("  reward:") : output.index("in my_family.yaml")]
    (own / "mine.yaml").write_text(textwrap.dedent(starter))
    assert cli.main(["robot", "check", "robot.xml", "--family", "mine.yaml"]) == 0


@pytest.mark.thorough
def test_a_run_is_self_contained(own, tiny, capsys):
    arguments = ["train", "--robot", "robot.xml", "--family", "family.yaml", "--name", "a", "training.iterations=2"]
    assert cli.main([*arguments, "tracking.wandb=disabled", *tiny]) == 0
    assert "\n  model: robot/robot.xml\n  file: robot/family.yaml\n" in (own / "runs/a/config.yaml").read_text()
    (own / "robot.xml").unlink()
    (own / "family.yaml").write_text("changed")
    (own / "runs" / "a").rename(own / "moved")
    assert cli.main(["evaluate", "moved", "evaluation.split=ood"]) == 0
    assert (own / "moved" / "evaluation" / "ood_seeds1_iteration000002.json").exists()
    assert cli.main(["train", "--resume", "moved", "training.iterations=3"]) == 0
    assert read_run_config(own / "moved").family == RobotSettings(
        str(own / "moved/robot/robot.xml"), str(own / "moved/robot/family.yaml"), horizon=10
    )
    assert "\n  model: robot/robot.xml\n" in (own / "moved/config.yaml").read_text()
    again = ["train", "--config", "moved/config.yaml", "--name", "b", "training.iterations=1"]
    assert cli.main(again) == 0
    assert (own / "runs/b/robot/robot.xml").read_text() == MODEL
    capsys.readouterr()
    assert cli.main(["train", "--resume", "moved", "family.model=robot.xml"]) == 2
    assert "--family.model cannot change when a run is resumed" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_run_is_judged_on_the_tasks_of_another_file(own, tiny, capsys):
    arguments = ["train", "--robot", "robot.xml", "--family", "family.yaml", "--name", "a", "training.iterations=1"]
    assert cli.main([*arguments, "tracking.wandb=disabled", *tiny]) == 0
    (own / "short.yaml").write_text(FAMILY.replace("[0.8, 1]", "[0.55, 0.6]").replace("[0.6, 0.8]", "[0.4, 0.5]"))
    capsys.readouterr()
    assert cli.main(["evaluate", "runs/a", "--family", "short.yaml", "--no-train-gap", "--output", "judged"]) == 0
    tasks = json.loads((own / "judged/comparison.json").read_text())["tasks"]
    assert all(0.55 <= task["leg"] <= 0.6 for drawn in tasks for task in drawn)
    assert cli.main(["evaluate", "runs/a", "--family.kinds", "stairs_down"]) == 2
    assert "of your own robot the YAML file says it: --family FILE.yaml" in capsys.readouterr().err
    assert cli.main(["train", "--family", "point_goal", "--name", "b", "training.iterations=1", *tiny]) == 0
    assert cli.main(["evaluate", "runs/b", "--family", "short.yaml"]) == 2
    said = "--family short.yaml declares tasks of a robot of one's own, and runs/b was trained on point_goal"
    assert said in capsys.readouterr().err


def test_paths_in_a_config_file_are_relative_to_it(tmp_path):
    (tmp_path / "c.yaml").write_text("family: {name: robot, model: a.py:make, file: sub/f.yaml}")
    assert load_config(tmp_path / "c.yaml").family == RobotSettings(f"{tmp_path}/a.py:make", f"{tmp_path}/sub/f.yaml")
    (tmp_path / "c.yaml").write_text("family: {name: robot, model: package.robots:make, file: /f.yaml}")
    assert load_config(tmp_path / "c.yaml").family == RobotSettings("package.robots:make", "/f.yaml")
    (tmp_path / "c.yaml").write_text("family: {name: robot}")
    assert load_config(tmp_path / "c.yaml").family == RobotSettings()


def test_robot_and_family_are_settings_like_any_others(own):
    config, _ = train_command.parse(
        ["--agent", "rl2", "--robot", "robot.xml", "--family", "family.yaml", "family.horizon=5"]
    )
    default = preset("rl2", "robot")
    assert config == dataclasses.replace(default, family=RobotSettings("robot.xml", "family.yaml", horizon=5))


def test_families_shows_ones_own(own, capsys):
    assert cli.main(["families", "--robot", "robot.xml", "--family", "family.yaml"]) == 0
    output = capsys.readouterr().out
    assert "link_length" in output and "point_goal" not in output


@pytest.mark.thorough
@pytest.mark.usefixtures("graphics")
def test_ones_own_is_filmed_and_pictured_by_the_files_that_train_takes(own, monkeypatch, capsys):
    for name, value in {"TILE": (96, 72), "COLUMNS": 2, "ROWS": 2}.items():
        monkeypatch.setattr(contact_sheet, name, value)
    files = ["--robot", "robot.xml", "--family", "family.yaml"]
    assert cli.main(["families", "show", *files]) == 0
    assert cli.main(["families", "show", *files, "--seed=2", "--output", "b.png", "family.horizon=5"]) == 0
    assert capsys.readouterr().out == "saved family_tasks.png\nsaved b.png\n"
    assert (own / "family_tasks.png").read_bytes()[:4] == b"\x89PNG" and (own / "b.png").is_file()
    assert cli.main(["render", *files, "family.horizon=4", "--task", '{"leg": 0.9}']) == 0
    assert cli.main(["render", *files, "family.horizon=4", "--split=ood", "--actions=zero", "--output", "z.mp4"]) == 0
    assert re.fullmatch(
        r"saved robot_random.mp4 \(.*\ntask: leg 0.9\nsaved z.mp4 \(.*\ntask: leg \S+\n", capsys.readouterr().out
    )


MISTAKES = {
    "train --robot robot.xml": "--robot needs --family FILE.yaml, which declares what varies; metarl robot check",
    "train --robot robot.xml --family point_goal": "--family FILE.yaml, which declares what varies, not 'point_goal'",
    "train --family family.yaml": "--family family.yaml declares the tasks of a robot; name its model with --robot",
    "train --robot absent.xml --family family.yaml": "family: no robot absent.xml; give an MJCF or URDF file",
    "train --robot robot.xml --family absent.yaml": "family: cannot read absent.yaml: No such file",
    "train --robot robot.xml --family wrong.yaml": "wrong.yaml: distribution (leg): target: body names 'leg' matches",
    "train --robot robot.xml --family deep.yaml": "deep.yaml: leg = 6 (scale size of hull_geom): ",
    "train --robot robot.xml --config family.yaml": "--config already says what --robot says",
    "families --robot robot.xml": "--robot needs --family FILE.yaml",
    "families --robot robot.xml --family wrong.yaml": "matches nothing",
    "families show --robot robot.xml": "--robot needs --family FILE.yaml, which declares what varies",
    "families show --family family.yaml": "declares the tasks of a robot; name its model with --robot MODEL",
    "families show robot --robot robot.xml --family family.yaml": "takes the name of one family, got robot --robot",
    "families show --robot robot.xml --family wrong.yaml": "family: wrong.yaml: distribution (leg): target: body names",
    "families show --robot robot.xml --family family.yaml --outptu a.png": "did you mean '--output'?",
    "render --robot robot.xml": "--robot needs --family FILE.yaml, which declares what varies",
    "render --robot robot.xml --family point_goal": "--family FILE.yaml, which declares what varies, not 'point_goal'",
    "render --family family.yaml": "declares the tasks of a robot; name its model with --robot MODEL",
    "render runs/a --robot robot.xml --family family.yaml": "got runs/a --robot robot.xml --family family.yaml",
    "render --robot absent.xml --family family.yaml": "family: no robot absent.xml; give an MJCF or URDF file",
    "render --robot robot.xml --family deep.yaml": "deep.yaml: leg = 6 (scale size of hull_geom): ",
    'render --robot robot.xml --family family.yaml --task {"arm":1}': "family 'robot' has no parameter 'arm'",
    "robot": "metarl robot takes: init, check, terms, schema",
    "robot chekc robot.xml": "metarl robot has no part 'chekc'; did you mean 'check'?",
    "robot check robot.xml --famly family.yaml": "unknown option --famly; did you mean '--family'?",
    "robot check absent.xml": "robot: no robot absent.xml",
    "robot check robot.xml --family wrong.yaml": "matches nothing",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(line, own, capsys):
    (own / "wrong.yaml").write_text(FAMILY.replace('"[lr]"', "leg"))
    large = FAMILY.replace('"[lr]", quantity: link_length', "hull_geom, quantity: size").replace("[0.8, 1]", "[0.8, 6]")
    (own / "deep.yaml").write_text(large)
    assert cli.main(line.split()) == 2
    message = capsys.readouterr().err
    assert MISTAKES[line] in message
    assert message.startswith("error: ") and message.count("\n") == 1
    assert not (own / "runs").exists()


def test_what_mujoco_warns_of_is_said_once_and_not_printed(tmp_path, monkeypatch, capfd):
    """Two hinges of one axis: the inertia that they share is singular."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twin.xml").write_text(
        '<mujoco><worldbody><body name="a"><joint name="j" axis="0 1 0"/><joint name="k" axis="0 1 0"/>'
        '<geom size=".1" pos="0 0 .2"/></body></worldbody><actuator><motor name="m" joint="j" ctrlrange="-1 1"/>'
        "</actuator></mujoco>"
    )
    (tmp_path / "twin.yaml").write_text(
        "reward: {home_cost: 1}\ndistribution: [{name: m, target: a, quantity: mass, operation: scale, "
        "distribution: uniform, range: [0.5, 2]}]\n"
    )
    assert cli.main(["robot", "check", "twin.xml", "--family", "twin.yaml"]) == 0
    output, error = capfd.readouterr()
    assert error == "" and output.count("Inertia matrix is too close to singular") == 1
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()
