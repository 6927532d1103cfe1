"""Where a robot comes from: read as MuJoCo reads it, copied whole, and nothing of the original needed after that."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest

from metarl.envs.own_robot.family import check_robot
from metarl.envs.own_robot.model_files import copy_model, open_model

BODY = (
    '<worldbody><body name="a"><joint name="j" axis="0 1 0"/><geom name="g" type="mesh" mesh="box"/></body></worldbody>'
)
MESH = '<asset><mesh file="box.stl"/></asset>'
ATTACH = (
    '<asset><model name="c" file="{}"/></asset><worldbody><body name="w">'
    '<attach model="c" body="a" prefix="p_"/></body></worldbody>'
)


def stl(path: Path, edge: float = 0.1) -> Path:
    """A tetrahedron whose shortest edge is `edge`; its time of change is its own, as MuJoCo keeps what it has read."""
    corners = [(0, 0, 0), (edge, 0, 0), (0, 2 * edge, 0), (0, 0, 3 * edge)]
    faces = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
    data = b"\0" * 80 + struct.pack("<I", len(faces))
    for face in faces:
        data += struct.pack("<12f", 0, 0, 0, *(x for i in face for x in corners[i])) + b"\0\0"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (round(1e9 * edge),) * 2)
    return path


def png(path: Path, shade: int = 50) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((x * shade + y) % 255 for x in range(12)) for y in range(4))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def same(model: mujoco.MjModel, other: mujoco.MjModel, tolerance: float = 0.0) -> None:
    """Every array but where files are; tolerance: relative to the largest number of an array."""
    assert model.names == other.names
    counted = 0
    for name in dir(model):
        ours = getattr(model, name)
        if isinstance(ours, np.ndarray) and "path" not in name and name != "_sizes":
            counted += 1
            scale = float(np.max(np.abs(ours.astype(float)), initial=1.0))
            np.testing.assert_allclose(getattr(other, name), ours, rtol=0, atol=tolerance * scale, err_msg=name)
    assert counted > 300


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def plain(d: Path) -> str:
    stl(d / "box.stl")
    return f"<mujoco>{MESH}{BODY}</mujoco>"


def meshdir(d: Path) -> str:
    stl(d / "meshes/box.stl")
    return f'<mujoco><compiler meshdir="meshes"/>{MESH}{BODY}</mujoco>'


def assetdir(d: Path) -> str:
    stl(d / "all/box.stl")
    png(d / "all/t.png")
    texture = '<asset><texture name="t" type="2d" file="t.png"/></asset>'
    return f'<mujoco><compiler assetdir="all"/>{MESH}{texture}{BODY}</mujoco>'


def outside(d: Path) -> str:
    stl(d.parent.parent / "meshes/box.stl")
    return f'<mujoco><compiler meshdir="../../meshes"/>{MESH}{BODY}</mujoco>'


def absolute_file(d: Path) -> str:
    file = stl(d.parent / "far/box.stl")
    return f'<mujoco><asset><mesh file="{file}"/></asset>{BODY}</mujoco>'


def absolute_meshdir(d: Path) -> str:
    file = stl(d.parent / "far/box.stl")
    return f'<mujoco><compiler meshdir="{file.parent}"/>{MESH}{BODY}</mujoco>'


def stripped(d: Path) -> str:
    stl(d / "meshes/box.stl")
    asset = MESH.replace("box.stl", "C:\\cad\\box.stl")
    return f'<mujoco><compiler meshdir="meshes" strippath="true"/>{asset}{BODY}</mujoco>'


def backslash(d: Path) -> str:
    stl(d / "meshes/box.stl")
    return f"<mujoco>{MESH.replace('box.stl', 'meshes' + chr(92) + 'box.stl')}{BODY}</mujoco>"


def included_first(d: Path) -> str:
    stl(d / "meshes/box.stl")
    put(d / "assets.xml", f'<mujocoinclude><compiler meshdir="elsewhere"/>{MESH}</mujocoinclude>')
    return f'<mujoco><include file="assets.xml"/><compiler meshdir="meshes"/>{BODY}</mujoco>'


def included_last(d: Path) -> str:
    stl(d / "meshes/box.stl", 0.1)
    stl(d / "other/box.stl", 0.2)
    put(d / "assets.xml", f'<mujocoinclude><compiler meshdir="other"/>{MESH}</mujocoinclude>')
    return f'<mujoco><compiler meshdir="meshes"/><include file="assets.xml"/>{BODY}</mujoco>'


def included_deep(d: Path) -> str:
    stl(d / "box.stl", 0.1)
    stl(d / "parts/box.stl", 0.2)
    put(d / "parts/deep/body.xml", f"<mujoco>{BODY}</mujoco>")
    put(d / "parts/all.xml", f'<mujoco><include file="deep/body.xml"/>{MESH}</mujoco>')
    return '<mujoco><include file="parts/all.xml"/></mujoco>'


def included_by_main(d: Path) -> str:
    """Two files of the name: the main model's folder comes first."""
    stl(d / "box.stl")
    put(d / "body.xml", f"<mujoco>{BODY}</mujoco>")
    put(d / "parts/body.xml", f"<mujoco>{BODY.replace('0 1 0', '1 0 0')}</mujoco>")
    put(d / "parts/all.xml", f'<mujoco><include file="body.xml"/>{MESH}</mujoco>')
    return '<mujoco><include file="parts/all.xml"/></mujoco>'


def same_names(d: Path) -> str:
    stl(d / "a/box.stl", 0.1)
    stl(d / "b/box.stl", 0.2)
    asset = '<asset><mesh name="box" file="a/box.stl"/><mesh name="other" file="b/box.stl"/></asset>'
    two = BODY.replace("</body>", '<geom type="mesh" mesh="other"/></body>')
    return f"<mujoco>{asset}{two}</mujoco>"


def pictures(d: Path) -> str:
    stl(d / "box.stl")
    for shade, side in enumerate("rludfb", start=3):
        png(d / f"textures/{side}.png", 10 * shade)
    sides = zip(("right", "left", "up", "down", "front", "back"), "rludfb", strict=True)
    cube = " ".join(f'file{side}="{file}.png"' for side, file in sides)
    textures = f'<texture name="t" type="cube" {cube}/><texture name="u" type="2d" file="r.png"/>'
    hfield = '<hfield name="h" file="textures/r.png" size="1 1 1 1"/>'
    ground = '<worldbody><geom type="hfield" hfield="h" pos="0 0 -3"/></worldbody>'
    return f'<mujoco><compiler texturedir="textures"/><asset>{textures}{hfield}</asset>{MESH}{ground}{BODY}</mujoco>'


def cloth(d: Path) -> str:
    stl(d / "box.stl")
    put(d / "meshes/sheet.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    flex = (
        '<worldbody><flexcomp type="mesh" name="f" file="meshes/sheet.obj" dim="2" mass="1" rigid="true"/></worldbody>'
    )
    return f"<mujoco>{MESH}{flex}{BODY}</mujoco>"


def attached(d: Path) -> str:
    stl(d / "parts/cad/box.stl", 0.2)
    stl(d / "cad/box.stl", 0.1)
    put(d / "parts/c.xml", f'<mujoco><compiler meshdir="cad" angle="radian"/>{MESH}{BODY}</mujoco>')
    return f'<mujoco><compiler meshdir="cad"/>{ATTACH.format("parts/c.xml")}</mujoco>'


def attached_by_included(d: Path) -> str:
    stl(d / "parts/box.stl")
    put(d / "parts/c.xml", f"<mujoco>{MESH}{BODY}</mujoco>")
    put(d / "parts/all.xml", f"<mujoco>{ATTACH.format('c.xml')}</mujoco>")
    return '<mujoco><include file="parts/all.xml"/></mujoco>'


def attached_twice_deep(d: Path) -> str:
    stl(d / "parts/box.stl")
    put(d / "parts/deep/g.xml", f'<mujoco><compiler meshdir=".."/>{MESH}{BODY}</mujoco>')
    part = '<worldbody><body name="a"><attach model="g" body="a" prefix="q_"/></body></worldbody>'
    put(d / "parts/c.xml", f'<mujoco><asset><model name="g" file="deep/g.xml"/></asset>{part}</mujoco>')
    return f"<mujoco>{ATTACH.format('parts/c.xml')}</mujoco>"


def no_files(d: Path) -> str:
    geom = '<geom name="g" size="0.1 0.0333333333333 0.123456789012" type="box"/>'
    return f"<mujoco><!-- kept -->{BODY[: BODY.index('<geom')]}{geom}</body></worldbody></mujoco>\0\0"


FIRST = (plain, meshdir, assetdir, outside, absolute_file, absolute_meshdir, stripped, backslash, included_first)
MORE = (included_last, included_deep, included_by_main, same_names, pictures, cloth, attached, attached_by_included)
LAYOUTS: dict[str, Callable[[Path], str]] = {f.__name__: f for f in (*FIRST, *MORE, attached_twice_deep, no_files)}
"""What makes the files of a model in a folder, and returns the model's text."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder for originals, deep in one that may be taken away."""
    folder = tmp_path / "home" / "robots" / "mine"
    folder.mkdir(parents=True)
    return folder


def copied_alone(model: str, home: Path, tmp_path: Path) -> mujoco.MjModel:
    """The compiled copy of a model whose originals are gone; nothing but the run's folder was written."""
    before = snapshot(tmp_path)
    copied = copy_model(model, tmp_path / "run" / "robot")
    after = snapshot(tmp_path)
    assert {path: data for path, data in after.items() if tmp_path / "run" not in path.parents} == before
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = tmp_path / "moved" / copied.relative_to(tmp_path / "run")
    again = copy_model(str(moved), tmp_path / "again")  # a copy of a copy
    model_of_it = open_model(str(moved)).spec.compile()
    same(model_of_it, open_model(str(again)).spec.compile())
    return model_of_it


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_mjcf_is_copied_whole_whatever_its_files_lie(layout, home, tmp_path):
    model = put(home / "robot.xml", LAYOUTS[layout](home))
    reference = mujoco.MjModel.from_xml_path(str(model))
    same(reference, open_model(str(model)).spec.compile())
    same(reference, copied_alone(str(model), home, tmp_path))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_function_returns_is_copied_whole(layout, home, tmp_path):
    model = put(home / "robot.xml", LAYOUTS[layout](home))
    put(home / "make.py", f"import mujoco\ndef robot():\n    return mujoco.MjSpec.from_file({str(model)!r})\n")
    reference = mujoco.MjModel.from_xml_path(str(model))
    same(reference, copied_alone(f"{home}/make.py:robot", home, tmp_path), 1e-5)


def test_a_copy_without_files_is_the_file_itself(home, tmp_path):
    model = put(home / "robot.xml", no_files(home))
    assert copy_model(str(model), tmp_path / "run").read_bytes() == model.read_bytes()


def test_a_relative_path_reads_what_an_absolute_one_does(home, tmp_path, monkeypatch):
    put(home / "robot.xml", included_deep(home))
    reference = open_model(str(home / "robot.xml")).spec.compile()
    monkeypatch.chdir(home.parent)
    same(reference, open_model("mine/robot.xml").spec.compile())
    copied = copy_model("mine/robot.xml", tmp_path / "run")
    same(reference, open_model(str(copied)).spec.compile())


CHILD = """<mujoco model="c"><compiler angle="{angle}" eulerseq="{order}" meshdir="cad"/>
<default><default class="leg"><joint ref="{r}" range="{low} {high}"/></default></default>
<asset><mesh name="box" file="box.stl"/></asset>
<worldbody><body name="b" euler="{r} {r} {low}"><joint name="j" class="leg" axis="0 1 0" springref="{r}" stiffness="3"/>
  <geom name="g" size=".1 .2 .3" type="box" euler="{r} {low} {high}"/><geom type="mesh" mesh="box"/>
  <site name="s" axisangle="0 1 0 {r}"/></body></worldbody>
<actuator><position name="p" joint="j" kp="20" inheritrange="1"/></actuator>
<equality><joint joint1="j" polycoef="0.1 0 0 0 0" active="false"/></equality>
<keyframe><key name="k" qpos="0.2"/></keyframe></mujoco>"""
PARENT = """<mujoco model="p"><compiler angle="{angle}" eulerseq="{order}" meshdir="cad"/>
<asset><mesh name="m" file="box.stl"/></asset>
<worldbody><body name="base" euler="{r} {r} {low}"><freejoint/><geom type="mesh" mesh="m"/><site name="mount"/></body>
</worldbody></mujoco>"""
MAKE = """
import mujoco
def robot():
    parent = mujoco.MjSpec.from_file({parent!r})
    child = {child}
    parent.attach(child, site=parent.site("mount"), prefix="c_")
    return parent
"""


def in_units(text: str, angle: str, order: str) -> str:
    unit = 1.0 if angle == "degree" else math.pi / 180
    return text.format(angle=angle, order=order, r=20 * unit, low=-40 * unit, high=50 * unit)


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize(
    ("parent", "child"),
    list(itertools.product([("degree", "xyz"), ("radian", "ZYX")], [("degree", "zyx"), ("radian", "xyz")])),
)
def test_units_and_folders_of_attached_specifications(parent, child, memory, home, tmp_path):
    stl(home / "cad/box.stl", 0.1)
    data = stl(home / "part/cad/box.stl", 0.2).read_bytes()
    put(home / "p.xml", in_units(PARENT, *parent))
    text = in_units(CHILD, *child)
    put(home / "part/c.xml", text)
    given = (
        f"mujoco.MjSpec.from_string({text!r}, assets={{'cad/box.stl': {data!r}}})"
        if memory
        else (f"mujoco.MjSpec.from_file({str(home / 'part/c.xml')!r})")
    )
    code = MAKE.format(parent=str(home / "p.xml"), child=given)
    put(home / "make.py", code)
    scope: dict = {}
    exec(code, scope)
    reference = scope["robot"]().compile()
    np.testing.assert_allclose(reference.joint("c_j").range, np.radians([-40, 50]))
    same(reference, copied_alone(f"{home}/make.py:robot", home, tmp_path), 1e-5)


def test_servos_that_are_added_take_their_joint_s_own_unit(home):
    """Of an attached model in radians, in one in degrees, and the other way."""
    for parent, child in (("degree", "radian"), ("radian", "degree")):
        stl(home / "part/cad/box.stl")
        text = in_units(CHILD, child, "xyz")
        put(home / "part/c.xml", text[: text.index("<actuator>")] + "</mujoco>")
        attach = '<asset><model name="c" file="part/c.xml"/></asset><worldbody><attach model="c" body="b" prefix="c_"/>'
        put(home / "robot.xml", f'<mujoco><compiler angle="{parent}"/>{attach}</worldbody></mujoco>')
        put(
            home / "f.yaml",
            "robot: {actuators: {kind: position, kp: 9}}\nreward: {home_cost: 1}\ndistribution:\n"
            "  - {name: m, target: c_b, quantity: mass, operation: scale, distribution: uniform, range: [0.5, 1]}\n",
        )
        robot, _ = check_robot(str(home / "robot.xml"), str(home / "f.yaml"))
        np.testing.assert_allclose(robot.model.actuator("c_j").ctrlrange, np.radians([-40, 50]))


def test_what_mjcf_cannot_say_of_an_attached_part_is_refused_by_name(home):
    """The part's least mass is a setting of its own file."""
    body = '<body name="b"><joint/><geom name="g" size=".1"/></body>'
    text = f'<mujoco><compiler boundmass="9"/><worldbody>{body}</worldbody></mujoco>'
    stl(home / "cad/box.stl")
    put(home / "p.xml", in_units(PARENT, "degree", "xyz"))
    put(home / "make.py", MAKE.format(parent=str(home / "p.xml"), child=f"mujoco.MjSpec.from_string({text!r})"))
    with pytest.raises(
        ValueError, match=r"cannot be written out as MJCF: there body_mass of body 'c_b' is 4.18879 and not 9"
    ):
        open_model(f"{home}/make.py:robot")


@pytest.mark.parametrize(
    "setting",
    ['inertiafromgeom="true"', 'boundmass="9"', 'boundinertia="9"', 'balanceinertia="true"', 'inertiagrouprange="1 2"'],
)
def test_inertias_by_an_attached_file_s_own_settings_are_refused(setting, home):
    """They would be made anew, by its compiler, after every edit."""
    inertial = "" if "group" in setting else '<inertial pos="0 0 0" mass="7" diaginertia="1 1 1"/>'
    body = f'<body name="a"><joint/>{inertial}<geom size=".1" group="1"/></body>'
    put(home / "c.xml", f"<mujoco><compiler {setting}/><worldbody>{body}</worldbody></mujoco>")
    model = put(home / "robot.xml", f"<mujoco>{ATTACH.format('c.xml')}</mujoco>")
    with pytest.raises(
        ValueError, match=f"body 'p_a' is attached from a model whose compiler sets {setting.split('=')[0]} "
    ):
        open_model(str(model))
    put(model, f"<mujoco><compiler {setting}/>{ATTACH.format('c.xml')}</mujoco>")
    same(mujoco.MjModel.from_xml_path(str(model)), open_model(str(model)).spec.compile())


@pytest.mark.parametrize("angle", ["degree", "radian"])
@pytest.mark.parametrize("order", ["xyz", "ZYX"])
def test_an_orientation_can_be_edited_in_whatever_notation_it_is(angle, order, home):
    """Of a model, of a part attached from one in other units, in a frame."""
    turned = ("euler", "1 .5 .2"), ("axisangle", "1 2 3 .4"), ("zaxis", "1 2 3"), ("xyaxes", "1 0 0 0 1 1")
    geoms = "".join(f'<geom name="{kind}" size=".1 .2 .3" type="box" {kind}="{value}"/>' for kind, value in turned)
    inertial = '<inertial pos="0 0 0" mass="1" diaginertia="2 2.1 2.2" euler="1 .5 .2"/>'
    framed = '<frame euler="1 .5 .2"><site axisangle="1 2 3 .4"/></frame>'
    body = f'<body name="a" euler="1 .5 .2"><joint/>{inertial}{geoms}{framed}</body>'
    other = "radian" if angle == "degree" else "degree"
    put(home / "c.xml", f'<mujoco><compiler angle="{other}"/><worldbody>{body}</worldbody></mujoco>')
    compiler = f'<compiler angle="{angle}" eulerseq="{order}"/>'
    model = put(home / "robot.xml", f"<mujoco>{compiler}<worldbody>{body}</worldbody>{ATTACH.format('c.xml')}</mujoco>")
    spec = open_model(str(model)).spec
    same(mujoco.MjModel.from_xml_path(str(model)), spec.compile())
    for element in (*spec.geoms, *spec.bodies[1:]):
        element.quat = (0.6, 0.0, 0.8, 0.0)
        compiled = spec.compile()
        view = compiled.geom(element.name) if isinstance(element, mujoco.MjsGeom) else compiled.body(element.name)
        np.testing.assert_allclose(view.quat, (0.6, 0.0, 0.8, 0.0))


LINK = """<link name="{name}"><inertial><mass value="1"/>
<inertia ixx="{ixx}" iyy=".01" izz=".01" ixy="0" ixz="0" iyz="0"/></inertial>{parts}</link>"""
JOINT = """<joint name="{child}_joint" type="{kind}"><parent link="{parent}"/><child link="{child}"/><axis xyz="0 1 0"/>
<limit lower="-1" upper="1" effort="3" velocity="1"/></joint>"""


def urdf(*parts: str, compiler: str = "", name: str = "bot", ixx: float = 0.01, more: str = "") -> str:
    extension = f"<mujoco><compiler {compiler}/></mujoco>" if compiler else ""
    links = LINK.format(name="base", ixx=0.01, parts="") + LINK.format(name="arm", ixx=ixx, parts="".join(parts))
    joint = JOINT.format(child="arm", parent="base", kind="revolute")
    return f'<robot name="{name}">{extension}{links}{joint}{more}</robot>'


def part(mesh: str, kind: str = "collision", scale: str = "1 1 1") -> str:
    return f'<{kind}><geometry><mesh filename="{mesh}" scale="{scale}"/></geometry></{kind}>'


def shape(text: str, kind: str = "visual") -> str:
    return f"<{kind}><geometry>{text}</geometry></{kind}>"


def edges(model: mujoco.MjModel) -> list[float]:
    """Edge of the tetrahedron (see stl) of each mesh geom, by its volume's cube root, in the order of the geoms."""
    found = []
    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_MESH):
        mesh = model.mesh(model.geom_dataid[geom])
        vertices = model.mesh_vert[mesh.vertadr[0] : mesh.vertadr[0] + mesh.vertnum[0]]
        gaps = np.linalg.norm(vertices[:, None] - vertices[None], axis=-1)
        found.append(round(float(np.min(gaps[gaps > 0])), 6))
    return found


class TestUrdf:
    @pytest.mark.parametrize(
        ("compiler", "mesh"),
        [
            ('meshdir="../cad"', "box.stl"),
            ('meshdir="../cad"', "sub/box.stl"),
            ('assetdir="../cad"', "box.stl"),
            ('assetdir="../cad" meshdir="sub"', "box.stl"),
            ('meshdir="../cad" strippath="true"', "package://any/where/box.stl"),
            ('strippath="true"', "package://any/where/box.stl"),
            ('balanceinertia="true"', "box.stl"),
            ("", "box.stl"),
            ("", "sub/box.stl"),
            ("", "../cad/box.stl"),
        ],
    )
    def test_meshes_are_mujoco_s(self, compiler, mesh, home, tmp_path):
        for edge, place in enumerate(("urdf", "urdf/sub", "cad", "cad/sub"), start=1):
            stl(home / place / "box.stl", edge / 10)
        ixx = 0.09 if "balance" in compiler else 0.01
        model = put(home / "urdf/bot.urdf", urdf(part(mesh), compiler=compiler, ixx=ixx))
        kept = put(home / "urdf/kept.urdf", urdf(part(mesh), compiler=f'{compiler} fusestatic="false"', ixx=ixx))
        reference = mujoco.MjModel.from_xml_path(str(kept))
        same(reference, open_model(str(model)).spec.compile())
        same(reference, copied_alone(str(model), home, tmp_path))

    def test_two_files_of_one_name_are_two_meshes(self, home, tmp_path):
        for edge, place in enumerate("ab", start=1):
            stl(home / place / "box.stl", edge / 10)
        model = put(home / "bot.urdf", urdf(part("a/box.stl"), part("b/box.stl"), part("a/box.stl", scale="3 3 3")))
        assert edges(open_model(str(model)).spec.compile()) == [0.1, 0.2, 0.3]
        assert edges(copied_alone(str(model), home, tmp_path)) == [0.1, 0.2, 0.3]

    @pytest.mark.parametrize("named_by", ["folder", "package.xml"])
    @pytest.mark.parametrize("order", ["ab", "ba"])
    def test_a_package_s_mesh_is_that_package_s(self, named_by, order, home, tmp_path):
        """Two packages with a mesh of one path; the URDF is in one of them, or in the other."""
        for edge, name in enumerate("ab", start=1):
            folder = home / (f"pkg_{name}" if named_by == "folder" else f"checkout_{3 - edge}")
            stl(folder / "meshes/box.stl", edge / 10)
            if named_by == "package.xml":
                put(folder / "package.xml", f"<package><name>pkg_{name}</name></package>")
            put(folder / "urdf/bot.urdf", urdf(*(part(f"package://pkg_{n}/meshes/box.stl") for n in order)))
        expected = [{"a": 0.1, "b": 0.2}[name] for name in order]
        for folder in sorted(home.iterdir()):
            assert edges(open_model(str(folder / "urdf/bot.urdf")).spec.compile()) == expected
        assert edges(copied_alone(str(max(home.iterdir()) / "urdf/bot.urdf"), home, tmp_path)) == expected

    def test_a_folder_of_the_package_s_name_is_taken_where_no_package_xml_has_it(self, home):
        stl(home / "pkg-data/meshes/box.stl", 0.1)
        put(home / "pkg-data/package.xml", "<package><name>pkg_descriptions</name></package>")
        model = put(home / "pkg-data/robots/bot/urdf/bot.urdf", urdf(part("package://pkg-data/meshes/box.stl")))
        assert edges(open_model(str(model)).spec.compile()) == [0.1]
        stl(home / "other/meshes/box.stl", 0.2)
        put(home / "other/package.xml", "<package><name>pkg-data</name></package>")
        assert edges(open_model(str(model)).spec.compile()) == [0.2]

    @pytest.mark.parametrize("told", [False, True])
    def test_a_package_that_is_not_there_is_no_other_one(self, told, home):
        stl(home / "pkg_a/meshes/box.stl")
        if told:
            put(home / "pkg_a/package.xml", "<package><name>bot_description</name></package>")
        wanted = "package://pkg_b/meshes/box.stl"
        model = put(home / "pkg_a/urdf/bot.urdf", urdf(part(wanted)))
        with pytest.raises(
            ValueError, match=r"collision mesh 'package://pkg_b/meshes/box.stl' of link 'arm' is missing.*'pkg_b'"
        ):
            open_model(str(model))
        model = put(
            home / "pkg_a/urdf/bot.urdf", urdf(part(wanted, "visual"), shape('<box size=".1 .1 .1"/>', "collision"))
        )
        source = open_model(str(model))
        assert source.spec.compile().nmesh == 0
        assert "1 visuals: mesh 'package://pkg_b/meshes/box.stl' of arm" in dict(source.remarks)["left out"]

    def test_a_robot_s_own_package_may_be_called_otherwise_where_nothing_tells(self, home):
        stl(home / "download-main/meshes/box.stl", 0.2)
        text = urdf(part("package://bot_description/meshes/box.stl"))
        model = put(home / "download-main/urdf/bot.urdf", text)
        assert edges(open_model(str(model)).spec.compile()) == [0.2]
        put(home / "download-main/package.xml", "<package><name>other</name></package>")
        with pytest.raises(ValueError, match="bot_description"):
            open_model(str(model))

    @pytest.mark.parametrize(
        ("visual", "why"),
        [
            (part("no_such.stl", "visual"), "is missing"),
            (part("shell.dae", "visual"), "is none of .stl, .obj, .msh"),
            (part("text.stl", "visual"), "MuJoCo cannot read it"),
            (part("empty.stl", "visual"), "MuJoCo cannot read it"),
            (part("box.stl", "visual", "0 0 0"), "has no size"),
            (shape('<box size="0 0 0"/>'), "box of arm: has no size"),
            (shape('<box size=".1 0 .1"/>'), "box of arm: has no size"),
            (shape('<cylinder radius="0" length="0.0"/>'), "cylinder of arm: has no size"),
            (shape('<sphere radius="0"/>'), "sphere of arm: has no size"),
        ],
    )
    def test_pictures_that_cannot_be_shown_are_left_out_and_named(self, visual, why, home, tmp_path):
        stl(home / "box.stl")
        put(home / "shell.dae", "<COLLADA/>")
        put(home / "text.stl", "solid nothing")
        (home / "empty.stl").write_bytes(b"\0" * 84)
        model = put(home / "bot.urdf", urdf(visual, part("box.stl", "visual"), part("box.stl")))
        robot, _ = check_robot(str(model))
        told = next(f.value for f in robot.findings if f.subject == "left out")
        assert told.startswith("1 visuals: ") and why in told and " of arm" in told
        assert robot.visual.compile().ngeom == 2  # the other picture is kept
        # MuJoCo by itself leaves all pictures out
        np.testing.assert_allclose(
            robot.model.body_mass,
            mujoco.MjModel.from_xml_path(str(model)).body_mass.sum() * np.array([0, 1, 1])
            if robot.model.nbody == 3
            else 0,
        )

    def test_a_copy_looks_for_nothing_where_it_is(self, home, tmp_path):
        """A picture that was left out stays so, whatever package is beside the run."""
        visual = part("package://pkg_b/meshes/box.stl", "visual")
        model = put(home / "bot.urdf", urdf(visual, shape('<box size=".1 .1 .1"/>', "collision")))
        copied = copy_model(str(model), tmp_path / "run" / "robot")
        stl(tmp_path / "run" / "pkg_b" / "meshes" / "box.stl")
        source = open_model(str(copied))
        assert source.spec.compile().nmesh == 0 and not source.remarks

    def test_what_touches_is_not_left_out(self, home):
        for text, why in (("no_such.stl", "is missing"), ("shell.dae", "is none of")):
            put(home / "shell.dae", "<COLLADA/>")
            model = put(home / "bot.urdf", urdf(part(text)))
            with pytest.raises(
                ValueError, match=f"collision mesh '{text}' of link 'arm' {why}.*box, cylinder or sphere"
            ):
                open_model(str(model))
        model = put(home / "bot.urdf", urdf(shape('<sphere radius="0"/>', "collision")))
        with pytest.raises(ValueError, match="collision sphere of link 'arm' has no size"):
            open_model(str(model))

    def test_fixed_links_are_bodies_and_that_is_said(self, home):
        toe = LINK.format(name="toe", ixx=0.01, parts="") + JOINT.format(child="toe", parent="arm", kind="fixed")
        model = put(home / "bot.urdf", urdf(shape('<box size=".1 .1 .1"/>', "collision"), more=toe))
        source = open_model(str(model))
        assert [b.name for b in source.spec.bodies] == ["world", "base", "arm", "toe"]
        assert "toe" in dict(source.remarks)["fixed links"]

    def test_discarded_pictures_stay_discarded(self, home):
        stl(home / "box.stl")
        model = put(home / "bot.urdf", urdf(part("box.stl", "visual"), compiler='discardvisual="true"'))
        assert open_model(str(model)).spec.compile().ngeom == 0


@pytest.mark.parametrize("tail", [b"\0", b"\n\0\0"])
@pytest.mark.parametrize("kind", ["mjcf", "urdf", "included"])
def test_nul_bytes_at_the_end_are_nothing(kind, tail, home, tmp_path):
    box = shape('<box size=".1 .1 .1"/>', "collision")
    texts = {"mjcf": no_files(home).rstrip("\0"), "urdf": urdf(box), "included": plain(home)}
    path = home / ("bot.urdf" if kind == "urdf" else "robot.xml")
    path.write_text(texts[kind])
    if kind == "included":
        (home / "i.xml").write_bytes(f"<mujoco>{MESH}</mujoco>".encode() + tail)
        path.write_text(f'<mujoco><include file="i.xml"/>{BODY}</mujoco>')
        reference = open_model(str(path)).spec.compile()
    else:
        reference = open_model(str(path)).spec.compile()
        path.write_bytes(texts[kind].encode() + tail)
    same(reference, open_model(str(path)).spec.compile())
    same(reference, copied_alone(str(path), home, tmp_path))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "bot.urdf.xacro",
            "<robot name='b'/>",
            "bot.urdf.xacro is written in xacro; run xacro first: xacro bot.urdf.xacro >",
        ),
        ("bot.urdf", "<robot xmlns:xacro='http://ros.org/wiki/xacro'><xacro:arm/></robot>", "run xacro first"),
        ("bot.urdf", "<robot><xacro:arm/></robot>", "run xacro first"),
        ("robot.xml", "<mujoco>\n<worldbody>\0</worldbody></mujoco>", "robot.xml has a NUL byte in line 2"),
        ("robot.xml", "<mujoco><worldbody></mujoco>", "is not valid XML"),
    ],
)
def test_what_is_no_model_is_named_with_what_to_do(name, text, message, home):
    put(home / name, text)
    with pytest.raises(ValueError, match=message) as caught:
        open_model(str(home / name))
    assert "\n" not in str(caught.value)


UNFIT = {
    "a model within itself": (
        '<asset><model name="c" file="robot.xml"/></asset>',
        "robot.xml attaches parts of itself",
    ),
    "two models within each other": (
        '<asset><model name="c" file="other.xml"/></asset>',
        "robot.xml attaches parts of itself by <model>",
    ),
    "a file that includes itself": ('<include file="robot.xml"/>', "robot.xml is included twice"),
    "a file that is included twice": ('<include file="i.xml"/><include file="./i.xml"/>', "i.xml is included twice"),
    "no file to include": ('<include file="no.xml"/>', "the file 'no.xml' that robot.xml includes is missing"),
    "a pipe to include": ('<include file="pipe"/>', "the file 'pipe' that robot.xml includes is missing"),
    "no model": ('<asset><model name="c" file="no.xml"/></asset>', "the file of <model> 'c' is missing"),
    "no mesh": ('<asset><mesh file="no.stl"/></asset>', "the file of mesh 'no' is missing (.*/mine/no.stl)"),
    "a pipe for a mesh": ('<asset><mesh name="m" file="pipe"/></asset>', "the file of mesh 'm' is missing"),
    "no texture": ('<asset><texture type="2d" file="no.png"/></asset>', "the file of texture 'no' is missing"),
    "elements in elements": ("<worldbody>" + "<body>" * 9000 + "</body>" * 9000 + "</worldbody>", "robot.xml: "),
}


@pytest.mark.parametrize("case", UNFIT)
def test_files_of_a_model_that_cannot_be_are_named(case, home):
    """MuJoCo would wait for some, and crash of others."""
    os.mkfifo(home / "pipe")
    put(home / "i.xml", "<mujoco><worldbody/></mujoco>")
    put(home / "other.xml", '<mujoco><asset><model name="d" file="robot.xml"/></asset></mujoco>')
    text, message = UNFIT[case]
    model = put(home / "robot.xml", f"<mujoco>{text}</mujoco>")
    with pytest.raises(ValueError, match=message) as caught:
        open_model(str(model))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_comments_are_what_mujoco_takes_for_them(home, tmp_path):
    stl(home / "box.stl")
    model = put(home / "robot.xml", f"<mujoco><!-- one -- and two ---->{MESH}<!-- kept -->{BODY}</mujoco>")
    same(mujoco.MjModel.from_xml_path(str(model)), copied_alone(str(model), home, tmp_path))


@pytest.mark.parametrize("kind", ["mjcf", "urdf"])
def test_a_folder_above_is_the_one_above_by_the_letter(kind, home, tmp_path):
    """As MuJoCo takes it, where the folder is a link to another place."""
    stl(home / "meshes/box.stl", 0.1)
    stl(tmp_path / "home/far/meshes/box.stl", 0.2)
    texts = {
        "mjcf": f'<mujoco><compiler meshdir="../meshes"/>{MESH}{BODY}</mujoco>',
        "urdf": urdf(part("../meshes/box.stl")),
    }
    put(tmp_path / "home/far/place/robot.xml", texts[kind])
    (home / "link").symlink_to(tmp_path / "home/far/place")
    model = home / "link/robot.xml"
    reference = mujoco.MjModel.from_xml_path(str(model))
    assert edges(reference) == edges(open_model(str(model)).spec.compile()) == [0.1]
    assert edges(copied_alone(str(model), home, tmp_path)) == [0.1]


@pytest.mark.parametrize(
    "comment",
    ["", "<!-- <xacro:leg/> -->", "<!-- once:\n <xacro:if value='${a}'>\n  <link xacro:x='1'/> </xacro:if> -->"],
)
def test_a_urdf_that_xacro_wrote_is_a_urdf(comment, home):
    text = urdf(shape('<box size=".1 .1 .1"/>', "collision")).replace("<robot ", "<robot xmlns:xacro='http://x' ")
    text = text.replace("</robot>", f"{comment}</robot>")
    assert open_model(str(put(home / "bot.urdf", text))).spec.compile().nbody == 3


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (
            '<mesh filename="shell.dae"/>',
            "is none of .stl, .obj, .msh; convert it to one of these, or give the link a box",
        ),
        ('<mesh filename="no.stl"/>', "is missing .*; put it where it is looked for, or give the link a box"),
        ('<mesh filename="shell.dae" scale="1 0 1"/>', "has no size; give the link a box"),
        ('<box size="0 1 1"/>', "has no size; give the link a box"),
    ],
)
def test_what_touches_and_cannot_be_read_is_named_with_a_remedy_that_helps(geometry, message, home):
    put(home / "shell.dae", "<COLLADA/>")
    with pytest.raises(ValueError, match=message):
        open_model(str(put(home / "bot.urdf", urdf(shape(geometry, "collision")))))


def test_two_copies_do_not_change_each_other(home, tmp_path):
    stl(home.parent / "meshes/box.stl", 0.1)
    model = put(home / "robot.xml", f'<mujoco><compiler meshdir="../meshes"/>{MESH}{BODY}</mujoco>')
    put(home / "make.py", f"import mujoco\ndef robot():\n    return mujoco.MjSpec.from_file({str(model)!r})\n")
    for name in (str(model), f"{home}/make.py:robot"):
        stl(home.parent / "meshes/box.stl", 0.1)
        first = copy_model(name, tmp_path / "runs" / Path(name).suffix / "a" / "robot")
        mass = open_model(str(first)).spec.compile().body_mass[1]
        stl(home.parent / "meshes/box.stl", 0.2)
        second = copy_model(name, tmp_path / "runs" / Path(name).suffix / "b" / "robot")
        assert open_model(str(first)).spec.compile().body_mass[1] == mass
        assert open_model(str(second)).spec.compile().body_mass[1] == pytest.approx(8 * mass)
