"""What `metarl robot init` writes for a robot at hand, and the reference of all that a file can say."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import mujoco
import numpy as np
import pytest
import yaml

from metarl.cli.app import main
from metarl.envs.batch import BatchedEnv
from metarl.envs.declared.observations import OBSERVATIONS
from metarl.envs.declared.rewards import REWARDS
from metarl.envs.own_robot.check_run import at_home, rest
from metarl.envs.own_robot.check_tasks import neutral_end
from metarl.envs.own_robot.declaration import Declaration, read_declaration
from metarl.envs.own_robot.family import check_robot
from metarl.envs.own_robot.first_file import first_file
from metarl.envs.own_robot.name_patterns import by_pattern
from metarl.envs.own_robot.quantities import QUANTITIES
from metarl.envs.own_robot.reference import markdown, reference, schema
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family
from tests.envs.own_robot.families import written
from tests.envs.own_robot.models import GYMNASIUM
from tests.envs.test_robot_task import MOTORS, TABLE

ARM = """<mujoco model="arm"><compiler angle="radian"/><worldbody><body name="link1" pos="0 0 .1">
  <joint name="turn" axis="0 0 1" range="-3 3"/><geom type="capsule" size=".04" fromto="0 0 0 0 0 .3" mass="2"/>
  <body name="link2" pos="0 0 .35"><joint name="lift" axis="0 1 0" range="-1.5 1.5"/>
    <geom type="capsule" size=".03" fromto=".05 0 0 .35 0 0" mass="1"/>
    <body name="hand" pos=".42 0 0"><joint name="bend" axis="0 1 0" range="-2 2"/>
      <geom type="capsule" size=".02" fromto=".02 0 0 .15 0 0" mass=".3"/></body></body></body></worldbody></mujoco>"""
LIMB = """<link name="{n}_hip"/><link name="{n}_thigh"/><link name="{n}_calf"/>
  <joint name="{n}_hip_joint" type="revolute"><parent link="trunk"/><child link="{n}_hip"/><origin xyz="{x} {y} 0"/>
    <axis xyz="1 0 0"/><limit lower="-0.8" upper="0.8" effort="30" velocity="20"/></joint>
  <joint name="{n}_thigh_joint" type="revolute"><parent link="{n}_hip"/><child link="{n}_thigh"/>
    <axis xyz="0 1 0"/><limit lower="-1" upper="2" effort="30" velocity="20"/></joint>
  <joint name="{n}_calf_joint" type="revolute"><parent link="{n}_thigh"/><child link="{n}_calf"/>
    <origin xyz="0 0 -.2"/><axis xyz="0 1 0"/><limit lower="-2.5" upper="-0.5" effort="30" velocity="20"/></joint>"""
PARTS = {"trunk": (6, ".4 .2 .1", 0), "hip": (0.5, ".05 .05 .05", 0), "thigh": (0.8, ".03 .03 .2", -0.1)}
PARTS |= {"calf": (0.2, ".02 .02 .2", -0.1)}
LINK = """<link name="{name}"><inertial><origin xyz="0 0 {z}"/><mass value="{mass}"/>
  <inertia ixx=".01" iyy=".01" izz=".01" ixy="0" ixz="0" iyz="0"/></inertial>
  <collision><origin xyz="0 0 {z}"/><geometry><box size="{size}"/></geometry></collision></link>"""
SHOULDER = """<mujoco model="wrist"><compiler angle="radian"/><worldbody><body name="l1" pos="0 0 .5">
  <joint name="j1" axis="0 0 1" range="-1 1"/><geom type="sphere" size=".05" mass="1"/>
  <body name="l2"><joint name="j2" axis="0 1 0" range="-1 1"/>
    <geom type="capsule" size=".02" fromto="0 0 0 .3 0 0" mass=".5"/>{site}</body></body></worldbody></mujoco>"""
PLANAR = """<mujoco model="planar"><compiler angle="radian"/><worldbody><body name="l1" pos="0 0 .1">
  <joint name="j1" axis="0 0 1" range="-1 1"/><geom type="capsule" size=".02" fromto="0 0 0 .3 0 0" mass="1"/>
  <body name="l2" pos=".3 0 0"><joint name="j2" axis="0 0 1" range="-1 1"/>
    <geom type="capsule" size=".02" fromto="0 0 0 .3 0 0" mass=".5"/></body></body></worldbody>
  <actuator><motor joint="j1" ctrlrange="-1 1"/><motor joint="j2" ctrlrange="-1 1"/></actuator></mujoco>"""
GUIDED = """<mujoco model="guided"><compiler angle="radian"/><worldbody><geom name="floor" type="plane" size="0 0 1"/>
  <body name="trunk" pos="0 0 {z}"><joint name="x" type="slide" axis="1 0 0"/>
    <joint name="z" type="slide" axis="{axis}" {limits}/><geom type="box" size=".2 .1 .05" mass="5"/>
    <body name="leg"><joint name="knee" axis="0 1 0" range="-1 1"/>
      <geom name="sole" size=".05" pos="0 0 -.4" mass=".5"/></body></body></worldbody>
  <actuator><motor joint="knee" ctrlrange="-50 50"/></actuator></mujoco>"""
DOCS = Path(__file__).parents[2] / "docs" / "robots.md"


def family_from(folder: Path, model: str):
    path = written(folder, model)
    text, found = first_file(path)
    file = folder / "first.yaml"
    file.write_text(text)
    return make_family(RobotSettings(path, str(file))), found, text


def test_a_legged_robot_with_torque_motors_stands_by_servos_that_carry_it(tmp_path):
    family, found, text = family_from(tmp_path, MOTORS)
    assert found.stands and "in place of torque motors" in text
    assert {"track_velocity", "air_time", "fall"} <= set(family.rewards)
    assert family.action_scale == 0.25 and "base_velocity" not in family.observation
    env = BatchedEnv(family, 1, 3, 1)
    env.reset([np.random.default_rng(0)])
    ended = [env.step(np.zeros((1, 3, family.action_size))).terminated for _ in range(100)]
    assert not np.any(ended) and (env.simulation.batch.qpos[:, 2] > 0.2).all()


def test_a_robot_with_servos_keeps_them_and_its_bent_pose_is_within_limits(tmp_path):
    family, found, text = family_from(tmp_path, TABLE)
    assert "actuators:" not in text and found.hints.pose
    model = family.compile(family.neutral())
    for name, angle in found.hints.pose.items():
        low, high = model.joint(name).range
        assert low < angle < high


def test_an_arm_is_to_reach_places_that_it_can_reach(tmp_path):
    family, found, _ = family_from(tmp_path, ARM)
    assert found.hints.actuators is not None and set(family.rewards) == {"reach", "distance", "action_rate"}
    model = family.compile(family.neutral())
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    reachable = []
    for _ in range(20_000):
        data.qpos[:] = rng.uniform(*model.jnt_range.T)
        mujoco.mj_kinematics(model, data)
        reachable.append(data.body("hand").xpos.copy())
    for task in family.sample(20, np.random.default_rng(1)):
        goal = [task.values[f"goal_{a}"] for a in "xyz"]
        assert np.linalg.norm(np.array(reachable) - goal, axis=1).min() < 0.25


def quadruped() -> str:
    """A URDF of four legs of three joints; the calves of its right legs are lighter than those of its left."""
    places = {"FR": (0.18, -0.1), "FL": (0.18, 0.1), "RR": (-0.18, -0.1), "RL": (-0.18, 0.1)}
    limbs = "".join(LIMB.format(n=name, x=x, y=y) for name, (x, y) in places.items())
    for part, (mass, size, z) in PARTS.items():
        for name in ("trunk",) if part == "trunk" else [f"{leg}_{part}" for leg in places]:
            link = LINK.format(name=name, mass=mass, size=size, z=z)
            limbs = link + limbs if part == "trunk" else limbs.replace(f'<link name="{name}"/>', link)
    return f'<robot name="dog">{limbs}</robot>'


def lowest(model: mujoco.MjModel, qpos: np.ndarray) -> float:
    """The least distance between a robot's geoms and the floor, m."""
    data = mujoco.MjData(model)
    data.qpos = qpos
    mujoco.mj_kinematics(model, data)
    own = [g for g in range(model.ngeom) if model.geom_bodyid[g]]
    return min(mujoco.mj_geomDistance(model, data, model.geom("floor").id, g, 10.0, None) for g in own)


def crawler(legs: int, more: str = "") -> str:
    """A flat body with legs of three joints all around, knees up, driven by torque motors. more: a body on it."""
    limbs, motors = "", ""
    for i in range(legs):
        angle = 2 * np.pi * (i + 0.5) / legs
        place = f"{0.15 * np.cos(angle):.4f} {0.15 * np.sin(angle):.4f} 0"
        limbs += f'''<body name="coxa{i}" pos="{place}" euler="0 0 {angle:.4f}">
          <joint name="coxa{i}" axis="0 0 1" range="-.6 .6"/><geom size=".02" mass=".1"/>
          <body name="femur{i}" pos=".04 0 0"><joint name="femur{i}" axis="0 1 0" range="-1.2 1.2"/>
            <geom type="capsule" size=".015" fromto="0 0 0 .1 0 .05" mass=".15"/>
            <body name="tibia{i}" pos=".1 0 .05"><joint name="tibia{i}" axis="0 1 0" range="-1.2 1.2"/>
              <geom name="tip{i}" type="capsule" size=".012" fromto="0 0 0 .05 0 -.18" mass=".1"/></body></body>
          </body>'''
        motors += "".join(f'<motor joint="{part}{i}" ctrlrange="-8 8"/>' for part in ("coxa", "femur", "tibia"))
    return f"""<mujoco model="crawler"><compiler angle="radian"/><worldbody>
      <geom name="floor" type="plane" size="0 0 1"/><body name="trunk" pos="0 0 .3"><freejoint/>
      <geom type="cylinder" size=".15 .03" mass="2"/>{limbs}{more}</body></worldbody>
      <actuator>{motors}</actuator></mujoco>"""


class TestHeight:
    @pytest.mark.thorough
    def test_a_robot_that_its_model_starts_in_the_air_stands_on_the_ground(self, tmp_path, capsys):
        model = str(GYMNASIUM / "ant.xml")
        text, found = first_file(model)
        file = tmp_path / "ant.yaml"
        file.write_text(text)
        assert found.stands and yaml.safe_load(text)["robot"]["height"] == pytest.approx(0.363, abs=1e-3)
        assert main(["robot", "check", model, "--family", str(file)]) == 0
        assert "starts with a fall" not in capsys.readouterr().out
        family = make_family(RobotSettings(model, str(file)))
        compiled = family.compile(family.neutral())
        start = family.reset(compiled, np.random.default_rng(0), 1)[0][0]
        assert abs(lowest(compiled, start)) < 0.02  # the noise of the start bends its ankles by as much

    @pytest.mark.thorough
    @pytest.mark.parametrize("name", ["hopper", "walker2d", "half_cheetah"])
    def test_a_guided_robot_stands_on_the_ground_by_its_upright_slide(self, name, tmp_path, capsys):
        model = str(GYMNASIUM / f"{name}.xml")
        text, found = first_file(model)
        file = tmp_path / "first.yaml"
        file.write_text(text)
        assert found.stands and "height" in yaml.safe_load(text)["robot"]
        assert main(["robot", "check", model, "--family", str(file)]) == 0
        said = capsys.readouterr().out
        assert "At home: on the ground" in said and "starts with a fall" not in said
        family = make_family(RobotSettings(model, str(file)))
        compiled = family.compile(family.neutral())
        starts = family.reset(compiled, np.random.default_rng(0), 20)[0]
        assert np.abs([lowest(compiled, qpos) for qpos in starts]).max() < 0.02  # the noise of the start bends it
        assert abs(lowest(compiled, found.robot.home)) < 1e-4

    @pytest.mark.parametrize(
        ("axis", "start"), [("0 0 1", 0.1), ("0 0 -1", 0.1), ("0 0 2", 1.5), (".6 0 .8", 0.05), ("0 0 -1", 1.5)]
    )
    def test_an_upright_slide_may_point_down_or_lean(self, axis, start, tmp_path):
        robot = first_file(written(tmp_path, GUIDED.format(axis=axis, limits="", z=start)))[1].robot
        data = at_home(robot)
        assert data.geom("sole").xpos[2] == pytest.approx(0.05, abs=1e-4)  # its radius
        assert data.body("trunk").xpos[2] == pytest.approx(0.45, abs=1e-4)

    def test_a_guide_that_does_not_reach_the_ground_keeps_its_height(self, tmp_path):
        text, found = first_file(written(tmp_path, GUIDED.format(axis="0 0 1", limits='range="-.2 .2"', z=1.5)))
        assert "height:" not in text and found.robot.home[1] == 0

    def test_a_guided_robot_without_an_upright_slide_has_no_height(self, tmp_path):
        model = written(tmp_path, GUIDED.format(axis="0 1 0", limits="", z=0.45))
        text, found = first_file(model)
        assert "height:" not in text and found.stands
        file = tmp_path / "high.yaml"
        file.write_text(text.replace("robot:\n", "robot:\n  height: 1\n"))
        with pytest.raises(ValueError, match="no free joint or upright slide to lift"):
            check_robot(model, str(file))

    @pytest.mark.parametrize("z", [0.15, 0.3, 2.0])
    def test_it_is_found_for_the_pose_and_not_for_the_models_height(self, z, tmp_path):
        said = TABLE.replace('name="trunk" pos="0 0 .3"', f'name="trunk" pos="0 0 {z}"')
        text, found = first_file(written(tmp_path, said))
        assert found.stands and found.hints.pose
        assert ("height:" in text) == (found.hints.height is not None)
        soles = [at_home(found.robot).geom(f"{leg}_sole").xpos[2] for leg in ("fl", "fr", "rl", "rr")]
        np.testing.assert_allclose(soles, 0.02, atol=1e-4)  # their radius

    def test_a_urdf_that_is_lifted_onto_the_ground_needs_none(self, tmp_path):
        text, found = first_file(written(tmp_path, quadruped(), "dog.urdf"))
        assert found.stands and "height:" not in text


class TestManyLegs:
    @pytest.mark.thorough
    @pytest.mark.parametrize("legs", [4, 6, 8])
    def test_a_robot_of_many_legs_stands_and_passes_the_check(self, legs, tmp_path, capsys):
        model = written(tmp_path, crawler(legs))
        text, found = first_file(model)
        file = tmp_path / "first.yaml"
        file.write_text(text)
        assert found.stands and found.robot.feet == tuple(f"tibia{i}" for i in range(legs))
        assert main(["robot", "check", model, "--family", str(file)]) == 0
        assert "falls" not in capsys.readouterr().out
        base = rest(found.robot, 0.02, 2.0).base
        assert base.tilt < 0.05 and base.end > 0.85 * base.start

    def test_a_name_of_a_foot_high_up_is_none(self, tmp_path):
        jaw = '<body name="lower_jaw" pos=".2 0 .05"><joint axis="0 1 0" range="-1 1"/><geom size=".02"/></body>'
        robot = first_file(written(tmp_path, crawler(6, jaw)))[1].robot
        assert robot.feet == tuple(f"tibia{i}" for i in range(6))


@pytest.mark.thorough
def test_feet_that_touch_by_pairs_alone_have_a_friction_to_vary(tmp_path, capsys):
    said = crawler(6).replace("<geom ", '<geom contype="0" conaffinity="0" ')
    pairs = "".join(f'<pair geom1="tip{i}" geom2="floor"/>' for i in range(6))
    model = written(tmp_path, said.replace("</worldbody>", f"</worldbody><contact>{pairs}</contact>"))
    file = tmp_path / "first.yaml"
    file.write_text(first_file(model)[0])
    assert main(["robot", "check", model, "--family", str(file)]) == 0
    assert "grip" in capsys.readouterr().out


@pytest.mark.thorough
def test_a_step_is_not_lengthened_if_the_simulation_then_breaks(tmp_path):
    servos = "".join(
        f'<position joint="{part}{i}" kp="2000"/>' for part in ("coxa", "femur", "tibia") for i in range(6)
    )
    said = re.sub(r"<actuator>.*</actuator>", f"<actuator>{servos}</actuator>", crawler(6))
    text, found = first_file(written(tmp_path, said.replace("<worldbody>", '<option timestep="2e-4"/><worldbody>')))
    assert found.stands and "timestep" not in text


class TestPatterns:
    def test_a_file_names_the_same_joint_of_all_legs_at_once(self, tmp_path):
        model = written(tmp_path, quadruped(), "dog.urdf")
        text, found = first_file(model)
        said = yaml.safe_load(text)["robot"]
        assert list(said["actuators"]["gains"]) == [".*_hip_joint", ".*_thigh_joint", ".*_calf_joint"]
        assert list(said["pose"]) == [".*_thigh_joint", ".*_calf_joint"]
        file = tmp_path / "dog.yaml"
        file.write_text(text)
        robot, _ = check_robot(model, str(file))
        for i in range(robot.model.nu):
            kp, kd = found.hints.actuators.gains[robot.model.actuator(i).name]
            assert (robot.model.actuator_gainprm[i, 0], -robot.model.actuator_biasprm[i, 2]) == (kp, kd)
        for name in robot.joints:
            at = int(robot.model.joint(name).qposadr[0])
            assert robot.home[at] == pytest.approx(found.hints.pose.get(name, 0.0))

    @pytest.mark.parametrize(
        ("values", "written"),
        [
            ({"l_hip": 1, "l_knee": 1, "r_hip": 1, "r_knee": 1}, {".*_hip": 1, ".*_knee": 1}),
            ({"hip1": 1, "knee1": 2, "hip2": 1, "knee2": 2}, {"hip.*": 1, "knee.*": 2}),
            ({"l_hip": 1, "l_knee": 2, "r_hip": -1, "r_knee": 2}, {"l_hip": 1, ".*_knee": 2, "r_hip": -1}),
            ({"l_hip": 1, "r_hip": 1, "tail_hip": 2}, {"l_hip": 1, "r_hip": 1, "tail_hip": 2}),
            ({"l1_hip": 3, "r1_hip": 4, "l2_hip": 3, "r2_hip": 4}, {"l.*": 3, "r.*": 4}),
            ({"a": 1, "b": 1, "c.d": 2}, {"a": 1, "b": 1, r"c\.d": 2}),
        ],
    )
    def test_a_pattern_matches_joints_of_one_value_alone(self, values, written):
        carriers = {name: {name, name.replace("knee", "hip")} for name in values}
        assert by_pattern(values, tuple(values), carriers) == written

    def test_a_pattern_that_a_joint_without_a_value_matches_is_not_written(self):
        names = ("l_hip", "r_hip", "tail_hip")
        given = {"l_hip": 1, "r_hip": 1}
        assert by_pattern(given, names, {name: {name} for name in names}) == given


class TestReach:
    def test_a_site_reaches_where_the_last_links_origin_stays(self, tmp_path):
        family, found, text = family_from(tmp_path, SHOULDER.format(site='<site name="tip" pos=".3 0 0"/>'))
        assert found.reach.effector == "tip" and "goal: {effector: tip}" in text
        assert {p.name for p in family.parameters} == {"goal_x", "goal_y", "goal_z"}

    def test_an_axis_along_which_it_does_not_move_is_no_parameter(self, tmp_path):
        family, found, text = family_from(tmp_path, PLANAR)
        assert found.reach.effector == "l2" and "position: [0, 0, 0.1]" in text
        assert {p.name for p in family.parameters} == {"goal_x", "goal_y"}

    def test_without_anything_that_moves_there_is_no_goal(self, tmp_path, capsys, monkeypatch):
        monkeypatch.chdir(tmp_path)
        model = written(tmp_path, SHOULDER.format(site=""))
        assert main(["robot", "init", model]) == 0
        assert "so its file has no goal; add a <site>" in capsys.readouterr().out
        assert "goal" not in yaml.safe_load(Path("robot.yaml").read_text())
        assert main(["robot", "check", model, "--family", "robot.yaml"]) == 0


def test_questions_that_no_simulation_answers_are_passed_on(tmp_path):
    sphere = '<mujoco><worldbody><body name="ball"><freejoint/><geom size=".1" mass="1"/></body></worldbody></mujoco>'
    with pytest.raises(ValueError, match="nothing to control"):
        first_file(written(tmp_path, sphere))


@pytest.mark.thorough
def test_the_command_writes_once_and_says_what_to_do_next(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = written(tmp_path, MOTORS)
    assert main(["robot", "init", model]) == 0
    out = capsys.readouterr().out
    assert "wrote robot.yaml" in out and f"metarl robot check {model} --family robot.yaml" in out
    assert main(["robot", "check", model, "--family", "robot.yaml"]) == 0
    capsys.readouterr()
    assert main(["robot", "init", model]) == 2
    assert "robot.yaml exists; name another by --output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["robot", "innit", "x.xml"], "did you mean"),
        (["robot", "terms", "x.xml"], "metarl robot terms takes no model"),
        (["robot", "check"], "metarl robot check takes a model: MODEL"),
        (["robot", "schema", "--markdown"], "metarl robot schema takes no --markdown"),
        (["robot"], "metarl robot takes: init, check, terms, schema"),
    ],
)
def test_wrong_command_lines_are_one_line(arguments, said, capsys):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.strip().splitlines()) == 1


class TestReference:
    def test_the_page_has_all_of_it(self):
        assert markdown() in DOCS.read_text(), "put the output of `metarl robot terms --markdown` into docs/robots.md"

    def test_it_names_every_key_term_and_quantity(self):
        text = markdown()
        assert all(f"| {name} |" in text for name in (*OBSERVATIONS, *REWARDS, *QUANTITIES))
        assert all(re.search(rf"^\| {f.name}\b", text, re.M) for f in dataclasses.fields(Declaration))
        assert all(quantity.says for quantity in QUANTITIES.values())

    @pytest.mark.parametrize(("key", "kinds"), [("observation", OBSERVATIONS), ("reward", REWARDS)])
    def test_it_says_all_that_the_schema_knows_of_an_entry(self, key, kinds):
        tables = {table.title: table for table in reference()}
        common = {row[0]: row for row in tables[f"Settings of any {key} term"].rows}
        terms = tables[f"{key.capitalize()} terms"]
        assert all(common[name][-1].endswith(".") for name in common)
        whole = schema()["properties"][key]
        named = whole["anyOf"][-1] if "anyOf" in whole else whole
        for term in terms.rows:
            cells = dict(zip(terms.head, term, strict=True))
            own = dict(re.findall(r"(\w+)(?:: ([^,]+))?", cells["settings"]))
            known = named["properties"][cells["term"]]["anyOf"][1]["properties"]
            assert known.keys() == common.keys() | own.keys(), cells["term"]
            assert cells["unit"], cells["term"]
            defaults = kinds[cells["term"]].defaults
            assert own == {name: str(defaults.get(name, "")) for name in own}, cells["term"]

    def test_it_says_the_defaults_and_units_of_entries(self):
        common = {row[0]: row for row in _rows("Settings of any observation term")}
        defaults = [common[name][2] for name in ("term", "noise", "scale", "clip", "history", "names")]
        assert defaults == ["its own name", "0", "1", "", "1", ""]
        assert "in its unit" in common["noise"][3] and "Control steps" in common["history"][3]
        assert [row[:3] for row in _rows("Settings of any reward term")] == [
            ("term", "text", "its own name"),
            ("weight", "number", "required"),
        ]

    def test_the_schema_takes_what_the_reader_takes(self, tmp_path):
        text, _ = first_file(written(tmp_path, MOTORS))
        said, whole = yaml.safe_load(text), schema()
        _require_fits(said, whole, "")
        said["rewardz"] = {}
        with pytest.raises(AssertionError, match="rewardz"):
            _require_fits(said, whole, "")

    def test_it_is_printed(self, capsys):
        assert main(["robot", "terms"]) == 0
        assert "projected_gravity" in capsys.readouterr().out
        assert main(["robot", "schema"]) == 0
        assert json.loads(capsys.readouterr().out) == schema()


def _rows(title: str) -> list[tuple[str, ...]]:
    return next(table.rows for table in reference() if table.title == title)


def _require_fits(value: object, kind: dict, where: str) -> None:
    """As much of JSON Schema as ours has."""
    if "anyOf" in kind:
        problems = []
        for option in kind["anyOf"]:
            try:
                return _require_fits(value, option, where)
            except AssertionError as error:
                problems.append(error)
        raise problems[-1]
    if "enum" in kind:
        assert value in kind["enum"], where
        return None
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    numbers = {"number": (int, float), "integer": int}
    assert isinstance(value, types.get(kind["type"]) or numbers[kind["type"]]) or _number(value), f"{where}: {value}"
    if isinstance(value, dict):
        for key, entry in value.items():
            properties, others = kind.get("properties", {}), kind.get("additionalProperties", True)
            assert key in properties or others, f"{where}.{key}"
            part = properties.get(key, others)
            if isinstance(part, dict):
                _require_fits(entry, part, f"{where}.{key}")
        assert set(kind.get("required", [])) <= value.keys(), where
    if isinstance(value, list):
        for entry in value:
            _require_fits(entry, kind["items"], where)
    return None


def _number(value: object) -> bool:
    """PyYAML reads 8e-05 as text, which our reader takes for the number that it is."""
    return isinstance(value, str) and re.fullmatch(r"[\d.]+e-?\d+", value) is not None


class TestSimulation:
    def declaration(self, folder: Path, **robot: object) -> RobotSettings:
        file = folder / "task.yaml"
        mass = {"name": "m", "quantity": "mass", "target": "trunk", "operation": "scale"}
        said = {
            "robot": robot,
            "reward": {"alive": 1},
            "distribution": [{**mass, "distribution": "uniform", "range": [0.5, 2]}],
        }
        file.write_text(yaml.safe_dump(said))
        assert read_declaration(file)
        return RobotSettings(written(folder, TABLE), str(file))

    def test_step_and_integrator_are_the_files(self, tmp_path):
        family = make_family(self.declaration(tmp_path, timestep=0.01, integrator="rk4"))
        model = family.compile(family.neutral())
        assert model.opt.timestep == 0.01 and model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
        assert family.frame_skip == 2
        with pytest.raises(ValueError, match=r"robot.timestep is 1 s; it must be above 0"):
            make_family(self.declaration(tmp_path, timestep=1))

    def test_without_self_collisions_it_touches_its_scene_alone(self, tmp_path):
        for touch, alone in ((True, False), (False, True)):
            family = make_family(self.declaration(tmp_path, self_collisions=touch))
            model = family.compile(family.neutral())
            data = mujoco.MjData(model)
            own = [g for g in range(model.ngeom) if model.geom(g).name not in ("floor", "ball")]
            data.qpos[:] = family.reset(model, np.random.default_rng(0), 1)[0][0]
            data.qpos[8] = 2.9  # a knee is bent until the foot is in the trunk
            data.qpos[15:18] = data.qpos[:3] + np.array([0, 0, 0.12])  # the ball on its back
            mujoco.mj_forward(model, data)
            pairs = [{int(g) for g in contact.geom} for contact in data.contact]
            assert any(pair <= set(own) for pair in pairs) is not alone
            assert any(model.geom("ball").id in pair and pair & set(own) for pair in pairs)


@pytest.mark.parametrize(
    "actuators",
    [
        '<general name="a" joint="j1" dyntype="filter" ctrlrange="-1 1"/><motor joint="j2" ctrlrange="-1 1"/>',
        '<cylinder name="a" joint="j1" timeconst=".1" area=".1" ctrlrange="0 1"/><motor joint="j2" ctrlrange="-1 1"/>',
        '<motor name="a" joint="j1" ctrlrange="-1 1"/><motor joint="j1" ctrlrange="-1 1"/>',
        '<motor name="a" joint="j1" gear="0" ctrlrange="-1 1"/><motor joint="j2" ctrlrange="-1 1"/>',
        '<motor name="a" tendon="both" ctrlrange="-1 1"/><motor joint="j2" ctrlrange="-1 1"/>',
    ],
    ids=["filtered", "cylinder", "two motors", "gear 0", "tendon"],
)
def test_actuators_that_no_servo_can_replace_are_kept(actuators, tmp_path):
    both = '<tendon><fixed name="both"><joint joint="j1" coef="1"/><joint joint="j2" coef="1"/></fixed></tendon>'
    text = f"{PLANAR[: PLANAR.index('<actuator>')]}{both}<actuator>{actuators}</actuator></mujoco>"
    family, _, file = family_from(tmp_path, text)
    own = mujoco.MjModel.from_xml_string(text)
    assert "actuators" not in file and set(family.control.kinds) == {"force"}
    np.testing.assert_array_equal(family.base().compile().actuator_gainprm, own.actuator_gainprm)


SKID = """<mujoco><option timestep="0.005"/><worldbody><geom name="floor" type="plane" size="9 9 .1"/>
  <body name="chassis" pos="0 0 .1"><freejoint/><geom name="box" type="box" size=".2 .12 .04" mass="4"/>
  <geom name="caster" size=".04" pos="-.15 0 {z}" mass=".2" friction=".01"/>{wheels}</body></worldbody>
  <actuator><velocity joint="lw" kv="1" ctrlrange="-9 9"/><velocity joint="rw" kv="1" ctrlrange="-9 9"/></actuator>
  </mujoco>"""
WHEEL = """<body name="{n}" pos=".1 {y} 0"><joint name="{n}" axis="0 1 0"/>
  <geom name="{n}" type="cylinder" size=".1 .02" euler="90 0 0" mass=".5"/></body>"""


@pytest.mark.parametrize("z", [-0.06, -0.0595, -0.055])
def test_what_a_robot_rests_on_besides_its_feet_ends_no_episode(z, tmp_path):
    wheels = "".join(WHEEL.format(n=n, y=y) for n, y in (("lw", 0.15), ("rw", -0.15)))
    family, _, text = family_from(tmp_path, SKID.format(z=z, wheels=wheels))
    assert yaml.safe_load(text)["contacts"] == {"trunk": ["box"]}
    assert neutral_end(family) is None


ROLLER = """<link name="{n}"><inertial><mass value=".5"/>
  <inertia ixx=".001" iyy=".002" izz=".001" ixy="0" ixz="0" iyz="0"/></inertial>
  <collision><origin rpy="1.5708 0 0"/><geometry><cylinder radius=".1" length=".04"/></geometry></collision></link>
  <joint name="{n}_joint" type="continuous"><parent link="base"/><child link="{n}"/><origin xyz=".1 {y} -.03"/>
    <axis xyz="0 1 0"/><limit effort="5" velocity="20"/></joint>"""
CASTER = """<link name="caster"><inertial><mass value=".2"/>
  <inertia ixx=".0002" iyy=".0002" izz=".0002" ixy="0" ixz="0" iyz="0"/></inertial>
  <collision><geometry><sphere radius=".04"/></geometry></collision></link>
  <joint name="caster_joint" type="fixed"><parent link="base"/><child link="caster"/><origin xyz="-.15 0 -.09"/>
  </joint>"""
MAST = """<link name="mast"><inertial><mass value=".3"/>
  <inertia ixx=".002" iyy=".002" izz=".002" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <joint name="mast_joint" type="revolute"><parent link="base"/><child link="mast"/><axis xyz="0 1 0"/>
    <limit lower="-1" upper="1" effort="5" velocity="9"/></joint>"""


def wheeled(folder: Path, more: str = "") -> str:
    """The path of a URDF of a cart with two wheels, a caster that is fixed to it, and more."""
    base = LINK.format(name="base", z=0, mass=5, size=".4 .3 .1")
    rollers = "".join(ROLLER.format(n=f"{side}_wheel", y=y) for side, y in (("left", 0.18), ("right", -0.18)))
    return written(folder, f'<robot name="cart">{base}{rollers}{CASTER}{more}</robot>', "cart.urdf")


def driven(family, action: float) -> np.ndarray:
    """Velocities of the neutral robot after two seconds of one action, [nv]."""
    env = BatchedEnv(family, 1, 1, 1)
    env.reset([np.random.default_rng(0)])
    for _ in range(round(2 / family.dt)):
        assert not env.step(np.full((1, 1, family.action_size), action)).terminated.any()
    return env.simulation.batch.qvel[0]


def test_a_urdf_on_wheels_drives_by_velocity_servos_and_its_fixed_caster_is_no_trunk(tmp_path):
    text, found = first_file(model := wheeled(tmp_path))
    said = yaml.safe_load(text)
    assert said["robot"]["actuators"]["kind"] == "velocity" and said["contacts"]["trunk"] == ["base"]
    assert "sideways_velocity" not in text and "air_time" not in text and "action_scale" not in text
    family = make_family(RobotSettings(model, written(tmp_path, text, "first.yaml")))
    assert found.stands and neutral_end(family) is None
    rim = 0.5 * said["robot"]["actuators"]["speed"] * 0.1  # m/s; the caster slides, and holds it back
    assert 0.5 * rim < np.linalg.norm(driven(family, 0.5)[:2]) < rim
    question = check_robot(model)[0].questions[0]
    assert f"kind: velocity, kd: {said['robot']['actuators']['kd']}" in question


def test_torque_motors_of_wheels_give_way_to_velocity_servos(tmp_path):
    wheels = "".join(WHEEL.format(n=n, y=y) for n, y in (("lw", 0.15), ("rw", -0.15)))
    model = SKID.format(z=-0.06, wheels=wheels).replace('velocity joint="', 'motor joint="').replace('kv="1"', "")
    _, found, text = family_from(tmp_path, model)
    assert found.hints.actuators.kind == "velocity" and "in place of torque motors: velocity control" in text


def test_where_wheels_are_not_all_that_moves_a_comment_says_what_to_do(tmp_path):
    text, _ = first_file(wheeled(tmp_path, MAST))
    assert "# left_wheel_joint, right_wheel_joint: wheels, which these servos hold; to drive, give the model" in text
    assert yaml.safe_load(text)["robot"]["actuators"]["kind"] == "position"
