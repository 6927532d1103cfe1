"""What is seen of a robot in two seconds, against plain MuJoCo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
import pytest

from metarl.envs.own_robot.check_run import CheckRun, Second, run_check
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.family import check_robot
from tests.envs.own_robot.models import CASES, FLOOR, HOME, POSITION, SERVOS, Case, arm, dog, sled
from tests.envs.own_robot.probes import SCALAR, declare, nothing, path_of, play, run_of
from tests.sampling import sampled

DT = 0.02


def robot_of(text: str, folder: Path, **said) -> Robot:
    path = Case(text).write(folder)
    neutral = {"name": "g", "quantity": "gravity", "operation": "scale", "distribution": "choice", "range": [1.0]}
    robot, _ = check_robot(str(path), declare(Case(text, said), path, neutral))
    assert not robot.questions
    return robot


def tried(text: str, folder: Path, **said) -> CheckRun:
    return run_check(robot_of(text, folder, **said), DT)


def path_at_zero(robot: Robot) -> Iterator[mujoco.MjData]:
    """Plain MuJoCo's states after each control step of the second of action 0."""
    data = mujoco.MjData(robot.model)
    data.qpos[:] = robot.home
    for name, value in robot.initial.items():
        getattr(data, name)[:] = value
    data.ctrl[:] = robot.offset
    skip = round(DT / robot.model.opt.timestep)
    for _ in range(round(1 / (skip * robot.model.opt.timestep))):
        mujoco.mj_step(robot.model, data, nstep=skip)
        yield data


@pytest.mark.parametrize("name", sampled(CASES, 6))
def test_of_every_robot_it_sees_what_its_env_does(name):
    """Furthest from home by joint, and the height of a floating base over a floor that is level at 0."""
    run, case = run_of(name), CASES[name]
    robot, family = check_robot(str(path_of(name)), declare(case, path_of(name), nothing(name)))
    assert family is not None
    check = run_check(robot, family.dt)
    steps = round(1 / family.dt)
    seen = play(run.family, np.zeros((steps, family.action_size)))
    for joint, furthest in check.zero.moved.items():
        j = run.model.joint(joint)
        assert j.type[0] in SCALAR
        positions = seen.qpos[:, j.qposadr[0]]
        assert furthest == pytest.approx(np.abs(positions - positions[0]).max(), abs=1e-9)
    assert set(check.zero.moved) == set(robot.joints)
    if check.zero.base is not None and robot.mobility == "floating" and robot.ground.level == 0:
        heights = seen.qpos[[0, -1], 2]
        np.testing.assert_allclose((check.zero.base.start, check.zero.base.end), heights, atol=1e-9)
    for second in (check.zero, check.random):
        assert (second.broken, dict(second.warnings)) == (None, {})
    assert check.idle == ()
    assert max(check.random.moved.values()) > 1e-4
    assert check.gravity == pytest.approx(np.linalg.norm(robot.model.opt.gravity))


@pytest.mark.parametrize("height", [-0.004, 0.0, 0.25])
@pytest.mark.parametrize(
    "ground",
    [
        FLOOR,
        '<geom name="floor" type="box" size="3 3 .1" pos="0 0 -.1"/>',
        f'<body name="g" pos="0 0 0">{FLOOR}</body>',
    ],
)
def test_gap_to_the_ground(ground, height, tmp_path):
    check = tried(dog(ground, base=f'pos="0 0 {0.37 + height}"'), tmp_path, height=0.37 + height, base="torso")
    assert check.gap == pytest.approx(height, abs=1e-6)


def test_what_is_dropped_falls_as_a_stone(tmp_path):
    check = tried(dog(base='pos="0 0 9"'), tmp_path)
    assert check.zero.base is not None
    assert check.zero.base.start == 9
    assert check.zero.base.end == pytest.approx(9 - 9.81 / 2, abs=0.02)  # MuJoCo's steps of 2 ms
    assert check.gap == pytest.approx(9 - 0.37)


def test_depth_in_soft_ground(tmp_path):
    soft = sled(hull='solref="1 1"', ground='solref="1 1"')
    robot = robot_of(soft, tmp_path)
    deepest = 0.0
    for data in path_at_zero(robot):
        mujoco.mj_forward(robot.model, data)
        deepest = max([deepest, *(-c.dist for c in data.contact)])
    assert deepest > 0.01
    assert run_check(robot, DT).zero.sunk == pytest.approx(deepest, abs=1e-4)


def test_what_is_thrown_through_the_ground_is_deep_in_it(tmp_path):
    """A floor of 1 mm, which nothing touches any more once it is behind."""
    thin = '<geom name="floor" type="box" size="9 9 .0005" pos="0 0 -.0005"/><light/>'
    text = dog(thin, base='pos="0 0 3"', rest='<option timestep=".02"/>' + SERVOS)
    robot = robot_of(text, tmp_path, height=3.0)
    *_, last = path_at_zero(robot)
    assert last.qpos[2] < -1
    assert run_check(robot, DT).zero.sunk == pytest.approx(-last.geom_xpos[1:, 2].min(), abs=0.2)


def test_tilt(tmp_path):
    tall = dog(leg="", rest="", joint='range="-1 1" damping=".5"')
    robot = robot_of(tall, tmp_path, actuators={"kind": "motor", "force": 5})
    seen = [np.arccos(np.clip(d.body("torso").xmat[8], -1, 1)) for d in map(forwarded(robot), path_at_zero(robot))]
    base = run_check(robot, DT).zero.base
    assert base is not None
    assert base.tilt == pytest.approx(max(seen), abs=1e-6)


def forwarded(robot: Robot):
    def forward(data: mujoco.MjData) -> mujoco.MjData:
        copy = mujoco.MjData(robot.model)
        mujoco.mj_copyData(copy, robot.model, data)
        mujoco.mj_forward(robot.model, copy)
        return copy

    return forward


@pytest.mark.parametrize(
    ("actuator", "joint", "full"),
    [
        (POSITION.format('forcerange="-.2 .2"'), "", True),
        (POSITION.format(""), 'actuatorfrcrange="-.2 .2"', True),
        (POSITION.format('forcerange="-20 20"'), 'actuatorfrcrange="-20 20"', False),
        (POSITION.format('forcerange="-20 20"'), 'actuatorfrcrange="-.2 .2"', True),
    ],
)
def test_actuators_at_their_limit(actuator, joint, full, tmp_path):
    """The boom weighs 0.53 N m at home."""
    check = tried(arm(actuator, joint), tmp_path)
    assert check.zero.saturated == (("lift",) if full else ())
    assert (check.zero.moved["lift"] > 0.5) == full


def test_joints_held_by_their_limits(tmp_path):
    hanging = arm('<motor name="lift" joint="lift" ctrlrange="-1 1"/>')
    robot = robot_of(hanging.replace('range="-2 2"', 'range="-.5 2"'), tmp_path)
    beyond = min(float(data.qpos[0]) for data in path_at_zero(robot))
    assert beyond < -0.5
    assert run_check(robot, DT).zero.pressed == ("lift",)
    assert tried(arm(POSITION.format("")), tmp_path).zero.pressed == ()


@pytest.mark.parametrize(
    "useless",
    [
        '<motor name="useless" joint="lift" gear="0" ctrlrange="-1 1"/>',
        '<general name="useless" joint="lift" gainprm="0" ctrlrange="-1 1"/>',
        '<muscle name="useless" joint="lift" force="0" lengthrange="-2 2" ctrlrange="0 1"/>',
    ],
)
def test_actuators_that_move_nothing(useless, tmp_path):
    assert tried(arm(POSITION.format("") + useless), tmp_path).idle == ("useless",)


def test_random_actions_that_move_nothing(tmp_path):
    stuck = arm('<motor name="lift" joint="lift" ctrlrange="-1 1"/>', 'armature="1e6"')
    check = tried(stuck, tmp_path)
    assert max(check.random.moved.values()) < 1e-4
    assert check.idle == ()  # it acts, on what is too heavy for it


def test_a_simulation_that_breaks_is_seen_and_leaves_no_log(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    wild = '<position name="lift" joint="lift" kp="1e9" ctrlrange="-2 2"/>'
    robot = robot_of(arm(wild, "", rest=HOME + '<option timestep=".01"/>'), tmp_path)
    check = run_check(robot, DT)
    assert check.random.broken is not None
    assert 0 <= check.random.broken < 1
    assert {"BADQACC", "BADQPOS", "BADQVEL"} & set(check.random.warnings)
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()


def test_it_is_the_same_each_time_and_another_for_another_seed(tmp_path):
    robot = robot_of(dog(), tmp_path)
    first, again, other = (run_check(robot, DT, seed).random for seed in (0, 0, 1))
    assert first == again
    assert isinstance(first, Second)
    assert first.moved != other.moved


LIGHT = """<mujoco><compiler angle="radian"/><worldbody><body name="hand" pos="0 0 1"><joint name="wrist" axis="0 1 0"/>
  <geom type="capsule" size=".02" fromto="0 0 0 .1 0 0" mass=".1"/></body></worldbody>
  <actuator><position name="wrist" joint="wrist" kp="20" kv="{kd}" ctrlrange="-1 1" forcerange="-50 50"/></actuator>
</mujoco>"""


@pytest.mark.parametrize(("kd", "chatters"), [(0.01, False), (10, True)])
def test_damping_that_eulers_method_cannot_hold_is_told_from_a_load(kd, chatters, tmp_path):
    """A link of 1e-3 kg m^2 at 2 ms: explicit damping is stable up to about 2 I / dt = 0.4 N m s/rad."""
    assert tried(LIGHT.format(kd=kd), tmp_path).chatters is chatters
    assert not tried(LIGHT.format(kd=kd), tmp_path, integrator="implicitfast").chatters


@pytest.mark.parametrize("actuator", ["", 'delay=".1" nsample="60"'])
def test_actuators_that_act_later_than_a_control_step_are_not_idle(actuator, tmp_path):
    assert tried(arm(POSITION.format(actuator)), tmp_path).idle == ()


def test_adhesion_in_the_air_is_not_idle(tmp_path):
    sticky = '<adhesion name="pad" body="boom" gain="3" ctrlrange="0 1"/>'
    assert tried(arm(POSITION.format("") + sticky), tmp_path).idle == ()
