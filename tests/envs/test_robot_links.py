"""A link's length: all that it carries moves away from its joint, wherever that is and whatever frames are between."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from metarl.envs.family import TaskFamily
from tests.envs.own_robot.families import at, entry, family_of, written

LIMB = """<mujoco model="limb"><compiler angle="radian"/><worldbody><body name="base" pos="0 0 1">
  <geom name="base" size=".02" mass="1"/><body name="upper" pos="0 0 -.05">{joint}
    {parts}</body></body>{more}</worldbody>{tail}
  <actuator><motor joint="swing" ctrlrange="-1 1"/></actuator></mujoco>"""
SWING = '<joint name="swing" axis="0 1 0" pos="{}" damping=".1"/>'
CHILD = (
    '<body name="fore" pos=".1 0 -.3"><joint name="elbow" axis="0 1 0"/>'
    '<geom name="fore" type="capsule" size=".01" fromto="0 0 0 0 0 -.1" mass=".1"/></body>'
)
PLAIN = (
    '<geom name="rod" type="capsule" size=".02" fromto="0 0 0 .1 0 -.3"/><geom name="cuff" type="cylinder" '
    'size=".03 .02" pos="0 .1 -.1" euler=".3 0 .2"/><site name="grip" pos="0 .02 -.3"/>' + CHILD
)
FRAMED = (
    '<frame pos="0 .05 -.1" euler=".4 0 0"><geom name="rod" type="capsule" size=".02" fromto="0 0 0 .1 0 -.3"/>'
    '<frame pos=".02 0 0" euler="0 .7 0"><geom name="cuff" type="cylinder" size=".03 .02" pos="0 .1 -.1"/>'
    f'<site name="grip" pos="0 .02 -.3"/></frame>{CHILD}</frame>'
)


def limb(parts: str = PLAIN, pivot: str = "0 0 0", more: str = "", tail: str = "", joint: str = "") -> str:
    return LIMB.format(parts=parts, joint=SWING.format(pivot) + joint, more=more, tail=tail)


@pytest.mark.parametrize("parts", [PLAIN, FRAMED])
@pytest.mark.parametrize("pivot", ["0 0 0", "0 0 .04", ".1 -.02 -.05"])
def test_everything_moves_away_from_the_joint_by_the_factor(parts, pivot, tmp_path):
    model = written(tmp_path, limb(parts, pivot))
    plain = mujoco.MjModel.from_xml_path(model)
    longer = at(family_of(tmp_path, model, entry("link_length", "upper", "scale", [0.8, 1.5])), 1.5)
    joint = np.array([float(x) for x in pivot.split()])
    places = [("geom", "rod"), ("geom", "cuff"), ("site", "grip"), ("body", "fore")]
    for kind, name in places:
        before, after = (getattr(m, kind)(name).pos for m in (plain, longer))
        np.testing.assert_allclose(after - joint, 1.5 * (before - joint), atol=1e-9, err_msg=name)
        np.testing.assert_allclose(*(getattr(m, kind)(name).quat for m in (plain, longer)), atol=1e-9)
    for name in ("rod", "cuff"):
        np.testing.assert_allclose(longer.geom(name).size[:2], plain.geom(name).size[:2] * (1, 1.5))
    np.testing.assert_array_equal(longer.joint("swing").pos, plain.joint("swing").pos)
    for name in ("fore", "elbow"):
        kind = "geom" if name == "fore" else "joint"
        np.testing.assert_allclose(*(getattr(m, kind)(name).pos for m in (plain, longer)), atol=1e-9)


def test_a_link_whose_joints_are_apart_has_no_length(tmp_path):
    model = written(tmp_path, limb(joint='<joint name="tilt" axis="1 0 0" pos="0 0 .1"/>'))
    with pytest.raises(ValueError, match="the joints of body 'upper' are at different places"):
        family_of(tmp_path, model, entry("link_length", "upper", "scale", [0.8, 1.5]))


PIN = '<equality><connect body1="{}" body2="{}" anchor="0 0 -.1" {}/></equality>'
POST = (
    '<body name="post" pos=".1 0 .55"><joint name="post" axis="0 1 0"/>'
    '<geom size=".01" mass=".1" contype="0" conaffinity="0"/></body>'
)
SITES = '<equality><{} site1="grip" site2="end" {}/></equality>'
END = '<site name="end" pos="0 .02 .65"/>'


@pytest.mark.parametrize(
    ("more", "tail", "words"),
    [
        (POST, PIN.format("fore", "post", ""), "a connect of fore and post"),
        (POST, PIN.format("upper", "post", ""), "a connect of upper and post"),
        ("", PIN.format("fore", "world", ""), "a connect of fore and world"),
        ("", PIN.format("fore", "base", ""), "a connect of fore and base"),
        (END, SITES.format("weld", ""), "a weld of upper and world"),
        (END, SITES.format("connect", ""), "a connect of upper and world"),
        (POST, PIN.format("fore", "post", 'active="false"'), None),
        (POST, PIN.format("post", "base", ""), None),
        (POST, PIN.format("post", "world", ""), None),
    ],
)
def test_a_link_of_a_loop_keeps_its_length(more, tail, words, tmp_path):
    model, longer = written(tmp_path, limb(more=more, tail=tail)), entry("link_length", "upper", "scale", [0.8, 1.1])
    if words is None:
        family_of(tmp_path, model, longer)
        return
    with pytest.raises(ValueError, match=rf"body 'upper' is part of a loop \({words}\)"):
        family_of(tmp_path, model, longer)
    family_of(tmp_path, model, entry("mass", "upper", "scale", [0.8, 1.1]))


ROD = """<mujoco model="rod"><compiler angle="radian"/><worldbody><body name="base" pos="0 0 1">
  <geom name="base" size=".02" mass="1"/><body name="upper" pos="0 0 -.05">
    <joint name="swing" axis="0 1 0" pos="{pivot}"/>{parts}<body name="fore" pos="{end}">
      <joint name="elbow" axis="0 1 0"/><geom size=".01" mass=".1"/></body></body>
  </body></worldbody><actuator><motor joint="swing" ctrlrange="-1 1"/></actuator></mujoco>"""
SHAPES = {
    "a rod along z": ('type="cylinder" size=".02 .15" pos="0 0 -.15"', "0 0 -.3", "0 0 0"),
    "a rod askew": ('type="cylinder" size=".02 .15" fromto="0 0 0 .18 0 -.24"', ".18 0 -.24", "0 0 0"),
    "a box": ('type="box" size=".01 .02 .15" pos="0 0 -.15"', "0 0 -.3", "0 0 0"),
    "a box turned": ('type="box" size=".15 .02 .01" pos="0 0 -.15" euler="0 1.5707963267948966 0"', "0 0 -.3", "0 0 0"),
    "a rod whose joint is below its end": ('type="cylinder" size=".02 .15" pos="0 0 -.15"', "0 0 -.3", "0 0 -.05"),
}


@pytest.mark.parametrize(("quantity", "target"), [("link_length", "upper"), ("size", "rod"), ("radius", "rod")])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_given_inertia_follows_the_shape(shape, quantity, target, tmp_path):
    """A link whose mass MuJoCo infers from its shape, against the same link with that mass written as <inertial>."""
    geom, end, pivot = SHAPES[shape]
    value = 1.15 if quantity == "size" else 1.6  # a larger one would touch the base
    if quantity == "radius" and "box" in geom:
        pytest.skip("a box has no radius")
    inferred = ROD.format(parts=f'<geom name="rod" {geom} density="700"/>', end=end, pivot=pivot)
    body = mujoco.MjModel.from_xml_string(inferred).body("upper")
    text = {name: " ".join(f"{x:.17g}" for x in getattr(body, name)) for name in ("mass", "ipos", "iquat", "inertia")}
    said = '<inertial mass="{mass}" pos="{ipos}" quat="{iquat}" diaginertia="{inertia}"/>'.format(**text)
    given = ROD.format(parts=f'{said}<geom name="rod" {geom} density="700"/>', end=end, pivot=pivot)
    models = []
    for folder, xml in (("inferred", inferred), ("given", given)):
        (tmp_path / folder).mkdir()
        model = written(tmp_path / folder, xml)
        models.append(at(family_of(tmp_path / folder, model, entry(quantity, target, "scale", [0.8, value])), value))
    ours, theirs = models
    assert theirs.body("upper").mass[0] == pytest.approx(ours.body("upper").mass[0], rel=1e-9)
    np.testing.assert_allclose(theirs.body("upper").ipos, ours.body("upper").ipos, atol=1e-9)
    whole = []
    for model in models:
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, model.body("upper").iquat)
        whole.append(turn.reshape(3, 3) @ np.diag(model.body("upper").inertia) @ turn.reshape(3, 3).T)
    np.testing.assert_allclose(whole[1], whole[0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(theirs.geom("rod").size, ours.geom("rod").size)


@pytest.mark.parametrize("quantity", ["size", "radius"])
def test_of_two_shapes_with_one_given_inertia_neither_grows(quantity, tmp_path):
    said = '<inertial mass="1" pos="0 0 -.1" diaginertia=".01 .01 .001"/>'
    parts = (
        said
        + '<geom name="rod" size=".02 .1" type="capsule" pos="0 0 -.15"/><geom name="knob" size=".03" pos="0 0 -.2"/>'
    )
    with pytest.raises(ValueError, match=r"'rod' is not its one shape \('knob' is another\): what of the inertia"):
        family_of(
            tmp_path,
            written(tmp_path, ROD.format(parts=parts, end="0 0 -.3", pivot="0 0 0")),
            entry(quantity, "rod", "scale", [0.8, 1.5]),
        )


def test_a_link_without_a_length_is_refused_by_name(tmp_path):
    askew = ROD.format(
        parts='<geom name="rod" type="box" size=".01 .02 .1" pos="0 0 -.2" euler=".5 0 0"/>',
        end="0 0 -.3",
        pivot="0 0 0",
    )
    with pytest.raises(ValueError, match="geom 'rod' of body 'upper' is a box askew to the link"):
        family_of(tmp_path, written(tmp_path, askew), entry("link_length", "upper", "scale", [0.8, 1.5]))
    flat = ROD.format(
        parts='<geom name="rod" type="ellipsoid" size=".02 .02 .1" pos="0 0 -.2"/>', end="0 0 -.3", pivot="0 0 0"
    )
    with pytest.raises(ValueError, match="geom 'rod' of body 'upper' is no sphere, capsule, cylinder or box"):
        family_of(tmp_path, written(tmp_path, flat), entry("link_length", "upper", "scale", [0.8, 1.5]))


def test_a_given_inertia_that_follows_the_length_is_set_by_nothing_else(tmp_path):
    said = '<inertial mass="1" pos="0 0 -.1" diaginertia=".01 .01 .001"/>'
    rod = ROD.format(
        parts=f'{said}<geom name="rod" type="cylinder" size=".02 .1" pos="0 0 -.2"/>', end="0 0 -.3", pivot="0 0 0"
    )
    length, model = entry("link_length", "upper", "scale", [0.8, 1.5]), written(tmp_path, rod)
    with pytest.raises(ValueError, match="mass of upper"):
        family_of(tmp_path, model, length, {**entry("mass", "upper", "set", [0.8, 1.5]), "name": "n"})
    family = family_of(tmp_path, model, length, {**entry("mass", "upper", "scale", [0.5, 2]), "name": "n"})
    long, heavy = (family.compile(family.task({"p": 1.5, "n": n})).body("upper") for n in (1.0, 2.0))
    assert heavy.mass[0] == pytest.approx(2 * long.mass[0]) and long.mass[0] == pytest.approx(1.5)
    np.testing.assert_allclose(heavy.inertia, 2 * long.inertia)


FITTED = """<mujoco><compiler angle="radian"/>
  <asset><mesh name="bone" vertex="-.02 0 -.3 .02 0 -.3 0 .02 -.3 0 0 0"/></asset>
  <worldbody><body name="base" pos="0 0 1"><geom name="base" size=".02" mass="1"/><body name="upper" pos="0 0 -.05">
    <joint name="swing" axis="0 1 0"/><geom name="rod" type="capsule" mesh="bone" mass=".4"/>
    <body name="fore" pos="0 0 -.4"><joint name="elbow" axis="0 1 0"/><geom size=".01" mass=".1"/></body></body></body>
  </worldbody><actuator><motor joint="swing" ctrlrange="-1 1"/></actuator></mujoco>"""


@pytest.mark.parametrize(("quantity", "target"), [("link_length", "upper"), ("size", "rod"), ("radius", "rod")])
def test_a_shape_that_is_fitted_to_a_mesh_is_not_sized(quantity, target, tmp_path):
    with pytest.raises(ValueError, match="geom 'rod' of body 'upper' is fitted to the mesh 'bone'"):
        family_of(tmp_path, written(tmp_path, FITTED), entry(quantity, target, "scale", [0.8, 1.2]))
    with pytest.raises(ValueError, match="its link has parts that are fitted to meshes"):
        family_of(tmp_path, written(tmp_path, FITTED), faults={"kinds": ["short_leg"], "places": ["swing"]})


TENDON = """<tendon><spatial name="belt" {}><site site="high"/><site site="grip"/></spatial></tendon>{}"""
PULL = '<actuator><{} name="pull" tendon="belt" {}/></actuator>'


@pytest.mark.parametrize(
    ("tendon", "pull", "said"),
    [
        ('range="0 .5" limited="true"', "", "tendon 'belt' passes through what changes"),
        ('stiffness="5"', "", "tendon 'belt' passes through what changes"),
        ("", PULL.format("position", 'kp="9" ctrlrange="0 1"'), "the force of actuator 'pull' depends on a length"),
        ("", PULL.format("muscle", 'lengthrange="0 1"'), "the force of actuator 'pull' depends on a length"),
        ("", PULL.format("motor", 'ctrlrange="0 1"'), ""),
    ],
)
def test_a_link_under_a_tendon_with_a_length_of_its_own_keeps_its_length(tendon, pull, said, tmp_path):
    text = limb(more='<site name="high" pos=".1 0 1.3"/>', tail=TENDON.format(tendon, pull))
    model, longer = written(tmp_path, text), entry("link_length", "upper", "scale", [0.9, 1.2])
    shorter = {"kinds": ["short_leg"], "places": ["swing"]}
    if said:
        with pytest.raises(ValueError, match=f"body 'upper' cannot have another size: {said}"):
            family_of(tmp_path, model, longer)
        with pytest.raises(ValueError, match=said):
            family_of(tmp_path, model, faults=shorter)
    else:
        family_of(tmp_path, model, longer, faults=shorter)
    family_of(tmp_path, model, entry("size", "rod", "scale", [0.9, 1.1]))  # the belt passes no geom


def test_a_shorter_leg_has_the_given_inertia_of_a_shorter_rod(tmp_path):
    """A slender rod that says its own inertia, against one of which MuJoCo infers it."""
    inferred = '<geom name="rod" type="cylinder" size=".02" fromto="0 0 0 .1 0 -.3"/>' + CHILD
    body = mujoco.MjModel.from_xml_string(limb(inferred)).body("upper")
    text = {name: " ".join(f"{x:.17g}" for x in getattr(body, name)) for name in ("mass", "ipos", "iquat", "inertia")}
    said = '<inertial mass="{mass}" pos="{ipos}" quat="{iquat}" diaginertia="{inertia}"/>'.format(**text)
    found = []
    for parts in (inferred, said + inferred):
        family = family_of(tmp_path, written(tmp_path, limb(parts)), faults={"kinds": ["short_leg"]})
        short = family.compile(family.task({"fault_kind": 1.0, "fault_place": 1.0, "fault_severity": 1.0}))
        upper = short.body("upper")
        found.append(np.r_[upper.mass, upper.ipos, np.sort(upper.inertia)])
    np.testing.assert_allclose(*found, rtol=1e-6, atol=1e-9)


HOUSED = (
    '<body name="housing"><geom name="{name}" type="capsule" size=".02" fromto="0 0 0 0 0 -.3"/>'
    '<body name="fore" pos="0 0 -.3"><joint name="elbow" axis="0 1 0"/><geom size=".01" mass=".1"/></body></body>'
    '<geom name="motor" type="cylinder" size=".04 .03" pos="0 .05 0" euler="1.5708 0 0" mass=".2"/>'
)
FOOT = '<geom name="rod" type="capsule" size=".02" fromto="0 0 0 0 0 -.3"/><body name="foot" pos="0 0 -.3">{}</body>'


def test_a_link_that_goes_on_in_a_body_fixed_to_it_is_refused(tmp_path):
    model = written(tmp_path, limb(HOUSED.format(name="rod")))
    with pytest.raises(ValueError, match="body 'upper' goes on in 'housing', which is fixed to it .* into 'upper'"):
        family_of(tmp_path, model, entry("link_length", "upper", "scale", [0.6, 1]))
    with pytest.raises(ValueError, match="its link goes on in 'housing', which is fixed to it"):
        family_of(tmp_path, model, faults={"kinds": ["short_leg"], "places": ["swing"]})


def test_what_is_fixed_to_a_link_is_no_part_of_its_length_unless_it_holds_its_end(tmp_path):
    """A sensor at the pivot does not, and a shape that is longer than what is before it does, by its ends."""
    sensor = '<body name="imu" pos="0 .01 0"><geom name="imu" type="box" size=".005 .005 .005" pos="0 0 -.02"/></body>'
    rod = '<geom name="rod" type="capsule" size=".02" fromto="0 0 0 0 0 {}"/>'
    model = written(tmp_path, limb(rod.format(-0.3) + sensor))
    longer = at(family_of(tmp_path, model, entry("link_length", "upper", "scale", [1, 1.4])), 1.4)
    assert longer.geom("rod").size[1] == pytest.approx(0.21)
    lower = f'<body name="lower" pos="0 0 -.1">{rod.format(-0.19).replace("rod", "tube")}</body>'
    model = written(tmp_path, limb(rod.format(-0.1) + lower))
    with pytest.raises(ValueError, match="body 'upper' goes on in 'lower', which is fixed to it"):
        family_of(tmp_path, model, entry("link_length", "upper", "scale", [0.6, 1]))


def test_what_is_fixed_to_the_end_of_a_link_moves_with_it(tmp_path):
    foot = FOOT.format('<geom name="ball" size=".03" pos="0 0 -.01"/><geom name="sole" size=".01" pos=".05 0 0"/>')
    model = written(tmp_path, limb(foot))
    family = family_of(tmp_path, model, entry("link_length", "upper", "scale", [0.6, 1]))
    short = at(family, 0.6)
    np.testing.assert_allclose(short.body("foot").pos, (0, 0, -0.18))
    np.testing.assert_allclose(short.geom("ball").pos, (0, 0, -0.01))


@pytest.mark.parametrize("place", ['fromto="0 .02 -.1 0 .08 -.1"', 'pos="0 .05 -.1" euler="1.5708 0 0"'])
@pytest.mark.parametrize("kind", ["cylinder", "capsule"])
def test_a_shape_across_a_link_moves_and_keeps_its_length(kind, place, tmp_path):
    size = ".02" if "fromto" in place else ".02 .03"
    motor = f'<geom name="motor" type="{kind}" size="{size}" {place} mass=".2"/>'
    model = written(tmp_path, limb(FOOT.format('<geom size=".01" mass=".01"/>') + motor))
    plain = mujoco.MjModel.from_xml_path(model)
    for longer in (
        at(family_of(tmp_path, model, entry("link_length", "upper", "scale", [0.6, 1.5])), 0.6),
        shortened(family_of(tmp_path, model, faults={"kinds": ["short_leg"], "places": ["swing"]})),
    ):
        np.testing.assert_allclose(longer.geom("motor").size, plain.geom("motor").size)
        np.testing.assert_allclose(longer.geom("motor").pos, 0.6 * plain.geom("motor").pos, atol=1e-9)
        np.testing.assert_allclose(longer.geom("rod").size[1], 0.6 * 0.15)


def shortened(family: TaskFamily) -> mujoco.MjModel:
    """The model with the fault at its worst."""
    return family.compile(family.task({"fault_kind": 1.0, "fault_place": 1.0, "fault_severity": 1.0}))
