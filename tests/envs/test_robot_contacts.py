"""One's own robot in contact: the friction that acts, what meets what, and what is added to a model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np
import pytest
import yaml

from metarl.envs.family import TaskFamily
from metarl.envs.own_robot.contacts import contacts_of, meetings
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.family import check_robot
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family

ROBOT = """<mujoco model="sled">
  <compiler angle="radian"/>
  {head}
  <worldbody>
    {scene}
    <body name="hull" pos="0 0 {z}">{root}
      <geom name="hull" type="box" size=".25 .2 .1" mass="5" {hull}/>
      {extra}
      <body name="arm" pos="0 0 .12"><joint name="swing" axis="0 1 0" range="-1 1" damping="2"/>
        <geom name="arm" type="capsule" size=".02 .125 0" pos="0 0 .125" euler="0 0 0"
        mass=".5" group="2" contype="0" conaffinity="0"/></body>
    </body>
    {objects}
  </worldbody>
  <actuator><motor name="swing" joint="swing" ctrlrange="-5 5"/></actuator>
  {tail}
</mujoco>"""
PLANE = '<geom name="ground" type="plane" size="0 0 1" {}/>'
FIELD = (
    f'<asset><hfield name="field" nrow="4" ncol="5" size="4 3 1 .1" elevation="{" ".join(["0"] * 19)} 1"/></asset>',
    '<geom name="ground" type="hfield" hfield="field" pos="-1.5 -1 0" {}/>',
)
SOFT = 'solref=".03 .8" solimp=".8 .9 .002 .4 3" solmix="2" margin=".004" gap=".002"'
OTHER = 'solref=".05 1.2" solimp=".7 .95 .001 .5 2" margin=".002" gap=".001"'
PAIR = '<contact><pair name="sole" geom1="ground" geom2="hull" {}/></contact>'


class Case(NamedTuple):
    """A robot, and what its hull's contact with the ground is by MuJoCo's rules."""

    condim: int
    friction: tuple[float, ...]
    scene: str = PLANE.format("")
    hull: str = ""
    head: str = ""
    tail: str = ""

    @property
    def text(self) -> str:
        return model(scene=self.scene, hull=self.hull, head=self.head, tail=self.tail)


def model(**parts: object) -> str:
    places = ("head", "scene", "hull", "extra", "objects", "tail")
    return ROBOT.format(**{**dict.fromkeys(places, ""), "root": "<freejoint/>", "z": 0.099, **parts})


CASES = {
    "the larger condim": Case(
        3, (0.8, 0.8, 0.01, 0.001, 0.001), PLANE.format('condim="3" friction=".8 .01 .001"'), 'condim="1" friction=".6"'
    ),
    "softness mixes": Case(
        6,
        (0.9, 0.9, 0.02, 0.005, 0.005),
        PLANE.format(f'condim="6" friction=".9 .02 .001" {SOFT}'),
        f'condim="4" friction=".7 .01 .005" {OTHER}',
    ),
    "the model's priority": Case(
        4,
        (0.4, 0.4, 0.02, 0.001, 0.001),
        PLANE.format('priority="1" condim="6" friction="1"'),
        f'priority="2" condim="4" friction=".4 .02 .001" {OTHER}',
    ),
    "the ground's priority": Case(
        6,
        (0.5, 0.5, 0.03, 0.002, 0.002),
        PLANE.format(f'priority="3" condim="6" friction=".5 .03 .002" {SOFT}'),
        'friction="2"',
    ),
    "a pair": Case(
        4,
        (0.7, 0.7, 0.02, 0.001, 0.001),
        hull='friction=".3"',
        tail=PAIR.format(f'condim="4" friction=".7 .7 .02 .001 .001" {OTHER}'),
    ),
    "a pair of geoms that collide with nothing": Case(
        3,
        (1.0, 1.0, 0.005, 0.0001, 0.0001),
        PLANE.format('contype="0" conaffinity="0"'),
        'contype="0" conaffinity="0"',
        tail=PAIR.format(""),
    ),
    "a heightfield": Case(
        6,
        (0.9, 0.9, 0.02, 0.001, 0.001),
        FIELD[1].format(f'condim="6" friction=".9 .02 .001" {SOFT}'),
        f'friction=".7" {OTHER}',
        head=FIELD[0],
    ),
    "default classes": Case(
        4,
        (0.9, 0.9, 0.02, 0.001, 0.001),
        PLANE.format('class="f"'),
        head='<default><geom condim="1" friction=".1" margin=".003"/>'
        '<pair condim="1" friction="9 9 9 9 9" margin=".5" gap=".4" solref=".5 2"/>'
        '<default class="f"><geom condim="4" friction=".9 .02 .001"/></default></default>',
    ),
}


def entry(
    quantity: str, operation: str, ends: list[float], target: str = "hull", name: str = "p", **keys: object
) -> dict:
    given = {"name": name, "target": target, "quantity": quantity, "operation": operation}
    return {**given, "distribution": "uniform", "range": ends, **keys}


def write(folder: Path, text: str, *entries: dict, **keys: object) -> tuple[str, str]:
    (folder / "sled.xml").write_text(text)
    mass = entry("mass", "scale", [0.9, 1.1], "arm")
    declared = {"reward": {"alive": 1}, "distribution": list(entries) or [mass], **keys}
    (folder / "sled.yaml").write_text(yaml.safe_dump(declared))
    return str(folder / "sled.xml"), str(folder / "sled.yaml")


def family_of(folder: Path, text: str, *entries: dict, **keys: object) -> TaskFamily:
    return make_family(RobotSettings(*write(folder, text, *entries, **keys)))


def robot_of(folder: Path, text: str, **hints: object) -> Robot:
    return check_robot(*write(folder, text, robot=hints))[0]


def touch(compiled: mujoco.MjModel, steps: int = 0) -> tuple[mujoco.MjData, list[dict[str, Any]]]:
    """All that acts in each contact, by name, where the model starts or some steps later."""
    data = mujoco.MjData(compiled)
    data.qvel[0] = 1.0
    mujoco.mj_step(compiled, data, steps)
    mujoco.mj_forward(compiled, data)
    fields = ("dim", "friction", "solref", "solreffriction", "solimp", "includemargin", "adhesion", "dist")
    return data, [
        {"geoms": {compiled.geom(g).name for g in c.geom}, **{f: np.copy(getattr(c, f)) for f in fields}}
        for c in data.contact
    ]


def assert_alike(some: list[dict], others: list[dict], *, but: str = "") -> None:
    assert len(some) == len(others) > 0
    for a, b in zip(some, others, strict=True):
        assert a["geoms"] == b["geoms"]
        for name in a:
            if name not in ("geoms", but):
                np.testing.assert_array_equal(a[name], b[name], err_msg=name)


ELEMENTS = {"friction": [0, 1], "torsional_friction": [2], "rolling_friction": [3, 4]}
LEAST = {"friction": 3, "torsional_friction": 4, "rolling_friction": 6}


ACTING = [(c, q) for c in CASES for q in ELEMENTS if CASES[c].condim >= LEAST[q]]
IDLE = [(c, q) for c in CASES for q in ELEMENTS if CASES[c].condim < LEAST[q]]


class TestFriction:
    @pytest.mark.parametrize(("case", "quantity"), ACTING)
    def test_at_its_neutral_value_contacts_and_motion_are_the_models_own(self, case, quantity, tmp_path):
        own = mujoco.MjModel.from_xml_string(CASES[case].text)
        family = family_of(tmp_path, CASES[case].text, entry(quantity, "scale", [0.5, 1.5]))
        neutral = family.compile(family.neutral())
        assert neutral.npair == family.compile(family.task({"p": 0.5})).npair  # as the gpu simulator needs them
        for steps in (0, 200):
            data, contacts = touch(own, steps)
            same, alike = touch(neutral, steps)
            assert_alike(contacts, alike, but="dist")
            np.testing.assert_array_equal(data.qpos, same.qpos)

    @pytest.mark.parametrize(("case", "quantity"), ACTING)
    @pytest.mark.parametrize(("operation", "ends"), [("set", [0.05, 1.5]), ("scale", [0.25, 3]), ("add", [0.1, 0.7])])
    def test_at_both_ends_it_alone_differs_by_what_is_said(self, case, quantity, operation, ends, tmp_path):
        own = touch(mujoco.MjModel.from_xml_string(CASES[case].text))[1]
        before = np.array(CASES[case].friction)
        for contact in own:
            np.testing.assert_allclose(contact["friction"], before)
            assert contact["dim"] == CASES[case].condim
        family = family_of(tmp_path, CASES[case].text, entry(quantity, operation, ends))
        for value in ends:
            contacts = touch(family.compile(family.task({"p": value})))[1]
            expected = before.copy()
            new = {"set": value, "scale": before * value, "add": before + value}[operation]
            expected[ELEMENTS[quantity]] = np.broadcast_to(new, 5)[ELEMENTS[quantity]]
            for contact in contacts:
                np.testing.assert_allclose(contact["friction"], expected, rtol=1e-12)
            assert_alike(own, contacts, but="friction")

    @pytest.mark.parametrize(("case", "quantity"), IDLE)
    def test_what_cannot_act_is_refused(self, case, quantity, tmp_path):
        message = f"geom 'hull' has no {quantity}: its contact with 'ground' has condim {CASES[case].condim}"
        with pytest.raises(ValueError, match=message):
            family_of(tmp_path, CASES[case].text, entry(quantity, "scale", [0.5, 1.5]))


@pytest.mark.parametrize("target", ["hull", "ground", ".*l|ground"])
@pytest.mark.parametrize("grip", [0.5, 1.0])
@pytest.mark.parametrize("case", ["the larger condim", "a pair", "default classes"])
def test_a_sled_stops_where_its_friction_says(case, grip, target, tmp_path):
    """v^2 / (2 mu g), with 5.5 kg from 2 m/s on pyramidal friction along an axis."""
    family = family_of(tmp_path, CASES[case].text, entry("friction", "set", [0.4, 1.2], target))
    compiled = family.compile(family.task({"p": grip}))
    data = mujoco.MjData(compiled)
    data.qvel[0] = 2.0
    mujoco.mj_step(compiled, data, 600)
    assert data.qpos[0] == pytest.approx(2**2 / (2 * grip * 9.81), rel=0.1)
    assert abs(data.qvel[0]) < 0.01


def test_robot_and_ground_are_one_contact_that_one_parameter_varies(tmp_path):
    both = [entry("friction", "set", [0.5, 1], "hull"), entry("friction", "set", [0.5, 1], "ground", name="q")]
    with pytest.raises(ValueError, match=r"\(q\): friction 0 of hull on ground is varied by 'p' already"):
        family_of(tmp_path, CASES["the larger condim"].text, *both)


def test_two_parameters_vary_two_frictions_of_one_contact(tmp_path):
    entries = [entry("friction", "set", [0.5, 1]), entry("rolling_friction", "scale", [1, 9], name="q")]
    family = family_of(tmp_path, CASES["softness mixes"].text, *entries)
    [*_, contact] = touch(family.compile(family.task({"p": 0.6, "q": 4})))[1]
    np.testing.assert_allclose(contact["friction"], [0.6, 0.6, 0.02, 0.02, 0.02])


def test_a_pair_with_two_sliding_frictions_keeps_both(tmp_path):
    text = model(scene=PLANE.format(""), tail=PAIR.format('friction=".4 .8 .005 .0001 .0001"'))
    family = family_of(tmp_path, text, entry("friction", "scale", [0.5, 2]))
    np.testing.assert_allclose(touch(family.compile(family.task({"p": 2})))[1][0]["friction"][:2], [0.8, 1.6])
    with pytest.raises(ValueError, match=r"defaults differ \(sole, element 0 0.4, sole, element 1 0.8\)"):
        family_of(tmp_path, text, entry("friction", "set", [0.5, 2]))
    family = family_of(tmp_path, text, entry("friction", "set", [0.5, 2], neutral=0.6))
    assert touch(family.compile(family.task({"p": 0.5})))[1][0]["friction"][:2].tolist() == [0.5, 0.5]
    assert touch(family.compile(family.neutral()))[1][0]["friction"][:2].tolist() == [0.4, 0.8]


BALL = '<body name="ball" pos=".5 0 .099"><freejoint/><geom name="ball" size=".1" friction="{}"/></body>'


class TestWhatMeets:
    """The hull, the ground and a ball that is no part of the robot."""

    def frictions(self, family: TaskFamily, value: float, at: float = 0.34) -> dict[frozenset[str], float]:
        compiled = family.compile(family.task({"p": value}))
        data = mujoco.MjData(compiled)
        data.qpos[compiled.joint("ball_joint").qposadr[0]] = at  # into the hull
        mujoco.mj_forward(compiled, data)
        return {frozenset(compiled.geom(g).name for g in c.geom): float(c.friction[0]) for c in data.contact}

    def test_the_robots_friction_is_with_everything_that_is_not_the_robot(self, tmp_path):
        family = family_of(
            tmp_path, model(scene=PLANE.format(""), objects=BALL.format(1)), entry("friction", "set", [0.3, 1])
        )
        assert self.frictions(family, 0.3) == {
            frozenset({"hull", "ground"}): 0.3,
            frozenset({"hull", "ball"}): 0.3,
            frozenset({"ball", "ground"}): 1.0,
        }

    def test_a_thing_of_the_scene_has_it_with_all(self, tmp_path):
        text = model(scene=PLANE.format(""), objects=BALL.format(1))
        family = family_of(tmp_path, text, entry("friction", "set", [0.3, 1], "ball"))
        assert self.frictions(family, 0.3) == {
            frozenset({"hull", "ground"}): 1.0,
            frozenset({"hull", "ball"}): 0.3,
            frozenset({"ball", "ground"}): 0.3,
        }

    def test_what_is_excluded_gets_no_contact(self, tmp_path):
        apart = '<contact><exclude body1="hull" body2="ball"/></contact>'
        text = model(scene=PLANE.format(""), objects=BALL.format(1), tail=apart)
        family = family_of(tmp_path, text, entry("friction", "set", [0.3, 1]))
        assert self.frictions(family, 0.3) == {frozenset({"hull", "ground"}): 0.3, frozenset({"ball", "ground"}): 1.0}

    def test_contacts_that_differ_are_asked_for(self, tmp_path):
        text = model(scene=PLANE.format(""), objects=BALL.format(2))
        with pytest.raises(ValueError, match=r"defaults differ \(hull on ground 1, hull on ball 2\)"):
            family_of(tmp_path, text, entry("friction", "set", [0.3, 1]))

    def test_what_the_robot_touches_of_itself_stays_the_models_own(self, tmp_path):
        legs = (
            '<body name="l" pos=".1 0 .3"><joint name="l" type="slide"/><geom name="l" size=".06" condim="1"/></body>'
            '<body name="r" pos=".215 0 .3"><joint name="r" type="slide"/><geom name="r" size=".06" condim="1"/></body>'
        )
        apart = '<contact><exclude body1="hull" body2="l"/><exclude body1="hull" body2="r"/></contact>'
        text = model(scene=PLANE.format('condim="3"'), extra=legs, tail=apart)
        family = family_of(tmp_path, text, entry("friction", "set", [0.3, 1], "hull|l|r"))
        contacts = touch(family.compile(family.task({"p": 0.3})))[1]
        own = [c for c in contacts if c["geoms"] == {"l", "r"}]
        assert [c["dim"] for c in own] == [1] and own[0]["friction"][0] == 1.0

    @pytest.mark.parametrize(
        ("text", "target", "message"),
        [
            (
                model(scene=PLANE.format(""), extra='<geom name="tip" size=".01" contype="4" conaffinity="4"/>'),
                "tip",
                "geom 'tip' collides with nothing: it has no friction",
            ),
            (
                model(
                    scene=PLANE.format('contype="2" conaffinity="2"'),
                    hull='contype="3"',
                    extra='<body name="b" pos="0 0 .5"><joint name="j"/><geom name="b" size=".03"/></body>'
                    '<body name="c" pos="0 0 .7"><joint name="k"/><geom name="c" size=".03"/></body>',
                ),
                "b",
                "geom 'b' collides with nothing but the robot itself",
            ),
            (
                model(scene=PLANE.format(""), head='<option><flag override="enable"/></option>'),
                "hull",
                "the model overrides the friction of all contacts",
            ),
            (
                model(scene=PLANE.format('condim="1"'), hull='condim="1"'),
                "hull",
                "geom 'hull' has no friction: its contact with 'ground' has condim 1, and friction acts from",
            ),
        ],
    )
    def test_a_friction_that_cannot_act_is_refused(self, text, target, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            family_of(tmp_path, text, entry("friction", "scale", [0.5, 1], target))


def test_mixed_contacts_equal_those_of_mujocos_collisions():
    """Of many random geoms, to the last bit."""
    rng = np.random.default_rng(0)

    def numbers(*values: float) -> str:
        return " ".join(f"{v:.17g}" for v in values)

    def attributes() -> str:
        stiff = rng.random() < 0.3
        solref = (
            (-rng.uniform(100, 999), -rng.uniform(10, 99)) if stiff else (rng.uniform(0.01, 0.1), rng.uniform(0.5, 2))
        )
        return (
            f'solref="{numbers(*solref)}" solimp="{numbers(*rng.uniform(0.5, 0.9, 2), 0.001, 0.4, rng.uniform(1, 4))}" '
            f'friction="{numbers(*rng.uniform(0, 1, 3))}" condim="{rng.choice([1, 3, 4, 6])}" '
            f'priority="{rng.integers(0, 3)}" solmix="{rng.choice([0, 1e-20, rng.uniform(0, 3)])}" '
            f'margin="{rng.uniform(0, 0.02)}" gap="{rng.uniform(0, 0.02)}" adhesion="{rng.choice([0, rng.uniform()])}"'
        )

    for _ in range(60):
        spec = mujoco.MjSpec.from_string(model(scene=PLANE.format(attributes()), hull=attributes()))
        compiled = spec.compile()
        own = touch(compiled)[1]
        [contact] = contacts_of(compiled, ["hull", "arm"], "hull")
        contact.add_pair(spec)
        paired = spec.compile()
        assert paired.npair == 1 and paired.pair_gap[0] == compiled.geom_gap[:2].sum()
        assert_alike(own, touch(paired)[1])


WILD = """<default>
  <geom type="box" contype="0" conaffinity="0" condim="1" priority="5" group="4" friction=".1 .2 .3" mass="7" solmix="3"
    density="9" solref=".5 2" solimp=".1 .2 .3 .4 5" margin=".02" gap=".01" rgba="1 0 0 .5" size="1 2 3" material="m"
    fluidshape="ellipsoid" fluidcoef="1 2 3 4 5" surfacevel="1 2 3 4 5 6" adhesion="4" shellinertia="true"
    euler=".1 .2 .3" pos="1 2 3" user="1 2"/>
  <joint damping="9" armature="8" frictionloss="7" stiffness="6"/><site size="3"/>
  <pair condim="1" friction="9 9 9 9 9" margin=".5" gap=".4" solref=".5 2" solimp=".1 .2 .3 .4 5" adhesion="2"/>
</default><asset><material name="m"/></asset>"""
SOLID = 'contype="1" conaffinity="1" pos="0 0 0" euler="0 0 0"'


def rows_of(compiled: mujoco.MjModel, geom: str) -> dict[str, np.ndarray]:
    """All that a compiled model has of a geom, by name."""
    i, names = compiled.geom(geom).id, [n for n in dir(compiled) if n.startswith("geom_") and n != "geom_user"]
    arrays = {n: getattr(compiled, n) for n in names}
    assert len(arrays) > 25
    return {n: np.copy(a[i]) for n, a in arrays.items() if n != "geom_bodyid"}


@pytest.mark.parametrize("head", [WILD, WILD.replace("<default>", '<default class="main">')])
@pytest.mark.parametrize("childclass", ["", 'childclass="main"'])
def test_what_is_added_takes_nothing_of_default_classes(head, childclass, tmp_path):
    payload = entry("payload", "set", [0, 3])
    root = f'<frame {childclass}><site name="s"/></frame><freejoint/>'
    plain = family_of(tmp_path, model(hull=SOLID, z=0.1), payload)
    wild = family_of(tmp_path, model(head=head, root=root, hull=SOLID, z=0.1), payload)
    for value in (0.0, 3.0):
        ours, theirs = (f.compile(f.task({"p": value})) for f in (plain, wild))
        for geom in ("floor", "payload of hull"):
            for name, row in rows_of(ours, geom).items():
                np.testing.assert_array_equal(row, rows_of(theirs, geom)[name], err_msg=f"{geom}: {name}")
        for name in ("mass", "inertia", "ipos"):
            ours_payload, theirs_payload = (getattr(m.body("payload of hull"), name) for m in (ours, theirs))
            np.testing.assert_array_equal(ours_payload, theirs_payload)


@pytest.mark.parametrize(
    "head", ["", WILD, '<compiler inertiagrouprange="2 3"/>', '<compiler settotalmass="5" boundmass=".1"/>']
)
def test_a_payload_weighs_what_is_said_and_nothing_at_0(head, tmp_path):
    text = model(head=head, scene=PLANE.format(SOLID), hull=f"{SOLID} group='2'")
    family = family_of(tmp_path, text, entry("payload", "set", [0, 2], position=[0.1, 0, 0.2]))
    own = mujoco.MjModel.from_xml_string(text)
    for value in (0.0, 1.0, 2.0):
        compiled = family.compile(family.task({"p": value}))
        assert compiled.body_subtreemass[0] - own.body_subtreemass[0] == pytest.approx(value, abs=1e-9)
        assert family.picture(family.task({"p": value})).compile().nbody == compiled.nbody
    data, same = touch(own, 100)[0], touch(family.compile(family.neutral()), 100)[0]
    np.testing.assert_allclose(data.qpos, same.qpos, atol=1e-9)


class TestFloor:
    @pytest.mark.parametrize(
        ("masks", "floor"),
        [((1, 1), (1, 1)), ((1, 0), (1, 1)), ((2, 0), (1, 3)), ((0, 4), (5, 1)), ((6, 8), (1, 7)), ((8, 8), (1, 9))],
    )
    def test_an_added_floor_meets_the_robot(self, masks, floor, tmp_path):
        text = model(hull=f'contype="{masks[0]}" conaffinity="{masks[1]}"', z=0.12)
        family = family_of(tmp_path, text)
        compiled = family.compile(family.neutral())
        geom = compiled.geom("floor")
        assert (geom.contype[0], geom.conaffinity[0]) == floor and geom.condim[0] == 3
        np.testing.assert_array_equal(geom.friction, [1, 0.005, 0.0001])
        data = mujoco.MjData(compiled)
        mujoco.mj_step(compiled, data, 1000)
        assert data.qpos[2] == pytest.approx(0.1, abs=2e-3)  # half the hull's height

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ({"hull": 'contype="0" conaffinity="0"'}, "no geom of the robot collides"),
            (
                {"scene": PLANE.format('contype="0" conaffinity="0"')},
                "ground is drawn but touches nothing .* robot: {floor: true} .* or {floor: false} if it is to fly",
            ),
            (
                {"scene": PLANE.format('contype="2" conaffinity="2"')},
                "no geom of the robot can touch ground: contype and conaffinity do not meet",
            ),
            (
                {"scene": PLANE.format(""), "tail": '<contact><exclude body1="world" body2="hull"/></contact>'},
                "no geom of the robot can touch ground",
            ),
            ({"tail": '<contact><exclude body1="world" body2="hull"/></contact>'}, "no geom .* can touch floor"),
            ({"scene": PLANE.format('zaxis="1 0 0" pos="-9 0 0"')}, "ground can be touched but are walls"),
            (
                {"scene": PLANE.format(""), "head": '<option><flag contact="disable"/></option>'},
                "switches contacts off",
            ),
        ],
    )
    def test_a_robot_that_would_fall_for_ever_is_refused(self, parts, message, tmp_path):
        text = model(**parts)
        assert any(re.search(message, q) for q in robot_of(tmp_path, text).questions)
        with pytest.raises(ValueError, match=message):
            family_of(tmp_path, text)
        assert not robot_of(tmp_path, text, floor=False).questions  # it flies or swims

    @pytest.mark.parametrize(
        ("root", "head", "says"),
        [
            ("<freejoint/>", "", "floor, a plane at height 0, added"),
            ('<joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 0 1"/>', "", "floor, a plane"),
            ('<joint type="slide" axis="1 0 0"/><joint axis="0 0 1"/>', "", "none"),  # on rails
            ('<joint axis="0 1 0"/>', "", "none"),  # hung up
            ("", "", "none, the base is fixed"),
            ("<freejoint/>", '<option gravity="0 0 0"/>', "none"),
        ],
    )
    def test_a_floor_is_added_where_the_robot_would_fall(self, root, head, says, tmp_path):
        text = model(root=root, head=head)
        for floor, words in (
            (None, says),
            (False, says if says.startswith("none") else "none"),
            (True, "floor, a plane"),
        ):
            robot = robot_of(tmp_path, text, **({} if floor is None else {"floor": floor}))
            [said] = [f.value for f in robot.findings if f.subject == "floor"]
            assert said.startswith(words) and not robot.questions
            assert ("floor" in {g.name for g in robot.spec.geoms}) == said.startswith("floor")

    def test_a_floor_of_its_own_is_left_alone(self, tmp_path):
        box = '<geom name="floor" type="box" size="1 1 .1"/>'
        for scene in (box.replace("/>", ' pos="0 0 -.1"/>'), f'<body pos="0 0 -.1">{box}</body>'):
            robot = robot_of(tmp_path, model(scene=scene, hull='contype="1"'))
            assert [g.name for g in robot.spec.geoms].count("floor") == 1 and not robot.questions

    def test_a_pendulum_hangs_through_where_a_floor_would_be(self, tmp_path):
        text = model(root="", z=0.05).replace(' group="2" contype="0"', "").replace('pos="0 0 .125"', 'pos="0 0 -.5"')
        family = family_of(tmp_path, text)
        data, contacts = touch(family.compile(family.neutral()), 100)
        assert data.geom("arm").xpos[2] < -0.1 and contacts == []


FEET = (
    '<body name="l{0}" pos="{1} 0 -.1"><joint name="j{0}" axis="0 1 0"/>'
    '<geom name="g{0}" type="capsule" size=".02" fromto="0 0 0 0 0 -.2" mass=".1" {2}/></body>'
)


@pytest.mark.parametrize("how", ["masks", "pairs"])
def test_geoms_in_pairs_are_feet_and_floors(how, tmp_path):
    """Two legs, a hull above them and an arm that touches nothing."""
    loose = 'contype="0" conaffinity="0"' if how == "pairs" else ""
    legs = FEET.format("a", 0.2, loose) + FEET.format("b", -0.2, loose)
    pairs = "".join(f'<pair geom1="ground" geom2="{g}"/>' for g in ("ga", "gb", "hull"))
    text = model(
        scene=PLANE.format(loose), hull=loose, extra=legs, z=0.2, tail=f"<contact>{pairs}</contact>" if loose else ""
    )
    robot = robot_of(tmp_path, text)
    findings = {f.subject: f.value for f in robot.findings}
    assert robot.feet == ("la", "lb") and findings["floor"] == "ground" and not robot.questions
    assert "lifted by 0.12 m" in findings["home pose"]  # 0.2 - 0.1 - 0.2 - 0.02
    assert robot.home[2] == pytest.approx(0.32)
    if loose:
        with pytest.raises(ValueError, match="'hull' is 0.15 m inside 'ground'"):
            family_of(tmp_path, text, robot={"height": -0.05})


def test_a_robot_that_would_pass_through_the_scene_touches_itself_too(tmp_path):
    """Without self-collisions the robot's geoms have no contype: what only that makes them touch would be lost."""
    ball = '<geom name="ball" size=".1" pos="1 0 .1" contype="{}" conaffinity="1"/>'
    scene = PLANE.format("") + ball.format(0)
    with pytest.raises(ValueError, match="'hull' touches 'ball' by its contype alone, and would pass through it"):
        robot_of(tmp_path, model(scene=scene), self_collisions=False)
    compiled = robot_of(tmp_path, model(scene=PLANE.format("") + ball.format(1)), self_collisions=False).model
    hull, ball_, ground = (compiled.geom(name).id for name in ("hull", "ball", "ground"))
    meet = meetings(compiled)
    assert meet[hull, ball_] and meet[hull, ground]


def test_a_thing_of_the_scene_has_a_mass_that_can_vary(tmp_path):
    text = model(scene=PLANE.format(""), objects=BALL.format(1))
    family = family_of(tmp_path, text, entry("mass", "scale", [0.5, 3], "ball"))
    own = mujoco.MjModel.from_xml_string(text)
    heavy = family.compile(family.task({"p": 3.0}))
    assert heavy.body("ball").mass[0] == pytest.approx(3 * own.body("ball").mass[0])
    np.testing.assert_allclose(heavy.body("ball").inertia, 3 * own.body("ball").inertia)
    assert heavy.body("hull").mass[0] == pytest.approx(own.body("hull").mass[0])
    every = family_of(tmp_path, text, entry("mass", "scale", [0.5, 3], ".*"))  # of the robot
    assert every.compile(every.task({"p": 3.0})).body("ball").mass[0] == pytest.approx(own.body("ball").mass[0])
