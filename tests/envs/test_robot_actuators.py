"""Actuators of one's own robot: what they are taken for, what holds home, and what varying them does."""

from __future__ import annotations

import re
from pathlib import Path

import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.own_robot.check_run import at_limit
from metarl.envs.own_robot.family import check_robot
from tests.envs.own_robot.families import HOME, arm, at, declared, entry, family_of, played, written

SERVO = '<position name="a" joint="lift" kp="200" kv="10" ctrlrange="-2 2"/>'
TENDON = '<tendon><spatial name="t"{}><site site="high"/><site site="tip"/></spatial></tendon>'
# by name: (actuator, its kind, control signal that holds home, activation that does)
HOLDING = {
    "plain": (SERVO, "position", HOME, None),
    "filtered": (SERVO.replace("kv", 'timeconst=".1" kv'), "position", HOME, HOME),
    "rescaled": (
        '<general name="a" joint="lift" ctrlrange="0 255" gainprm="1.5686" biastype="affine" biasprm="-200 -200 -10"/>',
        "position", (200 * HOME + 200) / 1.5686, None,
    ),
    "reversed": (
        '<general name="a" joint="lift" ctrlrange="-2 2" gainprm="-200" biastype="affine" biasprm="0 -200 -10"/>',
        "position", -HOME, None,
    ),
    "geared": (
        '<position name="a" joint="lift" gear="3" kp="22" kv="1" ctrlrange="-6 6"/>', "position", 3 * HOME, None,
    ),
    "integrated": (
        '<intvelocity name="a" joint="lift" kp="200" kv="10" ctrlrange="-2 2" actrange="-2 2"/>', "velocity", 0.0, HOME,
    ),
    "narrow": (
        '<general name="a" joint="lift" ctrlrange="-2 2" dyntype="filterexact" dynprm=".05" gainprm="200"'
        ' biastype="affine" biasprm="0 -200 -10" actrange="-2 2"/>', "position", HOME, HOME,
    ),
    "delayed": (SERVO.replace("kp", 'delay=".03" nsample="20" kp'), "position", HOME, None),
}  # fmt: skip
OTHERS = {
    "motor": ('<motor name="a" joint="lift" ctrlrange="-2 2"/>', "force"),
    "filtered motor": ('<general name="a" joint="lift" dyntype="filter" dynprm=".05" ctrlrange="-2 2"/>', "force"),
    "velocity": ('<velocity name="a" joint="lift" kv="3" ctrlrange="-2 2"/>', "velocity"),
    "braked motor": (
        '<general name="a" joint="lift" gainprm="5" biastype="affine" biasprm="1 0 -.2" ctrlrange="-2 2"/>', "force",
    ),
    "damper": ('<damper name="a" joint="lift" kv="2" ctrlrange="0 1"/>', "damping"),
    "dcmotor": (
        '<dcmotor name="a" joint="lift" motorconst=".05 .05" resistance=".5" gear="20" ctrlrange="-24 24"/>', "voltage",
    ),
    "muscle": ('<muscle name="a" tendon="t" force="90" lengthrange=".2 1.2"/>', "muscle"),
    "muscle by scale": ('<muscle name="a" tendon="t" lengthrange=".2 1.2"/>', "muscle"),
    "cylinder": ('<cylinder name="a" joint="lift" timeconst=".1" area=".1" ctrlrange="0 1"/>', "force"),
    "adhesion": ('<adhesion name="a" body="boom" gain="3" ctrlrange="0 1"/>', "adhesion"),
}  # fmt: skip
EVERY = {name: case[:2] for name, case in HOLDING.items()} | OTHERS


def tendon_for(actuator: str, **limit: str) -> str:
    attributes = "".join(f' {name}="{value}"' for name, value in limit.items())
    return TENDON.format(attributes) if 'tendon="t"' in actuator else ""


@pytest.mark.parametrize("name", EVERY)
def test_kinds_follow_from_the_law_of_the_force(name, tmp_path):
    actuator, kind = EVERY[name]
    robot, _ = check_robot(arm(tmp_path, actuator, tendon=tendon_for(actuator)), "")
    assert robot.kinds == (kind,) and not robot.questions


@pytest.mark.parametrize("name", HOLDING)
def test_action_0_is_the_model_held_at_home(name, tmp_path):
    actuator, _, control, activation = HOLDING[name]
    model_file = arm(tmp_path, actuator)
    path, env = played(family_of(tmp_path, model_file), np.zeros((50, 1)))
    model = mujoco.MjModel.from_xml_path(model_file)
    data = mujoco.MjData(model)
    data.qpos[0], data.ctrl[0] = HOME, control
    if activation is not None:
        data.act[0] = activation
    if name == "delayed":
        mujoco.mj_initCtrlHistory(model, data, 0, None, np.full(20, control))
    for _ in range(50 * env.family.frame_skip):
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(path[-1, 0], data.qpos, atol=1e-9)
    assert abs(path[:, 0, 0] - HOME).max() < 0.02  # it sags a little


@pytest.mark.parametrize("name", [n for n in HOLDING if n != "integrated"])
@pytest.mark.parametrize("action", [-0.4, 0.3])
def test_an_action_on_a_servo_is_a_joint_offset_in_radians(name, action, tmp_path):
    weightless = '<option gravity="0 0 0"/>'
    extra = entry("mass", "boom", "scale", [0.9, 1.1])
    path, _ = played(
        family_of(tmp_path, arm(tmp_path, HOLDING[name][0], extra=weightless), extra), np.full((150, 1), action)
    )
    assert path[-1, 0, 0] == pytest.approx(HOME + action, abs=1e-3)


def forces(model: mujoco.MjModel, seed: int = 0) -> np.ndarray:
    """Force of the actuator on the joint, at 20 random states."""
    rng, data, found = np.random.default_rng(seed), mujoco.MjData(model), []
    for _ in range(20):
        data.qpos[0], data.qvel[0] = rng.uniform(-1, 1, 2)
        if model.na:
            data.act[:] = rng.uniform(0, 1)
        data.ctrl[0] = rng.uniform(*model.actuator_ctrlrange[0]) if model.actuator_ctrllimited[0] else 0.5
        mujoco.mj_forward(model, data)
        found.append(data.actuator_force[0])
        found.append(data.qfrc_actuator[0])
    return np.array(found)


@pytest.mark.parametrize("limited", ["", "own", "joint"])
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("factor", [0.5, 1.4])
def test_strength_scales_the_force_at_every_state(name, limited, factor, tmp_path):
    actuator = EVERY[name][0]
    if limited == "own" and name == "dcmotor":
        pytest.skip("MJCF gives a DC motor no force range")
    joint = 'actuatorfrcrange="-3 3"' if limited == "joint" else ""
    if limited == "own":
        actuator = actuator.replace("/>", ' forcerange="-3 2"/>')
    model_file = arm(tmp_path, actuator, joint=joint, tendon=tendon_for(actuator))
    family = family_of(tmp_path, model_file, entry("strength", "a", "scale", [0.4, 1.5]))
    own = forces(mujoco.MjModel.from_xml_path(model_file))
    assert np.abs(own).max() > 0.01 or name in ("adhesion", "delayed")
    np.testing.assert_allclose(forces(at(family, 1.0)), own, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(forces(at(family, factor)), factor * own, rtol=1e-9, atol=1e-12)


def test_strength_scales_the_limit_of_a_tendon(tmp_path):
    actuator = '<motor name="a" tendon="t" ctrlrange="-9 9"/>'
    tendon = tendon_for(actuator, actuatorfrcrange="-4 4")
    family = family_of(tmp_path, arm(tmp_path, actuator, tendon=tendon), entry("strength", "a", "scale", [0.4, 1.5]))
    np.testing.assert_allclose(forces(at(family, 1.4)), 1.4 * forces(at(family, 1.0)))
    assert np.abs(forces(at(family, 0.5))[::2]).max() == pytest.approx(2)


def test_a_tendons_limit_is_of_the_force_before_its_gear(tmp_path):
    actuator = '<motor name="a" tendon="t" gear="2" ctrlrange="-9 9"/>'
    model = arm(tmp_path, actuator, tendon=tendon_for(actuator, actuatorfrcrange="-4 4"))
    family = family_of(tmp_path, model, entry("force_limit", "a", "set", [1, 6]), reward={"torque_limits": 1})
    assert family.neutral().values["p"] == 4
    data = mujoco.MjData(compiled := at(family, 2.0))
    data.ctrl[:] = 9
    mujoco.mj_forward(compiled, data)
    assert data.actuator_force[0] == pytest.approx(2) and at_limit(compiled, data).all()
    env = BatchedEnv(family, 1, 1, threads=1)
    env.reset([np.random.default_rng(0)])
    assert env.step(np.full((1, 1, 1), 9.0)).rewards[0, 0] == pytest.approx(-0.2 * 4)


@pytest.mark.parametrize(
    ("limits", "joint", "default"),
    [
        ('forcerange="-9 9"', "", 9),
        ("", 'actuatorfrcrange="-5 5"', 5),
        ('forcerange="-4 3"', 'actuatorfrcrange="-5 5"', 4),
        ('forcerange="-9 9" gear="2"', 'actuatorfrcrange="-5 5"', 2.5),
    ],
)
def test_several_limits_on_one_torque_are_one(limits, joint, default, tmp_path):
    actuator = f'<motor name="a" joint="lift" ctrlrange="-50 50" {limits}/>'
    model_file = arm(tmp_path, actuator, joint=joint)
    torque = np.abs(forces(mujoco.MjModel.from_xml_path(model_file))[1::2]).max()
    for operation, value, factor in (("scale", 0.5, 0.5), ("scale", 1.5, 1.5), ("set", default / 2, 0.5)):
        family = family_of(tmp_path, model_file, entry("force_limit", "a", operation, sorted([value, value / 2])))
        assert np.abs(forces(at(family, value))[1::2]).max() == pytest.approx(factor * torque)


@pytest.mark.parametrize("name", ["plain", "rescaled", "filtered"])
def test_kp_keeps_home_and_kd(name, tmp_path):
    actuator, _, control, activation = HOLDING[name]
    family = family_of(tmp_path, arm(tmp_path, actuator), entry("kp", "a", "scale", [0.5, 2]))
    for value in (0.5, 2.0):
        model = at(family, value)
        data = mujoco.MjData(model)

        def force(qpos, qvel, model=model, data=data):
            data.qpos[0], data.qvel[0], data.ctrl[0] = qpos, qvel, control
            if activation is not None:
                data.act[0] = activation
            mujoco.mj_forward(model, data)
            return data.actuator_force[0]

        assert force(HOME, 0) == pytest.approx(0, abs=1e-9)
        assert force(HOME - 0.1, 0) == pytest.approx(20 * value)
        assert force(HOME, -0.1) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("actuator", "quantity", "message"),
    [
        ('<pid name="a" joint="lift" kp="20" ki="5" kv="1"/>', "gravity", "'a' takes 2 control signals"),
        (
            '<dcmotor name="a" joint="lift" motorconst=".05 .05" resistance=".5" cogging=".1 4 0" ctrlrange="-9 9"/>',
            "strength", "DC motor with saturation, cogging",
        ),
        (SERVO, "gear", "and another gear would change the pose that it holds"),
        ('<motor name="a" joint="lift" ctrlrange="-1 1"/>', "kp", "no position servo"),
        ('<motor name="a" joint="lift" ctrlrange="-1 1"/>', "force_limit", "has no force limit"),
    ],
)  # fmt: skip
def test_what_cannot_be_driven_or_varied_is_refused_by_name(actuator, quantity, message, tmp_path):
    target = None if quantity == "gravity" else "a"
    with pytest.raises(ValueError, match=message):
        family_of(tmp_path, arm(tmp_path, actuator), entry(quantity, target, "scale", [0.5, 1]))


def test_a_limit_that_actuators_share_is_varied_for_all_of_them(tmp_path):
    both = '<motor name="a" joint="lift" ctrlrange="-9 9"/><motor name="b" joint="lift" ctrlrange="-9 9"/>'
    model_file = arm(tmp_path, both, joint='actuatorfrcrange="-3 3"')
    with pytest.raises(ValueError, match="limited to \\[-3, 3\\] for 'a', 'b' together; let target match 'b' too"):
        family_of(tmp_path, model_file, entry("strength", "a", "scale", [0.5, 1]))
    model = at(family_of(tmp_path, model_file, entry("strength", "[ab]", "scale", [0.5, 1])), 0.5)
    assert model.jnt_actfrcrange[0].tolist() == [-1.5, 1.5]


@pytest.mark.parametrize(
    ("actuator", "message"),
    [
        (SERVO.replace("-2 2", "-.5 .5"), "needs 0.7 there, .*in \\[-0.5, 0.5\\]; write robot: {pose: {lift: 0.5}}"),
        (HOLDING["geared"][0].replace("-6 6", "-1.5 1.5"), "needs 2.1 there, .*write robot: {pose: {lift: 0.5}}"),
        (HOLDING["rescaled"][0].replace("0 255", "0 200"), "needs 216.8 there, .*write robot: {pose: {lift: 0.5686}}"),
        (HOLDING["integrated"][0].replace('actrange="-2 2', 'actrange="-1 .5'), "activations in .*{pose: {lift: 0.5}}"),
        (HOLDING["narrow"][0].replace('actrange="-2 2', 'actrange="-1 .5'), "activations in .*{pose: {lift: 0.5}}"),
    ],
)  # fmt: skip
def test_a_servo_that_cannot_hold_home_is_asked_about(actuator, message, tmp_path):
    model = arm(tmp_path, actuator)
    robot, family = check_robot(model, declared(tmp_path))
    assert family is None and len(robot.questions) == 1
    found = re.search(message, robot.questions[0])
    assert found, robot.questions[0]
    pose = float(re.findall(r"lift: ([0-9.]+)", robot.questions[0])[0])
    robot, family = check_robot(model, declared(tmp_path, robot={"pose": {"lift": pose - 1e-3}}))
    assert family is not None and not robot.questions


WEIGHT = entry("payload", "boom", "set", [0, 3], position=[0.4, 0, 0])
VARIED = (WEIGHT, entry("link_length", "boom", "scale", [1, 1.3]), entry("range", "lift", "scale", [0.9, 1]))
FIELDS = (
    "actuator_gainprm",
    "actuator_biasprm",
    "actuator_lengthrange",
    "actuator_ctrlrange",
    "jnt_stiffness",
    "dof_damping",
)
DERIVED = {
    "dampratio": (SERVO.replace('kv="10"', 'dampratio="1"'), ""),
    "springdamper": ('<motor name="a" joint="lift" ctrlrange="-2 2"/>', 'springdamper=".2 1"'),
    "muscle": ('<muscle name="a" tendon="t" lengthrange=".2 1.2"/>', ""),
    "length range": ('<muscle name="a" tendon="t" force="50"/>', ""),
    "inherited range": ('<position name="a" joint="lift" kp="50" inheritrange=".5"/>', ""),
}


@pytest.mark.parametrize("name", DERIVED)
@pytest.mark.parametrize("varied", VARIED, ids=lambda given: given["quantity"])
def test_what_the_compiler_derives_is_that_of_the_neutral_robot(name, varied, tmp_path):
    actuator, joint = DERIVED[name]
    if varied["quantity"] == "link_length" and 'tendon="t"' in actuator:
        pytest.skip("a muscle's length would not follow: refused")
    model_file = arm(tmp_path, actuator, joint=joint, tendon=tendon_for(actuator))
    family = family_of(tmp_path, model_file, varied)
    own, other = mujoco.MjModel.from_xml_path(model_file), at(family, family.neutral().values["p"])
    np.testing.assert_allclose(forces(other), forces(own), rtol=1e-9)
    ends = [at(family, value) for value in varied["range"]]
    for field in FIELDS:
        np.testing.assert_array_equal(*(getattr(model, field) for model in ends))


@pytest.mark.parametrize("gravcomp", [1.0, 0.6])
def test_gravity_compensation_is_that_of_the_neutral_robot(gravcomp, tmp_path):
    model_file = arm(tmp_path, SERVO)
    text = Path(model_file).read_text().replace('<body name="boom"', f'<body name="boom" gravcomp="{gravcomp}"')
    family = family_of(tmp_path, written(tmp_path, text), entry("mass", "boom", "scale", [0.5, 2]))
    for value in (0.5, 1.0, 2.0):
        model = at(family, value)
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        torque = 0.4 * 9.81 * 0.25  # of the neutral boom's weight about its hinge
        np.testing.assert_allclose(data.qfrc_gravcomp, gravcomp * torque, rtol=1e-9)
        np.testing.assert_allclose(data.qfrc_bias, value * torque, rtol=1e-9)


def test_kd_that_a_damping_ratio_gave_is_varied_alone(tmp_path):
    model_file = arm(tmp_path, DERIVED["dampratio"][0])
    own = mujoco.MjModel.from_xml_path(model_file)
    for quantity, index, other in (("kd", 2, 1), ("kp", 1, 2)):
        model = at(family_of(tmp_path, model_file, entry(quantity, "a", "scale", [0.5, 2])), 2.0)
        assert model.actuator_biasprm[0, index] == pytest.approx(2 * own.actuator_biasprm[0, index])
        assert model.actuator_biasprm[0, other] == own.actuator_biasprm[0, other]


WILD = """<default><geom condim="1" margin=".01"/><joint damping="5" armature=".5" frictionloss=".4" stiffness="2"/>
  <general gear="30" ctrlrange="-.1 .1" forcerange="-.2 .2" gainprm="7" biastype="affine" biasprm="1 2 3"
    dyntype="filter" dynprm=".3" group="3"/><motor gear="30"/><position gear="30" kp="3"/></default>"""
LIMB = """<mujoco>{}<worldbody><body name="base" pos="0 0 1"><geom size=".1" pos="0 .3 0"/>
  <body name="limb"><joint name="hip" axis="0 1 0" range="-60 60" damping="0" armature="0" frictionloss="0"
    stiffness="0"/>
  <geom name="skin" size=".1" condim="3" margin="0"/></body></body></worldbody></mujoco>"""


@pytest.mark.parametrize(
    "wanted",
    [
        {"kind": "motor", "force": 10},
        {"kind": "position", "kp": 40, "kd": 1, "force": 10},
        {"kind": "velocity", "kd": 2, "speed": 10},
        {"kind": "position", "kp": 4, "joints": "hip"},
    ],
)
@pytest.mark.parametrize("floating", [True, None])
def test_what_is_added_takes_nothing_from_the_default_class(wanted, floating, tmp_path):
    robot = {"actuators": wanted, **({"floating": True} if floating else {})}
    models = []
    for defaults in ("", WILD):
        model_file = written(tmp_path, LIMB.format(defaults))
        models.append(check_robot(model_file, declared(tmp_path, robot=robot))[0].model)
    for field in dir(models[0]):
        if field.startswith(("actuator_", "jnt_", "dof_")) and isinstance(getattr(models[0], field), np.ndarray):
            np.testing.assert_array_equal(*(getattr(m, field) for m in models), err_msg=field)
    expected = np.radians([-60, 60]) if wanted["kind"] == "position" else np.array([-10, 10])
    np.testing.assert_allclose(models[1].actuator_ctrlrange, [expected])


EFFORT = """<robot name="r"><link name="base"><inertial><mass value="3"/>
  <inertia ixx=".1" iyy=".1" izz=".1" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <link name="arm"><inertial><origin xyz="0 0 .1"/><mass value="1"/>
  <inertia ixx=".01" iyy=".01" izz=".01" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <joint name="j" type="revolute"><parent link="base"/><child link="arm"/><axis xyz="0 1 0"/>
  <limit lower="-1" upper="1" effort="8" velocity="3"/></joint></robot>"""


@pytest.mark.parametrize("quantity", ["strength", "force_limit"])
@pytest.mark.parametrize(
    "wanted",
    [{"kind": "motor"}, {"kind": "position", "kp": 4000}, {"kind": "position", "kp": 4000, "force": 6}],
    ids=["motor", "servo", "weaker servo"],
)
def test_effort_of_a_urdf_is_the_one_limit(quantity, wanted, tmp_path):
    model_file = written(tmp_path, EFFORT, "arm.urdf")
    family = family_of(tmp_path, model_file, entry(quantity, "j", "scale", [0.5, 1.5]), robot={"actuators": wanted})
    for value in (0.5, 1.0, 1.5):
        model = at(family, value)
        data = mujoco.MjData(model)
        data.ctrl[0] = model.actuator_ctrlrange[0, 1]
        mujoco.mj_forward(model, data)
        limit = wanted.get("force", 8)
        expected = limit if quantity == "force_limit" and wanted["kind"] == "motor" and value > 1 else limit * value
        assert data.qfrc_actuator[0] == pytest.approx(expected)


def test_a_force_above_the_models_limit_is_refused(tmp_path):
    robot = {"actuators": {"kind": "motor", "force": 20}}
    with pytest.raises(ValueError, match=r"force is 20, above the model's own limit of joint 'j', \[-8, 8\]"):
        family_of(tmp_path, written(tmp_path, EFFORT, "arm.urdf"), robot=robot)


def test_gains_of_their_own_for_some_joints(tmp_path):
    robot = {"actuators": {"kind": "position", "kp": 40, "kd": 1, "gains": {"j": [10, 0.5]}}}
    model = family_of(tmp_path, written(tmp_path, EFFORT, "arm.urdf"), robot=robot).base().compile()
    np.testing.assert_array_equal(model.actuator_biasprm[0, :3], [0, -10, -0.5])
    robot["actuators"]["gains"] = {"knee": [1, 1]}
    with pytest.raises(ValueError, match="robot.actuators.gains 'knee' matches no joint; there are j"):
        family_of(tmp_path, written(tmp_path, EFFORT, "arm.urdf"), robot=robot)


def test_gains_that_come_too_late_are_refused(tmp_path):
    """The first match counts: a joint's own entry after a pattern that has it would change nothing."""
    robot = {"actuators": {"kind": "position", "kp": 40, "kd": 1, "gains": {".*": [10, 0.5], "j": [20, 1]}}}
    with pytest.raises(ValueError, match="robot.actuators.gains 'j' has no effect: '.*' comes first, and the first m"):
        family_of(tmp_path, written(tmp_path, EFFORT, "arm.urdf"), robot=robot)
    robot["actuators"]["gains"] = {"j": [20, 1]}
    model = family_of(tmp_path, written(tmp_path, EFFORT, "arm.urdf"), robot=robot).base().compile()
    np.testing.assert_array_equal(model.actuator_biasprm[0, :3], [0, -20, -1])


ROTOR = '<motor name="a" joint="lift" gear="-5" armature=".01" damping=".02 .003 .001" ctrlrange="-1 1"/>'


def inertia_and_damping(model: mujoco.MjModel, speed: float, force: bool = True) -> tuple[float, float]:
    """Of the boom: kg m^2, and N m at a speed, rad/s, without the servos' own."""
    data = mujoco.MjData(model)
    data.qvel[0] = speed
    mujoco.mj_forward(model, data)
    inertia = np.zeros((1, 1))
    mujoco.mj_fullM(model, data, inertia)
    return float(inertia[0, 0]), float(data.qfrc_passive[0])


@pytest.mark.parametrize("kind", [{"kind": "position", "kp": 50, "kd": 2}, {"kind": "velocity", "kd": 2, "speed": 3}])
def test_servos_in_place_of_geared_motors_keep_what_the_rotors_add(kind, tmp_path):
    model_file = arm(tmp_path, ROTOR)
    own = mujoco.MjModel.from_xml_path(model_file)
    model = family_of(tmp_path, model_file, robot={"actuators": kind}).base().compile()
    assert model.actuator_gear[0, 0] == 1 and own.actuator_gear[0, 0] == -5
    for speed in (-2.0, 0.3, 1.7):
        np.testing.assert_allclose(inertia_and_damping(model, speed), inertia_and_damping(own, speed), rtol=1e-9)
    said = family_of(tmp_path, model_file, robot={"actuators": {**kind, "armature": 0.5}}).base().compile()
    without = mujoco.MjModel.from_xml_path(arm(tmp_path, ROTOR.replace('armature=".01"', ""), joint='armature=".5"'))
    np.testing.assert_allclose(inertia_and_damping(said, 1.0), inertia_and_damping(without, 1.0), rtol=1e-9)


@pytest.mark.parametrize(
    ("actuators", "said"),
    [
        ('<general name="a" joint="lift" dyntype="filter" dynprm=".05" ctrlrange="-1 1"/>', "no torque motor of one j"),
        ('<motor name="a" joint="lift" gear="0" ctrlrange="-1 1"/>', "motor 'a' of the model has gear 0"),
        (2 * '<motor joint="lift" ctrlrange="-1 1"/>', "joint 'lift' of the model has two motors"),
    ],
)
def test_what_no_servo_can_take_the_place_of_is_refused(actuators, said, tmp_path):
    robot = {"actuators": {"kind": "position", "kp": 50}}
    with pytest.raises(ValueError, match=f"robot.actuators is given, but .*{said}.*; leave robot.actuators out"):
        family_of(tmp_path, arm(tmp_path, actuators), robot=robot)


def seconds_to_force(model: mujoco.MjModel) -> float:
    """Until the signal of a servo that is asked for something else changes its force."""
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_initCtrlHistory(model, data, 0, None, np.full(model.actuator_history[0, 0], HOME))
    data.qpos[0], data.ctrl[0] = HOME, HOME + 0.5
    mujoco.mj_forward(model, data)
    while data.time < 1 and abs(data.actuator_force[0]) < 50:
        data.qpos[0], data.qvel[0] = HOME, 0.0
        mujoco.mj_step(model, data)
    return data.time


@pytest.mark.parametrize("step", [0.0005, 0.001, 0.002, 0.005])
@pytest.mark.parametrize("more", [0.0, 0.01])
def test_a_delay_of_the_models_lasts_as_long_at_another_step_and_another_is_added(step, more, tmp_path):
    model_file = arm(tmp_path, HOLDING["delayed"][0])
    family = family_of(tmp_path, model_file, robot={"timestep": step}, control={"delay": more})
    assert seconds_to_force(family.base().compile()) == pytest.approx(0.03 + more, abs=2 * step)


def test_kd_of_a_velocity_servo_scales_its_signal_too(tmp_path):
    velocity = '<velocity name="a" joint="lift" kv="3" ctrlrange="-2 2"/>'
    family = family_of(tmp_path, arm(tmp_path, velocity), entry("kd", "a", "scale", [0.5, 2]))
    for value in (0.5, 2.0):
        model = at(family, value)
        data = mujoco.MjData(model)
        data.qvel[0], data.ctrl[0] = 0.5, 2.0
        mujoco.mj_forward(model, data)
        assert data.actuator_force[0] == pytest.approx(value * 3 * (2.0 - 0.5))
    integrated = HOLDING["integrated"][0]
    with pytest.raises(ValueError, match="'a' is no position servo, and no <velocity>: it has no kd"):
        family_of(tmp_path, arm(tmp_path, integrated), entry("kd", "a", "scale", [0.5, 2]))
