"""The size of a whole robot or a limb, against models whose every number is written at that size by hand."""

from __future__ import annotations

import re

import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from tests.envs.own_robot.families import at, entry, family_of, written

CUBE = "-1 -1 -1  1 -1 -1  -1 1 -1  1 1 -1  -1 -1 1  1 -1 1  -1 1 1  1 1 1"
TEXT = f"""<mujoco model="walker"><compiler angle="radian"/>
  <asset>
    <mesh name="shank" vertex="{CUBE}" scale="s*.02 s*.02 s*.1"/>
    <mesh name="block" vertex="{CUBE}" scale=".03 .03 .03"/>BLOCK</asset>
  <worldbody><geom name="floor" type="plane" size="0 0 1"/>
    <body name="trunk" pos="0 0 .62"><freejoint name="root"/>
      <geom name="trunk" type="box" size="w*.2 w*.1 w*.05" density="400"/>
      <geom name="pack" type="mesh" mesh="block_w" pos="w*.1 0 w*.08" contype="0" conaffinity="0" mass="0"/>
      <camera name="eye" pos="w*.2 0 w*.02"/><light name="lamp" pos="0 0 w*.2"/>
      <frame pos="0 w*.03 0" euler=".3 0 0"><site name="imu" pos="0 w*.02 0" size="w*.01 w*.005 w*.005"/></frame>
      <body name="upper" pos="ATTACH">
        <joint name="hip" axis="0 1 0" pos="ANCHOR" range="-1 1" armature=".01" damping=".2"/>
        <inertial mass="m*1.2" pos="INERTIAL" quat=".9 .1 .2 .3" diaginertia="i*.02 i*.018 i*.004"/>
        <geom name="upper" type="capsule" size="s*.03" fromto="UPPER"/>
        <body name="lower" pos="LOWER"><joint name="knee" axis="0 1 0" pos="0 0 s*.01" range="-1 1"/>
          <geom name="shank" type="mesh" mesh="shank" pos="0 s*.01 s*-.1" density="900"/>
          <geom name="shell" type="sphere" size="s*.03" pos="0 0 s*-.2" density="SHELL" shellinertia="true"/>
          <geom name="knob" type="mesh" mesh="block_s" pos="s*.06 0 s*-.1" contype="0" conaffinity="0" mass="0"/>
          <body name="foot" pos="0 0 s*-.25"><joint name="slide" type="slide" axis="0 0 1" range="-.02 .02"/>
            <geom name="foot" size="s*.04" density="700"/>
            <site name="sole" pos="0 0 s*-.04" size="s*.005 s*.005 s*.005"/></body>
        </body></body></body></worldbody>
  <actuator><motor name="hip" joint="hip" ctrlrange="-5 5"/><position name="knee" joint="knee" kp="30" kv="1"/>
    <position name="slide" joint="slide" kp="300" kv="9"/></actuator></mujoco>"""


def walker(whole: float = 1.0, limb: float = 1.0) -> str:
    """The robot with every length of the trunk written `whole` times as large, of its leg `whole` x `limb`.

    The leg's joint stays where it is on the trunk, .05 above the origin of its body: of all places about it.
    """
    s = whole * limb

    def about_joint(*place: float) -> str:
        """A place in the leg's first body, whose joint is at (0, 0, .05) of a leg of the trunk's size."""
        anchor = np.array([0, 0, 0.05 * whole])
        return " ".join(f"{x:.17g}" for x in anchor + limb * (np.array(place) * whole - anchor))

    text = TEXT.replace("ATTACH", "w*.1 0 w*-.1").replace("ANCHOR", "0 0 w*.05")
    text = text.replace("INERTIAL", about_joint(0.01, 0, -0.1)).replace("LOWER", about_joint(0, 0, -0.25))
    text = text.replace("UPPER", f"{about_joint(0, 0, 0)} {about_joint(0, 0, -0.22)}").replace(
        "SHELL", f"{50 * s:.17g}"
    )
    sizes = {"w": whole, "s": s, "m": s**3, "i": s**5}
    for letter, factor in sizes.items():
        text = re.sub(rf"(?<!\w){letter}\*(-?[\d.]+)", lambda found, f=factor: f"{float(found[1]) * f:.17g}", text)
    if whole == limb == 1.0:
        return text.replace("block_w", "block").replace("block_s", "block").replace("BLOCK", "")
    blocks = ((n, 0.03 * f) for n, f in (("block_w", whole), ("block_s", s)))
    return text.replace(
        "BLOCK", "".join(f'<mesh name="{n}" vertex="{CUBE}" scale="{f:.17g} {f:.17g} {f:.17g}"/>' for n, f in blocks)
    )


DRAWN = ("pack", "knob")
KINDS = {
    "body": ("pos", "quat", "mass", "ipos"),
    "joint": ("pos", "range", "armature", "damping"),
    "geom": ("size", "pos", "quat", "type"),
    "site": ("pos", "quat", "size"),
    "camera": ("pos",),
    "light": ("pos",),
    "actuator": ("gainprm", "biasprm", "ctrlrange"),
}


def assert_same(ours: mujoco.MjModel, theirs: mujoco.MjModel, drawn: bool = False) -> None:
    """All that the hand-written robot has is what ours has, by name; meshes by their corners, inertias as matrices.

    drawn: whether ours is for pictures, and has what touches nothing.
    """
    for kind, attributes in KINDS.items():
        number = {"body": "nbody", "joint": "njnt", "camera": "ncam", "actuator": "nu"}.get(kind, f"n{kind}")
        for i in range(getattr(theirs, number)):
            there = getattr(theirs, kind)(i)
            if there.name in DRAWN and not drawn:
                continue
            here = getattr(ours, kind)(there.name)
            for attribute in attributes:
                np.testing.assert_allclose(
                    getattr(here, attribute), getattr(there, attribute), 1e-6, 1e-9, err_msg=f"{there.name} {attribute}"
                )
            if kind == "body":
                np.testing.assert_allclose(whole(here), whole(there), 1e-6, 1e-10, err_msg=f"inertia of {there.name}")
            if kind == "geom" and there.dataid[0] >= 0:
                np.testing.assert_allclose(corners(ours, here), corners(theirs, there), 1e-6, 1e-7, err_msg=there.name)


def whole(body) -> np.ndarray:
    """[3, 3] kg m^2 about the centre of mass, in the body's axes."""
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, body.iquat)
    return turn.reshape(3, 3) @ np.diag(body.inertia) @ turn.reshape(3, 3).T


def corners(model: mujoco.MjModel, geom) -> np.ndarray:
    """[n, 3] m of a geom's mesh in its frame."""
    first, count = model.mesh_vertadr[geom.dataid[0]], model.mesh_vertnum[geom.dataid[0]]
    return model.mesh_vert[first : first + count]


def scaled(tmp_path, *targets: str, low: float = 0.7, high: float = 1.3, text: str = "", **keys) -> TaskFamily:
    entries = [
        {**entry("scale", target, "scale", [low, high]), "name": f"p{i or ''}"} for i, target in enumerate(targets)
    ]
    return family_of(tmp_path, written(tmp_path, text or walker()), *entries, **keys)


@pytest.mark.parametrize("size", [0.7, 1.3])
def test_a_whole_robot_is_the_one_that_is_written_at_that_size(size, tmp_path):
    family = scaled(tmp_path, "trunk")
    theirs = mujoco.MjModel.from_xml_string(walker(size))
    assert_same(at(family, size), theirs)
    assert_same(family.picture(family.task({"p": size})).compile(), theirs, drawn=True)
    neutral = mujoco.MjModel.from_xml_string(walker())
    assert theirs.body_subtreemass[1] == pytest.approx(size**3 * neutral.body_subtreemass[1])
    for name in ("trunk", "upper", "lower", "foot"):
        np.testing.assert_allclose(whole(at(family, size).body(name)), size**5 * whole(neutral.body(name)), 1e-6, 1e-12)


@pytest.mark.parametrize("size", [0.7, 1.2])
def test_a_limb_grows_from_its_joint(size, tmp_path):
    family = scaled(tmp_path, "upper", high=1.2)
    assert_same(at(family, size), mujoco.MjModel.from_xml_string(walker(1.0, size)))
    picture = family.picture(family.task({"p": size})).compile()
    assert_same(picture, mujoco.MjModel.from_xml_string(walker(1.0, size)), drawn=True)


def test_a_robot_and_its_limb_are_scaled_one_after_the_other(tmp_path):
    for targets in (("trunk", "upper"), ("upper", "trunk")):
        family = scaled(tmp_path, *targets, low=0.8, high=1.2)
        values = dict(zip(targets, ("p", "p1"), strict=True))
        model = family.compile(family.task({values["trunk"]: 1.2, values["upper"]: 0.8}))
        assert_same(model, mujoco.MjModel.from_xml_string(walker(1.2, 0.8)))


def test_a_size_of_1_is_the_robot_of_the_file(tmp_path):
    family = scaled(tmp_path, "trunk", "upper")
    assert_same(family.compile(family.neutral()), mujoco.MjModel.from_xml_string(walker()))
    alone = walker().replace('mesh="block"', 'mesh="shank"')
    ours = scaled(tmp_path, "trunk", text=alone)
    model, plain = ours.compile(ours.neutral()), family_of(tmp_path, written(tmp_path, alone)).base().compile()
    arrays = [name for name in dir(plain) if isinstance(getattr(plain, name), np.ndarray) and name != "_sizes"]
    for name in arrays:
        np.testing.assert_array_equal(getattr(model, name), getattr(plain, name), err_msg=name)


GUIDES = '<joint name="along" type="slide" axis="1 0 0"/><joint name="down" type="slide" axis=".1 0 -1"/>'


@pytest.mark.parametrize("root", ['<freejoint name="root"/>', GUIDES], ids=["floating", "guided"])
@pytest.mark.parametrize("target", ["trunk", "upper"])
def test_the_feet_stand_on_the_ground_at_the_start(target, root, tmp_path):
    still = {"position_noise": 0, "velocity_noise": 0}
    text = walker().replace('<freejoint name="root"/>', root)
    family = scaled(tmp_path, target, high=1.2, text=text, episode=still)
    gaps = []
    for size in (0.7, 1.0, 1.2):
        model = at(family, size)
        data = mujoco.MjData(model)
        data.qpos = family.reset(model, np.random.default_rng(0), 1)[0][0]
        mujoco.mj_kinematics(model, data)
        gaps.append(data.geom("foot").xpos[2] - model.geom("foot").size[0])
    np.testing.assert_allclose(gaps, gaps[1], atol=1e-9)


def test_the_sole_is_that_of_the_tasks_own_foot(tmp_path):
    """clearance is (height of the sole - target)^2 x horizontal speed of the foot, a sphere of .04 m at size 1."""
    reward = {"clearance": {"weight": 1, "target": 0.03}}
    family = scaled(tmp_path, "trunk", reward=reward)
    env = BatchedEnv(family, 2, 1, 1)
    env.set_tasks([family.task({"p": size}) for size in (0.7, 1.3)])
    env.reset([np.random.default_rng(m) for m in range(2)])
    for _ in range(5):
        env.step(np.full((2, 1, 3), 0.5))
    state, (geom, root) = env._state, (at(family, 1.0).geom("foot"), at(family, 1.0).body("trunk").id)
    places, body = state.geom_xpos[:, geom.id], int(geom.bodyid[0])
    twist, arm = state.cvel[:, body], places - state.subtree_com[:, root]
    speeds = np.linalg.norm((twist[:, 3:] + np.cross(twist[:, :3], arm))[:, :2], axis=1)
    cost = (places[:, 2] - 0.04 * np.array([0.7, 1.3]) - 0.03) ** 2 * speeds
    assert speeds.min() > 1e-3
    np.testing.assert_allclose(family.rewards["clearance"].function(state), cost, rtol=1e-9)


def test_a_mass_is_scaled_before_and_after(tmp_path):
    mass = {**entry("mass", "upper|foot", "scale", [0.5, 2]), "name": "heavy"}
    size = entry("scale", "trunk", "scale", [0.7, 1.3])
    models = []
    for order in ((mass, size), (size, mass)):
        family = family_of(tmp_path, written(tmp_path, walker()), *order)
        models.append(family.compile(family.task({"p": 1.2, "heavy": 2.0})))
    plain = mujoco.MjModel.from_xml_string(walker(1.2))
    for model in models:
        for name, factor in (("upper", 2), ("foot", 2), ("lower", 1), ("trunk", 1)):
            assert model.body(name).mass[0] == pytest.approx(factor * plain.body(name).mass[0])
            np.testing.assert_allclose(whole(model.body(name)), factor * whole(plain.body(name)), 1e-6, 1e-12)


def test_a_payload_keeps_its_mass(tmp_path):
    payload = {**entry("payload", "trunk", "set", [0, 2], position=[0, 0, 0.2]), "name": "load"}
    family = family_of(tmp_path, written(tmp_path, walker()), entry("scale", "trunk", "scale", [0.7, 1.3]), payload)
    loaded, empty = (family.compile(family.task({"p": 1.3, "load": load})) for load in (2.0, 0.0))
    assert loaded.body_subtreemass[0] - empty.body_subtreemass[0] == pytest.approx(2)


LOOP = '<equality><connect body1="foot" body2="trunk" anchor="0 0 0"/></equality>'
BELT = '<tendon><spatial name="belt" {}><site site="imu"/><site site="sole"/></spatial></tendon>'
PULL = '<actuator><{} tendon="belt" {}/></actuator>'


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (LOOP, "part of a loop .a connect of foot and trunk."),
        (BELT.format('limited="true" range="0 1"'), "body 'upper' cannot have another size: tendon 'belt' passes"),
        (BELT.format('stiffness="5"'), "body 'upper' cannot have another size: tendon 'belt' passes"),
        (BELT.format("") + PULL.format("muscle", 'lengthrange="0 1"'), "the force of actuator 'belt' depends on"),
        (
            BELT.format("") + PULL.format("position", 'kp="9" ctrlrange="0 1"'),
            "the force of actuator 'belt' depends on",
        ),
        (BELT.format("") + PULL.format("motor", 'ctrlrange="0 1"'), None),
    ],
)
def test_what_has_a_length_of_its_own_is_refused_by_name(tail, message, tmp_path):
    text = walker().replace("</mujoco>", f"{tail}</mujoco>")
    if message is None:
        scaled(tmp_path, "upper", high=1.1, text=text)
        return
    with pytest.raises(ValueError, match=message):
        scaled(tmp_path, "upper", high=1.1, text=text)


def test_targets_that_carry_each_other_are_refused(tmp_path):
    with pytest.raises(ValueError, match="body 'upper' carries 'foot', which it scales, too; let target match one"):
        scaled(tmp_path, "upper|foot")


def test_a_plane_of_the_robot_and_joints_in_frames_or_apart_are_refused(tmp_path):
    plane = '<geom name="mat" type="plane" size="1 1 1" pos="0 0 -.9"/><geom name="trunk"'
    fixed = walker().replace('<freejoint name="root"/>', "").replace('<geom name="trunk"', plane)
    with pytest.raises(ValueError, match="geom 'mat' of body 'trunk' is a plane: it has no size to scale"):
        scaled(tmp_path, "trunk", text=fixed)
    apart = walker().replace('<joint name="knee"', '<joint name="turn" axis="0 0 1"/><joint name="knee"')
    with pytest.raises(ValueError, match="the joints of body 'lower' are at different places"):
        scaled(tmp_path, "lower", text=apart)
    framed = walker().replace('<joint name="knee"', '<frame pos="0 0 .01"><joint name="knee"')
    framed = framed.replace('range="-1 1"/>\n          <geom name="shank"', 'range="-1 1"/></frame><geom name="shank"')
    with pytest.raises(ValueError, match="joint 'knee' of body 'lower' is in a <frame>"):
        scaled(tmp_path, "lower", text=framed)
    scaled(tmp_path, "upper", text=framed)
