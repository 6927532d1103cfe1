"""Robot models for the suite of one's own robots: each a small model of a kind, and what its file says of it.

Models are plain texts that MuJoCo reads by itself. `complete` adds in plain MuJoCo, each attribute said, what metarl is
asked to add to a model: so there is always a model to compare with that metarl had no hand in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np

from metarl.envs.own_robot.settings import EXAMPLE
from metarl.envs.registry import make_family
from metarl.envs.robots.ant_settings import AntLegsSettings
from metarl.envs.robots.point_goal_settings import PointGoalSettings
from metarl.envs.robots.quadruped_settings import QuadrupedSettings

GYMNASIUM = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
PLANE = mujoco.mjtGeom.mjGEOM_PLANE
Complete = Callable[[mujoco.MjSpec], None]


@dataclass(frozen=True)
class Case:
    """A robot, and what is known about it."""

    text: str
    """Of the model: MJCF or URDF."""
    robot: Mapping[str, Any] = field(default_factory=dict)
    """What the family's file says of it."""
    complete: Complete = lambda spec: None
    """Adds to the file's model, in plain MuJoCo, what metarl must add."""
    holds: float | None = None
    """rad (m): action 0 keeps every joint this near to home for a second; None: nothing says that it does."""
    home: Mapping[str, float] = field(default_factory=dict)
    """rad (m): where joints are at home, by name, where the model or the file says so."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Texts of further files, by the name that the model gives them."""
    refused: tuple[str, ...] = ()
    """Quantities that cannot act on this robot though its arrays have them, or that may be refused."""

    def write(self, folder: Path) -> Path:
        """Write the model and its files; returns the path of the model."""
        path = folder / ("robot.urdf" if "<robot" in self.text else "robot.xml")
        for name, text in {path.name: self.text, **self.files}.items():
            (folder / name).write_text(text)
        return path

    def reference(self, path: Path) -> mujoco.MjModel:
        """The model as MuJoCo reads the written file, with what is to be added."""
        if self.complete is Case.complete:
            return mujoco.MjModel.from_xml_path(str(path))
        spec = mujoco.MjSpec.from_file(str(path))
        self.complete(spec)
        return spec.compile()


def all_of(*steps: Complete) -> Complete:
    """The steps, one after another."""

    def complete(spec: mujoco.MjSpec) -> None:
        for step in steps:
            step(spec)

    return complete


def floor(spec: mujoco.MjSpec) -> None:
    """A floor with MuJoCo's own defaults, whatever the model's default class says."""
    spec.worldbody.add_geom(
        name="floor",
        type=PLANE,
        size=(0, 0, 1),
        contype=1,
        conaffinity=1,
        condim=3,
        friction=(1, 0.005, 0.0001),
        priority=0,
        solmix=1,
        solref=(0.02, 1),
        solimp=(0.9, 0.95, 0.001, 0.5, 2),
        margin=0,
        gap=0,
    )


def free(body: str) -> Complete:
    """A free joint, and keyframes that put the base where the model has it."""

    def complete(spec: mujoco.MjSpec) -> None:
        base = spec.body(body)
        base.add_freejoint()
        for key in spec.keys:
            key.qpos = [*base.pos, *base.quat, *key.qpos]

    return complete


def motors(**torques: float) -> Complete:
    """A motor on each joint, whose control signal is the torque."""

    def complete(spec: mujoco.MjSpec) -> None:
        for joint, torque in torques.items():
            motor = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            motor.gaintype, motor.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_NONE
            motor.dyntype = mujoco.mjtDyn.mjDYN_NONE
            motor.gear = (1, 0, 0, 0, 0, 0)
            motor.gainprm, motor.biasprm = (1, *[0] * 9), [0] * 10
            motor.ctrllimited, motor.ctrlrange = 1, (-torque, torque)
            motor.forcelimited = 0

    return complete


def speed_servos(kd: float, **speeds: float) -> Complete:
    """A velocity servo on each joint, whose force is kd (control signal - speed); its largest speed in rad/s (m/s)."""

    def complete(spec: mujoco.MjSpec) -> None:
        for joint, speed in speeds.items():
            servos(0, kd, **{joint: (-speed, speed)})(spec)
            spec.actuators[-1].gainprm[0] = kd

    return complete


def servos(kp: float, kd: float, force: float = 0.0, **ranges: Sequence[float]) -> Complete:
    """A position servo on each joint, its range in rad (m); force: its largest, 0 for the joint's own limit alone."""

    def complete(spec: mujoco.MjSpec) -> None:
        for joint, ends in ranges.items():
            servo = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            servo.gaintype, servo.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
            servo.dyntype = mujoco.mjtDyn.mjDYN_NONE
            servo.gear = (1, 0, 0, 0, 0, 0)
            servo.gainprm, servo.biasprm = (kp, *[0] * 9), (0, -kp, -kd, *[0] * 7)
            servo.ctrllimited, servo.ctrlrange = 1, ends
            servo.forcelimited, servo.forcerange = int(force > 0), (-force, force)

    return complete


def sled(default: str = "", ground: str = "", hull: str = "", rest: str = "") -> str:
    """A box that lies on the ground and swings an arm."""
    return f"""<mujoco model="sled"><compiler angle="radian"/><default><geom friction=".8 .005 .0001" {default}/>
  </default><worldbody><geom name="ground" type="plane" size="0 0 1" friction=".8 .005 .0001" {ground}/>
    <body name="hull" pos="0 0 .0995"><freejoint/><geom name="hull" type="box" size=".25 .2 .1" mass="5" {hull}/>
      <body name="arm" pos="0 0 .12"><joint name="swing" axis="0 1 0" range="-1 1" damping=".5"/>
        <geom name="arm" type="capsule" size=".02" fromto="0 0 0 0 0 .25" mass=".5"/></body></body></worldbody>
  <actuator><motor name="swing" joint="swing" ctrlrange="-5 5"/></actuator>{rest}</mujoco>"""


HOME = '<keyframe><key name="home" qpos="1"/></keyframe>'


def arm(actuator: str, joint: str = 'damping=".1"', rest: str = HOME, base: str = 'pos="0 0 1"', angle="radian") -> str:
    """A boom on a post, lifted by one joint."""
    return f"""<mujoco model="arm"><compiler angle="{angle}"/>
  <worldbody><site name="anchor" pos="0 0 1.5"/><site name="rail" pos="-.5 0 1" zaxis="1 0 0"/><body name="post" {base}>
    <geom name="post" type="cylinder" size=".05 .1" contype="0" conaffinity="0" mass="2"/>
    <body name="boom"><joint name="lift" axis="0 -1 0" range="-2 2" {joint}/><site name="middle" pos=".1 0 0"/>
      <geom name="boom" type="capsule" size=".03" fromto="0 0 0 .5 0 0" mass=".4"/></body></body></worldbody>
  {f"<actuator>{actuator}</actuator>" if actuator else ""}{rest}</mujoco>"""


SERVOS = (
    '<actuator><position name="s1" joint="hip1" kp="60" kv="2" ctrlrange="-1 1"/>'
    '<position name="s2" joint="hip2" kp="60" kv="2" ctrlrange="-1 1"/></actuator>'
)
FLOOR = '<geom name="floor" type="plane" size="0 0 1"/>'
SKID = 0.3695
"""Height of the dog's base whose legs just touch the ground, m."""


def dog(
    ground: str = FLOOR,
    default: str = "",
    compiler: str = 'angle="radian"',
    base: str = f'pos="0 0 {SKID}"',
    root: str = "<freejoint/>",
    inner: str = "",
    leg: str = "",
    joint: str = 'range="-1 1" damping=".5"',
    rest: str = SERVOS,
) -> str:
    """A box on two wide legs, hips about y."""
    shape = f'type="capsule" size=".02" {leg} mass=".3"'
    legs = "".join(
        f'<body name="leg{i}" pos="{x} 0 -.05"><joint name="hip{i}" axis="0 1 0" {joint}/>'
        f'<geom name="l{i}" {shape} fromto="0 .1 0 0 .1 -.3"/>'
        f'<geom name="r{i}" {shape} fromto="0 -.1 0 0 -.1 -.3"/></body>'
        for i, x in ((1, 0.15), (2, -0.15))
    )
    return f"""<mujoco model="dog"><compiler {compiler}/><default>{default}</default><worldbody>{ground}
  <body name="torso" {base}>{root}<geom name="torso" type="box" size=".2 .1 .05" mass="3"/>{inner}{legs}</body>
  </worldbody>{rest}</mujoco>"""


def biped(condim: int, friction: str, rest: str = "") -> str:
    """Two soft feet of spheres, with a friction of their own, on legs that motors turn."""
    legs = "".join(
        f'<body name="{n}_leg" pos="0 {y} -.1"><joint name="{n}_hip" axis="0 1 0" range="-.7 .7" damping=".5"/>'
        f'<geom name="{n}_leg" type="capsule" size=".03" fromto="0 0 0 0 0 -.2"/><body name="{n}_foot" pos="0 0 -.25">'
        f'<geom name="{n}_foot" size=".05" condim="{condim}" friction="{friction}" solref=".01 1.2" '
        'solimp=".8 .9 .002"/></body></body>'
        for n, y in (("l", 0.08), ("r", -0.08))
    )
    return f"""<mujoco model="biped"><option cone="elliptic"/><worldbody><geom name="floor" type="plane" size="0 0 1"/>
  <body name="hull" pos="0 0 .3995"><freejoint/><geom name="hull" type="box" size=".1 .1 .1" mass="3"/>{legs}</body>
  </worldbody><actuator><motor name="l" joint="l_hip" ctrlrange="-2 2" gear="2"/>
  <motor name="r" joint="r_hip" ctrlrange="-2 2" gear="2"/></actuator>{rest}</mujoco>"""


def muscled(force: str) -> str:
    """A boom that a muscle lifts by a tendon."""
    return f"""<mujoco model="muscled"><compiler angle="radian"/><worldbody><site name="anchor" pos=".05 0 1.3"/>
  <body name="boom" pos="0 0 1"><joint name="elbow" axis="0 1 0" range="-1.5 1.5" damping=".2"/>
    <geom name="boom" type="capsule" size=".03" fromto="0 0 0 0 0 -.4" mass=".6"/>
    <site name="insert" pos=".03 0 -.1"/></body>
  </worldbody><tendon><spatial name="biceps"><site site="anchor"/><site site="insert"/></spatial></tendon>
  <actuator><muscle name="biceps" tendon="biceps" {force} ctrllimited="true" ctrlrange="0 1" lengthrange=".25 .55"/>
  </actuator></mujoco>"""


def two_arms() -> str:
    arms = "".join(
        f'<body name="{n}_base" pos="0 {y} .5"><geom name="{n}_base" type="box" size=".05 .05 .05" mass="2"/>'
        f'<body name="{n}_upper" pos="0 0 .05"><joint name="{n}_shoulder" axis="0 1 0" range="-2 2" damping=".5"/>'
        f'<geom name="{n}_upper" type="capsule" size=".02" fromto="0 0 0 0 0 .25" mass=".5"/></body></body>'
        for n, y in (("left", 0.3), ("right", -0.3))
    )
    servo = '<position name="{0}" joint="{0}_shoulder" kp="30" kv="2" ctrlrange="-2 2"/>'
    return f"""<mujoco model="two_arms"><compiler angle="radian"/><worldbody>{arms}</worldbody>
  <actuator>{servo.format("left")}{servo.format("right")}</actuator></mujoco>"""


def gripper(poly: str) -> str:
    """A finger that a servo moves, and one that an equality makes follow it."""
    return f"""<mujoco model="gripper"><compiler angle="radian"/><worldbody><body name="palm" pos="0 0 1">
  <geom name="palm" type="box" size=".05 .05 .02" mass="1"/>
  <body name="left" pos=".03 0 .05"><joint name="left" type="slide" axis="1 0 0" range="0 .04" damping="1"/>
    <geom name="left" type="box" size=".005 .01 .02" mass=".1"/></body>
  <body name="right" pos="-.03 0 .05"><joint name="right" type="slide" axis="-1 0 0" range="-.005 .045" damping="1"/>
    <geom name="right" type="box" size=".005 .01 .02" mass=".1"/></body></body></worldbody>
  <equality><joint joint1="right" joint2="left" polycoef="{poly}" solref=".005 1"/></equality>
  <actuator><position name="left" joint="left" kp="400" kv="20" ctrlrange="0 .04"/></actuator></mujoco>"""


def urdf(joints: str, links: tuple[str, ...], inertia: float = 0.01, box: str = ".04 .04 .2") -> str:
    """Links of 1 kg that collide as boxes, read without fusing fixed links."""
    bodies = "".join(
        f'<link name="{n}"><inertial><mass value="1"/><inertia ixx="{inertia}" iyy="{inertia}" izz="{inertia}" ixy="0" '
        f'ixz="0" iyz="0"/></inertial><collision><geometry><box size="{box}"/></geometry></collision></link>'
        for n in links
    )
    compiler = '<mujoco><compiler fusestatic="false" discardvisual="false" strippath="false"/></mujoco>'
    return f'<robot name="probe">{compiler}{bodies}{joints}</robot>'


def hinge(name: str, parent: str, child: str, limit: str, at: str = "0 0 .3", more: str = "", kind="revolute") -> str:
    axis = "1 0 0" if kind == "prismatic" else "0 1 0"
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin xyz="{at}"/><axis xyz="{axis}"/><limit {limit} velocity="3"/>{more}</joint>'
    )


URDF_ARM = urdf(
    hinge("shoulder", "pedestal", "upper", 'lower="-1" upper="1" effort="8"')
    + hinge("elbow", "upper", "fore", 'lower="-2" upper="2" effort="5"', more='<dynamics damping=".7" friction=".3"/>'),
    ("pedestal", "upper", "fore"),
)
URDF_GRIPPER = urdf(
    hinge("left", "palm", "left_finger", 'lower="0" upper=".04" effort="20"', ".03 0 .15", kind="prismatic")
    + hinge(
        "right",
        "palm",
        "right_finger",
        'lower="-.04" upper="0" effort="20"',
        "-.03 0 .15",
        '<mimic joint="left" multiplier="-1" offset="0"/>',
        kind="prismatic",
    ),
    ("palm", "left_finger", "right_finger"),
    inertia=1e-3,
    box=".01 .02 .05",
)
LEGGED_URDF = urdf(
    "".join(
        hinge(f"{n}_hip", "trunk", f"{n}_thigh", 'lower="-1" upper="1" effort="20"', f"{x} {y} -.2")
        + hinge(f"{n}_knee", f"{n}_thigh", f"{n}_calf", 'lower="-2" upper="0" effort="20"', "0 0 -.22")
        for n, x, y in (("fl", 0.2, 0.15), ("fr", 0.2, -0.15), ("rl", -0.2, 0.15), ("rr", -0.2, -0.15))
    ),
    ("trunk", *(f"{n}_{part}" for n in ("fl", "fr", "rl", "rr") for part in ("thigh", "calf"))),
)
LEG = """<mujoco model="leg"><compiler angle="degree"/><worldbody><body name="leg">
  <joint name="hip" axis="0 1 0" range="-40 40" damping=".5"/>
  <geom name="shin" type="capsule" size=".02" fromto="0 0 0 0 0 -.3" mass=".3"/></body></worldbody></mujoco>"""
ATTACHED = """<mujoco model="attached"><compiler angle="radian"/><asset><model name="leg" file="leg.xml"/></asset>
  <worldbody><geom name="floor" type="plane" size="0 0 1"/><body name="torso" pos="0 0 .369"><freejoint/>
    <geom name="torso" type="box" size=".2 .1 .05" mass="3"/>
    <body name="front" pos=".15 0 -.05"><attach model="leg" body="leg" prefix="f_"/></body>
    <body name="rear" pos="-.15 0 -.05"><attach model="leg" body="leg" prefix="r_"/></body></body>
  </worldbody></mujoco>"""
CRANK = '<motor name="crank" cranksite="middle" slidersite="rail" cranklength=".7" ctrlrange="-5 5"/>'
TENDON = '<tendon><fixed name="belt"><joint joint="lift" coef="2"/></fixed></tendon>'
HFIELD = f'<asset><hfield name="h" nrow="7" ncol="7" size="3 3 .4 .1" elevation="{"1 " * 48}0"/></asset>'
"""Flat at 0.4 m but for a corner: MuJoCo makes the lowest of the heights 0."""
DRONE = """<mujoco model="drone"><compiler angle="radian"/><worldbody><geom name="floor" type="plane" size="0 0 1"/>
  <body name="hull" pos="0 0 1"><freejoint/><geom name="hull" type="box" size=".1 .1 .03" mass="1"/>
    <site name="a" pos=".1 .1 0"/><site name="b" pos="-.1 -.1 0"/>
    <body name="tail" pos="-.12 0 0"><joint name="tail" axis="0 1 0" range="-1 1" damping=".01"/>
      <geom name="tail" type="capsule" size=".01" fromto="0 0 0 -.1 0 0" mass=".1"/></body></body></worldbody>
  <actuator><motor name="a" site="a" gear="0 0 1 0 0 .1" ctrlrange="0 9"/>
  <motor name="b" site="b" gear="0 0 1 0 0 -.1" ctrlrange="0 9"/></actuator></mujoco>"""
HANGING = """<mujoco model="hanging"><compiler angle="radian"/><worldbody><body name="rod">
  <joint name="pivot" axis="0 1 0" damping=".01"/><geom name="rod" type="capsule" size=".02" fromto="0 0 -.05 0 0 -.5"
  mass=".3"/></body></worldbody><actuator><motor name="pivot" joint="pivot" ctrlrange="-2 2"/></actuator></mujoco>"""


def builtin(settings: Any) -> str:
    """The neutral robot of a built-in family, written out as a model file."""
    family = make_family(settings)
    return family.base(**family.layout_of(family.neutral())).to_xml()


def published(name: str) -> str:
    return (GYMNASIUM / f"{name}.xml").read_text()


DOG_MOTORS = motors(hip1=10, hip2=10)
POSITION = '<position name="lift" joint="lift" kp="200" kv="10" {}/>'
GENERAL = '<general name="lift" joint="lift" gainprm="{}" biastype="affine" biasprm="{}" ctrlrange="{}"/>'
LIFTED = {"lift": 1.0}

CASES: dict[str, Case] = {
    # built in, the example, and Gymnasium's
    "quadruped": Case(builtin(QuadrupedSettings(physics="exact")), holds=0.3),
    "ant_legs": Case(builtin(AntLegsSettings())),
    "point_goal": Case(
        builtin(PointGoalSettings()), {"actuators": {"kind": "motor", "force": 0.1}}, motors(x=0.1, y=0.1)
    ),
    "crawler": Case(Path(f"{EXAMPLE}.xml").read_text()),
    **{
        name: Case(published(name))
        for name in (
            *("half_cheetah", "hopper", "walker2d", "walker2d_v5", "ant", "humanoid", "humanoidstandup", "swimmer"),
            *("inverted_pendulum", "inverted_double_pendulum", "pusher", "pusher_v5", "point"),
        )
    },
    "reacher": Case(published("reacher"), {"base": "body0"}),
    # contacts
    "sled_condim": Case(sled('condim="1"', 'condim="3"')),
    "sled_softness": Case(sled("", 'solref=".05 1" solmix="3"', 'solref="-900 -60" friction=".5" gap="0"')),
    "sled_priority": Case(sled("", "", 'priority="2" condim="4" friction=".4 .01 .001"')),
    "sled_pair": Case(
        sled(rest='<contact><pair name="p" geom1="ground" geom2="hull" friction="1 1 .005 .0001 .0001"/></contact>')
    ),
    "sled_pair_softness": Case(
        sled(
            'contype="0" conaffinity="0"',
            "",
            "",
            '<contact><pair name="p" geom1="ground" geom2="hull" condim="4" friction=".6 .9 .01 0 0" solref=".03 1"/>'
            "</contact>",
        )
    ),
    "sled_margin": Case(sled("", 'margin=".02" gap=".01"')),
    "biped_condim6": Case(biped(6, ".7 .01 .001")),
    "biped_condim4": Case(biped(4, "1.3 .02 .001")),
    "biped_excludes": Case(biped(3, ".7 .01 .001", '<contact><exclude body1="l_foot" body2="r_foot"/></contact>')),
    # what is added to a model
    "default_class": Case(
        dog(
            "",
            '<geom contype="0" conaffinity="0" condim="1" margin=".01"/><joint armature=".5" stiffness="2"/>'
            '<general gear="30" forcelimited="true" forcerange="-1 1"/><motor gear="30"/><position gear="30"/>',
            leg='contype="1" conaffinity="1" margin="0"',
            rest="",
        ),
        {"actuators": {"kind": "motor", "force": 10}},
        all_of(floor, DOG_MOTORS),
    ),
    "default_class_servo": Case(
        dog(
            "",
            '<geom condim="1" friction=".1"/><general gear="30" dyntype="filter" dynprm="1"/><position gear="30"/>',
            rest="",
        ),
        {"actuators": {"kind": "position", "kp": 60, "kd": 2, "force": 12}},
        all_of(floor, servos(60, 2, 12, hip1=(-1, 1), hip2=(-1, 1))),
        holds=0.05,
    ),
    "default_class_free": Case(
        dog(FLOOR, '<joint armature=".5" damping="5" stiffness="2" frictionloss=".4"/>', root="", rest=""),
        {"floating": True, "actuators": {"kind": "motor", "force": 10}},
        all_of(free("torso"), DOG_MOTORS),
    ),
    "floor_added": Case(dog(""), complete=floor, holds=0.05),
    "hanging": Case(HANGING),
    # actuators
    "position": Case(arm(POSITION.format('ctrlrange="-2 2"')), holds=0.01, home=LIFTED),
    "position_free_range": Case(arm(POSITION.format("")), holds=0.01, home=LIFTED),
    "position_geared": Case(
        arm('<position name="lift" joint="lift" kp="20" kv="1" gear="3" ctrlrange="-6 6"/>'), holds=0.01, home=LIFTED
    ),
    "position_filtered": Case(
        arm(POSITION.format('timeconst=".1" ctrlrange="-2 2"')),
        holds=0.01,
        home=LIFTED,
    ),
    "position_limited": Case(
        arm(POSITION.format('ctrlrange="-2 2" forcerange="-5 5"')),
        holds=0.01,
        home=LIFTED,
    ),
    "intvelocity": Case(
        arm(
            '<intvelocity name="lift" joint="lift" kp="200" kv="10" ctrlrange="-2 2" actrange="-2 2"/>',
            rest='<keyframe><key name="home" qpos="1" act="1"/></keyframe>',
        ),
        holds=0.01,
        home=LIFTED,
        refused=("kp", "kd"),
    ),
    "servo_rescaled": Case(arm(GENERAL.format("1.5686", "0 -200 -10", "0 255")), holds=0.01, home=LIFTED),
    "servo_shifted": Case(arm(GENERAL.format("200", "150 -200 -10", "-2 2")), holds=0.01, home=LIFTED),
    "affine": Case(arm(GENERAL.format("40", "2 -25 -3", "-2 2")), holds=0.05, home=LIFTED),
    "damped_motor": Case(arm(GENERAL.format("3", "0 0 -.4", "-1 1"))),
    "velocity": Case(arm('<velocity name="lift" joint="lift" kv="4" ctrlrange="-2 2"/>')),
    "damper": Case(
        arm('<damper name="lift" joint="lift" kv="3" ctrlrange="0 1"/><motor name="m" joint="lift" ctrlrange="-1 1"/>')
    ),
    "cylinder": Case(
        arm('<cylinder name="lift" joint="lift" timeconst=".05" area=".3" bias=".2 0 0" ctrlrange="-1 1"/>')
    ),
    "dcmotor": Case(
        arm('<dcmotor name="lift" joint="lift" motorconst=".05 .05" resistance=".5" ctrlrange="-24 24" gear="20"/>'),
        refused=("strength",),
    ),
    "muscle": Case(muscled('force="300"')),
    "muscle_scaled": Case(muscled('scale="150" range=".8 1.1"')),
    "muscle_on_joint": Case(arm('<muscle name="lift" joint="lift" force="40" lengthrange="-2 2" ctrlrange="0 1"/>')),
    "adhesion": Case(
        sled(rest='<actuator><adhesion name="sticky" body="hull" gain="30" ctrlrange="0 1"/></actuator>'),
        refused=("gear",),
    ),
    "tendon": Case(arm('<motor name="belt" tendon="belt" ctrlrange="-2 2"/>', rest=TENDON + HOME, base='pos="0 0 .1"')),
    "tendon_of_the_root": Case(
        HANGING.replace('<motor name="pivot" joint="pivot"', '<motor name="pivot" tendon="belt"').replace(
            "<actuator>", '<tendon><fixed name="belt"><joint joint="pivot" coef=".5"/></fixed></tendon><actuator>'
        )
    ),
    "tendon_servo": Case(
        arm('<position name="belt" tendon="belt" kp="60" kv="3" ctrlrange="-4 4"/>', rest=TENDON + HOME),
        holds=0.01,
        home=LIFTED,
    ),
    "crank": Case(arm(CRANK)),
    "site": Case(DRONE, refused=("gear",)),
    # what the compiler derives
    "dampratio": Case(
        arm('<position name="lift" joint="lift" kp="80" dampratio="1" ctrlrange="-2 2"/>'), holds=0.02, home=LIFTED
    ),
    "springdamper": Case(arm('<motor name="lift" joint="lift" ctrlrange="-2 2"/>', 'springdamper=".2 1"')),
    "muscle_auto": Case(muscled("")),
    "tendon_spring": Case(
        arm(
            '<motor name="belt" tendon="belt" ctrlrange="-2 2"/>',
            rest='<tendon><spatial name="belt" stiffness="5" damping=".3" springlength=".1 .2"><site site="anchor"/>'
            '<site site="middle"/></spatial></tendon>',
        )
    ),
    # limits of force
    "actuatorfrcrange": Case(
        arm('<motor name="lift" joint="lift" ctrlrange="-9 9"/>', 'damping=".1" actuatorfrcrange="-4 4"')
    ),
    "actuatorfrcrange_twice": Case(
        arm(POSITION.format('ctrlrange="-2 2" forcerange="-5 5"'), 'actuatorfrcrange="-4 4"'),
        holds=0.01,
        home=LIFTED,
    ),
    "urdf_motor": Case(URDF_ARM, {"actuators": {"kind": "motor"}}, motors(shoulder=8, elbow=5)),
    "urdf_speed_servo": Case(
        URDF_ARM,
        {"actuators": {"kind": "velocity", "kd": 4, "speed": 3, "speeds": {"elbow": 5}}},
        speed_servos(4, shoulder=3, elbow=5),
    ),
    "urdf_servo": Case(
        URDF_ARM,
        {"actuators": {"kind": "position", "kp": 400, "kd": 4}},
        servos(400, 4, shoulder=(-1, 1), elbow=(-2, 2)),
        holds=0.05,
    ),
    # coupled joints
    "coupled": Case(gripper("0 1 0 0 0"), holds=2e-3),
    "coupled_poly": Case(gripper(".002 .5 8 0 0"), holds=2e-3),
    "urdf_mimic": Case(
        URDF_GRIPPER,
        {"actuators": {"kind": "position", "kp": 400, "kd": 5}},
        servos(400, 5, left=(0, 0.04)),
        holds=0.03,
    ),
    # keyframes and poses
    "floating_keyframe": Case(
        dog(root="", rest=SERVOS + '<keyframe><key name="home" qpos=".3 -.3" ctrl=".3 -.3"/></keyframe>'),
        {"floating": True},
        free("torso"),
        home={"hip1": 0.3, "hip2": -0.3},
    ),
    "keyframes": Case(
        dog(
            rest=SERVOS + '<keyframe><key name="stand" qpos="0 0 .369 1 0 0 0 .1 -.1"/>'
            '<key name="sit" qpos="0 0 .36 1 0 0 0 0 .3"/></keyframe>'
        ),
        {"keyframe": "stand"},
        home={"hip1": 0.1, "hip2": -0.1},
    ),
    "reference_angle": Case(
        arm(POSITION.format('ctrlrange="-2 2"'), 'ref=".5" springref=".2" stiffness="3"'),
        holds=0.05,
        home=LIFTED,
    ),
    # units and compilers
    "degree": Case(dog(compiler='angle="degree"', joint='range="-57 57" damping=".5"'), holds=0.05),
    "degree_added": Case(
        dog(compiler='angle="degree"', joint='range="-57 57" damping=".5"', rest=""),
        {"actuators": {"kind": "position", "kp": 60, "kd": 2}},
        servos(60, 2, hip1=np.radians((-57, 57)), hip2=np.radians((-57, 57))),
        holds=0.05,
    ),
    "attached": Case(
        ATTACHED,
        {"actuators": {"kind": "position", "kp": 60, "kd": 2}},
        servos(60, 2, f_hip=np.radians((-40, 40)), r_hip=np.radians((-40, 40))),
        files={"leg.xml": LEG},
    ),
    "settotalmass": Case(dog(compiler='angle="radian" settotalmass="7"'), holds=0.05),
    "inertiafromgeom": Case(
        dog(
            compiler='angle="radian" inertiafromgeom="true"',
            inner='<inertial pos="0 0 .1" mass="9" diaginertia="1 1 1"/>',
        ),
        holds=0.05,
    ),
    "inertial": Case(
        dog(inner='<inertial pos=".01 0 .02" euler=".1 .2 .3" mass="3" diaginertia=".03 .04 .05"/>'), holds=0.05
    ),
    "balanceinertia": Case(
        dog(
            compiler='angle="radian" balanceinertia="true" boundmass=".01" boundinertia="1e-4"',
            inner='<inertial pos="0 0 0" mass="3" diaginertia=".01 .01 .05"/>',
        ),
        holds=0.05,
    ),
    "zero_size_visual": Case(
        dog(inner='<geom name="paint" type="sphere" size="1e-9" contype="0" conaffinity="0" mass="0"/>'), holds=0.05
    ),
    # ground
    "floor_above": Case(
        dog('<geom name="floor" type="plane" pos="0 0 .3" size="0 0 1"/>', base=f'pos="0 0 {SKID + 0.3}"'), holds=0.05
    ),
    "floor_of_a_body": Case(
        dog(f'<body name="ground" pos="0 0 -.2">{FLOOR}</body>', base=f'pos="0 0 {SKID - 0.2}"'),
        {"base": "torso"},
        holds=0.05,
    ),
    "floor_tilted": Case(
        dog(
            '<geom name="floor" type="plane" size="0 0 1" euler="0 -.15 0"/>',
            base=f'pos="{-SKID * np.sin(0.15)} 0 {SKID * np.cos(0.15)}" euler="0 -.15 0"',
        ),
        holds=0.1,
    ),
    "heightfield": Case(
        dog('<geom name="floor" type="hfield" hfield="h"/>', base=f'pos="0 0 {SKID + 0.4}"', rest=SERVOS + HFIELD),
        holds=0.05,
    ),
    "box_floor": Case(dog('<geom name="floor" type="box" size="3 3 .1" pos="0 0 -.1"/>'), holds=0.05),
    # other things that models have
    "mocap": Case(
        dog(
            FLOOR + '<body name="target" mocap="true" pos="1 0 .3">'
            '<geom name="target" size=".05" contype="0" conaffinity="0"/></body>'
        ),
        holds=0.05,
    ),
    "ball": Case(
        dog(
            inner='<body name="mast" pos="0 0 .05"><joint name="mast" type="ball" damping=".1" stiffness="5"/>'
            '<geom name="mast" type="capsule" size=".01" fromto="0 0 0 0 0 .2" mass=".05"/></body>'
        ),
        holds=0.05,
    ),
    "gravcomp": Case(
        arm('<position name="lift" joint="lift" kp="20" kv="2" ctrlrange="-2 2"/>', 'actuatorgravcomp="true"').replace(
            '<body name="boom">', '<body name="boom" gravcomp="1">'
        ),
        holds=0.01,
        home=LIFTED,
    ),
    "implicit": Case(
        dog(rest=SERVOS + '<option integrator="implicitfast" cone="elliptic" timestep=".004"/>'), holds=0.05
    ),
}
"""By name."""


ASKED: dict[str, tuple[Case, str]] = {
    "pid": (Case(arm('<pid name="lift" joint="lift" kp="200" ki="50" kv="10" ctrlrange="-2 2"/>')), "lift"),
    "control range away from home": (
        Case(arm(POSITION.format('ctrlrange="-.5 .5"'))),
        r"lift.*-0?\.5",
    ),
    "control range away from home, rescaled": (
        Case(arm(GENERAL.format("1.5686", "0 -200 -10", "0 50"))),
        "lift",
    ),
    "floating and without anything that touches": (
        Case(dog(FLOOR, '<geom contype="0" conaffinity="0"/>')),
        "touch|collide|contact",
    ),
    "masks that miss the floor": (
        Case(dog('<geom name="floor" type="plane" size="0 0 1" contype="2" conaffinity="2"/>')),
        "touch|collide|contact",
    ),
    "legged URDF": (
        Case(LEGGED_URDF, {"actuators": {"kind": "position", "kp": 40, "kd": 1}}),
        "floating",
    ),
    "no actuators": (Case(dog(rest="")), "no actuators"),
    "no control range": (
        Case(dog(rest='<actuator><motor name="m" joint="hip1"/></actuator>')),
        "'m' has no control range",
    ),
}
"""Robots that something must be asked about or that must be refused, with what the message says."""
