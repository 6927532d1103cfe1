"""One's own robot: what is inferred, what each quantity does to the compiled model, and everything that is refused."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
import yaml

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.own_robot.description import Robot
from metarl.envs.own_robot.family import check_robot, copy_robot
from metarl.envs.own_robot.quantities import QUANTITIES
from metarl.envs.own_robot.settings import EXAMPLE, RobotSettings
from metarl.envs.registry import make_family
from metarl.envs.state import State

GYMNASIUM = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
BIPED = """<mujoco model="biped">
  <worldbody>
    <body name="hull" pos="0 0 0.5"><freejoint/><geom name="hull" type="box" size=".1 .1 .1" mass="3"/>
      {extra}
      <body name="l_leg" pos="0 .08 -.1"><joint name="l_hip" axis="0 1 0" range="-40 40" damping=".5" stiffness="2"
        armature=".01" frictionloss=".1"/><geom name="l_leg" type="capsule" size=".03" fromto="0 0 0 0 0 -.25"/>
        <body name="l_foot" pos="0 0 -.25"><geom name="l_foot" size=".04" friction=".7 .01 .001"/></body></body>
      <body name="r_leg" pos="0 -.08 -.1"><joint name="r_hip" axis="0 1 0" range="-40 40" damping=".5" stiffness="2"
        armature=".01" frictionloss=".1"/><geom name="r_leg" type="capsule" size=".03" fromto="0 0 0 0 0 -.25"/>
        <body name="r_foot" pos="0 0 -.25"><geom name="r_foot" size=".04" friction=".7 .01 .001"/></body></body>
    </body>
  </worldbody>
  {actuators}
</mujoco>"""
SERVOS = """<actuator><position name="l" joint="l_hip" kp="30" kv="1" forcerange="-9 9" ctrlrange="-1 1"/>
  <motor name="r" joint="r_hip" gear="5" ctrlrange="-2 2"/></actuator>"""
URDF = """<robot name="leg">
  <link name="trunk"><inertial><mass value="2"/><inertia ixx=".1" iyy=".1" izz=".1" ixy="0" ixz="0" iyz="0"/></inertial>
    <visual><geometry><mesh filename="package://leg/meshes/shell.stl"/></geometry></visual>
    <visual><geometry><mesh filename="package://leg/meshes/no_such.dae"/></geometry></visual>
    <collision><geometry><box size=".4 .2 .1"/></geometry></collision></link>
  <link name="shank"><inertial><origin xyz="0 0 -.1"/><mass value="1"/>
      <inertia ixx=".01" iyy=".01" izz=".01" ixy="0" ixz="0" iyz="0"/></inertial>
    <collision><origin xyz="0 0 -.1"/><geometry><cylinder length=".2" radius=".02"/></geometry></collision></link>
  <link name="toe"><inertial><mass value=".1"/>
      <inertia ixx=".001" iyy=".001" izz=".001" ixy="0" ixz="0" iyz="0"/></inertial>
    <collision><geometry><sphere radius=".03"/></geometry></collision></link>
  <joint name="hip" type="revolute"><parent link="trunk"/><child link="shank"/><origin xyz="0 0 -.05"/>
    <axis xyz="0 1 0"/><limit lower="-1" upper="0.5" effort="20" velocity="10"/></joint>
  <joint name="sole" type="fixed"><parent link="shank"/><child link="toe"/><origin xyz="0 0 -.2"/></joint>
</robot>"""
MASS = {
    "name": "m",
    "target": "hull",
    "quantity": "mass",
    "operation": "scale",
    "distribution": "uniform",
    "range": [0.5, 2],
}
TASK = {"reward": {"forward_velocity": 1}, "distribution": [MASS]}


def biped(folder: Path, actuators: str = SERVOS, extra: str = "") -> str:
    (folder / "biped.xml").write_text(BIPED.format(actuators=actuators, extra=extra))
    return str(folder / "biped.xml")


def shell(folder: Path) -> str:
    """A tetrahedron as an STL file."""
    corners = [(0, 0, 0), (0.1, 0, 0), (0, 0.1, 0), (0, 0, 0.1)]
    faces = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
    data = b"\0" * 80 + struct.pack("<I", len(faces))
    for face in faces:
        data += struct.pack("<12f", 0, 0, 0, *(x for i in face for x in corners[i])) + b"\0\0"
    folder.mkdir(exist_ok=True)
    (folder / "shell.stl").write_bytes(data)
    return str(folder / "shell.stl")


def declare(folder: Path, **keys: object) -> str:
    path = folder / "family.yaml"
    path.write_text(yaml.safe_dump({**TASK, **keys}))
    return str(path)


def entry(quantity: str, target: str | None, operation: str | None, ends: list[float], **keys: object) -> dict:
    given = {"target": target, "operation": operation, **keys}
    named = {k: v for k, v in given.items() if v is not None}
    return {"name": "p", "quantity": quantity, "distribution": "uniform", "range": ends, **named}


def family_of(folder: Path, *entries: dict, model: str | None = None, **keys: object) -> TaskFamily:
    return make_family(
        RobotSettings(model or biped(folder), declare(folder, distribution=list(entries) or [MASS], **keys))
    )


def compiled(folder: Path, value: float, *entries: dict, **keys) -> tuple[mujoco.MjModel, mujoco.MjModel]:
    """(neutral, at p = value)."""
    family = family_of(folder, *entries, **keys)
    return family.compile(family.neutral()), family.compile(family.task({"p": value}))


def findings(robot: Robot) -> dict[str, str]:
    return {f.subject: f.value for f in robot.findings}


class TestInference:
    def test_of_a_floating_biped(self, tmp_path):
        robot, family = check_robot(biped(tmp_path))
        assert (robot.base, robot.mobility, family, robot.questions) == ("hull", "floating", None, [])
        assert robot.feet == ("l_foot", "r_foot") and robot.joints == ("l_hip", "r_hip")
        assert robot.kinds == ("position", "force")
        assert "added" in findings(robot)["floor"]
        # It stood 0.11 m in the air by its own default pose, which is left as it is.
        assert robot.home[2] == 0.5
        np.testing.assert_allclose(robot.low, [-1, -1])
        np.testing.assert_allclose(robot.gain, [1, 2])

    def test_of_gymnasiums_planar_robots(self):
        for name, feet in (("walker2d_v5", ("foot", "foot_left")), ("half_cheetah", ("bfoot", "ffoot"))):
            robot, _ = check_robot(str(GYMNASIUM / f"{name}.xml"))
            assert (robot.base, robot.mobility, robot.feet) == ("torso", "guided", feet)
            assert len(robot.joints) == 6 and not robot.questions

    def test_of_ant_moves_joints_into_range(self):
        robot, _ = check_robot(str(GYMNASIUM / "ant.xml"))
        assert robot.mobility == "floating" and len(robot.feet) == 4
        model = robot.model
        for name in robot.joints:
            low, high = model.joint(name).range
            assert low <= robot.home[model.joint(name).qposadr[0]] <= high

    def test_of_a_urdf(self, tmp_path):
        shell(tmp_path / "meshes")
        path = tmp_path / "leg.urdf"
        path.write_text(URDF)
        robot, _ = check_robot(str(path))
        assert robot.mobility == "fixed" and "no actuators" in robot.questions[0]
        robot, family = check_robot(
            str(path),
            declare(
                tmp_path,
                robot={"floating": True, "actuators": {"kind": "motor"}},
                distribution=[entry("mass", "toe", "scale", [1, 2])],
            ),
        )
        assert robot.feet == ("toe",) and robot.mobility == "floating" and family is not None
        assert robot.home[2] == pytest.approx(0.05 + 0.2 + 0.03, abs=1e-6)  # lifted until the toe touches
        assert robot.model.actuator("hip").ctrlrange.tolist() == [-20, 20]  # the effort limit
        assert (robot.model.nmesh, robot.visual.compile().nmesh) == (0, 1)
        np.testing.assert_allclose(robot.model.body_mass, [0, 2, 1, 0.1])

    def test_of_a_function(self, tmp_path):
        (tmp_path / "make.py").write_text(
            f"import mujoco\ndef robot():\n    return mujoco.MjSpec.from_file({biped(tmp_path)!r})\n"
            "def number():\n    return 3\ndef broken():\n    raise KeyError('leg')\n"
        )
        robot, _ = check_robot(f"{tmp_path}/make.py:robot")
        assert robot.base == "hull" and not robot.questions
        for name, message in (
            ("number", "returned int; it must return a mujoco.MjSpec"),
            ("broken", "failed: KeyError: 'leg'"),
            ("absent", "has no function 'absent'"),
        ):
            with pytest.raises(ValueError, match=message):
                check_robot(f"{tmp_path}/make.py:{name}")

    def test_keyframe_pose_and_height_of_the_file(self, tmp_path):
        key = '<keyframe><key name="crouch" qpos="0 0 .6 1 0 0 0 .3 -.3"/></keyframe>'
        model = biped(tmp_path, SERVOS + key)
        robot, _ = check_robot(model)
        np.testing.assert_array_equal(robot.home, [0, 0, 0.6, 1, 0, 0, 0, 0.3, -0.3])
        hints = {"keyframe": "crouch", "pose": {"l_.*": 0.1}, "height": 0.55}
        robot, _ = check_robot(model, declare(tmp_path, robot=hints))
        np.testing.assert_array_equal(robot.home, [0, 0, 0.55, 1, 0, 0, 0, 0.1, -0.3])
        assert robot.offset[0] == pytest.approx(0.1)  # a servo's action is an offset from home

    def test_decoration_is_left_out_and_kept_for_pictures(self, tmp_path):
        deco = '<geom type="mesh" mesh="shell" contype="0" conaffinity="0" mass=".5" pos=".05 0 0"/>'
        asset = f'<asset><mesh name="shell" file="{shell(tmp_path)}"/></asset>'
        family = family_of(tmp_path, model=biped(tmp_path, SERVOS + asset, extra=deco))
        assert family.visual is not None
        small, whole = family.base().compile(), family.visual().compile()
        assert (small.nmesh, whole.nmesh) == (0, 1)
        for name in ("body_mass", "body_inertia", "body_ipos"):  # what decorates weighs all the same
            np.testing.assert_allclose(getattr(small, name), getattr(whole, name), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(small.body("hull").mass, 3.5)
        picture = family.picture(family.neutral()).compile()
        assert picture.nmesh == 1 and picture.nq == small.nq

    def test_a_task_is_pictured_with_its_decoration_and_its_edits(self, tmp_path):
        deco = '<geom type="mesh" mesh="shell" contype="0" conaffinity="0" pos=".05 0 0"/>'
        asset = f'<asset><mesh name="shell" file="{shell(tmp_path)}"/></asset>'
        longer = entry("link_length", "l_leg", "scale", [0.8, 1])
        family = family_of(tmp_path, longer, model=biped(tmp_path, SERVOS + asset, extra=deco))
        task = family.task({family.parameters[0].name: 0.9})
        simulated, picture = family.compile(task), family.picture(task).compile()
        assert (simulated.nmesh, picture.nmesh) == (0, 1)
        for i in range(simulated.ngeom):
            name = simulated.geom(i).name
            np.testing.assert_allclose(picture.geom(name).size, simulated.geom(i).size)
            np.testing.assert_allclose(picture.geom(name).pos, simulated.geom(i).pos, atol=1e-9)

    def test_a_robot_of_longer_legs_starts_with_its_feet_where_they_were(self, tmp_path):
        """Its trunk starts higher by as much; without, its feet would start in the ground, or in the air."""
        family = family_of(
            tmp_path, entry("link_length", "[lr]_leg", "scale", [0.6, 2.0]), model=biped(tmp_path, SERVOS)
        )
        lowest, trunk = [], []
        for length in (0.6, 1.0, 2.0):
            model = family.compile(family.task({family.parameters[0].name: length}))
            data = mujoco.MjData(model)
            qpos, _ = family.reset(model, np.random.default_rng(0), 1)
            data.qpos = family.reset(model, np.random.default_rng(0), 1)[0][0]
            mujoco.mj_kinematics(model, data)
            feet = [model.geom(f"{side}_foot").id for side in "lr"]
            lowest.append((data.geom_xpos[feet, 2] - model.geom_size[feet, 0]).min())
            trunk.append(qpos[0, 2])
        assert np.ptp(lowest) < 0.02  # the start's noise of joints, on longer legs
        assert trunk[0] < trunk[1] - 0.09 and trunk[2] > trunk[1] + 0.2

    def test_total_mass_and_inertia_from_geoms_are_frozen_at_the_neutral_robot(self, tmp_path):
        family = family_of(
            tmp_path, entry("mass", "torso", "scale", [1, 2]), model=str(GYMNASIUM / "half_cheetah.xml")
        )  # settotalmass="14" inertiafromgeom="true"
        neutral, heavy = family.compile(family.neutral()), family.compile(family.task({"p": 2}))
        published = mujoco.MjModel.from_xml_path(str(GYMNASIUM / "half_cheetah.xml"))
        np.testing.assert_allclose(neutral.body_mass, published.body_mass, rtol=1e-9)
        np.testing.assert_allclose(neutral.body_inertia, published.body_inertia, rtol=1e-9)
        factor = np.where(np.arange(neutral.nbody) == 1, 2.0, 1.0)
        np.testing.assert_allclose(heavy.body_mass, factor * neutral.body_mass, rtol=1e-12)
        np.testing.assert_allclose(heavy.body_inertia, factor[:, None] * neutral.body_inertia, rtol=1e-9)


class TestQuantities:
    @pytest.mark.parametrize(
        ("operation", "value", "mass"), [("set", 4.0, 4.0), ("scale", 1.5, 4.5), ("add", 2.0, 5.0)]
    )
    def test_mass_scales_inertia(self, operation, value, mass, tmp_path):
        ends = {"set": [1, 5], "scale": [0.5, 2], "add": [-1, 3]}[operation]
        neutral, other = compiled(tmp_path, value, entry("mass", "hull", operation, ends))
        assert other.body("hull").mass[0] == pytest.approx(mass)
        np.testing.assert_allclose(other.body("hull").inertia, neutral.body("hull").inertia * mass / 3, rtol=1e-9)
        np.testing.assert_allclose(other.body("l_leg").mass, neutral.body("l_leg").mass)

    def test_density_scales_mass_and_inertia(self, tmp_path):
        neutral, other = compiled(tmp_path, 1.5, entry("density", "l_leg", "scale", [0.5, 2]))
        for name in ("mass", "inertia"):
            ratio = getattr(other.body("l_leg"), name) / getattr(neutral.body("l_leg"), name)
            np.testing.assert_allclose(ratio, 1.5)

    def test_radius_of_a_sphere(self, tmp_path):
        neutral, other = compiled(tmp_path, 0.5, entry("radius", "l_foot", "scale", [0.5, 1]))
        np.testing.assert_allclose(other.body("l_foot").mass / neutral.body("l_foot").mass, 0.5**3)
        np.testing.assert_allclose(other.body("l_foot").inertia / neutral.body("l_foot").inertia, 0.5**5)

    def test_size_of_a_capsule(self, tmp_path):
        neutral, other = compiled(tmp_path, 0.9, entry("size", "l_leg", "scale", [0.5, 1]))
        np.testing.assert_allclose(other.geom("l_leg").size[:2], neutral.geom("l_leg").size[:2] * 0.9)
        np.testing.assert_allclose(other.geom("l_leg").pos, neutral.geom("l_leg").pos)
        np.testing.assert_allclose(other.body("l_leg").mass / neutral.body("l_leg").mass, 0.9**3)

    def test_link_length_moves_the_foot_and_follows_density(self, tmp_path):
        neutral, other = compiled(tmp_path, 1.2, entry("link_length", "[lr]_leg", "scale", [0.8, 1.2]))
        np.testing.assert_allclose(other.body("l_foot").pos, [0, 0, -0.25 * 1.2])
        density = 1000
        mass = density * (np.pi * 0.03**2 * 0.25 * 1.2 + 4 / 3 * np.pi * 0.03**3)
        assert other.body("r_leg").mass[0] == pytest.approx(mass)
        np.testing.assert_allclose(other.body("r_foot").mass, neutral.body("r_foot").mass)

    def test_payload(self, tmp_path):
        payload = entry("payload", "hull", "set", [0, 2], position=[0.1, 0, 0])
        neutral, other = compiled(tmp_path, 2.0, payload)
        assert other.body_subtreemass[0] - neutral.body_subtreemass[0] == pytest.approx(2)
        assert other.nbody == neutral.nbody
        before, after = (mujoco.MjData(m) for m in (neutral, other))
        for model, data in ((neutral, before), (other, after)):
            mujoco.mj_forward(model, data)
        total = neutral.body_subtreemass[1]
        moved = (total * before.subtree_com[1] + 2 * (before.body("hull").xpos + np.array([0.1, 0, 0]))) / (total + 2)
        np.testing.assert_allclose(after.subtree_com[1], moved)

    def test_friction_is_what_acts_in_a_contact(self, tmp_path):
        family = family_of(tmp_path, entry("friction", ".*_foot", "set", [0.2, 0.9]))  # the floor's is 1
        model = family.compile(family.task({"p": 0.3}))
        data = mujoco.MjData(model)
        data.qpos[2] = 0.5 - 0.11 - 0.001
        mujoco.mj_forward(model, data)
        assert data.ncon == 2
        np.testing.assert_allclose([c.friction[0] for c in data.contact], 0.3)

    @pytest.mark.parametrize(
        ("quantity", "target", "read", "default"),
        [
            ("damping", "l_hip", lambda m: m.dof_damping[6], 0.5),
            ("stiffness", "l_hip", lambda m: m.jnt_stiffness[1], 2.0),
            ("armature", "l_hip", lambda m: m.dof_armature[6], 0.01),
            ("friction_loss", "l_hip", lambda m: m.dof_frictionloss[6], 0.1),
            ("range", "l_hip", lambda m: m.joint("l_hip").range[1], np.radians(40)),
            ("kp", "l", lambda m: m.actuator("l").gainprm[0], 30.0),
            ("kp", "l", lambda m: -m.actuator("l").biasprm[1], 30.0),
            ("kd", "l", lambda m: -m.actuator("l").biasprm[2], 1.0),
            ("force_limit", "l", lambda m: m.actuator("l").forcerange[1], 9.0),
            ("gear", "r", lambda m: m.actuator("r").gear[0], 5.0),
            ("gravity", None, lambda m: -m.opt.gravity[2], 9.81),
            ("inertia_y", "hull", lambda m: m.body("hull").inertia[1], 3 / 12 * 2 * 0.2**2),
        ],
    )
    def test_single_numbers(self, quantity, target, read, default, tmp_path):
        neutral, other = compiled(tmp_path, 1.3, entry(quantity, target, "scale", [0.7, 1.3]))
        assert read(neutral) == pytest.approx(default)
        assert read(other) == pytest.approx(1.3 * default)

    def test_centre_of_mass(self, tmp_path):
        neutral, other = compiled(tmp_path, 0.05, entry("com_x", "hull", "add", [-0.05, 0.05]))
        np.testing.assert_allclose(other.body("hull").ipos - neutral.body("hull").ipos, [0.05, 0, 0], atol=1e-12)

    @pytest.mark.parametrize("name", ["l", "r"])
    def test_strength_scales_what_an_actuator_does(self, name, tmp_path):
        forces = []
        for model in compiled(tmp_path, 0.5, entry("strength", name, "scale", [0.5, 1.1])):
            data = mujoco.MjData(model)
            data.qpos[7:], data.qvel[6:], data.ctrl[:] = (0.1, 0.2), (0.3, -0.4), 0.5  # within the servo's limit
            mujoco.mj_forward(model, data)
            forces.append(data.actuator(name).force[0])
        assert forces[0] != 0 and forces[1] == pytest.approx(0.5 * forces[0])

    def test_slope_turns_the_ground_and_the_robot_with_it(self, tmp_path):
        family = family_of(tmp_path, entry("slope", None, "set", [-0.3, 0.3]), robot={"height": 0.389})
        contacts = []
        for value in (0.0, 0.3):
            model = family.compile(family.task({"p": value}))
            data = mujoco.MjData(model)
            data.qpos = family.reset(model, np.random.default_rng(0), 1)[0][0]
            data.qpos[7:] = 0
            mujoco.mj_forward(model, data)
            contacts.append(([c.dist for c in data.contact], data.contact[0].frame[:3] if data.ncon else None))
        np.testing.assert_allclose(contacts[0][0], [-0.001] * 2, atol=1e-9)
        np.testing.assert_allclose(contacts[1][0], [-0.001] * 2, atol=1e-9)
        np.testing.assert_allclose(contacts[1][1], [-np.sin(0.3), 0, np.cos(0.3)], atol=1e-12)  # uphill along x

    def test_a_value_acts_on_the_default_whatever_came_before(self, tmp_path):
        two = [entry("mass", "hull", "scale", [0.5, 2]), {**entry("com_z", "hull", "add", [-0.02, 0.02]), "name": "q"}]
        models = []
        for entries in (two, two[::-1]):
            family = family_of(tmp_path, *entries)
            for _ in range(2):
                models.append(family.compile(family.task({"p": 2, "q": 0.01})))
        for model in models:
            assert model.body("hull").mass[0] == pytest.approx(6)
            assert model.body("hull").ipos[2] == pytest.approx(0.01)

    def test_every_quantity_is_tested_or_named_here(self):
        source = "".join(p.read_text() for p in Path(__file__).parent.glob("test_robot*.py"))
        others = {
            "inertia_z",
            "com_y",
            "payload_y",
            "payload_z",
            "command_y",
            "command_yaw",
            "goal_y",
            "goal_z",
        }  # as their siblings, or by an f-string
        assert [q for q in QUANTITIES if q not in others and f'"{q}"' not in source.replace(str(others), "")] == []


class TestTask:
    def test_observation_agrees_with_mujoco(self, tmp_path):
        parts = ["base_height", "up", "base_velocity", "base_angular_velocity"]
        for model_path in (biped(tmp_path), str(GYMNASIUM / "walker2d_v5.xml")):
            body = "hull" if "biped" in model_path else "torso"
            distribution = [entry("mass", body, "scale", [0.5, 2])]
            family = family_of(tmp_path, *distribution, model=model_path, observation=parts)
            model = family.compile(family.neutral())
            data = mujoco.MjData(model)
            rng = np.random.default_rng(0)
            mujoco.mj_integratePos(model, data.qpos, rng.standard_normal(model.nv), 1.0)
            data.qvel = rng.standard_normal(model.nv)
            mujoco.mj_forward(model, data)
            observed = family.observe(State(lambda name, data=data: np.array(getattr(data, name))[None]))[0]
            velocity = np.zeros(6)  # rotation, translation, in the body's own axes
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, model.body(body).id, velocity, 1)
            up = data.body(body).xmat.reshape(3, 3).T @ [0, 0, 1]
            expected = [data.body(body).xpos[2], *up, *velocity[3:], *velocity[:3]]
            np.testing.assert_allclose(observed, expected, atol=1e-9)
            assert len(family.observation_names) == 10

    def test_rewards_and_termination_by_hand(self, tmp_path):
        commands = [{**entry(f"command_{a}", None, None, [0, 1]), "name": a} for a in ("x", "yaw")]
        weights = ["forward_velocity", "track_velocity", "track_yaw", "velocity_error", "alive", "control_cost"]
        weights += ["height", "upright", "joint_velocity_cost", "home_cost"]
        family = family_of(
            tmp_path,
            *commands,
            reward=dict.fromkeys(weights, 2.0),
            termination={"height": [0.2, 1.0], "tilt": 0.5},
        )
        angle = np.array([0.0, 0.6, 0.0])  # about x
        height = np.array([0.5, 0.5, 0.1])
        state = State(lambda name: np.zeros((3, 0)))
        state.qpos = np.zeros((3, 9))
        state.qpos[:, 2], state.qpos[:, 3], state.qpos[:, 4] = height, np.cos(angle / 2), np.sin(angle / 2)
        state.qpos[:, 7] = 0.2
        state.qvel = np.tile([0.7, 0.4, 0.0, 0.0, 0.0, 0.5, 1.0, 2.0], (3, 1))
        state.action = np.tile([0.5, -1.0], (3, 1))
        state.memory = {"command": np.tile([1.0, 0.2], (3, 1))}
        gap = 0.3**2 + (0.4 * np.cos(angle)) ** 2  # sideways in the base's frame
        expected = {
            "forward_velocity": 0.7,
            "track_velocity": np.exp(-gap / 0.25),
            "track_yaw": np.exp(-(0.3**2) / 0.25),
            "velocity_error": -np.sqrt(gap),
            "alive": 1.0,
            "control_cost": -1.25,
            "height": height,
            "upright": np.cos(angle),
            "joint_velocity_cost": -5.0,
            "home_cost": -0.04,
        }
        for name, term in family.rewards.items():
            np.testing.assert_allclose(
                term.weight * term.function(state), 2 * expected[name] * np.ones(3), err_msg=name
            )
        assert family.terminate is not None
        assert family.terminate(state).tolist() == [False, True, True]

    def test_action_of_a_servo_is_an_offset_from_home_and_of_a_motor_a_share(self, tmp_path):
        family = family_of(tmp_path, robot={"pose": {"l_hip": 0.2}}, control={"action_scale": 0.5})
        env = BatchedEnv(family, 1, 1, 1)
        env.reset([np.random.default_rng(0)])
        env.step(np.array([[[0.4, 1.0]]]))
        np.testing.assert_allclose(env.simulation.batch.ctrl[0], [0.2 + 0.2, 2 * 0.5])
        env.reset([np.random.default_rng(0)])
        env.step(np.array([[[9.0, -9.0]]]))
        np.testing.assert_allclose(env.simulation.batch.ctrl[0], [1.0, -2.0])  # the control ranges

    def test_control_step_and_horizon(self, tmp_path):
        family = family_of(tmp_path, control={"dt": 0.01}, episode={"horizon": 7})
        assert (family.frame_skip, family.horizon) == (5, 7)
        assert family_of(tmp_path).frame_skip == 10  # 0.02 s

    def test_splits(self, tmp_path):
        own = {**MASS, "splits": {"held_out": [2, 2.5], "ood": [3, 4]}}
        family = family_of(tmp_path, own)
        for split, low, high in (("train", 0.5, 2), ("held_out", 2, 2.5), ("ood", 3, 4)):
            values = [t.values["m"] for t in family.sample(200, np.random.default_rng(0), split)]
            assert low <= min(values) and max(values) <= high
        choice = {**MASS, "distribution": "choice", "range": [1, 1.5], "splits": {"held_out": [2.0]}}
        family = family_of(tmp_path, choice)
        assert {t.values["m"] for t in family.sample(50, np.random.default_rng(0))} == {1.0, 1.5}
        assert {t.values["m"] for t in family.sample(5, np.random.default_rng(0), "held_out")} == {2.0}


@pytest.mark.parametrize(("quantity", "target"), [("payload", "hull"), ("strength", "l")])
def test_the_only_operation_of_a_quantity_need_not_be_named(quantity, target, tmp_path):
    operation = QUANTITIES[quantity].operations[0]
    laws = [
        family_of(tmp_path, {**MASS, "quantity": quantity, "target": target, "operation": said}).parameters[0]
        for said in (None, operation)
    ]
    assert (laws[0].law.description, laws[0].neutral) == (laws[1].law.description, laws[1].neutral)
    assert laws[0].law.description.startswith(f"{operation} {quantity} of ")


ENTRY_MISTAKES = {
    "matches nothing, near": (
        {"target": "hul"},
        r"distribution \(m\): target: body names 'hul' matches nothing.*'hull'",
    ),
    "no regex": ({"target": "hu[ll"}, r"'hu\[ll' is no regular expression"),
    "no target": ({"target": None}, "target is missing; mass needs a regular expression over body names"),
    "unknown quantity": ({"quantity": "mas"}, "unknown quantity 'mas'; did you mean 'mass'"),
    "unknown key": ({"rnage": [1, 2]}, r"unknown key 'distribution\[0\].rnage'; did you mean 'range'"),
    "unknown operation": ({"operation": "scael"}, r"operation is 'scael'; did you mean 'scale'"),
    "no operation": ({"operation": None}, "operation is missing; mass takes set, scale, add"),
    "operation": ({"quantity": "strength", "target": "l", "operation": "add"}, "'add' makes no sense for strength"),
    "unknown distribution": ({"distribution": "unifrom"}, "is 'unifrom'; did you mean 'uniform'"),
    "reversed": ({"range": [2, 0.5]}, r"'m', range: the range \(2, 0.5\) is reversed"),
    "three ends": ({"range": [1, 2, 3]}, "uniform takes two ends"),
    "log of nothing": ({"distribution": "log_uniform", "range": [0, 1]}, "log-uniform range must be positive"),
    "no number": ({"range": [1, "two"]}, r"distribution\[0\] \(m\).range\[1\] is 'two'; it must be a finite number"),
    "overlap": ({"splits": {"ood": [1, 3]}}, r"ood values U\(1, 3\) overlap the training values"),
    "ood reversed": ({"splits": {"ood": [3, 2.5]}}, r"\(3, 2.5\) is reversed"),
    "ood empty": ({"splits": {"ood": []}}, r"'m', splits: uniform takes two ends, got \[\]"),
    "held out empty": ({"splits": {"held_out": []}}, "splits: uniform takes two ends"),
    "negative mass": ({"operation": "set", "range": [-1, 2]}, "'m' must be greater than 0 .kg., got -1"),
    "negative mass by add": ({"operation": "add", "range": [-4, 2]}, "'m' must be greater than -3 .kg., got -4"),
    "negative mass ood": ({"operation": "add", "splits": {"ood": [-4, -3.5]}}, "'m' must be greater than -3"),
    "negative friction": (
        {"quantity": "friction", "target": "l_foot", "operation": "add", "range": [-2, 1]},
        "m = -2 gives l_foot on floor the friction -1 1; it must be at least 0",
    ),
    "triangle": (
        {"quantity": "inertia_x", "operation": "scale", "range": [0.5, 9]},
        r"m = 9 \(scale inertia_x of hull\) makes an impossible robot: .*A \+ B >= C",
    ),
    "through the ground": (
        {"quantity": "size", "target": "hull", "operation": "scale", "range": [1, 6]},
        r"m = 6 \(scale size of hull\): 'hull' starts 0[.0-9]* m inside 'floor'",
    ),
    "home out of range": (
        {"quantity": "range", "target": "l_hip", "operation": "scale", "range": [0.1, 1]},
        "m = 0.1 .*: joint 'l_hip' starts at 0.2, outside of its range",
    ),
    "no range": ({"quantity": "kp", "target": "r"}, "actuator 'r' is no position servo: it has no kp"),
    "no force limit": ({"quantity": "force_limit", "target": "r"}, "actuator 'r' has no force limit"),
    "no radius": ({"quantity": "radius", "target": "hull"}, "geom 'hull' is no sphere, capsule or cylinder"),
    "no size": ({"quantity": "size", "target": "floor"}, "geom 'floor' is a plane: it has no size"),
    "no length": ({"quantity": "link_length"}, "geom 'hull' of body 'hull' is a box askew to the link"),
    "zero": ({"quantity": "com_x", "operation": "scale"}, "'scale' makes no sense for com_x"),
    "scaling nothing": ({"quantity": "damping", "target": "free"}, "joint names 'free' matches nothing"),
    "target of gravity": ({"quantity": "gravity"}, "gravity takes no target, got 'hull'"),
    "defaults differ": (
        {"target": ".*", "operation": "set"},
        r"set gives all targets one mass, but their defaults differ \(hull 3, .*neutral: ",
    ),
    "unread command": (
        {"quantity": "command_x", "target": None, "operation": None},
        "no reward term asks for 'm' .command_x.; add track_velocity or velocity_error",
    ),
}
FILE_MISTAKES = {
    "unknown section": ({"rewards": {}}, "unknown key 'rewards'; did you mean 'reward'"),
    "empty section": ({"terrain": None}, "terrain is empty; write terrain: {} for its defaults, or leave it out"),
    "faults of no kind": (
        {"faults": {"places": [".*"]}},
        r"faults.places is given without faults.kinds, so that no task has a fault; give both",
    ),
    "no change": ({"changes": {"parameters": []}}, "changes.parameters is empty, so that nothing changes"),
    "standing without a command": (
        {"reward": {"stand_still": 1}},
        "reward.stand_still costs motion .* there is no command",
    ),
    "idle limit": (
        {"control": {"limit": 0.3}},
        "control.limit is 0.3, and has no effect: each actuator has a control range in the model",
    ),
    "unknown term": ({"reward": {"forward_velocty": 1}}, "no term 'forward_velocty'; did you mean 'forward_velocity'"),
    "too slow": ({"control": {"dt": 20}}, "control.dt is 20 s; a control step is at most 1 s long: give seconds"),
    "too many steps": (
        {"control": {"dt": 0.5}, "robot": {"timestep": 2e-5}},
        "control.dt is 0.5 s, which is more than 10,000 of the model's timestep",
    ),
    "too late": ({"control": {"delay": 20}}, "control.delay is 20 s, and an episode lasts 4 s; give seconds, below"),
    "end at the feet": (
        {"termination": {"contact": ["feet"]}},
        "termination.contact has .*, on which the robot stands: every episode would end in its first steps",
    ),
    "limit of nothing": ({"control": {"limit": 0}}, "control.limit is 0; it must be greater than 0"),
    "no reward": ({"reward": {}}, "reward is missing; write reward: {forward_velocity: 1, control_cost: 0.05}"),
    "negative weight": ({"reward": {"control_cost": -1}}, "reward.control_cost is -1; a weight must be positive"),
    "no parameter": ({"distribution": []}, "distribution is empty"),
    "twice": ({"distribution": [MASS, MASS]}, "two parameters are named 'm'"),
    "same thing": (
        {"distribution": [MASS, {**MASS, "name": "n", "quantity": "density"}]},
        r"distribution \(n\): density of hull is varied by 'm' already",
    ),
    "unknown part": ({"observation": ["base_heigth"]}, "there is no term 'base_heigth'; did you mean 'base_height'"),
    "no observation": ({"observation": []}, "observation is empty"),
    "a term twice": ({"observation": ["up", "up"]}, "observation has 'up' more than once; list it once"),
    "guide of a floating base": ({"observation": ["guide_positions"]}, "this robot has no 'guide_positions'"),
    "control step": ({"control": {"dt": 0.005}}, "control.dt is 0.005 s, no multiple of the model's timestep 0.002"),
    "ends at once": (
        {"termination": {"height": [0.6, 1]}},
        "ends every episode at the home pose: the base is at 0.5 m",
    ),
    "height": ({"termination": {"height": [1, 0.2]}}, r"termination.height \[1, 0.2\] is reversed"),
    "base": ({"robot": {"base": "hul"}}, "robot.base: body 'hul' is not in the model; did you mean 'hull'"),
    "feet": (
        {"robot": {"feet": ["foot"]}},
        "robot.feet: body or geom 'foot' is not in the model; did you mean '._foot'",
    ),
    "a foot twice": ({"robot": {"feet": ["l_foot", "l_foot"]}}, "robot.feet has body 'l_foot' twice"),
    "keyframe": (
        {"robot": {"keyframe": "home"}},
        "robot.keyframe: keyframe 'home' is not in the model; there are none",
    ),
    "pose": ({"robot": {"pose": {"hip": 0.1}}}, "robot.pose: joints 'hip' matches nothing"),
    "pose out of range": ({"robot": {"pose": {"l_hip": 2}}}, "home has joint 'l_hip' at 2, outside of its range"),
    "in the ground": ({"robot": {"height": 0.2}}, "at the home pose '._foot' is 0.19 m inside 'floor'"),
    "actuators twice": (
        {"robot": {"actuators": {"kind": "motor"}}},
        "robot.actuators is given, but the model has 2, and 'l' is no torque motor",
    ),
    "floating": ({"robot": {"floating": False}}, "robot.floating is false, but base 'hull' has a free joint"),
    "horizon": ({"episode": {"horizon": 0}}, "horizon must be at least 1 step, got 0"),
    "no mapping": ({"control": 3}, "control is 3; it must be a mapping"),
}


@pytest.mark.parametrize("case", ENTRY_MISTAKES)
def test_a_wrong_parameter_is_refused_with_name_and_value(case, tmp_path):
    change, message = ENTRY_MISTAKES[case]
    wrong = {k: v for k, v in {**MASS, **change}.items() if v is not None}
    hints = {"pose": {"l_hip": 0.2}} if case == "home out of range" else {}
    with pytest.raises(ValueError, match=message) as caught:
        family_of(tmp_path, wrong, robot=hints)
    assert "family.yaml" in str(caught.value)


@pytest.mark.parametrize("case", FILE_MISTAKES)
def test_a_wrong_file_is_refused_with_key_and_remedy(case, tmp_path):
    change, message = FILE_MISTAKES[case]
    with pytest.raises(ValueError, match=message):
        make_family(RobotSettings(biped(tmp_path), declare(tmp_path, **change)))


def test_an_arm_without_actuators_is_offered_servos_that_carry_it(tmp_path):
    """Stretched out it weighs (12 x 0.25 + 8 x 0.75) m kg on its first joint, and 8 x 0.25 on its second."""
    link = '<joint name="{j}" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 .5 0 0" size=".01" mass="{m}"/>'
    (tmp_path / "arm.xml").write_text(
        f'<mujoco><worldbody><body name="a" pos="0 0 2">{link.format(j="j1", m=12)}<body name="b" pos=".5 0 0">'
        f"{link.format(j='j2', m=8)}</body></body></worldbody></mujoco>"
    )
    varied = entry("mass", "b", "scale", [0.8, 1.2])
    robot, *_ = check_robot(str(tmp_path / "arm.xml"), declare(tmp_path, reward={"alive": 1}, distribution=[varied]))
    [question] = robot.questions
    asked = yaml.safe_load(re.search(r"write in the YAML robot: (\{.*?\}) \(N m", question)[1])["actuators"]
    stiffness = [asked["kp"], asked["gains"]["j2"][0]]
    assert stiffness == pytest.approx([9 * 9.81 / 0.05, 2 * 9.81 / 0.05], rel=0.1)


@pytest.mark.parametrize(("at", "refused"), [("", True), ('pos="0 0 -1"', False), ('euler="0.1 0 0"', False)])
def test_a_second_floor_in_the_same_place_is_refused(at, refused, tmp_path):
    Path(model := biped(tmp_path)).write_text(
        Path(biped(tmp_path)).read_text().replace("<worldbody>", f'<worldbody><geom type="plane" size="0 0 1" {at}/>')
    )
    settings = RobotSettings(model, declare(tmp_path, robot={"floor": True}))
    if refused:
        with pytest.raises(
            ValueError, match="robot.floor is true, and the model has a level floor at height 0, 'floor'"
        ):
            make_family(settings)
    else:
        make_family(settings)


def test_what_must_be_asked_is_asked(tmp_path):
    for actuators, message in (
        ("", r"no actuators; write in the YAML robot: {actuators: {kind: position, kp: [0-9.]+, kd: [0-9.]+}}"),
        ('<actuator><motor name="r" joint="r_hip"/></actuator>', "'r' has no control range.*control: {limit: 1.0}"),
    ):
        robot, _ = check_robot(biped(tmp_path, actuators))
        assert any(re.search(message, question) for question in robot.questions)
        with pytest.raises(ValueError, match=message.split("\\n")[0]):
            make_family(RobotSettings(biped(tmp_path, actuators), declare(tmp_path)))
    added = {"robot": {"actuators": {"kind": "position", "kp": 40, "kd": 1, "force": 7}}}
    _, family = check_robot(biped(tmp_path, ""), declare(tmp_path, **added))
    assert family is not None
    model = family.compile(family.neutral())
    assert model.actuator("l_hip").gainprm[0] == 40 and model.actuator("l_hip").forcerange[1] == 7
    np.testing.assert_allclose(model.actuator("l_hip").ctrlrange, np.radians([-40, 40]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<mujoco><worldbody/>", "is not valid XML"),
        ("<mujoco><worldbody><bdoy/></worldbody></mujoco>", "bdoy"),
        ("<mujoco><worldbody><body><geom size='.1'/></body></worldbody></mujoco>", "the model has no joints"),
        (
            "<mujoco><worldbody><body name='a'><joint/><geom size='.1'/></body>"
            "<body name='b' pos='1 0 0'><joint/><geom size='.1'/></body></worldbody></mujoco>",
            "a, b could each be the robot's base; write robot: {base: a}",
        ),
        ("<mujoco><worldbody><body name='a'><joint/></body></worldbody></mujoco>", "does not compile"),
    ],
)
def test_a_model_that_is_no_robot_is_refused(text, message, tmp_path):
    path = tmp_path / "robot.xml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        check_robot(str(path))


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(ValueError, match="no robot absent.xml; give an MJCF or URDF file"):
        check_robot("absent.xml")
    with pytest.raises(ValueError, match="cannot read absent.yaml: No such file"):
        check_robot(biped(tmp_path), "absent.yaml")
    (made := tmp_path / "made.py").write_text("def robot():\n    raise AssertionError\n")
    with pytest.raises(ValueError, match=r"made.py is a Python file; name the function in it .*made.py:FUNCTION$"):
        check_robot(str(made))
    path = tmp_path / "family.yaml"
    for text, message in (("a: [", "is not valid YAML"), ("reward: {}\nreward: {}", "'reward' is given twice")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            check_robot(biped(tmp_path), str(path))


def assert_same(a: mujoco.MjModel, b: mujoco.MjModel) -> None:
    """Every array but the paths of the files and their length."""
    arrays = [
        name for name in dir(a) if isinstance(getattr(a, name), np.ndarray) and "path" not in name and name != "_sizes"
    ]
    assert len(arrays) > 300
    for name in arrays:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.mark.parametrize("kind", ["mjcf", "function", "urdf"])
def test_a_copy_is_the_same_robot_without_the_originals(kind, tmp_path):
    home = tmp_path / "home"
    (home / "parts").mkdir(parents=True)
    mesh = Path(shell(home / "meshes")).name
    (home / "parts" / "servos.xml").write_text(f"<mujoco>{SERVOS}</mujoco>")
    text = BIPED.format(
        actuators='<include file="parts/servos.xml"/>'
        f'<compiler meshdir="meshes"/><asset><mesh name="shell" file="{mesh}"/></asset>',
        extra='<geom type="mesh" mesh="shell" pos="0.123456789 0 .2"/>',
    )
    (home / "robot.xml").write_text(text)
    (home / "leg.urdf").write_text(URDF)
    (home / "make.py").write_text(
        f"import mujoco\ndef robot():\n    return mujoco.MjSpec.from_file({str(home / 'robot.xml')!r})\n"
    )
    model = {"mjcf": "robot.xml", "function": "make.py:robot", "urdf": "leg.urdf"}[kind]
    target = "toe" if kind == "urdf" else "hull"
    hints = {"floating": True, "actuators": {"kind": "motor"}} if kind == "urdf" else {}
    settings = RobotSettings(
        str(home / model), declare(home, distribution=[entry("mass", target, "scale", [1, 2])], robot=hints)
    )
    family = make_family(settings)
    task = family.sample(1, np.random.default_rng(0))[0]
    assert family.visual is not None
    models = family.compile(task), family.visual().compile()
    copied = copy_robot(settings, tmp_path / "run")
    home.rename(tmp_path / "elsewhere")
    again = make_family(copied)
    assert again.visual is not None
    assert_same(models[0], again.compile(task))
    assert_same(models[1], again.visual().compile())
    assert models[1].nmesh == 1
    assert family.observation_names == again.observation_names


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('timestep="0.005"', 'timestep="0"', "timestep is 0 s; give one greater than 0"),
        ('damping="0.3"', 'damping="nan"', "damping of a <joint> is 'nan', which is no number"),
        ('damping="0.3"', 'damping="-NaN"', "damping of a <joint> is '-NaN', which is no number"),
        ('damping="0.3"', 'damping="inf"', "damping of a <joint> is 'inf', which is no number; write one, or leave"),
        ('pos="0 0 0.26"', 'pos="0 0 -inf"', "pos of a <body> is '0 0 -inf', which is no number"),
        ('ctrlrange="-1 1"', 'ctrlrange="-inf inf"', "ctrlrange of a <motor> is '-inf inf', which is no number"),
        (
            "<actuator>",
            '<actuator><position name="p" joint="fl_hip" gear="0"/>',
            "no action moves actuator 'p': its gear",
        ),
        ('timestep="0.005"', 'timestep="1e-300"', "more than 10,000 of the model's timestep of 1e-300 s"),
        ("<worldbody>", '<size nuserdata="2000000000"/><worldbody>', "nuserdata of <size> is '2000000000'; it must be"),
        (
            "<worldbody>",
            '<worldbody><replicate count="9999"><replicate count="9999"><site/></replicate></replicate>',
            "count of a <replicate> is '9999', which makes more than 100,000 parts with those around it",
        ),
    ],
)
def test_a_model_of_no_numbers_is_refused_without_a_word_of_mujocos(old, new, said, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = Path(f"{EXAMPLE}.xml").read_text()
    assert old in text
    Path("robot.xml").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=said):
        check_robot("robot.xml", f"{EXAMPLE}.yaml")
    assert capfd.readouterr() == ("", "") and not Path("MUJOCO_LOG.TXT").exists()


@pytest.mark.parametrize("how", ["include", "model", "function", "urdf"])
def test_numbers_are_looked_at_wherever_they_are(how, tmp_path):
    part = '<joint name="j" axis="0 1 0" damping="{}"/><geom name="g" size="0.1"/>'
    (tmp_path / "part.xml").write_text(
        f'<mujoco><worldbody><body name="b">{part.format("nan")}</body></worldbody></mujoco>'
    )
    (tmp_path / "include.xml").write_text('<mujoco><include file="part.xml"/></mujoco>')
    (tmp_path / "model.xml").write_text(
        '<mujoco><asset><model name="m" file="part.xml"/></asset><worldbody><body><geom size="0.1"/>'
        '<attach model="m" body="b" prefix="p"/></body></worldbody></mujoco>'
    )
    (tmp_path / "function.py").write_text(
        "import mujoco\n\n\ndef function():\n    spec = mujoco.MjSpec()\n    body = spec.worldbody.add_body(name='b')\n"
        "    body.add_geom(size=[0.1, 0, 0])\n    body.add_joint(frictionloss=float('inf'))\n    return spec\n"
    )
    (tmp_path / "urdf.urdf").write_text(
        '<robot name="r"><link name="a"/><link name="b"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" '
        'ixy="0" ixz="0" iyz="0"/></inertial></link><joint name="j" type="revolute"><parent link="a"/>'
        '<child link="b"/><axis xyz="0 1 0"/><limit lower="-inf" upper="9" effort="inf" velocity="9"/></joint></robot>'
    )
    name = {"function": "function.py:function", "urdf": "urdf.urdf"}.get(how, f"{how}.xml")
    said = {"function": "frictionloss of a <joint> is 'inf'", "urdf": "lower of a <limit> is '-inf'"}
    with pytest.raises(ValueError, match=f"{said.get(how, 'damping of a <joint> is .nan.')}, which is no number"):
        check_robot(str(tmp_path / name))


def test_a_function_that_ends_the_program_is_said_to_have_failed(tmp_path):
    (tmp_path / "robot.py").write_text("import sys\n\n\ndef make():\n    sys.exit(7)\n")
    with pytest.raises(ValueError, match="robot.py:make failed: SystemExit: 7"):
        check_robot(f"{tmp_path}/robot.py:make")
