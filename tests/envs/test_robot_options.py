"""What a model's options switch off is not varied, met or followed; and remedies that work as they are written."""

from __future__ import annotations

import re

import mujoco
import numpy as np
import pytest
import yaml

from metarl.envs.own_robot.check_run import run_check
from metarl.envs.own_robot.family import check_robot
from tests.envs.own_robot.families import at, declared, entry, family_of, played, written

CRAB = """<mujoco model="crab"><compiler angle="{angle}"/><option {option}>{flag}</option>
  <worldbody><geom name="floor" type="plane" size="0 0 1"/><body name="hull" pos="0 0 .3"><freejoint/>
    <geom name="hull" type="box" size=".15 .1 .04" mass="2"/>{more}
    <body name="l" pos=".1 0 -.04"><joint name="l" axis="0 1 0" range="-.9 .9" damping=".5" stiffness="3"
      frictionloss=".2"/><geom name="l" type="capsule" size=".03" fromto="0 0 -.04 0 0 -.15" mass=".4"/></body>
    <body name="r" pos="-.1 0 -.04"><joint name="r" axis="0 1 0" range="-.9 .9" damping=".5"/>
      <geom name="r" type="capsule" size=".03" fromto="0 0 -.04 0 0 -.15" mass=".4"/></body></body></worldbody>
  <equality>{equality}</equality><actuator><position name="l" joint="l" kp="20" kv="1" ctrlrange="-.9 .9"
    forcerange="-5 5" group="3"/><motor name="r" joint="r" ctrlrange="-1 1"/></actuator></mujoco>"""
FOLLOWS = '<joint joint1="r" joint2="l" polycoef="0 1 0 0 0"/>'
MASS = entry("mass", "hull", "scale", [0.9, 1.1])


def crab(flag: str = "", option: str = "", equality: str = "", more: str = "", angle: str = "radian") -> str:
    disabled = f'<flag {flag}="disable"/>' if flag else ""
    return CRAB.format(flag=disabled, option=option, equality=equality, more=more, angle=angle)


@pytest.mark.parametrize(
    ("flag", "quantity", "target"),
    [
        ("damper", "damping", "l"),
        ("spring", "stiffness", "l"),
        ("frictionloss", "friction_loss", "l"),
        ("constraint", "friction_loss", "l"),
        ("limit", "range", "l"),
        ("constraint", "range", "l"),
        ("contact", "friction", "l"),
        ("constraint", "friction", "floor"),
        ("gravity", "gravity", None),
        *(("actuation", quantity, "l") for quantity in ("kp", "kd", "strength", "force_limit")),
        ("actuation", "gear", "r"),
    ],
)
def test_what_an_option_switches_off_is_not_varied(flag, quantity, target, tmp_path):
    said, hints = entry(quantity, target, "scale", [0.5, 0.9]), {"robot": {"floor": False}}
    family_of(tmp_path, written(tmp_path, crab()), said)
    with pytest.raises(ValueError, match=f"the model's options disable {flag}: {quantity} has no effect; enable it"):
        family_of(tmp_path, written(tmp_path, crab(flag)), said, **hints)


def test_actuators_of_a_group_that_is_switched_off_are_not_varied(tmp_path):
    model = written(tmp_path, crab(option='actuatorgroupdisable="3"'))
    with pytest.raises(ValueError, match="disable actuators of group 3: strength of l has no effect"):
        family_of(tmp_path, model, entry("strength", "l", "scale", [0.5, 0.9]))
    family_of(tmp_path, model, entry("strength", "r", "scale", [0.5, 0.9]))
    family_of(tmp_path, model, entry("strength", "l|r", "scale", [0.5, 0.9]))  # r feels it


@pytest.mark.parametrize("flag", ["contact", "constraint"])
def test_who_falls_for_want_of_contacts_is_asked_for_what_helps(flag, tmp_path):
    model = written(tmp_path, crab(flag))
    robot, _ = check_robot(model)
    assert any(f'switches contacts off (<flag {flag}="disable"/>)' in q for q in robot.questions)
    assert not any("floor: true" in q for q in robot.questions)  # a floor could not be touched either
    robot, family = check_robot(model, declared(tmp_path, MASS, robot={"floor": False}))
    assert family is not None and not robot.questions


def test_who_is_not_pulled_down_is_not_asked_for_a_ground(tmp_path):
    text = crab("gravity").replace('<geom name="floor" type="plane" size="0 0 1"/>', "")
    robot, family = check_robot(written(tmp_path, text), declared(tmp_path, MASS))
    assert family is not None and not robot.ground.names
    assert run_check(robot, 0.02).gravity == 0


@pytest.mark.parametrize(("flag", "follows"), [("", True), ("equality", False), ("constraint", False)])
def test_a_coupling_that_is_switched_off_couples_nothing(flag, follows, tmp_path):
    model = written(tmp_path, crab(flag, equality=FOLLOWS))
    robot, family = check_robot(model, declared(tmp_path, MASS, robot={"floor": None if follows else False}))
    assert any(f.subject == "coupled joints" for f in robot.findings) is follows
    assert family is not None
    starts, _ = check_robot(model)[0], family
    model_, far = family.compile(family.neutral()), {"position_noise": 0.4, "velocity_noise": 0}
    again = family_of(tmp_path, model, MASS, episode=far, robot={"floor": None if follows else False})
    qpos, _ = again.reset(model_, np.random.default_rng(0), 20)
    left, right = (qpos[:, starts.model.joint(n).qposadr[0]] for n in ("l", "r"))
    assert np.allclose(left, right) is follows


@pytest.mark.parametrize("angle", ["radian", "degree"])
def test_the_range_of_a_ball_joint_is_its_largest_angle(angle, tmp_path):
    widest = np.rad2deg(0.8) if angle == "degree" else 0.8
    ball = (
        f'<body name="ball" pos="0 0 .06"><joint name="ball" type="ball" damping=".1" range="0 {widest}"/>'
        '<geom size=".03" mass=".1"/></body>'
    )
    model = written(tmp_path, crab(more=ball, angle=angle))
    for operation, value, expected in (("scale", 0.5, 0.4), ("set", 0.6, 0.6), ("add", 0.2, 1.0)):
        low = {"scale": 0.4, "set": 0.5, "add": -0.1}[operation]
        family = family_of(tmp_path, model, entry("range", "ball", operation, [low, value]))
        joint = at(family, value).joint("ball")
        np.testing.assert_allclose(joint.range, (0, expected), rtol=1e-12)
        assert joint.limited[0]


PAIRED = """<mujoco model="paired"><compiler angle="radian"/><worldbody>{ground}<body name="palm" pos="0 0 1">{root}
  <geom name="palm" type="box" size=".05 .05 .02" mass="1"/><body name="mid">
  <joint name="mid" axis="0 1 0" range="-1 1"/><geom name="mid" size=".01" pos="0 0 .2" mass=".1"/>
  <body name="tip"><joint name="tip" axis="0 1 0" range="-1 1"/>
  <geom name="tip" type="box" size=".04 .04 .04" mass=".1"/></body></body></body></worldbody>
  <actuator><motor joint="mid" ctrlrange="-1 1"/></actuator></mujoco>"""


@pytest.mark.parametrize("root", ["", "<freejoint/>"])
def test_what_is_inside_itself_at_home_is_not_told_to_be_raised(root, tmp_path):
    ground = '<geom name="floor" type="plane" size="0 0 1"/>'
    robot, _ = check_robot(written(tmp_path, PAIRED.format(root=root, ground=ground)))
    asked = next(q for q in robot.questions if "inside" in q)
    assert "height" not in asked and "robot: {pose: {JOINT: RADIANS}}" in asked
    low = PAIRED.format(root=root, ground=ground.replace("/>", ' pos="0 0 1"/>'))
    keyframe = '<keyframe><key name="home" qpos="0 0 1 1 0 0 0 0 0"/></keyframe></mujoco>' if root else "</mujoco>"
    robot, _ = check_robot(written(tmp_path, low.replace("</mujoco>", keyframe)))
    asked = next(q for q in robot.questions if "inside 'floor'" in q)
    assert ("height: METRES" in asked) is bool(root)  # a base that is fixed cannot be raised


def inside(pairs: str = "", root: str = "") -> str:
    """A tip in its palm, which it is no child of, and one in the mast."""
    mast = '<geom name="mast" type="box" size=".01 .01 .05" pos="0 0 .06"/>'
    text = PAIRED.format(root=root, ground='<geom name="floor" type="plane" size="0 0 1"/>')
    return text.replace('mass="1"/><body name="mid">', f'mass="1"/>{mast}<body name="mid">').replace(
        "</mujoco>", f"{pairs}</mujoco>"
    )


@pytest.mark.parametrize("root", ["", "<freejoint/>"])
def test_bodies_that_are_not_to_touch_do_not_and_the_question_says_how(root, tmp_path):
    model = written(tmp_path, inside(root=root))
    robot, _ = check_robot(model)
    asked = next(q for q in robot.questions if "inside" in q)
    answer = yaml.safe_load(re.search(r"robot: (\{exclude: .*?\]\]\})", asked).group(1))  # pyright: ignore[reportOptionalMemberAccess]
    assert answer == {"exclude": [["palm", "tip"]]}  # once, though two geoms of the palm are in it
    robot, family = check_robot(model, declared(tmp_path, entry("mass", "tip", "scale", [0.9, 1.1]), robot=answer))
    assert family is not None and ("excluded", "palm and tip do not touch each other", "file") in [
        (f.subject, f.value, f.source) for f in robot.findings
    ]
    plain = mujoco.MjSpec.from_file(model)
    plain.add_exclude(bodyname1="tip", bodyname2="palm")
    reference = plain.compile()
    data = mujoco.MjData(reference)
    data.qpos = robot.home
    path, env = played(family, np.full((25, 1), 0.3))
    data.ctrl[:] = env.simulation.batch.bind("ctrl")[0]
    mujoco.mj_step(reference, data, nstep=25 * family.frame_skip)
    np.testing.assert_allclose(path[-1, 0], data.qpos, atol=1e-9)


def test_what_a_pair_names_no_exclusion_keeps_apart(tmp_path):
    pairs = "<contact>" + "".join(f'<pair geom1="{g}" geom2="tip"/>' for g in ("palm", "mast")) + "</contact>"
    asked = next(q for q in check_robot(written(tmp_path, inside(pairs)))[0].questions if "inside" in q)
    assert "exclude" not in asked and "robot: {pose: " in asked


def test_bodies_to_keep_apart_are_bodies_of_the_model(tmp_path):
    model = written(tmp_path, inside())
    with pytest.raises(ValueError, match=r"robot.exclude: body 'pelm' is not in the model; did you mean 'palm'\?"):
        family_of(tmp_path, model, robot={"exclude": [["pelm", "tip"]]})
    with pytest.raises(ValueError, match=r"robot.exclude\[0\] is .*; it must have 2 entries"):
        family_of(tmp_path, model, robot={"exclude": [["palm"]]})


CHAIN = """<mujoco model="chain"><compiler angle="radian"/><worldbody><body name="base" pos="0 0 1">
  <geom name="base" size=".02" mass="1"/>{bodies}</body></worldbody><equality>{ties}</equality>
  <actuator><motor joint="a" ctrlrange="-1 1"/></actuator></mujoco>"""


def chain(first: str, second: str, lead: str = 'range="0 1"') -> str:
    bodies = "".join(
        f'<body name="{n}" pos="0 {y} 0"><joint name="{n}" axis="0 1 0" {limit}/>'
        '<geom type="capsule" size=".01" fromto="0 0 -.05 0 0 -.2" mass=".1"/></body>'
        for n, y, limit in (("a", 0.1, lead), ("b", 0.2, 'range="0 1"'), ("c", 0.3, 'range="-1 1"'))
    )
    ties = f'<joint joint1="b" joint2="a" polycoef="{first}"/><joint joint1="c" joint2="b" polycoef="{second}"/>'
    return CHAIN.format(bodies=bodies, ties=ties)


@pytest.mark.parametrize(
    "text",
    [
        chain("-.5 2 0 0 0", "0 1 0 0 0"),
        chain("-.5 2 0 0 0", "0 -1 0 0 0", lead=""),
        chain("0 1 0 0 0", "1.2 -1 0 0 0"),
        chain(".3 1 .5 0 0", "1.5 -1 0 0 0"),
        chain("-.2 .6 0 0 0", "0 1 0 0 0"),
    ],
)
def test_a_follower_that_home_takes_out_of_its_range_is_asked_about_and_the_answer_helps(text, tmp_path):
    model = written(tmp_path, text)
    robot, family = check_robot(model, declared(tmp_path))
    assert family is None and "where its coupling takes it, outside of its range" in robot.questions[0]
    answer = yaml.safe_load(re.search(r"robot: (\{pose: \{.*?\}\})", robot.questions[0]).group(1))  # pyright: ignore[reportOptionalMemberAccess]
    robot, family = check_robot(model, declared(tmp_path, robot=answer))
    assert family is not None and not robot.questions
    data = mujoco.MjData(robot.model)
    data.qpos = robot.home
    mujoco.mj_fwdPosition(robot.model, data)
    kinds = data.efc_type.tolist()
    assert int(mujoco.mjtConstraint.mjCNSTR_LIMIT_JOINT) not in kinds
    assert np.abs(data.efc_pos[: data.ne]).max() < 1e-9


@pytest.mark.parametrize("first", ["5 1 0 0 0", '5 1 0 0 0"/><joint joint1="a" joint2="b" polycoef="5 1 0 0 0'])
def test_a_follower_that_nothing_brings_into_its_range_is_asked_about(first, tmp_path):
    robot, _ = check_robot(written(tmp_path, chain(first, "0 0 0 0 0")))
    assert "; change the coupling or the range in the model" in robot.questions[0]


@pytest.mark.parametrize(("flag", "option"), [("sleep", ""), ("ipc", 'integrator="discrete" solver="CG"')])
def test_what_needs_more_than_the_state_is_refused_when_the_robot_is_read(flag, option, tmp_path):
    option = crab("x", option).replace('<flag x="disable"/>', f'<flag {flag}="enable"/>')
    with pytest.raises(ValueError, match=rf'the model enables {flag} \(<option><flag {flag}="enable"/>\)'):
        check_robot(written(tmp_path, option))


def test_a_keyframe_without_a_name_is_not_to_be_taken_by_its_name(tmp_path):
    keys = '<keyframe><key qpos="0 0 .3 1 0 0 0 0 0"/><key {} qpos="0 0 .3 1 0 0 0 .1 0"/></keyframe></mujoco>'
    for second, words in (
        ("", "2 without a name: not used; .* takes one that has a name"),
        ('name="a"', "'a', 1 without a name: not used; .* takes one that has a name"),
    ):
        robot, _ = check_robot(written(tmp_path, crab().replace("</mujoco>", keys.format(second))))
        note = next(f.value for f in robot.findings if f.subject == "other keyframes")
        assert re.match(words, note)


THRUSTERS = """<mujoco model="copter"><worldbody><geom name="floor" type="plane" size="0 0 1"/>{crate}
  <body name="hull" pos="0 0 .5"><freejoint/><geom name="hull" type="box" size=".1 .1 .03" mass="1"/>
    <site name="a" pos=".1 .1 0"/><site name="b" pos="-.1 -.1 0"/></body></worldbody>
  <actuator><motor name="a" site="a" gear="0 0 1 0 0 .1" ctrlrange="0 9"/>
  <motor name="b" site="b" gear="0 0 1 0 0 -.1" ctrlrange="0 9"/></actuator></mujoco>"""


@pytest.mark.parametrize("crate", ["", '<body name="crate" pos="1 0 .1"><freejoint/><geom size=".1" mass="1"/></body>'])
def test_a_body_that_thrusters_carry_is_a_robot_without_any_other_joint(crate, tmp_path):
    model = written(tmp_path, THRUSTERS.format(crate=crate))
    family = family_of(tmp_path, model, MASS, reward={"height": 1})
    plain = mujoco.MjModel.from_xml_path(model)
    data = mujoco.MjData(plain)
    path, _ = played(family, np.full((30, 2), 0.7))
    data.ctrl[:] = 0.7 * 9
    mujoco.mj_step(plain, data, nstep=30 * family.frame_skip)
    np.testing.assert_allclose(path[-1, 0], data.qpos, atol=1e-9)
    assert data.body("hull").xpos[2] > 0.7


def test_what_nothing_moves_is_no_robot(tmp_path):
    still = re.sub(r"<actuator>.*</actuator>", "", THRUSTERS.format(crate=""), flags=re.DOTALL)
    with pytest.raises(ValueError, match="the model has no joints: there is nothing to control"):
        check_robot(written(tmp_path, still))


@pytest.mark.parametrize(("link", "joint"), [("left_wheel", "j{}"), ("w{}", "wheel_{}_joint")])
def test_wheels_are_known_by_their_names_or_their_joints(link, joint, tmp_path):
    def part(name: str, shape: str) -> str:
        return (
            f'<link name="{name}"><inertial><mass value="1"/><inertia ixx=".01" iyy=".01" izz=".01" ixy="0" ixz="0" '
            f'iyz="0"/></inertial><collision><geometry>{shape}</geometry></collision></link>'
        )

    names = ["left_wheel", "right_wheel"] if "wheel" in link else [link.format(i) for i in (1, 2)]
    joints = "".join(
        f'<joint name="{joint.format(i)}" type="continuous"><parent link="base"/><child link="{name}"/>'
        f'<origin xyz="0 {y} 0"/><axis xyz="0 1 0"/></joint>'
        for i, (name, y) in enumerate(zip(names, (0.2, -0.2), strict=True))
    )
    wheels = "".join(part(name, '<sphere radius=".06"/>') for name in names)
    hull = part("base", '<box size=".2 .1 .04"/>')
    text = f'<robot name="cart">{hull}{wheels}{joints}</robot>'
    robot, _ = check_robot(written(tmp_path, text, "cart.urdf"))
    assert f"{', '.join(names)} look like what it stands on" in robot.questions[0]


@pytest.mark.parametrize(("ends", "reach"), [("-1e16 1e16", np.pi), ("-900 900", np.pi), ("-20 20", 20.0)])
def test_a_servo_of_a_joint_that_turns_without_end_reaches_half_a_turn(ends, reach, tmp_path):
    text = PAIRED.format(root="", ground="").replace("<actuator>", "<!--").replace("</actuator>", "-->")
    text = text.replace('<joint name="tip" axis="0 1 0" range="-1 1"/>', "").replace("-1 1", ends)
    text = text.replace(".04 .04 .04", ".001 .001 .001").replace('pos="0 0 .2"', 'pos="0 0 .3"')
    text = text.replace('<body name="tip">', '<body name="tip" pos="0 0 .2">')
    servos = {"actuators": {"kind": "position", "kp": 5, "kd": 0.1}}
    family = family_of(tmp_path, written(tmp_path, text), robot=servos)
    np.testing.assert_allclose((family.action_low[0], family.action_high[0]), (-reach, reach))


def test_a_ball_joint_that_guides_the_base_is_observed_as_a_whole(tmp_path):
    guides = "".join(f'<joint name="t{a}" type="slide" axis="{v}"/>' for a, v in (("x", "1 0 0"), ("z", "0 0 1")))
    model = written(tmp_path, crab().replace("<freejoint/>", f'{guides}<joint name="turn" type="ball"/>'))
    robot, _ = check_robot(model)
    assert robot.mobility == "guided" and "ball joints" not in {f.subject for f in robot.findings}
    family = family_of(tmp_path, model, MASS, observation=["guide_positions", "guide_velocities"])
    turns = [f"turn_{a}" for a in "wxyz"]
    assert family.observation_names[:5] == ("tz [rad or m]", *(f"{n} [rad or m]" for n in turns))
    assert family.observation_names[5:] == tuple(
        f"{n}_velocity [rad/s or m/s]" for n in ("tx", "tz", "turn_x", "turn_y", "turn_z")
    )
    path, env = played(family, np.full((20, 2), 0.5))
    seen = env.step(np.full((1, 1, 2), 0.5)).observations[0, 0]
    qpos, qvel = (np.array(env.simulation.batch.bind(n)[0]) for n in ("qpos", "qvel"))
    np.testing.assert_allclose(seen, [*qpos[1:6], *qvel[:5]], rtol=1e-5, atol=1e-6)
    assert np.abs(qpos[3:6]).max() > 1e-3 and len(path) == 21


def test_a_slides_position_velocity_and_force_have_its_units(tmp_path):
    text = crab().replace('<joint name="r" axis="0 1 0" range="-.9 .9"', '<joint name="r" type="slide" axis="0 0 1"')
    family = family_of(
        tmp_path, written(tmp_path, text), MASS, observation=["joint_positions", "joint_velocities", "joint_forces"]
    )
    assert family.observation_names == (
        *("l - home [rad]", "r - home [m]", "l_velocity [rad/s]", "r_velocity [m/s]"),
        *("l force [N m]", "r force [N]"),
    )


SIGHT = """def seen(state):
    return state.sensordata[:, -1:]
"""


def test_the_rays_of_a_rangefinder_meet_what_touches_nothing(tmp_path):
    wall = '<geom name="wall" type="box" size=".05 2 2" pos="1.5 0 0" contype="0" conaffinity="0"/>'
    text = crab(more='<site name="eye" pos=".2 0 0" euler="0 1.5708 0"/>')
    text = text.replace("<worldbody>", f"<worldbody>{wall}")
    text = text.replace("</mujoco>", '<sensor><rangefinder name="far" site="eye"/></sensor></mujoco>')
    (tmp_path / "sight.py").write_text(SIGHT)
    sight = {"far": {"term": "python", "function": "sight.py:seen", "size": 1, "unit": "m"}}
    model = mujoco.MjModel.from_xml_path(written(tmp_path, text))
    family = family_of(tmp_path, str(tmp_path / "robot.xml"), MASS, observation=sight, robot={"pose": {}})
    path, env = played(family, np.zeros((3, 2)))
    assert model.nsensordata == 1
    data = mujoco.MjData(model)
    data.qpos = path[-1, 0]
    mujoco.mj_forward(model, data)
    assert 1.0 < data.sensordata[0] < 1.5
    seen = env.step(np.zeros((1, 1, 2))).observations[0, 0]
    np.testing.assert_allclose(seen, data.sensordata, atol=0.02)
