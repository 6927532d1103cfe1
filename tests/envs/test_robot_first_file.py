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
from metarl.envs.own_robot.declaration import Declaration, read_declaration
from metarl.envs.own_robot.first_file import first_file
from metarl.envs.own_robot.quantities import QUANTITIES
from metarl.envs.own_robot.reference import markdown, reference, schema
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family
from tests.envs.own_robot.families import written
from tests.envs.test_robot_task import MOTORS, TABLE

ARM = """<mujoco model="arm"><compiler angle="radian"/><worldbody><body name="link1" pos="0 0 .1">
  <joint name="turn" axis="0 0 1" range="-3 3"/><geom type="capsule" size=".04" fromto="0 0 0 0 0 .3" mass="2"/>
  <body name="link2" pos="0 0 .35"><joint name="lift" axis="0 1 0" range="-1.5 1.5"/>
    <geom type="capsule" size=".03" fromto=".05 0 0 .35 0 0" mass="1"/>
    <body name="hand" pos=".42 0 0"><joint name="bend" axis="0 1 0" range="-2 2"/>
      <geom type="capsule" size=".02" fromto=".02 0 0 .15 0 0" mass=".3"/></body></body></body></worldbody></mujoco>"""
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


def test_questions_that_no_simulation_answers_are_passed_on(tmp_path):
    sphere = '<mujoco><worldbody><body name="ball"><freejoint/><geom size=".1" mass="1"/></body></worldbody></mujoco>'
    with pytest.raises(ValueError, match="nothing to control"):
        first_file(written(tmp_path, sphere))


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
