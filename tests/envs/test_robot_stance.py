"""Gains with which a robot stands, what it stands on, and what is said of one that does not stand."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest
import yaml

from metarl.cli.app import main
from metarl.envs.own_robot import stance
from metarl.envs.own_robot.check_run import rest
from metarl.envs.own_robot.declaration import Control, Hints
from metarl.envs.own_robot.first_file import first_file
from metarl.envs.own_robot.model import inspect_robot
from metarl.envs.own_robot.support import Support, support_of
from tests.envs.own_robot.families import written

GRAVITY, MASS, HEIGHT = 9.81, 12.0, 0.8
POLE = """<mujoco><compiler angle="radian"/><worldbody><geom name="floor" type="plane" size="0 0 1"/>
  <body name="pole" pos="0 0 1"><freejoint/><geom size=".05" mass="{mass}" pos="0 0 .25"/>{feet}</body>
</worldbody></mujoco>"""
FOOT = """<body name="foot{n}" pos="0 {y} -.55"><joint name="ankle{n}" axis="{axis}" range="-2 2"/>
  <geom type="box" size=".1 .05 .02" mass="1e-6"/></body>"""
PENDULUM = """<mujoco><option timestep=".001"/><compiler angle="radian"/><worldbody><body name="foot">
  <geom type="box" size=".1 .1 .01" mass="1"/><body name="rod" pos="0 0 .1"><joint name="ankle" axis="0 1 0"/>
  <geom size=".01" mass="{mass}" pos="0 0 {height}"/></body></body></worldbody>
  <actuator><position joint="ankle" kp="{kp}" kv="5"/></actuator></mujoco>"""
LEG = """<body name="{n}_thigh" pos="0 {y} -.1"><joint name="{n}_hip" axis="0 1 0" range="-1.5 1.5"/>
  <geom type="capsule" size=".04" fromto="0 0 0 0 0 -.3" mass="2"/>
  <body name="{n}_shank" pos="0 0 -.35"><joint name="{n}_knee" axis="0 1 0" range="-.1 2"/>
    <geom type="capsule" size=".03" fromto="0 0 0 0 0 -.3" mass="1"/>{foot}</body></body>"""
FLAT = """<body name="{n}_foot" pos="0 0 -.35"><joint name="{n}_ankle" axis="0 1 0" range="-1 1"/>
  <joint name="{n}_ankle_roll" axis="1 0 0" range="-.5 .5"/>
  <geom type="box" size=".12 .05 .02" pos="0 0 -.03" mass=".5"/></body>"""
BALL = '<body name="{n}_foot" pos="0 0 -.33"><geom size=".03" mass=".1"/></body>'


def biped(foot: str, motors: str, ahead: float = 0.0) -> str:
    """A torso on two legs with a foot each. motors: an actuator of {joint}. ahead: of the torso's mass, m."""
    legs = "".join(LEG.format(n=n, y=y, foot=foot.format(n=n)) for n, y in (("l", 0.1), ("r", -0.1)))
    names = [f"{n}_{j}" for n in "lr" for j in ("hip", "knee", "ankle", "ankle_roll")[: 4 if foot is FLAT else 2]]
    actuators = "".join(motors.format(joint=name) for name in names)
    return (
        '<mujoco model="biped"><compiler angle="radian"/><worldbody><geom name="floor" type="plane" size="0 0 1"/>'
        '<body name="torso" pos="0 0 .9"><freejoint/><geom type="box" size=".1 .15 .2" mass="15" '
        f'pos="{ahead} 0 .15"/>'
        f"{legs}</body></worldbody><actuator>{actuators}</actuator></mujoco>"
    )


MOTOR = '<motor joint="{joint}" ctrlrange="-150 150"/>'


class TestToppling:
    @pytest.mark.parametrize(
        ("axis", "share"),
        [("0 1 0", 1.0), ("1 0 0", 1.0), ("0 0 1", 0.0), ("0 .6 .8", 0.36), ("0 -1 0", 1.0)],
    )
    def test_an_ankle_needs_the_weight_times_the_height_by_its_share_of_the_feet(self, axis, share):
        for count in (1, 2, 4):
            feet = "".join(FOOT.format(n=i, y=0, axis=axis) for i in range(count))
            model = mujoco.MjModel.from_xml_string(POLE.format(mass=MASS, feet=feet))
            names = tuple(f"{{}}{i}" for i in range(count))
            joints, bodies = ([name.format(kind) for name in names] for kind in ("ankle", "foot"))
            found = stance.toppling(model, model.qpos0, tuple(joints), tuple(bodies))
            np.testing.assert_allclose(found, MASS * GRAVITY * HEIGHT * share / count, rtol=1e-5, atol=1e-9)

    def test_a_hanging_limb_needs_none_and_an_upright_one_what_is_beyond_its_joint(self):
        for side, share in ((1, 1.0), (-1, 0.0)):
            mast = f'<body><joint name="waist" axis="0 1 0"/><geom size=".01" mass="2" pos="0 0 {side * 0.5}"/></body>'
            feet = FOOT.format(n=0, y=0, axis="0 1 0") + mast
            model = mujoco.MjModel.from_xml_string(POLE.format(mass=MASS, feet=feet))
            found = stance.toppling(model, model.qpos0, ("waist",), ("foot0",))
            np.testing.assert_allclose(found, [2 * GRAVITY * 0.5 * share], rtol=1e-9)

    @pytest.mark.parametrize("lean", [0.0, 0.5, 2.0])
    def test_it_falls_with_the_cosine_of_the_lean(self, lean):
        model = mujoco.MjModel.from_xml_string(PENDULUM.format(mass=MASS, height=HEIGHT, kp=1))
        found = stance.toppling(model, np.array([lean]), ("ankle",), ("foot",))
        np.testing.assert_allclose(found, [max(0.0, MASS * GRAVITY * HEIGHT * np.cos(lean))])

    @pytest.mark.parametrize(("factor", "stands"), [(0.97, False), (1.03, True)])
    def test_a_pendulum_on_a_servo_stands_above_it_and_falls_below(self, factor, stands):
        model = mujoco.MjModel.from_xml_string(PENDULUM.format(mass=MASS, height=HEIGHT, kp=1))
        least = float(stance.toppling(model, np.zeros(1), ("ankle",), ("foot",))[0])
        model = mujoco.MjModel.from_xml_string(PENDULUM.format(mass=MASS, height=HEIGHT, kp=factor * least))
        data = mujoco.MjData(model)
        data.qpos[0] = 0.01
        mujoco.mj_step(model, data, nstep=10_000)
        assert (abs(float(data.qpos[0])) < 0.01) is stands


class TestSupport:
    def test_width_and_margin_of_a_rectangle(self):
        corners = np.array([(x, y) for x in (-0.2, 0.2) for y in (-0.1, 0.1)])
        for centre, margin in ((np.array([0, 0, 1.0]), 0.1), (np.array([0.15, 0, 1.0]), 0.05)):
            support = Support(corners, centre)
            assert (support.width, support.margin) == (pytest.approx(0.2), pytest.approx(margin)) and not support.narrow
        beyond = Support(corners, np.array([0.5, 0.5, 1.0]))  # nearest to a corner
        assert beyond.margin == pytest.approx(-np.hypot(0.3, 0.4), rel=1e-4)

    def test_it_is_that_of_the_robot_on_its_ground_wherever_it_starts(self, tmp_path):
        robot = inspect_robot(written(tmp_path, biped(FLAT, MOTOR)), Hints(height=2.0), Control(dt=None))
        support = support_of(robot)
        np.testing.assert_allclose(support.points.min(axis=0), (-0.12, -0.15), atol=1e-6)
        np.testing.assert_allclose(support.points.max(axis=0), (0.12, 0.15), atol=1e-6)
        assert support.margin == pytest.approx(0.12 - abs(support.centre[0]), abs=1e-4)


class TestInit:
    def test_a_biped_on_flat_feet_stands_by_its_ankles(self, tmp_path, monkeypatch):
        model = written(tmp_path, biped(FLAT, MOTOR))
        text, found = first_file(model)
        assert found.stands and "actuators:" in text
        base = rest(found.robot, 0.02, 2.0).base
        assert base.tilt < 0.2 and base.end > 0.95 * base.start
        ankles = [name for name in found.hints.actuators.gains if "ankle" in name]
        least = stance.toppling(found.robot.model, found.robot.home, tuple(ankles), found.robot.feet)
        gains = [found.hints.actuators.gains[name][0] for name in ankles]
        np.testing.assert_allclose(gains, stance.STEADY * least, rtol=0.05)  # written with two digits
        monkeypatch.setattr(stance, "STEADY", 0.0)
        loads = first_file(model)[1].hints.actuators.gains
        assert all(loads[name][0] < 0.5 * gain for name, gain in zip(ankles, gains, strict=True))

    @pytest.mark.thorough
    def test_a_biped_on_two_points_is_said_to_balance_by_moving(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        model = written(tmp_path, biped(BALL, MOTOR, ahead=0.04))
        assert main(["robot", "init", model]) == 0
        said = "what it stands on is a line or a point"
        assert said in capsys.readouterr().out
        assert main(["robot", "check", model, "--family", "robot.yaml"]) == 0
        assert said in " ".join(capsys.readouterr().out.split())

    def test_servos_softer_than_the_weight_above_them_are_named(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        servo = '<position joint="{joint}" kp="5" kv=".5" ctrlrange="-2 2"/>'
        model = written(tmp_path, biped(FLAT, servo, ahead=0.04))
        assert main(["robot", "init", model]) == 0
        assert "servos are softer than the weight above them" in capsys.readouterr().out
        assert "actuators" not in yaml.safe_load(Path("robot.yaml").read_text())["robot"]
