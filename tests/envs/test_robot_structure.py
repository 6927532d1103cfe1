"""What one's own robot is made of: trees, driven and coupled joints, keyframes, legs; and where its episodes start."""

from __future__ import annotations

import re

import numpy as np
import pytest
import yaml

from metarl.envs.own_robot.declaration import EpisodeRules
from metarl.envs.own_robot.family import check_robot
from metarl.envs.own_robot.start import start_near
from tests.envs.own_robot.families import STILL, declared, entry, family_of, played, written

ARM = """<body name="{0}_base" pos="0 {1} .5"><geom name="{0}_foot" size=".05" contype="0" conaffinity="0"/>
  <body name="{0}_upper"><joint name="{0}_shoulder" axis="0 1 0" range="-2 2" damping=".5"/>
  <geom name="{0}_upper" type="capsule" size=".02" fromto="0 0 0 0 0 .25" mass=".5"/></body></body>"""
SERVO = '<position name="{0}" joint="{0}_shoulder" kp="30" kv="2" ctrlrange="-2 2"/>'
BOX = '<body name="box" pos="1 0 .1"><freejoint name="box_free"/><geom name="box" type="box" size=".1 .1 .1"/></body>'


def scene(*bodies: str, actuators: str = "", more: str = "") -> str:
    return (
        f'<mujoco><compiler angle="radian"/><worldbody>{"".join(bodies)}</worldbody>'
        f"<actuator>{actuators}</actuator>{more}</mujoco>"
    )


PIVOT, BOOM = 'axis="0 1 0"', 'axis="0 0 1"'
FIXED_TENDON = '<tendon><fixed name="t"><joint joint="rail" coef="1"/></fixed></tendon>'
SPATIAL_TENDON = '<tendon><spatial name="t"><site site="post"/><site site="cart"/></spatial></tendon>'
LEFT, RIGHT = ARM.format("left", 0.3), ARM.format("right", -0.3)
BOTH = SERVO.format("left") + SERVO.format("right")


def findings(robot) -> dict[str, str]:
    return {f.subject: f.value for f in robot.findings}


class TestTrees:
    @pytest.mark.parametrize("hints", [{}, {"base": "left_base"}, {"base": "right_base"}])
    def test_every_tree_that_an_actuator_moves_is_the_robot(self, hints, tmp_path):
        model = written(tmp_path, scene(LEFT, BOX, RIGHT, actuators=BOTH))
        robot, family = check_robot(model, declared(tmp_path, robot=hints))
        first, second = ("right", "left") if hints.get("base") == "right_base" else ("left", "right")
        assert robot.joints == (f"{first}_shoulder", f"{second}_shoulder")  # and not the box
        assert set(robot.bodies) == {f"{side}_{part}" for side in ("left", "right") for part in ("base", "upper")}
        assert family is not None and family.action_size == 2 and family.observation_size == 6
        path, _ = played(family, np.tile([0.3, -0.2], (100, 1)))
        of = [robot.model.joint(f"{side}_shoulder").qposadr[0] for side in ("left", "right")]
        assert np.abs(path[-1, 0, of] - [0.3, -0.2]).max() < 0.05  # actions are in the order of the actuators

    def test_a_tree_without_actuators_is_its_scene(self, tmp_path):
        robot, _ = check_robot(written(tmp_path, scene(LEFT, RIGHT, actuators=SERVO.format("right"))))
        assert robot.base == "right_base" and robot.joints == ("right_shoulder",)

    @pytest.mark.parametrize(
        "equality",
        [
            '<joint joint1="right_shoulder" joint2="left_shoulder" polycoef="0 1 0 0 0"/>',
            '<connect body1="left_upper" body2="right_upper" anchor="0 0 0"/>',
        ],
    )
    def test_a_tree_that_goes_with_a_driven_one_is_the_robot_too(self, equality, tmp_path):
        text = scene(LEFT, RIGHT, actuators=SERVO.format("left"), more=f"<equality>{equality}</equality>")
        robot, _ = check_robot(written(tmp_path, text))
        assert robot.joints == ("left_shoulder", "right_shoulder")

    def test_two_floating_robots_are_refused(self, tmp_path):
        floating = (
            ARM.format(s, y).replace("<geom name", "<freejoint/><geom name", 1) for s, y in (("left", 1), ("right", 2))
        )
        with pytest.raises(ValueError, match="left_base, right_base could each be the robot's base"):
            check_robot(written(tmp_path, scene(*floating, actuators=BOTH)))
        mixed = scene(LEFT, ARM.format("right", 2).replace("<geom name", "<freejoint/><geom name", 1), actuators=BOTH)
        with pytest.raises(ValueError, match="'right_base' floats and has actuators"):
            check_robot(written(tmp_path, mixed), declared(tmp_path, robot={"base": "left_base"}))
        robot, _ = check_robot(written(tmp_path, mixed))
        assert robot.base == "right_base" and robot.mobility == "floating"

    @pytest.mark.parametrize(
        ("actuator", "more", "mobility"),
        [
            ('<motor name="m" joint="rail" ctrlrange="-1 1"/>', "", "fixed"),
            ('<motor name="m" jointinparent="rail" ctrlrange="-1 1"/>', "", "fixed"),
            ('<motor name="m" tendon="t" ctrlrange="-1 1"/>', FIXED_TENDON, "fixed"),
            ('<motor name="m" tendon="t" ctrlrange="-1 1"/>', SPATIAL_TENDON, "fixed"),
            ('<general name="m" cranksite="cart" slidersite="post" cranklength="3" ctrlrange="-1 1"/>', "", "fixed"),
            ('<motor name="m" site="cart" refsite="post" gear="0 0 1 0 0 0" ctrlrange="-1 1"/>', "", "fixed"),
            ('<motor name="m" joint="pole" ctrlrange="-1 1"/>', "", "guided"),
            ('<motor name="m" joint="pole" ctrlrange="-1 1"/>', PIVOT, "fixed"),
            ('<motor name="m" joint="pole" ctrlrange="-1 1"/>', BOOM, "guided"),
            ('<motor name="m" site="cart" gear="1 0 0 0 0 0" ctrlrange="-1 1"/>', "", "guided"),  # a thruster
        ],
    )  # fmt: skip
    def test_whatever_moves_a_joint_drives_it(self, actuator, more, mobility, tmp_path):
        cart = """<site name="post" pos="-1 0 .6" zaxis="1 0 0"/><geom name="floor" type="plane" size="0 0 1"/>
          <body name="cart" pos="0 0 .5"><joint name="rail" type="slide" axis="1 0 0" range="-1 1"/><geom size=".1"/>
          <site name="cart"/><body name="pole"><joint name="pole" axis="0 1 0"/><geom size=".02" pos="0 0 .3"/></body>
          </body>"""
        if more in (PIVOT, BOOM):
            cart, more = cart.replace('type="slide" axis="1 0 0"', more), ""
        robot, _ = check_robot(written(tmp_path, scene(cart, actuators=actuator, more=more)))
        assert robot.mobility == mobility
        assert ("rail" in robot.joints) == (mobility == "fixed")


QUAD = """<mujoco><compiler angle="{unit}"/><worldbody><geom name="floor" type="plane" size="0 0 1"/>{before}
  <body name="torso" pos="0 0 .5" quat=".8 0 0 .6"><geom name="torso" type="box" size=".1 .1 .05" mass="3"/>
    <body name="leg1" pos=".2 0 0"><joint name="hip1" axis="0 1 0" range="{range}"/>
      <geom name="leg1" type="capsule" size=".02" fromto="0 0 0 0 0 -.3" mass=".3"/></body>
    <body name="leg2" pos="-.2 0 0"><joint name="hip2" axis="0 1 0" range="{range}"/>
      <geom name="leg2" type="capsule" size=".02" fromto="0 0 0 0 0 -.3" mass=".3"/></body></body></worldbody>
  <actuator><position name="hip1" joint="hip1" kp="30" kv="1" ctrlrange="-1 1"/>
    <position name="hip2" joint="hip2" kp="30" kv="1" ctrlrange="-1 1"/></actuator>
  <keyframe>{keys}</keyframe></mujoco>"""
DOOR = '<body name="door" pos="3 0 .5"><joint name="hinge" axis="0 0 1"/><geom name="door" size=".1"/></body>'


class TestKeyframes:
    @pytest.mark.parametrize(("unit", "span"), [("radian", "-1 1"), ("degree", "-57 57")])
    @pytest.mark.parametrize("before", ["", DOOR])
    def test_a_free_joint_leaves_every_joint_where_the_keyframe_has_it(self, before, unit, span, tmp_path):
        door = "0.2 " if before else ""
        keys = f'<key name="home" qpos="{door}.3 -.2"/><key name="low" qpos="{door}.5 -.4" qvel="{door}1 2"/>'
        model = written(tmp_path, QUAD.format(unit=unit, range=span, before=before, keys=keys))
        for name, hips, speeds in (("home", [0.3, -0.2], [0, 0]), ("low", [0.5, -0.4], [1, 2])):
            robot, family = check_robot(model, declared(tmp_path, robot={"floating": True, "keyframe": name}))
            assert family is not None and robot.mobility == "floating"
            compiled = family.base().compile()
            key = compiled.key(name)
            for joint, angle, speed in zip(("hip1", "hip2"), hips, speeds, strict=True):
                assert key.qpos[compiled.joint(joint).qposadr[0]] == pytest.approx(angle)
                assert key.qvel[compiled.joint(joint).dofadr[0]] == speed
                assert robot.home[compiled.joint(joint).qposadr[0]] == pytest.approx(angle)
            base = compiled.joint("torso_free").qposadr[0]
            np.testing.assert_allclose(key.qpos[base : base + 7], [0, 0, 0.5, 0.8, 0, 0, 0.6])
            if before:
                assert key.qpos[compiled.joint("hinge").qposadr[0]] == 0.2
        other = findings(robot)["other keyframes"]
        assert other.startswith("'home': not used")

    def test_keyframes_that_are_not_called_home_are_mentioned(self, tmp_path):
        keys = '<key name="stand" qpos=".3 -.2"/><key name="sit" qpos=".5 -.4"/><key qpos="0 0"/><key qpos=".1 0"/>'
        model = written(tmp_path, QUAD.format(unit="radian", range="-1 1", before="", keys=keys))
        robot, _ = check_robot(model, declared(tmp_path, robot={"floating": False}))
        assert findings(robot)["home pose"] == "the model's default pose"
        assert (
            "'stand', 'sit', 2 without a name: not used; robot: {keyframe: NAME} takes one"
            in findings(robot)["other keyframes"]
        )


HAND = """<mujoco><compiler angle="radian"/><default><geom size=".01" contype="0" conaffinity="0"/></default><worldbody>
  <body name="palm"><geom/>
  <body name="a"><joint name="a" type="slide" axis="1 0 0" range="0 .04"/><geom/></body>
  <body name="b"><joint name="b" type="slide" axis="1 0 0" range="-.04 0"/><geom/></body>
  <body name="c"><joint name="c" axis="0 1 0" range="-.3 .3" ref=".1"/><geom pos="0 0 .1"/></body>
  <body name="d"><joint name="d" axis="0 1 0" range="-2 2"/><geom pos="0 0 .1"/></body>
  </body></worldbody><actuator>{actuators}</actuator><equality>{equality}</equality></mujoco>"""
MOVED = "".join(f'<position name="{j}" joint="{j}" kp="40" kv="1" ctrlrange="-2 2"/>' for j in "ad")
COUPLED = {
    "mimic": ('<joint joint1="b" joint2="a" polycoef="0 -1 0 0 0"/>', {"b": lambda q: -q["a"]}),
    "curved": (
        '<joint joint1="c" joint2="d" polycoef="0 .3 .5 -.1 0"/>',
        {"c": lambda q: 0.1 + 0.3 * q["d"] + 0.5 * q["d"] ** 2 - 0.1 * q["d"] ** 3},
    ),
    "chain, written backwards": (
        '<joint joint1="b" joint2="c" polycoef="-.01 .1 0 0 0"/><joint joint1="c" joint2="d" polycoef="0 .5 0 0 0"/>',
        {"c": lambda q: 0.1 + 0.5 * q["d"], "b": lambda q: -0.01 + 0.1 * (q["c"] - 0.1)},
    ),
    "held": ('<joint joint1="c" polycoef=".05 0 0 0 0"/>', {"c": lambda q: 0.15 + 0 * q["c"]}),
}  # fmt: skip


def starts(family, n=500):
    """Position and velocity of each joint at the start of n episodes."""
    model = family.compile(family.neutral())
    qpos, qvel = family.reset(model, np.random.default_rng(0), n)
    names = [model.joint(j).name for j in range(model.njnt)]
    return model, dict(zip(names, qpos.T, strict=True)), dict(zip(names, qvel.T, strict=True))


class TestStart:
    @pytest.mark.parametrize("name", COUPLED)
    @pytest.mark.parametrize("noise", [0.02, 0.5, 3.0])
    def test_is_one_that_the_robot_can_be_in(self, name, noise, tmp_path):
        equality, laws = COUPLED[name]
        model_file = written(tmp_path, HAND.format(actuators=MOVED, equality=equality))
        family = family_of(tmp_path, model_file, episode={"position_noise": noise, "velocity_noise": 0.1})
        model, qpos, qvel = starts(family)
        for joint, positions in qpos.items():
            low, high = model.joint(joint).range
            assert low - 1e-9 <= positions.min() and positions.max() <= high + 1e-9
            if joint not in laws:
                assert np.ptp(positions) > min(noise, 0.1) * (high - low) / 8
        for joint, law in laws.items():
            np.testing.assert_allclose(qpos[joint], law(qpos), atol=1e-9)
            later = {j: q + 1e-6 * qvel[j] for j, q in qpos.items()}
            np.testing.assert_allclose((law(later) - law(qpos)) / 1e-6, qvel[joint], atol=1e-6)

    def test_of_a_slide_is_scaled_to_its_range(self, tmp_path):
        model_file = written(tmp_path, HAND.format(actuators=MOVED, equality=""))
        family = family_of(tmp_path, model_file, episode={"position_noise": 0.1, "velocity_noise": 0})
        _, qpos, _ = starts(family, 2000)
        assert np.abs(qpos["b"]).max() == pytest.approx(0.1 * 0.02, rel=0.01)
        assert np.abs(qpos["d"]).max() == pytest.approx(0.1, rel=0.01)

    @pytest.mark.parametrize("coupling", ["connect", "weld", "tendon"])
    def test_joints_of_a_loop_start_where_it_is_closed(self, coupling, tmp_path):
        tendons = "".join(
            f'<fixed name="{n}"><joint joint="{j}" coef="1"/></fixed>' for n, j in (("t", "c"), ("u", "d"))
        )
        equality = {
            "connect": '<connect body1="c" body2="d" anchor="0 0 .1"/>',
            "weld": '<weld body1="c" body2="d"/>',
            "tendon": '<tendon tendon1="t" tendon2="u"/>',
        }[coupling]
        text = HAND.format(actuators=MOVED, equality=equality).replace(
            "<actuator>", f"<tendon>{tendons}</tendon><actuator>"
        )
        noise = {"position_noise": 0.3, "velocity_noise": 1}
        _, qpos, qvel = starts(family_of(tmp_path, written(tmp_path, text), episode=noise))
        for joint in "cd":
            assert np.ptp(qpos[joint]) == np.ptp(qvel[joint]) == 0
        assert np.ptp(qpos["a"]) > 0

    def test_of_hinges_far_from_their_limits_is_plain_noise(self, tmp_path):
        robot, _ = check_robot(written(tmp_path, scene(LEFT, actuators=SERVO.format("left"))))
        reset = start_near(robot, EpisodeRules(position_noise=0.1, velocity_noise=0.3), lambda model: robot.home)
        qpos, qvel = reset(robot.model, np.random.default_rng(3), 7)
        rng = np.random.default_rng(3)
        np.testing.assert_array_equal(qpos, rng.uniform(-0.1, 0.1, (7, 1)))
        np.testing.assert_array_equal(qvel, 0.3 * rng.standard_normal((7, 1)))

    def test_a_follower_is_led_and_gets_no_servo(self, tmp_path):
        text = HAND.format(actuators="", equality=COUPLED["mimic"][0])
        robot, family = check_robot(
            written(tmp_path, text),
            declared(tmp_path, robot={"actuators": {"kind": "position", "kp": 4, "kd": 0.1, "joints": "a|b"}}),
        )
        assert [robot.model.actuator(i).name for i in range(robot.model.nu)] == ["a"]
        assert findings(robot)["coupled joints"] == "b follows a x -1" and findings(robot)["passive joints"] == "c, d"
        path, _ = played(family, np.tile([0.03], (100, 1)))
        np.testing.assert_allclose(path[-1, 0, :2], [0.03, -0.03], atol=2e-3)
        for pose, message in (({"b": -0.01}, "robot.pose puts joint 'b' elsewhere than its coupling holds it"),):
            robot, _ = check_robot(str(tmp_path / "robot.xml"), declared(tmp_path, robot={"pose": pose}))
            assert any(message in q for q in robot.questions)

    def test_home_is_moved_onto_the_coupling(self, tmp_path):
        text = HAND.format(actuators=MOVED, equality=COUPLED["mimic"][0])
        robot, _ = check_robot(written(tmp_path, text), declared(tmp_path, robot={"pose": {"a": 0.02}}))
        assert robot.home.tolist()[:2] == [0.02, -0.02]
        assert "with b where couplings hold them" in findings(robot)["home pose"]


LEG = """<link name="{0}_thigh">{limb}</link><link name="{0}_{foot}">{limb}</link>
  <joint name="{0}_hip" type="revolute"><parent link="trunk"/><child link="{0}_thigh"/><origin xyz="{x} {y} -.05"/>
    <axis xyz="0 1 0"/><limit lower="-1.5" upper="1.5" effort="30" velocity="10"/></joint>
  <joint name="{0}_knee" type="revolute"><parent link="{0}_thigh"/><child link="{0}_{foot}"/><origin xyz="0 0 -.2"/>
    <axis xyz="0 1 0"/><limit lower="-2" upper="2" effort="30" velocity="10"/></joint>"""
LIMB = """<inertial><origin xyz="0 0 -.1"/><mass value=".5"/>
  <inertia ixx=".002" iyy=".002" izz=".0005" ixy="0" ixz="0" iyz="0"/></inertial>
  <collision><origin xyz="0 0 -.1"/><geometry><cylinder length=".2" radius=".02"/></geometry></collision>"""
CORNERS = {"fl": (0.2, 0.15), "fr": (0.2, -0.15), "rl": (-0.2, 0.15), "rr": (-0.2, -0.15)}


def legged(foot: str) -> str:
    legs = (LEG.format(name, x=x, y=y, foot=foot, limb=LIMB) for name, (x, y) in CORNERS.items())
    return f"""<robot name="dog"><link name="trunk"><inertial><mass value="6"/>
      <inertia ixx=".05" iyy=".1" izz=".1" ixy="0" ixz="0" iyz="0"/></inertial>
      <collision><geometry><box size=".5 .2 .1"/></geometry></collision></link>{"".join(legs)}</robot>"""


class TestLegs:
    @pytest.mark.parametrize("foot", ["shank", "wheel", "part"])
    def test_a_legged_robot_that_is_fixed_to_the_world_is_asked_about(self, foot, tmp_path):
        model = written(tmp_path, legged(foot), "dog.urdf")
        robot, family = check_robot(model, declared(tmp_path))
        assert family is None and robot.mobility == "fixed"
        asked = robot.questions[0]
        assert (
            "\n" not in asked and "base 'trunk' is fixed to the world" in asked and "robot: {floating: false}" in asked
        )
        # What it proposes is written into the file, and the robot stands on its legs for two seconds.
        proposed = yaml.safe_load(re.search(r"write robot: (\{.*\}), and if", asked).group(1))  # pyright: ignore[reportOptionalMemberAccess]
        hints = {**proposed, "pose": {".*_hip": 0.5, ".*_knee": -1.0}}
        hints.pop("height")
        family = family_of(tmp_path, model, robot=hints, reward={"alive": 1}, episode=STILL)
        path, _ = played(family, np.zeros((100, 8)))
        heights = path[:, 0, 2]
        assert 0.3 < heights[0] < 0.45 and heights[-1] > 0.85 * heights[0]
        assert proposed["height"] == pytest.approx(0.45 + 0.02, abs=0.03)

    def test_a_mounted_robot_is_said_to_be_one(self, tmp_path):
        model = written(tmp_path, legged("shank"), "dog.urdf")
        servos = {"kind": "position", "kp": 40}
        robot, family = check_robot(model, declared(tmp_path, robot={"floating": False, "actuators": servos}))
        assert family is not None and not robot.questions and robot.mobility == "fixed"

    def test_a_hand_that_points_down_is_not_asked(self, tmp_path):
        model = written(tmp_path, legged("distal"), "hand.urdf")
        robot, _ = check_robot(model)
        assert len(robot.questions) == 1 and "no actuators" in robot.questions[0]

    def test_an_arm_is_not_asked(self, tmp_path):
        for text in (scene(LEFT, actuators=SERVO.format("left")), scene(LEFT, RIGHT, actuators=BOTH)):
            robot, _ = check_robot(written(tmp_path, text))
            assert not robot.questions

    def test_gains_carry_the_load_of_each_joint(self, tmp_path):
        model = written(tmp_path, legged("shank"), "dog.urdf")
        robot, _ = check_robot(
            model, declared(tmp_path, robot={"floating": True, "pose": {".*_hip": 0.5, ".*_knee": -1.0}})
        )
        asked = next(q for q in robot.questions if "no actuators" in q)
        kp = float(re.search(r"kp: ([0-9.]+)", asked).group(1))  # pyright: ignore[reportOptionalMemberAccess]
        # A quarter of the weight above the knees acts at each foot, .1 sin(.5) m from where it stands.
        weight = 9.81 * (6 + 4 * 1.0) / 4
        assert 0.2 * weight * np.sin(0.5) / 0.1 / 3 < kp < 3 * 0.2 * weight * np.sin(0.5) / 0.1


@pytest.mark.parametrize(
    ("quantity", "target", "operation", "message"),
    [
        ("mass", "left_base", "scale", "left_base is fixed to the world: mass has no effect there"),
        ("payload", "left_base", "set", "left_base is fixed to the world: payload has no effect there"),
        ("com_x", "left_base", "add", "left_base is fixed to the world: com_x has no effect there"),
        ("density", "left_foot", "scale", "left_foot|left_base is fixed to the world"),
        (
            "link_length",
            "ball",
            "scale",
            r"p \(scale link_length of ball\) changes nothing in this robot; leave it out",
        ),
    ],
)
def test_a_parameter_without_effect_is_refused_by_name(quantity, target, operation, message, tmp_path):
    ball = '<body name="ball" pos="0 0 .25"><geom name="ball" size=".02"/></body>'
    text = scene(LEFT.replace("</body></body>", f"{ball}</body></body>"), actuators=SERVO.format("left"))
    with pytest.raises(ValueError, match=message):
        family_of(tmp_path, written(tmp_path, text), entry(quantity, target, operation, [0.5, 0.9]))


def test_a_target_may_match_what_is_fixed_besides_what_moves(tmp_path):
    model = written(tmp_path, scene(LEFT, actuators=SERVO.format("left")))
    family = family_of(tmp_path, model, entry("mass", "left_.*", "scale", [0.5, 2]))
    heavy, neutral = family.compile(family.task({"p": 2.0})), family.compile(family.neutral())
    assert heavy.body("left_upper").mass[0] == pytest.approx(2 * neutral.body("left_upper").mass[0])
