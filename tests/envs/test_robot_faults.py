"""Faults that the file of one's own robot declares."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from metarl.envs.own_robot.family import check_robot
from metarl.envs.own_robot.settings import EXAMPLE, RobotSettings
from metarl.envs.registry import make_family
from metarl.reporting.catalogue import fault_lines
from tests.envs.own_robot.families import HOME, arm, declared, family_of

CRAWLER = f"{EXAMPLE}.xml"
LEGS = {"front_left": ["fl_hip", "fl_knee"], "rear_left": ["rl_hip", "rl_knee"]}
MOTOR = '<motor name="elbow_drive" joint="lift" ctrlrange="-1 1"/>'


def test_a_file_declares_what_settings_do(tmp_path: Path):
    faults = {
        "kinds": ["dead", "encoder_offset"],
        "share": 0.75,
        "places": ["front_left", ".*_knee"],
        "groups": LEGS,
        "held_out": ["rear_left"],
        "severity": [0.25, 0.5],
        "onset": [10, 20],
        "duration": [5, 5],
        "repeats": 1,
        "pause": [7, 9],
    }
    file = declared(tmp_path, faults=faults)
    family = make_family(RobotSettings(CRAWLER, file))
    same = declared(tmp_path, faults={"groups": LEGS})
    settings = RobotSettings(
        CRAWLER,
        same,
        faults=("dead", "encoder_offset"),
        fault_share=0.75,
        fault_places=("front_left", ".*_knee"),
        fault_held_out=("rear_left",),
        fault_severity=(0.25, 0.5),
        fault_onset=(10, 20),
        fault_duration=(5, 5),
        fault_repeats=1,
        fault_pause=(7, 9),
    )
    by_settings = make_family(settings)
    for split in ("train", "held_out"):
        tasks = family.sample(20, np.random.default_rng(0), split)
        assert tasks == by_settings.sample(20, np.random.default_rng(0), split)
    assert fault_lines(family) == fault_lines(by_settings)
    assert fault_lines(family)[1].endswith("at front_left, fl_knee, fr_knee, rr_knee; held out: rl_knee")
    group = family.task({"fault_kind": 1.0, "fault_place": 1.0})
    model = family.compile(group)
    assert {model.joint(model.actuator_trnid[i, 0]).name for i in range(8) if not model.actuator_gear[i].any()} == {
        "fl_hip",
        "fl_knee",
    }


SERVO = '<position name="lift" joint="lift" kp="100" kv="5" ctrlrange="-2 2"/>'


def test_signals_that_come_later_are_at_first_those_that_hold_home(tmp_path: Path):
    """With an own delay beside the fault's, and without one."""
    for control in ({}, {"delay": 0.01}):
        keys = {"faults": {"kinds": ["delay"], "severity": [0.5, 0.5]}, "control": control}
        family = family_of(tmp_path, arm(tmp_path, SERVO), **keys)
        env = BatchedEnv(family, 1, 1, threads=1)
        env.set_tasks([family.task({"fault_kind": 1.0, "fault_place": 1.0, "fault_severity": 0.5})])
        env.reset([np.random.default_rng(0)])
        for _ in range(5):
            env.step(np.zeros((1, 1, 1)))
            assert abs(float(env._state.qpos[0, 0]) - HOME) < 0.05


def test_a_file_may_declare_faults_of_held_out_tasks_alone(tmp_path: Path):
    declared_faults = {"kinds": ["dead"], "held_out": [".*"], "onset": [50, 50]}
    family = make_family(RobotSettings(CRAWLER, declared(tmp_path, faults=declared_faults)))
    for task in family.sample(20, np.random.default_rng(0)):
        assert task.values["fault_kind"] == task.values["fault_place"] == 0 and not task.changes
    tasks = family.sample(60, np.random.default_rng(0), "held_out")
    assert {[(c.step, c.values["fault_kind"]) for c in task.changes] == [(50, 1.0)] for task in tasks} == {True}
    assert {task.changes[0].values["fault_place"] for task in tasks} == set(range(1, 9))


def test_settings_replace_the_faults_of_the_file(tmp_path: Path):
    file = declared(tmp_path, faults={"kinds": ["dead"]})
    assert fault_lines(make_family(RobotSettings(CRAWLER, file)))[1].startswith("faults: dead")
    assert fault_lines(make_family(RobotSettings(CRAWLER, file, faults=("locked",))))[1].startswith("faults: locked")


def test_faults_may_be_all_that_varies_and_an_actuator_has_its_own_name(tmp_path: Path):
    model = arm(tmp_path, MOTOR)
    file = tmp_path / "family.yaml"
    file.write_text("distribution: []\nreward: {home_cost: 1}\nfaults: {kinds: [weak], places: [elbow_drive]}\n")
    _, family = check_robot(model, str(file))
    assert family is not None
    assert [p.name for p in family.parameters] == ["fault_kind", "fault_place", "fault_severity"]
    assert family.parameters[1].names == ("nowhere", "lift")


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"kinds": ["ded"]}, r"faults.kinds\[0\] is 'ded'; did you mean 'dead'"),
        ({"kind": ["dead"]}, "unknown key 'faults.kind'; did you mean 'kinds'"),
        ({"kinds": ["dead"], "places": ["fl_kne"]}, "faults.places has 'fl_kne', .* did you mean 'fl_knee'"),
        ({"kinds": ["dead"], "places": ["legs"], "groups": {"leg": ["fl_hip"]}}, "'legs', .* did you mean 'leg'"),
        ({"groups": {"leg": []}}, "the group 'leg' is empty; name its joints"),
        ({"groups": {"leg": ["fl_hop"]}}, "the group 'leg' has 'fl_hop', .* did you mean 'fl_hip'"),
        ({"kinds": ["dead"], "severity": [0.5, 2]}, r"faults.severity\[1\] is 2; it must be at most 1"),
        ({"kinds": ["dead"], "onset": [9, 3]}, r"faults.onset is \[9, 3\]; it must be two numbers"),
        ({"kinds": ["dead"], "repeats": 2}, "faults.repeats is 2, but .*; give a faults.duration"),
        ({"kinds": ["stuck", "dead"], "share": 0}, "faults.share is 0; it must be greater than 0"),
    ],
)
def test_mistakes_are_named_as_in_the_file(tmp_path: Path, faults: dict, message: str):
    with pytest.raises(ValueError, match=f"family.yaml: .*{message}"):
        make_family(RobotSettings(CRAWLER, declared(tmp_path, faults=faults)))


def test_a_parameter_with_the_name_of_a_faults_parameter_is_refused(tmp_path: Path):
    gravity = {"name": "fault_kind", "quantity": "gravity", "operation": "scale", "distribution": "uniform"}
    file = declared(tmp_path, {**gravity, "range": [0.9, 1.1]}, faults={"kinds": ["dead"]})
    with pytest.raises(ValueError, match="has a parameter 'fault_kind', as its faults do; give it another name"):
        make_family(RobotSettings(CRAWLER, file))


ROTOR = '<motor name="elbow_drive" joint="lift" gear="10" armature=".01" damping=".02" ctrlrange="-1 1"/>'


@pytest.mark.parametrize("kind", ["dead", "weak"])
def test_a_dead_motor_keeps_its_rotor_and_gives_no_torque(kind: str, tmp_path: Path):
    path = arm(tmp_path, ROTOR)
    family = family_of(tmp_path, path, faults={"kinds": [kind], "severity": [0, 1]})
    model = family.compile(family.task({"fault_kind": 1.0, "fault_place": 1.0, "fault_severity": 1.0}))
    own = mujoco.MjModel.from_xml_path(path)
    for control in (0.0, 1.0):
        data, sound = mujoco.MjData(model), mujoco.MjData(own)
        for each, of in ((data, model), (sound, own)):
            each.qvel[0], each.ctrl[0] = 0.7, control if each is data else 0.0
            mujoco.mj_step(of, each)
        np.testing.assert_allclose(data.qpos, sound.qpos, rtol=1e-12)
        np.testing.assert_allclose(data.qvel, sound.qvel, rtol=1e-12)


@pytest.mark.parametrize("joint", ["", 'actuatorfrcrange="-50 50"'])
def test_a_stuck_servo_with_a_motor_beside_it_holds_its_joint(joint: str, tmp_path: Path):
    servo = '<position name="servo" joint="lift" kp="100" kv="5" ctrlrange="-2 2" forcerange="-50 50"/>'
    path = arm(tmp_path, servo + '<motor name="ahead" joint="lift" gear="1" ctrlrange="-.5 .5"/>', joint=joint)
    family = family_of(tmp_path, path, faults={"kinds": ["stuck"]})
    env = BatchedEnv(family, 1, 1, threads=1)
    env.set_tasks([family.task({"fault_kind": 1.0, "fault_place": 1.0})])
    env.reset([np.random.default_rng(0)])
    for _ in range(50):
        env.step(np.array([[[1.0, -1.0]]]))
    assert abs(float(env._state.qpos[0, 0]) - HOME) < 0.05


PULLEY = '<tendon><fixed name="t" actuatorfrcrange="-3 3"><joint joint="lift" coef="1"/></fixed></tendon>'
PULL = '<general name="pull" tendon="t" gear="2" gainprm="20" ctrlrange="-1 1"/>'


def force_at(family: TaskFamily, values: dict[str, float], signal: float, speed: float = 0.0) -> float:
    """The force of the first actuator."""
    model = family.compile(family.task(values))
    data = mujoco.MjData(model)
    data.ctrl[:], data.qvel[:] = signal, speed
    mujoco.mj_forward(model, data)
    return float(data.actuator_force[0])


@pytest.mark.parametrize("kind", ["weak", "saturated"])
def test_a_weak_actuator_has_less_of_its_tendons_limit(kind: str, tmp_path: Path):
    family = family_of(tmp_path, arm(tmp_path, PULL, home=0, tendon=PULLEY), faults={"kinds": [kind]})
    half = {"fault_kind": 1.0, "fault_place": 1.0, "fault_severity": 0.5}
    assert force_at(family, {}, 1.0) == pytest.approx(3) and force_at(family, half, 1.0) == pytest.approx(1.5)
    assert force_at(family, half, -1.0) == pytest.approx(-1.5)


@pytest.mark.parametrize("kind", ["dead", "weak", "saturated"])
def test_a_tendons_limit_that_actuators_share_is_no_fault_of_one(kind: str, tmp_path: Path):
    model = arm(tmp_path, PULL + PULL.replace('"pull"', '"other"'), home=0, tendon=PULLEY)
    with pytest.raises(ValueError, match="its tendon limits its force together with that of 'other'"):
        family_of(tmp_path, model, faults={"kinds": [kind], "places": ["pull"]})


FILTERED = '<general name="m" joint="lift" gainprm="10" dyntype="filter" dynprm=".05" ctrlrange="-1 1"/>'
BRAKED = '<general name="m" joint="lift" gainprm="10" biastype="affine" biasprm="0 0 -2" ctrlrange="-1 1"/>'


@pytest.mark.parametrize("actuator", [BRAKED, FILTERED.replace('"filter"', '"integrator"')])
def test_what_signals_do_not_limit_cannot_saturate_without_a_limit_of_its_own(actuator: str, tmp_path: Path):
    faults = {"kinds": ["saturated"], "severity": [0.5, 0.5]}
    with pytest.raises(ValueError, match="its actuator has no force limit"):
        family_of(tmp_path, arm(tmp_path, actuator, home=0), faults=faults)
    limited = actuator.replace("ctrlrange", 'forcerange="-30 30" ctrlrange')
    family = family_of(tmp_path, arm(tmp_path, limited, home=0), faults=faults)
    model = family.compile(family.neutral())
    np.testing.assert_array_equal(model.actuator_forcerange, [[-30, 30]])


def test_a_filtered_motor_and_one_with_back_emf_keep_what_signals_limit(tmp_path: Path):
    family = family_of(tmp_path, arm(tmp_path, FILTERED, home=0), faults={"kinds": ["saturated"]})
    np.testing.assert_array_equal(family.compile(family.neutral()).actuator_forcerange, [[-10, 10]])
    family = family_of(tmp_path, arm(tmp_path, BRAKED, home=0), faults={"kinds": ["stuck"]})
    assert force_at(family, {}, -1.0, speed=8.0) == pytest.approx(-26)
    stuck = family.compile(family.task({"fault_kind": 1.0, "fault_place": 1.0}))
    assert stuck.dof_frictionloss[0] == pytest.approx(10)


@pytest.mark.parametrize(
    ("actuator", "actions"),
    [
        ('<motor name="m" joint="lift" gear="5" ctrlrange="0 1"/>', {1.0: 0.5, 0.25: 0.0}),
        (SERVO.replace("-2 2", "-.2 1.6"), {-0.9: -0.45, -0.4: 0.0, 0.9: 0.45, 0.4: 0.0}),
    ],
)
def test_a_dead_band_is_a_share_of_the_largest_action_of_each_sign(
    actuator: str, actions: dict[float, float], tmp_path: Path
):
    home = HOME if "position" in actuator else 0.0
    family = family_of(tmp_path, arm(tmp_path, actuator, home=home), faults={"kinds": ["dead_band"]})
    env, rest = BatchedEnv(family, 1, 1, threads=1), float(family.command(np.zeros(1))[0])
    for severity, left in ((0.5, 1.0), (1.0, 0.0)):
        env.set_tasks([family.task({"fault_kind": 1.0, "fault_place": 1.0, "fault_severity": severity})])
        env.reset([np.random.default_rng(0)])
        for action, signal in actions.items():
            env.step(np.full((1, 1, 1), action))
            assert float(env._state.ctrl[0, 0]) == pytest.approx(rest + left * signal, abs=1e-6)


def test_what_has_actions_of_one_sign_cannot_be_reversed(tmp_path: Path):
    muscle = '<muscle name="m" joint="lift" lengthrange="-1 1" force="10"/>'
    with pytest.raises(ValueError, match="its actions are of one sign, and have no opposite"):
        family_of(tmp_path, arm(tmp_path, muscle, home=0), faults={"kinds": ["reversed"]})


@pytest.mark.parametrize("kind", ["reversed", "dead_band"])
def test_a_function_that_writes_signals_leaves_none_to_fail(kind: str, tmp_path: Path):
    (tmp_path / "acts.py").write_text("def held(state):\n    return state.action\n")
    control = {"actuator": {"function": "acts.py:held"}}
    with pytest.raises(ValueError, match=r"a function \(control.actuator\) writes its signal"):
        family_of(tmp_path, arm(tmp_path, SERVO), control=control, faults={"kinds": [kind]})
    family_of(tmp_path, arm(tmp_path, SERVO), control=control, faults={"kinds": ["weak", "delay", "locked"]})


@pytest.mark.parametrize("kind", ["dead", "weak", "stuck", "saturated", "reversed", "dead_band", "delay"])
def test_an_actuator_that_the_options_switch_off_cannot_fail(kind: str, tmp_path: Path):
    other = '<motor name="on" joint="lift" ctrlrange="-1 1"/>'
    for extra, said in (
        ('<option actuatorgroupdisable="2"/>', "disable actuators of group 2"),
        ('<option><flag actuation="disable"/></option>', "disable actuation"),
    ):
        path = arm(tmp_path, MOTOR.replace("<motor", '<motor group="2"'), extra=extra, home=0)
        with pytest.raises(ValueError, match=f"the model's options {said}"):
            family_of(tmp_path, path, faults={"kinds": [kind]})
    both = MOTOR.replace("<motor", '<motor group="2"') + other
    path = arm(tmp_path, both, extra='<option actuatorgroupdisable="2"/>', home=0)
    family_of(tmp_path, path, faults={"kinds": [kind]})
