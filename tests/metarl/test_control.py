"""Actions and control signals: what a robot is told is what the simulation writes, of every family and on every way."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mujoco
import numpy as np
import pytest
import yaml

from metarl.agents import beliefs
from metarl.agents.registry import AGENT_SETTINGS
from metarl.deployment import export
from metarl.envs.batch import BatchedEnv
from metarl.envs.control import read_signals
from metarl.envs.family_settings import FamilySettings
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import FAMILY_SETTINGS, make_family
from metarl.envs.robots.quadruped_robot import JOINTS, QuadrupedFigures
from metarl.envs.robots.quadruped_settings import QuadrupedSettings
from metarl.envs.sharded import ShardedEnv
from tests.metarl.control_loop import loop
from tests.metarl.test_controller import make_run

HOME = 1.0
ARM = """<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <body name="boom" pos="0 0 1"><joint name="lift" {joint} damping="0.1"/>
      <geom name="boom" type="capsule" size="0.03" fromto="0 0 0 0.5 0 0" mass="0.4" contype="0"/></body>
  </worldbody>
  {tendon}
  <actuator>{motor}</actuator>
  <keyframe><key name="home" qpos="1.0"/></keyframe>
</mujoco>"""
HINGE, SLIDE = 'axis="0 -1 0" range="-2 2"', 'type="slide" axis="1 0 0" range="-2 2"'
MOTORS = {
    "position": '<position name="lift" joint="lift" kp="200" kv="10" ctrlrange="-2 2"/>',
    "position without a range": '<position name="lift" joint="lift" kp="200" kv="10"/>',
    "position, narrow range": '<position name="lift" joint="lift" kp="200" kv="10" ctrlrange="0.9 1.05"/>',
    "position, rescaled": '<general name="lift" joint="lift" ctrlrange="0 255" gainprm="3.137" biastype="affine" '
    'biasprm="-400 -200 -10"/>',
    "velocity": '<velocity name="lift" joint="lift" kv="5" ctrlrange="-3 3"/>',
    "motor": '<motor name="lift" joint="lift" gear="2" ctrlrange="-4 4"/>',
    "motor, one-sided": '<motor name="lift" joint="lift" ctrlrange="0 6"/>',
    "motor without a name": '<motor joint="lift" ctrlrange="-4 4"/>',
}
"""The motor of an arm, held level by 0.98 N m, at home at 1 rad."""
ADDED = {
    "added position": {"kind": "position", "kp": 200, "kd": 10},
    "added velocity": {"kind": "velocity", "kd": 5, "speed": 3},
    "added motor": {"kind": "motor", "force": 4},
}
"""Motors that the declaration adds to an arm without any."""


def arm(folder: Path, motor: str, horizon: int = 25) -> RobotSettings:
    """An own robot in files, its start free of noise."""
    declared = {
        "reward": {"home_cost": 1},
        "observation": ["joint_positions", "joint_velocities"],
        "episode": {"horizon": horizon, "position_noise": 0, "velocity_noise": 0},
        "distribution": [
            {"name": "load", "target": "boom", "quantity": "mass", "operation": "scale", "distribution": "uniform"}
            | {"range": [0.9, 1.1]}
        ],
    }
    if motor in ADDED:
        declared["robot"] = {"actuators": ADDED[motor]}
    model, file = folder / "arm.xml", folder / "arm.yaml"
    model.write_text(ARM.format(joint=HINGE, tendon="", motor=MOTORS.get(motor, "")))
    file.write_text(yaml.safe_dump(declared))
    return RobotSettings(str(model), str(file))


CASES = [*FAMILY_SETTINGS, *MOTORS, *ADDED]


@pytest.fixture(params=CASES)
def settings(request, tmp_path) -> FamilySettings:
    """Of every family, and of small own robots."""
    name = request.param
    return FAMILY_SETTINGS[name]() if name in FAMILY_SETTINGS else arm(tmp_path, name)


def written(family, tasks, actions) -> list[np.ndarray]:
    """What a control step writes into the simulation of each task for actions [M, act]: [nu]."""
    env = ShardedEnv(family, len(tasks), 1, threads=1, at_once=1)
    env.set_tasks(tasks)
    env.reset([np.random.default_rng(m) for m in range(len(tasks))])
    env.step(actions[:, None])
    signals = {}
    for shard, index in zip(env.shards, env.indices, strict=True):
        displaced = family.name == "point_goal"  # it has no motors, and moves by qvel dt
        rows = shard.simulation.bind("qvel") * shard.dt if displaced else shard.simulation.bind("ctrl")
        signals |= dict(zip(index.tolist(), rows.copy(), strict=True))
    return [signals[m] for m in range(len(tasks))]


@pytest.mark.parametrize("reach", [0.5, 4.0], ids=["inside", "outside"])
def test_the_command_is_what_the_simulation_writes_and_what_the_file_gives(settings, reach):
    """For actions inside and outside of their bounds, on tasks of every split, and for the policy's own in ONNX."""
    run = make_run("maml", settings)
    family, rng = run.family, np.random.default_rng(0)
    tasks = [task for split in family.splits for task in family.sample(2, rng, split)]
    span = np.maximum(np.abs(family.action_low), np.abs(family.action_high)) / family.action_scale
    actions = (reach * span * rng.uniform(-1, 1, (len(tasks), family.action_size))).astype(np.float32)
    controller = run.start()
    for action, signals in zip(actions, written(family, tasks, actions), strict=True):
        command = controller.command(action)
        np.testing.assert_array_equal(signals, command[: len(signals)], strict=True)
        low, high = family.control.ranges.T
        assert (low - 1e-9 <= command).all() and (command <= high + 1e-9).all()
    belief = beliefs.load(
        run.agent, {"parameters": run.agent.theta[None] * (10 if reach > 1 else 1), "steps": 1, "rule": {}}
    )
    policy = run.agent.deployable(belief)
    session = export.ExportedPolicy(export.to_onnx(policy, family, export.describe_policy(run, policy, belief)))
    action, command = session.act(observation=rng.normal(size=family.observation_size))
    signals = written(family, tasks[:1], action[None])[0]
    np.testing.assert_allclose(command[: len(signals)], signals, rtol=1e-5, atol=1e-5)
    about = session.about["command"]
    assert len(about["names"]) == len(about["kinds"]) == len(about["units"]) == family.action_size == len(command)


@pytest.mark.parametrize(
    ("motor", "expected"),
    {  # control signals of the actions -9, 0, 0.1 and 9, by hand
        "position": (-2.0, HOME, HOME + 0.1, 2.0),
        "position without a range": (HOME - np.pi, HOME, HOME + 0.1, HOME + np.pi),
        "position, narrow range": (0.9, HOME, 1.05, 1.05),
        "velocity": (-3.0, 0.0, 0.3, 3.0),
        "motor": (-4.0, 0.0, 0.4, 4.0),
        "motor, one-sided": (0.0, 0.0, 0.6, 6.0),
        "added position": (-2.0, HOME, HOME + 0.1, 2.0),
        "added velocity": (-3.0, 0.0, 0.3, 3.0),
        "added motor": (-4.0, 0.0, 0.4, 4.0),
    }.items(),
)
def test_control_signals_of_an_own_arm(motor, expected, tmp_path):
    run = make_run("maml", arm(tmp_path, motor))
    commands = [run.start().command(np.array([action]))[0] for action in (-9, 0, 0.1, 9)]
    np.testing.assert_allclose(commands, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("agent", "motor"),
    [*((agent, "position") for agent in AGENT_SETTINGS), *(("ppo", motor) for motor in MOTORS if motor != "position")],
)
def test_an_arm_that_is_driven_in_plain_mujoco_goes_where_it_goes_in_metarl(agent, motor, tmp_path):
    """The user's own model file, the file of the policy, the loop of docs/ with its metadata: no metarl in between."""
    run = make_run(agent, arm(tmp_path, motor))
    export.export_run(run, tmp_path / "p.onnx")
    policy = loop().Policy(tmp_path / "p.onnx")
    env = BatchedEnv(run.family, 1, 1, threads=1)
    controller = run.start(adaptations=0, explore="never")
    observation = env.reset([np.random.default_rng(0)])[0, 0]

    model = mujoco.MjModel.from_xml_path(str(tmp_path / "arm.xml"))
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
    about, reward, action = policy.about, 0.0, np.zeros(1)
    assert about["observation"]["names"] == ["lift - home", "lift_velocity"]
    for t in range(about["horizon"]):
        sensed = [data.qpos[0] - about["home"]["lift"], data.qvel[0]]
        data.ctrl[:] = policy.act(np.array(sensed), reward, start=t == 0)
        mujoco.mj_step(model, data, round(about["dt"] / model.opt.timestep))
        action = controller.act(observation)
        step = env.step(action[None, None])
        observation, reward = step.observations[0, 0], float(step.rewards[0, 0])
        controller.observe(reward, False, bool(step.truncated[0, 0]))
    np.testing.assert_allclose(data.qpos, env.simulation.batch.qpos[0], atol=1e-4)
    np.testing.assert_allclose(data.qvel, env.simulation.batch.qvel[0], atol=1e-3)
    asked = policy.targets(data.ctrl)
    np.testing.assert_allclose(asked, run.family.control.targets(data.ctrl))
    if motor == "position":
        np.testing.assert_allclose(data.ctrl, HOME + np.clip(action, -3, 1), atol=1e-5)  # drawn to home, not to 0
        np.testing.assert_array_equal(asked, data.ctrl)


MEANINGS = {
    "position": ("position", HINGE, MOTORS["position"], 0.7, "rad"),
    "position of a slide": ("position", SLIDE, MOTORS["position"], 0.3, "m"),
    "geared position": (
        "position",
        HINGE,
        '<position name="lift" joint="lift" kp="20" kv="0.5" gear="3" ctrlrange="-6 6"/>',
        2.4,
        "rad",
    ),
    "filtered position": (
        "position",
        HINGE,
        '<position name="lift" joint="lift" kp="200" kv="10" timeconst="0.1" ctrlrange="-2 2"/>',
        0.7,
        "rad",
    ),
    "rescaled position": ("position", HINGE, MOTORS["position, rescaled"], 180.0, "rad"),
    "velocity": ("velocity", HINGE, MOTORS["velocity"], 0.4, "rad/s"),
    "geared velocity": ("velocity", SLIDE, '<velocity name="lift" joint="lift" kv="5" gear="-2"/>', 0.4, "m/s"),
    "integrated velocity": (
        "velocity",
        SLIDE,
        '<intvelocity name="lift" joint="lift" kp="200" kv="10" gear="2" actrange="-9 9"/>',
        0.4,
        "m/s",
    ),
    "motor": ("force", HINGE, MOTORS["motor"], -0.3, "N m"),
    "motor of a slide": ("force", SLIDE, MOTORS["motor"], -0.3, "N"),
    "force with a bias": (
        "force",
        HINGE,
        '<general name="lift" joint="lift" gainprm="3" biastype="affine" biasprm="1 0 0" gear="2"/>',
        0.1,
        "N m",
    ),
}


@pytest.mark.parametrize("name", MEANINGS)
def test_what_a_signal_asks_of_its_joint_is_what_the_joint_does(name):
    """A signal that is held, without gravity: the joint goes there, turns so fast, or feels that torque."""
    kind, joint, motor, signal, unit = MEANINGS[name]
    spec = mujoco.MjSpec.from_string(ARM.format(joint=joint, tendon="", motor=motor))
    spec.option.gravity = (0, 0, 0)
    spec.joint("lift").damping = [0.0] * 3 if kind == "velocity" else spec.joint("lift").damping
    spec.joint("lift").limited = False
    model = spec.compile()
    signals = read_signals(model, kind)
    data = mujoco.MjData(model)
    data.ctrl[:] = signal
    mujoco.mj_step(model, data, nstep=2000)
    did = {"position": data.qpos, "velocity": data.qvel, "force": data.qfrc_actuator}[kind]
    np.testing.assert_allclose(signals.targets(np.array([signal])), did, rtol=1e-4)
    assert (signals.names, signals.joints, signals.units) == (("lift",), ("lift",), (unit,))


def test_of_a_tendon_or_a_muscle_no_unit_is_claimed():
    tendon = '<tendon><fixed name="cable"><joint joint="lift" coef="2"/></fixed></tendon>'
    motors = '<motor name="pull" tendon="cable"/><muscle name="biceps" joint="lift" lengthrange="-1 1"/>'
    model = mujoco.MjModel.from_xml_string(ARM.format(joint=HINGE, tendon=tendon, motor=motors))
    signals = read_signals(model, ("force", "muscle"))
    assert (signals.joints, signals.units) == (("", "lift"), ("1", "1"))
    np.testing.assert_array_equal(signals.targets(np.array([0.3, 0.4])), [0.3, 0.4])


def test_the_quadrupeds_command_is_said_to_be_an_offset_from_home():
    """Its servos hold home at signal 0, which a driver must not take for the angle 0."""
    control = make_family(QuadrupedSettings()).control
    home = np.tile(QuadrupedFigures().home, 4)
    assert set(control.kinds) == {"position from home"} and set(control.units) == {"rad"} and control.names == JOINTS
    np.testing.assert_allclose(control.targets(np.zeros(12)), home)
    np.testing.assert_allclose(control.targets(np.full(12, 0.1)), home + 0.1)
    assert [control.home[joint] for joint in control.joints] == home.tolist()


def test_signals_of_another_number_than_actions_are_refused():
    family = make_family(QuadrupedSettings())
    with pytest.raises(ValueError, match="'quadruped': 3 actions, but control signals of 12 motors: FR_hip, FR_thigh"):
        dataclasses.replace(family, action_low=np.zeros(3), action_high=np.ones(3))


def test_a_file_of_another_format_is_refused_by_the_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "FORMAT", 1)
    export.export_run(make_run("maml"), tmp_path / "p.onnx")
    with pytest.raises(ValueError, match="p.onnx has format 1, this loop reads 3: export it anew"):
        loop().Policy(tmp_path / "p.onnx")
