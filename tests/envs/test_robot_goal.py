"""What is to be brought to a target, its position and its orientation, against plain MuJoCo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from metarl.envs.batch import BatchedEnv
from metarl.envs.family import TaskFamily
from tests.envs.own_robot.families import family_of, written

ARM = """<mujoco model="arm"><compiler angle="radian"/><option timestep=".005" integrator="implicitfast"/>
  <default><joint armature=".01" damping=".1"/></default><worldbody>
  <geom name="table" type="box" size="1 1 .1" pos="0 0 -.1"/>
  <body name="turret" pos="0 0 .06"><joint name="pan" axis="0 0 1" range="-2 2"/><geom size=".03" mass="1"/>
    <body name="upper"><joint name="lift" axis="0 1 0" range="-2 2"/>
      <geom type="capsule" size=".02" fromto=".05 0 0 .3 0 0" mass=".5"/>
      <body name="hand" pos=".32 0 0"><joint name="twist" axis="1 0 0" range="-2 2"/>
        <geom name="hand" type="box" size=".02 .05 .03" mass=".1"/><site name="tip" pos=".05 0 0" euler="0 1.2 .3"/>
      </body></body></body>
  <body name="box" pos=".32 .11 .03"><freejoint name="box"/>
    <geom name="box" type="box" size=".04 .04 .03" mass=".1"/></body>
  </worldbody><actuator><position joint="pan" kp="30" kv="2" ctrlrange="-2 2"/>
    <position joint="lift" kp="60" kv="3" ctrlrange="-2 2"/><position joint="twist" kp="5" kv=".3" ctrlrange="-2 2"/>
  </actuator></mujoco>"""
FIRST = np.array([0.5, 0.5, -0.5, 0.5])
"""The target's orientation before parameters turn it."""
GOAL = {"effector": "tip", "position": [0.3, 0.1, 0.2]}


def told(quantity: str, low: float = -3, high: float = 3) -> dict[str, Any]:
    return {"name": f"its_{quantity}", "quantity": quantity, "distribution": "uniform", "range": [low, high]}


def arm(folder: Path, *quantities: str, goal: dict[str, Any], **said: Any) -> TaskFamily:
    reward = {"distance": 1, "orientation_error": 1}
    return family_of(folder, written(folder, ARM), *map(told, quantities), goal=goal, **{"reward": reward, **said})


def stepped(family: TaskFamily, values: dict[str, float], steps: int = 40) -> tuple[BatchedEnv, mujoco.MjData]:
    """The env after actions that swing the arm into the box, and plain MuJoCo after the same control signals."""
    env = BatchedEnv(family, 1, 1, 1)
    env.set_tasks([family.task(values)])
    env.reset([np.random.default_rng(0)])
    model = mujoco.MjModel.from_xml_string(ARM)
    data, rng = mujoco.MjData(model), np.random.default_rng(1)
    data.qpos[:] = env._state.qpos[0]
    for t in range(steps):
        action = np.array([1.2 * min(1.0, t / 20), 0.05, 0.8]) + 0.05 * rng.normal(size=3)
        env.step(action[None, None])
        data.ctrl[:] = family.command(action)
        mujoco.mj_step(model, data, nstep=family.frame_skip)
    return env, data


def about(axis: int, angle: float) -> np.ndarray:
    quat, direction = np.zeros(4), np.eye(3)[axis]
    mujoco.mju_axisAngle2Quat(quat, direction, angle)
    return quat


def product(*quats: np.ndarray) -> np.ndarray:
    whole = np.array([1.0, 0, 0, 0])
    for quat in quats:
        mujoco.mju_mulQuat(whole, whole.copy(), quat)
    return whole


def matrix(quat: np.ndarray) -> np.ndarray:
    flat = np.zeros(9)
    mujoco.mju_quat2Mat(flat, quat)
    return flat.reshape(3, 3)


def angle_between(turn: np.ndarray, aim: np.ndarray) -> float:
    """rad, of matrices [3, 3] or [9], by MuJoCo's difference of quaternions."""
    quats, difference = np.zeros((2, 4)), np.zeros(3)
    for quat, flat in zip(quats, (turn, aim), strict=True):
        mujoco.mju_mat2Quat(quat, np.ravel(flat))
    mujoco.mju_subQuat(difference, *quats)
    return float(np.linalg.norm(difference))


def term(env: BatchedEnv, name: str, kind: str = "rewards") -> np.ndarray:
    """A term of the reward or of the observation, or a measure, of the state."""
    return np.asarray(getattr(env.family, kind)[name].function(env.family.seen(env._state)))[0]


ANGLES = {"goal_roll": 0.4, "goal_pitch": -0.7, "goal_yaw": 1.9}


@pytest.mark.parametrize("orientation", [None, FIRST.tolist()])
@pytest.mark.parametrize("varied", [tuple(ANGLES), ("goal_yaw",), ("goal_roll", "goal_pitch")])
def test_the_pose_of_an_effector_and_of_its_target_are_mujocos(orientation, varied, tmp_path):
    goal = GOAL if orientation is None else {**GOAL, "orientation": orientation}
    observation = ["effector_position", "effector_orientation", "goal", "goal_orientation"]
    family = arm(tmp_path, "goal_x", *varied, goal=goal, observation=observation)
    values = {f"its_{name}": ANGLES[name] for name in varied} | {"its_goal_x": 0.4}
    env, data = stepped(family, values)
    roll, pitch, yaw = (ANGLES[name] if name in varied else 0.0 for name in ANGLES)
    first = np.array([1.0, 0, 0, 0]) if orientation is None else FIRST
    aim = matrix(product(about(2, yaw), about(1, pitch), about(0, roll), first))
    tip, place = data.site("tip"), np.array([0.4, 0.1, 0.2])
    np.testing.assert_allclose(term(env, "goal_orientation", "observation"), aim[:, :2].T.ravel(), atol=1e-9)
    np.testing.assert_allclose(term(env, "goal", "observation"), place)
    axes = tip.xmat.reshape(3, 3)[:, :2].T.ravel()
    np.testing.assert_allclose(term(env, "effector_orientation", "observation"), axes, atol=1e-9)
    np.testing.assert_allclose(term(env, "effector_position", "observation"), tip.xpos, atol=1e-9)
    assert term(env, "distance") == pytest.approx(np.linalg.norm(tip.xpos - place), abs=1e-9)
    assert angle_between(tip.xmat, aim) > 0.3
    for name, kind in (("orientation_error", "rewards"), ("angle_to_target", "measures")):
        assert term(env, name, kind) == pytest.approx(angle_between(tip.xmat, aim), abs=1e-6)
    assert [criterion.measure for criterion in family.success] == ["distance_to_target", "angle_to_target"]


def test_an_object_is_where_plain_mujoco_pushes_it(tmp_path):
    goal = {**GOAL, "object": "box", "orientation": [1, 0, 0, 0]}
    reward = {"distance": 1, "object_distance": 1, "orientation_error": 1, "reach": {"weight": 1, "width": 0.3}}
    seen = ["object_position", "object_orientation"]
    family = arm(tmp_path, "goal_x", "goal_yaw", goal=goal, reward=reward, observation=seen)
    env, data = stepped(family, {"its_goal_x": 0.2, "its_goal_yaw": 0.5})
    np.testing.assert_allclose(env._state.qpos[0], data.qpos, atol=1e-9)
    box, start = data.body("box"), np.array([0.32, 0.11, 0.03])
    assert np.linalg.norm(box.xpos - start) > 0.05 and angle_between(box.xmat, np.eye(3)) > 0.1
    target, aim = np.array([0.2, 0.1, 0.2]), matrix(about(2, 0.5))
    gap = np.linalg.norm(box.xpos - target)
    assert term(env, "distance") == pytest.approx(gap, abs=1e-9)
    assert term(env, "distance_to_target", "measures") == pytest.approx(gap, abs=1e-9)
    assert term(env, "reach") == pytest.approx(np.exp(-gap / 0.3), abs=1e-9)
    assert term(env, "object_distance") == pytest.approx(np.linalg.norm(data.site("tip").xpos - box.xpos), abs=1e-9)
    assert term(env, "orientation_error") == pytest.approx(angle_between(box.xmat, aim), abs=1e-6)
    np.testing.assert_allclose(term(env, "object_position", "observation"), box.xpos, atol=1e-9)
    axes = box.xmat.reshape(3, 3)[:, :2].T.ravel()
    np.testing.assert_allclose(term(env, "object_orientation", "observation"), axes, atol=1e-9)


def test_a_picture_shows_the_targets_axes(tmp_path):
    family = arm(tmp_path, "goal_yaw", goal={**GOAL, "orientation": FIRST.tolist()})
    plain, picture = family.base().compile(), family.picture(family.task({"its_goal_yaw": 0.5})).compile()
    aim = matrix(product(about(2, 0.5), FIRST))
    turned = [picture.geom(g) for g in range(picture.ngeom) if picture.geom_size[g, 0] == 0.006]
    assert len(turned) == 3 and picture.ngeom == plain.ngeom + 4
    for geom, axis in zip(turned, aim.T, strict=True):
        np.testing.assert_allclose(geom.pos, np.array(GOAL["position"]) + 0.05 * axis, atol=1e-9)
        assert abs(matrix(geom.quat)[:, 2] @ axis) == pytest.approx(1)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"goal": GOAL},
            "orientation_error.*target has no orientation; give one by goal: {orientation: .*goal_yaw",
        ),
        ({"goal": {**GOAL, "orientation": [1, 1, 0, 0]}}, r"\[1.0, 1.0, 0.0, 0.0\] is no unit quaternion"),
        (
            {"goal": {**GOAL, "object": "bix"}},
            "goal.object: site or body 'bix' is not in .* did you mean 'box'",
        ),
        (
            {"goal": {**GOAL, "orientation": [1, 0, 0, 0]}, "observation": ["object_orientation"]},
            "it moves no object; name one by goal: {object: BODY}",
        ),
    ],
)
def test_what_a_target_lacks_is_named(said, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        arm(tmp_path, **said)


def test_a_turned_target_that_nothing_reaches_for_is_refused(tmp_path):
    model = written(tmp_path, ARM)
    with pytest.raises(ValueError, match="its_goal_yaw is of a target; say what reaches for it by goal"):
        family_of(tmp_path, model, told("goal_yaw"))


@pytest.mark.parametrize(
    ("drawn", "reward", "missing"),
    [
        ("goal_y", "object_distance", "reach or distance"),
        ("goal_z", "orientation_error", "reach or distance"),
        ("goal_yaw", "reach", "orientation_error"),
        ("goal_roll", "distance", "orientation_error"),
    ],
)
def test_a_target_that_no_reward_term_asks_for_is_refused(tmp_path: Path, drawn: str, reward: str, missing: str):
    """A policy would be judged by what its reward never mentions."""
    goal = {**GOAL, "object": "box"}
    with pytest.raises(ValueError, match=rf"no reward term asks for 'its_{drawn}' \({drawn}\); add {missing}$"):
        arm(tmp_path, drawn, goal=goal, reward={reward: 1})


def test_a_function_of_ones_own_may_ask_for_any_target_and_command(tmp_path: Path):
    (tmp_path / "own.py").write_text(
        "def rate(state):\n    return state.task['its_goal_yaw'] * state.task['its_command_x']\n"
    )
    reward = {"rate": {"term": "python", "function": str(tmp_path / "own.py") + ":rate", "weight": 1}}
    family = arm(tmp_path, "goal_yaw", "command_x", goal=GOAL, reward=reward)
    env = BatchedEnv(family, 1, 1, 1)
    env.set_tasks([family.task({"its_goal_yaw": 0.5, "its_command_x": 3.0})])
    env.reset([np.random.default_rng(0)])
    assert env.step(np.zeros((1, 1, 3))).rewards.item() == pytest.approx(1.5)
