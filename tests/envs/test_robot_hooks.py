"""Functions of the user's own in a robot's file: terms, ends and a model of the actuators, against plain MuJoCo."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest
import yaml

from metarl.cli import app as cli
from metarl.envs.batch import BatchedEnv
from metarl.envs.own_robot.settings import RobotSettings
from metarl.envs.registry import make_family

ARM = """<mujoco model="arm"><compiler angle="radian"/><option timestep=".005" integrator="Euler"/>
  <worldbody><body name="upper" pos="0 0 1"><joint name="shoulder" axis="0 1 0" damping=".5"/>
    <geom name="upper" type="capsule" size=".03" fromto="0 0 0 .4 0 0" mass="1"/>
    <body name="lower" pos=".4 0 0"><joint name="elbow" axis="0 0 1" damping=".5"/>
      <geom name="lower" type="capsule" size=".02" fromto="0 0 0 .3 0 0" mass=".5"/>
      <site name="tip" pos=".3 0 0"/></body></body></worldbody>
  <actuator><motor joint="shoulder" ctrlrange="-20 20"/><motor joint="elbow" ctrlrange="-20 20"/></actuator></mujoco>"""
CODE = """
import numpy as np

def squared_speed(state):
    return (state.qvel**2).sum(axis=1)

def tip(state):
    return state.site_xpos[:, state.models[0].site("tip").id]

def too_fast(state):
    return state.qvel[:, 0] > 1.5

def lagging(state):
    '''A motor whose torque comes after its target by a first-order lag.'''
    torque = state.memory["actuator"]
    torque += 0.3 * (8.0 * (state.action - state.qpos) - torque)
    return torque

def wrong(state):
    return state.qvel

def broken(state):
    return state.no_such_field_at_all[0]
"""
MASS = {
    "name": "m",
    "quantity": "mass",
    "target": "lower",
    "operation": "scale",
    "distribution": "uniform",
    "range": [1, 2],
}


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "arm.xml").write_text(ARM)
    (tmp_path / "terms.py").write_text(CODE)
    return tmp_path


def declared(folder: Path, **said) -> Path:
    file = folder / "arm.yaml"
    said = {"reward": {"alive": 1}, "distribution": [MASS], "episode": {"horizon": 40, "velocity_noise": 0}, **said}
    file.write_text(yaml.safe_dump(said, sort_keys=False))
    return file


def family_of(folder: Path, **said):
    return make_family(RobotSettings(str(folder / "arm.xml"), str(declared(folder, **said))))


def rollout(family, steps: int = 15):
    env = BatchedEnv(family, 1, 3, threads=1)
    env.reset([np.random.default_rng(0)])
    start = env._state.qpos.copy()
    actions = np.random.default_rng(1).uniform(-1, 1, (steps, 1, 3, 2))
    results = [env.step(action) for action in actions]
    return env, start, actions, results


def test_elements_of_own_functions_have_the_names_of_their_terms(own):
    tip = {"term": "python", "function": "terms.py:tip", "size": 3}
    family = family_of(own, observation={"near": tip, "far": tip}, privileged={"near": tip}, reward={"alive": 1})
    assert family.observation_names == tuple(f"{name}[{i}] [1]" for name in ("near", "far") for i in range(3))
    assert [element.name for element in family.privileged["near"].elements] == ["near[0]", "near[1]", "near[2]"]


@pytest.mark.parametrize("key", ["observation", "privileged"])
def test_two_elements_of_one_name_are_refused_and_those_of_other_names_are_not(own, key):
    twice = {"joint_velocities": None, "again": {"term": "joint_velocities"}}
    seen = {"observation": ["joint_positions"], "reward": {"alive": 1}}
    with pytest.raises(
        ValueError, match=key + r": '\w+_velocity' is an element of joint_velocities and of again; give"
    ):
        family_of(own, **seen | {key: twice})
    twice["again"]["names"] = ["first", "second"]
    family_of(own, **seen | {key: twice})


def test_terms_are_the_functions_values(own):
    family = family_of(
        own,
        observation={
            "tip": {"term": "python", "function": "terms.py:tip", "size": 3, "unit": "m"},
            "joint_velocities": None,
        },
        reward={"speed": {"term": "python", "function": "terms.py:squared_speed", "weight": 0.5}, "alive": 1},
    )
    assert family.observation_names[:3] == ("tip[0] [m]", "tip[1] [m]", "tip[2] [m]")
    env, _, _, results = rollout(family)
    for place in range(3):
        seen = results[-1].observations[0, place]
        assert results[-1].rewards[0, place] == pytest.approx(1 + 0.5 * (env._state.qvel[place] ** 2).sum(), rel=1e-5)
        np.testing.assert_allclose(seen[3:], env._state.qvel[place], rtol=1e-5)
        np.testing.assert_allclose(seen[:3], env._state.site_xpos[place, 0], rtol=1e-6)
    np.testing.assert_allclose(
        env.term_sums["speed"] + env.term_sums["alive"], np.sum([r.rewards[0] for r in results], axis=0), rtol=1e-5
    )


def test_an_episode_ends_where_the_function_says(own):
    family = family_of(own, termination={"function": "terms.py:too_fast"}, control={"action_scale": 20})
    _, _, _, results = rollout(family, 40)
    ended = np.array([r.terminated[0] for r in results])
    assert ended.any() and (ended.sum(axis=0) <= 1).all()


def test_a_model_of_the_actuators_acts_before_every_simulation_step(own):
    family = family_of(own, control={"actuator": {"function": "terms.py:lagging", "memory": 2}})
    assert family.frame_skip == 4 and family.control.kinds == ("action", "action")
    env, start, actions, _ = rollout(family)
    model = family.compile(family.neutral())
    for place in range(3):
        data = mujoco.MjData(model)
        data.qpos[:] = start[place]
        mujoco.mj_forward(model, data)
        torque = np.zeros(2)
        for action in actions[:, 0, place]:
            for _ in range(4):
                torque += 0.3 * (8.0 * (action - data.qpos) - torque)
                data.ctrl[:] = torque
                mujoco.mj_step(model, data)
        np.testing.assert_allclose(env._state.qpos[place], data.qpos, rtol=0, atol=1e-12)
    assert np.array_equal(family.command(np.array([0.5, -9.0])), family.applied(np.array([0.5, -9.0])))
    before = env._state.memory["actuator"].copy()
    env.reset([np.random.default_rng(0)])
    assert before.any() and not env._state.memory["actuator"].any()


def test_an_arm_is_to_turn_as_its_target(own):
    turned = [np.cos(0.35), 0.0, 0.0, np.sin(0.35)]  # 0.7 rad about z
    family = family_of(
        own,
        goal={"effector": "tip", "position": [0.5, 0.2, 1.0], "orientation": [float(x) for x in turned]},
        observation=["effector_orientation"],
        reward={"orientation_error": 1, "velocity_limits": {"weight": 1, "limit": 0.2}},
    )
    env, _, _, results = rollout(family)
    for place in range(3):
        matrix = env._state.site_xmat[place, 0].reshape(3, 3)
        np.testing.assert_allclose(results[-1].observations[0, place], matrix[:, :2].T.ravel(), rtol=1e-6)
        quat, difference, about = np.zeros(4), np.zeros(4), np.zeros(3)
        mujoco.mju_mat2Quat(quat, matrix.ravel())
        mujoco.mju_negQuat(difference, np.array(turned))
        mujoco.mju_mulQuat(difference, difference.copy(), quat)
        mujoco.mju_quat2Vel(about, difference, 1.0)
        beyond = np.clip(np.abs(env._state.qvel[place]) - 0.2, 0, 1).sum()
        assert results[-1].rewards[0, place] == pytest.approx(-np.linalg.norm(about) - beyond, rel=1e-5)


def reward_of(name: str) -> dict:
    return {"own": {"term": "python", "function": name, "weight": 1}}


WRONG = {
    "no file": ("nothing.py:f", "no file"),
    "no function": ("terms.py:nothing", "has no function 'nothing'"),
    "a module": ("os:getcwd", "name it as file.py:function"),
    "another shape": ("terms.py:wrong", "it must return an array of shape (1,), one row a robot"),
    "raises": ("terms.py:broken", "terms.py:broken failed: "),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_named(own, case):
    name, message = WRONG[case]
    with pytest.raises(ValueError, match="own.*|.*") as caught:
        BatchedEnv(family_of(own, reward=reward_of(name)), 1, 1)
    assert message in str(caught.value)


@pytest.mark.thorough
def test_only_what_the_user_has_named_is_run_and_only_as_it_was(own, capsys):
    file = declared(own, reward=reward_of("terms.py:squared_speed"))
    few = {"training.iterations": 1, "training.tasks": 2, "training.envs_per_task": 2, "agent.steps": 20}
    few |= {"evaluation.tasks": 2, "evaluation.envs_per_task": 1, "evaluation.seeds": 1, "tracking.wandb": "disabled"}
    tiny = [f"{name}={value}" for name, value in few.items()]
    command = ["train", "--agent", "ppo", "--robot", "arm.xml", "--family", str(file), "--name", "a", *tiny]
    assert cli.main(command) == 0
    assert "running the Python function" in capsys.readouterr().out
    assert str(own / "terms.py") in (own / "runs/a/robot" / "arm.yaml").read_text()
    assert cli.main(["evaluate", "runs/a"]) == 0
    (own / "terms.py").write_text(CODE + "\n# edited\n")
    capsys.readouterr()
    assert cli.main(["evaluate", "runs/a"]) == 2
    assert "no code that a run names is run before" in capsys.readouterr().err
    assert cli.main(["robot", "check", "arm.xml", "--family", str(file)]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", "runs/a"]) == 2
    assert "is not as the run was trained with it" in capsys.readouterr().err
